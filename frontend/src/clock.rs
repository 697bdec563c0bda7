//! The only place where this crate asks what time it is.

use std::time::{Instant, SystemTime};

/// For deadlines and ages.
#[expect(clippy::disallowed_methods, reason = "the shell's clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// For `Date` and what is compared with it.
#[expect(clippy::disallowed_methods, reason = "the shell's clock")]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}
