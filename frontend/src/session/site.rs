//! A lane and its brokers, told in a few words and in virtual time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use scale0_transport::{Hub, Inbox, LinkId, Links, PeerId, Port};
use scale0_wire::{
    Bye, End, Flags, FlightKey, Heartbeat, Kind, Message, OtherBroker, Priority, Reason, Reject,
    RoutingHeader, ServiceId, TraceContext, VERSION, Welcome, Window, limits,
};

use super::{Action, Delivery, Failure, Lane, LaneConfig, OpenRequest, StreamId};

/// The most streams a lane of a story opens.
pub(super) const STREAMS: usize = 8;

pub(super) struct Site {
    pub(super) lane: Lane,
    pub(super) now: Instant,
    pub(super) links: Vec<LinkId>,
    pub(super) redialled: Vec<LinkId>,
    /// What brokers have named.
    pub(super) named: Vec<OtherBroker>,
    pub(super) closed: Vec<LinkId>,
    /// What its brokers speak.
    pub(super) version: u8,
    /// Of the newest HELLO to each broker.
    epochs: Vec<u64>,
    sent: Vec<(LinkId, Message)>,
    delivered: Vec<(StreamId, Delivery)>,
}

/// Gives out link ids; nobody is at the other end.
struct NoHub;

impl Hub for NoHub {
    fn attach(&self, _port: Port, _locality: u32, _inbox: Arc<Inbox>) -> PeerId {
        PeerId::in_process(0)
    }

    fn submit(&self, _from: PeerId, _message: Message) {}

    fn detach(&self, _peer: PeerId) {}
}

#[expect(clippy::disallowed_methods, reason = "an epoch for tests")]
fn epoch() -> Instant {
    // Far enough from the clock's beginning for any story.
    Instant::now() + Duration::from_secs(100_000)
}

/// An idempotent request that is whole, and belongs to no flight.
pub(super) fn get() -> OpenRequest {
    OpenRequest {
        head: Bytes::from_static(b"head"),
        content: Bytes::from_static(b"content"),
        whole: true,
        idempotent: true,
        upgrade: false,
        hedge: false,
        priority: Priority::Interactive,
        service: ServiceId::of(b"shop"),
        affinity: 0,
        flight: FlightKey(0),
        timeout: Duration::from_secs(30),
        idle_timeout: Duration::from_secs(60),
        hold: Duration::from_secs(10),
        trace: TraceContext::default(),
        explain: false,
    }
}

pub(super) fn post() -> OpenRequest {
    OpenRequest {
        idempotent: false,
        ..get()
    }
}

/// An idempotent request whose content follows.
pub(super) fn put() -> OpenRequest {
    OpenRequest {
        whole: false,
        ..get()
    }
}

pub(super) fn complete() -> End {
    End::Complete(scale0_wire::Fields::default())
}

pub(super) fn broken(reason: Reason) -> End {
    End::Failed {
        reason,
        detail: String::new(),
    }
}

impl Site {
    /// Brokers that are dialled and not reached.
    pub(super) fn dialling(brokers: usize) -> Self {
        let now = epoch();
        let config = LaneConfig {
            node: "node".into(),
            instance: 1,
            lane: 0,
            first_epoch: 100,
            max_streams: STREAMS,
            window_bytes: u64::from(u32::MAX),
        };
        let mut lane = Lane::new(config, now);
        let mut ids = Links::new();
        let links: Vec<LinkId> = (0..brokers)
            .map(|_| ids.attach(Arc::new(NoHub), Port::Frontends, 0))
            .collect();
        for link in &links {
            lane.add_broker(now, *link);
        }
        let epochs = vec![0; brokers];
        Self {
            lane,
            now,
            links,
            redialled: Vec::new(),
            named: Vec::new(),
            closed: Vec::new(),
            version: VERSION,
            epochs,
            sent: Vec::new(),
            delivered: Vec::new(),
        }
    }

    /// Brokers that have said WELCOME.
    pub(super) fn new(brokers: usize) -> Self {
        let mut site = Self::dialling(brokers);
        for broker in 0..brokers {
            site.up(broker);
            site.welcome(broker);
        }
        site.sent.clear();
        site
    }

    pub(super) fn step<T>(
        &mut self,
        step: impl FnOnce(&mut Lane, Instant, &mut Vec<Action>) -> T,
    ) -> T {
        let mut actions = Vec::new();
        let result = step(&mut self.lane, self.now, &mut actions);
        for action in actions {
            match action {
                Action::Send(link, message) => {
                    if message.header.kind == Kind::Hello {
                        let broker = self.links.iter().position(|other| *other == link).unwrap();
                        self.epochs[broker] = message.header.epoch;
                    }
                    self.sent.push((link, message));
                }
                Action::Deliver(id, delivery) => self.delivered.push((id, delivery)),
                Action::Redial(link) => self.redialled.push(link),
                Action::Learn(_, other) => self.named.push(other),
                Action::Close(link) => self.closed.push(link),
            }
        }
        result
    }

    /// A broker of this node is dialled because another one has named it. Returns which it is.
    pub(super) fn learn(&mut self, node: &str) -> usize {
        let mut ids = Links::new();
        let more = (0..=self.links.len()).map(|_| ids.attach(Arc::new(NoHub), Port::Frontends, 0));
        let link = more.last().unwrap();
        let now = self.now;
        self.lane.learn_broker(now, link, node.to_owned());
        self.links.push(link);
        self.epochs.push(0);
        self.links.len() - 1
    }

    pub(super) fn up(&mut self, broker: usize) {
        let link = self.links[broker];
        self.step(|lane, now, actions| lane.up(now, link, actions));
    }

    pub(super) fn down(&mut self, broker: usize) {
        let link = self.links[broker];
        self.step(|lane, now, actions| lane.down(now, link, actions));
    }

    pub(super) fn welcome(&mut self, broker: usize) {
        self.welcome_with(broker, limits::CONNECTION_WINDOW, limits::HEARTBEAT);
    }

    pub(super) fn welcome_with(&mut self, broker: usize, window: u32, heartbeat: Duration) {
        let (node, site) = (format!("broker-{broker}"), "fra".into());
        let welcome = Welcome {
            version: self.version,
            node,
            instance: 7,
            site,
            heartbeat,
            window,
        };
        self.say(broker, Kind::Welcome, None, welcome.encode());
    }

    pub(super) fn bye(&mut self, broker: usize, why: Bye) {
        self.say(broker, Kind::Bye, None, why.encode());
    }

    /// The broker says this, in its present session.
    pub(super) fn say(&mut self, broker: usize, kind: Kind, id: Option<StreamId>, metadata: Bytes) {
        self.say_more(broker, kind, id, metadata, 0, Flags(0));
    }

    pub(super) fn say_more(
        &mut self,
        broker: usize,
        kind: Kind,
        id: Option<StreamId>,
        metadata: Bytes,
        content: usize,
        flags: Flags,
    ) {
        let header = RoutingHeader {
            correlation: id.map_or(0, |id| id.0),
            epoch: self.epochs[broker],
            flags,
            ..RoutingHeader::new(kind)
        };
        let content = Bytes::from(vec![b'x'; content]);
        self.hear(
            broker,
            Message::new(header)
                .with_metadata(metadata)
                .with_content(content),
        );
    }

    pub(super) fn hear(&mut self, broker: usize, mut message: Message) {
        message.set_version(self.version);
        let link = self.links[broker];
        self.step(|lane, now, actions| lane.receive(now, link, message, actions));
    }

    /// Of the broker's present session.
    pub(super) fn epoch(&self, broker: usize) -> u64 {
        self.epochs[broker]
    }

    pub(super) fn head(&mut self, broker: usize, id: StreamId) {
        self.say(broker, Kind::Response, Some(id), Bytes::from_static(b"200"));
    }

    pub(super) fn answer(&mut self, broker: usize, id: StreamId) {
        self.say_more(
            broker,
            Kind::Response,
            Some(id),
            Bytes::from_static(b"200"),
            3,
            Flags::FINAL,
        );
    }

    pub(super) fn chunk(&mut self, broker: usize, id: StreamId, bytes: usize) {
        self.say_more(broker, Kind::Chunk, Some(id), Bytes::new(), bytes, Flags(0));
    }

    pub(super) fn end(&mut self, broker: usize, id: StreamId, end: &End) {
        self.say(broker, Kind::End, Some(id), end.encode());
    }

    /// The broker has failed it: so many losses it is known to have survived, or not.
    pub(super) fn fail_after(&mut self, broker: usize, id: StreamId, reason: Reason, losses: u8) {
        let header = RoutingHeader {
            correlation: id.0,
            epoch: self.epochs[broker],
            attempt: losses,
            ..RoutingHeader::new(Kind::End)
        };
        let message = Message::new(header).with_metadata(broken(reason).encode());
        self.hear(broker, message);
    }

    pub(super) fn reject(&mut self, broker: usize, id: StreamId, reason: Reason) {
        let reject = Reject {
            reason,
            retry_after_ms: 0,
            detail: String::new(),
        };
        self.say(broker, Kind::Reject, Some(id), reject.encode());
    }

    pub(super) fn window(&mut self, broker: usize, id: Option<StreamId>, limit: u64) {
        self.say(broker, Kind::Window, id, Window(limit).encode());
    }

    pub(super) fn open(&mut self, open: OpenRequest) -> StreamId {
        self.step(|lane, now, actions| lane.open(now, open, actions))
            .unwrap()
    }

    pub(super) fn upload(&mut self, id: StreamId, content: &[u8]) {
        let content = Bytes::copy_from_slice(content);
        self.step(|lane, now, actions| lane.upload(now, id, content, actions));
    }

    pub(super) fn end_upload(&mut self, id: StreamId, end: &End) {
        self.step(|lane, now, actions| lane.end_upload(now, id, end, actions));
    }

    /// Time goes by; the lane ticks when it asked for it. These brokers say HEARTBEAT every half second.
    pub(super) fn pass(&mut self, time: Duration, alive: &[usize]) {
        let until = self.now + time;
        let mut beat = self.now;
        loop {
            let owed = self.lane.deadline().unwrap_or(until);
            self.now = self.now.max(owed.min(beat)).min(until);
            if beat <= self.now {
                beat = self.now + Duration::from_millis(500);
                for broker in alive {
                    self.say(
                        *broker,
                        Kind::Heartbeat,
                        None,
                        Heartbeat::default().encode(),
                    );
                }
            }
            // A real timer is late by a little, always.
            self.now += Duration::from_micros(100);
            if owed <= self.now {
                self.step(Lane::tick);
            }
            if until <= self.now {
                return;
            }
        }
    }

    /// What was sent to this broker since this was asked last.
    pub(super) fn sent_to(&mut self, broker: usize) -> Vec<Message> {
        let link = self.links[broker];
        let (its, others) = std::mem::take(&mut self.sent)
            .into_iter()
            .partition(|(to, _)| *to == link);
        self.sent = others;
        let its: Vec<(LinkId, Message)> = its;
        its.into_iter().map(|(_, message)| message).collect()
    }

    pub(super) fn kinds_to(&mut self, broker: usize) -> Vec<Kind> {
        self.sent_to(broker)
            .iter()
            .map(|message| message.header.kind)
            .collect()
    }

    /// What the streams' owners were handed since this was asked last.
    pub(super) fn delivered(&mut self) -> Vec<(StreamId, Delivery)> {
        std::mem::take(&mut self.delivered)
    }

    /// Why the only stream that was handed anything since failed.
    pub(super) fn failure(&mut self) -> Failure {
        match self.delivered().as_slice() {
            [(_, Delivery::Failed(failure))] => failure.clone(),
            other => panic!("no failure alone: {other:?}"),
        }
    }

    /// The broker that the stream was sent to just now; anything else that was sent is forgotten.
    pub(super) fn asked(&mut self) -> Option<usize> {
        self.request().map(|(broker, _)| broker)
    }

    /// The broker that a stream was sent to just now, and its REQUEST; anything else that was sent is forgotten.
    pub(super) fn request(&mut self) -> Option<(usize, Message)> {
        let mut sent = std::mem::take(&mut self.sent).into_iter();
        let (link, request) = sent.find(|(_, message)| message.header.kind == Kind::Request)?;
        let broker = self.links.iter().position(|other| *other == link)?;
        Some((broker, request))
    }

    /// What must hold whatever happens.
    pub(super) fn check(&self) {
        let statuses = self.lane.brokers();
        for (broker, status) in self.lane.brokers.iter().zip(&statuses) {
            let streams = self
                .lane
                .streams
                .iter()
                .filter(|(_, stream)| stream.link == Some(broker.link))
                .count();
            assert_eq!(broker.outstanding, streams);
            assert_eq!(status.outstanding, streams);
            assert!(
                streams == 0 || broker.is_connected(),
                "streams are with a broker that has no session"
            );
            assert!(broker.line.len() <= streams);
            for id in &broker.line {
                let stream = self
                    .lane
                    .streams
                    .get(id.seat())
                    .filter(|stream| stream.id == *id);
                assert!(
                    stream.is_some_and(|stream| stream.in_line && stream.link == Some(broker.link))
                );
            }
            assert!(
                broker.line.is_empty() || broker.send.room() == 0,
                "content waits although there is room"
            );
        }
        for (_, stream) in &self.lane.streams {
            assert!(stream.tried.len() <= self.links.len());
        }
        assert!(self.lane.open_streams() <= STREAMS);
    }
}
