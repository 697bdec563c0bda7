//! The shell with real sockets, and with links of this process.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use bytes::Bytes;
use scale0_broker::{BrokerConfig, BrokerHandle, Counters, ShellConfig, draw};
use scale0_transport::{
    Context, Incoming, LinkId, LinkOptions, Links, Port, RouterOptions, SendOutcome, ThreadWaker,
};
use scale0_wire::{
    Bye, End, Flags, Heartbeat, Hello, Kind, Message, Reason, RoutingHeader, ServiceId, VERSION,
    limits,
};

const SHOP: &str = "shop";

/// A broker that listens on ports that were free.
fn broker(context: &Context, options: RouterOptions) -> BrokerHandle {
    let listen = [Port::Frontends, Port::Backends, Port::Peers]
        .map(|port| (port, "tcp://127.0.0.1:*".parse().unwrap()));
    let config = ShellConfig {
        listen: listen.into(),
        options,
        broker: BrokerConfig::new("broker-1", "fra", draw(), draw()),
    };
    BrokerHandle::start(context, config).unwrap()
}

/// One peer with one link.
struct Peer {
    links: Links,
    link: LinkId,
    waker: ThreadWaker,
    epoch: u64,
}

impl Peer {
    fn dial(context: &Context, broker: &BrokerHandle, port: Port, window: u32) -> Self {
        let endpoints = broker.endpoints();
        let (_, endpoint) = endpoints.iter().find(|(at, _)| *at == port).unwrap();
        let mut links = Links::new();
        let link = links
            .connect(context, &endpoint.parse().unwrap(), &LinkOptions::default())
            .unwrap();
        Self::open(links, link, port, window)
    }

    fn attach(broker: &BrokerHandle, port: Port) -> Self {
        let mut links = Links::new();
        let link = links.attach(broker.hub(), port, 1);
        Self::open(links, link, port, limits::CONNECTION_WINDOW)
    }

    /// Waits for the connection, says HELLO and hears WELCOME.
    fn open(links: Links, link: LinkId, port: Port, window: u32) -> Self {
        let waker = ThreadWaker::new().unwrap();
        let epoch = draw();
        let mut peer = Self {
            links,
            link,
            waker,
            epoch,
        };
        assert_eq!(peer.next(), Incoming::Up);
        let is_backend = port == Port::Backends;
        let hello = Hello {
            oldest: VERSION,
            newest: VERSION,
            node: "node".to_owned(),
            instance: epoch,
            lane: 0,
            heartbeat: limits::HEARTBEAT_MAX,
            window,
            capacity: if is_backend { 8 } else { 0 },
            services: if is_backend {
                vec![SHOP.to_owned()]
            } else {
                Vec::new()
            },
        };
        peer.say(about(Kind::Hello, 0).with_metadata(hello.encode()));
        peer.hears(Kind::Welcome);
        if is_backend {
            let mut credit = about(Kind::Credit, 0);
            credit.header.credit = 8;
            peer.say(credit);
        }
        peer
    }

    fn say(&mut self, mut message: Message) {
        message.header.epoch = self.epoch;
        while self.links.send(self.link, &message) != SendOutcome::Sent {
            self.links.wait(&self.waker, None).unwrap();
        }
    }

    fn next(&mut self) -> Incoming {
        loop {
            match self.links.receive() {
                Some((_, incoming)) => return incoming,
                None => self.links.wait(&self.waker, None).unwrap(),
            }
        }
    }

    /// The next message but for those that come by the clock, or before the credit did.
    fn message(&mut self) -> Message {
        loop {
            match self.next() {
                Incoming::Message(message) if message.header.kind == Kind::Heartbeat => {
                    self.echo(&message);
                }
                Incoming::Message(message) if message.header.kind == Kind::Demand => {}
                Incoming::Message(message) => return message,
                other => panic!("{other:?}"),
            }
        }
    }

    /// The next message is a heartbeat, which it answers.
    #[track_caller]
    fn echoes(&mut self) {
        match self.next() {
            Incoming::Message(message) if message.header.kind == Kind::Heartbeat => {
                self.echo(&message);
            }
            other => panic!("{other:?}"),
        }
    }

    /// Answers a heartbeat.
    fn echo(&mut self, message: &Message) {
        let heartbeat = Heartbeat {
            echo: Heartbeat::decode(&message.metadata).unwrap().sequence,
            capacity: 8,
            ..Heartbeat::default()
        };
        self.say(about(Kind::Heartbeat, 0).with_metadata(heartbeat.encode()));
    }

    #[track_caller]
    fn hears(&mut self, kind: Kind) -> Message {
        let message = self.message();
        assert_eq!(message.header.kind, kind, "{message:?}");
        message
    }
}

/// Waits until the broker has come so far.
fn until(broker: &BrokerHandle, is_so: impl Fn(&Counters) -> bool) {
    while !is_so(&broker.counters().0) {
        std::thread::yield_now();
    }
}

fn about(kind: Kind, correlation: u64) -> Message {
    Message::new(RoutingHeader {
        correlation,
        ..RoutingHeader::new(kind)
    })
}

fn request(correlation: u64, flags: Flags) -> Message {
    let mut message = about(Kind::Request, correlation);
    message.header.flags = flags;
    message.header.service = ServiceId::of(SHOP.as_bytes());
    message.header.deadline_ms = 60_000;
    message.header.hold_ms = 60_000;
    message.with_metadata(Bytes::from_static(b"a head"))
}

fn round_trip(frontend: &mut Peer, backend: &mut Peer, correlation: u64) {
    frontend.say(request(correlation, Flags::FINAL));
    let asked = backend.hears(Kind::Request);
    assert_eq!(&asked.metadata[..], b"a head");
    let mut response = about(Kind::Response, asked.header.correlation);
    response.header.flags = Flags::FINAL;
    response.header.credit = 8 + correlation;
    backend.say(response);
    let response = frontend.hears(Kind::Response);
    assert_eq!(response.header.correlation, correlation);
}

#[test]
fn requests_go_from_end_to_end_over_sockets_and_within_the_process() {
    let context = Context::new(1).unwrap();
    let broker = broker(&context, RouterOptions::default());
    let window = limits::CONNECTION_WINDOW;
    let mut backend = Peer::dial(&context, &broker, Port::Backends, window);
    let mut far = Peer::dial(&context, &broker, Port::Frontends, window);
    let mut near = Peer::attach(&broker, Port::Frontends);
    for correlation in 1..=100 {
        let frontend = if correlation % 2 == 0 {
            &mut far
        } else {
            &mut near
        };
        round_trip(frontend, &mut backend, correlation);
    }
    drop(backend);
    until(&broker, |core| core.sessions_lost == 1);
    let mut local = Peer::attach(&broker, Port::Backends);
    for correlation in 101..=200 {
        let frontend = if correlation % 2 == 0 {
            &mut far
        } else {
            &mut near
        };
        round_trip(frontend, &mut local, correlation - 100);
    }
    let (core, shell) = broker.counters();
    assert_eq!(core.answered, 200);
    assert_eq!((shell.stuck, shell.backstop_saves), (0, 0));
    broker.stop().unwrap();
}

#[test]
fn a_backend_that_is_gone_fails_what_may_not_run_twice_at_once() {
    let context = Context::new(1).unwrap();
    let broker = broker(&context, RouterOptions::default());
    let window = limits::CONNECTION_WINDOW;
    let mut backend = Peer::dial(&context, &broker, Port::Backends, window);
    let mut frontend = Peer::attach(&broker, Port::Frontends);
    frontend.say(request(1, Flags::FINAL));
    backend.hears(Kind::Request);
    drop(backend);
    let end = frontend.hears(Kind::End);
    let failed = End::Failed {
        reason: Reason::BackendLost,
        detail: String::new(),
    };
    assert_eq!(End::decode(&end.metadata).unwrap(), failed);
    let (core, _) = broker.counters();
    assert_eq!(core.sessions_lost, 1);
}

#[test]
fn a_reader_that_rests_loses_nothing_and_gets_all_of_it_in_order() {
    let context = Context::new(1).unwrap();
    let options = RouterOptions {
        send_high_water_mark: 2,
        ..RouterOptions::default()
    };
    let broker = broker(&context, options);
    let window = limits::CONNECTION_WINDOW_MAX;
    let mut backend = Peer::dial(&context, &broker, Port::Backends, window);
    let mut frontend = Peer::dial(&context, &broker, Port::Frontends, window);
    frontend.say(request(1, Flags::FINAL));
    let asked = backend.hears(Kind::Request).header.correlation;
    backend.say(about(Kind::Response, asked));
    // Everything the window allows, in an order that can be told.
    let chunks = limits::CONNECTION_WINDOW_MAX as usize / limits::CONTENT;
    let mut limit = u64::from(limits::CONNECTION_WINDOW);
    let mut sent = 0_u64;
    for number in 0..chunks {
        while limit < sent + limits::CONTENT as u64 {
            let message = backend.hears(Kind::Window);
            limit = scale0_wire::Window::decode(&message.metadata).unwrap().0;
        }
        let mut content = vec![0; limits::CONTENT];
        content[..8].copy_from_slice(&number.to_le_bytes());
        backend.say(about(Kind::Chunk, asked).with_content(content.into()));
        sent += limits::CONTENT as u64;
    }
    // All of it is at the broker or beyond before the reader takes its first message.
    until(&broker, |core| chunks as u64 <= core.received);
    frontend.hears(Kind::Response);
    for number in 0..chunks {
        let chunk = frontend.hears(Kind::Chunk);
        assert_eq!(chunk.content[..8], number.to_le_bytes());
    }
    let (core, shell) = broker.counters();
    assert_eq!((core.failed.sum(), shell.stuck), (0, 0));
}

#[test]
fn a_drained_broker_says_bye_and_its_thread_ends() {
    let context = Context::new(1).unwrap();
    let broker = broker(&context, RouterOptions::default());
    let window = limits::CONNECTION_WINDOW;
    let mut backend = Peer::dial(&context, &broker, Port::Backends, window);
    let mut far = Peer::dial(&context, &broker, Port::Frontends, window);
    let mut near = Peer::attach(&broker, Port::Frontends);
    near.say(request(1, Flags::FINAL));
    let asked = backend.hears(Kind::Request).header.correlation;
    broker.drain(Duration::from_secs(60));
    far.hears(Kind::Drain);
    backend.hears(Kind::Drain);
    let mut response = about(Kind::Response, asked);
    response.header.flags = Flags::FINAL;
    backend.say(response);
    near.hears(Kind::Drain);
    near.hears(Kind::Response);
    near.echoes();
    // One that has not read all keeps it.
    far.say(request(1, Flags::FINAL));
    far.hears(Kind::Reject);
    for peer in [&mut far, &mut near] {
        let bye = peer.hears(Kind::Bye);
        assert_eq!(Bye::decode(&bye.metadata).unwrap(), Bye::Leaving);
        assert_eq!(peer.next(), Incoming::Down);
    }
    broker.join().unwrap();
}

#[test]
fn a_stopped_broker_is_seen_as_gone_within_the_process() {
    let context = Context::new(1).unwrap();
    let broker = broker(&context, RouterOptions::default());
    let mut near = Peer::attach(&broker, Port::Frontends);
    let hub = broker.hub();
    broker.stop().unwrap();
    assert_eq!(near.next(), Incoming::Down);
    let mut links = Links::new();
    let link = links.attach(hub, Port::Frontends, 1);
    let mut late = Peer {
        links,
        link,
        waker: ThreadWaker::new().unwrap(),
        epoch: 1,
    };
    assert_eq!(late.next(), Incoming::Up);
    assert_eq!(late.next(), Incoming::Down);
}
