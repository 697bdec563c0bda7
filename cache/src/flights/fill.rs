//! The end of a flight where the response comes in.

mod keeping;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::header::{IF_RANGE, RANGE};
use http::{HeaderMap, HeaderName, StatusCode};

use super::aim::{Aim, Continuation};
use super::announced::{Announced, Confirmed};
use super::flight::{MIN_WINDOW, Room};
use super::pace::Pace;
use super::shared::SharedFlight;
use super::{Failure, GroupLock};
use crate::disk::Spool;
use crate::key::CacheKey;
use crate::policy::part::{Part, are_of_one, joined_head};
use crate::policy::terms::is_error_to_stand_in_for;
use crate::policy::validation::{ask_whether_current, confirms, freshened};
use crate::policy::{LeaderOnly, Sharing, Trouble, strip_conditionals};
use crate::store::{Place, ResponseHead, StoredResponse};

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
    /// What is stored is still current and answers everybody: there is no content to come.
    Confirmed,
    /// The origin says that it is in trouble, and what is stored stands in: the flight has ended. Send CANCEL.
    StoodInFor,
    /// It confirms, or continues, something that is not stored here: send the request again, dressed anew. Happens once at most.
    Again,
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
    /// Where a complete response is stored.
    store_as: Option<Box<Place>>,
    /// The body on its way to the disk, and how long it may still be held back for that.
    spool: Option<Arc<Spool>>,
    spool_pace: Pace,
    /// What is complete is on its way to its place on the disk.
    is_landing: bool,
    ended: bool,
}

impl Fill {
    pub(super) fn new(shared: Arc<SharedFlight>, continuation: Option<Continuation>) -> Self {
        Self {
            shared,
            continuation,
            retry_at: None,
            store_as: None,
            spool: None,
            spool_pace: Pace::default(),
            is_landing: false,
            ended: false,
        }
    }

    /// The key of the flight, for the request that is sent for it.
    pub fn key(&self) -> CacheKey {
        self.shared.under
    }

    /// Whether the response to the request that is sent is of use to others who ask under that key: not if it asks for a part, or
    /// for what follows one.
    pub fn asks_for_part(&self) -> bool {
        match self.shared.lock().flight.aim() {
            Aim::Part | Aim::Complete(_) => true,
            Aim::Whole | Aim::Renew(_) | Aim::Rest(_) => false,
        }
    }

    /// Whether something stored answers its clients where the backend cannot be reached.
    pub fn has_stand_in(&self, now: Instant) -> bool {
        let inner = self.shared.lock();
        let (flight, purges) = (&inner.flight, &self.shared.flights.purges);
        let stored = flight.aim().stored();
        stored.is_some_and(|it| it.stands_in(now, flight.leader(), purges, Trouble::Unreachable))
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

    /// Makes the client's fields those of the request that is sent for the flight: without conditions and ranges of the client's
    /// own, and with ours, by which a stored response is validated or a body continued.
    pub fn dress(&self, request: &mut HeaderMap) {
        let inner = self.shared.lock();
        let aim = inner.flight.aim();
        // A request for one part has no conditions but `If-Range`, by which the origin sends the whole instead.
        if !matches!(aim, Aim::Part) {
            strip_conditionals(request);
        }
        let rest = match aim {
            Aim::Whole | Aim::Part => None,
            Aim::Renew(stored) => {
                ask_whether_current(request, &stored.head().headers);
                None
            }
            Aim::Complete(part) => Continuation::of_part(part),
            Aim::Rest(rest) => Some(rest.clone()),
        };
        if let Some(rest) = rest {
            request.insert(RANGE, rest.range());
            request.insert(IF_RANGE, rest.if_range());
        }
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
        mut head: ResponseHead,
    ) -> Verdict {
        let (leader, delay, stored) = {
            let mut inner = self.shared.lock();
            let flight = &mut inner.flight;
            if let Aim::Complete(part) = flight.aim() {
                match completed(part, &head) {
                    Completed::Whole(whole) => head = whole,
                    Completed::Replaced => flight.aim_at_the_whole(),
                    Completed::Nothing => {
                        flight.aim_at_the_whole();
                        self.shared.flights.counters.parts_discontinued.add(1);
                        return Verdict::Again;
                    }
                }
            }
            let stored = flight.aim().stored().cloned();
            (*flight.leader(), flight.delay(now), stored)
        };
        let judge = |head: &ResponseHead| {
            Sharing::judge(
                self.shared.flights.config.policy,
                &leader,
                head,
                delay,
                wall,
            )
        };
        match stored {
            Some(stored) if head.status == StatusCode::NOT_MODIFIED => {
                if !confirms(&head.headers, &stored.head().headers) {
                    self.shared.lock().flight.aim_at_the_whole();
                    self.shared.flights.counters.unconfirmed.add(1);
                    return Verdict::Again;
                }
                let head = freshened(stored.head(), &head.headers);
                let sharing = judge(&head);
                self.renew(now, request, &stored, head, &sharing)
            }
            Some(stored)
                if is_error_to_stand_in_for(head.status)
                    && stored.stands_in(
                        now,
                        &leader,
                        &self.shared.flights.purges,
                        Trouble::ServerError,
                    ) =>
            {
                self.end_failed(now, Failure::stood_in_for(head.status));
                Verdict::StoodInFor
            }
            stored => {
                let sharing = judge(&head);
                let is_gone = matches!(head.status, StatusCode::NOT_FOUND | StatusCode::GONE);
                // From those who may not see it, some applications hide what is there.
                let is_gone = is_gone && !leader.has_authorization();
                if stored.is_some() && is_gone && sharing.kept().is_none() {
                    // What is not there any more must not be sent on in its stead (RFC 9111 §4.3.3).
                    self.shared.flights.store.remove(&self.shared.primary);
                }
                let variant = self.place(&sharing, request, &head);
                let continues_at = self.continuation.as_ref().map(|rest| rest.offset);
                let announced = Announced::new(now, head, sharing.clone(), variant, continues_at);
                self.announce(now, announced, &sharing)
            }
        }
    }

    /// What was stored is confirmed, and the answer for everybody who may have it.
    fn renew(
        &mut self,
        now: Instant,
        request: &HeaderMap,
        stored: &StoredResponse,
        head: ResponseHead,
        sharing: &Sharing,
    ) -> Verdict {
        let flights = Arc::clone(&self.shared.flights);
        let variant = self.place(sharing, request, &head);
        let origin = self.origin(&head);
        let terms = sharing.kept().map_or(*stored.terms(), |kept| kept.terms);
        let response = Arc::new(stored.renewed(Arc::new(head), terms, now, origin));
        let stored_at = match self.store_as.take() {
            Some(place) if self.is_kept() => {
                let at = flights.store.insert_renewed(&place, &response);
                self.remove_if_outdated();
                at
            }
            Some(_) => None,
            None => {
                if sharing.forbids_keeping() {
                    flights.store.remove(&self.shared.primary);
                }
                None
            }
        };
        flights.counters.revalidated.add(1);
        let confirmed = Confirmed {
            response,
            under: self.shared.under,
            stored_at,
        };
        let announced = Announced::confirmed(now, sharing.clone(), variant, confirmed);
        self.announce(now, announced, sharing);
        self.end_complete(None, None);
        Verdict::Confirmed
    }

    /// Where a complete response will be stored, and which variant it is to those who wait.
    fn place(
        &mut self,
        sharing: &Sharing,
        request: &HeaderMap,
        head: &ResponseHead,
    ) -> Option<CacheKey> {
        self.shared.tag(&head.headers);
        let kept = sharing.kept()?;
        let primary = &self.shared.primary;
        let store = &self.shared.flights.store;
        let place = store.place(primary, &kept.vary, request, &head.headers);
        let own = if place.is_selected_by(&kept.vary) {
            place.key
        } else {
            primary.variant(&kept.vary, request)
        };
        self.store_as = Some(Box::new(place));
        (!kept.vary.is_empty()).then_some(own)
    }

    /// Tells everybody who waits what has come.
    fn announce(&mut self, now: Instant, announced: Announced, sharing: &Sharing) -> Verdict {
        let flights = &self.shared.flights;
        let mut group = flights.group(&self.shared);
        let mut inner = self.shared.lock();
        let waited = u64::try_from(inner.flight.waited(now).as_micros()).unwrap_or(u64::MAX);
        let outcome = inner.flight.announce(announced);
        let verdict = match (&outcome, sharing) {
            (Err(_), _) => {
                group.remove(&self.shared);
                self.ended = true;
                flights.counters.failed.add(1);
                Verdict::Mismatch
            }
            (Ok(_), _) if self.continuation.is_some() => Verdict::Share,
            (Ok(released), Sharing::LeaderOnly { reason, marks, .. }) => {
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
        // What was stored of it comes with the head.
        self.shared.count_weight(&mut inner);
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
        if let Some(spool) = &self.spool {
            if spool.is_over() {
                self.abandon_spool();
            } else if spool.poll_room(cx).is_ready() {
                self.spool_pace.release(now);
            } else if let Some(until) = self.spool_pace.hold(now) {
                self.retry_at = Some(until);
                return Poll::Pending;
            } else {
                self.abandon_spool();
                self.shared.flights.counters.store_busy.add(1);
            }
        }
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
        self.spool(&chunk);
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
        let checked = self.shared.lock().flight.check_complete();
        if let Err(failure) = checked {
            self.end_failed(now, failure);
            return Err(failure);
        }
        let stored = match self.spool.take() {
            Some(spool) => {
                self.commit(now, &spool, trailers.as_ref());
                None
            }
            None => self.store(trailers.as_ref()),
        };
        if matches!(self.shared.lock().flight.aim(), Aim::Complete(_)) {
            self.shared.flights.counters.parts_completed.add(1);
        }
        self.end_complete(trailers, stored.as_deref());
        Ok(())
    }

    fn end_complete(&mut self, trailers: Option<HeaderMap>, stored: Option<&StoredResponse>) {
        let flights = &self.shared.flights;
        let mut group = flights.group(&self.shared);
        let mut inner = self.shared.lock();
        inner.flight.complete(trailers, stored);
        self.shared.count_weight(&mut inner);
        if !self.is_landing {
            group.remove(&self.shared);
        }
        self.ended = true;
        let wakes = inner.take_readers();
        drop(inner);
        drop(group);
        flights.counters.completed.add(1);
        wakes.wake();
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
        self.abandon_spool();
        self.shared.flights.counters.abandoned.add(1);
        wakes.wake();
        Poll::Ready(())
    }

    /// `None`: abandoned, by what is known without the group's lock. Else what was parked before.
    fn park_unless_abandoned(&self, cx: &Context<'_>) -> Option<Option<Waker>> {
        let mut inner = self.shared.lock();
        (!inner.flight.is_abandoned()).then(|| inner.park_producer(cx))
    }

    fn end_failed(&mut self, now: Instant, failure: Failure) {
        if self.ended {
            return;
        }
        self.ended = true;
        self.abandon_spool();
        let flights = &self.shared.flights;
        let mut group = flights.group(&self.shared);
        let mut inner = self.shared.lock();
        let failure = inner.flight.fail(failure);
        self.shared.count_weight(&mut inner);
        group.remove(&self.shared);
        let had_a_head = inner.flight.announced().is_some();
        let had_a_herd = 1 < inner.flight.taken_seats();
        // Where something stored stands in, nobody suffers if the backend is left in peace for a moment.
        let may_stand_in = (inner.flight.aim().stored()).is_some_and(|stored| {
            stored.stands_in(now, inner.flight.leader(), &flights.purges, failure.trouble)
        });
        if !had_a_head && (had_a_herd || may_stand_in) {
            group.mark_failed(now, failure);
        }
        let wakes = inner.take_readers();
        drop(inner);
        drop(group);
        flights.counters.failed.add(1);
        wakes.wake();
    }

    fn vanish(&mut self) {
        self.abandon_spool();
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

/// What a response is to a stored part that was to be completed by it.
enum Completed {
    /// Exactly what was missing. This is the head of the whole.
    Whole(ResponseHead),
    /// An answer to a request for the whole.
    Replaced,
    /// Neither.
    Nothing,
}

fn completed(stored: &StoredResponse, head: &ResponseHead) -> Completed {
    match head.status {
        StatusCode::PARTIAL_CONTENT => {
            let fits = |(part, next): (&Part, Part)| {
                part.is_continued_by(&next) && are_of_one(&stored.head().headers, &head.headers)
            };
            match stored.part().zip(Part::of(head)).filter(|it| fits(*it)) {
                Some((part, _)) => {
                    let whole = Part::whole(part.total);
                    Completed::Whole(joined_head(stored.head(), &head.headers, &whole))
                }
                None => Completed::Nothing,
            }
        }
        // They answer a range, or a condition; the whole was asked for.
        StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::NOT_MODIFIED => Completed::Nothing,
        _ => Completed::Replaced,
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        if !self.ended {
            self.vanish();
        }
    }
}
