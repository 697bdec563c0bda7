//! Validating a stored response with its origin (RFC 9111 §4.3).

use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_MATCH,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE, TRAILER,
    TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderName, StatusCode};

use super::conditional::{opaque, strong_validator};
use crate::store::ResponseHead;

/// Whether the origin can be asked if it is still the same.
pub fn has_validator(headers: &HeaderMap) -> bool {
    headers.contains_key(ETAG) || headers.contains_key(LAST_MODIFIED)
}

/// Takes out of a request what makes its answer fit one client only: the answer has to serve everybody who waits.
pub fn strip_conditionals(request: &mut HeaderMap) {
    for name in [
        IF_NONE_MATCH,
        IF_MODIFIED_SINCE,
        IF_MATCH,
        IF_UNMODIFIED_SINCE,
        IF_RANGE,
        RANGE,
    ] {
        request.remove(name);
    }
}

/// Makes a request ask whether `stored` is still current, by each validator it has (§4.3.1).
pub fn ask_whether_current(request: &mut HeaderMap, stored: &HeaderMap) {
    if let Some(tag) = stored.get(ETAG) {
        request.insert(IF_NONE_MATCH, tag.clone());
    }
    if let Some(date) = stored.get(LAST_MODIFIED) {
        request.insert(IF_MODIFIED_SINCE, date.clone());
    }
}

/// Whether a 304 speaks of `stored` (§4.3.4). One without a validator can mean nothing else, as nothing else was asked for.
pub fn confirms(not_modified: &HeaderMap, stored: &HeaderMap) -> bool {
    match (not_modified.get(ETAG), stored.get(ETAG)) {
        // Also where only one is weak: a tag of the same opaque part was sent by us.
        (Some(new), Some(old)) => opaque(new.as_bytes()) == opaque(old.as_bytes()),
        (Some(_), None) => strong_validator(not_modified).is_none(),
        (None, _) => match (not_modified.get(LAST_MODIFIED), stored.get(LAST_MODIFIED)) {
            (Some(new), Some(old)) => stored.contains_key(ETAG) || new == old,
            (Some(_) | None, _) => true,
        },
    }
}

/// The head of `stored` with the fields of the response that confirmed it (§3.2): each field of the newer one replaces all
/// lines of that name, but for those that describe content which was not sent anew.
pub fn freshened(stored: &ResponseHead, newer: &HeaderMap) -> ResponseHead {
    let mut headers = stored.headers.clone();
    for name in newer.keys().filter(|name| is_updated(name)) {
        headers.remove(name);
        for value in newer.get_all(name) {
            headers.append(name.clone(), value.clone());
        }
    }
    // An age that the newer response does not state is over: it was generated or validated just now.
    if !newer.contains_key(http::header::AGE) {
        headers.remove(http::header::AGE);
    }
    ResponseHead {
        status: stored.status,
        headers,
    }
}

/// RFC 9111 §3.2: not what the cache's own copy of the content depends on.
fn is_updated(name: &HeaderName) -> bool {
    ![
        CONTENT_LENGTH,
        CONTENT_ENCODING,
        CONTENT_TYPE,
        CONTENT_RANGE,
        TRANSFER_ENCODING,
        TRAILER,
    ]
    .contains(name)
}

/// What a response to HEAD says about the stored response to GET (§4.3.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadSays {
    /// The same representation: freshen it.
    Current,
    /// Another one: it is no longer fresh.
    Changed,
    /// Nothing: the stored one stays as it is.
    Nothing,
}

/// Compares the head of a response to HEAD with what is stored.
///
/// `length` is that of the stored content. Only 200, and what says that there is nothing, speaks of the resource: 405, 403 or 412 speak
/// of the request.
pub fn head_says(head: &ResponseHead, stored: &ResponseHead, length: u64) -> HeadSays {
    let is_stored_well = matches!(stored.status, StatusCode::OK | StatusCode::PARTIAL_CONTENT);
    match head.status {
        StatusCode::OK if is_stored_well => {}
        StatusCode::OK | StatusCode::NOT_FOUND | StatusCode::GONE => return HeadSays::Changed,
        _ => return HeadSays::Nothing,
    }
    // A validator that what is stored lacks is none of it.
    let differs = |name: &HeaderName| {
        let new = head.headers.get(name);
        new.is_some() && new != stored.headers.get(name)
    };
    let is_part = stored.status == StatusCode::PARTIAL_CONTENT;
    let new_length = head.headers.get(CONTENT_LENGTH);
    let has_other_length =
        new_length.is_some_and(|new| new.as_bytes() != length.to_string().as_bytes());
    if differs(&ETAG) || differs(&LAST_MODIFIED) || (!is_part && has_other_length) {
        HeadSays::Changed
    } else if is_part {
        HeadSays::Nothing
    } else {
        HeadSays::Current
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    fn head(status: u16, lines: &[(HeaderName, &str)]) -> ResponseHead {
        ResponseHead {
            status: StatusCode::from_u16(status).unwrap(),
            headers: fields(lines),
        }
    }

    const MONDAY: &str = "Mon, 02 Nov 2026 00:00:00 GMT";
    const TUESDAY: &str = "Tue, 03 Nov 2026 00:00:00 GMT";

    #[test]
    fn the_origin_is_asked_by_every_validator_and_by_nothing_of_the_clients() {
        let mut request = fields(&[
            (IF_NONE_MATCH, "\"client\""),
            (IF_MODIFIED_SINCE, MONDAY),
            (RANGE, "bytes=0-1"),
            (IF_RANGE, "\"client\""),
            (http::header::ACCEPT, "*/*"),
        ]);
        strip_conditionals(&mut request);
        assert_eq!(request, fields(&[(http::header::ACCEPT, "*/*")]));
        ask_whether_current(
            &mut request,
            &fields(&[(ETAG, "W/\"a\""), (LAST_MODIFIED, TUESDAY)]),
        );
        assert_eq!(request[IF_NONE_MATCH], "W/\"a\"");
        assert_eq!(request[IF_MODIFIED_SINCE], TUESDAY);
    }

    #[test]
    fn a_304_confirms_only_what_has_its_validator() {
        let tag = |tag| fields(&[(ETAG, tag)]);
        let date = |date| fields(&[(LAST_MODIFIED, date)]);
        let none = HeaderMap::new();
        assert!(confirms(&none, &tag("\"a\"")));
        assert!(confirms(&tag("\"a\""), &tag("\"a\"")));
        assert!(!confirms(&tag("\"b\""), &tag("\"a\"")));
        assert!(confirms(&tag("W/\"a\""), &tag("\"a\"")));
        assert!(!confirms(&tag("\"a\""), &date(MONDAY)));
        assert!(confirms(&date(MONDAY), &date(MONDAY)));
        assert!(!confirms(&date(TUESDAY), &date(MONDAY)));
        assert!(confirms(&date(TUESDAY), &tag("\"a\"")));
    }

    #[test]
    fn a_newer_head_replaces_whole_fields_and_leaves_those_of_the_content() {
        let set_cookie = http::header::SET_COOKIE;
        let stored = head(
            200,
            &[
                (CONTENT_LENGTH, "5"),
                (CONTENT_TYPE, "text/plain"),
                (set_cookie.clone(), "a=1"),
                (set_cookie.clone(), "b=1"),
                (http::header::SERVER, "old"),
                (http::header::AGE, "100"),
            ],
        );
        let newer = fields(&[
            (CONTENT_LENGTH, "0"),
            (CONTENT_TYPE, "text/html"),
            (set_cookie.clone(), "c=1"),
            (ETAG, "\"new\""),
        ]);
        let merged = freshened(&stored, &newer).headers;
        assert_eq!(merged[CONTENT_LENGTH], "5");
        assert_eq!(merged[CONTENT_TYPE], "text/plain");
        assert_eq!(merged[http::header::SERVER], "old");
        assert_eq!(merged[ETAG], "\"new\"");
        assert_eq!(
            merged.get_all(&set_cookie).iter().collect::<Vec<_>>(),
            ["c=1"]
        );
        assert!(!merged.contains_key(http::header::AGE));
    }

    #[test]
    fn a_head_freshens_what_it_describes_and_ends_what_it_contradicts() {
        let stored = head(200, &[(ETAG, "\"a\""), (CONTENT_LENGTH, "5")]);
        let says = |head: ResponseHead| head_says(&head, &stored, 5);
        assert_eq!(says(head(200, &[(ETAG, "\"a\"")])), HeadSays::Current);
        assert_eq!(says(head(200, &[])), HeadSays::Current);
        assert_eq!(says(head(200, &[(ETAG, "\"b\"")])), HeadSays::Changed);
        assert_eq!(says(head(200, &[(CONTENT_LENGTH, "6")])), HeadSays::Changed);
        assert_eq!(says(head(404, &[])), HeadSays::Changed);
        for of_the_request in [304, 401, 403, 405, 412, 429, 503] {
            assert_eq!(says(head(of_the_request, &[])), HeadSays::Nothing);
        }
    }

    #[test]
    fn a_head_with_a_validator_that_is_not_stored_describes_something_else() {
        let stored = head(200, &[]);
        let says = |head: ResponseHead| head_says(&head, &stored, 5);
        assert_eq!(says(head(200, &[(ETAG, "\"b\"")])), HeadSays::Changed);
        assert_eq!(
            says(head(200, &[(LAST_MODIFIED, MONDAY)])),
            HeadSays::Changed
        );
        assert_eq!(says(head(200, &[(CONTENT_LENGTH, "6")])), HeadSays::Changed);
        assert_eq!(says(head(200, &[(CONTENT_LENGTH, "5")])), HeadSays::Current);
    }
}
