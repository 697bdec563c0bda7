//! Hedges: a request that is late is given to a second backend, and whichever answers first has answered it.
//!
//! The two are streams of their own, each with its backend's credit, that know of each other. One of them is the request: it is
//! in its frontend's table and has its timer, its kept message and its outcome. The other is a copy, of which only its backend knows.
//! When the request's backend ends it without an answer, or the copy's answers first, they change roles.

use std::time::Instant;

use scale0_wire::{Cancel, Kind, Message, Reason, Why};

use super::{Broker, Session, about};
use crate::core::backend::BackendKey;
use crate::core::chosen::Chosen;
use crate::core::lateness::Lateness;
use crate::core::stream::{Phase, Stream, StreamKey};

impl Broker {
    /// A request may be given to a second backend when it is late, if it can be: what its service's requests take is measured from here
    /// on.
    pub(super) fn allow_hedge(&mut self, key: StreamKey) {
        let stream = &mut self.streams[key];
        let frontend = &self.frontends[stream.frontend.0];
        // In the former version the flag means nothing.
        stream.may_hedge = frontend.link.version >= 2
            && stream.is_idempotent
            && stream.request_is_over
            && !stream.may_upgrade;
        if stream.may_hedge {
            let service = &mut self.services[stream.service.0];
            service
                .lateness
                .get_or_insert_with(|| Lateness::new().into());
        }
    }

    /// When a request is late that may be hedged.
    pub(super) fn late_at(&self, key: StreamKey) -> Option<Instant> {
        let stream = &self.streams[key];
        if !stream.may_hedge || !matches!(stream.phase, Phase::Sent(_)) {
            return None;
        }
        let lateness = self.services[stream.service.0].lateness.as_ref()?;
        Some(stream.since + lateness.late()?)
    }

    /// Gives a request to a second backend if it is late, once: if there is one that has credit for which nobody waits, and if the budget
    /// allows it.
    pub(super) fn hedge_if_late(&mut self, key: StreamKey) {
        if self.late_at(key).is_none_or(|late| self.now < late) {
            return;
        }
        self.streams[key].may_hedge = false;
        let stream = &self.streams[key];
        let (service, Some(first)) = (stream.service, stream.backend()) else {
            return;
        };
        let Some(request) = stream.request.clone() else {
            return;
        };
        if !self.services[service.0].queue.is_empty() {
            return;
        }
        let Some(to) = self.pick_another(key, first) else {
            return;
        };
        let to = Chosen {
            why: Why::HEDGE,
            ..to
        };
        let now = self.now;
        if !self.services[service.0].budget.pay_hedge(now) {
            self.counters.hedges_refused += 1;
            return;
        }
        let copy = Stream::copy(&self.streams[key], key, request);
        let Some(copy) = self.streams.insert(copy) else {
            return;
        };
        self.streams[key].twin = Some(copy);
        self.copies += 1;
        self.services[service.0].open += 1;
        self.counters.hedged += 1;
        self.send_request(copy, to);
    }

    /// A backend for a request that its own is late with: never that process again.
    fn pick_another(&mut self, key: StreamKey, first: BackendKey) -> Option<Chosen> {
        let instance = self.backends[first.0].link.instance;
        self.streams[key].tried.push(instance);
        let picked = self.pick(key);
        self.streams[key].tried.pop();
        picked
    }

    /// A response's head has come for one of two: it is the request from here on, and the other's backend stops.
    pub(super) fn win(&mut self, key: StreamKey) {
        let Some(other) = self.streams[key].twin else {
            return;
        };
        if self.streams[key].is_copy {
            self.counters.hedges_won += 1;
            // It would have taken longer yet: what is late must not shrink by what was hedged for being late.
            let took = self
                .now
                .saturating_duration_since(self.streams[other].since);
            let service = &mut self.services[self.streams[key].service.0];
            if let Some(lateness) = &mut service.lateness {
                lateness.take_in(took);
            }
            self.change_roles(other, key);
        } else {
            self.counters.hedges_cancelled += 1;
        }
        self.cancel_copy(other, Reason::Cancelled);
    }

    /// A stream's backend has ended it before its response's head. If another backend has the request as well, that is all that
    /// comes of it; returns whether it is so.
    pub(super) fn leaves_it_to_its_twin(&mut self, key: StreamKey) -> bool {
        let Some(other) = self.streams[key].twin else {
            return false;
        };
        if self.streams[key].is_copy {
            let losses = self.streams[key].losses;
            let instance =
                (self.streams[key].backend()).map(|at| self.backends[at.0].link.instance);
            // Beyond what the request had tried when it was copied there is only this one.
            let has_failed = instance.filter(|instance| self.streams[key].tried.contains(instance));
            let request = &mut self.streams[other];
            request.losses = request.losses.max(losses);
            request.tried.extend(has_failed);
        } else {
            self.change_roles(key, other);
        }
        self.close(key);
        true
    }

    /// The copy is the request from here on, and the request the copy. Both are with backends that have not answered yet.
    fn change_roles(&mut self, request: StreamKey, copy: StreamKey) {
        let from = &mut self.streams[request];
        from.is_copy = true;
        let trace = from.trace.take();
        let (kept, tried, timer) = (
            from.request.take(),
            std::mem::take(&mut from.tried),
            from.timer.take(),
        );
        let (deadline, losses) = (from.deadline, from.losses);
        let to = &mut self.streams[copy];
        to.is_copy = false;
        (to.request, to.tried) = (kept, tried);
        to.trace = trace;
        (to.deadline, to.losses) = (deadline, losses);
        to.may_have_run = true;
        let (frontend, correlation) = (to.frontend, to.correlation);
        if let Some(timer) = timer {
            self.timers.stop(timer);
        }
        self.frontends[frontend.0].streams.insert(correlation, copy);
        self.await_expiry(copy);
    }

    /// Nobody waits for this copy any more. What its backend still has to say is awaited.
    pub(super) fn cancel_copy(&mut self, key: StreamKey, reason: Reason) {
        let Some(backend) = self.streams[key].backend() else {
            return;
        };
        self.part(key);
        let stream = &mut self.streams[key];
        stream.phase = Phase::Abandoned(backend);
        self.abandoned += 1;
        let message = about(Kind::Cancel, key.correlation());
        self.tell(
            Session::Backend(backend),
            message.with_metadata(Cancel(reason).encode()),
        );
    }

    /// A stream is no copy any more, and its request has none.
    pub(super) fn part(&mut self, copy: StreamKey) {
        let stream = &mut self.streams[copy];
        stream.is_copy = false;
        if let Some(request) = stream.twin.take() {
            self.streams[request].twin = None;
        }
        self.copies -= 1;
    }

    /// Tells the backend of a request's copy, if there is one, what the request's own is told.
    pub(super) fn tell_twin(&mut self, key: StreamKey, message: &Message) {
        if let Some(copy) = self.streams[key].twin
            && let Some(backend) = self.streams[copy].backend()
        {
            let mut message = message.clone();
            message.header.correlation = copy.correlation();
            self.tell(Session::Backend(backend), message);
        }
    }
}
