//! Backends that run in this process: bridges, and the demo.

use std::fmt::Display;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use http::{Request, Response};
use scale0_backend::{Backend, Body, Counters, Throttle};
use scale0_bridge::{Bridge, BridgeConfig, Health};
use scale0_frontend::Threads;
use scale0_transport::{Context, Endpoint, Hub, KeyPair};
use tokio::sync::watch;
use tower_service::Service;

use crate::config::{self, Config};

/// One service on all runtime threads; each thread's is a backend of its own to the brokers, so that a request which comes in
/// on a thread is answered on it.
pub(super) struct Backends {
    pub(super) name: String,
    pub(super) counters: Vec<Arc<Counters>>,
    /// Each backend's, and its share of the concurrency.
    throttles: Vec<(Throttle, u32)>,
    running: Arc<AtomicUsize>,
    shutdown: watch::Sender<bool>,
    /// Of a bridge.
    pub(super) bridge: Option<Bridge<Body>>,
}

/// What all backends of a process have in common.
pub(super) struct Surroundings<'a> {
    pub(super) config: &'a Config,
    pub(super) hub: Option<Arc<dyn Hub>>,
    pub(super) context: Option<Context>,
    /// What it proves to brokers.
    pub(super) keys: Option<KeyPair>,
    /// A process before this one may have the store still, and is about to let go of it.
    pub(super) awaits_store: bool,
    pub(super) threads: &'a Threads,
}

impl Backends {
    /// Starts a bridge.
    pub(super) fn bridge(
        bridge: &config::Bridge,
        around: &Surroundings<'_>,
    ) -> anyhow::Result<Self> {
        let services: Vec<String> = bridge.services.iter().map(ToString::to_string).collect();
        let upstreams = bridge
            .upstream
            .iter()
            .map(|upstream| Ok(upstream.to_string().parse()?))
            .collect::<anyhow::Result<_>>()?;
        let concurrency = u32::try_from(bridge.concurrency)
            .ok()
            .and_then(NonZeroU32::new)
            .context("bridge.concurrency")?;
        let settings = BridgeConfig {
            concurrency,
            health: Health {
                path: bridge
                    .health
                    .as_ref()
                    .map(|path| path.parse())
                    .transpose()
                    .context("bridge.health")?,
                ..Health::default()
            },
            ..BridgeConfig::new(services.clone(), upstreams)
        };
        let service = Bridge::new(settings)?;
        let mut backends = Self::start(
            &services,
            concurrency.get(),
            &bridge.brokers,
            &service.gateway(),
            around,
        )?;
        for (throttle, share) in std::mem::take(&mut backends.throttles) {
            service.throttle(throttle, share);
        }
        let watched = service.clone();
        around.threads.spawn(0, move || async move {
            watched.watch().await;
        });
        backends.bridge = Some(service);
        Ok(backends)
    }

    /// Starts a service on as many threads as its concurrency has room for.
    pub(super) fn start<S, B>(
        services: &[String],
        concurrency: u32,
        brokers: &config::Brokers,
        service: &S,
        around: &Surroundings<'_>,
    ) -> anyhow::Result<Self>
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Display + Send,
        B: http_body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Display + Send,
    {
        let lanes = u32::try_from(around.threads.len())
            .unwrap_or(u32::MAX)
            .min(concurrency);
        let (shutdown, shutting_down) = watch::channel(false);
        let running = Arc::new(AtomicUsize::new(lanes as usize));
        let (mut counters, mut throttles) = (Vec::new(), Vec::new());
        for lane in 0..lanes {
            // The first lanes take what does not divide evenly.
            let share = concurrency / lanes + u32::from(lane < concurrency % lanes);
            let mut shutting_down = shutting_down.clone();
            let mut backend = Backend::new("")
                .services(services.iter().cloned())
                .node(around.config.node.name.to_string())
                .concurrency(share)
                .max_streams(around.config.limits.max_streams)
                .drain_timeout(around.config.limits.drain_timeout)
                .shutdown(async move {
                    // The sender goes only with the process.
                    _ = shutting_down.wait_for(|shutdown| *shutdown).await;
                });
            if around.config.security.insecure {
                backend = backend.insecure();
            }
            if let Some(keys) = &around.keys {
                backend = backend.keys(keys.clone());
            }
            if let Some(hub) = around.hub.as_ref().filter(|_| brokers.in_process()) {
                backend = backend.in_process(Arc::clone(hub), lane);
            }
            if let Some(context) = &around.context {
                backend = backend.context(context.clone());
            }
            for address in brokers.addresses() {
                backend = backend.endpoint(endpoint(address)?);
            }
            counters.push(backend.counters());
            throttles.push((backend.throttle(), share));
            let (service, running, name) =
                (service.clone(), Arc::clone(&running), services.join(", "));
            around.threads.spawn(lane as usize, move || async move {
                if let Err(error) = backend.serve(service).await {
                    tracing::error!(%error, services = name, "a backend of this process has ended");
                }
                running.fetch_sub(1, Ordering::Relaxed);
            });
        }
        Ok(Self {
            name: services.join(", "),
            counters,
            throttles,
            running,
            shutdown,
            bridge: None,
        })
    }

    /// How many of them have not ended.
    pub(super) fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// From now on they take nothing new, finish what is under way, and leave their brokers.
    pub(super) fn start_drain(&self) {
        self.shutdown.send_replace(true);
    }
}

/// An address from the file as the transport wants it.
pub(super) fn endpoint(address: &config::BrokerAddress) -> anyhow::Result<Endpoint> {
    let endpoint: Endpoint = address.endpoint.to_string().parse()?;
    Ok(match &address.public_key {
        Some(key) => endpoint.with_server_key(key.0),
        None => endpoint,
    })
}
