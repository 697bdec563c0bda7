//! What an operator sees.

use std::time::{Duration, Instant};

use super::Broker;
use super::rights::right_of;
use crate::core::link::Link;
use crate::core::service::Service;
use crate::core::snapshot::{
    BackendSnapshot, FrontendSnapshot, Gauges, ServiceSnapshot, SessionSnapshot, Snapshot,
};

/// Moving averages over about the last eight requests.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Averages {
    service_time: Duration,
    queue_time: Duration,
}

impl Averages {
    /// A request has waited for so long.
    pub(super) fn waited(&mut self, time: Duration) {
        self.queue_time = (self.queue_time * 7 + time) / 8;
    }

    /// A request's answer has begun so long after it was sent.
    pub(super) fn answered(&mut self, time: Duration) {
        self.service_time = (self.service_time * 7 + time) / 8;
    }

    pub(super) fn service_time_us(&self) -> u32 {
        u32::try_from(self.service_time.as_micros()).unwrap_or(u32::MAX)
    }

    pub(super) fn queue_time_us(&self) -> u32 {
        u32::try_from(self.queue_time.as_micros()).unwrap_or(u32::MAX)
    }
}

impl Broker {
    /// How it stands, for machines that ask often. Costs a walk over all services.
    #[must_use]
    pub fn gauges(&self, now: Instant) -> Gauges {
        let services = self.services.iter();
        Gauges {
            open_requests: self.streams.len() - self.abandoned - self.copies,
            streams: self.long_streams,
            queued_bytes: self.queued_bytes,
            waiting_bytes: self.backlog.bytes(),
            kept_bytes: self.kept_bytes,
            backends: self.backends.len(),
            frontends: self.frontends.len(),
            services: services
                .map(|(_, service)| self.service_snapshot(service, now))
                .collect(),
        }
    }

    /// How it stands, for people. Costs a walk over everything: not for every request.
    #[must_use]
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        let Gauges {
            open_requests,
            streams,
            queued_bytes,
            waiting_bytes,
            kept_bytes,
            mut services,
            ..
        } = self.gauges(now);
        services.sort_by(|a, b| a.name.cmp(&b.name));
        let backends = self.backends.iter().map(|(_, backend)| BackendSnapshot {
            session: self.session_snapshot(&backend.link, now),
            services: backend
                .offers
                .iter()
                .map(|offer| self.services[offer.service.0].name.clone())
                .collect(),
            not_allowed: backend.barred.iter().cloned().collect(),
            capacity: backend.ledger.capacity(),
            outstanding: backend.outstanding,
            credit: backend.ledger.available(),
            granted: backend.ledger.granted(),
            returned: backend.ledger.returned(),
            used: backend.ledger.used(),
            load: backend.load.outstanding,
            service_time_us: backend.load.service_time_us,
            service_times_us: (backend.offers.iter())
                .map(|offer| offer.time.known().map_or(0, microseconds))
                .collect(),
            resting: (backend.offers.iter())
                .filter(|offer| offer.health.is_out())
                .map(|offer| self.services[offer.service.0].name.clone())
                .collect(),
        });
        let frontends = self.frontends.iter().map(|(_, frontend)| FrontendSnapshot {
            session: self.session_snapshot(&frontend.link, now),
            open_requests: frontend.streams.len(),
        });
        Snapshot {
            node: self.config.node.clone(),
            site: self.config.site.clone(),
            uptime_ms: milliseconds(now.saturating_duration_since(self.started)),
            is_draining: self.is_draining,
            open_requests,
            abandoned: self.abandoned,
            streams,
            queued_bytes,
            waiting_bytes,
            kept_bytes,
            services,
            backends: backends.collect(),
            frontends: frontends.collect(),
            quarantined: self.quarantined(now),
        }
    }

    fn service_snapshot(&self, service: &Service, now: Instant) -> ServiceSnapshot {
        let oldest = service.queue.oldest(&self.streams);
        ServiceSnapshot {
            name: service.name.clone(),
            backends: service.members.len(),
            resting: service.resting,
            outstanding: service.outstanding,
            service_time_us: service.time.known().map_or(0, microseconds),
            queued: service.queue.len(),
            queued_repeats: service.queue.repeats(),
            queued_flights: service.queue.flights(),
            is_overloaded: service.queue.overload.stands(),
            queued_bytes: service.queue.bytes(),
            queue_limit: service.queue.limits().requests,
            oldest_ms: oldest.map_or(0, |since| {
                milliseconds(now.saturating_duration_since(since))
            }),
            requests: service.requests,
            repeats: service.repeats,
            refused: service.refused,
        }
    }

    fn session_snapshot(&self, link: &Link, now: Instant) -> SessionSnapshot {
        let right = right_of(self.config.rights.as_deref(), link);
        SessionSnapshot {
            node: link.node.clone(),
            key: right.map(|right| right.name.clone()),
            lane: link.lane,
            is_draining: link.is_draining,
            is_local: link.locality.is_some(),
            silent_ms: milliseconds(now.saturating_duration_since(link.heard)),
            round_trip_us: u64::try_from(link.round_trip().as_micros()).unwrap_or(u64::MAX),
            waiting_bytes: link.waiting_bytes(),
        }
    }
}

fn microseconds(duration: Duration) -> u64 {
    // To the nearest.
    let duration = duration + Duration::from_nanos(500);
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
