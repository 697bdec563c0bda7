//! A message in memory, and how it becomes frames and back.

use bytes::{Buf, Bytes};

use crate::codec::exactly;
use crate::routing_header::Lengths;
use crate::{Bye, DecodeError, Kind, Reason, RoutingHeader, VERSION};

/// One message: the routing header decoded, everything behind it as it travels.
///
/// A clone shares metadata and content. Within one process messages are handed over as they are; only sockets encode them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What brokers read.
    pub header: RoutingHeader,
    /// What a later version has put behind the header's fields; passed on untouched, empty in messages of this version.
    pub extension: Bytes,
    /// What the kind says beyond the header; see the types named after the kinds. Brokers pass that of streams on unread.
    pub metadata: Bytes,
    /// Content of a request or response; at most [`CONTENT`](crate::limits::CONTENT) bytes.
    pub content: Bytes,
}

impl Message {
    /// A message of header alone.
    #[must_use]
    pub const fn new(header: RoutingHeader) -> Self {
        Self {
            header,
            extension: Bytes::new(),
            metadata: Bytes::new(),
            content: Bytes::new(),
        }
    }

    /// The same message with this metadata.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Bytes) -> Self {
        self.metadata = metadata;
        self
    }

    /// The same message with this content.
    #[must_use]
    pub fn with_content(mut self, content: Bytes) -> Self {
        self.content = content;
        self
    }

    /// Makes it a message of a session of this version: its header states that, and a reason that the version has no number for
    /// becomes the nearest that it has. What else a version does not know, its speakers ignore.
    pub fn set_version(&mut self, version: u8) {
        let kind = self.header.kind;
        self.header.version = kind.stated_version(version);
        if VERSION <= version {
            return;
        }
        if kind == Kind::Bye {
            if let Ok(bye) = Bye::decode(&self.metadata) {
                self.metadata = bye.for_version(version).encode();
            }
            return;
        }
        let has_reason = matches!(kind, Kind::Reject | Kind::End | Kind::Cancel);
        if has_reason
            && let Some((&number, rest)) = self.metadata.split_first()
            && let Ok(reason) = Reason::from_number(number)
            && reason.for_version(version) != reason
        {
            self.metadata = [&[reason.for_version(version) as u8], rest].concat().into();
        }
    }

    /// Bytes that this message occupies where it waits, as bounds count them.
    #[must_use]
    pub fn size(&self) -> usize {
        RoutingHeader::LENGTH + self.extension.len() + self.metadata.len() + self.content.len()
    }

    /// Appends the first frame to `frame`; the content is returned if it is to follow as a frame of its own.
    ///
    /// # Errors
    /// When a length is over the protocol's limit; `frame` is then unchanged. Whoever made the message is at fault.
    pub fn encode(&self, frame: &mut Vec<u8>) -> Result<Option<Bytes>, DecodeError> {
        let lengths = self.lengths()?;
        let is_inline = lengths.content_is_inline(self.header.kind);
        frame.reserve(self.size() - if is_inline { 0 } else { self.content.len() });
        self.header.encode(lengths, frame);
        frame.extend_from_slice(&self.extension);
        frame.extend_from_slice(&self.metadata);
        if is_inline {
            frame.extend_from_slice(&self.content);
            return Ok(None);
        }
        Ok(Some(self.content.clone()))
    }

    /// Writes the header over that of a frame which has the rest of this message already: for whoever passes on what it
    /// received, under another number.
    ///
    /// Returns false, and leaves the frame as it is, if this message is not one frame of that length.
    #[must_use]
    pub fn encode_over(&self, frame: &mut [u8]) -> bool {
        let length = frame.len();
        let (Ok(lengths), Some(header)) = (self.lengths(), frame.first_chunk_mut()) else {
            return false;
        };
        let fits = length == self.size() && lengths.content_is_inline(self.header.kind);
        if fits {
            self.header.write(lengths, header);
        }
        fits
    }

    /// Reads a message from its frames. Metadata and content share their buffers.
    ///
    /// # Errors
    /// Whatever is wrong with the bytes; see [`DecodeError`].
    pub fn decode(frame: &Bytes, content: Option<Bytes>) -> Result<Self, DecodeError> {
        let (header, [metadata_at, metadata_end]) = read(frame, content.as_ref())?;
        Ok(Self {
            header,
            extension: frame.slice(RoutingHeader::LENGTH..metadata_at),
            metadata: frame.slice(metadata_at..metadata_end),
            content: content.unwrap_or_else(|| frame.slice(metadata_end..)),
        })
    }

    /// As [`decode`](Self::decode), for whoever needs the frame no longer, and hands the message on.
    ///
    /// Each owner of the frame beyond the first would cost an allocation or an atomic operation, and each move of the message a copy.
    ///
    /// # Errors
    /// Whatever is wrong with the bytes; see [`DecodeError`].
    pub fn decode_owned(
        mut frame: Bytes,
        content: Option<Bytes>,
    ) -> Result<Box<Self>, DecodeError> {
        let place = Box::new_uninit();
        let (header, [metadata_at, metadata_end]) = read(&frame, content.as_ref())?;
        frame.advance(RoutingHeader::LENGTH);
        let extension = frame.split_to(metadata_at - RoutingHeader::LENGTH);
        let metadata = frame.split_to(metadata_end - metadata_at);
        let content = match content {
            Some(content) => content,
            // Of what is empty nobody is to keep the buffer.
            None if frame.is_empty() => Bytes::new(),
            None => frame,
        };
        Ok(Box::write(
            place,
            Self {
                header,
                extension,
                metadata,
                content,
            },
        ))
    }

    fn lengths(&self) -> Result<Lengths, DecodeError> {
        Lengths::new(
            RoutingHeader::LENGTH + self.extension.len(),
            self.metadata.len(),
            self.content.len(),
        )
    }
}

/// The header of a message in these frames, and where its metadata begins and ends in the first.
#[inline(always)]
fn read(frame: &[u8], content: Option<&Bytes>) -> Result<(RoutingHeader, [usize; 2]), DecodeError> {
    let (header, lengths) = RoutingHeader::decode(frame)?;
    let metadata_at = usize::from(lengths.header);
    let metadata_end = metadata_at + lengths.metadata as usize;
    let stated = lengths.content as usize;
    match content {
        None => exactly(metadata_end + stated, frame.len())?,
        Some(content) => {
            exactly(metadata_end, frame.len())?;
            exactly(stated, content.len())?;
        }
    }
    if lengths.content_is_inline(header.kind) != content.is_none() {
        return Err(DecodeError::Framing {
            frames: 1 + usize::from(content.is_some()),
            content: stated,
        });
    }
    Ok((header, [metadata_at, metadata_end]))
}
