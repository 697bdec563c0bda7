//! One dialled connection: a DEALER, and when it is up.
//!
//! How a connection's end is learnt was settled by experiment. libzmq's `ZMQ_HICCUP_MSG` puts a message of our choice behind
//! the last one received from the peer, so that nothing that had arrived is lost. With `ZMQ_IMMEDIATE` libzmq also drops the
//! pipe in which that message and the last answers stand, unless their reader was faster: a sleeping task never learnt of the
//! end, and where the drop came between two frames of a message, libzmq ended the process (`fq.cpp`, assertion `!_more`). So
//! `ZMQ_IMMEDIATE` is not set. What it is for, that nothing is queued for a peer that is not there, holds all the same:
//! nothing is sent before the handshake, of which a monitor tells, and every connection has a fresh socket, so that what was
//! queued for the old one is gone with it.
//!
//! Between the end and the reading of that message libzmq may have dialled again; what is then still in the old socket goes
//! to a connection on which no HELLO was said, where it is dropped.

use std::cell::Cell;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use scale0_wire::Message;
use tokio::io::unix::AsyncFd;

use crate::clock;
use crate::context::Context;
use crate::endpoint::Endpoint;
use crate::error::TransportError;
use crate::frame::{self, NotSent};
use crate::io_thread::Source;
use crate::links::{Incoming, LinkCounters, SendOutcome};
use crate::monitor::{Handshake, Monitor};
use crate::options::{self, LinkOptions};
use crate::socket::{Errno, Interest, Socket};

/// A connection that does not stand after this long is dialled from the beginning: after some failures, such as a wrong key
/// or a frame that was too long, libzmq gives up without a word. Longer than a handshake may take.
const DIAL_ANEW: Duration = Duration::from_secs(5);

/// See the file's head.
pub(crate) struct Link {
    /// Of the watched socket's descriptor, hence before the sockets: a descriptor must not be closed while registered.
    pub(crate) registration: Option<AsyncFd<RawFd>>,
    state: State,
    socket: Socket,
    /// A send was refused, and whoever waits wants to hear of room.
    refused: Cell<bool>,
    lost: Vec<u8>,
    context: Context,
    endpoint: Endpoint,
    options: LinkOptions,
}

enum State {
    // → Up, when the handshake is done; → Dialling, when it takes too long.
    Dialling {
        /// `None`: there was no socket to be had.
        monitor: Option<Monitor>,
        since: Instant,
    },
    // → Dialling, when the connection is gone or not wanted any more.
    Up,
}

impl Link {
    pub(crate) fn dial(
        context: &Context,
        endpoint: &Endpoint,
        options: &LinkOptions,
    ) -> Result<Self, TransportError> {
        let (socket, monitor) = dial(context, endpoint, options)?;
        Ok(Self {
            registration: None,
            state: State::Dialling {
                monitor: Some(monitor),
                since: clock::now(),
            },
            socket,
            refused: Cell::new(false),
            lost: options::lost(),
            context: context.clone(),
            endpoint: endpoint.clone(),
            options: options.clone(),
        })
    }

    pub(crate) fn receive(&mut self, counters: &mut LinkCounters) -> Option<Incoming> {
        let State::Dialling { monitor, since } = &self.state else {
            return self.receive_message(counters);
        };
        while let Some(handshake) = monitor.as_ref().and_then(Monitor::receive) {
            match handshake {
                Handshake::Succeeded => {
                    self.registration = None;
                    self.socket.stop_monitor();
                    self.state = State::Up;
                    return Some(Incoming::Up);
                }
                Handshake::Failed(_) => counters.failed_handshakes += 1,
            }
        }
        if DIAL_ANEW <= clock::now().saturating_duration_since(*since) {
            self.dial_anew_or_later();
        }
        None
    }

    fn receive_message(&mut self, counters: &mut LinkCounters) -> Option<Incoming> {
        let first = self.socket.receive()?;
        if !first.has_more() && *first == *self.lost {
            counters.lost += 1;
            self.dial_anew_or_later();
            return Some(Incoming::Down);
        }
        match frame::receive(&self.socket, first) {
            Ok((message, _)) => Some(Incoming::Message(*message)),
            Err(error) => {
                counters.malformed += 1;
                Some(Incoming::Malformed(error))
            }
        }
    }

    pub(crate) fn send(
        &mut self,
        message: &Message,
        scratch: &mut Vec<u8>,
        counters: &mut LinkCounters,
    ) -> SendOutcome {
        if !self.is_up() {
            return SendOutcome::Down;
        }
        match frame::send(&mut self.socket, None, message, scratch) {
            Ok(()) => SendOutcome::Sent,
            Err(NotSent::Message) => SendOutcome::TooLong,
            Err(NotSent::Socket(Errno::AGAIN)) => {
                self.refused.set(true);
                counters.full += 1;
                SendOutcome::Full
            }
            Err(NotSent::Socket(_)) => SendOutcome::Down,
        }
    }

    /// A fresh socket; the old one is closed, with what was queued in it.
    pub(crate) fn dial_anew(&mut self) -> Result<(), TransportError> {
        let (socket, monitor) = dial(&self.context, &self.endpoint, &self.options)?;
        self.replace(Some(socket), Some(monitor));
        Ok(())
    }

    fn dial_anew_or_later(&mut self) {
        if let Err(error) = self.dial_anew() {
            tracing::warn!(endpoint = %self.endpoint, %error, "cannot dial anew, trying again later");
            self.replace(None, None);
        }
    }

    fn replace(&mut self, socket: Option<Socket>, monitor: Option<Monitor>) {
        self.registration = None;
        self.refused.set(false);
        self.state = State::Dialling {
            monitor,
            since: clock::now(),
        };
        if let Some(socket) = socket {
            self.socket = socket;
        }
    }

    pub(crate) const fn is_up(&self) -> bool {
        matches!(self.state, State::Up)
    }

    pub(crate) fn set_linger(&mut self, linger: Duration) {
        self.socket.set_linger(linger);
    }

    /// The socket that news comes from: while dialling the monitor's, then its own.
    fn watched(&self) -> &Socket {
        match &self.state {
            State::Dialling {
                monitor: Some(monitor),
                ..
            } => monitor.socket(),
            State::Dialling { monitor: None, .. } | State::Up => &self.socket,
        }
    }
}

impl Source for Link {
    fn has_news(&self) -> bool {
        let news = self.watched().has(Interest {
            readable: true,
            writable: self.refused.get(),
        });
        if news {
            self.refused.set(false);
        }
        news
    }

    fn look_again(&self) {
        self.watched().unsettle();
    }

    fn descriptor(&self) -> Option<RawFd> {
        self.watched().descriptor()
    }
}

fn dial(
    context: &Context,
    endpoint: &Endpoint,
    options: &LinkOptions,
) -> Result<(Socket, Monitor), TransportError> {
    let mut socket = Socket::new(context.socket(zmq::DEALER)?);
    options.apply(&mut socket, endpoint)?;
    let monitor = Monitor::new(context, &socket)?;
    socket
        .connect(endpoint.address())
        .map_err(|errno| TransportError::refused(format!("dial {endpoint}"), errno))?;
    Ok((socket, monitor))
}
