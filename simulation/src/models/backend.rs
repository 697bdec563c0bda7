//! A backend: one capacity shared by all brokers, and handlers of every temper.

use std::collections::BTreeMap;
use std::time::Duration;

use scale0_transport::Port;
use scale0_wire::flow::{ReceiveWindow, SendWindow};
use scale0_wire::{
    End, Fields, Flags, Kind, Message, Reason, Reject, RoutingHeader, Wanted, Window, limits,
};

use super::dialler::{Dialler, Heard, Role};
use crate::content::{ENDLESS, check_content, content, pair, read_pair};
use crate::node::{Context, Effect, Node, Tag};
use crate::site::Trade;

/// On RESPONSE, of version 2 on: a status of 500 or more.
const APP_ERROR: Flags = Flags(1 << 8);

/// Upload windows are small, so that they bind.
const UPLOAD: u32 = 8 * 1024;

pub(crate) struct Backend {
    dialler: Dialler,
    capacity: u64,
    sessions: Vec<Session>,
    works: BTreeMap<u64, Work>,
    works_so_far: u64,
    is_draining: bool,
    /// It was stopped for longer than a heartbeat: what was sent to it meanwhile is not to be begun.
    is_waking: bool,
}

/// The ledger of one session.
#[derive(Clone, Debug)]
struct Session {
    granted: u64,
    returned: u64,
    received: u64,
    finished: u64,
    demand: u64,
    reclaimed: Option<Duration>,
    receive: ReceiveWindow,
    send: SendWindow,
}

/// What a handler is going to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    Answer,
    Stream { is_event_stream: bool },
    Tunnel,
    Reject,
    Fail,
    Hang,
}

struct Work {
    /// None: the session is gone, and the handler is being stopped.
    link: Option<usize>,
    correlation: u64,
    id: u64,
    plan: Plan,
    has_credit: bool,
    has_head: bool,
    total: u64,
    sent: u64,
    send: SendWindow,
    upload: Option<Upload>,
    is_ready: bool,
}

struct Upload {
    total: u64,
    received: u64,
    window: ReceiveWindow,
    has_ended: bool,
}

impl Session {
    const fn new() -> Self {
        Self {
            granted: 0,
            returned: 0,
            received: 0,
            finished: 0,
            demand: 0,
            reclaimed: None,
            receive: ReceiveWindow::connection(),
            send: SendWindow::new(limits::CONNECTION_WINDOW),
        }
    }

    const fn out(&self) -> u64 {
        self.granted - self.returned - self.finished
    }

    const fn idle(&self) -> u64 {
        self.granted - self.returned - self.received
    }
}

impl Backend {
    pub(crate) fn new(
        name: String,
        trade: Trade,
        brokers: usize,
        context: &mut Context<'_>,
    ) -> Self {
        context.after(Duration::from_millis(500), Tag::Beat);
        let instance = context.dice.next();
        Self {
            dialler: Dialler::new(name, Role::Backend(trade), brokers, instance),
            capacity: trade.capacity.into(),
            sessions: vec![Session::new(); brokers],
            works: BTreeMap::new(),
            works_so_far: 0,
            is_draining: false,
            is_waking: false,
        }
    }

    fn exit_if_done(&mut self, context: &mut Context<'_>) {
        if self.is_draining && self.works.is_empty() {
            for link in 0..self.sessions.len() {
                if self.dialler.is_open(link) {
                    let bye = Message::new(RoutingHeader::new(Kind::Bye));
                    let bye = bye.with_metadata(scale0_wire::Bye::Leaving.encode());
                    self.say(link, bye, context);
                }
            }
            context.effects.push(Effect::Exit);
        }
    }

    fn session_over(&mut self, link: usize, context: &mut Context<'_>) {
        self.sessions[link] = Session::new();
        for (&key, work) in &mut self.works {
            if work.link == Some(link) {
                work.link = None;
                // Stopping a handler takes a moment.
                let delay = context.dice.millis(0..20);
                context.after(delay, Tag::Work(key));
            }
        }
        self.regrant(context);
    }

    fn hear_broker(&mut self, link: usize, message: &Message, context: &mut Context<'_>) {
        let correlation = message.header.correlation;
        match message.header.kind {
            Kind::Request => self.request(link, message, context),
            Kind::Return => {
                let session = &mut self.sessions[link];
                session.returned = session.returned.max(message.header.credit);
                session.reclaimed = None;
                assert!(
                    session.received + session.returned <= session.granted,
                    "a broker returned what it was not granted: {session:?}"
                );
                self.regrant(context);
            }
            Kind::Demand => {
                let wanted = Wanted::decode(&message.metadata).unwrap().0;
                self.sessions[link].demand = wanted.into();
                self.regrant(context);
            }
            Kind::Window if correlation == 0 => {
                let limit = Window::decode(&message.metadata).unwrap().0;
                self.sessions[link].send.raise(limit);
                let waiting: Vec<u64> = self.works.keys().copied().collect();
                for key in waiting {
                    self.go_on(key, context);
                }
            }
            Kind::Window => {
                let limit = Window::decode(&message.metadata).unwrap().0;
                if let Some(key) = self.find(link, correlation) {
                    self.works.get_mut(&key).unwrap().send.raise(limit);
                    self.go_on(key, context);
                }
            }
            Kind::Chunk => self.upload_chunk(link, message, context),
            Kind::End => {
                if let Some(key) = self.find(link, correlation) {
                    let is_whole = matches!(End::decode(&message.metadata), Ok(End::Complete(_)));
                    let work = self.works.get_mut(&key).unwrap();
                    if let Some(upload) = &mut work.upload {
                        upload.has_ended = true;
                        assert!(
                            !is_whole || upload.received == upload.total,
                            "request {} ended whole after {} of {} bytes",
                            work.id,
                            upload.received,
                            upload.total
                        );
                    }
                    if is_whole || work.plan == Plan::Tunnel {
                        self.go_on(key, context);
                    } else {
                        self.finish(key, Some(Reason::ClientGone), context);
                    }
                }
            }
            Kind::Cancel => {
                if let Some(key) = self.find(link, correlation) {
                    self.finish(key, Some(Reason::Cancelled), context);
                }
            }
            Kind::Update | Kind::Redirect => {}
            other => panic!("a broker said {other:?} to a backend"),
        }
    }

    /// Its application has gone, or is back.
    fn set_away(&mut self, is_away: bool, context: &mut Context<'_>) {
        self.dialler.is_away = is_away;
        for (link, session) in self.sessions.iter().enumerate() {
            if self.dialler.is_open(link) {
                self.dialler.say_capacity(link, session.granted, context);
            }
        }
    }

    fn find(&self, link: usize, correlation: u64) -> Option<u64> {
        let is_it = |work: &Work| work.link == Some(link) && work.correlation == correlation;
        let found = self.works.iter().find(|(_, work)| is_it(work));
        found.map(|(&key, _)| key)
    }

    fn request(&mut self, link: usize, message: &Message, context: &mut Context<'_>) {
        let header = message.header;
        let session = &mut self.sessions[link];
        session.received += 1;
        session.demand = session.demand.saturating_sub(1);
        assert!(
            session.received + session.returned <= session.granted,
            "a broker sent more than it was granted: {session:?}"
        );
        let asked = read_pair(&message.metadata);
        let (id, upload) = asked.unwrap_or((0, 0));
        let is_whole = header.flags.contains(Flags::FINAL);
        let is_tunnel = header.flags.contains(Flags::UPGRADE);
        let plan = if context.is_calm && !is_tunnel {
            Plan::Answer
        } else if self.is_waking || self.is_draining || self.dialler.is_away {
            Plan::Reject
        } else if is_tunnel {
            Plan::Tunnel
        } else {
            match context.dice.number(0..100) {
                _ if context.dice.percent(context.failing) => Plan::Fail,
                0..=4 => Plan::Reject,
                10..=11 => Plan::Hang,
                12..=14 => Plan::Stream {
                    is_event_stream: true,
                },
                15..=40 => Plan::Stream {
                    is_event_stream: false,
                },
                _ => Plan::Answer,
            }
        };
        let total = match plan {
            Plan::Stream { .. } | Plan::Tunnel => context.dice.number(0..100_000),
            _ => context.dice.number(0..3000),
        };
        let key = self.works_so_far;
        self.works_so_far += 1;
        let work = Work {
            link: Some(link),
            correlation: header.correlation,
            id,
            plan,
            has_credit: true,
            has_head: false,
            total,
            sent: 0,
            send: SendWindow::new(header.window),
            upload: (!is_whole || is_tunnel).then(|| Upload {
                total: upload,
                received: 0,
                window: ReceiveWindow::stream(UPLOAD),
                has_ended: false,
            }),
            is_ready: false,
        };
        self.works.insert(key, work);
        let running = self.works.values().filter(|work| work.has_credit).count() as u64;
        assert!(
            running <= self.capacity,
            "{running} requests for a capacity of {}",
            self.capacity
        );
        if plan == Plan::Reject {
            let reason = if self.is_waking {
                Reason::Paused
            } else {
                if !self.dialler.is_away && context.dice.percent(30) {
                    self.set_away(true, context);
                    let delay = context.dice.millis(1..5000);
                    context.after(delay, Tag::Return);
                }
                Reason::AppRefused
            };
            return self.reject(key, reason, context);
        }
        if asked.is_some() {
            context.record.started(id);
        }
        if !is_whole && !is_tunnel {
            self.open_window(key, UPLOAD.into(), context);
        }
        let service_time = match context.dice.number(0..10) {
            0 => context.dice.millis(50..400),
            _ => context.dice.millis(1..30),
        };
        context.after(service_time, Tag::Work(key));
    }

    fn upload_chunk(&mut self, link: usize, message: &Message, context: &mut Context<'_>) {
        let length = message.content.len();
        let session = &mut self.sessions[link];
        assert!(
            session.receive.receive(length),
            "a broker exceeded a connection window"
        );
        if let Some(limit) = session
            .receive
            .consume(length, crate::epoch(), Duration::ZERO)
        {
            self.window(link, 0, limit, context);
        }
        let Some(key) = self.find(link, message.header.correlation) else {
            return;
        };
        let work = self.works.get_mut(&key).unwrap();
        let id = work.id;
        let upload = work.upload.as_mut().expect("content of a whole request");
        check_content("the request", id, upload.received, &message.content);
        assert!(
            upload.window.receive(length),
            "a stream window was exceeded"
        );
        upload.received += length as u64;
        if let Some(limit) = upload
            .window
            .consume(length, crate::epoch(), Duration::ZERO)
        {
            self.open_window(key, limit, context);
        }
    }

    fn open_window(&mut self, key: u64, limit: u64, context: &mut Context<'_>) {
        let work = &self.works[&key];
        if let Some(link) = work.link {
            self.window(link, work.correlation, limit, context);
        }
    }

    fn window(&mut self, link: usize, correlation: u64, limit: u64, context: &mut Context<'_>) {
        let message = about(Kind::Window, correlation).with_metadata(Window(limit).encode());
        self.say(link, message, context);
    }

    fn say(&mut self, link: usize, mut message: Message, context: &mut Context<'_>) {
        message.header.credit = self.sessions[link].granted;
        self.dialler.send(link, message, context);
    }

    /// A handler does what it can.
    fn go_on(&mut self, key: u64, context: &mut Context<'_>) {
        let Some(work) = self.works.get_mut(&key) else {
            return;
        };
        let Some(link) = work.link else {
            return;
        };
        if !work.is_ready {
            return;
        }
        let (plan, correlation, id, total) = (work.plan, work.correlation, work.id, work.total);
        let is_read = work.upload.as_ref().is_none_or(|upload| upload.has_ended);
        match plan {
            Plan::Hang | Plan::Reject => return,
            Plan::Fail => return self.finish(key, Some(Reason::AppFailed), context),
            Plan::Answer if !is_read => return,
            Plan::Answer => {
                if self.sessions[link].send.room() < total {
                    return;
                }
                let _ = self.sessions[link]
                    .send
                    .take(usize::try_from(total).unwrap());
                let mut message = about(Kind::Response, correlation)
                    .with_metadata(pair(id, total))
                    .with_content(content(id, 0, total));
                // The application says that it has failed: an answer like any other, but for what the broker makes of its backend.
                let has_failed = context.dice.percent(context.failing);
                message.header.flags = Flags::FINAL.with(APP_ERROR, has_failed);
                self.works.get_mut(&key).unwrap().sent = total;
                return self.finish_with(key, message, context);
            }
            Plan::Stream { .. } if !is_read => return,
            Plan::Stream { .. } | Plan::Tunnel => {}
        }
        if !work.has_head {
            work.has_head = true;
            let is_tunnel = plan == Plan::Tunnel;
            let is_event_stream = plan
                == Plan::Stream {
                    is_event_stream: true,
                };
            if is_tunnel || is_event_stream {
                work.has_credit = false;
                self.sessions[link].finished += 1;
                self.regrant(context);
            }
            let kind = if is_tunnel {
                Kind::Upgrade
            } else {
                Kind::Response
            };
            let announced = if is_tunnel || is_event_stream {
                ENDLESS
            } else {
                total
            };
            let mut message = about(kind, correlation).with_metadata(pair(id, announced));
            message.header.flags = Flags(0).with(Flags::EVENT_STREAM, is_event_stream);
            self.say(link, message, context);
            if is_tunnel {
                self.open_window(key, UPLOAD.into(), context);
            }
        }
        loop {
            let work = self.works.get_mut(&key).unwrap();
            let session = &mut self.sessions[link];
            let room = work.send.room().min(session.send.room()).min(16 * 1024);
            let length = (total - work.sent).min(room);
            if length == 0 {
                break;
            }
            let chunk = content(id, work.sent, length);
            let _ = (work.send.take(chunk.len()), session.send.take(chunk.len()));
            work.sent += length;
            self.say(
                link,
                about(Kind::Chunk, correlation).with_content(chunk),
                context,
            );
        }
        if self.works[&key].sent == total && is_read {
            self.finish(key, None, context);
        }
    }

    /// A handler is over: completely, or for a reason.
    fn finish(&mut self, key: u64, failure: Option<Reason>, context: &mut Context<'_>) {
        let end = match failure {
            None => End::Complete(Fields::default()),
            Some(reason) => End::Failed {
                reason,
                detail: String::new(),
            },
        };
        let message = about(Kind::End, self.works[&key].correlation);
        self.finish_with(key, message.with_metadata(end.encode()), context);
    }

    fn reject(&mut self, key: u64, reason: Reason, context: &mut Context<'_>) {
        let reject = Reject {
            reason,
            retry_after_ms: 0,
            detail: String::new(),
        };
        let message = about(Kind::Reject, self.works[&key].correlation);
        self.finish_with(key, message.with_metadata(reject.encode()), context);
    }

    fn finish_with(&mut self, key: u64, last: Message, context: &mut Context<'_>) {
        let work = self.works.remove(&key).unwrap();
        if let Some(link) = work.link {
            // One that it was refused for a moment only may come again under the same number.
            let may_return = self.is_waking || self.dialler.is_away;
            if !context.is_calm && !may_return && context.dice.percent(5) {
                let stray = Tag::Stray {
                    link,
                    epoch: self.dialler.links[link].epoch,
                    correlation: work.correlation,
                };
                let delay = context.dice.millis(0..30);
                context.after(delay, stray);
            }
            self.sessions[link].finished += u64::from(work.has_credit);
            // The grant rides with the last word.
            self.regrant(context);
            self.say(link, last, context);
        } else {
            self.regrant(context);
        }
        self.exit_if_done(context);
    }

    /// Gives what is free to who wants it most, and asks others for what they do not use.
    fn regrant(&mut self, context: &mut Context<'_>) {
        if self.is_draining {
            return;
        }
        let ghosts = self
            .works
            .values()
            .filter(|work| work.link.is_none() && work.has_credit);
        let out: u64 = self.sessions.iter().map(Session::out).sum();
        let out = out + ghosts.count() as u64;
        assert!(out <= self.capacity, "{out} granted of {}", self.capacity);
        let mut free = self.capacity - out;
        let open: Vec<usize> = (0..self.sessions.len())
            .filter(|&link| self.dialler.is_open(link) && !self.dialler.links[link].is_draining)
            .collect();
        let mut granted = vec![false; self.sessions.len()];
        while 0 < free && !open.is_empty() {
            let want = |link: &usize| {
                let session = &self.sessions[*link];
                let wanted = session.demand.saturating_sub(session.idle());
                (wanted, u64::MAX - session.out())
            };
            let link = open.iter().copied().max_by_key(want).unwrap();
            self.sessions[link].granted += 1;
            granted[link] = true;
            free -= 1;
        }
        for &link in &open {
            if granted[link] {
                self.say(
                    link,
                    Message::new(RoutingHeader::new(Kind::Credit)),
                    context,
                );
            }
        }
        let is_wanted = open
            .iter()
            .any(|&link| self.sessions[link].idle() < self.sessions[link].demand);
        if !is_wanted || 0 < free {
            return;
        }
        for &link in &open {
            let session = &mut self.sessions[link];
            let is_idle = 0 < session.idle() && session.demand == 0;
            if is_idle && session.reclaimed.is_none() {
                session.reclaimed = Some(context.now);
                let message = Message::new(RoutingHeader::new(Kind::Reclaim));
                let message = message.with_metadata(Wanted(1).encode());
                self.say(link, message, context);
            }
        }
    }
}

impl Node for Backend {
    fn port(&self) -> Port {
        Port::Backends
    }

    fn up(&mut self, link: usize, context: &mut Context<'_>) {
        self.dialler.up(link, context);
    }

    fn down(&mut self, link: usize, context: &mut Context<'_>) {
        self.dialler.down(link);
        self.session_over(link, context);
    }

    fn hear(&mut self, link: usize, message: Message, context: &mut Context<'_>) {
        match self.dialler.hear(link, &message, context) {
            Heard::Done => {}
            Heard::Ended => self.session_over(link, context),
            Heard::Opened => {
                self.sessions[link] = Session::new();
                if self.is_draining {
                    self.say(link, Message::new(RoutingHeader::new(Kind::Drain)), context);
                }
                self.regrant(context);
            }
            Heard::Other => self.hear_broker(link, &message, context),
        }
    }

    fn timer(&mut self, tag: Tag, context: &mut Context<'_>) {
        match tag {
            Tag::Beat => {
                let credit: Vec<u64> = self.sessions.iter().map(|it| it.granted).collect();
                for link in self.dialler.beat(&credit, context) {
                    self.session_over(link, context);
                }
                // Demand may have been told to a session that has no credit to spare yet.
                self.regrant(context);
            }
            Tag::Stray {
                link,
                epoch,
                correlation,
            } => {
                if self.dialler.is_open(link) && self.dialler.links[link].epoch == epoch {
                    let kinds = [Kind::Chunk, Kind::End, Kind::Response, Kind::Reject];
                    let mut stray = about(context.dice.pick(&kinds).unwrap(), correlation);
                    stray.header.flags = Flags::FINAL;
                    let message = stray.with_metadata(pair(0, 0));
                    self.say(link, message.with_content(content(0, 0, 16)), context);
                }
            }
            Tag::CutOff => {
                for key in self.works.keys().copied().collect::<Vec<_>>() {
                    self.finish(key, Some(Reason::Draining), context);
                }
            }
            Tag::Return => self.set_away(false, context),
            Tag::Work(key) => {
                let Some(work) = self.works.get_mut(&key) else {
                    return;
                };
                work.is_ready = true;
                if work.link.is_none() {
                    return self.finish(key, None, context);
                }
                self.go_on(key, context);
            }
            other => panic!("a backend set no {other:?}"),
        }
    }

    fn resume(&mut self, pause: Duration, context: &mut Context<'_>) {
        self.dialler.resume(context.now);
        self.is_waking = limits::HEARTBEAT < pause;
    }

    fn awake(&mut self) {
        self.is_waking = false;
    }

    fn drain(&mut self, context: &mut Context<'_>) {
        self.is_draining = true;
        let patience = context.dice.millis(100..6000);
        context.after(patience, Tag::CutOff);
        for link in 0..self.sessions.len() {
            if self.dialler.is_open(link) {
                self.say(link, Message::new(RoutingHeader::new(Kind::Drain)), context);
            }
        }
        self.exit_if_done(context);
    }

    fn check_quiet(&self, ledger: &dyn Fn(usize) -> Option<[u64; 3]>) {
        assert!(self.works.is_empty(), "a handler is still at work");
        for (link, session) in self.sessions.iter().enumerate() {
            assert_eq!(session.received, session.finished);
            if self.dialler.is_open(link) {
                assert_eq!(
                    ledger(link),
                    Some([session.granted, session.received, session.returned]),
                    "broker {link} keeps another ledger than its backend"
                );
            }
        }
        let out: u64 = self.sessions.iter().map(Session::out).sum();
        let is_open = |link: &usize| self.dialler.is_open(*link);
        if (0..self.sessions.len()).any(|link| is_open(&link)) {
            assert_eq!(out, self.capacity, "credit was lost");
        }
    }
}

pub(crate) fn about(kind: Kind, correlation: u64) -> Message {
    Message::new(RoutingHeader {
        correlation,
        ..RoutingHeader::new(kind)
    })
}
