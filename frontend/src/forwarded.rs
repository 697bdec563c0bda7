//! Who the client is, and what is believed of what it says about others.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderMap;
use ipnet::IpNet;

/// The longest request id that is taken over.
const REQUEST_ID: usize = 128;

/// The proxies whose word is taken.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrustedProxies(Vec<IpNet>);

/// What is told on about a request's way.
#[derive(Debug)]
pub(crate) struct Origin {
    /// The client, as far as it is known.
    pub(crate) client: IpAddr,
    /// The client and the trusted proxies on the way.
    pub(crate) way: Way,
    /// Whether the client came over TLS.
    pub(crate) secure: bool,
    /// `X-Request-Id`.
    pub(crate) request_id: String,
}

/// Whom a request came by, as `X-Forwarded-For` tells it. Most requests tell nobody: they are answered here.
#[derive(Debug)]
pub(crate) struct Way {
    /// Before the peer, the first of them first.
    said: Vec<IpAddr>,
    peer: IpAddr,
}

impl fmt::Display for Way {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        for address in &self.said {
            write!(to, "{address}, ")?;
        }
        write!(to, "{}", self.peer)
    }
}

impl TrustedProxies {
    pub(crate) const fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Reads the request's way off its fields, as far as trusted proxies wrote them: the rightmost address that is not
    /// trusted is the client's.
    pub(crate) fn origin(
        &self,
        peer: SocketAddr,
        secure: bool,
        headers: &HeaderMap,
        ids: &RequestIds,
    ) -> Origin {
        let peer = peer.ip().to_canonical();
        if !self.trusts(peer) {
            return Origin {
                client: peer,
                way: Way {
                    said: Vec::new(),
                    peer,
                },
                secure,
                request_id: ids.next(),
            };
        }
        let mut said: Vec<IpAddr> = headers
            .get_all("x-forwarded-for")
            .into_iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(|address| address.trim().trim_matches(['[', ']']).parse().ok())
            // What stands left of something unreadable was vouched for by nobody.
            .fold(Vec::new(), |mut known, address| match address {
                Some(address) => {
                    known.push(address);
                    known
                }
                None => Vec::new(),
            });
        let client_at = said
            .iter()
            .rposition(|address| !self.trusts(*address))
            .unwrap_or(0);
        said.drain(..client_at);
        let secure = match headers
            .get("x-forwarded-proto")
            .map(http::HeaderValue::as_bytes)
        {
            Some(proto) => proto.eq_ignore_ascii_case(b"https"),
            None => secure,
        };
        let request_id = headers
            .get("x-request-id")
            .and_then(|id| id.to_str().ok())
            .filter(|id| {
                (1..=REQUEST_ID).contains(&id.len())
                    && id.bytes().all(|byte| byte.is_ascii_graphic())
            })
            .map_or_else(|| ids.next(), str::to_owned);
        Origin {
            client: said.first().copied().unwrap_or(peer),
            way: Way { said, peer },
            secure,
            request_id,
        }
    }
}

/// Makes request ids: unlike any other of this process, and unlike those of others by their beginning.
#[derive(Debug)]
pub(crate) struct RequestIds {
    beginning: String,
    next: AtomicU64,
}

impl RequestIds {
    pub(crate) fn new(instance: u64) -> Self {
        Self {
            beginning: format!("{instance:016x}-"),
            next: AtomicU64::new(1),
        }
    }

    fn next(&self) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut id = String::with_capacity(self.beginning.len() + 16);
        id.push_str(&self.beginning);
        // Without the formatter, which every hit would wait for.
        let digits = (u64::BITS - number.leading_zeros()).div_ceil(4).max(1);
        for digit in (0..digits).rev() {
            let [lowest, ..] = (number >> (4 * digit)).to_le_bytes();
            id.extend(char::from_digit(u32::from(lowest & 0xf), 16));
        }
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(peer: &str, fields: &[(&'static str, &'static str)]) -> Origin {
        let proxies = TrustedProxies::new(vec![
            "127.0.0.0/8".parse().unwrap(),
            "10.0.0.0/8".parse().unwrap(),
        ]);
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        proxies.origin(
            SocketAddr::new(peer.parse().unwrap(), 1),
            false,
            &headers,
            &RequestIds::new(7),
        )
    }

    #[test]
    fn nothing_is_believed_of_a_stranger() {
        let said = [
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x-request-id", "mine"),
        ];
        let origin = origin("192.0.2.1", &said);
        assert_eq!(origin.client.to_string(), "192.0.2.1");
        assert_eq!(origin.way.to_string(), "192.0.2.1");
        assert!(!origin.secure);
        assert_eq!(origin.request_id, "0000000000000007-1");
    }

    #[test]
    fn ids_are_counted_in_hexadecimal() {
        let ids = RequestIds::new(7);
        ids.next.store(0xf, Ordering::Relaxed);
        assert_eq!(ids.next(), "0000000000000007-f");
        assert_eq!(ids.next(), "0000000000000007-10");
        ids.next.store(u64::MAX, Ordering::Relaxed);
        assert_eq!(ids.next(), "0000000000000007-ffffffffffffffff");
        assert_eq!(ids.next(), "0000000000000007-0");
    }

    #[test]
    fn the_rightmost_untrusted_address_is_the_client() {
        let said = [
            ("x-forwarded-for", "6.6.6.6, 192.0.2.9"),
            ("x-forwarded-for", "10.1.1.1"),
            ("x-forwarded-proto", "HTTPS"),
            ("x-request-id", "mine"),
        ];
        let origin = origin("::ffff:127.0.0.1", &said);
        assert_eq!(origin.client.to_string(), "192.0.2.9");
        assert_eq!(origin.way.to_string(), "192.0.2.9, 10.1.1.1, 127.0.0.1");
        assert!(origin.secure);
        assert_eq!(origin.request_id, "mine");
    }

    #[test]
    fn what_stands_left_of_rubbish_is_not_believed() {
        let origin = origin(
            "127.0.0.1",
            &[
                ("x-forwarded-for", "192.0.2.9, rubbish, 10.0.0.2"),
                ("x-request-id", "two words"),
            ],
        );
        assert_eq!(origin.way.to_string(), "10.0.0.2, 127.0.0.1");
        assert_eq!(origin.request_id, "0000000000000007-1");
    }
}
