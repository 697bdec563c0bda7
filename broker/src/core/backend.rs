//! The session of one backend.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use scale0_wire::Heartbeat;

use super::at_work::AtWork;
use super::choice::Mean;
use super::credit::Ledger;
use super::hash::Secret;
use super::link::Link;
use super::outlier::Health;
use super::service::{Bounds, ServiceKey};
use super::service_set::ServiceSet;
use super::stream::List;

/// Names a backend session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BackendKey(pub(crate) usize);

/// One service of a backend.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    pub(crate) service: ServiceKey,
    /// The backend's place among the service's members.
    pub(crate) place: usize,
    /// How long its requests take here.
    pub(crate) time: Mean,
    /// When the latest of them was answered.
    pub(crate) timed: Option<Instant>,
    pub(crate) health: Health,
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
    /// The places of services among its offers.
    pub(crate) places: HashMap<ServiceKey, usize, Secret>,
    /// Nothing has been heard of it for longer than it should be silent, though not for so long that it is dead. It is sent nothing:
    /// what does not say its heartbeats does not begin with requests either, and what is sent into a link that is cut is lost.
    pub(crate) is_suspect: bool,
    /// How many of its offers have a rest.
    pub(crate) resting: usize,
    /// Its outstanding requests, by service.
    pub(crate) at_work: AtWork,
    /// What it would offer, and may not.
    pub(crate) barred: BTreeSet<Arc<str>>,
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
    /// What it is where requests belong together.
    pub(crate) seed: u64,
}

impl Backend {
    /// Whether it works on requests at all, now; its application may be away, or itself. One that has no credit only for being busy does.
    pub(crate) fn takes_work(&self) -> bool {
        self.has_application() && !self.is_suspect
    }

    /// Whether its application is there, as far as it has said so.
    pub(crate) fn has_application(&self) -> bool {
        0 < self.ledger.capacity()
    }

    /// Requests that it may be sent now.
    pub(crate) fn available(&self) -> u32 {
        if self.is_suspect {
            return 0;
        }
        self.ledger.available()
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

    /// The place of a service among its offers.
    pub(crate) fn offer(&self, service: ServiceKey) -> Option<usize> {
        if let [only] = &self.offers[..] {
            return (only.service == service).then_some(0);
        }
        self.places.get(&service).copied()
    }

    /// Whether another request of this service may be sent: where it offers others too, a part of what it lends us is not for any one of
    /// them, so that one with long requests leaves room for the others.
    pub(crate) fn takes_share(&self, service: ServiceKey, bounds: Bounds) -> bool {
        if self.offers.len() < 2 {
            return true;
        }
        let at_work = u64::from(self.at_work.of(service));
        at_work == 0 || 100 * at_work < u64::from(bounds.share_percent) * self.lent()
    }

    /// Credit that lets one more request of this service go, of which it has its share. None while some lies idle, which is not for it.
    pub(crate) fn share_wanted(&self, service: ServiceKey, bounds: Bounds) -> usize {
        if 0 < self.ledger.available() {
            return 0;
        }
        let at_work = u64::from(self.at_work.of(service));
        let needed = 100 * at_work / u64::from(bounds.share_percent.max(1)) + 1;
        usize::try_from(needed.saturating_sub(self.lent())).unwrap_or(0)
    }

    fn lent(&self) -> u64 {
        u64::from(self.outstanding) + u64::from(self.ledger.available())
    }
}
