//! What follows from the capacity.

use super::layout::{LABEL, MAX_HEAD};

/// A larger body gets a file of its own: four blocks, so that a small record is read at once and costs the memory of few.
const INLINE_BODY: u64 = 256 * 1024;

/// The capacity is divided into so many segments, or into more where those would be too large: dropping one forgets less than 2 % of
/// what is stored.
const SEGMENTS: u64 = 64;

/// Below this the files themselves would cost more than what is in them.
const MIN_SEGMENT: u64 = 64 * 1024;

/// What a start has to scan at most where the process was killed. Measured on what is still in memory: 0.6 s for records of 1 KiB, 0.1 s
/// for such of 25 KiB; a disk that gives 200 MB/s takes five. On the other side each segment needs a descriptor: there are about 1000
/// at 1 TiB, and 10,000 at 10 TiB. Four times as much would not fit offsets of 32 bits.
const MAX_SEGMENT: u64 = 1024 * 1024 * 1024;

/// So many times the segments that the capacity is divided into are kept. Those whose large bodies were replaced weigh little and would
/// never be dropped for want of room, and each needs a descriptor: where there are more, the oldest is folded into the newest. More than
/// half of them are not full then, so that this makes them fewer.
const SPARE: u64 = 2;

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
    /// Where there are more segments than this, they are made fewer.
    pub(super) segments: usize,
    /// The largest body within a segment.
    pub(super) inline: u64,
    /// The largest body.
    pub(super) body: u64,
}

impl Limits {
    pub(super) fn of(capacity: u64) -> Self {
        // Moving records takes up to a segment beyond the capacity: at most 6 %.
        let segment = (capacity / SEGMENTS)
            .clamp(MIN_SEGMENT, MAX_SEGMENT)
            .min(capacity / 16);
        Self::with_segments_of(segment, capacity)
    }

    /// Segments of that many bytes.
    pub(super) fn with_segments_of(segment: u64, capacity: u64) -> Self {
        let share = capacity.div_ceil(segment.max(1)).max(SEGMENTS);
        Self {
            capacity,
            segment,
            segments: usize::try_from(SPARE.saturating_mul(share)).unwrap_or(usize::MAX),
            inline: INLINE_BODY.min(segment),
            body: capacity / BODY_SHARE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;
    const CAPACITIES: [u64; 9] = [
        0,
        1,
        1000,
        MIB,
        100 * MIB,
        10_000 * MIB,
        100 * 1024 * MIB,
        1024 * 1024 * MIB,
        10_000_000 * MIB,
    ];

    #[test]
    fn a_segment_is_a_small_share_of_any_capacity() {
        for capacity in CAPACITIES {
            let limits = Limits::of(capacity);
            assert!(limits.segment <= capacity / 16);
            assert!(limits.inline <= limits.body);
        }
        assert_eq!(Limits::of(1024 * MIB).segment, 16 * MIB);
        assert_eq!(Limits::of(1024 * MIB).inline, 256 * 1024);
        assert_eq!(Limits::of(1024 * MIB).body, 128 * MIB);
        assert!(u32::try_from(MAX_SEGMENT_LENGTH).is_ok());
    }
    #[test]
    fn twice_the_capacity_fits_in_the_segments_that_are_kept() {
        for capacity in CAPACITIES {
            let Limits {
                segment, segments, ..
            } = Limits::of(capacity);
            if 0 < segment {
                assert!(2 * capacity <= segment * segments as u64, "{capacity}");
            }
        }
        assert_eq!(Limits::of(1024 * MIB).segments, 128);
        assert_eq!(Limits::of(100 * 1024 * MIB).segments, 200);
        assert_eq!(Limits::of(10 * 1024 * 1024 * MIB).segments, 20_480);
    }
}
