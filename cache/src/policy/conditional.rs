//! A client's own conditionals, judged when a response is delivered to it (RFC 9110 §13, RFC 9111
//! §4.3.2).
//!
//! Towards the backend conditionals are ours alone: a 304 that answers our own validation never
//! reaches a client that did not ask.

use http::header::{
    CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, TRAILER, TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderName, StatusCode};

use super::date::date_field;
use super::directives::Members;
use crate::store::ResponseHead;

/// How a response is delivered to one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conditional {
    /// The client has it already: send [`not_modified_head`] and no body.
    NotModified,
    /// Send it whole.
    Full,
}

/// Judges `If-None-Match`, and where it is absent `If-Modified-Since`. `If-Match` and
/// `If-Unmodified-Since` are the origin's business.
pub fn judge_conditionals(request: &HeaderMap, head: &ResponseHead) -> Conditional {
    // Preconditions count only where the answer without them would be a success (RFC 9110 §13.2.1).
    if !matches!(head.status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
        return Conditional::Full;
    }
    let has = |wanted: HeaderName| request.keys().any(|name| *name == wanted);
    let matches = if has(IF_NONE_MATCH) {
        if_none_match_matches(request, head.headers.get(ETAG).map(|etag| etag.as_bytes()))
    } else if !has(IF_MODIFIED_SINCE) {
        false
    } else {
        // Without a Last-Modified the Date of the response is what the client may have seen (RFC
        // 9111 §4.3.2).
        let changed = || {
            [LAST_MODIFIED, DATE]
                .iter()
                .find_map(|name| date_field(&head.headers, name))
        };
        date_field(request, &IF_MODIFIED_SINCE)
            .is_some_and(|since| changed().is_some_and(|changed| changed <= since))
    };
    if matches {
        Conditional::NotModified
    } else {
        Conditional::Full
    }
}

/// Weak comparison (RFC 9110 §8.8.3.2): `W/` is of no account.
fn if_none_match_matches(request: &HeaderMap, stored: Option<&[u8]>) -> bool {
    request
        .get_all(IF_NONE_MATCH)
        .iter()
        .flat_map(|line| Members::of(line.as_bytes()))
        .any(|tag| match stored {
            _ if tag == b"*" => true,
            Some(stored) => is_entity_tag(tag) && opaque(tag) == opaque(stored),
            None => false,
        })
}

pub(super) fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

fn is_entity_tag(tag: &[u8]) -> bool {
    matches!(opaque(tag), [b'"', inner @ .., b'"'] if !inner.contains(&b'"'))
}

/// The validator that allows a body to be continued by `If-Range`: a strong entity tag, else
/// nothing.
pub(crate) fn strong_validator(headers: &HeaderMap) -> Option<&http::HeaderValue> {
    headers
        .get(ETAG)
        .filter(|tag| !tag.as_bytes().starts_with(b"W/") && is_entity_tag(tag.as_bytes()))
}

/// The head of the 304 that stands for `head`: the same without what describes a body.
pub fn not_modified_head(head: &ResponseHead) -> ResponseHead {
    let mut headers = head.headers.clone();
    for name in [
        CONTENT_LENGTH,
        CONTENT_TYPE,
        CONTENT_ENCODING,
        CONTENT_LANGUAGE,
        CONTENT_RANGE,
        TRANSFER_ENCODING,
        TRAILER,
    ] {
        headers.remove(name);
    }
    ResponseHead {
        status: StatusCode::NOT_MODIFIED,
        headers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn judge(request: &[(&HeaderName, &str)], response: &[(&HeaderName, &str)]) -> Conditional {
        judge_conditionals(
            &headers(request),
            &ResponseHead {
                status: StatusCode::OK,
                headers: headers(response),
            },
        )
    }

    #[test]
    fn entity_tags_match_weakly_and_in_lists() {
        for (asked, stored, expected) in [
            ("\"a\"", "\"a\"", Conditional::NotModified),
            ("W/\"a\"", "\"a\"", Conditional::NotModified),
            ("\"a\"", "W/\"a\"", Conditional::NotModified),
            ("\"b\", \"a\"", "\"a\"", Conditional::NotModified),
            ("\"x,y\"", "\"x,y\"", Conditional::NotModified),
            ("*", "\"a\"", Conditional::NotModified),
            ("\"b\"", "\"a\"", Conditional::Full),
            ("a", "\"a\"", Conditional::Full),
            ("", "\"a\"", Conditional::Full),
        ] {
            assert_eq!(
                judge(&[(&IF_NONE_MATCH, asked)], &[(&ETAG, stored)]),
                expected,
                "{asked} {stored}"
            );
        }
    }

    #[test]
    fn if_none_match_beats_if_modified_since() {
        let day = "Thu, 18 Aug 2050 02:01:18 GMT";
        let response = [(&ETAG, "\"a\""), (&LAST_MODIFIED, day)];
        assert_eq!(
            judge(
                &[(&IF_NONE_MATCH, "\"b\""), (&IF_MODIFIED_SINCE, day)],
                &response
            ),
            Conditional::Full
        );
        assert_eq!(
            judge(&[(&IF_MODIFIED_SINCE, day)], &response),
            Conditional::NotModified
        );
        assert_eq!(
            judge(
                &[(&IF_MODIFIED_SINCE, "Thursday, 18-Aug-50 02:01:19 GMT")],
                &response
            ),
            Conditional::NotModified
        );
        assert_eq!(
            judge(
                &[(&IF_MODIFIED_SINCE, "Thu, 18 Aug 2050 02:01:17 GMT")],
                &response
            ),
            Conditional::Full
        );
        assert_eq!(
            judge(&[(&IF_MODIFIED_SINCE, day)], &[(&DATE, day)]),
            Conditional::NotModified
        );
        assert_eq!(judge(&[], &response), Conditional::Full);
    }

    #[test]
    fn only_a_success_can_be_not_modified() {
        let head = ResponseHead {
            status: StatusCode::NOT_FOUND,
            headers: headers(&[(&ETAG, "\"a\"")]),
        };
        assert_eq!(
            judge_conditionals(&headers(&[(&IF_NONE_MATCH, "\"a\"")]), &head),
            Conditional::Full
        );
    }

    #[test]
    fn a_304_keeps_the_validator_and_drops_what_describes_a_body() {
        let head = ResponseHead {
            status: StatusCode::OK,
            headers: headers(&[
                (&ETAG, "\"a\""),
                (&CONTENT_LENGTH, "3"),
                (&CONTENT_TYPE, "a/b"),
            ]),
        };
        let short = not_modified_head(&head);
        assert_eq!(
            (short.status, short.headers),
            (StatusCode::NOT_MODIFIED, headers(&[(&ETAG, "\"a\"")]))
        );
    }

    #[test]
    fn only_a_strong_tag_continues_a_body() {
        assert!(strong_validator(&headers(&[(&ETAG, "\"a\"")])).is_some());
        assert!(strong_validator(&headers(&[(&ETAG, "W/\"a\"")])).is_none());
        assert!(strong_validator(&headers(&[(&ETAG, "a")])).is_none());
        assert!(strong_validator(&HeaderMap::new()).is_none());
    }
}
