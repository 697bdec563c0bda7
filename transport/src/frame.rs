//! Messages as frames of a socket: what is copied and what is not.

use bytes::Bytes;
use scale0_wire::{DecodeError, Message, RoutingHeader};

use crate::raw_frame::RawFrame;
use crate::socket::{Errno, Socket};

/// A received frame up to this size is copied: it shares libzmq's receive buffer with its neighbours, and a message of
/// 200 bytes that somebody keeps would keep 64 KiB. So a message that has no more bytes than this in all keeps no others alive.
pub const COPY_RECEIVED: usize = 4 * 1024;

/// Content from this size on is sent by reference; below, a copy costs less than the reference's allocations.
const SHARE_SENT: usize = 1024;

/// A message as it was received, in one short frame: to be sent on as it is, under another header.
///
/// What is read of it lies in a copy: whoever keeps the message keeps that. libzmq's receive buffer is free once the frame has left for a
/// peer that reads, which is why a router sends on few to one that says nothing.
#[derive(Debug)]
pub struct Frame(RawFrame);

impl Frame {
    /// Whether all of this message but its header is what was received in this frame.
    ///
    /// Its bytes are compared: where they lie says nothing once somebody has dropped a copy.
    #[must_use]
    pub fn is_of(&self, message: &Message) -> bool {
        self.0.len() == message.size() && ends_with(&self.0, message)
    }

    /// Where it lies.
    pub(crate) fn address(&self) -> usize {
        self.0.as_ptr().addr()
    }

    /// The same frame with the header of its message, unless that is not to be had.
    fn under(mut self, message: &Message) -> Option<RawFrame> {
        let bytes = self.0.bytes_mut()?;
        let is_written = bytes.len() == message.size()
            && ends_with(bytes, message)
            && message.encode_over(bytes);
        is_written.then_some(self.0)
    }
}

/// Whether this is what a message has behind its header, in a frame of its length.
fn ends_with(frame: &[u8], message: &Message) -> bool {
    let mut at = RoutingHeader::LENGTH;
    let mut parts = [&message.extension, &message.metadata, &message.content].into_iter();
    parts.all(|part| {
        let end = at + part.len();
        let is_here = part.is_empty() || frame.get(at..end) == Some(&part[..]);
        at = end;
        is_here
    })
}

/// Takes in the frame and the rest of its message.
pub(crate) fn receive(
    socket: &Socket,
    first: RawFrame,
) -> Result<(Box<Message>, Option<Frame>), DecodeError> {
    let mut more = first.has_more();
    if !more && first.len() <= COPY_RECEIVED {
        let copy = Bytes::copy_from_slice(&first);
        let message = Message::decode_owned(copy, None)?;
        return Ok((message, Some(Frame(first))));
    }
    let head = into_bytes(first);
    let mut content = None;
    let mut frames = 1;
    // libzmq delivers all frames of a message or none, so that this ends with the message.
    while more {
        let Some(frame) = socket.receive() else { break };
        frames += 1;
        more = frame.has_more();
        if frames == 2 {
            content = Some(into_bytes(frame));
        }
    }
    if 2 < frames {
        return Err(DecodeError::Framing {
            frames,
            content: content.map_or(0, |content| content.len()),
        });
    }
    let message = Message::decode_owned(head, content)?;
    Ok((message, None))
}

/// Drops the rest of a message of which this was the first frame.
pub(crate) fn skip(socket: &Socket, first: &RawFrame) {
    let mut more = first.has_more();
    while more {
        more = socket.receive().is_some_and(|frame| frame.has_more());
    }
}

/// Why a message was not sent. Nothing of it was.
pub(crate) enum NotSent {
    /// It can never be sent.
    Message,
    /// Not now, or not to that peer.
    Socket(Errno),
}

/// Sends a message, behind the identity frame if there is one. `scratch` is where its head is encoded.
pub(crate) fn send(
    socket: &mut Socket,
    identity: Option<&[u8]>,
    message: &Message,
    scratch: &mut Vec<u8>,
) -> Result<(), NotSent> {
    scratch.clear();
    let content = message.encode(scratch).map_err(|_| NotSent::Message)?;
    if let Some(identity) = identity {
        socket.send(identity, true).map_err(NotSent::Socket)?;
    }
    socket
        .send(scratch, content.is_some())
        .map_err(NotSent::Socket)?;
    match content {
        None => Ok(()),
        Some(content) if content.len() < SHARE_SENT => socket.send(&content, false),
        Some(content) => socket.send_shared(content),
    }
    .map_err(NotSent::Socket)
}

/// Sends a message on in the frame that it was received in, behind the identity frame; a message that is not in that frame any
/// more is sent as any other is.
pub(crate) fn send_on(
    socket: &mut Socket,
    identity: &[u8],
    message: &Message,
    frame: Option<Frame>,
    scratch: &mut Vec<u8>,
) -> Result<(), NotSent> {
    let Some(frame) = frame.and_then(|frame| frame.under(message)) else {
        return send(socket, Some(identity), message, scratch);
    };
    socket.send(identity, true).map_err(NotSent::Socket)?;
    socket.send_on(frame).map_err(NotSent::Socket)
}

fn into_bytes(frame: RawFrame) -> Bytes {
    struct Owner(RawFrame);

    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    if frame.len() <= COPY_RECEIVED {
        Bytes::copy_from_slice(&frame)
    } else {
        Bytes::from_owner(Owner(frame))
    }
}

#[cfg(test)]
mod tests {
    use scale0_wire::Kind;

    use super::*;

    /// Where the content is that was sent from `at`. Within one context libzmq hands over messages by reference.
    fn sent_from_and_received_at(size: usize) -> (*const u8, *const u8) {
        let context = zmq::Context::new();
        let mut pair =
            [zmq::PAIR, zmq::PAIR].map(|kind| Socket::new(context.socket(kind).unwrap()));
        pair[0].bind("inproc://here").unwrap();
        pair[1].connect("inproc://here").unwrap();
        let content = Bytes::from(vec![1; size]);
        let message = Message::new(RoutingHeader::new(Kind::Chunk)).with_content(content.clone());
        assert!(send(&mut pair[1], None, &message, &mut Vec::new()).is_ok());
        let head = pair[0].receive().unwrap();
        assert!(head.has_more());
        let received = pair[0].receive().unwrap();
        assert_eq!(received[..], content[..]);
        (content.as_ptr(), received.as_ptr())
    }

    #[test]
    fn content_is_sent_by_reference_unless_it_is_short() {
        for size in [SHARE_SENT, 64 * 1024] {
            let (from, at) = sent_from_and_received_at(size);
            assert_eq!(from, at, "{size}");
        }
        let (from, at) = sent_from_and_received_at(SHARE_SENT - 1);
        assert_ne!(from, at);
    }

    /// Two sockets in one context, where frames are handed over as they are.
    fn pair(name: &str) -> [Socket; 2] {
        let context = zmq::Context::new();
        let mut pair =
            [zmq::PAIR, zmq::PAIR].map(|kind| Socket::new(context.socket(kind).unwrap()));
        pair[0].bind(&format!("inproc://{name}")).unwrap();
        pair[1].connect(&format!("inproc://{name}")).unwrap();
        pair
    }

    /// A message as it is received.
    fn received(content: &Bytes) -> (Message, Frame) {
        let [here, mut there] = pair("received");
        let message =
            Message::new(RoutingHeader::new(Kind::Response)).with_content(content.clone());
        assert!(send(&mut there, None, &message, &mut Vec::new()).is_ok());
        let (message, frame) = receive(&here, here.receive().unwrap()).unwrap();
        (*message, frame.unwrap())
    }

    fn send_on_and_receive(message: &Message, frame: Frame) -> RawFrame {
        let [here, mut there] = pair("sent-on");
        let sent = send_on(&mut there, b"id", message, Some(frame), &mut Vec::new());
        assert!(sent.is_ok());
        assert_eq!(here.receive().unwrap()[..], *b"id");
        here.receive().unwrap()
    }

    #[test]
    fn a_message_is_sent_on_in_its_frame_under_another_header() {
        let content = Bytes::from(vec![1; 1000]);
        let (mut message, frame) = received(&content);
        let kept = message.clone();
        let at = frame.0.as_ptr();
        message.header.correlation = 7;
        let sent = send_on_and_receive(&message, frame);
        assert_eq!(sent.as_ptr(), at);
        let sent = Message::decode(&Bytes::copy_from_slice(&sent), None).unwrap();
        assert_eq!(sent, message);
        assert_eq!(kept.header.correlation, 0);
        assert_eq!(kept.content, content, "who keeps it has a copy");
    }

    #[test]
    fn another_message_is_not_sent_in_a_frame_however_much_it_is_like_it() {
        let (message, frame) = received(&Bytes::from(vec![1; 1000]));
        assert!(frame.is_of(&message));
        let mut content = vec![1; 1000];
        content[999] = 2;
        let other = message.clone().with_content(content.into());
        assert!(!frame.is_of(&other));
        let sent = send_on_and_receive(&other, frame);
        let sent = Message::decode(&Bytes::copy_from_slice(&sent), None).unwrap();
        assert_eq!(sent, other);

        let (message, frame) = received(&Bytes::from(vec![1; 1000]));
        let shorter = message.content.slice(..999);
        assert!(!frame.is_of(&message.clone().with_content(shorter)));
        let divided = message.clone().with_metadata(vec![1; 10].into());
        assert!(!frame.is_of(&divided));
        // The same bytes with another meaning: lengths are in the header, which is written anew.
        let divided = divided.with_content(message.content.slice(10..));
        assert!(frame.is_of(&divided));
        let sent = send_on_and_receive(&divided, frame);
        let sent = Message::decode(&Bytes::copy_from_slice(&sent), None).unwrap();
        assert_eq!(sent, divided);

        // In a message of this kind content is never in the first frame.
        let (mut chunk, frame) = received(&Bytes::from(vec![1; 1000]));
        chunk.header.kind = Kind::Chunk;
        assert!(frame.is_of(&chunk) && frame.under(&chunk).is_none());
    }

    #[test]
    fn a_large_frame_is_taken_over_as_it_is_and_a_short_one_copied() {
        let large = RawFrame::of(&[1; COPY_RECEIVED + 1]);
        let at = large.as_ptr();
        let bytes = into_bytes(large);
        assert_eq!(bytes.as_ptr(), at);
        assert_eq!(
            bytes.slice(1..).as_ptr().wrapping_sub(1),
            at,
            "a part of it is the same bytes"
        );

        let short = RawFrame::of(&[1; COPY_RECEIVED]);
        let at = short.as_ptr();
        assert_ne!(into_bytes(short).as_ptr(), at);
    }
}
