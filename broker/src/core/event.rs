//! What a broker is told, and what it asks for.

use std::sync::Arc;
use std::time::Instant;

use scale0_transport::{PeerId, Port, PublicKey};
use scale0_wire::Message;

use super::rights::Rights;

/// Something that happened.
///
/// Messages are boxed: they are handed on some ten times on their way through a broker, and a move of a box costs far less than that of a
/// message, of 240 bytes.
#[derive(Clone, Debug)]
pub enum Event {
    /// A message came.
    Received {
        /// Whose.
        from: PeerId,
        /// Where it came in: what its sender may be.
        port: Port,
        /// Peers of this process with an equal number share a core; none: a peer behind a socket.
        locality: Option<u32>,
        /// The message.
        message: Box<Message>,
    },
    /// A peer behind a socket has proved to be the owner of this key. Said before its HELLO; said again it is the same.
    Proved {
        /// Whose connection.
        peer: PeerId,
        /// The key.
        key: PublicKey,
    },
    /// These rights hold from now on, for those who are here too.
    Rights(Arc<Rights>),
    /// Bytes came that are no message.
    Malformed {
        /// Whose.
        from: PeerId,
    },
    /// A connection is gone.
    Lost {
        /// Whose.
        peer: PeerId,
    },
    /// More waits for a peer's connection than may. It is treated as lost.
    Stuck {
        /// Whose.
        peer: PeerId,
    },
    /// Take nothing new, finish what there is, leave at this time at the latest.
    Drain {
        /// When.
        until: Instant,
    },
    /// Time has passed. Owed whenever [`deadline`](crate::Broker::deadline) has.
    Tick,
}

/// Something to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this message. Messages to one peer are sent in the order of their actions.
    Send {
        /// To whom.
        to: PeerId,
        /// The message.
        message: Box<Message>,
    },
    /// This peer breaks the protocol again and again: hear nothing of it but its end, and refuse its key at handshakes until then.
    Mute {
        /// Whose connection.
        peer: PeerId,
        /// Its key, where keys are in use.
        key: Option<PublicKey>,
        /// Until when its key is refused. The connection is heard again when that is asked for.
        until: Instant,
    },
    /// Hear this peer again.
    Unmute {
        /// Whose connection.
        peer: PeerId,
    },
    /// The broker has no session with this peer any more: once what is to be sent has been, nothing need be kept for it.
    Forget {
        /// Whose.
        peer: PeerId,
    },
}
