//! Scale0's broker: it takes requests from frontends and gives each to a backend that has room for it.
//!
//! Everything that is decided is decided in [`Broker`], a pure state machine: credit, queues, repeats, liveness, drain. The
//! shell around it owns the sockets and the clock, and decides nothing. This crate refuses to know what HTTP means: it reads
//! routing headers, and passes on what is behind them.
//!
//! Start with [`BrokerHandle`] to run one, and with [`Broker`], [`Event`] and [`Action`] to see how it decides.
//!
//! ```
//! use std::time::Instant;
//!
//! use scale0_broker::{Broker, BrokerConfig, Event};
//!
//! # #[expect(clippy::disallowed_methods, reason = "an example's clock")]
//! # fn now() -> Instant { Instant::now() }
//! let mut broker = Broker::new(BrokerConfig::new("fra-1", "fra", 1, 2), now());
//! let mut actions = Vec::new();
//! broker.step(now(), Event::Drain { until: now() }, &mut actions);
//! assert!(broker.is_gone(), "it had nothing to do");
//! ```

mod core;
mod shell;

pub use core::{
    Action, BackendSnapshot, Broker, BrokerConfig, BrokerLimits, ByReason, ByWhy, Counters, Event,
    FrontendSnapshot, Gauges, Neighbour, QuarantineSnapshot, QueueLimits, Right, Rights,
    ServiceConfig, ServiceSnapshot, SessionSnapshot, Snapshot,
};
pub use shell::{BrokerFailed, BrokerHandle, ShellConfig, ShellCounters, StartError, draw};
