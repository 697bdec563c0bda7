//! The door: what was written becomes a [`Config`], or the list of what speaks against it.
//!
//! Here are the checks that concern the whole process; those of a role are in `roles`.

use std::collections::HashMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::time::Duration;

use scale0_transport::KeyError;

use super::address::{Endpoint, PublicKey};
use super::layers::Origins;
use super::model::{Admin, Bridge, Config, Limits, Log, Node, Security, Site};
use super::names::Name;
use super::problem::{Origin, Problem};
use super::settings::{RawAdmin, RawConfig, RawLimits, RawSecurity};
use super::text::Text;
use super::units::{ByteCount, Time};
use super::{SECRET_KEY, Sources};

/// hyper's read buffer has no smaller size.
const LEAST_HEADER_BYTES: ByteCount = ByteCount::kib(8);

/// The protocol carries no larger head, see `scale0_wire::limits`.
const MOST_HEADER_BYTES: ByteCount = ByteCount::kib(128);

/// The protocol carries no more fields.
const MOST_HEADER_COUNT: usize = 1024;

/// A stream's windows to both sides and some room; with less, a single transfer would stand still.
const LEAST_IN_FLIGHT_BYTES: ByteCount = ByteCount::mib(1);

/// A few of the largest requests; with less, a single one could be refused for ever.
const LEAST_QUEUED_BYTES: ByteCount = ByteCount::mib(1);

const INSECURE: &str = "`insecure = true` in [security], or SCALE0__SECURITY__INSECURE=true, says that the network itself is trusted";

/// Instead of that, for what is bound and what is dialled.
const KEY_OF_OURS: &str = "`secret_key_file` in [security] names this node's key, made by `scale0 keygen`, and `allow` whom it lets in; or ";
const KEY_OF_THEIRS: &str =
    "name the broker's key, `{ endpoint = \"…\", public_key = \"…\" }` or --broker-key; or ";

/// Checks what was written as a whole. A node without a name takes the host's.
pub(super) fn check(
    raw: RawConfig,
    origins: &Origins,
    sources: &Sources,
) -> Result<Config, Vec<Problem>> {
    let mut door = Door {
        origins,
        problems: Vec::new(),
        insecure: raw.security.insecure,
        has_key: raw.security.secret_key_file.is_some() || sources.secret_key.is_some(),
        bound: Vec::new(),
    };
    door.orphans(&raw);
    let limits = door.limits(&raw.limits);
    let broker = raw.broker.map(|broker| door.broker(broker, &raw.service));
    let (routes, cache) = (raw.route, raw.cache.unwrap_or_default());
    let frontend = raw
        .frontend
        .and_then(|frontend| door.frontend(frontend, &routes, &cache, &limits, broker.as_ref()));
    let bridges = raw.bridge.into_iter().enumerate();
    let bridges: Vec<Bridge> = bridges
        .filter_map(|(index, bridge)| door.bridge(index, bridge, broker.as_ref()))
        .collect();
    let security = door.security(raw.security, sources, broker.is_some());
    let admin = raw.admin.map(|admin| door.admin(admin));
    let name = door.node(raw.node.name, &sources.host_name);
    if !door.problems.is_empty() {
        return Err(door.problems);
    }
    Ok(Config {
        node: Node { name },
        site: Site {
            name: raw.site.name,
        },
        frontend,
        broker,
        bridges,
        limits,
        security,
        admin,
        log: Log {
            level: raw.log.level,
            access: raw.log.access,
        },
    })
}

/// Where everything has to pass.
pub(super) struct Door<'a> {
    pub(super) origins: &'a Origins,
    problems: Vec<Problem>,
    insecure: bool,
    /// This node has a key, whatever it is worth.
    has_key: bool,
    /// What is bound so far, and by which setting.
    bound: Vec<(Endpoint, String)>,
}

impl Door<'_> {
    /// A problem with the setting of this path.
    pub(super) fn at(&self, path: &str, message: impl Into<String>) -> Problem {
        Problem::new(self.origins.of(path), path, message)
    }

    pub(super) fn refuse(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Refuses settings of a role that is not there: they would do nothing, and whoever wrote them thinks they do.
    fn orphans(&mut self, raw: &RawConfig) {
        let (frontend, broker) = (raw.frontend.is_some(), raw.broker.is_some());
        for (is_orphan, path, section, role) in [
            (
                !raw.route.is_empty() && !frontend,
                "route.0",
                "[[route]]",
                "[frontend]",
            ),
            (
                raw.cache.is_some() && !frontend,
                "cache",
                "[cache]",
                "[frontend]",
            ),
            (
                !raw.service.is_empty() && !broker,
                "service.0",
                "[[service]]",
                "[broker]",
            ),
        ] {
            if is_orphan {
                let problem = self.at(path, format!("{section} without a {role}"));
                self.refuse(problem.help(format!(
                    "{section} sets what the {role} of the same file does; here it would do nothing"
                )));
            }
        }
        if !frontend && !broker && raw.bridge.is_empty() {
            let problem = Problem::new(
                Origin::Whole,
                "",
                "no role: there is neither a [frontend] nor a [broker] nor a [[bridge]]",
            );
            self.refuse(problem.help("the roles a process plays are the sections of its file"));
        }
    }

    fn node(&mut self, given: Option<Name>, host_name: &str) -> Name {
        given
            .or_else(|| Name::read(host_name).ok())
            .unwrap_or_else(|| {
                let problem = self.at("node", "the host's own name cannot be a node's");
                self.refuse(problem.help("name the node: `name = \"…\"` in [node]"));
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
        self.at_most(
            "limits.header_count",
            raw.header_count.0,
            MOST_HEADER_COUNT,
            "the most the protocol carries",
        );
        self.at_least(
            "limits.in_flight_bytes",
            raw.in_flight_bytes,
            LEAST_IN_FLIGHT_BYTES,
        );
        self.at_least("limits.queued_bytes", raw.queued_bytes, LEAST_QUEUED_BYTES);
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
            queued_bytes: raw.queued_bytes,
        }
    }

    fn admin(&mut self, raw: RawAdmin) -> Admin {
        let listen = raw.listen.0;
        self.listen("admin.listen", listen);
        if !listen.ip().is_loopback() && raw.token_file.is_none() {
            let problem = self.at(
                "admin.listen",
                format!("the admin interface at {listen}, beyond loopback, needs a `token_file`"),
            );
            self.refuse(problem.help("whoever reaches it could drain this process; put a long random text into a file and name it"));
        }
        Admin {
            listen,
            token_file: raw.token_file.map(|file| file.0),
        }
    }

    /// Notes that a setting binds an HTTP listener.
    pub(super) fn listen(&mut self, path: &str, address: SocketAddr) {
        self.bind(path, address.into(), &address.to_string());
    }

    /// Notes that a setting binds a ZeroMQ socket.
    pub(super) fn bind_endpoint(&mut self, path: &str, endpoint: &Endpoint) {
        if endpoint.can_be_bound() {
            if !self.has_key {
                self.secure(path, endpoint, "bound", KEY_OF_OURS);
            }
        } else {
            self.refuse(self.at(
                path,
                format!(
                    "expected an address of this machine or `*`, found the name in \"{endpoint}\""
                ),
            ));
        }
        self.bind(path, endpoint.clone(), &endpoint.to_string());
    }

    /// Refuses the second that is bound in one place.
    fn bind(&mut self, path: &str, endpoint: Endpoint, shown: &str) {
        if let Some((_, first)) = self
            .bound
            .iter()
            .find(|(bound, _)| bound.collides(&endpoint))
        {
            let problem = self.at(path, format!("\"{shown}\" is taken already"));
            self.refuse(
                problem.beside(format!("`{first}` is bound there"), self.origins.of(first)),
            );
        }
        self.bound.push((endpoint, path.to_owned()));
    }

    /// Notes that a setting dials a broker whose key is not known.
    pub(super) fn dial_in_the_clear(&mut self, path: &str, endpoint: &Endpoint) {
        self.secure(path, endpoint, "dialled", KEY_OF_THEIRS);
    }

    fn security(&mut self, raw: RawSecurity, sources: &Sources, is_broker: bool) -> Security {
        let allow = raw.allow.0;
        let names: Vec<&Name> = allow.iter().map(|it| &it.name).collect();
        self.no_two_equal("security.allow", &names);
        let keys: Vec<&PublicKey> = allow.iter().map(|it| &it.public_key).collect();
        self.no_two_equal("security.allow", &keys);
        if !allow.is_empty() && !is_broker {
            let problem = self.at("security.allow", "`allow` without a [broker]");
            self.refuse(problem.help(
                "`allow` says whom the [broker] of the same file lets in; here it would do nothing",
            ));
        } else if !allow.is_empty() && !self.has_key {
            let problem = self.at(
                "security.allow",
                "`allow` without a secret key: nobody could prove who they are",
            );
            self.refuse(problem.help(
                "`secret_key_file` in [security] names this node's key, made by `scale0 keygen`",
            ));
        } else if allow.is_empty() && self.has_key && is_broker {
            let problem = self.at(
                "security.secret_key_file",
                "a [broker] with a secret key and an empty `allow`: nobody could come in",
            );
            self.refuse(problem.help(
                "`allow = [{ name = \"shop-1\", public_key = \"…\", may = \"backend\", services = [\"www.example.com\"] }]` in [security] names who may",
            ));
        }
        let secret_key = sources.secret_key.as_deref().map(|key| key.trim().parse());
        let secret_key = secret_key.and_then(|key| {
            key.map_err(|error: KeyError| {
                let origin = Origin::Variable(SECRET_KEY.to_owned());
                let message = format!("expected this node's secret key: {error}");
                self.refuse(Problem::new(origin, "", message));
            })
            .ok()
        });
        Security {
            insecure: raw.insecure,
            secret_key_file: raw.secret_key_file.map(|file| file.0),
            secret_key,
            allow,
        }
    }

    /// Refuses to go beyond this machine without encryption, unless that was asked for.
    fn secure(&mut self, path: &str, endpoint: &Endpoint, done: &str, instead: &str) {
        if !endpoint.is_local() && !self.insecure {
            let problem = self.at(
                path,
                format!("\"{endpoint}\" is {done} beyond this machine without encryption"),
            );
            self.refuse(problem.help(format!("{instead}{INSECURE}")));
        }
    }

    pub(super) fn no_two_equal<T: Display>(&mut self, path: &str, values: &[T]) {
        let mut first_of = HashMap::new();
        for (index, value) in values.iter().enumerate() {
            let first = *first_of.entry(value.to_string()).or_insert(index);
            if first != index {
                let problem = self.at(&format!("{path}.{index}"), format!("\"{value}\" twice"));
                self.refuse(problem.beside(
                    "first named here",
                    self.origins.of(&format!("{path}.{first}")),
                ));
            }
        }
    }

    pub(super) fn some_time(&mut self, path: &str, time: Time) -> Duration {
        if time.0.is_zero() {
            self.refuse(self.at(
                path,
                "expected a time that is not zero: nothing would ever be in time",
            ));
        }
        time.0
    }

    pub(super) fn at_least(&mut self, path: &str, size: ByteCount, least: ByteCount) {
        if size < least {
            self.refuse(self.at(path, format!("expected at least {least}, found {size}")));
        }
    }

    pub(super) fn at_most<T: Copy + PartialOrd + Display>(
        &mut self,
        path: &str,
        found: T,
        most: T,
        why: &str,
    ) {
        if most < found {
            self.refuse(self.at(
                path,
                format!("expected at most {most}, {why}, found {found}"),
            ));
        }
    }
}
