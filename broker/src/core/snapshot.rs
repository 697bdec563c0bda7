//! What an operator is shown: one moment of a broker, in plain values.

use std::sync::Arc;

use serde::Serialize;

/// What a broker holds at one moment, in numbers: cheap enough to be asked for every few seconds, whatever the size of the site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gauges {
    /// Requests that a frontend waits for.
    pub open_requests: usize,
    /// Event streams and tunnels.
    pub streams: usize,
    /// Bytes of requests that wait for a backend.
    pub queued_bytes: usize,
    /// Bytes that wait for slow peers' connection windows.
    pub waiting_bytes: usize,
    /// Bytes of requests kept for a repeat.
    pub kept_bytes: usize,
    /// Backend sessions.
    pub backends: usize,
    /// Frontend sessions.
    pub frontends: usize,
    /// All services, in no order.
    pub services: Vec<ServiceSnapshot>,
}

/// A broker at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// The node's name.
    pub node: String,
    /// The site's name.
    pub site: String,
    /// Since its start, in milliseconds.
    pub uptime_ms: u64,
    /// Whether it takes nothing new.
    pub is_draining: bool,
    /// Requests that a frontend waits for.
    pub open_requests: usize,
    /// Streams that nobody waits for, and whose backend has not ended them yet.
    pub abandoned: usize,
    /// Event streams and tunnels.
    pub streams: usize,
    /// Bytes of requests that wait for a backend.
    pub queued_bytes: usize,
    /// Bytes that wait for slow peers' connection windows.
    pub waiting_bytes: usize,
    /// Bytes of requests kept for a repeat.
    pub kept_bytes: usize,
    /// All services, by name.
    pub services: Vec<ServiceSnapshot>,
    /// All backends.
    pub backends: Vec<BackendSnapshot>,
    /// All frontend sessions.
    pub frontends: Vec<FrontendSnapshot>,
    /// Who is not heard, for having broken the protocol again and again; the longest first.
    pub quarantined: Vec<QuarantineSnapshot>,
}

/// Somebody in quarantine at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct QuarantineSnapshot {
    /// What its key is called in the allow list, or without keys its connection.
    pub name: String,
    /// For how long yet, in milliseconds.
    pub left_ms: u64,
    /// How often it was in quarantine lately; each is twice as long as the one before, up to ten minutes.
    pub terms: u32,
}

/// A service at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServiceSnapshot {
    /// Its name; empty while it is only asked for.
    pub name: Arc<str>,
    /// Backends that may be sent new work.
    pub backends: usize,
    /// Those of them that are sent nothing of it for a while, because they failed or were far slower than others.
    pub resting: usize,
    /// Requests that backends work on for this broker.
    pub outstanding: usize,
    /// Moving average of the time until a request's answer begins, in microseconds; 0: not known yet.
    pub service_time_us: u64,
    /// Requests that wait.
    pub queued: usize,
    /// Those of them that wait for the second time.
    pub queued_repeats: usize,
    /// Those of them that several clients wait for.
    pub queued_flights: usize,
    /// Whether more is asked for than can be done, so that the newest is served first.
    pub is_overloaded: bool,
    /// Bytes of requests that wait.
    pub queued_bytes: usize,
    /// How many may wait, but for repeats and those that several wait for.
    pub queue_limit: usize,
    /// How long the longest waits, in milliseconds.
    pub oldest_ms: u64,
    /// Requests for it, so far.
    pub requests: u64,
    /// Repeats, so far.
    pub repeats: u64,
    /// Refusals and failures, so far.
    pub refused: u64,
}

/// A backend session at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackendSnapshot {
    /// What all sessions have.
    pub session: SessionSnapshot,
    /// The services it is sent new work of.
    pub services: Vec<Arc<str>>,
    /// The services it would offer, and its key gives no right to.
    pub not_allowed: Vec<Arc<str>>,
    /// How many requests it works on at a time, over all brokers.
    pub capacity: u32,
    /// Requests it works on for this broker.
    pub outstanding: u32,
    /// Requests it may be sent now.
    pub credit: u32,
    /// All credit it has granted in this session.
    pub granted: u64,
    /// All credit it was given back.
    pub returned: u64,
    /// All requests it was sent.
    pub used: u64,
    /// Requests it works on for all brokers, as it says.
    pub load: u32,
    /// Moving average of the time a request takes, in microseconds, as it says.
    pub service_time_us: u32,
    /// The same for each of its services, as it is seen here; 0: not known yet.
    pub service_times_us: Vec<u64>,
    /// Services of which it is sent nothing for a while, because it failed or was far slower than others.
    pub resting: Vec<Arc<str>>,
}

/// A frontend session at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FrontendSnapshot {
    /// What all sessions have.
    pub session: SessionSnapshot,
    /// Its open requests.
    pub open_requests: usize,
}

/// A session at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SessionSnapshot {
    /// The peer's node name.
    pub node: String,
    /// What its key is called in the allow list, where keys are in use.
    pub key: Option<String>,
    /// Which of the node's connections.
    pub lane: u16,
    /// Whether the peer drains.
    pub is_draining: bool,
    /// Whether it lives in this process.
    pub is_local: bool,
    /// Since something was heard of it, in milliseconds.
    pub silent_ms: u64,
    /// The newest round trip, in microseconds.
    pub round_trip_us: u64,
    /// Bytes that wait for its connection window.
    pub waiting_bytes: usize,
}
