//! What frontends and backends have in common: a session over a connection.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use scale0_transport::{PeerId, PublicKey};
use scale0_wire::flow::{ReceiveWindow, SendWindow};
use scale0_wire::{End, Fields, Heartbeat, Hello, Kind, Message, RoutingHeader, Window};

use super::backlog::Backlog;
use super::event::Action;
use super::timers::TimerId;

/// A session's connection: its epoch, its pulse, its windows, and what waits for them.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) peer: PeerId,
    pub(crate) epoch: u64,
    /// Of the protocol, as both sides agreed.
    pub(crate) version: u8,
    pub(crate) node: String,
    pub(crate) instance: u64,
    pub(crate) lane: u16,
    pub(crate) locality: Option<u32>,
    /// What it has proved to be, where keys are in use.
    pub(crate) key: Option<PublicKey>,
    pub(crate) is_draining: bool,
    /// How often each side is heard at least.
    pub(crate) heartbeat: Duration,
    /// When something was heard last.
    pub(crate) heard: Instant,
    pub(crate) timer: Option<TimerId>,
    /// How much it may say yet.
    pub(crate) leave: Leave,
    pulse: Pulse,
    send: SendWindow,
    receive: ReceiveWindow,
    waiting: VecDeque<Box<Message>>,
    waiting_bytes: usize,
}

/// What heartbeats tell.
#[derive(Debug, Default)]
struct Pulse {
    sequence: u32,
    sent: Option<Instant>,
    /// The peer's newest heartbeat, and when it came.
    newest: Option<(u32, Instant)>,
    /// The newest heartbeat of ours that the peer says it has read.
    echoed: u32,
    /// The first heartbeat behind the newest other message to the peer; none was sent yet while `is_behind`.
    mark: u32,
    is_behind: bool,
    round_trip: Duration,
}

/// What a peer may say beside content, in messages: about sessions, streams and credit. Each costs a step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leave {
    left: u32,
    at: Instant,
}

impl Leave {
    /// A few percent of what a broker can take in, and far beyond what follows from anybody's clock. A frontend under a rush says how many
    /// wait for a response each time that one more does.
    const PER_MS: u32 = 20;
    /// More than lies in a connection when this process goes on after a pause: a high-water mark of 4,096 messages on both sides.
    const MOST: u32 = 50_000;
    /// What follows from a request at most: 16 interim responses, the response, its end, credit, deadlines.
    const PER_REQUEST: u32 = 24;
    /// What follows from content, to either side: windows.
    const PER_CONTENT: u32 = 4;

    const fn new(now: Instant) -> Self {
        Self {
            left: Self::MOST,
            at: now,
        }
    }

    /// Takes in what the peer is sent. Answers to what it says of itself earn it nothing, or they would earn it leave to go on.
    fn earn_by_sending(&mut self, message: &Message) {
        if message.header.kind == Kind::Request {
            self.earn(Self::PER_REQUEST);
        } else if !message.content.is_empty() {
            self.earn(Self::PER_CONTENT);
        }
    }

    fn earn(&mut self, more: u32) {
        self.left = (self.left + more).min(Self::MOST);
    }

    /// Takes in a message; whether there was leave for it.
    #[must_use]
    pub(crate) fn take(&mut self, message: &Message, now: Instant) -> bool {
        if message.header.kind == Kind::Request {
            self.earn(Self::PER_REQUEST);
            return true;
        }
        if !message.content.is_empty() {
            // Windows bound it.
            self.earn(Self::PER_CONTENT);
            return true;
        }
        let elapsed = now.saturating_duration_since(self.at).as_millis();
        if 0 < elapsed {
            let earned = u32::try_from(elapsed).unwrap_or(u32::MAX);
            let earned = earned.saturating_mul(Self::PER_MS);
            self.left = self.left.saturating_add(earned).min(Self::MOST);
            self.at = now;
        }
        let is_left = 0 < self.left;
        self.left -= u32::from(is_left);
        is_left
    }
}

/// What could not be appended to a peer's queue, because too much waits there.
#[derive(Debug)]
pub(crate) struct Full;

impl Link {
    pub(crate) fn new(
        peer: PeerId,
        epoch: u64,
        version: u8,
        locality: Option<u32>,
        hello: &Hello,
        heartbeat: Duration,
        now: Instant,
    ) -> Self {
        Self {
            peer,
            epoch,
            version,
            node: hello.node.clone(),
            instance: hello.instance,
            lane: hello.lane,
            locality,
            key: None,
            is_draining: false,
            heartbeat,
            heard: now,
            timer: None,
            leave: Leave::new(now),
            pulse: Pulse::default(),
            send: SendWindow::new(hello.window),
            receive: ReceiveWindow::connection(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
        }
    }

    /// The window that this side opens at the start.
    pub(crate) const fn initial_window(&self) -> u32 {
        scale0_wire::limits::CONNECTION_WINDOW
    }

    pub(crate) const fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// What must hold of it: see [`Broker::audit`](super::Broker::audit).
    pub(crate) fn audit(&self) {
        let bytes: usize = self.waiting.iter().map(|message| message.size()).sum();
        assert_eq!(
            bytes, self.waiting_bytes,
            "bytes that wait for {:?}",
            self.node
        );
    }

    pub(crate) const fn round_trip(&self) -> Duration {
        self.pulse.round_trip
    }

    /// Sends what waits for nothing.
    pub(crate) fn tell(&mut self, message: impl Into<Box<Message>>, actions: &mut Vec<Action>) {
        let mut message = message.into();
        self.pulse.is_behind = true;
        self.leave.earn_by_sending(&message);
        message.header.epoch = self.epoch;
        message.set_version(self.version);
        let to = self.peer;
        actions.push(Action::Send { to, message });
    }

    /// Sends the next message of a stream: at once, or behind what waits for the connection's window.
    pub(crate) fn send(
        &mut self,
        message: Box<Message>,
        backlog: &mut Backlog,
        actions: &mut Vec<Action>,
    ) -> Result<(), Full> {
        let content = counted_content(&message);
        if self.waiting.is_empty() && (content == 0 || content as u64 <= self.send.room()) {
            // There is room, so it is within the window.
            let _ = self.send.take(content);
            self.tell(message, actions);
            return Ok(());
        }
        if !backlog.admits(self.waiting_bytes, message.size()) {
            return Err(Full);
        }
        self.wait(message, backlog);
        Ok(())
    }

    /// Sends a stream's last word, an END. It is never too much: each stream has one, streams are bounded, and what is not needed
    /// to end one is left out where too much waits already. Returns whether all of it goes.
    #[must_use]
    pub(crate) fn send_last(
        &mut self,
        message: impl Into<Box<Message>>,
        backlog: &mut Backlog,
        actions: &mut Vec<Action>,
    ) -> bool {
        let mut message = message.into();
        if self.waiting.is_empty() {
            self.tell(message, actions);
            return true;
        }
        let mut is_whole = true;
        if !backlog.admits(self.waiting_bytes, message.size()) {
            let bare = match End::decode(&message.metadata) {
                Ok(End::Failed { reason, .. }) => End::Failed {
                    reason,
                    detail: String::new(),
                },
                Ok(End::Complete(_)) | Err(_) => End::Complete(Fields::default()),
            };
            let bare = bare.encode();
            is_whole = message.metadata.len() <= bare.len();
            message.metadata = bare;
        }
        self.wait(message, backlog);
        is_whole
    }

    /// Takes in a WINDOW of the connection, and sends what has waited for it.
    pub(crate) fn raise(
        &mut self,
        window: Window,
        backlog: &mut Backlog,
        actions: &mut Vec<Action>,
    ) {
        self.send.raise(window.0);
        while let Some(message) = self.waiting.front() {
            let content = counted_content(message);
            if self.send.room() < content as u64 {
                return;
            }
            let _ = self.send.take(content);
            let Some(message) = self.waiting.pop_front() else {
                return;
            };
            self.waiting_bytes -= message.size();
            backlog.remove(message.size());
            self.tell(message, actions);
        }
        // A burst's memory is not kept for the next one.
        self.waiting = VecDeque::new();
    }

    /// Counts what came. Returns false if the peer had no right to send it.
    ///
    /// Whatever becomes of it, it is out of the connection's way at once: forwarded, queued for another peer within a bound of
    /// its own, or dropped. So one stuck reader stops nobody else of its backend.
    #[must_use]
    pub(crate) fn receive(
        &mut self,
        message: &Message,
        now: Instant,
        actions: &mut Vec<Action>,
    ) -> bool {
        let content = counted_content(message);
        if content == 0 {
            return true;
        }
        if !self.receive.receive(content) {
            return false;
        }
        if let Some(limit) = self.receive.consume(content, now, self.pulse.round_trip) {
            let window = Message::new(RoutingHeader::new(Kind::Window));
            self.tell(window.with_metadata(Window(limit).encode()), actions);
        }
        true
    }

    /// Takes in the peer's heartbeat.
    pub(crate) fn hear(&mut self, heartbeat: &Heartbeat, now: Instant) {
        self.pulse.newest = Some((heartbeat.sequence, now));
        self.pulse.echoed = heartbeat.echo;
        if let Some(sent) = self.pulse.sent
            && heartbeat.echo == self.pulse.sequence
        {
            let there = Duration::from_micros(heartbeat.echo_delay_us.into());
            self.pulse.round_trip = now.saturating_duration_since(sent).saturating_sub(there);
        }
    }

    /// When the peer is suspect unless it is heard before.
    pub(crate) fn suspect_at(&self) -> Instant {
        self.heard + self.heartbeat * SUSPECT_AFTER / 2
    }

    /// Whether it is known that the peer has read all that it was sent: it has echoed a heartbeat from behind that.
    pub(crate) fn has_read_all(&self) -> bool {
        let Pulse {
            echoed,
            mark,
            is_behind,
            ..
        } = self.pulse;
        // Numbers wrap around: what is less than half of them ahead is newer.
        self.waiting.is_empty() && !is_behind && echoed.wrapping_sub(mark) <= u32::MAX / 2
    }

    /// Whether a heartbeat now would be the first behind all that the peer is sent.
    pub(crate) fn owes_mark(&self) -> bool {
        self.waiting.is_empty() && self.pulse.is_behind
    }

    /// Sends this side's next heartbeat, with this load.
    pub(crate) fn beat(&mut self, load: Heartbeat, now: Instant, actions: &mut Vec<Action>) {
        self.pulse.sequence = self.pulse.sequence.wrapping_add(1).max(1);
        self.pulse.sent = Some(now);
        let (echo, heard) = self.pulse.newest.unwrap_or((0, now));
        let delay = now.saturating_duration_since(heard).as_micros();
        let heartbeat = Heartbeat {
            sequence: self.pulse.sequence,
            echo,
            echo_delay_us: u32::try_from(delay).unwrap_or(u32::MAX),
            ..load
        };
        let message = Message::new(RoutingHeader::new(Kind::Heartbeat));
        let was_behind = self.pulse.is_behind;
        self.tell(message.with_metadata(heartbeat.encode()), actions);
        if was_behind {
            self.pulse.mark = self.pulse.sequence;
        }
        self.pulse.is_behind = false;
    }

    fn wait(&mut self, mut message: Box<Message>, backlog: &mut Backlog) {
        unpin(&mut message);
        backlog.add(message.size());
        self.waiting_bytes += message.size();
        self.waiting.push_back(message);
    }
}

/// In half heartbeats: after so long without a word a peer is suspect. One that lives is heard once in a heartbeat, a little late at times.
const SUSPECT_AFTER: u32 = 3;

/// The bytes of a message that count against a connection's window.
fn counted_content(message: &Message) -> usize {
    match message.header.kind {
        Kind::Response | Kind::Chunk | Kind::Upgrade => message.content.len(),
        _ => 0,
    }
}

/// A message that waits keeps the buffer alive that it was received in, which may be much larger: below this size it is copied, …
const PINNED_FROM: usize = 16 * 1024;

/// … unless it was when it was received.
const COPIED_ALREADY: usize = scale0_transport::COPY_RECEIVED;

/// Moves what a message holds into memory of its own, if it is short.
pub(crate) fn unpin(message: &mut Message) {
    if message.size() <= COPIED_ALREADY {
        return;
    }
    let (metadata, content) = (message.metadata.len(), message.content.len());
    let length = message.extension.len() + metadata + content;
    if PINNED_FROM <= length {
        return;
    }
    let mut copy = bytes::BytesMut::with_capacity(length);
    copy.extend_from_slice(&message.metadata);
    copy.extend_from_slice(&message.content);
    copy.extend_from_slice(&message.extension);
    let mut copy = copy.freeze();
    message.metadata = copy.split_to(metadata);
    message.content = copy.split_to(content);
    message.extension = copy;
}
