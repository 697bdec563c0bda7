//! The one place that asks what time it is: for time-outs of waits, and for links that do not come up.

use std::time::Instant;

#[expect(clippy::disallowed_methods, reason = "this is the shell's clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
