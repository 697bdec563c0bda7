//! Metadata of EXPLAIN: what became of one request, hop by hop.

use bytes::{BufMut, Bytes};

use crate::codec::{Reader, put_bytes, within};
use crate::{DecodeError, limits};

/// EXPLAIN: what its sender did with a request, in the order in which it did it. Since version 2.
///
/// Said before the stream's last word, to whom the REQUEST asked for it ([`Flags::EXPLAIN`](crate::Flags::EXPLAIN)). A broker says
/// its own account and passes on that of the backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explain {
    /// At most [`limits::HOPS`].
    pub hops: Vec<Hop>,
}

/// One thing that happened to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// What happened.
    pub what: What,
    /// When, in microseconds since the sender of this EXPLAIN had the REQUEST.
    pub at_us: u32,
    /// What it depended on; its meaning is that of `what`.
    pub a: u32,
    /// Likewise.
    pub b: u32,
    /// The node where it happened, or that it happened to; empty: none.
    pub node: String,
}

macro_rules! numbers {
    ($(#[$about:meta])* $type:ident: $($(#[$doc:meta])* $what:ident = $number:literal $name:literal;)*) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $type(pub u8);

        impl $type {
            $($(#[$doc])* pub const $what: Self = Self($number);)*

            /// All that have a name, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$what),*];

            /// The name in an account.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some($name),)*
                    _ => None,
                }
            }
        }
    };
}

numbers! {
    /// What a [`Hop`] tells. Numbers without a name are those of later senders, and are shown as numbers.
    What:
    /// The REQUEST came to this node.
    ARRIVED = 1 "arrived";
    /// It waits for credit: `a` its priority, `b` its place.
    QUEUED = 2 "queued";
    /// It was sent to this node: `a` why (see [`Why`]), `b` among how many.
    CHOSEN = 3 "chosen";
    /// This node did not start it: `a` the reason's number.
    REJECTED = 4 "rejected";
    /// It failed at this node: `a` the reason's number.
    FAILED = 5 "failed";
    /// This node died with it.
    LOST = 6 "lost";
    /// Its handler began.
    STARTED = 7 "started";
    /// The response's head came from this node, or was given.
    RESPONDED = 8 "responded";
    /// `a` hops are not told.
    LEFT_OUT = 9 "left-out";
}

numbers! {
    /// Why a backend was given a request. Numbers without a name are those of later senders, and are shown as numbers.
    Why:
    /// No other could take it.
    ONLY = 0 "only";
    /// It had the least to do.
    LEAST = 1 "least";
    /// It had less to do than another, both drawn from many.
    TWO = 2 "two";
    /// It is of the asker's process, and had hardly more to do than others.
    LOCAL = 3 "local";
    /// The request belongs to it.
    AFFINITY = 4 "affinity";
    /// It is tried by this one request, after a rest.
    PROBE = 5 "probe";
    /// It is the second, because the first is late.
    HEDGE = 6 "hedge";
    /// Its credit came, for which the request waited.
    CREDIT = 7 "credit";
}

impl Explain {
    /// The metadata's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut to = Vec::with_capacity(2 + 32 * self.hops.len());
        to.put_u16_le(u16::try_from(self.hops.len()).unwrap_or(u16::MAX));
        for hop in &self.hops {
            to.put_u8(hop.what.0);
            to.put_u32_le(hop.at_us);
            to.put_u32_le(hop.a);
            to.put_u32_le(hop.b);
            put_bytes(&mut to, hop.node.as_bytes());
        }
        to.into()
    }

    /// Reads it back.
    ///
    /// # Errors
    /// Truncated or excess bytes, invalid names, too many hops.
    pub fn decode(metadata: &Bytes) -> Result<Self, DecodeError> {
        let mut from = Reader::new(metadata);
        let count: usize = within("number of hops", from.u16()?.into(), limits::HOPS)?;
        let hops = (0..count).map(|_| {
            Ok(Hop {
                what: What(from.u8()?),
                at_us: from.u32()?,
                a: from.u32()?,
                b: from.u32()?,
                node: from.name_or_empty("node")?,
            })
        });
        let hops = hops.collect::<Result<_, _>>()?;
        from.end()?;
        Ok(Self { hops })
    }
}
