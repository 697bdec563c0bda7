//! What the bytes of a segment mean.
//!
//! A segment begins with [`SegmentHeader`]. Records follow without gaps: a [`Label`], the head, and the body unless it has a file of
//! its own. Numbers are little-endian.
//!
//! The checksums of labels are keyed by a salt that every segment has of its own and that never leaves the disk. After damage,
//! labels are searched for among whatever bytes are there, bodies included, and an origin must not be able to send a body in which
//! a label is found.

use std::hash::{BuildHasher, Hasher, RandomState};

use crate::key::CacheKey;

/// The bytes of a [`SegmentHeader`].
pub(super) const SEGMENT_HEADER: u32 = 52;

/// The same.
const HEADER_BYTES: usize = SEGMENT_HEADER as usize;

/// The bytes of a [`Label`].
pub(super) const LABEL: usize = 72;

/// The largest head. A head holds a checksum of 16 bytes for every block of 64 KiB, so that this is enough for a body of 48 GiB and
/// 4 MiB of fields; and reading a head allocates no more.
pub(super) const MAX_HEAD: usize = 16 * 1024 * 1024;

/// Says what the file is, and of which version its layout.
const SEGMENT_MAGIC: [u8; 8] = *b"S0segm\x00\x01";

/// Begins every label. Three bytes are enough to skip most places where there is none.
pub(super) const LABEL_MAGIC: [u8; 3] = [0xf5, b'S', b'0'];

/// What is checked of a label: one block of blake3's.
const CHECKED: usize = 64;

/// The key of the checksums of one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Salt(pub(super) [u8; 32]);

impl Salt {
    /// One that nobody has seen. The standard library seeds its hash maps from the system's randomness.
    pub(super) fn random() -> Self {
        let mut salt = [0; 32];
        for part in salt.chunks_exact_mut(8) {
            part.copy_from_slice(&random_number().to_le_bytes());
        }
        Self(salt)
    }
}

/// A number that nobody could have guessed.
pub(super) fn random_number() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// The beginning of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) number: u32,
    pub(super) salt: Salt,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&SEGMENT_MAGIC);
        bytes[8..12].copy_from_slice(&self.number.to_le_bytes());
        bytes[12..44].copy_from_slice(&self.salt.0);
        let check = checksum(&bytes[..44]);
        bytes[44..].copy_from_slice(&check);
        bytes
    }

    /// `None`: damaged, or of another segment or version.
    pub(super) fn decode(bytes: &[u8; HEADER_BYTES], number: u32) -> Option<Self> {
        let header = Self {
            number: u32::from_le_bytes(array(bytes, 8)),
            salt: Salt(array(bytes, 12)),
        };
        (header.encode() == *bytes && header.number == number).then_some(header)
    }
}

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Label, head and body.
    Inline,
    /// Label and head; the body is a file of its own.
    Apart,
    /// The label only: there is no record of this key before here.
    Removal,
}

impl Kind {
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Inline => 1,
            Self::Apart => 2,
            Self::Removal => 3,
        }
    }

    pub(super) fn of_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Inline),
            2 => Some(Self::Apart),
            3 => Some(Self::Removal),
            _ => None,
        }
    }
}

/// The fixed part of a record: whose it is, and how long its parts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label {
    pub(super) kind: Kind,
    pub(super) key: CacheKey,
    /// The head's length.
    pub(super) head: u32,
    /// The head's [`checksum`].
    pub(super) head_check: [u8; 8],
    /// The body's length.
    pub(super) body: u64,
    /// The number of the body's file, where it has one.
    pub(super) file: u64,
}

impl Label {
    pub(super) fn removal(key: CacheKey) -> Self {
        Self {
            kind: Kind::Removal,
            key,
            head: 0,
            head_check: [0; 8],
            body: 0,
            file: 0,
        }
    }

    pub(super) fn encode(&self, salt: &Salt) -> [u8; LABEL] {
        let mut bytes = [0; LABEL];
        bytes[..3].copy_from_slice(&LABEL_MAGIC);
        bytes[3] = self.kind.code();
        bytes[4..8].copy_from_slice(&self.head.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.body.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.file.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.head_check);
        bytes[32..64].copy_from_slice(self.key.as_bytes());
        let check = blake3::keyed_hash(&salt.0, &bytes[..CHECKED]);
        bytes[CHECKED..].copy_from_slice(&check.as_bytes()[..LABEL - CHECKED]);
        bytes
    }

    /// `None`: these bytes are no label of this segment.
    pub(super) fn decode(bytes: &[u8; LABEL], salt: &Salt) -> Option<Self> {
        if bytes[..3] != LABEL_MAGIC {
            return None;
        }
        let label = Self {
            kind: Kind::of_code(bytes[3])?,
            head: u32::from_le_bytes(array(bytes, 4)),
            body: u64::from_le_bytes(array(bytes, 8)),
            file: u64::from_le_bytes(array(bytes, 16)),
            head_check: array(bytes, 24),
            key: CacheKey::from_bytes(array(bytes, 32)),
        };
        (label.encode(salt) == *bytes).then_some(label)
    }

    /// The bytes of the whole record, wherever they are.
    pub(super) fn weight(&self) -> u64 {
        (LABEL as u64 + u64::from(self.head)).saturating_add(self.body)
    }

    /// The bytes of the whole record within its segment.
    pub(super) fn record_length(&self) -> u64 {
        let body = match self.kind {
            Kind::Inline => self.body,
            Kind::Apart | Kind::Removal => 0,
        };
        (LABEL as u64 + u64::from(self.head)).saturating_add(body)
    }
}

/// Against accidents: the first 64 bits of blake3.
pub(super) fn checksum(bytes: &[u8]) -> [u8; 8] {
    array(blake3::hash(bytes).as_bytes(), 0)
}

/// The `N` bytes from `at` on.
pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label() -> Label {
        Label {
            kind: Kind::Inline,
            key: CacheKey::new("https", "example.com", "/"),
            head: 300,
            head_check: checksum(b"head"),
            body: 1024,
            file: 0,
        }
    }

    #[test]
    fn a_label_with_any_bit_flipped_is_none() {
        let salt = Salt::random();
        let bytes = label().encode(&salt);
        assert_eq!(Label::decode(&bytes, &salt), Some(label()));
        for bit in 0..LABEL * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Label::decode(&damaged, &salt), None, "{bit}");
        }
    }

    #[test]
    fn a_label_of_another_segment_is_none_here() {
        let bytes = label().encode(&Salt::random());
        assert_eq!(Label::decode(&bytes, &Salt::random()), None);
    }

    #[test]
    fn a_segment_header_with_any_bit_flipped_or_under_another_number_is_none() {
        let header = SegmentHeader {
            number: 7,
            salt: Salt::random(),
        };
        let bytes = header.encode();
        assert!(SegmentHeader::decode(&bytes, 7) == Some(header));
        assert!(SegmentHeader::decode(&bytes, 8).is_none());
        for bit in 0..HEADER_BYTES * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&damaged, 7).is_none(), "{bit}");
        }
    }
}
