//! A running process: its roles, in the order they start and stop in.
//!
//! Start: admin, broker, backends and bridges, frontend. Stop: not ready, then the frontend drains, then backends and bridges,
//! then the broker says goodbye, then the logs are flushed; admin answers until the end.

mod backends;
mod broker;
mod frontend;
mod handover;
mod limits;
mod logging;
mod notify;
mod reload;
mod roles;
mod sockets;
mod sources;
mod supervisor;

pub(crate) use supervisor::{Demo, run};

use std::hash::{BuildHasher, RandomState};

/// A number nobody can foresee: the standard library's hasher is seeded by the operating system.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}
