//! A frontend: clients that ask, read at their own pace, lose patience; and its own rule of what may be repeated.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use scale0_transport::Port;
use scale0_wire::flow::ReceiveWindow;
use scale0_wire::{
    Cancel, End, Fields, Flags, Kind, Message, Priority, Reason, Reject, ServiceId, Window, limits,
};

use super::backend::about;
use super::dialler::{Dialler, Heard, Role};
use crate::brokers::is_farewell;
use crate::content::{ENDLESS, check_content, content, pair, read_pair};
use crate::node::{Ask, Context, Node, Tag};
use crate::record::Outcome;
use crate::site::SERVICES;

/// How long after its deadline a request's outcome may come at the latest: it trusts its broker, which may be stopped, as it may
/// itself, and silence takes a while to be noticed.
const DETECTION: Duration = Duration::from_secs(15);

/// Windows are small, so that they bind.
pub(crate) const CONNECTION: u32 = 128 * 1024;
const STREAM: u32 = 32 * 1024;

/// A frontend turns to another broker at most so often for one request.
const TURNS: u8 = 3;

pub(crate) struct Frontend {
    dialler: Dialler,
    calls: BTreeMap<u64, Call>,
    streams: Vec<BTreeMap<u64, u64>>,
    streams_so_far: u64,
    windows: Vec<ReceiveWindow>,
    /// It reads its connections late.
    is_slow: bool,
    is_leaving: bool,
    floods_until: Duration,
}

struct Call {
    id: u64,
    service: &'static str,
    is_idempotent: bool,
    is_tunnel: bool,
    upload: Option<Upload>,
    deadline: Duration,
    hold: Duration,
    priority: Priority,
    link: usize,
    correlation: u64,
    turns: u8,
    /// Brokers lost under it: another one cannot know whether it has run.
    lost: u8,
    has_head: bool,
    total: u64,
    received: u64,
    window: ReceiveWindow,
}

#[derive(Clone, Copy)]
struct Upload {
    total: u64,
    sent: u64,
    limit: u64,
    has_ended: bool,
}

impl Frontend {
    pub(crate) fn new(name: String, brokers: usize, context: &mut Context<'_>) -> Self {
        context.after(Duration::from_millis(500), Tag::Beat);
        context.after(Duration::from_millis(20), Tag::Arrive);
        Self {
            dialler: Dialler::new(name, Role::Frontend, brokers, context.dice.next()),
            calls: BTreeMap::new(),
            streams: vec![BTreeMap::new(); brokers],
            streams_so_far: 0,
            windows: vec![ReceiveWindow::stream(CONNECTION); brokers],
            is_slow: !context.is_calm && context.dice.percent(30),
            is_leaving: context.is_calm,
            floods_until: Duration::ZERO,
        }
    }

    fn arrive(&mut self, context: &mut Context<'_>) {
        if self.is_leaving {
            return;
        }
        let dice = &mut *context.dice;
        let ask = Ask {
            is_idempotent: dice.percent(70),
            is_tunnel: dice.percent(3),
            upload: dice.percent(15).then(|| dice.number(0..40_000)),
            patience: dice.millis(500..8000),
        };
        let id = self.ask(ask, context);
        if context.dice.percent(6) {
            let delay = context.dice.millis(1..500);
            context.after(delay, Tag::Leave(id));
        }
        let delay = context.next_client(self.floods_until);
        context.after(delay, Tag::Arrive);
    }

    /// Sends a request to a broker that takes new work.
    fn send(&mut self, id: u64, context: &mut Context<'_>) {
        let brokers: Vec<usize> = (0..self.streams.len())
            .filter(|&link| self.dialler.is_open(link) && !self.dialler.links[link].is_draining)
            .collect();
        let call = self.calls.get_mut(&id).unwrap();
        let left = call.deadline.saturating_sub(context.now);
        call.turns += 1;
        if left < Duration::from_millis(1) {
            return self.over(id, Outcome::Failed(Reason::Deadline), context);
        }
        let Some(link) = context.dice.pick(&brokers) else {
            return self.over(id, Outcome::Failed(Reason::NoBroker), context);
        };
        if TURNS < call.turns {
            return self.over(id, Outcome::Failed(Reason::BrokerLost), context);
        }
        self.streams_so_far += 1;
        call.link = link;
        call.correlation = self.streams_so_far;
        call.window = ReceiveWindow::stream(STREAM);
        self.streams[link].insert(call.correlation, id);
        let upload = call.upload.map_or(0, |upload| upload.total);
        let mut message = about(Kind::Request, call.correlation).with_metadata(pair(id, upload));
        message.header.flags = Flags(0)
            .with(Flags::FINAL, call.upload.is_none())
            .with(Flags::IDEMPOTENT, call.is_idempotent)
            .with(Flags::UPGRADE, call.is_tunnel)
            // Whatever it is: a broker knows what must not be given to two.
            .with(Flags::HEDGE, context.dice.percent(50));
        message.header.service = ServiceId::of(call.service.as_bytes());
        message.header.deadline_ms = u32::try_from(left.as_millis()).unwrap();
        message.header.hold_ms = u32::try_from(call.hold.as_millis()).unwrap();
        message.header.window = STREAM;
        message.header.priority = call.priority;
        // Some belong together, and for some several clients wait.
        message.header.affinity = call.id % 5;
        message.header.waiters = u32::from(call.id.is_multiple_of(7)) + 1;
        message.header.attempt = call.lost;
        self.dialler.send(link, message, context);
        self.upload(id, context);
    }

    /// Sends what the upload's window allows.
    fn upload(&mut self, id: u64, context: &mut Context<'_>) {
        loop {
            let Some(call) = self.calls.get_mut(&id) else {
                return;
            };
            let (link, correlation) = (call.link, call.correlation);
            let Some(upload) = &mut call.upload else {
                return;
            };
            if upload.has_ended {
                return;
            }
            if upload.sent == upload.total {
                upload.has_ended = true;
                let end = End::Complete(Fields::default()).encode();
                let message = about(Kind::End, correlation).with_metadata(end);
                return self.dialler.send(link, message, context);
            }
            let left = upload.total - upload.sent;
            let length = left.min(upload.limit - upload.sent).min(4096);
            if length == 0 {
                return;
            }
            let chunk = content(id, upload.sent, length);
            upload.sent += length;
            let message = about(Kind::Chunk, correlation).with_content(chunk);
            self.dialler.send(link, message, context);
        }
    }

    fn session_over(&mut self, link: usize, context: &mut Context<'_>) {
        self.windows[link] = ReceiveWindow::stream(CONNECTION);
        for (_, id) in std::mem::take(&mut self.streams[link]) {
            let call = &self.calls[&id];
            let is_untouched = call.upload.is_none_or(|upload| upload.sent == 0);
            if !call.has_head && call.is_idempotent && is_untouched {
                self.calls.get_mut(&id).unwrap().lost += 1;
                self.repeat(id, context);
            } else {
                self.over(id, Outcome::Failed(Reason::BrokerLost), context);
            }
        }
    }

    fn repeat(&mut self, id: u64, context: &mut Context<'_>) {
        let call = self.calls.get_mut(&id).unwrap();
        if let Some(upload) = &mut call.upload {
            upload.has_ended = false;
            upload.limit = 0;
        }
        self.send(id, context);
    }

    fn hear_broker(&mut self, link: usize, message: &Message, context: &mut Context<'_>) {
        let length = message.content.len();
        if 0 < length {
            assert!(
                self.windows[link].receive(length),
                "the broker exceeded the connection's window"
            );
            if self.is_slow {
                let delay = context.dice.millis(1..1500);
                let epoch = self.dialler.links[link].epoch;
                let bytes = length;
                context.after(delay, Tag::Drain { link, epoch, bytes });
            } else {
                self.consume(link, length, context);
            }
        }
        if message.header.kind == Kind::Window && message.header.correlation == 0 {
            // Uploads are small against the broker's connection window.
            return;
        }
        // Late words about a stream that is over here are no news.
        let Some(&id) = self.streams[link].get(&message.header.correlation) else {
            return;
        };
        let call = self.calls.get_mut(&id).unwrap();
        match message.header.kind {
            Kind::Response | Kind::Upgrade => {
                assert!(!call.has_head, "request {id} has a second head");
                let (of, total) = read_pair(&message.metadata).expect("a head nobody wrote");
                assert_eq!(of, id, "somebody else's response");
                call.has_head = true;
                call.total = total;
                self.take_content(id, &message.content, context);
                if message.header.flags.contains(Flags::FINAL) {
                    self.complete(id, context);
                }
            }
            Kind::Chunk => {
                assert!(call.has_head, "content before the head");
                self.take_content(id, &message.content, context);
            }
            Kind::End => match End::decode(&message.metadata).unwrap() {
                End::Complete(_) => self.complete(id, context),
                End::Failed { reason, .. } => self.over(id, Outcome::Failed(reason), context),
            },
            Kind::Reject => {
                assert!(!call.has_head, "request {id} was refused after its head");
                let reason = Reject::decode(&message.metadata).unwrap().reason;
                if reason == Reason::Draining {
                    self.streams[link].remove(&message.header.correlation);
                    self.repeat(id, context);
                } else if 0 < call.lost {
                    self.over(id, Outcome::Failed(reason), context);
                } else {
                    self.over(id, Outcome::Refused(reason), context);
                }
            }
            Kind::Window => {
                let limit = Window::decode(&message.metadata).unwrap().0;
                if let Some(upload) = &mut call.upload {
                    upload.limit = upload.limit.max(limit);
                }
                self.upload(id, context);
            }
            Kind::Redirect => {}
            other => panic!("a broker said {other:?} to a frontend"),
        }
    }

    fn take_content(&mut self, id: u64, bytes: &Bytes, context: &mut Context<'_>) {
        let call = self.calls.get_mut(&id).unwrap();
        if bytes.is_empty() {
            return;
        }
        check_content("the response to request", id, call.received, bytes);
        assert!(
            call.window.receive(bytes.len()) || call.received == 0,
            "a stream window was exceeded"
        );
        call.received += bytes.len() as u64;
        let delay = context.dice.millis(0..50);
        let bytes = bytes.len();
        context.after(delay, Tag::Read { id, bytes });
    }

    fn read(&mut self, id: u64, bytes: usize, context: &mut Context<'_>) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        let (link, correlation) = (call.link, call.correlation);
        if let Some(limit) = call.window.consume(bytes, crate::epoch(), Duration::ZERO) {
            let message = about(Kind::Window, correlation).with_metadata(Window(limit).encode());
            self.dialler.send(link, message, context);
        }
    }

    fn consume(&mut self, link: usize, bytes: usize, context: &mut Context<'_>) {
        let limit = self.windows[link].consume(bytes, crate::epoch(), Duration::ZERO);
        if let Some(limit) = limit {
            let message = about(Kind::Window, 0).with_metadata(Window(limit).encode());
            self.dialler.send(link, message, context);
        }
    }

    fn complete(&mut self, id: u64, context: &mut Context<'_>) {
        let call = &self.calls[&id];
        assert!(call.has_head, "request {id} ended before it began");
        let is_whole = call.received == call.total || call.total == ENDLESS;
        assert!(is_whole, "request {id} is short");
        self.over(id, Outcome::Answered, context);
    }

    fn cancel(&mut self, id: u64, context: &mut Context<'_>) {
        let call = &self.calls[&id];
        let (link, correlation) = (call.link, call.correlation);
        let cancel = Cancel(Reason::Cancelled).encode();
        let message = about(Kind::Cancel, correlation).with_metadata(cancel);
        self.dialler.send(link, message, context);
        self.over(id, Outcome::Cancelled, context);
    }

    fn over(&mut self, id: u64, outcome: Outcome, context: &mut Context<'_>) {
        let call = self.calls.remove(&id).unwrap();
        self.streams[call.link].remove(&call.correlation);
        context.record.over(id, outcome, call.has_head, context.now);
    }
}

impl Node for Frontend {
    fn port(&self) -> Port {
        Port::Frontends
    }

    fn up(&mut self, link: usize, context: &mut Context<'_>) {
        self.dialler.up(link, context);
    }

    fn down(&mut self, link: usize, context: &mut Context<'_>) {
        self.dialler.down(link);
        self.session_over(link, context);
    }

    fn hear(&mut self, link: usize, message: Message, context: &mut Context<'_>) {
        let epoch = self.dialler.links[link].epoch;
        if is_farewell(&message)
            && message.header.epoch == epoch
            && !context.record.left_unread.contains(&epoch)
        {
            assert!(
                self.streams[link].is_empty(),
                "broker {link} left, and never said what became of {:?}",
                self.streams[link]
            );
        }
        match self.dialler.hear(link, &message, context) {
            Heard::Done => {}
            Heard::Opened => self.windows[link] = ReceiveWindow::stream(CONNECTION),
            Heard::Ended => self.session_over(link, context),
            Heard::Other => self.hear_broker(link, &message, context),
        }
    }

    fn timer(&mut self, tag: Tag, context: &mut Context<'_>) {
        match tag {
            Tag::Beat => {
                for link in self.dialler.beat(&[], context) {
                    self.session_over(link, context);
                }
            }
            Tag::Arrive => self.arrive(context),
            Tag::Leave(id) => {
                if self.calls.contains_key(&id) {
                    self.cancel(id, context);
                }
            }
            Tag::Read { id, bytes } => self.read(id, bytes, context),
            Tag::Drain { link, epoch, bytes } => {
                if self.dialler.is_open(link) && self.dialler.links[link].epoch == epoch {
                    self.consume(link, bytes, context);
                }
            }
            other => panic!("a frontend set no {other:?}"),
        }
    }

    fn resume(&mut self, _pause: Duration, context: &mut Context<'_>) {
        self.dialler.resume(context.now);
    }

    fn crash(&mut self, context: &mut Context<'_>) {
        for call in self.calls.values() {
            let (id, has_head) = (call.id, call.has_head);
            (context.record).over(id, Outcome::Void, has_head, context.now);
        }
    }

    /// It is of an age in which frontends were just killed.
    fn drain(&mut self, _context: &mut Context<'_>) {}

    fn flood(&mut self, until: Duration) {
        self.floods_until = until;
    }

    /// No more clients; those with endless streams leave.
    fn settle(&mut self, context: &mut Context<'_>) {
        self.is_leaving = true;
        self.is_slow = false;
        let endless = self.calls.values().filter(|call| call.total == ENDLESS);
        let endless: Vec<u64> = endless.map(|call| call.id).collect();
        for id in endless {
            self.cancel(id, context);
        }
    }

    fn ask(&mut self, ask: Ask, context: &mut Context<'_>) -> u64 {
        let is_idempotent = ask.is_idempotent && !ask.is_tunnel;
        let deadline = context.now + ask.patience;
        let id = context.record.asked(&ask, deadline + DETECTION);
        let upload = ask.upload.map(|total| Upload {
            total,
            sent: 0,
            limit: 0,
            has_ended: false,
        });
        let call = Call {
            id,
            service: context.dice.pick(SERVICES).unwrap(),
            is_idempotent,
            is_tunnel: ask.is_tunnel,
            upload: match upload {
                None if ask.is_tunnel => Some(Upload {
                    total: 5000,
                    sent: 0,
                    limit: 0,
                    has_ended: false,
                }),
                upload => upload,
            },
            deadline,
            hold: context.dice.millis(0..3000),
            priority: context
                .dice
                .pick(&[
                    Priority::Interactive,
                    Priority::Normal,
                    Priority::Background,
                ])
                .unwrap(),
            link: 0,
            correlation: 0,
            turns: 0,
            lost: 0,
            has_head: false,
            total: 0,
            received: 0,
            window: ReceiveWindow::stream(STREAM),
        };
        self.calls.insert(id, call);
        self.send(id, context);
        id
    }

    fn check_quiet(&self, _ledger: &dyn Fn(usize) -> Option<[u64; 3]>) {
        assert_eq!(self.calls.len(), 0, "somebody still waits");
    }
}

const _: () = assert!(STREAM as usize <= limits::CONTENT);
