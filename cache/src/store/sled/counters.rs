//! What a sled store counts.

use crate::counters::Counter;

/// What went wrong in a [`SledStore`](super::SledStore), and what it did about it, since it was opened.
#[derive(Debug, Default)]
pub struct SledCounters {
    /// Databases begun because the one before was full.
    pub generations: Counter,
    /// Databases thrown away because they could not be opened.
    pub dropped_unopenable: Counter,
    /// Databases thrown away because they took too long to open.
    pub dropped_slow: Counter,
    /// Databases thrown away because a call failed or panicked.
    pub dropped_failed: Counter,
    /// Calls that sled answered with an error.
    pub database_errors: Counter,
    /// Calls in which sled panicked.
    pub database_panics: Counter,
    /// Values that were not what had been written, and are gone.
    pub damaged: Counter,
    /// Records whose body's file was gone or of another length, and that went with it.
    pub lost_bodies: Counter,
    /// Records refused because there was no room.
    pub refused_full: Counter,
    /// Records that ended because the disk was full, though the capacity was not.
    pub disk_full: Counter,
    /// Records refused because one that large is not stored.
    pub refused_too_large: Counter,
    /// Records carried over from the older database because they were asked for.
    pub carried_over: Counter,
}

impl SledCounters {
    /// All of them with their names, in the order of their declaration, for whoever exports them.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        [
            ("generations", self.generations.get()),
            ("dropped_unopenable", self.dropped_unopenable.get()),
            ("dropped_slow", self.dropped_slow.get()),
            ("dropped_failed", self.dropped_failed.get()),
            ("database_errors", self.database_errors.get()),
            ("database_panics", self.database_panics.get()),
            ("damaged", self.damaged.get()),
            ("lost_bodies", self.lost_bodies.get()),
            ("refused_full", self.refused_full.get()),
            ("disk_full", self.disk_full.get()),
            ("refused_too_large", self.refused_too_large.get()),
            ("carried_over", self.carried_over.get()),
        ]
        .into_iter()
    }
}
