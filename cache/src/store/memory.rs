//! The memory tier: bounded in bytes, scan resistant, sharded; a hit is one or two lookups under a
//! read lock and no copy.

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, HeaderName};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};

use super::{Hit, StoredResponse};
use crate::asker::Asker;
use crate::counters::CacheCounters;
use crate::key::CacheKey;
use crate::policy::Vary;

/// More variants of one URI than this are not kept: the least used one goes, and a lookup's work
/// stays bounded.
const MAX_VARIANTS: usize = 32;

/// The largest response that is stored, unless configured: this part of the capacity.
const DEFAULT_OBJECT_SHARE: u64 = 16;

/// A shard holds at least this many of the largest responses, so that storing one does not empty
/// it.
const LARGEST_PER_SHARD: u64 = 2;

/// More shards than this bring nothing on the machines there are.
const MAX_SHARDS: u64 = 64;

/// What a stored response weighs on average, for the store's first guess at how many keys to
/// remember (within an order of magnitude is enough for it).
const TYPICAL_WEIGHT: u64 = 16 * 1024;

/// Complete responses in memory.
#[derive(Debug)]
pub struct MemoryStore {
    cache: Cache<CacheKey, Entry, ByWeight, DefaultHashBuilder, CountEvictions>,
    max_object: u64,
    /// Held while the variants of a URI are rearranged; lookups never take it.
    rearranging: Mutex<()>,
    counters: Arc<CacheCounters>,
}

#[derive(Debug, Clone)]
enum Entry {
    Response(Arc<StoredResponse>),
    /// Under the primary key of a URI whose responses vary.
    Variants(Arc<Variants>),
}

/// Which fields select the variant of a URI, and which variants are stored.
#[derive(Debug)]
struct Variants {
    names: Arc<[HeaderName]>,
    keys: Vec<CacheKey>,
}

/// What is stored for a request, fresh or not.
#[derive(Debug)]
pub(crate) enum Found {
    /// This, under that key.
    Response(Arc<StoredResponse>, CacheKey),
    /// Nothing for the URI.
    Nothing,
    /// The URI varies, and the variant of that key is not there.
    NoVariant(CacheKey),
}

impl MemoryStore {
    /// An empty store of `capacity` bytes (0: stores nothing) that takes responses of up to
    /// `max_object` bytes.
    pub fn new(capacity: u64, max_object: Option<u64>, counters: Arc<CacheCounters>) -> Self {
        let max_object = max_object
            .unwrap_or(capacity / DEFAULT_OBJECT_SHARE)
            .min(capacity / LARGEST_PER_SHARD);
        let fitting = capacity
            .checked_div(max_object * LARGEST_PER_SHARD)
            .unwrap_or(1)
            .clamp(1, MAX_SHARDS);
        // quick_cache rounds shards up to a power of two, which would make them too small.
        let shards = 1_usize << fitting.ilog2();
        let items = usize::try_from(capacity / TYPICAL_WEIGHT)
            .unwrap_or(usize::MAX)
            .max(32 * shards);
        let options = OptionsBuilder::new()
            .shards(shards)
            .estimated_items_capacity(items)
            .weight_capacity(capacity)
            .build()
            .expect("capacity and items are set above");
        let cache = Cache::with_options(
            options,
            ByWeight,
            DefaultHashBuilder::default(),
            CountEvictions(Arc::clone(&counters)),
        );
        Self {
            cache,
            max_object,
            rearranging: Mutex::new(()),
            counters,
        }
    }

    /// The fresh response that answers this request, if one is stored.
    pub(crate) fn hit(
        &self,
        now: Instant,
        asker: &Asker<'_>,
        response: &Arc<StoredResponse>,
    ) -> Option<Hit> {
        let elapsed = response.elapsed(now);
        if !asker.facts.accepts(response.freshness(), elapsed) {
            return None;
        }
        let ttl = response.freshness().ttl_after(elapsed)?;
        response.count_use();
        Some(Hit {
            response: Arc::clone(response),
            age: response.freshness().age_after(elapsed),
            ttl,
        })
    }

    /// What is stored for a request of that key and those fields.
    pub(crate) fn find(&self, key: &CacheKey, request: &HeaderMap) -> Found {
        match self.cache.get(key) {
            None => Found::Nothing,
            Some(Entry::Response(response)) => Found::Response(response, *key),
            Some(Entry::Variants(variants)) => {
                let variant = key.variant(&variants.names, request);
                match self.cache.get(&variant) {
                    Some(Entry::Response(response)) => Found::Response(response, variant),
                    Some(Entry::Variants(_)) | None => Found::NoVariant(variant),
                }
            }
        }
    }

    /// The fields that select the variant of a URI once a response with `vary` joins what is
    /// stored: those of all its responses together, so that an origin that names other fields now
    /// and then does not make the variants displace each other.
    pub(crate) fn selecting(
        &self,
        primary: &CacheKey,
        vary: &Arc<[HeaderName]>,
    ) -> Arc<[HeaderName]> {
        let Some(Entry::Variants(variants)) = self.cache.peek(primary) else {
            return Arc::clone(vary);
        };
        if vary.is_empty() || variants.names == *vary {
            return Arc::clone(vary);
        }
        match Vary::from_names(variants.names.iter().chain(vary.iter()).cloned().collect()) {
            Vary::Names(names) => names,
            Vary::Nothing | Vary::Star => Arc::clone(vary),
        }
    }

    /// Whether a response of that many bytes of content has a chance to be stored.
    pub(crate) fn max_object(&self) -> u64 {
        self.max_object
    }

    /// Stores a response unless it is too large, under its primary key or beside its variants.
    /// `names` and `variant` are as [`MemoryStore::selecting`] gave them.
    pub(crate) fn insert(
        &self,
        primary: CacheKey,
        names: &Arc<[HeaderName]>,
        variant: CacheKey,
        response: &Arc<StoredResponse>,
    ) -> bool {
        if self.max_object < response.weight() {
            self.counters.refused_too_large.add(1);
            return false;
        }
        let entry = Entry::Response(Arc::clone(response));
        {
            let _rearranging = self.rearranging.lock();
            let stored = match self.cache.peek(&primary) {
                Some(Entry::Variants(variants)) => Some(variants),
                Some(Entry::Response(_)) | None => None,
            };
            if names.is_empty() {
                self.remove_variants(stored.as_deref());
                self.cache.insert(primary, entry);
            } else {
                let mut keys = match stored {
                    Some(variants) if variants.names == *names => variants.keys.clone(),
                    other => {
                        self.remove_variants(other.as_deref());
                        Vec::new()
                    }
                };
                if !keys.contains(&variant) {
                    keys.retain(|key| self.cache.peek(key).is_some());
                    if keys.len() == MAX_VARIANTS {
                        self.remove_least_used(&mut keys);
                    }
                    keys.push(variant);
                }
                self.cache.insert(variant, entry);
                self.cache.insert(
                    primary,
                    Entry::Variants(Arc::new(Variants {
                        names: Arc::clone(names),
                        keys,
                    })),
                );
            }
        }
        self.counters.insertions.add(1);
        true
    }

    /// Bytes of all stored responses, overhead included.
    pub fn bytes(&self) -> u64 {
        self.cache.weight()
    }

    /// How many responses, and lists of variants, are stored.
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.cache.is_empty()
    }

    fn remove_variants(&self, variants: Option<&Variants>) {
        for key in variants
            .map(|variants| &variants.keys[..])
            .unwrap_or_default()
        {
            self.cache.remove(key);
        }
    }

    fn remove_least_used(&self, keys: &mut Vec<CacheKey>) {
        let uses = |key: &CacheKey| match self.cache.peek(key) {
            Some(Entry::Response(response)) => response.uses(),
            Some(Entry::Variants(_)) | None => 0,
        };
        if let Some(least) = (0..keys.len()).min_by_key(|&index| uses(&keys[index])) {
            self.cache.remove(&keys.swap_remove(least));
            self.counters.evictions.add(1);
        }
    }
}

#[derive(Debug, Clone)]
struct ByWeight;

impl Weighter<CacheKey, Entry> for ByWeight {
    fn weight(&self, _: &CacheKey, entry: &Entry) -> u64 {
        match entry {
            Entry::Response(response) => response.weight(),
            Entry::Variants(variants) => {
                256 + 40 * (variants.names.len() + variants.keys.len()) as u64
            }
        }
    }
}

/// Counts what had to make room, and lets it go after the shard's lock is released.
#[derive(Debug, Clone)]
struct CountEvictions(Arc<CacheCounters>);

impl Lifecycle<CacheKey, Entry> for CountEvictions {
    type RequestState = Vec<Entry>;

    fn on_evict(&self, state: &mut Self::RequestState, _: CacheKey, entry: Entry) {
        self.0.evictions.add(1);
        state.push(entry);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant, SystemTime};

    use bytes::Bytes;
    use http::header::{ACCEPT_ENCODING, ACCEPT_LANGUAGE};
    use http::{Method, StatusCode};

    use super::*;
    use crate::flights::test_time::at;
    use crate::policy::{Freshness, RequestFacts};
    use crate::store::ResponseHead;

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

        fn asker(&self) -> Asker<'_> {
            let facts = RequestFacts::of(&Method::GET, &self.headers, false);
            Asker {
                key: self.key,
                facts,
                headers: &self.headers,
                deadline: at(0),
            }
        }

        fn body(&self, store: &MemoryStore) -> Option<Bytes> {
            match store.find(&self.key, &self.headers) {
                Found::Response(response, _) => {
                    let hit = store.hit(at(0), &self.asker(), &response)?;
                    Some(hit.response.blocks()[0].clone())
                }
                Found::Nothing | Found::NoVariant(_) => None,
            }
        }

        fn store(&self, store: &MemoryStore, vary: &[HeaderName], body: impl Into<Bytes>) -> bool {
            let names = store.selecting(&self.key, &vary.into());
            let variant = self.key.variant(&names, &self.headers);
            store.insert(self.key, &names, variant, &response(at(0), body.into()))
        }
    }

    fn response(received: Instant, body: Bytes) -> Arc<StoredResponse> {
        let mut headers = HeaderMap::new();
        headers.insert("cache-control", "max-age=60".parse().unwrap());
        let head = ResponseHead {
            status: StatusCode::OK,
            headers,
        };
        let freshness = Freshness::of(
            head.status,
            &head.headers,
            Duration::ZERO,
            SystemTime::UNIX_EPOCH,
        );
        Arc::new(StoredResponse::new(
            Arc::new(head),
            vec![body],
            None,
            freshness,
            received,
        ))
    }

    fn store(capacity: u64, max_object: Option<u64>) -> MemoryStore {
        MemoryStore::new(capacity, max_object, Arc::default())
    }

    #[test]
    fn a_hit_is_the_stored_bytes_themselves() {
        let store = store(MIB, None);
        let visit = Visit::to("/", "de");
        let body = Bytes::from(vec![1; 100]);
        assert!(visit.store(&store, &[], body.clone()));
        assert_eq!(visit.body(&store).unwrap().as_ptr(), body.as_ptr());
    }

    #[test]
    fn what_is_stored_never_weighs_more_than_the_capacity() {
        for max_object in [None, Some(MIB / 2), Some(MIB / 64)] {
            let store = store(MIB, max_object);
            for n in 0..2000 {
                Visit::to(&format!("/{n}"), "de").store(&store, &[], vec![0; n * 7 % 9000]);
                assert!(store.bytes() <= MIB, "{max_object:?}");
            }
            assert!(MIB / 2 < store.bytes(), "{max_object:?}");
            assert!(0 < store.counters.evictions.get());
        }
    }

    #[test]
    fn the_largest_response_allowed_is_kept_and_a_larger_one_is_refused() {
        for (capacity, max_object) in [(256 * MIB, None), (3 * MIB, Some(MIB)), (MIB, Some(MIB))] {
            let store = store(capacity, max_object);
            let largest = usize::try_from(store.max_object()).unwrap() - 1024;
            let visit = Visit::to("/", "de");
            assert!(visit.store(&store, &[], vec![0; largest]));
            assert!(visit.body(&store).is_some(), "{capacity} {max_object:?}");
            assert!(!Visit::to("/2", "de").store(&store, &[], vec![0; largest + 1024]));
            assert_eq!(store.counters.refused_too_large.get(), 1);
        }
    }

    #[test]
    fn a_store_without_capacity_stores_nothing() {
        let store = store(0, None);
        let visit = Visit::to("/", "de");
        assert!(!visit.store(&store, &[], "body"));
        assert!(visit.body(&store).is_none() && store.is_empty());
    }

    #[test]
    fn variants_lie_side_by_side_and_a_response_for_all_displaces_them() {
        let store = store(MIB, None);
        let (german, english) = (Visit::to("/", "de"), Visit::to("/", "en"));
        german.store(&store, &[ACCEPT_LANGUAGE], "Hallo");
        assert!(english.body(&store).is_none());
        english.store(&store, &[ACCEPT_LANGUAGE], "Hello");
        assert_eq!(german.body(&store).unwrap(), "Hallo");
        assert_eq!(english.body(&store).unwrap(), "Hello");

        english.store(&store, &[], "Hi");
        assert_eq!(german.body(&store).unwrap(), "Hi");
        assert_eq!(store.len(), 1, "the variants are gone");
    }

    #[test]
    fn an_origin_that_names_other_fields_now_and_then_makes_no_variant_displace_another_for_ever() {
        let store = store(MIB, None);
        let (german, english) = (Visit::to("/", "de"), Visit::to("/", "en"));
        for _ in 0..2 {
            german.store(&store, &[ACCEPT_LANGUAGE], "Hallo");
            english.store(&store, &[ACCEPT_ENCODING], "Hello");
        }
        assert_eq!(german.body(&store).unwrap(), "Hallo");
        assert_eq!(english.body(&store).unwrap(), "Hello");
    }

    #[test]
    fn of_too_many_variants_the_least_used_goes() {
        // varnish-cache#4236: lookup froze over many variants.
        let store = store(MIB, None);
        let visits: Vec<_> = (0..=MAX_VARIANTS)
            .map(|n| Visit::to("/", &format!("l{n}")))
            .collect();
        for visit in &visits[..MAX_VARIANTS] {
            visit.store(&store, &[ACCEPT_LANGUAGE], "body");
        }
        for (n, visit) in visits.iter().enumerate() {
            if n != 7 {
                visit.body(&store);
            }
        }
        visits[MAX_VARIANTS].store(&store, &[ACCEPT_LANGUAGE], "body");
        let missing: Vec<_> = (0..visits.len())
            .filter(|&n| visits[n].body(&store).is_none())
            .collect();
        assert_eq!(missing, [7]);
    }
}
