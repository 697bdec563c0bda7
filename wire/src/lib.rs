//! Scale0's protocol: what frontends, brokers, backends and peer sites say to each other.
//!
//! `PROTOCOL.md` beside this crate gives every byte; `vectors/` holds golden messages that any implementation must read and
//! write. This crate refuses to know sockets, tasks, clocks and what HTTP means: a [`Message`] is a [`RoutingHeader`] that
//! brokers read, and metadata and content which they pass on untouched.
//!
//! Start with [`Message`], [`RoutingHeader`] and [`Kind`].
//!
//! ```
//! use bytes::Bytes;
//! use scale0_wire::{Kind, Message, RoutingHeader, Window};
//!
//! let header = RoutingHeader { correlation: 7, ..RoutingHeader::new(Kind::Window) };
//! let message = Message::new(header).with_metadata(Window(65_536).encode());
//!
//! let mut frame = Vec::new();
//! assert_eq!(message.encode(&mut frame)?, None, "short messages are one frame");
//! assert_eq!(Message::decode(&Bytes::from(frame), None)?, message);
//! # Ok::<(), scale0_wire::DecodeError>(())
//! ```

mod codec;
mod error;
mod explain;
pub mod flow;
mod kind;
pub mod limits;
mod message;
mod routing_header;
mod session;
mod stream;

pub use error::DecodeError;
pub use explain::{Explain, Hop, What, Why};
pub use kind::{Kind, KindRow, Role, Stranger};
pub use message::Message;
pub use routing_header::{
    Flags, FlightKey, OLDEST_VERSION, Priority, RoutingHeader, Scope, ServiceId, SpillMode,
    TraceContext, VERSION,
};
pub use session::{
    Announce, Bye, Heartbeat, Hello, OtherBroker, Redirect, Unsupported, Wanted, Welcome,
};
pub use stream::{Cancel, End, Fields, Reason, Reject, RequestHead, ResponseHead, Window};
