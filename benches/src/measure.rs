//! How benchmarks are measured.

use std::time::{Duration, Instant};

use criterion::Criterion;

/// Criterion with times that keep all benchmarks together within three minutes, and with the command line's arguments.
#[must_use]
pub fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_millis(1500))
        .configure_from_args()
}

/// A moment to count virtual time from.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "an epoch for virtual time")]
pub fn epoch() -> Instant {
    Instant::now()
}
