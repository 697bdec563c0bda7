//! What a flight asks its backend for.

use std::sync::Arc;

use http::header::CONTENT_RANGE;
use http::{HeaderValue, StatusCode};

use crate::key::CacheKey;
use crate::policy::conditional::strong_validator;
use crate::store::{ResponseHead, StoredResponse};

/// Up to this size a stored whole is validated, and perhaps fetched, for a client that wants a part of it: at worst that many
/// bytes from the backend, against a part that could not be stored with the rest.
const WHOLE_FOR_A_PART: u64 = 1024 * 1024;

/// What a continuing flight asks for: the rest of a representation from an offset on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continuation {
    pub(super) offset: u64,
    pub(super) validator: HeaderValue,
    /// The variant it is the rest of. A strong validator ought to say so by itself; not every
    /// origin keeps to it.
    pub(super) variant: Option<CacheKey>,
}

/// What a flight asks its backend for.
#[derive(Debug, Clone)]
pub(super) enum Aim {
    /// A response, whole.
    Whole,
    /// Whether what is stored is still current, and else a response, whole.
    Renew(Arc<StoredResponse>),
    /// What follows a stored part, which begins with the first byte: both together are the whole.
    Complete(Arc<StoredResponse>),
    /// The part that its client asks for. Nobody else can join.
    Part,
    /// The rest of one that some clients have the beginning of.
    Rest(Continuation),
}

impl Aim {
    /// The whole, of which that is a part; what is there already is not fetched again where that is certain to fit.
    pub(super) fn completing(part: Arc<StoredResponse>) -> Self {
        let begins = part.part().is_some_and(|part| part.range.first == 0);
        let is_certain = strong_validator(&part.head().headers).is_some();
        if begins && is_certain && part.blocks().is_some() {
            Self::Complete(part)
        } else {
            Self::Whole
        }
    }

    pub(super) fn continuation(&self) -> Option<&Continuation> {
        match self {
            Self::Rest(continuation) => Some(continuation),
            Self::Whole | Self::Renew(_) | Self::Complete(_) | Self::Part => None,
        }
    }

    pub(super) fn stored(&self) -> Option<&Arc<StoredResponse>> {
        match self {
            Self::Renew(stored) => Some(stored),
            Self::Whole | Self::Complete(_) | Self::Part | Self::Rest(_) => None,
        }
    }

    /// Whether it is worth its cost even for a client that wants a part: the whole is known, and small.
    pub(super) fn is_cheap(&self) -> bool {
        self.stored().is_some_and(|stored| {
            stored.status() == StatusCode::OK && stored.length() <= WHOLE_FOR_A_PART
        })
    }

    /// The offset of the first byte that comes of it.
    pub(super) fn begin(&self) -> u64 {
        self.continuation().map_or(0, |rest| rest.offset)
    }
}

impl Continuation {
    /// What follows a stored part.
    pub(super) fn of_part(stored: &StoredResponse) -> Option<Self> {
        Some(Self {
            offset: stored.length(),
            validator: strong_validator(&stored.head().headers)?.clone(),
            variant: None,
        })
    }

    /// The value for `Range`.
    pub fn range(&self) -> HeaderValue {
        HeaderValue::try_from(format!("bytes={}-", self.offset)).expect("digits are a field value")
    }

    /// The value for `If-Range`: a strong entity tag.
    pub fn if_range(&self) -> HeaderValue {
        self.validator.clone()
    }

    /// How many bytes of the body that follows `head` come before those asked for; `None` when it
    /// does not continue the representation.
    pub(super) fn skip(&self, head: &ResponseHead) -> Option<u64> {
        if strong_validator(&head.headers) != Some(&self.validator) {
            return None;
        }
        match head.status {
            StatusCode::PARTIAL_CONTENT => {
                let range = head.headers.get(CONTENT_RANGE)?.to_str().ok()?;
                let (first, rest) = range.strip_prefix("bytes ")?.split_once('-')?;
                let (last, total) = rest.split_once('/')?;
                let reaches_the_end =
                    total != "*" && last.parse::<u64>().ok()?.checked_add(1) == total.parse().ok();
                (first.parse() == Ok(self.offset) && reaches_the_end).then_some(0)
            }
            // A server that knows no ranges sends the same representation whole.
            StatusCode::OK => Some(self.offset),
            _ => None,
        }
    }
}
