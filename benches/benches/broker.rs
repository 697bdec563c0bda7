//! What the broker's core costs per request: REQUEST in and on, RESPONSE back, its credit granted anew. No sockets, virtual
//! time.
//!
//! Each turn answers the request that is under way longest and asks another one, so that a site stays as it was made: with so
//! many backends, so many requests under way, so many in the queue.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, BenchmarkId, Criterion, Throughput};
use scale0_benches::{Session, criterion, epoch, request, request_head, response, response_head};
use scale0_broker::{Action, Broker, BrokerConfig, Event};
use scale0_transport::{PeerId, Port};
use scale0_wire::{Kind, Message, RoutingHeader, ServiceId};

/// From one event to the next: a broker that is as busy as it can be, and nobody who is silent for long.
const STEP: Duration = Duration::from_micros(1);

fn main() {
    let mut criterion = criterion();
    by_backends(&mut criterion);
    by_affinity(&mut criterion);
    by_size(&mut criterion);
    registered(&mut criterion);
    looked_at(&mut criterion);
    by_requests_under_way(&mut criterion);
    queued(&mut criterion);
    refused(&mut criterion);
    criterion.final_summary();
}

/// Placement looks for the least loaded backend.
fn by_backends(criterion: &mut Criterion) {
    let mut group = group(criterion, "broker/backends");
    for backends in [1, 10, 100, 1000] {
        let mut site = Site::new(backends, 8);
        site.ask(1);
        measure(&mut group, backends, &mut site);
        assert_eq!(site.refused, 0);
    }
    group.finish();
}

/// Requests belong together, in a hundred groups: each goes to the backend of its own.
fn by_affinity(criterion: &mut Criterion) {
    let mut group = group(criterion, "broker/affinity");
    for backends in [10, 100, 1000] {
        let mut site = Site::new(backends, 8);
        site.groups = 100;
        site.ask(1);
        measure(&mut group, backends, &mut site);
        assert_eq!(site.refused, 0);
    }
    group.finish();
}

/// How many backends a large site has, and how many services each of them offers.
const SIZES: [(usize, usize); 4] = [(2, 1), (2, 200), (1000, 1), (1000, 200)];

/// Backends times services: what a request costs while there is credit, and while many wait for each service.
fn by_size(criterion: &mut Criterion) {
    for (name, waiting) in [("broker/size/idle", None), ("broker/size/waiting", Some(5))] {
        let mut group = group(criterion, name);
        for (backends, services) in SIZES {
            let mut site = Site::offering(backends, 8, services);
            site.ask(waiting.map_or(1, |waiting| backends * 8 + services * waiting));
            let size = format!("{backends}x{services}");
            group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
                bencher.iter(|| {
                    site.answer();
                    site.ask(1);
                });
            });
            assert_eq!(site.refused, 0);
        }
        group.finish();
    }
}

/// A broker that has just started: everybody comes at once; and everybody is lost at once.
fn registered(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("broker/registered");
    group.sample_size(10);
    for (backends, services) in SIZES {
        let size = format!("{backends}x{services}");
        group.bench_function(BenchmarkId::new("come", &size), |bencher| {
            bencher.iter_with_large_drop(|| Site::offering(backends, 8, services));
        });
        group.bench_function(BenchmarkId::new("go", &size), |bencher| {
            bencher.iter_batched(
                || Site::offering(backends, 8, services),
                |mut site| {
                    site.lose_all();
                    site
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// What an operator's look costs, while which nothing is routed.
fn looked_at(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("broker/look");
    for (backends, services) in SIZES {
        let mut site = Site::offering(backends, 8, services);
        site.ask(backends * 8 + services * 5);
        let size = format!("{backends}x{services}");
        group.bench_function(BenchmarkId::new("snapshot", &size), |bencher| {
            bencher.iter_with_large_drop(|| site.broker.snapshot(site.now));
        });
        group.bench_function(BenchmarkId::new("gauges", &size), |bencher| {
            bencher.iter_with_large_drop(|| site.broker.gauges(site.now));
        });
    }
    group.finish();
}

/// Streams and their timers are found among all others.
fn by_requests_under_way(criterion: &mut Criterion) {
    let mut group = group(criterion, "broker/under_way");
    for requests in [1, 100, 10_000] {
        let mut site = Site::new(10, 2000);
        site.ask(requests);
        measure(&mut group, requests, &mut site);
        assert_eq!(site.refused, 0);
    }
    group.finish();
}

/// All backends are busy: a request goes through the queue, behind so many others.
fn queued(criterion: &mut Criterion) {
    let mut group = group(criterion, "broker/queued");
    for queue in [1, 100, FULL] {
        let mut site = Site::new(10, 1);
        site.ask(10 + queue);
        measure(&mut group, queue, &mut site);
        assert_eq!((site.refused, site.under_way.len()), (0, 10));
    }
    group.finish();
}

/// The queue is full: REQUEST in, REJECT out.
fn refused(criterion: &mut Criterion) {
    let mut group = group(criterion, "broker");
    let mut site = Site::new(10, 1);
    site.ask(10 + FULL);
    group.bench_function("refused", |bencher| bencher.iter(|| site.ask(1)));
    assert_eq!(site.refused, site.correlation - 10 - FULL as u64);
    group.finish();
}

/// The default bound of a service's queue.
const FULL: usize = 1000;

fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(1));
    group
}

fn measure(group: &mut BenchmarkGroup<'_, WallTime>, size: usize, site: &mut Site) {
    group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
        bencher.iter(|| {
            site.answer();
            site.ask(1);
        });
    });
}

/// A broker with one frontend and some backends, which are behind sockets as far as it can tell.
struct Site {
    broker: Broker,
    now: Instant,
    actions: Vec<Action>,
    frontend: Session,
    backends: Vec<Session>,
    /// What backends offer and the frontend asks for in turn.
    services: Vec<ServiceId>,
    request: Message,
    response: Message,
    /// The newest request's.
    correlation: u64,
    /// The REQUESTs that backends have and have not answered, in the order in which they came.
    under_way: VecDeque<RoutingHeader>,
    answered: u64,
    refused: u64,
    /// In how many groups requests belong together; 0: they do not.
    groups: u64,
}

/// The frontend's epoch, and its number. Those of backends are the others from 1 on.
const FRONTEND: u32 = 0;

impl Site {
    fn new(backends: usize, capacity: u32) -> Self {
        Self::offering(backends, capacity, 1)
    }

    /// Each backend offers so many services.
    fn offering(backends: usize, capacity: u32, services: usize) -> Self {
        let names: Vec<_> = (0..services)
            .map(|number| format!("service-{number}.example.com"))
            .collect();
        let now = epoch();
        let mut site = Self {
            broker: Broker::new(BrokerConfig::new("broker-1", "fra", 1, 42), now),
            now,
            actions: Vec::new(),
            frontend: Session::frontend(FRONTEND.into()),
            backends: Vec::new(),
            services: names
                .iter()
                .map(|name| ServiceId::of(name.as_bytes()))
                .collect(),
            request: request(request_head().encode()),
            response: response(response_head().encode()),
            correlation: 0,
            under_way: VecDeque::new(),
            answered: 0,
            refused: 0,
            groups: 0,
        };
        // No request of a benchmark is given up.
        site.request.header.deadline_ms = u32::MAX;
        for message in site.frontend.open() {
            site.step(FRONTEND, Port::Frontends, message);
        }
        for number in (FRONTEND + 1..).take(backends) {
            let mut backend = Session::backend(number.into(), capacity);
            for message in backend.open_offering(&names) {
                site.step(number, Port::Backends, message);
            }
            site.backends.push(backend);
        }
        site
    }

    /// The frontend sends so many requests.
    fn ask(&mut self, count: usize) {
        for _ in 0..count {
            self.correlation += 1;
            let mut request = self.frontend.stamp(self.request.clone());
            request.header.correlation = self.correlation;
            request.header.affinity =
                (self.correlation.checked_rem(self.groups)).map_or(0, |group| group + 1);
            let turn = self.correlation % self.services.len() as u64;
            request.header.service = self.services[usize::try_from(turn).expect("few services")];
            self.step(FRONTEND, Port::Frontends, request);
        }
    }

    /// The request that is under way longest is answered, and with the answer comes credit for another.
    fn answer(&mut self) {
        let asked = self.under_way.pop_front().expect("a request is under way");
        let number = u32::try_from(asked.epoch).expect("epochs are numbers of peers");
        let backend = &mut self.backends[(number - FRONTEND - 1) as usize];
        backend.grant(1);
        let mut response = backend.stamp(self.response.clone());
        response.header.correlation = asked.correlation;
        let answered = self.answered;
        self.step(number, Port::Backends, response);
        assert_eq!(self.answered, answered + 1);
    }

    /// All connections to backends break.
    fn lose_all(&mut self) {
        for number in (FRONTEND + 1..).take(self.backends.len()) {
            let peer = PeerId::in_process(number);
            self.broker
                .step(self.now, Event::Lost { peer }, &mut self.actions);
            self.actions.clear();
        }
    }

    /// One event, and what is due by now.
    fn step(&mut self, number: u32, port: Port, message: Message) {
        let event = Event::Received {
            from: PeerId::in_process(number),
            port,
            locality: None,
            message: message.into(),
        };
        self.broker.step(self.now, event, &mut self.actions);
        self.now += STEP;
        self.broker.step(self.now, Event::Tick, &mut self.actions);
        for action in self.actions.drain(..) {
            let Action::Send { to: _, message } = action else {
                continue;
            };
            match message.header.kind {
                Kind::Request => self.under_way.push_back(message.header),
                Kind::Response => self.answered += 1,
                Kind::Reject => self.refused += 1,
                // WELCOME, HEARTBEAT, DEMAND, WINDOW.
                _ => {}
            }
        }
    }
}
