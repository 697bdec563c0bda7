//! Puts an application that speaks HTTP/1.1 behind Scale0.
//!
//! A [`Bridge`] is a [`tower_service::Service`] that takes each request to one of the application's upstreams over a
//! connection kept alive, and its answer back, streaming both ways. An application that takes no connections is sent nothing:
//! its requests are refused as not started, its credit is withdrawn, and it is probed until it is well again. It never becomes
//! the black hole that fails everything faster than anybody else succeeds.
//!
//! This crate refuses to know brokers, caches and what the content means, and speaks no TLS and no HTTP/2 to the application.
//!
//! Start with [`BridgeConfig`] and [`Bridge`].

mod bridge;
mod clock;
mod condition;
mod config;
mod connection;
mod content;
mod counters;
mod error;
mod fields;
mod forward;
mod gateway;
mod origin;
mod pool;
mod prober;
mod stream;
mod upload;

pub use bridge::Bridge;
pub use condition::BROKEN_LIMIT;
pub use config::{BridgeConfig, ConfigError, DEFAULT_CONCURRENCY, Health, Upstream, UpstreamError};
pub use connection::HEAD_BYTES;
pub use content::Content;
pub use counters::Counts;
pub use error::{BridgeError, Refused};
pub use gateway::Gateway;
pub use upload::RequestBody;
