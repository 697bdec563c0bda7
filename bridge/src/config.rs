//! What a bridge is told: which services, which application, how much at a time.

use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use http::Uri;
use http::uri::PathAndQuery;

/// Requests which one application is given at a time, unless told otherwise.
pub const DEFAULT_CONCURRENCY: NonZeroU32 = NonZeroU32::new(64).unwrap();

/// A bridge's settings. Every field has a sound default but the first two.
#[derive(Clone, Debug)]
pub struct BridgeConfig {
    /// The services it offers; `*` answers for any.
    pub services: Vec<String>,
    /// Where the application listens. Several are instances of the same application: each request goes to the one with the
    /// fewest outstanding requests.
    pub upstreams: Vec<Upstream>,
    /// How many requests the application is given at a time, all instances together. Too low leaves it idle, too high queues
    /// inside it, where no broker can send the work elsewhere.
    pub concurrency: NonZeroU32,
    /// How a bridge knows whether the application is well.
    pub health: Health,
    /// How long opening a connection may take. Longer than one lost SYN on the way, shorter than anybody waits gladly.
    pub connect_timeout: Duration,
    /// How long an unused connection is kept. Shorter than the application's own patience, or requests race with its closing;
    /// most popular servers wait 5 s or more, and one that says less in `Keep-Alive: timeout` is believed.
    pub idle_timeout: Duration,
    /// How many unused connections to each upstream every runtime thread keeps.
    pub idle_connections: usize,
}

impl BridgeConfig {
    /// These services from these upstreams, everything else by default.
    #[must_use]
    pub fn new(services: Vec<String>, upstreams: Vec<Upstream>) -> Self {
        Self {
            services,
            upstreams,
            concurrency: DEFAULT_CONCURRENCY,
            health: Health::default(),
            connect_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(4),
            idle_connections: 256,
        }
    }
}

/// How a bridge knows whether an upstream is well.
///
/// An upstream that refuses a connection, or that closes [`BROKEN_LIMIT`](crate::BROKEN_LIMIT) in a row without an answer over
/// `broken_for`, is *down*: it is sent nothing and probed at growing intervals until a probe succeeds. With a `path` an upstream that is up is
/// probed too, every `interval`.
#[derive(Clone, Debug)]
pub struct Health {
    /// A target which answers 2xx or 3xx while the application is well; without one a TCP (or Unix) connect is the probe.
    pub path: Option<PathAndQuery>,
    /// How often an upstream that is up is asked for `path`.
    pub interval: Duration,
    /// How long a probe may take.
    pub timeout: Duration,
    /// How many probes in a row must fail until an upstream counts as down.
    pub misses: u32,
    /// How long nothing may have been answered, too, before connections that are closed without an answer count: a URL that crashes
    /// its handler can be asked for so often that hardly anybody else's answer comes in between, and must not take the application
    /// away from the others.
    pub broken_for: Duration,
    /// How long an upstream that has just gone down is left alone; doubled after each probe that fails.
    pub backoff: Duration,
    /// The longest it is left alone.
    pub backoff_max: Duration,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            path: None,
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(2),
            misses: 2,
            broken_for: Duration::from_secs(1),
            backoff: Duration::from_millis(250),
            backoff_max: Duration::from_secs(5),
        }
    }
}

/// Where an application listens for HTTP/1.1: `http://host:port` or `unix:/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// A TCP port.
    Tcp {
        /// A name, or an address without brackets.
        host: String,
        /// The port; 80 where the URL named none.
        port: u16,
    },
    /// A Unix stream socket.
    Unix(PathBuf),
}

impl FromStr for Upstream {
    type Err = UpstreamError;

    fn from_str(text: &str) -> Result<Self, UpstreamError> {
        let refuse = |why| Err(UpstreamError::new(text, why));
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if !path.starts_with('/') {
                return refuse("a Unix socket needs an absolute path: unix:/run/app.sock");
            }
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        if text.starts_with("https://") {
            return refuse("https is not in this version; http://host:port or unix:/path");
        }
        let Ok(uri) = text.parse::<Uri>() else {
            return refuse("expected http://host:port or unix:/path");
        };
        let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return refuse("expected http://host:port or unix:/path");
        };
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return refuse("expected a host, and a port if it is not 80");
        }
        if uri.path_and_query().is_some_and(|path| path != "/") {
            return refuse("the path of a request is passed on as it is; leave it out here");
        }
        let after_host = &authority.as_str()[authority.host().len()..];
        let port = match (after_host, authority.port_u16()) {
            ("", None) => 80,
            (_, Some(port)) if port != 0 => port,
            _ => return refuse("expected a port between 1 and 65535"),
        };
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        Ok(Self::Tcp { host, port })
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "http://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "http://{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Why a text is no [`Upstream`]. The configuration's fault.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is no upstream: {why}")]
pub struct UpstreamError {
    text: String,
    why: &'static str,
}

impl UpstreamError {
    fn new(text: &str, why: &'static str) -> Self {
        let text = text.to_owned();
        Self { text, why }
    }
}

/// Why there is no bridge with these settings. The configuration's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A bridge to nowhere.
    #[error("a bridge needs at least one upstream")]
    NoUpstream,
    /// A bridge which nobody would ask.
    #[error("a bridge needs at least one service")]
    NoService,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_is_a_port_or_a_unix_socket_and_prints_as_it_is_written() {
        for text in [
            "http://127.0.0.1:3000",
            "http://[::1]:3000",
            "http://app.internal:80",
            "unix:/run/app.sock",
        ] {
            assert_eq!(text.parse::<Upstream>().unwrap().to_string(), text);
        }
        let named = "http://app/".parse::<Upstream>().unwrap();
        let (host, port) = ("app".to_owned(), 80);
        assert_eq!(named, Upstream::Tcp { host, port });
        let long = "unix:///run/app.sock".parse::<Upstream>().unwrap();
        assert_eq!(long, Upstream::Unix("/run/app.sock".into()));
    }

    #[test]
    fn what_is_no_upstream_is_refused_with_what_was_expected() {
        for (text, expected) in [
            ("https://app", "not in this version"),
            ("app:3000", "http://host:port"),
            ("http://app:0", "port between"),
            ("http://app:99999", "http"),
            ("http://app/api", "leave it out"),
            ("http://me@app", "expected a host"),
            ("unix:app.sock", "absolute path"),
            ("", "http://host:port"),
        ] {
            let error = text.parse::<Upstream>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
