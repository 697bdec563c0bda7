//! The session for simulations: the state machine itself, without the shell that gives it links, handlers and a clock.
//!
//! No part of the interface: it changes with the session.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::{Duration, Instant};
//!
//! use scale0_backend::testing::{Action, BrokerId, Event, Session, Settings};
//! use scale0_wire::Kind;
//!
//! # #[expect(clippy::disallowed_methods, reason = "an example's clock")]
//! # fn epoch() -> Instant { Instant::now() }
//! let settings = Settings {
//!     node: "shop-1".into(),
//!     instance: 1,
//!     lane: 0,
//!     services: vec!["shop".into()],
//!     capacity: 4,
//!     max_streams: 100,
//!     heartbeat: Duration::from_secs(1),
//!     drain_timeout: Duration::from_secs(30),
//!     epoch: 1,
//! };
//! let (mut session, mut actions) = (Session::new(settings, 1, Arc::default()), Vec::new());
//! session.step(epoch(), Event::Up(BrokerId(0)), &mut actions);
//! let [Action::Send(BrokerId(0), hello)] = &actions[..] else { panic!("{actions:?}") };
//! assert_eq!(hello.header.kind, Kind::Hello);
//! ```

pub use crate::session::{
    Action, BrokerId, Call, Event, Output, Session, Settings, Shape, StreamId,
};
