//! The thread that owns the sockets: wait, take in, step, send, repeat.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use scale0_transport::{Arrival, Frame, Gatekeeper, PeerId, Port, Router, SendOutcome, wait};
use scale0_wire::{Kind, Message};

use super::clock;
use super::outbox::{self, Outbox};
use super::station::{ShellCounters, Station};
use crate::core::{Action, Backlog, Event};

/// How long the last BYE may take to leave this process.
const LINGER: Duration = Duration::from_secs(1);

/// Messages of each router in one round, between two looks at what else there is to do.
const ROUND: usize = 64;

/// What peers do wrong is logged at most this often; all of it is counted.
const LOG_SPACING: Duration = Duration::from_secs(10);

/// The sockets, and what waits for them.
pub(super) struct SocketThread {
    station: Arc<Station>,
    /// A router's number is its place here.
    routers: Vec<Router>,
    /// What comes in at each of them.
    ports: Vec<Port>,
    outboxes: HashMap<PeerId, Outbox>,
    room: Backlog,
    /// Who refuses keys, where some are in use.
    gatekeeper: Option<Arc<Gatekeeper>>,
    /// What came of sending, and is to be told to the core next.
    events: Vec<Event>,
    counters: ShellCounters,
    logged: Option<Instant>,
}

impl SocketThread {
    pub(super) fn new(
        station: Arc<Station>,
        routers: Vec<Router>,
        ports: Vec<Port>,
        gatekeeper: Option<Arc<Gatekeeper>>,
    ) -> Self {
        Self {
            station,
            routers,
            ports,
            outboxes: HashMap::new(),
            room: outbox::room(),
            gatekeeper,
            events: Vec::new(),
            counters: ShellCounters::default(),
            logged: None,
        }
    }

    /// Runs until the broker has left, has failed, or is to stop.
    ///
    /// # Errors
    /// When the operating system cannot wait any more.
    pub(super) fn run(mut self) -> io::Result<()> {
        let _closes = Closes(Arc::clone(&self.station));
        let mut outbound = Vec::new();
        let mut deadline = None;
        let mut services_refused = 0;
        let mut more_may_be_there = false;
        loop {
            if self.events.is_empty() && !more_may_be_there {
                wait(&self.routers, self.station.waker(), deadline)?;
            }
            let now = clock::now();
            self.flush();
            more_may_be_there = self.pass_on(now, &mut outbound);
            let counters = self.take_counters();
            let round = self
                .station
                .round(now, &mut self.events, &mut outbound, |all| {
                    all.waited += counters.waited;
                    all.stuck += counters.stuck;
                    all.too_long += counters.too_long;
                    all.backstop_saves = counters.backstop_saves;
                    all.foreign = counters.foreign;
                    all.sent_on = counters.sent_on;
                    all.muted = counters.muted;
                    all.handshakes_unencrypted = counters.handshakes_unencrypted;
                    all.handshakes_wrong_key = counters.handshakes_wrong_key;
                    all.handshakes_unfinished = counters.handshakes_unfinished;
                    all.handshakes_broken = counters.handshakes_broken;
                });
            for action in outbound.drain(..) {
                self.perform(action, None);
            }
            if services_refused < round.services_refused && may_log(&mut self.logged, now) {
                services_refused = round.services_refused;
                tracing::warn!(
                    services_refused,
                    "there are as many services as a broker knows: backends offer some that are not registered"
                );
            }
            if round.is_over {
                break;
            }
            deadline = round.deadline;
        }
        for router in &mut self.routers {
            router.set_linger(LINGER);
        }
        Ok(())
    }

    /// Takes in what has come, at most a round's, and sends what comes of it, one by one: what a message needs is in the nearest cache
    /// then, from its receipt to its being sent. Whether one of the routers may have more.
    fn pass_on(&mut self, now: Instant, outbound: &mut Vec<Action>) -> bool {
        let mut more_may_be_there = false;
        for number in 0..self.routers.len() {
            let port = self.ports[number];
            let mut left = ROUND;
            while 0 < left
                && let Some((from, arrival)) = self.routers[number].receive_framed()
            {
                left -= 1;
                // The core asks whose it is when a session is opened, and when something is amiss; no more.
                let matters = match &arrival {
                    Arrival::Message(message, _) => message.header.kind == Kind::Hello,
                    Arrival::Malformed(_) => true,
                    Arrival::Down => false,
                };
                if matters && let Some(key) = self.routers[number].key_of(from) {
                    let proved = Event::Proved { peer: from, key };
                    self.station.take_in(now, proved, outbound);
                }
                let mut received = None;
                let event = match arrival {
                    Arrival::Message(message, frame) => {
                        received = frame.map(|frame| (message.header.kind, frame));
                        Event::Received {
                            from,
                            port,
                            locality: None,
                            message,
                        }
                    }
                    Arrival::Malformed(error) => {
                        if may_log(&mut self.logged, now) {
                            tracing::warn!(?from, %error, "dropped bytes that are no message");
                        }
                        Event::Malformed { from }
                    }
                    Arrival::Down => Event::Lost { peer: from },
                };
                self.station.take_in(now, event, outbound);
                for action in outbound.drain(..) {
                    // What is passed on is the first of its kind that comes of what was received. If it is not, it is copied.
                    let mut frame = None;
                    if let Action::Send { message, .. } = &action {
                        let is_it = received.take_if(|(kind, _)| *kind == message.header.kind);
                        frame = is_it.map(|(_, frame)| frame);
                    }
                    self.perform(action, frame);
                }
                if !self.events.is_empty() {
                    // What came of sending comes before what else was received.
                    return true;
                }
            }
            more_may_be_there |= left == 0;
        }
        more_may_be_there
    }

    /// Carries out one action; a message in this frame, if it is the one that was received in it.
    fn perform(&mut self, action: Action, frame: Option<Frame>) {
        match action {
            Action::Send { to, message } => self.send(to, message, frame),
            Action::Forget { peer } => self.forget(peer),
            Action::Mute { peer, key, until } => {
                self.mute(peer, true);
                if let (Some(gatekeeper), Some(key)) = (&self.gatekeeper, key) {
                    gatekeeper.refuse(key, until);
                }
                if may_log(&mut self.logged, clock::now()) {
                    tracing::warn!(
                        ?peer,
                        "quarantined a peer that breaks the protocol again and again"
                    );
                }
            }
            Action::Unmute { peer } => self.mute(peer, false),
        }
    }

    fn mute(&mut self, peer: PeerId, is_muted: bool) {
        let number = peer.router().map(usize::from);
        if let Some(router) = number.and_then(|number| self.routers.get_mut(number)) {
            router.mute(peer, is_muted);
        }
    }

    fn send(&mut self, to: PeerId, message: Box<Message>, frame: Option<Frame>) {
        if self.outboxes.is_empty() || !self.outboxes.contains_key(&to) {
            match self.offer(to, &message, frame) {
                SendOutcome::Full => {}
                SendOutcome::Sent | SendOutcome::Down | SendOutcome::TooLong => return,
            }
        }
        self.counters.waited += 1;
        let outbox = self.outboxes.entry(to).or_default();
        if !outbox.push(message, &mut self.room) {
            self.forget(to);
            self.counters.stuck += 1;
            self.events.push(Event::Stuck { peer: to });
        }
    }

    fn forget(&mut self, peer: PeerId) {
        if let Some(outbox) = self.outboxes.remove(&peer) {
            outbox.clear(&mut self.room);
        }
    }

    fn offer(&mut self, to: PeerId, message: &Message, frame: Option<Frame>) -> SendOutcome {
        let Some(router) = to
            .router()
            .and_then(|number| self.routers.get_mut(usize::from(number)))
        else {
            return SendOutcome::Down;
        };
        let outcome = router.send_on(to, message, frame);
        match outcome {
            SendOutcome::Sent | SendOutcome::Full => {}
            // Its Down may have been received already, before it said HELLO for the last time.
            SendOutcome::Down => self.events.push(Event::Lost { peer: to }),
            SendOutcome::TooLong => {
                self.counters.too_long += 1;
                tracing::error!(
                    kind = message.header.kind.name(),
                    "a message too long to be sent"
                );
            }
        }
        outcome
    }

    /// Offers what waits again: the wait ends when there is room.
    fn flush(&mut self) {
        if self.outboxes.is_empty() {
            return;
        }
        let mut outboxes = std::mem::take(&mut self.outboxes);
        let mut room = std::mem::replace(&mut self.room, outbox::room());
        outboxes.retain(|&to, outbox| {
            outbox.flush(&mut room, |message| {
                let is_full = self.offer(to, &message, None) == SendOutcome::Full;
                is_full.then_some(message)
            });
            !outbox.is_empty()
        });
        (self.outboxes, self.room) = (outboxes, room);
    }

    /// What was counted since the last time, and all that the sockets have.
    fn take_counters(&mut self) -> ShellCounters {
        let mut counters = std::mem::take(&mut self.counters);
        for router in &self.routers {
            let router = router.counters();
            counters.backstop_saves += router.backstop_saves;
            counters.foreign += router.foreign;
            counters.sent_on += router.sent_on;
            counters.muted += router.muted;
            counters.handshakes_unencrypted += router.handshakes_unencrypted;
            counters.handshakes_wrong_key += router.handshakes_wrong_key;
            counters.handshakes_unfinished += router.handshakes_unfinished;
            counters.handshakes_broken += router.handshakes_broken;
        }
        counters
    }
}

/// Whether what a peer did wrong is worth a line now.
fn may_log(logged: &mut Option<Instant>, now: Instant) -> bool {
    let is_due = logged.is_none_or(|logged| logged + LOG_SPACING <= now);
    if is_due {
        *logged = Some(now);
    }
    is_due
}

/// However the thread ends: those who share its process learn that it has.
struct Closes(Arc<Station>);

impl Drop for Closes {
    fn drop(&mut self) {
        self.0.close();
    }
}
