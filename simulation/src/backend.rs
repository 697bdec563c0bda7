//! A backend: the real [`Session`], and handlers of every temper.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use scale0_backend::testing::{
    Action, BrokerId, Call, Event, Output, Session, Settings, Shape, StreamId,
};
use scale0_transport::Port;
use scale0_wire::{End, Fields, Flags, Message, OtherBroker, Reason, Reject, limits};

use crate::content::{ENDLESS, LONGEST, check_content, content, pair, read_pair};
use crate::node::{Context, Effect, LITTLE, Node, Tag};
use crate::site;

/// What a handler may have said that is not sent yet.
const QUEUED: usize = 32 * 1024;

/// Requests, event streams and tunnels at a time.
const MAX_STREAMS: usize = 200;

pub(crate) struct Backend {
    session: Session,
    /// The broker that each link leads to.
    knows: Vec<usize>,
    trade: site::Trade,
    capacity: u32,
    /// The greatest capacity of this process: what was lent of it may be used yet.
    most: u32,
    /// Handlers, by the serial numbers of their streams.
    works: BTreeMap<u64, Work>,
    actions: Vec<Action>,
}

/// What a handler is going to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    Answer,
    /// It answers that the application has failed.
    Failure,
    Stream,
    Events,
    Tunnel,
    Reject,
    Fail,
    /// It is gone without a word.
    Vanish,
    /// It waits for something that never comes.
    Hang,
}

struct Work {
    stream: StreamId,
    /// The request, by the record; 0 if it is a stranger's, who says what it likes.
    id: u64,
    is_strange: bool,
    plan: Plan,
    /// It occupies credit.
    is_credited: bool,
    has_head: bool,
    /// Nobody listens any more.
    is_stopping: bool,
    total: u64,
    sent: u64,
    /// What it has said that is not sent yet.
    queued: usize,
    /// What has come of the request's content.
    received: u64,
    /// How much it is, where it is to end.
    expected: u64,
    is_read: bool,
    /// It waits for all of that before it answers.
    reads: bool,
    /// It has said its last.
    is_done: bool,
}

impl Backend {
    /// A backend of this trade that dials these brokers.
    pub(crate) fn new(
        name: &str,
        trade: site::Trade,
        knows: Vec<usize>,
        context: &mut Context<'_>,
    ) -> Self {
        let settings = Settings {
            node: name.to_owned(),
            instance: context.dice.next(),
            lane: 0,
            services: trade.services.iter().map(|&it| it.to_owned()).collect(),
            capacity: trade.capacity,
            max_streams: MAX_STREAMS,
            heartbeat: limits::HEARTBEAT,
            drain_timeout: if context.is_healthy {
                Duration::from_secs(30)
            } else {
                context.dice.millis(100..6000)
            },
            epoch: context.dice.next(),
        };
        Self {
            session: Session::new(settings, knows.len(), Arc::default()),
            knows,
            trade,
            capacity: trade.capacity,
            most: trade.capacity,
            works: BTreeMap::new(),
            actions: Vec::new(),
        }
    }

    /// Tells the session something, and carries out what it says, and what comes of that.
    fn tell(&mut self, event: Event, context: &mut Context<'_>) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            self.session.step(context.clock, event, &mut self.actions);
            let mut actions = std::mem::take(&mut self.actions);
            for action in actions.drain(..) {
                self.perform(action, &mut events, context);
            }
            self.actions = actions;
        }
    }

    fn perform(&mut self, action: Action, events: &mut VecDeque<Event>, context: &mut Context<'_>) {
        match action {
            Action::Send(BrokerId(link), message) => context.send(link, message),
            Action::Redial(BrokerId(link)) => context.effects.push(Effect::Hangup { link }),
            Action::Close(BrokerId(link)) => context.effects.push(Effect::Close { link }),
            Action::Learn(_, other) => self.learn(&other, context),
            Action::Serve(call) => self.serve(&call, context),
            Action::Input(stream, piece) => self.input(stream, &piece, context),
            Action::InputEnd(stream, end) => self.input_end(stream, &end, events, context),
            Action::Released(stream, bytes) => {
                if let Some(work) = self.works.get_mut(&stream.serial) {
                    work.queued -= bytes;
                    // What has no end goes on at its own pace.
                    if work.total != ENDLESS {
                        context.after(Duration::ZERO, Tag::Work(stream.serial));
                    }
                }
            }
            Action::Cancel(stream, _) => {
                let work = self.works.get_mut(&stream.serial);
                let work = work.expect("a handler of nothing is told to stop");
                assert!(!work.is_stopping, "it was told to stop twice");
                work.is_stopping = true;
                // It takes a moment.
                let delay = context.dice.millis(0..20);
                context.after(delay, Tag::Stop(stream.serial));
            }
            Action::Forget(stream) => {
                self.works.remove(&stream.serial);
            }
            Action::Update(..) | Action::Registered(_) => {}
        }
    }

    fn learn(&mut self, other: &OtherBroker, context: &mut Context<'_>) {
        let broker = site::broker_at(&other.endpoint);
        if !self.knows.contains(&broker) {
            self.session.learn_broker(&other.node);
            self.knows.push(broker);
            context.effects.push(Effect::Dial { broker });
        }
    }

    fn serve(&mut self, call: &Call, context: &mut Context<'_>) {
        let flags = call.request.header.flags;
        let is_tunnel = flags.contains(Flags::UPGRADE);
        let asked = read_pair(&call.request.metadata);
        let (id, expected) = asked.unwrap_or((0, 0));
        let dice = &mut *context.dice;
        let plan = if is_tunnel {
            Plan::Tunnel
        } else if context.is_calm || asked.is_none() || context.is_healthy && dice.percent(70) {
            Plan::Answer
        } else if context.is_healthy {
            Plan::Stream
        } else if dice.percent(context.failing) {
            let plans = [Plan::Fail, Plan::Failure, Plan::Vanish];
            dice.pick(&plans).expect("there are some")
        } else {
            match dice.number(0..100) {
                0..=4 => Plan::Reject,
                5..=6 => Plan::Hang,
                7..=9 => Plan::Events,
                10..=40 => Plan::Stream,
                _ => Plan::Answer,
            }
        };
        let total = match plan {
            Plan::Events | Plan::Tunnel => ENDLESS,
            Plan::Stream => dice.number(0..100_000),
            _ => dice.number(0..3000),
        };
        let work = Work {
            stream: call.stream,
            id,
            is_strange: asked.is_none(),
            plan,
            is_credited: true,
            has_head: false,
            is_stopping: false,
            total,
            sent: 0,
            queued: 0,
            received: 0,
            expected: if is_tunnel { ENDLESS } else { expected },
            is_read: flags.contains(Flags::FINAL),
            // Some answer without a look at it.
            reads: plan != Plan::Reject && !is_tunnel && dice.percent(90),
            is_done: false,
        };
        let is_to_read = work.reads && !work.is_read;
        self.works.insert(call.stream.serial, work);
        let running = self.works.values().filter(|work| work.is_credited).count();
        assert!(
            running <= self.most as usize,
            "{running} requests for a capacity of {}, {} at the most",
            self.capacity,
            self.most
        );
        if asked.is_some() && plan != Plan::Reject {
            context.record.started(id);
        }
        let delay = match context.dice.number(0..10) {
            _ if plan == Plan::Reject => Duration::ZERO,
            0 => context.dice.millis(50..400),
            _ => context.dice.millis(1..30),
        };
        context.after(delay, Tag::Work(call.stream.serial));
        if is_to_read {
            let delay = context.dice.millis(0..10);
            context.after(delay, Tag::Upload(call.stream.serial));
        }
    }

    fn input(&mut self, stream: StreamId, piece: &Bytes, context: &mut Context<'_>) {
        let work = self.works.get_mut(&stream.serial);
        let work = work.expect("content for nobody");
        if !work.is_strange {
            check_content("the request", work.id, work.received, piece);
        }
        work.received += piece.len() as u64;
        let slowest = if context.dice.percent(90) { 3 } else { 300 };
        let delay = context.dice.millis(0..slowest);
        let read = Tag::Read {
            id: stream.serial,
            bytes: piece.len(),
        };
        context.after(delay, read);
    }

    fn input_end(
        &mut self,
        stream: StreamId,
        end: &Bytes,
        events: &mut VecDeque<Event>,
        context: &mut Context<'_>,
    ) {
        let work = self.works.get_mut(&stream.serial);
        let work = work.expect("an end for nobody");
        if matches!(End::decode(end), Ok(End::Complete(_))) {
            assert!(
                work.is_strange || work.received == work.expected || work.expected == ENDLESS,
                "request {} ended whole after {} of {} bytes",
                work.id,
                work.received,
                work.expected
            );
            work.is_read = true;
            context.after(Duration::ZERO, Tag::Work(stream.serial));
        } else if !work.is_stopping {
            let end = failed(Reason::ClientGone);
            events.push_back(Event::Output(work.stream, Output::End(end)));
        }
    }

    /// A handler does what it can.
    fn work(&mut self, serial: u64, context: &mut Context<'_>) {
        let Some(work) = self.works.get_mut(&serial) else {
            return;
        };
        if work.is_stopping || work.is_done || work.reads && !work.is_read {
            return;
        }
        let (id, plan) = (work.id, work.plan);
        // The application is calm too: nothing goes on for ever.
        let plan = match plan {
            Plan::Hang if context.is_calm => Plan::Fail,
            plan => plan,
        };
        let whole = match plan {
            Plan::Hang => return,
            Plan::Vanish => return self.stop(serial, context),
            Plan::Reject => {
                let reject = Reject {
                    reason: Reason::AppRefused,
                    retry_after_ms: 0,
                    detail: String::new(),
                };
                Some(Output::Reject(reject.encode()))
            }
            Plan::Fail => Some(Output::End(failed(Reason::AppFailed))),
            Plan::Answer | Plan::Failure => {
                let shape = if plan == Plan::Answer {
                    Shape::Plain
                } else {
                    Shape::Failure
                };
                Some(Output::Head {
                    metadata: pair(id, work.total),
                    content: content(id, 0, work.total),
                    shape,
                    last: true,
                })
            }
            Plan::Stream | Plan::Events | Plan::Tunnel => None,
        };
        match whole {
            Some(output) => self.say(serial, output, context),
            None => self.stream(serial, context),
        }
    }

    /// A response in pieces.
    fn stream(&mut self, serial: u64, context: &mut Context<'_>) {
        let work = &self.works[&serial];
        if !work.has_head {
            let shape = match work.plan {
                Plan::Events => Shape::EventStream,
                Plan::Tunnel => Shape::Upgrade,
                _ => Shape::Plain,
            };
            let head = Output::Head {
                metadata: pair(work.id, work.total),
                content: Bytes::new(),
                shape,
                last: false,
            };
            self.say(serial, head, context);
        }
        while let Some(work) = self.works.get_mut(&serial)
            && !work.is_stopping
            && !work.is_done
        {
            let is_over = match work.total {
                ENDLESS => context.is_calm || LONGEST <= work.sent + 4096,
                total => work.sent == total,
            };
            if is_over {
                let end = End::Complete(Fields::default()).encode();
                return self.say(serial, Output::End(end), context);
            }
            if QUEUED <= work.queued {
                if work.total == ENDLESS {
                    context.after(Duration::from_millis(300), Tag::Work(serial));
                }
                return;
            }
            let length = match work.total {
                ENDLESS => context.dice.number(1..4096),
                total => (total - work.sent).min(context.dice.number(1..40_000)),
            };
            let piece = content(work.id, work.sent, length);
            let charge = piece.len().max(256);
            work.sent += length;
            work.queued += charge;
            let is_endless = work.total == ENDLESS;
            let data = Output::Data {
                content: piece,
                charge,
            };
            self.say(serial, data, context);
            if is_endless {
                let delay = context.dice.millis(0..300);
                return context.after(delay, Tag::Work(serial));
            }
        }
    }

    fn say(&mut self, serial: u64, output: Output, context: &mut Context<'_>) {
        let Some(work) = self.works.get_mut(&serial) else {
            return;
        };
        if let Output::Head { shape, .. } = &output {
            work.has_head = true;
            // Such streams give their credit back.
            work.is_credited &= !matches!(shape, Shape::EventStream | Shape::Upgrade);
        }
        work.is_done = output.is_last();
        let stream = work.stream;
        self.tell(Event::Output(stream, output), context);
    }

    /// A handler is gone.
    fn stop(&mut self, serial: u64, context: &mut Context<'_>) {
        if let Some(work) = self.works.get_mut(&serial) {
            work.is_done = true;
            let stream = work.stream;
            self.tell(Event::Stopped(stream), context);
        }
    }

    fn resize(&mut self, capacity: u32, context: &mut Context<'_>) {
        self.capacity = capacity;
        self.most = self.most.max(capacity);
        self.tell(Event::Capacity(capacity), context);
    }

    fn offer(&mut self, services: &[&'static str], context: &mut Context<'_>) {
        let services = services.iter().map(|&name| name.to_owned()).collect();
        self.tell(Event::Services(services), context);
    }
}

impl Node for Backend {
    fn port(&self) -> Port {
        Port::Backends
    }

    fn up(&mut self, link: usize, context: &mut Context<'_>) {
        self.tell(Event::Up(BrokerId(link)), context);
    }

    fn down(&mut self, link: usize, context: &mut Context<'_>) {
        self.tell(Event::Down(BrokerId(link)), context);
    }

    fn hear(&mut self, link: usize, message: Message, context: &mut Context<'_>) {
        self.tell(Event::Message(BrokerId(link), message), context);
    }

    fn timer(&mut self, tag: Tag, context: &mut Context<'_>) {
        match tag {
            Tag::Work(serial) => self.work(serial, context),
            Tag::Upload(serial) => {
                if let Some(work) = self.works.get(&serial) {
                    let stream = work.stream;
                    self.tell(Event::Reading(stream), context);
                }
            }
            Tag::Read { id: serial, bytes } => {
                if let Some(work) = self.works.get(&serial) {
                    let stream = work.stream;
                    self.tell(Event::Consumed(stream, bytes), context);
                }
            }
            Tag::Stop(serial) => self.stop(serial, context),
            Tag::Return => self.resize(self.trade.capacity, context),
            Tag::Reoffer => self.offer(self.trade.services, context),
            other => panic!("a backend set no {other:?}"),
        }
    }

    fn set_full(&mut self, link: usize, is_full: bool, context: &mut Context<'_>) {
        let broker = BrokerId(link);
        let event = if is_full {
            Event::Full(broker)
        } else {
            Event::Writable(broker)
        };
        self.tell(event, context);
    }

    fn deadline(&self) -> Option<Instant> {
        self.session.deadline()
    }

    fn tick(&mut self, context: &mut Context<'_>) {
        self.tell(Event::Tick { cpu_permille: 0 }, context);
        if context.is_audit || self.works.len() <= LITTLE {
            self.session.audit();
        }
        if self.session.is_gone() {
            context.effects.push(Effect::Exit);
        }
    }

    fn drain(&mut self, context: &mut Context<'_>) {
        self.tell(Event::Drain, context);
    }

    /// It works on fewer or more requests for a while, or offers fewer services.
    fn change(&mut self, context: &mut Context<'_>) {
        let delay = context.dice.millis(1..6000);
        if context.dice.percent(50) {
            let most = u64::from(self.trade.capacity) * 2;
            let capacity = context.dice.number(0..most + 1);
            self.resize(u32::try_from(capacity).expect("it is small"), context);
            context.after(delay, Tag::Return);
        } else {
            let left = context.dice.index(self.trade.services.len());
            self.offer(&self.trade.services[..left], context);
            context.after(delay, Tag::Reoffer);
        }
    }

    fn settle(&mut self, context: &mut Context<'_>) {
        if !self.session.is_leaving() {
            self.resize(self.trade.capacity, context);
            self.offer(self.trade.services, context);
        }
        let works: Vec<u64> = self.works.keys().copied().collect();
        for serial in works {
            self.work(serial, context);
        }
    }

    fn check_quiet(&self, ledger: &dyn Fn(usize) -> Option<[u64; 3]>) {
        assert!(self.works.is_empty(), "a handler is still at work");
        let mut lent = 0;
        for link in 0..self.knows.len() {
            if let Some([granted, used, returned]) = self.session.credit(BrokerId(link)) {
                assert_eq!(
                    ledger(link),
                    Some([granted, used, returned]),
                    "its broker keeps another ledger than link {link}"
                );
                lent += granted - used - returned;
            }
        }
        assert!(self.session.is_registered(), "no broker has it");
        assert_eq!(lent, u64::from(self.capacity), "credit was lost");
    }
}

fn failed(reason: Reason) -> Bytes {
    End::Failed {
        reason,
        detail: String::new(),
    }
    .encode()
}
