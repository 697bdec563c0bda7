//! From the file's `[frontend]`, `[[route]]`, `[cache]` and `[limits]` to a running frontend.

use anyhow::Context as _;
use scale0_cache::policy::{self, Policy};
use scale0_cache::{CacheConfig, StoreConfig, StoreKind};
use scale0_frontend::{
    AccessLog, Affinity, Brokers, Coalesce, Frontend, FrontendConfig, HostPattern, Limits,
    Listener, Priority, Route, Rules, Service,
};
use scale0_transport::LinkOptions;

use super::backends::Surroundings;
use super::{backends, random};
use crate::config;

/// Starts it on the threads that are there.
pub(super) fn start(
    frontend: &config::Frontend,
    http: Vec<Listener>,
    instance: u64,
    access_log: AccessLog,
    debug_token: Option<String>,
    around: &Surroundings<'_>,
) -> anyhow::Result<Frontend> {
    let config = around.config;
    let endpoints = frontend
        .brokers
        .addresses()
        .iter()
        .map(backends::endpoint)
        .collect::<anyhow::Result<_>>()?;
    let limits = &config.limits;
    let started = Frontend::start(
        FrontendConfig {
            node: config.node.name.to_string(),
            site: config.site.name.to_string(),
            instance,
            http,
            trusted_proxies: frontend.trusted_proxies.clone(),
            routes: frontend.routes.iter().map(route).collect(),
            otherwise: Rules {
                service: None,
                timeout: limits.timeout,
                idle_timeout: limits.idle_timeout,
                hold: limits.hold,
                coalesce: Coalesce::Frontend,
                cache: true,
                priority: Priority::Interactive,
                affinity: Affinity::Off,
                hedge: false,
            },
            brokers: Brokers {
                endpoints,
                options: LinkOptions {
                    keys: around.keys.clone(),
                    ..LinkOptions::default()
                },
                context: around.context.clone(),
                hub: around.hub.clone().filter(|_| frontend.brokers.in_process()),
            },
            cache: CacheConfig {
                memory: frontend.cache.memory.bytes(),
                memory_max_object: Some(frontend.cache.memory_max_object.bytes()),
                flight_buffer: bytes(frontend.cache.flight_buffer),
                flights_memory: bytes(limits.in_flight_bytes),
                policy: Policy {
                    set_cookie: match frontend.cache.set_cookie {
                        config::SetCookie::Store => policy::SetCookie::Store,
                        config::SetCookie::Refuse => policy::SetCookie::Refuse,
                    },
                },
                seed: random(),
            },
            store: store(&frontend.cache, around.awaits_store),
            limits: Limits {
                max_connections: super::limits::connections(limits.max_connections),
                header_bytes: bytes(limits.header_bytes),
                header_count: limits.header_count,
                body_bytes: limits.body_bytes.bytes(),
                header_timeout: limits.header_timeout,
                keepalive_timeout: limits.keepalive_timeout,
                min_rate: limits.min_rate.bytes(),
                max_streams: limits.max_streams,
                in_flight_bytes: limits.in_flight_bytes.bytes(),
            },
            access_log,
            debug_token,
        },
        around.threads,
    );
    started.context("the frontend cannot start")
}

fn store(cache: &config::Cache, awaits_folder: bool) -> Option<StoreConfig> {
    let kind = match cache.store {
        config::Store::None => return None,
        config::Store::File => StoreKind::File,
        config::Store::Sled => StoreKind::Sled,
    };
    Some(StoreConfig {
        kind,
        path: cache.path.clone(),
        capacity: cache.capacity.bytes(),
        awaits_folder,
    })
}

fn route(route: &config::Route) -> Route {
    Route {
        host: match &route.host {
            config::HostPattern::Any => HostPattern::Any,
            config::HostPattern::Under(domain) => HostPattern::Under(domain.clone()),
            config::HostPattern::Exact(host) => HostPattern::Exact(host.clone()),
        },
        path: route.path.to_string(),
        rules: Rules {
            service: Some(Service::named(&route.service)),
            timeout: route.timeout,
            idle_timeout: route.idle_timeout,
            hold: route.hold,
            coalesce: match route.coalesce {
                config::Coalesce::Off => Coalesce::Off,
                config::Coalesce::Frontend => Coalesce::Frontend,
            },
            cache: route.cache,
            priority: match route.priority {
                config::Priority::Interactive => Priority::Interactive,
                config::Priority::Normal => Priority::Normal,
                config::Priority::Background => Priority::Background,
            },
            affinity: route.affinity.0.clone(),
            hedge: route.hedge,
        },
    }
}

fn bytes(count: config::ByteCount) -> usize {
    usize::try_from(count.bytes()).unwrap_or(usize::MAX)
}
