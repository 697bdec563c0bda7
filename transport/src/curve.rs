//! Keys of CURVE (ZMTP 3.1, RFC 26): Curve25519, written in Z85 as 40 characters.

use std::fmt;
use std::str::FromStr;

use crate::error::TransportError;

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
        crate::socket::curve_public(&self.to_z85())
            .map_err(|errno| TransportError::refused("derive a public key", errno))?
            .parse()
            .map_err(|_: KeyError| {
                TransportError::refused("derive a public key", crate::socket::Errno(0))
            })
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

impl From<SecretKey> for String {
    fn from(key: SecretKey) -> Self {
        key.to_z85()
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

fn encode(key: &[u8; KEY]) -> String {
    zmq::z85_encode(key).expect("Z85 writes any multiple of 4 bytes")
}

fn decode(text: &str) -> Result<[u8; KEY], KeyError> {
    let error = KeyError {
        length: text.chars().count(),
    };
    if text.len() != Z85 {
        return Err(error);
    }
    let bytes = zmq::z85_decode(text).map_err(|_| error.clone())?;
    bytes.try_into().map_err(|_| error)
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
