//! A stored response, and what answers a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::policy::Freshness;

/// The head of a response, ready to be sent: hop-by-hop fields are gone, ours are in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status code.
    pub status: StatusCode,
    /// The fields.
    pub headers: HeaderMap,
}

impl ResponseHead {
    /// What it takes in memory, roughly: the text, and the map's own entries.
    pub(crate) fn weight(&self) -> u64 {
        const PER_FIELD: u64 = 96;
        self.headers
            .iter()
            .map(|(name, value)| (name.as_str().len() + value.len()) as u64 + PER_FIELD)
            .sum()
    }
}

/// A complete response that a shared cache may reuse. Immutable, and shared by reference: a hit
/// copies nothing of it.
#[derive(Debug)]
pub struct StoredResponse {
    head: Arc<ResponseHead>,
    blocks: Vec<Bytes>,
    length: u64,
    trailers: Option<HeaderMap>,
    freshness: Freshness,
    received: Instant,
    uses: AtomicU32,
}

impl StoredResponse {
    /// Takes a complete response; `blocks` should have been through [`settle`], so that they pin
    /// nothing but themselves.
    pub(crate) fn new(
        head: Arc<ResponseHead>,
        blocks: Vec<Bytes>,
        trailers: Option<HeaderMap>,
        freshness: Freshness,
        received: Instant,
    ) -> Self {
        let length = blocks.iter().map(|block| block.len() as u64).sum();
        Self {
            head,
            blocks,
            length,
            trailers,
            freshness,
            received,
            uses: AtomicU32::new(0),
        }
    }

    /// Status and fields, as received.
    pub fn head(&self) -> &Arc<ResponseHead> {
        &self.head
    }

    /// The content.
    pub fn blocks(&self) -> &[Bytes] {
        &self.blocks
    }

    /// The content's length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// What followed the content.
    pub fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_ref()
    }

    /// Lifetime and age at receipt.
    pub fn freshness(&self) -> &Freshness {
        &self.freshness
    }

    /// The time since the head was received. Time stands still rather than run backwards.
    pub fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.received)
    }

    /// The current age (RFC 9111 §4.2.3), for `Age`.
    pub fn age(&self, now: Instant) -> Duration {
        self.freshness.age_after(self.elapsed(now))
    }

    /// What remains of its freshness lifetime; `None` when stale.
    pub fn ttl(&self, now: Instant) -> Option<Duration> {
        self.freshness.ttl_after(self.elapsed(now))
    }

    /// What it takes in memory.
    pub(crate) fn weight(&self) -> u64 {
        /// Key, map entry, `Arc`s and the struct itself.
        const PER_RESPONSE: u64 = 512;
        const PER_BLOCK: u64 = 64;
        PER_RESPONSE + self.head.weight() + self.length + self.blocks.len() as u64 * PER_BLOCK
    }

    pub(super) fn count_use(&self) {
        self.uses.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn uses(&self) -> u32 {
        self.uses.load(Ordering::Relaxed)
    }
}

/// A stored response that answers a request.
#[derive(Debug, Clone)]
pub struct Hit {
    /// The response.
    pub response: Arc<StoredResponse>,
    /// Its current age, for `Age`.
    pub age: Duration,
    /// What remains of its lifetime, for `Cache-Status`.
    pub ttl: Duration,
}
