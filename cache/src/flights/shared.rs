//! What the two ends of a flight share: the state machine in its lock, and everybody's wakers
//! beside it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Waker};

use http::HeaderMap;
use parking_lot::{Mutex, MutexGuard};

use super::Flights;
use super::flight::Flight;
use super::seats::SeatId;
use crate::asker::Asker;
use crate::key::CacheKey;
use crate::purge::{Labels, Purged};
use crate::store::Origin;

/// One flight, held by its fill, its readers, and the table while it can be joined.
#[derive(Debug)]
pub(super) struct SharedFlight {
    /// The key it flies under: primary or variant.
    pub(super) under: CacheKey,
    pub(super) primary: CacheKey,
    pub(super) flights: Arc<Flights>,
    /// How often its URI had been invalidated when it was opened.
    invalidations: u64,
    /// Since when purges hit it, and by what; its tags are not known before its head.
    pub(super) origin: Origin,
    /// By what, once its head has come.
    tagged: OnceLock<Labels>,
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
        asker: &Asker<'_>,
        flight: Flight,
    ) -> Arc<Self> {
        let primary = asker.key;
        let origin = Origin {
            born: flights.purges.now(),
            labels: asker.labels(),
        };
        let inner = Inner {
            flight,
            readers: Vec::new(),
            producer: None,
            counted: 0,
        };
        let invalidations = flights.invalidations.of(&primary);
        Arc::new(Self {
            under,
            primary,
            flights,
            invalidations,
            origin,
            tagged: OnceLock::new(),
            inner: Mutex::new(inner),
        })
    }

    /// Whether its URI was invalidated or purged since it was opened: it serves those it has, and is neither joined nor stored any
    /// more.
    pub(super) fn is_outdated(&self) -> bool {
        let Origin { born, labels } = &self.origin;
        let labels = self.tagged.get().unwrap_or(labels);
        let purges = &self.flights.purges;
        self.flights.invalidations.of(&self.primary) != self.invalidations
            || (purges.now() != *born && purges.judge(*born, labels).purged != Purged::No)
    }

    /// Its head has come, with its tags.
    pub(super) fn tag(&self, head: &HeaderMap) {
        // A second head, where the first was no answer, begins no second life.
        _ = self.tagged.set(self.origin.labels.with_tags(head));
    }

    /// Whether it goes on where another left a client behind.
    pub(super) fn continues(&self) -> bool {
        self.lock().flight.aim().continuation().is_some()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// The disk has done with its body, which was complete.
    pub(super) fn landed(self: &Arc<Self>) {
        self.flights.group(self).remove(self);
        let mut inner = self.lock();
        inner.flight.landed();
        self.count_weight(&mut inner);
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
