//! The clocks of the threads that read and write records.

use std::time::{Instant, SystemTime};

#[expect(
    clippy::disallowed_methods,
    reason = "these threads are a shell; what they call is given the time"
)]
pub(super) fn now() -> Instant {
    Instant::now()
}

#[expect(
    clippy::disallowed_methods,
    reason = "records outlive the process, and with it every Instant"
)]
pub(super) fn wall() -> SystemTime {
    SystemTime::now()
}
