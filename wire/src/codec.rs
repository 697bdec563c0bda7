//! Length-prefixed values, written and read by hand: one codec for all metadata.

use bytes::{BufMut, Bytes};

use crate::{DecodeError, limits};

/// Reads metadata front to back; every read checks what is left.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    metadata: &'a Bytes,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(metadata: &'a Bytes) -> Self {
        Self::starting_at(metadata, 0)
    }

    /// A reader that has passed what is before `at`; that must lie within `metadata`.
    pub(crate) const fn starting_at(metadata: &'a Bytes, at: usize) -> Self {
        Self { metadata, at }
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    /// Bytes with their length in 16 bits before them; shares the metadata's buffer.
    pub(crate) fn bytes(&mut self) -> Result<Bytes, DecodeError> {
        let length = self.skip()?;
        Ok(self.metadata.slice(self.at - length..self.at))
    }

    /// Passes over bytes with their length before them, and tells how many they are: a look at them costs no reference count.
    pub(crate) fn skip(&mut self) -> Result<usize, DecodeError> {
        let length = usize::from(self.u16()?);
        self.need(length)?;
        self.at += length;
        Ok(length)
    }

    /// A name: 1 to [`limits::NAME`] bytes of visible ASCII.
    pub(crate) fn name(&mut self, what: &'static str) -> Result<String, DecodeError> {
        let bytes = self.bytes()?;
        match str::from_utf8(&bytes) {
            Ok(name) if is_name(name) => Ok(name.to_owned()),
            _ => Err(DecodeError::Name { what }),
        }
    }

    /// A name, or nothing in its place.
    pub(crate) fn name_or_empty(&mut self, what: &'static str) -> Result<String, DecodeError> {
        if self.metadata[self.at..].starts_with(&[0, 0]) {
            self.skip()?;
            return Ok(String::new());
        }
        self.name(what)
    }

    /// The name of a service: in lower case, so that no service has two spellings.
    pub(crate) fn service(&mut self) -> Result<String, DecodeError> {
        let name = self.name("service")?;
        if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(DecodeError::Name { what: "service" });
        }
        Ok(name)
    }

    /// A public key of 32 bytes, or none.
    pub(crate) fn key(&mut self) -> Result<Option<[u8; 32]>, DecodeError> {
        let bytes = self.bytes()?;
        if !bytes.is_empty() {
            exactly(32, bytes.len())?;
        }
        Ok(bytes.first_chunk().copied())
    }

    /// Text for people: UTF-8 of at most [`limits::TEXT`] bytes.
    pub(crate) fn text(&mut self, what: &'static str) -> Result<String, DecodeError> {
        let bytes = self.bytes()?;
        within::<usize>(what, bytes.len(), limits::TEXT)?;
        match str::from_utf8(&bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(DecodeError::Text { what }),
        }
    }

    /// How many bytes it has passed.
    pub(crate) const fn position(&self) -> usize {
        self.at
    }

    /// What is left, all of it.
    pub(crate) fn rest(self) -> Bytes {
        self.metadata.slice(self.at..)
    }

    /// Nothing may be left.
    pub(crate) fn end(self) -> Result<(), DecodeError> {
        exactly(self.at, self.metadata.len())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some(array) = self.metadata[self.at..].first_chunk() else {
            return Err(self.truncated(N));
        };
        self.at += N;
        Ok(*array)
    }

    fn need(&self, length: usize) -> Result<(), DecodeError> {
        if self.metadata.len() - self.at < length {
            return Err(self.truncated(length));
        }
        Ok(())
    }

    fn truncated(&self, length: usize) -> DecodeError {
        DecodeError::Truncated {
            needed: self.at + length,
            found: self.metadata.len(),
        }
    }
}

/// A length as the number that travels, refused over its limit.
pub(crate) fn within<T: TryFrom<usize>>(
    what: &'static str,
    found: usize,
    limit: usize,
) -> Result<T, DecodeError> {
    match T::try_from(found) {
        Ok(length) if found <= limit => Ok(length),
        _ => Err(DecodeError::TooLong { what, found, limit }),
    }
}

/// Refuses bytes that are not as many as were announced.
pub(crate) const fn exactly(needed: usize, found: usize) -> Result<(), DecodeError> {
    if found < needed {
        return Err(DecodeError::Truncated { needed, found });
    }
    if needed < found {
        return Err(DecodeError::Excess {
            excess: found - needed,
        });
    }
    Ok(())
}

/// Whether this can be the name of a node, a site or a service.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=limits::NAME).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Writes `bytes` behind their length in 16 bits, or none where they are more than that can say: half a target asks for
/// something else, an empty one for nothing.
///
/// Callers pass names, targets and fields, all of which are bounded below it before they come here.
pub(crate) fn put_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    let (length, bytes) = match u16::try_from(bytes.len()) {
        Ok(length) => (length, bytes),
        Err(_) => (0, &[][..]),
    };
    to.put_u16_le(length);
    to.put_slice(bytes);
}

/// Writes text for people, cut to what may be sent.
pub(crate) fn put_text(to: &mut Vec<u8>, text: &str) {
    put_bytes(
        to,
        &text.as_bytes()[..text.floor_char_boundary(limits::TEXT)],
    );
}
