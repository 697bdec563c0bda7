//! The world around the nodes: connections, time, and accidents.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;
use std::time::Duration;

use scale0_broker::{Action, Broker, BrokerConfig, Event, ServiceConfig};
use scale0_transport::{PeerId, Port};
use scale0_wire::Message;

use crate::backend::Backend;
use crate::dialler::{Context, Effect, Tag};
use crate::dice::Dice;
use crate::epoch;
use crate::frontend::{Frontend, is_farewell};
use crate::record::{Outcome, Record};

const BROKERS: usize = 3;
const FRONTENDS: usize = 3;
const SERVICES: &[&str] = &["shop", "cart", "tiny"];

/// What each backend offers, and how many requests it works on: some on fewer than there are brokers.
const BACKENDS: &[(&str, u32)] = &[
    ("shop", 1),
    ("shop", 4),
    ("shop", 16),
    ("cart", 2),
    ("cart", 8),
    ("cart", 64),
    ("tiny", 1),
];

/// The storm, and the calm in which everything must come to its end.
const STORM: Duration = Duration::from_secs(20);
const CALM: Duration = Duration::from_secs(40);

/// More than this under way to one stopped peer, and its broker gives it up.
const UNDER_WAY: usize = 512 * 1024;

pub(crate) struct World {
    now: Duration,
    dice: Dice,
    record: Record,
    events: BinaryHeap<Reverse<(Duration, u64)>>,
    what: BTreeMap<u64, What>,
    sequence: u64,
    brokers: Vec<BrokerNode>,
    nodes: Vec<Node>,
    connections: Vec<Connection>,
    peers: BTreeMap<PeerId, usize>,
    actions: Vec<Action>,
    is_calm: bool,
    failing: u64,
    steps: u64,
    report: Report,
}

struct BrokerNode {
    broker: Option<Broker>,
    incarnation: u64,
    paused: Option<Duration>,
    mailbox: Vec<Event>,
    wakes: Option<Duration>,
    /// It drains, until then.
    drains: Option<Duration>,
}

struct Node {
    kind: Kind,
    incarnation: u64,
    is_alive: bool,
    paused: Option<Duration>,
    mailbox: Vec<ForNode>,
    /// The connection to each broker.
    links: Vec<Option<usize>>,
}

enum Kind {
    Frontend(Frontend),
    Backend(Backend),
}

struct Connection {
    node: usize,
    broker: usize,
    is_alive: bool,
    /// Its broker has left in order: what it has said last still arrives.
    is_left: bool,
    delay: Duration,
    /// Nothing moves until then.
    held: Duration,
    /// Order is kept in both directions.
    latest: [Duration; 2],
    under_way: usize,
}

enum ForNode {
    Up(usize),
    Down(usize),
    Message(usize, Message),
    Timer(Tag),
}

enum What {
    ToBroker {
        connection: usize,
        message: Message,
    },
    ToNode {
        connection: usize,
        message: Message,
    },
    LostAtBroker {
        connection: usize,
    },
    StuckAtBroker {
        connection: usize,
    },
    DownAtNode {
        connection: usize,
    },
    Dial {
        node: usize,
        incarnation: u64,
        broker: usize,
    },
    Timer {
        node: usize,
        incarnation: u64,
        tag: Tag,
    },
    Wake {
        broker: usize,
        incarnation: u64,
    },
    Accident,
    ResumeBroker {
        broker: usize,
        incarnation: u64,
    },
    ResumeNode {
        node: usize,
        incarnation: u64,
    },
    RestartBroker {
        broker: usize,
    },
    RestartNode {
        node: usize,
    },
}

/// What came of one seed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) steps: u64,
    accidents: BTreeMap<&'static str, u64>,
    outcomes: BTreeMap<String, u64>,
    brokers: BTreeMap<&'static str, u64>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut brokers = self.brokers.clone();
        brokers.retain(|_, count| 0 < *count);
        write!(
            f,
            "{} steps\n  accidents {:?}\n  outcomes {:?}\n  brokers {brokers:?}",
            self.steps, self.accidents, self.outcomes
        )
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut world = Self {
            now: Duration::ZERO,
            dice: Dice::new(seed),
            record: Record::default(),
            events: BinaryHeap::new(),
            what: BTreeMap::new(),
            sequence: 0,
            brokers: Vec::new(),
            nodes: Vec::new(),
            connections: Vec::new(),
            peers: BTreeMap::new(),
            actions: Vec::new(),
            is_calm: false,
            // Every third application is a sick one.
            failing: if seed.is_multiple_of(3) { 60 } else { 5 },
            steps: 0,
            report: Report::default(),
        };
        for _ in 0..BROKERS {
            world.brokers.push(BrokerNode {
                broker: None,
                incarnation: 0,
                paused: None,
                mailbox: Vec::new(),
                wakes: None,
                drains: None,
            });
        }
        for broker in 0..BROKERS {
            world.start_broker(broker);
        }
        for node in 0..FRONTENDS + BACKENDS.len() {
            let kind = world.kind(node);
            world.nodes.push(Node {
                kind,
                incarnation: 0,
                is_alive: false,
                paused: None,
                mailbox: Vec::new(),
                links: vec![None; BROKERS],
            });
            world.start_node(node);
        }
        world.after(Duration::from_secs(1), What::Accident);
        world
    }

    /// The storm, the calm, and the judgement.
    pub(crate) fn run(mut self) -> Report {
        self.run_until(STORM);
        self.settle();
        self.run_until(STORM + CALM);
        self.record.check_all_over();
        self.check_quiet();
        self.check_alive();
        self.report.steps = self.steps;
        self.report.outcomes = std::mem::take(&mut self.record.outcomes);
        for broker in 0..BROKERS {
            self.count_broker(broker);
        }
        self.report
    }

    fn run_until(&mut self, end: Duration) {
        while let Some(&Reverse((at, sequence))) = self.events.peek() {
            if end < at {
                break;
            }
            self.events.pop();
            self.now = at;
            self.steps += 1;
            let what = self.what.remove(&sequence).unwrap();
            self.happen(what);
        }
        self.now = end;
    }

    fn at(&mut self, at: Duration, what: What) {
        self.sequence += 1;
        self.events.push(Reverse((at.max(self.now), self.sequence)));
        self.what.insert(self.sequence, what);
    }

    fn after(&mut self, delay: Duration, what: What) {
        self.at(self.now + delay, what);
    }

    fn happen(&mut self, what: What) {
        match what {
            What::ToBroker {
                connection,
                message,
            } => {
                let (broker, node) = self.ends(connection);
                let port = match self.nodes[node].kind {
                    Kind::Frontend(_) => Port::Frontends,
                    Kind::Backend(_) => Port::Backends,
                };
                let state = &self.connections[connection];
                if state.is_alive && !state.is_left {
                    let from = peer(connection);
                    let locality = None;
                    let event = Event::Received {
                        from,
                        port,
                        locality,
                        message: message.into(),
                    };
                    self.tell_broker(broker, event);
                }
            }
            What::ToNode {
                connection,
                message,
            } => {
                let state = &mut self.connections[connection];
                state.under_way -= message.size();
                let (broker, node) = (state.broker, state.node);
                if state.is_alive {
                    self.tell_node(node, ForNode::Message(broker, message));
                }
            }
            What::LostAtBroker { connection } => {
                let (broker, _) = self.ends(connection);
                let peer = peer(connection);
                self.tell_broker(broker, Event::Lost { peer });
            }
            What::StuckAtBroker { connection } => {
                let (broker, _) = self.ends(connection);
                let peer = peer(connection);
                self.tell_broker(broker, Event::Stuck { peer });
            }
            What::DownAtNode { connection } => {
                self.connections[connection].is_alive = false;
                let (broker, node) = self.ends(connection);
                if self.nodes[node].links[broker] == Some(connection) {
                    self.nodes[node].links[broker] = None;
                    self.tell_node(node, ForNode::Down(broker));
                    self.dial(node, broker);
                }
            }
            What::Dial {
                node,
                incarnation,
                broker,
            } => {
                let is_there = self.nodes[node].incarnation == incarnation
                    && self.nodes[node].is_alive
                    && self.nodes[node].links[broker].is_none();
                if !is_there {
                    return;
                }
                if self.brokers[broker].broker.is_none() {
                    return self.dial(node, broker);
                }
                let delay = self.dice.micros(50..3000);
                let connection = self.connections.len();
                self.peers.insert(peer(connection), connection);
                self.connections.push(Connection {
                    node,
                    broker,
                    is_alive: true,
                    is_left: false,
                    delay,
                    held: Duration::ZERO,
                    latest: [Duration::ZERO; 2],
                    under_way: 0,
                });
                self.nodes[node].links[broker] = Some(connection);
                self.tell_node(node, ForNode::Up(broker));
            }
            What::Timer {
                node,
                incarnation,
                tag,
            } => {
                if self.nodes[node].incarnation == incarnation {
                    self.tell_node(node, ForNode::Timer(tag));
                }
            }
            What::Wake {
                broker,
                incarnation,
            } => {
                let state = &mut self.brokers[broker];
                if state.incarnation == incarnation && state.wakes.is_some_and(|at| at <= self.now)
                {
                    state.wakes = None;
                    if state.paused.is_none() {
                        self.step_broker(broker, Event::Tick);
                        self.broker_stepped(broker);
                    }
                }
            }
            What::Accident => {
                if !self.is_calm {
                    self.accident();
                    let delay = self.dice.millis(50..600);
                    self.after(delay, What::Accident);
                }
            }
            What::ResumeBroker {
                broker,
                incarnation,
            } => {
                if self.brokers[broker].incarnation == incarnation {
                    self.resume_broker(broker);
                }
            }
            What::ResumeNode { node, incarnation } => {
                if self.nodes[node].incarnation == incarnation {
                    self.resume_node(node);
                }
            }
            What::RestartBroker { broker } => {
                if self.brokers[broker].broker.is_none() {
                    self.start_broker(broker);
                }
            }
            What::RestartNode { node } => {
                if !self.nodes[node].is_alive {
                    self.start_node(node);
                }
            }
        }
    }

    fn ends(&self, connection: usize) -> (usize, usize) {
        let connection = &self.connections[connection];
        (connection.broker, connection.node)
    }

    // Brokers

    fn start_broker(&mut self, broker: usize) {
        let mut config = BrokerConfig::new(&format!("broker-{broker}"), "fra", self.dice.next(), 7);
        config.queue.requests = 50;
        // Now the one bound binds, now the other: a request is 152 bytes.
        config.queue.bytes = 48 * 152;
        config.limits.queued_bytes = 120 * 152;
        config.limits.bytes_per_peer = 512 * 1024;
        config.limits.waiting_bytes = 768 * 1024;
        config.hold = Duration::from_secs(2);
        config.services = vec![
            ServiceConfig {
                queue: config.queue,
                min_backends: 2,
                ..ServiceConfig::new("shop")
            },
            ServiceConfig {
                queue: config.queue,
                outstanding: Some(24),
                ..ServiceConfig::new("cart")
            },
        ];
        let state = &mut self.brokers[broker];
        state.broker = Some(Broker::new(config, epoch() + self.now));
        state.incarnation += 1;
        state.paused = None;
        state.mailbox.clear();
        state.wakes = None;
        state.drains = None;
    }

    fn tell_broker(&mut self, broker: usize, event: Event) {
        let state = &mut self.brokers[broker];
        if state.paused.is_some() {
            state.mailbox.push(event);
            return;
        }
        self.step_broker(broker, event);
        self.broker_stepped(broker);
    }

    fn step_broker(&mut self, broker: usize, event: Event) {
        let now = epoch() + self.now;
        let Some(core) = &mut self.brokers[broker].broker else {
            return;
        };
        let mut actions = std::mem::take(&mut self.actions);
        core.step(now, event, &mut actions);
        core.audit();
        let is_unread = 0 < core.counters().drains_unread;
        for action in actions.drain(..) {
            if let Action::Send { to, message } = action {
                if is_unread && is_farewell(&message) {
                    self.record.left_unread.insert(message.header.epoch);
                }
                self.send_to_node(to, *message);
            }
        }
        self.actions = actions;
    }

    /// What follows every batch of a broker: its timer, its judgement, its end.
    fn broker_stepped(&mut self, broker: usize) {
        let now = epoch() + self.now;
        let Some(core) = &self.brokers[broker].broker else {
            return;
        };
        if core.is_gone() {
            assert!(
                core.counters().drains_unread == 0
                    || self.brokers[broker]
                        .drains
                        .is_some_and(|until| until <= self.now),
                "a broker left early, and did not know whether that was safe"
            );
            self.count_broker(broker);
            self.leave_broker(broker);
            let delay = self.dice.millis(200..2000);
            return self.after(delay, What::RestartBroker { broker });
        }
        if self.steps.is_multiple_of(64) {
            self.check_broker(core);
        }
        let core = self.brokers[broker].broker.as_ref().unwrap();
        let Some(deadline) = core.deadline() else {
            return;
        };
        let wakes = self.now + deadline.saturating_duration_since(now);
        let state = &mut self.brokers[broker];
        if state.wakes.is_none_or(|at| wakes < at) {
            state.wakes = Some(wakes);
            let incarnation = state.incarnation;
            self.at(
                wakes,
                What::Wake {
                    broker,
                    incarnation,
                },
            );
        }
    }

    fn leave_broker(&mut self, broker: usize) {
        self.brokers[broker].broker = None;
        self.brokers[broker].incarnation += 1;
        self.brokers[broker].mailbox.clear();
        for connection in 0..self.connections.len() {
            let state = &mut self.connections[connection];
            if state.broker == broker && state.is_alive && !state.is_left {
                state.is_left = true;
                let latest = state.latest[1];
                self.at(latest, What::DownAtNode { connection });
            }
        }
    }

    fn crash_broker(&mut self, broker: usize) {
        self.brokers[broker].broker = None;
        self.brokers[broker].incarnation += 1;
        self.brokers[broker].mailbox.clear();
        for connection in 0..self.connections.len() {
            if self.connections[connection].broker == broker {
                self.break_connection(connection);
            }
        }
    }

    fn resume_broker(&mut self, broker: usize) {
        if self.brokers[broker].paused.take().is_none() {
            return;
        }
        let mailbox = std::mem::take(&mut self.brokers[broker].mailbox);
        for (index, event) in mailbox.into_iter().enumerate() {
            // The shell takes in 256 at a time, and then looks at the clock.
            if index % 256 == 255 {
                self.step_broker(broker, Event::Tick);
            }
            self.step_broker(broker, event);
        }
        self.step_broker(broker, Event::Tick);
        self.brokers[broker].wakes = None;
        self.broker_stepped(broker);
    }

    // Nodes

    fn kind(&mut self, node: usize) -> Kind {
        let instance = self.dice.next();
        if node < FRONTENDS {
            let is_slow = node == 0 && !self.is_calm;
            let name = format!("frontend-{node}");
            Kind::Frontend(Frontend::new(name, SERVICES, BROKERS, instance, is_slow))
        } else {
            let (service, capacity) = BACKENDS[node - FRONTENDS];
            let name = format!("backend-{node}");
            Kind::Backend(Backend::new(name, service, capacity, BROKERS, instance))
        }
    }

    fn start_node(&mut self, node: usize) {
        self.nodes[node].kind = self.kind(node);
        let state = &mut self.nodes[node];
        state.is_alive = true;
        state.incarnation += 1;
        state.paused = None;
        state.mailbox.clear();
        state.links = vec![None; BROKERS];
        for broker in 0..BROKERS {
            self.dial(node, broker);
        }
        self.set_timer(node, Duration::from_millis(500), Tag::Beat);
        if node < FRONTENDS && !self.is_calm {
            self.set_timer(node, Duration::from_millis(20), Tag::Arrive);
        }
    }

    fn set_timer(&mut self, node: usize, delay: Duration, tag: Tag) {
        let incarnation = self.nodes[node].incarnation;
        self.after(
            delay,
            What::Timer {
                node,
                incarnation,
                tag,
            },
        );
    }

    fn dial(&mut self, node: usize, broker: usize) {
        let incarnation = self.nodes[node].incarnation;
        let delay = self.dice.millis(1..100);
        self.after(
            delay,
            What::Dial {
                node,
                incarnation,
                broker,
            },
        );
    }

    fn tell_node(&mut self, node: usize, what: ForNode) {
        if !self.nodes[node].is_alive {
            return;
        }
        if self.nodes[node].paused.is_some() {
            self.nodes[node].mailbox.push(what);
            return;
        }
        self.with_node(node, |kind, context| match (kind, what) {
            (Kind::Frontend(it), ForNode::Up(link)) => it.up(link, context),
            (Kind::Frontend(it), ForNode::Down(link)) => it.down(link, context),
            (Kind::Frontend(it), ForNode::Message(link, message)) => {
                it.hear(link, &message, context);
            }
            (Kind::Frontend(it), ForNode::Timer(tag)) => it.timer(tag, context),
            (Kind::Backend(it), ForNode::Up(link)) => it.up(link, context),
            (Kind::Backend(it), ForNode::Down(link)) => it.down(link, context),
            (Kind::Backend(it), ForNode::Message(link, message)) => {
                it.hear(link, &message, context);
            }
            (Kind::Backend(it), ForNode::Timer(tag)) => it.timer(tag, context),
        });
    }

    fn with_node<T>(
        &mut self,
        node: usize,
        act: impl FnOnce(&mut Kind, &mut Context<'_>) -> T,
    ) -> T {
        let mut effects = Vec::new();
        let mut context = Context {
            now: self.now,
            dice: &mut self.dice,
            record: &mut self.record,
            effects: &mut effects,
            is_calm: self.is_calm,
            failing: self.failing,
        };
        let value = act(&mut self.nodes[node].kind, &mut context);
        for effect in effects {
            match effect {
                Effect::Send { link, message } => self.send_to_broker(node, link, message),
                Effect::After { delay, tag } => self.set_timer(node, delay, tag),
                Effect::Hangup { link } => {
                    if let Some(connection) = self.nodes[node].links[link].take() {
                        self.break_connection(connection);
                        self.dial(node, link);
                    }
                }
                Effect::Exit => {
                    self.exit_node(node);
                    let delay = self.dice.millis(100..2000);
                    self.after(delay, What::RestartNode { node });
                }
            }
        }
        value
    }

    /// The process ends in order: what it has said last still arrives.
    fn exit_node(&mut self, node: usize) {
        self.nodes[node].is_alive = false;
        self.nodes[node].incarnation += 1;
        for broker in 0..BROKERS {
            if let Some(connection) = self.nodes[node].links[broker].take() {
                let latest = self.connections[connection].latest[0];
                self.at(latest, What::LostAtBroker { connection });
            }
        }
    }

    fn crash_node(&mut self, node: usize) {
        if let Kind::Frontend(_) = &self.nodes[node].kind {
            self.with_node(node, |kind, context| {
                if let Kind::Frontend(frontend) = kind {
                    frontend.crash(context);
                }
            });
        }
        self.nodes[node].is_alive = false;
        self.nodes[node].incarnation += 1;
        for broker in 0..BROKERS {
            if let Some(connection) = self.nodes[node].links[broker].take() {
                self.break_connection(connection);
            }
        }
    }

    fn resume_node(&mut self, node: usize) {
        let Some(since) = self.nodes[node].paused.take() else {
            return;
        };
        let pause = self.now - since;
        self.with_node(node, |kind, context| match kind {
            Kind::Frontend(frontend) => frontend.resume(context.now),
            Kind::Backend(backend) => backend.resume(pause, context),
        });
        for what in std::mem::take(&mut self.nodes[node].mailbox) {
            self.tell_node(node, what);
        }
        if let Kind::Backend(backend) = &mut self.nodes[node].kind {
            backend.is_awake();
        }
    }

    // Connections

    fn send_to_broker(&mut self, node: usize, broker: usize, message: Message) {
        if let Some(connection) = self.nodes[node].links[broker] {
            let at = self.arrival(connection, 0);
            self.at(
                at,
                What::ToBroker {
                    connection,
                    message,
                },
            );
        }
    }

    fn send_to_node(&mut self, to: PeerId, message: Message) {
        let connection = self.peers[&to];
        let state = &mut self.connections[connection];
        if !state.is_alive {
            return;
        }
        state.under_way += message.size();
        let is_stuck = UNDER_WAY < state.under_way;
        let at = self.arrival(connection, 1);
        self.at(
            at,
            What::ToNode {
                connection,
                message,
            },
        );
        if is_stuck {
            // The shell tells the core in its next round, and the connection is dropped.
            *self.report.accidents.entry("stuck").or_default() += 1;
            self.at(self.now, What::StuckAtBroker { connection });
            self.break_connection(connection);
        }
    }

    fn arrival(&mut self, connection: usize, direction: usize) -> Duration {
        let jitter = self.dice.micros(1..200);
        let state = &mut self.connections[connection];
        let at = (self.now + state.delay + jitter)
            .max(state.held)
            .max(state.latest[direction]);
        state.latest[direction] = at;
        at
    }

    /// What is under way is lost with it; both ends hear of it in a moment.
    fn break_connection(&mut self, connection: usize) {
        if !std::mem::replace(&mut self.connections[connection].is_alive, false) {
            return;
        }
        let delay = self.dice.micros(100..30_000);
        self.after(delay, What::LostAtBroker { connection });
        let delay = self.dice.micros(100..30_000);
        self.after(delay, What::DownAtNode { connection });
    }

    // Accidents

    fn accident(&mut self) {
        let broker = self.dice.index(BROKERS);
        let node = self.dice.index(self.nodes.len());
        let backend = FRONTENDS + self.dice.index(BACKENDS.len());
        let pause = self.dice.millis(200..6000);
        let alive: Vec<usize> = (0..self.connections.len())
            .filter(|&index| self.connections[index].is_alive)
            .collect();
        let connection = self.dice.pick(&alive);
        let name = match (self.dice.number(0..20), connection) {
            (0..=4, Some(connection)) => {
                self.break_connection(connection);
                "cut"
            }
            (5..=8, Some(connection)) => {
                self.connections[connection].held = self.now + pause;
                "held"
            }
            (9, _) if self.brokers[broker].broker.is_some() => {
                self.count_broker(broker);
                self.crash_broker(broker);
                self.after(pause, What::RestartBroker { broker });
                "broker crashed"
            }
            (10..=11, _) if self.nodes[backend].is_alive => {
                self.crash_node(backend);
                self.after(pause, What::RestartNode { node: backend });
                "backend crashed"
            }
            (12, _) if self.nodes[node].is_alive => {
                self.crash_node(node);
                self.after(pause, What::RestartNode { node });
                "node crashed"
            }
            (13..=14, _) if self.nodes[node].is_alive && self.nodes[node].paused.is_none() => {
                self.nodes[node].paused = Some(self.now);
                let incarnation = self.nodes[node].incarnation;
                self.after(pause, What::ResumeNode { node, incarnation });
                "node paused"
            }
            (15..=16, _)
                if self.brokers[broker].broker.is_some()
                    && self.brokers[broker].paused.is_none() =>
            {
                self.brokers[broker].paused = Some(self.now);
                let incarnation = self.brokers[broker].incarnation;
                self.after(
                    pause,
                    What::ResumeBroker {
                        broker,
                        incarnation,
                    },
                );
                "broker paused"
            }
            (17, _) if self.brokers[broker].broker.is_some() => {
                let until = self.now + pause;
                self.brokers[broker].drains.get_or_insert(until);
                let until = epoch() + until;
                self.tell_broker(broker, Event::Drain { until });
                "broker drained"
            }
            (18..=19, _)
                if self.nodes[backend].is_alive && self.nodes[backend].paused.is_none() =>
            {
                self.with_node(backend, |kind, context| {
                    if let Kind::Backend(backend) = kind {
                        backend.drain(context);
                    }
                });
                "backend drained"
            }
            _ => "none",
        };
        *self.report.accidents.entry(name).or_default() += 1;
    }

    /// The storm is over: everybody is there, and nobody asks for more.
    fn settle(&mut self) {
        self.is_calm = true;
        for broker in 0..BROKERS {
            self.resume_broker(broker);
            if self.brokers[broker].broker.is_none() {
                self.start_broker(broker);
            }
        }
        for node in 0..self.nodes.len() {
            self.resume_node(node);
            if !self.nodes[node].is_alive {
                self.start_node(node);
            }
            self.with_node(node, |kind, context| {
                if let Kind::Frontend(frontend) = kind {
                    frontend.settle(context);
                }
            });
        }
    }

    // Judgement

    fn check_broker(&self, core: &Broker) {
        let snapshot = core.snapshot(epoch() + self.now);
        let counters = core.counters();
        // Whatever breaks, nobody here breaks the protocol.
        assert_eq!(counters.quarantines, 0, "an honest peer in quarantine");
        for service in &snapshot.services {
            assert!(
                service.queued - service.queued_repeats - service.queued_flights
                    <= service.queue_limit,
                "a queue is over its bound: {service:?}"
            );
            assert!(
                2 * service.resting <= service.backends,
                "more than half of the backends rest: {service:?}"
            );
        }
        for backend in &snapshot.backends {
            assert!(
                backend.used + backend.returned <= backend.granted,
                "outstanding is over the credit: {backend:?}"
            );
        }
        for frontend in &snapshot.frontends {
            assert!(frontend.session.waiting_bytes <= 600 * 1024, "{frontend:?}");
        }
        let outcomes = counters.answered
            + counters.failed_by_backend
            + counters.cancelled
            + counters.frontend_lost
            + counters.given_up;
        assert_eq!(counters.requests, outcomes + snapshot.open_requests as u64);
        // One in five, and three more for each service in each ten seconds begun.
        let windows = snapshot.uptime_ms / 10_000 + 2;
        let budget = counters.requests / 5 + windows * 3 * SERVICES.len() as u64;
        assert!(
            counters.repeated_after_error <= budget,
            "repeats are over their budget"
        );
        // One in fifty of what came within ten seconds, of which each request is in two at the most.
        assert!(
            counters.hedged <= counters.requests / 25,
            "hedges are over their budget"
        );
    }

    /// Nothing is under way: nobody holds anything.
    fn check_quiet(&mut self) {
        for state in &self.brokers {
            let core = state.broker.as_ref().unwrap();
            self.check_broker(core);
            let snapshot = core.snapshot(epoch() + self.now);
            assert_eq!(
                (
                    snapshot.open_requests,
                    snapshot.abandoned,
                    snapshot.streams,
                    snapshot.kept_bytes
                ),
                (0, 0, 0, 0),
                "{snapshot:?}"
            );
            assert!(
                snapshot
                    .services
                    .iter()
                    .all(|it| it.queued == 0 && it.queued_bytes == 0)
            );
            assert!(snapshot.backends.iter().all(|it| it.outstanding == 0));
            assert_eq!(
                snapshot.backends.len(),
                BACKENDS.len(),
                "not all backends are back"
            );
            assert_eq!(
                snapshot.frontends.len(),
                FRONTENDS,
                "not all frontends are back"
            );
        }
        for node in &self.nodes {
            match &node.kind {
                Kind::Frontend(frontend) => assert_eq!(frontend.open_calls(), 0),
                Kind::Backend(backend) => {
                    let name = backend.name();
                    backend.check_quiet(|link| {
                        let core = self.brokers[link].broker.as_ref()?;
                        let snapshot = core.snapshot(epoch() + self.now);
                        let mut backends = snapshot.backends.iter();
                        let it = backends.find(|it| it.session.node == name)?;
                        Some([it.granted, it.used, it.returned])
                    });
                }
            }
        }
    }

    /// The site still works: whoever asks is answered.
    fn check_alive(&mut self) {
        let mut asked = Vec::new();
        for _ in 0..100 {
            for node in 0..FRONTENDS {
                asked.push(self.ask(node));
            }
            let next = self.now + Duration::from_millis(20);
            self.run_until(next);
        }
        let end = self.now + Duration::from_secs(10);
        self.run_until(end);
        // One by one: what one broker does not use, another one gets.
        for turn in 0..12 {
            asked.push(self.ask(turn % FRONTENDS));
            let next = self.now + Duration::from_secs(8);
            self.run_until(next);
        }
        for id in asked {
            let outcome = self.record.outcome(id);
            assert_eq!(outcome, Some(Outcome::Answered), "request {id} in the calm");
        }
        self.check_quiet();
    }

    fn ask(&mut self, node: usize) -> u64 {
        let patience = Duration::from_secs(7);
        self.with_node(node, |kind, context| match kind {
            Kind::Frontend(frontend) => frontend.ask(true, false, None, patience, context),
            Kind::Backend(_) => unreachable!("the first nodes are frontends"),
        })
    }

    fn count_broker(&mut self, broker: usize) {
        if let Some(core) = &self.brokers[broker].broker {
            for (name, count) in core.counters().iter() {
                *self.report.brokers.entry(name).or_default() += count;
            }
        }
    }
}

fn peer(connection: usize) -> PeerId {
    PeerId::in_process(u32::try_from(connection).unwrap())
}
