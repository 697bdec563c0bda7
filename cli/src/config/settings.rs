//! Every setting, declared once: its key, its type, its default, and what it is for.
//!
//! From these declarations come the structs that serde fills (unknown keys refused), the hints of an error message and the
//! comments in the output of `scale0 check`. The first sentence of a setting's text has to stand alone: it is the hint.

use serde::Deserialize;
use serde::de::IntoDeserializer;
use toml_edit::Value;

use super::address::{BrokerAddress, Endpoint, Listen, Net, Upstream};
use super::allowed::Allowed;
use super::choices::{
    AccessLog, Affinity, Coalesce, FileName, LogLevel, Priority, SecretFile, SetCookie, Store,
    Switch, Unavailable,
};
use super::names::{HostPattern, Name, RequestPath, ServiceName};
use super::others::OtherBroker;
use super::text::List;
use super::units::{ByteCount, Count, Percent, Time};

/// One setting of a section.
pub(super) struct Key {
    /// Its name in the file.
    pub(super) name: &'static str,
    /// Its text, a piece per line.
    pub(super) about: &'static [&'static str],
    /// Whether a value is one of its values; the message and, where it is more exact than the value's own, the place if not.
    pub(super) check: fn(&Value) -> Result<(), toml_edit::de::Error>,
}

/// One section of the file.
pub(super) struct Section {
    /// Its name in the file.
    pub(super) name: &'static str,
    /// How often it stands there.
    pub(super) shape: Shape,
    /// Its settings.
    pub(super) keys: &'static [Key],
    /// The keys of later versions: refused as such, so that nobody thinks they do something.
    pub(super) later: &'static [&'static str],
}

/// How often a section may stand in a file, and whether its being there says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Settings of the whole process: as good as there when it is not.
    Plain,
    /// Once, and the process plays this role if it is there.
    Role,
    /// Any number of times, as `[[name]]`.
    Many,
}

impl Section {
    /// How it is written in a file.
    pub(super) fn header(&self) -> String {
        match self.shape {
            Shape::Plain | Shape::Role => format!("[{}]", self.name),
            Shape::Many => format!("[[{}]]", self.name),
        }
    }

    /// The setting of this name.
    pub(super) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

impl Key {
    /// The first sentence of its text.
    pub(super) fn summary(&self) -> String {
        let text = self
            .about
            .iter()
            .map(|line| line.trim())
            .take_while(|line| !line.is_empty())
            .collect::<Vec<_>>()
            .join(" ");
        match text.split_once(". ") {
            Some((first, _)) => first.to_owned(),
            None => text.trim_end_matches('.').to_owned(),
        }
    }
}

/// The section of this name.
pub(super) fn section(name: &str) -> Option<&'static Section> {
    SECTIONS.iter().find(|section| section.name == name)
}

fn check<'de, T: Deserialize<'de>>(value: &Value) -> Result<(), toml_edit::de::Error> {
    T::deserialize(value.clone().into_deserializer()).map(drop)
}

macro_rules! section {
    ($(#[doc = $about:literal])* $shape:ident $name:literal $raw:ident {
        $($(#[doc = $doc:literal])* $key:ident: $type:ty = $default:expr,)*
    } later [$($later:literal),*]) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub(super) struct $raw {
            $($(#[doc = $doc])* pub(super) $key: $type,)*
        }

        impl Default for $raw {
            fn default() -> Self {
                Self { $($key: $default,)* }
            }
        }

        impl $raw {
            pub(super) const SECTION: Section = Section {
                name: $name,
                shape: Shape::$shape,
                keys: &[$(Key { name: stringify!($key), about: &[$($doc),*], check: check::<$type> }),*],
                later: &[$($later),*],
            };
        }
    };
}

/// A file, its variables and its `--set`s laid over each other, before anybody asked whether it makes sense as a whole.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawConfig {
    pub(super) node: RawNode,
    pub(super) site: RawSite,
    pub(super) frontend: Option<RawFrontend>,
    pub(super) route: Vec<RawRoute>,
    pub(super) cache: Option<RawCache>,
    pub(super) limits: RawLimits,
    pub(super) broker: Option<RawBroker>,
    pub(super) service: Vec<RawService>,
    pub(super) bridge: Vec<RawBridge>,
    pub(super) security: RawSecurity,
    pub(super) admin: Option<RawAdmin>,
    pub(super) log: RawLog,
}

/// All sections, in the order in which a file is best read.
pub(super) static SECTIONS: &[Section] = &[
    RawNode::SECTION,
    RawSite::SECTION,
    RawFrontend::SECTION,
    RawRoute::SECTION,
    RawCache::SECTION,
    RawLimits::SECTION,
    RawBroker::SECTION,
    RawService::SECTION,
    RawBridge::SECTION,
    RawSecurity::SECTION,
    RawAdmin::SECTION,
    RawLog::SECTION,
];

section! {
    /// `[node]`: this process among the others.
    Plain "node" RawNode {
        /// The name of this node in `Via`, status, logs and metrics. Every node needs its own: a request whose `Via` already has
        /// it is refused with 508 as a loop. Without it: the host's name, which serves while one node runs per host.
        name: Option<Name> = None,
    } later []
}

section! {
    /// `[site]`: the place this node stands in, usually a datacenter.
    Plain "site" RawSite {
        /// The name of the site, the same for all its nodes. Frontends and brokers of one name belong together.
        name: Name = Name::local(),
    } later ["latitude", "longitude"]
}

section! {
    /// `[frontend]`: answers HTTP.
    Role "frontend" RawFrontend {
        /// Where HTTP/1.1 and HTTP/2 without TLS are answered. Put `"0.0.0.0:80"` here to face the world, a loopback address to
        /// stand behind nginx or a CDN's tunnel on the same machine. Port 0 takes any that is free.
        http: List<Listen> = List(vec![Listen(([127, 0, 0, 1], 8080).into())]),
        /// Where HTTPS is answered: an empty list, since TLS is not in this version.
        https: List<Unavailable> = List(Vec::new()),
        /// The brokers of this site, each of which the frontend dials. Not needed for the `[broker]` of this same process, which
        /// is reached without a socket; name them all, so that the loss of one costs nothing.
        brokers: List<BrokerAddress> = List(Vec::new()),
        /// The proxies that are believed about the client: only from them do `X-Forwarded-*`, `Forwarded` and `X-Request-Id` count.
        /// From anyone else these fields are replaced. Name exactly what stands in front: whoever is in here can pose as any client.
        trusted_proxies: List<Net> = List(Vec::new()),
        /// The Unix socket at which this process waits for its successor. A process that is started with the same path takes over the
        /// listening sockets of the one that runs, which then drains and ends; nobody's connection is refused or reset. Not with a
        /// `[broker]` in the same process.
        handover: Option<FileName> = None,
    } later ["tls_certificate", "tls_key"]
}

section! {
    /// `[[route]]`: which service answers what, and how. The first that matches wins; what none matches goes to the service
    /// named like the request's host, else to `*`, with the defaults of `[limits]`.
    Many "route" RawRoute {
        /// The host the route is for: a name, `*.` and a domain, or `*`. Without it: every host. No port.
        host: HostPattern = HostPattern::Any,
        /// The path the route is for, as a prefix that ends on a segment: `/api` is for `/api` and `/api/x`, not for `/apiary`.
        path: RequestPath = RequestPath::root(),
        /// The service that answers, as backends and bridges announce it. `"*"` is whoever announced `"*"`.
        service: Option<ServiceName> = None,
        /// How long the head of the response may take, from the end of the request's head; then 504. The longest sound answer of the
        /// application and a little: every waiting request holds memory and a backend's credit for so long. Without it: `limits.timeout`.
        timeout: Option<Time> = None,
        /// How long a response may stall between two pieces of its body; then the connection is aborted. Must outlast the pauses of
        /// long polls and event streams. Without it: `limits.idle_timeout`.
        idle_timeout: Option<Time> = None,
        /// Which identical requests in flight are one request to the backend: those of this `"frontend"`, or none with `"off"`.
        /// Responses that may not be shared never are, whatever stands here; `"off"` saves the bookkeeping where nothing is shareable.
        coalesce: Coalesce = Coalesce::Frontend,
        /// Whether responses are stored and answered from the store, as far as their own fields allow it. `"off"` for what must
        /// reach the application every time.
        cache: Switch = Switch(true),
        /// How long a request waits for a known service that has no backend just now; then 503. Long enough for a restart, short
        /// enough that nobody gives up first; `"0s"` answers at once. Without it: `limits.hold`.
        hold: Option<Time> = None,
        /// Which requests go first while a service's backends are all busy: `"interactive"` before `"normal"` before `"background"`. A
        /// class is served only while none before it waits, so put exports and imports behind what people wait for.
        priority: Priority = Priority::Interactive,
        /// Which requests go to one backend: `"path"`, `"client"`, `"header:NAME"` or `"cookie:NAME"`, those with the same one. It
        /// holds while that backend has at most a quarter more to do than others. For applications that keep things in memory for a
        /// user or an object, and can do without. A request without the field or cookie goes anywhere; `"off"`: all do.
        affinity: Affinity = Affinity(scale0_frontend::Affinity::Off),
        /// Whether a request that is late may be sent to a second backend, whose answer counts if it comes first. Shortens the slowest
        /// answers for a few per cent more work at most; only for idempotent methods, and only where running them twice at a time
        /// does no harm.
        hedge: Switch = Switch(false),
    } later []
}

section! {
    /// `[cache]`: what the frontend keeps of responses.
    Plain "cache" RawCache {
        /// How much memory stored responses may fill, bodies, heads and bookkeeping together. More memory, more hits; leave the
        /// machine room for `limits.in_flight_bytes` and the connections. `"0B"` stores nothing in memory.
        memory: ByteCount = ByteCount::mib(256),
        /// The largest response kept in memory. Keeps one download from displacing a thousand pages. Without it: a sixteenth of `memory`.
        memory_max_object: Option<ByteCount> = None,
        /// How much of a body in flight is kept for those who join late or read slowly. Up to this size a late reader gets everything
        /// from the first byte; beyond it a window of this size slides, and who falls out of it starts a fetch of its own.
        /// Costs at most this much memory per fetch that is shared at the moment.
        flight_buffer: ByteCount = ByteCount::mib(8),
        /// Whether a response with `Set-Cookie` and explicit freshness is stored, as RFC 9111 §7.3 has it: `"store"` or `"refuse"`.
        /// `"refuse"` if the application marks pages as fresh without thinking of the session cookie it sets on them.
        set_cookie: SetCookie = SetCookie::Store,
        /// The store behind the memory tier, which outlives the process: `"file"`, `"sled"`, or `"none"` for memory alone. `"file"`
        /// keeps append-only files, writes faster than the disk asks for it and never exceeds its capacity; `"sled"` keeps a database.
        store: Store = Store::File,
        /// The folder of the store. Each process needs its own; one that finds it in use runs without and says so. It may be deleted
        /// at any time while nothing runs: a cache holds nothing that cannot be fetched again.
        path: FileName = FileName("scale0-cache".into()),
        /// How much the store may fill on the disk. As large as the disk allows: what is stored there is what a restart need not fetch.
        capacity: ByteCount = ByteCount::gib(10),
    } later []
}

section! {
    /// `[limits]`: what one process bears before it says no. Every bound is there so that a flood of one thing cannot take the
    /// room of all others.
    Plain "limits" RawLimits {
        /// The most client connections open at once; beyond it none is accepted until one closes. Each costs a file descriptor and
        /// some kilobytes; keep it below `ulimit -n` with room for brokers and upstreams.
        max_connections: Count = Count(10_000),
        /// The largest request head: request line and fields together; then 431. At least 8 KiB; at most the protocol's 128 KiB.
        header_bytes: ByteCount = ByteCount::kib(64),
        /// The most fields in a request head; then 431. At most the protocol's 1024. With more than 100 each request costs a little more.
        header_count: Count = Count(100),
        /// The largest request body; then 413. Bodies are streamed, so this is about what the application wants to receive, not about
        /// this process's memory. `"0B"`: any.
        body_bytes: ByteCount = ByteCount::gib(1),
        /// How long a client may take to send a request's head; then 408. Short: it is what slow-header attacks live on.
        header_timeout: Time = Time::seconds(10),
        /// How long an idle connection is kept for the client's next request. Longer than the keep-alive of the proxy in front, so that
        /// it is the proxy who closes and no request races a close.
        keepalive_timeout: Time = Time::seconds(75),
        /// The least number of bytes per second that a client must send of a body or take of a response, averaged over
        /// `header_timeout`. Slower ones are cut off: they hold what others could use. `"0B"`: any.
        min_rate: ByteCount = ByteCount::kib(1),
        /// The most bytes of requests and responses that this process holds on their way through, all connections together.
        /// Beyond it readers are slowed down, not refused. Together with `cache.memory` it is nearly all the memory the process takes.
        in_flight_bytes: ByteCount = ByteCount::mib(64),
        /// The most upgraded connections (WebSocket) and event streams open at once; then 503. They hold no backend's credit, which is
        /// why they need a bound of their own.
        max_streams: Count = Count(10_000),
        /// How long work in flight may take to end when the process is told to stop; then it is cut off. At least the longest request
        /// worth waiting for, and less than what the service manager waits before it kills.
        drain_timeout: Time = Time::seconds(30),
        /// How long until a response's head, for routes that have none of their own and for requests without a route; then 504.
        timeout: Time = Time::seconds(30),
        /// How long a response or tunnel may stand still after its head, likewise; then it is cut off.
        idle_timeout: Time = Time::seconds(60),
        /// How long a request waits for a known service that has no backend just now, likewise; then 503.
        hold: Time = Time::seconds(10),
        /// The most bytes of requests that wait for backends in a broker, all services together. A queue is refused what would make it
        /// longer than the room that is left, so one service alone can take half of it.
        queued_bytes: ByteCount = ByteCount::mib(128),
    } later []
}

section! {
    /// `[broker]`: brings requests and backends together.
    Role "broker" RawBroker {
        /// Where frontends connect. On loopback unless other machines run frontends; who may reach it is a firewall's business.
        frontends: Endpoint = Endpoint::loopback(5701),
        /// Where backends and bridges connect. Apart from `frontends`, so that a firewall can tell them apart.
        backends: Endpoint = Endpoint::loopback(5702),
        /// Where the brokers of other sites are to connect: bound, but other sites are not in this version.
        peers: Endpoint = Endpoint::loopback(5703),
        /// The other brokers of this site, which frontends and backends that do not know them dial when this one drains. Each is
        /// `{ node = "…", frontends = "…", backends = "…", public_key = "…" }`. Not needed where all of them name all brokers.
        others: List<OtherBroker> = List(Vec::new()),
        /// How often this broker and its frontends and backends hear of each other; who misses three is taken for dead. Longer costs less on
        /// thousands of idle links and notices a cut link later; a process that dies is noticed at once either way.
        heartbeat: Time = Time::seconds(1),
    } later ["peer"]
}

section! {
    /// `[[service]]`: what belongs to a service rather than to a request. A service named here is known from the start: its
    /// requests are held for a backend to come instead of being answered 404.
    Many "service" RawService {
        /// The service's name, as backends announce it.
        name: Option<ServiceName> = None,
        /// The most requests that wait for a backend; beyond it 503 with `Retry-After` at once. About what all backends together answer
        /// in the time a client is glad to wait: a longer queue only makes the same refusals later.
        queue: Count = Count(1000),
        /// The most bytes those waiting requests hold. Whichever of `queue` and `queue_bytes` is reached first refuses.
        queue_bytes: ByteCount = ByteCount::mib(64),
        /// How many backends, counted by process, must have come since the broker's start before it sends the first request; until then
        /// requests are held. So that the first of many to come up is not sent what all of them are for.
        min_backends: Count = Count(1),
        /// The most requests that all backends together work on, as far as one broker sends them; more wait. For what stands behind
        /// them, a database for instance. Without it: what the backends take.
        outstanding: Option<Count> = None,
        /// The part of a backend's room that this service may fill where the backend offers other services too. Below `"100%"` a
        /// service with long requests leaves room for the others; one request may always be there.
        share: Percent = Percent(75),
    } later ["sites", "spill", "max_round_trip"]
}

section! {
    /// `[[bridge]]`: makes an application that speaks HTTP a backend.
    Many "bridge" RawBridge {
        /// The services the application answers for. `"*"` answers for whatever nobody else does.
        services: Option<List<ServiceName>> = None,
        /// One service: the short way to write `services` with one name.
        service: Option<ServiceName> = None,
        /// Where the application listens: `http://host:port` or `unix:/path`; several are balanced.
        upstream: Option<List<Upstream>> = None,
        /// The most requests the application is given at once, over all upstreams. What it answers best at: too low leaves it idle, too
        /// high moves the queue from the broker, which can send it elsewhere, into the application, which cannot.
        concurrency: Count = Count(64),
        /// The path that answers 2xx or 3xx while the application is well. Without it a TCP connect is the test.
        health: Option<RequestPath> = None,
        /// The brokers of this site, at their `backends` endpoints. Not needed for the `[broker]` of this same process; name them all.
        brokers: List<BrokerAddress> = List(Vec::new()),
    } later []
}

section! {
    /// `[security]`: whom the sockets between nodes trust.
    Plain "security" RawSecurity {
        /// Whether brokers may be bound and dialled beyond this machine without encryption and proof of identity. Only where the network
        /// itself is trusted: whoever reaches the endpoints can then answer for your site.
        insecure: bool = false,
        /// The file with this node's secret key, which `scale0 keygen` writes; nobody but its owner may read it. A broker then speaks to
        /// those of `allow` only, encrypted; frontends and bridges prove by it who they are, to brokers whose `public_key` they know. The
        /// variable SCALE0_SECRET_KEY, which holds the key itself, goes before it.
        secret_key_file: Option<SecretFile> = None,
        /// Whom this node's broker lets in: each key with a name, what it `may` be (frontend, backend) and, for a backend, the `services`
        /// that it may offer. Read again on SIGHUP and `scale0 reload`, without a restart.
        allow: List<Allowed> = List(Vec::new()),
    } later []
}

section! {
    /// `[admin]`: health, metrics, status and drain, on a port the public never reaches.
    Role "admin" RawAdmin {
        /// Where the admin interface listens. Beyond loopback it needs `token_file`.
        listen: Listen = Listen(([127, 0, 0, 1], 8081).into()),
        /// The file whose content a request has to present as `Authorization: Bearer`. Required as soon as `listen` is not loopback.
        token_file: Option<SecretFile> = None,
    } later []
}

section! {
    /// `[log]`: what is written about the work.
    Plain "log" RawLog {
        /// What is logged, in `RUST_LOG`'s syntax: a level, or levels per module such as `"info,scale0_broker=debug"`.
        level: LogLevel = LogLevel::info(),
        /// Where a line per request goes: `"off"`, `"stdout"` or a file, which is opened again on SIGUSR1.
        access: AccessLog = AccessLog::Stdout,
    } later []
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_says_in_its_first_sentence_what_it_is_for() {
        for section in SECTIONS {
            for key in section.keys {
                let summary = key.summary();
                assert!(
                    (15..=150).contains(&summary.len()),
                    "{}.{}: {summary}",
                    section.name,
                    key.name
                );
                assert!(
                    !section.later.contains(&key.name),
                    "{}.{}",
                    section.name,
                    key.name
                );
            }
        }
    }
}
