//! The list of what is in a segment, beside it, so that a start reads no bodies.
//!
//! A sidecar covers the first bytes of its segment. What was appended after it was written is scanned.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

use super::index::IndexKey;
use super::layout::{Kind, LABEL, Salt, array};
use super::limits::MAX_SEGMENT_LENGTH;

const MAGIC: [u8; 8] = *b"S0side\x00\x01";

/// Magic, number, covered, salt.
const HEADER: usize = 48;

/// The bytes of an [`Entry`].
pub(super) const ENTRY: usize = 24;

/// Of blake3, over all before it.
const CHECK: usize = 16;

/// No segment has more records than labels have room.
const MAX_LENGTH: u64 =
    (HEADER + CHECK) as u64 + (MAX_SEGMENT_LENGTH / LABEL as u64 + 1) * ENTRY as u64;

/// A record in a segment. In memory only for the segment that is being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: IndexKey,
    pub(super) offset: u32,
    pub(super) length: u32,
    pub(super) kind: Kind,
}

/// What a sidecar says.
pub(super) struct Sidecar {
    pub(super) salt: Salt,
    /// How many bytes of the segment it speaks of.
    pub(super) covered: u32,
    pub(super) entries: Vec<Entry>,
}

impl Sidecar {
    /// The sidecar of that segment, if it is there and whole.
    pub(super) fn read(path: &Path, number: u32) -> Option<Self> {
        // Before it is opened: that would wait for ever on a pipe.
        let metadata = fs::symlink_metadata(path).ok()?;
        if !metadata.is_file() || MAX_LENGTH < metadata.len() {
            return None;
        }
        let file = fs::File::open(path).ok()?;
        let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).ok()?);
        file.take(MAX_LENGTH).read_to_end(&mut bytes).ok()?;
        Self::decode(&bytes, number)
    }

    fn decode(bytes: &[u8], number: u32) -> Option<Self> {
        let (content, check) = bytes.split_last_chunk::<CHECK>()?;
        if content.len() < HEADER
            || content[..8] != MAGIC
            || content[8..12] != number.to_le_bytes()
            || blake3::hash(content).as_bytes()[..CHECK] != *check
        {
            return None;
        }
        let (header, rest) = content.split_at(HEADER);
        let (entries, []) = rest.as_chunks::<ENTRY>() else {
            return None;
        };
        Some(Self {
            salt: Salt(array(header, 16)),
            covered: u32::from_le_bytes(array(header, 12)),
            entries: entries.iter().map(decode_entry).collect::<Option<_>>()?,
        })
    }

    /// Writes the sidecar of a segment, in place of what was there.
    pub(super) fn write(
        path: &Path,
        number: u32,
        salt: &Salt,
        covered: u32,
        entries: &[Entry],
    ) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(HEADER + entries.len() * ENTRY + CHECK);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&covered.to_le_bytes());
        bytes.extend_from_slice(&salt.0);
        for entry in entries {
            bytes.extend_from_slice(&encode_entry(entry));
        }
        let check = blake3::hash(&bytes);
        bytes.extend_from_slice(&check.as_bytes()[..CHECK]);
        write_anew(path, &bytes)
    }
}

/// Writes a file in place of what was there, which may be a pipe, or a link to somewhere else.
pub(super) fn write_anew(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    fs::File::create_new(path)?.write_all(bytes)
}

/// The kind is in the two highest bits of the length.
const KIND_SHIFT: u32 = 30;

fn encode_entry(entry: &Entry) -> [u8; ENTRY] {
    let mut bytes = [0; ENTRY];
    let length = entry.length | u32::from(entry.kind.code()) << KIND_SHIFT;
    bytes[..16].copy_from_slice(&entry.key.to_bytes());
    bytes[16..20].copy_from_slice(&entry.offset.to_le_bytes());
    bytes[20..].copy_from_slice(&length.to_le_bytes());
    bytes
}

fn decode_entry(bytes: &[u8; ENTRY]) -> Option<Entry> {
    let length = u32::from_le_bytes(array(bytes, 20));
    Some(Entry {
        key: IndexKey::from_bytes(&array(bytes, 0)),
        offset: u32::from_le_bytes(array(bytes, 16)),
        length: length & ((1 << KIND_SHIFT) - 1),
        kind: Kind::of_code((length >> KIND_SHIFT) as u8)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::CacheKey;

    fn entries() -> Vec<Entry> {
        let kinds = [Kind::Inline, Kind::Apart, Kind::Removal];
        (0..30)
            .map(|number| Entry {
                key: IndexKey::of(&CacheKey::new("http", "example.com", &number.to_string())),
                offset: number * 1000,
                length: 1000,
                kind: kinds[number as usize % 3],
            })
            .collect()
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sidecar");
        let salt = Salt::random();
        Sidecar::write(&path, 3, &salt, 30_000, &entries()).unwrap();

        let sidecar = Sidecar::read(&path, 3).unwrap();
        assert_eq!(sidecar.entries, entries());
        assert!(sidecar.salt == salt && sidecar.covered == 30_000);
        assert!(Sidecar::read(&path, 4).is_none(), "it is of segment 3");

        let bytes = fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(Sidecar::decode(&damaged, 3).is_none(), "{at}");
            assert!(Sidecar::decode(&bytes[..at], 3).is_none(), "{at}");
        }
    }
}
