//! A bound and a dialling side, and waiting for what they have to say.

#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(
    clippy::disallowed_methods,
    reason = "tests have no shell to ask for the time"
)]

use std::time::{Duration, Instant};

use bytes::Bytes;
use scale0_transport::{
    Context, Endpoint, Incoming, LinkId, LinkOptions, Links, PeerId, Router, RouterOptions,
    SendOutcome, ThreadWaker, wait,
};
use scale0_wire::{Kind, Message, RoutingHeader};

/// Only reached when a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Bound {
    pub(crate) router: Router,
    pub(crate) waker: ThreadWaker,
}

impl Bound {
    pub(crate) fn new(context: &Context, endpoint: &Endpoint, options: &RouterOptions) -> Self {
        Self {
            router: Router::bind(context, endpoint, 7, options).unwrap(),
            waker: ThreadWaker::new().unwrap(),
        }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        self.router.local_endpoint().parse().unwrap()
    }

    pub(crate) fn next(&mut self) -> (PeerId, Incoming) {
        self.next_within(PATIENCE).expect("nothing came")
    }

    pub(crate) fn next_within(&mut self, patience: Duration) -> Option<(PeerId, Incoming)> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(event) = self.router.receive() {
                return Some(event);
            }
            if deadline <= Instant::now() {
                return None;
            }
            wait(
                std::slice::from_ref(&self.router),
                &self.waker,
                Some(deadline),
            )
            .unwrap();
        }
    }

    pub(crate) fn next_message(&mut self) -> (PeerId, Message) {
        match self.next() {
            (peer, Incoming::Message(message)) => (peer, message),
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) struct Dialling {
    pub(crate) links: Links,
    pub(crate) waker: ThreadWaker,
}

impl Dialling {
    pub(crate) fn new() -> Self {
        Self {
            links: Links::new(),
            waker: ThreadWaker::new().unwrap(),
        }
    }

    pub(crate) fn connect(&mut self, context: &Context, endpoint: &Endpoint) -> LinkId {
        self.connect_with(context, endpoint, &LinkOptions::default())
    }

    pub(crate) fn connect_with(
        &mut self,
        context: &Context,
        endpoint: &Endpoint,
        options: &LinkOptions,
    ) -> LinkId {
        let link = self.links.connect(context, endpoint, options).unwrap();
        assert_eq!(self.next(), (link, Incoming::Up));
        link
    }

    pub(crate) fn next(&mut self) -> (LinkId, Incoming) {
        self.next_within(PATIENCE).expect("nothing came")
    }

    pub(crate) fn next_within(&mut self, patience: Duration) -> Option<(LinkId, Incoming)> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(event) = self.links.receive() {
                return Some(event);
            }
            if deadline <= Instant::now() {
                return None;
            }
            self.links.wait(&self.waker, Some(deadline)).unwrap();
        }
    }

    pub(crate) fn next_message(&mut self) -> (LinkId, Message) {
        match self.next() {
            (link, Incoming::Message(message)) => (link, message),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn send(&mut self, link: LinkId, message: &Message) {
        assert_eq!(self.links.send(link, message), SendOutcome::Sent);
    }
}

pub(crate) fn context() -> Context {
    Context::new(1).unwrap()
}

pub(crate) fn local() -> Endpoint {
    "tcp://127.0.0.1:*".parse().unwrap()
}

pub(crate) fn message(correlation: u64, content: impl Into<Bytes>) -> Message {
    Message::new(RoutingHeader {
        correlation,
        ..RoutingHeader::new(Kind::Chunk)
    })
    .with_content(content.into())
}

/// So narrow that it is full after a few messages.
pub(crate) fn narrow() -> (RouterOptions, LinkOptions) {
    let router = RouterOptions {
        receive_high_water_mark: 4,
        ..RouterOptions::default()
    };
    let link = LinkOptions {
        send_high_water_mark: 4,
        ..LinkOptions::default()
    };
    (router, link)
}
