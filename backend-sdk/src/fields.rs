//! Header fields between `http` and the wire.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use scale0_wire::{DecodeError, Fields};

/// With which a backend names itself to the frontend's log; clients do not see it.
pub(crate) const BACKEND: &str = "scale0-backend";

/// Reads fields, with room for one more; the values share their buffer. None: they are none.
pub(crate) fn decode(fields: &Fields) -> Option<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(fields.len() + 1);
    for (name, value) in fields.iter() {
        let name = HeaderName::from_bytes(&name).ok()?;
        let value = HeaderValue::from_maybe_shared(value).ok()?;
        headers.try_append(name, value).ok()?;
    }
    Some(headers)
}

/// Writes what of these crosses to the client, and which node says so.
///
/// Hop-by-hop fields do not (RFC 9110 §7.6.1): neither the known ones nor those that `Connection` names. `Upgrade` does on a 101.
pub(crate) fn encode(
    headers: &HeaderMap,
    more: &[(&[u8], &[u8])],
    keep_upgrade: bool,
) -> Result<Fields, DecodeError> {
    let nominated = Nominated::of(headers);
    let crossing = headers
        .iter()
        .filter(|(name, _)| {
            !nominated.is_hop_by_hop(name) || (keep_upgrade && *name == header::UPGRADE)
        })
        .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
    Fields::new(crossing.chain(more.iter().copied()))
}

/// Writes trailer fields; those that frame or route a message have no place there (RFC 9110 §6.5.1).
pub(crate) fn encode_trailers(trailers: &HeaderMap) -> Result<Fields, DecodeError> {
    let nominated = Nominated::of(trailers);
    let crossing = trailers
        .iter()
        .filter(|(name, _)| {
            !nominated.is_hop_by_hop(name)
                && ![&header::CONTENT_LENGTH, &header::HOST, &header::TRAILER].contains(name)
        })
        .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
    Fields::new(crossing)
}

/// The names that `Connection` lists.
struct Nominated<'a>(Vec<&'a [u8]>);

impl<'a> Nominated<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let values = headers.get_all(header::CONNECTION).into_iter();
        let names = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        Self(names.map(<[u8]>::trim_ascii).collect())
    }

    fn is_hop_by_hop(&self, name: &HeaderName) -> bool {
        let is_known = matches!(
            *name,
            header::CONNECTION
                | header::PROXY_AUTHENTICATE
                | header::PROXY_AUTHORIZATION
                | header::TE
                | header::TRANSFER_ENCODING
                | header::UPGRADE
        ) || matches!(name.as_str(), "keep-alive" | "proxy-connection" | BACKEND);
        let is_named = |named: &&[u8]| named.eq_ignore_ascii_case(name.as_str().as_bytes());
        is_known || self.0.iter().any(is_named)
    }
}

/// The length that `Content-Length` states, where it states one.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(header::CONTENT_LENGTH)?;
    value.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn names(fields: &Fields) -> Vec<Bytes> {
        fields.iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn what_connection_names_and_what_is_hop_by_hop_anyway_does_not_cross() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("content-type", "text/plain"),
            ("connection", "close, X-Private"),
            ("connection", "x-other"),
            ("x-private", "1"),
            ("x-other", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("scale0-backend", "forged"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let plain = encode(&headers, &[(b"scale0-backend", b"shop-1")], false).unwrap();
        assert_eq!(names(&plain), ["content-type", "scale0-backend"]);
        let switching = encode(&headers, &[], true).unwrap();
        assert_eq!(names(&switching), ["content-type", "upgrade"]);
    }

    #[test]
    fn trailers_neither_frame_nor_route() {
        let mut trailers = HeaderMap::new();
        for name in [
            "content-length",
            "transfer-encoding",
            "host",
            "trailer",
            "x-checksum",
        ] {
            trailers.insert(name, HeaderValue::from_static("1"));
        }
        assert_eq!(names(&encode_trailers(&trailers).unwrap()), ["x-checksum"]);
    }

    #[test]
    fn fields_come_back_as_they_were_in_their_order() {
        let fields = Fields::new([
            (&b"set-cookie"[..], &b"a=1"[..]),
            (b"x-odd", b"\xff"),
            (b"set-cookie", b"b=2"),
        ])
        .unwrap();
        let headers = decode(&fields).unwrap();
        let cookies: Vec<_> = headers.get_all("set-cookie").iter().collect();
        assert_eq!(cookies, ["a=1", "b=2"]);
        assert_eq!(headers["x-odd"].as_bytes(), b"\xff");
        let bad = Fields::new([(&b"bad name"[..], &b"1"[..])]).unwrap();
        assert_eq!(decode(&bad), None);
    }
}
