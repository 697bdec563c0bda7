use std::os::fd::RawFd;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};
use std::{fmt, future, io};

use scale0_wire::{DecodeError, Message};

use crate::context::Context;
use crate::driver::Backstop;
use crate::endpoint::Endpoint;
use crate::error::TransportError;
use crate::in_process::{Hub, InProcessLink, Port};
use crate::io_thread::{self, Source, ThreadWaker};
use crate::link::Link;
use crate::options::LinkOptions;

/// Messages of one pass: then the owner does its other work, and sends.
pub(crate) const PASS: usize = 256;

/// Messages from one link before the next has its turn.
const TURN: usize = 64;

/// The dialling side: every link of one driver task or thread, over sockets and in process. It has one owner, which receives
/// until there is nothing, sends, and then waits:
///
/// ```no_run
/// # async fn drive(mut links: scale0_transport::Links) {
/// loop {
///     while let Some((link, incoming)) = links.receive() {
///         // Take it in.
///     }
///     // Send what is to be sent, with `links.send`.
///     links.ready().await; // or, on a thread: links.wait(&waker, deadline)
/// }
/// # }
/// ```
pub struct Links {
    entries: Vec<(LinkId, Entry)>,
    next_id: u32,
    turn: Turn,
    backstop: Backstop,
    scratch: Vec<u8>,
    counters: LinkCounters,
}

/// One link of one [`Links`]; never used again for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(u32);

/// What a link or a router's peer has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// The connection stands (again): say HELLO. A [`crate::Router`] does not say it; its peer's HELLO does.
    Up,
    /// A message.
    Message(Message),
    /// Bytes that are not a message. They are dropped and counted.
    Malformed(DecodeError),
    /// The connection is gone, and nothing follows from it; what was sent and not answered is unknown. A link dials anew by
    /// itself, and `Up` follows.
    Down,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// It is on its way; whether it arrives, only an answer tells.
    Sent,
    /// No room. Keep it, and try again when `ready` or `wait` returns: they do so when there is room.
    Full,
    /// Not connected. It will not be sent.
    Down,
    /// It is longer than the protocol allows, and never will be sent. Whoever made it is at fault.
    TooLong,
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkCounters {
    /// Times that news was found by the backstop alone: a mistake in this crate.
    pub backstop_saves: u64,
    /// Messages dropped because they were none.
    pub malformed: u64,
    /// Sends refused for want of room.
    pub full: u64,
    /// Connections lost.
    pub lost: u64,
    /// Handshakes that failed: a wrong key, or somebody who does not speak ZMTP.
    pub failed_handshakes: u64,
}

#[expect(
    clippy::large_enum_variant,
    reason = "a few per process, and most are the large one"
)]
enum Entry {
    Socket(Link),
    InProcess(InProcessLink),
}

/// Whose turn it is to be received from.
#[derive(Default)]
struct Turn {
    at: usize,
    /// How many it has given in this turn.
    given: usize,
    /// How many were given in this pass.
    pass: usize,
    /// How many in a row had nothing.
    empty: usize,
}

impl Links {
    /// No links yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            entries: Vec::new(),
            next_id: 0,
            turn: Turn::default(),
            backstop: Backstop::new(),
            scratch: Vec::new(),
            counters: LinkCounters::default(),
        }
    }

    /// Dials. `Up` tells when the connection stands; until then, and whenever it is lost, it is dialled again and again.
    ///
    /// # Errors
    /// When no socket is to be had, or libzmq cannot make sense of the address. That nobody answers is no error.
    pub fn connect(
        &mut self,
        context: &Context,
        endpoint: &Endpoint,
        options: &LinkOptions,
    ) -> Result<LinkId, TransportError> {
        let link = Link::dial(context, endpoint, options)?;
        Ok(self.add(Entry::Socket(link)))
    }

    /// A link to a broker in this very process: no socket, no I/O thread, the same messages. Once the broker is gone it stays
    /// down until it is redialled.
    pub fn attach(&mut self, hub: Arc<dyn Hub>, port: Port, locality: u32) -> LinkId {
        self.add(Entry::InProcess(InProcessLink::attach(hub, port, locality)))
    }

    fn add(&mut self, entry: Entry) -> LinkId {
        let id = LinkId(self.next_id);
        self.next_id += 1;
        self.entries.push((id, entry));
        id
    }

    /// The next message or event of any link, in turn. Never waits. `None` ends a pass: there is nothing more now, or 256 were
    /// received; the next call begins a new pass.
    pub fn receive(&mut self) -> Option<(LinkId, Incoming)> {
        let turn = &mut self.turn;
        while turn.empty < self.entries.len() && turn.pass < PASS {
            let at = turn.at % self.entries.len();
            if turn.given == TURN {
                (turn.at, turn.given) = (at + 1, 0);
                continue;
            }
            let (id, entry) = &mut self.entries[at];
            let Some(incoming) = entry.receive(&mut self.counters) else {
                (turn.at, turn.given) = (at + 1, 0);
                turn.empty += 1;
                continue;
            };
            turn.given += 1;
            turn.pass += 1;
            turn.empty = 0;
            return Some((*id, incoming));
        }
        (turn.pass, turn.empty) = (0, 0);
        None
    }

    /// Sends. Never waits. To a link that was closed: `Down`.
    pub fn send(&mut self, link: LinkId, message: &Message) -> SendOutcome {
        let Some((_, entry)) = self.entries.iter_mut().find(|(id, _)| *id == link) else {
            return SendOutcome::Down;
        };
        match entry {
            Entry::Socket(link) => link.send(message, &mut self.scratch, &mut self.counters),
            Entry::InProcess(link) => link.send(message),
        }
    }

    /// Drops the connection and dials anew: for a peer declared dead. `Up` follows, without a `Down`.
    ///
    /// # Errors
    /// When no socket is to be had; the link is then as it was.
    pub fn redial(&mut self, link: LinkId) -> Result<(), TransportError> {
        match self.entry(link) {
            Some(Entry::Socket(link)) => link.dial_anew()?,
            Some(Entry::InProcess(link)) => link.attach_anew(),
            None => {}
        }
        Ok(())
    }

    /// Ends a link. What it has not sent yet is dropped, unless [`Links::set_linger`] says otherwise.
    pub fn close(&mut self, link: LinkId) {
        self.entries.retain(|(id, _)| *id != link);
    }

    /// How long links that are closed from now on, or dropped with this, go on sending what was handed to them: for a last
    /// BYE while draining. The last owner of the context waits for it.
    pub fn set_linger(&mut self, linger: Duration) {
        for (_, entry) in &mut self.entries {
            if let Entry::Socket(link) = entry {
                link.set_linger(linger);
            }
        }
    }

    /// Resolves when `receive` may have something or a link that was full may have room. On a current-thread runtime of tokio
    /// with time and I/O enabled; all calls on the same one.
    ///
    /// # Cancel safety
    /// It may be dropped at any time; nothing is lost.
    pub async fn ready(&mut self) {
        future::poll_fn(|cx| self.poll_ready(cx)).await;
    }

    /// As [`Links::ready`], for a future of one's own.
    pub fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<()> {
        // All are asked, for only who was asked wakes the task.
        let news = self
            .entries
            .iter_mut()
            .fold(false, |news, (_, entry)| entry.poll_news(cx) | news);
        if news {
            self.backstop.busy();
            return Poll::Ready(());
        }
        std::task::ready!(self.backstop.poll(cx));
        self.backstop.busy();
        let sources = self.entries.iter().map(|(_, entry)| entry);
        io_thread::look_for_missed(sources, |_| {
            self.counters.backstop_saves += 1;
        });
        Poll::Ready(())
    }

    /// Waits until `receive` may have something, a link that was full may have room, `waker` wakes, or the deadline passed:
    /// for a thread that owns its links.
    ///
    /// # Errors
    /// When the operating system cannot wait, for want of memory.
    pub fn wait(&mut self, waker: &ThreadWaker, deadline: Option<Instant>) -> io::Result<()> {
        for (_, entry) in &self.entries {
            if let Entry::InProcess(link) = entry {
                link.register(&waker.to_waker());
            }
        }
        let sources = self.entries.iter().map(|(_, entry)| entry);
        io_thread::wait(&sources, waker, deadline, |_| {
            self.counters.backstop_saves += 1;
        })
    }

    /// What happened so far.
    #[must_use]
    pub const fn counters(&self) -> LinkCounters {
        self.counters
    }

    fn entry(&mut self, link: LinkId) -> Option<&mut Entry> {
        self.entries
            .iter_mut()
            .find_map(|(id, entry)| (*id == link).then_some(entry))
    }
}

impl Default for Links {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links")
            .field("links", &self.entries.len())
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

impl Entry {
    fn receive(&mut self, counters: &mut LinkCounters) -> Option<Incoming> {
        match self {
            Self::Socket(link) => link.receive(counters),
            Self::InProcess(link) => link.receive(counters),
        }
    }

    fn poll_news(&mut self, cx: &mut TaskContext<'_>) -> bool {
        match self {
            Self::Socket(link) => link.poll_news(cx),
            Self::InProcess(link) => {
                link.register(cx.waker());
                link.has_news()
            }
        }
    }

    fn source(&self) -> &dyn Source {
        match self {
            Self::Socket(link) => link,
            Self::InProcess(link) => link,
        }
    }
}

impl Source for Entry {
    fn has_news(&self) -> bool {
        self.source().has_news()
    }

    fn look_again(&self) {
        self.source().look_again();
    }

    fn descriptor(&self) -> Option<RawFd> {
        self.source().descriptor()
    }
}
