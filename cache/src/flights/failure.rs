//! How flights fail.

use http::StatusCode;

use crate::policy::Trouble;

/// Why a flight came to no good end; the same for everybody who waited for it.
///
/// Before the head it is an answer: `status`, with `reason` for the client and the log. After it,
/// the client's connection is aborted: never a clean short body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{reason} ({status})")]
pub struct Failure {
    /// What to answer while nothing has been sent.
    pub status: StatusCode,
    /// One word or a few, joined by hyphens.
    pub reason: &'static str,
    /// Seconds for `Retry-After`.
    pub retry_after: Option<u32>,
    /// What it counts as when a stale response might stand in.
    pub trouble: Trouble,
}

impl Failure {
    /// The task that filled the flight was dropped without a word.
    pub const VANISHED: Self = Self::bad_gateway("fetch-vanished");
    /// Everybody left, and the flight was given up.
    pub const ABANDONED: Self = Self::bad_gateway("fetch-abandoned");
    /// The body ended before its `Content-Length`.
    pub const SHORT_BODY: Self = Self::bad_gateway("body-shorter-than-content-length");
    /// The body went on beyond its `Content-Length`.
    pub const LONG_BODY: Self = Self::bad_gateway("body-longer-than-content-length");
    /// Content came, or the end, before any head.
    pub const NO_HEAD: Self = Self::bad_gateway("no-response-head");
    /// What was to continue a body is another representation, or starts elsewhere.
    pub const DISCONTINUED: Self = Self::bad_gateway("representation-changed");

    /// The origin answered with an error for which a stale response stands in.
    pub(super) const fn stood_in_for(status: StatusCode) -> Self {
        Self {
            status,
            reason: "origin-error",
            retry_after: None,
            trouble: Trouble::ServerError,
        }
    }

    const fn bad_gateway(reason: &'static str) -> Self {
        Self {
            status: StatusCode::BAD_GATEWAY,
            reason,
            retry_after: None,
            trouble: Trouble::Unreachable,
        }
    }
}
