//! Names: of nodes, sites, services and hosts, and the paths of requests.

use std::fmt;
use std::ops::Deref;

use super::text::{Text, deserialize_text, serialize_text};

/// The longest name the protocol carries: that of a DNS name, of which most are one.
const LONGEST: usize = 253;

/// Gives a checked text its ways out.
macro_rules! checked_text {
    ($($type:ty),+) => {$(
        impl Deref for $type {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0
            }
        }
    )+};
}

/// The name of a node or a site: a token (RFC 9110 §5.6.2), because `Via` and metric labels carry it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name(String);

impl Name {
    /// The site of those who have only one.
    pub(super) fn local() -> Self {
        Self("local".to_owned())
    }
}

impl Text for Name {
    const EXPECTED: &'static str = "a name such as \"fra-1\"";

    fn read(text: &str) -> Result<Self, &'static str> {
        match text {
            "" => Err("it is empty"),
            _ if LONGEST < text.len() => Err("it is longer than 253 characters"),
            _ if !text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)) =>
            {
                Err("a name has letters, digits, \"-\", \".\", \"_\" and \"~\"")
            }
            _ => Ok(Self(text.to_owned())),
        }
    }
}

/// What a backend offers and a route asks for, in lower case: often a host name, or `*` for whatever nobody else offers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ServiceName(String);

impl ServiceName {
    /// The service of whoever announced `*`.
    pub(crate) fn any() -> Self {
        Self("*".to_owned())
    }
}

impl Text for ServiceName {
    const EXPECTED: &'static str = "a service such as \"www.example.com\", or \"*\"";

    fn read(text: &str) -> Result<Self, &'static str> {
        match text {
            "*" => Ok(Self::any()),
            "" => Err("it is empty"),
            _ if LONGEST < text.len() => Err("it is longer than 253 characters"),
            _ if text.contains('*') => Err("\"*\" stands alone"),
            _ if !text
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !b"\"\\,;/".contains(&byte)) =>
            {
                Err("a service has letters, digits and signs such as \"-\", \".\" and \"_\"")
            }
            _ => Ok(Self(text.to_ascii_lowercase())),
        }
    }
}

/// The hosts a route is for, without their port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HostPattern {
    /// `*`: every host.
    Any,
    /// `*.example.com`: the hosts below `example.com`, which is what is kept here.
    Under(String),
    /// This host, in lower case.
    Exact(String),
}

impl HostPattern {
    /// Whether every host that `other` is for is one of ours.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let is_below = |host: &str, domain: &str| {
            host.strip_suffix(domain)
                .is_some_and(|rest| rest.ends_with('.'))
        };
        match (self, other) {
            (Self::Any, _) => true,
            (Self::Under(ours), Self::Under(theirs)) => ours == theirs || is_below(theirs, ours),
            (Self::Under(ours), Self::Exact(host)) => is_below(host, ours),
            (ours, theirs) => ours == theirs,
        }
    }
}

impl Text for HostPattern {
    const EXPECTED: &'static str = "a host such as \"www.example.com\", \"*.example.com\" or \"*\"";

    fn read(text: &str) -> Result<Self, &'static str> {
        let is_ipv6 = text.starts_with('[')
            && text.ends_with(']')
            && text[1..text.len() - 1]
                .parse::<std::net::Ipv6Addr>()
                .is_ok();
        let host = |host: &str| match host {
            "" => Err("it is empty"),
            _ if LONGEST < host.len() => Err("it is longer than 253 characters"),
            _ if is_ipv6 => Ok(host.to_ascii_lowercase()),
            _ if host.contains(':') => {
                Err("a route is for a host whatever its port; leave the port out")
            }
            _ if host.contains('*') => Err("\"*\" stands alone or as \"*.\" before a domain"),
            _ if !host
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) =>
            {
                Err("this is no host's name")
            }
            _ => Ok(host.to_ascii_lowercase()),
        };
        match text.strip_prefix("*.") {
            _ if text == "*" => Ok(Self::Any),
            Some(domain) => host(domain).map(Self::Under),
            None => host(text).map(Self::Exact),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Under(domain) => write!(f, "*.{domain}"),
            Self::Exact(host) => f.write_str(host),
        }
    }
}

/// A path as it stands in a request line: from `/`, without query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestPath(String);

impl RequestPath {
    /// The path of everything.
    pub(super) fn root() -> Self {
        Self("/".to_owned())
    }

    /// Whether every path below `other` is below this one too. Below `/api` are `/api`, `/api/` and `/api/x`; below `/api/`
    /// only the last two.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let trunk = self.0.strip_suffix('/').unwrap_or(&self.0);
        let rest = other.0.strip_prefix(trunk);
        rest.is_some_and(|rest| rest.starts_with('/') || rest.is_empty() && trunk == self.0)
    }
}

impl Text for RequestPath {
    const EXPECTED: &'static str = "a path such as \"/api/\"";

    fn read(text: &str) -> Result<Self, &'static str> {
        match text {
            _ if !text.starts_with('/') => Err("it starts with \"/\""),
            _ if text.contains(['?', '#']) => Err("it has no query and no fragment"),
            _ if !text.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Err("other characters are written as %20 and the like")
            }
            // A request's path has none left when it meets a route.
            _ if text.split('/').any(|segment| matches!(segment, "." | "..")) => {
                Err("no segment is \".\" or \"..\"")
            }
            _ if !text.split('%').skip(1).all(is_escape) => {
                Err("\"%\" is followed by two hexadecimal digits")
            }
            _ => Ok(Self(text.to_owned())),
        }
    }
}

fn is_escape(after_percent: &str) -> bool {
    let digits = after_percent.as_bytes().get(..2);
    digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
}

checked_text!(Name, ServiceName, RequestPath);
deserialize_text!(Name, ServiceName, HostPattern, RequestPath);
serialize_text!(Name, ServiceName, HostPattern, RequestPath);

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> HostPattern {
        HostPattern::read(text).unwrap()
    }

    fn path(text: &str) -> RequestPath {
        RequestPath::read(text).unwrap()
    }

    #[test]
    fn hosts_and_services_are_compared_in_lower_case() {
        assert_eq!(
            host("WWW.Example.com"),
            HostPattern::Exact("www.example.com".into())
        );
        assert_eq!(
            host("*.Example.com"),
            HostPattern::Under("example.com".into())
        );
        assert_eq!(host("[::1]"), HostPattern::Exact("[::1]".into()));
        assert_eq!(&*ServiceName::read("Shop").unwrap(), "shop");
    }

    #[test]
    fn a_host_with_a_port_and_a_lost_star_are_refused() {
        for text in [
            "",
            "example.com:80",
            "www.*.com",
            "**",
            "*.",
            "a b",
            "[::1",
            "[x]",
        ] {
            assert!(HostPattern::read(text).is_err(), "{text}");
        }
        for text in ["", "a*", "a b", "a/b", "a,b", "é"] {
            assert!(ServiceName::read(text).is_err(), "{text}");
        }
        for text in ["", "api", "/a?b", "/a b", "/é", "/a/../b", "/%4", "/%zz"] {
            assert!(RequestPath::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_pattern_covers_what_the_router_would_match() {
        assert!(host("*").covers(&host("*.example.com")));
        assert!(host("*.example.com").covers(&host("www.example.com")));
        assert!(host("*.example.com").covers(&host("a.b.example.com")));
        assert!(host("*.example.com").covers(&host("*.b.example.com")));
        assert!(!host("*.example.com").covers(&host("example.com")));
        assert!(!host("*.example.com").covers(&host("badexample.com")));
        assert!(!host("www.example.com").covers(&host("*")));
        assert!(path("/").covers(&path("/api/")));
        assert!(path("/api").covers(&path("/api/")) && path("/api").covers(&path("/api/x")));
        assert!(!path("/api/").covers(&path("/api")));
        assert!(!path("/api").covers(&path("/apiary")));
    }
}
