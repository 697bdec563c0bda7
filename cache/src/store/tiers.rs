//! The memory tier, and what may stand behind it.

use std::sync::Arc;
use std::task::{Context, Poll};

use http::HeaderMap;

use super::memory_tier::{Adopted, Inserted, Place};
use super::{At, Found, MemoryTier, StoredResponse};
use crate::disk::{Disk, Loaded, Loading, Look, Spool};
use crate::key::CacheKey;

/// A lookup asks the disk at most so often: for a URI, and for its variant. What memory has lost again by then is a miss.
const MAX_LOOKS: usize = 2;

/// Where responses are stored.
#[derive(Debug)]
pub(crate) struct Tiers {
    memory: MemoryTier,
    disk: Option<Disk>,
}

impl Tiers {
    pub(crate) fn new(memory: MemoryTier, disk: Option<Disk>) -> Self {
        Self { memory, disk }
    }

    pub(crate) fn memory(&self) -> &MemoryTier {
        &self.memory
    }

    pub(crate) fn disk(&self) -> Option<&Disk> {
        self.disk.as_ref()
    }

    /// What is in memory for a request of that key and those fields.
    pub(crate) fn find(&self, key: &CacheKey, request: &HeaderMap) -> Found {
        self.memory.find(key, request)
    }

    /// What is stored for it anywhere; `Err` where that takes a while. What is on the disk is taken into memory, unless memory has
    /// no place for it and it `serves` the request as it is: whatever else becomes of a response, it has to be in memory for that.
    pub(crate) fn look(
        &self,
        key: &CacheKey,
        request: &HeaderMap,
        serves: impl Fn(&StoredResponse) -> bool,
    ) -> Result<Found, Loading> {
        let mut found = self.memory.find(key, request);
        let Some(disk) = &self.disk else {
            return Ok(found);
        };
        for _ in 0..MAX_LOOKS {
            let missing = match &found {
                Found::Response(..) => break,
                Found::Nothing => At {
                    under: *key,
                    at: *key,
                },
                Found::NoVariant(at) => *at,
            };
            match disk.look(&missing.at) {
                Look::Here(Loaded::Response(response), changes)
                    if !self.memory.has_a_place_for(&missing.at, &response)
                        && response.is_sound()
                        && serves(&response)
                        && disk.changes_of(&missing.at) == changes =>
                {
                    return Ok(Found::Response(missing, response));
                }
                Look::Here(loaded, changes) => {
                    if !self.adopt(disk, missing.at, loaded, changes) {
                        break;
                    }
                }
                Look::Wait(loading) => return Err(loading),
            }
            found = self.memory.find(key, request);
        }
        Ok(found)
    }

    /// Waits for what a lookup has to wait for. Whether there was anything.
    pub(crate) fn poll_loading(&self, cx: &Context<'_>, loading: &Loading) -> Poll<bool> {
        let loaded = std::task::ready!(loading.poll(cx));
        let Some(disk) = &self.disk else {
            return Poll::Ready(false);
        };
        Poll::Ready(self.adopt(disk, *loading.key(), loaded, loading.changes()))
    }

    /// Takes in what was loaded when the key had changed so often. Whether there is something in memory now that was not before.
    fn adopt(&self, disk: &Disk, key: CacheKey, loaded: Loaded, changes: u64) -> bool {
        let is_current = || disk.changes_of(&key) == changes;
        let adopted = match loaded {
            Loaded::Nothing => Adopted::No,
            Loaded::Useless => Adopted::Useless,
            Loaded::Response(response) => self.memory.adopt(key, response, is_current),
            Loaded::Variants(names, generation) => self
                .memory
                .adopt_variants(key, names, generation, is_current),
        };
        if adopted == Adopted::Useless && is_current() {
            disk.clear_away(key);
        }
        adopted == Adopted::Yes
    }

    /// Where a response with `vary` to `request` is to be stored.
    pub(crate) fn place(
        &self,
        primary: &CacheKey,
        vary: &Arc<[http::HeaderName]>,
        request: &HeaderMap,
        response: &HeaderMap,
    ) -> Place {
        self.memory.place(primary, vary, request, response)
    }

    /// What is in memory in that place.
    pub(crate) fn stored_at(&self, place: &Place) -> Option<Arc<StoredResponse>> {
        self.memory.stored_at(place)
    }

    /// Stores a response unless it is too large.
    pub(crate) fn insert(&self, place: &Place, response: &Arc<StoredResponse>) -> bool {
        let in_memory = self.memory.insert(place, response);
        let Some(disk) = &self.disk else {
            return in_memory.is_some();
        };
        // Too large to be kept beside others, and yet small enough to have come whole.
        let is_in_memory = in_memory.is_some();
        let inserted = in_memory.unwrap_or_else(|| self.memory.reserve(place));
        Self::save_variants(disk, place, &inserted);
        disk.save(inserted.at, response);
        if !is_in_memory {
            // Somebody may have taken in the one before meanwhile.
            self.memory.forget(&inserted.at);
        }
        true
    }

    /// Stores what its origin has confirmed: the content is where it was. Under which key.
    pub(crate) fn insert_renewed(
        &self,
        place: &Place,
        response: &Arc<StoredResponse>,
    ) -> Option<CacheKey> {
        let inserted = self.memory.insert(place, response)?;
        if let Some(disk) = &self.disk {
            Self::save_variants(disk, place, &inserted);
            disk.renew(inserted.at, response);
        }
        Some(inserted.at)
    }

    /// Begins to write a response to the disk while it comes, which is too long to be kept in memory until it is complete.
    pub(crate) fn spool(
        self: &Arc<Self>,
        place: &Place,
        length: Option<u64>,
    ) -> Option<Arc<Spool>> {
        let disk = self.disk.as_ref()?;
        let reserved = self.memory.reserve(place);
        Self::save_variants(disk, place, &reserved);
        let (tiers, at) = (Arc::downgrade(self), reserved.at);
        disk.spool(at, length, move |loaded| {
            if let Some(tiers) = tiers.upgrade() {
                tiers.take_newer(at, loaded);
            }
        })
    }

    /// The disk has this under that key now: it is found in memory from here on, instead of what was there before.
    fn take_newer(&self, key: CacheKey, loaded: Loaded) {
        let Some(disk) = &self.disk else { return };
        disk.outdate(&key);
        self.memory.forget(&key);
        let changes = disk.changes_of(&key);
        // Whoever removes it notes so before counting a change.
        if !disk.is_changing(&key) {
            self.adopt(disk, key, loaded, changes);
        }
    }

    fn save_variants(disk: &Disk, place: &Place, inserted: &Inserted) {
        if let Some(variants) = &inserted.variants {
            disk.save_variants(place.primary(), &variants.names, variants.generation);
        }
    }

    /// Puts `renewed` in the place of `stored`, if that is still there.
    pub(crate) fn replace(
        &self,
        key: &CacheKey,
        stored: &Arc<StoredResponse>,
        renewed: &Arc<StoredResponse>,
    ) {
        if self.memory.replace(key, stored, renewed)
            && let Some(disk) = &self.disk
        {
            disk.renew(*key, renewed);
        }
    }

    /// Forgets what is stored for a URI, with all its variants.
    pub(crate) fn remove(&self, primary: &CacheKey) {
        if let Some(disk) = &self.disk {
            disk.remove(*primary);
        }
        self.memory.remove(primary);
    }

    /// Forgets what turned out to be damaged.
    pub(crate) fn forget(&self, key: &CacheKey) {
        if let Some(disk) = &self.disk {
            disk.clear_away(*key);
        }
        self.memory.forget(key);
    }

    /// Forgets that the disk has this response: it has it no more.
    pub(crate) fn forget_in_memory(&self, key: &CacheKey, response: &Arc<StoredResponse>) {
        self.memory.forget_this(key, response);
    }

    /// What is in memory was used: now and then the disk is told, so that it keeps what is in demand. Whether this use had to go to
    /// the disk.
    pub(crate) fn used(&self, key: &CacheKey, response: &StoredResponse) -> bool {
        let uses = response.count_use();
        if uses.is_power_of_two()
            && let Some(disk) = &self.disk
        {
            disk.touch(key);
        }
        response.is_from_disk(uses)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use http::StatusCode;

    use super::*;
    use crate::counters::CacheCounters;
    use crate::disk::Content;
    use crate::flights::test_time::at;
    use crate::policy::{Directives, Freshness, Terms};
    use crate::purge::{Epoch, Labels, Purges};
    use crate::store::{MemoryStore, Origin, ResponseHead, Store, StoredContent};

    const MIB: u64 = 1024 * 1024;

    fn key(number: u32) -> CacheKey {
        CacheKey::new("http", "example.com", &number.to_string())
    }

    /// Of 32 KiB.
    fn response() -> Arc<StoredResponse> {
        let head = Arc::new(ResponseHead {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
        });
        let wall = std::time::SystemTime::UNIX_EPOCH;
        let freshness = Freshness::of(head.status, &head.headers, Duration::ZERO, wall);
        let terms = Terms::of(&Directives::of(&head.headers), freshness);
        let blocks = vec![Bytes::from(vec![7; 32 * 1024])];
        let content = Arc::new(StoredContent::new(Content::Blocks(blocks), None));
        let origin = Origin {
            born: Epoch::default(),
            labels: Labels::of_target("example.com", "/"),
        };
        Arc::new(StoredResponse::new(head, content, terms, at(0), origin))
    }

    /// One MiB of memory, and a disk without delay on which so many responses are.
    fn with_stored(number: u32) -> (Tiers, Arc<CacheCounters>) {
        let counters = Arc::<CacheCounters>::default();
        let purges = Arc::new(Purges::in_memory(Arc::default()));
        let memory = MemoryTier::new(MIB, None, 0, purges, Arc::clone(&counters));
        let open = || Ok(Arc::new(MemoryStore::new(64 * MIB)) as Arc<dyn Store>);
        let disk = Disk::new(None, open, || (), MIB, &counters).unwrap();
        assert!(disk.wait_until_open(Duration::from_secs(10)));
        for number in 0..number {
            disk.save(key(number), &response());
        }
        disk.close(Duration::from_secs(10));
        (Tiers::new(memory, Some(disk)), counters)
    }

    fn look(tiers: &Tiers, number: u32, serves: bool) {
        let found = tiers.look(&key(number), &HeaderMap::new(), |_| serves);
        assert!(matches!(found, Ok(Found::Response(..))), "{number}");
    }

    #[test]
    fn what_is_asked_for_once_displaces_nothing_and_what_is_asked_for_again_is_taken_in() {
        let (tiers, counters) = with_stored(100);
        let is_in_memory = |number| {
            let found = tiers.find(&key(number), &HeaderMap::new());
            matches!(found, Found::Response(..))
        };
        look(&tiers, 0, true);
        assert!(is_in_memory(0), "there is room");
        for number in 1..60 {
            look(&tiers, number, true);
        }
        let evictions = counters.evictions.get();
        assert!(0 < evictions, "there is none any more");
        for number in 60..90 {
            look(&tiers, number, true);
        }
        assert_eq!(counters.evictions.get(), evictions);
        assert!(!is_in_memory(89));
        look(&tiers, 89, true);
        assert!(is_in_memory(89), "again");
        look(&tiers, 99, false);
        assert!(is_in_memory(99), "it does not do as it is");
    }
}
