//! One backend shared by several brokers, told in virtual time with the brokers' real core: how busy it is kept, and how much is
//! said for it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use scale0_broker::{Broker, BrokerConfig};
use scale0_transport::{PeerId, Port};
use scale0_wire::{
    Flags, Heartbeat, Hello, Kind, Message, RoutingHeader, ServiceId, VERSION, limits,
};

use super::tests::start;
use super::{Action, BrokerId, Event, Output, Session, Settings, Shape, StreamId};
use crate::Counters;

const SECOND: Duration = Duration::from_secs(1);

/// From a broker to the backend or back.
const ONE_WAY: Duration = Duration::from_micros(500);
/// How long a request takes on average; each takes between half and one and a half of it.
const SERVICE: Duration = Duration::from_millis(5);

/// What is asked of one broker.
#[derive(Clone, Copy)]
enum Load {
    /// Nothing.
    Idle,
    /// So many clients, each of which asks again when it has its answer.
    Clients(usize),
    /// So many requests in a second, at random times.
    PerSecond(u32),
}

enum What {
    ToBroker(usize, Message),
    ToBackend(usize, Message),
    Arrival(usize),
    Done(StreamId),
    Beat,
}

struct Site {
    now: Instant,
    brokers: Vec<Broker>,
    loads: Vec<Load>,
    capacity: u32,
    session: Session,
    agenda: BTreeMap<(Instant, u64), What>,
    scheduled: u64,
    dice: u64,
    asked: u64,
    asked_at: HashMap<u64, Instant>,
    running: u32,
    /// When a handler was started last.
    started: Instant,
    /// Requests that a broker has sent and not had its answer of.
    outstanding: u32,
    tally: Tally,
}

/// What was seen since then.
struct Tally {
    since: Instant,
    /// Handlers at work, and requests outstanding, summed over time.
    running: Duration,
    outstanding: Duration,
    /// Requests, for each broker.
    answered: Vec<u64>,
    slowest: Duration,
    /// Messages between the brokers and the backend, by kind.
    said: BTreeMap<&'static str, u64>,
}

impl Tally {
    fn new(since: Instant, brokers: usize) -> Self {
        Self {
            since,
            running: Duration::ZERO,
            outstanding: Duration::ZERO,
            answered: vec![0; brokers],
            slowest: Duration::ZERO,
            said: BTreeMap::new(),
        }
    }
}

/// The head of a request whose content never ends.
const UPLOAD: &[u8] = b"upload";

const FRONTEND: PeerId = PeerId::in_process(1);
const BACKEND: PeerId = PeerId::in_process(2);

impl Site {
    fn new(capacity: u32, loads: &[Load]) -> Self {
        let settings = Settings {
            node: "shop-1".into(),
            instance: 7,
            lane: 0,
            services: vec!["shop".into()],
            capacity,
            max_streams: 10_000,
            heartbeat: limits::HEARTBEAT,
            drain_timeout: SECOND,
            epoch: 1_000,
        };
        let now = start();
        let broker = |index: usize| {
            let name = format!("broker-{index}");
            Broker::new(BrokerConfig::new(&name, "local", index as u64, 42), now)
        };
        let mut site = Self {
            now,
            brokers: (0..loads.len()).map(broker).collect(),
            loads: loads.to_vec(),
            capacity,
            session: Session::new(settings, loads.len(), Arc::new(Counters::default())),
            agenda: BTreeMap::new(),
            scheduled: 0,
            dice: 42,
            asked: 0,
            asked_at: HashMap::new(),
            running: 0,
            started: now,
            outstanding: 0,
            tally: Tally::new(now, loads.len()),
        };
        for broker in 0..loads.len() {
            site.say_hello(broker);
            site.backend(Event::Up(BrokerId(broker)));
        }
        site.schedule(SECOND / 2, What::Beat);
        site.pass(SECOND / 10);
        for (broker, load) in loads.iter().enumerate() {
            match *load {
                Load::Idle => {}
                Load::Clients(clients) => (0..clients).for_each(|_| site.ask(broker)),
                Load::PerSecond(_) => site.arrive(broker),
            }
        }
        // What is counted begins when everything has settled.
        site.pass(SECOND);
        site.tally = Tally::new(site.now, loads.len());
        site
    }

    /// A sum over time, as part of what the capacity would allow.
    fn share_of_capacity(&self, sum: Duration) -> f64 {
        let whole = (self.now - self.tally.since) * self.capacity;
        sum.as_secs_f64() / whole.as_secs_f64()
    }

    fn answered(&self) -> f64 {
        self.tally.answered.iter().sum::<u64>() as f64
    }

    fn said(&self, kind: &str) -> u64 {
        self.tally.said.get(kind).copied().unwrap_or_default()
    }

    /// Messages for each request, but for itself, its answer and heartbeats.
    fn said_for_each(&self) -> f64 {
        let kinds = ["CREDIT", "DEMAND", "RECLAIM", "RETURN"];
        kinds.iter().map(|kind| self.said(kind)).sum::<u64>() as f64 / self.answered()
    }

    fn schedule(&mut self, after: Duration, what: What) {
        self.scheduled += 1;
        self.agenda.insert((self.now + after, self.scheduled), what);
    }

    /// A number below one.
    fn roll(&mut self) -> f64 {
        self.dice = (self.dice)
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 40) as f64 / (1u64 << 24) as f64
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let timers = self.brokers.iter().filter_map(Broker::deadline);
            let timer = timers.chain(self.session.deadline()).min();
            let mail = self.agenda.keys().next().map(|(at, _)| *at);
            let next = timer.into_iter().chain(mail).min().unwrap_or(end);
            let next = next.clamp(self.now, end);
            let passed = next - self.now;
            self.tally.running += passed * self.running;
            self.tally.outstanding += passed * self.outstanding;
            self.now = next;
            if next == end {
                return;
            }
            if mail == Some(next) {
                let (_, what) = self.agenda.pop_first().unwrap();
                self.happen(what);
            } else {
                for broker in 0..self.brokers.len() {
                    self.broker(broker, scale0_broker::Event::Tick);
                }
                self.backend(Event::Tick { cpu_permille: 0 });
            }
        }
    }

    fn happen(&mut self, what: What) {
        match what {
            What::ToBroker(broker, message) => {
                if message.header.kind == Kind::Response {
                    self.outstanding -= 1;
                }
                self.receive(broker, BACKEND, Port::Backends, message);
            }
            What::ToBackend(broker, message) => {
                self.backend(Event::Message(BrokerId(broker), message));
            }
            What::Arrival(broker) => {
                self.ask(broker);
                self.arrive(broker);
            }
            What::Done(stream) => {
                self.running -= 1;
                let head = Output::Head {
                    metadata: Bytes::from_static(b"head"),
                    content: Bytes::new(),
                    shape: Shape::Plain,
                    last: true,
                };
                self.backend(Event::Output(stream, head));
            }
            What::Beat => {
                for broker in 0..self.brokers.len() {
                    let beat = Heartbeat::default().encode();
                    self.say(broker, RoutingHeader::new(Kind::Heartbeat), beat);
                }
                self.schedule(SECOND / 2, What::Beat);
            }
        }
    }

    fn receive(&mut self, broker: usize, from: PeerId, port: Port, message: Message) {
        let event = scale0_broker::Event::Received {
            from,
            port,
            locality: None,
            message: message.into(),
        };
        self.broker(broker, event);
    }

    fn broker(&mut self, index: usize, event: scale0_broker::Event) {
        let mut actions = Vec::new();
        self.brokers[index].step(self.now, event, &mut actions);
        for action in actions {
            let scale0_broker::Action::Send { to, message } = action else {
                continue;
            };
            if to == BACKEND {
                self.count(&message);
                if message.header.kind == Kind::Request {
                    self.outstanding += 1;
                }
                self.schedule(ONE_WAY, What::ToBackend(index, *message));
            } else {
                self.answer(index, &message);
            }
        }
    }

    fn backend(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.session.step(self.now, event, &mut actions);
        let tick = Event::Tick { cpu_permille: 0 };
        self.session.step(self.now, tick, &mut actions);
        for action in actions {
            match action {
                Action::Send(BrokerId(broker), message) => {
                    self.count(&message);
                    self.schedule(ONE_WAY, What::ToBroker(broker, message));
                }
                Action::Serve(call) => {
                    self.running += 1;
                    self.started = self.now;
                    if call.request.metadata == UPLOAD {
                        continue;
                    }
                    let takes = SERVICE.mul_f64(0.5 + self.roll());
                    self.schedule(takes, What::Done(call.stream));
                }
                Action::Redial(_) | Action::Cancel(..) => panic!("nothing goes wrong here"),
                _ => {}
            }
        }
    }

    fn count(&mut self, message: &Message) {
        *self
            .tally
            .said
            .entry(message.header.kind.name())
            .or_default() += 1;
    }

    /// The frontend of this broker says something.
    fn say(&mut self, broker: usize, header: RoutingHeader, metadata: Bytes) {
        let header = RoutingHeader { epoch: 1, ..header };
        let message = Message::new(header).with_metadata(metadata);
        self.receive(broker, FRONTEND, Port::Frontends, message);
    }

    fn say_hello(&mut self, broker: usize) {
        let hello = Hello {
            oldest: VERSION,
            newest: VERSION,
            node: "front".into(),
            instance: 1,
            lane: 0,
            heartbeat: limits::HEARTBEAT,
            window: limits::CONNECTION_WINDOW,
            capacity: 0,
            services: Vec::new(),
        };
        self.say(broker, RoutingHeader::new(Kind::Hello), hello.encode());
    }

    /// Asks for what has content that never comes to its end.
    fn upload(&mut self, broker: usize) {
        let flags = Flags::IDEMPOTENT;
        self.request(broker, "shop", flags, UPLOAD);
    }

    fn ask(&mut self, broker: usize) {
        self.ask_of(broker, "shop");
    }

    fn ask_of(&mut self, broker: usize, service: &str) {
        self.request(
            broker,
            service,
            Flags::FINAL.with(Flags::IDEMPOTENT, true),
            b"head",
        );
    }

    fn request(&mut self, broker: usize, service: &str, flags: Flags, head: &'static [u8]) {
        self.asked += 1;
        self.asked_at.insert(self.asked, self.now);
        let header = RoutingHeader {
            correlation: self.asked,
            flags,
            deadline_ms: 30_000,
            hold_ms: 10_000,
            window: limits::STREAM_WINDOW,
            service: ServiceId::of(service.as_bytes()),
            ..RoutingHeader::new(Kind::Request)
        };
        self.say(broker, header, Bytes::from_static(head));
    }

    fn arrive(&mut self, broker: usize) {
        if let Load::PerSecond(requests) = self.loads[broker] {
            let gap = -(1.0 - self.roll()).ln() / f64::from(requests);
            self.schedule(Duration::from_secs_f64(gap), What::Arrival(broker));
        }
    }

    /// The frontend of this broker hears something.
    fn answer(&mut self, broker: usize, message: &Message) {
        match message.header.kind {
            Kind::Response => {}
            Kind::Welcome | Kind::Heartbeat | Kind::Window => return,
            other => panic!("{other:?}"),
        }
        let since = self.asked_at.remove(&message.header.correlation).unwrap();
        self.tally.answered[broker] += 1;
        self.tally.slowest = self.tally.slowest.max(self.now - since);
        if let Load::Clients(_) = self.loads[broker] {
            self.ask(broker);
        }
    }
}

fn assert_at_least(what: f64, least: f64) {
    assert!(least <= what, "{what}, and not {least} at least");
}

#[test]
fn one_busy_broker_uses_as_much_among_three_idle_ones_as_alone() {
    let mut alone = Site::new(16, &[Load::Clients(32)]);
    let mut among = Site::new(16, &[Load::Clients(32), Load::Idle, Load::Idle, Load::Idle]);
    for site in [&mut alone, &mut among] {
        site.pass(SECOND);
        assert_at_least(site.share_of_capacity(site.tally.outstanding), 0.99);
        // A place is empty while the answer travels, and the next request: 1 ms of 6.
        assert_at_least(site.share_of_capacity(site.tally.running), 0.82);
    }
    assert_at_least(among.answered() / alone.answered(), 0.99);
    assert!(among.said_for_each() < 0.05, "{:?}", among.tally.said);
}

#[test]
fn credit_moves_between_four_busy_brokers_no_more_often_than_demands_come() {
    let mut site = Site::new(16, &[Load::PerSecond(600); 4]);
    site.pass(SECOND);
    assert_at_least(site.answered(), 2_250.0);
    assert!(site.said("RECLAIM") <= 400, "{:?}", site.tally.said);
    assert!(site.said_for_each() < 1.0, "{:?}", site.tally.said);
    assert!(
        site.tally.slowest < SERVICE * 12,
        "{:?}",
        site.tally.slowest
    );
}

#[test]
fn a_broker_with_a_standing_queue_does_not_starve_those_with_a_request_now_and_then() {
    let quiet = Load::PerSecond(30);
    let mut site = Site::new(16, &[Load::Clients(32), quiet, quiet, quiet]);
    site.pass(SECOND);
    assert_at_least(site.share_of_capacity(site.tally.outstanding), 0.95);
    assert!(site.tally.slowest < SERVICE * 8, "{:?}", site.tally.slowest);
}

#[test]
fn one_place_and_three_brokers_with_standing_queues_make_turns_without_a_gap() {
    let mut site = Site::new(1, &[Load::Clients(4); 3]);
    site.pass(SECOND * 3);
    assert_at_least(site.share_of_capacity(site.tally.outstanding), 0.99);
    let fair = site.answered() / 3.0;
    for answered in &site.tally.answered {
        assert_at_least(1.0 - (*answered as f64 / fair - 1.0).abs(), 0.95);
    }
    // Twelve wait for one place.
    let turn = 12 * (SERVICE + 2 * ONE_WAY);
    assert!(
        site.tally.slowest < turn * 3 / 2,
        "{:?}",
        site.tally.slowest
    );
}

#[test]
fn credit_that_lies_at_another_broker_comes_within_two_round_trips() {
    let mut site = Site::new(1, &[Load::Idle; 3]);
    for (broker, ways) in [(0, 1), (0, 1), (2, 5), (2, 1), (1, 5)] {
        let asked = site.now;
        site.ask(broker);
        site.pass(SECOND / 10);
        assert_eq!(site.started - asked, ONE_WAY * ways, "broker {broker}");
    }
}

#[test]
fn a_service_that_is_announced_answers_at_once_at_every_broker_without_another_hello() {
    let mut site = Site::new(4, &[Load::Idle; 2]);
    for broker in 0..2 {
        // It waits for somebody to offer it.
        site.ask_of(broker, "img");
    }
    site.pass(SECOND);
    assert_eq!(site.tally.answered, [0, 0]);
    let services = ["shop", "img"].map(str::to_owned);
    site.backend(Event::Services(services.into()));
    // The announcement, the request, and the longest work of two.
    site.pass(SERVICE * 3 / 2 + 2 * ONE_WAY);
    assert_eq!(site.tally.answered, [1, 1]);
    assert_eq!((site.said("ANNOUNCE"), site.said("HELLO")), (2, 0));
}

#[test]
fn places_that_uploads_may_not_have_are_not_kept_from_other_brokers() {
    let mut site = Site::new(4, &[Load::Idle; 2]);
    for _ in 0..6 {
        site.upload(0);
        site.pass(SECOND / 10);
    }
    assert_eq!(site.running, 3, "a place is left for others");
    let asked = site.now;
    site.ask(1);
    site.pass(SECOND / 10);
    assert_eq!(
        site.started - asked,
        ONE_WAY * 5,
        "as if nobody else waited"
    );
}
