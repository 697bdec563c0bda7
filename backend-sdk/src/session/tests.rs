//! A stage for stories: a session, what it did, and brokers that say what a story wants.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use scale0_wire::{
    Bye, End, Fields, Flags, Heartbeat, Kind, Message, Reason, Reject, RoutingHeader, VERSION,
    Wanted, Welcome, Window,
};

use super::{Action, BrokerId, Event, Output, Session, Settings, Shape, StreamId};
use crate::Counters;

#[expect(clippy::disallowed_methods, reason = "an epoch for tests")]
pub(crate) fn start() -> Instant {
    Instant::now()
}

/// The session under test, at a time of its own.
pub(super) struct Stage {
    pub(super) session: Session,
    pub(super) now: Instant,
    pub(super) counters: Arc<Counters>,
    pub(super) actions: Vec<Action>,
    /// What its brokers speak.
    pub(super) version: u8,
    epochs: Vec<u64>,
}

impl Stage {
    /// A backend of this capacity that all of these brokers have welcomed.
    pub(super) fn welcomed(capacity: u32, brokers: usize) -> Self {
        let mut stage = Self::new(capacity, brokers);
        for index in 0..brokers {
            stage.up(index);
            stage.welcome(index);
        }
        stage.tick();
        stage.actions.clear();
        stage
    }

    pub(super) fn new(capacity: u32, brokers: usize) -> Self {
        let settings = Settings {
            node: "shop-1".into(),
            instance: 7,
            lane: 0,
            services: vec!["shop".into()],
            capacity,
            max_streams: 100,
            heartbeat: Duration::from_secs(1),
            drain_timeout: Duration::from_secs(30),
            epoch: 1_000,
        };
        let counters = Arc::new(Counters::default());
        Self {
            session: Session::new(settings, brokers, Arc::clone(&counters)),
            now: start(),
            counters,
            actions: Vec::new(),
            version: VERSION,
            epochs: vec![0; brokers],
        }
    }

    pub(super) fn step(&mut self, event: Event) {
        self.session.step(self.now, event, &mut self.actions);
    }

    pub(super) fn tick(&mut self) {
        self.step(Event::Tick { cpu_permille: 0 });
    }

    /// Lets time pass as a diligent shell would: never past a deadline.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            let due = self.session.deadline().unwrap_or(end);
            self.now = due.clamp(self.now, end);
            self.tick();
        }
    }

    /// A broker of this node is dialled because another one has named it.
    pub(super) fn learn(&mut self, node: &str) -> BrokerId {
        self.epochs.push(0);
        self.session.learn_broker(node)
    }

    pub(super) fn up(&mut self, broker: usize) {
        self.step(Event::Up(BrokerId(broker)));
        let hello = self.sent(Kind::Hello).pop().expect("HELLO");
        self.epochs[broker] = hello.header.epoch;
    }

    pub(super) fn welcome(&mut self, broker: usize) {
        let welcome = Welcome {
            version: self.version,
            node: format!("broker-{broker}"),
            instance: broker as u64,
            site: "local".into(),
            heartbeat: Duration::from_secs(1),
            window: 1_000,
        };
        self.say(broker, Kind::Welcome, 0, welcome.encode());
    }

    pub(super) fn say(&mut self, broker: usize, kind: Kind, correlation: u64, metadata: Bytes) {
        let header = self.header(broker, kind, correlation);
        self.deliver(broker, Message::new(header).with_metadata(metadata));
    }

    pub(super) fn header(&self, broker: usize, kind: Kind, correlation: u64) -> RoutingHeader {
        RoutingHeader {
            correlation,
            epoch: self.epochs[broker],
            ..RoutingHeader::new(kind)
        }
    }

    pub(super) fn deliver(&mut self, broker: usize, mut message: Message) {
        message.set_version(self.version);
        self.step(Event::Message(BrokerId(broker), message));
    }

    /// A whole request comes, whose response may have 100 bytes at first.
    pub(super) fn request(&mut self, broker: usize, correlation: u64) -> Option<StreamId> {
        self.request_with(broker, correlation, Flags::FINAL)
    }

    pub(super) fn request_with(
        &mut self,
        broker: usize,
        correlation: u64,
        flags: Flags,
    ) -> Option<StreamId> {
        let header = RoutingHeader {
            flags,
            window: 100,
            ..self.header(broker, Kind::Request, correlation)
        };
        self.deliver(broker, Message::new(header));
        self.started()
    }

    /// The stream that a handler was started for last, if that is what happened last.
    fn started(&self) -> Option<StreamId> {
        match self.actions.last() {
            Some(Action::Serve(call)) => Some(call.stream),
            _ => None,
        }
    }

    pub(super) fn respond(&mut self, stream: StreamId, content: &'static [u8]) {
        self.head(stream, content, Shape::Plain, true);
    }

    pub(super) fn head(
        &mut self,
        stream: StreamId,
        content: &'static [u8],
        shape: Shape,
        last: bool,
    ) {
        let output = Output::Head {
            metadata: Bytes::from_static(b"head"),
            content: Bytes::from_static(content),
            shape,
            last,
        };
        self.step(Event::Output(stream, output));
    }

    pub(super) fn data(&mut self, stream: StreamId, length: usize) {
        let content = Bytes::from(vec![b'x'; length]);
        let output = Output::Data {
            content,
            charge: length,
        };
        self.step(Event::Output(stream, output));
    }

    pub(super) fn end(&mut self, stream: StreamId) {
        let end = End::Complete(Fields::default()).encode();
        self.step(Event::Output(stream, Output::End(end)));
    }

    pub(super) fn window(&mut self, broker: usize, correlation: u64, limit: u64) {
        self.say(broker, Kind::Window, correlation, Window(limit).encode());
    }

    pub(super) fn demand(&mut self, broker: usize, requests: u32) {
        self.say(broker, Kind::Demand, 0, Wanted(requests).encode());
        self.tick();
    }

    pub(super) fn give_back(&mut self, broker: usize, total: u64) {
        let header = RoutingHeader {
            credit: total,
            ..self.header(broker, Kind::Return, 0)
        };
        self.deliver(broker, Message::new(header));
        self.tick();
    }

    pub(super) fn heartbeat(&mut self, broker: usize) {
        let heartbeat = Heartbeat::default().encode();
        self.say(broker, Kind::Heartbeat, 0, heartbeat);
    }

    pub(super) fn bye(&mut self, broker: usize, bye: Bye) {
        self.say(broker, Kind::Bye, 0, bye.encode());
    }

    /// Takes all messages of this kind that were sent, in their order, and nothing else.
    pub(super) fn sent(&mut self, kind: Kind) -> Vec<Message> {
        self.taken(|_, message| message.header.kind == kind)
    }

    /// Takes all messages that were sent to this broker, in their order, and nothing else.
    pub(super) fn sent_to(&mut self, broker: usize) -> Vec<Message> {
        self.taken(|to, _| to == BrokerId(broker))
    }

    fn taken(&mut self, is_it: impl Fn(BrokerId, &Message) -> bool) -> Vec<Message> {
        let is_it =
            |action: &Action| matches!(action, Action::Send(to, message) if is_it(*to, message));
        let taken = self.actions.extract_if(.., |action| is_it(action));
        taken
            .map(|action| match action {
                Action::Send(_, message) => message,
                other => unreachable!("{other:?}"),
            })
            .collect()
    }

    /// Takes the reasons of all REJECTs.
    pub(super) fn rejects(&mut self) -> Vec<Reason> {
        let rejects = self.sent(Kind::Reject).into_iter();
        rejects
            .map(|message| Reject::decode(&message.metadata).unwrap().reason)
            .collect()
    }

    /// Takes how all streams ended.
    pub(super) fn ends(&mut self) -> Vec<Option<Reason>> {
        let ends = self.sent(Kind::End).into_iter();
        ends.map(|message| match End::decode(&message.metadata).unwrap() {
            End::Complete(_) => None,
            End::Failed { reason, .. } => Some(reason),
        })
        .collect()
    }

    /// Takes the content of all CHUNKs.
    pub(super) fn chunks(&mut self) -> Vec<usize> {
        let chunks = self.sent(Kind::Chunk).into_iter();
        chunks.map(|message| message.content.len()).collect()
    }

    pub(super) fn cancelled(&self, stream: StreamId) -> bool {
        let is_it = |action: &Action| matches!(action, Action::Cancel(id, _) if *id == stream);
        self.actions.iter().any(is_it)
    }

    pub(super) fn quiet(&mut self) {
        self.actions.clear();
    }
}
