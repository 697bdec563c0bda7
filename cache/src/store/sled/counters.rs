//! What a sled store counts.

use crate::counters::counters;

counters! {
    /// What went wrong in a [`SledStore`](super::SledStore), and what it did about it, since it was opened.
    pub struct SledCounters {
        /// Databases begun because the one before was full.
        generations,
        /// Databases thrown away because they could not be opened.
        dropped_unopenable,
        /// Databases thrown away because they took too long to open.
        dropped_slow,
        /// Databases thrown away because a call failed or panicked.
        dropped_failed,
        /// Calls that sled answered with an error.
        database_errors,
        /// Calls in which sled panicked.
        database_panics,
        /// Values that were not what had been written, and are gone.
        damaged,
        /// Records whose body's file was gone or of another length, and that went with it.
        lost_bodies,
        /// Records refused because there was no room.
        refused_full,
        /// Records that ended because the disk was full, though the capacity was not.
        disk_full,
        /// Records refused because one that large is not stored.
        refused_too_large,
        /// Records carried over from the older database because they were asked for.
        carried_over,
    }
}
