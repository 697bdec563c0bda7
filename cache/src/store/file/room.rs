//! Making room.

use std::io;
use std::sync::Arc;

use super::log::{Log, Writer};
use super::segment::{self, Segment};

/// While there are too many segments, so many are folded for each that is written: more than one, so that they become fewer, and no
/// more, since there may be many full ones in a row, which bring nothing and would hold up every write.
const FOLDS: u64 = 2;

/// What of a dropped segment moves to the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carry {
    Nothing,
    /// What was used since it was written; at most half a segment of it, so that dropping a full one brings something.
    Hot,
    Everything,
}

impl Log {
    /// Drops what is beyond the capacity.
    pub(super) fn fit(&self) -> io::Result<()> {
        self.make_room(&mut self.writer.lock(), 0)
    }

    /// Drops segments until so many bytes may be written.
    pub(super) fn make_room(&self, writer: &mut Writer, bytes: u64) -> io::Result<()> {
        self.bodies.bury();
        let count = self.segments.read().len();
        if self.limits.segments < count
            && let Some(left) = writer.since_fold.checked_sub(self.limits.segment / FOLDS)
        {
            writer.since_fold = left;
            self.drop_oldest(writer, Carry::Everything)?;
        }
        if self.has_room(bytes) {
            return Ok(());
        }
        // Nothing is dropped in vain.
        let needed = self.bodies.used().saturating_add(bytes);
        if self.limits.capacity < needed.saturating_sub(self.droppable()) {
            return Err(no_room());
        }
        // Whatever is hot stays for one round. Those that are still there in the second have had their chance.
        let mut rounds =
            std::iter::repeat_n(Carry::Hot, count).chain(std::iter::repeat(Carry::Nothing));
        while !self.has_room(bytes) {
            let carry = rounds.next().unwrap_or(Carry::Nothing);
            if !self.drop_oldest(writer, carry)? {
                return Err(no_room());
            }
        }
        Ok(())
    }

    fn has_room(&self, bytes: u64) -> bool {
        self.bodies.used().saturating_add(bytes) <= self.limits.capacity
    }

    /// What there is, but for large bodies that are being read or written: those go when that ends.
    fn droppable(&self) -> u64 {
        let segments = self.segments.read();
        let charged: u64 = segments.values().map(|segment| segment.charged()).sum();
        charged + self.index.idle_bodies()
    }

    /// Drops the oldest segment. False: there is none.
    pub(super) fn drop_oldest(&self, writer: &mut Writer, carry: Carry) -> io::Result<bool> {
        let first = self
            .segments
            .read()
            .first_key_value()
            .map(|(_, first)| Arc::clone(first));
        let Some(oldest) = first else {
            return Ok(false);
        };
        let number = oldest.number;
        if writer
            .active
            .as_ref()
            .is_some_and(|active| active.segment.number == number)
        {
            writer.active = None;
        }
        if carry != Carry::Nothing {
            self.carry_over(writer, &oldest, carry);
        }
        segment::delete(&self.directory, number)?;
        self.index.forget_segment(number);
        self.segments.write().remove(&number);
        self.bodies.release(oldest.charged());
        self.bodies.bury();
        if carry != Carry::Everything {
            self.counters.segments_dropped.add(1);
        }
        Ok(true)
    }

    fn carry_over(&self, writer: &mut Writer, oldest: &Segment, carry: Carry) {
        let (hot_only, mut budget) = match carry {
            Carry::Nothing => return,
            Carry::Hot => (true, self.limits.segment / 2),
            Carry::Everything => (false, u64::MAX),
        };
        let mut chosen = self.index.in_segment(oldest.number, hot_only);
        chosen.sort_unstable_by_key(|(_, location)| location.offset);
        for (key, from) in chosen {
            let Some(left) = budget.checked_sub(from.length.into()) else {
                continue;
            };
            let Ok(stored) = oldest.read(from) else {
                self.counters.damaged.add(1);
                continue;
            };
            let parts = [&stored.head[..], &stored.body[..]];
            // Where the disk is full the rest is dropped.
            let Ok(to) = self.append_anywhere(writer, &stored.label, &parts) else {
                return;
            };
            self.index.relocate(&key, from, to);
            self.counters.carried_over.add(1);
            budget = left;
        }
    }
}

/// All that is left is being read or written.
fn no_room() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

#[cfg(test)]
mod tests {
    use super::super::layout::Kind;
    use super::super::limits::Limits;
    use super::super::recovery;
    use super::*;
    use crate::key::CacheKey;

    fn put(log: &Log, number: u64) {
        let key = CacheKey::new("http", "example.com", &number.to_string());
        let head = [0; 1000];
        let label = log.label(&key, Kind::Inline, &head, 0, 0).unwrap();
        log.put(&label, &head, &[], None).unwrap();
    }

    #[test]
    fn a_store_whose_capacity_is_many_segments_moves_nothing_before_it_is_full() {
        let directory = tempfile::tempdir().unwrap();
        // Each segment takes a few KiB beside its records.
        let limits = Limits::with_segments_of(1000, 4_000_000);
        let log = recovery::open(directory.path(), limits).unwrap();
        for number in 0..300 {
            put(&log, number);
        }
        assert_eq!(log.segments.read().len(), 300);
        assert_eq!(log.counters.carried_over.get(), 0);
        for number in 300..800 {
            put(&log, number);
        }
        assert!(300 < log.index.len());
        assert_eq!(log.counters.carried_over.get(), 0);
    }
}
