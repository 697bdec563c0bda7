//! A broker in the test's own hand, with the bridge as its backend.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use scale0_backend::{Backend, Body};
use scale0_bridge::Bridge;
use scale0_transport::{Hub, Inbox, PeerId, Port};
use scale0_wire::{
    Fields, Flags, Heartbeat, Kind, Message, RequestHead, RoutingHeader, Welcome, limits,
};
use tokio::sync::mpsc;

/// Runs a story told to a broker that this bridge serves.
pub(crate) async fn with_broker(bridge: Bridge<Body>, story: impl AsyncFnOnce(&mut Broker)) {
    let (sender, came) = mpsc::unbounded_channel();
    let lobby = Arc::new(Lobby {
        sender,
        inbox: Mutex::default(),
    });
    let backend = Backend::new("replaced").node("bridge-1");
    let backend = backend
        .in_process(lobby.clone(), 0)
        .shutdown(std::future::pending());
    let mut broker = Broker {
        lobby,
        came,
        kept: VecDeque::new(),
        epoch: 0,
        correlation: 0,
        credit: 0,
    };
    tokio::select! {
        served = bridge.serve(backend) => panic!("it ended: {served:?}"),
        () = story(&mut broker) => {}
    }
}

struct Lobby {
    sender: mpsc::UnboundedSender<Message>,
    inbox: Mutex<Option<Arc<Inbox>>>,
}

impl Hub for Lobby {
    fn attach(&self, _: Port, _: u32, inbox: Arc<Inbox>) -> PeerId {
        *self.inbox.lock().expect("sound") = Some(inbox);
        PeerId::in_process(1)
    }

    fn submit(&self, _: PeerId, message: Message) {
        // Nobody listens once the story is over.
        let _ = self.sender.send(message);
    }

    fn detach(&self, _: PeerId) {}
}

pub(crate) struct Broker {
    lobby: Arc<Lobby>,
    came: mpsc::UnboundedReceiver<Message>,
    kept: VecDeque<Message>,
    epoch: u64,
    correlation: u64,
    /// What the backend has granted so far.
    pub(crate) credit: u64,
}

impl Broker {
    /// A request whose content, if any, is still to come.
    pub(crate) fn ask(
        &mut self,
        method: &'static str,
        flags: Flags,
        fields: &[(&str, &str)],
    ) -> u64 {
        self.correlation += 1;
        let bytes = fields
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let head = RequestHead {
            method: Bytes::from_static(method.as_bytes()),
            secure: true,
            authority: Bytes::from_static(b"shop.example"),
            target: Bytes::from_static(b"/cart?id=7"),
            fields: Fields::new(bytes).expect("few fields"),
        };
        let header = RoutingHeader {
            flags,
            window: limits::STREAM_WINDOW,
            deadline_ms: 30_000,
            ..self.header(Kind::Request, self.correlation)
        };
        self.send(Message::new(header).with_metadata(head.encode()));
        self.correlation
    }

    pub(crate) fn get(&mut self) -> u64 {
        self.ask("GET", Flags::FINAL, &[])
    }

    pub(crate) fn say(&self, kind: Kind, correlation: u64, metadata: Bytes, content: &'static str) {
        let message = Message::new(self.header(kind, correlation));
        let content = Bytes::from_static(content.as_bytes());
        self.send(message.with_metadata(metadata).with_content(content));
    }

    /// The next message of this kind, whatever else comes meanwhile.
    pub(crate) async fn next(&mut self, kind: Kind) -> Message {
        loop {
            let place = self.kept.iter().position(|kept| kept.header.kind == kind);
            if let Some(message) = place.and_then(|place| self.kept.remove(place)) {
                return message;
            }
            self.receive().await;
        }
    }

    /// Whether such a message has come.
    pub(crate) fn has(&self, kind: Kind) -> bool {
        self.kept.iter().any(|kept| kept.header.kind == kind)
    }

    /// Takes in one message.
    pub(crate) async fn receive(&mut self) {
        let message = self.came.recv().await.expect("the backend is there");
        self.credit = self.credit.max(message.header.credit);
        match message.header.kind {
            Kind::Hello => {
                self.epoch = message.header.epoch;
                let welcome = Welcome {
                    version: scale0_wire::VERSION,
                    node: "fra-1".into(),
                    instance: 1,
                    site: "fra".into(),
                    heartbeat: limits::HEARTBEAT,
                    window: limits::CONNECTION_WINDOW,
                };
                self.say(Kind::Welcome, 0, welcome.encode(), "");
            }
            Kind::Heartbeat => {
                let theirs = Heartbeat::decode(&message.metadata).expect("a heartbeat");
                let ours = Heartbeat {
                    sequence: theirs.sequence,
                    echo: theirs.sequence,
                    ..Heartbeat::default()
                };
                self.say(Kind::Heartbeat, 0, ours.encode(), "");
            }
            _ => self.kept.push_back(message),
        }
    }

    pub(crate) fn header(&self, kind: Kind, correlation: u64) -> RoutingHeader {
        RoutingHeader {
            correlation,
            epoch: self.epoch,
            ..RoutingHeader::new(kind)
        }
    }

    pub(crate) fn send(&self, message: Message) {
        let inbox = self.lobby.inbox.lock().expect("sound").clone();
        let inbox = inbox.expect("the backend is there");
        if let Ok(Some(waker)) = inbox.push(message) {
            waker.wake();
        }
    }
}
