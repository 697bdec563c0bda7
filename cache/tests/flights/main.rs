//! The promises of flights, told to the public interface in virtual time.
//!
//! [`world`] is a hand-made executor with a virtual clock, [`site`] an origin and clients that use
//! the cache as a frontend does.

#![expect(
    clippy::unwrap_used,
    reason = "test helpers; allowed in tests only by function"
)]
#![expect(
    clippy::cast_possible_truncation,
    reason = "bodies and counts of tests are small"
)]

mod drops;
mod pace;
mod partial;
mod races;
mod renewing;
mod sharing;
mod simulation;
mod site;
mod world;
