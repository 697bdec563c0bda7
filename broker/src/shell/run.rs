//! The thread that owns the sockets: wait, take in, step, send, repeat.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use scale0_transport::{Arrival, Frame, Gatekeeper, PeerId, Port, Router, SendOutcome, wait};
use scale0_wire::{Kind, Message, RoutingHeader};

use super::clock;
use super::outbox::{self, Outbox};
use super::station::{ShellCounters, Station};
use crate::core::{Action, Backlog, Event};

/// How long the last BYE may take to leave this process.
const LINGER: Duration = Duration::from_secs(1);

/// Messages of each router in one round: first all are received, then all taken in, then all sent. So libzmq's I/O thread finds many when it
/// is woken, and each part's code stays in the cache; and they are so few that they do, too. To send each before the next is received costs
/// more, and so do rounds of 16.
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
    /// The frames of what each of them has received in this round, in order: what is passed on leaves in the one it came in.
    frames: Vec<VecDeque<Frame>>,
    outboxes: HashMap<PeerId, Outbox>,
    room: Backlog,
    /// Who refuses keys, where some are in use.
    gatekeeper: Option<Arc<Gatekeeper>>,
    /// What is to be told to the core next.
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
            frames: routers.iter().map(|_| VecDeque::new()).collect(),
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
            more_may_be_there = self.receive(now);
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
            self.flush();
            for action in outbound.drain(..) {
                self.perform(action);
            }
            for frames in &mut self.frames {
                frames.clear();
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

    /// What has come, at most a round's. Whether one of the routers may have more.
    fn receive(&mut self, now: Instant) -> bool {
        let mut more_may_be_there = false;
        let sources = self.routers.iter_mut().zip(&mut self.frames);
        for ((router, frames), &port) in sources.zip(&self.ports) {
            let mut left = ROUND;
            while 0 < left
                && let Some((from, arrival)) = router.receive_framed()
            {
                left -= 1;
                // The core asks whose it is when a session is opened, and when something is amiss; no more.
                let matters = match &arrival {
                    Arrival::Message(message, _) => message.header.kind == Kind::Hello,
                    Arrival::Malformed(_) => true,
                    Arrival::Down => false,
                };
                if matters && let Some(key) = router.key_of(from) {
                    self.events.push(Event::Proved { peer: from, key });
                }
                self.events.push(match arrival {
                    Arrival::Message(message, frame) => {
                        frames.extend(frame);
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
                });
            }
            more_may_be_there |= left == 0;
        }
        more_may_be_there
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Send { to, message } => {
                let mut frame = None;
                if is_passed_on(&message.header) {
                    let mut sources = self.frames.iter_mut();
                    frame = sources
                        .find_map(|frames| take_first(frames, |frame| frame.is_of(&message)));
                }
                self.send(to, message, frame);
            }
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

/// The frame that this message was received in, if that was in this round. What is passed on leaves in the order in which it came, so
/// that it is mostly the first, and those before it are of messages that were not passed on.
fn take_first<T>(frames: &mut VecDeque<T>, is_it: impl Fn(&T) -> bool) -> Option<T> {
    let place = frames.iter().position(is_it)?;
    if 0 < place {
        frames.drain(..place);
    }
    frames.pop_front()
}

/// Whether such a message may be one that was received: the others are made here, and there is no use in looking for them.
const fn is_passed_on(header: &RoutingHeader) -> bool {
    match header.kind {
        Kind::Request
        | Kind::Chunk
        | Kind::Interim
        | Kind::Response
        | Kind::Upgrade
        | Kind::End
        | Kind::Update => true,
        // That of a connection is made here.
        Kind::Window => header.correlation != 0,
        _ => false,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_passed_on_is_found_behind_any_number_of_others_and_those_are_dropped() {
        let mut frames: VecDeque<_> = (0..256).collect();
        assert_eq!(take_first(&mut frames, |&frame| frame == 300), None);
        assert_eq!(take_first(&mut frames, |&frame| frame == 20), Some(20));
        assert_eq!(take_first(&mut frames, |&frame| frame == 255), Some(255));
        assert!(frames.is_empty());
    }
}
