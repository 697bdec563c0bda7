use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use crate::curve::PublicKey;

/// The longest path of a Unix socket: `sun_path` has 108 bytes, the last of which is zero.
const IPC_PATH: usize = 107;

/// Where a socket is bound, or where to dial: `tcp://host:port` or `ipc://path`, with the public key of who is there, if the
/// connection is to be encrypted.
///
/// To bind, the host may be `*` (all interfaces), and the port `*` or 0 (any that is free).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    address: String,
    host: Option<Host>,
    server_key: Option<PublicKey>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Host {
    Any,
    Ip(IpAddr),
    Name(String),
}

impl Endpoint {
    /// The same place, where whoever answers must prove to have this key.
    #[must_use]
    pub fn with_server_key(mut self, key: PublicKey) -> Self {
        self.server_key = Some(key);
        self
    }

    /// The key of who is there.
    #[must_use]
    pub const fn server_key(&self) -> Option<&PublicKey> {
        self.server_key.as_ref()
    }

    /// As libzmq writes it.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether what is sent there stays on this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match &self.host {
            None => true,
            Some(Host::Any) => false,
            Some(Host::Ip(ip)) => ip.to_canonical().is_loopback(),
            Some(Host::Name(name)) => name.eq_ignore_ascii_case("localhost"),
        }
    }

    /// Whether it can be dialled: it names one host and one port.
    pub(crate) fn is_a_place(&self) -> bool {
        let is_any_port = [":*", ":0"].iter().any(|any| self.address.ends_with(any));
        match self.host {
            None => true,
            Some(Host::Any) => false,
            Some(Host::Ip(ip)) => !is_any_port && !ip.is_unspecified(),
            Some(Host::Name(_)) => !is_any_port,
        }
    }

    pub(crate) const fn is_ipv6(&self) -> bool {
        matches!(self.host, Some(Host::Ip(IpAddr::V6(_))))
    }
}

/// Why text is no endpoint. Its writer is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no endpoint: {expected}")]
pub struct EndpointError {
    text: String,
    expected: &'static str,
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let fail = |expected| EndpointError {
            text: text.to_owned(),
            expected,
        };
        if text.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return Err(fail("blanks and control characters have no place in it"));
        }
        let host = if let Some(path) = text.strip_prefix("ipc://") {
            if path.is_empty() || IPC_PATH < path.len() {
                return Err(fail("a path of 1 to 107 bytes is expected after ipc://"));
            }
            None
        } else if let Some(place) = text.strip_prefix("tcp://") {
            let (host, port) = place
                .rsplit_once(':')
                .ok_or_else(|| fail("a port is expected, tcp://host:port"))?;
            if port != "*" && port.parse::<u16>().is_err() {
                return Err(fail("the port is expected to be a number up to 65535"));
            }
            Some(parse_host(host).ok_or_else(|| {
                fail("the host is expected to be an address, [an IPv6 address], a name or *")
            })?)
        } else {
            return Err(fail("tcp://host:port or ipc://path is expected"));
        };
        Ok(Self {
            address: text.to_owned(),
            host,
            server_key: None,
        })
    }
}

fn parse_host(host: &str) -> Option<Host> {
    if host == "*" {
        return Some(Host::Any);
    }
    if let Some(ip) = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        return Some(Host::Ip(ip.parse::<Ipv6Addr>().ok()?.into()));
    }
    if let Ok(ip) = host.parse::<IpAddr>() {
        // Without brackets the last group of an IPv6 address would be taken for the port.
        return ip.is_ipv4().then_some(Host::Ip(ip));
    }
    let is_name = !host.is_empty()
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    is_name.then(|| Host::Name(host.to_owned()))
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tcp_and_ipc_with_a_place_to_go_are_endpoints() {
        for good in [
            "tcp://127.0.0.1:5701",
            "tcp://*:0",
            "tcp://[::1]:5701",
            "tcp://broker-1.fra.example:5701",
            "tcp://10.0.0.5:*",
            "ipc:///run/scale0.sock",
            "ipc://@abstract",
        ] {
            assert_eq!(good.parse::<Endpoint>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "127.0.0.1:5701",
            "tcp://127.0.0.1",
            "tcp://:5701",
            "tcp://::1:5701",
            "tcp://[127.0.0.1]:1",
            "tcp://host:65536",
            "tcp://host:port",
            "tcp://a/b:1",
            "inproc://broker",
            "ws://host:80",
            "ipc://",
            "tcp://host :1",
        ] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad:?}");
        }
        let long = format!("ipc://{}", "x".repeat(108));
        assert!(long.parse::<Endpoint>().is_err());
    }

    #[test]
    fn what_stays_on_the_machine_is_loopback() {
        let loopback = |text: &str| text.parse::<Endpoint>().unwrap().is_loopback();
        assert!(loopback("tcp://127.8.0.1:1"));
        assert!(loopback("tcp://[::1]:1"));
        assert!(loopback("tcp://[::ffff:127.0.0.1]:1"));
        assert!(loopback("tcp://LocalHost:1"));
        assert!(loopback("ipc:///run/scale0.sock"));
        assert!(!loopback("tcp://*:1"));
        assert!(!loopback("tcp://10.0.0.5:1"));
        assert!(!loopback("tcp://localhost.example:1"));
    }
}
