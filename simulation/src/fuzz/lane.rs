//! A frontend's lane.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use scale0_frontend::testing::{Action, Delivery, Lane, LaneConfig, OpenRequest, StreamId};
use scale0_transport::{LinkId, Links, Port};
use scale0_wire::{
    End, Fields, FlightKey, Kind, Priority, Reason, ServiceId, TraceContext, limits,
};

use super::script::{Numbers, Script};
use crate::frontend::Nobody;
use crate::site::{BROKERS, SERVICES};

/// It learns of no more than these.
const LINKS: usize = 6;

const OF_BROKERS: &[Kind] = &[
    Kind::Welcome,
    Kind::Welcome,
    Kind::Response,
    Kind::Chunk,
    Kind::End,
    Kind::Reject,
    Kind::Window,
    Kind::Window,
    Kind::Interim,
    Kind::Upgrade,
    Kind::Heartbeat,
    Kind::Drain,
    Kind::Bye,
    Kind::Redirect,
    Kind::Unsupported,
    Kind::Explain,
    Kind::Unknown(77),
];

/// Has a lane live through what these bytes say.
///
/// # Panics
/// When what must hold does not.
pub fn lane(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let now = crate::epoch();
    let config = LaneConfig {
        node: "frontend-0".into(),
        instance: 1,
        lane: 0,
        first_epoch: 1,
        window_bytes: 256 * 1024,
        max_streams: 32,
    };
    let mut stage = Stage {
        now,
        lane: Lane::new(config, now),
        maker: Links::new(),
        links: Vec::new(),
        brokers: Vec::new(),
        streams: Vec::new(),
        owners: HashMap::new(),
        actions: Vec::new(),
    };
    for _ in 0..BROKERS {
        let link = stage.link();
        stage.lane.add_broker(now, link);
    }
    while stage.act(&mut script).is_some() {}
    // Nobody is left to say anything: nothing waits for ever.
    for _ in 0..600 {
        stage.pass(Duration::from_millis(250));
    }
    assert_eq!(stage.lane.open_streams(), 0, "somebody waits for ever");
}

struct Stage {
    now: Instant,
    lane: Lane,
    maker: Links,
    links: Vec<LinkId>,
    brokers: Vec<Numbers>,
    /// Those that were opened and are not over.
    streams: Vec<StreamId>,
    owners: HashMap<StreamId, Owner>,
    actions: Vec<Action>,
}

/// What a stream's owner knows.
#[derive(Debug, Default)]
struct Owner {
    may_upload: bool,
    has_ended: bool,
    head_came: bool,
    unread: usize,
}

impl Stage {
    fn link(&mut self) -> LinkId {
        let link = (self.maker).attach(Arc::new(Nobody), Port::Frontends, 0);
        self.links.push(link);
        self.brokers.push(Numbers::default());
        link
    }

    fn act(&mut self, script: &mut Script<'_>) -> Option<()> {
        let what = script.u8()? % 24;
        let number = script.below(self.links.len())?;
        let link = self.links[number];
        match what {
            0 | 1 => self.pass(script.millis()?),
            2 => {
                match script.raw()? {
                    Ok(message) => self.step(|lane, now, actions| {
                        lane.receive(now, link, message, actions);
                    }),
                    Err(_) => self.lane.malformed(),
                };
            }
            3 | 4 => self.step(|lane, now, actions| lane.up(now, link, actions)),
            5 => self.step(|lane, now, actions| lane.down(now, link, actions)),
            6 if script.below(16)? == 0 => self.step(|lane, now, actions| lane.drain(now, actions)),
            7 if script.below(16)? == 0 => self.step(|lane, now, actions| lane.leave(now, actions)),
            8..=11 => self.open(script)?,
            12..=15 => self.own(what, script)?,
            _ => {
                let numbers = &self.brokers[number];
                match script.said(OF_BROKERS, numbers.epoch, numbers)? {
                    Ok(message) => self.step(|lane, now, actions| {
                        lane.receive(now, link, message, actions);
                    }),
                    Err(_) => self.lane.malformed(),
                }
            }
        }
        Some(())
    }

    fn open(&mut self, script: &mut Script<'_>) -> Option<()> {
        let (how, length) = (script.u8()?, script.u8()?);
        let whole = how & 1 != 0;
        let open = OpenRequest {
            head: Bytes::from_static(b"head"),
            content: Bytes::from(vec![1; usize::from(length)]),
            whole,
            idempotent: how & 2 != 0,
            upgrade: how & 4 != 0,
            hedge: how & 8 != 0,
            priority: Priority::Normal,
            service: ServiceId::of(SERVICES[usize::from(length) % SERVICES.len()].as_bytes()),
            affinity: u64::from(how >> 6),
            flight: FlightKey(u128::from(how >> 4)),
            timeout: Duration::from_millis(100 * u64::from(length)),
            idle_timeout: Duration::from_secs(5),
            hold: Duration::from_millis(20 * u64::from(how)),
            trace: TraceContext::default(),
            explain: how & 32 != 0,
        };
        // What comes of it at once is told to an owner that is there.
        let opened = self.lane.open(self.now, open, &mut self.actions);
        if let Ok(id) = opened {
            let owner = Owner {
                has_ended: whole,
                ..Owner::default()
            };
            self.owners.insert(id, owner);
            self.streams.push(id);
        }
        self.settle();
        Some(())
    }

    /// The owner of one of the streams does something that it may.
    fn own(&mut self, what: u8, script: &mut Script<'_>) -> Option<()> {
        let (which, how) = (script.u8()?, script.u16()?);
        let Some(&id) = self
            .streams
            .get(usize::from(which) % self.streams.len().max(1))
        else {
            return Some(());
        };
        let owner = self.owners.get_mut(&id)?;
        match what {
            12 if owner.may_upload && !owner.has_ended => {
                owner.may_upload = false;
                let piece = Bytes::from(vec![2; usize::from(how)]);
                self.step(|lane, now, actions| lane.upload(now, id, piece, actions));
            }
            13 if !owner.has_ended => {
                owner.has_ended = true;
                let end = match how % 2 {
                    0 => End::Complete(Fields::default()),
                    _ => End::Failed {
                        reason: Reason::ClientGone,
                        detail: String::new(),
                    },
                };
                self.step(|lane, now, actions| lane.end_upload(now, id, &end, actions));
            }
            14 => {
                let bytes = usize::from(how).min(owner.unread);
                owner.unread -= bytes;
                self.step(|lane, now, actions| lane.consume(now, id, bytes, actions));
            }
            15 if how.is_multiple_of(4) => {
                self.streams.retain(|other| *other != id);
                self.owners.remove(&id);
                self.step(|lane, now, actions| {
                    lane.cancel(now, id, Reason::Cancelled, actions);
                });
            }
            15 => {
                let due = self.now + Duration::from_millis(u64::from(how % 20_000));
                self.step(|lane, now, actions| lane.extend(now, id, due, 2, actions));
            }
            _ => {}
        }
        Some(())
    }

    fn step(&mut self, act: impl FnOnce(&mut Lane, Instant, &mut Vec<Action>)) {
        act(&mut self.lane, self.now, &mut self.actions);
        self.settle();
    }

    /// Takes in what the lane says, as its dispatcher does.
    fn settle(&mut self) {
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Send(link, message) => {
                    let number = self.links.iter().position(|it| *it == link);
                    let numbers = &mut self.brokers[number.expect("nobody else is dialled")];
                    if message.header.kind == Kind::Hello {
                        numbers.epoch = message.header.epoch;
                    }
                    numbers.note(&message);
                }
                Action::Deliver(id, delivery) => self.deliver(id, delivery),
                Action::Learn(_, other) if self.links.len() < LINKS => {
                    let link = self.link();
                    self.lane.learn_broker(self.now, link, other.node);
                }
                Action::Learn(..) | Action::Redial(_) | Action::Close(_) => {}
            }
        }
        self.lane.audit();
        assert_eq!(self.lane.open_streams(), self.streams.len());
    }

    fn deliver(&mut self, id: StreamId, delivery: Delivery) {
        let owner = self.owners.get_mut(&id).expect("it is over");
        let is_last = match delivery {
            Delivery::Ready => {
                assert!(!owner.may_upload, "asked for a second piece");
                owner.may_upload = true;
                false
            }
            Delivery::Told(_) => false,
            Delivery::Interim(_) => {
                assert!(!owner.head_came, "an interim response behind the head");
                false
            }
            Delivery::Head {
                content,
                whole,
                upgrade,
                ..
            } => {
                assert!(!owner.head_came, "a second head");
                owner.head_came = true;
                owner.unread += content.len();
                if upgrade && owner.has_ended {
                    (owner.has_ended, owner.may_upload) = (false, false);
                }
                whole
            }
            Delivery::Content(content) => {
                assert!(owner.head_came, "content before the head");
                owner.unread += content.len();
                assert!(
                    owner.unread <= limits::STREAM_WINDOW as usize,
                    "more than its reader has room for"
                );
                false
            }
            Delivery::End(_) => {
                assert!(owner.head_came, "an end before the head");
                true
            }
            Delivery::Failed(_) => true,
        };
        if is_last {
            self.owners.remove(&id);
            self.streams.retain(|other| *other != id);
        }
    }

    /// Time passes, for its readers too.
    fn pass(&mut self, time: Duration) {
        self.now += time;
        for id in self.streams.clone() {
            if let Some(owner) = self.owners.get_mut(&id) {
                let bytes = std::mem::take(&mut owner.unread);
                self.step(|lane, now, actions| lane.consume(now, id, bytes, actions));
            }
        }
        self.step(Lane::tick);
    }
}
