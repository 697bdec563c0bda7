//! The core behind its lock, where everybody who shares this process with it steps it.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use scale0_transport::{Hub, Inbox, PeerId, Port, ThreadWaker};
use scale0_wire::Message;

use super::clock;
use super::outbox::{self, Outbox};
use crate::core::{Action, Backlog, Broker, Counters, Event, Gauges, Snapshot};

/// While a message waits for room in an inbox, it is offered again after so long: nobody says when an inbox has room.
const RETRY: Duration = Duration::from_millis(5);

/// A broker that threads share. Whoever has news for the core steps it, on a thread of its own: what comes of it for peers
/// of this process is in their inboxes before the lock is released; what comes of it for sockets waits, in order, for the
/// thread that owns them.
#[derive(Debug)]
pub(super) struct Station {
    state: Mutex<State>,
    waker: ThreadWaker,
}

#[derive(Debug)]
struct State {
    broker: Broker,
    actions: Vec<Action>,
    locals: HashMap<PeerId, Local>,
    /// Locals with something in their outbox.
    waiting: HashSet<PeerId>,
    room: Backlog,
    locals_so_far: u32,
    outbound: Vec<Action>,
    wakers: Vec<Waker>,
    /// Until when the socket thread sleeps, if nobody wakes it.
    sleeps_until: Option<Instant>,
    is_stopping: bool,
    /// The core has panicked: its state means nothing any more.
    has_failed: bool,
    counters: ShellCounters,
}

/// A peer of this process.
#[derive(Debug)]
struct Local {
    port: Port,
    locality: u32,
    inbox: Arc<Inbox>,
    outbox: Outbox,
}

/// What has happened in the shell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShellCounters {
    /// Messages that had to wait for room in a connection.
    pub waited: u64,
    /// Peers for which more waited than may.
    pub stuck: u64,
    /// Messages longer than the protocol allows, which only peers of this process can make.
    pub too_long: u64,
    /// Messages from peers of this process that had detached.
    pub detached: u64,
    /// Times that the socket thread was woken by nothing but the backstop of its wait.
    pub backstop_saves: u64,
    /// Connections with a routing id of the peer's choice, whose messages were dropped.
    pub foreign: u64,
    /// Messages passed on in the very frame that they came in.
    pub sent_on: u64,
    /// Messages of muted peers, dropped unread.
    pub muted: u64,
    /// Handshakes that failed because only one side encrypts.
    pub handshakes_unencrypted: u64,
    /// Handshakes that failed because the other side takes us for another broker.
    pub handshakes_wrong_key: u64,
    /// Handshakes that were not finished in time, or left.
    pub handshakes_unfinished: u64,
    /// Handshakes of those who do not speak ZMTP.
    pub handshakes_broken: u64,
}

/// What the socket thread is to do next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    pub(super) deadline: Option<Instant>,
    /// The broker has left, has failed, or is to stop at once.
    pub(super) is_over: bool,
    /// Services that could not be registered so far.
    pub(super) services_refused: u64,
}

impl Station {
    pub(super) fn new(broker: Broker, waker: ThreadWaker) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                broker,
                actions: Vec::new(),
                locals: HashMap::new(),
                waiting: HashSet::new(),
                room: outbox::room(),
                locals_so_far: 0,
                outbound: Vec::new(),
                wakers: Vec::new(),
                sleeps_until: None,
                is_stopping: false,
                has_failed: false,
                counters: ShellCounters::default(),
            }),
            waker,
        })
    }

    pub(super) const fn waker(&self) -> &ThreadWaker {
        &self.waker
    }

    /// The socket thread's turn: takes in `events`, does what is due, and hands over what is to be sent.
    pub(super) fn round(
        &self,
        now: Instant,
        events: &mut Vec<Event>,
        outbound: &mut Vec<Action>,
        change: impl FnOnce(&mut ShellCounters),
    ) -> Round {
        let (round, wakers) = {
            let mut state = self.state.lock();
            change(&mut state.counters);
            for event in events.drain(..) {
                state.step(now, event);
            }
            state.retry();
            state.step(now, Event::Tick);
            std::mem::swap(&mut state.outbound, outbound);
            let is_over = state.is_over();
            let mut deadline = state.broker.deadline();
            if !state.waiting.is_empty() {
                let retry = now + RETRY;
                deadline = Some(deadline.map_or(retry, |deadline| deadline.min(retry)));
            }
            state.sleeps_until = deadline;
            let round = Round {
                deadline,
                is_over,
                services_refused: state.broker.counters().services_refused,
            };
            (round, state.take_wakers())
        };
        wake(wakers);
        round
    }

    /// Takes in one event on the caller's thread.
    pub(super) fn step(&self, event: Event) {
        self.with(|state, now| state.step(now, event));
    }

    /// Ends everything at once.
    pub(super) fn stop(&self) {
        self.with(|state, _| state.is_stopping = true);
    }

    /// Nothing comes from here any more: peers of this process see it gone.
    pub(super) fn close(&self) {
        self.with(|state, _| {
            state.is_stopping = true;
            state.waiting.clear();
            for (_, local) in state.locals.drain() {
                state.wakers.extend(local.inbox.close());
            }
        });
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let now = clock::now();
        self.state.lock().broker.snapshot(now)
    }

    pub(super) fn gauges(&self) -> Gauges {
        let now = clock::now();
        self.state.lock().broker.gauges(now)
    }

    pub(super) fn is_draining(&self) -> bool {
        self.state.lock().broker.is_draining()
    }

    pub(super) fn counters(&self) -> (Counters, ShellCounters) {
        let state = self.state.lock();
        (state.broker.counters().clone(), state.counters)
    }

    pub(super) fn is_over(&self) -> bool {
        self.state.lock().is_over()
    }

    pub(super) fn has_left(&self) -> bool {
        self.state.lock().broker.is_gone()
    }

    pub(super) fn has_failed(&self) -> bool {
        self.state.lock().has_failed
    }

    /// Changes the state, and wakes who must know once the lock is released.
    fn with<T>(&self, change: impl FnOnce(&mut State, Instant) -> T) -> T {
        let now = clock::now();
        let (value, wakers, is_urgent) = {
            let mut state = self.state.lock();
            let value = change(&mut state, now);
            let is_earlier = match (state.broker.deadline(), state.sleeps_until) {
                (Some(deadline), Some(sleeps_until)) => deadline < sleeps_until,
                (Some(_), None) => true,
                (None, _) => false,
            };
            let is_urgent = is_earlier
                || !state.outbound.is_empty()
                || !state.waiting.is_empty()
                || state.is_over();
            (value, state.take_wakers(), is_urgent)
        };
        if is_urgent {
            self.waker.wake();
        }
        wake(wakers);
        value
    }
}

/// Woken peers may want the lock at once: they are woken after it is released.
fn wake(wakers: Vec<Waker>) {
    for waker in wakers {
        waker.wake();
    }
}

impl Hub for Station {
    fn attach(&self, port: Port, locality: u32, inbox: Arc<Inbox>) -> PeerId {
        self.with(|state, _| {
            state.locals_so_far = state.locals_so_far.wrapping_add(1);
            let peer = PeerId::in_process(state.locals_so_far);
            if state.is_over() {
                state.wakers.extend(inbox.close());
                return peer;
            }
            let local = Local {
                port,
                locality,
                inbox,
                outbox: Outbox::default(),
            };
            state.locals.insert(peer, local);
            peer
        })
    }

    fn submit(&self, from: PeerId, message: Message) {
        self.with(|state, now| {
            let Some(local) = state.locals.get(&from) else {
                state.counters.detached += 1;
                return;
            };
            let event = Event::Received {
                from,
                port: local.port,
                locality: Some(local.locality),
                message: message.into(),
            };
            // It has read what there was, or it would not speak.
            if state.waiting.contains(&from) {
                state.flush(from);
            }
            state.step(now, event);
        });
    }

    fn detach(&self, peer: PeerId) {
        self.with(|state, now| {
            state.forget(peer);
            state.locals.remove(&peer);
            state.step(now, Event::Lost { peer });
        });
    }
}

impl State {
    fn is_over(&self) -> bool {
        self.is_stopping || self.has_failed || self.broker.is_gone()
    }

    fn step(&mut self, now: Instant, event: Event) {
        let mut event = Some(event);
        while let Some(next) = event.take() {
            if self.has_failed {
                return;
            }
            // A core that panics has decided half of something. Nobody may build on that: its peers see it gone, and turn
            // to other brokers.
            let first = self.outbound.len();
            let core = AssertUnwindSafe(|| self.broker.step(now, next, &mut self.outbound));
            if catch_unwind(core).is_err() {
                tracing::error!("the broker's core has panicked; the broker ends");
                self.has_failed = true;
                self.outbound.truncate(first);
                return;
            }
            if !self.locals.is_empty() {
                event = (self.perform_here(first)).map(|stuck| Event::Stuck { peer: stuck });
            }
        }
    }

    /// Carries out the actions from this place on, or leaves them to the socket thread. Returns whose inbox is hopelessly full.
    fn perform_here(&mut self, first: usize) -> Option<PeerId> {
        let mut actions = std::mem::take(&mut self.actions);
        actions.extend(self.outbound.drain(first..));
        let mut stuck = None;
        for action in actions.drain(..) {
            stuck = self.perform(action).or(stuck);
        }
        self.actions = actions;
        stuck
    }

    /// Carries out one action, or leaves it to the socket thread. Returns whose inbox is hopelessly full.
    fn perform(&mut self, action: Action) -> Option<PeerId> {
        let (Action::Send { to: peer, .. }
        | Action::Forget { peer }
        | Action::Mute { peer, .. }
        | Action::Unmute { peer }) = action;
        if !peer.is_in_process() {
            self.outbound.push(action);
            return None;
        }
        let local = self.locals.get_mut(&peer)?;
        let Action::Send { message, .. } = action else {
            self.flush(peer);
            self.forget(peer);
            return None;
        };
        let message = if local.outbox.is_empty() {
            match local.inbox.push(*message) {
                Ok(waker) => {
                    self.wakers.extend(waker);
                    return None;
                }
                Err(message) => message.into(),
            }
        } else {
            message
        };
        if local.inbox.is_closed() {
            // It detaches in a moment.
            return None;
        }
        self.counters.waited += 1;
        self.waiting.insert(peer);
        if local.outbox.push(message, &mut self.room) {
            return None;
        }
        self.counters.stuck += 1;
        self.forget(peer);
        Some(peer)
    }

    /// Offers what waits for the inboxes of this process again.
    fn retry(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        for peer in self.waiting.clone() {
            self.flush(peer);
        }
    }

    fn flush(&mut self, peer: PeerId) {
        let Some(local) = self.locals.get_mut(&peer) else {
            return;
        };
        let (inbox, wakers) = (&local.inbox, &mut self.wakers);
        local
            .outbox
            .flush(&mut self.room, |message| match inbox.push(*message) {
                Ok(waker) => {
                    wakers.extend(waker);
                    None
                }
                Err(message) => Some(message.into()),
            });
        if local.outbox.is_empty() || inbox.is_closed() {
            self.forget(peer);
        }
    }

    fn forget(&mut self, peer: PeerId) {
        if let Some(local) = self.locals.get_mut(&peer) {
            std::mem::take(&mut local.outbox).clear(&mut self.room);
        }
        self.waiting.remove(&peer);
    }

    fn take_wakers(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.wakers)
    }
}
