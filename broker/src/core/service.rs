//! One service: who offers it, and who waits for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use scale0_wire::ServiceId;

use super::backend::BackendKey;
use super::config::QueueLimits;
use super::queue::Queue;
use super::retry::Budget;
use super::timers::TimerId;

/// Names a service of a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServiceKey(pub(crate) usize);

/// A service is known for so long after its last backend left.
pub(crate) const REMEMBERED: Duration = Duration::from_secs(600);

/// One backend of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) backend: BackendKey,
    /// The service's place among the backend's offers.
    pub(crate) offer: usize,
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

/// One service.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) id: ServiceId,
    /// Empty while it is only awaited: requests carry no names.
    pub(crate) name: Arc<str>,
    pub(crate) standing: Standing,
    /// Backends that may be sent new work. Behind the first `awake` of them are such as had no credit when they were looked at,
    /// and have none yet.
    pub(crate) members: Vec<Member>,
    pub(crate) awake: usize,
    /// How many of them take work at all.
    pub(crate) working: usize,
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
}
