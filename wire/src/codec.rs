//! Length-prefixed values, written and read by hand: one codec for all metadata.

use bytes::{Buf, BufMut, Bytes};

use crate::{DecodeError, limits};

/// Reads metadata front to back; every read checks what is left.
#[derive(Debug)]
pub(crate) struct Reader {
    left: Bytes,
}

impl Reader {
    pub(crate) fn new(metadata: &Bytes) -> Self {
        Self {
            left: metadata.clone(),
        }
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.need(1)?;
        Ok(self.left.get_u8())
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.need(2)?;
        Ok(self.left.get_u16_le())
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.need(4)?;
        Ok(self.left.get_u32_le())
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.need(8)?;
        Ok(self.left.get_u64_le())
    }

    /// Bytes with their length in 16 bits before them; shares the metadata's buffer.
    pub(crate) fn bytes(&mut self) -> Result<Bytes, DecodeError> {
        let length = usize::from(self.u16()?);
        self.need(length)?;
        Ok(self.left.split_to(length))
    }

    /// A name: 1 to 253 bytes of visible ASCII.
    pub(crate) fn name(&mut self, what: &'static str) -> Result<String, DecodeError> {
        let bytes = self.bytes()?;
        if !is_name(&bytes) {
            return Err(DecodeError::Name { what });
        }
        String::from_utf8(bytes.to_vec()).map_err(|_| DecodeError::Name { what })
    }

    /// Text for humans: UTF-8 of at most 1 KiB.
    pub(crate) fn text(&mut self, what: &'static str) -> Result<String, DecodeError> {
        let bytes = self.bytes()?;
        if TEXT < bytes.len() {
            return Err(DecodeError::TooLong {
                what,
                found: bytes.len(),
                limit: TEXT,
            });
        }
        String::from_utf8(bytes.to_vec()).map_err(|_| DecodeError::Name { what })
    }

    /// What is left, all of it.
    pub(crate) fn rest(self) -> Bytes {
        self.left
    }

    /// Nothing may be left.
    pub(crate) fn end(self) -> Result<(), DecodeError> {
        match self.left.len() {
            0 => Ok(()),
            excess => Err(DecodeError::Excess { excess }),
        }
    }

    fn need(&self, needed: usize) -> Result<(), DecodeError> {
        if self.left.len() < needed {
            return Err(DecodeError::Truncated {
                needed,
                found: self.left.len(),
            });
        }
        Ok(())
    }
}

/// The longest text for humans in a message.
pub(crate) const TEXT: usize = 1024;

/// Whether these bytes can be the name of a node, a site or a service.
pub(crate) fn is_name(bytes: &[u8]) -> bool {
    (1..=limits::NAME).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
}

/// Writes `bytes` behind their length in 16 bits; what is longer than that can say is cut off.
///
/// Callers pass names, targets and fields, all of which are bounded well below it before they come here.
pub(crate) fn put_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    to.put_u16_le(length);
    to.put_slice(&bytes[..usize::from(length)]);
}

/// Writes text for humans, cut to what may be sent.
pub(crate) fn put_text(to: &mut Vec<u8>, text: &str) {
    put_bytes(to, &text.as_bytes()[..text.floor_char_boundary(TEXT)]);
}
