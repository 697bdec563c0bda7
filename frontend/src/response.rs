//! The head of a response on its way to a client.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use scale0_cache::policy::CacheStatus;

use crate::worker::Shared;

pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// With which a backend names itself to the frontend; clients do not see it.
const BACKEND: HeaderName = HeaderName::from_static("scale0-backend");

/// A head as it came from a backend becomes one of ours: it has a `Date` (RFC 9110 §6.6.1) and names this node in `Via`.
pub(crate) fn received(mut headers: HeaderMap, shared: &Shared, wall: SystemTime) -> HeaderMap {
    if !headers.contains_key(header::DATE)
        && let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(wall))
    {
        headers.insert(header::DATE, date);
    }
    if varies_on_ours(&headers) {
        headers.insert(header::VARY, HeaderValue::from_static("*"));
    }
    headers.append(header::VIA, shared.via.clone());
    headers
}

/// Whether it was chosen by a field that we write anew for every client, and that no cache of requests has seen: it fits nobody
/// else's request (RFC 9110 §12.5.5).
fn varies_on_ours(headers: &HeaderMap) -> bool {
    let fields = headers.get_all(header::VARY).into_iter();
    let mut names = fields.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    names.any(|name| {
        let name = name.trim_ascii();
        ["x-forwarded-for", "x-request-id", "via"]
            .iter()
            .any(|ours| name.eq_ignore_ascii_case(ours.as_bytes()))
    })
}

/// States the length of content that is all here: a backend that sends it in one message need not.
pub(crate) fn state_length(headers: &mut HeaderMap, status: StatusCode, length: usize) {
    let has_content = !(status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED));
    if has_content && !headers.contains_key(header::CONTENT_LENGTH) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
}

/// Takes out which backend answered.
pub(crate) fn take_backend(headers: &mut HeaderMap) -> Option<HeaderValue> {
    headers.remove(BACKEND)
}

/// Whether it is a stream of events, which lasts for as long as its client wants (HTML, "Server-sent events").
pub(crate) fn is_event_stream(headers: &HeaderMap) -> bool {
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| {
        let end = value.as_bytes().iter().position(|byte| *byte == b';');
        value.as_bytes().get(..end.unwrap_or(value.len()))
    });
    media_type.is_some_and(|it| it.trim_ascii().eq_ignore_ascii_case(b"text/event-stream"))
}

/// Adds what is said to this client alone.
pub(crate) fn finish(
    headers: &mut HeaderMap,
    request_id: &str,
    status: Option<&CacheStatus>,
    age: Option<Duration>,
) {
    let age = age.map(|age| HeaderValue::from_str(itoa::Buffer::new().format(age.as_secs())));
    if let Some(Ok(age)) = age {
        headers.insert(header::AGE, age);
    }
    if let Some(status) = status {
        // Caches before this one are named first (RFC 9211 §2).
        headers.append(CACHE_STATUS, status.to_header_value());
    }
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(X_REQUEST_ID, id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_chosen_by_a_field_of_ours_fits_nobody_else() {
        let varies = |vary: &'static str| {
            let field = (header::VARY, HeaderValue::from_static(vary));
            varies_on_ours(&[field].into_iter().collect())
        };
        assert!(varies("X-Forwarded-For"));
        assert!(varies("accept-language , VIA"));
        assert!(!varies("accept-language, x-forwarded-proto"));
    }
}
