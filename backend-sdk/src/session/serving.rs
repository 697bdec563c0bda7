//! What happens to requests: admission, content in, response out, cancellation.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use scale0_wire::flow::{ReceiveWindow, SendWindow};
use scale0_wire::{
    Cancel, DecodeError, End, Fields, Flags, Kind, Message, Reason, Reject, Window, limits,
};

use super::credit::Admission;
use super::stream::{Standing, Stream, Upload};
use super::{Action, BrokerId, Call, Output, Phase, Session, Shape, StreamId};

/// What became of something that was to be sent.
enum Sending {
    /// It is under way; the next may follow.
    Sent,
    /// It was the last: the stream is no more.
    Over,
    /// This is left until its stream's window opens.
    NeedsWindow(Output),
    /// This is left until the connection takes more.
    NeedsConnection(Output),
}

impl Session {
    pub(super) fn on_request(
        &mut self,
        now: Instant,
        id: BrokerId,
        request: Message,
        actions: &mut Vec<Action>,
    ) {
        let correlation = request.header.correlation;
        if correlation == 0 || self.brokers[id.0].streams.contains_key(&correlation) {
            self.counters.protocol_errors.add();
            return;
        }
        let admission = self.ledger.admit(id);
        if let Some(reason) = self.why_not(admission) {
            self.counters.rejected.add();
            if admission != Admission::NoCredit {
                self.ledger.finish(id);
            }
            let reject = Reject {
                reason,
                retry_after_ms: 0,
                detail: String::new(),
            };
            self.send(id, Kind::Reject, correlation, reject.encode(), actions);
            return;
        }
        self.counters.requests.add();
        let header = &request.header;
        let deadline = deadline(now, header.deadline_ms);
        let entry = self.streams.vacant_entry();
        let stream = StreamId {
            index: entry.key(),
            serial: self.next_serial,
        };
        self.next_serial += 1;
        entry.insert(Stream {
            id: stream,
            broker: id,
            correlation,
            standing: Standing::Wanted,
            credited: true,
            has_head: false,
            stopped: false,
            window: SendWindow::new(header.window),
            queue: VecDeque::new(),
            in_line: false,
            upload: if header.flags.contains(Flags::FINAL) {
                Upload::Ended
            } else {
                Upload::Unread
            },
            started: now,
        });
        let broker = &mut self.brokers[id.0];
        broker.streams.insert(correlation, stream.index);
        actions.push(Action::Serve(Call {
            stream,
            broker: broker.name.clone(),
            deadline,
            request,
        }));
    }

    /// Why a request that came is not started, if it is not. What crossed our DRAIN is: it was sent in good faith.
    fn why_not(&self, admission: Admission) -> Option<Reason> {
        match admission {
            Admission::NoCredit => return Some(Reason::NoCredit),
            Admission::Expired => return Some(Reason::Paused),
            Admission::Valid => {}
        }
        if matches!(self.phase, Phase::Cutting { .. } | Phase::Gone) {
            return Some(Reason::Draining);
        }
        if self.max_streams() <= self.streams.len() {
            return Some(Reason::TooManyStreams);
        }
        None
    }

    /// Event streams and tunnels take no place that credit was granted for.
    fn max_streams(&self) -> usize {
        self.settings
            .max_streams
            .max(self.ledger.capacity() as usize)
    }

    pub(super) fn on_chunk(
        &mut self,
        now: Instant,
        id: BrokerId,
        chunk: Message,
        actions: &mut Vec<Action>,
    ) {
        let bytes = chunk.content.len();
        if !self.brokers[id.0].receive_window.receive(bytes) {
            self.fail_session(now, id, actions);
            return;
        }
        // It goes into a buffer that the stream's window bounds, or nowhere: the connection is done with it.
        if let Some(limit) = self.brokers[id.0].consume(bytes, now) {
            self.send_control(id, Kind::Window, Window(limit).encode(), actions);
        }
        let Some(stream) = self.stream_of(id, chunk.header.correlation) else {
            return;
        };
        let is_allowed = match &mut stream.upload {
            Upload::Open(window) => window.receive(bytes),
            Upload::Unread | Upload::Ended => bytes == 0,
        };
        let stream = stream.id;
        if is_allowed {
            actions.push(Action::Input(stream, chunk.content));
        } else {
            self.counters.protocol_errors.add();
            self.cancel(stream.index, Reason::ProtocolError, actions);
        }
    }

    pub(super) fn on_end(&mut self, id: BrokerId, end: Message, actions: &mut Vec<Action>) {
        if let Some(stream) = self.stream_of(id, end.header.correlation)
            && !matches!(stream.upload, Upload::Ended)
        {
            stream.upload = Upload::Ended;
            actions.push(Action::InputEnd(stream.id, end.metadata));
        }
    }

    pub(super) fn on_window(
        &mut self,
        now: Instant,
        id: BrokerId,
        message: &Message,
        actions: &mut Vec<Action>,
    ) -> Result<(), DecodeError> {
        let Window(limit) = Window::decode(&message.metadata)?;
        if message.header.correlation == 0 {
            if self.brokers[id.0].send_window.raise(limit) {
                self.serve_line(now, id, actions);
            }
        } else if let Some(stream) = self.stream_of(id, message.header.correlation)
            && stream.window.raise(limit)
            && !stream.in_line
        {
            let index = stream.id.index;
            self.pump(now, index, actions);
        }
        Ok(())
    }

    pub(super) fn on_cancel(&mut self, id: BrokerId, message: &Message, actions: &mut Vec<Action>) {
        // A reason nobody knows does not make the answer wanted again.
        let Cancel(reason) = Cancel::decode(&message.metadata).unwrap_or(Cancel(Reason::Cancelled));
        if let Some(stream) = self.stream_of(id, message.header.correlation) {
            let index = stream.id.index;
            tracing::debug!(reason = reason.name(), "request cancelled");
            self.counters.cancelled.add();
            self.cancel(index, Reason::Cancelled, actions);
        }
    }

    pub(super) fn on_update(
        &mut self,
        now: Instant,
        id: BrokerId,
        message: &Message,
        actions: &mut Vec<Action>,
    ) {
        if let Some(stream) = self.stream_of(id, message.header.correlation) {
            let deadline = deadline(now, message.header.deadline_ms);
            actions.push(Action::Update(stream.id, deadline, message.header.waiters));
        }
    }

    pub(super) fn on_reading(&mut self, id: StreamId, actions: &mut Vec<Action>) {
        let Some(stream) = self.wanted(id) else {
            return;
        };
        if matches!(stream.upload, Upload::Unread) {
            stream.upload = Upload::Open(ReceiveWindow::stream(limits::STREAM_WINDOW));
            self.raise_window(id, u64::from(limits::STREAM_WINDOW), actions);
        }
    }

    pub(super) fn on_consumed(
        &mut self,
        now: Instant,
        id: StreamId,
        bytes: usize,
        actions: &mut Vec<Action>,
    ) {
        let Some(stream) = self.wanted(id) else {
            return;
        };
        if let Upload::Open(window) = &mut stream.upload
            && let Some(limit) = window.consume(bytes, now, Duration::ZERO)
        {
            self.raise_window(id, limit, actions);
        }
    }

    fn raise_window(&mut self, id: StreamId, limit: u64, actions: &mut Vec<Action>) {
        let stream = &self.streams[id.index];
        let (broker, correlation) = (stream.broker, stream.correlation);
        self.send(
            broker,
            Kind::Window,
            correlation,
            Window(limit).encode(),
            actions,
        );
    }

    pub(super) fn on_output(
        &mut self,
        now: Instant,
        id: StreamId,
        output: Output,
        actions: &mut Vec<Action>,
    ) {
        let Some(stream) = self.streams.get_mut(id.index).filter(|it| it.id == id) else {
            return;
        };
        stream.stopped |= output.is_last();
        match stream.standing {
            Standing::Wanted => {}
            Standing::Cancelled(_) | Standing::Orphan => {
                if stream.stopped {
                    self.conclude_unwanted(id.index, actions);
                }
                return;
            }
        }
        match &output {
            Output::Interim(_) if stream.has_head => return,
            Output::Head { shape, .. } => {
                stream.has_head = true;
                // A tunnel's first bytes come after the request's content, which may have been over.
                if *shape == Shape::Upgrade && matches!(stream.upload, Upload::Ended) {
                    stream.upload = Upload::Unread;
                }
                if matches!(shape, Shape::EventStream | Shape::Upgrade) {
                    self.release_credit(id.index);
                }
            }
            _ => {}
        }
        let stream = &mut self.streams[id.index];
        let was_waiting = !stream.queue.is_empty();
        if was_waiting {
            stream.queue.push_back(output);
        } else if self.send_or_keep(now, id.index, output, actions) {
            self.pump(now, id.index, actions);
        }
    }

    pub(super) fn on_stopped(&mut self, now: Instant, id: StreamId, actions: &mut Vec<Action>) {
        let Some(stream) = self.streams.get_mut(id.index).filter(|it| it.id == id) else {
            return;
        };
        match stream.standing {
            // It was dropped by somebody else than us: its runtime ends, or its tunnel was let go.
            Standing::Wanted => {
                let metadata = failed(Reason::AppFailed);
                self.on_output(now, id, Output::End(metadata), actions);
            }
            Standing::Cancelled(_) | Standing::Orphan => {
                stream.stopped = true;
                self.conclude_unwanted(id.index, actions);
            }
        }
    }

    /// Nobody wants this answer any more. Its place and its credit are free when its handler has stopped.
    pub(super) fn cancel(&mut self, index: usize, reason: Reason, actions: &mut Vec<Action>) {
        let stream = &mut self.streams[index];
        if stream.standing != Standing::Wanted {
            return;
        }
        stream.standing = Standing::Cancelled(reason);
        stream.queue.clear();
        if stream.stopped {
            self.conclude_unwanted(index, actions);
        } else {
            actions.push(Action::Cancel(stream.id, reason));
        }
    }

    /// The session of this stream is gone.
    pub(super) fn orphan(&mut self, index: usize, actions: &mut Vec<Action>) {
        let stream = &mut self.streams[index];
        let was_wanted = stream.standing == Standing::Wanted;
        stream.standing = Standing::Orphan;
        stream.queue.clear();
        if stream.stopped {
            self.forget(index, actions);
        } else if was_wanted {
            actions.push(Action::Cancel(stream.id, Reason::SessionEnded));
        }
    }

    /// The handler of a stream that nobody wants has stopped.
    fn conclude_unwanted(&mut self, index: usize, actions: &mut Vec<Action>) {
        let stream = &self.streams[index];
        let (broker, correlation) = (stream.broker, stream.correlation);
        let standing = stream.standing;
        self.forget(index, actions);
        if let Standing::Cancelled(reason) = standing {
            self.send(broker, Kind::End, correlation, failed(reason), actions);
        }
    }

    /// Its last message is about to go out. Before it, so that the credit it frees rides on it.
    fn conclude(&mut self, now: Instant, index: usize, actions: &mut Vec<Action>) {
        let took = now.saturating_duration_since(self.streams[index].started);
        self.load.record(took);
        self.forget(index, actions);
    }

    fn forget(&mut self, index: usize, actions: &mut Vec<Action>) {
        self.release_credit(index);
        let stream = self.streams.remove(index);
        if stream.standing != Standing::Orphan {
            let broker = &mut self.brokers[stream.broker.0];
            broker.streams.remove(&stream.correlation);
            if stream.in_line {
                broker.line.retain(|place| *place != index);
            }
        }
        actions.push(Action::Forget(stream.id));
    }

    fn release_credit(&mut self, index: usize) {
        let stream = &mut self.streams[index];
        if !std::mem::take(&mut stream.credited) {
            return;
        }
        if stream.standing == Standing::Orphan {
            self.ledger.orphan_stopped();
        } else {
            self.ledger.finish(stream.broker);
        }
    }

    /// Sends what waits in a stream, as far as the windows allow.
    fn pump(&mut self, now: Instant, index: usize, actions: &mut Vec<Action>) {
        while let Some(stream) = self.streams.get_mut(index)
            && let Some(output) = stream.queue.pop_front()
            && self.send_or_keep(now, index, output, actions)
        {}
    }

    /// Sends one message of a stream, or keeps it in front of what waits. Returns whether the next may be tried.
    fn send_or_keep(
        &mut self,
        now: Instant,
        index: usize,
        output: Output,
        actions: &mut Vec<Action>,
    ) -> bool {
        match self.send_output(now, index, output, actions) {
            Sending::Sent => true,
            Sending::Over => false,
            Sending::NeedsWindow(left) => {
                self.streams[index].queue.push_front(left);
                false
            }
            Sending::NeedsConnection(left) => {
                self.streams[index].queue.push_front(left);
                self.get_in_line(index);
                false
            }
        }
    }

    fn get_in_line(&mut self, index: usize) {
        let stream = &mut self.streams[index];
        if !std::mem::replace(&mut stream.in_line, true) {
            self.brokers[stream.broker.0].line.push_back(index);
        }
    }

    /// The connection takes more: one message of each stream in turn, so that none starves the others.
    pub(super) fn serve_line(&mut self, now: Instant, id: BrokerId, actions: &mut Vec<Action>) {
        while !self.brokers[id.0].is_full
            && 0 < self.brokers[id.0].send_window.room()
            && let Some(index) = self.brokers[id.0].line.pop_front()
        {
            let stream = &mut self.streams[index];
            stream.in_line = false;
            if let Some(output) = stream.queue.pop_front()
                && self.send_or_keep(now, index, output, actions)
                && self.streams.get(index).is_some_and(Stream::has_more)
            {
                self.get_in_line(index);
            }
        }
    }

    fn send_output(
        &mut self,
        now: Instant,
        index: usize,
        output: Output,
        actions: &mut Vec<Action>,
    ) -> Sending {
        let stream = &self.streams[index];
        let (id, broker, correlation) = (stream.id, stream.broker, stream.correlation);
        if self.brokers[broker.0].is_full {
            return Sending::NeedsConnection(output);
        }
        match output {
            Output::Interim(metadata) => {
                self.send(broker, Kind::Interim, correlation, metadata, actions);
                Sending::Sent
            }
            Output::Head {
                metadata,
                content,
                shape,
                last,
            } => self.send_head(now, index, metadata, content, shape, last, actions),
            Output::Data {
                mut content,
                charge,
            } => {
                if content.is_empty() {
                    actions.push(Action::Released(id, charge));
                    return Sending::Sent;
                }
                if self.streams[index].window.room() == 0 {
                    return Sending::NeedsWindow(Output::Data { content, charge });
                }
                if self.brokers[broker.0].send_window.room() == 0 {
                    return Sending::NeedsConnection(Output::Data { content, charge });
                }
                let room = self.room(index).min(limits::CONTENT).min(content.len());
                let piece = content.split_to(room);
                self.take_room(index, room);
                let (flags, metadata) = (Flags::default(), Bytes::new());
                self.send_content(
                    broker,
                    Kind::Chunk,
                    correlation,
                    flags,
                    metadata,
                    piece,
                    actions,
                );
                let released = if content.is_empty() {
                    charge
                } else {
                    room.min(charge)
                };
                actions.push(Action::Released(id, released));
                if !content.is_empty() {
                    let charge = charge - released;
                    let rest = Output::Data { content, charge };
                    self.streams[index].queue.push_front(rest);
                }
                Sending::Sent
            }
            Output::End(metadata) => {
                self.conclude(now, index, actions);
                self.send(broker, Kind::End, correlation, metadata, actions);
                Sending::Over
            }
            Output::Reject(metadata) => {
                self.counters.not_started.add();
                self.forget(index, actions);
                self.send(broker, Kind::Reject, correlation, metadata, actions);
                Sending::Over
            }
        }
    }

    /// A head never waits: content beyond the windows follows it.
    #[expect(clippy::too_many_arguments, reason = "the parts of one head")]
    fn send_head(
        &mut self,
        now: Instant,
        index: usize,
        metadata: Bytes,
        mut content: Bytes,
        shape: Shape,
        last: bool,
        actions: &mut Vec<Action>,
    ) -> Sending {
        let stream = &self.streams[index];
        let (broker, correlation) = (stream.broker, stream.correlation);
        let room = self.room(index).min(limits::CONTENT);
        let rest = content.split_off(content.len().min(room));
        self.take_room(index, content.len());
        let is_whole = last && rest.is_empty();
        if is_whole {
            self.conclude(now, index, actions);
        }
        let kind = if shape == Shape::Upgrade {
            Kind::Upgrade
        } else {
            Kind::Response
        };
        let flags = Flags::default()
            .with(Flags::FINAL, is_whole)
            .with(Flags::EVENT_STREAM, shape == Shape::EventStream)
            .with(Flags::APP_ERROR, shape == Shape::Failure);
        self.send_content(broker, kind, correlation, flags, metadata, content, actions);
        if is_whole {
            return Sending::Over;
        }
        let queue = &mut self.streams[index].queue;
        if last {
            let end = End::Complete(Fields::default()).encode();
            queue.push_front(Output::End(end));
        }
        if !rest.is_empty() {
            // What came with a head was never charged to its handler.
            queue.push_front(Output::Data {
                content: rest,
                charge: 0,
            });
        }
        Sending::Sent
    }

    /// Bytes of content that both windows allow a stream now.
    fn room(&self, index: usize) -> usize {
        let stream = &self.streams[index];
        let room = stream
            .window
            .room()
            .min(self.brokers[stream.broker.0].send_window.room());
        usize::try_from(room).unwrap_or(usize::MAX)
    }

    fn take_room(&mut self, index: usize, bytes: usize) {
        let stream = &mut self.streams[index];
        stream.window.take(bytes);
        self.brokers[stream.broker.0].send_window.take(bytes);
    }

    /// The stream that a message speaks of. None: it is over, which the other side did not know yet.
    fn stream_of(&mut self, id: BrokerId, correlation: u64) -> Option<&mut Stream> {
        let index = self.brokers[id.0].streams.get(&correlation);
        let stream = index.and_then(|index| self.streams.get_mut(*index));
        let wanted = stream.filter(|stream| stream.standing == Standing::Wanted);
        if wanted.is_none() {
            self.counters.late.add();
        }
        wanted
    }

    /// The stream of a handler that is still heard.
    fn wanted(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.streams
            .get_mut(id.index)
            .filter(|stream| stream.id == id && stream.standing == Standing::Wanted)
    }
}

/// A header's relative deadline as a point in time; 0 is none.
fn deadline(now: Instant, deadline_ms: u32) -> Option<Instant> {
    (deadline_ms != 0).then(|| now + Duration::from_millis(u64::from(deadline_ms)))
}

fn failed(reason: Reason) -> Bytes {
    End::Failed {
        reason,
        detail: String::new(),
    }
    .encode()
}
