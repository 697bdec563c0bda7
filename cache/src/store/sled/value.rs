//! What the database holds under a key: a head, and the body or where it is.

use bytes::Bytes;

use crate::key::CacheKey;

/// The first byte of each value; another one is read as damage.
const VERSION: u8 = 1;

/// Bytes of the checksum behind it.
const CHECKSUM: usize = 16;

/// Version, checksum, place, length or number of the body, length of the head.
const FIXED: usize = 1 + CHECKSUM + 1 + 16 + 4;

/// A record as it is kept in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) head: Bytes,
    pub(super) body: Body,
}

/// Where the body is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body {
    /// Beside its head.
    Inline(Bytes),
    /// In a file of its own.
    File(BodyFile),
}

/// The name of a body's file, which also tells its length so that a directory can be counted by its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BodyFile {
    /// Never used twice in a store.
    pub(super) id: u64,
    pub(super) length: u64,
}

impl BodyFile {
    pub(super) fn name(self) -> String {
        format!("{:016x}.{}", self.id, self.length)
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        let (id, length) = name.split_once('.')?;
        let id = u64::from_str_radix(id, 16).ok()?;
        let length = length.parse().ok()?;
        Some(Self { id, length })
    }

    /// What it takes on a disk that gives out blocks of 4 KiB; saturating, as a name says anything.
    pub(super) fn on_disk(self) -> u64 {
        self.length.div_ceil(4096).saturating_mul(4096)
    }
}

impl Value {
    /// The bytes for the database. `None`: the head is longer than any that is stored.
    pub(super) fn encode(&self, key: &CacheKey) -> Option<Vec<u8>> {
        let head_length = u32::try_from(self.head.len()).ok()?;
        let (place, id, length, inline) = match &self.body {
            Body::Inline(body) => (0, 0, body.len() as u64, &body[..]),
            Body::File(file) => (1, file.id, file.length, &[][..]),
        };
        let mut bytes = Vec::with_capacity(FIXED + self.head.len() + inline.len());
        bytes.push(VERSION);
        bytes.extend_from_slice(&[0; CHECKSUM]);
        bytes.push(place);
        bytes.extend_from_slice(&id.to_le_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&head_length.to_le_bytes());
        bytes.extend_from_slice(&self.head);
        bytes.extend_from_slice(inline);
        let checksum = checksum(key, &bytes[1 + CHECKSUM..]);
        bytes[1..=CHECKSUM].copy_from_slice(&checksum);
        Some(bytes)
    }

    /// What [`Value::encode`] was given under that key. `None`: these bytes are not from there.
    pub(super) fn decode(key: &CacheKey, bytes: &[u8]) -> Option<Self> {
        let (&version, rest) = bytes.split_first()?;
        let (found, rest) = rest.split_first_chunk::<CHECKSUM>()?;
        if version != VERSION || *found != checksum(key, rest) {
            return None;
        }
        let (&place, rest) = rest.split_first()?;
        let (id, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (head_length, rest) = rest.split_first_chunk()?;
        let head_length = usize::try_from(u32::from_le_bytes(*head_length)).ok()?;
        let (head, inline) = rest.split_at_checked(head_length)?;
        let (id, length) = (u64::from_le_bytes(*id), u64::from_le_bytes(*length));
        let body = match place {
            0 if length == inline.len() as u64 => Body::Inline(Bytes::copy_from_slice(inline)),
            1 if inline.is_empty() => Body::File(BodyFile { id, length }),
            _ => return None,
        };
        let head = Bytes::copy_from_slice(head);
        Some(Self { head, body })
    }
}

/// Over the key too: a value that a broken tree gives under another key is not taken for that key's.
fn checksum(key: &CacheKey, rest: &[u8]) -> [u8; CHECKSUM] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(key.as_bytes()).update(rest);
    let mut checksum = [0; CHECKSUM];
    checksum.copy_from_slice(&hasher.finalize().as_bytes()[..CHECKSUM]);
    checksum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> CacheKey {
        CacheKey::from_bytes([number; 32])
    }

    proptest::proptest! {
        #[test]
        fn a_value_is_read_as_it_was_written_and_never_under_another_key(
            head in proptest::collection::vec(0_u8.., 0..300),
            inline in proptest::option::of(proptest::collection::vec(0_u8.., 0..300)),
            id in 0_u64..,
            length in 0_u64..,
        ) {
            let body = match inline {
                Some(inline) => Body::Inline(inline.into()),
                None => Body::File(BodyFile { id, length }),
            };
            let value = Value { head: head.into(), body };
            let bytes = value.encode(&key(1)).unwrap();
            proptest::prop_assert_eq!(Value::decode(&key(1), &bytes), Some(value));
            proptest::prop_assert_eq!(Value::decode(&key(2), &bytes), None);
        }

        #[test]
        fn no_byte_of_a_value_can_be_changed_unseen(at in 0_usize..60, flip in 1_u8..) {
            let body = Body::Inline(Bytes::from_static(b"a body"));
            let value = Value { head: Bytes::from_static(b"the head"), body };
            let mut bytes = value.encode(&key(1)).unwrap();
            let at = at % bytes.len();
            bytes[at] ^= flip;
            proptest::prop_assert_eq!(Value::decode(&key(1), &bytes), None);
            proptest::prop_assert_eq!(Value::decode(&key(1), &bytes[..at]), None);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(0_u8.., 0..100)) {
            proptest::prop_assert_eq!(Value::decode(&key(1), &bytes), None);
        }
    }

    #[test]
    fn a_file_is_known_by_its_name_and_nothing_else_is() {
        let file = BodyFile {
            id: u64::MAX - 7,
            length: 123_456,
        };
        assert_eq!(BodyFile::from_name(&file.name()), Some(file));
        for name in [
            "",
            ".",
            "0123",
            "xyz.4",
            "12.x",
            "1.2.3",
            "1.99999999999999999999",
        ] {
            assert_eq!(BodyFile::from_name(name), None, "{name}");
        }
    }
}
