//! One runtime thread, and what all of them share.

use std::rc::Rc;
use std::sync::Arc;

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
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>, dispatcher: Dispatcher) -> Rc<Self> {
        Rc::new(Self { shared, dispatcher, watch: Watch::default() })
    }
}
