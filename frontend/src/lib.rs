//! Scale0's HTTP frontend: listeners, routes, the pipeline cache → flight → dispatch, and the admin endpoints.
//!
//! A request is read and normalised once, looked up, joined with its like, and otherwise sent to a broker; one thread does all
//! of it. This crate refuses to know how a broker chooses.
//!
//! Start with [`FrontendConfig`], [`Threads`] and [`Frontend`].

mod access_log;
mod account;
pub mod admin;
mod affinity;
mod at_cache;
mod body;
mod clock;
mod config;
mod conversation;
mod counters;
mod dispatch;
mod error_response;
mod exchange;
mod explanation;
mod fields;
mod flight;
mod forwarded;
mod frontend;
mod interim;
mod interim_io;
mod listener;
mod pipeline;
mod response;
mod route;
mod secret;
#[cfg_attr(
    not(feature = "simulation"),
    expect(
        unreachable_pub,
        reason = "what `testing` shows is public for it alone"
    )
)]
#[cfg_attr(
    feature = "simulation",
    expect(
        missing_docs,
        reason = "what `testing` shows is no interface for strangers"
    )
)]
mod session;
mod socket;
mod target;
mod teaching;
#[cfg(feature = "simulation")]
#[doc(hidden)]
pub mod testing;
mod threads;
mod tunnel;
mod watch;
mod worker;

pub use access_log::{AccessLog, Destination};
pub use affinity::Affinity;
pub use config::{Brokers, FrontendConfig, Limits};
pub use frontend::{Frontend, StartError};
pub use route::{Coalesce, HostPattern, Route, Rules, Service};
pub use scale0_wire::Priority;
pub use socket::Listener;
pub use threads::Threads;
