//! What frontends and backends have in common: sessions with every broker.

use std::time::Duration;

use scale0_wire::{Bye, Heartbeat, Hello, Kind, Message, RoutingHeader, VERSION, Welcome, limits};

use crate::node::{Context, Effect, Tag};
use crate::site::Trade;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Role {
    Frontend,
    Backend(Trade),
}

/// A session with one broker.
#[derive(Clone, Debug, Default)]
pub(crate) struct Link {
    pub(crate) is_up: bool,
    pub(crate) is_welcomed: bool,
    pub(crate) is_draining: bool,
    pub(crate) epoch: u64,
    heard: Duration,
    /// The broker's newest heartbeat.
    beat: u32,
}

/// What a message was for the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The session stands.
    Opened,
    /// The session is over.
    Ended,
    /// It is about something else.
    Other,
    /// It is dealt with.
    Done,
}

#[derive(Clone, Debug)]
pub(crate) struct Dialler {
    name: String,
    role: Role,
    instance: u64,
    pub(crate) links: Vec<Link>,
    resumed: Duration,
    /// A backend whose application is away.
    pub(crate) is_away: bool,
}

impl Dialler {
    pub(crate) fn new(name: String, role: Role, brokers: usize, instance: u64) -> Self {
        Self {
            name,
            role,
            instance,
            links: vec![Link::default(); brokers],
            resumed: Duration::ZERO,
            is_away: false,
        }
    }

    pub(crate) fn up(&mut self, link: usize, context: &mut Context<'_>) {
        self.links[link].is_up = true;
        self.renew(link, context);
    }

    pub(crate) fn down(&mut self, link: usize) {
        self.links[link] = Link::default();
    }

    pub(crate) fn resume(&mut self, now: Duration) {
        self.resumed = now;
    }

    pub(crate) fn is_open(&self, link: usize) -> bool {
        self.links[link].is_welcomed
    }

    /// Opens a new session on a connection that stands.
    fn renew(&mut self, link: usize, context: &mut Context<'_>) {
        let state = &mut self.links[link];
        *state = Link {
            is_up: true,
            epoch: context.dice.next(),
            heard: context.now,
            ..Link::default()
        };
        self.hello(link, context);
    }

    fn hello(&self, link: usize, context: &mut Context<'_>) {
        let (window, capacity, services) = match self.role {
            Role::Frontend => (super::frontend::CONNECTION, 0, Vec::new()),
            Role::Backend(trade) => (
                limits::CONNECTION_WINDOW,
                self.capacity(),
                trade.services.iter().map(|&name| name.to_owned()).collect(),
            ),
        };
        let hello = Hello {
            oldest: VERSION,
            newest: VERSION,
            node: self.name.clone(),
            instance: self.instance,
            lane: 0,
            heartbeat: limits::HEARTBEAT,
            window,
            capacity,
            services,
        };
        let message = Message::new(RoutingHeader::new(Kind::Hello));
        self.send(link, message.with_metadata(hello.encode()), context);
    }

    pub(crate) fn send(&self, link: usize, mut message: Message, context: &mut Context<'_>) {
        message.header.epoch = self.links[link].epoch;
        context.send(link, message);
    }

    /// Says that it lives, and hangs up on who does not. Returns the sessions that ended so.
    pub(crate) fn beat(&mut self, credit: &[u64], context: &mut Context<'_>) -> Vec<usize> {
        let mut ended = Vec::new();
        for index in 0..self.links.len() {
            let link = &self.links[index];
            if !link.is_up {
                continue;
            }
            let dead = (link.heard + limits::HEARTBEAT * limits::HEARTBEAT_MISSES)
                .max(self.resumed + limits::HEARTBEAT);
            if dead <= context.now {
                context.effects.push(Effect::Hangup { link: index });
                self.down(index);
                ended.push(index);
            } else if link.is_welcomed {
                self.say_capacity(index, credit.get(index).copied().unwrap_or(0), context);
            } else {
                self.hello(index, context);
            }
        }
        context.after(limits::HEARTBEAT, Tag::Beat);
        ended
    }

    fn capacity(&self) -> u32 {
        match self.role {
            Role::Backend(trade) if !self.is_away => trade.capacity,
            Role::Backend(_) | Role::Frontend => 0,
        }
    }

    pub(crate) fn say_capacity(&self, link: usize, credit: u64, context: &mut Context<'_>) {
        let heartbeat = Heartbeat {
            capacity: self.capacity(),
            echo: self.links[link].beat,
            ..Heartbeat::default()
        };
        let mut message = Message::new(RoutingHeader::new(Kind::Heartbeat));
        message.header.credit = credit;
        self.send(link, message.with_metadata(heartbeat.encode()), context);
    }

    pub(crate) fn hear(
        &mut self,
        link: usize,
        message: &Message,
        context: &mut Context<'_>,
    ) -> Heard {
        let state = &mut self.links[link];
        if message.header.epoch != state.epoch {
            return Heard::Done;
        }
        state.heard = context.now;
        match message.header.kind {
            Kind::Welcome => {
                Welcome::decode(&message.metadata).unwrap();
                if std::mem::replace(&mut state.is_welcomed, true) {
                    Heard::Done
                } else {
                    Heard::Opened
                }
            }
            Kind::Bye => {
                if Bye::decode(&message.metadata).unwrap() == Bye::Leaving {
                    state.is_welcomed = false;
                    state.is_draining = true;
                } else {
                    self.renew(link, context);
                }
                Heard::Ended
            }
            Kind::Heartbeat => {
                state.beat = Heartbeat::decode(&message.metadata).unwrap().sequence;
                // A broker that drains waits for this. Every other node is of an older version, and says it in its time.
                if state.is_draining
                    && matches!(self.role, Role::Frontend)
                    && self.instance.is_multiple_of(2)
                {
                    self.say_capacity(link, 0, context);
                }
                Heard::Done
            }
            Kind::Drain => {
                state.is_draining = true;
                Heard::Done
            }
            _ if !state.is_welcomed => Heard::Done,
            _ => Heard::Other,
        }
    }
}
