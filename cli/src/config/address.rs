//! Addresses: of listeners, brokers, proxies and the applications behind a bridge.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde::{Serialize, Serializer};

use super::nearest;
use super::text::{Text, deserialize_text, misfit, serialize_text};

/// An address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listen(pub(super) SocketAddr);

impl Text for Listen {
    const EXPECTED: &'static str = "an address and port such as \"127.0.0.1:8080\"";

    fn read(text: &str) -> Result<Self, &'static str> {
        text.parse()
            .map(Self)
            .map_err(|_| match text.rsplit_once(':') {
                Some((_, port)) if port.parse::<u16>().is_err() => {
                    "the port is no number up to 65535"
                }
                None => "the port is missing",
                Some(_) => "an IP address is wanted, in [ ] if it is of version 6",
            })
    }
}

/// A network of proxies; a single address is a network of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Net(pub(super) IpNet);

impl Text for Net {
    const EXPECTED: &'static str =
        "a network such as \"10.0.0.0/8\" or an address such as \"127.0.0.1\"";

    fn read(text: &str) -> Result<Self, &'static str> {
        text.parse()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
            .map(Self)
            .map_err(|_| "")
    }
}

/// Where a ZeroMQ socket is: `tcp://host:port` or `ipc://path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// Over TCP. The host is a name, an address (of version 6 in brackets), or `*` where it is bound.
    Tcp {
        /// The host as written.
        host: String,
        /// The port; 0, where it is bound, is any that is free.
        port: u16,
    },
    /// A Unix socket at this path.
    Ipc(String),
}

impl Endpoint {
    /// A port of this machine.
    pub(super) fn loopback(port: u16) -> Self {
        Self::Tcp {
            host: "127.0.0.1".to_owned(),
            port,
        }
    }

    /// Whether only this machine reaches it.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Tcp { host, .. } => {
                host == "localhost" || ip(host).is_some_and(|ip| ip.to_canonical().is_loopback())
            }
            Self::Ipc(_) => true,
        }
    }

    /// Whether a socket can be bound to it: it needs an address of this machine, not a name.
    pub(super) fn can_be_bound(&self) -> bool {
        match self {
            Self::Tcp { host, .. } => host == "*" || ip(host).is_some(),
            Self::Ipc(_) => true,
        }
    }

    /// Whether it can be dialled: it needs a port and a host.
    pub(super) fn can_be_dialled(&self) -> bool {
        !matches!(self, Self::Tcp { host, port } if *port == 0 || host == "*")
    }

    /// Whether dialling it from this machine reaches what is bound at `bound`.
    pub(super) fn reaches(&self, bound: &Self) -> bool {
        match (self, bound) {
            (Self::Tcp { port: ours, .. }, Self::Tcp { host, port }) if ours == port => {
                self == bound
                    || self.is_local()
                        && (bound.is_local()
                            || host == "*"
                            || ip(host).is_some_and(|ip| ip.is_unspecified()))
            }
            _ => self == bound,
        }
    }

    /// Whether the two cannot both be bound.
    pub(super) fn collides(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Tcp { host: one, port },
                Self::Tcp {
                    host: two,
                    port: also,
                },
            ) if port == also && *port != 0 => {
                let is_wild =
                    |host: &str| host == "*" || ip(host).is_some_and(|ip| ip.is_unspecified());
                one == two || is_wild(one) || is_wild(two)
            }
            (Self::Ipc(one), Self::Ipc(two)) => one == two,
            _ => false,
        }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(listen: SocketAddr) -> Self {
        let host = match listen.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        Self::Tcp {
            host,
            port: listen.port(),
        }
    }
}

/// The address a host is, if it is one.
fn ip(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[') {
        Some(rest) => rest
            .strip_suffix(']')?
            .parse::<Ipv6Addr>()
            .ok()
            .map(IpAddr::V6),
        None => host.parse().ok().filter(IpAddr::is_ipv4),
    }
}

impl Text for Endpoint {
    const EXPECTED: &'static str =
        "an endpoint such as \"tcp://127.0.0.1:5701\" or \"ipc:///run/scale0.sock\"";

    fn read(text: &str) -> Result<Self, &'static str> {
        if let Some(path) = text.strip_prefix("ipc://") {
            // The kernel's `sockaddr_un` ends there.
            return match path.len() {
                _ if !path.bytes().all(|byte| b' ' < byte && byte != 0x7f) => {
                    Err("the path has blanks or control characters in it")
                }
                0 => Err("the path is missing"),
                1..=107 => Ok(Self::Ipc(path.to_owned())),
                _ => Err("the path is longer than 107 characters"),
            };
        }
        let (host, port) = text
            .strip_prefix("tcp://")
            .ok_or("it starts with tcp:// or ipc://")?
            .rsplit_once(':')
            .ok_or("the port is missing")?;
        let port = if port == "*" {
            0
        } else {
            port.parse()
                .map_err(|_| "the port is no number up to 65535")?
        };
        if host == "*" {
            Ok(Self::Tcp {
                host: host.to_owned(),
                port,
            })
        } else {
            check_host(host).map(|host| Self::Tcp { host, port })
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Self::Ipc(path) => write!(f, "ipc://{path}"),
        }
    }
}

/// A host name, an address of version 4, or one of version 6 in brackets.
fn check_host(host: &str) -> Result<String, &'static str> {
    if ip(host).is_some() {
        return Ok(host.to_owned());
    }
    let is_name = !host.is_empty()
        && host.len() <= 253
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    match is_name {
        true => Ok(host.to_ascii_lowercase()),
        false if host.parse::<Ipv6Addr>().is_ok() => Err("an IPv6 address stands in [ ]"),
        false => Err("the host is neither a name nor an address"),
    }
}

/// A broker of another process: a bare endpoint, or one with the key that proves it is the right one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BrokerAddress {
    /// Where it is.
    pub(crate) endpoint: Endpoint,
    /// The broker's CURVE key. With it the connection is encrypted and nobody else can answer.
    pub(crate) public_key: Option<PublicKey>,
}

const BROKER_KEYS: &[&str] = &["endpoint", "public_key"];

impl<'de> Deserialize<'de> for BrokerAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BrokerVisitor)
    }
}

struct BrokerVisitor;

impl<'de> Visitor<'de> for BrokerVisitor {
    type Value = BrokerAddress;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, or {{ endpoint = \"…\", public_key = \"…\" }}",
            Endpoint::EXPECTED
        )
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<BrokerAddress, E> {
        let endpoint =
            Endpoint::read(text).map_err(|why| E::custom(misfit::<Endpoint>(text, why)))?;
        Ok(BrokerAddress {
            endpoint,
            public_key: None,
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<BrokerAddress, A::Error> {
        let (mut endpoint, mut public_key) = (None, None);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "endpoint" => endpoint = Some(map.next_value()?),
                "public_key" => public_key = Some(map.next_value()?),
                _ => {
                    let near = nearest::nearest(&key, BROKER_KEYS)
                        .map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
                    return Err(A::Error::custom(format!(
                        "expected the keys `endpoint` and `public_key`, found `{key}`{near}"
                    )));
                }
            }
        }
        let endpoint =
            endpoint.ok_or_else(|| A::Error::custom("expected the key `endpoint`, found none"))?;
        Ok(BrokerAddress {
            endpoint,
            public_key,
        })
    }
}

impl Serialize for BrokerAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.public_key {
            None => self.endpoint.serialize(serializer),
            Some(key) => serializer.collect_map([
                (BROKER_KEYS[0], self.endpoint.to_string()),
                (BROKER_KEYS[1], key.to_string()),
            ]),
        }
    }
}

/// The public half of a CURVE key pair, in ZeroMQ's Z85 text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PublicKey(pub(crate) scale0_transport::PublicKey);

impl Text for PublicKey {
    const EXPECTED: &'static str = "a public key of 40 characters in Z85";

    fn read(text: &str) -> Result<Self, &'static str> {
        text.parse().map(Self).map_err(|_| "")
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where the application behind a bridge listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Upstream {
    /// HTTP/1.1 over TCP.
    Http {
        /// A name, or an address (of version 6 in brackets).
        host: String,
        /// Its port, 80 unless it was written.
        port: u16,
    },
    /// HTTP/1.1 over a Unix socket.
    Unix(PathBuf),
}

impl Text for Upstream {
    const EXPECTED: &'static str =
        "an upstream such as \"http://127.0.0.1:3000\" or \"unix:/run/app.sock\"";

    fn read(text: &str) -> Result<Self, &'static str> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path.starts_with('/') && !path.contains('\0') {
                true => Ok(Self::Unix(path.into())),
                false => Err("the path starts with \"/\""),
            };
        }
        if text.starts_with("https://") {
            return Err("https is not in this version");
        }
        let authority = text
            .strip_prefix("http://")
            .ok_or("it starts with http:// or unix:")?;
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        if authority.contains(['/', '?', '#']) {
            return Err("a bridge passes the request's own path on; leave the path out");
        }
        if authority.contains('@') {
            return Err("no user and password here");
        }
        // The last colon of `[::1]` belongs to the address.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (
                host,
                port.parse()
                    .ok()
                    .filter(|port| *port != 0)
                    .ok_or("the port is no port")?,
            ),
            _ => (authority, 80),
        };
        check_host(host).map(|host| Self::Http { host, port })
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { host, port } => write!(f, "http://{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

deserialize_text!(Listen, Net, Endpoint, PublicKey, Upstream);
serialize_text!(Endpoint, PublicKey, Upstream);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn endpoint(text: &str) -> Endpoint {
        Endpoint::read(text).unwrap()
    }

    #[test]
    fn every_address_reads_back_as_it_is_written() {
        for text in [
            "tcp://127.0.0.1:5701",
            "tcp://[::1]:0",
            "tcp://*:5701",
            "tcp://broker.example:1",
            "ipc:///run/a.sock",
        ] {
            assert_eq!(endpoint(text).to_string(), text);
        }
        for (text, written) in [
            ("http://127.0.0.1:3000", "http://127.0.0.1:3000"),
            ("http://App.example/", "http://app.example:80"),
            ("http://[::1]", "http://[::1]:80"),
            ("unix:/run/app.sock", "unix:/run/app.sock"),
            ("unix:///run/app.sock", "unix:/run/app.sock"),
        ] {
            assert_eq!(Upstream::read(text).unwrap().to_string(), written);
        }
    }

    #[test]
    fn a_wrong_address_is_refused_with_its_reason() {
        for (text, why) in [
            ("127.0.0.1:5701", "it starts with tcp:// or ipc://"),
            ("tcp://127.0.0.1", "the port is missing"),
            ("tcp://::1:5701", "an IPv6 address stands in [ ]"),
            ("tcp://:5701", "the host is neither a name nor an address"),
            ("ipc://", "the path is missing"),
            (
                "ipc:///a b",
                "the path has blanks or control characters in it",
            ),
        ] {
            assert_eq!(Endpoint::read(text), Err(why), "{text}");
        }
        for (text, why) in [
            ("https://app", "https is not in this version"),
            ("app:3000", "it starts with http:// or unix:"),
            (
                "http://app/base",
                "a bridge passes the request's own path on; leave the path out",
            ),
            ("http://user:secret@app", "no user and password here"),
            ("http://app:0", "the port is no port"),
            ("unix:", "the path starts with \"/\""),
            ("unix:app.sock", "the path starts with \"/\""),
        ] {
            assert_eq!(Upstream::read(text), Err(why), "{text}");
        }
    }

    #[test]
    fn a_public_key_is_forty_digits_that_are_bytes() {
        let key = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7";
        assert_eq!(
            PublicKey::read(key).map(|key| key.to_string()),
            Ok(key.to_owned())
        );
        for wrong in [
            "",
            &key[1..],
            &"#".repeat(40),
            &"é".repeat(20),
            &key.replace('r', "\""),
        ] {
            assert!(PublicKey::read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_only_this_machine_reaches_is_local() {
        for local in [
            "tcp://127.0.0.1:1",
            "tcp://127.9.9.9:1",
            "tcp://[::1]:1",
            "tcp://[::ffff:127.0.0.1]:1",
            "tcp://localhost:1",
            "ipc:///a",
        ] {
            assert!(endpoint(local).is_local(), "{local}");
        }
        for far in [
            "tcp://*:1",
            "tcp://0.0.0.0:1",
            "tcp://10.0.0.1:1",
            "tcp://localhost.example:1",
            "tcp://[::]:1",
        ] {
            assert!(!endpoint(far).is_local(), "{far}");
        }
    }

    #[test]
    fn this_machines_own_broker_is_recognised_under_its_other_addresses() {
        assert!(endpoint("tcp://127.0.0.1:1").reaches(&endpoint("tcp://0.0.0.0:1")));
        assert!(endpoint("tcp://localhost:1").reaches(&endpoint("tcp://127.0.0.1:1")));
        assert!(!endpoint("tcp://10.0.0.1:1").reaches(&endpoint("tcp://127.0.0.1:1")));
        assert!(!endpoint("tcp://127.0.0.1:2").reaches(&endpoint("tcp://127.0.0.1:1")));
    }

    proptest! {
        #[test]
        fn no_text_makes_a_reader_panic(text in "(tcp://|ipc://|http://|unix:)?\\PC*") {
            let _ = Listen::read(&text);
            let _ = Net::read(&text);
            let _ = Endpoint::read(&text);
            let _ = Upstream::read(&text);
        }
    }
}
