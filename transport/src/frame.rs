//! Messages as frames of a socket: what is copied and what is not.

use bytes::Bytes;
use scale0_wire::{DecodeError, Message};

use crate::socket::{Errno, Socket};

/// A received frame up to this size is copied: it shares libzmq's receive buffer with its neighbours, and a message of
/// 200 bytes that somebody keeps would keep 64 KiB.
const COPY_RECEIVED: usize = 4 * 1024;

/// Content from this size on is sent by reference; below, a copy costs less than the reference's allocations.
const SHARE_SENT: usize = 1024;

/// Takes in the frame and the rest of its message.
pub(crate) fn receive(socket: &Socket, first: zmq::Message) -> Result<Message, DecodeError> {
    let mut more = first.get_more();
    let head = into_bytes(first);
    let mut content = None;
    let mut frames = 1;
    // libzmq delivers all frames of a message or none, so that this ends with the message.
    while more {
        let Some(frame) = socket.receive() else { break };
        frames += 1;
        more = frame.get_more();
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
    Message::decode(&head, content)
}

/// Drops the rest of a message of which this was the first frame.
pub(crate) fn skip(socket: &Socket, first: &zmq::Message) {
    let mut more = first.get_more();
    while more {
        more = socket.receive().is_some_and(|frame| frame.get_more());
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

fn into_bytes(frame: zmq::Message) -> Bytes {
    struct Frame(zmq::Message);

    impl AsRef<[u8]> for Frame {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    if frame.len() <= COPY_RECEIVED {
        Bytes::copy_from_slice(&frame)
    } else {
        Bytes::from_owner(Frame(frame))
    }
}

#[cfg(test)]
mod tests {
    use scale0_wire::{Kind, RoutingHeader};

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
        assert!(head.get_more());
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

    #[test]
    fn a_large_frame_is_taken_over_as_it_is_and_a_short_one_copied() {
        let large = zmq::Message::from(vec![1; COPY_RECEIVED + 1]);
        let at = large.as_ptr();
        let bytes = into_bytes(large);
        assert_eq!(bytes.as_ptr(), at);
        assert_eq!(
            bytes.slice(1..).as_ptr().wrapping_sub(1),
            at,
            "a part of it is the same bytes"
        );

        let short = zmq::Message::from(vec![1; COPY_RECEIVED]);
        let at = short.as_ptr();
        assert_ne!(into_bytes(short).as_ptr(), at);
    }
}
