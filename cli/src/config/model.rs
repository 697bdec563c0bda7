//! The checked configuration: what it says can be done, and no two parts of it contradict each other.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use scale0_transport::SecretKey;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::address::{BrokerAddress, Endpoint, Upstream};
use super::allowed::Allowed;
use super::choices::{AccessLog, Affinity, Coalesce, LogLevel, Priority, SetCookie, Store};
use super::names::{HostPattern, Name, RequestPath, ServiceName};
use super::others::OtherBroker;
use super::units::{ByteCount, Percent, Time};

/// What a process is and does. At least one of `frontend`, `broker` and `bridges` is there; no two listeners share an address.
///
/// What the settings mean in detail is said where they are declared, in `settings.rs`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    /// This process among the others.
    pub(crate) node: Node,
    /// The place it stands in.
    pub(crate) site: Site,
    /// Answers HTTP.
    pub(crate) frontend: Option<Frontend>,
    /// Brings requests and backends together.
    pub(crate) broker: Option<Broker>,
    /// Make applications backends.
    pub(crate) bridges: Vec<Bridge>,
    /// What the process bears.
    pub(crate) limits: Limits,
    /// Whom the sockets trust.
    pub(crate) security: Security,
    /// Health, metrics, status, drain. None: no such listener.
    pub(crate) admin: Option<Admin>,
    /// What is written about the work.
    pub(crate) log: Log,
}

/// This process among the others.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Node {
    /// Its name, unlike any other node's.
    pub(crate) name: Name,
}

/// The place a node stands in.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Site {
    /// Its name, the same for all its nodes.
    pub(crate) name: Name,
}

/// Answers HTTP.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Frontend {
    /// Where, without TLS. Not empty.
    pub(crate) http: Vec<SocketAddr>,
    /// Whom it dials.
    pub(crate) brokers: Brokers,
    /// Who is believed about the client.
    #[serde(serialize_with = "texts")]
    pub(crate) trusted_proxies: Vec<IpNet>,
    /// Where it waits for its successor. Not with a broker in the same process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) handover: Option<PathBuf>,
    /// The first that matches wins, and each can be the first. None matches: the service named like the host, then `*`, with
    /// the defaults of [`Limits`].
    #[serde(skip)]
    pub(crate) routes: Vec<Route>,
    /// What it keeps of responses.
    #[serde(skip)]
    pub(crate) cache: Cache,
}

/// Whom a frontend or a bridge talks to: never nobody.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Brokers {
    in_process: bool,
    addresses: Vec<BrokerAddress>,
}

impl Brokers {
    /// The broker of this process, if there is one, and those of others. None if there is neither. An address at which this
    /// process's own broker is bound must have been left out.
    pub(super) fn new(in_process: bool, addresses: Vec<BrokerAddress>) -> Option<Self> {
        (in_process || !addresses.is_empty()).then_some(Self {
            in_process,
            addresses,
        })
    }

    /// Whether the broker of this very process is one of them. It is reached without a socket.
    pub(crate) fn in_process(&self) -> bool {
        self.in_process
    }

    /// The brokers of other processes.
    pub(crate) fn addresses(&self) -> &[BrokerAddress] {
        &self.addresses
    }
}

impl Serialize for Brokers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.addresses.serialize(serializer)
    }
}

/// Which service answers what, and how.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Route {
    /// For which hosts.
    pub(crate) host: HostPattern,
    /// For which paths: a prefix on segment boundaries.
    pub(crate) path: RequestPath,
    /// Who answers.
    pub(crate) service: ServiceName,
    /// From the end of the request's head to the response's head. Not zero.
    #[serde(serialize_with = "time")]
    pub(crate) timeout: Duration,
    /// Between two pieces of a response's body. Not zero.
    #[serde(serialize_with = "time")]
    pub(crate) idle_timeout: Duration,
    /// Which identical requests are one.
    pub(crate) coalesce: Coalesce,
    /// Whether responses are stored.
    #[serde(serialize_with = "switch")]
    pub(crate) cache: bool,
    /// How long a request waits for a backend to come. May be zero.
    #[serde(serialize_with = "time")]
    pub(crate) hold: Duration,
    /// Who goes first.
    pub(crate) priority: Priority,
    /// Which requests go to one backend.
    pub(crate) affinity: Affinity,
    /// Whether a late request is sent to a second backend.
    #[serde(serialize_with = "switch")]
    pub(crate) hedge: bool,
}

/// What a frontend keeps of responses.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Cache {
    /// How much memory all stored responses fill. Zero: none are stored in memory.
    pub(crate) memory: ByteCount,
    /// The largest of them, not beyond `memory`.
    pub(crate) memory_max_object: ByteCount,
    /// How much of a body in flight is kept.
    pub(crate) flight_buffer: ByteCount,
    /// Whether responses with `Set-Cookie` are stored.
    pub(crate) set_cookie: SetCookie,
    /// What lies behind the memory.
    pub(crate) store: Store,
    /// The folder of the store.
    pub(crate) path: PathBuf,
    /// How much the store fills.
    pub(crate) capacity: ByteCount,
}

/// What one process bears.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Limits {
    /// Client connections open at once.
    pub(crate) max_connections: usize,
    /// A request's head.
    pub(crate) header_bytes: ByteCount,
    /// A request's fields.
    pub(crate) header_count: usize,
    /// A request's body.
    pub(crate) body_bytes: ByteCount,
    /// For a request's head to arrive. Not zero.
    #[serde(serialize_with = "time")]
    pub(crate) header_timeout: Duration,
    /// For the next request on an idle connection. Not zero.
    #[serde(serialize_with = "time")]
    pub(crate) keepalive_timeout: Duration,
    /// Bytes per second of a body. Zero: no such bound.
    pub(crate) min_rate: ByteCount,
    /// Bytes on their way through.
    pub(crate) in_flight_bytes: ByteCount,
    /// Upgraded connections and event streams open at once.
    pub(crate) max_streams: usize,
    /// For work in flight to end. May be zero.
    #[serde(serialize_with = "time")]
    pub(crate) drain_timeout: Duration,
    /// [`Route::timeout`] where no route matches.
    #[serde(serialize_with = "time")]
    pub(crate) timeout: Duration,
    /// [`Route::idle_timeout`] where no route matches.
    #[serde(serialize_with = "time")]
    pub(crate) idle_timeout: Duration,
    /// [`Route::hold`] where no route matches.
    #[serde(serialize_with = "time")]
    pub(crate) hold: Duration,
    /// Bytes of requests that wait in a broker.
    pub(crate) queued_bytes: ByteCount,
}

/// Brings requests and backends together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Broker {
    /// Where frontends connect.
    pub(crate) frontends: Endpoint,
    /// Where backends connect.
    pub(crate) backends: Endpoint,
    /// Where other sites' brokers connect.
    pub(crate) peers: Endpoint,
    /// Where its peers may go when it leaves: no two of one node, no more than a message names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) others: Vec<OtherBroker>,
    /// How often both sides of a link are heard: between one second and the protocol's most.
    #[serde(serialize_with = "time")]
    pub(crate) heartbeat: Duration,
    /// Services known from the start, no two of one name.
    #[serde(skip)]
    pub(crate) services: Vec<Service>,
}

/// What belongs to a service rather than to a request.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Service {
    /// As backends announce it.
    pub(crate) name: ServiceName,
    /// The most requests that wait for a backend.
    pub(crate) queue: usize,
    /// The most bytes they hold.
    pub(crate) queue_bytes: ByteCount,
    /// Backends that must have come before the first request is sent. Not zero.
    pub(crate) min_backends: usize,
    /// The most requests at all backends; none: what these take. Not zero.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) outstanding: Option<usize>,
    /// The part of a shared backend's room that it may fill.
    pub(crate) share: Percent,
}

/// Makes an application a backend.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Bridge {
    /// What it answers for. Not empty, no two equal.
    pub(crate) services: Vec<ServiceName>,
    /// Where it listens. Not empty.
    pub(crate) upstream: Vec<Upstream>,
    /// Requests it is given at once, over all upstreams. Not zero.
    pub(crate) concurrency: usize,
    /// What answers 2xx or 3xx while it is well. None: a TCP connect is the test.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) health: Option<RequestPath>,
    /// Whom it dials.
    pub(crate) brokers: Brokers,
}

/// Whom the sockets between nodes trust.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Security {
    /// Whether they do without CURVE beyond this machine.
    pub(crate) insecure: bool,
    /// Where this node's secret key is, unless `secret_key` is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) secret_key_file: Option<PathBuf>,
    /// The secret key that the environment has given. It is never written out.
    #[serde(skip)]
    pub(crate) secret_key: Option<SecretKey>,
    /// Whom this node's broker lets in: not empty if it has a key, no two of one name or one key; empty without a key.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) allow: Vec<Allowed>,
}

impl Security {
    /// Whether this node proves who it is, and wants that proved by others.
    pub(crate) fn has_key(&self) -> bool {
        self.secret_key.is_some() || self.secret_key_file.is_some()
    }
}

/// Health, metrics, status, drain.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Admin {
    /// Where.
    pub(crate) listen: SocketAddr,
    /// The file with the token; there whenever `listen` is not loopback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<PathBuf>,
}

/// What is written about the work.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Log {
    /// In `RUST_LOG`'s syntax.
    pub(crate) level: LogLevel,
    /// A line per request.
    pub(crate) access: AccessLog,
}

/// Section by section as in a file, so that what is written is a configuration of the same meaning.
impl Serialize for Config {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("node", &self.node)?;
        map.serialize_entry("site", &self.site)?;
        if let Some(frontend) = &self.frontend {
            map.serialize_entry("frontend", frontend)?;
            map.serialize_entry("route", &frontend.routes)?;
            map.serialize_entry("cache", &frontend.cache)?;
        }
        map.serialize_entry("limits", &self.limits)?;
        if let Some(broker) = &self.broker {
            map.serialize_entry("broker", broker)?;
            map.serialize_entry("service", &broker.services)?;
        }
        map.serialize_entry("bridge", &self.bridges)?;
        map.serialize_entry("security", &self.security)?;
        if let Some(admin) = &self.admin {
            map.serialize_entry("admin", admin)?;
        }
        map.serialize_entry("log", &self.log)?;
        map.end()
    }
}

fn time<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Time(*time))
}

fn texts<S: Serializer>(nets: &[IpNet], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(nets.iter().map(IpNet::to_string))
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands a reference to every field"
)]
fn switch<S: Serializer>(on: &bool, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(if *on { "on" } else { "off" })
}
