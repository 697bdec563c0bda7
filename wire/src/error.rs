use std::ops::RangeInclusive;

/// Why bytes from a peer are not a message. The peer is at fault; nothing was changed, and the connection stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The peer is newer or older than we are; HELLO tells it what we speak.
    #[error("protocol version {found}, this side speaks {ours:?}")]
    Version {
        /// What the header states.
        found: u8,
        /// What this side reads.
        ours: RangeInclusive<u8>,
    },
    /// The bytes end before what they announce.
    #[error("{found} bytes where {needed} were announced")]
    Truncated {
        /// How many there should be.
        needed: usize,
        /// How many there are.
        found: usize,
    },
    /// The bytes go on after what they announce.
    #[error("{excess} bytes more than announced")]
    Excess {
        /// How many there are too many.
        excess: usize,
    },
    /// The header says that it is shorter than any can be.
    #[error("a routing header of {found} bytes")]
    HeaderLength {
        /// What the header states.
        found: u16,
    },
    /// A length is over the protocol's limit.
    #[error("{what} of {found} bytes, at most {limit} are allowed")]
    TooLong {
        /// What is too long.
        what: &'static str,
        /// How long it says it is.
        found: usize,
        /// See [`crate::limits`].
        limit: usize,
    },
    /// The message is split into frames as no message is; see `PROTOCOL.md`, "Frames".
    #[error("{frames} frames for {content} bytes of content")]
    Framing {
        /// How many frames came.
        frames: usize,
        /// How much content the header states.
        content: usize,
    },
    /// A byte that is zero in this version is not.
    #[error("reserved bytes at offset {offset} are not zero")]
    Reserved {
        /// Where in the header.
        offset: usize,
    },
    /// A field has a value that means nothing.
    #[error("{what} {value} means nothing")]
    Value {
        /// Which field.
        what: &'static str,
        /// What it holds.
        value: u8,
    },
    /// A name is empty, too long, or has characters that no name has.
    #[error("{what} is no valid name")]
    Name {
        /// Whose name.
        what: &'static str,
    },
    /// Text for people is not UTF-8.
    #[error("{what} is not UTF-8")]
    Text {
        /// Which text.
        what: &'static str,
    },
}
