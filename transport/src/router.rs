use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::ffi::CStr;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use scale0_wire::{DecodeError, Message};

use crate::context::Context;
use crate::curve::PublicKey;
use crate::endpoint::Endpoint;
use crate::error::TransportError;
use crate::frame::{self, Frame, NotSent};
use crate::io_thread::{self, Source, ThreadWaker};
use crate::links::{Incoming, PASS, SendOutcome};
use crate::monitor::{Failure, Handshake, Monitor};
use crate::options::{self, BUFFER, RouterOptions};
use crate::peer_id::PeerId;
use crate::raw_frame::RawFrame;
use crate::socket::{Errno, Interest, Socket};

/// Frames of so many buffers are sent on to a peer that says nothing, and the others copied: until it reads, each of them keeps the buffer
/// alive that it was received in, which may be 145 KiB with libzmq's books, whatever the frame's own length.
const BUFFERS_UNHEARD: u8 = 64;

/// Passes in which something was received, for one look at whose handshake has failed.
const PASSES_PER_LOOK: u8 = 16;

/// Peers are numbered by libzmq, one after the other: there is nobody to hide the order of a table from.
type Numbered = BuildHasherDefault<Number>;

/// A peer's number as its own hash, spread over all bits.
#[derive(Default)]
struct Number(u64);

impl Hasher for Number {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(byte.into());
        }
    }

    fn write_u64(&mut self, number: u64) {
        // 2⁶⁴ divided by the golden ratio (Knuth, The Art of Computer Programming, vol. 3, 6.4).
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// The bound side: one ROUTER, owned by one thread.
///
/// The peer's death is said in order, behind the last of its messages.
pub struct Router {
    socket: Socket,
    number: u8,
    address: String,
    lost: Vec<u8>,
    /// Peers to which a send was refused, until a wait has said that there is room. One that is gone has room.
    refused: RefCell<HashSet<PeerId>>,
    /// What is known of the connections that were heard of so far.
    peers: HashMap<PeerId, Peer, Numbered>,
    /// Whoever comes has a key.
    has_keys: bool,
    /// Tells of handshakes that failed.
    monitor: Monitor,
    received_in_pass: usize,
    passes: u8,
    /// The identity frame of the latest message.
    identity: RawFrame,
    scratch: Vec<u8>,
    counters: RouterCounters,
    backstop_saves: Cell<u64>,
}

/// What comes to a router, for whoever sends it on.
#[derive(Debug)]
pub enum Arrival {
    /// A message, and the frame that it came in if that was one, and short.
    Message(Box<Message>, Option<Frame>),
    /// See [`Incoming::Malformed`].
    Malformed(DecodeError),
    /// See [`Incoming::Down`].
    Down,
}

/// One connection.
#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    /// What was sent on to it since it was heard last.
    unheard: Unheard,
    /// What it says is not heard.
    is_muted: bool,
    /// What it has proved to be.
    key: Option<PublicKey>,
}

/// Frames that may wait in libzmq for a peer that has said nothing since.
#[derive(Clone, Copy, Debug, Default)]
struct Unheard {
    /// Buffers that they were received in, at most.
    buffers: u8,
    /// Where the latest lies.
    latest: usize,
}

impl Unheard {
    /// Whether the frame at this address may wait too.
    ///
    /// One nearer to the latest than a buffer has bytes keeps no further buffer alive: behind those bytes libzmq has its books, which are
    /// wider than that, so that no such step leads from one buffer to the next.
    fn take(&mut self, address: usize) -> bool {
        let is_near = 0 < self.buffers && address.abs_diff(self.latest) < BUFFER;
        let may = is_near || self.buffers < BUFFERS_UNHEARD;
        if may {
            self.buffers += u8::from(!is_near);
            self.latest = address;
        }
        may
    }
}

/// The property of a connection in which libzmq keeps what the gatekeeper has said of it.
const USER: &CStr = c"User-Id";

/// A property that all connections over TCP have, and no message of libzmq's own making.
const ADDRESS: &CStr = c"Peer-Address";

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RouterCounters {
    /// Times that news was found by the backstop alone: a mistake in this crate.
    pub backstop_saves: u64,
    /// Messages dropped because they were none.
    pub malformed: u64,
    /// Messages dropped because their sender had chosen its own routing id, which no peer of ours does.
    pub foreign: u64,
    /// Sends refused for want of room.
    pub full: u64,
    /// Sends to peers that were gone.
    pub unreachable: u64,
    /// Connections lost or closed.
    pub lost: u64,
    /// Messages dropped because their sender is muted.
    pub muted: u64,
    /// Handshakes that failed because one side encrypts and the other does not.
    pub handshakes_unencrypted: u64,
    /// Handshakes that failed because the other side has a wrong key for this one.
    pub handshakes_wrong_key: u64,
    /// Handshakes that were not finished in time, or left.
    pub handshakes_unfinished: u64,
    /// Handshakes that were none of ZMTP's.
    pub handshakes_broken: u64,
    /// Messages that might leave in the frame they came in, and were not copied for its sake.
    pub sent_on: u64,
}

impl Router {
    /// Binds. `number` tells the process's routers apart in a [`PeerId`].
    ///
    /// # Errors
    /// When the address is in use, not this machine's or not ours to take, or no socket is to be had.
    pub fn bind(
        context: &Context,
        endpoint: &Endpoint,
        number: u8,
        options: &RouterOptions,
    ) -> Result<Self, TransportError> {
        let mut socket = Socket::new(context.socket(zmq::ROUTER)?);
        options.apply(&mut socket, endpoint)?;
        let monitor = Monitor::of_failures(context, &socket)?;
        let refused = |errno| TransportError::refused(format!("bind {endpoint}"), errno);
        socket.bind(endpoint.address()).map_err(refused)?;
        let address = socket.last_endpoint().map_err(refused)?;
        Ok(Self {
            socket,
            number,
            address,
            lost: options::lost(),
            refused: RefCell::default(),
            peers: HashMap::default(),
            has_keys: options.secret_key.is_some() && options.port.is_some(),
            monitor,
            received_in_pass: 0,
            passes: 0,
            identity: RawFrame::new(),
            scratch: Vec::new(),
            counters: RouterCounters::default(),
            backstop_saves: Cell::new(0),
        })
    }

    /// Where it is bound, with the port that was free.
    #[must_use]
    pub fn local_endpoint(&self) -> String {
        self.address.clone()
    }

    /// The next message or event of any peer. Never waits. `None` ends a pass: there is nothing more now, or 256 were
    /// received; the next call begins a new pass.
    pub fn receive(&mut self) -> Option<(PeerId, Incoming)> {
        let (from, arrival) = self.receive_framed()?;
        let incoming = match arrival {
            Arrival::Message(message, _) => Incoming::Message(*message),
            Arrival::Malformed(error) => Incoming::Malformed(error),
            Arrival::Down => Incoming::Down,
        };
        Some((from, incoming))
    }

    /// As [`receive`](Self::receive), with the frame that a short message came in: to be sent on by [`send_on`](Self::send_on),
    /// of this router or another.
    pub fn receive_framed(&mut self) -> Option<(PeerId, Arrival)> {
        while self.received_in_pass < PASS {
            if !self.socket.receive_over(&mut self.identity) {
                break;
            }
            self.received_in_pass += 1;
            // A ROUTER puts the identity frame before every message, so that there is one behind it.
            let Some(first) = self.socket.receive() else {
                break;
            };
            let Some(peer) = PeerId::from_routing_id(self.number, &self.identity) else {
                frame::skip(&self.socket, &first);
                self.counters.foreign += 1;
                continue;
            };
            // The length first: it costs nothing.
            if first.len() == self.lost.len() && !first.has_more() && *first == *self.lost {
                if self.may_only_say_so(peer, &first) {
                    self.counters.muted += 1;
                    continue;
                }
                self.refused.get_mut().remove(&peer);
                self.peers.remove(&peer);
                self.counters.lost += 1;
                return Some((peer, Arrival::Down));
            }
            match self.peers.get_mut(&peer) {
                Some(known) if known.is_muted => {
                    frame::skip(&self.socket, &first);
                    self.counters.muted += 1;
                    continue;
                }
                Some(known) => known.unheard = Unheard::default(),
                None => {
                    let user = first.connection(USER).filter(|_| self.has_keys);
                    let known = Peer {
                        key: user.and_then(|key| key.parse().ok()),
                        ..Peer::default()
                    };
                    self.peers.insert(peer, known);
                }
            }
            let arrival = match frame::receive(&self.socket, first) {
                Ok((message, frame)) => Arrival::Message(message, frame),
                Err(error) => {
                    self.counters.malformed += 1;
                    Arrival::Malformed(error)
                }
            };
            return Some((peer, arrival));
        }
        // To look costs a system call. While much comes there are many passes.
        self.passes = self.passes.wrapping_add(1);
        if self.received_in_pass == 0 || self.passes.is_multiple_of(PASSES_PER_LOOK) {
            self.count_failures();
        }
        self.received_in_pass = 0;
        None
    }

    /// Whether it is a muted peer itself, and not libzmq, that says it is gone: it would not be muted any more.
    fn may_only_say_so(&self, peer: PeerId, frame: &RawFrame) -> bool {
        let is_muted = self.peers.get(&peer).is_some_and(|known| known.is_muted);
        is_muted && (frame.connection(USER).is_some() || frame.connection(ADDRESS).is_some())
    }

    fn count_failures(&mut self) {
        while let Some(handshake) = self.monitor.receive() {
            let Handshake::Failed(why) = handshake else {
                continue;
            };
            let count = match why {
                Failure::Unencrypted => &mut self.counters.handshakes_unencrypted,
                Failure::WrongKey => &mut self.counters.handshakes_wrong_key,
                Failure::Unfinished => &mut self.counters.handshakes_unfinished,
                Failure::Broken => &mut self.counters.handshakes_broken,
                // It has counted them.
                Failure::Refused => continue,
            };
            *count += 1;
        }
    }

    /// The key that this connection's other side has proved to have. `None`: nothing was received of it, it is gone, or there are no
    /// keys in use.
    #[must_use]
    pub fn key_of(&self, peer: PeerId) -> Option<PublicKey> {
        self.peers.get(&peer)?.key
    }

    /// From now on what this peer sends is dropped unread and counted, or, if `is_muted` is false, heard again. Its end is told as ever.
    /// Of a peer that is gone: nothing.
    pub fn mute(&mut self, peer: PeerId, is_muted: bool) {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.is_muted = is_muted;
        }
    }

    /// Sends. Never waits. `Down`: the peer is gone, or is not this router's.
    pub fn send(&mut self, to: PeerId, message: &Message) -> SendOutcome {
        self.send_on(to, message, None)
    }

    /// As [`send`](Self::send), of a message that came in this frame: without a copy, if its metadata and content are those
    /// that were received, whatever has become of its header. Otherwise the frame is dropped, and nothing is amiss.
    pub fn send_on(&mut self, to: PeerId, message: &Message, frame: Option<Frame>) -> SendOutcome {
        if to.router() != Some(self.number) {
            return SendOutcome::Down;
        }
        let frame = frame.filter(|frame| self.may_wait(to, frame));
        let identity = to.routing_id();
        match frame::send_on(
            &mut self.socket,
            &identity,
            message,
            frame,
            &mut self.scratch,
        ) {
            Ok(()) => SendOutcome::Sent,
            Err(NotSent::Message) => SendOutcome::TooLong,
            Err(NotSent::Socket(Errno::AGAIN)) => {
                self.refused.get_mut().insert(to);
                self.counters.full += 1;
                SendOutcome::Full
            }
            Err(NotSent::Socket(_)) => {
                self.peers.remove(&to);
                self.counters.unreachable += 1;
                SendOutcome::Down
            }
        }
    }

    /// Whether this frame may wait in libzmq for this peer to read.
    fn may_wait(&mut self, to: PeerId, frame: &Frame) -> bool {
        let known = self.peers.entry(to).or_default();
        let may = known.unheard.take(frame.address());
        self.counters.sent_on += u64::from(may);
        may
    }

    /// How long it goes on, once dropped, to send what was handed to it: for a last BYE while draining. The last owner of the
    /// context waits for it.
    pub fn set_linger(&mut self, linger: Duration) {
        self.socket.set_linger(linger);
    }

    /// What happened so far.
    #[must_use]
    pub const fn counters(&self) -> RouterCounters {
        RouterCounters {
            backstop_saves: self.backstop_saves.get(),
            ..self.counters
        }
    }
}

impl Source for Router {
    fn has_news(&self) -> bool {
        let readable = self.socket.has(Interest {
            readable: true,
            writable: false,
        });
        let mut refused = self.refused.borrow_mut();
        let before = refused.len();
        refused.retain(|peer| !self.socket.peer_has_room_or_is_gone(&peer.routing_id()));
        readable || refused.len() < before
    }

    fn look_again(&self) {
        self.socket.unsettle();
    }

    fn descriptor(&self) -> Option<RawFd> {
        self.socket.descriptor()
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router")
            .field("address", &self.address)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

/// Waits until one of the routers may have something to receive or room where a send was refused, `waker` wakes, or the
/// deadline passed. It may return for nothing, and does so a few times a second.
///
/// # Errors
/// When the operating system cannot wait, for want of memory.
pub fn wait(routers: &[Router], waker: &ThreadWaker, deadline: Option<Instant>) -> io::Result<()> {
    let missed = |router: &Router| router.backstop_saves.set(router.backstop_saves.get() + 1);
    io_thread::wait(&routers.iter(), waker, deadline, missed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_few_buffers_wait_for_a_peer_that_says_nothing_however_many_they_are() {
        let mut unheard = Unheard::default();
        // As libzmq lays them out: the bytes, then its books.
        let buffers = (1..=usize::from(BUFFERS_UNHEARD)).map(|number| number * 145 * 1024);
        for buffer in buffers {
            for frame in (buffer..buffer + BUFFER).step_by(200) {
                assert!(unheard.take(frame));
            }
        }
        assert!(!unheard.take(0));
        let again = usize::from(BUFFERS_UNHEARD) * 145 * 1024;
        assert!(unheard.take(again + BUFFER / 2));
        assert!(!unheard.take(again - 145 * 1024));
    }
}
