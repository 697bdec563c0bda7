//! A set of keys that forgets a few.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::key::CacheKey;

/// A bit for each of 1,048,576 keys, in 128 KiB.
const WORDS: usize = 1 << 14;

/// Keys that were seen. Two may share a bit: the second one then counts as seen.
#[derive(Debug)]
pub(super) struct KeySet(Box<[AtomicU64]>);

impl Default for KeySet {
    fn default() -> Self {
        Self((0..WORDS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl KeySet {
    /// False: it was there.
    pub(super) fn insert(&self, key: &CacheKey) -> bool {
        let (word, bit) = self.place(key);
        // Read first: most were, and a word that is only read is in every core's cache.
        word.load(Ordering::Relaxed) & bit == 0 && word.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    pub(super) fn remove(&self, key: &CacheKey) {
        let (word, bit) = self.place(key);
        word.fetch_and(!bit, Ordering::Relaxed);
    }

    pub(super) fn clear(&self) {
        for word in &self.0 {
            word.store(0, Ordering::Relaxed);
        }
    }

    fn place(&self, key: &CacheKey) -> (&AtomicU64, u64) {
        let hash = key.short_hash();
        let word = usize::try_from((hash >> 6) % WORDS as u64).unwrap_or(0);
        (&self.0[word], 1 << (hash % 64))
    }
}
