//! The session with one broker: who it is, how it lives, what may be sent to it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use scale0_wire::flow::{ReceiveWindow, SendWindow};
use scale0_wire::{Heartbeat, VERSION, Welcome, limits};

/// The shortest interval of heartbeats that is agreed to: below it they would be the load they report.
pub(crate) const HEARTBEAT_MIN: Duration = Duration::from_millis(10);

/// Where the session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// No connection. → `Greeting`
    Down,
    /// Connected, but the broker ended the session: HELLO again then. → `Greeting`, `Down`
    Resting { until: Instant },
    /// Connected, and there is nothing to offer. → `Greeting`, `Down`
    Idle,
    /// HELLO was said, then last. → `Open`, `Resting`, `Down`
    Greeting { since: Instant },
    /// WELCOME came. → `Left`, `Resting`, `Down`
    Open,
    /// We said BYE for good.
    Left,
}

#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) state: State,
    /// Its node's name, once it has said it, or another broker has.
    pub(crate) name: Arc<str>,
    /// Whether another broker has named it.
    pub(crate) is_learnt: bool,
    pub(crate) epoch: u64,
    /// Of the protocol, as its WELCOME says.
    pub(crate) version: u8,
    /// Streams of this session by the broker's number for them.
    pub(crate) streams: HashMap<u64, usize>,
    /// How much content may be sent to it.
    pub(crate) send_window: SendWindow,
    pub(crate) receive_window: ReceiveWindow,
    /// Streams that have content to send and wait for the connection, in turn.
    pub(crate) line: VecDeque<usize>,
    /// Whether the transport has no room for more.
    pub(crate) is_full: bool,
    /// The newest grant that it was told of.
    pub(crate) credit_said: u64,
    /// The newest capacity that it was told of.
    pub(crate) capacity_said: u32,
    /// It is not asked for credit again before this.
    pub(crate) reclaim_at: Option<Instant>,
    /// When we asked it for no more, if we did.
    pub(crate) drain_said: Option<Instant>,
    /// When its session is begun anew at the latest, if it is to be.
    pub(crate) renew_by: Option<Instant>,
    pub(crate) heartbeat: Duration,
    heard_at: Option<Instant>,
    beaten_at: Option<Instant>,
    sequence: u32,
    /// The newest of its heartbeats, and when it came.
    echo: Option<(u32, Instant)>,
    round_trip: Duration,
}

impl Broker {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Down,
            name: Arc::from(""),
            is_learnt: false,
            epoch: 0,
            version: VERSION,
            streams: HashMap::new(),
            send_window: SendWindow::new(0),
            receive_window: ReceiveWindow::connection(),
            line: VecDeque::new(),
            is_full: false,
            credit_said: 0,
            capacity_said: 0,
            reclaim_at: None,
            drain_said: None,
            renew_by: None,
            heartbeat: limits::HEARTBEAT,
            heard_at: None,
            beaten_at: None,
            sequence: 0,
            echo: None,
            round_trip: Duration::ZERO,
        }
    }

    /// A session of this epoch begins with HELLO.
    pub(crate) fn greet(&mut self, now: Instant, epoch: u64) {
        *self = Self {
            state: State::Greeting { since: now },
            name: Arc::clone(&self.name),
            is_learnt: self.is_learnt,
            epoch,
            is_full: self.is_full,
            ..Self::new()
        };
    }

    /// The broker has accepted.
    pub(crate) fn open(&mut self, now: Instant, welcome: &Welcome) {
        self.state = State::Open;
        self.version = welcome.version;
        self.name = Arc::from(welcome.node.as_str());
        self.heartbeat = welcome
            .heartbeat
            .clamp(HEARTBEAT_MIN, limits::HEARTBEAT_MAX);
        self.send_window = SendWindow::new(welcome.window);
        self.beaten_at = Some(now);
        self.heard(now);
    }

    pub(crate) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Anything that came from it.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.heard_at = Some(now);
    }

    /// We were away ourselves: what is missed so far is not its fault, but for one interval.
    pub(crate) fn excuse(&mut self, now: Instant) {
        let all_but_one = self.heartbeat * (limits::HEARTBEAT_MISSES - 1);
        self.heard_at = self
            .heard_at
            .max(now.checked_sub(all_but_one).or(Some(now)));
    }

    /// When it counts as dead unless something comes.
    pub(crate) fn silent_at(&self) -> Option<Instant> {
        Some(self.heard_at? + self.heartbeat * limits::HEARTBEAT_MISSES)
    }

    /// When our last HEARTBEAT was said, or WELCOME came.
    pub(crate) const fn beaten_at(&self) -> Option<Instant> {
        self.beaten_at
    }

    /// Takes in its HEARTBEAT, which may tell the round trip.
    pub(crate) fn beaten(&mut self, now: Instant, heartbeat: Heartbeat) {
        self.echo = Some((heartbeat.sequence, now));
        if let Some(sent_at) = self.beaten_at
            && heartbeat.echo == self.sequence
            && heartbeat.echo != 0
        {
            let held = Duration::from_micros(u64::from(heartbeat.echo_delay_us));
            self.round_trip = now.saturating_duration_since(sent_at).saturating_sub(held);
        }
    }

    /// What our next HEARTBEAT says of the connection; the load is the caller's.
    pub(crate) fn beat(&mut self, now: Instant) -> Heartbeat {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        self.beaten_at = Some(now);
        let (echo, came_at) = self.echo.unwrap_or((0, now));
        let held = now.saturating_duration_since(came_at).as_micros();
        Heartbeat {
            sequence: self.sequence,
            echo,
            echo_delay_us: u32::try_from(held).unwrap_or(u32::MAX),
            ..Heartbeat::default()
        }
    }

    /// Content came and has gone into its stream's buffer. The new limit, if one is to be announced.
    pub(crate) fn consume(&mut self, bytes: usize, now: Instant) -> Option<u64> {
        self.receive_window.consume(bytes, now, self.round_trip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::tests::start;

    fn open(now: Instant) -> Broker {
        let mut broker = Broker::new();
        broker.greet(now, 1);
        let welcome = Welcome {
            version: 1,
            node: "fra-1".into(),
            instance: 1,
            site: "fra".into(),
            heartbeat: Duration::from_secs(1),
            window: 10,
        };
        broker.open(now, &welcome);
        broker
    }

    #[test]
    fn the_round_trip_is_without_the_time_the_echo_waited_there() {
        let now = start();
        let mut broker = open(now);
        let ours = broker.beat(now);
        let heartbeat = Heartbeat {
            sequence: 9,
            echo: ours.sequence,
            echo_delay_us: 400_000,
            ..Heartbeat::default()
        };
        broker.beaten(now + Duration::from_millis(410), heartbeat);
        assert_eq!(broker.round_trip, Duration::from_millis(10));

        let next = broker.beat(now + Duration::from_millis(1_000));
        assert_eq!((next.echo, next.echo_delay_us), (9, 590_000));
    }

    #[test]
    fn an_excuse_leaves_one_interval_and_never_shortens_what_is_left() {
        let now = start();
        let mut broker = open(now);
        let later = now + Duration::from_secs(60);
        broker.excuse(later);
        assert_eq!(broker.silent_at(), Some(later + Duration::from_secs(1)));
        broker.heard(later);
        broker.excuse(later);
        assert_eq!(broker.silent_at(), Some(later + Duration::from_secs(3)));
    }
}
