//! The shell's clock and dice.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Instant;

#[expect(clippy::disallowed_methods, reason = "this is the shell's clock")]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// A number nobody can guess: for what a [`crate::BrokerConfig`] wants drawn.
#[must_use]
pub fn draw() -> u64 {
    // std keys its tables from the operating system's randomness; the hash of nothing under such a key is as random.
    RandomState::new().build_hasher().finish()
}
