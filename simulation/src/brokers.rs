//! The world's side of brokers.

use std::time::Duration;

use scale0_broker::{Action, Broker, Counters, Event};
use scale0_wire::{Bye, Kind, Message};

use crate::fuzz::Trace;
use crate::network::{Way, peer};
use crate::node::LITTLE;
use crate::site;
use crate::world::{ForBroker, What, World, clock, is_audit};

/// The shell takes in so many at a time, and then looks at the clock.
const BATCH: usize = 256;

/// More than this under way to one stopped peer, and its broker gives it up.
const UNDER_WAY: usize = 512 * 1024;

impl World {
    pub(crate) fn start_broker(&mut self, broker: usize) {
        let drawn = [self.dice.next(), self.dice.next()];
        if broker == 0 && self.script.is_some() {
            self.script = Some(Trace::new(drawn[1], self.now));
        }
        let is_tight = !self.weather.is_healthy();
        let config = site::config(broker, drawn, self.has_keys, is_tight);
        let now = clock(self.now, self.brokers[broker].ahead);
        let process = &mut self.brokers[broker];
        process.broker = Some(Broker::new(config, now));
        process.incarnation += 1;
        process.paused = None;
        process.mailbox.clear();
        process.wakes = None;
        process.drains = None;
    }

    /// A message, or what is none, has come over a connection.
    pub(crate) fn arrive_at_broker(&mut self, connection: usize, message: Option<Message>) {
        let state = &mut self.network.connections[connection];
        let broker = state.broker;
        if state.is_alive && !state.is_half_open && !state.is_left {
            self.tell_broker(broker, ForBroker::From(connection, message));
        }
    }

    pub(crate) fn tell_broker(&mut self, broker: usize, what: ForBroker) {
        if self.brokers[broker].paused.is_some() {
            self.brokers[broker].mailbox.push(what);
            return;
        }
        self.give_broker(broker, what);
        self.broker_stepped(broker);
    }

    /// Says it as the shell does.
    fn give_broker(&mut self, broker: usize, what: ForBroker) {
        let (connection, message) = match what {
            ForBroker::Event(event) => {
                if let (0, Some(script), Event::Lost { peer }) = (broker, &mut self.script, &event)
                {
                    let connection = self.network.of(*peer);
                    let node = self.network.connections[connection].node;
                    script.lost(self.now, node);
                }
                return self.step_broker(broker, event);
            }
            ForBroker::From(connection, message) => (connection, message),
        };
        let size = message.as_ref().map_or(0, Message::size);
        self.taken_up(connection, size);
        if self.network.connections[connection].is_muted {
            return;
        }
        if let (0, Some(script), Some(message)) = (broker, &mut self.script, &message) {
            let node = self.network.connections[connection].node;
            script.said(self.now, node, message);
        }
        let from = peer(connection);
        if let Some(key) = self.key_of(connection, message.as_ref()) {
            self.step_broker(broker, Event::Proved { peer: from, key });
        }
        let event = match message {
            Some(message) => Event::Received {
                from,
                port: self.port_of(connection),
                locality: None,
                message: message.into(),
            },
            None => Event::Malformed { from },
        };
        self.step_broker(broker, event);
    }

    pub(crate) fn step_broker(&mut self, broker: usize, event: Event) {
        let is_audit = is_audit(self.steps);
        let now = clock(self.now, self.brokers[broker].ahead);
        let Some(core) = &mut self.brokers[broker].broker else {
            return;
        };
        let mut actions = std::mem::take(&mut self.actions);
        core.step(now, event, &mut actions);
        if is_audit || open(core.counters()) <= LITTLE as u64 {
            core.audit();
        }
        let is_unread = 0 < core.counters().drains_unread;
        for action in actions.drain(..) {
            match action {
                Action::Send { to, message } => {
                    if is_unread && is_farewell(&message) {
                        self.record.left_unread.insert(message.header.epoch);
                    }
                    let connection = self.network.of(to);
                    self.send_to_node(connection, *message);
                }
                Action::Mute { peer, .. } => self.mute(self.network.of(peer), true),
                Action::Unmute { peer } => self.mute(self.network.of(peer), false),
                Action::Forget { .. } => {}
            }
        }
        self.actions = actions;
    }

    fn mute(&mut self, connection: usize, is_muted: bool) {
        self.network.connections[connection].is_muted = is_muted;
    }

    fn send_to_node(&mut self, connection: usize, message: Message) {
        let state = &mut self.network.connections[connection];
        if !state.is_alive {
            return;
        }
        let under_way = &mut state.under_way[Way::Down as usize];
        *under_way += message.size();
        let is_stuck = UNDER_WAY < *under_way;
        self.trace(connection, &message);
        let at = self
            .network
            .arrival(self.now, connection, Way::Down, &mut self.dice);
        self.at(
            at,
            What::ToNode {
                connection,
                message,
            },
        );
        if is_stuck {
            // The shell tells the core in its next round, and the connection is dropped.
            *self.report.accidents.entry("Stuck".to_owned()).or_default() += 1;
            self.at(self.now, What::StuckAtBroker { connection });
            self.break_connection(connection);
        }
    }

    /// What follows every batch of a broker: its timer, its judgement, its end.
    pub(crate) fn broker_stepped(&mut self, broker: usize) {
        let process = &self.brokers[broker];
        let now = clock(self.now, process.ahead);
        let Some(core) = &process.broker else {
            return;
        };
        if core.is_gone() {
            let is_over = process.drains.is_some_and(|until| until <= self.now);
            assert!(
                core.counters().drains_unread == 0 || is_over || !process.ahead.is_zero(),
                "a broker left early, and did not know whether that was safe"
            );
            self.count_broker(broker);
            self.leave_broker(broker);
            let delay = self.dice.millis(200..2000);
            return self.after(delay, What::RestartBroker { broker });
        }
        if self.steps.is_multiple_of(64) {
            self.check_broker(broker);
        }
        let process = &mut self.brokers[broker];
        let Some(deadline) = process.broker.as_ref().and_then(Broker::deadline) else {
            return;
        };
        let wakes = self.now + deadline.saturating_duration_since(now);
        if process.wakes.is_none_or(|at| wakes < at) {
            process.wakes = Some(wakes);
            let incarnation = process.incarnation;
            self.at(
                wakes,
                What::WakeBroker {
                    broker,
                    incarnation,
                },
            );
        }
    }

    /// It has left in order: what it has said last still arrives.
    fn leave_broker(&mut self, broker: usize) {
        self.end_broker(broker);
        for connection in self.network.alive() {
            let state = &mut self.network.connections[connection];
            if state.broker == broker && !state.is_left {
                state.is_left = true;
                let latest = state.latest[Way::Down as usize];
                self.at(latest, What::DownAtNode { connection });
            }
        }
    }

    pub(crate) fn crash_broker(&mut self, broker: usize) {
        self.end_broker(broker);
        for connection in self.network.alive() {
            if self.network.connections[connection].broker == broker {
                self.break_connection(connection);
            }
        }
    }

    fn end_broker(&mut self, broker: usize) {
        let process = &mut self.brokers[broker];
        process.broker = None;
        process.incarnation += 1;
        process.paused = None;
        process.mailbox.clear();
    }

    pub(crate) fn drain_broker(&mut self, broker: usize, patience: Duration) {
        let process = &mut self.brokers[broker];
        let until = self.now + patience;
        process.drains.get_or_insert(until);
        let until = clock(until, process.ahead);
        self.tell_broker(broker, ForBroker::Event(Event::Drain { until }));
    }

    pub(crate) fn resume_broker(&mut self, broker: usize) {
        if self.brokers[broker].paused.take().is_none() {
            return;
        }
        let mailbox = std::mem::take(&mut self.brokers[broker].mailbox);
        for (index, what) in mailbox.into_iter().enumerate() {
            if index % BATCH == BATCH - 1 {
                self.step_broker(broker, Event::Tick);
            }
            self.give_broker(broker, what);
        }
        self.step_broker(broker, Event::Tick);
        self.brokers[broker].wakes = None;
        self.broker_stepped(broker);
    }

    /// Its clock is so much further than it was a moment ago.
    pub(crate) fn jump_broker(&mut self, broker: usize, jump: Duration) {
        self.brokers[broker].ahead += jump;
        self.brokers[broker].wakes = None;
        self.tell_broker(broker, ForBroker::Event(Event::Tick));
    }

    pub(crate) fn count_broker(&mut self, broker: usize) {
        if let Some(core) = &self.brokers[broker].broker {
            for (name, count) in core.counters().iter() {
                *self.report.brokers.entry(name).or_default() += count;
            }
        }
    }
}

/// Requests that are not over.
pub(crate) const fn open(counters: &Counters) -> u64 {
    let over = counters.answered
        + counters.failed_by_backend
        + counters.cancelled
        + counters.frontend_lost
        + counters.given_up;
    counters.requests - over
}

/// Whether its sender says that it leaves in order.
pub(crate) fn is_farewell(message: &Message) -> bool {
    message.header.kind == Kind::Bye && Bye::decode(&message.metadata) == Ok(Bye::Leaving)
}
