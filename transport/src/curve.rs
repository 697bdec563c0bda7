//! Keys of CURVE (ZMTP 3.1, RFC 26): Curve25519, written in Z85 as 40 characters.

use std::fmt;
use std::str::FromStr;

use crate::error::TransportError;
use crate::socket::{Errno, curve_public};

const KEY: usize = 32;
const Z85: usize = 40;

/// What others know a node by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; KEY]);

/// What a node proves its public key with. It is never printed: its `Debug` says so and it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretKey([u8; KEY]);

/// A node's two keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPair {
    /// To be handed out.
    pub public: PublicKey,
    /// To be kept.
    pub secret: SecretKey,
}

/// Text that is no key. It is not repeated in the message, for it may be most of a secret one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key has 40 characters of Z85, this text has {length} characters{}", if *.length == Z85 { ", not all of Z85" } else { "" })]
pub struct KeyError {
    length: usize,
}

impl KeyPair {
    /// A new pair.
    ///
    /// # Errors
    /// When libzmq was built without CURVE, which [`crate::Context::new`] refuses first.
    pub fn generate() -> Result<Self, TransportError> {
        let pair = zmq::CurveKeyPair::new()
            .map_err(|error| TransportError::refused("generate keys", error.into()))?;
        Ok(Self {
            public: PublicKey(pair.public_key),
            secret: SecretKey(pair.secret_key),
        })
    }
}

impl PublicKey {
    /// The key of these bytes.
    #[must_use]
    pub const fn from_bytes(key: [u8; KEY]) -> Self {
        Self(key)
    }

    /// The key's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; KEY] {
        &self.0
    }
}

impl SecretKey {
    /// The public key that belongs to it.
    ///
    /// # Errors
    /// When libzmq was built without CURVE, which [`crate::Context::new`] refuses first.
    pub fn public_key(&self) -> Result<PublicKey, TransportError> {
        curve_public(&self.to_z85())
            .and_then(|public| public.parse().map_err(|_: KeyError| Errno(libc::EINVAL)))
            .map_err(|errno| TransportError::refused("derive a public key", errno))
    }

    /// The key in Z85, to be written where only its owner reads.
    #[must_use]
    pub fn to_z85(&self) -> String {
        encode(&self.0)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; KEY] {
        &self.0
    }
}

impl From<[u8; KEY]> for PublicKey {
    fn from(bytes: [u8; KEY]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(not shown)")
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        decode(text).map(Self)
    }
}

impl FromStr for SecretKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        decode(text).map(Self)
    }
}

/// The digits of Z85 (ZeroMQ RFC 32): each five are a big-endian number of four bytes.
const DIGITS: &[u8; 85] =
    b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

fn encode(key: &[u8; KEY]) -> String {
    let mut text = String::with_capacity(Z85);
    for bytes in key.as_chunks::<4>().0 {
        let value = u32::from_be_bytes(*bytes) as usize;
        let digits = [85 * 85 * 85 * 85, 85 * 85 * 85, 85 * 85, 85, 1];
        text.extend(digits.map(|place| char::from(DIGITS[value / place % 85])));
    }
    text
}

/// The zmq crate's own takes what is not Z85 for a key of zeros.
fn decode(text: &str) -> Result<[u8; KEY], KeyError> {
    let error = || KeyError {
        length: text.chars().count(),
    };
    if text.len() != Z85 {
        return Err(error());
    }
    let mut key = [0; KEY];
    for (bytes, digits) in key
        .as_chunks_mut::<4>()
        .0
        .iter_mut()
        .zip(text.as_bytes().chunks(5))
    {
        let value = digits.iter().try_fold(0_u32, |value, digit| {
            let digit = DIGITS.iter().position(|known| known == digit)?;
            value
                .checked_mul(85)?
                .checked_add(u32::try_from(digit).ok()?)
        });
        *bytes = value.ok_or_else(error)?.to_be_bytes();
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_key_gives_its_public_key_and_survives_its_text() {
        let pair = KeyPair::generate().unwrap();
        assert_eq!(pair.secret.public_key().unwrap(), pair.public);
        assert_eq!(pair.public.to_string().parse(), Ok(pair.public));
        assert_eq!(pair.secret.to_z85().parse(), Ok(pair.secret));
    }

    #[test]
    fn a_secret_key_is_not_in_its_debug_nor_in_the_error_about_it() {
        let pair = KeyPair::generate().unwrap();
        let text = pair.secret.to_z85();
        assert!(!format!("{pair:?}").contains(&text));
        let half = text[..39].parse::<SecretKey>().unwrap_err();
        assert!(!half.to_string().contains(&text[..8]), "{half}");
    }

    #[test]
    fn keys_are_written_as_the_rfc_has_them() {
        let start = [0x86, 0x4f, 0xd2, 0x6f, 0xb5, 0x59, 0xf7, 0x5b];
        let mut key = [0xff; KEY];
        key[..8].copy_from_slice(&start);
        let text = PublicKey(key).to_string();
        assert!(text.starts_with("HelloWorld"), "{text}");
        assert_eq!(text.parse(), Ok(PublicKey(key)));
    }

    #[test]
    fn text_that_is_not_z85_is_no_key() {
        for text in [
            "",
            &"é".repeat(20),
            &"\0".repeat(40),
            &"~".repeat(40),
            &"#".repeat(40),
        ] {
            assert!(text.parse::<PublicKey>().is_err(), "{text:?}");
        }
    }
}
