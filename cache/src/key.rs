//! The cache key: what makes two requests the same request.

use std::fmt;
use std::hash::{Hash, Hasher};

use http::{HeaderMap, HeaderName};

use crate::policy::variant;

/// The first byte of what is hashed: separates the two kinds of keys, and one version of their
/// layout from the next.
const PRIMARY: u8 = 1;
const VARIANT: u8 = 2;

/// 256 bits of blake3 over a normalised request (RFC 9111 §2).
///
/// GET and HEAD share a key; no other method has one. The key is a hash of exactly the strings it
/// is given: whoever normalises a target sends that same form to the backend, so that *what is
/// keyed is what is sent*.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CacheKey([u8; 32]);

impl CacheKey {
    /// The primary key of a target URI in its normalised parts.
    pub fn new(scheme: &str, authority: &str, path_and_query: &str) -> Self {
        // Hashed in one go, and short: most targets fit into one block of blake3's.
        let length = 9 + scheme.len() + authority.len() + path_and_query.len();
        let mut text = Vec::with_capacity(length);
        text.push(PRIMARY);
        push_part(&mut text, scheme.as_bytes());
        push_part(&mut text, authority.as_bytes());
        text.extend_from_slice(path_and_query.as_bytes());
        Self(*blake3::hash(&text).as_bytes())
    }

    /// The key of the variant that `request` selects by the fields that `Vary` names (RFC 9111
    /// §4.1).
    ///
    /// Always called on the primary key. Two requests have the same variant key iff their nominated
    /// fields match; the order in which `Vary` names them is of no account as long as `names` is
    /// sorted, which [`variant::Vary`] sees to.
    pub fn variant(&self, names: &[HeaderName], request: &HeaderMap) -> Self {
        let mut text = vec![VARIANT];
        text.extend_from_slice(&self.0);
        for name in names {
            push_part(&mut text, name.as_str().as_bytes());
            match variant::normalised_value(name, request) {
                // Absent and empty are different answers to what the origin asked.
                None => text.push(0),
                Some(value) => {
                    text.push(1);
                    push_part(&mut text, &value);
                }
            }
        }
        Self(*blake3::hash(&text).as_bytes())
    }

    /// The key of the same variant among those of another generation: the last bits are as random as all others, so what is added
    /// to them keeps keys apart.
    pub(crate) fn of_generation(mut self, generation: u64) -> Self {
        for (byte, other) in self.0[24..].iter_mut().zip(generation.to_le_bytes()) {
            *byte ^= other;
        }
        self
    }

    /// The first 128 bits, as flights are named on the wire.
    pub fn flight_key(&self) -> u128 {
        let mut first = [0; 16];
        first.copy_from_slice(&self.0[..16]);
        u128::from_le_bytes(first)
    }

    /// The key of these 256 bits, which [`CacheKey::as_bytes`] gave.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// All 256 bits.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// 64 bits for tables and shards: blake3 has mixed them already.
    pub(crate) fn short_hash(&self) -> u64 {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0[..8]);
        u64::from_le_bytes(first)
    }
}

/// Length first, so that no two lists of parts have the same bytes. No field and no target comes
/// near the 4 GiB at which a length would saturate.
fn push_part(text: &mut Vec<u8>, part: &[u8]) {
    text.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
    text.extend_from_slice(part);
}

impl Hash for CacheKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.short_hash());
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CacheKey({:032x})", self.flight_key().swap_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::{ACCEPT_ENCODING, ACCEPT_LANGUAGE};

    fn key() -> CacheKey {
        CacheKey::new("https", "example.com", "/a?b")
    }

    fn with(lines: &[(&HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn every_part_of_the_target_is_part_of_the_key() {
        let others = [
            CacheKey::new("http", "example.com", "/a?b"),
            CacheKey::new("https", "example.org", "/a?b"),
            CacheKey::new("https", "example.com", "/a?c"),
            CacheKey::new("https", "example.com", "/a"),
            CacheKey::new("https", "example.com/a", "?b"),
        ];
        for other in others {
            assert_ne!(key(), other);
        }
        assert_eq!(key(), CacheKey::new("https", "example.com", "/a?b"));
    }

    #[test]
    fn a_variant_is_chosen_by_the_nominated_fields_only() {
        let names = [ACCEPT_ENCODING, ACCEPT_LANGUAGE];
        let german = with(&[(&ACCEPT_LANGUAGE, "de")]);
        let english = with(&[(&ACCEPT_LANGUAGE, "en")]);
        let german_with_cookie = with(&[(&ACCEPT_LANGUAGE, "de"), (&http::header::COOKIE, "a=b")]);
        assert_ne!(
            key().variant(&names, &german),
            key().variant(&names, &english)
        );
        assert_eq!(
            key().variant(&names, &german),
            key().variant(&names, &german_with_cookie)
        );
        assert_ne!(
            key().variant(&names, &german),
            key().variant(&names[..1], &german)
        );
    }

    #[test]
    fn an_absent_field_is_not_an_empty_field() {
        let names = [ACCEPT_LANGUAGE];
        let empty = with(&[(&ACCEPT_LANGUAGE, "")]);
        assert_ne!(
            key().variant(&names, &empty),
            key().variant(&names, &HeaderMap::new())
        );
    }
}
