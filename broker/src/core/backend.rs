//! The session of one backend.

use std::time::Instant;

use scale0_wire::Heartbeat;

use super::credit::Ledger;
use super::link::Link;
use super::service::ServiceKey;
use super::service_set::ServiceSet;
use super::stream::List;

/// Names a backend session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BackendKey(pub(crate) usize);

/// One service of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) service: ServiceKey,
    /// The backend's place among the service's members.
    pub(crate) place: usize,
}

/// One backend session.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) ledger: Ledger,
    /// Requests that it works on for us: sent, not over, and holding credit.
    pub(crate) outstanding: u32,
    /// Those of them whose content is still to come.
    pub(crate) uploads: u32,
    /// When it was sent a request last, in requests of the whole broker.
    pub(crate) last_used: u64,
    /// What it is sent new work of: the same services in both, for two kinds of questions.
    pub(crate) offers: Vec<Offer>,
    pub(crate) offered: ServiceSet,
    /// Those of its offers at which it is not looked because it had no credit.
    pub(crate) parked: Vec<usize>,
    /// Which of its services had its credit last: they take turns.
    pub(crate) turn: ServiceKey,
    /// All streams that it has not ended.
    pub(crate) streams: List,
    /// What it was told of our demand, and when.
    pub(crate) demand: u32,
    pub(crate) demand_told: Option<Instant>,
    /// What it said last about itself.
    pub(crate) load: Heartbeat,
    pub(crate) link: Link,
}

impl Backend {
    /// Whether it works on requests at all, now; its application may be away. One that has no credit only for being busy does.
    pub(crate) fn takes_work(&self) -> bool {
        0 < self.ledger.capacity()
    }

    /// Whether another request may be sent whose content comes at its client's pace. A quarter of what this backend lends us is not
    /// for those: slow clients, however many, leave room for others.
    pub(crate) fn takes_upload(&self) -> bool {
        self.uploads == 0 || 4 * u64::from(self.uploads) < 3 * self.lent()
    }

    /// Of so many uploads that wait, those for which more credit is of use. While some lies idle that is not for uploads, none: it would
    /// be kept from others for nothing. Else as much as lets one more of them go.
    pub(crate) fn uploads_wanted(&self, waiting: usize) -> usize {
        if self.takes_upload() || waiting == 0 {
            return waiting;
        }
        if 0 < self.ledger.available() {
            return 0;
        }
        let needed = 4 * u64::from(self.uploads) / 3 + 1;
        usize::try_from(needed.saturating_sub(self.lent())).unwrap_or(0)
    }

    fn lent(&self) -> u64 {
        u64::from(self.outstanding) + u64::from(self.ledger.available())
    }
}
