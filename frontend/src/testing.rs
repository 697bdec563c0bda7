//! The lane for simulations: the state machine itself, without the dispatcher that gives it links, clients and a clock.
//!
//! No part of the interface: it changes with the lane.
//!
//! A broker is named by a link; `scale0_transport::Links::attach` gives one out to a hub that does nothing.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Instant;
//!
//! use scale0_frontend::testing::{Action, Lane, LaneConfig};
//! use scale0_transport::{Hub, Inbox, Links, PeerId, Port};
//! use scale0_wire::{Kind, Message};
//!
//! struct Nobody;
//!
//! impl Hub for Nobody {
//!     fn attach(&self, _port: Port, _locality: u32, _inbox: Arc<Inbox>) -> PeerId {
//!         PeerId::in_process(0)
//!     }
//!     fn submit(&self, _from: PeerId, _message: Message) {}
//!     fn detach(&self, _peer: PeerId) {}
//! }
//!
//! # #[expect(clippy::disallowed_methods, reason = "an example's clock")]
//! # fn epoch() -> Instant { Instant::now() }
//! let now = epoch();
//! let config = LaneConfig {
//!     node: "front-1".into(),
//!     instance: 1,
//!     lane: 0,
//!     first_epoch: 1,
//!     window_bytes: 1 << 20,
//!     max_streams: 100,
//! };
//! let (mut lane, mut actions) = (Lane::new(config, now), Vec::new());
//! let broker = Links::new().attach(Arc::new(Nobody), Port::Frontends, 0);
//! lane.add_broker(now, broker);
//! lane.up(now, broker, &mut actions);
//! let [Action::Send(to, hello)] = &actions[..] else { panic!("{actions:?}") };
//! assert_eq!((*to, hello.header.kind), (broker, Kind::Hello));
//! ```

pub use crate::session::{
    Action, Asked, BrokerStatus, Delivery, Ended, Failure, Lane, LaneConfig, LaneCounters,
    OpenRequest, StreamId, Told,
};
