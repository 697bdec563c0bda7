//! The head of a flight's response, and what was made of it.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use http::header::CONTENT_LENGTH;

use crate::key::CacheKey;
use crate::policy::Sharing;
use crate::store::{ResponseHead, StoredResponse};

/// A response's head and the verdict about it.
#[derive(Debug)]
pub(super) struct Announced {
    pub(super) head: Arc<ResponseHead>,
    pub(super) sharing: Sharing,
    pub(super) received: Instant,
    /// The variant the leader selected, where the response varies.
    pub(super) variant: Option<CacheKey>,
    /// The content's length, where the head gives it.
    pub(super) length: Option<u64>,
    /// What was stored already, and has been confirmed: it is the answer.
    pub(super) confirmed: Option<Confirmed>,
}

/// A response that was stored, as its origin has confirmed it.
#[derive(Debug)]
pub(super) struct Confirmed {
    pub(super) response: Arc<StoredResponse>,
    /// The key under which it is fetched.
    pub(super) under: CacheKey,
    /// The key under which it is stored, if it is kept.
    pub(super) stored_at: Option<CacheKey>,
}

impl Announced {
    /// Reads what a flight needs of a head.
    pub(super) fn new(
        now: Instant,
        head: ResponseHead,
        sharing: Sharing,
        variant: Option<CacheKey>,
        continues_at: Option<u64>,
    ) -> Self {
        let length = content_length(&head).map(|length| match (continues_at, head.status) {
            (Some(offset), StatusCode::PARTIAL_CONTENT) => length.saturating_add(offset),
            _ => length,
        });
        Self {
            head: Arc::new(head),
            sharing,
            received: now,
            variant,
            length,
            confirmed: None,
        }
    }

    /// The head of a response that was stored and is confirmed now.
    pub(super) fn confirmed(
        now: Instant,
        sharing: Sharing,
        variant: Option<CacheKey>,
        confirmed: Confirmed,
    ) -> Self {
        Self {
            head: Arc::clone(confirmed.response.head()),
            sharing,
            received: now,
            variant,
            length: Some(0),
            confirmed: Some(confirmed),
        }
    }
}

/// The length of the content that follows; 204 and 304 have none whatever they say.
fn content_length(head: &ResponseHead) -> Option<u64> {
    match head.status {
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED => Some(0),
        _ => head
            .headers
            .get(CONTENT_LENGTH)?
            .to_str()
            .ok()?
            .parse()
            .ok(),
    }
}
