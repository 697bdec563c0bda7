//! Header fields at the border: which requests are refused for theirs, which fields do not cross, how heads travel.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Version};
use scale0_wire::{DecodeError, Fields, ResponseHead};

use crate::explanation;

/// A request that is refused for its form; the words go to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadRequest {
    pub(crate) status: StatusCode,
    pub(crate) why: &'static str,
}

impl BadRequest {
    pub(crate) const fn new(why: &'static str) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            why,
        }
    }

    const fn with(status: StatusCode, why: &'static str) -> Self {
        Self { status, why }
    }
}

/// Fields of one connection only (RFC 9110 §7.6.1), beside those that `Connection` names.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::CONNECTION
            | header::PROXY_AUTHENTICATE
            | header::PROXY_AUTHORIZATION
            | header::TE
            | header::TRAILER
            | header::TRANSFER_ENCODING
            | header::UPGRADE
    ) || matches!(
        name.as_str(),
        "keep-alive" | "proxy-connection" | "http2-settings"
    )
}

/// Fields with which a client could tell the application another target, method or client than the one that is keyed and
/// logged; and those that are this node's to write. An underscore counts as a dash: to applications behind CGI or WSGI it is one.
fn is_ours_to_say(name: &HeaderName) -> bool {
    const BEGINNINGS: [&str; 4] = ["x-forwarded", "x-original-", "x-rewrite-", "scale0-"];
    let name = name.as_str();
    let dashed;
    let name = if name.contains('_') {
        dashed = name.replace('_', "-");
        &dashed
    } else {
        name
    };
    BEGINNINGS
        .iter()
        .any(|beginning| name.starts_with(beginning))
        || matches!(
            name,
            "base-url"
                | "client-ip"
                | "forwarded"
                | "front-end-https"
                | "proxy"
                | "true-client-ip"
                | "x-client-ip"
                | "x-cluster-client-ip"
                | "x-host"
                | "x-http-host-override"
                | "x-http-method"
                | "x-http-method-override"
                | "x-method-override"
                | "x-real-ip"
                | "x-request-id"
                | "x-url-scheme"
        )
}

/// Which fields a request has, of those that are read before it is known where it goes. One pass over the few that it has costs
/// less than a look for each.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Present {
    connection: bool,
    cookie: bool,
    pub(crate) debug: bool,
    pub(crate) expect: bool,
    pub(crate) traceparent: bool,
    transfer_encoding: bool,
    upgrade: bool,
    pub(crate) via: bool,
}

impl Present {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut present = Self::default();
        for name in headers.keys() {
            match *name {
                header::CONNECTION => present.connection = true,
                header::COOKIE => present.cookie = true,
                header::EXPECT => present.expect = true,
                header::TRANSFER_ENCODING => present.transfer_encoding = true,
                header::UPGRADE => present.upgrade = true,
                header::VIA => present.via = true,
                _ if *name == TRACEPARENT => present.traceparent = true,
                _ if *name == explanation::FIELD => present.debug = true,
                _ => {}
            }
        }
        present
    }
}

/// The context of a trace (W3C Trace Context, level 1).
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The names that `Connection` lists, in lower case.
#[derive(Clone, Debug, Default)]
pub(crate) struct Nominated(Vec<HeaderName>);

impl Nominated {
    fn of(headers: &HeaderMap) -> Self {
        let tokens = headers
            .get_all(header::CONNECTION)
            .into_iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        Self(
            tokens
                .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
                .collect(),
        )
    }

    fn names(&self, name: &HeaderName) -> bool {
        self.0.contains(name)
    }
}

/// Whether the client asks to switch protocols, and to which ours has a way: any but `h2c`, which is not spoken that way
/// since RFC 9113.
pub(crate) fn wanted_upgrade(
    version: Version,
    headers: &HeaderMap,
    present: Present,
) -> Option<&HeaderValue> {
    if !present.upgrade || version != Version::HTTP_11 {
        return None;
    }
    let upgrade = headers.get(header::UPGRADE)?;
    let asked = Nominated::of(headers).names(&header::UPGRADE);
    let is_h2c = upgrade
        .as_bytes()
        .split(|byte| *byte == b',')
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"h2c"));
    (asked && !is_h2c).then_some(upgrade)
}

/// Refuses what two recipients could read as two different requests, and what this gateway does not do.
///
/// # Errors
/// The status and the words for the client.
pub(crate) fn check(
    method: &Method,
    version: Version,
    headers: &HeaderMap,
    present: Present,
    most: usize,
) -> Result<(), BadRequest> {
    // HTTP/1.1's reader has counted already.
    if most < headers.len() {
        return Err(BadRequest::with(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "more fields than are read",
        ));
    }
    if *method == Method::CONNECT {
        return Err(BadRequest::with(
            StatusCode::NOT_IMPLEMENTED,
            "this is a gateway, not a tunnel: CONNECT is not served",
        ));
    }
    if *method == Method::TRACE {
        return Err(BadRequest::with(
            StatusCode::METHOD_NOT_ALLOWED,
            "TRACE would show fields that are not the client's",
        ));
    }
    if method
        .as_str()
        .bytes()
        .any(|byte| byte.is_ascii_lowercase())
    {
        return Err(BadRequest::new("methods are written in upper case"));
    }
    let has_repeated = headers.keys_len() < headers.len();
    if has_repeated && 1 < headers.get_all(header::HOST).iter().count() {
        return Err(BadRequest::new("more than one Host"));
    }
    if present.transfer_encoding {
        let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
        let first = codings.next();
        let is_chunked = first.is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"chunked"));
        if !is_chunked || codings.next().is_some() {
            return Err(BadRequest::with(
                StatusCode::NOT_IMPLEMENTED,
                "the only transfer coding served is chunked",
            ));
        }
    }
    if present.connection {
        let nominated = Nominated::of(headers);
        let framing = [
            header::CONTENT_LENGTH,
            header::HOST,
            header::TRANSFER_ENCODING,
            header::COOKIE,
            header::AUTHORIZATION,
        ];
        if framing.iter().any(|name| nominated.names(name)) {
            return Err(BadRequest::new(
                "Connection must not name a field that frames, routes or authorises the request",
            ));
        }
    }
    if present.expect
        && headers
            .get(header::EXPECT)
            .is_some_and(|expect| !expect.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    {
        return Err(BadRequest::with(
            StatusCode::EXPECTATION_FAILED,
            "the only expectation served is 100-continue",
        ));
    }
    if version == Version::HTTP_2 && headers.get(header::TE).is_some_and(|te| te != "trailers") {
        return Err(BadRequest::new("TE may only be \"trailers\" in HTTP/2"));
    }
    Ok(())
}

/// Whether a client's field of this name goes further, unless `Connection` names it.
pub(crate) fn crosses(name: &HeaderName) -> bool {
    !is_hop_by_hop(name) && !matches!(*name, header::EXPECT | header::HOST) && !is_ours_to_say(name)
}

/// What goes further of a client's fields: not those of its connection, nor those that are ours to say, nor what is said by
/// other means. Cache and backend see the same, so that no stored response hangs on a field that is not in its key.
pub(crate) fn crossing(mut headers: HeaderMap, present: Present) -> HeaderMap {
    let nominated = if present.connection {
        Nominated::of(&headers)
    } else {
        Nominated::default()
    };
    let stays = |name: &&HeaderName| !crosses(name) || nominated.names(name);
    let staying: Vec<HeaderName> = headers.keys().filter(stays).cloned().collect();
    for name in staying {
        headers.remove(name);
    }
    if present.cookie {
        join_cookies(&mut headers);
    }
    headers
}

/// HTTP/2 may send a cookie in crumbs, HTTP/1.1 knows one field only (RFC 9113 §8.2.3, RFC 6265 §5.4).
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    if crumbs.next().is_none() || crumbs.next().is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = (headers.get_all(header::COOKIE).iter())
        .map(HeaderValue::as_bytes)
        .collect();
    if let Ok(whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(header::COOKIE, whole);
    }
}

/// The fields that travel with a request: those of the client's that [cross](crossing), and then `ours`.
///
/// # Errors
/// More fields, or longer ones, than the protocol carries.
pub(crate) fn request_fields<'a>(
    headers: &'a HeaderMap,
    host: &'a [u8],
    ours: &[(&'a str, &'a [u8])],
) -> Result<Fields, DecodeError> {
    let host = std::iter::once((&b"host"[..], host));
    let theirs = headers
        .iter()
        .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
    let ours = ours.iter().map(|(name, value)| (name.as_bytes(), *value));
    Fields::new(host.chain(theirs).chain(ours))
}

/// Status and fields of a response from a backend; fields of its connection are left behind.
///
/// # Errors
/// Why it is no response that can be sent on: it is answered 502 instead.
pub(crate) fn response_head(encoded: &Bytes) -> Result<(StatusCode, HeaderMap), &'static str> {
    let head = ResponseHead::decode(encoded).map_err(|_| "its head is malformed")?;
    let status = StatusCode::from_u16(head.status).map_err(|_| "its status is no status code")?;
    let headers = header_map(&head.fields)?;
    Ok((status, without_hop_by_hop(headers)))
}

/// The fields of a 101 response: those of its connection, which is now the client's too, stay.
///
/// # Errors
/// Why it is no response that can be sent on.
pub(crate) fn upgrade_head(encoded: &Bytes) -> Result<HeaderMap, &'static str> {
    let head = ResponseHead::decode(encoded).map_err(|_| "its head is malformed")?;
    let headers = header_map(&head.fields)?;
    let protocol = headers
        .get(header::UPGRADE)
        .cloned()
        .ok_or("it does not say which protocol it switches to")?;
    let mut headers = without_hop_by_hop(headers);
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, protocol);
    Ok(headers)
}

/// Whether a field may come as a trailer: not if it frames, routes, authorises or describes what went before (RFC 9110 §6.5.1).
pub(crate) fn may_trail(name: &HeaderName) -> bool {
    !is_hop_by_hop(name)
        && !is_ours_to_say(name)
        && !matches!(
            *name,
            header::AUTHORIZATION
                | header::CACHE_CONTROL
                | header::CONTENT_ENCODING
                | header::CONTENT_LENGTH
                | header::CONTENT_RANGE
                | header::CONTENT_TYPE
                | header::COOKIE
                | header::EXPECT
                | header::HOST
                | header::SET_COOKIE
                | header::VARY
        )
}

/// The trailer fields of a response that may be passed on.
pub(crate) fn trailers(fields: &Fields) -> Option<HeaderMap> {
    let all = header_map(fields).ok()?;
    let kept: HeaderMap = all
        .iter()
        .filter(|(name, _)| may_trail(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    (!kept.is_empty()).then_some(kept)
}

fn header_map(fields: &Fields) -> Result<HeaderMap, &'static str> {
    let mut headers = HeaderMap::with_capacity(fields.len() + 4);
    for (name, value) in fields.iter() {
        let name = HeaderName::from_bytes(&name).map_err(|_| "a field's name is no token")?;
        // Copied: a stored head would otherwise pin the whole message it came in.
        let value = HeaderValue::from_bytes(&value)
            .map_err(|_| "a field's value has control characters")?;
        headers.append(name, value);
    }
    Ok(headers)
}

fn without_hop_by_hop(mut headers: HeaderMap) -> HeaderMap {
    if headers.contains_key(header::CONNECTION) {
        for name in Nominated::of(&headers).0 {
            headers.remove(name);
        }
    }
    for name in [
        header::CONNECTION,
        header::PROXY_AUTHENTICATE,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ] {
        headers.remove(name);
    }
    for name in [
        "keep-alive",
        "proxy-connection",
        "proxy-authentication-info",
    ] {
        headers.remove(name);
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    fn refused(method: &str, fields: &[(&'static str, &'static str)]) -> Option<u16> {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let headers = headers(fields);
        check(
            &method,
            Version::HTTP_11,
            &headers,
            Present::of(&headers),
            4,
        )
        .err()
        .map(|bad| bad.status.as_u16())
    }

    #[test]
    fn ambiguous_requests_are_refused() {
        assert_eq!(refused("GET", &[("host", "a")]), None);
        assert_eq!(
            refused(
                "POST",
                &[("transfer-encoding", "chunked"), ("expect", "100-Continue")]
            ),
            None
        );
        assert_eq!(
            refused("GET", &[("connection", "keep-alive, x-mine")]),
            None
        );

        assert_eq!(refused("get", &[]), Some(400));
        assert_eq!(refused("TRACE", &[]), Some(405));
        assert_eq!(refused("CONNECT", &[]), Some(501));
        assert_eq!(
            refused("POST", &[("transfer-encoding", "gzip, chunked")]),
            Some(501)
        );
        assert_eq!(
            refused("POST", &[("connection", "close, Content-Length")]),
            Some(400)
        );
        assert_eq!(refused("GET", &[("connection", "host")]), Some(400));
        assert_eq!(refused("GET", &[("expect", "a-miracle")]), Some(417));
        let many = [("a", "1"), ("b", "1"), ("c", "1"), ("d", "1"), ("e", "1")];
        assert_eq!(refused("GET", &many[..4]), None);
        assert_eq!(refused("GET", &many), Some(431));
    }

    #[test]
    fn fields_of_the_connection_and_of_ours_do_not_cross() {
        let mut from = headers(&[
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "5"),
            ("te", "trailers"),
            ("upgrade", "websocket"),
            ("x-forwarded-host", "evil.example"),
            ("x-original-url", "/admin"),
            ("forwarded", "for=1"),
            ("scale0-debug", "token"),
            ("x_forwarded_for", "1.1.1.1"),
            ("true-client-ip", "1.1.1.1"),
            ("proxy", "http://evil.example"),
            ("host", "a"),
            ("expect", "100-continue"),
            ("accept", "*/*"),
            ("x_mine", "1"),
            ("cookie", "a=1"),
        ]);
        from.append("cookie", HeaderValue::from_static("b=2"));
        let present = Present::of(&from);
        let from = crossing(from, present);
        let fields = request_fields(&from, b"example.com", &[("via", b"1.1 n")]).unwrap();
        let mut crossed: Vec<_> = fields
            .iter()
            .map(|(name, value)| format!("{}: {}", str(&name), str(&value)))
            .collect();
        crossed.sort_unstable();
        assert_eq!(
            crossed,
            [
                "accept: */*",
                "cookie: a=1; b=2",
                "host: example.com",
                "via: 1.1 n",
                "x_mine: 1",
            ]
        );
    }

    #[test]
    fn an_upgrade_needs_both_fields_and_is_never_h2c() {
        let upgrade = |version, fields| {
            let headers = headers(fields);
            wanted_upgrade(version, &headers, Present::of(&headers)).is_some()
        };
        assert!(upgrade(
            Version::HTTP_11,
            &[
                ("connection", "keep-alive, Upgrade"),
                ("upgrade", "websocket")
            ]
        ));
        assert!(!upgrade(Version::HTTP_11, &[("upgrade", "websocket")]));
        assert!(!upgrade(
            Version::HTTP_10,
            &[("connection", "upgrade"), ("upgrade", "websocket")]
        ));
        assert!(!upgrade(
            Version::HTTP_11,
            &[
                ("connection", "upgrade, http2-settings"),
                ("upgrade", "h2c")
            ]
        ));
    }

    fn str(bytes: &Bytes) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }
}
