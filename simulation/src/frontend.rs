//! A frontend: the real [`Lane`], and clients that ask, send and read at their own pace, and lose their patience.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use scale0_frontend::testing::{Action, Delivery, Lane, LaneConfig, OpenRequest, StreamId};
use scale0_transport::{Hub, Inbox, LinkId, Links, PeerId, Port};
use scale0_wire::{
    End, Fields, FlightKey, Kind, Message, OtherBroker, Priority, Reason, ServiceId, TraceContext,
};

use crate::content::{self, check_content, pair, read_pair};
use crate::node::{Ask, Context, Effect, LITTLE, Node, Tag};
use crate::record::{LATE, Outcome};
use crate::site;

/// Content under way to all streams together: little, so that windows bind.
const WINDOW_BYTES: u64 = 512 * 1024;

/// More than clients ask for even in a flood, unless something keeps them waiting.
const MAX_STREAMS: usize = 512;

/// How long a stream may rest after its head.
const IDLE: Duration = Duration::from_secs(15);

const PRIORITIES: &[Priority] = &[
    Priority::Interactive,
    Priority::Normal,
    Priority::Background,
];

/// What a client waits that is never let down.
const PATIENT: Duration = Duration::from_secs(12);

/// An upload goes on in pieces of at most this.
const PIECE: u64 = 12 * 1024;

/// A frontend that is told to stop waits so long for its clients.
const DRAIN: Duration = Duration::from_secs(15);

pub(crate) struct Frontend {
    lane: Lane,
    /// What gives links their numbers; nothing moves in it.
    maker: Links,
    links: Vec<LinkId>,
    /// The broker that each link leads to.
    knows: Vec<usize>,
    clients: BTreeMap<u64, Client>,
    streams: HashMap<StreamId, u64>,
    /// Requests by their number on the wire.
    correlations: HashMap<u64, u64>,
    actions: Vec<Action>,
    /// Its clients read late.
    is_slow: bool,
    is_leaving: bool,
    is_draining: bool,
    floods_until: Duration,
}

struct Client {
    stream: StreamId,
    /// As its head says.
    total: Option<u64>,
    received: u64,
    /// What was received and not read yet.
    unread: usize,
    /// When something last came or was taken.
    moved: Duration,
    patience: Duration,
    is_tunnel: bool,
    upload: Option<Upload>,
}

struct Upload {
    total: u64,
    sent: u64,
    /// The lane takes a piece.
    is_ready: bool,
    has_ended: bool,
}

/// Gives out links; nobody is at the other end.
pub(crate) struct Nobody;

impl Hub for Nobody {
    fn attach(&self, _port: Port, _locality: u32, _inbox: Arc<Inbox>) -> PeerId {
        PeerId::in_process(0)
    }

    fn submit(&self, _from: PeerId, _message: Message) {}

    fn detach(&self, _peer: PeerId) {}
}

impl Frontend {
    /// A frontend that dials these brokers.
    pub(crate) fn new(
        name: &str,
        knows: Vec<usize>,
        is_slow: bool,
        context: &mut Context<'_>,
    ) -> Self {
        let config = LaneConfig {
            node: name.to_owned(),
            instance: context.dice.next(),
            lane: 0,
            first_epoch: context.dice.next(),
            window_bytes: WINDOW_BYTES,
            max_streams: MAX_STREAMS,
        };
        let mut frontend = Self {
            lane: Lane::new(config, context.clock),
            maker: Links::new(),
            links: Vec::new(),
            knows: Vec::new(),
            clients: BTreeMap::new(),
            streams: HashMap::new(),
            correlations: HashMap::new(),
            actions: Vec::new(),
            is_slow,
            is_leaving: context.is_calm,
            is_draining: false,
            floods_until: Duration::ZERO,
        };
        for broker in knows {
            let link = frontend.link(broker);
            frontend.lane.add_broker(context.clock, link);
        }
        // Its clients come when it is ready, if they are patient enough to ask.
        let ready = if context.is_healthy { 1000 } else { 20 };
        context.after(Duration::from_millis(ready), Tag::Arrive);
        context.after(Duration::from_secs(1), Tag::Watch);
        frontend
    }

    fn link(&mut self, broker: usize) -> LinkId {
        let link = self.maker.attach(Arc::new(Nobody), Port::Frontends, 0);
        self.links.push(link);
        self.knows.push(broker);
        link
    }

    fn index(&self, link: LinkId) -> usize {
        let place = self.links.iter().position(|it| *it == link);
        place.expect("a link of somebody else")
    }

    /// Lets the lane do something, and carries out what it says, and what comes of that.
    fn with_lane<T>(
        &mut self,
        context: &mut Context<'_>,
        act: impl FnOnce(&mut Lane, Instant, &mut Vec<Action>) -> T,
    ) -> T {
        let value = act(&mut self.lane, context.clock, &mut self.actions);
        let mut actions = VecDeque::from(std::mem::take(&mut self.actions));
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Send(link, message) => {
                    self.note(&message, context);
                    context.send(self.index(link), message);
                }
                Action::Redial(link) => {
                    let link = self.index(link);
                    context.effects.push(Effect::Hangup { link });
                }
                Action::Close(link) => {
                    let link = self.index(link);
                    context.effects.push(Effect::Close { link });
                }
                Action::Learn(_, other) => self.learn(other, context),
                Action::Deliver(stream, delivery) => self.deliver(stream, delivery, context),
            }
            // What was done about it makes the lane say more, behind what it has said already.
            actions.extend(self.actions.drain(..));
        }
        value
    }

    /// With what is sent of an upload its time-out begins anew.
    fn note(&mut self, message: &Message, context: &mut Context<'_>) {
        let correlation = message.header.correlation;
        match message.header.kind {
            Kind::Request => {
                let (id, _) = read_pair(&message.metadata).expect("a head of ours");
                self.correlations.insert(correlation, id);
            }
            Kind::Chunk | Kind::End => {
                let id = self.correlations[&correlation];
                if let Some(client) = self.clients.get(&id) {
                    context.record.put_off(id, context.now + client.patience);
                }
            }
            _ => {}
        }
    }

    fn learn(&mut self, other: OtherBroker, context: &mut Context<'_>) {
        let broker = site::broker_at(&other.endpoint);
        if !self.knows.contains(&broker) {
            let link = self.link(broker);
            self.lane.learn_broker(context.clock, link, other.node);
            context.effects.push(Effect::Dial { broker });
        }
    }

    fn deliver(&mut self, stream: StreamId, delivery: Delivery, context: &mut Context<'_>) {
        let id = *(self.streams.get(&stream)).expect("something for a stream that is over");
        let client = self.clients.get_mut(&id).expect("a stream of nobody");
        client.moved = context.now;
        match delivery {
            Delivery::Ready => {
                let upload = client.upload.as_mut().expect("nothing to send");
                upload.is_ready = true;
                // Clients send at their own pace.
                let pace = if context.dice.percent(80) {
                    0..5
                } else {
                    0..400
                };
                let delay = context.dice.millis(pace.start..pace.end);
                context.after(delay, Tag::Upload(id));
            }
            Delivery::Interim(_) | Delivery::Told(_) => {}
            Delivery::Head {
                head,
                content,
                whole,
                upgrade,
            } => {
                let (of, total) = read_pair(&head).expect("a head nobody wrote");
                assert_eq!(of, id, "somebody else's response");
                assert_eq!(upgrade, client.is_tunnel, "request {id} is another thing");
                assert_eq!(client.total, None, "request {id} has a second head");
                client.total = Some(total);
                self.take(id, &content, context);
                if whole {
                    self.complete(id, context);
                }
            }
            Delivery::Content(content) => {
                assert!(client.total.is_some(), "content before the head");
                self.take(id, &content, context);
            }
            Delivery::End(_) => self.complete(id, context),
            Delivery::Failed(failure) => {
                let outcome = if failure.started {
                    Outcome::Failed(failure.reason)
                } else {
                    Outcome::Refused(failure.reason)
                };
                self.over(id, outcome, context);
            }
        }
    }

    fn take(&mut self, id: u64, bytes: &Bytes, context: &mut Context<'_>) {
        let client = self.clients.get_mut(&id).expect("asked just now");
        if bytes.is_empty() {
            return;
        }
        check_content("the response to request", id, client.received, bytes);
        client.received += bytes.len() as u64;
        client.unread += bytes.len();
        let slowest = if self.is_slow { 1500 } else { 50 };
        let delay = context.dice.millis(0..slowest);
        let bytes = bytes.len();
        context.after(delay, Tag::Read { id, bytes });
    }

    fn read(&mut self, id: u64, bytes: usize, context: &mut Context<'_>) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        client.unread -= bytes;
        client.moved = context.now;
        let stream = client.stream;
        self.with_lane(context, |lane, now, actions| {
            lane.consume(now, stream, bytes, actions);
        });
    }

    /// Hands over the next piece of an upload, if the lane takes one.
    fn upload(&mut self, id: u64, context: &mut Context<'_>) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        let (stream, is_tunnel) = (client.stream, client.is_tunnel);
        let Some(upload) = client.upload.as_mut().filter(|it| it.is_ready) else {
            return;
        };
        if upload.has_ended {
            return;
        }
        client.moved = context.now;
        if upload.sent < upload.total {
            upload.is_ready = false;
            let length = context
                .dice
                .number(1..PIECE)
                .min(upload.total - upload.sent);
            let piece = content::content(id, upload.sent, length);
            upload.sent += length;
            return self.with_lane(context, |lane, now, actions| {
                lane.upload(now, stream, piece, actions);
            });
        }
        // A tunnel has no half-close.
        if !is_tunnel {
            upload.has_ended = true;
            let end = End::Complete(Fields::default());
            self.with_lane(context, |lane, now, actions| {
                lane.end_upload(now, stream, &end, actions);
            });
        }
    }

    fn complete(&mut self, id: u64, context: &mut Context<'_>) {
        let client = &self.clients[&id];
        let total = client.total.expect("it ended before it began");
        let is_whole = client.received == total || total == content::ENDLESS;
        assert!(is_whole, "the response to {id} is short");
        self.over(id, Outcome::Answered, context);
    }

    fn over(&mut self, id: u64, outcome: Outcome, context: &mut Context<'_>) {
        let client = self.clients.remove(&id).expect("it is over already");
        self.streams.remove(&client.stream);
        let has_head = client.total.is_some();
        context.record.over(id, outcome, has_head, context.now);
    }

    fn cancel(&mut self, id: u64, context: &mut Context<'_>) {
        let Some(client) = self.clients.get(&id) else {
            return;
        };
        let stream = client.stream;
        self.over(id, Outcome::Cancelled, context);
        self.with_lane(context, |lane, now, actions| {
            lane.cancel(now, stream, Reason::Cancelled, actions);
        });
    }

    fn arrive(&mut self, context: &mut Context<'_>) {
        if self.is_leaving {
            return;
        }
        let dice = &mut *context.dice;
        let is_tunnel = dice.percent(3) && !context.is_healthy;
        let upload = dice.percent(15).then(|| dice.number(0..60_000));
        let ask = Ask {
            is_idempotent: dice.percent(70),
            is_tunnel,
            upload: upload.filter(|_| !is_tunnel),
            patience: if context.is_healthy {
                PATIENT
            } else {
                dice.millis(500..8000)
            },
        };
        let id = self.ask(ask, context);
        let dice = &mut *context.dice;
        if dice.percent(6) {
            let delay = dice.millis(1..500);
            context.after(delay, Tag::Leave(id));
        } else if dice.percent(5) {
            let delay = dice.millis(1..3000);
            context.after(delay, Tag::Join(id));
        }
        let delay = context.next_client(self.floods_until);
        context.after(delay, Tag::Arrive);
    }

    /// More clients wait for the same response.
    fn join(&mut self, id: u64, context: &mut Context<'_>) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        if client.total.is_some() {
            return;
        }
        let stream = client.stream;
        let more = context.dice.millis(0..4000);
        client.patience += more;
        let left = client.patience;
        context.record.put_off(id, context.now + left);
        let waiters = context.dice.index(4) + 2;
        let due = context.clock + left;
        self.with_lane(context, |lane, now, actions| {
            lane.extend(now, stream, due, waiters, actions);
        });
    }

    /// Nobody waits longer than was promised.
    fn watch(&self, context: &Context<'_>) {
        for (id, client) in &self.clients {
            let is_idle = client.total.is_some() && client.unread == 0;
            if client.total.is_none() {
                let due = context.record.due(*id);
                assert!(
                    context.now <= due + LATE,
                    "request {id} was due at {due:?}, and still waits at {:?}",
                    context.now
                );
            } else if is_idle {
                assert!(
                    context.now <= client.moved + IDLE + LATE,
                    "nothing has come for request {id} since {:?}",
                    client.moved
                );
            }
        }
    }

    /// With nobody left, it leaves.
    fn leave_if_done(&mut self, context: &mut Context<'_>) {
        if self.is_draining && self.clients.is_empty() {
            self.leave(context);
        }
    }

    fn leave(&mut self, context: &mut Context<'_>) {
        self.is_draining = false;
        self.with_lane(context, |lane, now, actions| lane.leave(now, actions));
        context.effects.push(Effect::Exit);
    }
}

impl Node for Frontend {
    fn port(&self) -> Port {
        Port::Frontends
    }

    fn up(&mut self, link: usize, context: &mut Context<'_>) {
        let link = self.links[link];
        self.with_lane(context, |lane, now, actions| lane.up(now, link, actions));
    }

    fn down(&mut self, link: usize, context: &mut Context<'_>) {
        let link = self.links[link];
        self.with_lane(context, |lane, now, actions| lane.down(now, link, actions));
    }

    fn hear(&mut self, link: usize, message: Message, context: &mut Context<'_>) {
        let link = self.links[link];
        self.with_lane(context, |lane, now, actions| {
            lane.receive(now, link, message, actions);
        });
        self.leave_if_done(context);
    }

    fn timer(&mut self, tag: Tag, context: &mut Context<'_>) {
        match tag {
            Tag::Arrive => self.arrive(context),
            Tag::Leave(id) => self.cancel(id, context),
            Tag::Join(id) => self.join(id, context),
            Tag::Read { id, bytes } => self.read(id, bytes, context),
            Tag::Upload(id) => self.upload(id, context),
            Tag::Watch => {
                self.watch(context);
                context.after(Duration::from_secs(1), Tag::Watch);
            }
            Tag::CutOff => {
                if self.is_draining {
                    self.leave(context);
                }
            }
            other => panic!("a frontend set no {other:?}"),
        }
        self.leave_if_done(context);
    }

    /// As the dispatcher does with a link whose broker has stopped reading.
    fn set_full(&mut self, link: usize, is_full: bool, context: &mut Context<'_>) {
        if is_full {
            context.effects.push(Effect::Hangup { link });
            self.down(link, context);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.lane.deadline()
    }

    fn tick(&mut self, context: &mut Context<'_>) {
        let is_due = |at: Instant| at <= context.clock;
        if self.lane.deadline().is_some_and(is_due) {
            self.with_lane(context, |lane, now, actions| lane.tick(now, actions));
        }
        if context.is_audit || self.clients.len() <= LITTLE {
            self.lane.audit();
        }
        assert_eq!(self.lane.open_streams(), self.clients.len());
        self.leave_if_done(context);
    }

    /// Whoever is stopped cannot give up in time.
    fn resume(&mut self, pause: Duration, context: &mut Context<'_>) {
        for (id, client) in &mut self.clients {
            let due = context.record.due(*id) + pause;
            context.record.put_off(*id, due);
            client.moved += pause;
        }
    }

    fn crash(&mut self, context: &mut Context<'_>) {
        for (&id, client) in &self.clients {
            let has_head = client.total.is_some();
            context
                .record
                .over(id, Outcome::Void, has_head, context.now);
        }
    }

    fn drain(&mut self, context: &mut Context<'_>) {
        if std::mem::replace(&mut self.is_draining, true) {
            return;
        }
        self.is_leaving = true;
        context.after(DRAIN, Tag::CutOff);
        self.with_lane(context, |lane, now, actions| lane.drain(now, actions));
    }

    fn flood(&mut self, until: Duration) {
        self.floods_until = until;
    }

    /// No more clients; those with endless streams leave.
    fn settle(&mut self, context: &mut Context<'_>) {
        self.is_leaving = true;
        self.is_slow = false;
        let endless = self.clients.iter();
        let endless = endless.filter(|(_, client)| client.total == Some(content::ENDLESS));
        let endless: Vec<u64> = endless.map(|(id, _)| *id).collect();
        for id in endless {
            self.cancel(id, context);
        }
    }

    fn ask(&mut self, ask: Ask, context: &mut Context<'_>) -> u64 {
        let is_idempotent = ask.is_idempotent && !ask.is_tunnel;
        let due = context.now + ask.patience;
        let id = context.record.asked(&ask, due);
        let total = ask.upload.unwrap_or(0);
        let dice = &mut *context.dice;
        // What has one backend is not there while that one is not.
        let services = if context.is_healthy {
            site::REDUNDANT
        } else {
            site::SERVICES
        };
        let service = dice.pick(services).expect("there are some");
        let open = OpenRequest {
            head: pair(id, total),
            content: Bytes::new(),
            whole: ask.upload.is_none(),
            idempotent: is_idempotent,
            upgrade: ask.is_tunnel,
            // Whatever it is: a broker knows what must not be given to two.
            hedge: dice.percent(50),
            priority: dice.pick(PRIORITIES).expect("there are some"),
            affinity: dice.number(0..5),
            service: ServiceId::of(service.as_bytes()),
            flight: FlightKey(u128::from(dice.number(0..3) * dice.number(1..40))),
            timeout: ask.patience,
            idle_timeout: IDLE,
            hold: if context.is_healthy {
                PATIENT
            } else {
                dice.millis(0..3000)
            },
            trace: TraceContext::default(),
            explain: dice.percent(10),
        };
        let upload = match ask.upload {
            Some(total) => Some(total),
            None => ask.is_tunnel.then_some(5000),
        };
        let upload = upload.map(|total| Upload {
            total,
            sent: 0,
            is_ready: false,
            has_ended: false,
        });
        let opened = self.lane.open(context.clock, open, &mut self.actions);
        match opened {
            Ok(stream) => {
                let client = Client {
                    stream,
                    total: None,
                    received: 0,
                    unread: 0,
                    moved: context.now,
                    patience: ask.patience,
                    is_tunnel: ask.is_tunnel,
                    upload,
                };
                self.clients.insert(id, client);
                self.streams.insert(stream, id);
            }
            Err(failure) => {
                let refused = Outcome::Refused(failure.reason);
                context.record.over(id, refused, false, context.now);
            }
        }
        self.with_lane(context, |_, _, _| {});
        id
    }

    fn check_quiet(&self, _ledger: &dyn Fn(usize) -> Option<[u64; 3]>) {
        assert_eq!(self.clients.len(), 0, "somebody still waits");
    }
}
