//! A backend's session.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use scale0_backend::testing::{
    Action, BrokerId, Event, Output, Session, Settings, Shape, StreamId,
};
use scale0_wire::{End, Fields, Kind, Reason, Reject, limits};

use super::script::{Numbers, Script};

const BROKERS: usize = 2;

/// It learns of no more than these.
const LINKS: usize = 5;

const OF_BROKERS: &[Kind] = &[
    Kind::Welcome,
    Kind::Request,
    Kind::Request,
    Kind::Request,
    Kind::Chunk,
    Kind::Window,
    Kind::End,
    Kind::Cancel,
    Kind::Update,
    Kind::Heartbeat,
    Kind::Demand,
    Kind::Return,
    Kind::Drain,
    Kind::Bye,
    Kind::Redirect,
    Kind::Unsupported,
    Kind::Unknown(77),
];

/// Has a session live through what these bytes say.
///
/// # Panics
/// When what must hold does not.
pub fn session(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let settings = Settings {
        node: "backend-0".into(),
        instance: 1,
        lane: 0,
        services: vec!["shop".into()],
        capacity: 3,
        max_streams: 8,
        heartbeat: limits::HEARTBEAT,
        drain_timeout: Duration::from_secs(5),
        epoch: 1,
    };
    let mut stage = Stage {
        now: crate::epoch(),
        session: Session::new(settings, BROKERS, Arc::default()),
        brokers: Vec::new(),
        handlers: BTreeMap::new(),
        actions: Vec::new(),
    };
    stage.brokers.resize_with(BROKERS, Numbers::default);
    while stage.act(&mut script).is_some() {}
    // Told to leave, it does, when its handlers have stopped.
    stage.step(Event::Cut);
    for handler in std::mem::take(&mut stage.handlers).into_values() {
        if !handler.is_done {
            stage.step(Event::Stopped(handler.stream));
        }
    }
    stage.pass(Duration::from_secs(2));
    assert!(stage.session.is_gone(), "it does not leave");
}

struct Stage {
    now: Instant,
    session: Session,
    brokers: Vec<Numbers>,
    /// By the serial numbers of their streams.
    handlers: BTreeMap<u64, Handler>,
    actions: Vec<Action>,
}

struct Handler {
    stream: StreamId,
    /// It has said its last.
    is_done: bool,
    has_head: bool,
    unread: usize,
    /// What it has said and is not sent.
    queued: usize,
}

impl Stage {
    fn act(&mut self, script: &mut Script<'_>) -> Option<()> {
        let what = script.u8()? % 24;
        let number = script.below(self.brokers.len())?;
        let broker = BrokerId(number);
        match what {
            0 | 1 => self.pass(script.millis()?),
            2 => {
                let event = match script.raw()? {
                    Ok(message) => Event::Message(broker, message),
                    Err(_) => Event::Malformed(broker),
                };
                self.step(event);
            }
            3 | 4 => self.step(Event::Up(broker)),
            5 => self.step(Event::Down(broker)),
            6 => self.step(Event::Full(broker)),
            7 => self.step(Event::Writable(broker)),
            8 => {
                let services = script.services()?;
                self.step(Event::Services(services));
            }
            9 => {
                let capacity = script.u8()? % 8;
                self.step(Event::Capacity(capacity.into()));
            }
            10 if script.below(16)? == 0 => self.step(Event::Drain),
            11 => self.step(Event::Tick { cpu_permille: 1 }),
            12..=16 => self.handle(script)?,
            _ => {
                let numbers = &self.brokers[number];
                let event = match script.said(OF_BROKERS, numbers.epoch, numbers)? {
                    Ok(message) => Event::Message(broker, message),
                    Err(_) => Event::Malformed(broker),
                };
                self.step(event);
            }
        }
        Some(())
    }

    /// One of the handlers does something that it may.
    fn handle(&mut self, script: &mut Script<'_>) -> Option<()> {
        let (which, what, how) = (script.u8()?, script.u8()?, script.u16()?);
        let place = usize::from(which) % self.handlers.len().max(1);
        let Some(handler) = self.handlers.values_mut().nth(place) else {
            return Some(());
        };
        let stream = handler.stream;
        if what % 10 == 0 {
            let bytes = usize::from(how).min(handler.unread);
            handler.unread -= bytes;
            self.step(Event::Consumed(stream, bytes));
            return Some(());
        }
        if handler.is_done {
            return Some(());
        }
        let content = Bytes::from(vec![3; usize::from(how)]);
        let output = match what % 10 {
            1 => {
                self.step(Event::Reading(stream));
                return Some(());
            }
            2 => {
                handler.is_done = true;
                self.step(Event::Stopped(stream));
                return Some(());
            }
            3 => Output::Interim(Bytes::new()),
            4..=6 if !handler.has_head => {
                handler.has_head = true;
                let shapes = [
                    Shape::Plain,
                    Shape::Failure,
                    Shape::EventStream,
                    Shape::Upgrade,
                ];
                let shape = shapes[usize::from(how) % 4];
                Output::Head {
                    metadata: Bytes::new(),
                    content,
                    shape,
                    last: what % 10 == 4 && shape != Shape::Upgrade,
                }
            }
            7 | 8 if handler.has_head => {
                let charge = content.len().max(256);
                handler.queued += charge;
                Output::Data { content, charge }
            }
            9 if !handler.has_head => Output::Reject(
                Reject {
                    reason: Reason::AppRefused,
                    retry_after_ms: 0,
                    detail: String::new(),
                }
                .encode(),
            ),
            _ => Output::End(End::Complete(Fields::default()).encode()),
        };
        handler.is_done = output.is_last();
        self.step(Event::Output(stream, output));
        Some(())
    }

    fn step(&mut self, event: Event) {
        self.session.step(self.now, event, &mut self.actions);
        for action in std::mem::take(&mut self.actions) {
            self.perform(action);
        }
        self.session.audit();
    }

    /// Does what the session says, as its shell does.
    fn perform(&mut self, action: Action) {
        match action {
            Action::Send(BrokerId(number), message) => {
                let numbers = &mut self.brokers[number];
                if message.header.kind == Kind::Hello {
                    numbers.epoch = message.header.epoch;
                }
                numbers.note(&message);
            }
            Action::Serve(call) => {
                let handler = Handler {
                    stream: call.stream,
                    is_done: false,
                    has_head: false,
                    unread: 0,
                    queued: 0,
                };
                let former = self.handlers.insert(call.stream.serial, handler);
                assert!(former.is_none(), "two streams with one number");
            }
            Action::Input(stream, piece) => {
                let handler = self.handlers.get_mut(&stream.serial);
                handler.expect("content for nobody").unread += piece.len();
            }
            Action::Released(stream, bytes) => {
                let handler = self.handlers.get_mut(&stream.serial);
                let handler = handler.expect("nobody has said it");
                assert!(bytes <= handler.queued, "more than was said");
                handler.queued -= bytes;
            }
            Action::Forget(stream) => {
                self.handlers.remove(&stream.serial);
            }
            Action::Learn(_, other) if self.brokers.len() < LINKS => {
                self.session.learn_broker(&other.node);
                self.brokers.push(Numbers::default());
            }
            Action::Learn(..)
            | Action::Redial(_)
            | Action::Close(_)
            | Action::InputEnd(..)
            | Action::Update(..)
            | Action::Cancel(..)
            | Action::Registered(_) => {}
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.step(Event::Tick { cpu_permille: 0 });
    }
}
