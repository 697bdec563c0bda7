use std::time::{Duration, Instant};

use bytes::Bytes;
use scale0_transport::LinkId;
use scale0_wire::flow::{ReceiveWindow, SendWindow};
use scale0_wire::{
    DecodeError, Fields, Flags, FlightKey, Hop, Message, Priority, Reason, ServiceId, TraceContext,
};

/// How often a request is sent again after the broker it was sent to was lost, or a backend there: one that kills whoever takes it
/// must not kill all.
const REPEATS_AFTER_LOSS: u8 = 2;

/// A stream of a lane; its number on the wire, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamId(pub(super) u64);

impl StreamId {
    /// The lane's seat for it: the lower half holds the seat, the upper counts how often it was taken before.
    pub const fn seat(self) -> usize {
        (self.0 & 0xffff_ffff) as usize - 1
    }

    /// The stream that a broker's message names, if it can be one: the lower half of no number is 0.
    pub(super) fn named(correlation: u64) -> Option<Self> {
        (correlation & 0xffff_ffff != 0).then_some(Self(correlation))
    }

    pub(super) const fn new(seat: usize, taken: u32) -> Self {
        Self((taken as u64) << 32 | (seat as u64 + 1))
    }
}

/// What is asked of a backend.
#[derive(Clone, Debug)]
pub struct OpenRequest {
    /// The encoded [`scale0_wire::RequestHead`].
    pub head: Bytes,
    /// The request's content, or its beginning; at most [`scale0_wire::limits::REPEATABLE_CONTENT`].
    pub content: Bytes,
    /// Whether `content` is all of it.
    pub whole: bool,
    /// Whether it may be executed twice.
    pub idempotent: bool,
    /// Whether the client asks to switch protocols.
    pub upgrade: bool,
    /// Whether a second backend may be asked when the first is late, and whoever answers first is heard.
    pub hedge: bool,
    /// Who goes first where requests wait.
    pub priority: Priority,
    /// Who is to answer.
    pub service: ServiceId,
    /// Whom it belongs to, see [`ServiceId::affinity`]; 0: to nobody.
    pub affinity: u64,
    /// What it can be coalesced with; 0: nothing.
    pub flight: FlightKey,
    /// How long until the response's head.
    pub timeout: Duration,
    /// How long without a byte after it.
    pub idle_timeout: Duration,
    /// How long to wait for a first backend.
    pub hold: Duration,
    /// Who is tracing.
    pub trace: TraceContext,
    /// Whether its owner wants to be [told](Delivery::Told) what becomes of it.
    pub explain: bool,
}

/// What comes back on a stream, in order. Nothing follows `End` and `Failed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The backend reads: content may be handed over, one piece at a time.
    Ready,
    /// What became of the request on its way, before the head; for whom wants to know.
    Told(Told),
    /// An interim response: the encoded head.
    Interim(Bytes),
    /// The response's head, encoded, and the beginning of its content; `whole` if that is all and no `End` follows.
    Head {
        head: Bytes,
        content: Bytes,
        whole: bool,
        upgrade: bool,
    },
    /// More content.
    Content(Bytes),
    /// All content came; these are the trailers.
    End(Fields),
    /// There will be no more.
    Failed(Failure),
}

/// One piece of what became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// It was sent to the broker of that node.
    Asked {
        at: Instant,
        broker: String,
        why: Asked,
        /// Brokers that could have been sent it.
        among: usize,
    },
    /// Nothing came of it there.
    Ended {
        at: Instant,
        broker: String,
        how: Ended,
    },
    /// What that broker says of it.
    Explained { broker: String, hops: Vec<Hop> },
}

/// How a request ended at a broker that has not answered it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The broker died with it.
    Lost,
    /// It was not started.
    Refused(Reason),
    /// It may have been started.
    Failed(Reason),
}

/// Why a broker was sent a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It is home to the request's flight, of several.
    Home,
    /// It had the least under way for us, of several.
    Least,
    /// There was no other.
    Only,
}

/// Why a request got no response, or not all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub reason: Reason,
    /// Whether a backend may have begun to work on it.
    pub started: bool,
    /// When it is worth asking again, in milliseconds; 0: unknown.
    pub retry_after_ms: u32,
    /// For people; may be empty.
    pub detail: String,
}

impl Failure {
    pub(super) const fn not_started(reason: Reason) -> Self {
        Self {
            reason,
            started: false,
            retry_after_ms: 0,
            detail: String::new(),
        }
    }

    pub(super) const fn after_start(reason: Reason) -> Self {
        Self {
            reason,
            started: true,
            retry_after_ms: 0,
            detail: String::new(),
        }
    }

    /// A broker, or who speaks through it, sent what has no place here.
    pub const fn protocol_error() -> Self {
        Self::after_start(Reason::ProtocolError)
    }

    /// What the application sent is no response.
    pub fn app_failed(why: &str) -> Self {
        Self {
            detail: why.to_owned(),
            ..Self::after_start(Reason::AppFailed)
        }
    }

    /// The request cannot be put into a message.
    pub fn of_request(error: &DecodeError) -> Self {
        Self {
            detail: error.to_string(),
            ..Self::not_started(Reason::HeadTooLarge)
        }
    }
}

/// How far the request's own content is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Upload {
    /// All of it went with the REQUEST, or after it; the END too, if one was owed. → Closed by UPGRADE
    Done,
    /// Waits for the backend's first window. → Idle, Done
    Closed,
    /// The owner was told `Ready` and has not handed anything over yet. → Waiting, Done
    Idle,
    /// A piece waits for room; it is not empty. → Idle, Done
    Waiting(Bytes),
}

/// One request under way.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: StreamId,
    /// The broker it was sent to; `None`: waits for one. Always one with a session.
    pub(super) link: Option<LinkId>,
    /// What was or is to be sent. Kept until it can no longer be sent again, then without its bytes.
    pub(super) request: Message,
    /// How often it was lost, with a broker or, as far as brokers say so, with a backend.
    pub(super) lost: u8,
    /// Brokers that have given it back; it is not sent to them again. At most one entry for each broker.
    pub(super) tried: Vec<LinkId>,
    /// Since when it waits for a broker, or through one for a backend.
    pub(super) held_since: Instant,
    pub(super) hold: Duration,
    /// When the response's head is due, and when it is as far as its broker knows.
    pub(super) due: Instant,
    pub(super) told_due: Instant,
    /// The broker is to be told of another deadline, or another number of waiters, when streams are looked over.
    pub(super) has_news: bool,
    pub(super) timeout: Duration,
    pub(super) idle_timeout: Duration,
    /// When something last moved.
    pub(super) moved: Instant,
    pub(super) head_came: bool,
    /// Interim responses delivered.
    pub(super) interims: u8,
    /// Accounts of brokers delivered.
    pub(super) explained: u8,
    pub(super) upload: Upload,
    /// How the request's content ended, as END says it: `None` while it goes on, and of a request that was whole from the start.
    pub(super) upload_end: Option<Bytes>,
    /// It stands in its broker's line of those with content to send.
    pub(super) in_line: bool,
    /// Room for request content.
    pub(super) send: SendWindow,
    /// Room for response content.
    pub(super) receive: ReceiveWindow,
}

impl Stream {
    /// Whether it can be sent to another broker: nothing of it is gone, and nothing of a response was delivered.
    pub(super) const fn is_whole(&self) -> bool {
        self.send.sent() == 0 && !self.head_came
    }

    /// Whether it may be sent once more although it may have been started, having had so many losses.
    pub(super) const fn may_survive(&self, losses: u8) -> bool {
        self.is_whole()
            && self.request.header.flags.contains(Flags::IDEMPOTENT)
            && losses <= REPEATS_AFTER_LOSS
    }

    /// It can never be sent again: its bytes are not kept.
    pub(super) fn drop_kept(&mut self) {
        self.request.metadata = Bytes::new();
        self.request.content = Bytes::new();
    }
}
