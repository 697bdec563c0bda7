//! How sockets are set up: every option that Scale0 sets, each with its reason.

use std::time::Duration;

use scale0_wire::{Bye, Kind, Message, RoutingHeader, limits};

use crate::curve::{KeyPair, SecretKey};
use crate::endpoint::Endpoint;
use crate::error::TransportError;
use crate::in_process::Port;
use crate::socket::{Blob, Number, Socket};

/// Messages that may wait in each direction of a connection: as many as the largest window has bytes for when none is larger
/// than one frame. Windows and credit keep the true number far below; at the mark a send is refused, nothing is dropped.
pub(crate) const HIGH_WATER_MARK: usize =
    limits::CONNECTION_WINDOW_MAX as usize / limits::ONE_FRAME;

/// A frame larger than any message's first or second costs its sender the connection.
const MAX_MESSAGE: usize = if limits::FRAME < limits::CONTENT {
    limits::CONTENT
} else {
    limits::FRAME
};

/// Bytes read from and written to a connection at once: worth 2.4 times the throughput at 1 KiB over libzmq's 8 KiB.
const BATCH: i32 = 64 * 1024;

/// So a receive buffer has so many.
pub(crate) const BUFFER: usize = BATCH as usize;

/// Redial fast at first; twice as long after each attempt. The longest pause and [`CONNECT`] together are well below a second,
/// within which a broker that is back, or a link that has healed, is to be used.
const RECONNECT: Duration = Duration::from_millis(20);
const RECONNECT_MAX: Duration = Duration::from_millis(250);

/// A SYN that is lost is sent again after so long: the kernel takes a second for it, and longer with each. Within a site a round
/// trip is far shorter.
const CONNECT: Duration = Duration::from_millis(400);

const _: () = assert!(CONNECT.as_millis() + RECONNECT_MAX.as_millis() < 750);

/// Longer than a peer may be silent before its session ends, where heartbeats come each second, and than a pause that is worth keeping a
/// connection for.
const UNACKNOWLEDGED: Duration = Duration::from_secs(15);

/// The kernel's queue of connections not yet accepted: a restarted broker is dialled by everyone at once.
const BACKLOG: i32 = 4096;

/// TCP keep-alive: heartbeats find a dead peer first; this clears connections that only the kernel knows and on which nothing
/// is under way, within a minute.
const KEEP_ALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_COUNT: i32 = 3;

/// How a [`crate::Links`]' connection is set up.
#[derive(Clone, Debug)]
pub struct LinkOptions {
    /// The most bytes of one frame. A peer that sends a larger one loses the connection. Sound: the default, the protocol's.
    pub max_message: usize,
    /// Messages that may wait to be sent before [`crate::SendOutcome::Full`]. Sound: the default, derived from the windows.
    pub send_high_water_mark: usize,
    /// Messages that may wait to be received before the peer's sends are held back. Sound: the default, as above.
    pub receive_high_water_mark: usize,
    /// The most time until the peer's machine has answered; then it is dialled anew. Sound: a few round trips to the peer, and
    /// below a second, so that a link that heals is soon used again. Of no account for Unix sockets.
    pub connect: Duration,
    /// The most time from then to the end of the handshake; then the connection is dropped and dialled anew.
    pub handshake: Duration,
    /// The most time that the peer takes in nothing of what was sent to it: because the link is cut, because the process is
    /// stopped, or because it does not read. Then the connection is dropped, with all that waits for it. Without this the
    /// kernel keeps it for a quarter of an hour, and that of a stopped process for ever. Sound: longer than sessions live
    /// without a sign of life. Of no account for Unix sockets: what waits for a stopped process there stays until it ends or
    /// goes on, at most as much as the high-water mark, windows and credit let be sent.
    pub unacknowledged: Duration,
    /// Time between ZMTP's own PINGs. Off by default: the protocol's HEARTBEATs do the same and carry load.
    pub ping: Option<Duration>,
    /// This side's CURVE keys, used where the endpoint names the other side's. None: new ones for every connection.
    pub keys: Option<KeyPair>,
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self {
            max_message: MAX_MESSAGE,
            send_high_water_mark: HIGH_WATER_MARK,
            receive_high_water_mark: HIGH_WATER_MARK,
            connect: CONNECT,
            handshake: Duration::from_secs(3),
            unacknowledged: UNACKNOWLEDGED,
            ping: None,
            keys: None,
        }
    }
}

/// How a [`crate::Router`] is set up.
#[derive(Clone, Debug)]
pub struct RouterOptions {
    /// As in [`LinkOptions`].
    pub max_message: usize,
    /// As in [`LinkOptions`], for each peer.
    pub send_high_water_mark: usize,
    /// As in [`LinkOptions`], for each peer.
    pub receive_high_water_mark: usize,
    /// The most time that a peer takes for its handshake.
    pub handshake: Duration,
    /// As in [`LinkOptions`].
    pub unacknowledged: Duration,
    /// As in [`LinkOptions`].
    pub ping: Option<Duration>,
    /// This side's CURVE key: with it, only encrypted connections are accepted.
    pub secret_key: Option<SecretKey>,
    /// Which door this is, where `secret_key` is set: whoever comes must have a key that the context's [`crate::Gatekeeper`] lets in
    /// there, and without a gatekeeper nobody comes in. None: every key is accepted.
    pub port: Option<Port>,
}

impl Default for RouterOptions {
    fn default() -> Self {
        let LinkOptions {
            max_message,
            send_high_water_mark,
            receive_high_water_mark,
            connect: _,
            handshake,
            unacknowledged,
            ping,
            keys: _,
        } = LinkOptions::default();
        Self {
            max_message,
            send_high_water_mark,
            receive_high_water_mark,
            handshake,
            unacknowledged,
            ping,
            secret_key: None,
            port: None,
        }
    }
}

/// What libzmq puts in the place of a peer that is gone: the frame of a BYE(lost). Received from the peer itself it means
/// the same.
pub(crate) fn lost() -> Vec<u8> {
    let bye = Message::new(RoutingHeader::new(Kind::Bye)).with_metadata(Bye::Lost.encode());
    let mut frame = Vec::new();
    bye.encode(&mut frame)
        .expect("one byte of metadata is within every limit");
    frame
}

impl LinkOptions {
    /// `ZMQ_IMMEDIATE` is not among them: see [`crate::link`].
    pub(crate) fn apply(
        &self,
        socket: &mut Socket,
        endpoint: &Endpoint,
    ) -> Result<(), TransportError> {
        common(
            socket,
            endpoint,
            self.max_message,
            [self.send_high_water_mark, self.receive_high_water_mark],
            [self.handshake, self.unacknowledged],
            self.ping,
        )?;
        socket.set(Number::ConnectTimeout, milliseconds(self.connect))?;
        socket.set(Number::ReconnectInterval, milliseconds(RECONNECT))?;
        socket.set(Number::ReconnectIntervalMax, milliseconds(RECONNECT_MAX))?;
        socket.set_bytes(Blob::HiccupMessage, &lost())?;
        if let Some(server) = endpoint.server_key() {
            let fresh;
            let keys = if let Some(keys) = &self.keys {
                keys
            } else {
                fresh = KeyPair::generate()?;
                &fresh
            };
            socket.set_bytes(Blob::CurveServerKey, server.as_bytes())?;
            socket.set_bytes(Blob::CurvePublicKey, keys.public.as_bytes())?;
            socket.set_bytes(Blob::CurveSecretKey, keys.secret.as_bytes())?;
        }
        Ok(())
    }
}

impl RouterOptions {
    pub(crate) fn apply(
        &self,
        socket: &mut Socket,
        endpoint: &Endpoint,
    ) -> Result<(), TransportError> {
        common(
            socket,
            endpoint,
            self.max_message,
            [self.send_high_water_mark, self.receive_high_water_mark],
            [self.handshake, self.unacknowledged],
            self.ping,
        )?;
        // Without it a message to a full or unknown peer is dropped without a word.
        socket.set(Number::RouterMandatory, 1)?;
        socket.set(Number::Backlog, BACKLOG)?;
        socket.set_bytes(Blob::DisconnectMessage, &lost())?;
        if let Some(secret) = &self.secret_key {
            socket.set(Number::CurveServer, 1)?;
            socket.set_bytes(Blob::CurveSecretKey, secret.as_bytes())?;
            if let Some(port) = self.port {
                socket.set_bytes(Blob::ZapDomain, port.name().as_bytes())?;
                // Otherwise a context without a gatekeeper would let in everybody.
                socket.set(Number::ZapEnforceDomain, 1)?;
            }
        }
        Ok(())
    }
}

fn common(
    socket: &mut Socket,
    endpoint: &Endpoint,
    max_message: usize,
    [send, receive]: [usize; 2],
    [handshake, unacknowledged]: [Duration; 2],
    ping: Option<Duration>,
) -> Result<(), TransportError> {
    // What a closed socket has not sent yet is dropped, unless `set_linger` says otherwise.
    socket.set(Number::Linger, 0)?;
    socket.set_maximum_message(max_message)?;
    socket.set(Number::SendHighWaterMark, at_least_one(send))?;
    socket.set(Number::ReceiveHighWaterMark, at_least_one(receive))?;
    socket.set(Number::HandshakeInterval, milliseconds(handshake))?;
    // On Linux this is TCP_USER_TIMEOUT.
    socket.set(
        Number::TcpMaximumRetransmission,
        milliseconds(unacknowledged),
    )?;
    if let Some(interval) = ping {
        socket.set(Number::HeartbeatInterval, milliseconds(interval))?;
        socket.set(
            Number::HeartbeatTimeout,
            milliseconds(interval * limits::HEARTBEAT_MISSES),
        )?;
    }
    socket.set(Number::InBatch, BATCH)?;
    socket.set(Number::OutBatch, BATCH)?;
    socket.set(Number::KeepAlive, 1)?;
    socket.set(Number::KeepAliveIdle, seconds(KEEP_ALIVE_IDLE))?;
    socket.set(Number::KeepAliveInterval, seconds(KEEP_ALIVE_INTERVAL))?;
    socket.set(Number::KeepAliveCount, KEEP_ALIVE_COUNT)?;
    // Only for literal addresses: with it, names resolve to IPv6 first, where a broker may not listen.
    socket.set(Number::Ipv6, i32::from(endpoint.is_ipv6()))
}

/// To libzmq, zero means no bound.
fn at_least_one(mark: usize) -> i32 {
    i32::try_from(mark).unwrap_or(i32::MAX).max(1)
}

pub(crate) fn milliseconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

fn seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs()).unwrap_or(i32::MAX)
}
