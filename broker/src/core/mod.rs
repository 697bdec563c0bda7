//! The pure state machine: what a broker decides. Reach std's `core` through `std::` here.

mod affinity;
mod at_work;
mod backend;
mod backlog;
mod broker;
mod choice;
mod chosen;
mod config;
mod counters;
mod credit;
mod event;
mod frontend;
mod hash;
mod lateness;
mod link;
mod outlier;
mod overload;
mod quarantine;
mod queue;
mod retry;
mod rights;
mod rng;
mod service;
mod service_set;
mod snapshot;
#[cfg(test)]
mod stories;
mod strangers;
mod stream;
#[cfg(test)]
mod testing;
mod timers;
mod trace;

pub(crate) use backlog::Backlog;
pub use broker::Broker;
pub use config::{BrokerConfig, BrokerLimits, Neighbour, QueueLimits, ServiceConfig};
pub use counters::{ByReason, ByWhy, Counters};
pub use event::{Action, Event};
pub use rights::{Right, Rights};
pub use snapshot::{
    BackendSnapshot, FrontendSnapshot, Gauges, QuarantineSnapshot, ServiceSnapshot,
    SessionSnapshot, Snapshot,
};
