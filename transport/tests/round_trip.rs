//! Messages go there and back unchanged, whatever carries them.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use scale0_transport::{
    Context, Endpoint, Hub, Inbox, Incoming, LinkId, PeerId, Port, RouterOptions, SendOutcome,
};
use scale0_wire::{Kind, Message, RoutingHeader, limits};
use support::{Bound, Dialling, context, local, message};

/// All shapes: one frame, two, each side of every size at which something changes.
fn shapes() -> Vec<Message> {
    let mut shapes = vec![Message::new(RoutingHeader::new(Kind::Heartbeat))];
    for metadata in [0, 1, 5_000, limits::METADATA] {
        for content in [0, 1, 1_023, 1_024, 4_000, 4_097, limits::CONTENT] {
            for kind in [Kind::Chunk, Kind::Response] {
                shapes.push(
                    Message::new(RoutingHeader {
                        correlation: shapes.len() as u64,
                        ..RoutingHeader::new(kind)
                    })
                    .with_metadata(Bytes::from(vec![1; metadata]))
                    .with_content(Bytes::from(vec![2; content])),
                );
            }
        }
    }
    shapes
}

/// Sends every shape, receives each twice: there and back.
fn there_and_back(dialling: &mut Dialling, link: LinkId, mut echo: impl FnMut()) {
    for shape in shapes() {
        dialling.send(link, &shape);
        echo();
        assert_eq!(dialling.next_message(), (link, shape));
    }
}

fn over_a_socket(endpoint: &Endpoint) {
    let context = context();
    let mut bound = Bound::new(&context, endpoint, &RouterOptions::default());
    let mut dialling = Dialling::new();
    let link = dialling.connect(&context, &bound.endpoint());
    there_and_back(&mut dialling, link, || {
        let (peer, message) = bound.next_message();
        assert_eq!(bound.router.send(peer, &message), SendOutcome::Sent);
    });
}

#[test]
fn over_tcp() {
    over_a_socket(&local());
}

#[test]
fn over_ipc() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker");
    over_a_socket(&format!("ipc://{}", path.display()).parse().unwrap());
}

/// Answers everything with itself.
#[derive(Default)]
struct Echo {
    inboxes: Mutex<HashMap<PeerId, Arc<Inbox>>>,
}

impl Hub for Echo {
    fn attach(&self, _port: Port, _locality: u32, inbox: Arc<Inbox>) -> PeerId {
        let mut inboxes = self.inboxes.lock().unwrap();
        let peer = PeerId::in_process(u32::try_from(inboxes.len()).unwrap());
        inboxes.insert(peer, inbox);
        peer
    }

    fn submit(&self, from: PeerId, message: Message) {
        let waker = self.inboxes.lock().unwrap()[&from].push(message).unwrap();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn detach(&self, peer: PeerId) {
        self.inboxes.lock().unwrap().remove(&peer);
    }
}

#[test]
fn in_process() {
    let hub = Arc::new(Echo::default());
    let mut dialling = Dialling::new();
    let link = dialling.links.attach(hub, Port::Frontends, 0);
    assert_eq!(dialling.next(), (link, Incoming::Up));
    there_and_back(&mut dialling, link, || {});
}

#[test]
fn a_message_in_process_is_the_same_bytes() {
    let mut dialling = Dialling::new();
    let link = dialling
        .links
        .attach(Arc::new(Echo::default()), Port::Backends, 1);
    assert_eq!(dialling.next(), (link, Incoming::Up));
    let sent = message(1, vec![3; limits::CONTENT]);
    dialling.send(link, &sent);
    let (_, received) = dialling.next_message();
    assert_eq!(received.content.as_ptr(), sent.content.as_ptr());
}

#[test]
fn an_in_process_link_says_down_behind_what_was_in_its_inbox_and_comes_up_when_redialled() {
    let hub = Arc::new(Echo::default());
    let mut dialling = Dialling::new();
    let link = dialling.links.attach(hub.clone(), Port::Frontends, 0);
    assert_eq!(dialling.next(), (link, Incoming::Up));
    let last = message(1, "last");
    dialling.send(link, &last);
    for inbox in hub.inboxes.lock().unwrap().values() {
        if let Some(waker) = inbox.close() {
            waker.wake();
        }
    }
    assert_eq!(dialling.links.send(link, &last), SendOutcome::Down);
    assert_eq!(dialling.next_message(), (link, last));
    assert_eq!(dialling.next(), (link, Incoming::Down));

    dialling.links.redial(link).unwrap();
    assert_eq!(dialling.next(), (link, Incoming::Up));
    dialling.links.close(link);
    assert!(hub.inboxes.lock().unwrap().is_empty(), "detached");
}

#[tokio::test]
async fn on_a_tokio_runtime() {
    let context = Context::new(1).unwrap();
    let mut bound = Bound::new(&context, &local(), &RouterOptions::default());
    let endpoint = bound.endpoint();
    let echo = std::thread::spawn(move || {
        for _ in shapes() {
            let (peer, message) = bound.next_message();
            assert_eq!(bound.router.send(peer, &message), SendOutcome::Sent);
        }
        bound.next()
    });
    let mut links = scale0_transport::Links::new();
    let link = links
        .connect(&context, &endpoint, &Default::default())
        .unwrap();
    assert_eq!(next(&mut links).await, Incoming::Up);
    for shape in shapes() {
        assert_eq!(links.send(link, &shape), SendOutcome::Sent);
        assert_eq!(next(&mut links).await, Incoming::Message(shape));
    }
    assert_eq!(links.counters(), Default::default());
    links.close(link);
    assert!(matches!(echo.join().unwrap(), (_, Incoming::Down)));
}

async fn next(links: &mut scale0_transport::Links) -> Incoming {
    loop {
        if let Some((_, incoming)) = links.receive() {
            return incoming;
        }
        links.ready().await;
    }
}
