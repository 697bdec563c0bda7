//! Whole sites in virtual time: the real broker, the frontends' real lanes and the backends' real sessions, and everything that can
//! befall them.
//!
//! What decides in Scale0 is a pure state machine that is told what happened and when. So a whole site can live in one thread, its
//! time can be made up, and all that goes wrong in it follows from one number: [`World::new`]. After each step every sum and every
//! bound is checked from the inside, and a book that nobody in the site knows ([`Report`] is its summary) says whether each request
//! had one outcome in time, whether what may not run twice did, and whether each byte came to whom it belongs.
//!
//! `site` says who is there, `weather` what befalls them, `network` what lies between them; `frontend` and `backend` put clients and
//! handlers around the state machines; `models` are other implementations of the protocol, and `stranger` is nobody's friend.
//! `fuzz` feeds the state machines one by one with any bytes.
#![expect(
    clippy::unwrap_used,
    reason = "a simulation that cannot go on has failed"
)]

mod accidents;
mod backend;
mod brokers;
mod content;
mod dice;
mod frontend;
pub mod fuzz;
mod judge;
mod models;
mod network;
mod node;
mod nodes;
mod record;
mod site;
#[cfg(test)]
mod stories;
mod stranger;
mod weather;
mod world;

use std::sync::OnceLock;
use std::time::Instant;

pub use weather::Weather;
pub use world::{Report, World};

/// A moment to count from.
#[expect(clippy::disallowed_methods, reason = "an epoch for what follows")]
pub(crate) fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}
