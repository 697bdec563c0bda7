//! How backends do at their services: who is slower than others, and who has a rest.

use std::time::{Duration, Instant};

use super::Broker;
use crate::core::backend::{BackendKey, Offer};
use crate::core::choice::{EVEN, Mean};
use crate::core::outlier::{AMONG, is_grossly_slow};
use crate::core::service::ServiceKey;
use crate::core::stream::StreamKey;

/// So long after its latest answer a backend's slowness is history: it is asked as others are, and shows how it is now.
const WEIGHED: Duration = Duration::from_secs(10);

/// A backend's average is compared with those of others if it weighs so much, …
const COMPARED_FROM: u32 = 2 * EVEN - 1;

/// … and of those so many are looked at.
const LOOKED_AT: usize = 15;

/// What came of a request, for the backend's account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// It was answered, after so long.
    Well(Duration),
    /// It failed, at the backend.
    Failed,
}

impl Broker {
    /// Notes what came of a request that was sent to this backend.
    pub(super) fn judge(&mut self, key: StreamKey, at: BackendKey, judgement: Judgement) {
        let now = self.now;
        let stream = &mut self.streams[key];
        let is_probe = std::mem::take(&mut stream.is_probe);
        let (service, is_timed) = (stream.service, stream.is_timed);
        let backend = &mut self.backends[at.0];
        let Some(place) = backend.offer(service) else {
            // It drains.
            return;
        };
        let offer = &mut backend.offers[place];
        let Judgement::Well(time) = judgement else {
            if offer.health.failed(is_probe, now) {
                self.counters.ejected += u64::from(self.give_rest(at, service));
            }
            return;
        };
        self.losses.is_well(backend.seed);
        let returns = offer.health.succeeded(is_probe, now);
        if returns {
            // It may have been slow when it left.
            offer.time = Mean::of_backend();
            offer.timed = None;
            self.services[service.0].resting -= 1;
            self.backends[at.0].resting -= 1;
            self.counters.returned += 1;
        }
        if is_timed {
            self.take_time(at, place, time);
        }
    }

    /// A request of the service at this place among a backend's offers has taken so long.
    fn take_time(&mut self, at: BackendKey, place: usize, time: Duration) {
        let offer = &mut self.backends[at.0].offers[place];
        let service = offer.service;
        let of = &mut self.services[service.0];
        if let Some(lateness) = &mut of.lateness {
            lateness.take_in(time);
        }
        let typical = &mut of.time;
        typical.take_in(time);
        offer.time.take_in(time);
        offer.timed = Some(self.now);
        if COMPARED_FROM <= offer.time.weight(typical) && !offer.health.is_out() {
            let own = offer.time.known().unwrap_or_default();
            if is_grossly_slow(own, &mut self.times_at(service)) {
                self.counters.ejected_slow += u64::from(self.give_rest(at, service));
            }
        }
    }

    /// Averages of this service's backends, or of some of them where there are many.
    fn times_at(&mut self, service: ServiceKey) -> Vec<Duration> {
        let of = &self.services[service.0];
        let count = of.members.len();
        let mut times = Vec::new();
        for number in 0..count.min(LOOKED_AT) {
            let place = if count <= LOOKED_AT {
                number
            } else {
                self.rng.below(count)
            };
            let member = of.members[place];
            let offer = &self.backends[member.backend.0].offers[member.offer];
            times.extend(offer.time.known());
        }
        times
    }

    /// Sends this backend nothing of this service for a while, unless it would be more than half of all that have a rest then.
    fn give_rest(&mut self, at: BackendKey, service: ServiceKey) -> bool {
        let of = &mut self.services[service.0];
        if of.working < 2 * (of.resting + 1) {
            return false;
        }
        let backend = &mut self.backends[at.0];
        let Some(offer) = backend.offer(service) else {
            return false;
        };
        backend.offers[offer].health.rest(self.now);
        of.resting += 1;
        backend.resting += 1;
        true
    }

    /// A backend offers this service that has been lost under its requests again and again: it begins with a rest.
    pub(super) fn remember_losses(&mut self, at: BackendKey, service: ServiceKey) {
        let rests = self.losses.rests(self.backends[at.0].seed, self.now);
        if rests == 0 {
            return;
        }
        let backend = &mut self.backends[at.0];
        if let Some(offer) = backend.offer(service) {
            backend.offers[offer].health.had_rests(rests - 1);
        }
        self.counters.ejected += u64::from(self.give_rest(at, service));
    }

    /// Backends of this service have gone, or work no more: those that have a rest must come back if they are more than half.
    pub(super) fn end_rests(&mut self, service: ServiceKey) {
        let now = self.now;
        let of = &mut self.services[service.0];
        if 2 * of.resting <= of.working {
            return;
        }
        for member in &of.members {
            let backend = &mut self.backends[member.backend.0];
            let health = &mut backend.offers[member.offer].health;
            if of.working < 2 * of.resting && health.is_out() {
                health.readmit(now);
                of.resting -= 1;
                backend.resting -= 1;
                self.counters.returned += 1;
            }
        }
        self.relieve(service);
    }

    /// Who waits for this service may find credit that it could not have before: seen to at the end of the step.
    pub(super) fn relieve(&mut self, service: ServiceKey) {
        if self.waiting.contains(service) && !self.relieved.contains(&service) {
            self.relieved.push(service);
        }
    }

    pub(super) fn serve_relieved(&mut self) {
        while let Some(service) = self.relieved.pop() {
            while self.waiting.contains(service) && self.serve_one(service) {}
        }
    }

    /// Sends on the first request in any lane that finds a backend.
    fn serve_one(&mut self, service: ServiceKey) -> bool {
        let heads = self.services[service.0].queue.heads(&self.streams);
        for (key, lane) in heads.into_iter().flatten() {
            if let Some(to) = self.pick(key) {
                self.serve(key, lane, to);
                return true;
            }
        }
        false
    }
}

/// What a request more weighs at a backend, now.
pub(super) fn weight(offer: &Offer, typical: &Mean, now: Instant) -> u32 {
    match offer.timed {
        Some(timed) if now < timed + WEIGHED => offer.time.weight(typical),
        _ => EVEN,
    }
}

const _: () = assert!(AMONG <= LOOKED_AT, "a median is worth nothing of fewer");
