//! Which URIs were invalidated while something was in flight for them.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::key::CacheKey;

/// Keys share slots: a flight that another key's invalidation hits is not stored, once, and nothing worse. With that many, even a
/// thousand writes a second hit a fetch of a tenth of a second in one case of 650. They take 512 KiB.
const SLOTS: usize = 65_536;

/// A count of invalidations per slot of keys.
#[derive(Debug)]
pub(crate) struct Invalidations(Box<[AtomicU64]>);

impl Default for Invalidations {
    fn default() -> Self {
        Self(
            std::iter::repeat_with(AtomicU64::default)
                .take(SLOTS)
                .collect(),
        )
    }
}

impl Invalidations {
    /// How many there were by now.
    pub(crate) fn of(&self, primary: &CacheKey) -> u64 {
        self.slot(primary).load(Ordering::Acquire)
    }

    /// One more; how many there were before.
    pub(crate) fn count(&self, primary: &CacheKey) -> u64 {
        self.slot(primary).fetch_add(1, Ordering::AcqRel)
    }

    fn slot(&self, primary: &CacheKey) -> &AtomicU64 {
        let index = usize::try_from(primary.short_hash() % SLOTS as u64).unwrap_or(0);
        &self.0[index]
    }
}
