//! What a file store counts.

use crate::counters::Counter;

/// What happened in a [`FileStore`](super::FileStore) since it was opened.
#[derive(Debug, Default)]
pub struct FileCounters {
    /// Records that were there when it was opened.
    pub recovered: Counter,
    /// Places where a file did not have what was written to it: records that cannot be read, and stretches of segments, sidecars and
    /// bodies that are gone or say nothing.
    pub damaged: Counter,
    /// Hot records that moved to the newest segment when theirs was dropped.
    pub carried_over: Counter,
    /// Segments dropped to make room.
    pub segments_dropped: Counter,
    /// Files of large bodies, deleted when it was opened because no record named them.
    pub orphans_removed: Counter,
    /// Writes that failed.
    pub writes_failed: Counter,
}

impl FileCounters {
    /// All of them with their names, in the order of their declaration.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        [
            ("recovered", self.recovered.get()),
            ("damaged", self.damaged.get()),
            ("carried_over", self.carried_over.get()),
            ("segments_dropped", self.segments_dropped.get()),
            ("orphans_removed", self.orphans_removed.get()),
            ("writes_failed", self.writes_failed.get()),
        ]
        .into_iter()
    }
}
