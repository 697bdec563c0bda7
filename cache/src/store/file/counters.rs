//! What a file store counts.

use crate::counters::counters;

counters! {
    /// What happened in a [`FileStore`](super::FileStore) since it was opened.
    pub struct FileCounters {
        /// Records that were there when it was opened.
        recovered,
        /// Places where a file did not have what was written to it: records that cannot be read, and stretches of segments, sidecars and
        /// bodies that are gone or say nothing.
        damaged,
        /// Hot records that moved to the newest segment when theirs was dropped.
        carried_over,
        /// Segments dropped to make room.
        segments_dropped,
        /// Files of large bodies, deleted when it was opened because no record named them.
        orphans_removed,
        /// Writes that failed.
        writes_failed,
    }
}
