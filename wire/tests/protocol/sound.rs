//! What is true of any bytes that a peer may send. The fuzz target includes this file too.

use std::fmt::Debug;

use bytes::Bytes;
use scale0_wire::{
    Announce, Bye, Cancel, DecodeError, End, Explain, Heartbeat, Hello, Message, Redirect, Reject,
    RequestHead, ResponseHead, Unsupported, Wanted, Welcome, Window,
};

/// What all types of metadata have in common.
pub(crate) trait Metadata: Sized + Debug + PartialEq {
    fn to_bytes(&self) -> Bytes;
    fn from_bytes(metadata: &Bytes) -> Result<Self, DecodeError>;
}

macro_rules! metadata {
    ($($kind:ident)*) => {
        $(impl Metadata for $kind {
            fn to_bytes(&self) -> Bytes {
                self.encode()
            }

            fn from_bytes(metadata: &Bytes) -> Result<Self, DecodeError> {
                Self::decode(metadata)
            }
        })*

        /// Every decoder of metadata refuses these bytes, or reads a value that is written as these very bytes.
        pub(crate) fn check_metadata(metadata: &Bytes) {
            $(if let Ok(value) = $kind::from_bytes(metadata) {
                assert_eq!(value.to_bytes(), metadata, "{value:?}");
            })*
        }
    };
}

metadata! {
    Hello Welcome Heartbeat Announce Redirect Explain Wanted Bye Unsupported RequestHead ResponseHead Reject End Cancel Window
}

/// These frames are refused, or read as a message that is written as these very frames. Returns it.
pub(crate) fn check_frames(frame: &Bytes, content: Option<&Bytes>) -> Result<Message, DecodeError> {
    let message = Message::decode(frame, content.cloned());
    let owned = Message::decode_owned(frame.clone(), content.cloned());
    assert_eq!(owned.map(|message| *message), message);
    let message = message?;
    let mut again = Vec::new();
    let content_again = message
        .encode(&mut again)
        .expect("what was read is within all limits");
    assert_eq!(&again, frame, "{message:?}");
    assert_eq!(content_again.as_ref(), content, "{message:?}");
    check_metadata(&message.metadata);
    Ok(message)
}

/// Checks these bytes as one frame, as two, and as metadata.
pub(crate) fn check(bytes: &Bytes) {
    let _ = check_frames(bytes, None);
    if let Some((frame, content)) = two_frames(bytes) {
        let _ = check_frames(&frame, Some(&content));
    }
    check_metadata(bytes);
}

/// The bytes as two frames, split where the header says that metadata ends.
fn two_frames(bytes: &Bytes) -> Option<(Bytes, Bytes)> {
    let header = u16::from_le_bytes(*bytes.get(2..)?.first_chunk()?);
    let metadata = u32::from_le_bytes(*bytes.get(4..)?.first_chunk()?);
    let end = usize::from(header).checked_add(metadata as usize)?;
    (end <= bytes.len()).then(|| (bytes.slice(..end), bytes.slice(end..)))
}
