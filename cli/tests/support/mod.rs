//! What the system tests share: the real binary, an origin that does as it is told, a client that hides nothing.
//!
//! All of it lives in the test's own process and on ports of its own, so tests run beside each other. Nobody sleeps: a test waits
//! for what it wants to see, at most [`PATIENCE`].
#![allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    reason = "every test file uses a part of it, and a test that cannot go on has failed"
)]

mod client;
mod origin;
mod scale0;

use std::time::Duration;

pub(crate) use client::{Client, Head, Response, get};
pub(crate) use origin::{Content, Counts, Origin, Request, body, empty, text};
pub(crate) use scale0::{Scale0, site, site_of};

/// What anything may take on a busy machine. It is no measure of speed, only of being stuck.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for `what`, but not for ever.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what)
        .await
        .expect("it happens in time")
}
