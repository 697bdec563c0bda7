//! The one place that asks what time it is.

use std::time::Instant;

/// The time now.
#[expect(clippy::disallowed_methods, reason = "this is the shell's clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
