//! A request at the cache's door.

use std::time::Instant;

use http::HeaderMap;

use crate::key::CacheKey;
use crate::policy::RequestFacts;
use crate::purge::Labels;

/// A request as the cache sees it: made once per request, borrowed by every call about it.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// The primary key of its target.
    pub key: CacheKey,
    /// The authority that is part of the key.
    pub authority: &'a str,
    /// The path and query that are part of the key.
    pub path_and_query: &'a str,
    /// What its method and fields say about storing and sharing.
    pub facts: RequestFacts,
    /// Its fields, for `Vary`.
    pub headers: &'a HeaderMap,
    /// When its client stops waiting for the head of a response; a flight lives as long as its most
    /// patient waiter.
    pub deadline: Instant,
}

impl Asker<'_> {
    /// What a response to it can be purged by, as far as its target tells.
    pub(crate) fn labels(&self) -> Labels {
        Labels::of_target(self.authority, self.path_and_query)
    }
}
