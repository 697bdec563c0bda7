//! The world's side of processes that dial.

use std::time::Duration;

use scale0_wire::Message;

use crate::backend::Backend;
use crate::frontend::Frontend;
use crate::models;
use crate::network::Way;
use crate::node::{Context, Effect, Node};
use crate::site::{self, BACKENDS, BROKERS, FRONTENDS, NODES};
use crate::stranger::Stranger;
use crate::world::{ForNode, Link, Process, What, World, clock, is_audit};

/// A transport takes so much for one broker, until that reads.
const ROOM: usize = 256 * 1024;

impl World {
    pub(crate) fn start_node(&mut self, node: usize) {
        // Some know two brokers, and hear of the third when one of them leaves; in the calm everybody knows all.
        let mut knows: Vec<usize> = (0..BROKERS).collect();
        if !self.weather.is_healthy() && !self.is_calm && self.dice.percent(20) {
            knows.remove(self.dice.index(BROKERS));
        }
        let ahead = self.nodes.get(node).map_or(Duration::ZERO, |it| it.ahead);
        let mut effects = Vec::new();
        let mut context = Context {
            now: self.now,
            clock: clock(self.now, ahead),
            dice: &mut self.dice,
            record: &mut self.record,
            effects: &mut effects,
            is_calm: self.is_calm,
            is_healthy: self.weather.is_healthy(),
            failing: self.failing,
            is_audit: is_audit(self.steps),
        };
        let actor = actor(node, &knows, &mut context);
        let link = |broker| Link {
            broker,
            connection: None,
            is_closed: false,
            backlog: Vec::new(),
        };
        let before = self.nodes.get(node);
        let process = Process {
            node: actor,
            incarnation: before.map_or(0, |it| it.incarnation) + 1,
            is_alive: true,
            paused: None,
            mailbox: Vec::new(),
            wakes: None,
            ahead,
            links: knows.iter().map(|&broker| link(broker)).collect(),
        };
        let links = process.links.len();
        match self.nodes.get_mut(node) {
            Some(place) => *place = process,
            None => self.nodes.push(process),
        }
        for link in 0..links {
            self.dial(node, link);
        }
        self.perform(node, effects);
    }

    fn dial(&mut self, node: usize, link: usize) {
        let delay = self.dice.millis(1..100);
        self.dial_after(node, link, delay);
    }

    fn dial_after(&mut self, node: usize, link: usize, delay: Duration) {
        let incarnation = self.nodes[node].incarnation;
        let what = What::Dial {
            node,
            incarnation,
            link,
        };
        self.after(delay, what);
    }

    /// A dialled connection stands, if somebody is there and a path to it.
    pub(crate) fn connect(&mut self, node: usize, link: usize) {
        let it = &self.nodes[node].links[link];
        let broker = it.broker;
        if it.connection.is_some() || it.is_closed {
            return;
        }
        if self.brokers[broker].broker.is_none() {
            return self.dial(node, link);
        }
        if let Some(at) = (self.network).dialled_at(self.now, node, broker, &mut self.dice) {
            return self.dial_after(node, link, at - self.now);
        }
        let connection = (self.network).connect(node, link, broker, &mut self.dice);
        self.nodes[node].links[link].connection = Some(connection);
        self.tell_node(node, ForNode::Up(link));
    }

    /// A node hears that a connection is gone.
    pub(crate) fn connection_down(&mut self, connection: usize) {
        let state = &mut self.network.connections[connection];
        state.is_alive = false;
        let (node, link) = (state.node, state.link);
        let links = &mut self.nodes[node].links;
        if let Some(it) = links.get_mut(link)
            && it.connection == Some(connection)
        {
            it.connection = None;
            it.backlog.clear();
            self.tell_node(node, ForNode::Down(link));
            self.dial(node, link);
        }
    }

    pub(crate) fn arrive_at_node(&mut self, connection: usize, message: Message) {
        let state = &mut self.network.connections[connection];
        let (node, link) = (state.node, state.link);
        // Another process may be there by now.
        let it = self.nodes[node].links.get(link);
        let is_its = it.is_some_and(|it| it.connection == Some(connection));
        if state.is_alive && !state.is_half_open && is_its {
            self.tell_node(node, ForNode::Message(link, message));
        }
    }

    pub(crate) fn tell_node(&mut self, node: usize, what: ForNode) {
        let process = &mut self.nodes[node];
        if !process.is_alive {
            return;
        }
        if process.paused.is_some() {
            process.mailbox.push(what);
            return;
        }
        self.give_node(node, what);
        // Mostly what is due is looked at at once; now and then more comes first.
        if self.dice.percent(90) {
            self.tick_node(node);
        } else {
            let delay = self.dice.micros(1..300);
            self.wake_node_at(node, self.now + delay);
        }
    }

    fn give_node(&mut self, node: usize, what: ForNode) {
        match what {
            ForNode::Up(link) => self.with_node(node, |it, context| it.up(link, context)),
            ForNode::Down(link) => self.with_node(node, |it, context| it.down(link, context)),
            ForNode::Message(link, message) => {
                // It may have come over a connection before this one.
                if let Some(connection) = self.nodes[node].links[link].connection {
                    let taken = &mut self.network.connections[connection].under_way;
                    let taken = &mut taken[Way::Down as usize];
                    *taken = taken.saturating_sub(message.size());
                }
                self.with_node(node, |it, context| it.hear(link, message, context));
            }
            ForNode::Writable(link) => {
                self.with_node(node, |it, context| it.set_full(link, false, context));
            }
            ForNode::Timer(tag) => self.with_node(node, |it, context| it.timer(tag, context)),
        }
    }

    pub(crate) fn tick_node(&mut self, node: usize) {
        if self.nodes[node].is_alive {
            self.with_node(node, |it, context| it.tick(context));
        }
        let process = &self.nodes[node];
        if process.is_alive
            && let Some(deadline) = process.node.deadline()
        {
            let now = clock(self.now, process.ahead);
            let wakes = self.now + deadline.saturating_duration_since(now);
            self.wake_node_at(node, wakes);
        }
    }

    fn wake_node_at(&mut self, node: usize, wakes: Duration) {
        let process = &mut self.nodes[node];
        if process.wakes.is_none_or(|at| wakes < at) {
            process.wakes = Some(wakes);
            let incarnation = process.incarnation;
            self.at(wakes, What::WakeNode { node, incarnation });
        }
    }

    /// Lets a process do something, and carries out what it wants.
    pub(crate) fn with_node<T>(
        &mut self,
        node: usize,
        act: impl FnOnce(&mut dyn Node, &mut Context<'_>) -> T,
    ) -> T {
        let mut effects = Vec::new();
        let process = &mut self.nodes[node];
        let mut context = Context {
            now: self.now,
            clock: clock(self.now, process.ahead),
            dice: &mut self.dice,
            record: &mut self.record,
            effects: &mut effects,
            is_calm: self.is_calm,
            is_healthy: self.weather.is_healthy(),
            failing: self.failing,
            is_audit: is_audit(self.steps),
        };
        let value = act(process.node.as_mut(), &mut context);
        self.perform(node, effects);
        value
    }

    fn perform(&mut self, node: usize, effects: Vec<Effect>) {
        let mut full = Vec::new();
        for effect in effects {
            match effect {
                Effect::Send { link, message } => {
                    if self.send_to_broker(node, link, message) {
                        full.push(link);
                    }
                }
                Effect::SendGarbage { link } => {
                    if let Some(connection) = self.nodes[node].links[link].connection {
                        self.send_up(connection, None);
                    }
                }
                Effect::After { delay, tag } => {
                    let incarnation = self.nodes[node].incarnation;
                    let what = What::Timer {
                        node,
                        incarnation,
                        tag,
                    };
                    self.after(delay, what);
                }
                Effect::Hangup { link } => {
                    self.hang_up(node, link);
                    self.dial(node, link);
                }
                Effect::Close { link } => {
                    self.nodes[node].links[link].is_closed = true;
                    self.hang_up(node, link);
                }
                Effect::Dial { broker } => {
                    self.nodes[node].links.push(Link {
                        broker,
                        connection: None,
                        is_closed: false,
                        backlog: Vec::new(),
                    });
                    self.dial(node, self.nodes[node].links.len() - 1);
                }
                Effect::Exit => {
                    if self.nodes[node].is_alive {
                        self.exit_node(node);
                        let delay = self.dice.millis(100..2000);
                        self.after(delay, What::RestartNode { node });
                    }
                }
            }
        }
        for link in full {
            self.with_node(node, |it, context| it.set_full(link, true, context));
        }
    }

    fn hang_up(&mut self, node: usize, link: usize) {
        let it = &mut self.nodes[node].links[link];
        it.backlog.clear();
        if let Some(connection) = it.connection.take() {
            self.break_connection(connection);
        }
    }

    /// Returns whether that is news to the transport: it takes no more.
    fn send_to_broker(&mut self, node: usize, link: usize, message: Message) -> bool {
        let it = &mut self.nodes[node].links[link];
        let Some(connection) = it.connection else {
            return false;
        };
        let under_way = self.network.connections[connection].under_way[Way::Up as usize];
        let was_full = !it.backlog.is_empty();
        if was_full || ROOM < under_way {
            it.backlog.push(message);
            return !was_full;
        }
        if node < NODES && self.nodes.len() != NODES {
            self.record.overhear(&message);
        }
        self.trace(connection, &message);
        self.send_up(connection, Some(message));
        false
    }

    fn send_up(&mut self, connection: usize, message: Option<Message>) {
        let size = message.as_ref().map_or(0, Message::size);
        self.network.connections[connection].under_way[Way::Up as usize] += size;
        let at = self
            .network
            .arrival(self.now, connection, Way::Up, &mut self.dice);
        self.at(
            at,
            What::ToBroker {
                connection,
                message,
            },
        );
    }

    /// A broker has read so much: what waits follows.
    pub(crate) fn taken_up(&mut self, connection: usize, bytes: usize) {
        let state = &mut self.network.connections[connection];
        let under_way = &mut state.under_way[Way::Up as usize];
        *under_way = under_way.saturating_sub(bytes);
        let (node, link, is_low) = (state.node, state.link, *under_way < ROOM / 2);
        let Some(it) = self.nodes[node].links.get_mut(link) else {
            return;
        };
        if it.connection != Some(connection) || it.backlog.is_empty() || !is_low {
            return;
        }
        for message in std::mem::take(&mut it.backlog) {
            self.trace(connection, &message);
            self.send_up(connection, Some(message));
        }
        self.tell_node(node, ForNode::Writable(link));
    }

    /// The process ends in order: what it has said last still arrives.
    fn exit_node(&mut self, node: usize) {
        self.end_node(node);
        for link in 0..self.nodes[node].links.len() {
            if let Some(connection) = self.nodes[node].links[link].connection.take() {
                let latest = self.network.connections[connection].latest[Way::Up as usize];
                self.at(latest, What::LostAtBroker { connection });
            }
        }
    }

    pub(crate) fn crash_node(&mut self, node: usize) {
        self.with_node(node, |it, context| it.crash(context));
        self.end_node(node);
        for link in 0..self.nodes[node].links.len() {
            self.hang_up(node, link);
        }
    }

    fn end_node(&mut self, node: usize) {
        let process = &mut self.nodes[node];
        process.is_alive = false;
        process.incarnation += 1;
        process.paused = None;
        process.mailbox.clear();
    }

    pub(crate) fn resume_node(&mut self, node: usize) {
        let Some(since) = self.nodes[node].paused.take() else {
            return;
        };
        let pause = self.now - since;
        self.with_node(node, |it, context| it.resume(pause, context));
        for what in std::mem::take(&mut self.nodes[node].mailbox) {
            if self.nodes[node].is_alive {
                self.give_node(node, what);
            }
        }
        self.nodes[node].node.awake();
        self.nodes[node].wakes = None;
        self.tick_node(node);
    }

    /// Its clock is so much further than it was a moment ago.
    pub(crate) fn jump_node(&mut self, node: usize, jump: Duration) {
        self.nodes[node].ahead += jump;
        self.nodes[node].wakes = None;
        self.tick_node(node);
    }
}

fn actor(node: usize, knows: &[usize], context: &mut Context<'_>) -> Box<dyn Node> {
    let name = site::node_name(node);
    // Another implementation of the protocol, as far as brokers are concerned, and of an older temper.
    let is_model = !context.is_healthy && context.dice.percent(25);
    match node {
        0..FRONTENDS if is_model => Box::new(models::Frontend::new(name, knows.len(), context)),
        0..FRONTENDS => {
            let is_slow = node == 0 && !context.is_calm && !context.is_healthy;
            Box::new(Frontend::new(&name, knows.to_vec(), is_slow, context))
        }
        FRONTENDS..NODES => {
            let trade = BACKENDS[node - FRONTENDS];
            if is_model {
                Box::new(models::Backend::new(name, trade, knows.len(), context))
            } else {
                Box::new(Backend::new(&name, trade, knows.to_vec(), context))
            }
        }
        _ => Box::new(Stranger::new(&name, node, knows.len(), context)),
    }
}
