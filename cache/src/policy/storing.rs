//! Whether a response may be stored at all (RFC 9111 §3).

use http::StatusCode;
use http::header::{CONTENT_TYPE, SET_COOKIE};

use super::freshness::is_heuristically_cacheable;
use super::{Directives, Freshness, LeaderOnly, Part, RequestFacts};
use crate::store::ResponseHead;

/// What an operator may decide where the RFCs leave a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// Responses with `Set-Cookie` and explicit freshness.
    pub set_cookie: SetCookie,
}

/// `set_cookie` in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SetCookie {
    /// Stored and shared when the origin gave them explicit freshness (RFC 9111 §7.3).
    #[default]
    Store,
    /// Never stored, never shared.
    Refuse,
}

/// Whether the response to such a GET may be stored, whether or not it may be reused without
/// validation. `directives` are those that govern it. `Vary: *` does not matter here: such a
/// response may be stored, and is never selected.
///
/// # Errors
/// The first reason against it, in the order of RFC 9111 §3.
pub fn may_store(
    policy: Policy,
    request: &RequestFacts,
    head: &ResponseHead,
    directives: &Directives,
    freshness: &Freshness,
) -> Result<(), LeaderOnly> {
    if request.is_head() || !request.may_be_answered_from_store() {
        return Err(LeaderOnly::Request);
    }
    // 304 answers our own validation and is no representation; 1xx are not final.
    if head.status.as_u16() < 200 || head.status == StatusCode::NOT_MODIFIED {
        return Err(LeaderOnly::Status);
    }
    let is_what_was_asked_for = match (head.status, request.is_sent_with_range()) {
        (StatusCode::PARTIAL_CONTENT, true) => Part::of(head).is_some(),
        (StatusCode::PARTIAL_CONTENT, false) => false,
        (StatusCode::OK, _) | (_, false) => true,
        // Above all a 416 says nothing about the whole.
        (_, true) => false,
    };
    if !is_what_was_asked_for {
        return Err(LeaderOnly::Status);
    }
    if directives.must_understand && !is_understood(head.status) {
        return Err(LeaderOnly::Status);
    }
    if directives.no_store && !directives.must_understand {
        return Err(LeaderOnly::NoStore);
    }
    if directives.private {
        return Err(LeaderOnly::Private);
    }
    let open_to_all =
        directives.public || directives.must_revalidate || directives.s_maxage.is_some();
    if request.has_authorization() && !open_to_all {
        return Err(LeaderOnly::Authorization);
    }
    if is_event_stream(head) {
        return Err(LeaderOnly::EventStream);
    }
    let sets_cookies = head.headers.contains_key(SET_COOKIE);
    if sets_cookies && (policy.set_cookie == SetCookie::Refuse || !freshness.is_explicit()) {
        return Err(LeaderOnly::SetCookie);
    }
    if !freshness.is_explicit() && request.is_personal() {
        return Err(LeaderOnly::Personal);
    }
    if !(freshness.is_explicit() || directives.public || is_heuristically_cacheable(head.status)) {
        return Err(LeaderOnly::NoFreshness);
    }
    Ok(())
}

/// The statuses whose caching rules we implement: for `must-understand` (RFC 9111 §5.2.2.3), all of
/// RFC 9110 that may be stored here.
fn is_understood(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200..=206 | 300..=303 | 305..=308 | 400..=417 | 421 | 422 | 426 | 500..=505)
}

/// A stream of events never ends and is for one reader.
fn is_event_stream(head: &ResponseHead) -> bool {
    let Some(media_type) = head.headers.get(CONTENT_TYPE) else {
        return false;
    };
    let essence = media_type
        .as_bytes()
        .split(|&byte| byte == b';')
        .next()
        .unwrap_or_default();
    essence
        .trim_ascii()
        .eq_ignore_ascii_case(b"text/event-stream")
}
