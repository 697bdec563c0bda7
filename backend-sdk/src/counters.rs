//! What a backend counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// How often it has happened.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// What happened in one backend since it started; read by whoever shows metrics.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Requests that a handler was started for.
    pub requests: Counter,
    /// Requests refused before a handler was started: no credit, paused, draining, too many streams.
    pub rejected: Counter,
    /// Requests that a handler handed back with [`crate::NotStarted`].
    pub not_started: Counter,
    /// Requests that nobody wanted the answer of any more.
    pub cancelled: Counter,
    /// Handlers that panicked; each was answered by one 500.
    pub panics: Counter,
    /// Handlers, or their response bodies, that failed.
    pub failures: Counter,
    /// Sessions opened with a broker.
    pub sessions: Counter,
    /// Sessions that ended, for whatever reason.
    pub sessions_ended: Counter,
    /// Times this process, or its runtime, was kept from running for more than a heartbeat.
    pub pauses: Counter,
    /// Messages dropped: of another session than the present one.
    pub foreign_epoch: Counter,
    /// Messages dropped: about a request that was over already.
    pub late: Counter,
    /// Messages dropped: not to be decoded.
    pub malformed: Counter,
    /// Messages dropped: of a kind that has no place there.
    pub unexpected: Counter,
    /// Messages of a broker that exceeded a window, returned credit it never had, or used a number twice.
    pub protocol_errors: Counter,
}

impl Counters {
    /// All of them with their names, for whoever shows metrics.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        [
            ("requests", &self.requests),
            ("rejected", &self.rejected),
            ("not_started", &self.not_started),
            ("cancelled", &self.cancelled),
            ("panics", &self.panics),
            ("failures", &self.failures),
            ("sessions", &self.sessions),
            ("sessions_ended", &self.sessions_ended),
            ("pauses", &self.pauses),
            ("foreign_epoch", &self.foreign_epoch),
            ("late", &self.late),
            ("malformed", &self.malformed),
            ("unexpected", &self.unexpected),
            ("protocol_errors", &self.protocol_errors),
        ]
        .into_iter()
        .map(|(name, counter)| (name, counter.get()))
    }
}
