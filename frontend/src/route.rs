//! Which service answers a request, and by which rules.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use scale0_wire::{Priority, ServiceId};

use crate::affinity::Affinity;
use crate::target;

/// What a request has to match in its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// Any host.
    Any,
    /// Any host that ends in a dot and this.
    Under(String),
    /// This host; lower case, no port.
    Exact(String),
}

/// How far equal requests are folded into one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coalesce {
    /// Each goes on its own.
    Off,
    /// Within this frontend process.
    Frontend,
}

/// The rules a request is handled by.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The service's name; `None`: the request's host.
    pub service: Option<Service>,
    /// How long until the response's head.
    pub timeout: Duration,
    /// How long without a byte after it.
    pub idle_timeout: Duration,
    /// How long to wait for a first backend of a known service.
    pub hold: Duration,
    /// How far it is coalesced.
    pub coalesce: Coalesce,
    /// Whether responses are stored, and answered from the store.
    pub cache: bool,
    /// Who goes first where requests wait for a backend.
    pub priority: Priority,
    /// Which requests go to one backend.
    pub affinity: Affinity,
    /// Whether a second backend may be asked when the first is late. Only of what may run twice at a time: methods that are
    /// idempotent, without content that is still under way.
    pub hedge: bool,
}

impl Rules {
    /// Whether a request with this method may run at two backends at a time. One that says of itself that it may be executed twice
    /// (`Idempotency-Key`) does not mean that.
    pub(crate) fn allow_hedging(&self, method: &Method) -> bool {
        self.hedge && method.is_idempotent()
    }
}

/// A service by name and by what it is called on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name, in lower case.
    pub name: Arc<str>,
    /// Its number.
    pub id: ServiceId,
}

impl Service {
    /// The service with this name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        let id = ServiceId::of(name.as_bytes());
        let name = name.into();
        Self { name, id }
    }
}

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Route {
    /// What the host must be.
    pub host: HostPattern,
    /// What the path must start with, on segment boundaries; starts with a slash. It is compared in the normal form of RFC 3986
    /// §6.2.2, as requests are.
    pub path: String,
    /// What holds then.
    pub rules: Rules,
}

/// The routes in order, found by host without looking at all of them.
#[derive(Debug)]
pub(crate) struct RouteTable {
    routes: Vec<Route>,
    exact: HashMap<String, Vec<usize>>,
    under: HashMap<String, Vec<usize>>,
    any: Vec<usize>,
    otherwise: Rules,
}

impl RouteTable {
    /// The first match in `routes` wins; what none matches is handled by `otherwise`.
    pub(crate) fn new(mut routes: Vec<Route>, otherwise: Rules) -> Self {
        let mut table = Self {
            routes: Vec::new(),
            exact: HashMap::new(),
            under: HashMap::new(),
            any: Vec::new(),
            otherwise,
        };
        for (index, route) in routes.iter_mut().enumerate() {
            if let Ok(normal) = target::path_and_query(&route.path) {
                route.path = normal.into_owned();
            }
            match &route.host {
                HostPattern::Any => table.any.push(index),
                HostPattern::Under(domain) => {
                    table.under.entry(domain.clone()).or_default().push(index);
                }
                HostPattern::Exact(host) => {
                    table.exact.entry(host.clone()).or_default().push(index);
                }
            }
        }
        table.routes = routes;
        table
    }

    /// The rules for a request to this host (lower case, no port) and path.
    pub(crate) fn find(&self, host: &str, path: &str) -> &Rules {
        if self.routes.is_empty() {
            return &self.otherwise;
        }
        let first_of = |list: &Vec<usize>| {
            let mut list = list.iter().copied();
            list.find(|index| starts_with(path, &self.routes[*index].path))
        };
        let [exact, any] = [self.exact.get(host), Some(&self.any)].map(|it| it.and_then(first_of));
        let mut first = [exact, any].into_iter().flatten().min();
        if !self.under.is_empty() {
            let parents = host.match_indices('.').map(|(dot, _)| &host[dot + 1..]);
            let under = parents.filter_map(|parent| self.under.get(parent).and_then(first_of));
            first = under.chain(first).min();
        }
        first.map_or(&self.otherwise, |index| &self.routes[index].rules)
    }
}

/// Whether a path lies below a prefix: `/api` and `/api/` hold `/api/x`, neither holds `/apix`.
fn starts_with(path: &str, prefix: &str) -> bool {
    let trunk = prefix.strip_suffix('/').unwrap_or(prefix);
    match path.strip_prefix(trunk) {
        Some(rest) => rest.starts_with('/') || (rest.is_empty() && trunk.len() == prefix.len()),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(service: &str) -> Rules {
        Rules {
            service: Some(Service::named(service)),
            timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            hold: Duration::from_secs(10),
            coalesce: Coalesce::Frontend,
            cache: true,
            priority: Priority::Interactive,
            affinity: Affinity::Off,
            hedge: false,
        }
    }

    fn table(routes: &[(&str, &str, &str)]) -> RouteTable {
        let route = |(host, path, service): &(&str, &str, &str)| Route {
            host: match host.strip_prefix("*.") {
                _ if *host == "*" => HostPattern::Any,
                Some(domain) => HostPattern::Under(domain.to_owned()),
                None => HostPattern::Exact((*host).to_owned()),
            },
            path: (*path).to_owned(),
            rules: rules(service),
        };
        RouteTable::new(routes.iter().map(route).collect(), rules("otherwise"))
    }

    fn service<'a>(table: &'a RouteTable, host: &str, path: &str) -> &'a str {
        &table.find(host, path).service.as_ref().unwrap().name
    }

    #[test]
    fn the_first_match_wins_whatever_its_kind() {
        let table = table(&[
            ("a.example.com", "/api/", "api"),
            ("*.example.com", "/", "wild"),
            ("a.example.com", "/", "never"),
            ("*", "/any", "any"),
        ]);
        assert_eq!(service(&table, "a.example.com", "/api/x"), "api");
        assert_eq!(service(&table, "a.example.com", "/x"), "wild");
        assert_eq!(service(&table, "b.a.example.com", "/any"), "wild");
        assert_eq!(service(&table, "example.com", "/any/x"), "any");
        assert_eq!(service(&table, "example.com", "/"), "otherwise");
    }

    #[test]
    fn only_what_is_idempotent_may_run_twice_at_a_time_and_only_where_the_route_says_so() {
        let on = Rules {
            hedge: true,
            ..rules("a")
        };
        assert!(on.allow_hedging(&Method::GET) && on.allow_hedging(&Method::PUT));
        assert!(!on.allow_hedging(&Method::POST) && !on.allow_hedging(&Method::PATCH));
        assert!(!rules("a").allow_hedging(&Method::GET));
    }

    #[test]
    fn a_prefix_is_compared_in_normal_form() {
        let table = table(&[("*", "/%61pi/%c3%a9", "api")]);
        assert_eq!(service(&table, "a", "/api/%C3%A9/x"), "api");
    }

    #[test]
    fn a_prefix_ends_on_a_segment_boundary() {
        for (path, prefix, matches) in [
            ("/api", "/api", true),
            ("/api/", "/api", true),
            ("/api/x", "/api", true),
            ("/apix", "/api", false),
            ("/api", "/api/", false),
            ("/api/", "/api/", true),
            ("/x", "/", true),
            ("/", "/", true),
        ] {
            assert_eq!(starts_with(path, prefix), matches, "{path} below {prefix}");
        }
    }
}
