//! The door: what was written becomes a [`Config`], or the list of what speaks against it.

use std::time::Duration;

use super::address::{BrokerAddress, Endpoint};
use super::layers::Origins;
use super::model::{
    Admin, Bridge, Broker, Brokers, Cache, Config, Frontend, Limits, Log, Node, Route, Security,
    Service, Site,
};
use super::names::Name;
use super::problem::{Origin, Problem};
use super::settings::{
    RawAdmin, RawBridge, RawBroker, RawCache, RawConfig, RawFrontend, RawLimits, RawRoute,
    RawService,
};
use super::text::{List, Text};
use super::units::{ByteCount, Time};

/// hyper's read buffer has no smaller size.
const LEAST_HEADER_BYTES: ByteCount = ByteCount::kib(8);

/// The protocol carries no larger head, see `scale0_wire::limits`.
const MOST_HEADER_BYTES: ByteCount = ByteCount::kib(128);

/// The protocol carries no more fields.
const MOST_HEADER_COUNT: usize = 1024;

/// One message's content: with less, a flight could not hold the piece it has just received.
const LEAST_FLIGHT_BUFFER: ByteCount = ByteCount::kib(64);

/// A stream's window to each side and some room; with less, a single transfer would stand still.
const LEAST_IN_FLIGHT_BYTES: ByteCount = ByteCount::mib(1);

/// A HELLO names no more services.
const MOST_SERVICES: usize = 1024;

/// The part of the memory tier that one response may take where nothing is said.
const SHARE_OF_ONE_OBJECT: u64 = 16;

const ROLES: &str = "a process is something: [frontend], [broker], [[bridge]], or several of them";
const INSECURE: &str = "keys for encryption are not in this version; `insecure = true` in [security] (SCALE0__SECURITY__INSECURE=true) says that \
                        the network itself is trusted";

/// Checks what was written as a whole.
pub(super) fn check(
    raw: RawConfig,
    origins: &Origins,
    host_name: &str,
) -> Result<Config, Vec<Problem>> {
    let mut door = Door {
        origins,
        problems: Vec::new(),
        insecure: raw.security.insecure,
        bound: Vec::new(),
    };
    let limits = door.limits(&raw.limits);
    let broker = raw.broker.map(|broker| door.broker(broker, &raw.service));
    if broker.is_none() && !raw.service.is_empty() {
        door.refuse("service.0", "[[service]] without a [broker]")
            .help_last("services are settings of a broker; remove it here");
    }
    let frontend = raw.frontend.map(|frontend| {
        door.frontend(
            frontend,
            &raw.route,
            raw.cache.clone(),
            &limits,
            broker.as_ref(),
        )
    });
    if frontend.is_none() {
        for (section, is_there, header) in [
            ("route.0", !raw.route.is_empty(), "[[route]]"),
            ("cache", raw.cache.is_some(), "[cache]"),
        ] {
            if is_there {
                door.refuse(section, format!("{header} without a [frontend]"))
                    .help_last("it is a setting of a frontend; remove it here");
            }
        }
    }
    let bridges: Vec<Bridge> = raw
        .bridge
        .into_iter()
        .enumerate()
        .filter_map(|(index, bridge)| door.bridge(index, bridge, broker.as_ref()))
        .collect();
    let admin = raw.admin.map(|admin| door.admin(admin));
    let node = door.node(raw.node.name, host_name);
    if frontend.is_none() && broker.is_none() && bridges.is_empty() && door.problems.is_empty() {
        door.refuse(
            "",
            "no role: there is neither a [frontend] nor a [broker] nor a [[bridge]]",
        )
        .help_last(ROLES);
    }
    if !door.problems.is_empty() {
        return Err(door.problems);
    }
    Ok(Config {
        node: Node { name: node },
        site: Site {
            name: raw.site.name,
        },
        frontend: frontend.flatten(),
        broker,
        bridges,
        limits,
        security: Security {
            insecure: raw.security.insecure,
        },
        admin,
        log: Log {
            level: raw.log.level,
            access: raw.log.access,
        },
    })
}

struct Door<'a> {
    origins: &'a Origins,
    problems: Vec<Problem>,
    insecure: bool,
    /// What is bound so far, and by which setting.
    bound: Vec<(Endpoint, String)>,
}

impl Door<'_> {
    /// Notes a problem with the setting of this path.
    fn refuse(&mut self, path: &str, message: impl Into<String>) -> &mut Self {
        self.problems
            .push(Problem::new(self.origins.of(path), path, message));
        self
    }

    /// Adds what helps to the latest problem.
    fn help_last(&mut self, help: &str) {
        if let Some(last) = self.problems.pop() {
            self.problems.push(last.help(help));
        }
    }

    /// Names the other place that the latest problem has to do with.
    fn beside_last(&mut self, how: &str, origin: Origin) -> &mut Self {
        if let Some(last) = self.problems.pop() {
            self.problems.push(last.beside(how, origin));
        }
        self
    }

    fn node(&mut self, given: Option<Name>, host_name: &str) -> Name {
        given
            .or_else(|| Name::read(host_name).ok())
            .unwrap_or_else(|| {
                self.refuse("node", "the host's own name cannot be a node's")
                    .help_last("name the node: `name = \"…\"` in [node]");
                Name::local()
            })
    }

    fn limits(&mut self, raw: &RawLimits) -> Limits {
        self.at_least("limits.header_bytes", raw.header_bytes, LEAST_HEADER_BYTES);
        self.at_most(
            "limits.header_bytes",
            raw.header_bytes,
            MOST_HEADER_BYTES,
            "the most the protocol carries",
        );
        if MOST_HEADER_COUNT < raw.header_count.0 {
            self.refuse(
                "limits.header_count",
                format!(
                    "expected at most {MOST_HEADER_COUNT}, the most the protocol carries, found {}",
                    raw.header_count.0
                ),
            );
        }
        self.at_least(
            "limits.in_flight_bytes",
            raw.in_flight_bytes,
            LEAST_IN_FLIGHT_BYTES,
        );
        Limits {
            max_connections: raw.max_connections.0,
            header_bytes: raw.header_bytes,
            header_count: raw.header_count.0,
            body_bytes: raw.body_bytes,
            header_timeout: self.some_time("limits.header_timeout", raw.header_timeout),
            keepalive_timeout: self.some_time("limits.keepalive_timeout", raw.keepalive_timeout),
            min_rate: raw.min_rate,
            in_flight_bytes: raw.in_flight_bytes,
            max_streams: raw.max_streams.0,
            drain_timeout: raw.drain_timeout.0,
            timeout: self.some_time("limits.timeout", raw.timeout),
            idle_timeout: self.some_time("limits.idle_timeout", raw.idle_timeout),
            hold: raw.hold.0,
        }
    }

    fn broker(&mut self, raw: RawBroker, services: &[RawService]) -> Broker {
        for (path, endpoint) in [
            ("broker.frontends", &raw.frontends),
            ("broker.backends", &raw.backends),
            ("broker.peers", &raw.peers),
        ] {
            if endpoint.can_be_bound() {
                self.secure(path, endpoint, "bound");
            } else {
                self.refuse(path, format!("expected an address of this machine or `*`, found the name in \"{endpoint}\""));
            }
            self.bind(path.to_owned(), endpoint.clone());
        }
        let mut named: Vec<Service> = Vec::new();
        for (index, service) in services.iter().enumerate() {
            let path = format!("service.{index}");
            let Some(name) = service.name.clone() else {
                self.refuse(&path, "[[service]] without a `name`");
                continue;
            };
            if let Some(first) = services[..index]
                .iter()
                .position(|earlier| earlier.name.as_ref() == Some(&name))
            {
                let origin = self.origins.of(&format!("service.{first}"));
                self.refuse(
                    &format!("{path}.name"),
                    format!("the service \"{name}\" is there already"),
                )
                .beside_last("first named here", origin);
                continue;
            }
            named.push(Service {
                name,
                queue: service.queue.0,
                queue_bytes: service.queue_bytes,
            });
        }
        Broker {
            frontends: raw.frontends,
            backends: raw.backends,
            peers: raw.peers,
            services: named,
        }
    }

    fn frontend(
        &mut self,
        raw: RawFrontend,
        routes: &[RawRoute],
        cache: Option<RawCache>,
        limits: &Limits,
        broker: Option<&Broker>,
    ) -> Option<Frontend> {
        let http: Vec<_> = raw.http.0.iter().map(|listen| listen.0).collect();
        if http.is_empty() {
            self.refuse("frontend.http", "a [frontend] that listens nowhere")
                .help_last("give `http` an address such as \"127.0.0.1:8080\"");
        }
        for (index, listen) in http.iter().enumerate() {
            self.bind(format!("frontend.http.{index}"), (*listen).into());
        }
        let routes = self.routes(routes, limits);
        let cache = self.cache(&cache.unwrap_or_default());
        let brokers = self.brokers(
            "frontend",
            raw.brokers,
            broker.map(|broker| &broker.frontends),
        )?;
        let trusted_proxies = raw.trusted_proxies.0.iter().map(|net| net.0).collect();
        Some(Frontend {
            http,
            brokers,
            trusted_proxies,
            routes,
            cache,
        })
    }

    fn routes(&mut self, raw: &[RawRoute], limits: &Limits) -> Vec<Route> {
        let mut routes = Vec::new();
        for (index, route) in raw.iter().enumerate() {
            let path = format!("route.{index}");
            if let Some(first) = raw[..index].iter().position(|earlier| {
                earlier.host.covers(&route.host) && earlier.path.covers(&route.path)
            }) {
                let is_same = raw[first].host == route.host && raw[first].path == route.path;
                let message = if is_same {
                    "two routes for the same host and path"
                } else {
                    "this route is never reached"
                };
                let origin = self.origins.of(&format!("route.{first}"));
                self.refuse(&path, message).beside_last(
                    "the first that matches wins, which is always the one here",
                    origin,
                );
            }
            let Some(service) = route.service.clone() else {
                self.refuse(&path, "[[route]] to nothing").help_last(
                    "name who answers: `service = \"…\"`, or \"*\" for whoever announced \"*\"",
                );
                continue;
            };
            routes.push(Route {
                host: route.host.clone(),
                path: route.path.clone(),
                service,
                timeout: route.timeout.map_or(limits.timeout, |time| {
                    self.some_time(&format!("{path}.timeout"), time)
                }),
                idle_timeout: route.idle_timeout.map_or(limits.idle_timeout, |time| {
                    self.some_time(&format!("{path}.idle_timeout"), time)
                }),
                coalesce: route.coalesce,
                cache: route.cache.0,
                hold: route.hold.map_or(limits.hold, |time| time.0),
            });
        }
        routes
    }

    fn cache(&mut self, raw: &RawCache) -> Cache {
        let share = ByteCount::from(raw.memory.bytes() / SHARE_OF_ONE_OBJECT);
        let memory_max_object = raw.memory_max_object.unwrap_or(share);
        self.at_most(
            "cache.memory_max_object",
            memory_max_object,
            raw.memory,
            "what `memory` holds in all",
        );
        self.at_least(
            "cache.flight_buffer",
            raw.flight_buffer,
            LEAST_FLIGHT_BUFFER,
        );
        // A file may be written for the store to come and switch it off by one line; without that line somebody expects a store.
        if raw.store.is_none() {
            for key in ["path", "capacity"] {
                if self.origins.has(&format!("cache.{key}")) {
                    self.refuse(
                        &format!("cache.{key}"),
                        format!("`{key}` without a store: stores on disk are not in this version"),
                    )
                    .help_last("`store = \"none\"` beside it says that none is meant");
                }
            }
        }
        Cache {
            memory: raw.memory,
            memory_max_object,
            flight_buffer: raw.flight_buffer,
            set_cookie: raw.set_cookie,
            store: raw.store.unwrap_or(super::choices::Store::None),
        }
    }

    fn bridge(&mut self, index: usize, raw: RawBridge, broker: Option<&Broker>) -> Option<Bridge> {
        let path = format!("bridge.{index}");
        let services = match (raw.services, raw.service) {
            (Some(_), Some(_)) => {
                let origin = self.origins.of(&format!("{path}.services"));
                self.refuse(
                    &format!("{path}.service"),
                    "`service` and `services` in one [[bridge]]",
                )
                .beside_last("the other is here", origin);
                Vec::new()
            }
            (Some(List(services)), None) => services,
            (None, service) => service.into_iter().collect(),
        };
        if services.is_empty() && !self.origins.has(&format!("{path}.service")) {
            self.refuse(&path, "[[bridge]] without a service")
                .help_last(
                    "`services = [\"www.example.com\"]`, or \"*\" for whatever nobody else answers",
                );
        }
        if MOST_SERVICES < services.len() {
            self.refuse(
                &format!("{path}.services"),
                format!(
                    "expected at most {MOST_SERVICES} services, found {}",
                    services.len()
                ),
            );
        }
        self.no_two_equal(&format!("{path}.services"), &services);
        let upstream = raw.upstream.map_or_else(Vec::new, |list| list.0);
        if upstream.is_empty() {
            self.refuse(&path, "[[bridge]] without an `upstream`")
                .help_last(
                    "say where the application listens: `upstream = \"http://127.0.0.1:3000\"`",
                );
        }
        let texts: Vec<String> = upstream.iter().map(ToString::to_string).collect();
        self.no_two_equal(&format!("{path}.upstream"), &texts);
        let brokers = self.brokers(&path, raw.brokers, broker.map(|broker| &broker.backends))?;
        Some(Bridge {
            services,
            upstream,
            concurrency: raw.concurrency.0,
            health: raw.health,
            brokers,
        })
    }

    fn admin(&mut self, raw: RawAdmin) -> Admin {
        let listen = raw.listen.0;
        self.bind("admin.listen".to_owned(), listen.into());
        if !listen.ip().is_loopback() && raw.token_file.is_none() {
            self.refuse("admin.listen", format!("the admin interface at {listen}, beyond loopback, needs a `token_file`"))
                .help_last("whoever reaches it could drain this process; put a long random text into a file and name it");
        }
        Admin {
            listen,
            token_file: raw.token_file.map(|file| file.0),
        }
    }

    /// The brokers of a role, of which `own` is the endpoint where this process's own is bound.
    fn brokers(
        &mut self,
        role: &str,
        raw: List<BrokerAddress>,
        own: Option<&Endpoint>,
    ) -> Option<Brokers> {
        let path = format!("{role}.brokers");
        for (index, address) in raw.0.iter().enumerate() {
            let path = format!("{path}.{index}");
            if !address.endpoint.can_be_dialled() {
                self.refuse(
                    &path,
                    format!(
                        "expected a host and a port to connect to, found \"{}\"",
                        address.endpoint
                    ),
                );
            } else if address.public_key.is_none() {
                self.secure(&path, &address.endpoint, "dialled");
            }
        }
        let endpoints: Vec<String> = raw
            .0
            .iter()
            .map(|address| address.endpoint.to_string())
            .collect();
        self.no_two_equal(&path, &endpoints);
        // Named although it need not be: the way without a socket leads to the same broker.
        let others = raw
            .0
            .into_iter()
            .filter(|address| own.is_none_or(|own| !address.endpoint.reaches(own)))
            .collect();
        let brokers = Brokers::new(own.is_some(), others);
        if brokers.is_none() {
            let header = if role == "frontend" {
                "[frontend]"
            } else {
                "[[bridge]]"
            };
            let port = if role == "frontend" { 5701 } else { 5702 };
            self.refuse(role, format!("a {header} that no broker serves: neither `brokers` nor a [broker] in this process"))
                .help_last(&format!("`brokers = [\"tcp://127.0.0.1:{port}\"]`, or a [broker] section"));
        }
        brokers
    }

    /// Notes that a setting binds an endpoint, and refuses the second at one place.
    fn bind(&mut self, path: String, endpoint: Endpoint) {
        if let Some((_, first)) = self
            .bound
            .iter()
            .find(|(bound, _)| bound.collides(&endpoint))
        {
            let (how, origin) = (format!("`{first}` is bound there"), self.origins.of(first));
            let text = endpoint.to_string();
            let shown = if path.starts_with("broker.") {
                &text
            } else {
                text.trim_start_matches("tcp://")
            };
            self.refuse(&path, format!("\"{shown}\" is taken already"))
                .beside_last(&how, origin);
        }
        self.bound.push((endpoint, path));
    }

    /// Refuses to go beyond this machine without encryption, unless that was asked for.
    fn secure(&mut self, path: &str, endpoint: &Endpoint, done: &str) {
        if !endpoint.is_local() && !self.insecure {
            self.refuse(
                path,
                format!("\"{endpoint}\" is {done} beyond this machine without encryption"),
            )
            .help_last(INSECURE);
        }
    }

    fn no_two_equal<T: PartialEq + std::fmt::Display>(&mut self, path: &str, values: &[T]) {
        for (index, value) in values.iter().enumerate() {
            if let Some(first) = values[..index].iter().position(|earlier| earlier == value) {
                let origin = self.origins.of(&format!("{path}.{first}"));
                self.refuse(&format!("{path}.{index}"), format!("\"{value}\" twice"))
                    .beside_last("first named here", origin);
            }
        }
    }

    fn some_time(&mut self, path: &str, time: Time) -> Duration {
        if time.0.is_zero() {
            self.refuse(
                path,
                "expected a time that is not zero: nothing would ever be in time",
            );
        }
        time.0
    }

    fn at_least(&mut self, path: &str, size: ByteCount, least: ByteCount) {
        if size < least {
            self.refuse(
                path,
                format!("expected at least \"{least}\", found \"{size}\""),
            );
        }
    }

    fn at_most(&mut self, path: &str, size: ByteCount, most: ByteCount, why: &str) {
        if most < size {
            self.refuse(
                path,
                format!("expected at most \"{most}\", {why}, found \"{size}\""),
            );
        }
    }
}
