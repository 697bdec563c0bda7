//! One service: who offers it, and who waits for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use scale0_wire::ServiceId;

use super::backend::BackendKey;
use super::choice::Mean;
use super::config::QueueLimits;
use super::lateness::Lateness;
use super::queue::Queue;
use super::retry::Budget;
use super::timers::TimerId;

/// Names a service of a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ServiceKey(pub(crate) usize);

/// A service is known for so long after its last backend left.
pub(crate) const REMEMBERED: Duration = Duration::from_secs(600);

/// One backend of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) backend: BackendKey,
    /// The service's place among the backend's offers.
    pub(crate) offer: usize,
    /// What the backend is where requests belong together.
    pub(crate) seed: u64,
}

/// How a service came to be here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Named in the configuration: always known.
    Named,
    /// A backend has offered it within [`REMEMBERED`].
    Announced,
    /// Only asked for, so far, of a broker too young to know. Gone with the last request for it.
    Awaited,
}

/// What a service may have of its backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Backends that must have come before its first request is sent.
    pub(crate) min_backends: usize,
    /// Requests that all backends work on at a time.
    pub(crate) outstanding: usize,
    /// Percent of what a backend lends us, if that offers other services as well.
    pub(crate) share_percent: u8,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            min_backends: 0,
            outstanding: usize::MAX,
            share_percent: 75,
        }
    }
}

/// One service.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) id: ServiceId,
    /// Empty while it is only awaited: requests carry no names.
    pub(crate) name: Arc<str>,
    pub(crate) standing: Standing,
    /// Backends that may be sent new work. Behind the first `awake` of them are such as had no credit when they were looked at,
    /// and have none yet, or were suspect and are.
    pub(crate) members: Vec<Member>,
    pub(crate) awake: usize,
    /// How many of them take work at all: neither those without their application nor suspects.
    pub(crate) working: usize,
    /// How many of them have a rest.
    pub(crate) resting: usize,
    pub(crate) bounds: Bounds,
    /// Whether it has had as many backends as it is to have before it begins.
    pub(crate) is_open: bool,
    /// Requests that backends work on.
    pub(crate) outstanding: usize,
    /// How long requests take.
    pub(crate) time: Mean,
    /// How long they take to be late, once some of them may be hedged.
    pub(crate) lateness: Option<Box<Lateness>>,
    /// The time of backends that those of its requests have had that waited for them: in seconds, from what others had when it had nobody
    /// waiting.
    pub(crate) spent: f64,
    pub(crate) queue: Queue,
    pub(crate) budget: Budget,
    /// Streams that name it: it cannot be forgotten before them.
    pub(crate) open: usize,
    /// Since when no backend takes work for it: none offers it, or those that do are without their application.
    pub(crate) deserted: Option<Instant>,
    /// While nobody offers it, it is to be forgotten; and since when.
    pub(crate) memory: Option<(TimerId, Instant)>,
    pub(crate) requests: u64,
    pub(crate) repeats: u64,
    pub(crate) refused: u64,
}

impl Service {
    pub(crate) fn new(
        id: ServiceId,
        standing: Standing,
        limits: QueueLimits,
        now: Instant,
    ) -> Self {
        Self {
            id,
            name: Arc::from(""),
            standing,
            members: Vec::new(),
            awake: 0,
            working: 0,
            resting: 0,
            bounds: Bounds::default(),
            is_open: true,
            outstanding: 0,
            time: Mean::of_service(),
            lateness: None,
            spent: 0.0,
            queue: Queue::new(limits),
            budget: Budget::new(now),
            open: 0,
            deserted: Some(now),
            memory: None,
            requests: 0,
            repeats: 0,
            refused: 0,
        }
    }

    /// Whether one more of its requests may be with a backend.
    pub(crate) const fn may_send(&self) -> bool {
        self.is_open && self.outstanding < self.bounds.outstanding
    }
}
