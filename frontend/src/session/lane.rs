use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use scale0_transport::LinkId;
use scale0_wire::flow::{ReceiveWindow, SendWindow};
use scale0_wire::{
    Bye, Cancel, DecodeError, End, Flags, FlightKey, Heartbeat, Hello, Kind, Message, Reason, Reject, Role,
    RoutingHeader, Unsupported, VERSION, Welcome, Window, limits,
};
use slab::Slab;

use super::broker::{Broker, BrokerStatus, State};
use super::stream::{Delivery, Failure, OpenRequest, Stream, StreamId, Upload};

/// How often streams are looked over for passed deadlines. A broker watches them to the millisecond; here it is only the
/// net below it, and a look over thousands costs microseconds.
const LOOK_OVER: Duration = Duration::from_millis(250);

/// How often a request is sent again after the broker it was sent to was lost.
const REPEATS_AFTER_LOSS: u8 = 2;

/// How often a broker hears that a deadline has moved while an upload progresses.
const UPDATE_INTERVAL: Duration = Duration::from_secs(1);

/// What a lane is told when it is made.
#[derive(Clone, Debug)]
pub(crate) struct LaneConfig {
    /// The node's name.
    pub(crate) node: String,
    /// Drawn once per process.
    pub(crate) instance: u64,
    /// Which of the process's lanes this is.
    pub(crate) lane: u16,
    /// Epochs are counted up from here; drawn at random, so that a restarted process does not repeat them.
    pub(crate) first_epoch: u64,
    /// The most streams open at a time.
    pub(crate) max_streams: usize,
}

/// What ought to happen.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Send this to that broker, after everything sent there before.
    Send(LinkId, Message),
    /// Hand this to the stream's owner.
    Deliver(StreamId, Delivery),
    /// Drop the connection and dial anew.
    Redial(LinkId),
}

/// What has happened, by name; all since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LaneCounters {
    /// Requests sent to a broker again after theirs was lost.
    pub(crate) repeated: u64,
    /// Requests sent to another broker after one had refused them.
    pub(crate) refused_elsewhere: u64,
    /// Sessions that ended without our doing.
    pub(crate) sessions_lost: u64,
    /// Brokers declared dead because they said nothing.
    pub(crate) silent: u64,
    /// Messages dropped: of a session that is over.
    pub(crate) dropped_epoch: u64,
    /// Messages dropped: for a stream that is over.
    pub(crate) dropped_stream: u64,
    /// Messages dropped: out of place, or their metadata are wrong.
    pub(crate) dropped_protocol: u64,
    /// Frames dropped: they are no messages.
    pub(crate) malformed: u64,
    /// Messages ignored: of a kind this version does not know.
    pub(crate) unknown_kind: u64,
    /// Streams ended because the response's head did not come in time.
    pub(crate) deadline: u64,
    /// Streams ended because nothing moved.
    pub(crate) idle: u64,
}

/// The state machine of one lane; see the module.
#[derive(Debug)]
pub(crate) struct Lane {
    config: LaneConfig,
    brokers: Vec<Broker>,
    streams: Slab<Stream>,
    /// How often seats were taken, so that no number is used twice.
    taken: u32,
    /// Streams that wait for a broker, first come first.
    waiting: VecDeque<StreamId>,
    next_epoch: u64,
    look_over_at: Instant,
    ticked: Instant,
    draining: bool,
    pub(crate) counters: LaneCounters,
}

impl Lane {
    pub(crate) fn new(config: LaneConfig, now: Instant) -> Self {
        Self {
            next_epoch: config.first_epoch,
            config,
            brokers: Vec::new(),
            streams: Slab::new(),
            taken: 0,
            waiting: VecDeque::new(),
            look_over_at: now,
            ticked: now,
            draining: false,
            counters: LaneCounters::default(),
        }
    }

    /// A broker that this lane dials; `up` follows when it is reached.
    pub(crate) fn add_broker(&mut self, now: Instant, link: LinkId) {
        self.brokers.push(Broker::new(link, now));
    }

    /// Whether some broker has said WELCOME and takes work.
    pub(crate) fn is_welcome(&self) -> bool {
        self.brokers.iter().any(|broker| broker.state == State::Live)
    }

    /// Streams that are not over.
    pub(crate) fn open_streams(&self) -> usize {
        self.streams.len()
    }

    pub(crate) fn brokers(&self) -> Vec<BrokerStatus> {
        self.brokers.iter().map(Broker::status).collect()
    }

    /// When `tick` is owed.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let brokers = self.brokers.iter().filter(|broker| broker.state != State::Down).map(|broker| broker.said + broker.interval);
        let streams = (!self.streams.is_empty()).then_some(self.look_over_at);
        brokers.chain(streams).min()
    }

    /// The connection to a broker stands, again.
    pub(crate) fn up(&mut self, now: Instant, link: LinkId, actions: &mut Vec<Action>) {
        self.end_session(now, link, actions);
        self.greet(now, link, actions);
    }

    /// The connection to a broker is gone.
    pub(crate) fn down(&mut self, now: Instant, link: LinkId, actions: &mut Vec<Action>) {
        self.end_session(now, link, actions);
    }

    /// Bytes came that are no message.
    pub(crate) fn malformed(&mut self) {
        self.counters.malformed += 1;
    }

    /// Opens a stream, and sends its request to a broker as soon as there is one.
    ///
    /// # Errors
    /// When as many streams are open as may be.
    pub(crate) fn open(&mut self, now: Instant, open: OpenRequest, actions: &mut Vec<Action>) -> Result<StreamId, Failure> {
        if self.config.max_streams <= self.streams.len() {
            return Err(Failure::not_started(Reason::TooManyStreams));
        }
        self.taken = self.taken.wrapping_add(1);
        let seat = self.streams.vacant_entry();
        let id = StreamId::new(seat.key(), self.taken);
        let flags = Flags(0)
            .with(Flags::FINAL, open.whole)
            .with(Flags::IDEMPOTENT, open.idempotent)
            .with(Flags::UPGRADE, open.upgrade);
        let header = RoutingHeader {
            flags,
            correlation: id.0,
            hold_ms: milliseconds(open.hold),
            waiters: 1,
            window: limits::STREAM_WINDOW,
            flight: open.flight,
            service: open.service,
            trace: open.trace,
            ..RoutingHeader::new(Kind::Request)
        };
        seat.insert(Stream {
            id,
            link: None,
            request: Message::new(header).with_metadata(open.head).with_content(open.content),
            lost: 0,
            tried: Vec::new(),
            opened: now,
            due: now + open.timeout,
            timeout: open.timeout,
            idle_timeout: open.idle_timeout,
            moved: now,
            updated: now,
            head_came: false,
            is_tunnel: false,
            upload: if open.whole { Upload::Done } else { Upload::Closed },
            send: SendWindow::default(),
            receive: ReceiveWindow::stream(limits::STREAM_WINDOW),
        });
        if self.streams.len() == 1 {
            self.look_over_at = now + LOOK_OVER;
        }
        self.place(now, id, actions);
        Ok(id)
    }

    /// Takes over a piece of the request's content, after `Ready` and once for each.
    pub(crate) fn upload(&mut self, now: Instant, id: StreamId, content: Bytes, actions: &mut Vec<Action>) {
        let Some(stream) = self.streams.get_mut(id.seat()).filter(|stream| stream.id == id) else { return };
        stream.upload = Upload::Waiting(content);
        stream.moved = now;
        self.send_content(now, id, actions);
    }

    /// The request's content is complete, with these trailers, or broke off.
    pub(crate) fn end_upload(&mut self, now: Instant, id: StreamId, end: &End, actions: &mut Vec<Action>) {
        let Some(stream) = self.streams.get_mut(id.seat()).filter(|stream| stream.id == id) else { return };
        stream.upload = Upload::Done;
        stream.moved = now;
        let Some(link) = stream.link else { return };
        // The deadline runs anew from here: until now the backend may have waited for us.
        stream.due = stream.due.max(now + stream.timeout);
        self.say(now, link, Kind::End, id.0, end.encode(), actions);
    }

    /// Whoever waits for the response waits until then, and there are so many of them.
    pub(crate) fn extend(&mut self, now: Instant, id: StreamId, due: Instant, waiters: usize, actions: &mut Vec<Action>) {
        let Some(stream) = self.streams.get_mut(id.seat()).filter(|stream| stream.id == id && !stream.head_came) else { return };
        let waiters = u32::try_from(waiters).unwrap_or(u32::MAX);
        if due <= stream.due && waiters == stream.request.header.waiters {
            return;
        }
        stream.due = stream.due.max(due);
        stream.request.header.waiters = waiters;
        let (due, link) = (stream.due, stream.link);
        if let Some(broker) = link.and_then(|link| self.broker(link)) {
            let header = RoutingHeader {
                correlation: id.0,
                epoch: broker.epoch,
                deadline_ms: milliseconds(due.saturating_duration_since(now)),
                waiters,
                ..RoutingHeader::new(Kind::Update)
            };
            broker.said = now;
            actions.push(Action::Send(broker.link, Message::new(header)));
        }
    }

    /// The owner has taken this much content out of the stream.
    pub(crate) fn consume(&mut self, now: Instant, id: StreamId, bytes: usize, actions: &mut Vec<Action>) {
        let Some(stream) = self.streams.get_mut(id.seat()).filter(|stream| stream.id == id) else { return };
        stream.moved = now;
        let (limit, link) = (stream.receive.consume(bytes, now, Duration::ZERO), stream.link);
        if let (Some(limit), Some(link)) = (limit, link) {
            self.say(now, link, Kind::Window, id.0, Window(limit).encode(), actions);
        }
    }

    /// The owner wants no more of the stream.
    pub(crate) fn cancel(&mut self, now: Instant, id: StreamId, reason: Reason, actions: &mut Vec<Action>) {
        if let Some(stream) = self.forget(id)
            && let Some(link) = stream.link
        {
            self.say(now, link, Kind::Cancel, id.0, Cancel(reason).encode(), actions);
        }
    }

    /// Tells the brokers that this node takes no new work from its clients.
    pub(crate) fn drain(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if std::mem::replace(&mut self.draining, true) {
            return;
        }
        for link in self.connected() {
            self.say(now, link, Kind::Drain, 0, Bytes::new(), actions);
        }
    }

    /// Ends every session in order; the process is about to end.
    pub(crate) fn leave(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for link in self.connected() {
            self.say(now, link, Kind::Bye, 0, Bye::Leaving.encode(), actions);
        }
    }

    /// Takes in a message from a broker.
    pub(crate) fn receive(&mut self, now: Instant, link: LinkId, message: Message, actions: &mut Vec<Action>) {
        let Some(broker) = self.brokers.iter_mut().find(|broker| broker.link == link) else { return };
        let header = message.header;
        if header.epoch != broker.epoch || broker.state == State::Down {
            self.counters.dropped_epoch += 1;
            return;
        }
        broker.heard = now;
        if !header.kind.may_come_from(Role::Broker) {
            if let Kind::Unknown(_) = header.kind {
                self.unknown(now, link, header, actions);
            } else {
                self.counters.dropped_protocol += 1;
            }
            return;
        }
        if self.take(now, link, message, actions).is_err() {
            self.counters.dropped_protocol += 1;
        }
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, now: Instant, actions: &mut Vec<Action>) {
        // After a pause of our own, silence proves nothing yet: the others get one more interval.
        if limits::HEARTBEAT < now.saturating_duration_since(self.ticked) {
            for broker in &mut self.brokers {
                let fresh = now.checked_sub(broker.interval).unwrap_or(now);
                broker.heard = broker.heard.max(fresh);
            }
        }
        self.ticked = now;
        for index in 0..self.brokers.len() {
            self.tend(now, index, actions);
        }
        if self.look_over_at <= now {
            self.look_over_at = now + LOOK_OVER;
            self.look_over(now, actions);
        }
    }

    /// What a message of a known kind does.
    fn take(&mut self, now: Instant, link: LinkId, message: Message, actions: &mut Vec<Action>) -> Result<(), DecodeError> {
        match message.header.kind {
            Kind::Welcome => self.welcome(now, link, &Welcome::decode(&message.metadata)?, actions),
            Kind::Heartbeat => {
                let heartbeat = Heartbeat::decode(&message.metadata)?;
                if let Some(broker) = self.broker(link) {
                    broker.hear(now, heartbeat);
                }
            }
            Kind::Drain => {
                if let Some(broker) = self.broker(link)
                    && broker.state == State::Live
                {
                    broker.state = State::Draining;
                }
            }
            Kind::Bye => {
                let bye = Bye::decode(&message.metadata)?;
                self.end_session(now, link, actions);
                match bye {
                    // It goes, or refuses us: the transport says when there is somebody again.
                    Bye::Leaving | Bye::Lost | Bye::Version => {}
                    Bye::Replaced | Bye::ProtocolError => actions.push(Action::Redial(link)),
                    Bye::UnknownSession | Bye::Silent => self.greet(now, link, actions),
                }
            }
            Kind::Window if message.header.correlation == 0 => {
                let limit = Window::decode(&message.metadata)?.0;
                self.connection_window(now, link, limit, actions);
            }
            Kind::Unsupported => {
                Unsupported::decode(&message.metadata)?;
                self.counters.unknown_kind += 1;
            }
            Kind::Window
            | Kind::Interim
            | Kind::Response
            | Kind::Upgrade
            | Kind::Chunk
            | Kind::End
            | Kind::Reject => return self.take_of_stream(now, link, message, actions),
            // Of the kinds that a broker sends, these are for backends, or of later versions.
            Kind::Hello | Kind::Credit | Kind::Demand | Kind::Reclaim | Kind::Return | Kind::Redirect | Kind::Announce
            | Kind::Cancel | Kind::Update | Kind::Verdict | Kind::Vary | Kind::Purge | Kind::Purged | Kind::Report
            | Kind::Grant | Kind::Explain | Kind::Request | Kind::Unknown(_) => self.unknown(now, link, message.header, actions),
        }
        Ok(())
    }

    fn take_of_stream(&mut self, now: Instant, link: LinkId, message: Message, actions: &mut Vec<Action>) -> Result<(), DecodeError> {
        let id = StreamId(message.header.correlation);
        let kind = message.header.kind;
        let bytes = message.content.len();
        if 0 < bytes {
            self.receive_content(now, link, bytes, actions);
        }
        let seat = (id.0 & 0xffff_ffff) as usize;
        let Some(stream) = (0 < seat)
            .then(|| self.streams.get_mut(seat - 1))
            .flatten()
            .filter(|stream| stream.id == id && stream.link == Some(link))
        else {
            self.counters.dropped_stream += 1;
            return Ok(());
        };
        stream.moved = now;
        if 0 < bytes && !stream.receive.receive(bytes) {
            return self.break_off(now, id, actions);
        }
        match kind {
            Kind::Window => {
                stream.send.raise(Window::decode(&message.metadata)?.0);
                self.send_content(now, id, actions);
            }
            Kind::Interim if !stream.head_came => actions.push(Action::Deliver(id, Delivery::Interim(message.metadata))),
            Kind::Response | Kind::Upgrade if !stream.head_came => {
                stream.head_came = true;
                stream.is_tunnel = kind == Kind::Upgrade;
                stream.request.metadata = Bytes::new();
                stream.request.content = Bytes::new();
                let whole = message.header.flags.contains(Flags::FINAL) && !stream.is_tunnel;
                let upgrade = stream.is_tunnel;
                if whole {
                    self.forget(id);
                }
                actions.push(Action::Deliver(
                    id,
                    Delivery::Head { head: message.metadata, content: message.content, whole, upgrade },
                ));
            }
            Kind::Chunk if stream.head_came => actions.push(Action::Deliver(id, Delivery::Content(message.content))),
            Kind::End => match End::decode(&message.metadata)? {
                End::Complete(trailers) if stream.head_came => {
                    if !stream.is_tunnel || stream.upload == Upload::Done {
                        self.forget(id);
                    }
                    actions.push(Action::Deliver(id, Delivery::End(trailers)));
                }
                End::Complete(_) => return self.break_off(now, id, actions),
                End::Failed { reason, detail } => {
                    self.forget(id);
                    let failure = Failure { detail, ..Failure::after_start(reason) };
                    actions.push(Action::Deliver(id, Delivery::Failed(failure)));
                }
            },
            Kind::Reject if !stream.head_came => {
                let reject = Reject::decode(&message.metadata)?;
                self.rejected(now, link, id, reject, actions);
            }
            _out_of_place => return self.break_off(now, id, actions),
        }
        Ok(())
    }

    /// The broker broke the protocol on this stream: it ends, the others go on.
    fn break_off(&mut self, now: Instant, id: StreamId, actions: &mut Vec<Action>) -> Result<(), DecodeError> {
        self.counters.dropped_protocol += 1;
        self.cancel(now, id, Reason::ProtocolError, actions);
        actions.push(Action::Deliver(id, Delivery::Failed(Failure::after_start(Reason::ProtocolError))));
        Ok(())
    }

    fn unknown(&mut self, now: Instant, link: LinkId, header: RoutingHeader, actions: &mut Vec<Action>) {
        self.counters.unknown_kind += 1;
        if header.kind.stranger() == scale0_wire::Stranger::AnswersUnsupported {
            self.say(now, link, Kind::Unsupported, header.correlation, Unsupported(header.kind).encode(), actions);
        }
    }

    fn welcome(&mut self, now: Instant, link: LinkId, welcome: &Welcome, actions: &mut Vec<Action>) {
        let Some(broker) = self.broker(link) else { return };
        if broker.state != State::Greeting {
            return;
        }
        broker.welcomed(welcome.node.clone(), welcome.heartbeat, welcome.window);
        for id in std::mem::take(&mut self.waiting) {
            self.place(now, id, actions);
        }
    }

    /// The broker took this request and gave it back unstarted: another may do better, unless the answer is final anywhere.
    fn rejected(&mut self, now: Instant, link: LinkId, id: StreamId, reject: Reject, actions: &mut Vec<Action>) {
        let elsewhere = matches!(
            reject.reason,
            Reason::Draining | Reason::SessionEnded | Reason::UnknownService | Reason::NoBackend
        );
        let (stream, brokers) = (&mut self.streams[id.seat()], &mut self.brokers);
        stream.tried.push(link);
        if elsewhere && brokers.iter().any(|broker| broker.state == State::Live && !stream.tried.contains(&broker.link)) {
            self.release(id);
            self.counters.refused_elsewhere += 1;
            self.place(now, id, actions);
            return;
        }
        self.forget(id);
        let Reject { reason, retry_after_ms, detail } = reject;
        actions.push(Action::Deliver(id, Delivery::Failed(Failure { reason, started: false, retry_after_ms, detail })));
    }

    /// Sends the stream's request to the broker it belongs to, or lets it wait for one.
    fn place(&mut self, now: Instant, id: StreamId, actions: &mut Vec<Action>) {
        let Some(stream) = self.streams.get_mut(id.seat()).filter(|stream| stream.id == id) else { return };
        let candidates = self.brokers.iter_mut().filter(|broker| broker.state == State::Live && !stream.tried.contains(&broker.link));
        let chosen = if stream.request.header.flight == FlightKey(0) {
            candidates.min_by_key(|broker| (broker.outstanding, broker.load))
        } else {
            candidates.max_by_key(|broker| broker.claim(stream.request.header.flight))
        };
        let Some(broker) = chosen else {
            self.waiting.push_back(id);
            return;
        };
        stream.link = Some(broker.link);
        broker.outstanding += 1;
        broker.said = now;
        let mut request = stream.request.clone();
        request.header.epoch = broker.epoch;
        request.header.deadline_ms = milliseconds(stream.due.saturating_duration_since(now));
        actions.push(Action::Send(broker.link, request));
    }

    /// Sends what the stream's owner handed over, as far as both windows allow.
    fn send_content(&mut self, now: Instant, id: StreamId, actions: &mut Vec<Action>) {
        let stream = &mut self.streams[id.seat()];
        let Some(broker) = stream.link.and_then(|link| self.brokers.iter_mut().find(|broker| broker.link == link)) else {
            return;
        };
        if stream.upload == Upload::Closed && 0 < stream.send.room() {
            stream.upload = Upload::Idle;
            actions.push(Action::Deliver(id, Delivery::Ready));
            return;
        }
        let Upload::Waiting(content) = &mut stream.upload else { return };
        while !content.is_empty() {
            if stream.send.room() == 0 {
                return;
            }
            if broker.send.room() == 0 {
                broker.blocked.push_back(id);
                return;
            }
            let room = stream.send.room().min(broker.send.room()).min(limits::CONTENT as u64);
            let length = usize::try_from(room).unwrap_or(limits::CONTENT).min(content.len());
            stream.send.take(length);
            broker.send.take(length);
            broker.said = now;
            let header = RoutingHeader { correlation: id.0, epoch: broker.epoch, ..RoutingHeader::new(Kind::Chunk) };
            actions.push(Action::Send(broker.link, Message::new(header).with_content(content.split_to(length))));
        }
        stream.upload = Upload::Idle;
        stream.due = stream.due.max(now + stream.timeout);
        if UPDATE_INTERVAL <= now.saturating_duration_since(stream.updated) && !stream.head_came {
            stream.updated = now;
            let header = RoutingHeader {
                correlation: id.0,
                epoch: broker.epoch,
                deadline_ms: milliseconds(stream.timeout),
                waiters: 1,
                ..RoutingHeader::new(Kind::Update)
            };
            actions.push(Action::Send(broker.link, Message::new(header)));
        }
        actions.push(Action::Deliver(id, Delivery::Ready));
    }

    /// Content came over this connection. It goes straight into the streams' own bounded windows, so the connection's is
    /// opened again at once: it bounds only what is under way.
    fn receive_content(&mut self, now: Instant, link: LinkId, bytes: usize, actions: &mut Vec<Action>) {
        let Some(broker) = self.broker(link) else { return };
        let within = broker.receive.receive(bytes);
        let limit = broker.receive.consume(bytes, now, broker.round_trip);
        if !within {
            self.counters.dropped_protocol += 1;
        }
        if let Some(limit) = limit {
            self.say(now, link, Kind::Window, 0, Window(limit).encode(), actions);
        }
    }

    fn connection_window(&mut self, now: Instant, link: LinkId, limit: u64, actions: &mut Vec<Action>) {
        let Some(broker) = self.broker(link) else { return };
        if broker.send.raise(limit) {
            for id in std::mem::take(&mut broker.blocked) {
                if self.streams.get(id.seat()).is_some_and(|stream| stream.id == id) {
                    self.send_content(now, id, actions);
                }
            }
        }
    }

    fn greet(&mut self, now: Instant, link: LinkId, actions: &mut Vec<Action>) {
        self.next_epoch = self.next_epoch.wrapping_add(1);
        let epoch = self.next_epoch;
        if let Some(broker) = self.broker(link) {
            broker.greet(now, epoch);
            self.hello(now, link, actions);
        }
    }

    fn hello(&mut self, now: Instant, link: LinkId, actions: &mut Vec<Action>) {
        let hello = Hello {
            oldest: VERSION,
            newest: VERSION,
            node: self.config.node.clone(),
            instance: self.config.instance,
            lane: self.config.lane,
            heartbeat: limits::HEARTBEAT,
            window: limits::CONNECTION_WINDOW,
            capacity: 0,
            services: Vec::new(),
        };
        self.say(now, link, Kind::Hello, 0, hello.encode(), actions);
    }

    /// The session with this broker is over: what it worked on is repeated elsewhere, or failed.
    fn end_session(&mut self, now: Instant, link: LinkId, actions: &mut Vec<Action>) {
        let Some(broker) = self.broker(link) else { return };
        if std::mem::replace(&mut broker.state, State::Down) == State::Down {
            return;
        }
        broker.outstanding = 0;
        broker.blocked.clear();
        self.counters.sessions_lost += 1;
        let its: Vec<StreamId> =
            self.streams.iter().filter(|(_, stream)| stream.link == Some(link)).map(|(_, stream)| stream.id).collect();
        for id in its {
            let stream = &mut self.streams[id.seat()];
            if stream.is_repeatable() && stream.lost < REPEATS_AFTER_LOSS {
                stream.lost += 1;
                stream.link = None;
                stream.request.header.attempt = stream.request.header.attempt.saturating_add(1);
                self.counters.repeated += 1;
                self.place(now, id, actions);
            } else {
                self.forget(id);
                actions.push(Action::Deliver(id, Delivery::Failed(Failure::after_start(Reason::BrokerLost))));
            }
        }
    }

    /// Heartbeats, and whether this broker lives.
    fn tend(&mut self, now: Instant, index: usize, actions: &mut Vec<Action>) {
        let outstanding = self.streams.len();
        let broker = &mut self.brokers[index];
        let (link, silent) = (broker.link, now.saturating_duration_since(broker.heard));
        if broker.state == State::Down {
            return;
        }
        if broker.interval * limits::HEARTBEAT_MISSES <= silent {
            self.counters.silent += 1;
            self.say(now, link, Kind::Bye, 0, Bye::Silent.encode(), actions);
            self.end_session(now, link, actions);
            actions.push(Action::Redial(link));
        } else if broker.interval <= now.saturating_duration_since(broker.said) {
            if broker.state == State::Greeting {
                self.hello(now, link, actions);
            } else {
                let heartbeat = broker.heartbeat(now, outstanding);
                self.say(now, link, Kind::Heartbeat, 0, heartbeat.encode(), actions);
            }
        }
    }

    /// Ends the streams whose time has passed.
    fn look_over(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let mut over = Vec::new();
        for (_, stream) in &self.streams {
            let held = Duration::from_millis(u64::from(stream.request.header.hold_ms));
            let reason = if stream.link.is_none() && stream.opened + held.min(stream.timeout) <= now {
                Reason::NoBroker
            } else if !stream.head_came && stream.due + LOOK_OVER <= now {
                Reason::Deadline
            } else if stream.head_came && stream.receive.held() == 0 && stream.moved + stream.idle_timeout <= now {
                // Nothing of it waits here for its reader, so it is the other side that is silent.
                Reason::IdleTimeout
            } else {
                continue;
            };
            over.push((stream.id, reason, stream.link.is_some()));
        }
        for (id, reason, started) in over {
            match reason {
                Reason::Deadline => self.counters.deadline += 1,
                Reason::IdleTimeout => self.counters.idle += 1,
                _no_broker => {}
            }
            self.cancel(now, id, reason, actions);
            let failure = if started { Failure::after_start(reason) } else { Failure::not_started(reason) };
            actions.push(Action::Deliver(id, Delivery::Failed(failure)));
        }
    }

    /// Sends a message of this session without content.
    fn say(&mut self, now: Instant, link: LinkId, kind: Kind, correlation: u64, metadata: Bytes, actions: &mut Vec<Action>) {
        let Some(broker) = self.broker(link) else { return };
        broker.said = now;
        let header = RoutingHeader { correlation, epoch: broker.epoch, ..RoutingHeader::new(kind) };
        actions.push(Action::Send(link, Message::new(header).with_metadata(metadata)));
    }

    /// The stream is over.
    fn forget(&mut self, id: StreamId) -> Option<Stream> {
        let waits = self.streams.get(id.seat()).filter(|stream| stream.id == id)?.link.is_none();
        if waits {
            self.waiting.retain(|waiting| *waiting != id);
        }
        self.release(id);
        self.streams.try_remove(id.seat())
    }

    /// The stream is no longer with its broker.
    fn release(&mut self, id: StreamId) {
        let Some(link) = self.streams.get_mut(id.seat()).and_then(|stream| stream.link) else { return };
        if let Some(broker) = self.broker(link) {
            broker.outstanding = broker.outstanding.saturating_sub(1);
        }
    }

    fn broker(&mut self, link: LinkId) -> Option<&mut Broker> {
        self.brokers.iter_mut().find(|broker| broker.link == link)
    }

    fn connected(&self) -> Vec<LinkId> {
        self.brokers.iter().filter(|broker| broker.is_connected()).map(|broker| broker.link).collect()
    }
}

fn milliseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
