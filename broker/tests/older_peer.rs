//! Peers that speak version 1 alone, in the very bytes that they say (`wire/vectors/v1`), at a broker of today.

#![expect(
    clippy::unwrap_used,
    reason = "what helpers of tests unwrap is the test's business too"
)]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use scale0_broker::{Action, Broker, BrokerConfig, Event, Neighbour};
use scale0_transport::{PeerId, Port};
use scale0_wire::{
    Announce, Bye, Cancel, End, Flags, Hello, Kind, Message, Reason, Reject, RoutingHeader,
    VERSION, Welcome,
};

#[path = "../../wire/tests/recorded/mod.rs"]
mod recorded;

use recorded::{can_be_read_by_version_1, recorded};

/// What the correlation of all recorded streams is.
const STREAM: u64 = 7;

#[derive(Clone, Copy)]
struct Peer {
    id: PeerId,
    port: Port,
    version: u8,
}

struct Site {
    broker: Broker,
    now: Instant,
    peers: u32,
    mail: VecDeque<(PeerId, Message)>,
}

impl Site {
    #[expect(clippy::disallowed_methods, reason = "an epoch for tests")]
    fn new() -> Self {
        let now = Instant::now();
        let mut config = BrokerConfig::new("broker-1", "fra", 1, 2);
        // Whom it names to others it must not name to these.
        config.others.push(Neighbour {
            node: "broker-2".to_owned(),
            frontends: Some("tcp://127.0.0.1:5701".to_owned()),
            backends: Some("tcp://127.0.0.1:5702".to_owned()),
            key: None,
        });
        Self {
            broker: Broker::new(config, now),
            now,
            peers: 0,
            mail: VecDeque::new(),
        }
    }

    fn step(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.broker.step(self.now, event, &mut actions);
        for action in actions {
            if let Action::Send { to, message } = action {
                self.mail.push_back((to, *message));
            }
        }
    }

    /// A peer of this version that has said HELLO as recorded, and was welcomed.
    fn join(&mut self, port: Port, version: u8) -> Peer {
        self.peers += 1;
        let id = PeerId::in_process(self.peers);
        let peer = Peer { id, port, version };
        let mut hello = recorded(match port {
            Port::Frontends => "hello-frontend",
            Port::Backends | Port::Peers => "hello-backend",
        });
        if version != 1 {
            let older = Hello::decode(&hello.metadata).unwrap();
            let newest = version;
            hello.metadata = Hello { newest, ..older }.encode();
        }
        self.say(peer, hello);
        let welcome = self.hears(peer, Kind::Welcome);
        let welcome = Welcome::decode(&welcome.metadata).unwrap();
        assert_eq!(welcome.version, version);
        if port == Port::Backends {
            // 4096 requests' credit rides on it.
            self.say_recorded(peer, "heartbeat");
        }
        peer
    }

    fn say(&mut self, from: Peer, mut message: Message) {
        message.set_version(from.version);
        self.step(Event::Received {
            from: from.id,
            port: from.port,
            locality: None,
            message: message.into(),
        });
    }

    fn say_recorded(&mut self, from: Peer, name: &str) {
        self.say(from, recorded(name));
    }

    /// Says this of the stream with this number.
    fn say_of(&mut self, from: Peer, name: &str, correlation: u64) {
        let mut message = recorded(name);
        message.header.correlation = correlation;
        self.say(from, message);
    }

    /// The next message of this kind to this peer; those before it are passed over.
    #[track_caller]
    fn hears(&mut self, peer: Peer, kind: Kind) -> Message {
        while let Some(at) = self.mail.iter().position(|(to, _)| *to == peer.id) {
            let (_, message) = self.mail.remove(at).unwrap();
            if peer.version == 1 {
                can_be_read_by_version_1(&message);
            }
            if message.header.kind == kind {
                return message;
            }
        }
        panic!("no {} came", kind.name());
    }

    /// This peer hears what was recorded, but for numbers that are the broker's.
    #[track_caller]
    fn hears_recorded(&mut self, peer: Peer, name: &str) {
        let said = recorded(name);
        let heard = self.hears(peer, said.header.kind);
        assert_eq!(heard.metadata, said.metadata, "{name}");
        assert_eq!(heard.content, said.content, "{name}");
        assert_eq!(heard.header.flags, said.header.flags, "{name}");
        assert_eq!(heard.header.version, peer.version, "{name}");
    }

    /// A recorded request reaches this backend. Returns the stream's number there.
    #[track_caller]
    fn is_asked(&mut self, backend: Peer, name: &str) -> u64 {
        let said = recorded(name);
        let heard = self.hears(backend, Kind::Request);
        assert_eq!(
            (&heard.metadata, &heard.content),
            (&said.metadata, &said.content)
        );
        heard.header.correlation
    }
}

#[test]
fn an_older_frontend_and_an_older_backend_reach_each_other_in_their_own_words() {
    let mut site = Site::new();
    let backend = site.join(Port::Backends, 1);
    let frontend = site.join(Port::Frontends, 1);

    site.say_recorded(frontend, "request-get");
    let stream = site.is_asked(backend, "request-get");
    site.say_of(backend, "interim", stream);
    site.hears_recorded(frontend, "interim");
    site.say_of(backend, "response", stream);
    site.hears_recorded(frontend, "response");

    site.say_recorded(frontend, "request-upload");
    let stream = site.is_asked(backend, "request-upload");
    site.say_of(backend, "window-stream", stream);
    site.hears_recorded(frontend, "window-stream");
    for name in ["update", "chunk", "end-trailers"] {
        site.say_recorded(frontend, name);
        site.hears_recorded(backend, name);
    }
    site.say_of(backend, "response-events", stream);
    site.hears_recorded(frontend, "response-events");
    site.say_of(backend, "chunk", stream);
    site.hears_recorded(frontend, "chunk");
    site.say_of(backend, "end-failed", stream);
    site.hears_recorded(frontend, "end-failed");

    site.say_recorded(frontend, "request-post");
    let stream = site.is_asked(backend, "request-post");
    site.say_of(backend, "reject", stream);
    site.hears(frontend, Kind::Reject);

    site.say_recorded(frontend, "request-get");
    let stream = site.is_asked(backend, "request-get");
    site.say_recorded(frontend, "cancel");
    site.hears_recorded(backend, "cancel");
    site.say_of(backend, "end-failed", stream);

    // What is about the session: none of it is answered with anything that ends it.
    for name in ["reclaim", "credit", "window-connection", "drain"] {
        site.say_recorded(backend, name);
    }
    site.hears(backend, Kind::Return);
    site.say(
        frontend,
        Message::new(RoutingHeader {
            epoch: recorded("drain").header.epoch,
            ..RoutingHeader::new(Kind::Drain)
        }),
    );
    let counters = site.broker.counters();
    assert_eq!((counters.requests, counters.answered), (4, 1));
    assert_eq!(counters.sessions_opened, 2);
    let dropped = counters.iter().filter(|(name, count)| {
        (name.starts_with("dropped") || name.starts_with("sessions_")) && 0 < *count
    });
    assert_eq!(
        dropped.collect::<Vec<_>>(),
        [("sessions_opened", 2)],
        "all of it was understood"
    );

    let until = site.now + Duration::from_secs(1);
    site.step(Event::Drain { until });
    for peer in [frontend, backend] {
        site.hears_recorded(peer, "drain");
    }
    let deadline = site.now + Duration::from_secs(60);
    while !site.broker.is_gone() {
        assert!(site.now < deadline, "it stays");
        site.now = site.broker.deadline().unwrap();
        site.step(Event::Tick);
    }
    for peer in [frontend, backend] {
        let bye = site.hears(peer, Kind::Bye);
        assert_eq!(Bye::decode(&bye.metadata).unwrap(), Bye::Leaving);
    }
}

#[test]
fn an_older_frontend_is_told_a_newer_reason_by_the_nearest_that_it_knows() {
    let mut site = Site::new();
    let backend = site.join(Port::Backends, VERSION);
    let frontend = site.join(Port::Frontends, 1);

    site.say_recorded(frontend, "request-post");
    let stream = site.is_asked(backend, "request-post");
    let reject = Reject {
        reason: Reason::TooLate,
        retry_after_ms: 0,
        detail: String::new(),
    };
    site.say(
        backend,
        about(Kind::Reject, stream).with_metadata(reject.encode()),
    );
    let heard = site.hears(frontend, Kind::Reject);
    assert_eq!(
        Reject::decode(&heard.metadata).unwrap().reason,
        Reason::QueueFull
    );

    site.say_recorded(frontend, "request-post");
    let stream = site.is_asked(backend, "request-post");
    let end = |reason| End::Failed {
        reason,
        detail: "why".into(),
    };
    let metadata = end(Reason::Quarantined).encode();
    site.say(backend, about(Kind::End, stream).with_metadata(metadata));
    let heard = site.hears(frontend, Kind::End);
    assert_eq!(
        End::decode(&heard.metadata).unwrap(),
        end(Reason::Overloaded)
    );
}

#[test]
fn a_newer_frontend_is_served_by_an_older_backend() {
    let mut site = Site::new();
    let backend = site.join(Port::Backends, 1);
    let frontend = site.join(Port::Frontends, VERSION);

    let mut request = recorded("request-get");
    let wishes = Flags(Flags::HEDGE.0 | Flags::EXPLAIN.0);
    request.header.flags = request.header.flags.with(wishes, true);
    request.header.affinity = 5;
    site.say(frontend, request);
    let stream = site.is_asked(backend, "request-get");
    site.say_of(backend, "response", stream);
    site.hears_recorded(frontend, "response");

    site.say_recorded(frontend, "request-get");
    site.is_asked(backend, "request-get");
    let metadata = Cancel(Reason::TooLate).encode();
    site.say(
        frontend,
        about(Kind::Cancel, STREAM).with_metadata(metadata),
    );
    site.hears(backend, Kind::Cancel);
}

#[test]
fn who_agreed_on_the_older_version_is_not_heard_in_the_newer() {
    let mut site = Site::new();
    let mut backend = site.join(Port::Backends, 1);
    let announce = Announce {
        added: vec!["more.example".into()],
        withdrawn: Vec::new(),
    };
    let announce = about(Kind::Announce, 0).with_metadata(announce.encode());
    site.say(backend, announce.clone());
    assert_eq!(site.broker.counters().dropped_unsupported, 1);
    backend.version = VERSION;
    site.say(backend, announce);
    assert_eq!(site.broker.counters().dropped_version, 1);
    assert_eq!(site.broker.snapshot(site.now).services.len(), 2);
}

/// A message about a stream of a recorded session.
fn about(kind: Kind, correlation: u64) -> Message {
    Message::new(RoutingHeader {
        correlation,
        epoch: recorded("drain").header.epoch,
        ..RoutingHeader::new(kind)
    })
}
