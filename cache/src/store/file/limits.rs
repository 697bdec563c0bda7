//! What follows from the capacity.

use super::layout::{LABEL, MAX_HEAD};

/// A larger body gets a file of its own: four blocks, so that a small record is read at once and costs the memory of few.
const INLINE_BODY: u64 = 256 * 1024;

/// The capacity is divided into so many segments: dropping one forgets less than 2 % of what is stored.
const SEGMENTS: u32 = 64;

/// Below this the files themselves would cost more than what is in them.
const MIN_SEGMENT: u64 = 64 * 1024;

/// What a start has to scan at most where the process was killed.
const MAX_SEGMENT: u64 = 256 * 1024 * 1024;

/// More segments than this are not kept: the oldest is folded into the newest. Segments whose large bodies were replaced weigh little
/// and would never be dropped for want of room; each needs a descriptor.
pub(super) const MAX_SEGMENTS: usize = 2 * SEGMENTS as usize;

/// The share of the capacity that a single body may take. A few that are written at the same time must not push out all others.
const BODY_SHARE: u64 = 8;

/// No segment is longer: it is full when it has reached [`MAX_SEGMENT`] with its last record. So offsets are 32 bits.
pub(super) const MAX_SEGMENT_LENGTH: u64 = MAX_SEGMENT + MAX_RECORD;
const MAX_RECORD: u64 = LABEL as u64 + MAX_HEAD as u64 + INLINE_BODY;

/// The bounds of a store.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes on the disk.
    pub(super) capacity: u64,
    /// A segment that has come to this, its large bodies included, is full.
    pub(super) segment: u64,
    /// The largest body within a segment.
    pub(super) inline: u64,
    /// The largest body.
    pub(super) body: u64,
}

impl Limits {
    pub(super) fn of(capacity: u64) -> Self {
        // Moving records takes up to a segment beyond the capacity: at most 6 %.
        let segment = (capacity / u64::from(SEGMENTS))
            .clamp(MIN_SEGMENT, MAX_SEGMENT)
            .min(capacity / 16);
        Self {
            capacity,
            segment,
            inline: INLINE_BODY.min(segment),
            body: capacity / BODY_SHARE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn a_segment_is_a_small_share_of_any_capacity() {
        for capacity in [0, 1, 1000, MIB, 100 * MIB, 10_000 * MIB, 10_000_000 * MIB] {
            let limits = Limits::of(capacity);
            assert!(limits.segment <= capacity / 16);
            assert!(limits.inline <= limits.body);
        }
        assert_eq!(Limits::of(1024 * MIB).segment, 16 * MIB);
        assert_eq!(Limits::of(1024 * MIB).inline, 256 * 1024);
        assert_eq!(Limits::of(1024 * MIB).body, 128 * MIB);
        assert!(u32::try_from(MAX_SEGMENT_LENGTH).is_ok());
    }
}
