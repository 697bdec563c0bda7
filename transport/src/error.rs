use std::fmt;

use crate::socket::Errno;

/// Why a context, a socket or a connection could not be made. Nothing was left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The program is linked with a libzmq that cannot do what Scale0 needs: a mistake in the build.
    #[error(
        "libzmq {found} with {lacks} missing; Scale0 needs 4.3.5 with CURVE and the draft interface. Add to the Cargo.toml at \
         the root of the workspace: [patch.crates-io] zmq-sys = {{ path = \"<scale0>/transport/zmq-sys\" }}, then run \
         `cargo update -p zmq-sys`"
    )]
    Libzmq {
        /// Its version.
        found: String,
        /// What it cannot do.
        lacks: String,
    },
    /// The operating system or libzmq refused: an address in use, no such interface, too many files. It may work later.
    #[error("cannot {action}: {reason}")]
    Refused {
        /// What was tried, with its address.
        action: String,
        /// libzmq's words.
        reason: Reason,
    },
}

impl TransportError {
    pub(crate) fn refused(action: impl Into<String>, errno: Errno) -> Self {
        Self::Refused {
            action: action.into(),
            reason: Reason(errno),
        }
    }
}

/// An error number of libzmq or of the operating system.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Reason(pub(crate) Errno);

impl Reason {
    /// The number, as `errno.h` or `zmq.h` has it.
    #[must_use]
    pub const fn code(self) -> i32 {
        self.0.0
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message())
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self, self.0.0)
    }
}
