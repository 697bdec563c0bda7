//! One runtime thread, and what all of them share.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::HeaderValue;
use scale0_cache::Cache;

use crate::access_log::AccessLog;
use crate::config::Limits;
use crate::counters::Counters;
use crate::dispatch::Dispatcher;
use crate::forwarded::{RequestIds, TrustedProxies};
use crate::route::RouteTable;
use crate::watch::Watch;

/// What all threads of a frontend share.
pub(crate) struct Shared {
    pub(crate) node: String,
    pub(crate) site: String,
    /// This node's part of `Via` on responses.
    pub(crate) via: HeaderValue,
    pub(crate) routes: RouteTable,
    pub(crate) trusted_proxies: TrustedProxies,
    pub(crate) request_ids: RequestIds,
    pub(crate) limits: Limits,
    pub(crate) cache: Arc<Cache>,
    pub(crate) access_log: AccessLog,
    pub(crate) counters: Counters,
    /// Who has it may ask what became of a request.
    pub(crate) debug_token: Option<String>,
    /// Tunnels and event streams that are open.
    pub(crate) long_streams: Seats,
}

impl Shared {
    /// The most content a request may have, in bytes.
    pub(crate) const fn most_content(&self) -> u64 {
        match self.limits.body_bytes {
            0 => u64::MAX,
            limit => limit,
        }
    }
}

/// What belongs to one thread, and never leaves it.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) watch: Watch,
    /// Every response is its connection's last.
    pub(crate) draining: Cell<bool>,
    /// Connections end with what they are answering.
    pub(crate) closing: Cell<bool>,
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>, dispatcher: Dispatcher) -> Rc<Self> {
        Rc::new(Self {
            shared,
            dispatcher,
            watch: Watch::default(),
            draining: Cell::new(false),
            closing: Cell::new(false),
        })
    }
}

/// Seats of which only so many are given out.
#[derive(Debug, Default)]
pub(crate) struct Seats(Arc<AtomicUsize>);

impl Seats {
    /// One of `most`, if any is free.
    pub(crate) fn take(&self, most: usize) -> Option<TakenSeat> {
        let seat = TakenSeat(Arc::clone(&self.0));
        // Counted first and given back by its drop, so that no two take the last one.
        (self.0.fetch_add(1, Ordering::Relaxed) < most).then_some(seat)
    }
}

/// A seat; free again when this is dropped.
#[derive(Debug)]
pub(crate) struct TakenSeat(Arc<AtomicUsize>);

impl Drop for TakenSeat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_seats_are_taken_than_there_are_and_a_refusal_costs_none() {
        let seats = Seats::default();
        let one = seats.take(1);
        assert!(one.is_some());
        assert!(seats.take(1).is_none());
        assert!(seats.take(1).is_none());
        drop(one);
        assert!(seats.take(1).is_some());
    }
}
