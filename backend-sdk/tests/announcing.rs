//! A backend's services as they come and go, at a real broker over a real socket.

#![expect(
    clippy::unwrap_used,
    reason = "what helpers of tests unwrap is the test's business too"
)]

use std::sync::mpsc;

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use scale0_backend::Backend;
use scale0_broker::{BrokerConfig, BrokerHandle, ShellConfig, draw};
use scale0_transport::{
    Context, Incoming, LinkId, Links, Port, RouterOptions, SendOutcome, ThreadWaker,
};
use scale0_wire::{
    Fields, Flags, Hello, Kind, Message, RequestHead, ResponseHead, RoutingHeader, ServiceId,
    VERSION, limits,
};

/// A frontend with one link to the broker, which is in its process.
struct Frontend {
    links: Links,
    link: LinkId,
    waker: ThreadWaker,
    asked: u64,
}

impl Frontend {
    fn new(broker: &BrokerHandle) -> Self {
        let mut links = Links::new();
        let link = links.attach(broker.hub(), Port::Frontends, 0);
        let mut frontend = Self {
            links,
            link,
            waker: ThreadWaker::new().unwrap(),
            asked: 0,
        };
        assert!(matches!(frontend.links.receive(), Some((_, Incoming::Up))));
        let hello = Hello {
            oldest: VERSION,
            newest: VERSION,
            node: "frontend".to_owned(),
            instance: 1,
            lane: 0,
            heartbeat: limits::HEARTBEAT_MAX,
            window: limits::CONNECTION_WINDOW,
            capacity: 0,
            services: Vec::new(),
        };
        frontend.say(RoutingHeader::new(Kind::Hello), hello.encode());
        frontend.hears(Kind::Welcome);
        frontend
    }

    fn say(&mut self, header: RoutingHeader, metadata: Bytes) {
        let message = Message::new(RoutingHeader { epoch: 1, ..header }).with_metadata(metadata);
        assert_eq!(self.links.send(self.link, &message), SendOutcome::Sent);
    }

    fn hears(&mut self, kind: Kind) -> Message {
        loop {
            match self.links.receive() {
                Some((_, Incoming::Message(message))) if message.header.kind == kind => {
                    return message;
                }
                Some(_) => {}
                None => self.links.wait(&self.waker, None).unwrap(),
            }
        }
    }

    /// Asks a service, which need not be there yet.
    fn ask(&mut self, service: &str) {
        self.asked += 1;
        let head = RequestHead {
            method: "GET".into(),
            secure: false,
            authority: Bytes::copy_from_slice(service.as_bytes()),
            target: "/".into(),
            fields: Fields::default(),
        };
        let header = RoutingHeader {
            flags: Flags::FINAL.with(Flags::IDEMPOTENT, true),
            correlation: self.asked,
            service: ServiceId::of(service.as_bytes()),
            deadline_ms: 60_000,
            hold_ms: 60_000,
            window: limits::STREAM_WINDOW,
            ..RoutingHeader::new(Kind::Request)
        };
        self.say(header, head.encode());
    }

    fn is_answered(&mut self) {
        let response = self.hears(Kind::Response);
        assert_eq!(response.header.correlation, self.asked);
        let head = ResponseHead::decode(&response.metadata).unwrap();
        assert_eq!(head.status, 200);
    }
}

#[test]
fn a_service_announced_while_it_serves_is_answered_over_the_connection_it_has() {
    let context = Context::new(1).unwrap();
    let config = ShellConfig {
        listen: vec![(Port::Backends, "tcp://127.0.0.1:*".parse().unwrap())],
        options: RouterOptions::default(),
        broker: BrokerConfig::new("broker-1", "fra", draw(), draw()),
    };
    let broker = BrokerHandle::start(&context, config).unwrap();
    let endpoint = broker.endpoints()[0].1.clone();

    let (is_registered, registered) = mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let backend = Backend::new("shop")
        .broker(endpoint)
        .on_registered(move |_| is_registered.send(()).unwrap())
        .shutdown(async {
            let _ = stopped.await;
        });
    let announcer = backend.announcer();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let app = Router::new().route("/", get(|| async { "hello" }));
    let serving = runtime.spawn(backend.serve(app));
    registered.recv().unwrap();

    let mut frontend = Frontend::new(&broker);
    frontend.ask("img");
    announcer.announce("img").unwrap();
    frontend.is_answered();
    announcer.withdraw("shop");
    announcer.announce("api").unwrap();
    frontend.ask("api");
    frontend.is_answered();

    let services = |broker: &BrokerHandle| -> Vec<String> {
        let snapshot = broker.snapshot();
        let services = snapshot.backends[0].services.iter();
        services.map(|name| (**name).to_owned()).collect()
    };
    assert_eq!(services(&broker), ["img", "api"]);
    assert_eq!(broker.counters().0.sessions_opened, 2, "theirs, and ours");
    assert!(registered.try_recv().is_err(), "it was accepted once");
    stop.send(()).unwrap();
    runtime.block_on(serving).unwrap().unwrap();
}
