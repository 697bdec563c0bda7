//! Sessions with brokers: how they begin and end, and who lives.

use std::time::{Duration, Instant};

use bytes::Bytes;
use scale0_transport::LinkId;
use scale0_wire::{
    Bye, DecodeError, Flags, Heartbeat, Hello, Kind, Message, OLDEST_VERSION, Reason, Redirect,
    RoutingHeader, VERSION, Welcome, limits,
};

use super::broker::State;
use super::lane::{Action, Lane, broker_at};
use super::stream::StreamId;

/// How long a broker that does not allow us a session is left in peace: somebody must change its list first.
const REST_UNTIL_ALLOWED: Duration = limits::HEARTBEAT_MAX;

/// The longest we stay away from a broker because it says so.
const REST_MAX: Duration = Duration::from_mins(10);

impl Lane {
    /// The connection to a broker stands, again.
    pub fn up(&mut self, now: Instant, link: LinkId, actions: &mut Vec<Action>) {
        self.end_session(now, link, actions);
        self.greet(now, link, actions);
    }

    /// The connection to a broker is gone.
    pub fn down(&mut self, now: Instant, link: LinkId, actions: &mut Vec<Action>) {
        self.end_session(now, link, actions);
    }

    /// Tells the brokers that this node takes no new work from its clients; those it meets later hear it in HELLO.
    pub fn drain(&mut self, _now: Instant, actions: &mut Vec<Action>) {
        if std::mem::replace(&mut self.is_draining, true) {
            return;
        }
        for broker in self.brokers.iter().filter(|broker| broker.is_connected()) {
            broker.say(Kind::Drain, 0, Bytes::new(), actions);
        }
    }

    /// Ends every session in order, and every stream; the process is about to end.
    pub fn leave(&mut self, _now: Instant, actions: &mut Vec<Action>) {
        self.has_left = true;
        let open: Vec<StreamId> = self.streams.iter().map(|(_, stream)| stream.id).collect();
        for id in open {
            self.give_up(id, Reason::SessionEnded, actions);
        }
        for broker in &mut self.brokers {
            if broker.is_connected() {
                broker.say(Kind::Bye, 0, Bye::Leaving.encode(), actions);
            }
            broker.state = State::Down;
        }
    }

    pub(super) fn welcome(
        &mut self,
        now: Instant,
        link: LinkId,
        metadata: &Bytes,
        actions: &mut Vec<Action>,
    ) -> Result<(), DecodeError> {
        let welcome = Welcome::decode(metadata)?;
        let Some(broker) = broker_at(&mut self.brokers, link) else {
            return Ok(());
        };
        // HELLO may have been said twice, and is then answered twice.
        if broker.state != State::Greeting {
            return Ok(());
        }
        if !welcome.is_spoken() {
            broker.say(Kind::Bye, 0, Bye::Version.encode(), actions);
            self.counters.dropped_protocol += 1;
            self.end_session(now, link, actions);
            return Ok(());
        }
        broker.welcomed(welcome);
        self.place_waiting(now, actions);
        Ok(())
    }

    pub(super) fn bye(
        &mut self,
        now: Instant,
        link: LinkId,
        metadata: &Bytes,
        actions: &mut Vec<Action>,
    ) -> Result<(), DecodeError> {
        let bye = Bye::decode(metadata)?;
        let was_greeting = broker_at(&mut self.brokers, link)
            .is_some_and(|broker| broker.state == State::Greeting);
        match bye {
            // It does not know what HELLO is to tell it; HELLO is said again in its time, not as fast as this can be answered.
            Bye::UnknownSession | Bye::Silent if was_greeting => {}
            Bye::UnknownSession | Bye::Silent => {
                self.end_session(now, link, actions);
                self.greet(now, link, actions);
            }
            // Named by another, it is one that is dialled already, under another address.
            Bye::Replaced if self.retire_learnt(now, link, actions) => {}
            // It goes, or refuses us: the transport says when there is somebody again.
            Bye::Leaving | Bye::Lost | Bye::Version => self.end_session(now, link, actions),
            Bye::Replaced | Bye::ProtocolError => {
                self.end_session(now, link, actions);
                actions.push(Action::Redial(link));
            }
            // The connection is not at fault, and a new one goes no better.
            Bye::NotAllowed => self.rest(now, link, REST_UNTIL_ALLOWED, actions),
            Bye::Quarantined(milliseconds) => {
                let rest = Duration::from_millis(milliseconds.into()).min(REST_MAX);
                self.rest(now, link, rest, actions);
            }
        }
        Ok(())
    }

    /// The broker wants no session with us for a while.
    fn rest(&mut self, now: Instant, link: LinkId, rest: Duration, actions: &mut Vec<Action>) {
        self.end_session(now, link, actions);
        if let Some(broker) = broker_at(&mut self.brokers, link) {
            let until = now + rest.max(broker.interval);
            broker.state = State::Resting { until };
        }
    }

    /// A broker names others. Those of a node that is dialled already are not news.
    pub(super) fn redirected(
        &mut self,
        link: LinkId,
        metadata: &Bytes,
        actions: &mut Vec<Action>,
    ) -> Result<(), DecodeError> {
        for other in Redirect::decode(metadata)?.brokers {
            if self.brokers.iter().all(|broker| broker.node != other.node) {
                actions.push(Action::Learn(link, other));
            }
        }
        Ok(())
    }

    /// Hangs up on a broker that another one has named. Returns false if it was not.
    fn retire_learnt(&mut self, now: Instant, link: LinkId, actions: &mut Vec<Action>) -> bool {
        if !broker_at(&mut self.brokers, link).is_some_and(|broker| broker.is_learnt) {
            return false;
        }
        self.end_session(now, link, actions);
        if let Some(broker) = broker_at(&mut self.brokers, link) {
            broker.state = State::Retired;
        }
        actions.push(Action::Close(link));
        true
    }

    /// Whether another link leads to the node of this broker, which another one has named.
    fn is_dialled_twice(&self, link: LinkId) -> bool {
        let mut brokers = self.brokers.iter();
        let broker = brokers.find(|broker| broker.link == link && broker.is_learnt);
        broker.is_some_and(|broker| {
            let mut others = self.brokers.iter();
            others.any(|other| {
                other.link != link && other.node == broker.node && other.is_connected()
            })
        })
    }

    pub(super) fn broker_drains(&mut self, link: LinkId) {
        if let Some(broker) = broker_at(&mut self.brokers, link) {
            broker.drains();
        }
    }

    /// A broker's HEARTBEAT came.
    pub(super) fn broker_beats(
        &mut self,
        now: Instant,
        link: LinkId,
        metadata: &Bytes,
        actions: &mut Vec<Action>,
    ) -> Result<(), DecodeError> {
        let heartbeat = Heartbeat::decode(metadata)?;
        let outstanding = self.streams.len();
        if let Some(broker) = broker_at(&mut self.brokers, link)
            && broker.hear(now, heartbeat)
        {
            broker.beat(now, outstanding, actions);
        }
        Ok(())
    }

    /// The broker broke the protocol of the connection: a new one may go better.
    pub(super) fn expel(&mut self, now: Instant, link: LinkId, actions: &mut Vec<Action>) {
        self.part(now, link, Bye::ProtocolError, actions);
    }

    /// Silence of others during a pause of our own proves nothing: they get one more interval.
    pub(super) fn notice_pause(&mut self, now: Instant) {
        if self
            .deadline()
            .is_some_and(|owed| owed + limits::HEARTBEAT < now)
        {
            for broker in &mut self.brokers {
                broker.spare(now);
            }
        }
    }

    /// Heartbeats, and whether this broker lives.
    pub(super) fn tend(&mut self, now: Instant, index: usize, actions: &mut Vec<Action>) {
        let outstanding = self.streams.len();
        let broker = &mut self.brokers[index];
        let link = broker.link;
        if !broker.has_session() {
            if broker.deadline().is_some_and(|until| until <= now) {
                self.greet(now, link, actions);
            }
        } else if broker.silent_at() <= now {
            self.counters.silent += 1;
            self.part(now, link, Bye::Silent, actions);
        } else if broker.beat_at() <= now {
            if broker.state == State::Greeting {
                self.hello(now, link, actions);
            } else {
                broker.beat(now, outstanding, actions);
            }
        }
    }

    /// Ends the session from our side; a new connection may bring a better one.
    fn part(&mut self, now: Instant, link: LinkId, why: Bye, actions: &mut Vec<Action>) {
        if let Some(broker) = broker_at(&mut self.brokers, link) {
            broker.say(Kind::Bye, 0, why.encode(), actions);
        }
        self.end_session(now, link, actions);
        actions.push(Action::Redial(link));
    }

    fn greet(&mut self, now: Instant, link: LinkId, actions: &mut Vec<Action>) {
        if self.has_left {
            return;
        }
        if self.is_dialled_twice(link) {
            self.retire_learnt(now, link, actions);
            return;
        }
        // 0 is no epoch.
        self.next_epoch = self.next_epoch.wrapping_add(1).max(1);
        let epoch = self.next_epoch;
        if let Some(broker) = broker_at(&mut self.brokers, link) {
            broker.greet(now, epoch);
            self.hello(now, link, actions);
        }
    }

    fn hello(&mut self, now: Instant, link: LinkId, actions: &mut Vec<Action>) {
        let hello = Hello {
            oldest: OLDEST_VERSION,
            newest: VERSION,
            node: self.config.node.clone(),
            instance: self.config.instance,
            lane: self.config.lane,
            heartbeat: limits::HEARTBEAT,
            window: limits::CONNECTION_WINDOW,
            capacity: 0,
            services: Vec::new(),
        };
        let flags = Flags(0).with(Flags::DRAINING, self.is_draining);
        if let Some(broker) = broker_at(&mut self.brokers, link) {
            broker.hailed(now);
            let header = RoutingHeader {
                flags,
                ..RoutingHeader::new(Kind::Hello)
            };
            broker.send(Message::new(header).with_metadata(hello.encode()), actions);
        }
    }

    /// The session with this broker is over: what it worked on is repeated elsewhere, or failed.
    fn end_session(&mut self, now: Instant, link: LinkId, actions: &mut Vec<Action>) {
        let Some(broker) = broker_at(&mut self.brokers, link) else {
            return;
        };
        let was_connected = broker.is_connected();
        broker.state = State::Down;
        if !was_connected {
            return;
        }
        self.counters.sessions_lost += 1;
        let mut its: Vec<StreamId> = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.link == Some(link))
            .map(|(_, stream)| stream.id)
            .collect();
        // In the order in which they came.
        its.sort_unstable_by_key(|id| id.0);
        for id in its {
            self.lose(now, id, actions);
        }
    }
}
