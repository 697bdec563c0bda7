//! The part of libzmq's draft interface that Scale0 uses.

use std::os::raw::{c_int, c_void};

/// Socket option of a bound socket: without somebody to ask about a handshake, it is refused.
pub const ZMQ_ZAP_ENFORCE_DOMAIN: u32 = 93;
/// Socket option: how many bytes are read from a connection at once.
pub const ZMQ_IN_BATCH_SIZE: u32 = 101;
/// Socket option: how many bytes are written to a connection at once.
pub const ZMQ_OUT_BATCH_SIZE: u32 = 102;
/// Socket option of a bound socket: the message received in place of a peer that is gone.
pub const ZMQ_DISCONNECT_MSG: u32 = 111;
/// Socket option of a dialling socket: the message received when its connection is gone.
pub const ZMQ_HICCUP_MSG: u32 = 114;

extern "C" {
    /// Whether a peer of a ROUTER has room for a message (`ZMQ_POLLOUT`); -1 when there is no such peer.
    pub fn zmq_socket_get_peer_state(
        socket: *mut c_void,
        routing_id: *const c_void,
        routing_id_size: usize,
    ) -> c_int;
}
