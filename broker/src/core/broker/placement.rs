//! Who gets a request, and when.

use std::time::{Duration, Instant};

use scale0_wire::{Kind, Message, Reason, RoutingHeader, Wanted};

use super::{Broker, Due, Session};
use crate::core::backend::{Backend, BackendKey};
use crate::core::link::unpinned;
use crate::core::service::{DEMAND_SPACING, ServiceKey, Standing};
use crate::core::stream::{Lane, Phase, StreamKey};

/// How many requests more than the least loaded backend one of the asker's own process may have: a hop between processes costs
/// as much as waiting for about one short request.
const LOCAL_SLACK: u32 = 2;

/// Where a request goes now.
enum Placement {
    /// To this backend, which has credit.
    Backend(BackendKey),
    /// Into the queue.
    Wait(Lane),
    /// Back to its frontend.
    Refuse(Reason),
}

impl Broker {
    /// Sends a request on, lets it wait, or gives it up. It is in no list when this is called.
    pub(super) fn place(&mut self, key: StreamKey) {
        match self.placement(key) {
            Placement::Backend(backend) => self.send_request(key, backend),
            Placement::Wait(lane) => self.enqueue(key, lane),
            Placement::Refuse(reason) => self.give_up(key, reason),
        }
    }

    fn placement(&self, key: StreamKey) -> Placement {
        if let Some(backend) = self.least_outstanding(key) {
            return Placement::Backend(backend);
        }
        let stream = &self.streams[key];
        let service = &self.services[stream.service.0];
        if service.deserted.is_some() {
            // Somebody may come within `hold`.
            if stream.hold.is_zero() && service.standing != Standing::Awaited {
                return Placement::Refuse(stream.failure);
            }
        } else if !self.has_prospect(key) {
            return Placement::Refuse(stream.failure);
        }
        if 0 < stream.attempts {
            return Placement::Wait(Lane::Repeats);
        }
        let (size, priority) = stream
            .request
            .as_ref()
            .map_or_else(Default::default, |request| {
                (request.size(), request.header.priority)
            });
        if service.queue.has_room(size) {
            Placement::Wait(if stream.request_is_over {
                priority.into()
            } else {
                Lane::Uploads
            })
        } else if service.queue.limits().bytes < service.queue.bytes() + size {
            Placement::Refuse(Reason::QueueBytes)
        } else {
            Placement::Refuse(Reason::QueueFull)
        }
    }

    /// The backend with credit and the fewest requests of ours, the one that has rested longest among equals; one of the
    /// asker's process while that is hardly more loaded.
    fn least_outstanding(&self, key: StreamKey) -> Option<BackendKey> {
        let stream = &self.streams[key];
        let locality = self.frontends[stream.frontend.0].link.locality;
        let mut least = None;
        let mut least_local = None;
        for &candidate in &self.services[stream.service.0].backends {
            let backend = &self.backends[candidate.0];
            if backend.ledger.available() == 0
                || !(stream.request_is_over || backend.takes_upload())
                || stream.tried.contains(&backend.link.instance)
            {
                continue;
            }
            let rank = (backend.outstanding, backend.last_used);
            if least.is_none_or(|(best, _)| rank < best) {
                least = Some((rank, candidate));
            }
            let is_local = locality.is_some() && locality == backend.link.locality;
            if is_local && least_local.is_none_or(|(best, _)| rank < best) {
                least_local = Some((rank, candidate));
            }
        }
        let ((fewest, _), least) = least?;
        match least_local {
            Some(((local, _), backend)) if local <= fewest + LOCAL_SLACK => Some(backend),
            _ => Some(least),
        }
    }

    /// Whether a backend that has not had it yet takes work for its service.
    pub(super) fn has_prospect(&self, key: StreamKey) -> bool {
        let stream = &self.streams[key];
        let service = &self.services[stream.service.0];
        service.backends.iter().any(|backend| {
            let backend = &self.backends[backend.0];
            backend.takes_work() && !stream.tried.contains(&backend.link.instance)
        })
    }

    fn enqueue(&mut self, key: StreamKey, lane: Lane) {
        let stream = &mut self.streams[key];
        stream.since = self.now;
        if std::mem::take(&mut stream.is_pinned) {
            stream.request = stream.request.take().map(unpinned);
        }
        let service = stream.service;
        self.counters.queued += 1;
        self.queued += 1;
        self.services[service.0]
            .queue
            .push(key, lane, &mut self.streams);
        self.await_expiry(key);
        self.demand(service);
    }

    pub(super) fn leave_queue(&mut self, key: StreamKey, lane: Lane) {
        let stream = &self.streams[key];
        let service = stream.service;
        self.averages
            .waited(self.now.saturating_duration_since(stream.since));
        self.services[service.0]
            .queue
            .remove(key, lane, &mut self.streams);
        self.streams[key].phase = Phase::Unplaced;
        self.queued -= 1;
    }

    pub(super) fn change_service(&mut self, key: StreamKey, to: ServiceKey) {
        let from = std::mem::replace(&mut self.streams[key].service, to);
        self.services[to.0].open += 1;
        self.leave_service(from);
    }

    pub(super) fn leave_service(&mut self, key: ServiceKey) {
        let service = &mut self.services[key.0];
        service.open -= 1;
        if service.open == 0 && service.standing == Standing::Awaited {
            self.remove_service(key);
        }
    }

    /// Sends a request to a backend that has credit. It is in no list when this is called.
    pub(super) fn send_request(&mut self, key: StreamKey, to: BackendKey) {
        let stream = &mut self.streams[key];
        let Some(mut request) = stream.request.take() else {
            return self.give_up(key, Reason::ProtocolError);
        };
        let size = request.size();
        if self.kept_bytes + size <= self.config.limits.kept_bytes {
            self.kept_bytes += size;
            let kept = request.clone();
            stream.request = Some(if std::mem::take(&mut stream.is_pinned) {
                unpinned(kept)
            } else {
                kept
            });
        } else {
            self.counters.not_kept += 1;
        }
        let left = stream.deadline.saturating_duration_since(self.now);
        request.header.deadline_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1);
        request.header.attempt = request.header.attempt.saturating_add(stream.attempts);
        request.header.correlation = key.correlation();
        request.header.credit = 0;
        stream.attempts = stream.attempts.saturating_add(1);
        stream.phase = Phase::Sent(to);
        stream.holds_credit = true;
        stream.is_uploading = !stream.request_is_over;
        stream.since = self.now;
        let is_uploading = stream.is_uploading;

        self.uses += 1;
        self.counters.sent += 1;
        let backend = &mut self.backends[to.0];
        backend.uploads += u32::from(is_uploading);
        let has_credit = backend.ledger.take();
        debug_assert!(has_credit, "sent to a backend without credit");
        backend.outstanding += 1;
        backend.last_used = self.uses;
        backend.streams.push(key, &mut self.streams);
        backend.link.tell(request, &mut self.actions);
        if let Some(end) = &self.streams[key].request_end {
            let mut end = Message::clone(end);
            end.header.correlation = key.correlation();
            backend.link.send_last(end, &mut self.actions);
        }
        self.await_expiry(key);
    }

    /// A backend may have credit now: those who wait for it are served, its services in turn.
    pub(super) fn use_credit(&mut self, key: BackendKey) {
        while let Some(backend) = self.backends.get(key.0)
            && 0 < self.queued
            && 0 < backend.ledger.available()
        {
            let Some((turn, stream, lane)) = self.first_waiting_for(key) else {
                break;
            };
            self.backends[key.0].turn = turn;
            self.leave_queue(stream, lane);
            self.send_request(stream, key);
        }
        let has_idle = |backend: &Backend| 0 < backend.ledger.unused();
        if self.is_draining && self.backends.get(key.0).is_some_and(has_idle) {
            // Nothing new will come here that could use it.
            self.give_back(key, u32::MAX);
        }
    }

    fn first_waiting_for(&self, key: BackendKey) -> Option<(usize, StreamKey, Lane)> {
        let backend = &self.backends[key.0];
        let count = backend.services.len();
        (1..=count).find_map(|offset| {
            let turn = (backend.turn + offset) % count;
            let queue = &self.services[backend.services[turn].0].queue;
            let (stream, lane) = queue.first_for(backend, &self.streams)?;
            Some((turn, stream, lane))
        })
    }

    /// Another broker wants what is idle here.
    pub(super) fn reclaim(&mut self, key: BackendKey, message: &Message) {
        match Wanted::decode(&message.metadata) {
            // What somebody waits for here has been used before this is called.
            Ok(wanted) => self.give_back(key, wanted.0),
            Err(_) => self.counters.dropped_metadata += 1,
        }
    }

    /// Returns up to `wanted` of a backend's idle credit. It hears of it even if it was nothing.
    fn give_back(&mut self, key: BackendKey, wanted: u32) {
        let Some(backend) = self.backends.get_mut(key.0) else {
            return;
        };
        let header = RoutingHeader {
            credit: backend.ledger.give_back(wanted),
            ..RoutingHeader::new(Kind::Return)
        };
        backend.link.tell(Message::new(header), &mut self.actions);
    }

    /// The backends of a service are to know how many wait for them: at once if they have not heard lately.
    pub(super) fn demand(&mut self, key: ServiceKey) {
        if self.services[key.0].demand_timer.is_none() {
            self.tell_demand(key);
        }
    }

    /// Tells a service's backends how many wait for them, if that has changed, and comes back while somebody waits.
    pub(super) fn tell_demand(&mut self, key: ServiceKey) {
        let mut is_settled = self.services[key.0].queue.is_empty();
        for index in 0..self.services[key.0].backends.len() {
            let to = self.services[key.0].backends[index];
            let waiting: usize = self.backends[to.0]
                .services
                .iter()
                .map(|service| self.services[service.0].queue.len())
                .sum();
            let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
            let backend = &mut self.backends[to.0];
            let quiet = backend.demand_told.map_or(Duration::MAX, |told| {
                self.now.saturating_duration_since(told)
            });
            let is_due =
                backend.demand != waiting || (0 < waiting && backend.link.heartbeat <= quiet);
            if !is_due {
                continue;
            }
            if quiet < DEMAND_SPACING {
                is_settled = false;
                continue;
            }
            backend.demand = waiting;
            backend.demand_told = Some(self.now);
            let message = Message::new(RoutingHeader::new(Kind::Demand));
            let message = message.with_metadata(Wanted(waiting).encode());
            self.tell(Session::Backend(to), message);
        }
        let service = &mut self.services[key.0];
        // With nobody to tell, whoever registers next starts it again.
        if !is_settled && !service.backends.is_empty() {
            let timer = self
                .timers
                .start(self.now + DEMAND_SPACING, Due::Demand(key));
            service.demand_timer = Some(timer);
        }
    }

    /// Sets a stream's timer to when its patience ends.
    pub(super) fn await_expiry(&mut self, key: StreamKey) {
        let at = self.expiry(key);
        let stream = &mut self.streams[key];
        match stream.timer {
            Some(timer) => self.timers.restart(timer, at),
            None => stream.timer = Some(self.timers.start(at, Due::Stream(key))),
        }
    }

    /// When it must have gone on: its deadline; while there is nobody to wait for, the end of its hold.
    fn expiry(&self, key: StreamKey) -> Instant {
        let stream = &self.streams[key];
        if !matches!(stream.phase, Phase::Queued(_)) || self.has_prospect(key) {
            return stream.deadline;
        }
        let service = &self.services[stream.service.0];
        let held = match service.standing {
            Standing::Awaited => self.started + self.config.hold,
            Standing::Named | Standing::Announced => {
                stream.since.max(service.deserted.unwrap_or(stream.since)) + stream.hold
            }
        };
        stream.deadline.min(held)
    }

    /// A stream's timer has run out.
    pub(super) fn expire(&mut self, key: StreamKey) {
        self.streams[key].timer = None;
        if self.now < self.expiry(key) {
            // A backend has come, or gone, since the timer was set.
            return self.await_expiry(key);
        }
        let stream = &self.streams[key];
        let reason = if stream.deadline <= self.now {
            Reason::Deadline
        } else if self.services[stream.service.0].standing == Standing::Awaited {
            Reason::UnknownService
        } else {
            Reason::NoBackend
        };
        self.give_up(key, reason);
    }
}
