//! What becomes of a request, told to an owner who wants to know. Nothing is done for others.

use std::time::Instant;

use bytes::Bytes;
use scale0_transport::LinkId;
use scale0_wire::{DecodeError, Explain, Flags, FlightKey};

use super::lane::{Action, Lane, broker_at, find};
use super::stream::{Asked, Delivery, Ended, Stream, StreamId, Told};

/// Accounts of brokers that one stream's owner is handed: more than it can come to brokers, each with its own and a backend's.
const EXPLAINED: u8 = 8;

impl Lane {
    /// Tells that the stream has been sent to its broker, one of so many that it could have been sent to.
    pub(super) fn explain_placement(
        &mut self,
        now: Instant,
        id: StreamId,
        among: usize,
        actions: &mut Vec<Action>,
    ) {
        let Some(stream) = find(&mut self.streams, id).filter(|stream| wants_to_know(stream))
        else {
            return;
        };
        let Some(broker) = stream
            .link
            .and_then(|link| broker_at(&mut self.brokers, link))
        else {
            return;
        };
        let told = Told::Asked {
            at: now,
            broker: broker.node.clone(),
            why: match stream.request.header.flight {
                _ if among <= 1 => Asked::Only,
                FlightKey(0) => Asked::Least,
                _ => Asked::Home,
            },
            among,
        };
        actions.push(Action::Deliver(id, Delivery::Told(told)));
    }

    /// Tells that nothing has come of the stream at its broker.
    pub(super) fn explain_end(
        &mut self,
        now: Instant,
        id: StreamId,
        how: Ended,
        actions: &mut Vec<Action>,
    ) {
        let Some(stream) = find(&mut self.streams, id).filter(|stream| wants_to_know(stream))
        else {
            return;
        };
        if let Some(broker) = stream
            .link
            .and_then(|link| broker_at(&mut self.brokers, link))
        {
            let broker = broker.node.clone();
            let told = Told::Ended {
                at: now,
                broker,
                how,
            };
            actions.push(Action::Deliver(id, Delivery::Told(told)));
        }
    }

    /// Hands on what a broker says of a stream of its. One of which nobody wants to know, or not any more, is dropped.
    pub(super) fn explained(
        &mut self,
        link: LinkId,
        id: StreamId,
        metadata: &Bytes,
        actions: &mut Vec<Action>,
    ) -> Result<(), DecodeError> {
        let Explain { hops } = Explain::decode(metadata)?;
        let (streams, brokers) = (&mut self.streams, &mut self.brokers);
        let stream = find(streams, id)
            .filter(|stream| wants_to_know(stream) && stream.explained < EXPLAINED);
        if let Some(stream) = stream
            && let Some(broker) = broker_at(brokers, link)
        {
            stream.explained += 1;
            let broker = broker.node.clone();
            let told = Told::Explained { broker, hops };
            actions.push(Action::Deliver(id, Delivery::Told(told)));
        } else {
            self.counters.dropped_protocol += 1;
        }
        Ok(())
    }
}

/// Whether its owner is told what becomes of it: what happens after the head, its owner sees.
const fn wants_to_know(stream: &Stream) -> bool {
    !stream.head_came && stream.request.header.flags.contains(Flags::EXPLAIN)
}
