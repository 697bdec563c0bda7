//! What the two ends of a flight share: the state machine in its lock, and everybody's wakers
//! beside it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};

use parking_lot::{Mutex, MutexGuard};

use super::Flights;
use super::flight::Flight;
use super::seats::SeatId;
use crate::key::CacheKey;

/// One flight, held by its fill, its readers, and the table while it can be joined.
#[derive(Debug)]
pub(super) struct SharedFlight {
    /// The key it flies under: primary or variant.
    pub(super) under: CacheKey,
    pub(super) primary: CacheKey,
    pub(super) flights: Arc<Flights>,
    /// How often its URI had been invalidated when it was opened.
    born: u64,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) flight: Flight,
    /// By seat: who waits for a head or for bytes.
    readers: Vec<Option<Waker>>,
    /// Who waits for room, or for everybody to leave.
    producer: Option<Waker>,
    /// What of the flight's weight is counted in the total.
    counted: usize,
}

/// Wakers to be woken after the lock is gone.
#[must_use = "a waker that is not woken is a lost wake-up"]
#[derive(Debug, Default)]
pub(super) struct Wakes(Vec<Waker>);

impl Wakes {
    /// Wakes them all in one pass.
    pub(super) fn wake(self) {
        for waker in self.0 {
            waker.wake();
        }
    }
}

impl SharedFlight {
    pub(super) fn new(
        flights: Arc<Flights>,
        under: CacheKey,
        primary: CacheKey,
        flight: Flight,
    ) -> Arc<Self> {
        let inner = Inner {
            flight,
            readers: Vec::new(),
            producer: None,
            counted: 0,
        };
        let born = flights.invalidations.of(&primary);
        Arc::new(Self {
            under,
            primary,
            flights,
            born,
            inner: Mutex::new(inner),
        })
    }

    /// Whether its URI was invalidated since it was opened: it serves those it has, and is neither joined nor stored any more.
    pub(super) fn is_outdated(&self) -> bool {
        self.flights.invalidations.of(&self.primary) != self.born
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// Brings the total of all flights' bytes up to date.
    pub(super) fn count_weight(&self, inner: &mut Inner) {
        let weight = inner.flight.weight();
        let total = &self.flights.bytes;
        if inner.counted < weight {
            total.fetch_add(weight - inner.counted, Ordering::Relaxed);
        } else {
            total.fetch_sub(inner.counted - weight, Ordering::Relaxed);
        }
        inner.counted = weight;
    }
}

impl Drop for SharedFlight {
    fn drop(&mut self) {
        self.flights
            .bytes
            .fetch_sub(self.inner.get_mut().counted, Ordering::Relaxed);
    }
}

impl Inner {
    /// Everybody who waits in a seat.
    pub(super) fn take_readers(&mut self) -> Wakes {
        Wakes(self.readers.iter_mut().filter_map(Option::take).collect())
    }

    /// Whoever fills the flight, if it waits.
    pub(super) fn take_producer(&mut self) -> Wakes {
        Wakes(self.producer.take().into_iter().collect())
    }

    /// Whoever sits there waits. What waited there before is returned, to be dropped without the
    /// lock: a waker may own its task, and the task a reader of this very flight.
    #[must_use = "drop it when the lock is gone"]
    pub(super) fn park_reader(&mut self, seat: SeatId, cx: &Context<'_>) -> Option<Waker> {
        if self.readers.len() <= seat.index {
            self.readers.resize(seat.index + 1, None);
        }
        park(&mut self.readers[seat.index], cx)
    }

    /// Nobody sits there any more; see [`Inner::park_reader`].
    #[must_use = "drop it when the lock is gone"]
    pub(super) fn forget_reader(&mut self, seat: SeatId) -> Option<Waker> {
        self.readers.get_mut(seat.index)?.take()
    }

    /// Whoever fills the flight waits; see [`Inner::park_reader`].
    #[must_use = "drop it when the lock is gone"]
    pub(super) fn park_producer(&mut self, cx: &Context<'_>) -> Option<Waker> {
        park(&mut self.producer, cx)
    }
}

fn park(place: &mut Option<Waker>, cx: &Context<'_>) -> Option<Waker> {
    match place {
        Some(waker) if waker.will_wake(cx.waker()) => None,
        _ => place.replace(cx.waker().clone()),
    }
}
