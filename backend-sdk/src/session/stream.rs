//! One request that is being served.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use scale0_wire::Reason;
use scale0_wire::flow::{ReceiveWindow, SendWindow};

use super::BrokerId;

/// Names one request to the shell. Never used again for another: a handler that speaks late speaks of nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamId {
    /// Its place in the table of streams, used again after it.
    pub index: usize,
    /// Which of those that had this place.
    pub serial: u64,
}

/// What a handler has to say, encoded as it will travel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// An interim response.
    Interim(Bytes),
    /// The response's head, with the content that was ready together with it.
    Head {
        metadata: Bytes,
        content: Bytes,
        shape: Shape,
        /// That is all of it: the handler has stopped.
        last: bool,
    },
    /// Content, of any length.
    Data {
        content: Bytes,
        /// What it counts against the bound of what its handler may have queued; comes back as [`super::Action::Released`].
        charge: usize,
    },
    /// The metadata of END. The handler has stopped.
    End(Bytes),
    /// The metadata of REJECT: the handler has stopped before it began.
    Reject(Bytes),
}

impl Output {
    /// Whether nothing comes after it.
    pub const fn is_last(&self) -> bool {
        match self {
            Self::Interim(_) | Self::Data { .. } => false,
            Self::Head { last, .. } => *last,
            Self::End(_) | Self::Reject(_) => true,
        }
    }
}

/// What kind of response a head opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// An ordinary one.
    Plain,
    /// One by which the application says that it has failed: a status of 500 or more.
    Failure,
    /// Events as they happen, for as long as somebody listens.
    EventStream,
    /// 101: opaque bytes in both directions.
    Upgrade,
}

/// What is left to do for a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Its handler works and somebody wants to know. → `Cancelled`, `Orphan`, over
    Wanted,
    /// Nobody wants the answer: END follows as soon as the handler has stopped. → `Orphan`, over
    Cancelled(Reason),
    /// Its session is gone: it only occupies its place until the handler has stopped. → over
    Orphan,
}

/// The request's content beyond what came in the REQUEST.
#[derive(Debug)]
pub(crate) enum Upload {
    /// There is none, or no more.
    Ended,
    /// The handler has not asked for it yet, so nothing may come. → `Open`
    Unread,
    /// It comes under this window. → `Ended`
    Open(ReceiveWindow),
}

#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) id: StreamId,
    pub(crate) broker: BrokerId,
    pub(crate) correlation: u64,
    pub(crate) standing: Standing,
    /// Whether it occupies credit; event streams and tunnels do not.
    pub(crate) credited: bool,
    /// Whether the response's head has been said: no interim response may follow.
    pub(crate) has_head: bool,
    /// Whether its handler has stopped and only what it said is left to be sent.
    pub(crate) stopped: bool,
    /// How much of the response may be sent.
    pub(crate) window: SendWindow,
    /// What waits for a window, in order.
    pub(crate) queue: VecDeque<Output>,
    /// Whether it is in its broker's line for the connection's window.
    pub(crate) in_line: bool,
    pub(crate) upload: Upload,
    pub(crate) started: Instant,
}

impl Stream {
    pub(crate) fn has_more(&self) -> bool {
        !self.queue.is_empty()
    }
}
