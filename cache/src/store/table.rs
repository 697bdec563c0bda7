//! A table by key that is bounded in bytes: `quick_cache`, which is scan resistant and sharded, and how it is sized here.

use std::sync::Arc;

use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};

use crate::counters::Counter;
use crate::key::CacheKey;

/// The largest object that is kept, unless configured: this part of the capacity.
const DEFAULT_OBJECT_SHARE: u64 = 16;

/// A shard holds at least this many of the largest objects, so that keeping one does not empty it.
const LARGEST_PER_SHARD: u64 = 2;

/// No shard is smaller: of a body on the disk its checksums are in memory, which are 256 KiB for each GiB.
const LEAST_SHARD: u64 = 1024 * 1024;

/// More shards than this bring nothing on the machines there are.
const MAX_SHARDS: u64 = 64;

/// `quick_cache` admits nothing that weighs more than 97 hundredths of a shard, and says so to nobody: this part less than all is safe.
const NEVER_ADMITTED_SHARE: u64 = 32;

/// What a value weighs on average, for the first guess at how many keys to remember (within an order of magnitude is enough for it).
const TYPICAL_WEIGHT: u64 = 16 * 1024;

/// `quick_cache` makes do with fewer shards than it is told where it expects fewer values in each.
const LEAST_PER_SHARD: usize = 32;

/// What is kept in a [`Table`]; a clone of it is cheap.
pub(super) trait Bounded: Clone {
    /// Among which it is counted what had to make room.
    type Counters;

    /// What it takes in memory, in bytes; always the same, and never 0.
    fn weight(&self) -> u64;

    /// Counts what had to make room.
    fn evictions(counters: &Self::Counters) -> &Counter;
}

/// Values by key, up to a capacity in bytes; what is used least makes room. A look-up takes a read lock, and copies nothing but the
/// value's handle.
#[derive(Debug)]
pub(super) struct Table<V: Bounded> {
    cache: Cache<CacheKey, V, ByWeight, DefaultHashBuilder, CountEvictions<V>>,
    max_object: u64,
    shard: u64,
}

impl<V: Bounded> Table<V> {
    /// An empty table of `capacity` bytes (0: it keeps nothing) that has room for objects of `max_object` bytes, as far as that is at
    /// most half of the capacity.
    pub(super) fn new(capacity: u64, max_object: Option<u64>, counters: Arc<V::Counters>) -> Self {
        let max_object = max_object
            .unwrap_or(capacity / DEFAULT_OBJECT_SHARE)
            .min(capacity / LARGEST_PER_SHARD);
        let least = LEAST_SHARD.max(max_object * LARGEST_PER_SHARD);
        let fitting = (capacity / least).clamp(1, MAX_SHARDS);
        // quick_cache rounds shards up to a power of two, which would make them too small.
        let shards = 1_usize << fitting.ilog2();
        let items = usize::try_from(capacity / TYPICAL_WEIGHT)
            .unwrap_or(usize::MAX)
            .max(LEAST_PER_SHARD * shards);
        let options = OptionsBuilder::new()
            .shards(shards)
            .estimated_items_capacity(items)
            .weight_capacity(capacity)
            .build()
            .expect("capacity and items are set above");
        let hasher = DefaultHashBuilder::default();
        Self {
            cache: Cache::with_options(options, ByWeight, hasher, CountEvictions(counters)),
            max_object,
            shard: capacity / shards as u64,
        }
    }

    /// The largest object that is kept, in bytes without overhead.
    pub(super) fn max_object(&self) -> u64 {
        self.max_object
    }

    /// Whether an object of that many bytes, which weighs so much with its overhead, is none to be inserted. The bound is on the
    /// object, as whoever sets it thinks of that; overhead that would not fit into a shard beside it is none that anybody sends.
    pub(super) fn is_too_large(&self, object: u64, weight: u64) -> bool {
        let heaviest = self.shard - self.shard.div_ceil(NEVER_ADMITTED_SHARE);
        self.max_object < object || heaviest < weight
    }

    /// What lies under a key, which counts as a use of it.
    pub(super) fn get(&self, key: &CacheKey) -> Option<V> {
        self.cache.get(key)
    }

    /// The same, and no use.
    pub(super) fn peek(&self, key: &CacheKey) -> Option<V> {
        self.cache.peek(key)
    }

    /// Whether something lies under a key.
    pub(super) fn contains(&self, key: &CacheKey) -> bool {
        self.cache.contains_key(key)
    }

    /// Puts something under a key, in the place of what was there. What is [too large](Self::is_too_large) may be let go at once.
    pub(super) fn insert(&self, key: CacheKey, value: V) {
        self.cache.insert(key, value);
    }

    /// Takes out what lies under a key.
    pub(super) fn remove(&self, key: &CacheKey) -> Option<V> {
        let (_, value) = self.cache.remove(key)?;
        Some(value)
    }

    /// The same, if it is what is meant. Whether it was.
    pub(super) fn remove_if(&self, key: &CacheKey, is_meant: impl FnOnce(&V) -> bool) -> bool {
        self.cache.remove_if(key, is_meant).is_some()
    }

    /// What all of it weighs.
    pub(super) fn weight(&self) -> u64 {
        self.cache.weight()
    }

    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.cache.len()
    }
}

#[derive(Debug, Clone)]
struct ByWeight;

impl<V: Bounded> Weighter<CacheKey, V> for ByWeight {
    fn weight(&self, _: &CacheKey, value: &V) -> u64 {
        value.weight()
    }
}

/// Counts what had to make room, and lets it go after the shard's lock is released.
struct CountEvictions<V: Bounded>(Arc<V::Counters>);

impl<V: Bounded> Clone for CountEvictions<V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<V: Bounded> Lifecycle<CacheKey, V> for CountEvictions<V> {
    type RequestState = Vec<V>;

    // What is replaced comes by `on_evict` as well, and has made room for nobody.
    fn before_evict(&self, _: &mut Self::RequestState, _: &CacheKey, _: &mut V) {
        V::evictions(&self.0).add(1);
    }

    fn on_evict(&self, state: &mut Self::RequestState, _: CacheKey, value: V) {
        state.push(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    /// So many bytes.
    #[derive(Debug, Clone)]
    struct Bytes(u64);

    impl Bounded for Bytes {
        type Counters = Counter;

        fn weight(&self) -> u64 {
            self.0
        }

        fn evictions(counters: &Counter) -> &Counter {
            counters
        }
    }

    fn table(capacity: u64, max_object: Option<u64>) -> (Table<Bytes>, Arc<Counter>) {
        let evictions = Arc::default();
        let table = Table::new(capacity, max_object, Arc::clone(&evictions));
        (table, evictions)
    }

    fn key(number: u64) -> CacheKey {
        CacheKey::new("http", "example.com", &format!("/{number}"))
    }

    #[test]
    fn whatever_is_not_too_large_is_there_when_it_was_inserted() {
        for capacity in [0, 1, 20, 1000, MIB, 3 * MIB, 64 * MIB] {
            for max_object in [None, Some(0), Some(1), Some(MIB), Some(u64::MAX)] {
                let (table, evictions) = table(capacity, max_object);
                let heaviest = (0..=capacity.min(40))
                    .chain([table.max_object(), table.max_object() + 512])
                    .chain((1..100).map(|part| capacity / part))
                    .filter(|&weight| 0 < weight && !table.is_too_large(0, weight));
                for (number, weight) in (0..).zip(heaviest) {
                    table.insert(key(number), Bytes(weight));
                    let there = table.peek(&key(number)).map(|there| there.0);
                    assert_eq!(there, Some(weight), "{capacity} {max_object:?}");
                    assert!(table.weight() <= capacity, "{capacity} {max_object:?}");
                }
                assert!(2 * table.max_object() <= capacity);
                assert!(capacity < 20 || 0 < evictions.get() + table.len() as u64);
            }
        }
    }

    #[test]
    fn a_shard_holds_two_of_the_largest_and_the_checksums_of_a_long_body() {
        for (capacity, max_object) in [(4 * MIB, 64 * 1024), (4 * MIB, 1), (64 * MIB, MIB)] {
            let shard = table(capacity, Some(max_object)).0.shard;
            assert!((MIB..=2 * MIB).contains(&shard), "{capacity} {max_object}");
            assert!(2 * max_object <= shard, "{capacity} {max_object}");
        }
    }

    #[test]
    fn what_had_to_make_room_is_counted_and_what_was_replaced_or_removed_is_not() {
        let (table, evictions) = table(MIB, None);
        for number in 0..16 {
            table.insert(key(number % 2), Bytes(64 * 1024));
        }
        assert!(table.remove(&key(0)).is_some());
        assert!(!table.remove_if(&key(1), |_| false) && table.remove_if(&key(1), |_| true));
        assert_eq!((evictions.get(), table.weight()), (0, 0));
        for number in 0..32 {
            table.insert(key(number), Bytes(64 * 1024));
        }
        assert_eq!(evictions.get() + table.len() as u64, 32);
        assert_eq!(table.weight(), 64 * 1024 * table.len() as u64);
    }
}
