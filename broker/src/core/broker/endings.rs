//! How streams and sessions end: each request has exactly one outcome, and what was taken is given back.

use std::time::Instant;

use scale0_wire::{Bye, Cancel, End, Kind, Message, Reason, Reject, RoutingHeader, limits};

use super::sessions::bye;
use super::{Broker, Due, Session, about, retry_after_ms};
use crate::core::backend::BackendKey;
use crate::core::frontend::FrontendKey;
use crate::core::service::ServiceKey;
use crate::core::stream::{Phase, StreamKey};

impl Broker {
    /// Refuses a request that has not become a stream.
    pub(super) fn refuse(&mut self, frontend: FrontendKey, correlation: u64, reason: Reason) {
        let retry_after_ms = retry_after_ms(reason);
        self.reject(frontend, correlation, reason, retry_after_ms);
    }

    fn reject(&mut self, to: FrontendKey, correlation: u64, reason: Reason, retry_after_ms: u32) {
        self.counters.given_up += 1;
        self.counters.refused.count(reason);
        let reject = Reject {
            reason,
            retry_after_ms,
            detail: String::new(),
        };
        let message = about(Kind::Reject, correlation).with_metadata(reject.encode());
        self.tell(Session::Frontend(to), message);
    }

    /// Tells a stream's frontend that nothing, or nothing more, comes of it; and its backend, if it is with one.
    pub(super) fn give_up(&mut self, key: StreamKey, reason: Reason) {
        let stream = &self.streams[key];
        if matches!(stream.phase, Phase::Abandoned(_)) {
            return;
        }
        if stream.is_copy {
            return self.cancel_copy(key, reason);
        }
        self.say_account(key);
        let stream = &self.streams[key];
        let (frontend, correlation) = (stream.frontend, stream.correlation);
        self.services[stream.service.0].refused += 1;
        let has_started =
            stream.may_have_run || matches!(stream.phase, Phase::Sent(_) | Phase::Responding(_));
        if has_started {
            self.counters.given_up += 1;
            self.counters.failed.count(reason);
            let end = End::Failed {
                reason,
                detail: String::new(),
            };
            let mut message = about(Kind::End, correlation).with_metadata(end.encode());
            // The frontend may take it to another broker, and is to know how much it has survived.
            message.header.attempt = stream.losses;
            self.say_last(Session::Frontend(frontend), message);
        } else {
            let is_crowded = matches!(
                reason,
                Reason::QueueFull | Reason::QueueBytes | Reason::TooLate
            );
            let retry_after_ms = if is_crowded {
                let drained = self.drain_time(stream.service).as_millis();
                u32::try_from(drained).unwrap_or(u32::MAX)
            } else {
                retry_after_ms(reason)
            };
            self.reject(frontend, correlation, reason, retry_after_ms);
        }
        self.abandon(key, reason);
    }

    /// The frontend has had its last word, or is gone. What a backend still has to say is awaited.
    pub(super) fn abandon(&mut self, key: StreamKey, reason: Reason) {
        let stream = &self.streams[key];
        if let Some(copy) = stream.twin {
            self.cancel_copy(copy, reason);
        }
        let backend = match self.streams[key].phase {
            Phase::Unplaced | Phase::Queued(_) => return self.close(key),
            Phase::Abandoned(_) => return,
            Phase::Sent(backend) | Phase::Responding(backend) => backend,
        };
        self.leave_frontend(key);
        self.drop_kept(key);
        let stream = &mut self.streams[key];
        self.accounts -= usize::from(stream.trace.take().is_some());
        stream.phase = Phase::Abandoned(backend);
        stream.request_end = None;
        self.abandoned += 1;
        let message = about(Kind::Cancel, key.correlation());
        self.tell(
            Session::Backend(backend),
            message.with_metadata(Cancel(reason).encode()),
        );
    }

    /// Ends a stream for good.
    pub(super) fn close(&mut self, key: StreamKey) {
        let phase = self.streams[key].phase;
        if self.streams[key].is_copy {
            self.part(key);
        } else if !matches!(phase, Phase::Abandoned(_)) {
            self.leave_frontend(key);
        }
        match phase {
            Phase::Unplaced => {}
            Phase::Queued(lane) => self.leave_queue(key, lane),
            Phase::Sent(_) | Phase::Responding(_) | Phase::Abandoned(_) => self.leave_backend(key),
        }
        let stream = self.streams.remove(key);
        self.accounts -= usize::from(stream.trace.is_some());
        self.leave_service(stream.service);
    }

    fn leave_frontend(&mut self, key: StreamKey) {
        let stream = &mut self.streams[key];
        if let Some(timer) = stream.timer.take() {
            self.timers.stop(timer);
        }
        self.frontends[stream.frontend.0]
            .streams
            .remove(&stream.correlation);
    }

    /// Takes a stream off its backend's list. Its kept request stays with it.
    pub(super) fn leave_backend(&mut self, key: StreamKey) {
        let stream = &mut self.streams[key];
        let Some(backend) = stream.backend() else {
            return;
        };
        self.uploaded(key);
        let stream = &mut self.streams[key];
        match (stream.phase, &stream.request) {
            (Phase::Sent(_), Some(request)) => self.kept_bytes -= request.size(),
            (Phase::Abandoned(_), _) => self.abandoned -= 1,
            _ => {}
        }
        stream.phase = Phase::Unplaced;
        let held_credit = std::mem::take(&mut stream.holds_credit);
        let (service, was_probe) = (stream.service, std::mem::take(&mut stream.is_probe));
        if was_probe {
            let offer = self.backends[backend.0].offer(service);
            if let Some(offer) = offer {
                let health = &mut self.backends[backend.0].offers[offer].health;
                health.was_not_judged(self.now);
            }
        }
        self.backends[backend.0]
            .streams
            .remove(key, &mut self.streams);
        if held_credit {
            self.count_over(backend, service);
        } else {
            self.long_streams -= 1;
        }
    }

    /// A request's content has come, or is of no interest any more.
    pub(super) fn uploaded(&mut self, key: StreamKey) {
        let stream = &mut self.streams[key];
        if std::mem::take(&mut stream.is_uploading)
            && let Some(backend) = stream.backend()
        {
            self.backends[backend.0].uploads -= 1;
        }
    }

    /// An event stream or tunnel begins: its backend takes its credit back, and another bound counts.
    pub(super) fn release_credit(&mut self, key: StreamKey) {
        let stream = &mut self.streams[key];
        if !std::mem::take(&mut stream.holds_credit) {
            return;
        }
        self.uploaded(key);
        self.long_streams += 1;
        let stream = &self.streams[key];
        if let Some(backend) = stream.backend() {
            self.count_over(backend, stream.service);
        }
    }

    /// A backend works on one request less that holds credit.
    fn count_over(&mut self, at: BackendKey, service: ServiceKey) {
        let backend = &mut self.backends[at.0];
        backend.outstanding -= 1;
        backend.at_work.remove(service);
        let of = &mut self.services[service.0];
        of.outstanding -= 1;
        if of.bounds.outstanding != usize::MAX {
            self.relieve(service);
        }
    }

    /// The request can or need not be repeated any more.
    pub(super) fn drop_kept(&mut self, key: StreamKey) {
        let stream = &mut self.streams[key];
        if let Some(request) = stream.request.take()
            && matches!(stream.phase, Phase::Sent(_))
        {
            self.kept_bytes -= request.size();
        }
    }

    /// Ends a session: every stream of it is settled, all its credit is gone.
    pub(super) fn end(&mut self, session: Session) {
        self.strike_out(session);
        match session {
            Session::Frontend(key) => {
                let mut streams: Vec<_> = self.frontends[key.0].streams.values().copied().collect();
                // In the order in which they came, rather than in that of a table.
                streams.sort_unstable_by_key(|stream| stream.correlation());
                for stream in streams {
                    self.counters.frontend_lost += 1;
                    self.abandon(stream, Reason::SessionEnded);
                }
                self.frontends.remove(key.0);
            }
            Session::Backend(key) => {
                self.note_loss(key);
                self.withdraw(key);
                while let Some(stream) = self.backends[key.0].streams.first() {
                    self.backend_lost(stream);
                }
                let backend = self.backends.remove(key.0);
                if let Some(locality) = backend.link.locality
                    && let Some(locals) = self.locals.get_mut(&locality)
                {
                    locals.retain(|&other| other != key);
                    if locals.is_empty() {
                        self.locals.remove(&locality);
                    }
                }
                self.capacity -= u64::from(backend.ledger.capacity());
            }
        }
    }

    /// A backend's session ends: if requests were under way, that counts against it when it comes back.
    fn note_loss(&mut self, key: BackendKey) {
        let backend = &self.backends[key.0];
        let is_waited_for = |stream| matches!(self.streams[stream].phase, Phase::Sent(_));
        if backend.streams.iter(&self.streams).any(is_waited_for) {
            self.losses.count(backend.seed, self.now);
        }
    }

    /// Takes nothing new from here on.
    pub(super) fn start_drain(&mut self, until: Instant) {
        if std::mem::replace(&mut self.is_draining, true) {
            return;
        }
        self.timers.start(until, Due::CutOff);
        for session in self.sessions() {
            self.redirect(session);
            self.tell(session, Message::new(RoutingHeader::new(Kind::Drain)));
            if let Session::Backend(key) = session {
                self.use_credit(key);
            }
        }
    }

    /// Nothing is under way here. It may still be on its way to frontends, or from them: sent before they have read DRAIN. Both are
    /// over once a heartbeat from behind everything comes back; until then somebody must be here to refuse what comes, or it would
    /// seem lost and perhaps begun.
    pub(super) fn leave_if_all_is_read(&mut self) {
        let load = self.load();
        let mut is_all_read = true;
        for (_, frontend) in &mut self.frontends {
            if frontend.link.owes_mark() {
                frontend.link.beat(load, self.now, &mut self.actions);
            }
            is_all_read &= frontend.link.has_read_all();
        }
        if is_all_read {
            self.leave();
        }
    }

    /// The drain's time is over: what is left is given up. Frontends have one heartbeat more to say that they have read all,
    /// but not a long one: whoever stops this broker waits for it.
    pub(super) fn cut_off(&mut self) {
        for key in self.streams.keys() {
            self.give_up(key, Reason::Draining);
        }
        let heartbeats = self.frontends.iter();
        let heartbeats = heartbeats.map(|(_, frontend)| frontend.link.heartbeat);
        let longest = heartbeats.max().unwrap_or_default();
        let patience = longest.min(limits::HEARTBEAT);
        self.timers.start(self.now + patience, Due::Leave);
    }

    /// Says BYE to all. Nothing is under way.
    pub(super) fn leave(&mut self) {
        let links = self.frontends.iter().map(|(_, frontend)| &frontend.link);
        let unread = links.filter(|link| !link.has_read_all()).count();
        self.counters.drains_unread += unread as u64;
        for session in self.sessions() {
            self.tell(session, bye(0, Bye::Leaving));
            self.strike_out(session);
        }
        self.is_gone = true;
    }

    pub(super) fn sessions(&self) -> Vec<Session> {
        let frontends = self.frontends.iter().map(|(key, _)| key);
        let backends = self.backends.iter().map(|(key, _)| key);
        frontends
            .map(|key| Session::Frontend(FrontendKey(key)))
            .chain(backends.map(|key| Session::Backend(BackendKey(key))))
            .collect()
    }
}
