//! What this crate counts; `admin/metrics.rs` gives each its name and says what it means.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;
use parking_lot::Mutex;
use scale0_wire::Reason;

use crate::interim::Dropped;
use crate::watch::TooSlow;

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All threads' counters together.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections: Counter,
    pub(crate) accept_errors: Counter,
    pub(crate) connection_errors: Counter,
    pub(crate) requests: Counter,
    pub(crate) response_bytes: Counter,
    /// Responses that did not reach their end.
    pub(crate) incomplete: Counter,
    /// By the first digit of the status; the first is for what is none.
    by_class: [Counter; 6],
    pub(crate) errors: Errors,
    pub(crate) too_slow_idle: Counter,
    pub(crate) too_slow_head: Counter,
    pub(crate) too_slow_content: Counter,
    pub(crate) too_slow_reading: Counter,
    pub(crate) interims: Counter,
    /// In the order of [`Dropped::ALL`].
    interims_dropped: [Counter; Dropped::ALL.len()],
    pub(crate) tunnels: Counter,
    /// Requests whose account was asked for, by who may.
    pub(crate) explained: Counter,
    /// … and by who may not.
    pub(crate) explanations_refused: Counter,
}

/// Answers of our own making, by reason. Reasons are names in the program, so there are few of them; and so are errors, as a rule.
#[derive(Debug)]
pub(crate) struct Errors(Mutex<BTreeMap<&'static str, u64>>);

impl Default for Errors {
    /// All that brokers and streams give are there from the start: what has not happened yet is 0, and not unknown.
    fn default() -> Self {
        let known = Reason::ALL.iter().map(|reason| (reason.name(), 0));
        Self(Mutex::new(known.collect()))
    }
}

impl Errors {
    pub(crate) fn count(&self, reason: &'static str) {
        *self.0.lock().entry(reason).or_default() += 1;
    }

    pub(crate) fn each(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().clone()
    }
}

impl Counters {
    pub(crate) fn responses(&self, status: StatusCode) -> &Counter {
        self.class(usize::from(status.as_u16() / 100))
    }

    pub(crate) fn class(&self, digit: usize) -> &Counter {
        self.by_class.get(digit).unwrap_or(&self.by_class[0])
    }

    pub(crate) const fn interim_dropped(&self, why: Dropped) -> &Counter {
        &self.interims_dropped[why as usize]
    }

    pub(crate) fn too_slow(&self, verdict: TooSlow) -> &Counter {
        match verdict {
            TooSlow::Idle => &self.too_slow_idle,
            TooSlow::Head => &self.too_slow_head,
            TooSlow::Content => &self.too_slow_content,
            TooSlow::Reading => &self.too_slow_reading,
        }
    }
}
