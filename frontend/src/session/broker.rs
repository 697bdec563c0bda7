use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use scale0_transport::LinkId;
use scale0_wire::flow::{ReceiveWindow, SendWindow};
use scale0_wire::{Heartbeat, Kind, Message, RoutingHeader, VERSION, Welcome, limits};

use super::home;
use super::lane::Action;
use super::stream::StreamId;

/// Where the session with a broker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Not connected. → Greeting, Retired
    Down,
    /// It wants no session with us until then. → Greeting, Down
    Resting { until: Instant },
    /// HELLO was said. → Live, Resting, Down
    Greeting,
    /// WELCOME came. → Draining, Resting, Down
    Live,
    /// It takes nothing new. → Resting, Down
    Draining,
    /// It turned out to be one that is dialled already: its link is closed.
    Retired,
}

/// What `/status` and `/readyz` say of a broker.
#[derive(Clone, Debug)]
pub struct BrokerStatus {
    /// Its node name; empty before its first WELCOME.
    pub node: String,
    /// `down`, `greeting`, `live` or `draining`.
    pub state: &'static str,
    /// Requests sent to it and not answered yet.
    pub outstanding: usize,
    /// As its heartbeats tell.
    pub round_trip: Duration,
}

/// In half heartbeats: a broker says at least one in each, a little late at times.
const SUSPECT_AFTER: u32 = 3;

/// One broker as a lane sees it.
#[derive(Debug)]
pub(super) struct Broker {
    pub(super) link: LinkId,
    pub(super) state: State,
    pub(super) epoch: u64,
    /// Of the protocol, as its WELCOME says.
    pub(super) version: u8,
    pub(super) node: String,
    /// Whether another broker has named it.
    pub(super) is_learnt: bool,
    seed: u64,
    /// When it was last heard.
    pub(super) heard: Instant,
    /// When HELLO or HEARTBEAT was last said.
    beaten: Instant,
    /// How often each side is heard at least.
    pub(super) interval: Duration,
    sequence: u32,
    sequence_at: Instant,
    echo: u32,
    echo_at: Instant,
    pub(super) round_trip: Duration,
    /// Requests it queues and has sent, as it last said itself.
    pub(super) load: u32,
    /// Streams sent to it that are not over.
    pub(super) outstanding: usize,
    /// The connection's window towards it, and ours.
    pub(super) send: SendWindow,
    pub(super) receive: ReceiveWindow,
    /// Streams with content and room of their own, which take turns with the connection's window.
    pub(super) line: VecDeque<StreamId>,
}

impl Broker {
    pub(super) fn new(link: LinkId, now: Instant) -> Self {
        Self {
            link,
            state: State::Down,
            epoch: 0,
            version: VERSION,
            node: String::new(),
            is_learnt: false,
            seed: 0,
            heard: now,
            beaten: now,
            interval: limits::HEARTBEAT,
            sequence: 0,
            sequence_at: now,
            echo: 0,
            echo_at: now,
            round_trip: Duration::ZERO,
            load: 0,
            outstanding: 0,
            send: SendWindow::default(),
            receive: ReceiveWindow::connection(),
            line: VecDeque::new(),
        }
    }

    /// A new connection: nothing of a former session holds.
    pub(super) fn greet(&mut self, now: Instant, epoch: u64) {
        let node = std::mem::take(&mut self.node);
        let (seed, is_learnt) = (self.seed, self.is_learnt);
        *self = Self {
            state: State::Greeting,
            epoch,
            node,
            is_learnt,
            seed,
            ..Self::new(self.link, now)
        };
    }

    pub(super) fn welcomed(&mut self, welcome: Welcome) {
        self.version = welcome.version;
        self.seed = home::seed(&welcome.node);
        self.node = welcome.node;
        self.interval = (welcome.heartbeat).clamp(limits::HEARTBEAT, limits::HEARTBEAT_MAX);
        self.send = SendWindow::new(welcome.window);
        self.state = State::Live;
    }

    pub(super) fn is_connected(&self) -> bool {
        matches!(self.state, State::Live | State::Draining)
    }

    /// Whether HELLO was said, and the session is not over.
    pub(super) fn has_session(&self) -> bool {
        self.state == State::Greeting || self.is_connected()
    }

    /// When something is owed to it, or it must have been heard.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Down | State::Retired => None,
            State::Resting { until } => Some(until),
            State::Greeting | State::Live | State::Draining => {
                Some(self.beat_at().min(self.silent_at()))
            }
        }
    }

    /// When HELLO or HEARTBEAT is owed. Whatever else was said: only heartbeats tell the round trip, and a busy connection's
    /// window grows by it.
    pub(super) fn beat_at(&self) -> Instant {
        self.beaten + self.interval
    }

    /// When it is dead unless it is heard before.
    pub(super) fn silent_at(&self) -> Instant {
        self.heard + self.interval * limits::HEARTBEAT_MISSES
    }

    /// Whether it has been silent for longer than one that lives is: it may be dead, and nothing new is sent to it while others have
    /// spoken.
    pub(super) fn is_suspect(&self, now: Instant) -> bool {
        self.heard + self.interval * SUSPECT_AFTER / 2 <= now
    }

    /// It is not judged before another interval has passed.
    pub(super) fn spare(&mut self, now: Instant) {
        let misses = self.interval * (limits::HEARTBEAT_MISSES - 1);
        self.heard = self.heard.max(now.checked_sub(misses).unwrap_or(now));
    }

    /// HELLO is said now.
    pub(super) fn hailed(&mut self, now: Instant) {
        self.beaten = now;
    }

    /// Appends a message of this session without content.
    pub(super) fn say(
        &self,
        kind: Kind,
        correlation: u64,
        metadata: Bytes,
        actions: &mut Vec<Action>,
    ) {
        self.send(
            Message::new(RoutingHeader {
                correlation,
                ..RoutingHeader::new(kind)
            })
            .with_metadata(metadata),
            actions,
        );
    }

    /// Appends a message of this session.
    pub(super) fn send(&self, mut message: Message, actions: &mut Vec<Action>) {
        message.header.epoch = self.epoch;
        message.set_version(self.version);
        actions.push(Action::Send(self.link, message));
    }

    /// How strongly it claims to be home of a flight.
    pub(super) fn claim(&self, flight: scale0_wire::FlightKey) -> u64 {
        home::claim(self.seed, flight)
    }

    /// Appends our next HEARTBEAT, echoing its newest.
    pub(super) fn beat(&mut self, now: Instant, outstanding: usize, actions: &mut Vec<Action>) {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence_at = now;
        self.beaten = now;
        let delay = now.saturating_duration_since(self.echo_at).as_micros();
        let heartbeat = Heartbeat {
            sequence: self.sequence,
            echo: self.echo,
            echo_delay_us: u32::try_from(delay).unwrap_or(u32::MAX),
            outstanding: u32::try_from(outstanding).unwrap_or(u32::MAX),
            ..Heartbeat::default()
        };
        self.say(Kind::Heartbeat, 0, heartbeat.encode(), actions);
    }

    /// It takes nothing new from here on.
    pub(super) fn drains(&mut self) {
        if self.state == State::Live {
            self.state = State::Draining;
        }
    }

    /// Takes in its HEARTBEAT. Returns whether it is to be answered at once: a broker that drains says it behind all else, and
    /// leaves when its echo proves that all of that was read.
    #[must_use]
    pub(super) fn hear(&mut self, now: Instant, heartbeat: Heartbeat) -> bool {
        self.echo = heartbeat.sequence;
        self.echo_at = now;
        self.load = heartbeat.outstanding;
        if heartbeat.echo == self.sequence && self.sequence != 0 {
            let away = now.saturating_duration_since(self.sequence_at);
            self.round_trip =
                away.saturating_sub(Duration::from_micros(u64::from(heartbeat.echo_delay_us)));
        }
        self.state == State::Draining
    }

    pub(super) fn status(&self) -> BrokerStatus {
        let state = match self.state {
            State::Down | State::Resting { .. } | State::Retired => "down",
            State::Greeting => "greeting",
            State::Live => "live",
            State::Draining => "draining",
        };
        BrokerStatus {
            node: self.node.clone(),
            state,
            outstanding: self.outstanding,
            round_trip: self.round_trip,
        }
    }
}
