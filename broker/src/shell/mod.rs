//! What runs the core: sockets, a clock, a lock. It decides nothing.

mod clock;
mod handle;
mod outbox;
mod run;
mod station;

pub use clock::draw;
pub use handle::{BrokerFailed, BrokerHandle, ShellConfig, StartError};
pub use station::ShellCounters;
