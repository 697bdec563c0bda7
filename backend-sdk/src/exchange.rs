//! Where one handler and the session meet.
//!
//! A handler's task and the one who drives the session may be on different threads or take turns on one: both only ever hold short
//! locks. What a handler says goes into the [`Outbox`], which wakes the driver; what it is told lies in its [`Exchange`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use scale0_transport::ThreadWaker;
use scale0_wire::{End, Fields, Reason};
use tokio::sync::oneshot;

use crate::BodyError;
use crate::session::{Event, Output, Shape, StreamId};

/// What one handler may have said that is not sent yet: enough to keep a link busy while its task is away, little enough that many
/// slow readers cost little.
const OUTPUT: usize = 64 * 1024;

/// What a piece of content counts at least, so that many tiny ones are bounded too.
const PIECE: usize = 256;

/// Interim responses of one request: more than any client can use.
const INTERIMS: u32 = 16;

/// What handlers say, on its way to the driver. Bounded by what each handler may say.
pub(crate) struct Outbox {
    /// None: the driver is gone.
    events: Mutex<Option<Vec<Event>>>,
    driver: Driver,
}

/// Who takes it out.
enum Driver {
    Thread(ThreadWaker),
    Task(AtomicWaker),
}

impl Outbox {
    pub(crate) fn for_thread(waker: ThreadWaker) -> Arc<Self> {
        Self::new(Driver::Thread(waker))
    }

    pub(crate) fn for_task() -> Arc<Self> {
        Self::new(Driver::Task(AtomicWaker::new()))
    }

    fn new(driver: Driver) -> Arc<Self> {
        Arc::new(Self {
            events: Mutex::new(Some(Vec::new())),
            driver,
        })
    }

    pub(crate) fn push(&self, event: Event) {
        let was_empty = {
            let mut events = self.events.lock();
            let Some(events) = &mut *events else { return };
            events.push(event);
            events.len() == 1
        };
        // Whoever found it not empty was preceded by one who woke the driver.
        if was_empty {
            match &self.driver {
                Driver::Thread(waker) => waker.wake(),
                Driver::Task(waker) => waker.wake(),
            }
        }
    }

    /// Takes out all there is. `into` must be empty; its room is used again.
    pub(crate) fn take(&self, into: &mut Vec<Event>) {
        if let Some(events) = &mut *self.events.lock() {
            std::mem::swap(events, into);
        }
    }

    /// Nobody will take anything out any more.
    pub(crate) fn close(&self) {
        // Dropped without the lock: an event may hold what says something when it is dropped.
        let events = self.events.lock().take();
        drop(events);
    }

    /// Ready when there is something; else the task is woken when there is.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        if let Driver::Task(waker) = &self.driver {
            waker.register(cx.waker());
        }
        match &*self.events.lock() {
            Some(events) if !events.is_empty() => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }
}

/// What the driver and one handler share.
pub(crate) struct Exchange {
    stream: StreamId,
    outbox: Arc<Outbox>,
    pub(crate) broker: Arc<str>,
    pub(crate) attempt: u8,
    interims: AtomicU32,
    /// What was said and not sent.
    queued: AtomicUsize,
    room: AtomicWaker,
    /// Nobody listens any more.
    is_closed: AtomicBool,
    told: Mutex<Told>,
}

/// What the handler was told and has not taken in yet.
struct Told {
    deadline: Option<Instant>,
    waiters: u32,
    pieces: VecDeque<Bytes>,
    end: Option<Result<Fields, BodyError>>,
    reader: Option<Waker>,
    upgrade: Option<oneshot::Sender<Reply>>,
}

impl Exchange {
    pub(crate) fn new(
        stream: StreamId,
        outbox: Arc<Outbox>,
        broker: Arc<str>,
        attempt: u8,
        deadline: Option<Instant>,
        waiters: u32,
    ) -> Arc<Self> {
        Arc::new(Self {
            stream,
            outbox,
            broker,
            attempt,
            interims: AtomicU32::new(0),
            queued: AtomicUsize::new(0),
            room: AtomicWaker::new(),
            is_closed: AtomicBool::new(false),
            told: Mutex::new(Told {
                deadline,
                waiters,
                pieces: VecDeque::new(),
                end: None,
                reader: None,
                upgrade: None,
            }),
        })
    }

    // The driver's side.

    pub(crate) fn input(&self, piece: Bytes) {
        self.tell(|told| told.pieces.push_back(piece));
    }

    pub(crate) fn input_end(&self, metadata: &Bytes) {
        let end = match End::decode(metadata) {
            Ok(End::Complete(trailers)) => Ok(trailers),
            Ok(End::Failed { reason, .. }) => Err(BodyError::new(reason.name())),
            Err(_) => Err(BodyError::new(Reason::ProtocolError.name())),
        };
        self.tell(|told| told.end = Some(end));
    }

    pub(crate) fn update(&self, deadline: Option<Instant>, waiters: u32) {
        let mut told = self.told.lock();
        told.deadline = deadline;
        told.waiters = waiters;
    }

    pub(crate) fn released(&self, charge: usize) {
        let before = self.queued.fetch_sub(charge, Ordering::AcqRel);
        if OUTPUT <= before && before - charge < OUTPUT {
            self.room.wake();
        }
    }

    /// Nothing is sent or received any more.
    pub(crate) fn close(&self, reason: Reason) {
        self.is_closed.store(true, Ordering::Release);
        self.room.wake();
        let mut upgrade = None;
        self.tell(|told| {
            upgrade = told.upgrade.take();
            told.end.get_or_insert(Err(BodyError::new(reason.name())));
        });
    }

    fn tell(&self, what: impl FnOnce(&mut Told)) {
        let reader = {
            let mut told = self.told.lock();
            what(&mut told);
            told.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    // The handler's side.

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.told.lock().deadline
    }

    pub(crate) fn waiters(&self) -> u32 {
        self.told.lock().waiters
    }

    /// Asks for content beyond what came with the request.
    pub(crate) fn start_reading(&self) {
        self.outbox.push(Event::Reading(self.stream));
    }

    /// The next piece of content. `Ok(Err(trailers))`: that was all.
    pub(crate) fn poll_input(
        &self,
        cx: &Context<'_>,
    ) -> Poll<Result<Result<Bytes, Fields>, BodyError>> {
        let mut told = self.told.lock();
        if let Some(piece) = told.pieces.pop_front() {
            drop(told);
            self.outbox.push(Event::Consumed(self.stream, piece.len()));
            return Poll::Ready(Ok(Ok(piece)));
        }
        match &told.end {
            Some(Ok(trailers)) => Poll::Ready(Ok(Err(trailers.clone()))),
            Some(Err(error)) => Poll::Ready(Err(error.clone())),
            None => {
                told.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Says an interim response. Returns false if there were too many.
    pub(crate) fn interim(&self, metadata: Bytes) -> bool {
        let is_allowed = self.interims.fetch_add(1, Ordering::Relaxed) < INTERIMS;
        if is_allowed {
            self.say(Output::Interim(metadata));
        }
        is_allowed
    }

    /// Registers who is to be given the tunnel, should the handler answer 101.
    pub(crate) fn want_upgrade(&self) -> oneshot::Receiver<Reply> {
        let (sender, receiver) = oneshot::channel();
        self.told.lock().upgrade = Some(sender);
        receiver
    }

    fn say(&self, output: Output) {
        self.outbox.push(Event::Output(self.stream, output));
    }
}

/// The right and the duty to answer one request. Dropped before the answer is complete, it says so.
pub(crate) struct Reply {
    exchange: Arc<Exchange>,
    has_head: bool,
    is_over: bool,
}

/// Nobody listens any more.
#[derive(Debug)]
pub(crate) struct Closed;

impl Reply {
    pub(crate) const fn new(exchange: Arc<Exchange>) -> Self {
        Self {
            exchange,
            has_head: false,
            is_over: false,
        }
    }

    pub(crate) const fn exchange(&self) -> &Arc<Exchange> {
        &self.exchange
    }

    pub(crate) const fn has_head(&self) -> bool {
        self.has_head
    }

    /// Says the head, with the content that is there already; `last` if that is all.
    pub(crate) fn head(&mut self, metadata: Bytes, content: Bytes, shape: Shape, last: bool) {
        self.has_head = true;
        self.is_over = last;
        self.exchange.say(Output::Head {
            metadata,
            content,
            shape,
            last,
        });
    }

    /// Ready when more content may be said.
    pub(crate) fn poll_room(&self, cx: &Context<'_>) -> Poll<Result<(), Closed>> {
        let exchange = &self.exchange;
        if self.is_over {
            return Poll::Ready(Err(Closed));
        }
        for is_registered in [false, true] {
            if exchange.is_closed.load(Ordering::Acquire) {
                return Poll::Ready(Err(Closed));
            }
            if exchange.queued.load(Ordering::Acquire) < OUTPUT {
                return Poll::Ready(Ok(()));
            }
            // Looked at once more: it may have become free before the waker was there.
            if !is_registered {
                exchange.room.register(cx.waker());
            }
        }
        Poll::Pending
    }

    /// Says content; after [`Reply::poll_room`].
    pub(crate) fn data(&self, content: Bytes) {
        let charge = content.len().max(PIECE);
        self.exchange.queued.fetch_add(charge, Ordering::AcqRel);
        self.exchange.say(Output::Data { content, charge });
    }

    /// Says that this is all, if that was not said before.
    pub(crate) fn end(&mut self, end: &End) {
        if !std::mem::replace(&mut self.is_over, true) {
            self.exchange.say(Output::End(end.encode()));
        }
    }

    pub(crate) fn reject(&mut self, metadata: Bytes) {
        self.is_over = true;
        self.exchange.say(Output::Reject(metadata));
    }

    /// Who waits for the tunnel, if anybody does.
    pub(crate) fn take_upgrade(&self) -> Option<oneshot::Sender<Self>> {
        let upgrade = self.exchange.told.lock().upgrade.take();
        upgrade.filter(|sender| !sender.is_closed())
    }

    /// Passes the duty on.
    pub(crate) fn hand_over(&mut self) -> Self {
        self.is_over = true;
        Self {
            exchange: Arc::clone(&self.exchange),
            has_head: self.has_head,
            is_over: false,
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.is_over {
            let exchange = &self.exchange;
            exchange.outbox.push(Event::Stopped(exchange.stream));
        }
    }
}
