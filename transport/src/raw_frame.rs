//! One frame, as libzmq hands it over and takes it.

use std::ffi::{CStr, c_int, c_void};
use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::{ptr, slice};

use zmq_sys as sys;

use crate::socket::Errno;

/// A frame of ours: received, and then sent on or dropped.
///
/// The zmq crate's own does not tell whether its bytes are shared.
pub(crate) struct RawFrame {
    message: sys::zmq_msg_t,
    /// As libzmq said when it handed it over: asking again and again is a measurable part of a short message's cost.
    length: usize,
    /// Where its bytes are, as libzmq said too. Null: perhaps in `message` itself.
    data: *mut u8,
}

#[expect(unsafe_code, reason = "the pointer alone makes it !Send")]
// SAFETY: libzmq's messages may move between threads, and `data` is what the message owns.
unsafe impl Send for RawFrame {}

impl RawFrame {
    /// An empty one.
    pub(crate) fn new() -> Self {
        let mut message = sys::zmq_msg_t::default();
        #[expect(unsafe_code, reason = "libzmq makes its messages in place")]
        // SAFETY: it writes an empty message, which may be moved as bytes, over memory of its size and alignment.
        unsafe {
            sys::zmq_msg_init(&raw mut message);
        }
        Self {
            message,
            length: 0,
            data: ptr::null_mut(),
        }
    }

    /// Becomes the next frame of a socket, which must be open. What it was is gone, also if there is none.
    #[expect(unsafe_code, reason = "the socket is libzmq's pointer")]
    pub(crate) unsafe fn receive_over(
        &mut self,
        socket: *mut c_void,
        flags: c_int,
    ) -> Result<(), Errno> {
        (self.length, self.data) = (0, ptr::null_mut());
        // SAFETY: the caller's socket is open, and the message is a valid one, which libzmq closes, replaces and leaves valid.
        let length = unsafe { sys::zmq_msg_recv(&raw mut self.message, socket, flags) };
        // It says how many bytes there are, of which no frame of ours has more than fit.
        self.length = usize::try_from(length).map_err(|_| Errno::last())?;
        if size_of::<sys::zmq_msg_t>() < self.length {
            // They are not in there, so they stay where they are however it is moved.
            self.data = self.data();
        }
        Ok(())
    }

    /// Sends it to a socket, which must be open. It is gone, sent or not.
    #[expect(unsafe_code, reason = "the socket is libzmq's pointer")]
    pub(crate) unsafe fn send(self, socket: *mut c_void, flags: c_int) -> Result<(), Errno> {
        let mut frame = ManuallyDrop::new(self);
        loop {
            // SAFETY: the caller's socket is open, and the message is a valid one, which is libzmq's once it is sent.
            if unsafe { sys::zmq_msg_send(&raw mut frame.message, socket, flags) } != -1 {
                return Ok(());
            }
            let errno = Errno::last();
            if errno.0 != sys::errno::EINTR {
                // What was not sent is still ours to close.
                drop(ManuallyDrop::into_inner(frame));
                return Err(errno);
            }
        }
    }

    /// Whether another frame of the same message follows.
    pub(crate) fn has_more(&self) -> bool {
        self.property(sys::ZMQ_MORE) != 0
    }

    /// What the connection that it came over is known by: a property such as `User-Id`. `None`: it has no such property, or did not
    /// come over a connection.
    #[expect(unsafe_code, reason = "libzmq answers with a C string")]
    pub(crate) fn connection(&self, property: &CStr) -> Option<&str> {
        // SAFETY: the message is valid, and the property a C string. What comes back is a C string of the connection's, which the
        // message shares in and which is not changed any more.
        let text = unsafe {
            let text = sys::zmq_msg_gets(&raw const self.message, property.as_ptr());
            (!text.is_null()).then(|| CStr::from_ptr(text))
        };
        text?.to_str().ok()
    }

    /// The bytes to be written to, if nobody else has them.
    ///
    /// Those of a frame that came over a connection lie in the buffer it was received into, beside those of other frames;
    /// libzmq's I/O thread has written them before it handed over the frame, and neither reads nor writes them again until
    /// the frame is sent. Where a frame has more than one owner, which only sending within a process makes, this says no.
    #[expect(unsafe_code, reason = "the bytes are libzmq's")]
    pub(crate) fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        if self.property(sys::ZMQ_SHARED) != 0 {
            return None;
        }
        let data = self.data();
        // SAFETY: the message is valid and has no other owner, so that nobody else has a reference to its bytes; they stay
        // where they are as long as `self` is neither moved nor closed, which the borrow prevents.
        Some(unsafe { slice::from_raw_parts_mut(data, self.length) })
    }

    /// Where its bytes are, until it is moved.
    #[expect(unsafe_code, reason = "the bytes are libzmq's")]
    fn data(&self) -> *mut u8 {
        if !self.data.is_null() {
            return self.data;
        }
        // SAFETY: the message is valid. `zmq_msg_data` reads it although it asks for a pointer to write to.
        unsafe { sys::zmq_msg_data((&raw const self.message).cast_mut()).cast() }
    }

    /// Its bytes.
    pub(crate) const fn len(&self) -> usize {
        self.length
    }

    #[expect(unsafe_code, reason = "libzmq answers for its message")]
    fn property(&self, property: u32) -> c_int {
        // SAFETY: the message is valid, and it is only read.
        unsafe { sys::zmq_msg_get(&raw const self.message, property as c_int) }
    }

    /// A frame with these bytes.
    #[cfg(test)]
    #[expect(unsafe_code, reason = "libzmq makes its messages in place")]
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut frame = Self::new();
        // SAFETY: an empty message owns nothing, so that another may be made in its place.
        unsafe { sys::zmq_msg_init_size(&raw mut frame.message, bytes.len()) };
        frame.length = bytes.len();
        frame.bytes_mut().unwrap().copy_from_slice(bytes);
        frame
    }
}

impl Deref for RawFrame {
    type Target = [u8];

    #[expect(unsafe_code, reason = "the bytes are libzmq's")]
    fn deref(&self) -> &[u8] {
        // SAFETY: the message is valid; its bytes stay as and where they are while it is borrowed.
        unsafe { slice::from_raw_parts(self.data(), self.length) }
    }
}

impl fmt::Debug for RawFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RawFrame").field(&self.len()).finish()
    }
}

impl Drop for RawFrame {
    #[expect(unsafe_code, reason = "libzmq closes its messages")]
    fn drop(&mut self) {
        // SAFETY: the message is valid, and never used again.
        unsafe { sys::zmq_msg_close(&raw mut self.message) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_its_bytes_wherever_it_is_moved_to() {
        // The shortest lie in the message itself, the others elsewhere.
        for length in [0, 1, 33, 34, 100_000] {
            let bytes = vec![7; length];
            let frame = Box::new(RawFrame::of(&bytes));
            let frame = [*frame];
            assert_eq!(frame[0][..], bytes[..]);
            assert!(!frame[0].has_more());
        }
    }

    #[test]
    #[expect(unsafe_code, reason = "a second owner")]
    fn a_frame_with_two_owners_is_not_written_to() {
        let mut frame = RawFrame::of(&[7; 100]);
        assert!(frame.bytes_mut().is_some());
        let mut copy = RawFrame::new();
        // SAFETY: both are valid messages.
        unsafe { sys::zmq_msg_copy(&raw mut copy.message, &raw mut frame.message) };
        assert!(frame.bytes_mut().is_none());
        assert!(copy.bytes_mut().is_none());
    }
}
