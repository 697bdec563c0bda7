//! What backends say.

use scale0_wire::{End, Flags, Kind, Message, Reason, Reject, What};

use super::outliers::Judgement;
use super::{Broker, Session};
use crate::core::backend::BackendKey;
use crate::core::outlier;
use crate::core::stream::{Phase, StreamKey};

/// A request may be refused so often by a backend that was only out of breath, before that counts as tried.
const BREATHLESS_ATTEMPTS: u8 = 3;

/// A request survives so many lost connections, those to brokers that its frontend knows of included: one that kills whoever takes
/// it must not kill all.
const LOSSES: u8 = 2;

impl Broker {
    pub(super) fn hear_backend(&mut self, key: BackendKey, message: Box<Message>) {
        self.hear_of(key);
        self.backends[key.0].ledger.grant(message.header.credit);
        match message.header.kind {
            Kind::Response
            | Kind::Interim
            | Kind::Upgrade
            | Kind::Chunk
            | Kind::End
            | Kind::Reject => self.response(key, message),
            // It does not speak REQUEST as we do: nothing was started.
            Kind::Unsupported if message.header.correlation != 0 => self.response(key, message),
            Kind::Window if message.header.correlation != 0 => self.request_window(key, message),
            Kind::Explain if Kind::Explain.is_spoken_in(message.header.version) => {
                if self.hear_account(key, &message).is_err() {
                    self.counters.dropped_metadata += 1;
                }
            }
            // What it says rides in the header.
            Kind::Credit => {}
            Kind::Reclaim => {
                self.use_credit(key);
                self.reclaim(key, &message);
            }
            _ => self.session_message(Session::Backend(key), &message),
        }
        self.use_credit(key);
    }

    /// The stream that a backend's message is about, if that backend has it.
    pub(super) fn stream_at(&mut self, key: BackendKey, correlation: u64) -> Option<StreamKey> {
        let stream = self
            .streams
            .by_correlation(correlation)
            .filter(|&stream| self.streams[stream].backend() == Some(key));
        if stream.is_none() {
            self.counters.dropped_unknown_stream += 1;
        }
        stream
    }

    fn response(&mut self, key: BackendKey, message: Box<Message>) {
        let Some(key) = self.stream_at(key, message.header.correlation) else {
            return;
        };
        let is_final = message.header.flags.contains(Flags::FINAL);
        match (self.streams[key].phase, message.header.kind) {
            (Phase::Sent(_), Kind::Interim) => {
                self.forward(key, message);
            }
            (Phase::Sent(_), Kind::Response) => self.head(key, message),
            (Phase::Sent(_), Kind::Upgrade) if self.streams[key].may_upgrade => {
                // Bytes flow both ways from here on, whatever became of the request's content.
                self.streams[key].request_is_over = false;
                self.head(key, message);
            }
            (Phase::Sent(backend), Kind::Reject | Kind::Unsupported) => {
                self.rejected(key, backend, &message);
            }
            (Phase::Sent(backend), Kind::End) => self.failed(key, backend, message),
            (Phase::Responding(_), Kind::Chunk) => {
                self.forward(key, message);
            }
            (Phase::Responding(_), Kind::End) => self.forward_end(key, message),
            (Phase::Abandoned(_), Kind::End | Kind::Reject | Kind::Unsupported) => self.close(key),
            (Phase::Abandoned(_), Kind::Response) if is_final => self.close(key),
            (Phase::Abandoned(_), kind) => {
                self.counters.dropped_abandoned += 1;
                if kind == Kind::Upgrade || message.header.flags.contains(Flags::EVENT_STREAM) {
                    self.release_credit(key);
                }
            }
            // A head twice, content without a head, a 101 that nobody asked for.
            (Phase::Sent(_) | Phase::Responding(_) | Phase::Queued(_) | Phase::Unplaced, _) => {
                self.counters.dropped_out_of_place += 1;
                self.give_up(key, Reason::ProtocolError);
            }
        }
    }

    /// The response begins. From here on nothing is repeated, and only its reader's patience counts.
    fn head(&mut self, key: StreamKey, message: Box<Message>) {
        let Phase::Sent(backend) = self.streams[key].phase else {
            return;
        };
        self.win(key);
        self.note(key, What::RESPONDED, (0, 0), Some(backend));
        self.say_account(key);
        let flags = message.header.flags;
        let is_long = message.header.kind == Kind::Upgrade
            || (flags.contains(Flags::EVENT_STREAM) && !flags.contains(Flags::FINAL));
        if is_long && self.config.limits.streams <= self.long_streams {
            self.give_up(key, Reason::TooManyStreams);
            return self.release_credit(key);
        }
        self.drop_kept(key);
        let stream = &mut self.streams[key];
        let time = self.now.saturating_duration_since(stream.since);
        self.averages.answered(time);
        stream.phase = Phase::Responding(backend);
        stream.request_end = None;
        let judgement = if outlier::says_failed(flags) {
            Judgement::Failed
        } else {
            Judgement::Well(time)
        };
        self.judge(key, backend, judgement);
        let stream = &mut self.streams[key];
        if let Some(timer) = stream.timer.take() {
            self.timers.stop(timer);
        }
        if is_long {
            self.release_credit(key);
        }
        let has_passed = self.forward(key, message);
        if flags.contains(Flags::FINAL) {
            self.counters.answered += u64::from(has_passed);
            self.close(key);
        }
    }

    /// Passes a stream's next message on. Returns false if its reader was too slow, and it has been given up.
    fn forward(&mut self, key: StreamKey, mut message: Box<Message>) -> bool {
        let stream = &self.streams[key];
        message.header.correlation = stream.correlation;
        message.header.credit = 0;
        let link = &mut self.frontends[stream.frontend.0].link;
        let sent = link.send(message, &mut self.backlog, &mut self.actions);
        let has_passed = sent.is_ok();
        if !has_passed {
            self.give_up(key, Reason::Overloaded);
        }
        has_passed
    }

    /// Passes the backend's last word on.
    fn forward_end(&mut self, key: StreamKey, mut message: Box<Message>) {
        match End::decode(&message.metadata) {
            Ok(End::Complete(_)) => self.counters.answered += 1,
            Ok(End::Failed { .. }) => self.counters.failed_by_backend += 1,
            Err(_) => {
                self.counters.dropped_metadata += 1;
                self.take_back(key);
                return self.give_up(key, Reason::ProtocolError);
            }
        }
        self.say_account(key);
        let stream = &self.streams[key];
        message.header.correlation = stream.correlation;
        message.header.credit = 0;
        message.header.attempt = stream.losses;
        let frontend = stream.frontend;
        self.say_last(Session::Frontend(frontend), message);
        self.close(key);
    }

    /// The backend has failed before its response's head.
    fn failed(&mut self, key: StreamKey, backend: BackendKey, message: Box<Message>) {
        let reason = match End::decode(&message.metadata) {
            Ok(End::Failed { reason, .. }) => Some(reason),
            Ok(End::Complete(_)) | Err(_) => None,
        };
        let may_differ_elsewhere = matches!(
            reason,
            Some(Reason::AppFailed | Reason::BackendLost | Reason::SessionEnded)
        );
        if reason.is_none_or(outlier::is_fault) {
            self.judge(key, backend, Judgement::Failed);
        }
        let number = reason.unwrap_or(Reason::ProtocolError) as u32;
        self.note(key, What::FAILED, (number, 0), Some(backend));
        let instance = self.backends[backend.0].link.instance;
        let stream = &mut self.streams[key];
        stream.may_have_run = true;
        stream.tried.push(instance);
        if self.leaves_it_to_its_twin(key) {
            return;
        }
        let stream = &mut self.streams[key];
        // The time of its drain is over: had it been killed instead, this would be worth another backend, too.
        if reason == Some(Reason::Draining) {
            stream.losses = stream.losses.saturating_add(1);
            if self.repeat_after_loss(key, Reason::Draining) {
                return;
            }
        }
        if may_differ_elsewhere && self.may_repeat(key) && self.has_prospect(key) {
            let now = self.now;
            let service = &mut self.services[self.streams[key].service.0];
            if service.budget.pay(now) {
                self.counters.repeated_after_error += 1;
                self.streams[key].failure = Reason::AppFailed;
                return self.repeat(key);
            }
            self.counters.budget_spent += 1;
        }
        if matches!(End::decode(&message.metadata), Ok(End::Complete(_))) {
            // An end without a beginning.
            self.counters.dropped_out_of_place += 1;
            self.take_back(key);
            return self.give_up(key, Reason::ProtocolError);
        }
        self.forward_end(key, message);
    }

    /// The backend has not started it, and will not: any other may, whatever the method.
    fn rejected(&mut self, key: StreamKey, backend: BackendKey, message: &Message) {
        let reject = Reject::decode(&message.metadata);
        let reason = reject.map_or(Reason::ProtocolError, |reject| reject.reason);
        self.note(key, What::REJECTED, (reason as u32, 0), Some(backend));
        let backend = &self.backends[backend.0];
        let (instance, takes_work) = (backend.link.instance, backend.takes_work());
        let stream = &mut self.streams[key];
        stream.failure = reason;
        // One that was asleep, or counted differently for a moment, is as good as any other the next time; one that takes no work
        // will be, when it does again.
        let is_breathless = matches!(reason, Reason::Paused | Reason::NoCredit);
        let is_worth_another =
            !takes_work || is_breathless && stream.attempts < BREATHLESS_ATTEMPTS;
        if !is_worth_another {
            stream.tried.push(instance);
        }
        if self.leaves_it_to_its_twin(key) {
            return;
        }
        if self.streams[key].request.is_none() {
            self.leave_backend(key);
            return self.give_up(key, reason);
        }
        self.counters.repeated_after_reject += 1;
        self.repeat(key);
    }

    /// The connection to the backend is gone, and with it what we knew of this stream. Its session is out of all tables.
    pub(super) fn backend_lost(&mut self, key: StreamKey) {
        let stream = &mut self.streams[key];
        stream.losses = stream.losses.saturating_add(1);
        let phase = stream.phase;
        self.note(key, What::LOST, (0, 0), self.streams[key].backend());
        match phase {
            Phase::Abandoned(_) => return self.close(key),
            Phase::Sent(_) if self.leaves_it_to_its_twin(key) => return,
            Phase::Sent(_) if self.repeat_after_loss(key, Reason::BackendLost) => return,
            Phase::Unplaced | Phase::Queued(_) | Phase::Sent(_) | Phase::Responding(_) => {}
        }
        self.take_back(key);
        self.give_up(key, Reason::BackendLost);
    }

    /// Places a request anew whose backend is gone before its response's head, if it may run twice and this loss, which is counted, is
    /// not one too many. Returns whether it does.
    fn repeat_after_loss(&mut self, key: StreamKey, failure: Reason) -> bool {
        if !self.may_repeat(key) || LOSSES < self.streams[key].losses {
            return false;
        }
        let stream = &mut self.streams[key];
        stream.may_have_run = true;
        stream.failure = failure;
        self.counters.repeated_after_loss += 1;
        self.repeat(key);
        true
    }

    /// The backend has done with a stream which it may have run.
    fn take_back(&mut self, key: StreamKey) {
        self.streams[key].may_have_run = true;
        self.leave_backend(key);
    }

    /// Whether running it twice does no harm, and we still have all of it.
    fn may_repeat(&self, key: StreamKey) -> bool {
        let stream = &self.streams[key];
        stream.is_idempotent && stream.request.is_some()
    }

    /// Takes a request back from its backend and places it anew.
    fn repeat(&mut self, key: StreamKey) {
        self.leave_backend(key);
        let service = self.streams[key].service;
        self.services[service.0].repeats += 1;
        self.place(key);
    }

    /// The backend reads the request's content.
    fn request_window(&mut self, key: BackendKey, mut message: Box<Message>) {
        let Some(key) = self.stream_at(key, message.header.correlation) else {
            return;
        };
        let stream = &self.streams[key];
        if matches!(stream.phase, Phase::Abandoned(_)) {
            self.counters.dropped_abandoned += 1;
            return;
        }
        message.header.correlation = stream.correlation;
        message.header.credit = 0;
        let frontend = stream.frontend;
        if !stream.request_is_over {
            // The frontend may send content from here on, which is not kept: another backend could not be given it.
            self.drop_kept(key);
        }
        self.tell(Session::Frontend(frontend), message);
    }
}
