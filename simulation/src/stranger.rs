//! Somebody who may be here, and means harm: garbage, what others said said again, messages of every kind about anything.

use std::time::Duration;

use bytes::Bytes;
use scale0_transport::Port;
use scale0_wire::{Flags, Hello, Kind, Message, RoutingHeader, ServiceId, VERSION, limits};

use crate::node::{Context, Effect, Node, Tag};
use crate::site;

/// What it says.
const KINDS: &[Kind] = &[
    Kind::Request,
    Kind::Response,
    Kind::Chunk,
    Kind::End,
    Kind::Reject,
    Kind::Cancel,
    Kind::Window,
    Kind::Credit,
    Kind::Return,
    Kind::Reclaim,
    Kind::Announce,
    Kind::Heartbeat,
    Kind::Update,
    Kind::Interim,
    Kind::Upgrade,
    Kind::Drain,
    Kind::Bye,
    Kind::Welcome,
    Kind::Unknown(200),
];

pub(crate) struct Stranger {
    name: String,
    port: Port,
    instance: u64,
    epochs: Vec<u64>,
    /// What was said to it last, which tells numbers that mean something.
    heard: Option<Message>,
}

impl Stranger {
    pub(crate) fn new(name: &str, node: usize, links: usize, context: &mut Context<'_>) -> Self {
        context.after(Duration::from_millis(100), Tag::Harm);
        Self {
            name: name.to_owned(),
            port: if node.is_multiple_of(2) {
                Port::Frontends
            } else {
                Port::Backends
            },
            instance: context.dice.next(),
            epochs: vec![0; links],
            heard: None,
        }
    }

    fn hello(&mut self, link: usize, context: &mut Context<'_>) {
        let is_backend = self.port == Port::Backends;
        self.epochs[link] = context.dice.next();
        let services = [site::EVIL.to_owned()];
        let hello = Hello {
            oldest: VERSION,
            newest: VERSION,
            node: self.name.clone(),
            instance: self.instance,
            lane: 0,
            heartbeat: limits::HEARTBEAT,
            window: 100_000,
            capacity: u32::from(is_backend) * 4,
            services: services.into_iter().filter(|_| is_backend).collect(),
        };
        let message = Message::new(RoutingHeader {
            epoch: self.epochs[link],
            ..RoutingHeader::new(Kind::Hello)
        });
        context.send(link, message.with_metadata(hello.encode()));
    }

    /// Something of every kind, about numbers that may mean something.
    fn rubbish(&self, link: usize, context: &mut Context<'_>) -> Message {
        let dice = &mut *context.dice;
        let heard = self.heard.as_ref().map(|message| message.header);
        let correlation = match (dice.number(0..3), heard) {
            (0, Some(header)) => header.correlation,
            (1, _) => dice.next(),
            _ => dice.number(0..200),
        };
        let header = RoutingHeader {
            correlation,
            epoch: self.epochs[link],
            credit: dice.number(0..2000),
            flags: Flags(u16::try_from(dice.number(0..512)).expect("it is below") as _),
            deadline_ms: 2000,
            window: 1000,
            service: ServiceId::of(
                dice.pick(site::SERVICES)
                    .expect("there are some")
                    .as_bytes(),
            ),
            ..RoutingHeader::new(dice.pick(KINDS).expect("there are some"))
        };
        let bytes = |length: u64| Bytes::from(vec![7; usize::try_from(length).unwrap_or(0)]);
        // Never as long as a head of ours: handlers see that it is none.
        let metadata = bytes(dice.number(0..15));
        let length = if dice.percent(5) { 20_000 } else { 30 };
        let content = bytes(dice.number(0..length));
        Message::new(header)
            .with_metadata(metadata)
            .with_content(content)
    }

    fn harm(&mut self, link: usize, context: &mut Context<'_>) {
        match context.dice.number(0..20) {
            0 => context.effects.push(Effect::SendGarbage { link }),
            1 => context.effects.push(Effect::Hangup { link }),
            2..=4 => self.hello(link, context),
            5..=9 => {
                let overheard = context.record.overheard();
                let index = context.dice.index(overheard.len().max(1));
                let of_others = context.record.overheard().get(index).cloned();
                if let Some(message) = of_others {
                    context.send(link, message);
                }
            }
            _ => {
                let message = self.rubbish(link, context);
                context.send(link, message);
            }
        }
    }
}

impl Node for Stranger {
    fn port(&self) -> Port {
        self.port
    }

    fn up(&mut self, link: usize, context: &mut Context<'_>) {
        self.hello(link, context);
    }

    fn down(&mut self, _link: usize, _context: &mut Context<'_>) {}

    fn hear(&mut self, _link: usize, message: Message, _context: &mut Context<'_>) {
        self.heard = Some(message);
    }

    fn timer(&mut self, _tag: Tag, context: &mut Context<'_>) {
        let link = context.dice.index(self.epochs.len());
        self.harm(link, context);
        let delay = context.dice.micros(200..20_000);
        context.after(delay, Tag::Harm);
    }

    fn drain(&mut self, _context: &mut Context<'_>) {}

    fn check_quiet(&self, _ledger: &dyn Fn(usize) -> Option<[u64; 3]>) {}
}
