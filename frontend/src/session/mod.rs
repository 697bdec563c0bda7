//! What one runtime thread's lane says to the brokers, as a pure state machine: sessions, streams, which broker is asked, what
//! is repeated. It is told what happened and when, and answers with [`Action`]s; nothing happens here.

#[cfg(feature = "simulation")]
mod audit;
mod broker;
mod explain;
mod home;
mod lane;
mod placement;
mod responses;
mod sessions;
mod stream;
mod uploads;

#[cfg(test)]
mod any_order;
#[cfg(test)]
mod older_broker;
#[cfg(test)]
mod site;
#[cfg(test)]
mod stories;

pub use broker::BrokerStatus;
pub use lane::{Action, Lane, LaneConfig, LaneCounters};
pub use stream::{Asked, Delivery, Ended, Failure, OpenRequest, StreamId, Told};
