//! A request's content on its way up: asked for by the backend, sent in turns within two windows.

use std::time::{Duration, Instant};

use bytes::Bytes;
use scale0_transport::LinkId;
use scale0_wire::{End, Kind, Message, RoutingHeader, limits};

use super::broker::Broker;
use super::lane::{Action, Lane, broker_at, broker_of, find, update};
use super::stream::{Delivery, Stream, StreamId, Upload};

/// How far a deadline moves with an upload before the broker hears of it, unless a quarter of the time-out is less: then it
/// would be over by what the broker knows.
const UPDATE_INTERVAL: Duration = Duration::from_secs(1);

impl Lane {
    /// Takes over a piece of the request's content, after `Ready` and once for each.
    pub fn upload(
        &mut self,
        now: Instant,
        id: StreamId,
        content: Bytes,
        actions: &mut Vec<Action>,
    ) {
        let Some(stream) = find(&mut self.streams, id) else {
            return;
        };
        if stream.upload != Upload::Idle || stream.upload_end.is_some() {
            return;
        }
        stream.moved = now;
        if content.is_empty() {
            actions.push(Action::Deliver(id, Delivery::Ready));
            return;
        }
        stream.upload = Upload::Waiting(content);
        self.go_up(now, id, actions);
    }

    /// The request's content is complete, with these trailers, or broke off. What was handed over goes first, unless it broke
    /// off.
    pub fn end_upload(&mut self, now: Instant, id: StreamId, end: &End, actions: &mut Vec<Action>) {
        let Some(stream) = find(&mut self.streams, id) else {
            return;
        };
        if stream.upload == Upload::Done || stream.upload_end.is_some() {
            return;
        }
        stream.moved = now;
        stream.upload_end = Some(end.encode());
        let waits = matches!(stream.upload, Upload::Waiting(_));
        if waits && matches!(end, End::Complete(_)) {
            return;
        }
        match broker_of(&mut self.brokers, stream) {
            Some(broker) => close(now, broker, stream, actions),
            None => stream.upload = Upload::Done,
        }
    }

    /// The stream's upload has what it may have waited for.
    pub(super) fn go_up(&mut self, now: Instant, id: StreamId, actions: &mut Vec<Action>) {
        let Some(stream) = find(&mut self.streams, id) else {
            return;
        };
        if stream.send.room() == 0 {
            return;
        }
        match stream.upload {
            Upload::Closed => {
                stream.upload = Upload::Idle;
                actions.push(Action::Deliver(id, Delivery::Ready));
            }
            Upload::Waiting(_) if !stream.in_line => {
                if let Some(broker) = broker_of(&mut self.brokers, stream) {
                    stream.in_line = true;
                    broker.line.push_back(id);
                    let link = broker.link;
                    self.send_content(now, link, actions);
                }
            }
            Upload::Waiting(_) | Upload::Idle | Upload::Done => {}
        }
    }

    /// Sends what stands in line, a CHUNK of each in turn, as far as the connection's window allows.
    pub(super) fn send_content(&mut self, now: Instant, link: LinkId, actions: &mut Vec<Action>) {
        let Some(broker) = broker_at(&mut self.brokers, link) else {
            return;
        };
        while 0 < broker.send.room()
            && let Some(id) = broker.line.pop_front()
        {
            let Some(stream) = find(&mut self.streams, id) else {
                continue;
            };
            stream.in_line = false;
            let Upload::Waiting(content) = &mut stream.upload else {
                continue;
            };
            let room =
                usize::try_from(stream.send.room().min(broker.send.room())).unwrap_or(usize::MAX);
            let chunk = content.split_to(room.min(limits::CONTENT).min(content.len()));
            let is_piece_sent = content.is_empty();
            // Both have room for it: only those with room stand in line.
            stream.send.take(chunk.len());
            broker.send.take(chunk.len());
            stream.drop_kept();
            let header = RoutingHeader {
                correlation: id.0,
                ..RoutingHeader::new(Kind::Chunk)
            };
            broker.send(Message::new(header).with_content(chunk), actions);
            progress(now, broker, stream, actions);
            if !is_piece_sent {
                if 0 < stream.send.room() {
                    stream.in_line = true;
                    broker.line.push_back(id);
                }
            } else if stream.upload_end.is_some() {
                close(now, broker, stream, actions);
            } else {
                stream.upload = Upload::Idle;
                actions.push(Action::Deliver(id, Delivery::Ready));
            }
        }
    }
}

/// Says how the request's content ended.
fn close(now: Instant, broker: &mut Broker, stream: &mut Stream, actions: &mut Vec<Action>) {
    if std::mem::take(&mut stream.in_line) {
        broker.line.retain(|other| *other != stream.id);
    }
    stream.upload = Upload::Done;
    // The deadline runs anew from here: until now the backend may have waited for us.
    if !stream.head_came && stream.due < now + stream.timeout {
        stream.due = now + stream.timeout;
        update(now, broker, stream, actions);
    }
    if let Some(end) = &stream.upload_end {
        broker.say(Kind::End, stream.id.0, end.clone(), actions);
    }
}

/// Content has moved, and so has the deadline of the response's head.
fn progress(now: Instant, broker: &Broker, stream: &mut Stream, actions: &mut Vec<Action>) {
    stream.moved = now;
    if stream.head_came {
        return;
    }
    stream.due = stream.due.max(now + stream.timeout);
    if UPDATE_INTERVAL.min(stream.timeout / 4)
        < stream.due.saturating_duration_since(stream.told_due)
    {
        update(now, broker, stream, actions);
    }
}
