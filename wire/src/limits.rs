//! Every bound of the protocol, named, with the reason for its value.
//!
//! A bound that two sides must share to understand each other is part of the protocol and stands in `PROTOCOL.md` too;
//! a peer that exceeds one of them breaks the protocol.

use std::time::Duration;

/// Header, metadata and content travel in one frame up to this many bytes together.
///
/// One frame costs libzmq about half of two; above this size the copy into it costs more than the second frame.
pub const ONE_FRAME: usize = 4 * 1024;

/// The most content one message carries.
///
/// Small enough that a control message never waits behind more than this, large enough that a stream of them costs little
/// per byte.
pub const CONTENT: usize = 64 * 1024;

/// The most metadata one message carries: a head of [`FIELD_BYTES`] with room for its framing.
pub const METADATA: usize = 160 * 1024;

/// The most bytes all fields of one head have together as they travel, with their count and lengths.
pub const FIELD_BYTES: usize = 128 * 1024;

/// The most fields one head has.
pub const FIELDS: usize = 1024;

/// The longest name of a node, a site or a service: that of a DNS name, of which most are one.
pub const NAME: usize = 253;

/// The most services that one backend offers: in its HELLO, and in each list of an ANNOUNCE.
pub const SERVICES: usize = 1024;

/// The most brokers that one REDIRECT names: more than a site has.
pub const REDIRECTS: usize = 16;

/// The most hops that one EXPLAIN tells of; who has more leaves out the middle ones.
pub const HOPS: usize = 32;

/// The longest text for people in a message; what is longer is cut when it is written.
pub const TEXT: usize = 1024;

/// The longest routing header this side reads. Ours has [`crate::RoutingHeader::LENGTH`] bytes; the rest is for later versions.
pub const HEADER: usize = 512;

/// The largest frame: header and metadata. Content rides along only within [`ONE_FRAME`], and alone it is smaller than this.
pub const FRAME: usize = HEADER + METADATA;

/// A stream's window of response content to start with; see [`crate::flow`].
pub const STREAM_WINDOW: u32 = 256 * 1024;

/// A connection's window to start with; it grows to twice the bandwidth-delay product.
pub const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Where a connection's window stops growing: 10 Gbit/s at 13 ms, and what a stuck peer can cost its other side.
pub const CONNECTION_WINDOW_MAX: u32 = 16 * 1024 * 1024;

/// A request whose content is no longer than this travels whole in its REQUEST and can be repeated.
pub const REPEATABLE_CONTENT: usize = CONTENT;

/// How often a side that has said nothing else says HEARTBEAT, unless HELLO and WELCOME agree on longer.
pub const HEARTBEAT: Duration = Duration::from_secs(1);

/// The longest heartbeat interval that a broker agrees to.
pub const HEARTBEAT_MAX: Duration = Duration::from_secs(30);

/// A peer from which nothing came for this many heartbeat intervals is dead.
pub const HEARTBEAT_MISSES: u32 = 3;
