//! What each role needs to make sense.

use super::address::{BrokerAddress, Endpoint};
use super::choices::{FileName, Store};
use super::door::Door;
use super::model::{Bridge, Broker, Brokers, Cache, Frontend, Limits, Route, Service};
use super::names::{Name, ServiceName};
use super::others::OtherBroker;
use super::settings::{RawBridge, RawBroker, RawCache, RawFrontend, RawRoute, RawService};
use super::text::List;
use super::units::{ByteCount, Time};

/// One message's content: with less, a flight could not hold the piece it has just received.
const LEAST_FLIGHT_BUFFER: ByteCount = ByteCount::kib(64);

/// A store smaller than this holds next to nothing and is busy making room.
const LEAST_CAPACITY: ByteCount = ByteCount::mib(16);

/// The part of the memory tier that one response may take where nothing is said.
const SHARE_OF_ONE_OBJECT: u64 = 16;

/// Linux has room for 107 in an address, of which `.new` takes four while the socket is made.
const MOST_SOCKET_NAME: usize = 103;

/// A HELLO names no more services.
const MOST_SERVICES: usize = 1024;

/// A REDIRECT names no more brokers.
const MOST_OTHERS: usize = 16;

/// Frontends and backends ask for no shorter interval of heartbeats, and agree to no longer one.
const LEAST_HEARTBEAT: Time = Time::seconds(1);
const MOST_HEARTBEAT: Time = Time::seconds(30);

impl Door<'_> {
    pub(super) fn broker(&mut self, raw: RawBroker, services: &[RawService]) -> Broker {
        self.bind_endpoint("broker.frontends", &raw.frontends);
        self.bind_endpoint("broker.backends", &raw.backends);
        self.bind_endpoint("broker.peers", &raw.peers);
        let services = services
            .iter()
            .enumerate()
            .filter_map(|(index, service)| self.service(index, service, services))
            .collect();
        let heartbeat = raw.heartbeat;
        if !(LEAST_HEARTBEAT..=MOST_HEARTBEAT).contains(&heartbeat) {
            self.refuse(self.at(
                "broker.heartbeat",
                format!("expected a time from {LEAST_HEARTBEAT} to {MOST_HEARTBEAT}, which frontends and backends agree to, found {heartbeat}"),
            ));
        }
        self.others(&raw.others.0);
        Broker {
            frontends: raw.frontends,
            backends: raw.backends,
            peers: raw.peers,
            others: raw.others.0,
            heartbeat: heartbeat.0,
            services,
        }
    }

    /// Looks whether peers could dial what they would be told.
    fn others(&mut self, others: &[OtherBroker]) {
        const PATH: &str = "broker.others";
        self.at_most(
            PATH,
            others.len(),
            MOST_OTHERS,
            "the most a message can name",
        );
        for (index, other) in others.iter().enumerate() {
            let path = format!("{PATH}.{index}");
            for endpoint in [&other.frontends, &other.backends].into_iter().flatten() {
                if !endpoint.can_be_dialled() {
                    self.refuse(self.at(
                        &path,
                        format!("expected a host and a port to connect to, found \"{endpoint}\""),
                    ));
                } else if other.public_key.is_none() {
                    self.dial_in_the_clear(&path, endpoint);
                }
            }
        }
        let nodes: Vec<&Name> = others.iter().map(|other| &other.node).collect();
        self.no_two_equal(PATH, &nodes);
    }

    fn service(&mut self, index: usize, raw: &RawService, all: &[RawService]) -> Option<Service> {
        let Some(name) = raw.name.clone() else {
            self.refuse(self.at(&format!("service.{index}"), "[[service]] without a `name`"));
            return None;
        };
        if let Some(first) = all[..index]
            .iter()
            .position(|earlier| earlier.name.as_ref() == Some(&name))
        {
            let problem = self.at(
                &format!("service.{index}.name"),
                format!("the service \"{name}\" is there already"),
            );
            self.refuse(problem.beside(
                "first named here",
                self.origins.of(&format!("service.{first}.name")),
            ));
        }
        Some(Service {
            name,
            queue: raw.queue.0,
            queue_bytes: raw.queue_bytes,
            min_backends: raw.min_backends.0,
            outstanding: raw.outstanding.map(|count| count.0),
            share: raw.share,
        })
    }

    pub(super) fn frontend(
        &mut self,
        raw: RawFrontend,
        routes: &[RawRoute],
        cache: &RawCache,
        limits: &Limits,
        broker: Option<&Broker>,
    ) -> Option<Frontend> {
        let http: Vec<_> = raw.http.0.iter().map(|listen| listen.0).collect();
        if http.is_empty() {
            let problem = self.at("frontend.http", "a [frontend] that listens nowhere");
            self.refuse(problem.help("give `http` an address such as \"127.0.0.1:8080\""));
        }
        for (index, address) in http.iter().enumerate() {
            self.listen(&format!("frontend.http.{index}"), *address);
        }
        let routes = routes
            .iter()
            .enumerate()
            .filter_map(|(index, route)| self.route(index, route, &routes[..index], limits))
            .collect();
        let cache = self.cache(cache);
        if let Some(path) = &raw.handover {
            self.handover(path, broker.is_some());
        }
        let (frontends, backends) = (
            broker.map(|broker| &broker.frontends),
            broker.map(|broker| &broker.backends),
        );
        let brokers = self.brokers("frontend", raw.brokers, frontends, backends)?;
        let trusted_proxies = raw.trusted_proxies.0.iter().map(|net| net.0).collect();
        Some(Frontend {
            http,
            brokers,
            trusted_proxies,
            handover: raw.handover.map(|path| path.0),
            routes,
            cache,
        })
    }

    fn handover(&mut self, path: &FileName, has_broker: bool) {
        let at = "frontend.handover";
        self.at_most(
            at,
            path.0.as_os_str().len(),
            MOST_SOCKET_NAME,
            "the most bytes that the name of a Unix socket may have",
        );
        if has_broker {
            let problem = self.at(at, "`handover` with a [broker] in the same process");
            self.refuse(
                problem
                    .help(
                        "a broker's endpoints cannot be handed over: give it a process of its own",
                    )
                    .beside("it is here", self.origins.of("broker")),
            );
        }
    }

    fn route(
        &mut self,
        index: usize,
        raw: &RawRoute,
        earlier: &[RawRoute],
        limits: &Limits,
    ) -> Option<Route> {
        let path = format!("route.{index}");
        if let Some(first) = earlier
            .iter()
            .position(|earlier| earlier.host.covers(&raw.host) && earlier.path.covers(&raw.path))
        {
            let is_same = earlier[first].host == raw.host && earlier[first].path == raw.path;
            let problem = self.at(
                &path,
                if is_same {
                    "two routes for the same host and path"
                } else {
                    "this route is never reached"
                },
            );
            self.refuse(problem.beside(
                "the first that matches wins, always the one here",
                self.origins.of(&format!("route.{first}")),
            ));
        }
        let Some(service) = raw.service.clone() else {
            let problem = self.at(&path, "[[route]] to nothing");
            self.refuse(
                problem.help(
                    "name who answers: `service = \"…\"`, or \"*\" for whoever announced \"*\"",
                ),
            );
            return None;
        };
        Some(Route {
            host: raw.host.clone(),
            path: raw.path.clone(),
            service,
            timeout: raw.timeout.map_or(limits.timeout, |time| {
                self.some_time(&format!("{path}.timeout"), time)
            }),
            idle_timeout: raw.idle_timeout.map_or(limits.idle_timeout, |time| {
                self.some_time(&format!("{path}.idle_timeout"), time)
            }),
            coalesce: raw.coalesce,
            cache: raw.cache.0,
            hold: raw.hold.map_or(limits.hold, |time| time.0),
            priority: raw.priority,
            affinity: raw.affinity.clone(),
            hedge: raw.hedge.0,
        })
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
        if raw.store != Store::None {
            self.at_least("cache.capacity", raw.capacity, LEAST_CAPACITY);
        }
        Cache {
            memory: raw.memory,
            memory_max_object,
            flight_buffer: raw.flight_buffer,
            set_cookie: raw.set_cookie,
            store: raw.store,
            path: raw.path.0.clone(),
            capacity: raw.capacity,
        }
    }

    pub(super) fn bridge(
        &mut self,
        index: usize,
        raw: RawBridge,
        broker: Option<&Broker>,
    ) -> Option<Bridge> {
        let path = format!("bridge.{index}");
        let services = self.services(&path, raw.services, raw.service);
        let upstream = raw.upstream.map_or_else(Vec::new, |list| list.0);
        if upstream.is_empty() {
            let problem = self.at(&path, "[[bridge]] without an `upstream`");
            self.refuse(
                problem.help(
                    "say where the application listens: `upstream = \"http://127.0.0.1:3000\"`",
                ),
            );
        }
        self.no_two_equal(&format!("{path}.upstream"), &upstream);
        let (frontends, backends) = (
            broker.map(|broker| &broker.frontends),
            broker.map(|broker| &broker.backends),
        );
        let brokers = self.brokers(&path, raw.brokers, backends, frontends)?;
        Some(Bridge {
            services,
            upstream,
            concurrency: raw.concurrency.0,
            health: raw.health,
            brokers,
        })
    }

    fn services(
        &mut self,
        bridge: &str,
        several: Option<List<ServiceName>>,
        one: Option<ServiceName>,
    ) -> Vec<ServiceName> {
        let path = format!("{bridge}.services");
        if several.is_some() && one.is_some() {
            let problem = self.at(
                &format!("{bridge}.service"),
                "`service` and `services` in one [[bridge]]",
            );
            self.refuse(problem.beside("the other is here", self.origins.of(&path)));
        }
        let services = several.map_or_else(|| one.into_iter().collect(), |list| list.0);
        if services.is_empty() {
            let problem = self.at(bridge, "[[bridge]] without a service");
            self.refuse(problem.help(
                "`services = [\"www.example.com\"]`, or \"*\" for whatever nobody else answers",
            ));
        }
        self.at_most(
            &path,
            services.len(),
            MOST_SERVICES,
            "the most a backend can announce",
        );
        self.no_two_equal(&path, &services);
        services
    }

    /// The brokers of a role, of which `own` is where this process's own is bound for it, and `other` for the other one.
    fn brokers(
        &mut self,
        role: &str,
        raw: List<BrokerAddress>,
        own: Option<&Endpoint>,
        other: Option<&Endpoint>,
    ) -> Option<Brokers> {
        let path = format!("{role}.brokers");
        let is_frontend = role == "frontend";
        for (index, address) in raw.0.iter().enumerate() {
            let (path, endpoint) = (format!("{path}.{index}"), &address.endpoint);
            if !endpoint.can_be_dialled() {
                self.refuse(self.at(
                    &path,
                    format!("expected a host and a port to connect to, found \"{endpoint}\""),
                ));
            } else if other.is_some_and(|other| endpoint.reaches(other)) {
                let (theirs, ours) = if is_frontend {
                    ("backends", "frontends")
                } else {
                    ("frontends", "backends")
                };
                let problem = self.at(&path, format!("\"{endpoint}\" is where the {theirs} of a broker connect; expected its `{ours}` endpoint"));
                self.refuse(problem.beside(
                    "it is bound there",
                    self.origins.of(&format!("broker.{theirs}")),
                ));
            } else if address.public_key.is_none() {
                self.dial_in_the_clear(&path, endpoint);
            }
        }
        let endpoints: Vec<&Endpoint> = raw.0.iter().map(|address| &address.endpoint).collect();
        self.no_two_equal(&path, &endpoints);
        // Named although it need not be: the way without a socket leads to the same broker.
        let others = raw
            .0
            .into_iter()
            .filter(|address| own.is_none_or(|own| !address.endpoint.reaches(own)))
            .collect();
        let brokers = Brokers::new(own.is_some(), others);
        if brokers.is_none() {
            let (header, port) = if is_frontend {
                ("[frontend]", 5701)
            } else {
                ("[[bridge]]", 5702)
            };
            let problem = self.at(role, format!("a {header} that no broker serves: neither `brokers` nor a [broker] in this process"));
            self.refuse(problem.help(format!(
                "`brokers = [\"tcp://127.0.0.1:{port}\"]`, or a [broker] section"
            )));
        }
        brokers
    }
}
