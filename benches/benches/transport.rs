//! What a message costs on its way: round trips with 64 requests under way, of 200 bytes there and 1.2 KiB back.
//!
//! Each turn takes an answer in and sends another request, so that one turn is one round trip of a link that is kept busy. All
//! ends and what is between them share the machine; each has a libzmq context of its own, as in processes of their own.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use scale0_benches::{Session, criterion, request, response};
use scale0_broker::{BrokerConfig, BrokerHandle, ShellConfig};
use scale0_transport::{
    Context, Endpoint, Hub, Inbox, Incoming, LinkId, LinkOptions, Links, PeerId, Port, Router,
    RouterOptions, SendOutcome, ThreadWaker, wait,
};
use scale0_wire::{Kind, Message, RoutingHeader};

/// Requests under way at a time.
const UNDER_WAY: u32 = 64;

fn main() {
    let mut criterion = criterion();
    links(&mut criterion);
    routing(&mut criterion);
    criterion.final_summary();
}

/// From our dialling side to whoever answers at once, and back.
fn links(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("transport/links");
    group.throughput(Throughput::Elements(1));
    within_the_process(&mut group);
    over_ipc(&mut group);
    group.finish();
}

fn within_the_process(group: &mut BenchmarkGroup<'_, WallTime>) {
    let mut links = Links::new();
    let link = links.attach(Arc::new(Echo::default()), Port::Frontends, 0);
    let mut dialler = Dialler::new(links, link);
    group.bench_function("in_process", |bencher| bencher.iter(|| dialler.turn()));
}

fn over_ipc(group: &mut BenchmarkGroup<'_, WallTime>) {
    let endpoint = ipc("links");
    let options = RouterOptions::default();
    let router = Router::bind(&our_context(), &endpoint, 0, &options).expect("a free address");
    let echo = thread::spawn(move || echo(router));
    let mut links = Links::new();
    let link = links
        .connect(&our_context(), &endpoint, &LinkOptions::default())
        .expect("one more socket");
    let mut dialler = Dialler::new(links, link);
    group.bench_function("ipc", |bencher| bencher.iter(|| dialler.turn()));
    drop(dialler);
    echo.join().expect("it ends with its only peer");
}

/// From one DEALER to another through what routes between them, and back. The ends are the same, and libzmq's own: what
/// differs is what is between.
fn routing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("transport/routing");
    group.throughput(Throughput::Elements(1));
    directly(&mut group);
    through_libzmqs_proxy(&mut group);
    through_the_broker(&mut group);
    group.finish();
}

/// Nothing between: the share of the ends.
fn directly(group: &mut BenchmarkGroup<'_, WallTime>) {
    let endpoint = ipc("direct");
    let worker = Worker::start(|socket| socket.connect(endpoint.address()));
    // The side that is bound has to wait for the other before it can send, and this one may.
    let asker = Asker::start(|socket| socket.bind(endpoint.address()));
    measure(group, "direct", asker);
    worker.stop();
}

fn through_libzmqs_proxy(group: &mut BenchmarkGroup<'_, WallTime>) {
    let (front, back) = (ipc("proxy-front"), ipc("proxy-back"));
    let mut context = zmq::Context::new();
    let askers = socket(&context, zmq::ROUTER, |socket| socket.bind(front.address()));
    let workers = socket(&context, zmq::DEALER, |socket| socket.bind(back.address()));
    let proxy = thread::spawn(move || zmq::proxy(&askers, &workers));
    let worker = Worker::start(|socket| socket.connect(back.address()));
    let asker = Asker::start(|socket| socket.connect(front.address()));
    measure(group, "zmq_proxy", asker);
    worker.stop();
    end(&mut context);
    let ended = proxy.join().expect("it does not panic");
    assert_eq!(ended, Err(zmq::Error::ETERM));
}

fn through_the_broker(group: &mut BenchmarkGroup<'_, WallTime>) {
    let (front, back) = (ipc("broker-front"), ipc("broker-back"));
    let ports = [(Port::Frontends, &front), (Port::Backends, &back)];
    let config = ShellConfig {
        listen: ports.map(|(port, at)| (port, at.clone())).into(),
        options: RouterOptions::default(),
        broker: BrokerConfig::new("broker-1", "fra", 1, 42),
    };
    let broker = BrokerHandle::start(&our_context(), config).expect("free addresses");
    let worker = Worker::start(|socket| socket.connect(back.address()));
    let asker = Asker::start(|socket| socket.connect(front.address()));
    measure(group, "broker", asker);
    worker.stop();
    broker.stop().expect("its core has not panicked");
}

fn measure(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, mut asker: Asker) {
    group.bench_function(name, |bencher| bencher.iter(|| asker.turn()));
}

/// A REQUEST of 200 bytes.
fn asked() -> Message {
    let metadata = Bytes::from_static(&[b'q'; 200 - RoutingHeader::LENGTH]);
    request(metadata)
}

/// A RESPONSE of 1.2 KiB.
fn answered() -> Message {
    let metadata = Bytes::from_static(&[b'a'; 204 - RoutingHeader::LENGTH]);
    response(metadata)
}

/// An address of this process that leaves no file behind.
fn ipc(name: &str) -> Endpoint {
    let address = format!("ipc://@scale0-bench-{}-{name}", std::process::id());
    address.parse().expect("short enough for a socket's name")
}

fn our_context() -> Context {
    Context::new(1).expect("the libzmq of this build is ours")
}

/// Who asks, over one of our links.
struct Dialler {
    links: Links,
    link: LinkId,
    waker: ThreadWaker,
    request: Message,
}

impl Dialler {
    /// Waits for the connection, and puts the first requests under way.
    fn new(links: Links, link: LinkId) -> Self {
        let waker = ThreadWaker::new().expect("one more descriptor");
        let mut dialler = Self {
            links,
            link,
            waker,
            request: asked(),
        };
        assert_eq!(dialler.next(), Incoming::Up);
        for _ in 0..UNDER_WAY {
            dialler.ask();
        }
        dialler
    }

    fn turn(&mut self) -> Incoming {
        let answer = self.next();
        self.ask();
        answer
    }

    fn ask(&mut self) {
        let outcome = self.links.send(self.link, &self.request);
        assert_eq!(outcome, SendOutcome::Sent);
    }

    fn next(&mut self) -> Incoming {
        loop {
            match self.links.receive() {
                Some((_, incoming)) => return incoming,
                None => self.links.wait(&self.waker, None).expect("there is memory"),
            }
        }
    }
}

/// Answers its one peer in this process.
struct Echo {
    response: Message,
    inbox: OnceLock<Arc<Inbox>>,
}

impl Default for Echo {
    fn default() -> Self {
        Self {
            response: answered(),
            inbox: OnceLock::new(),
        }
    }
}

impl Hub for Echo {
    fn attach(&self, _port: Port, _locality: u32, inbox: Arc<Inbox>) -> PeerId {
        self.inbox.get_or_init(|| inbox);
        PeerId::in_process(0)
    }

    fn submit(&self, _from: PeerId, _message: Message) {
        let inbox = self.inbox.get().expect("its peer is attached");
        if let Ok(Some(waker)) = inbox.push(self.response.clone()) {
            waker.wake();
        }
    }

    fn detach(&self, _peer: PeerId) {}
}

/// Answers all its peers, until one of them is gone.
fn echo(mut router: Router) {
    let waker = ThreadWaker::new().expect("one more descriptor");
    let response = answered();
    loop {
        while let Some((peer, incoming)) = router.receive() {
            match incoming {
                Incoming::Message(_) => {
                    // At the end the peer is gone with requests under way; that it is comes behind them.
                    router.send(peer, &response);
                }
                Incoming::Down => return,
                Incoming::Up | Incoming::Malformed(_) => {}
            }
        }
        wait(std::slice::from_ref(&router), &waker, None).expect("there is memory");
    }
}

/// One of libzmq's own sockets, set up as it comes.
fn socket(
    context: &zmq::Context,
    kind: zmq::SocketType,
    open: impl FnOnce(&zmq::Socket) -> zmq::Result<()>,
) -> zmq::Socket {
    let socket = context.socket(kind).expect("one more socket");
    // Nobody waits for what is under way when a benchmark ends.
    socket.set_linger(0).expect("the socket is open");
    open(&socket).expect("the address is free, or is whom to dial");
    socket
}

/// Ends the threads that wait for a context's sockets.
fn end(context: &mut zmq::Context) {
    context.destroy().expect("no signal comes");
}

/// One end: a DEALER that speaks the protocol with whoever is there. Where that is no broker, its session is not heeded.
struct Dealer {
    socket: zmq::Socket,
    session: Session,
    /// What libzmq's proxy has put before the message received last: where its answer is to go.
    envelope: Vec<zmq::Message>,
    scratch: Vec<u8>,
}

impl Dealer {
    fn open(
        context: &zmq::Context,
        session: Session,
        open: impl FnOnce(&zmq::Socket) -> zmq::Result<()>,
    ) -> Self {
        let mut dealer = Self {
            socket: socket(context, zmq::DEALER, open),
            session,
            envelope: Vec::new(),
            scratch: Vec::new(),
        };
        for message in dealer.session.open() {
            dealer.send(message).expect("there is room");
        }
        dealer
    }

    fn send(&mut self, message: Message) -> zmq::Result<()> {
        for frame in self.envelope.drain(..) {
            self.socket.send(frame, zmq::SNDMORE)?;
        }
        self.scratch.clear();
        let content = self.session.stamp(message).encode(&mut self.scratch);
        assert_eq!(content, Ok(None), "it fits into one frame");
        self.socket.send(&self.scratch, 0)
    }

    /// The next message of this kind.
    fn receive(&mut self, kind: Kind) -> zmq::Result<Message> {
        loop {
            self.envelope.clear();
            let mut frame = self.socket.recv_msg(0)?;
            while frame.get_more() {
                self.envelope.push(frame);
                frame = self.socket.recv_msg(0)?;
            }
            let frame = Bytes::copy_from_slice(&frame);
            let message = Message::decode(&frame, None).expect("nobody alters messages");
            if message.header.kind == kind {
                return Ok(message);
            }
        }
    }
}

/// Who asks.
struct Asker {
    dealer: Dealer,
    request: Message,
}

impl Asker {
    fn start(open: impl FnOnce(&zmq::Socket) -> zmq::Result<()>) -> Self {
        let mut asker = Self {
            dealer: Dealer::open(&zmq::Context::new(), Session::frontend(1), open),
            request: asked(),
        };
        for _ in 0..UNDER_WAY {
            asker.ask();
        }
        asker
    }

    fn turn(&mut self) -> Message {
        let answer = self.dealer.receive(Kind::Response);
        self.ask();
        answer.expect("the context lives")
    }

    fn ask(&mut self) {
        self.request.header.correlation += 1;
        let sent = self.dealer.send(self.request.clone());
        sent.expect("the context lives");
    }
}

/// Who answers, on a thread of its own.
struct Worker {
    context: zmq::Context,
    thread: JoinHandle<zmq::Result<Infallible>>,
}

impl Worker {
    fn start(open: impl FnOnce(&zmq::Socket) -> zmq::Result<()>) -> Self {
        let context = zmq::Context::new();
        let dealer = Dealer::open(&context, Session::backend(2, UNDER_WAY), open);
        let thread = thread::spawn(move || answer_all(dealer));
        Self { context, thread }
    }

    fn stop(mut self) {
        end(&mut self.context);
        let ended = self.thread.join().expect("it does not panic");
        assert_eq!(ended, Err(zmq::Error::ETERM));
    }
}

fn answer_all(mut dealer: Dealer) -> zmq::Result<Infallible> {
    let template = answered();
    loop {
        let request = dealer.receive(Kind::Request)?;
        let mut response = template.clone();
        response.header.correlation = request.header.correlation;
        dealer.session.grant(1);
        dealer.send(response)?;
    }
}
