//! The broker's core.

use std::time::{Duration, Instant};

use scale0_broker::{Action, Broker, Event};
use scale0_transport::{PeerId, Port};
use scale0_wire::{Kind, Message};

use super::script::{Numbers, Script};
use crate::network::peer;
use crate::site;

/// Half of them come where frontends do.
const PEERS: usize = 6;

/// What it may be told of peers at a time: it has no more timers than that.
const TICKS: usize = 100_000;

/// Longer than anybody is believed to live who says nothing: three times the longest heartbeat.
const SETTLED: Duration = Duration::from_secs(120);

const OF_FRONTENDS: &[Kind] = &[
    Kind::Request,
    Kind::Request,
    Kind::Request,
    Kind::Hello,
    Kind::Chunk,
    Kind::Window,
    Kind::End,
    Kind::Cancel,
    Kind::Update,
    Kind::Heartbeat,
    Kind::Drain,
    Kind::Bye,
    Kind::Unsupported,
    Kind::Purge,
    Kind::Unknown(77),
];

const OF_BACKENDS: &[Kind] = &[
    Kind::Credit,
    Kind::Response,
    Kind::Response,
    Kind::Chunk,
    Kind::End,
    Kind::Reject,
    Kind::Interim,
    Kind::Upgrade,
    Kind::Window,
    Kind::Hello,
    Kind::Announce,
    Kind::Reclaim,
    Kind::Return,
    Kind::Heartbeat,
    Kind::Drain,
    Kind::Bye,
    Kind::Unknown(77),
];

/// Has a broker live through what these bytes say.
///
/// # Panics
/// When what must hold does not.
pub fn broker(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let (Some(how), Some(secret)) = (script.u8(), script.u64()) else {
        return;
    };
    let has_keys = how % 4 == 3;
    let mut stage = Stage {
        now: crate::epoch(),
        broker: Broker::new(site::config(0, [1, secret], has_keys, true), crate::epoch()),
        peers: Default::default(),
        actions: Vec::new(),
    };
    while stage.act(&mut script).is_some() {}
    // Nobody is left to say anything: nothing is held for ever.
    stage.pass(SETTLED);
    if !stage.broker.is_gone() {
        let snapshot = stage.broker.snapshot(stage.now);
        assert_eq!(snapshot.open_requests, 0, "{snapshot:?}");
        assert!(snapshot.backends.is_empty() && snapshot.frontends.is_empty());
    }
}

struct Stage {
    now: Instant,
    broker: Broker,
    peers: [Numbers; PEERS],
    actions: Vec<Action>,
}

impl Stage {
    fn act(&mut self, script: &mut Script<'_>) -> Option<()> {
        let what = script.u8()?;
        let number = script.below(PEERS)?;
        let peer = id(number);
        match what % 16 {
            0 | 1 => self.pass(script.millis()?),
            2 => {
                let message = script.raw()?;
                self.arrive(number, message.ok());
            }
            3 => self.step(Event::Lost { peer }),
            4 if script.below(8)? == 0 => self.step(Event::Stuck { peer }),
            5 if script.below(8)? == 0 => {
                let until = self.now + script.millis()?;
                self.step(Event::Drain { until });
            }
            6 => {
                let key = site::key(script.below(site::NODES)?);
                self.step(Event::Proved { peer, key });
            }
            7 if script.below(4)? == 0 => {
                let but = script.below(site::NODES + 1)?;
                self.step(Event::Rights(site::rights(Some(but))));
            }
            _ => {
                let kinds = if number < PEERS / 2 {
                    OF_FRONTENDS
                } else {
                    OF_BACKENDS
                };
                let epoch = u64::from(script.u8()? < 250);
                let message = script.said(kinds, epoch, &self.peers[number])?;
                self.arrive(number, message.ok());
            }
        }
        Some(())
    }

    fn arrive(&mut self, number: usize, message: Option<Message>) {
        let from = id(number);
        let Some(message) = message else {
            return self.step(Event::Malformed { from });
        };
        let port = if number < PEERS / 2 {
            Port::Frontends
        } else {
            Port::Backends
        };
        self.step(Event::Received {
            from,
            port,
            locality: None,
            message: message.into(),
        });
    }

    fn step(&mut self, event: Event) {
        self.broker.step(self.now, event, &mut self.actions);
        for action in self.actions.drain(..) {
            if let Action::Send { to, message } = action {
                let number = (0..PEERS).find(|number| id(*number) == to);
                self.peers[number.expect("nobody else came")].note(&message);
            }
        }
        self.broker.audit();
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..TICKS {
            match self.broker.deadline() {
                Some(due) if due <= end && !self.broker.is_gone() => {
                    self.now = self.now.max(due);
                    self.step(Event::Tick);
                }
                _ => {
                    self.now = end;
                    return;
                }
            }
        }
        panic!("it is never done");
    }
}

fn id(number: usize) -> PeerId {
    peer(number)
}
