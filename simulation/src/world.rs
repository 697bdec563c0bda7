//! The world around the nodes: time, and what happens in it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;
use std::time::{Duration, Instant};

use scale0_broker::{Action, Broker, Event};
use scale0_transport::{Port, PublicKey};
use scale0_wire::{Kind, Message};
use slab::Slab;

use crate::dice::Dice;
use crate::fuzz::Trace;
use crate::network::{Network, Way, peer};
use crate::node::{Node, Tag};
use crate::record::Record;
use crate::site::{self, BROKERS};
use crate::weather::Weather;

/// The calm after the storm, in which everything must come to its end. Whoever was told that it is not allowed rests for half a minute.
const CALM: Duration = Duration::from_secs(45);

/// A site, and the world around it: frontends, brokers and backends, connections, time and accidents.
///
/// All that happens follows from the seed, so it can be had again.
pub struct World {
    pub(crate) now: Duration,
    pub(crate) dice: Dice,
    pub(crate) record: Record,
    pub(crate) weather: Weather,
    events: BinaryHeap<Reverse<(Duration, u64, usize)>>,
    what: Slab<What>,
    sequence: u64,
    pub(crate) brokers: Vec<BrokerProcess>,
    pub(crate) nodes: Vec<Process>,
    pub(crate) network: Network,
    pub(crate) actions: Vec<Action>,
    pub(crate) has_keys: bool,
    pub(crate) is_calm: bool,
    pub(crate) failing: u64,
    pub(crate) steps: u64,
    /// Messages sent, and what they were: two runs of a seed have the same.
    pub(crate) messages: u64,
    trace: u64,
    pub(crate) report: Report,
    /// What happens to the first broker, where that is asked for.
    pub(crate) script: Option<Trace>,
}

/// A broker's process.
#[derive(Default)]
pub(crate) struct BrokerProcess {
    pub(crate) broker: Option<Broker>,
    pub(crate) incarnation: u64,
    pub(crate) paused: Option<Duration>,
    pub(crate) mailbox: Vec<ForBroker>,
    pub(crate) wakes: Option<Duration>,
    /// How far its clock has jumped.
    pub(crate) ahead: Duration,
    /// It drains, until then.
    pub(crate) drains: Option<Duration>,
}

/// A process that dials.
pub(crate) struct Process {
    pub(crate) node: Box<dyn Node>,
    pub(crate) incarnation: u64,
    pub(crate) is_alive: bool,
    pub(crate) paused: Option<Duration>,
    pub(crate) mailbox: Vec<ForNode>,
    pub(crate) wakes: Option<Duration>,
    pub(crate) ahead: Duration,
    pub(crate) links: Vec<Link>,
}

/// One of a process's links.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) broker: usize,
    pub(crate) connection: Option<usize>,
    /// It is not dialled any more.
    pub(crate) is_closed: bool,
    /// What the transport had no room for.
    pub(crate) backlog: Vec<Message>,
}

pub(crate) enum ForBroker {
    Event(Event),
    /// A message, or bytes that are none.
    From(usize, Option<Message>),
}

pub(crate) enum ForNode {
    Up(usize),
    Down(usize),
    Message(usize, Message),
    Writable(usize),
    Timer(Tag),
}

/// What is going to happen. Of a process that was started anew since nothing does.
pub(crate) enum What {
    ToBroker {
        connection: usize,
        message: Option<Message>,
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
    /// Both kernels give a connection up, if its path is still cut.
    GiveUp {
        connection: usize,
    },
    Dial {
        node: usize,
        incarnation: u64,
        link: usize,
    },
    Timer {
        node: usize,
        incarnation: u64,
        tag: Tag,
    },
    WakeNode {
        node: usize,
        incarnation: u64,
    },
    WakeBroker {
        broker: usize,
        incarnation: u64,
    },
    Accident,
    /// All brokers' lists are read again; the next but for this node.
    Rights {
        broker: usize,
        but: Option<usize>,
    },
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Events that happened.
    pub steps: u64,
    /// What all that was said amounts to: the same in each run of a seed.
    pub trace: u64,
    pub(crate) accidents: BTreeMap<String, u64>,
    pub(crate) outcomes: BTreeMap<String, u64>,
    pub(crate) brokers: BTreeMap<&'static str, u64>,
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
    /// A site in this weather, at its first moment.
    #[must_use]
    pub fn new(seed: u64, weather: Weather) -> Self {
        // Every other site has keys and with them a stranger, every third application is a sick one.
        let has_keys = weather.has_accidents() && seed.is_multiple_of(2);
        let is_healthy = weather.is_healthy();
        let nodes = site::NODES + 2 * usize::from(has_keys && weather.has_strangers());
        let mut world = Self {
            now: Duration::ZERO,
            dice: Dice::new(seed),
            record: Record::new(weather.promise()),
            weather,
            events: BinaryHeap::new(),
            what: Slab::new(),
            sequence: 0,
            brokers: (0..BROKERS).map(|_| BrokerProcess::default()).collect(),
            nodes: Vec::new(),
            network: Network::new(nodes),
            actions: Vec::new(),
            has_keys,
            is_calm: false,
            failing: match (is_healthy, seed % 3) {
                (true, _) => 0,
                (false, 0) => 60,
                (false, _) => 5,
            },
            steps: 0,
            messages: 0,
            trace: 0,
            report: Report::default(),
            script: None,
        };
        for broker in 0..BROKERS {
            world.start_broker(broker);
        }
        for node in 0..nodes {
            world.start_node(node);
        }
        world.after(Duration::from_secs(1), What::Accident);
        world
    }

    /// The storm, the calm, and the judgement.
    ///
    /// # Panics
    /// When something does not hold that must.
    #[must_use]
    pub fn run(mut self) -> Report {
        let storm = self.weather.lasts();
        self.run_until(storm);
        self.settle();
        self.run_until(storm + CALM);
        self.record.check_all_over();
        self.check_quiet();
        self.check_idle();
        self.check_alive();
        self.report.steps = self.steps;
        self.report.trace = self.trace;
        self.report.outcomes = std::mem::take(&mut self.record.outcomes);
        for broker in 0..BROKERS {
            self.count_broker(broker);
        }
        self.report
    }

    pub(crate) fn run_until(&mut self, end: Duration) {
        while let Some(&Reverse((at, _, place))) = self.events.peek() {
            if end < at {
                break;
            }
            self.events.pop();
            self.now = at;
            self.steps += 1;
            let what = self.what.remove(place);
            self.happen(what);
        }
        self.now = end;
    }

    pub(crate) fn at(&mut self, at: Duration, what: What) {
        self.sequence += 1;
        let place = self.what.insert(what);
        let at = at.max(self.now);
        self.events.push(Reverse((at, self.sequence, place)));
    }

    pub(crate) fn after(&mut self, delay: Duration, what: What) {
        self.at(self.now + delay, what);
    }

    fn happen(&mut self, what: What) {
        match what {
            What::ToBroker {
                connection,
                message,
            } => self.arrive_at_broker(connection, message),
            What::ToNode {
                connection,
                message,
            } => self.arrive_at_node(connection, message),
            What::LostAtBroker { connection } => {
                let peer = peer(connection);
                let broker = self.network.connections[connection].broker;
                self.tell_broker(broker, ForBroker::Event(Event::Lost { peer }));
            }
            What::StuckAtBroker { connection } => {
                let peer = peer(connection);
                let broker = self.network.connections[connection].broker;
                self.tell_broker(broker, ForBroker::Event(Event::Stuck { peer }));
            }
            What::DownAtNode { connection } => self.connection_down(connection),
            What::GiveUp { connection } => {
                let state = &self.network.connections[connection];
                let ways = [Way::Up, Way::Down];
                let (node, broker) = (state.node, state.broker);
                let is_cut = ways
                    .iter()
                    .any(|way| self.now < self.network.blocked_until(node, broker, *way));
                if is_cut || state.is_half_open {
                    self.break_connection(connection);
                }
            }
            What::Dial {
                node,
                incarnation,
                link,
            } => {
                let process = &self.nodes[node];
                if process.incarnation == incarnation && process.is_alive {
                    self.connect(node, link);
                }
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
            What::WakeNode { node, incarnation } => {
                let process = &mut self.nodes[node];
                let is_due = process.wakes.is_some_and(|at| at <= self.now);
                if process.incarnation == incarnation && process.is_alive && is_due {
                    process.wakes = None;
                    if process.paused.is_none() {
                        self.tick_node(node);
                    }
                }
            }
            What::WakeBroker {
                broker,
                incarnation,
            } => {
                let process = &mut self.brokers[broker];
                let is_due = process.wakes.is_some_and(|at| at <= self.now);
                if process.incarnation == incarnation && is_due {
                    process.wakes = None;
                    if process.paused.is_none() {
                        self.step_broker(broker, Event::Tick);
                        self.broker_stepped(broker);
                    }
                }
            }
            What::Accident => {
                if !self.is_calm {
                    self.accident();
                    let delay = self.weather.pause(&mut self.dice);
                    self.after(delay, What::Accident);
                }
            }
            What::Rights { broker, but } => {
                let but = but.filter(|_| !self.is_calm);
                let rights = Event::Rights(site::rights(but));
                self.tell_broker(broker, ForBroker::Event(rights));
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

    /// Something was said.
    pub(crate) fn trace(&mut self, connection: usize, message: &Message) {
        self.messages += 1;
        let header = &message.header;
        let content = message.content.len() as u64;
        let at = u64::from(self.now.subsec_nanos());
        for word in [
            at,
            connection as u64,
            header.correlation,
            header.credit,
            content,
        ] {
            self.trace = (self.trace ^ word)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(29);
        }
    }

    /// What is under way is lost with it; both ends hear of it in a moment, or when the path is whole again.
    pub(crate) fn break_connection(&mut self, connection: usize) {
        let state = &mut self.network.connections[connection];
        if !std::mem::replace(&mut state.is_alive, false) {
            return;
        }
        let (up, down) = (
            self.network
                .farewell(self.now, connection, Way::Up, &mut self.dice),
            self.network
                .farewell(self.now, connection, Way::Down, &mut self.dice),
        );
        self.at(up, What::LostAtBroker { connection });
        self.at(down, What::DownAtNode { connection });
    }

    /// Who this key belongs to, as brokers learn it with a HELLO.
    pub(crate) fn key_of(&self, connection: usize, message: Option<&Message>) -> Option<PublicKey> {
        let matters = message.is_none_or(|message| message.header.kind == Kind::Hello);
        let node = self.network.connections[connection].node;
        (self.has_keys && matters).then(|| site::key(node))
    }

    pub(crate) fn port_of(&self, connection: usize) -> Port {
        self.nodes[self.network.connections[connection].node]
            .node
            .port()
    }
}

/// Whether those who hold much are looked over in this step: it costs a walk over everything.
pub(crate) const fn is_audit(step: u64) -> bool {
    step.is_multiple_of(16)
}

/// A process's clock at this time of the world.
pub(crate) fn clock(now: Duration, ahead: Duration) -> Instant {
    crate::epoch() + now + ahead
}
