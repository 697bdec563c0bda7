use std::time::{Duration, Instant};

use scale0_transport::LinkId;
use scale0_wire::flow::{ReceiveWindow, SendWindow};
use scale0_wire::{
    Cancel, Flags, Kind, Message, OtherBroker, Reason, RoutingHeader, Window, limits,
};
use slab::Slab;

use super::broker::{Broker, BrokerStatus, State};
use super::stream::{Delivery, Failure, OpenRequest, Stream, StreamId, Upload};

/// How often streams are looked over for passed deadlines. A broker watches them to the millisecond; here it is only the
/// net below it, and a look over thousands costs microseconds.
pub(super) const LOOK_OVER: Duration = Duration::from_millis(250);

/// Nothing waits longer than the protocol can say: 49 days.
const LONGEST_WAIT: Duration = Duration::from_millis(u32::MAX as u64);

/// What a lane is told when it is made.
#[derive(Clone, Debug)]
pub struct LaneConfig {
    /// The node's name.
    pub node: String,
    /// Drawn once per process.
    pub instance: u64,
    /// Which of the process's lanes this is.
    pub lane: u16,
    /// Epochs are counted up from here; drawn at random, so that a restarted process does not repeat them.
    pub first_epoch: u64,
    /// Content that all streams together should have under way to us: the more are open, the smaller the window that each
    /// begins with, down to one message's content.
    pub window_bytes: u64,
    /// The most streams open at a time.
    pub max_streams: usize,
}

/// What ought to happen.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this to that broker, after everything sent there before.
    Send(LinkId, Message),
    /// Hand this to the stream's owner.
    Deliver(StreamId, Delivery),
    /// Drop the connection and dial anew.
    Redial(LinkId),
    /// Dial the broker that this one names, if it can be believed, and add it by [`Lane::learn_broker`].
    Learn(LinkId, OtherBroker),
    /// Close the link, for good.
    Close(LinkId),
}

/// What has happened, by name; all since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct LaneCounters {
    /// Requests sent to a broker again after theirs was lost, or had lost them with its backends.
    pub repeated: u64,
    /// Requests sent to another broker after one had refused them.
    pub refused_elsewhere: u64,
    /// Requests sent past a broker because nothing was heard of it, to one that has spoken.
    pub passed_by_silent: u64,
    /// Sessions that ended without our doing.
    pub sessions_lost: u64,
    /// Brokers declared dead because they said nothing.
    pub silent: u64,
    /// Messages dropped: of a session that is over.
    pub dropped_epoch: u64,
    /// Messages dropped: for a stream that is over.
    pub dropped_stream: u64,
    /// Messages dropped: out of place, too many, or their metadata are wrong.
    pub dropped_protocol: u64,
    /// Frames dropped: they are no messages.
    pub malformed: u64,
    /// Messages ignored: of a kind this version does not know.
    pub unknown_kind: u64,
    /// Streams ended because the response's head did not come in time.
    pub deadline: u64,
    /// Streams ended because nothing moved.
    pub idle: u64,
}

/// The state machine of one lane; see the module.
///
/// What it does is spread over files by idea: `sessions` (who lives), `placement` (which broker, and which next), `uploads` (the
/// request's content), `responses` (what comes back).
#[derive(Debug)]
pub struct Lane {
    pub(super) config: LaneConfig,
    pub(super) brokers: Vec<Broker>,
    pub(super) streams: Slab<Stream>,
    /// How often seats were taken, so that no number is used twice.
    taken: u32,
    pub(super) next_epoch: u64,
    look_over_at: Instant,
    pub(super) is_draining: bool,
    pub(super) has_left: bool,
    pub counters: LaneCounters,
}

impl Lane {
    pub fn new(config: LaneConfig, now: Instant) -> Self {
        Self {
            next_epoch: config.first_epoch,
            config,
            brokers: Vec::new(),
            streams: Slab::new(),
            taken: 0,
            look_over_at: now,
            is_draining: false,
            has_left: false,
            counters: LaneCounters::default(),
        }
    }

    /// A broker that this lane dials; `up` follows when it is reached.
    pub fn add_broker(&mut self, now: Instant, link: LinkId) {
        self.brokers.push(Broker::new(link, now));
    }

    /// A broker that another one has named, of a node with this name.
    pub fn learn_broker(&mut self, now: Instant, link: LinkId, node: String) {
        let mut broker = Broker::new(link, now);
        broker.is_learnt = true;
        broker.node = node;
        self.brokers.push(broker);
    }

    /// Whether some broker has said WELCOME and takes work.
    pub fn is_welcome(&self) -> bool {
        self.brokers
            .iter()
            .any(|broker| broker.state == State::Live)
    }

    /// Streams that are not over.
    pub fn open_streams(&self) -> usize {
        self.streams.len()
    }

    pub fn brokers(&self) -> Vec<BrokerStatus> {
        let brokers = self.brokers.iter();
        let brokers = brokers.filter(|broker| broker.state != State::Retired);
        brokers.map(Broker::status).collect()
    }

    /// When `tick` is owed.
    pub fn deadline(&self) -> Option<Instant> {
        let streams = (!self.streams.is_empty()).then_some(self.look_over_at);
        self.brokers
            .iter()
            .filter_map(Broker::deadline)
            .chain(streams)
            .min()
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.notice_pause(now);
        for index in 0..self.brokers.len() {
            self.tend(now, index, actions);
        }
        if self.look_over_at <= now {
            self.look_over_at = now + LOOK_OVER;
            self.look_over(now, actions);
        }
    }

    /// Opens a stream, and sends its request to a broker as soon as there is one.
    ///
    /// # Errors
    /// When as many streams are open as may be, or the lane has left its brokers.
    pub fn open(
        &mut self,
        now: Instant,
        open: OpenRequest,
        actions: &mut Vec<Action>,
    ) -> Result<StreamId, Failure> {
        if self.has_left {
            return Err(Failure::not_started(Reason::Draining));
        }
        if self.config.max_streams <= self.streams.len() {
            return Err(Failure::not_started(Reason::TooManyStreams));
        }
        if self.streams.is_empty() {
            self.look_over_at = now + LOOK_OVER;
        }
        let window = self.first_window();
        self.taken = self.taken.wrapping_add(1);
        let seat = self.streams.vacant_entry();
        let id = StreamId::new(seat.key(), self.taken);
        seat.insert(stream(now, id, open, window));
        self.place(now, id, actions);
        Ok(id)
    }

    /// How much content a new stream's backend may send before it hears of the reader: a fair share of what all may have.
    fn first_window(&self) -> u32 {
        let share = self.config.window_bytes / (self.streams.len() as u64 + 1);
        let least = limits::CONTENT as u64;
        let share = share.clamp(least, u64::from(limits::STREAM_WINDOW));
        u32::try_from(share).unwrap_or(limits::STREAM_WINDOW)
    }

    /// Whoever waits for the response waits until then, and there are so many of them.
    pub fn extend(
        &mut self,
        now: Instant,
        id: StreamId,
        due: Instant,
        waiters: usize,
        actions: &mut Vec<Action>,
    ) {
        let Some(stream) = find(&mut self.streams, id).filter(|stream| !stream.head_came) else {
            return;
        };
        let waiters = u32::try_from(waiters).unwrap_or(u32::MAX);
        if due <= stream.due && waiters == stream.request.header.waiters {
            return;
        }
        let told = stream.request.header.waiters;
        stream.due = stream.due.max(due);
        stream.request.header.waiters = waiters;
        // A broker would give up what it does not hear of before the next look. Else all that makes a difference to it is whether
        // several wait; how many, and until when exactly, is told when streams are looked over, or each of a rush would be a message.
        let is_near = stream.told_due < stream.due && stream.told_due < now + 2 * LOOK_OVER;
        if !is_near && (1 < told) == (1 < waiters) {
            stream.has_news = true;
        } else if let Some(broker) = broker_of(&mut self.brokers, stream) {
            update(now, broker, stream, actions);
        }
    }

    /// The owner has taken this much content out of the stream.
    pub fn consume(&mut self, now: Instant, id: StreamId, bytes: usize, actions: &mut Vec<Action>) {
        let Some(stream) = find(&mut self.streams, id) else {
            return;
        };
        stream.moved = now;
        if let Some(limit) = stream.receive.consume(bytes, now, Duration::ZERO)
            && let Some(broker) = broker_of(&mut self.brokers, stream)
        {
            broker.say(Kind::Window, id.0, Window(limit).encode(), actions);
        }
    }

    /// The owner wants no more of the stream. Nothing is delivered for it any more.
    pub fn cancel(
        &mut self,
        _now: Instant,
        id: StreamId,
        reason: Reason,
        actions: &mut Vec<Action>,
    ) {
        self.abandon(id, reason, actions);
    }

    /// Ends a stream, and tells its broker so if it has one.
    pub(super) fn abandon(&mut self, id: StreamId, reason: Reason, actions: &mut Vec<Action>) {
        if let Some(stream) = find(&mut self.streams, id)
            && let Some(broker) = broker_of(&mut self.brokers, stream)
        {
            broker.say(Kind::Cancel, id.0, Cancel(reason).encode(), actions);
        }
        self.forget(id);
    }

    /// Ends a stream for this reason: its broker and its owner are told.
    pub(super) fn give_up(&mut self, id: StreamId, reason: Reason, actions: &mut Vec<Action>) {
        let Some(stream) = find(&mut self.streams, id) else {
            return;
        };
        let started = stream.link.is_some() || 0 < stream.lost;
        self.abandon(id, reason, actions);
        let failure = if started {
            Failure::after_start(reason)
        } else {
            Failure::not_started(reason)
        };
        actions.push(Action::Deliver(id, Delivery::Failed(failure)));
    }

    /// The stream is over, or never was.
    pub(super) fn forget(&mut self, id: StreamId) {
        self.leave_broker(id);
        if find(&mut self.streams, id).is_some() {
            self.streams.remove(id.seat());
        }
    }

    /// Ends the streams whose time has passed, and tells brokers what is new about others.
    fn look_over(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for (_, stream) in &mut self.streams {
            if std::mem::take(&mut stream.has_news)
                && !stream.head_came
                && let Some(broker) = broker_of(&mut self.brokers, stream)
            {
                update(now, broker, stream, actions);
            }
        }
        let over: Vec<_> = self
            .streams
            .iter()
            .filter_map(|(_, stream)| Some((stream.id, overdue(now, stream)?)))
            .collect();
        for (id, reason) in over {
            match reason {
                Reason::Deadline => self.counters.deadline += 1,
                Reason::IdleTimeout => self.counters.idle += 1,
                _no_broker => {}
            }
            self.give_up(id, reason, actions);
        }
    }
}

/// A request that has not been sent.
fn stream(now: Instant, id: StreamId, open: OpenRequest, window: u32) -> Stream {
    let flags = Flags(0)
        .with(Flags::FINAL, open.whole)
        .with(Flags::IDEMPOTENT, open.idempotent)
        .with(Flags::UPGRADE, open.upgrade)
        .with(Flags::HEDGE, open.hedge)
        .with(Flags::EXPLAIN, open.explain);
    let header = RoutingHeader {
        flags,
        correlation: id.0,
        priority: open.priority,
        waiters: 1,
        window,
        flight: open.flight,
        affinity: open.affinity,
        service: open.service,
        trace: open.trace,
        ..RoutingHeader::new(Kind::Request)
    };
    let timeout = open.timeout.min(LONGEST_WAIT);
    Stream {
        id,
        link: None,
        request: Message::new(header)
            .with_metadata(open.head)
            .with_content(open.content),
        lost: 0,
        tried: Vec::new(),
        held_since: now,
        hold: open.hold.min(LONGEST_WAIT),
        due: now + timeout,
        told_due: now + timeout,
        has_news: false,
        timeout,
        idle_timeout: open.idle_timeout.min(LONGEST_WAIT),
        moved: now,
        head_came: false,
        interims: 0,
        explained: 0,
        upload: if open.whole {
            Upload::Done
        } else {
            Upload::Closed
        },
        upload_end: None,
        in_line: false,
        send: SendWindow::default(),
        receive: ReceiveWindow::stream(window),
    }
}

/// Why the stream's time has passed, if it has.
fn overdue(now: Instant, stream: &Stream) -> Option<Reason> {
    if stream.head_came {
        // While something waits here for its reader, it is not the other side that is silent.
        let is_idle = stream.receive.held() == 0 && stream.moved + stream.idle_timeout <= now;
        return is_idle.then_some(Reason::IdleTimeout);
    }
    if stream.link.is_none() && stream.held_since + stream.hold <= now {
        return Some(Reason::NoBroker);
    }
    // Its broker, if it has one, goes first: it knows more.
    let grace = if stream.link.is_some() {
        LOOK_OVER
    } else {
        Duration::ZERO
    };
    (stream.due + grace <= now).then_some(Reason::Deadline)
}

/// Tells a broker until when the response is waited for, and by how many.
pub(super) fn update(
    now: Instant,
    broker: &Broker,
    stream: &mut Stream,
    actions: &mut Vec<Action>,
) {
    stream.told_due = stream.due;
    stream.has_news = false;
    let header = RoutingHeader {
        correlation: stream.id.0,
        deadline_ms: milliseconds(stream.due.saturating_duration_since(now)),
        waiters: stream.request.header.waiters,
        ..RoutingHeader::new(Kind::Update)
    };
    broker.send(Message::new(header), actions);
}

/// The stream with this number, if it is not over.
pub(super) fn find(streams: &mut Slab<Stream>, id: StreamId) -> Option<&mut Stream> {
    streams.get_mut(id.seat()).filter(|stream| stream.id == id)
}

/// The broker that a stream is with.
pub(super) fn broker_of<'a>(brokers: &'a mut [Broker], stream: &Stream) -> Option<&'a mut Broker> {
    broker_at(brokers, stream.link?)
}

pub(super) fn broker_at(brokers: &mut [Broker], link: LinkId) -> Option<&mut Broker> {
    brokers.iter_mut().find(|broker| broker.link == link)
}

/// Whole milliseconds, as far as 32 bits say it.
pub(super) fn milliseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
