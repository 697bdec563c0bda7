//! A site told in a few words: frontends and backends that say what a story makes them say, in virtual time.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use scale0_transport::{PeerId, Port};
use scale0_wire::{
    Bye, Cancel, End, Fields, Flags, Heartbeat, Hello, Kind, Message, Reason, Reject,
    RoutingHeader, ServiceId, VERSION, Welcome, Window, limits,
};

use super::{Action, Broker, BrokerConfig, Event};

/// A moment to count from.
#[expect(clippy::disallowed_methods, reason = "an epoch for tests")]
pub(crate) fn epoch() -> Instant {
    Instant::now()
}

/// One session of one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) port: Port,
    pub(crate) epoch: u64,
    pub(crate) instance: u64,
    pub(crate) locality: Option<u32>,
}

/// A broker, and everybody who talks to it.
pub(crate) struct Site {
    pub(crate) broker: Broker,
    pub(crate) now: Instant,
    actions: Vec<Action>,
    mail: BTreeMap<PeerId, VecDeque<Message>>,
    /// Those who say HEARTBEAT while time passes.
    alive: Vec<Peer>,
    granted: BTreeMap<PeerId, u64>,
    capacities: BTreeMap<PeerId, u32>,
    /// The newest heartbeat that each was sent.
    beats: BTreeMap<PeerId, u32>,
    peers: u32,
}

pub(crate) const SHOP: &str = "shop";

impl Site {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut BrokerConfig)) -> Self {
        let mut config = BrokerConfig::new("broker-1", "fra", 1, 42);
        change(&mut config);
        let now = epoch();
        Self {
            broker: Broker::new(config, now),
            now,
            actions: Vec::new(),
            mail: BTreeMap::new(),
            alive: Vec::new(),
            granted: BTreeMap::new(),
            capacities: BTreeMap::new(),
            beats: BTreeMap::new(),
            peers: 0,
        }
    }

    pub(crate) fn step(&mut self, event: Event) {
        self.broker.step(self.now, event, &mut self.actions);
        self.broker.audit();
        for action in self.actions.drain(..) {
            if let Action::Send { to, message } = action {
                if message.header.kind == Kind::Heartbeat {
                    let heartbeat = Heartbeat::decode(&message.metadata).unwrap();
                    self.beats.insert(to, heartbeat.sequence);
                }
                self.mail.entry(to).or_default().push_back(*message);
            }
        }
    }

    /// A new connection, which has said nothing yet.
    pub(crate) fn peer(&mut self, port: Port) -> Peer {
        self.peers += 1;
        Peer {
            id: PeerId::in_process(self.peers),
            port,
            epoch: 1000 + u64::from(self.peers),
            instance: u64::from(self.peers),
            locality: None,
        }
    }

    pub(crate) fn hello(&mut self, peer: Peer, services: &[&str], capacity: u32) {
        let hello = Hello {
            oldest: VERSION,
            newest: VERSION,
            node: format!("node-{}", peer.instance),
            instance: peer.instance,
            lane: 0,
            heartbeat: limits::HEARTBEAT,
            window: limits::CONNECTION_WINDOW,
            capacity,
            services: services.iter().map(|&name| name.to_owned()).collect(),
        };
        self.capacities.insert(peer.id, capacity);
        let message = Message::new(RoutingHeader::new(Kind::Hello));
        self.say(peer, message.with_metadata(hello.encode()));
    }

    /// A frontend's session.
    pub(crate) fn frontend(&mut self) -> Peer {
        let peer = self.peer(Port::Frontends);
        self.join(peer, &[], 0)
    }

    /// A backend's session, with all its credit granted.
    pub(crate) fn backend(&mut self, service: &str, capacity: u32) -> Peer {
        let peer = self.peer(Port::Backends);
        let peer = self.join(peer, &[service], capacity);
        self.grant(peer, u64::from(capacity));
        peer
    }

    /// A backend's session without any credit yet.
    pub(crate) fn busy_backend(&mut self, service: &str) -> Peer {
        let peer = self.peer(Port::Backends);
        self.join(peer, &[service], 8)
    }

    pub(crate) fn join(&mut self, peer: Peer, services: &[&str], capacity: u32) -> Peer {
        self.hello(peer, services, capacity);
        let welcome = self.hears(peer, Kind::Welcome);
        Welcome::decode(&welcome.metadata).unwrap();
        self.alive.push(peer);
        peer
    }

    /// Grants so much more credit.
    pub(crate) fn grant(&mut self, peer: Peer, more: u64) {
        *self.granted.entry(peer.id).or_default() += more;
        self.say(peer, Message::new(RoutingHeader::new(Kind::Credit)));
    }

    /// `peer` sends this: its epoch and what it has granted are filled in.
    pub(crate) fn say(&mut self, peer: Peer, mut message: Message) {
        message.header.epoch = peer.epoch;
        message.header.credit = self.granted.get(&peer.id).copied().unwrap_or(0);
        self.step(Event::Received {
            from: peer.id,
            port: peer.port,
            locality: peer.locality,
            message: message.into(),
        });
    }

    /// Sends this about a stream.
    pub(crate) fn tell(&mut self, peer: Peer, kind: Kind, correlation: u64, metadata: Bytes) {
        self.say(peer, about(kind, correlation).with_metadata(metadata));
    }

    /// A complete response, with its credit granted anew.
    pub(crate) fn respond(&mut self, peer: Peer, correlation: u64) {
        *self.granted.entry(peer.id).or_default() += 1;
        self.say(peer, response(correlation, Flags::FINAL));
    }

    pub(crate) fn reject(&mut self, peer: Peer, correlation: u64, reason: Reason) {
        let reject = Reject {
            reason,
            retry_after_ms: 0,
            detail: String::new(),
        };
        self.tell(peer, Kind::Reject, correlation, reject.encode());
    }

    pub(crate) fn fail(&mut self, peer: Peer, correlation: u64, reason: Reason) {
        let end = End::Failed {
            reason,
            detail: String::new(),
        };
        *self.granted.entry(peer.id).or_default() += 1;
        self.tell(peer, Kind::End, correlation, end.encode());
    }

    pub(crate) fn complete(&mut self, peer: Peer, correlation: u64) {
        let end = End::Complete(Fields::default());
        self.tell(peer, Kind::End, correlation, end.encode());
    }

    pub(crate) fn cancel(&mut self, peer: Peer, correlation: u64) {
        let cancel = Cancel(Reason::Cancelled);
        self.tell(peer, Kind::Cancel, correlation, cancel.encode());
    }

    pub(crate) fn window(&mut self, peer: Peer, correlation: u64, limit: u64) {
        self.tell(peer, Kind::Window, correlation, Window(limit).encode());
    }

    /// The connection breaks.
    pub(crate) fn cut(&mut self, peer: Peer) {
        self.mute(peer);
        self.step(Event::Lost { peer: peer.id });
    }

    /// From now on it says nothing by itself.
    pub(crate) fn mute(&mut self, peer: Peer) {
        self.alive.retain(|other| *other != peer);
    }

    /// It works on so many requests at a time from now on, and says so.
    pub(crate) fn resize(&mut self, peer: Peer, capacity: u32) {
        self.capacities.insert(peer.id, capacity);
        self.beat(peer);
    }

    /// It says HEARTBEAT, having read all that it was sent.
    pub(crate) fn beat(&mut self, peer: Peer) {
        let heartbeat = Heartbeat {
            capacity: self.capacities[&peer.id],
            echo: self.newest_beat(peer),
            ..Heartbeat::default()
        };
        let message = Message::new(RoutingHeader::new(Kind::Heartbeat));
        self.say(peer, message.with_metadata(heartbeat.encode()));
    }

    /// The number of the newest heartbeat that this peer was sent.
    pub(crate) fn newest_beat(&self, peer: Peer) -> u32 {
        self.beats.get(&peer.id).copied().unwrap_or(0)
    }

    /// Time passes: whoever lives says so, and what is due happens when it is.
    pub(crate) fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            let next = self.broker.deadline().map_or(end, |due| due.min(end));
            self.now = next.max(self.now);
            for peer in self.alive.clone() {
                self.beat(peer);
            }
            self.step(Event::Tick);
        }
    }

    /// The next message to this peer, but for heartbeats.
    pub(crate) fn next(&mut self, peer: Peer) -> Option<Message> {
        let mail = self.mail.get_mut(&peer.id)?;
        loop {
            let message = mail.pop_front()?;
            if message.header.kind != Kind::Heartbeat {
                return Some(message);
            }
        }
    }

    #[track_caller]
    pub(crate) fn hears(&mut self, peer: Peer, kind: Kind) -> Message {
        let message = self.next(peer);
        let heard = message.as_ref().map(|message| message.header.kind);
        assert_eq!(heard, Some(kind), "{message:?}");
        message.unwrap()
    }

    /// The kind of the next message, whichever it is.
    #[track_caller]
    pub(crate) fn hears_any(&mut self, peer: Peer) -> Kind {
        self.next(peer).expect("a message").header.kind
    }

    #[track_caller]
    pub(crate) fn hears_nothing(&mut self, peer: Peer) {
        let message = self.next(peer);
        assert_eq!(message, None);
    }

    /// What this peer was sent last, of all that it has not heard yet.
    pub(crate) fn last_said(&self, peer: Peer) -> Option<Kind> {
        let last = self.mail.get(&peer.id)?.back()?;
        Some(last.header.kind)
    }

    /// The next message is a REQUEST; the correlation id to answer it with.
    #[track_caller]
    pub(crate) fn is_asked(&mut self, backend: Peer) -> u64 {
        self.hears(backend, Kind::Request).header.correlation
    }

    #[track_caller]
    pub(crate) fn is_answered(&mut self, frontend: Peer, correlation: u64) {
        let message = self.hears(frontend, Kind::Response);
        assert_eq!(message.header.correlation, correlation);
    }

    #[track_caller]
    pub(crate) fn is_refused(&mut self, frontend: Peer, correlation: u64, reason: Reason) {
        let message = self.hears(frontend, Kind::Reject);
        assert_eq!(message.header.correlation, correlation);
        assert_eq!(Reject::decode(&message.metadata).unwrap().reason, reason);
    }

    #[track_caller]
    pub(crate) fn is_failed(&mut self, frontend: Peer, correlation: u64, expected: Reason) {
        let message = self.hears(frontend, Kind::End);
        assert_eq!(message.header.correlation, correlation);
        match End::decode(&message.metadata).unwrap() {
            End::Failed { reason, .. } => assert_eq!(reason, expected),
            End::Complete(_) => panic!("{correlation} ended as complete"),
        }
    }

    #[track_caller]
    pub(crate) fn is_dismissed(&mut self, peer: Peer, why: Bye) {
        let message = self.hears(peer, Kind::Bye);
        assert_eq!(Bye::decode(&message.metadata).unwrap(), why);
    }

    pub(crate) fn get(&mut self, frontend: Peer, correlation: u64) {
        self.say(frontend, get(correlation));
    }

    pub(crate) fn post(&mut self, frontend: Peer, correlation: u64) {
        self.say(frontend, post(correlation));
    }
}

pub(crate) fn about(kind: Kind, correlation: u64) -> Message {
    Message::new(RoutingHeader {
        correlation,
        ..RoutingHeader::new(kind)
    })
}

/// A request for the shop that is complete and may run once: 30 s to answer, 10 s to find somebody.
pub(crate) fn post(correlation: u64) -> Message {
    let mut message = about(Kind::Request, correlation);
    message.header.flags = Flags::FINAL;
    message.header.service = ServiceId::of(SHOP.as_bytes());
    message.header.deadline_ms = 30_000;
    message.header.hold_ms = 10_000;
    message.header.window = limits::STREAM_WINDOW;
    message.with_metadata(Bytes::from_static(b"a head"))
}

/// The same, and it may run twice.
pub(crate) fn get(correlation: u64) -> Message {
    let mut message = post(correlation);
    message.header.flags = message.header.flags.with(Flags::IDEMPOTENT, true);
    message
}

/// A request whose content follows.
pub(crate) fn upload(correlation: u64) -> Message {
    let mut message = get(correlation);
    message.header.flags = Flags::IDEMPOTENT;
    message
}

pub(crate) fn response(correlation: u64, flags: Flags) -> Message {
    let mut message = about(Kind::Response, correlation);
    message.header.flags = flags;
    message.with_metadata(Bytes::from_static(b"200"))
}

pub(crate) fn chunk(correlation: u64, length: usize) -> Message {
    about(Kind::Chunk, correlation).with_content(vec![7; length].into())
}
