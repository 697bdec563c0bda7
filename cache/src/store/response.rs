//! A stored response, and what answers a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::At;
use crate::asker::Asker;
use crate::disk::Content;
use crate::key::CacheKey;
use crate::policy::validation::has_validator;
use crate::policy::{Coalescing, Part, RequestFacts, Reuse, Staleness, Terms, Trouble};
use crate::purge::{Epoch, Labels, Purged, Purges};

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

/// A complete response, or one part of one, that a shared cache may reuse. Immutable, and shared by reference: a hit
/// copies nothing of it.
#[derive(Debug)]
pub struct StoredResponse {
    head: Arc<ResponseHead>,
    content: Arc<StoredContent>,
    terms: Terms,
    received: Instant,
    origin: Origin,
    /// Which bytes these are, where they are not all.
    part: Option<Part>,
    /// The epoch for which it is known that no purge has hit it.
    spared: AtomicU64,
    uses: AtomicU32,
    /// It came from the disk, rather than from its origin.
    is_loaded: bool,
    /// What it takes in memory.
    weight: u64,
}

/// What purges have to know of a response.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// When its fetch began, or when its origin was asked whether it is current.
    pub(crate) born: Epoch,
    /// What it can be purged by.
    pub(crate) labels: Labels,
}

/// What follows a head; heads that were renewed share it with those before them.
#[derive(Debug)]
pub(crate) struct StoredContent {
    content: Content,
    length: u64,
    trailers: Option<HeaderMap>,
}

impl StoredContent {
    /// Takes complete content; blocks in memory should have been through [`super::settle`], so that
    /// they pin nothing but themselves.
    pub(crate) fn new(content: Content, trailers: Option<HeaderMap>) -> Self {
        Self {
            length: content.length(),
            content,
            trailers,
        }
    }
}

impl StoredResponse {
    /// A complete response, or a part of one, received at that time.
    pub(crate) fn new(
        head: Arc<ResponseHead>,
        content: Arc<StoredContent>,
        terms: Terms,
        received: Instant,
        origin: Origin,
    ) -> Self {
        let part = Part::of(&head).filter(|part| part.range.length() == content.length);
        Self {
            weight: weight(&head, &content.content, &origin),
            head,
            content,
            terms,
            received,
            part,
            spared: AtomicU64::new(origin.born.get()),
            origin,
            uses: AtomicU32::new(0),
            is_loaded: false,
        }
    }

    /// The same, read from a disk.
    pub(crate) fn loaded(
        head: Arc<ResponseHead>,
        content: Arc<StoredContent>,
        terms: Terms,
        received: Instant,
        origin: Origin,
    ) -> Self {
        Self {
            is_loaded: true,
            ..Self::new(head, content, terms, received, origin)
        }
    }

    /// The same content under a head that its origin has just confirmed (RFC 9111 §4.3.4).
    pub(crate) fn renewed(
        &self,
        head: Arc<ResponseHead>,
        terms: Terms,
        received: Instant,
        origin: Origin,
    ) -> Self {
        Self {
            uses: AtomicU32::new(self.uses()),
            ..Self::new(head, Arc::clone(&self.content), terms, received, origin)
        }
    }

    /// Since when purges hit it, and by what.
    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// What became of it through purges. While there are no new ones, that is one comparison.
    pub(crate) fn purged(&self, purges: &Purges) -> Purged {
        if purges.now().get() == self.spared.load(Ordering::Relaxed) {
            return Purged::No;
        }
        let judgement = purges.judge(self.origin.born, &self.origin.labels);
        if judgement.purged == Purged::No {
            self.spared.store(judgement.as_of.get(), Ordering::Relaxed);
        }
        judgement.purged
    }

    /// Status and fields, as received.
    pub fn head(&self) -> &Arc<ResponseHead> {
        &self.head
    }

    /// The status code.
    pub(crate) fn status(&self) -> StatusCode {
        self.head.status
    }

    /// Which part of the whole it is, where it is one: it answers requests that [`Part::answer`] does, and no others.
    pub fn part(&self) -> Option<&Part> {
        self.part.as_ref()
    }

    /// Whether it is what it says. A part that is shorter or longer than it says is of no use to anybody.
    pub(crate) fn is_sound(&self) -> bool {
        self.part.is_some() || self.status() != StatusCode::PARTIAL_CONTENT
    }

    /// What it is to a request with these fields now: [`StoredResponse::reuse`], and for a part that also depends on the bytes
    /// that are asked for. A part is never renewed, so it serves while it is fresh, or where the client takes it stale.
    pub(crate) fn reuse_for(&self, now: Instant, asker: &Asker<'_>, purges: &Purges) -> Reuse {
        let reuse = self.reuse(now, &asker.facts, purges);
        match reuse {
            _ if self.part.is_none() => reuse,
            Reuse::Fresh | Reuse::Stale if !self.has_bytes_for(asker) => Reuse::OtherPart,
            Reuse::WhileRevalidating => Reuse::ValidateStale,
            _ => reuse,
        }
    }

    /// Whether all bytes are here that the request asks for.
    pub(crate) fn has_bytes_for(&self, asker: &Asker<'_>) -> bool {
        self.part.is_none_or(|part| {
            asker.facts.coalescing() == Coalescing::Part
                && part.answer(asker.headers, &self.head).is_some()
        })
    }

    /// The content's blocks, where they are in memory; else read it with [`crate::Cache::content`].
    pub fn blocks(&self) -> Option<&[Bytes]> {
        match &self.content.content {
            Content::Blocks(blocks) => Some(blocks),
            Content::Recorded(_) => None,
        }
    }

    pub(crate) fn content(&self) -> &Content {
        &self.content.content
    }

    /// The content's length in bytes.
    pub fn length(&self) -> u64 {
        self.content.length
    }

    /// What followed the content.
    pub fn trailers(&self) -> Option<&HeaderMap> {
        self.content.trailers.as_ref()
    }

    /// On what terms it may be reused.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Whether its origin can be asked if it is still current.
    pub(crate) fn has_validator(&self) -> bool {
        has_validator(&self.head.headers)
    }

    /// When the head was received, or read from a record.
    pub(crate) fn received(&self) -> Instant {
        self.received
    }

    /// The time since the head was received. Time stands still rather than run backwards.
    pub fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.received)
    }

    /// What it is to that request now, after all purges.
    pub(crate) fn reuse(&self, now: Instant, request: &RequestFacts, purges: &Purges) -> Reuse {
        let reuse = self.terms.reuse(request, self.elapsed(now));
        match self.purged(purges) {
            Purged::No => reuse,
            // Soft: it is as stale as one whose lifetime has just ended, and its purger wants it to serve while it is refreshed.
            Purged::Soft if reuse == Reuse::Fresh && self.terms.staleness != Staleness::Never => {
                Reuse::WhileRevalidating
            }
            Purged::Soft | Purged::Unsure if reuse == Reuse::Fresh => Reuse::ValidateStale,
            Purged::Unsure if reuse.is_sent() => Reuse::ValidateStale,
            Purged::Soft | Purged::Unsure => reuse,
            Purged::Hard => Reuse::NotForThis,
        }
    }

    /// Whether that request may have it now because of that trouble.
    pub(crate) fn stands_in(
        &self,
        now: Instant,
        request: &RequestFacts,
        purges: &Purges,
        trouble: Trouble,
    ) -> bool {
        matches!(self.purged(purges), Purged::No | Purged::Soft)
            && self.terms.stands_in(request, trouble, self.elapsed(now))
    }

    /// What it takes in memory.
    pub(crate) fn weight(&self) -> u64 {
        self.weight
    }

    /// What of its content is in memory, in bytes.
    pub(crate) fn length_in_memory(&self) -> u64 {
        match self.content() {
            Content::Blocks(_) => self.length(),
            Content::Recorded(_) => 0,
        }
    }

    /// Counts a use; how many there are now.
    pub(crate) fn count_use(&self) -> u32 {
        self.uses.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    /// Whether that use of it had to go to the disk: the first after it was loaded, and each where its content is only there.
    pub(super) fn is_from_disk(&self, uses: u32) -> bool {
        (self.is_loaded && uses == 1) || matches!(self.content(), Content::Recorded(_))
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
    /// The key under which it was fetched: the primary one, or its variant's.
    pub key: CacheKey,
    /// The key under which it is stored.
    pub(crate) at: CacheKey,
    /// As what it is sent.
    pub served: Served,
    /// Its current age (RFC 9111 §4.2.3), for `Age`.
    pub age: Duration,
    /// What remains of its lifetime in seconds, for `Cache-Status`; less than 0 where it is stale.
    pub ttl: i64,
}

fn weight(head: &ResponseHead, content: &Content, origin: &Origin) -> u64 {
    /// Key, map entry, `Arc`s and the structs themselves.
    const PER_RESPONSE: u64 = 512;
    const PER_BLOCK: u64 = 64;
    let labels = 8 * origin.labels.as_slice().len() as u64;
    let content = match content {
        Content::Blocks(blocks) => content.length() + blocks.len() as u64 * PER_BLOCK,
        Content::Recorded(recorded) => recorded.weight(),
    };
    PER_RESPONSE + labels + head.weight() + content
}

/// As what a stored response is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// It is fresh.
    Fresh,
    /// Its origin has just confirmed it.
    Validated,
    /// It is stale, and the client takes it so.
    Stale,
    /// It is stale, and to be validated while it is sent: [`crate::Cache::refresh`].
    WhileRevalidating,
    /// It is stale, and there is nothing better.
    InTrouble,
}

impl Hit {
    /// That response as an answer, now.
    pub(crate) fn new(
        now: Instant,
        response: Arc<StoredResponse>,
        At { under: key, at }: At,
        served: Served,
    ) -> Self {
        let elapsed = response.elapsed(now);
        let freshness = &response.terms.freshness;
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let ttl = match freshness.ttl_after(elapsed) {
            Some(ttl) => seconds(ttl),
            None => -seconds(freshness.stale_for(elapsed)),
        };
        let age = freshness.age_after(elapsed);
        Self {
            response,
            key,
            at,
            served,
            age,
            ttl,
        }
    }
}
