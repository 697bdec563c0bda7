//! What can befall a site, carried out.

use std::time::Duration;

use crate::network::{GIVEN_UP, Way};
use crate::site::{BACKENDS, BROKERS, FRONTENDS, NODES};
use crate::weather::Accident;
use crate::world::{What, World};

impl World {
    /// The next thing that goes wrong, to somebody.
    pub(crate) fn accident(&mut self) {
        let Some(accident) = self.weather.accident(&mut self.dice) else {
            return;
        };
        let pause = self.dice.millis(200..6000);
        let broker = self.dice.index(BROKERS);
        let node = match accident {
            Accident::CrashBackend | Accident::DrainBackend | Accident::Change => {
                FRONTENDS + self.dice.index(BACKENDS.len())
            }
            Accident::DrainFrontend => self.dice.index(FRONTENDS),
            _ => self.dice.index(NODES),
        };
        if self.befall(accident, broker, node, pause) {
            let name = format!("{accident:?}");
            *self.report.accidents.entry(name).or_default() += 1;
        }
    }

    /// Returns whether it could happen.
    fn befall(&mut self, accident: Accident, broker: usize, node: usize, pause: Duration) -> bool {
        let process = &self.nodes[node];
        let node_works = process.is_alive && process.paused.is_none();
        let node_at = (node, process.incarnation);
        let process = &self.brokers[broker];
        let broker_works = process.broker.is_some() && process.paused.is_none();
        let broker_at = (broker, process.incarnation);
        match accident {
            Accident::Break | Accident::HalfOpen => return self.wound(accident),
            Accident::Hold => self.cut(&[node], broker, &[Way::Up, Way::Down], pause),
            Accident::Partition | Accident::OneWay => {
                let ways = match (accident, self.dice.percent(50)) {
                    (Accident::Partition, _) => &[Way::Up, Way::Down][..],
                    (_, true) => &[Way::Up],
                    (_, false) => &[Way::Down],
                };
                // From all its backends, from all frontends, or from whom it happens to be.
                let group: Vec<usize> = match self.dice.number(0..3) {
                    0 => (FRONTENDS..NODES).collect(),
                    1 => (0..FRONTENDS).collect(),
                    _ => (0..NODES).filter(|_| self.dice.percent(40)).collect(),
                };
                let stretch = u32::from(self.dice.percent(20)) * 3 + 1;
                self.cut(&group, broker, ways, pause * stretch);
            }
            Accident::CrashBroker if self.brokers[broker].broker.is_some() => {
                self.count_broker(broker);
                self.crash_broker(broker);
                self.after(pause, What::RestartBroker { broker });
            }
            Accident::CrashBackend | Accident::CrashNode if self.nodes[node].is_alive => {
                self.crash_node(node);
                self.after(pause, What::RestartNode { node });
            }
            Accident::PauseNode if node_works => {
                self.nodes[node].paused = Some(self.now);
                let (node, incarnation) = node_at;
                self.after(pause, What::ResumeNode { node, incarnation });
            }
            Accident::PauseBroker if broker_works => {
                self.brokers[broker].paused = Some(self.now);
                let (broker, incarnation) = broker_at;
                let resume = What::ResumeBroker {
                    broker,
                    incarnation,
                };
                self.after(pause, resume);
            }
            Accident::JumpNode if node_works => self.jump_node(node, pause * 2),
            Accident::JumpBroker if broker_works => self.jump_broker(broker, pause * 2),
            Accident::DrainBroker if self.brokers[broker].broker.is_some() => {
                let patience = self.patience(pause);
                self.drain_broker(broker, patience);
            }
            Accident::DrainBackend | Accident::DrainFrontend if node_works => {
                self.with_node(node, |it, context| it.drain(context));
                self.tick_node(node);
            }
            Accident::Flood => {
                let until = self.now + pause / 3;
                for node in 0..FRONTENDS {
                    self.nodes[node].node.flood(until);
                }
            }
            Accident::Change if node_works => {
                self.with_node(node, |it, context| it.change(context));
                self.tick_node(node);
            }
            Accident::Rights if self.has_keys => {
                for broker in 0..BROKERS {
                    for but in [Some(node), None] {
                        let delay = self.dice.millis(0..500);
                        let delay = delay + pause * u32::from(but.is_none());
                        self.after(delay, What::Rights { broker, but });
                    }
                }
            }
            _ => return false,
        }
        true
    }

    /// A connection breaks or becomes half open, if there is one.
    fn wound(&mut self, accident: Accident) -> bool {
        let alive = self.network.alive();
        let Some(connection) = self.dice.pick(&alive) else {
            return false;
        };
        if accident == Accident::Break {
            self.break_connection(connection);
        } else {
            self.network.connections[connection].is_half_open = true;
            self.after(GIVEN_UP, What::GiveUp { connection });
        }
        true
    }

    /// Nothing moves between them for so long.
    fn cut(&mut self, nodes: &[usize], broker: usize, ways: &[Way], pause: Duration) {
        let until = self.now + pause;
        for &node in nodes {
            for &way in ways {
                self.network.block(node, broker, way, until);
            }
        }
        for connection in self.network.alive() {
            let state = &self.network.connections[connection];
            if GIVEN_UP < pause && state.broker == broker && nodes.contains(&state.node) {
                self.after(GIVEN_UP, What::GiveUp { connection });
            }
        }
    }

    /// How long a drain may take.
    fn patience(&self, pause: Duration) -> Duration {
        if self.weather.is_healthy() {
            Duration::from_secs(30)
        } else {
            pause
        }
    }

    /// The storm is over: everybody is there, and nobody asks for more.
    pub(crate) fn settle(&mut self) {
        self.is_calm = true;
        self.network.heal();
        for broker in 0..BROKERS {
            self.resume_broker(broker);
            if self.brokers[broker].broker.is_none() {
                self.start_broker(broker);
            }
            if self.has_keys {
                self.after(Duration::ZERO, What::Rights { broker, but: None });
            }
        }
        for node in 0..self.nodes.len() {
            self.resume_node(node);
            if NODES <= node {
                self.crash_node(node);
                continue;
            }
            if self.nodes[node].is_alive && self.nodes[node].links.len() < BROKERS {
                self.crash_node(node);
            }
            if !self.nodes[node].is_alive {
                self.start_node(node);
            }
            self.with_node(node, |it, context| it.settle(context));
            self.tick_node(node);
        }
    }
}
