//! Both ends of a flight: the task that fetches for all, and the content as one client reads it.

use std::cell::OnceCell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use http::Method;
use http::header::{HeaderMap, HeaderValue};
use http_body::Frame;
use scale0_cache::policy::{ByteRange, Trouble};
use scale0_cache::{
    Asker, Cache, CacheKey, Chunk, Fill, Reader, Rejoin, RequestFacts, ResponseHead, Verdict,
};
use scale0_wire::{FlightKey, Reason};
use tokio::time::{Sleep, sleep_until};

use crate::body::{BrokenOff, Piece};
use crate::clock;
use crate::dispatch::Stream;
use crate::error_response::ErrorResponse;
use crate::exchange::Exchange;
use crate::fields;
use crate::interim::Interims;
use crate::response;
use crate::session::{Delivery, Failure, OpenRequest};
use crate::worker::Worker;

/// How often a fetch tells its broker how many wait and until when, while there is no head …
const UPDATE_INTERVAL: Duration = Duration::from_secs(1);
/// … and at most, when the time that the broker knows of is nearly over.
const LEAST_UPDATE_INTERVAL: Duration = Duration::from_millis(10);

/// When a fetch has something to tell again whose broker knows of waiters until `deadline`: well before that.
fn next_update(now: Instant, deadline: Instant) -> Instant {
    let left = deadline.saturating_duration_since(now);
    now + (left / 2).clamp(LEAST_UPDATE_INTERVAL, UPDATE_INTERVAL)
}

/// Who asks, in a form that outlives the request: a reader that falls behind asks again.
#[derive(Clone)]
pub(crate) struct Asking {
    pub(crate) key: CacheKey,
    pub(crate) facts: RequestFacts,
    pub(crate) exchange: Rc<Exchange>,
}

impl Asking {
    pub(crate) fn asker(&self) -> Asker<'_> {
        self.exchange.asker(self.key, self.facts)
    }
}

/// The name of the backend that answers a fetch, once it has.
pub(crate) type FetchedFrom = Rc<OnceCell<HeaderValue>>;

/// Fetches for a flight until it is complete, has failed, or nobody wants it; its head has to come until it is `due`. Interim responses go to whoever led it, if anybody
/// waits there.
pub(crate) fn spawn_fetch(
    worker: &Rc<Worker>,
    exchange: &Rc<Exchange>,
    fill: Fill,
    due: Instant,
    interims: Weak<Interims>,
) -> FetchedFrom {
    let fetched_from = FetchedFrom::default();
    let fetch = Fetch {
        worker: Rc::clone(worker),
        exchange: Rc::clone(exchange),
        fill,
        due,
        interims,
        fetched_from: Rc::clone(&fetched_from),
    };
    tokio::task::spawn_local(fetch.run());
    fetched_from
}

struct Fetch {
    worker: Rc<Worker>,
    exchange: Rc<Exchange>,
    fill: Fill,
    due: Instant,
    interims: Weak<Interims>,
    fetched_from: FetchedFrom,
}

/// What became of a stream.
enum Fetched {
    /// The flight has ended, one way or the other.
    Ended,
    /// The request has to be sent again, dressed anew.
    Again(Box<Fetch>),
}

impl Fetch {
    async fn run(mut self) {
        loop {
            let fetched = match self.open() {
                Ok(stream) => self.stream(stream).await,
                Err(failure) => self.fail(&failure),
            };
            match fetched {
                Fetched::Ended => return,
                Fetched::Again(fetch) => self = *fetch,
            }
        }
    }

    fn open(&self) -> Result<Stream, Failure> {
        let (shared, exchange) = (&self.worker.shared, &self.exchange);
        let mut headers = exchange.headers.clone();
        self.fill.dress(&mut headers);
        let head = exchange
            // Also where a HEAD found what is to be brought up to date.
            .encode(shared, &Method::GET, &headers, None, false)
            .map_err(|error| Failure::of_request(&error))?;
        // What asks for a part is not to share an answer on its way with what asks for the whole.
        let flight = if self.fill.asks_for_part() {
            FlightKey(0)
        } else {
            FlightKey(self.fill.key().flight_key())
        };
        self.worker.dispatcher.open(OpenRequest {
            head,
            content: Bytes::new(),
            whole: true,
            idempotent: true,
            upgrade: false,
            hedge: exchange.rules.allow_hedging(&Method::GET),
            priority: exchange.rules.priority,
            service: exchange.service,
            affinity: exchange.affinity(),
            flight,
            timeout: self.due.saturating_duration_since(clock::now()),
            idle_timeout: exchange.rules.idle_timeout,
            // With something stale at hand nobody need wait for a backend to come.
            hold: if self.fill.has_stand_in(clock::now()) {
                Duration::ZERO
            } else {
                exchange.rules.hold
            },
            trace: exchange.trace(),
            explain: exchange.is_explained(),
        })
    }

    async fn stream(mut self, stream: Stream) -> Fetched {
        let mut update = pin!(sleep_until(next_update(clock::now(), self.due).into()));
        loop {
            let delivery = poll_fn(|cx| {
                if self.fill.poll_abandoned(cx).is_ready() {
                    return Poll::Ready(None);
                }
                if let Poll::Ready(delivery) = stream.poll_next(cx) {
                    return Poll::Ready(Some(delivery));
                }
                while update.as_mut().poll(cx).is_ready() {
                    let deadline = self.fill.latest_deadline();
                    stream.extend(deadline, self.fill.waiters());
                    (update.as_mut()).reset(next_update(clock::now(), deadline).into());
                }
                Poll::Pending
            })
            .await;
            match delivery {
                // Dropping the stream cancels the request.
                None => return Fetched::Ended,
                Some(Delivery::Told(told)) => self.exchange.hear(told),
                Some(Delivery::Interim(head)) => {
                    let to = self.interims.upgrade();
                    self.worker.pass_on(&head, to.as_deref());
                }
                Some(Delivery::Ready) => {}
                Some(Delivery::Head {
                    head,
                    content,
                    whole,
                    upgrade: false,
                }) => {
                    return self.head(stream, &head, content, whole).await;
                }
                Some(Delivery::Head { .. } | Delivery::Content(_) | Delivery::End(_)) => {
                    return self.fail(&Failure::protocol_error());
                }
                Some(Delivery::Failed(failure)) => return self.fail(&failure),
            }
        }
    }

    async fn head(mut self, stream: Stream, head: &Bytes, content: Bytes, whole: bool) -> Fetched {
        self.exchange.note("head");
        let (status, headers) = match fields::response_head(head) {
            Ok(head) => head,
            Err(why) => return self.fail(&Failure::app_failed(why)),
        };
        let mut headers = response::received(headers, &self.worker.shared, clock::wall());
        if let Some(backend) = response::take_backend(&mut headers) {
            _ = self.fetched_from.set(backend);
        }
        if whole {
            response::state_length(&mut headers, status, content.len());
        }
        let verdict = self.fill.head(
            clock::now(),
            clock::wall(),
            &self.exchange.headers,
            ResponseHead { status, headers },
        );
        match verdict {
            Verdict::Share | Verdict::LeaderOnly(_) | Verdict::Vary(_) => {}
            Verdict::Confirmed => return Fetched::Ended,
            Verdict::Mismatch | Verdict::StoodInFor => {
                stream.cancel(Reason::Cancelled);
                return Fetched::Ended;
            }
            Verdict::Again => return Fetched::Again(Box::new(self)),
        }
        if !content.is_empty() && !self.push(&stream, content).await {
            return Fetched::Ended;
        }
        if whole {
            return self.complete(None);
        }
        loop {
            let next = poll_fn(|cx| {
                if self.fill.poll_abandoned(cx).is_ready() {
                    return Poll::Ready(None);
                }
                stream.poll_next(cx).map(Some)
            });
            match next.await {
                None => return Fetched::Ended,
                Some(Delivery::Content(content)) => {
                    if !self.push(&stream, content).await {
                        return Fetched::Ended;
                    }
                }
                Some(Delivery::End(trailers)) => return self.complete(fields::trailers(&trailers)),
                Some(Delivery::Failed(failure)) => return self.fail(&failure),
                Some(Delivery::Ready | Delivery::Told(_) | Delivery::Interim(_)) => {}
                Some(Delivery::Head { .. }) => return self.fail(&Failure::protocol_error()),
            }
        }
    }

    /// Waits for room and hands the content to the flight. False: nobody wants it any more.
    async fn push(&mut self, stream: &Stream, content: Bytes) -> bool {
        let mut timer: Option<std::pin::Pin<Box<Sleep>>> = None;
        let wanted = poll_fn(|cx| {
            loop {
                if self.fill.poll_abandoned(cx).is_ready() {
                    return Poll::Ready(false);
                }
                if self.fill.poll_room(cx, clock::now()).is_ready() {
                    return Poll::Ready(true);
                }
                // A reader may be waited for only so long.
                let Some(at) = self.fill.wake_at() else {
                    return Poll::Pending;
                };
                let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(at.into())));
                if timer.deadline().into_std() != at {
                    timer.as_mut().reset(at.into());
                }
                ready!(timer.as_mut().poll(cx));
            }
        })
        .await;
        if wanted {
            stream.consume(content.len());
            self.fill.push(clock::now(), content);
        }
        wanted
    }

    /// What came is all of it, unless its own length says otherwise: then the flight has failed, and its readers know.
    fn complete(self, trailers: Option<HeaderMap>) -> Fetched {
        if let Err(failure) = self.fill.complete(clock::now(), trailers) {
            tracing::debug!(
                reason = failure.reason,
                target = self.exchange.target,
                "a response was not whole"
            );
        }
        Fetched::Ended
    }

    fn fail(self, failure: &Failure) -> Fetched {
        let answer = ErrorResponse::from(failure);
        let failure = scale0_cache::Failure {
            status: answer.status,
            reason: answer.reason,
            retry_after: answer.retry_after,
            trouble: Trouble::Unreachable,
        };
        self.fill.fail(clock::now(), failure);
        Fetched::Ended
    }
}

/// A flight's content as one client reads it.
pub(crate) struct FlightBody {
    worker: Rc<Worker>,
    cache: Arc<Cache>,
    asking: Asking,
    reader: Reader,
    cut: Cut,
}

/// What of a body goes to a client that asked for a part of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    skip: u64,
    left: u64,
}

impl Cut {
    /// Everything.
    pub(crate) const NONE: Self = Self {
        skip: 0,
        left: u64::MAX,
    };

    /// That part, of a body that comes from `offset` on.
    pub(crate) const fn of(part: ByteRange, offset: u64) -> Self {
        Self {
            skip: part.first.saturating_sub(offset),
            left: part.length(),
        }
    }

    /// So many bytes, after others.
    pub(crate) const fn after(skip: u64, left: u64) -> Self {
        Self { skip, left }
    }

    /// How many bytes it is of a body of that length.
    pub(crate) fn length_of(&self, body: u64) -> u64 {
        self.left.min(body)
    }

    /// What of these bytes belongs to the part.
    pub(crate) fn take(&mut self, mut bytes: Bytes) -> Bytes {
        let skipped = self.skip.min(bytes.len() as u64);
        self.skip -= skipped;
        bytes.advance(usize::try_from(skipped).unwrap_or(usize::MAX));
        let taken = self.left.min(bytes.len() as u64);
        self.left -= taken;
        bytes.truncate(usize::try_from(taken).unwrap_or(usize::MAX));
        bytes
    }

    /// Whether it was everything, from the first byte on.
    pub(crate) const fn is_whole(&self) -> bool {
        u64::MAX / 2 < self.left
    }

    /// Whether all of it has been taken.
    pub(crate) const fn is_over(&self) -> bool {
        self.left == 0
    }
}

impl FlightBody {
    pub(crate) fn new(worker: &Rc<Worker>, asking: Asking, reader: Reader, cut: Cut) -> Self {
        Self {
            worker: Rc::clone(worker),
            cache: Arc::clone(&worker.shared.cache),
            asking,
            reader,
            cut,
        }
    }

    /// What comes next, and whether it is the last.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<Piece> {
        loop {
            let frame = match ready!(self.reader.poll_chunk(cx)) {
                Chunk::Data(bytes) => {
                    let bytes = self.cut.take(bytes);
                    if bytes.is_empty() {
                        continue;
                    }
                    (Some(Ok(Frame::data(bytes))), self.cut.is_over())
                }
                Chunk::End(trailers) => (
                    trailers.map(|trailers| Ok(Frame::trailers(trailers.as_ref().clone()))),
                    true,
                ),
                Chunk::Failed(failure) => (Some(Err(BrokenOff(failure.reason))), true),
                Chunk::Behind(behind) => match self.cache.rejoin(now, behind, &self.asking.asker())
                {
                    Rejoin::Wait(reader) => {
                        self.reader = reader;
                        continue;
                    }
                    Rejoin::Lead { fill, reader } => {
                        // Its client has had a head for long; a new request has a time of its own.
                        let exchange = &self.asking.exchange;
                        let due = now + exchange.rules.timeout;
                        spawn_fetch(&self.worker, exchange, fill, due, Weak::new());
                        self.reader = reader;
                        continue;
                    }
                    Rejoin::Abort => (Some(Err(BrokenOff("lagged"))), true),
                },
            };
            return Poll::Ready(frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_hears_of_a_more_patient_waiter_before_it_gives_up() {
        let begin = clock::now();
        for timeout in [50, 900, 30_000] {
            let deadline = begin + Duration::from_millis(timeout);
            let (mut now, mut updates) = (begin, 0);
            while next_update(now, deadline) < deadline {
                now = next_update(now, deadline);
                updates += 1;
            }
            assert!(deadline - now <= 2 * LEAST_UPDATE_INTERVAL);
            assert!(updates < 40, "{updates}");
        }
    }
}
