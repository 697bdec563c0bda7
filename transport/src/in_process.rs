//! Links within one process: the same messages, without sockets, I/O threads and frames.

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::task::Waker;

use parking_lot::Mutex;
use scale0_wire::Message;

use crate::io_thread::Source;
use crate::links::{Incoming, LinkCounters, SendOutcome};
use crate::peer_id::PeerId;

/// Messages that may wait towards one in-process peer: as many as a socket's pipe holds.
const INBOX: usize = crate::options::HIGH_WATER_MARK;

/// Which of a broker's doors a peer comes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Port {
    /// Where frontends come in.
    Frontends,
    /// Where backends come in.
    Backends,
    /// Where brokers of other sites come in.
    Peers,
}

impl Port {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Frontends, Self::Backends, Self::Peers];

    /// Who comes in there, in a word: a ZAP domain too.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Frontends => "frontends",
            Self::Backends => "backends",
            Self::Peers => "peers",
        }
    }
}

/// Whoever owns a state machine that peers of the same process talk to: a broker.
///
/// Its methods are called from the peer's thread and may take locks, but never wait for a peer.
pub trait Hub: Send + Sync {
    /// A peer comes. Messages for it go into `inbox`. `locality` says which peers are near each other: equal is nearest.
    fn attach(&self, port: Port, locality: u32, inbox: Arc<Inbox>) -> PeerId;
    /// A peer sends. A message from a peer that is not attached is dropped and counted.
    fn submit(&self, from: PeerId, message: Message);
    /// A peer goes; its inbox is not used afterwards.
    fn detach(&self, peer: PeerId);
}

/// The bounded queue of messages towards one in-process peer, with whom to wake for it.
#[derive(Debug)]
pub struct Inbox {
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    messages: VecDeque<Message>,
    waker: Option<Waker>,
    closed: bool,
}

impl Inbox {
    /// An inbox for at most this many messages.
    #[must_use]
    pub fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            capacity,
            state: Mutex::default(),
        })
    }

    /// Puts a message in. The waker returned, if any, is to be woken once the caller holds no lock that the woken will want.
    ///
    /// # Errors
    /// The message, if the inbox is full or closed ([`Inbox::is_closed`]).
    #[expect(
        clippy::result_large_err,
        reason = "the message goes back to be kept, a box would be dropped at once"
    )]
    pub fn push(&self, message: Message) -> Result<Option<Waker>, Message> {
        let mut state = self.state.lock();
        if state.closed || self.capacity <= state.messages.len() {
            return Err(message);
        }
        state.messages.push_back(message);
        Ok(state.waker.take())
    }

    /// Nothing comes any more; the receiver sees Down behind what is in it. The waker is to be woken as that of `push`.
    pub fn close(&self) -> Option<Waker> {
        let mut state = self.state.lock();
        state.closed = true;
        state.waker.take()
    }

    /// Whether either side has closed it.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// The messages in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.lock().messages.len()
    }

    /// Whether no message is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.state.lock().messages.is_empty()
    }

    /// The next message; `Err` when it was the last.
    fn pop(&self) -> Result<Option<Message>, Closed> {
        let mut state = self.state.lock();
        match state.messages.pop_front() {
            None if state.closed => Err(Closed),
            message => Ok(message),
        }
    }

    /// Who is to be woken by the next `push` or `close`. Whoever calls this looks into the inbox afterwards.
    fn register(&self, waker: &Waker) {
        let mut state = self.state.lock();
        if !state
            .waker
            .as_ref()
            .is_some_and(|known| known.will_wake(waker))
        {
            state.waker = Some(waker.clone());
        }
    }
}

struct Closed;

/// The peer's end.
pub(crate) struct InProcessLink {
    hub: Arc<dyn Hub>,
    port: Port,
    locality: u32,
    inbox: Arc<Inbox>,
    peer: PeerId,
    state: LinkState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LinkState {
    // → Up, when that was received.
    Attached,
    // → Gone, when the hub closed the inbox.
    Up,
    // → Attached, when dialled anew.
    Gone,
}

impl InProcessLink {
    pub(crate) fn attach(hub: Arc<dyn Hub>, port: Port, locality: u32) -> Self {
        let inbox = Inbox::new(INBOX);
        let peer = hub.attach(port, locality, Arc::clone(&inbox));
        Self {
            hub,
            port,
            locality,
            inbox,
            peer,
            state: LinkState::Attached,
        }
    }

    pub(crate) fn attach_anew(&mut self) {
        self.detach();
        self.inbox = Inbox::new(INBOX);
        self.peer = self
            .hub
            .attach(self.port, self.locality, Arc::clone(&self.inbox));
        self.state = LinkState::Attached;
    }

    fn detach(&self) {
        // The one who would be woken is the caller.
        drop(self.inbox.close());
        self.hub.detach(self.peer);
    }

    pub(crate) fn receive(&mut self, counters: &mut LinkCounters) -> Option<Incoming> {
        match self.state {
            LinkState::Attached => {
                self.state = LinkState::Up;
                Some(Incoming::Up)
            }
            LinkState::Up => match self.inbox.pop() {
                Ok(message) => message.map(Incoming::Message),
                Err(Closed) => {
                    self.state = LinkState::Gone;
                    counters.lost += 1;
                    Some(Incoming::Down)
                }
            },
            LinkState::Gone => None,
        }
    }

    pub(crate) fn send(&self, message: &Message) -> SendOutcome {
        if self.state != LinkState::Up || self.inbox.is_closed() {
            return SendOutcome::Down;
        }
        self.hub.submit(self.peer, message.clone());
        SendOutcome::Sent
    }

    pub(crate) fn register(&self, waker: &Waker) {
        self.inbox.register(waker);
    }
}

impl Source for InProcessLink {
    fn has_news(&self) -> bool {
        match self.state {
            LinkState::Attached => true,
            LinkState::Up => !self.inbox.is_empty() || self.inbox.is_closed(),
            LinkState::Gone => false,
        }
    }

    fn look_again(&self) {}

    fn descriptor(&self) -> Option<RawFd> {
        None
    }
}

impl Drop for InProcessLink {
    fn drop(&mut self) {
        self.detach();
    }
}
