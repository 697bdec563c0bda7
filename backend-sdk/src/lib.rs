//! Makes any tower service a Scale0 backend.
//!
//! A backend dials brokers, says which services it offers, and is sent as many requests at a time as it has room for. Whatever is
//! a [`tower_service::Service`] of `http` requests will do, so an axum router is a backend in one line:
//!
//! ```no_run
//! # async fn run() -> Result<(), scale0_backend::Error> {
//! use axum::{Router, routing::get};
//! use scale0_backend::Backend;
//!
//! let app = Router::new().route("/", get(|| async { "hello" }));
//! Backend::new("www.example.com").broker("tcp://127.0.0.1:5702").serve(app).await
//! # }
//! ```
//!
//! What happens is said by `tracing`: that a broker has "registered" the backend, that none answers, that one is gone. A program without
//! a subscriber (`tracing_subscriber::fmt::init()`, say) prints nothing of it; [`Backend::on_registered`] tells the first without one.
//!
//! Start with [`Backend`], [`Body`] and [`RequestContext`]. This crate refuses to know caches and how a broker chooses. `session`
//! holds all decisions and no socket, task or clock; `shell` carries them out.

mod announcer;
mod backend;
mod body;
mod counters;
mod error;
mod exchange;
mod fields;
mod handler;
mod request;
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
mod shell;
#[cfg(feature = "simulation")]
#[doc(hidden)]
pub mod testing;
pub mod upgrade;

pub use announcer::Announcer;
pub use backend::{Backend, Throttle};
pub use body::Body;
pub use counters::{Counter, Counters};
pub use error::{BodyError, Error};
pub use handler::{NotStarted, Unanswered};
pub use request::RequestContext;
