//! Tells when a dialling socket's connection stands.

use std::sync::atomic::{AtomicU64, Ordering};

use zmq_sys as sys;

use crate::context::Context;
use crate::error::TransportError;
use crate::socket::{Number, Socket};

const FAILED: u32 = sys::ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | sys::ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL
    | sys::ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;

/// libzmq's events about one socket, of which only the handshakes' are asked for.
pub(crate) struct Monitor {
    socket: Socket,
}

/// What became of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handshake {
    Succeeded,
    /// libzmq may or may not dial again.
    Failed(Failure),
}

/// Why a handshake failed, as far as libzmq tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// One side encrypts and the other does not.
    Unencrypted,
    /// The dialling side has another key for this one than it has.
    WrongKey,
    /// The gatekeeper has refused.
    Refused,
    /// It was left, or not finished in time.
    Unfinished,
    /// Not what ZMTP has there.
    Broken,
}

impl Failure {
    const fn of(event: u32, value: u32) -> Self {
        match (event, value) {
            (sys::ZMQ_EVENT_HANDSHAKE_FAILED_AUTH, _) => Self::Refused,
            (sys::ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL, _) => Self::Unfinished,
            (_, sys::ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH) => Self::Unencrypted,
            (_, sys::ZMQ_PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC) => Self::WrongKey,
            _ => Self::Broken,
        }
    }
}

impl Monitor {
    /// Watches `socket`, which must not have dialled yet.
    pub(crate) fn new(context: &Context, socket: &Socket) -> Result<Self, TransportError> {
        Self::of(context, socket, sys::ZMQ_EVENT_HANDSHAKE_SUCCEEDED | FAILED)
    }

    /// Watches `socket`, which must not be bound yet, for handshakes that fail.
    pub(crate) fn of_failures(context: &Context, socket: &Socket) -> Result<Self, TransportError> {
        Self::of(context, socket, FAILED)
    }

    fn of(context: &Context, socket: &Socket, events: u32) -> Result<Self, TransportError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let address = format!("inproc://scale0-monitor-{number}");
        socket
            .raw()
            .monitor(&address, events.cast_signed())
            .map_err(|error| TransportError::refused("monitor a socket", error.into()))?;
        let mut monitor = Self {
            socket: Socket::new(context.socket(zmq::PAIR)?),
        };
        monitor.socket.set(Number::Linger, 0)?;
        // No bound: libzmq's I/O thread would wait for room. There is one event per attempt to connect; the link that owns this
        // dials anew after a few seconds, and a router reads all of them several times a second.
        monitor.socket.set(Number::ReceiveHighWaterMark, 0)?;
        monitor
            .socket
            .connect(&address)
            .map_err(|errno| TransportError::refused("monitor a socket", errno))?;
        Ok(monitor)
    }

    pub(crate) const fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The next event, if one is there: its number (16 bits) and value (32 bits), then a frame with the address.
    pub(crate) fn receive(&self) -> Option<Handshake> {
        loop {
            let frame = self.socket.receive()?;
            crate::frame::skip(&self.socket, &frame);
            let Some(&[low, high, a, b, c, d]) = frame.first_chunk() else {
                continue;
            };
            let event = u32::from(u16::from_ne_bytes([low, high]));
            if event == sys::ZMQ_EVENT_HANDSHAKE_SUCCEEDED {
                return Some(Handshake::Succeeded);
            }
            if event & FAILED != 0 {
                let value = u32::from_ne_bytes([a, b, c, d]);
                return Some(Handshake::Failed(Failure::of(event, value)));
            }
        }
    }
}
