//! Backends are told how many wait for them, so that they lend their credit where it is wanted.

use std::time::{Duration, Instant};

use scale0_wire::{Kind, Message, RoutingHeader, Wanted};

use super::{Broker, Due};
use crate::core::backend::{Backend, BackendKey};
use crate::core::queue::REPEATS_LOOKED_AT;
use crate::core::service::Service;
use crate::core::service_set::ServiceSet;
use crate::core::timers::TimerId;

/// A backend hears of a changed demand at most this often.
const SPACING: Duration = Duration::from_millis(10);

/// A round looks at all backends, so that new demand does not begin one more often than this.
const ROUND_SPACING: Duration = Duration::from_millis(1);

/// Backends told in one round; the others have their turn in the next one. So a site of a thousand has ten thousand DEMANDs a
/// second at the most, and no request waits for a thousand of them.
const TOLD_AT_ONCE: usize = 100;

/// The rounds in which demand is told.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// When the latest was.
    latest: Option<Instant>,
    /// When the next one is. None: nobody waits, and everybody knows it.
    next: Option<(TimerId, Instant)>,
    /// Whose turn it is first.
    turn: usize,
}

impl Rounds {
    pub(super) fn timer(&self) -> Option<TimerId> {
        self.next.map(|(timer, _)| timer)
    }
}

/// How many wait in some services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Waiting {
    /// For the first time, and with nothing more to come of them.
    requests: usize,
    repeats: usize,
    uploads: usize,
    /// Whatever they are: for no backend now.
    withheld: usize,
}

impl Waiting {
    fn at(service: &Service) -> Self {
        let queue = &service.queue;
        if !service.may_send() {
            return Self {
                withheld: queue.len(),
                ..Self::default()
            };
        }
        let (repeats, uploads) = (queue.repeats(), queue.uploads());
        Self {
            requests: queue.len() - repeats - uploads,
            repeats,
            uploads,
            withheld: 0,
        }
    }

    const fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            repeats: self.repeats + other.repeats,
            uploads: self.uploads + other.uploads,
            withheld: self.withheld + other.withheld,
        }
    }

    const fn minus(self, other: Self) -> Self {
        Self {
            requests: self.requests - other.requests,
            repeats: self.repeats - other.repeats,
            uploads: self.uploads - other.uploads,
            withheld: self.withheld - other.withheld,
        }
    }
}

impl Broker {
    /// How many wait in these services.
    fn waiting_for(&self, services: &ServiceSet) -> Waiting {
        let services = services.common(&self.waiting);
        services.fold(Waiting::default(), |sum, key| {
            sum.plus(Waiting::at(&self.services[key.0]))
        })
    }

    /// How many of them are of use to tell this backend of. What it cannot be sent however much credit it grants would only keep
    /// the credit that lies idle here from other brokers.
    fn demand_of(&self, backend: &Backend, mut waiting: Waiting) -> u32 {
        let mut demand = 0;
        let mut left_out = Vec::new();
        if 0 < backend.resting {
            let services = backend.offers.iter().map(|offer| offer.service);
            left_out.extend(
                services.filter(|&key| self.waiting.contains(key) && !self.admits(backend, key)),
            );
        }
        for (key, _) in backend.at_work.iter() {
            let service = &self.services[key.0];
            if self.waiting.contains(key)
                && backend.offered.contains(key)
                && !backend.takes_share(key, service.bounds)
                && !left_out.contains(&key)
            {
                demand += backend.share_wanted(key, service.bounds);
                left_out.push(key);
            }
        }
        for key in &left_out {
            waiting = waiting.minus(Waiting::at(&self.services[key.0]));
        }
        if 0 < waiting.repeats {
            let mut left = REPEATS_LOOKED_AT;
            for key in backend.offered.common(&self.waiting) {
                let service = &self.services[key.0];
                if service.may_send() && !left_out.contains(&key) {
                    let instance = backend.link.instance;
                    let queue = &service.queue;
                    demand += queue.untried_repeats(instance, &mut left, &self.streams);
                }
            }
        }
        demand += waiting.requests + backend.uploads_wanted(waiting.uploads);
        u32::try_from(demand).unwrap_or(u32::MAX)
    }

    /// Somebody waits. If that is new for the service, its backends are to know soon; else in the next round.
    pub(super) fn demand(&mut self, is_new: bool) {
        let earliest = self.rounds.latest.map_or(self.now, |at| at + ROUND_SPACING);
        match self.rounds.next {
            Some((_, at)) if !is_new || at <= earliest => return,
            Some((timer, _)) if self.now < earliest => self.timers.restart(timer, earliest),
            Some((timer, _)) => {
                self.timers.stop(timer);
                return self.tell_demand();
            }
            None if self.now < earliest => {
                let timer = self.timers.start(earliest, Due::Demand);
                self.rounds.next = Some((timer, earliest));
            }
            None => return self.tell_demand(),
        }
        if let Some((_, at)) = &mut self.rounds.next {
            *at = earliest;
        }
    }

    /// A backend hears how many wait for it, out of turn: what it offers has changed.
    pub(super) fn tell_demand_of(&mut self, key: BackendKey) {
        let backend = &self.backends[key.0];
        let demand = self.demand_of(backend, self.waiting_for(&backend.offered));
        if demand != backend.demand {
            self.tell_waiting(key, demand);
        }
    }

    fn tell_waiting(&mut self, key: BackendKey, waiting: u32) {
        let backend = &mut self.backends[key.0];
        backend.demand = waiting;
        backend.demand_told = Some(self.now);
        let message = Message::new(RoutingHeader::new(Kind::Demand));
        let message = message.with_metadata(Wanted(waiting).encode());
        backend.link.tell(message, &mut self.actions);
    }

    /// One round: backends hear how many wait for them if that has changed, and once in a heartbeat while it is not 0.
    pub(super) fn tell_demand(&mut self) {
        self.rounds.next = None;
        self.rounds.latest = Some(self.now);
        let slots = self.backends.capacity();
        let first = self.rounds.turn;
        let mut told = 0;
        let mut is_over = true;
        // Neighbours mostly offer the same.
        let mut known = (ServiceSet::default(), Waiting::default());
        for slot in (0..slots).map(|offset| (first + offset) % slots) {
            let Some(backend) = self.backends.get(slot) else {
                continue;
            };
            if backend.offers.is_empty() {
                continue;
            }
            if backend.offered != known.0 {
                known = (backend.offered.clone(), self.waiting_for(&backend.offered));
            }
            is_over &= known.1 == Waiting::default();
            let waiting = self.demand_of(backend, known.1);
            let quiet = backend.demand_told.map_or(Duration::MAX, |told| {
                self.now.saturating_duration_since(told)
            });
            if backend.demand == waiting && (waiting == 0 || quiet < backend.link.heartbeat) {
                continue;
            }
            if quiet < SPACING {
                is_over = false;
                continue;
            }
            if told == TOLD_AT_ONCE {
                is_over = false;
                self.rounds.turn = slot;
                break;
            }
            told += 1;
            self.tell_waiting(BackendKey(slot), waiting);
        }
        if !is_over {
            let at = self.now + SPACING;
            self.rounds.next = Some((self.timers.start(at, Due::Demand), at));
        }
    }
}
