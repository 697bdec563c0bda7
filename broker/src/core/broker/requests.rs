//! What frontends say.

use std::time::Duration;

use scale0_wire::{Cancel, End, Flags, Kind, Message, Reason, ServiceId, Window};

use super::{Broker, Session};
use crate::core::frontend::FrontendKey;
use crate::core::service::{Service, ServiceKey, Standing};
use crate::core::stream::{Phase, Stream, StreamKey};

impl Broker {
    pub(super) fn hear_frontend(&mut self, key: FrontendKey, message: Box<Message>) {
        match message.header.kind {
            Kind::Request => self.request(key, message),
            Kind::Chunk | Kind::End => self.request_content(key, message),
            Kind::Cancel => self.cancel(key, &message),
            Kind::Update => self.update(key, message),
            Kind::Window if message.header.correlation != 0 => {
                self.response_window(key, message);
            }
            _ => self.session_message(Session::Frontend(key), &message),
        }
    }

    fn request(&mut self, key: FrontendKey, message: Box<Message>) {
        let header = message.header;
        let open = &self.frontends[key.0].streams;
        if header.correlation == 0 || open.contains_key(&header.correlation) {
            self.counters.dropped_out_of_place += 1;
            return;
        }
        self.counters.requests += 1;
        if self.is_draining {
            return self.refuse(key, header.correlation, Reason::Draining);
        }
        if self.config.limits.requests_per_session <= open.len() {
            return self.refuse(key, header.correlation, Reason::TooManyStreams);
        }
        if header.deadline_ms == 0 {
            return self.refuse(key, header.correlation, Reason::Deadline);
        }
        let Some(service) = self.resolve(header.service) else {
            return self.refuse(key, header.correlation, Reason::UnknownService);
        };
        let mut stream = Stream::new(key, header.correlation, service, self.now);
        stream.deadline = self.now + Duration::from_millis(header.deadline_ms.into());
        stream.hold = Duration::from_millis(header.hold_ms.into());
        stream.request_is_over = header.flags.contains(Flags::FINAL);
        stream.losses = header.attempt;
        stream.is_idempotent = header.flags.contains(Flags::IDEMPOTENT);
        stream.may_upgrade = header.flags.contains(Flags::UPGRADE);
        // A message handed over within the process has no receive buffer behind it.
        stream.is_pinned = self.frontends[key.0].link.locality.is_none();
        stream.request = Some(message);
        let Some(stream) = self.streams.insert(stream) else {
            return self.refuse(key, header.correlation, Reason::TooManyStreams);
        };
        self.frontends[key.0]
            .streams
            .insert(header.correlation, stream);
        self.begin_account(stream, &header);
        let now = self.now;
        let service = &mut self.services[service.0];
        service.open += 1;
        service.requests += 1;
        service.budget.count_request(now);
        if header.flags.contains(Flags::HEDGE) {
            self.allow_hedge(stream);
        }
        self.place(stream);
    }

    /// Who answers for this service; none: nobody has ever, and this broker is old enough to know.
    fn resolve(&mut self, id: ServiceId) -> Option<ServiceKey> {
        let known = self.service_keys.get(&id).copied();
        if let Some(key) = known
            && self.services[key.0].standing != Standing::Awaited
        {
            return Some(key);
        }
        if let Some(&wildcard) = self.service_keys.get(&self.wildcard)
            && self.services[wildcard.0].standing != Standing::Awaited
        {
            return Some(wildcard);
        }
        if known.is_some() {
            return known;
        }
        let is_young = self.now.saturating_duration_since(self.started) < self.config.hold;
        if !is_young || self.config.limits.services <= self.services.len() {
            return None;
        }
        let service = Service::new(id, Standing::Awaited, self.config.queue, self.now);
        let key = ServiceKey(self.services.insert(service));
        self.service_keys.insert(id, key);
        Some(key)
    }

    /// The stream that a frontend's message is about. None is no fault: its last word may be on the way.
    fn stream_of(&mut self, key: FrontendKey, correlation: u64) -> Option<StreamKey> {
        let stream = self.frontends[key.0].streams.get(&correlation).copied();
        if stream.is_none() {
            self.counters.dropped_unknown_stream += 1;
        }
        stream
    }

    /// CHUNK and END of a streamed request.
    fn request_content(&mut self, key: FrontendKey, mut message: Box<Message>) {
        let Some(key) = self.stream_of(key, message.header.correlation) else {
            return;
        };
        let stream = &mut self.streams[key];
        if stream.request_is_over {
            self.counters.dropped_out_of_place += 1;
            return;
        }
        let is_end = message.header.kind == Kind::End;
        stream.request_is_over = is_end;
        let backend = match stream.phase {
            Phase::Sent(backend) | Phase::Responding(backend) => backend,
            // No backend has opened a window, so there is nothing but an END to be sent.
            Phase::Queued(_) if is_end => return self.keep_end(key, message),
            Phase::Unplaced | Phase::Queued(_) | Phase::Abandoned(_) => {
                self.counters.dropped_out_of_place += 1;
                return self.give_up(key, Reason::ProtocolError);
            }
        };
        if is_end && stream.request.is_some() {
            stream.request_end = Some(message.clone());
        } else if !is_end && matches!(stream.phase, Phase::Sent(_)) {
            // Part of the content is gone for good.
            self.drop_kept(key);
        }
        message.header.correlation = key.correlation();
        if is_end {
            self.say_last(Session::Backend(backend), message);
            self.uploaded(key);
            return self.use_credit(backend);
        }
        let link = &mut self.backends[backend.0].link;
        let sent = link.send(message, &mut self.backlog, &mut self.actions);
        if sent.is_err() {
            self.give_up(key, Reason::Overloaded);
        }
    }

    /// An END before there is anywhere to send it: it follows its REQUEST, unless the content broke off.
    fn keep_end(&mut self, key: StreamKey, message: Box<Message>) {
        match End::decode(&message.metadata) {
            Ok(End::Complete(_)) => {
                self.streams[key].request_end = Some(message);
                self.become_whole(key);
            }
            Ok(End::Failed { reason, .. }) => self.give_up(key, reason),
            Err(_) => {
                self.counters.dropped_metadata += 1;
                self.give_up(key, Reason::ProtocolError);
            }
        }
    }

    /// The frontend wants no more of it, and has forgotten it already.
    fn cancel(&mut self, key: FrontendKey, message: &Message) {
        let Some(key) = self.stream_of(key, message.header.correlation) else {
            return;
        };
        let reason = Cancel::decode(&message.metadata).map_or(Reason::Cancelled, |cancel| cancel.0);
        self.counters.cancelled += 1;
        self.abandon(key, reason);
    }

    /// Another deadline, another number of waiters.
    fn update(&mut self, key: FrontendKey, mut message: Box<Message>) {
        let Some(key) = self.stream_of(key, message.header.correlation) else {
            return;
        };
        let header = message.header;
        self.count_waiters(key, header.waiters);
        let stream = &mut self.streams[key];
        if !matches!(stream.phase, Phase::Responding(_)) {
            stream.deadline = self.now + Duration::from_millis(header.deadline_ms.into());
            self.await_expiry(key);
        }
        self.tell_twin(key, &message);
        if let Some(backend) = self.streams[key].backend() {
            message.header.correlation = key.correlation();
            self.tell(Session::Backend(backend), message);
        }
    }

    /// The reader has room for more of the response.
    fn response_window(&mut self, key: FrontendKey, mut message: Box<Message>) {
        let Some(key) = self.stream_of(key, message.header.correlation) else {
            return;
        };
        let Ok(window) = Window::decode(&message.metadata) else {
            self.counters.dropped_metadata += 1;
            return;
        };
        let stream = &mut self.streams[key];
        // The next backend that gets it is to know as well.
        if let Some(request) = &mut stream.request {
            let limit = u32::try_from(window.0).unwrap_or(u32::MAX);
            request.header.window = request.header.window.max(limit);
        }
        self.tell_twin(key, &message);
        if let Some(backend) = self.streams[key].backend() {
            message.header.correlation = key.correlation();
            self.tell(Session::Backend(backend), message);
        }
    }
}
