//! What a backend and its brokers owe each other: a state machine without sockets, tasks and clocks.
//!
//! The shell tells it what happened and when ([`Event`]) and carries out what it answers ([`Action`]). `credit` lends the capacity
//! to the brokers, `broker` is one broker's session, `stream` one request; `serving` is what happens to requests.

#[cfg(feature = "simulation")]
mod audit;
mod broker;
mod credit;
mod learnt;
mod load;
mod offer;
#[cfg(test)]
mod older_broker;
mod serving;
#[cfg(test)]
mod sharing;
#[cfg(test)]
mod stories;
#[cfg(test)]
mod storm;
mod stream;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use scale0_wire::{
    Bye, DecodeError, Flags, Heartbeat, Hello, Kind, Message, OLDEST_VERSION, OtherBroker, Reason,
    RoutingHeader, Stranger, Unsupported, VERSION, Wanted, Welcome, limits,
};
use slab::Slab;

use crate::Counters;
pub(crate) use broker::HEARTBEAT_MIN;
use broker::{Broker, State};
use credit::Ledger;
use load::Load;
use stream::Stream;
pub use stream::{Output, Shape, StreamId};

/// After a broker ended the session for no fault of the connection, HELLO is said again after this: long enough that two sides at
/// odds do not keep each other busy.
const REST: Duration = Duration::from_millis(100);

/// The longest we stay away from a broker because it says so.
const REST_MAX: Duration = Duration::from_mins(10);

/// The shortest time between two heartbeats that say a capacity: as often as a broker says its demand. Whether there is any at all
/// is said at once.
const CAPACITY_SPACING: Duration = Duration::from_millis(10);

/// The shortest time between two RECLAIMs to one broker, as often as DEMANDs come. Under load credit comes free by itself in this
/// time, and most of what we believe idle at a broker is under way, from it as requests or to it.
const RECLAIM_SPACING: Duration = Duration::from_millis(10);

/// How long a handler that was told to stop may take before it is left behind.
const CUT_GRACE: Duration = Duration::from_secs(1);

/// Which of the configured brokers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BrokerId(pub usize);

/// What a session is told once.
#[derive(Clone, Debug)]
pub struct Settings {
    pub node: String,
    pub instance: u64,
    pub lane: u16,
    pub services: Vec<String>,
    pub capacity: u32,
    /// Requests, event streams and tunnels at a time, over all brokers.
    pub max_streams: usize,
    pub heartbeat: Duration,
    pub drain_timeout: Duration,
    /// The first session's epoch; later ones count on from there.
    pub epoch: u64,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A connection stands.
    Up(BrokerId),
    /// A connection is gone.
    Down(BrokerId),
    Message(BrokerId, Message),
    /// Something came that is no message.
    Malformed(BrokerId),
    /// The transport takes no more for this broker.
    Full(BrokerId),
    /// It does again.
    Writable(BrokerId),
    /// A handler has something to say.
    Output(StreamId, Output),
    /// A handler reads its request's content beyond what it was given with it.
    Reading(StreamId),
    /// It has read this many bytes of that.
    Consumed(StreamId, usize),
    /// A handler is gone without having said its last.
    Stopped(StreamId),
    /// Work on this many requests at a time.
    Capacity(u32),
    /// Offer these services, and no others.
    Services(Vec<String>),
    /// Take no new work, finish what there is, leave.
    Drain,
    /// Leave at once.
    Cut,
    /// The end of a batch of events, and whatever became due.
    Tick {
        cpu_permille: u16,
    },
}

/// What ought to happen.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    Send(BrokerId, Message),
    /// Hang up and dial anew.
    Redial(BrokerId),
    /// Dial the broker that this one names, if it can be believed, and add it by [`Session::learn_broker`].
    Learn(BrokerId, OtherBroker),
    /// Hang up for good.
    Close(BrokerId),
    /// Start a handler for this REQUEST.
    Serve(Call),
    /// Give a handler content of its request.
    Input(StreamId, Bytes),
    /// Tell a handler that its request's content ended: the metadata of END.
    InputEnd(StreamId, Bytes),
    /// Tell a handler that its request's deadline and waiters are these now.
    Update(StreamId, Option<Instant>, u32),
    /// This much of what a handler said has been sent: it may say more.
    Released(StreamId, usize),
    /// Stop a handler; its `Stopped` is awaited.
    Cancel(StreamId, Reason),
    /// Nothing more will be said of this stream.
    Forget(StreamId),
    /// The broker of this name has accepted us.
    Registered(Arc<str>),
}

/// A request for a handler.
#[derive(Debug, PartialEq, Eq)]
pub struct Call {
    pub stream: StreamId,
    pub broker: Arc<str>,
    pub deadline: Option<Instant>,
    pub request: Message,
}

/// How long it will be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// → `Draining`, `Cutting`
    Serving,
    /// In-flight work ends. → `Cutting`, `Gone`
    Draining {
        until: Instant,
    },
    /// All handlers were told to stop. → `Gone`
    Cutting {
        until: Instant,
    },
    Gone,
}

pub struct Session {
    settings: Settings,
    brokers: Vec<Broker>,
    streams: Slab<Stream>,
    ledger: Ledger,
    load: Load,
    phase: Phase,
    next_epoch: u64,
    next_serial: u64,
    stepped_at: Option<Instant>,
    /// What this process uses, by the shell's newest word.
    cpu_permille: u16,
    counters: Arc<Counters>,
}

impl Session {
    /// A session with this many brokers, none of them connected.
    pub fn new(settings: Settings, brokers: usize, counters: Arc<Counters>) -> Self {
        Self {
            ledger: Ledger::new(settings.capacity, brokers),
            next_epoch: settings.epoch,
            settings,
            brokers: (0..brokers).map(|_| Broker::new()).collect(),
            streams: Slab::new(),
            load: Load::default(),
            phase: Phase::Serving,
            next_serial: 0,
            stepped_at: None,
            cpu_permille: 0,
            counters,
        }
    }

    /// Takes in one event. What should happen is appended to `actions`; nothing happens here.
    ///
    /// A batch of events ends with [`Event::Tick`].
    pub fn step(&mut self, now: Instant, event: Event, actions: &mut Vec<Action>) {
        self.notice_pause(now, actions);
        match event {
            Event::Up(broker) => {
                // What was full was the connection before: a link that is dialled anew is up without having been down.
                self.brokers[broker.0].is_full = false;
                self.on_up(now, broker, actions);
            }
            Event::Down(broker) => {
                self.end_session(broker, actions);
                self.brokers[broker.0].is_full = false;
                self.set_state(broker, State::Down);
            }
            Event::Message(broker, message) => self.on_message(now, broker, message, actions),
            Event::Malformed(broker) => {
                self.brokers[broker.0].heard(now);
                self.counters.malformed.add();
            }
            Event::Full(broker) => self.brokers[broker.0].is_full = true,
            Event::Writable(broker) => {
                self.brokers[broker.0].is_full = false;
                self.serve_line(now, broker, actions);
            }
            Event::Output(stream, output) => self.on_output(now, stream, output, actions),
            Event::Reading(stream) => self.on_reading(stream, actions),
            Event::Consumed(stream, bytes) => self.on_consumed(now, stream, bytes, actions),
            Event::Stopped(stream) => self.on_stopped(now, stream, actions),
            Event::Capacity(capacity) => {
                if self.phase == Phase::Serving {
                    self.resize(now, capacity, actions);
                }
            }
            Event::Services(services) => self.offer(now, services, actions),
            Event::Drain => self.drain(now, actions),
            Event::Cut => self.cut(now, actions),
            Event::Tick { cpu_permille } => {
                self.cpu_permille = cpu_permille;
                self.tick(now, actions);
            }
        }
    }

    /// When the shell owes the session a [`Event::Tick`] at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        let brokers = (0..self.brokers.len()).map(|index| self.owed_at(BrokerId(index)));
        let phase = match self.phase {
            Phase::Serving => None,
            Phase::Draining { until } | Phase::Cutting { until } => Some(until),
            Phase::Gone => self.stepped_at,
        };
        // Twice an interval at least, so that a step that comes late by itself is told from one kept away.
        let sign_of_life = self.stepped_at.map(|at| at + self.interval() / 2);
        brokers.chain([phase, sign_of_life]).flatten().min()
    }

    /// When something is owed to this broker, or it must have been heard.
    fn owed_at(&self, id: BrokerId) -> Option<Instant> {
        let broker = &self.brokers[id.0];
        match broker.state {
            State::Down | State::Idle | State::Left => None,
            State::Resting { until } => Some(until),
            State::Greeting { since } => Some(since + self.settings.heartbeat),
            State::Open => {
                let claim_at = broker.reclaim_at.filter(|_| self.ledger.has_claim(id));
                let timers = [
                    self.beat_at(broker),
                    broker.silent_at(),
                    claim_at,
                    broker.renew_by,
                ];
                timers.into_iter().flatten().min()
            }
        }
    }

    /// Whether it has left all its brokers, for good.
    pub fn is_gone(&self) -> bool {
        self.phase == Phase::Gone
    }

    /// Whether it takes nothing new any more.
    pub fn is_leaving(&self) -> bool {
        self.phase != Phase::Serving
    }

    /// Whether at least one broker has accepted it and is there.
    pub fn is_registered(&self) -> bool {
        self.brokers.iter().any(Broker::is_open)
    }

    fn notice_pause(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let before = self.stepped_at.replace(now).unwrap_or(now);
        if now.saturating_duration_since(before) <= self.interval() {
            return;
        }
        self.counters.pauses.add();
        tracing::warn!(
            "this process was kept from running; what was queued for it meanwhile is rejected"
        );
        // What was sent meanwhile was sent on credit from before, however late it is handed over.
        self.ledger.expire();
        for broker in &mut self.brokers {
            broker.excuse(now);
        }
        // Ahead of the REJECTs: what they bring back is to be sent anew on credit that is worth something.
        for id in (0..self.brokers.len()).map(BrokerId) {
            if self.brokers[id.0].is_open() {
                self.settle_credit(now, id, actions);
            }
        }
    }

    /// The shortest interval agreed with any broker.
    fn interval(&self) -> Duration {
        let agreed = self.brokers.iter().filter(|broker| broker.is_open());
        agreed
            .map(|broker| broker.heartbeat)
            .min()
            .unwrap_or(self.settings.heartbeat)
    }

    fn on_up(&mut self, now: Instant, broker: BrokerId, actions: &mut Vec<Action>) {
        self.end_session(broker, actions);
        if self.phase != Phase::Serving {
            self.set_state(broker, State::Down);
            return;
        }
        if self.offers_nothing() {
            self.set_state(broker, State::Idle);
            return;
        }
        if self.is_dialled_twice(broker) {
            return self.retire(broker, actions);
        }
        let epoch = self.next_epoch;
        self.next_epoch = self.next_epoch.wrapping_add(1);
        self.brokers[broker.0].greet(now, epoch);
        self.hello(broker, actions);
    }

    fn hello(&mut self, broker: BrokerId, actions: &mut Vec<Action>) {
        let hello = Hello {
            oldest: OLDEST_VERSION,
            newest: VERSION,
            node: self.settings.node.clone(),
            instance: self.settings.instance,
            lane: self.settings.lane,
            heartbeat: self.settings.heartbeat,
            window: self.brokers[broker.0].receive_window.size(),
            capacity: self.ledger.capacity(),
            services: self.settings.services.clone(),
        };
        self.brokers[broker.0].capacity_said = hello.capacity;
        self.send_control(broker, Kind::Hello, hello.encode(), actions);
    }

    fn on_message(
        &mut self,
        now: Instant,
        id: BrokerId,
        message: Message,
        actions: &mut Vec<Action>,
    ) {
        let broker = &mut self.brokers[id.0];
        let in_session = matches!(broker.state, State::Greeting { .. } | State::Open);
        if !in_session || message.header.epoch != broker.epoch {
            self.counters.foreign_epoch.add();
            return;
        }
        broker.heard(now);
        if message.header.version != message.header.kind.stated_version(broker.version) {
            self.counters.protocol_errors.add();
            return;
        }
        let done = match (message.header.kind, broker.state) {
            (Kind::Bye, _) => self.on_bye(now, id, &message, actions),
            (Kind::Welcome, State::Greeting { .. }) => self.on_welcome(now, id, &message, actions),
            // Said twice because we said HELLO twice.
            (Kind::Welcome, _) => Ok(()),
            (_, State::Greeting { .. }) => {
                self.counters.unexpected.add();
                Ok(())
            }
            (kind, _) => self.on_session_message(now, id, kind, message, actions),
        };
        if done.is_err() {
            self.counters.malformed.add();
        }
    }

    fn on_session_message(
        &mut self,
        now: Instant,
        id: BrokerId,
        kind: Kind,
        message: Message,
        actions: &mut Vec<Action>,
    ) -> Result<(), DecodeError> {
        match kind {
            Kind::Request => self.on_request(now, id, message, actions),
            Kind::Chunk => self.on_chunk(now, id, message, actions),
            Kind::Window => self.on_window(now, id, &message, actions)?,
            Kind::End => self.on_end(id, message, actions),
            Kind::Cancel => self.on_cancel(id, &message, actions),
            Kind::Update => self.on_update(now, id, &message, actions),
            Kind::Heartbeat => {
                let heartbeat = Heartbeat::decode(&message.metadata)?;
                self.brokers[id.0].beaten(now, heartbeat);
            }
            Kind::Demand => {
                let Wanted(requests) = Wanted::decode(&message.metadata)?;
                self.ledger.demand(id, requests);
            }
            Kind::Return => {
                if !self.ledger.returned(id, message.header.credit) {
                    self.counters.protocol_errors.add();
                }
            }
            // It sends nothing new by itself, and returns what credit it has. Its BYE ends the session.
            Kind::Drain => {
                tracing::info!(broker = &*self.brokers[id.0].name, "broker drains");
                self.ledger.close(id);
            }
            Kind::Redirect if message.header.version >= 2 => {
                self.on_redirect(id, &message, actions)?;
            }
            Kind::Unsupported => self.counters.unexpected.add(),
            stranger => {
                self.counters.unexpected.add();
                if stranger.stranger() == Stranger::AnswersUnsupported {
                    let correlation = message.header.correlation;
                    let answer = Unsupported(stranger).encode();
                    self.send(id, Kind::Unsupported, correlation, answer, actions);
                }
            }
        }
        Ok(())
    }

    fn on_welcome(
        &mut self,
        now: Instant,
        id: BrokerId,
        message: &Message,
        actions: &mut Vec<Action>,
    ) -> Result<(), DecodeError> {
        let welcome = Welcome::decode(&message.metadata)?;
        if !welcome.is_spoken() {
            self.send_control(id, Kind::Bye, Bye::Version.encode(), actions);
            self.rest(now, id, limits::HEARTBEAT_MAX, actions);
            return Ok(());
        }
        self.brokers[id.0].open(now, &welcome);
        self.ledger.join(id);
        self.counters.sessions.add();
        tracing::info!(broker = welcome.node, site = welcome.site, "registered");
        let name = Arc::clone(&self.brokers[id.0].name);
        actions.push(Action::Registered(name));
        Ok(())
    }

    fn on_bye(
        &mut self,
        now: Instant,
        id: BrokerId,
        message: &Message,
        actions: &mut Vec<Action>,
    ) -> Result<(), DecodeError> {
        let bye = Bye::decode(&message.metadata)?;
        let was_welcome = self.brokers[id.0].is_open();
        if bye == Bye::ProtocolError && !was_welcome {
            tracing::warn!(
                "a broker does not take us for a backend: is this its port for backends?"
            );
        } else {
            tracing::info!(
                broker = &*self.brokers[id.0].name,
                ?bye,
                "session ended by broker"
            );
        }
        if bye == Bye::Replaced && self.brokers[id.0].is_learnt {
            self.retire(id, actions);
            return Ok(());
        }
        let rest = match bye {
            // It says HELLO is what it wants; the rest is for two sides that disagree for longer.
            Bye::UnknownSession | Bye::Silent | Bye::Lost => REST,
            Bye::Leaving | Bye::Replaced | Bye::ProtocolError => self.settings.heartbeat,
            // Somebody must change something first.
            Bye::Version | Bye::NotAllowed => limits::HEARTBEAT_MAX,
            Bye::Quarantined(milliseconds) => {
                Duration::from_millis(milliseconds.into()).clamp(self.settings.heartbeat, REST_MAX)
            }
        };
        self.rest(now, id, rest, actions);
        Ok(())
    }

    /// The session is over and the connection stands: HELLO follows after a while.
    fn rest(&mut self, now: Instant, id: BrokerId, rest: Duration, actions: &mut Vec<Action>) {
        self.end_session(id, actions);
        self.set_state(id, State::Resting { until: now + rest });
    }

    /// The broker breaks the protocol in a way that leaves no common ground.
    fn fail_session(&mut self, now: Instant, id: BrokerId, actions: &mut Vec<Action>) {
        self.counters.protocol_errors.add();
        self.send_control(id, Kind::Bye, Bye::ProtocolError.encode(), actions);
        self.rest(now, id, self.settings.heartbeat, actions);
    }

    /// Cancels what was done for this session; the state is the caller's to set.
    fn end_session(&mut self, id: BrokerId, actions: &mut Vec<Action>) {
        let broker = &mut self.brokers[id.0];
        if !broker.is_open() {
            return;
        }
        broker.line.clear();
        let mut orphans: Vec<usize> = broker.streams.drain().map(|(_, index)| index).collect();
        // In the same order in every run, so that a simulation's can be had again.
        orphans.sort_unstable();
        self.counters.sessions_ended.add();
        self.ledger.leave(id);
        for index in orphans {
            self.orphan(index, actions);
        }
    }

    /// Takes this many requests at a time. Whether it takes any is said at once, before whatever is refused for it: a broker is to
    /// know whom it need not wait for. Any other number is said with the end of the batch.
    fn resize(&mut self, now: Instant, capacity: u32, actions: &mut Vec<Action>) {
        let took_work = 0 < self.ledger.capacity();
        self.ledger.resize(capacity);
        if took_work == (0 < capacity) {
            return;
        }
        for id in (0..self.brokers.len()).map(BrokerId) {
            if self.brokers[id.0].is_open() {
                self.heartbeat(now, id, actions);
            }
        }
    }

    /// When our next HEARTBEAT to this broker is due: soon, where it believes in another capacity than ours.
    fn beat_at(&self, broker: &Broker) -> Option<Instant> {
        let interval = if broker.capacity_said == self.ledger.capacity() {
            broker.heartbeat
        } else {
            CAPACITY_SPACING
        };
        broker.beaten_at().map(|at| at + interval)
    }

    fn set_state(&mut self, id: BrokerId, state: State) {
        let broker = &mut self.brokers[id.0];
        if broker.state != State::Left {
            broker.state = state;
        }
    }

    fn drain(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.phase != Phase::Serving {
            return;
        }
        self.phase = Phase::Draining {
            until: now + self.settings.drain_timeout,
        };
        self.ledger.resize(0);
        for index in 0..self.brokers.len() {
            let id = BrokerId(index);
            match self.brokers[index].state {
                State::Open => {
                    self.brokers[index].drain_said = Some(now);
                    self.brokers[index].renew_by = None;
                    self.send_control(id, Kind::Drain, Bytes::new(), actions);
                }
                State::Greeting { .. } => self.leave(id, actions),
                State::Down | State::Resting { .. } | State::Idle | State::Left => {}
            }
        }
    }

    fn cut(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.drain(now, actions);
        if !matches!(self.phase, Phase::Draining { .. }) {
            return;
        }
        self.phase = Phase::Cutting {
            until: now + CUT_GRACE,
        };
        let streams: Vec<usize> = self.streams.iter().map(|(index, _)| index).collect();
        for index in streams {
            self.cancel(index, Reason::Draining, actions);
        }
    }

    /// Ends a session in order: nothing of it is left.
    fn leave(&mut self, id: BrokerId, actions: &mut Vec<Action>) {
        self.send_control(id, Kind::Bye, Bye::Leaving.encode(), actions);
        self.end_session(id, actions);
        self.brokers[id.0].state = State::Left;
    }

    fn tick(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for index in 0..self.brokers.len() {
            self.tick_broker(now, BrokerId(index), actions);
        }
        self.tick_phase(now, actions);
    }

    fn tick_broker(&mut self, now: Instant, id: BrokerId, actions: &mut Vec<Action>) {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let state = self.brokers[id.0].state;
        match state {
            State::Down | State::Idle | State::Left => {}
            State::Resting { until } => {
                if until <= now {
                    self.on_up(now, id, actions);
                }
            }
            State::Greeting { since } => {
                if since + self.settings.heartbeat <= now {
                    self.brokers[id.0].state = State::Greeting { since: now };
                    self.hello(id, actions);
                }
            }
            State::Open if is_due(self.brokers[id.0].silent_at()) => {
                tracing::warn!(broker = &*self.brokers[id.0].name, "broker is silent");
                self.send_control(id, Kind::Bye, Bye::Silent.encode(), actions);
                self.end_session(id, actions);
                self.set_state(id, State::Down);
                actions.push(Action::Redial(id));
            }
            State::Open if self.renew_if_due(now, id, actions) => {}
            State::Open => {
                if is_due(self.beat_at(&self.brokers[id.0])) {
                    self.ledger.forget_asked(id);
                    self.heartbeat(now, id, actions);
                }
                self.settle_credit(now, id, actions);
            }
        }
    }

    fn heartbeat(&mut self, now: Instant, id: BrokerId, actions: &mut Vec<Action>) {
        self.brokers[id.0].capacity_said = self.ledger.capacity();
        let heartbeat = Heartbeat {
            outstanding: u32::try_from(self.ledger.occupied()).unwrap_or(u32::MAX),
            capacity: self.ledger.capacity(),
            service_time_us: self.load.service_time_us(),
            // What has credit is started at once: a backend has no queue.
            queue_time_us: 0,
            cpu_permille: self.cpu_permille,
            ..self.brokers[id.0].beat(now)
        };
        self.send_control(id, Kind::Heartbeat, heartbeat.encode(), actions);
    }

    /// Says what has changed in credit and did not ride on another message.
    fn settle_credit(&mut self, now: Instant, id: BrokerId, actions: &mut Vec<Action>) {
        let may_ask = self.brokers[id.0].reclaim_at.is_none_or(|at| at <= now);
        if may_ask && let Some(wanted) = self.ledger.reclaim(id) {
            self.brokers[id.0].reclaim_at = Some(now + RECLAIM_SPACING);
            self.send_control(id, Kind::Reclaim, Wanted(wanted).encode(), actions);
        }
        if self.brokers[id.0].credit_said != self.ledger.granted(id) {
            self.send_control(id, Kind::Credit, Bytes::new(), actions);
        }
    }

    fn tick_phase(&mut self, now: Instant, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Serving | Phase::Gone => return,
            Phase::Draining { until } if until <= now => self.cut(now, actions),
            Phase::Cutting { until } if until <= now => {
                self.phase = Phase::Gone;
                return;
            }
            Phase::Draining { .. } | Phase::Cutting { .. } => {}
        }
        for index in 0..self.brokers.len() {
            if self.may_leave(now, BrokerId(index)) {
                self.leave(BrokerId(index), actions);
            }
        }
        if self.streams.is_empty() && !self.is_registered() {
            self.phase = Phase::Gone;
        }
    }

    /// Whether a drained session can end: nothing is under way in it, and nothing can come any more because all credit was used
    /// or has come back. A broker that returns none within an interval has had the time to read DRAIN.
    fn may_leave(&self, now: Instant, id: BrokerId) -> bool {
        let broker = &self.brokers[id.0];
        let is_cut = matches!(self.phase, Phase::Cutting { .. });
        let is_cut = is_cut && broker.streams.is_empty();
        broker.is_open() && (is_cut || self.has_no_work(now, id))
    }

    /// Whether nothing is under way in a session in which DRAIN was said, and nothing can come any more.
    fn has_no_work(&self, now: Instant, id: BrokerId) -> bool {
        let broker = &self.brokers[id.0];
        let had_time = broker
            .drain_said
            .is_some_and(|at| at + broker.heartbeat <= now);
        broker.streams.is_empty() && (had_time || !self.ledger.is_idle_anywhere(id))
    }

    fn send_control(
        &mut self,
        id: BrokerId,
        kind: Kind,
        metadata: Bytes,
        actions: &mut Vec<Action>,
    ) {
        self.send(id, kind, 0, metadata, actions);
    }

    fn send(
        &mut self,
        id: BrokerId,
        kind: Kind,
        correlation: u64,
        metadata: Bytes,
        actions: &mut Vec<Action>,
    ) {
        let content = Bytes::new();
        self.send_content(
            id,
            kind,
            correlation,
            Flags::default(),
            metadata,
            content,
            actions,
        );
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one message, written down once"
    )]
    fn send_content(
        &mut self,
        id: BrokerId,
        kind: Kind,
        correlation: u64,
        flags: Flags,
        metadata: Bytes,
        content: Bytes,
        actions: &mut Vec<Action>,
    ) {
        let broker = &mut self.brokers[id.0];
        broker.credit_said = self.ledger.granted(id);
        let header = RoutingHeader {
            flags,
            correlation,
            epoch: broker.epoch,
            credit: broker.credit_said,
            ..RoutingHeader::new(kind)
        };
        let mut message = Message::new(header)
            .with_metadata(metadata)
            .with_content(content);
        message.set_version(broker.version);
        actions.push(Action::Send(id, message));
    }
}
