//! Scale0's way to libzmq: sockets that never leave their owner, bridges to tokio and to plain threads, CURVE, and links
//! within one process that carry the same messages without sockets.
//!
//! The dialling side is [`Links`]: all connections of one task or thread. The bound side is [`Router`]. Both receive and send
//! whole [`scale0_wire::Message`]s, never wait in `receive` and `send`, and say when a peer is gone, in order with what it
//! had sent. This crate refuses to know what a message means. It is the only one with `unsafe` code.
//!
//! ```
//! use scale0_transport::{Context, Incoming, LinkOptions, Links, Router, RouterOptions, SendOutcome, ThreadWaker, wait};
//! use scale0_wire::{Kind, Message, RoutingHeader};
//!
//! let context = Context::new(1)?;
//! let waker = ThreadWaker::new()?;
//! let mut router = Router::bind(&context, &"tcp://127.0.0.1:*".parse()?, 0, &RouterOptions::default())?;
//! let mut links = Links::new();
//! let link = links.connect(&context, &router.local_endpoint().parse()?, &LinkOptions::default())?;
//!
//! while !matches!(links.receive(), Some((_, Incoming::Up))) {
//!     links.wait(&waker, None)?;
//! }
//! let message = Message::new(RoutingHeader::new(Kind::Heartbeat));
//! assert_eq!(links.send(link, &message), SendOutcome::Sent);
//! let received = loop {
//!     match router.receive() {
//!         Some((_peer, Incoming::Message(message))) => break message,
//!         _ => wait(std::slice::from_ref(&router), &waker, None)?,
//!     }
//! };
//! assert_eq!(received, message);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod clock;
mod context;
mod curve;
mod driver;
mod endpoint;
mod error;
mod frame;
mod gate;
mod in_process;
mod inherited;
mod io_thread;
mod link;
mod links;
mod monitor;
mod neighbours;
mod options;
mod peer_id;
mod raw_frame;
mod router;
#[cfg(test)]
mod soak;
mod socket;
mod zap;

pub use context::Context;
pub use curve::{KeyError, KeyPair, PublicKey, SecretKey};
pub use endpoint::{Endpoint, EndpointError};
pub use error::TransportError;
pub use frame::{COPY_RECEIVED, Frame};
pub use gate::Gate;
pub use in_process::{Hub, Inbox, Port};
pub use inherited::{InheritError, Inherited, inherited};
pub use io_thread::ThreadWaker;
pub use links::{Incoming, LinkCounters, LinkId, Links, SendOutcome};
pub use neighbours::Neighbours;
pub use options::{LinkOptions, RouterOptions};
pub use peer_id::PeerId;
pub use router::{Arrival, Router, RouterCounters, wait};
pub use zap::{GateCounters, Gatekeeper};
