//! One libzmq socket: options, frames in and out. Nothing here waits.

use std::cell::Cell;
use std::ffi::{CStr, CString, c_int, c_void};
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::ptr;
use std::time::Duration;

use bytes::Bytes;
use zmq_sys as sys;

use crate::error::TransportError;
use crate::options::milliseconds;
use crate::raw_frame::RawFrame;

/// An error number of libzmq or of the operating system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) i32);

impl Errno {
    pub(crate) const AGAIN: Self = Self(sys::errno::EAGAIN);

    #[expect(unsafe_code, reason = "libzmq's errno is read through it")]
    pub(crate) fn last() -> Self {
        // SAFETY: it takes nothing and returns a number.
        Self(unsafe { sys::zmq_errno() })
    }

    #[expect(unsafe_code, reason = "libzmq's message is a C string")]
    pub(crate) fn message(self) -> String {
        // SAFETY: libzmq returns a static string for every number.
        let text = unsafe { CStr::from_ptr(sys::zmq_strerror(self.0)) };
        text.to_string_lossy().into_owned()
    }
}

impl From<zmq::Error> for Errno {
    fn from(error: zmq::Error) -> Self {
        Self(error.to_raw())
    }
}

/// What [`Socket::set`] knows by number only.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum Number {
    Linger = sys::ZMQ_LINGER,
    SendHighWaterMark = sys::ZMQ_SNDHWM,
    ReceiveHighWaterMark = sys::ZMQ_RCVHWM,
    RouterMandatory = sys::ZMQ_ROUTER_MANDATORY,
    HandshakeInterval = sys::ZMQ_HANDSHAKE_IVL,
    HeartbeatInterval = sys::ZMQ_HEARTBEAT_IVL,
    HeartbeatTimeout = sys::ZMQ_HEARTBEAT_TIMEOUT,
    TcpMaximumRetransmission = sys::ZMQ_TCP_MAXRT,
    ConnectTimeout = sys::ZMQ_CONNECT_TIMEOUT,
    ReconnectInterval = sys::ZMQ_RECONNECT_IVL,
    ReconnectIntervalMax = sys::ZMQ_RECONNECT_IVL_MAX,
    KeepAlive = sys::ZMQ_TCP_KEEPALIVE,
    KeepAliveIdle = sys::ZMQ_TCP_KEEPALIVE_IDLE,
    KeepAliveInterval = sys::ZMQ_TCP_KEEPALIVE_INTVL,
    KeepAliveCount = sys::ZMQ_TCP_KEEPALIVE_CNT,
    InBatch = sys::ZMQ_IN_BATCH_SIZE,
    OutBatch = sys::ZMQ_OUT_BATCH_SIZE,
    Backlog = sys::ZMQ_BACKLOG,
    Ipv6 = sys::ZMQ_IPV6,
    CurveServer = sys::ZMQ_CURVE_SERVER,
    ZapEnforceDomain = sys::ZMQ_ZAP_ENFORCE_DOMAIN,
}

/// What [`Socket::set_bytes`] knows.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum Blob {
    DisconnectMessage = sys::ZMQ_DISCONNECT_MSG,
    HiccupMessage = sys::ZMQ_HICCUP_MSG,
    CurvePublicKey = sys::ZMQ_CURVE_PUBLICKEY,
    CurveSecretKey = sys::ZMQ_CURVE_SECRETKEY,
    CurveServerKey = sys::ZMQ_CURVE_SERVERKEY,
    ZapDomain = sys::ZMQ_ZAP_DOMAIN,
}

/// What a socket may be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interest {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

/// A socket and what is known about it.
///
/// `ZMQ_FD` says that *something* happened, once: whichever call next looks into the socket's mailbox takes that signal in,
/// a send too. So nobody may sleep on the descriptor before [`Socket::has`] has said no, and every call that may have taken
/// in a signal makes it look again.
pub(crate) struct Socket {
    raw: zmq::Socket,
    /// The same, for the functions that the zmq crate lacks. Valid as long as `raw` is.
    pointer: *mut c_void,
    /// Nothing was there when the socket was last looked into, and nothing may have changed that since.
    settled: Cell<bool>,
}

#[expect(unsafe_code, reason = "the pointer alone makes it !Send")]
// SAFETY: libzmq's sockets may move between threads as long as one at a time uses them. `Socket` is not `Sync`.
unsafe impl Send for Socket {}

impl Socket {
    pub(crate) fn new(mut raw: zmq::Socket) -> Self {
        Self {
            pointer: raw.as_mut_ptr(),
            raw,
            settled: Cell::new(false),
        }
    }

    pub(crate) const fn raw(&self) -> &zmq::Socket {
        &self.raw
    }

    /// The descriptor that becomes readable when something happened. `None`: the context is gone.
    pub(crate) fn descriptor(&self) -> Option<RawFd> {
        self.raw.get_fd().ok()
    }

    /// The address that was bound last, with the port that was free.
    pub(crate) fn last_endpoint(&self) -> Result<String, Errno> {
        Ok(self.raw.get_last_endpoint()?.unwrap_or_default())
    }

    pub(crate) fn set_linger(&mut self, linger: Duration) {
        // It fails only when the context is gone, and then there is nothing to linger for.
        let _ = self.set(Number::Linger, milliseconds(linger));
    }

    /// Whether something of `interest` is there.
    ///
    /// After a no the next event makes the descriptor readable.
    pub(crate) fn has(&self, interest: Interest) -> bool {
        if self.settled.get() && !(interest.writable && asks_for_room()) {
            return false;
        }
        let events = loop {
            match self.raw.get_events() {
                Ok(events) => break events,
                Err(zmq::Error::EINTR) => {}
                // The context is gone.
                Err(_) => return false,
            }
        };
        let readable = events.contains(zmq::POLLIN);
        self.settled.set(!readable);
        (interest.readable && readable) || (interest.writable && events.contains(zmq::POLLOUT))
    }

    /// The descriptor has become readable: look again.
    pub(crate) fn unsettle(&self) {
        self.settled.set(false);
    }

    /// The next frame, if one is there.
    pub(crate) fn receive(&self) -> Option<RawFrame> {
        let mut frame = RawFrame::new();
        self.receive_over(&mut frame).then_some(frame)
    }

    /// Makes the next frame of this one, if there is a next.
    #[expect(unsafe_code, reason = "the frame is ours, not the zmq crate's")]
    pub(crate) fn receive_over(&self, frame: &mut RawFrame) -> bool {
        loop {
            // SAFETY: the socket is open as long as `self` is.
            match unsafe { frame.receive_over(self.pointer, sys::ZMQ_DONTWAIT as c_int) } {
                Ok(()) => {
                    self.settled.set(false);
                    return true;
                }
                Err(Errno(sys::errno::EINTR)) => {}
                // EAGAIN: after having taken in all that had happened. Others mean that the context is gone.
                Err(_) => {
                    self.settled.set(true);
                    return false;
                }
            }
        }
    }

    /// Sends the last frame of a message as it is.
    #[expect(unsafe_code, reason = "the frame is ours, not the zmq crate's")]
    pub(crate) fn send_on(&self, frame: RawFrame) -> Result<(), Errno> {
        self.looked();
        // SAFETY: the socket is open as long as `self` is.
        unsafe { frame.send(self.pointer, sys::ZMQ_DONTWAIT as c_int) }
    }

    /// Sends a frame by copy.
    #[expect(
        unsafe_code,
        reason = "the zmq crate makes a message of it in four calls"
    )]
    pub(crate) fn send(&self, frame: &[u8], more: bool) -> Result<(), Errno> {
        self.looked();
        let flags = sys::ZMQ_DONTWAIT | if more { sys::ZMQ_SNDMORE } else { 0 };
        loop {
            // SAFETY: the socket is open as long as `self` is, and libzmq has copied the slice when the call returns.
            let sent = unsafe {
                sys::zmq_send(
                    self.pointer,
                    frame.as_ptr().cast(),
                    frame.len(),
                    flags as c_int,
                )
            };
            if sent != -1 {
                return Ok(());
            }
            let errno = Errno::last();
            if errno.0 != sys::errno::EINTR {
                return Err(errno);
            }
        }
    }

    /// Sends the last frame of a message without copying it. libzmq's I/O thread drops it when the kernel has it.
    #[expect(
        unsafe_code,
        reason = "the zmq crate sends by reference only what it owns as a Vec"
    )]
    pub(crate) fn send_shared(&mut self, frame: Bytes) -> Result<(), Errno> {
        self.looked();
        let (data, length) = (frame.as_ptr(), frame.len());
        let owner = Box::into_raw(Box::new(frame));
        let mut message = MaybeUninit::<sys::zmq_msg_t>::uninit();
        // SAFETY: `data` stays valid until `release` drops `owner`, which libzmq calls exactly once, from any thread: `Bytes`
        // is `Send` and `Sync`, and libzmq only reads what it sends.
        let made = unsafe {
            sys::zmq_msg_init_data(
                message.as_mut_ptr(),
                data.cast_mut().cast(),
                length,
                Some(release),
                owner.cast(),
            )
        };
        if made == -1 {
            let errno = Errno::last();
            // SAFETY: without a message `release` is never called, so `owner` is ours still.
            drop(unsafe { Box::from_raw(owner) });
            return Err(errno);
        }
        loop {
            // SAFETY: `message` was made above, and the socket is open as long as `self` is.
            let sent = unsafe {
                sys::zmq_msg_send(
                    message.as_mut_ptr(),
                    self.pointer,
                    sys::ZMQ_DONTWAIT as c_int,
                )
            };
            if sent != -1 {
                return Ok(());
            }
            let errno = Errno::last();
            if errno.0 == sys::errno::EINTR {
                continue;
            }
            // SAFETY: what was not sent is the caller's to close; that calls `release`.
            unsafe { sys::zmq_msg_close(message.as_mut_ptr()) };
            return Err(errno);
        }
    }

    /// A send may take in the signal of what came meanwhile.
    fn looked(&self) {
        #[cfg(test)]
        if crate::soak::Mistake::NotLookingAfterSend.is_made() {
            return;
        }
        self.settled.set(false);
    }

    /// Whether a ROUTER's peer has room for a message, or is gone.
    #[expect(unsafe_code, reason = "the zmq crate has no draft functions")]
    pub(crate) fn peer_has_room_or_is_gone(&self, routing_id: &[u8]) -> bool {
        // SAFETY: the socket is open as long as `self` is, the slice as long as the call.
        let state = unsafe {
            sys::zmq_socket_get_peer_state(
                self.pointer,
                routing_id.as_ptr().cast(),
                routing_id.len(),
            )
        };
        state == -1 || state & sys::ZMQ_POLLOUT as c_int != 0
    }

    pub(crate) fn set(&mut self, option: Number, value: i32) -> Result<(), TransportError> {
        let bytes = value.to_ne_bytes();
        self.set_raw(option as u32, &bytes)
            .map_err(|errno| TransportError::refused(format!("set {option:?} to {value}"), errno))
    }

    pub(crate) fn set_maximum_message(&mut self, bytes: usize) -> Result<(), TransportError> {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.set_raw(sys::ZMQ_MAXMSGSIZE, &bytes.to_ne_bytes())
            .map_err(|errno| {
                TransportError::refused(format!("limit messages to {bytes} bytes"), errno)
            })
    }

    /// The value is not repeated in an error: it may be a secret.
    pub(crate) fn set_bytes(&mut self, option: Blob, value: &[u8]) -> Result<(), TransportError> {
        self.set_raw(option as u32, value)
            .map_err(|errno| TransportError::refused(format!("set {option:?}"), errno))
    }

    #[expect(unsafe_code, reason = "the zmq crate lacks many options")]
    fn set_raw(&mut self, option: u32, value: &[u8]) -> Result<(), Errno> {
        // SAFETY: libzmq reads `value.len()` bytes during the call and checks the length against the option's.
        let done = unsafe {
            sys::zmq_setsockopt(
                self.pointer,
                option as c_int,
                value.as_ptr().cast(),
                value.len(),
            )
        };
        result(done)
    }

    /// Binds. The zmq crate's own would panic on an error number that it does not know.
    #[expect(
        unsafe_code,
        reason = "the zmq crate panics on errors that it does not know"
    )]
    pub(crate) fn bind(&mut self, address: &str) -> Result<(), Errno> {
        let address = CString::new(address).map_err(|_| Errno(libc::EINVAL))?;
        // SAFETY: a C string and an open socket.
        result(unsafe { sys::zmq_bind(self.pointer, address.as_ptr()) })
    }

    /// Dials. The zmq crate's own would panic on an error number that it does not know.
    #[expect(
        unsafe_code,
        reason = "the zmq crate panics on errors that it does not know"
    )]
    pub(crate) fn connect(&mut self, address: &str) -> Result<(), Errno> {
        let address = CString::new(address).map_err(|_| Errno(libc::EINVAL))?;
        // SAFETY: a C string and an open socket.
        result(unsafe { sys::zmq_connect(self.pointer, address.as_ptr()) })
    }

    /// No more events for whoever monitors this socket.
    #[expect(unsafe_code, reason = "the zmq crate starts monitors but stops none")]
    pub(crate) fn stop_monitor(&mut self) {
        // SAFETY: a null address is libzmq's way to say "none".
        unsafe { sys::zmq_socket_monitor(self.pointer, ptr::null(), 0) };
    }
}

/// That a socket is settled says nothing of room: what gave it may have been taken in by the receive that settled it.
fn asks_for_room() -> bool {
    #[cfg(test)]
    if crate::soak::Mistake::NotAskingForRoom.is_made() {
        return false;
    }
    true
}

/// What libzmq calls when it needs a frame no longer.
#[expect(unsafe_code, reason = "called by libzmq with what send_shared gave it")]
unsafe extern "C" fn release(_data: *mut c_void, owner: *mut c_void) {
    // SAFETY: `owner` is the box that `send_shared` gave away for this call, which comes once.
    drop(unsafe { Box::from_raw(owner.cast::<Bytes>()) });
}

/// The public key of a secret one, both in Z85.
#[expect(unsafe_code, reason = "the zmq crate does not have it")]
pub(crate) fn curve_public(secret: &str) -> Result<String, Errno> {
    let secret = CString::new(secret).map_err(|_| Errno(libc::EINVAL))?;
    let mut public = [0_u8; 41];
    // SAFETY: libzmq reads 40 characters, which the only caller has checked by having made them from 32 bytes, and writes 41.
    result(unsafe { sys::zmq_curve_public(public.as_mut_ptr().cast(), secret.as_ptr()) })?;
    Ok(String::from_utf8_lossy(&public[..40]).into_owned())
}

fn result(done: c_int) -> Result<(), Errno> {
    if done == -1 {
        Err(Errno::last())
    } else {
        Ok(())
    }
}
