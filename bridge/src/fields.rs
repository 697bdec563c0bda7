//! Which header fields cross the bridge, either way (RFC 9110 §7.6.1, RFC 9112 §6).

use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::{self, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, request};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What `Connection` must not take away: it would change what the request means to the application.
const NEVER_NAMED: [&str; 6] = [
    "host",
    "content-length",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
];

/// The content of a request, as far as its framing goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// There is none.
    Zero,
    /// It has so many bytes.
    Exact,
    /// It ends when it ends, unless `Content-Length` says more.
    Unknown,
}

/// What the fields of a request ask of the connection to the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asks {
    /// To become another protocol.
    pub(crate) upgrade: bool,
    /// To say whether it wants the content, before it is sent.
    pub(crate) go_ahead: bool,
    /// To be repeatable, whatever its method.
    pub(crate) idempotency_key: bool,
    /// To carry trailer fields behind its content.
    pub(crate) trailers: bool,
}

/// Makes a request's head one for the application: origin-form, `Host`, no hop-by-hop fields, framing as its content has it.
///
/// An upgrade is asked for only where one `can_upgrade`, and never to another version of HTTP, in which a client could speak
/// to the application past all of Scale0.
pub(crate) fn for_application(
    head: &mut request::Parts,
    length: Length,
    can_upgrade: bool,
) -> Asks {
    let mut hop_by_hop = false;
    let mut has = Present::default();
    // One pass over the names there are costs less than a look-up for each that might be.
    for name in head.headers.keys() {
        match name.as_str() {
            "connection" | "keep-alive" | "proxy-connection" | "te" | "transfer-encoding"
            | "upgrade" => hop_by_hop = true,
            "host" => has.host = true,
            "content-length" => has.content_length = true,
            "expect" => has.expect = true,
            "trailer" => has.trailer = true,
            "idempotency-key" => has.idempotency_key = true,
            "x-forwarded-host" => has.forwarded_host = true,
            "x-forwarded-proto" => has.forwarded_proto = true,
            _ => {}
        }
    }
    let upgrade = if hop_by_hop {
        remove_request_hop_by_hop(&mut head.headers, can_upgrade)
    } else {
        false
    };
    set_forwarded(head, has);
    set_origin_form(head, has.host);
    head.version = http::Version::HTTP_11;

    match length {
        Length::Zero => {
            let means_content = matches!(head.method, Method::POST | Method::PUT | Method::PATCH);
            if has.content_length || means_content {
                let zero = HeaderValue::from_static("0");
                head.headers.insert(CONTENT_LENGTH, zero);
            }
        }
        // hyper writes the number itself: the fields cannot contradict it.
        Length::Exact => {
            head.headers.remove(CONTENT_LENGTH);
        }
        Length::Unknown if has.content_length => {}
        Length::Unknown => {
            let chunked = HeaderValue::from_static("chunked");
            head.headers.insert(TRANSFER_ENCODING, chunked);
        }
    }
    let continues = has.expect && length != Length::Zero;
    let go_ahead = continues && lists(&head.headers, &EXPECT, "100-continue");
    Asks {
        upgrade,
        go_ahead,
        idempotency_key: has.idempotency_key,
        trailers: has.trailer,
    }
}

#[derive(Clone, Copy, Default)]
struct Present {
    host: bool,
    content_length: bool,
    expect: bool,
    idempotency_key: bool,
    trailer: bool,
    forwarded_host: bool,
    forwarded_proto: bool,
}

/// Whether an upgrade is asked for remains; nothing else does, but `TE: trailers`.
fn remove_request_hop_by_hop(fields: &mut HeaderMap, can_upgrade: bool) -> bool {
    let upgrade = can_upgrade
        && fields.contains_key(UPGRADE)
        && !tokens(fields, &UPGRADE).any(|protocol| {
            let name = protocol.split('/').next().unwrap_or_default();
            name.eq_ignore_ascii_case("h2c") || name.eq_ignore_ascii_case("http")
        });
    let trailers = lists(fields, &TE, "trailers");
    remove_named_by_connection(fields, upgrade);
    for name in [KEEP_ALIVE, PROXY_CONNECTION, TE, TRANSFER_ENCODING] {
        fields.remove(name);
    }
    if upgrade {
        fields.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    } else {
        fields.remove(UPGRADE);
    }
    if trailers {
        fields.insert(TE, HeaderValue::from_static("trailers"));
        fields.append(CONNECTION, HeaderValue::from_static("te"));
    }
    upgrade
}

/// Proxies in front say how the client came; where nobody did, the target URI does.
fn set_forwarded(head: &mut request::Parts, has: Present) {
    if !has.forwarded_proto {
        let scheme = head.uri.scheme_str().unwrap_or("http");
        if let Ok(scheme) = HeaderValue::from_str(scheme) {
            head.headers.insert(FORWARDED_PROTO, scheme);
        }
    }
    if !has.forwarded_host
        && let Some(host) = authority(&head.uri).or_else(|| head.headers.get(HOST).cloned())
    {
        head.headers.insert(FORWARDED_HOST, host);
    }
}

/// The authority moves into `Host`, the path and query stay.
fn set_origin_form(head: &mut request::Parts, has_host: bool) {
    if let Some(host) = authority(&head.uri) {
        head.headers.insert(HOST, host);
    } else if !has_host {
        // RFC 9112 §3.2: a request without an authority has an empty Host.
        head.headers.insert(HOST, HeaderValue::from_static(""));
    }
    if head.uri.scheme().is_some()
        || head.uri.authority().is_some()
        || head.uri.path_and_query().is_none()
    {
        let mut parts = uri::Parts::default();
        let path = head.uri.path_and_query().cloned();
        parts.path_and_query = Some(path.unwrap_or(PathAndQuery::from_static("/")));
        head.uri = Uri::from_parts(parts).unwrap_or_default();
    }
}

fn authority(uri: &Uri) -> Option<HeaderValue> {
    let authority = uri.authority()?.as_str();
    let without_user = authority.rsplit('@').next()?;
    HeaderValue::from_str(without_user).ok()
}

/// What the fields of a response say about the connection it came on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leaves {
    /// Its framing is in doubt: the connection is not used again.
    pub(crate) doubtful: bool,
    /// How long the application says it will wait for another request.
    pub(crate) patience: Option<Duration>,
}

/// A transfer coding other than `chunked`: the content cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a transfer encoding that nobody asked for")]
pub(crate) struct UnknownEncoding;

/// Makes a response's fields ones for the client: no hop-by-hop fields, one `Content-Length` at most.
///
/// # Errors
/// Content in a transfer encoding that was not asked for.
pub(crate) fn for_client(fields: &mut HeaderMap) -> Result<Leaves, UnknownEncoding> {
    let mut hop_by_hop = false;
    let mut encoded = false;
    let mut lengths = 0;
    for (name, value) in fields.iter() {
        match name.as_str() {
            "connection" | "keep-alive" | "proxy-connection" | "te" | "upgrade" => {
                hop_by_hop = true;
            }
            "transfer-encoding" => {
                hop_by_hop = true;
                encoded = true;
            }
            "content-length" if value.as_bytes().contains(&b',') => lengths = 2,
            "content-length" => lengths += 1,
            _ => {}
        }
    }
    let mut leaves = Leaves::default();
    if encoded {
        let is_chunked = lists(fields, &TRANSFER_ENCODING, "chunked");
        let is_coded = tokens(fields, &TRANSFER_ENCODING).any(is_transfer_coding);
        if is_coded && !(is_chunked && tokens(fields, &TRANSFER_ENCODING).count() == 1) {
            return Err(UnknownEncoding);
        }
        // What names no coding at all codes nothing: hyper reads on until the connection closes, as RFC 9112 §6.3 has it where
        // `chunked` is not the last one.
        // RFC 9112 §6.3: the encoding wins, and somebody on the way may have read it otherwise.
        leaves.doubtful = fields.remove(CONTENT_LENGTH).is_some();
    } else if 1 < lengths {
        // hyper has checked that they all say the same.
        let first = tokens(fields, &CONTENT_LENGTH).next().unwrap_or_default();
        if let Ok(length) = HeaderValue::from_str(first) {
            fields.insert(CONTENT_LENGTH, length);
        }
        leaves.doubtful = true;
    }
    if hop_by_hop {
        leaves.patience = patience(fields);
        remove_named_by_connection(fields, false);
        for name in [KEEP_ALIVE, PROXY_CONNECTION, TE, TRANSFER_ENCODING, UPGRADE] {
            fields.remove(name);
        }
    }
    Ok(leaves)
}

/// Whether that is a transfer coding in earnest: those registered (RFC 9112 §7), and those of content that are taken for one.
fn is_transfer_coding(token: &str) -> bool {
    let name = token.split(';').next().unwrap_or_default().trim();
    [
        "chunked",
        "gzip",
        "x-gzip",
        "compress",
        "x-compress",
        "deflate",
        "br",
        "zstd",
    ]
    .iter()
    .any(|coding| name.eq_ignore_ascii_case(coding))
}

/// `Keep-Alive: timeout=5, max=100`
fn patience(fields: &HeaderMap) -> Option<Duration> {
    let seconds = tokens(fields, &KEEP_ALIVE).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let value = name
            .trim()
            .eq_ignore_ascii_case("timeout")
            .then_some(value)?;
        value.trim().parse().ok()
    })?;
    Some(Duration::from_secs(seconds))
}

fn remove_named_by_connection(fields: &mut HeaderMap, keep_upgrade: bool) {
    let plain = |value: &&HeaderValue| {
        let value = value.as_bytes();
        value.eq_ignore_ascii_case(b"keep-alive") || value.eq_ignore_ascii_case(b"close")
    };
    // Nearly always there is nothing to collect, and an empty one does not allocate.
    let lines = fields.get_all(CONNECTION).iter();
    let lines: Vec<HeaderValue> = lines.filter(|line| !plain(line)).cloned().collect();
    fields.remove(CONNECTION);
    let names = lines.iter().filter_map(|line| line.to_str().ok());
    for name in names.flat_map(|line| line.split(',')).map(str::trim) {
        let kept = keep_upgrade && name.eq_ignore_ascii_case("upgrade")
            || NEVER_NAMED
                .iter()
                .any(|never| never.eq_ignore_ascii_case(name));
        if !kept {
            fields.remove(name);
        }
    }
}

fn lists(fields: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(fields, name).any(|listed| listed.eq_ignore_ascii_case(token))
}

/// The comma-separated elements of a field, over all its lines.
fn tokens<'a>(fields: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> + use<'a> {
    fields
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn head(uri: &str, fields: &[(&str, &str)]) -> request::Parts {
        let mut request = Request::builder().uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn shown(fields: &HeaderMap) -> Vec<String> {
        let line = |(name, value): (&HeaderName, &HeaderValue)| {
            format!("{name}: {}", value.to_str().unwrap())
        };
        let mut lines: Vec<String> = fields.iter().map(line).collect();
        lines.sort();
        lines
    }

    fn response(fields: &[(&str, &str)]) -> (Result<Leaves, UnknownEncoding>, Vec<String>) {
        let mut map = head("/", fields).headers;
        let leaves = for_client(&mut map);
        (leaves, shown(&map))
    }

    #[test]
    fn a_request_arrives_in_origin_form_with_the_clients_host_and_what_proxies_add() {
        let mut head = head(
            "https://user@shop.example:8443/cart?id=7",
            &[("accept", "*/*")],
        );
        for_application(&mut head, Length::Zero, false);
        assert_eq!(head.uri.to_string(), "/cart?id=7");
        assert_eq!(
            shown(&head.headers),
            [
                "accept: */*",
                "host: shop.example:8443",
                "x-forwarded-host: shop.example:8443",
                "x-forwarded-proto: https",
            ]
        );
    }

    #[test]
    fn what_the_frontend_said_of_the_client_stays_as_it_is() {
        let fields = [
            ("host", "shop.example"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-host", "www.shop.example"),
            ("x-forwarded-proto", "https"),
        ];
        let mut head = head("/", &fields);
        for_application(&mut head, Length::Zero, false);
        let shown = shown(&head.headers);
        assert_eq!(
            shown,
            fields.map(|(name, value)| format!("{name}: {value}"))
        );
    }

    #[test]
    fn options_of_the_server_itself_keep_their_star() {
        let mut star = head("*", &[("host", "shop.example")]);
        for_application(&mut star, Length::Zero, false);
        assert_eq!(star.uri.to_string(), "*");
    }

    #[test]
    fn hop_by_hop_fields_and_those_named_by_connection_stay_behind_but_not_what_must_not_be_named()
    {
        let mut head = head(
            "/",
            &[
                ("host", "a"),
                ("connection", "keep-alive"),
                ("connection", "x-secret, X-Forwarded-For, host"),
                ("keep-alive", "timeout=5"),
                ("proxy-connection", "keep-alive"),
                ("te", "trailers, deflate"),
                ("transfer-encoding", "chunked"),
                ("upgrade", "websocket"),
                ("x-forwarded-for", "192.0.2.1"),
                ("x-forwarded-host", "a"),
                ("x-forwarded-proto", "http"),
                ("x-secret", "1"),
            ],
        );
        let asks = for_application(&mut head, Length::Zero, false);
        assert!(!asks.upgrade);
        assert_eq!(
            shown(&head.headers),
            [
                "connection: te",
                "host: a",
                "te: trailers",
                "x-forwarded-for: 192.0.2.1",
                "x-forwarded-host: a",
                "x-forwarded-proto: http",
            ]
        );
    }

    #[test]
    fn an_upgrade_is_passed_on_unless_to_another_http_past_our_eyes() {
        for (protocol, passed) in [
            ("websocket", true),
            ("h2c", false),
            ("websocket, h2c", false),
            ("HTTP/2.0", false),
        ] {
            let fields = [
                ("connection", "Upgrade"),
                ("upgrade", protocol),
                ("host", "a"),
            ];
            let mut head = head("/", &fields);
            let asks = for_application(&mut head, Length::Zero, true);
            assert_eq!(asks.upgrade, passed, "{protocol}");
            assert_eq!(head.headers.contains_key(UPGRADE), passed);
            assert_eq!(head.headers.contains_key(CONNECTION), passed);
        }
    }

    #[test]
    fn the_framing_follows_the_content_not_the_fields() {
        let framing = |method: Method, length, given: Option<&str>| {
            let given: Vec<_> = given
                .map(|given| ("content-length", given))
                .into_iter()
                .collect();
            let mut head = head("/", &given);
            head.method = method;
            for_application(&mut head, length, false);
            let value = |name| {
                head.headers
                    .get(name)
                    .map(|value| value.to_str().unwrap().to_owned())
            };
            (value(CONTENT_LENGTH), value(TRANSFER_ENCODING))
        };
        let zero = Some("0".to_owned());
        assert_eq!(framing(Method::GET, Length::Zero, None), (None, None));
        assert_eq!(
            framing(Method::GET, Length::Zero, Some("5")),
            (zero.clone(), None)
        );
        assert_eq!(framing(Method::POST, Length::Zero, None), (zero, None));
        assert_eq!(
            framing(Method::POST, Length::Exact, Some("9")),
            (None, None)
        );
        let kept = Some("9".to_owned());
        assert_eq!(
            framing(Method::POST, Length::Unknown, Some("9")),
            (kept, None)
        );
        let chunked = Some("chunked".to_owned());
        assert_eq!(framing(Method::GET, Length::Unknown, None), (None, chunked));
    }

    #[test]
    fn only_a_request_with_content_waits_for_a_go_ahead() {
        let fields = [("expect", "100-Continue")];
        let asks = for_application(&mut head("/", &fields), Length::Unknown, false);
        assert!(asks.go_ahead);
        let asks = for_application(&mut head("/", &fields), Length::Zero, false);
        assert!(!asks.go_ahead);
    }

    #[test]
    fn a_response_loses_its_hop_by_hop_fields_and_says_how_long_its_connection_lasts() {
        let (leaves, fields) = response(&[
            ("connection", "keep-alive, x-hop"),
            ("keep-alive", "timeout=5, max=100"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("x-hop", "1"),
            ("trailer", "x-sum"),
            ("etag", "\"1\""),
        ]);
        let patience = Some(Duration::from_secs(5));
        assert_eq!(
            leaves,
            Ok(Leaves {
                doubtful: false,
                patience
            })
        );
        assert_eq!(fields, ["etag: \"1\"", "trailer: x-sum"]);
    }

    #[test]
    fn two_framings_in_one_response_leave_one_and_doubt() {
        let (leaves, fields) =
            response(&[("transfer-encoding", "chunked"), ("content-length", "5")]);
        assert!(leaves.unwrap().doubtful);
        assert!(fields.is_empty());
        let (leaves, fields) = response(&[("content-length", "5"), ("content-length", "5")]);
        assert!(leaves.unwrap().doubtful);
        assert_eq!(fields, ["content-length: 5"]);
        let (leaves, fields) = response(&[("content-length", "5, 5")]);
        assert!(leaves.unwrap().doubtful);
        assert_eq!(fields, ["content-length: 5"]);
        for coded in [
            "gzip, chunked",
            "GZip",
            "chunked, chunked",
            "nonsense, chunked",
            "br;q=1",
        ] {
            let (leaves, _) = response(&[("transfer-encoding", coded)]);
            assert_eq!(leaves, Err(UnknownEncoding), "{coded}");
        }
    }

    #[test]
    fn a_transfer_encoding_that_names_no_coding_is_dropped_and_its_connection_too() {
        let (leaves, fields) =
            response(&[("transfer-encoding", "nonsense"), ("content-length", "5")]);
        assert!(leaves.unwrap().doubtful);
        assert!(fields.is_empty());
    }
}
