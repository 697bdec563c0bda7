//! The end of a flight where the response comes in.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName};

use super::flight::{Announced, Continuation, MIN_WINDOW, Room};
use super::shared::SharedFlight;
use super::{Failure, GroupLock};
use crate::key::CacheKey;
use crate::policy::{LeaderOnly, Sharing};
use crate::store::{ResponseHead, StoredResponse, settle};

/// What a flight's head decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Everybody may have it.
    Share,
    /// Only the leader's client gets it; all others have been released.
    LeaderOnly(LeaderOnly),
    /// Everybody who sent the same values in these fields may have it; the others go on to the
    /// flights of their variants.
    Vary(Arc<[HeaderName]>),
    /// It was to continue a body and does not: the flight has failed. Send CANCEL.
    Mismatch,
}

/// The duty to fill a flight: one request to a backend.
///
/// It belongs in a task of its own, so that the flight outlives the leader's client. The order is:
/// [`Fill::head`], then [`Fill::poll_room`] and [`Fill::push`] by turns, then [`Fill::complete`] or
/// [`Fill::fail`]; beside all of them [`Fill::poll_abandoned`].
///
/// # Cancel safety Nothing is lost when a poll is dropped. Dropping the fill itself before its end
/// fails the flight with [`Failure::VANISHED`].
#[derive(Debug)]
#[must_use = "a dropped fill is a failed flight"]
pub struct Fill {
    shared: Arc<SharedFlight>,
    continuation: Option<Continuation>,
    retry_at: Option<Instant>,
    /// Names and variant key under which a complete response is stored.
    store_as: Option<(Arc<[HeaderName]>, CacheKey)>,
    ended: bool,
}

impl Fill {
    pub(super) fn new(shared: Arc<SharedFlight>, continuation: Option<Continuation>) -> Self {
        Self {
            shared,
            continuation,
            retry_at: None,
            store_as: None,
            ended: false,
        }
    }

    /// The key of the flight, for the request that is sent for it.
    pub fn key(&self) -> CacheKey {
        self.shared.under
    }

    /// What to ask for instead of the whole: `Range` and `If-Range`.
    pub fn continuation(&self) -> Option<&Continuation> {
        self.continuation.as_ref()
    }

    /// How many clients the flight serves now.
    pub fn waiters(&self) -> usize {
        self.shared.lock().flight.taken_seats()
    }

    /// When the most patient of all clients so far stops waiting for the head: the request's
    /// deadline, which grows as others join.
    pub fn latest_deadline(&self) -> Instant {
        self.shared.lock().flight.latest_deadline()
    }

    /// The final head has come (interim ones are not for a flight). It is sent and stored as it is:
    /// take hop-by-hop fields out and put ours in before.
    ///
    /// `wall` is the time of day, for `Date` and `Expires`; `request` the fields of the request
    /// that was sent, for `Vary`. Everybody who waits is woken.
    pub fn head(
        &mut self,
        now: Instant,
        wall: SystemTime,
        request: &HeaderMap,
        head: ResponseHead,
    ) -> Verdict {
        let flights = &self.shared.flights;
        let (leader, delay) = {
            let inner = self.shared.lock();
            (*inner.flight.leader(), inner.flight.delay(now))
        };
        let sharing = Sharing::judge(flights.config.policy, &leader, &head, delay, wall);
        let variant = match &sharing {
            Sharing::Shared(shareable) => {
                let names = flights
                    .store
                    .selecting(&self.shared.primary, &shareable.vary);
                let stored = self.shared.primary.variant(&names, request);
                let own = if names == shareable.vary {
                    stored
                } else {
                    self.shared.primary.variant(&shareable.vary, request)
                };
                self.store_as = Some((names, stored));
                (!shareable.vary.is_empty()).then_some(own)
            }
            Sharing::LeaderOnly { .. } => None,
        };
        let continues_at = self
            .continuation
            .as_ref()
            .map(|continuation| continuation.offset);
        let announced = Announced::new(now, head, sharing.clone(), variant, continues_at);

        let mut group = flights.group(&self.shared);
        let mut inner = self.shared.lock();
        let waited = u64::try_from(inner.flight.waited(now).as_micros()).unwrap_or(u64::MAX);
        let outcome = inner.flight.announce(announced);
        let verdict = match (&outcome, &sharing) {
            (Err(_), _) => {
                group.remove(&self.shared);
                self.ended = true;
                flights.counters.failed.add(1);
                Verdict::Mismatch
            }
            (Ok(_), _) if self.continuation.is_some() => Verdict::Share,
            (Ok(released), Sharing::LeaderOnly { reason, marks }) => {
                group.remove(&self.shared);
                if *marks {
                    group.mark_leader_only(now, *reason);
                }
                flights.counters.joined_then_private.add(*released);
                Verdict::LeaderOnly(*reason)
            }
            (Ok(_), Sharing::Shared(shareable)) => {
                group.end_marker();
                if shareable.vary.is_empty() {
                    Verdict::Share
                } else {
                    Verdict::Vary(Arc::clone(&shareable.vary))
                }
            }
        };
        let wakes = inner.take_readers();
        drop(inner);
        drop(group);
        flights.counters.join_wait_micros.add(waited);
        wakes.wake();
        verdict
    }

    /// How many bytes may be pushed now. While it is pending the flight holds its producer back: it
    /// wakes when a reader makes room, and must be asked again at [`Fill::wake_at`].
    ///
    /// More than that may be pushed, if it has been received already; the bound then is the
    /// caller's.
    pub fn poll_room(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<usize> {
        let flights = &self.shared.flights;
        let in_use = flights.bytes.load(Ordering::Relaxed);
        let left = flights.config.flights_memory.saturating_sub(in_use);
        let mut inner = self.shared.lock();
        let (room, left_behind) = inner.flight.room(now, left == 0);
        self.shared.count_weight(&mut inner);
        self.retry_at = None;
        flights.counters.lagged.add(left_behind);
        match room {
            Room::Open(room) => Poll::Ready(room.min(left.max(MIN_WINDOW))),
            Room::Closed(until) => {
                let parked_before = inner.park_producer(cx);
                drop(inner);
                drop(parked_before);
                self.retry_at = until;
                Poll::Pending
            }
        }
    }

    /// When [`Fill::poll_room`] wants to be asked again even if nothing wakes it.
    pub fn wake_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Bytes of the body. Pieces of 64 KiB are shared with all readers and the store as they are;
    /// short ones are copied out of their receive buffer.
    ///
    /// Bytes beyond the `Content-Length`, or before the head, fail the flight;
    /// [`Fill::poll_abandoned`] then says so.
    pub fn push(&mut self, now: Instant, chunk: Bytes) {
        let mut inner = self.shared.lock();
        let outcome = inner.flight.push(chunk);
        self.shared.count_weight(&mut inner);
        match outcome {
            Ok(()) => {
                let wakes = inner.take_readers();
                drop(inner);
                wakes.wake();
            }
            Err(failure) => {
                drop(inner);
                self.end_failed(now, failure);
            }
        }
    }

    /// The body is over. It is stored, if it may be, before any reader hears of its end.
    ///
    /// # Errors
    /// The flight failed instead: it had no head yet, or less than its head had announced.
    pub fn complete(mut self, now: Instant, trailers: Option<HeaderMap>) -> Result<(), Failure> {
        let flights = Arc::clone(&self.shared.flights);
        let checked = self.shared.lock().flight.check_complete();
        if let Err(failure) = checked {
            self.end_failed(now, failure);
            return Err(failure);
        }
        let stored = self.store(trailers.as_ref());
        let mut group = flights.group(&self.shared);
        let mut inner = self.shared.lock();
        inner.flight.complete(trailers, stored.as_deref());
        self.shared.count_weight(&mut inner);
        group.remove(&self.shared);
        self.ended = true;
        let wakes = inner.take_readers();
        drop(inner);
        drop(group);
        flights.counters.completed.add(1);
        wakes.wake();
        Ok(())
    }

    /// The fetch failed. Everybody gets the same failure; where it was a herd, and there was no
    /// head yet, the next one gets it too, for a second.
    pub fn fail(mut self, now: Instant, failure: Failure) {
        self.end_failed(now, failure);
    }

    /// Ready when the fetch is to be given up: nobody is left who wants it and it is not worth
    /// finishing, or the flight has failed. Nobody can join any more: send CANCEL and drop the
    /// fill.
    pub fn poll_abandoned(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ended {
            return Poll::Ready(());
        }
        if let Some(parked_before) = self.park_unless_abandoned(cx) {
            drop(parked_before);
            return Poll::Pending;
        }
        // Whoever joins takes the group's lock first, so what is decided under it holds.
        let mut group = self.shared.flights.group(&self.shared);
        let mut inner = self.shared.lock();
        if !inner.flight.is_abandoned() {
            let parked_before = inner.park_producer(cx);
            drop(inner);
            drop(group);
            drop(parked_before);
            return Poll::Pending;
        }
        inner.flight.fail(Failure::ABANDONED);
        self.shared.count_weight(&mut inner);
        group.remove(&self.shared);
        // A HEAD that has not yet taken its head is not abandoned by anybody: it finds the head
        // there.
        let wakes = inner.take_readers();
        drop(inner);
        drop(group);
        self.ended = true;
        self.shared.flights.counters.abandoned.add(1);
        wakes.wake();
        Poll::Ready(())
    }

    /// `None`: abandoned, by what is known without the group's lock. Else what was parked before.
    fn park_unless_abandoned(&self, cx: &Context<'_>) -> Option<Option<Waker>> {
        let mut inner = self.shared.lock();
        (!inner.flight.is_abandoned()).then(|| inner.park_producer(cx))
    }

    /// The one place where responses enter the store: here a purge's epoch is to be compared with
    /// that of the flight's begin.
    fn store(&mut self, trailers: Option<&HeaderMap>) -> Option<Arc<StoredResponse>> {
        let flights = &self.shared.flights;
        let (names, variant) = self
            .store_as
            .take()
            .filter(|_| self.continuation.is_none())?;
        if !self.shared.lock().flight.leader().is_kept() {
            return None;
        }
        let Some((announced, shareable, pieces)) = self.shared.lock().flight.storable() else {
            flights.counters.refused_not_whole.add(1);
            return None;
        };
        let response = Arc::new(StoredResponse::new(
            Arc::clone(&announced.head),
            settle(&pieces),
            trailers.cloned(),
            shareable.freshness,
            announced.received,
        ));
        let is_in = flights
            .store
            .insert(self.shared.primary, &names, variant, &response);
        is_in.then_some(response)
    }

    fn end_failed(&mut self, now: Instant, failure: Failure) {
        if self.ended {
            return;
        }
        self.ended = true;
        let flights = &self.shared.flights;
        let mut group = flights.group(&self.shared);
        let mut inner = self.shared.lock();
        let failure = inner.flight.fail(failure);
        self.shared.count_weight(&mut inner);
        group.remove(&self.shared);
        let had_a_herd = inner.flight.announced().is_none() && 1 < inner.flight.taken_seats();
        if had_a_herd {
            group.mark_failed(now, failure);
        }
        let wakes = inner.take_readers();
        drop(inner);
        drop(group);
        flights.counters.failed.add(1);
        wakes.wake();
    }

    fn vanish(&mut self) {
        let flights = &self.shared.flights;
        let mut group: GroupLock<'_> = flights.group(&self.shared);
        let mut inner = self.shared.lock();
        inner.flight.fail(Failure::VANISHED);
        self.shared.count_weight(&mut inner);
        group.remove(&self.shared);
        let wakes = inner.take_readers();
        drop(inner);
        drop(group);
        flights.counters.vanished.add(1);
        wakes.wake();
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        if !self.ended {
            self.vanish();
        }
    }
}
