//! Where each record lies: the one part that is wholly in memory.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::RwLock;

use super::bodies::Body;
use super::layout::{Kind, array};
use crate::key::CacheKey;

/// Enough that threads seldom meet, and that only a small part of the table is copied at once when it grows. A power of two.
const SHARDS: usize = 64;

/// The upper bits of [`Slot::length`]; a record is shorter than that by far.
const HOT: u32 = 1 << 31;
const APART: u32 = 1 << 30;
const LENGTH: u32 = APART - 1;

/// The first half of a [`CacheKey`]. It is what the index goes by, to be small; whoever reads a record compares the whole key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IndexKey([u32; 4]);

impl IndexKey {
    pub(super) fn of(key: &CacheKey) -> Self {
        Self::from_bytes(&array(key.as_bytes(), 0))
    }

    pub(super) fn from_bytes(bytes: &[u8; 16]) -> Self {
        Self([0, 4, 8, 12].map(|at| u32::from_le_bytes(array(bytes, at))))
    }

    pub(super) fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        for (place, word) in bytes.chunks_exact_mut(4).zip(self.0) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

impl Hash for IndexKey {
    /// Not the bits that choose the shard.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from(self.0[2]) << 32 | u64::from(self.0[3]));
    }
}

/// Keys are hashes already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }
}

type Table<T> = HashMap<IndexKey, T, BuildHasherDefault<AsItIs>>;

/// The place of a record in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) segment: u32,
    pub(super) offset: u32,
    /// Label, head, and the body if it is inline.
    pub(super) length: u32,
}

/// A location in 12 bytes, and whether the record was used.
#[derive(Debug)]
struct Slot {
    segment: u32,
    offset: u32,
    /// With [`HOT`] and [`APART`]; atomic, so that a use needs no more than a read lock.
    length: AtomicU32,
}

impl Slot {
    fn location(&self) -> Location {
        Location {
            segment: self.segment,
            offset: self.offset,
            length: self.length.load(Ordering::Relaxed) & LENGTH,
        }
    }

    fn has(&self, flag: u32) -> bool {
        self.length.load(Ordering::Relaxed) & flag != 0
    }

    fn heat(&self) {
        if !self.has(HOT) {
            self.length.fetch_or(HOT, Ordering::Relaxed);
        }
    }
}

/// What the index knows of a record.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) location: Location,
    /// The body, if it has a file of its own.
    pub(super) body: Option<Arc<Body>>,
}

impl Found {
    pub(super) fn kind(&self) -> Kind {
        match self.body {
            None => Kind::Inline,
            Some(_) => Kind::Apart,
        }
    }
}

#[derive(Debug, Default)]
struct Shard {
    slots: Table<Slot>,
    /// The bodies of those slots that are marked [`APART`].
    bodies: Table<Arc<Body>>,
}

impl Shard {
    fn found(&self, key: &IndexKey, slot: &Slot) -> Found {
        let body = if slot.has(APART) {
            self.bodies.get(key).map(Arc::clone)
        } else {
            None
        };
        Found {
            location: slot.location(),
            body,
        }
    }

    fn remove(&mut self, key: &IndexKey) -> bool {
        let Some(slot) = self.slots.remove(key) else {
            return false;
        };
        if slot.has(APART) {
            self.bodies.remove(key);
        }
        true
    }
}

/// Locations by key, in shards. No lock is held while a disk is waited for.
#[derive(Debug)]
pub(super) struct Index {
    shards: Box<[RwLock<Shard>]>,
}

impl Index {
    pub(super) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
        }
    }

    fn shard(&self, key: &IndexKey) -> &RwLock<Shard> {
        &self.shards[key.0[0] as usize % SHARDS]
    }

    pub(super) fn contains(&self, key: &IndexKey) -> bool {
        self.shard(key).read().slots.contains_key(key)
    }

    /// Where the record of this key is; it is hot from now on.
    pub(super) fn find(&self, key: &IndexKey) -> Option<Found> {
        let shard = self.shard(key).read();
        let slot = shard.slots.get(key)?;
        slot.heat();
        Some(shard.found(key, slot))
    }

    pub(super) fn heat(&self, key: &IndexKey) {
        if let Some(slot) = self.shard(key).read().slots.get(key) {
            slot.heat();
        }
    }

    /// Puts a record, cold, in place of what was there.
    pub(super) fn insert(&self, key: IndexKey, found: Found) {
        let Found { location, body } = found;
        let apart = if body.is_some() { APART } else { 0 };
        let slot = Slot {
            segment: location.segment,
            offset: location.offset,
            length: AtomicU32::new(location.length | apart),
        };
        let mut shard = self.shard(&key).write();
        let replaced = shard.slots.insert(key, slot);
        match body {
            Some(body) => {
                shard.bodies.insert(key, body);
            }
            None if replaced.is_some_and(|slot| slot.has(APART)) => {
                shard.bodies.remove(&key);
            }
            None => {}
        }
    }

    pub(super) fn remove(&self, key: &IndexKey) -> bool {
        self.shard(key).write().remove(key)
    }

    /// Removes what lies there, unless something else does by now.
    pub(super) fn remove_if(&self, key: &IndexKey, location: Location) {
        let mut shard = self.shard(key).write();
        if shard
            .slots
            .get(key)
            .is_some_and(|slot| slot.location() == location)
        {
            shard.remove(key);
        }
    }

    /// The same record lies somewhere else, and is cold.
    pub(super) fn relocate(&self, key: &IndexKey, from: Location, to: Location) {
        if let Some(slot) = self.shard(key).write().slots.get_mut(key)
            && slot.location() == from
        {
            let apart = slot.length.load(Ordering::Relaxed) & APART;
            slot.segment = to.segment;
            slot.offset = to.offset;
            *slot.length.get_mut() = to.length | apart;
        }
    }

    /// The bytes of large bodies that nobody else holds.
    pub(super) fn idle_bodies(&self) -> u64 {
        let idle = |body: &&Arc<Body>| Arc::strong_count(body) == 1;
        let bytes = |shard: &RwLock<Shard>| -> u64 {
            let shard = shard.read();
            let bodies = shard.bodies.values().filter(idle);
            bodies.map(|body| body.charged()).sum()
        };
        self.shards.iter().map(bytes).sum()
    }

    /// What lies in that segment; with `hot_only`, of that what was used, or is being read.
    pub(super) fn in_segment(&self, segment: u32, hot_only: bool) -> Vec<(IndexKey, Location)> {
        let mut there = Vec::new();
        for shard in &self.shards {
            let shard = shard.read();
            let being_read = |key| {
                let body = shard.bodies.get(key);
                body.is_some_and(|body| 1 < Arc::strong_count(body))
            };
            let chosen = shard.slots.iter().filter(|(key, slot)| {
                slot.segment == segment && (!hot_only || slot.has(HOT) || being_read(*key))
            });
            there.extend(chosen.map(|(key, slot)| (*key, slot.location())));
        }
        there
    }

    /// Forgets all that lies in that segment.
    ///
    /// Looks at every record there is. Where there are N segments that comes to about N looks for every record written: some 64, less
    /// than a microsecond, up to a capacity of 64 GiB, and from there on one more for each GiB.
    pub(super) fn forget_segment(&self, segment: u32) {
        for shard in &self.shards {
            let shard = &mut *shard.write();
            let bodies = &mut shard.bodies;
            shard.slots.retain(|key, slot| {
                let stays = slot.segment != segment;
                if !stays && slot.has(APART) {
                    bodies.remove(key);
                }
                stays
            });
        }
    }

    pub(super) fn clear(&self) {
        for shard in &self.shards {
            let mut shard = shard.write();
            shard.slots.clear();
            shard.bodies.clear();
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.shards
            .iter()
            .map(|shard| shard.read().slots.len() as u64)
            .sum()
    }

    /// Bytes of the tables, their free places included.
    pub(super) fn memory(&self) -> u64 {
        /// A table grows when 7 of 8 places are taken, and has a byte of its own for each.
        fn table<T>(table: &Table<T>) -> u64 {
            let places = table.capacity() as u64 * 8 / 7;
            places * (size_of::<(IndexKey, T)>() as u64 + 1)
        }
        let bodies = |shard: &Shard| shard.bodies.len() * size_of::<Body>();
        self.shards
            .iter()
            .map(|shard| {
                let shard = shard.read();
                table(&shard.slots) + table(&shard.bodies) + bodies(&shard) as u64
            })
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> IndexKey {
        IndexKey::of(&CacheKey::new("http", "example.com", &format!("/{number}")))
    }

    fn at(segment: u32, offset: u32) -> Location {
        Location {
            segment,
            offset,
            length: 100,
        }
    }

    fn filled() -> Index {
        let index = Index::new();
        for number in 0..1000 {
            index.insert(key(number), inline(at(number % 4, number)));
        }
        index
    }

    fn inline(location: Location) -> Found {
        Found {
            location,
            body: None,
        }
    }

    #[test]
    fn a_record_costs_at_most_64_bytes_of_memory_at_the_worst_moment() {
        let index = Index::new();
        let mut worst = 0;
        for number in 0..200_000 {
            index.insert(key(number), inline(at(0, number)));
            if 50_000 < number && number % 1000 == 0 {
                worst = worst.max(index.memory() / index.len());
            }
        }
        assert!(worst <= 68, "{worst}");
        assert!(index.memory() / index.len() <= 64);
    }

    #[test]
    fn forgetting_a_segment_leaves_the_others() {
        let index = filled();
        index.forget_segment(2);
        assert_eq!(index.len(), 750);
        assert!((0..1000).all(|number| index.contains(&key(number)) == (number % 4 != 2)));
        assert!(index.in_segment(2, false).is_empty());
    }

    #[test]
    fn what_was_used_is_hot_until_it_is_moved() {
        let index = filled();
        index.heat(&key(8));
        index.find(&key(12));
        let mut hot = index.in_segment(0, true);
        hot.sort_by_key(|(_, location)| location.offset);
        assert_eq!(hot, [(key(8), at(0, 8)), (key(12), at(0, 12))]);

        index.relocate(&key(8), at(0, 8), at(9, 0));
        assert!(index.in_segment(9, true).is_empty());
        assert_eq!(index.find(&key(8)).unwrap().location, at(9, 0));
    }

    #[test]
    fn what_was_replaced_in_the_meantime_is_neither_moved_nor_removed() {
        let index = filled();
        index.insert(key(8), inline(at(7, 7)));
        index.relocate(&key(8), at(0, 8), at(9, 0));
        index.remove_if(&key(8), at(0, 8));
        assert_eq!(index.find(&key(8)).unwrap().location, at(7, 7));
    }
}
