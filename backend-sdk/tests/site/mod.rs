//! A small broker under the test's hand, and a backend that serves for it on a runtime of its own.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use parking_lot::Mutex;
use scale0_backend::{Backend, Body, Counters, Error};
use scale0_transport::{
    Context, Hub, Inbox, Incoming, PeerId, Port, Router, RouterOptions, SendOutcome, ThreadWaker,
};
use scale0_wire::{
    End, Fields, Flags, Heartbeat, Hello, Kind, Message, RequestHead, ResponseHead, RoutingHeader,
    VERSION, Welcome, Window, limits,
};
use tokio::sync::oneshot;
use tower_service::Service;

/// Nothing here takes this long, however loaded the machine is; it only ends tests that hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a backend lives, and how it reaches its broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// On a runtime of several threads, over a socket.
    ThreadAndSocket,
    /// On a runtime of one thread, over a socket.
    TaskAndSocket,
    /// On a runtime of one thread, in the broker's process.
    TaskInProcess,
    /// On a runtime of several threads, in the broker's process.
    ThreadInProcess,
}

pub(crate) const SHAPES: [Shape; 4] = [
    Shape::ThreadAndSocket,
    Shape::TaskAndSocket,
    Shape::TaskInProcess,
    Shape::ThreadInProcess,
];

/// A broker's door.
enum Door {
    Socket {
        router: Vec<Router>,
        context: Context,
        endpoint: String,
    },
    InProcess(Arc<Lobby>),
}

/// Takes in what peers of this process send.
pub(crate) struct Lobby {
    waker: ThreadWaker,
    inner: Mutex<LobbyInner>,
}

#[derive(Default)]
struct LobbyInner {
    came: VecDeque<(PeerId, Incoming)>,
    inboxes: HashMap<PeerId, Arc<Inbox>>,
    next: u32,
}

impl Hub for Lobby {
    fn attach(&self, _: Port, _: u32, inbox: Arc<Inbox>) -> PeerId {
        let mut inner = self.inner.lock();
        inner.next += 1;
        let peer = PeerId::in_process(inner.next);
        inner.inboxes.insert(peer, inbox);
        peer
    }

    fn submit(&self, from: PeerId, message: Message) {
        let mut inner = self.inner.lock();
        inner.came.push_back((from, Incoming::Message(message)));
        drop(inner);
        self.waker.wake();
    }

    fn detach(&self, peer: PeerId) {
        let mut inner = self.inner.lock();
        inner.inboxes.remove(&peer);
        inner.came.push_back((peer, Incoming::Down));
        drop(inner);
        self.waker.wake();
    }
}

/// One broker with one backend.
pub(crate) struct Site {
    door: Door,
    waker: ThreadWaker,
    backend: Option<JoinHandle<Result<(), Error>>>,
    shutdown: Option<oneshot::Sender<()>>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) hello: Option<Hello>,
    peer: Option<PeerId>,
    epoch: u64,
    pub(crate) credit: u64,
    correlation: u64,
    used: u64,
    came: VecDeque<Message>,
}

impl Site {
    /// A backend of this shape serves with this service, and has been welcomed.
    pub(crate) fn new<S, B>(
        shape: Shape,
        configure: impl FnOnce(Backend) -> Backend,
        service: S,
    ) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: std::fmt::Display + Send,
        B: http_body::Body + Send + 'static,
        B::Data: Send,
        B::Error: std::fmt::Display + Send,
    {
        let waker = ThreadWaker::new().unwrap();
        let in_process = matches!(shape, Shape::TaskInProcess | Shape::ThreadInProcess);
        let (tell, shutdown) = oneshot::channel();
        let mut backend = Backend::new("Shop.example").node("shop-1").shutdown(async {
            let _ = shutdown.await;
        });
        let door = if in_process {
            let lobby = Arc::new(Lobby {
                waker: waker.clone(),
                inner: Mutex::default(),
            });
            backend = backend.in_process(lobby.clone(), 0);
            Door::InProcess(lobby)
        } else {
            let context = Context::new(1).unwrap();
            let any = "tcp://127.0.0.1:*".parse().unwrap();
            let router = Router::bind(&context, &any, 0, &RouterOptions::default()).unwrap();
            let endpoint = router.local_endpoint();
            backend = backend.broker(&endpoint);
            Door::Socket {
                router: vec![router],
                context,
                endpoint,
            }
        };
        let backend = configure(backend);
        let counters = backend.counters();
        let serve = std::thread::spawn(move || {
            let mut builder = match shape {
                Shape::ThreadAndSocket | Shape::ThreadInProcess => {
                    let mut builder = tokio::runtime::Builder::new_multi_thread();
                    builder.worker_threads(2);
                    builder
                }
                _ => tokio::runtime::Builder::new_current_thread(),
            };
            let runtime = builder.enable_all().build().unwrap();
            runtime.block_on(backend.serve(service))
        });
        let mut site = Self {
            door,
            waker,
            backend: Some(serve),
            shutdown: Some(tell),
            counters,
            hello: None,
            peer: None,
            epoch: 0,
            credit: 0,
            correlation: 0,
            used: 0,
            came: VecDeque::new(),
        };
        site.until(|site| 0 < site.credit);
        site
    }

    /// A whole GET. Returns its number.
    pub(crate) fn get(&mut self, target: &str) -> u64 {
        self.request("GET", target, Flags::FINAL, b"", limits::STREAM_WINDOW)
    }

    pub(crate) fn request(
        &mut self,
        method: &'static str,
        target: &str,
        flags: Flags,
        content: &'static [u8],
        window: u32,
    ) -> u64 {
        self.correlation += 1;
        self.used += 1;
        let head = RequestHead {
            method: Bytes::from_static(method.as_bytes()),
            secure: false,
            authority: Bytes::from_static(b"shop.example"),
            target: Bytes::copy_from_slice(target.as_bytes()),
            fields: Fields::new([(&b"x-asked"[..], &b"yes"[..])]).unwrap(),
        };
        let header = RoutingHeader {
            flags,
            window,
            deadline_ms: 30_000,
            waiters: 3,
            ..self.header(Kind::Request, self.correlation)
        };
        let message = Message::new(header)
            .with_metadata(head.encode())
            .with_content(Bytes::from_static(content));
        self.send(&message);
        self.correlation
    }

    pub(crate) fn header(&self, kind: Kind, correlation: u64) -> RoutingHeader {
        RoutingHeader {
            correlation,
            epoch: self.epoch,
            ..RoutingHeader::new(kind)
        }
    }

    pub(crate) fn say(&mut self, kind: Kind, correlation: u64, metadata: Bytes) {
        let message = Message::new(self.header(kind, correlation)).with_metadata(metadata);
        self.send(&message);
    }

    pub(crate) fn chunk(&mut self, correlation: u64, content: impl Into<Bytes>) {
        let message =
            Message::new(self.header(Kind::Chunk, correlation)).with_content(content.into());
        self.send(&message);
    }

    pub(crate) fn window(&mut self, correlation: u64, limit: u64) {
        self.say(Kind::Window, correlation, Window(limit).encode());
    }

    /// Takes the next message of this kind and stream, whatever else comes meanwhile.
    pub(crate) fn next(&mut self, kind: Kind, correlation: u64) -> Message {
        let is_it = |it: &Message| it.header.kind == kind && it.header.correlation == correlation;
        self.until(|site| site.came.iter().any(is_it));
        let at = self.came.iter().position(is_it).unwrap();
        self.came.remove(at).unwrap()
    }

    /// Takes the response's head and the content that came with it.
    pub(crate) fn response(&mut self, correlation: u64) -> (ResponseHead, Message) {
        let message = self.next(Kind::Response, correlation);
        (ResponseHead::decode(&message.metadata).unwrap(), message)
    }

    /// Reads a response's content to its end, opening windows as it comes.
    pub(crate) fn content(&mut self, correlation: u64) -> (Vec<u8>, End) {
        let mut content = Vec::new();
        loop {
            let is_it = |it: &Message| {
                it.header.correlation == correlation
                    && matches!(it.header.kind, Kind::Chunk | Kind::End)
            };
            self.until(|site| site.came.iter().any(is_it));
            let at = self.came.iter().position(is_it).unwrap();
            let message = self.came.remove(at).unwrap();
            if message.header.kind == Kind::End {
                return (content, End::decode(&message.metadata).unwrap());
            }
            content.extend_from_slice(&message.content);
            let room = content.len() as u64 + u64::from(limits::STREAM_WINDOW);
            self.window(correlation, room);
            self.window(0, 1 << 40);
        }
    }

    /// How many messages of this kind and stream have come and were not taken.
    pub(crate) fn count(&self, kind: Kind, correlation: u64) -> usize {
        let is_it = |it: &&Message| it.header.kind == kind && it.header.correlation == correlation;
        self.came.iter().filter(is_it).count()
    }

    /// Bytes of content of this stream that came and were not taken.
    pub(crate) fn received(&self, correlation: u64) -> usize {
        let of_it = self
            .came
            .iter()
            .filter(|it| it.header.correlation == correlation);
        of_it.map(|it| it.content.len()).sum()
    }

    /// Asks the backend to shut down as its user would.
    pub(crate) fn shut_down(&mut self) {
        drop(self.shutdown.take());
    }

    /// Waits until it has.
    pub(crate) fn join(&mut self) -> Result<(), Error> {
        self.until(|site| site.backend.as_ref().is_none_or(JoinHandle::is_finished));
        self.backend.take().unwrap().join().unwrap()
    }

    /// The broker's process is gone, with everything it knew, and another is there.
    pub(crate) fn restart_broker(&mut self) {
        match &mut self.door {
            Door::Socket {
                router,
                context,
                endpoint,
            } => {
                router.clear();
                let there = endpoint.parse().unwrap();
                let deadline = now() + PATIENCE;
                // The old socket is closed a moment later than it is dropped.
                loop {
                    match Router::bind(context, &there, 0, &RouterOptions::default()) {
                        Ok(bound) => break router.push(bound),
                        Err(error) => assert!(now() < deadline, "{error}"),
                    }
                    std::thread::yield_now();
                }
            }
            Door::InProcess(lobby) => {
                let inboxes = std::mem::take(&mut lobby.inner.lock().inboxes);
                for inbox in inboxes.into_values() {
                    if let Some(waker) = inbox.close() {
                        waker.wake();
                    }
                }
            }
        }
        self.came.clear();
        (self.peer, self.credit, self.used) = (None, 0, 0);
    }

    /// Goes on until this holds. Whatever comes is taken in, and sessions are welcomed.
    #[track_caller]
    pub(crate) fn until(&mut self, done: impl Fn(&Self) -> bool) {
        let deadline = now() + PATIENCE;
        loop {
            while let Some((peer, incoming)) = self.receive() {
                self.on_incoming(peer, incoming);
            }
            if done(self) {
                return;
            }
            let came: Vec<_> = self.came.iter().map(|it| it.header.kind).collect();
            assert!(now() < deadline, "waited in vain; what came: {came:?}");
            // A tenth of a second: what is waited for may happen elsewhere than here.
            let soon = now() + Duration::from_millis(100);
            let routers: &[Router] = match &self.door {
                Door::Socket { router, .. } => router,
                Door::InProcess(_) => &[],
            };
            scale0_transport::wait(routers, &self.waker, Some(soon)).unwrap();
        }
    }

    fn receive(&mut self) -> Option<(PeerId, Incoming)> {
        match &mut self.door {
            Door::Socket { router, .. } => router.first_mut()?.receive(),
            Door::InProcess(lobby) => lobby.inner.lock().came.pop_front(),
        }
    }

    fn on_incoming(&mut self, peer: PeerId, incoming: Incoming) {
        let message = match incoming {
            Incoming::Message(message) => message,
            Incoming::Up => return,
            Incoming::Down => {
                self.peer = self.peer.filter(|known| *known != peer);
                return;
            }
            Incoming::Malformed(error) => panic!("malformed: {error}"),
        };
        match message.header.kind {
            Kind::Hello => {
                self.hello = Some(Hello::decode(&message.metadata).unwrap());
                self.peer = Some(peer);
                self.epoch = message.header.epoch;
                let welcome = Welcome {
                    version: VERSION,
                    node: "fra-1".into(),
                    instance: 1,
                    site: "fra".into(),
                    heartbeat: limits::HEARTBEAT,
                    window: limits::CONNECTION_WINDOW,
                };
                self.say(Kind::Welcome, 0, welcome.encode());
            }
            Kind::Heartbeat => {
                let theirs = Heartbeat::decode(&message.metadata).unwrap();
                let ours = Heartbeat {
                    sequence: theirs.sequence,
                    echo: theirs.sequence,
                    ..Heartbeat::default()
                };
                self.say(Kind::Heartbeat, 0, ours.encode());
            }
            _ if message.header.epoch == self.epoch && self.peer == Some(peer) => {
                self.credit = message.header.credit;
                if message.header.kind == Kind::Reclaim {
                    let header = RoutingHeader {
                        credit: self.credit.saturating_sub(self.used),
                        ..self.header(Kind::Return, 0)
                    };
                    self.send(&Message::new(header));
                }
                self.came.push_back(message);
            }
            _ => {}
        }
    }

    fn send(&mut self, message: &Message) {
        let Some(peer) = self.peer else { return };
        match &mut self.door {
            Door::Socket { router, .. } => {
                assert_ne!(router[0].send(peer, message), SendOutcome::Full);
            }
            Door::InProcess(lobby) => {
                let inbox = lobby.inner.lock().inboxes.get(&peer).cloned();
                if let Some(inbox) = inbox
                    && let Ok(Some(waker)) = inbox.push(message.clone())
                {
                    waker.wake();
                }
            }
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.shut_down();
        if !std::thread::panicking() && self.backend.is_some() {
            self.join().unwrap();
        }
    }
}

/// The value of a field, as text.
pub(crate) fn field(head: &ResponseHead, name: &str) -> Option<String> {
    let mut fields = head.fields.iter();
    let found = fields.find(|(it, _)| it == name.as_bytes());
    found.map(|(_, value)| String::from_utf8(value.to_vec()).unwrap())
}

#[expect(clippy::disallowed_methods, reason = "the tests' clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A channel by which a handler tells the test what it does.
pub(crate) fn telling<T>() -> (mpsc::Sender<T>, mpsc::Receiver<T>) {
    mpsc::channel()
}
