//! What becomes of a flight's response once it is known to be kept: in memory as a whole, or on the disk while it comes.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::super::Flights;
use super::Fill;
use crate::disk::{Content, ResponseMetadata, Spool};
use crate::store::{
    Combined, Origin, Place, ResponseHead, StoredContent, StoredResponse, combine, settle,
};

impl Fill {
    /// A body that turns out to be too long for the memory goes to the disk from here on.
    pub(super) fn spool(&mut self, chunk: &Bytes) {
        let outgrows_memory = self.spool.is_none()
            && self.store_as.is_some()
            && self.shared.lock().flight.outgrows_memory(chunk.len());
        if outgrows_memory
            && let Some(place) = self.store_as.take()
            && self.is_kept()
        {
            let spool = (self.shared.flights.store).spool(&place, self.announced_length());
            match &spool {
                Some(spool) => {
                    for piece in self.shared.lock().flight.spool_to(spool) {
                        spool.push(piece);
                    }
                }
                None => self.shared.lock().flight.cut_off(),
            }
            self.spool = spool;
        }
        if let Some(spool) = &self.spool {
            spool.push(chunk.clone());
        }
    }

    fn announced_length(&self) -> Option<u64> {
        let inner = self.shared.lock();
        inner
            .flight
            .announced()
            .and_then(|announced| announced.length)
    }

    /// The body on its way to the disk was complete. Until it can be found there, the flight can be joined.
    pub(super) fn commit(
        &mut self,
        now: Instant,
        spool: &Arc<Spool>,
        trailers: Option<&HeaderMap>,
    ) {
        let announced = self.shared.lock().flight.announced().cloned();
        let kept = announced
            .as_ref()
            .and_then(|announced| Some((announced, announced.sharing.kept()?)))
            .filter(|_| self.is_kept());
        let shared = Arc::clone(&self.shared);
        let landed = move || shared.landed();
        let Some((announced, kept)) = kept else {
            return spool.discard(landed);
        };
        let metadata = ResponseMetadata {
            head: Arc::clone(&announced.head),
            trailers: trailers.cloned(),
            terms: kept.terms,
            received: announced.received,
            origin: self.origin(&announced.head),
            checksums: Box::default(),
        };
        self.is_landing = true;
        self.shared.lock().flight.lands(now);
        let shared = Arc::clone(&self.shared);
        spool.commit(metadata, move || !shared.is_outdated(), landed);
    }

    pub(super) fn abandon_spool(&mut self) {
        if let Some(spool) = self.spool.take() {
            spool.abandon();
            self.shared.lock().flight.cut_off();
        }
    }

    /// The one place where responses enter the store: here a purge's epoch is to be compared with
    /// that of the flight's begin.
    pub(super) fn store(&mut self, trailers: Option<&HeaderMap>) -> Option<Arc<StoredResponse>> {
        let flights = &self.shared.flights;
        let place = (self.store_as.take()).filter(|_| self.continuation.is_none())?;
        if !self.is_kept() {
            return None;
        }
        let Some((announced, shareable, pieces)) = self.shared.lock().flight.storable() else {
            flights.counters.refused_not_whole.add(1);
            return None;
        };
        let response = Arc::new(StoredResponse::new(
            Arc::clone(&announced.head),
            Arc::new(StoredContent::new(
                Content::Blocks(settle(&pieces)),
                trailers.cloned(),
            )),
            shareable.terms,
            announced.received,
            self.origin(&announced.head),
        ));
        if response.status() == StatusCode::PARTIAL_CONTENT {
            self.store_part(&place, &response);
            self.remove_if_outdated();
            return None;
        }
        let is_in = flights.store.insert(&place, &response);
        self.remove_if_outdated();
        is_in.then_some(response)
    }

    /// An invalidation between the look before a response is stored and the storing is caught by a look after it.
    pub(super) fn remove_if_outdated(&self) {
        if self.shared.is_outdated() {
            self.shared.flights.store.remove(&self.shared.primary);
        }
    }

    /// Puts a part together with what is stored, where they belong together.
    fn store_part(&self, place: &Place, newer: &StoredResponse) {
        let Flights {
            store, counters, ..
        } = &*self.shared.flights;
        let (Some(part), Some(blocks)) = (newer.part(), newer.blocks()) else {
            return;
        };
        let (head, blocks, counter) =
            match combine(store.stored_at(place), newer.head(), part, blocks.to_vec()) {
                Combined::Alone(head, blocks) => (head, blocks, &counters.parts_stored),
                Combined::Together(head, blocks) => (head, blocks, &counters.parts_combined),
                Combined::Renewed(head, whole) => {
                    let origin = self.origin(&head);
                    let (terms, received) = (*newer.terms(), newer.received());
                    let renewed = whole.renewed(Arc::new(head), terms, received, origin);
                    if store.insert_renewed(place, &Arc::new(renewed)).is_some() {
                        counters.parts_combined.add(1);
                    }
                    return;
                }
                Combined::Kept => return,
            };
        let origin = self.origin(&head);
        let content = StoredContent::new(Content::Blocks(settle(&blocks)), None);
        let response = StoredResponse::new(
            Arc::new(head),
            Arc::new(content),
            *newer.terms(),
            newer.received(),
            origin,
        );
        if response.is_sound() && store.insert(place, &Arc::new(response)) {
            counter.add(1);
        }
    }

    /// What purges have to know of the response with that head.
    pub(super) fn origin(&self, head: &ResponseHead) -> Origin {
        let Origin { born, labels } = &self.shared.origin;
        Origin {
            born: *born,
            labels: labels.with_tags(&head.headers),
        }
    }

    /// Whether the route of the request stores anything, and nothing was invalidated or purged since it began.
    pub(super) fn is_kept(&self) -> bool {
        if self.shared.is_outdated() {
            self.shared.flights.counters.refused_outdated.add(1);
            return false;
        }
        self.shared.lock().flight.leader().is_kept()
    }
}
