//! What a broker says, and what becomes of it.

use std::time::Instant;

use scale0_transport::LinkId;
use scale0_wire::{
    DecodeError, End, Flags, Kind, Message, Reason, Reject, Role, RoutingHeader, Stranger,
    Unsupported, Window,
};

use super::lane::{Action, Lane, broker_at, find};
use super::stream::{Delivery, Failure, StreamId, Upload};

/// Interim responses that one stream's owner is handed: no window bounds them, and nobody needs more.
const INTERIMS: u8 = 16;

impl Lane {
    /// Bytes came that are no message.
    pub fn malformed(&mut self) {
        self.counters.malformed += 1;
    }

    /// Takes in a message from a broker.
    pub fn receive(
        &mut self,
        now: Instant,
        link: LinkId,
        message: Message,
        actions: &mut Vec<Action>,
    ) {
        let Some(broker) = broker_at(&mut self.brokers, link) else {
            return;
        };
        let header = message.header;
        if header.epoch != broker.epoch || !broker.has_session() {
            self.counters.dropped_epoch += 1;
            return;
        }
        broker.heard = now;
        if header.version != header.kind.stated_version(broker.version) {
            self.counters.dropped_protocol += 1;
            return;
        }
        if let Kind::Unknown(_) = header.kind {
            self.unknown(link, header, actions);
        } else if !header.kind.may_come_from(Role::Broker)
            || self.take(now, link, message, actions).is_err()
        {
            self.counters.dropped_protocol += 1;
        }
    }

    /// What a message of a known kind does.
    fn take(
        &mut self,
        now: Instant,
        link: LinkId,
        message: Message,
        actions: &mut Vec<Action>,
    ) -> Result<(), DecodeError> {
        match message.header.kind {
            Kind::Welcome => self.welcome(now, link, &message.metadata, actions)?,
            Kind::Heartbeat => self.broker_beats(now, link, &message.metadata, actions)?,
            Kind::Drain => self.broker_drains(link),
            Kind::Redirect if message.header.version >= 2 => {
                self.redirected(link, &message.metadata, actions)?;
            }
            Kind::Bye => self.bye(now, link, &message.metadata, actions)?,
            Kind::Window if message.header.correlation == 0 => {
                let limit = Window::decode(&message.metadata)?.0;
                if let Some(broker) = broker_at(&mut self.brokers, link)
                    && broker.send.raise(limit)
                {
                    self.send_content(now, link, actions);
                }
            }
            Kind::Unsupported if message.header.correlation == 0 => {
                Unsupported::decode(&message.metadata)?;
                self.counters.unknown_kind += 1;
            }
            Kind::Response | Kind::Upgrade | Kind::Chunk => {
                if self.count_content(now, link, message.content.len(), actions) {
                    self.take_of_stream(now, link, message, actions);
                }
            }
            Kind::Explain if message.header.version >= 2 => {
                self.take_of_stream(now, link, message, actions);
            }
            // The only message of ours that is answered so is a REQUEST: nothing will come of it.
            Kind::Unsupported | Kind::Window | Kind::Interim | Kind::End | Kind::Reject => {
                self.take_of_stream(now, link, message, actions);
            }
            // Of the kinds that a broker sends, these are for backends, or of later versions.
            Kind::Hello
            | Kind::Credit
            | Kind::Demand
            | Kind::Reclaim
            | Kind::Return
            | Kind::Redirect
            | Kind::Announce
            | Kind::Cancel
            | Kind::Update
            | Kind::Verdict
            | Kind::Vary
            | Kind::Purge
            | Kind::Purged
            | Kind::Report
            | Kind::Grant
            | Kind::Explain
            | Kind::Request
            | Kind::Unknown(_) => self.unknown(link, message.header, actions),
        }
        Ok(())
    }

    /// Content came over this connection, for whatever stream, open or not. It goes straight into the streams' own bounded
    /// windows, so the connection's is opened again at once: it bounds only what is under way. Returns false if the broker had
    /// no right to send so much, and its session is over.
    fn count_content(
        &mut self,
        now: Instant,
        link: LinkId,
        bytes: usize,
        actions: &mut Vec<Action>,
    ) -> bool {
        let Some(broker) = broker_at(&mut self.brokers, link) else {
            return false;
        };
        if !broker.receive.receive(bytes) {
            self.counters.dropped_protocol += 1;
            self.expel(now, link, actions);
            return false;
        }
        if let Some(limit) = broker.receive.consume(bytes, now, broker.round_trip) {
            broker.say(Kind::Window, 0, Window(limit).encode(), actions);
        }
        true
    }

    /// A message for a stream. One that breaks the protocol ends the stream: whatever it meant to say is not known, and
    /// waiting for the rest would be waiting for nothing.
    fn take_of_stream(
        &mut self,
        now: Instant,
        link: LinkId,
        message: Message,
        actions: &mut Vec<Action>,
    ) {
        let id = StreamId::named(message.header.correlation).filter(|id| {
            find(&mut self.streams, *id).is_some_and(|stream| stream.link == Some(link))
        });
        let Some(id) = id else {
            self.counters.dropped_stream += 1;
            return;
        };
        if !self
            .advance(now, link, id, message, actions)
            .unwrap_or(false)
        {
            self.counters.dropped_protocol += 1;
            self.give_up(id, Reason::ProtocolError, actions);
        }
    }

    /// Takes a stream a message further. Returns false if the message has no place here.
    fn advance(
        &mut self,
        now: Instant,
        link: LinkId,
        id: StreamId,
        message: Message,
        actions: &mut Vec<Action>,
    ) -> Result<bool, DecodeError> {
        let Some(stream) = find(&mut self.streams, id) else {
            return Ok(true);
        };
        let (head_came, flags) = (stream.head_came, message.header.flags);
        match message.header.kind {
            Kind::Window => {
                if stream.send.raise(Window::decode(&message.metadata)?.0) {
                    stream.moved = now;
                    self.go_up(now, id, actions);
                }
            }
            Kind::Explain => self.explained(link, id, &message.metadata, actions)?,
            Kind::Interim if !head_came => {
                stream.moved = now;
                if stream.interims < INTERIMS {
                    stream.interims += 1;
                    actions.push(Action::Deliver(id, Delivery::Interim(message.metadata)));
                } else {
                    self.counters.dropped_protocol += 1;
                }
            }
            Kind::Response if !head_came => {
                let whole = flags.contains(Flags::FINAL);
                if !stream.receive.receive(message.content.len()) {
                    return Ok(false);
                }
                stream.moved = now;
                stream.head_came = true;
                stream.drop_kept();
                if whole {
                    self.forget(id);
                }
                let (head, content) = (message.metadata, message.content);
                actions.push(Action::Deliver(
                    id,
                    Delivery::Head {
                        head,
                        content,
                        whole,
                        upgrade: false,
                    },
                ));
            }
            Kind::Upgrade if !head_came && stream.request.header.flags.contains(Flags::UPGRADE) => {
                if !stream.receive.receive(message.content.len()) {
                    return Ok(false);
                }
                stream.moved = now;
                stream.head_came = true;
                stream.drop_kept();
                let (head, content) = (message.metadata, message.content);
                actions.push(Action::Deliver(
                    id,
                    Delivery::Head {
                        head,
                        content,
                        whole: false,
                        upgrade: true,
                    },
                ));
                if stream.upload == Upload::Done || stream.upload_end.is_some() {
                    // However the request's content ended: bytes flow both ways from here on. What of it still waits is not sent
                    // among them.
                    stream.upload = Upload::Closed;
                    stream.upload_end = None;
                    self.go_up(now, id, actions);
                }
            }
            Kind::Chunk if head_came => {
                if !stream.receive.receive(message.content.len()) {
                    return Ok(false);
                }
                // No window would bound how many empty ones wait for their reader.
                if !message.content.is_empty() {
                    stream.moved = now;
                    actions.push(Action::Deliver(id, Delivery::Content(message.content)));
                }
            }
            // The response is over, and with it the stream: what is left of the request, or of a tunnel's other direction,
            // nobody reads.
            Kind::End => match End::decode(&message.metadata)? {
                End::Complete(trailers) if head_came => {
                    self.forget(id);
                    actions.push(Action::Deliver(id, Delivery::End(trailers)));
                }
                End::Complete(_) => return Ok(false),
                End::Failed { reason, detail } => {
                    self.failed(
                        now,
                        link,
                        id,
                        Failure {
                            detail,
                            ..Failure::after_start(reason)
                        },
                        message.header.attempt,
                        actions,
                    );
                }
            },
            Kind::Reject if !head_came => {
                let reject = Reject::decode(&message.metadata)?;
                self.rejected(now, link, id, reject, actions);
            }
            _out_of_place => return Ok(false),
        }
        Ok(true)
    }

    fn unknown(&mut self, link: LinkId, header: RoutingHeader, actions: &mut Vec<Action>) {
        self.counters.unknown_kind += 1;
        if header.kind.stranger() == Stranger::AnswersUnsupported
            && let Some(broker) = broker_at(&mut self.brokers, link)
        {
            broker.say(
                Kind::Unsupported,
                header.correlation,
                Unsupported(header.kind).encode(),
                actions,
            );
        }
    }
}
