//! The memory tier: what is stored for a request, by key and by variant. A hit is one or two lookups in a [`Table`] and no copy.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, HeaderName};
use parking_lot::Mutex;

use super::StoredResponse;
use super::doorkeeper::Doorkeeper;
use super::table::{Bounded, Table};
use crate::counters::{CacheCounters, Counter};
use crate::key::CacheKey;
use crate::policy::{Vary, variant};
use crate::purge::{Purged, Purges};

/// More variants of one URI than this are not kept: the least used one goes, and a lookup's work
/// stays bounded.
const MAX_VARIANTS: usize = 32;

/// Complete responses in memory.
#[derive(Debug)]
pub struct MemoryTier {
    table: Table<Entry>,
    doorkeeper: Doorkeeper,
    /// Held while the variants of a URI are rearranged; lookups never take it.
    rearranging: Mutex<()>,
    generations: AtomicU64,
    purges: Arc<Purges>,
    counters: Arc<CacheCounters>,
}

#[derive(Debug, Clone)]
enum Entry {
    Response(Arc<StoredResponse>),
    /// Under the primary key of a URI whose responses vary.
    Variants(Arc<Variants>),
}

/// Which fields select the variant of a URI, and which variants are stored.
#[derive(Debug, Clone)]
pub(super) struct Variants {
    pub(super) names: Arc<[HeaderName]>,
    /// Tells these variants from those that the URI had before it was forgotten or varied by other fields: they may still be
    /// somewhere, and must not come back.
    pub(super) generation: u64,
    keys: Vec<CacheKey>,
}

impl Variants {
    fn new(names: &Arc<[HeaderName]>, generation: u64) -> Self {
        Self {
            names: Arc::clone(names),
            generation,
            keys: Vec::new(),
        }
    }

    fn at(&self, primary: &CacheKey, request: &HeaderMap) -> At {
        let under = primary.variant(&self.names, request);
        At {
            under,
            at: under.of_generation(self.generation),
        }
    }
}

/// Where a response is to be stored.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    primary: CacheKey,
    /// The fields that select the variant; none where there is one response for all.
    names: Arc<[HeaderName]>,
    /// Its variant's key, or the primary one.
    pub(crate) key: CacheKey,
    /// The variant's key for a request that prefers the language it is in to all others.
    by_language: Option<CacheKey>,
}

impl Place {
    pub(super) fn primary(&self) -> CacheKey {
        self.primary
    }

    fn variant_keys(&self) -> impl Iterator<Item = CacheKey> {
        let by_language = self.by_language.filter(|key| *key != self.key);
        std::iter::once(self.key).chain(by_language)
    }

    /// Whether `names` are the fields that select it.
    pub(crate) fn is_selected_by(&self, names: &Arc<[HeaderName]>) -> bool {
        self.names == *names
    }
}

/// What is stored for a request, fresh or not.
#[derive(Debug)]
pub(crate) enum Found {
    /// This.
    Response(At, Arc<StoredResponse>),
    /// Nothing for the URI.
    Nothing,
    /// The URI varies, and this variant is not there.
    NoVariant(At),
}

/// Where the response to a request is, or would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct At {
    /// The key under which it is fetched: the primary one, or its variant's.
    pub(crate) under: CacheKey,
    /// The key under which it is stored.
    pub(crate) at: CacheKey,
}

/// What came of taking something in from the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Adopted {
    /// It is there now, or something newer.
    Yes,
    /// There is no place for it, or it was outdated meanwhile.
    No,
    /// Nobody can use it any more.
    Useless,
}

/// What came of storing a response.
#[derive(Debug)]
pub(super) struct Inserted {
    /// Where it is.
    pub(super) at: CacheKey,
    /// The variants of its URI, if they are others than before.
    pub(super) variants: Option<Arc<Variants>>,
}

impl MemoryTier {
    /// An empty tier of `capacity` bytes (0: stores nothing) that takes responses of up to
    /// `max_object` bytes. `seed` is any random number.
    pub(crate) fn new(
        capacity: u64,
        max_object: Option<u64>,
        seed: u64,
        purges: Arc<Purges>,
        counters: Arc<CacheCounters>,
    ) -> Self {
        Self {
            table: Table::new(capacity, max_object, Arc::clone(&counters)),
            doorkeeper: Doorkeeper::new(capacity),
            rearranging: Mutex::new(()),
            generations: AtomicU64::new(seed),
            purges,
            counters,
        }
    }

    /// What is stored for a request of that key and those fields, and not purged.
    pub(crate) fn find(&self, key: &CacheKey, request: &HeaderMap) -> Found {
        let variants = match self.table.get(key) {
            Some(Entry::Response(response)) if self.is_there(key, &response) => {
                let at = At {
                    under: *key,
                    at: *key,
                };
                return Found::Response(at, response);
            }
            Some(Entry::Variants(variants)) => variants,
            Some(Entry::Response(_)) | None => return Found::Nothing,
        };
        let at = variants.at(key, request);
        if let Some(response) = self.response(&at.at) {
            return Found::Response(at, response);
        }
        let language = variant::favourite_language(request);
        let in_language = language
            .and_then(|language| variant::in_language(&variants.names, request, &language))
            .map(|request| variants.at(key, &request));
        match in_language.map(|at| (at, self.response(&at.at))) {
            Some((at, Some(response))) => Found::Response(at, response),
            Some((_, None)) | None => Found::NoVariant(at),
        }
    }

    fn response(&self, key: &CacheKey) -> Option<Arc<StoredResponse>> {
        match self.table.get(key) {
            Some(Entry::Response(response)) => Some(response).filter(|it| self.is_there(key, it)),
            Some(Entry::Variants(_)) | None => None,
        }
    }

    /// What was purged for good goes when it is found.
    fn is_there(&self, key: &CacheKey, response: &Arc<StoredResponse>) -> bool {
        let is_there = response.purged(&self.purges) != Purged::Hard;
        if !is_there && self.take_this(key, response) {
            self.counters.purged_hard.add(1);
        }
        is_there
    }

    fn take_this(&self, key: &CacheKey, response: &Arc<StoredResponse>) -> bool {
        let is_this = |entry: &Entry| match entry {
            Entry::Response(there) => Arc::ptr_eq(there, response),
            Entry::Variants(_) => false,
        };
        self.table.remove_if(key, is_this)
    }

    /// What is stored in that place, fresh or not, and not purged.
    pub(super) fn stored_at(&self, place: &Place) -> Option<Arc<StoredResponse>> {
        match self.table.peek(&place.primary) {
            Some(Entry::Variants(variants)) if variants.names == place.names => {
                self.response(&place.key.of_generation(variants.generation))
            }
            Some(Entry::Response(response)) if place.names.is_empty() => {
                Some(response).filter(|it| self.is_there(&place.primary, it))
            }
            Some(_) | None => None,
        }
    }

    /// Where a response with `vary` to `request` is stored. The fields that select its variant are those of all responses of the
    /// URI together, so that an origin that names other fields now and then does not make the variants displace each other.
    pub(crate) fn place(
        &self,
        primary: &CacheKey,
        vary: &Arc<[HeaderName]>,
        request: &HeaderMap,
        response: &HeaderMap,
    ) -> Place {
        let names = match self.table.peek(primary) {
            Some(Entry::Variants(variants)) if !vary.is_empty() && variants.names != *vary => {
                let all = variants.names.iter().chain(vary.iter()).cloned().collect();
                match Vary::from_names(all) {
                    Vary::Names(names) => names,
                    Vary::Nothing | Vary::Star => Arc::clone(vary),
                }
            }
            Some(_) | None => Arc::clone(vary),
        };
        let key = primary.variant(&names, request);
        let language = variant::content_language(response);
        let by_language = language
            .and_then(|language| variant::in_language(&names, request, &language))
            .map(|request| primary.variant(&names, &request));
        Place {
            primary: *primary,
            names,
            key,
            by_language,
        }
    }

    fn is_too_large(&self, response: &StoredResponse) -> bool {
        (self.table).is_too_large(response.length_in_memory(), response.weight())
    }

    /// Whether a response of that many bytes of content has a chance to be stored.
    pub(crate) fn max_object(&self) -> u64 {
        self.table.max_object()
    }

    /// Stores a response unless it is too large.
    pub(super) fn insert(&self, place: &Place, response: &Arc<StoredResponse>) -> Option<Inserted> {
        if self.is_too_large(response) {
            self.counters.refused_too_large.add(1);
            return None;
        }
        let inserted = self.arrange(place, Some(response));
        self.counters.insertions.add(1);
        Some(inserted)
    }

    /// Where a response goes whose content is on its way elsewhere: only its variants are noted here, and what is there goes.
    pub(super) fn reserve(&self, place: &Place) -> Inserted {
        self.arrange(place, None)
    }

    fn arrange(&self, place: &Place, response: Option<&Arc<StoredResponse>>) -> Inserted {
        let insert = |key: CacheKey| match response {
            Some(response) => self
                .table
                .insert(key, Entry::Response(Arc::clone(response))),
            // What was there is out of date.
            None => _ = self.table.remove(&key),
        };
        let _rearranging = self.rearranging.lock();
        let stored = match self.table.peek(&place.primary) {
            Some(Entry::Variants(variants)) => Some(variants),
            Some(Entry::Response(_)) | None => None,
        };
        if place.names.is_empty() {
            self.remove_variants(stored.as_deref());
            insert(place.primary);
            return Inserted {
                at: place.primary,
                variants: None,
            };
        }
        let (mut variants, is_new) = match stored {
            Some(variants) if variants.names == place.names => (variants.as_ref().clone(), false),
            other => {
                self.remove_variants(other.as_deref());
                (Variants::new(&place.names, self.next_generation()), true)
            }
        };
        for key in place.variant_keys() {
            let at = key.of_generation(variants.generation);
            if !variants.keys.contains(&at) {
                variants.keys.retain(|key| self.table.peek(key).is_some());
                if variants.keys.len() == MAX_VARIANTS {
                    self.remove_least_used(&mut variants.keys);
                }
                variants.keys.push(at);
            }
            insert(at);
        }
        let variants = Arc::new(variants);
        let entry = Entry::Variants(Arc::clone(&variants));
        self.table.insert(place.primary, entry);
        Inserted {
            at: place.key.of_generation(variants.generation),
            variants: is_new.then_some(variants),
        }
    }

    /// Whether a response that was found elsewhere is to be taken in. Once others have to make room, one that was not asked for
    /// lately is not: to take it in and to let another go costs more than to find it there again.
    pub(super) fn has_a_place_for(&self, key: &CacheKey, response: &StoredResponse) -> bool {
        let is_wanted = self.counters.evictions.get() == 0 || self.doorkeeper.knows(key);
        is_wanted && !self.is_too_large(response)
    }

    /// Takes in what was found elsewhere, if that `is_current`, unless there is something newer. Whether it is of use.
    pub(super) fn adopt(
        &self,
        key: CacheKey,
        response: Arc<StoredResponse>,
        is_current: impl FnOnce() -> bool,
    ) -> Adopted {
        if !response.is_sound() || response.purged(&self.purges) == Purged::Hard {
            return Adopted::Useless;
        }
        // Whoever outdates it says so first, and then removes it from here.
        let _rearranging = self.rearranging.lock();
        if self.is_too_large(&response) || !is_current() {
            return Adopted::No;
        }
        if self.response(&key).is_none() {
            self.table.insert(key, Entry::Response(response));
        }
        Adopted::Yes
    }

    /// The same for the variants of a URI.
    pub(super) fn adopt_variants(
        &self,
        primary: CacheKey,
        names: Vec<HeaderName>,
        generation: u64,
        is_current: impl FnOnce() -> bool,
    ) -> Adopted {
        let _rearranging = self.rearranging.lock();
        let is_new = is_current() && self.table.peek(&primary).is_none();
        if is_new {
            let variants = Variants::new(&names.into(), generation);
            self.table
                .insert(primary, Entry::Variants(Arc::new(variants)));
            Adopted::Yes
        } else {
            Adopted::No
        }
    }

    /// Forgets what is stored under one key.
    pub(super) fn forget(&self, key: &CacheKey) {
        let _rearranging = self.rearranging.lock();
        self.table.remove(key);
    }

    /// The same, if it is that response.
    pub(super) fn forget_this(&self, key: &CacheKey, response: &Arc<StoredResponse>) {
        self.take_this(key, response);
    }

    /// Never one that there was before, in this process or another: it starts anywhere in 64 bits.
    fn next_generation(&self) -> u64 {
        self.generations.fetch_add(1, Ordering::Relaxed)
    }

    /// Puts `renewed` in the place of `stored`, if that is still there.
    pub(super) fn replace(
        &self,
        key: &CacheKey,
        stored: &Arc<StoredResponse>,
        renewed: &Arc<StoredResponse>,
    ) -> bool {
        let _rearranging = self.rearranging.lock();
        match self.table.peek(key) {
            Some(Entry::Response(there)) if Arc::ptr_eq(&there, stored) => {
                self.table
                    .insert(*key, Entry::Response(Arc::clone(renewed)));
                true
            }
            Some(_) | None => false,
        }
    }

    /// Forgets what is stored for a URI, with all its variants.
    pub(super) fn remove(&self, primary: &CacheKey) {
        let _rearranging = self.rearranging.lock();
        if let Some(Entry::Variants(variants)) = self.table.remove(primary) {
            self.remove_variants(Some(&variants));
        }
    }

    /// Bytes of all stored responses, overhead included.
    pub fn bytes(&self) -> u64 {
        self.table.weight()
    }

    /// How many responses, and lists of variants, are stored.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn remove_variants(&self, variants: Option<&Variants>) {
        for key in variants
            .map(|variants| &variants.keys[..])
            .unwrap_or_default()
        {
            self.table.remove(key);
        }
    }

    fn remove_least_used(&self, keys: &mut Vec<CacheKey>) {
        let uses = |key: &CacheKey| match self.table.peek(key) {
            Some(Entry::Response(response)) => response.uses(),
            Some(Entry::Variants(_)) | None => 0,
        };
        if let Some(least) = (0..keys.len()).min_by_key(|&index| uses(&keys[index])) {
            self.table.remove(&keys.swap_remove(least));
            self.counters.evictions.add(1);
        }
    }
}

impl Bounded for Entry {
    type Counters = CacheCounters;

    fn weight(&self) -> u64 {
        match self {
            Self::Response(response) => response.weight(),
            Self::Variants(variants) => {
                256 + 40 * (variants.names.len() + variants.keys.len()) as u64
            }
        }
    }

    fn evictions(counters: &CacheCounters) -> &Counter {
        &counters.evictions
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use bytes::Bytes;
    use http::StatusCode;
    use http::header::{ACCEPT_ENCODING, ACCEPT_LANGUAGE};

    use super::*;
    use crate::disk::Content;
    use crate::flights::test_time::at;
    use crate::policy::{Directives, Freshness, Terms};
    use crate::purge::{Epoch, Labels};
    use crate::store::{Origin, ResponseHead, StoredContent};

    const MIB: u64 = 1024 * 1024;

    struct Visit {
        key: CacheKey,
        headers: HeaderMap,
    }

    impl Visit {
        fn to(path: &str, language: &str) -> Self {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_LANGUAGE, language.parse().unwrap());
            Self {
                key: CacheKey::new("http", "example.com", path),
                headers,
            }
        }

        fn body(&self, tier: &MemoryTier) -> Option<Bytes> {
            match tier.find(&self.key, &self.headers) {
                Found::Response(_, response) => {
                    response.count_use();
                    Some(response.blocks()?[0].clone())
                }
                Found::Nothing | Found::NoVariant(_) => None,
            }
        }

        fn store(&self, tier: &MemoryTier, vary: &[HeaderName], body: impl Into<Bytes>) -> bool {
            self.store_in(tier, vary, None, body)
        }

        fn store_in(
            &self,
            tier: &MemoryTier,
            vary: &[HeaderName],
            language: Option<&str>,
            body: impl Into<Bytes>,
        ) -> bool {
            let response = response(language, body.into());
            let head = &response.head().headers;
            let place = tier.place(&self.key, &vary.into(), &self.headers, head);
            tier.insert(&place, &response).is_some()
        }
    }

    fn response(language: Option<&str>, body: Bytes) -> Arc<StoredResponse> {
        let mut headers = HeaderMap::new();
        headers.insert("cache-control", "max-age=60".parse().unwrap());
        if let Some(language) = language {
            headers.insert("content-language", language.parse().unwrap());
        }
        let head = ResponseHead {
            status: StatusCode::OK,
            headers,
        };
        let terms = Terms::of(
            &Directives::of(&head.headers),
            Freshness::of(
                head.status,
                &head.headers,
                Duration::ZERO,
                SystemTime::UNIX_EPOCH,
            ),
        );
        let content = Arc::new(StoredContent::new(Content::Blocks(vec![body]), None));
        let origin = Origin {
            born: Epoch::default(),
            labels: Labels::of_target("example.com", "/"),
        };
        let head = Arc::new(head);
        Arc::new(StoredResponse::new(head, content, terms, at(0), origin))
    }

    fn tier(capacity: u64, max_object: Option<u64>) -> MemoryTier {
        let purges = Arc::new(Purges::in_memory(Arc::default()));
        MemoryTier::new(capacity, max_object, 0, purges, Arc::default())
    }

    #[test]
    fn a_hit_is_the_stored_bytes_themselves() {
        let tier = tier(MIB, None);
        let visit = Visit::to("/", "de");
        let body = Bytes::from(vec![1; 100]);
        assert!(visit.store(&tier, &[], body.clone()));
        assert_eq!(visit.body(&tier).unwrap().as_ptr(), body.as_ptr());
    }

    #[test]
    fn what_is_stored_never_weighs_more_than_the_capacity() {
        for max_object in [None, Some(MIB / 2), Some(MIB / 64)] {
            let tier = tier(MIB, max_object);
            for n in 0..2000 {
                Visit::to(&format!("/{n}"), "de").store(&tier, &[], vec![0; n * 7 % 9000]);
                assert!(tier.bytes() <= MIB, "{max_object:?}");
            }
            assert!(MIB / 2 < tier.bytes(), "{max_object:?}");
            assert!(0 < tier.counters.evictions.get());
        }
    }

    #[test]
    fn what_takes_the_place_of_another_evicts_nothing() {
        let tier = tier(MIB, None);
        for _ in 0..3 {
            Visit::to("/", "de").store(&tier, &[], "Hallo");
            Visit::to("/vary", "de").store(&tier, &[ACCEPT_LANGUAGE], "Hallo");
        }
        assert_eq!(tier.counters.evictions.get(), 0);
    }

    #[test]
    fn the_largest_response_allowed_is_kept_and_a_larger_one_is_refused() {
        for (capacity, max_object) in [(256 * MIB, None), (3 * MIB, Some(MIB)), (MIB, Some(MIB))] {
            let tier = tier(capacity, max_object);
            let largest = usize::try_from(tier.max_object()).unwrap();
            let visit = Visit::to("/", "de");
            assert!(visit.store(&tier, &[], vec![0; largest]));
            assert!(visit.body(&tier).is_some(), "{capacity} {max_object:?}");
            assert!(!Visit::to("/2", "de").store(&tier, &[], vec![0; largest + 1]));
            assert_eq!(tier.counters.refused_too_large.get(), 1);
        }
    }

    #[test]
    fn a_tier_without_capacity_stores_nothing() {
        let tier = tier(0, None);
        let visit = Visit::to("/", "de");
        assert!(!visit.store(&tier, &[], "body"));
        assert!(visit.body(&tier).is_none() && tier.is_empty());
    }

    #[test]
    fn variants_lie_side_by_side_and_a_response_for_all_displaces_them() {
        let tier = tier(MIB, None);
        let (german, english) = (Visit::to("/", "de"), Visit::to("/", "en"));
        german.store(&tier, &[ACCEPT_LANGUAGE], "Hallo");
        assert!(english.body(&tier).is_none());
        english.store(&tier, &[ACCEPT_LANGUAGE], "Hello");
        assert_eq!(german.body(&tier).unwrap(), "Hallo");
        assert_eq!(english.body(&tier).unwrap(), "Hello");

        english.store(&tier, &[], "Hi");
        assert_eq!(german.body(&tier).unwrap(), "Hi");
        assert_eq!(tier.len(), 1, "the variants are gone");
    }

    #[test]
    fn who_prefers_one_language_to_all_others_gets_what_is_stored_in_it() {
        let tier = tier(MIB, None);
        Visit::to("/", "en, de").store_in(&tier, &[ACCEPT_LANGUAGE], Some("de"), "Hallo");
        assert_eq!(
            Visit::to("/", "fr;q=0.5, de;q=1.0").body(&tier).unwrap(),
            "Hallo"
        );
        assert_eq!(Visit::to("/", "de").body(&tier).unwrap(), "Hallo");
        assert!(Visit::to("/", "de, fr").body(&tier).is_none());
        assert!(Visit::to("/", "en").body(&tier).is_none());
        tier.remove(&Visit::to("/", "de").key);
        assert!(tier.is_empty());
    }

    #[test]
    fn an_origin_that_names_other_fields_now_and_then_makes_no_variant_displace_another_for_ever() {
        let tier = tier(MIB, None);
        let (german, english) = (Visit::to("/", "de"), Visit::to("/", "en"));
        for _ in 0..2 {
            german.store(&tier, &[ACCEPT_LANGUAGE], "Hallo");
            english.store(&tier, &[ACCEPT_ENCODING], "Hello");
        }
        assert_eq!(german.body(&tier).unwrap(), "Hallo");
        assert_eq!(english.body(&tier).unwrap(), "Hello");
    }

    #[test]
    fn of_too_many_variants_the_least_used_goes() {
        // varnish-cache#4236: lookup froze over many variants.
        let tier = tier(MIB, None);
        let visits: Vec<_> = (0..=MAX_VARIANTS)
            .map(|n| Visit::to("/", &format!("l{n}")))
            .collect();
        for visit in &visits[..MAX_VARIANTS] {
            visit.store(&tier, &[ACCEPT_LANGUAGE], "body");
        }
        for (n, visit) in visits.iter().enumerate() {
            if n != 7 {
                visit.body(&tier);
            }
        }
        visits[MAX_VARIANTS].store(&tier, &[ACCEPT_LANGUAGE], "body");
        let missing: Vec<_> = (0..visits.len())
            .filter(|&n| visits[n].body(&tier).is_none())
            .collect();
        assert_eq!(missing, [7]);
    }
}
