//! The file store and what may happen to it: kills, damage, a full disk, and ten times as much as fits.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(
    clippy::cast_possible_truncation,
    reason = "bodies and counts of tests are small"
)]

mod churn;
mod contract;
mod damage;
mod full;
mod kill;
mod model;
mod reading;
mod world;
