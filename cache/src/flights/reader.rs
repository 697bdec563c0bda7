//! The end of a flight where a client is served.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::Failure;
use super::aim::Continuation;
use super::announced::{Announced, Confirmed};
use super::flight::{End, Read};
use super::seats::SeatId;
use super::shared::SharedFlight;
use crate::asker::Asker;
use crate::disk::Reading;
use crate::key::CacheKey;
use crate::policy::conditional::strong_validator;
use crate::policy::{LeaderOnly, Sharing};
use crate::store::{At, Hit, ResponseHead, Served};

/// A client's seat in a flight. Dropping it gives the seat up.
///
/// # Cancel safety
/// Nothing is lost when a poll, or the future of [`Reader::head`] or [`Reader::chunk`], is dropped.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<SharedFlight>,
    seat: SeatId,
    is_leader: bool,
    /// The flight's head, once it was given to this client.
    announced: Option<Arc<Announced>>,
    /// How far the client is.
    offset: u64,
    /// How the flight continues a body for this client, if it does.
    continues: Option<Continuation>,
    /// The client is behind the window, and reads what has left it from the disk.
    from_disk: Option<Option<Reading>>,
}

/// What the head of a flight means for one client.
#[derive(Debug, Clone)]
pub enum Turn {
    /// It is yours: judge the client's own conditionals, send it, go on with
    /// [`Reader::poll_chunk`]. A HEAD ends here.
    Yours(Arc<ResponseHead>),
    /// What is stored has just been confirmed: answer with it.
    Confirmed {
        /// The answer.
        hit: Hit,
        /// Whether it may be kept on these terms: else nothing is stored any more.
        is_kept: bool,
    },
    /// It is for the leader only. All waiters hear so at once: dispatch this one alone now.
    Released(LeaderOnly),
    /// Others may have it, but this request asks for more than it gives: dispatch it alone.
    Unfit,
    /// It is another variant: join the flight under this key, at most [`super::MAX_VARIANT_HOPS`]
    /// times, then go alone.
    Variant(CacheKey),
    /// Its beginning was gone before you took it, and nothing has been sent: join again under the
    /// same key.
    Missed,
    /// There will be no head. The same failure for everybody.
    Failed(Failure),
}

/// What comes next in a body.
#[derive(Debug, Clone)]
pub enum Chunk {
    /// Bytes, never none.
    Data(Bytes),
    /// The body was complete, with these trailers.
    End(Option<Arc<HeaderMap>>),
    /// The client was too slow for this flight: hand this to [`crate::Cache::rejoin`].
    Behind(Behind),
    /// The rest will not come: abort the connection.
    Failed(Failure),
}

/// Where a client fell out of a flight's window.
#[derive(Debug, Clone)]
pub struct Behind {
    pub(super) under: CacheKey,
    /// How to go on from there; `None` without a strong validator.
    pub(super) continuation: Option<Continuation>,
}

impl Behind {
    /// How many bytes of the body the client has had, where it can be continued.
    pub fn offset(&self) -> Option<u64> {
        self.continuation
            .as_ref()
            .map(|continuation| continuation.offset)
    }
}

impl Reader {
    /// The seat of the request that was sent.
    pub(super) fn leading(
        shared: Arc<SharedFlight>,
        seat: SeatId,
        continues: Option<Continuation>,
    ) -> Self {
        let offset = continues
            .as_ref()
            .map_or(0, |continuation| continuation.offset);
        let mut reader = Self::new(shared, seat, offset, continues);
        reader.is_leader = true;
        reader
    }

    /// A seat at that offset.
    pub(super) fn new(
        shared: Arc<SharedFlight>,
        seat: SeatId,
        offset: u64,
        continues: Option<Continuation>,
    ) -> Self {
        Self {
            shared,
            seat,
            is_leader: false,
            announced: None,
            offset,
            continues,
            from_disk: None,
        }
    }

    /// Whether this client's request is the one that was sent.
    pub fn is_leader(&self) -> bool {
        self.is_leader
    }

    /// The offset of the byte that comes next: not 0 where the seat was taken for a part.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The length of the whole content, where the head gives it.
    pub fn whole_length(&self) -> Option<u64> {
        self.announced.as_ref()?.length
    }

    /// What was decided about sharing the response, once its head was given.
    pub fn sharing(&self) -> Option<&Sharing> {
        self.announced.as_ref().map(|announced| &announced.sharing)
    }

    /// The response's current age, once its head was given to be shared.
    pub fn age(&self, now: Instant) -> Option<Duration> {
        let announced = self.announced.as_ref()?;
        match &announced.sharing {
            Sharing::Shared(shareable) => {
                let elapsed = now.saturating_duration_since(announced.received);
                Some(shareable.terms.freshness.age_after(elapsed))
            }
            Sharing::LeaderOnly { .. } => None,
        }
    }

    /// Waits for the head, and for what it means for this client. `asker` is the request that took
    /// the seat.
    ///
    /// Not for a reader that [`crate::Cache::rejoin`] gave: its client has its head.
    pub fn poll_head(&mut self, cx: &mut Context<'_>, asker: &Asker<'_>) -> Poll<Turn> {
        let (announced, failed, has_seat) = {
            let mut inner = self.shared.lock();
            let failed = match inner.flight.end() {
                Some(End::Failed(failure)) => Some(*failure),
                Some(End::Complete(_)) | None => None,
            };
            let announced = inner.flight.announced().cloned();
            if announced.is_none() && failed.is_none() {
                let parked_before = inner.park_reader(self.seat, cx);
                drop(inner);
                drop(parked_before);
                return Poll::Pending;
            }
            let has_seat = inner.flight.has_seat(self.seat);
            (announced, failed, has_seat)
        };
        let turn = self.judge(announced, failed, has_seat, asker);
        if !matches!(turn, Turn::Yours(_)) {
            self.leave();
        }
        Poll::Ready(turn)
    }

    fn judge(
        &mut self,
        announced: Option<Arc<Announced>>,
        failed: Option<Failure>,
        has_seat: bool,
        asker: &Asker<'_>,
    ) -> Turn {
        let counters = &self.shared.flights.counters;
        let Some(announced) = announced else {
            return Turn::Failed(failed.unwrap_or(Failure::VANISHED));
        };
        match &announced.sharing {
            _ if self.is_leader => {}
            Sharing::LeaderOnly { reason, .. } => return Turn::Released(*reason),
            Sharing::Shared(shareable) => {
                if let Some(leaders) = announced.variant {
                    let own = asker.key.variant(&shareable.vary, asker.headers);
                    if own != leaders {
                        counters.joined_then_variant.add(1);
                        return Turn::Variant(own);
                    }
                }
                // Who came after the head was asked at the door whether it is fresh enough by then.
                if !shareable.admits(&asker.facts, Duration::ZERO) {
                    counters.joined_then_unfit.add(1);
                    return Turn::Unfit;
                }
            }
        }
        if let Some(Confirmed {
            response,
            under,
            stored_at,
        }) = &announced.confirmed
        {
            let at = At {
                under: *under,
                at: stored_at.unwrap_or(*under),
            };
            let response = Arc::clone(response);
            return Turn::Confirmed {
                hit: Hit::new(announced.received, response, at, Served::Validated),
                is_kept: stored_at.is_some(),
            };
        }
        // A HEAD has what it wants, however the body ends.
        if let Some(failure) = failed.filter(|_| !asker.facts.is_head()) {
            return Turn::Failed(failure);
        }
        if !has_seat {
            counters.missed.add(1);
            return Turn::Missed;
        }
        let head = Arc::clone(&announced.head);
        self.announced = Some(announced);
        Turn::Yours(head)
    }

    /// [`Reader::poll_head`] as a future.
    pub async fn head(&mut self, asker: &Asker<'_>) -> Turn {
        poll_fn(|cx| self.poll_head(cx, asker)).await
    }

    /// Waits for the next bytes. Nothing comes before the head was given.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Chunk> {
        if self.announced.is_none() && self.continues.is_none() {
            debug_assert!(false, "the head comes first");
            return Poll::Ready(Chunk::Failed(Failure::NO_HEAD));
        }
        if self.from_disk.is_some()
            && let Some(chunk) = std::task::ready!(self.poll_disk(cx))
        {
            return Poll::Ready(chunk);
        }
        let mut inner = self.shared.lock();
        let (read, moved) = inner.flight.read(self.seat);
        let wakes = if moved {
            Some(inner.take_producer())
        } else {
            None
        };
        let chunk = match read {
            Read::Starved => {
                let parked_before = inner.park_reader(self.seat, cx);
                drop(inner);
                drop(parked_before);
                return Poll::Pending;
            }
            Read::Data(bytes) => {
                self.offset += bytes.len() as u64;
                Chunk::Data(bytes)
            }
            Read::End(trailers) => Chunk::End(trailers),
            Read::Failed(failure) => Chunk::Failed(failure),
            Read::OnDisk => {
                drop(inner);
                self.from_disk = Some(None);
                return self.poll_chunk(cx);
            }
            Read::Behind => Chunk::Behind(self.behind()),
        };
        self.shared.count_weight(&mut inner);
        drop(inner);
        if let Some(wakes) = wakes {
            wakes.wake();
        }
        Poll::Ready(chunk)
    }

    /// What has left the window, and lies on the disk by now. `None`: the client has caught up, and has a seat again.
    fn poll_disk(&mut self, cx: &Context<'_>) -> Poll<Option<Chunk>> {
        let spool = {
            let mut inner = self.shared.lock();
            match inner.flight.end() {
                Some(End::Failed(failure)) => {
                    return Poll::Ready(Some(Chunk::Failed(*failure)));
                }
                Some(End::Complete(trailers)) if inner.flight.length() == self.offset => {
                    return Poll::Ready(Some(Chunk::End(trailers.clone())));
                }
                Some(End::Complete(_)) | None => {}
            }
            if inner.flight.return_to_window(self.seat, self.offset) {
                self.from_disk = None;
                return Poll::Ready(None);
            }
            inner.flight.spool().cloned()
        };
        let (Some(spool), Some(reading)) = (spool, &mut self.from_disk) else {
            self.leave();
            return Poll::Ready(Some(Chunk::Behind(self.behind())));
        };
        Poll::Ready(Some(
            match std::task::ready!(spool.poll_read(cx, self.offset, reading)) {
                Ok(bytes) => {
                    self.offset += bytes.len() as u64;
                    self.shared
                        .flights
                        .counters
                        .read_from_store
                        .add(bytes.len() as u64);
                    Chunk::Data(bytes)
                }
                Err(_damaged) => {
                    self.leave();
                    Chunk::Behind(self.behind())
                }
            },
        ))
    }

    /// [`Reader::poll_chunk`] as a future.
    pub async fn chunk(&mut self) -> Chunk {
        poll_fn(|cx| self.poll_chunk(cx)).await
    }

    fn behind(&self) -> Behind {
        let of_head = |announced: &Announced| {
            if announced.head.status == StatusCode::PARTIAL_CONTENT {
                return None;
            }
            let validator = strong_validator(&announced.head.headers)?.clone();
            Some(Continuation {
                offset: 0,
                validator,
                variant: announced.variant,
            })
        };
        let rest = self
            .continues
            .clone()
            .or_else(|| of_head(self.announced.as_deref()?));
        let continuation = rest.map(|rest| Continuation {
            offset: self.offset,
            ..rest
        });
        Behind {
            under: self.shared.under,
            continuation,
        }
    }

    fn leave(&mut self) {
        let mut inner = self.shared.lock();
        let has_left = inner.flight.leave(self.seat);
        if !has_left {
            return;
        }
        let parked = inner.forget_reader(self.seat);
        self.shared.count_weight(&mut inner);
        let wakes = inner.take_producer();
        drop(inner);
        drop(parked);
        wakes.wake();
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.leave();
    }
}
