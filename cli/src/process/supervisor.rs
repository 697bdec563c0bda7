//! Starts the roles a configuration has, waits for the end, and stops them in order.

use std::io::Write as _;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use scale0_broker::BrokerHandle;
use scale0_frontend::admin::{Admin, AdminConfig, OnPurge, OnReload, Source};
use scale0_frontend::{AccessLog, Frontend, Threads};
use scale0_transport::{Context, Hub, Port};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::JoinSet;

use super::backends::{Backends, Surroundings};
use super::reload::Reload;
use super::roles::{Roles, until};
use super::sources::{OfBackends, OfBroker};
use super::{broker, frontend, limits, logging, random};
use crate::args::Role;
use crate::config::{self, Brokers, Config, Sources};
use crate::demo;

/// Drains asked for by the admin interface that are under way, or wait to be, at a time.
const DRAINS: usize = 16;

/// What is to drain, or all; and within which time, if that was said.
type Drain = (Option<Role>, Option<Duration>);

/// How long writing what is left of the access log may take.
const LAST_LINES: Duration = Duration::from_secs(5);

/// Signals to stop that come within this time are one. GNU `timeout` and some supervisors signal both their child and its
/// process group, a moment apart; a person who has lost patience takes longer.
const TOGETHER: Duration = Duration::from_millis(250);

/// Whether the demo backend runs too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Demo {
    /// It answers for every service.
    On,
    /// It does not.
    Off,
}

/// Runs the roles that `config` has until the process is told to stop. What it was read from, if that is a file, is read again on SIGHUP,
/// which otherwise stops the process too.
///
/// # Errors
/// When a role cannot start; nothing runs then.
pub(crate) fn run(config: &Config, sources: Option<Sources>, demo: Demo) -> anyhow::Result<()> {
    logging::begin(&config.log)?;
    limits::raise_descriptors();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        // Before anything starts, so that no signal meets its default action once something runs.
        let mut signals = Signals::listen(sources.is_some())?;
        let (process, mut drains) = Process::start(config, sources, demo)?;
        process.announce()?;
        let (why, within) = process.serve(&mut signals, &mut drains).await;
        tracing::info!(why, "stopping");
        tokio::select! {
            () = process.stop(within) => Ok(()),
            () = signals.second_stop() => {
                tracing::warn!("told to stop twice: ending at once");
                std::process::exit(1);
            }
        }
    })
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    /// It means that the file is to be read again, and not the end.
    hang_up_reloads: bool,
    reopen: Signal,
}

impl Signals {
    fn listen(hang_up_reloads: bool) -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
            hang_up_reloads,
            reopen: listen(SignalKind::user_defined1())?,
        })
    }

    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hang_up.recv(), if !self.hang_up_reloads => {}
        }
    }

    /// The one after the first, which has just come.
    async fn second_stop(&mut self) {
        let echoes = async {
            loop {
                self.stop().await;
            }
        };
        _ = tokio::time::timeout(TOGETHER, echoes).await;
        self.stop().await;
    }
}

/// The running roles.
struct Process {
    drain_timeout: Duration,
    announcement: String,
    roles: Roles,
    reload: Option<Arc<Reload>>,
    access_log: AccessLog,
    access_log_thread: Option<JoinHandle<()>>,
    /// Last, so that everything that runs on them has ended before.
    _admin: Option<Admin>,
    _threads: Threads,
}

impl Process {
    fn start(
        config: &Config,
        read_from: Option<Sources>,
        demo: Demo,
    ) -> anyhow::Result<(Self, Receiver<Drain>)> {
        let cores = std::thread::available_parallelism()?.get();
        let threads = Threads::start(cores).context("cannot start threads")?;
        let instance = random();
        let token = admin_token(config)?;
        let keys = config::key_pair(&config.security).map_err(anyhow::Error::msg)?;
        let keys = keys.as_ref();
        let (access_log, access_log_thread) = logging::begin_access_log(&config.log)?;

        let dials = |brokers: &Brokers| !brokers.addresses().is_empty();
        let dials_out = config
            .frontend
            .as_ref()
            .is_some_and(|it| dials(&it.brokers))
            || config.bridges.iter().any(|it| dials(&it.brokers));
        let knows_keys = |brokers: &Brokers| {
            let mut addresses = brokers.addresses().iter();
            addresses.any(|address| address.public_key.is_some())
        };
        let roles = config.frontend.iter().map(|it| &it.brokers);
        let mut roles = roles.chain(config.bridges.iter().map(|it| &it.brokers));
        if keys.is_none() && roles.any(knows_keys) {
            tracing::warn!(
                "a broker's public_key is given, and this node has no key of its own: a broker with a key lets nobody in without one; see `secret_key_file` in [security]"
            );
        }
        let context = (dials_out || config.broker.is_some())
            .then(|| Context::new(1))
            .transpose()?;

        let broker = match (&config.broker, &context) {
            (Some(settings), Some(context)) => Some(Arc::new(broker::start(
                config, settings, instance, context, keys,
            )?)),
            _ => None,
        };
        let hub: Option<Arc<dyn Hub>> = broker.as_ref().map(|broker| broker.hub());

        let around = Surroundings {
            config,
            hub,
            context,
            keys: keys.cloned(),
            threads: &threads,
        };
        let mut backends = Vec::new();
        for bridge in &config.bridges {
            backends.push(Arc::new(Backends::bridge(bridge, &around)?));
        }
        if let (Demo::On, Some(settings)) = (demo, &config.frontend) {
            let service = demo::service();
            backends.push(Arc::new(Backends::start(
                &["*".to_owned()],
                demo::CONCURRENCY,
                &settings.brokers,
                &service,
                &around,
            )?));
        }
        let frontend = match &config.frontend {
            Some(settings) => {
                let log = access_log.clone();
                let token = token.clone();
                let started = frontend::start(settings, instance, log, token, &around)?;
                Some(Arc::new(started))
            }
            None => None,
        };

        let mut sources: Vec<Arc<dyn Source>> = Vec::new();
        sources.extend(frontend.clone().map(|it| it as Arc<dyn Source>));
        sources.extend(
            broker
                .clone()
                .map(|it| Arc::new(OfBroker(it)) as Arc<dyn Source>),
        );
        sources.extend(
            backends
                .iter()
                .map(|it| Arc::new(OfBackends(Arc::clone(it))) as Arc<dyn Source>),
        );
        let roles = Roles {
            broker,
            backends,
            frontend,
        };
        let reload =
            read_from.map(|it| Arc::new(Reload::new(it, config.clone(), roles.broker.clone())));
        let on_reload = reload
            .clone()
            .map(|reload| -> OnReload { Arc::new(move || reload.reload()) });
        let (drain, drains) = channel(DRAINS);
        let drained = roles.clone();
        let on_purge = roles.frontend.clone().map(|frontend| -> OnPurge {
            Arc::new(move |purges| match frontend.purge(purges) {
                Ok(_) => Ok(()),
                Err(error) => Err(error.to_string()),
            })
        });
        let admin = match &config.admin {
            Some(settings) => Some(
                Admin::start(
                    AdminConfig {
                        listen: settings.listen,
                        token,
                        about: about(config),
                        sources,
                        on_drain: Box::new(move |request| {
                            let role = request.role.map(|role| drained.named(&role)).transpose()?;
                            drain.try_send((role, request.timeout)).map_err(|error| {
                                match error {
                                    TrySendError::Full(_) => {
                                        "as many drains are under way as may be"
                                    }
                                    TrySendError::Closed(_) => "the process is ending",
                                }
                                .to_owned()
                            })
                        }),
                        on_purge,
                        on_reload,
                    },
                    &threads,
                )
                .with_context(|| format!("admin cannot listen on {}", settings.listen))?,
            ),
            None => None,
        };
        let announcement = announcement(
            config,
            roles.frontend.as_deref(),
            roles.broker.as_deref(),
            admin.as_ref(),
            demo,
        );
        let process = Self {
            drain_timeout: config.limits.drain_timeout,
            announcement,
            roles,
            reload,
            access_log,
            access_log_thread,
            _admin: admin,
            _threads: threads,
        };
        Ok((process, drains))
    }

    /// Says where it answers and how to stop it.
    fn announce(&self) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        out.write_all(self.announcement.as_bytes())?;
        Ok(out.flush()?)
    }

    /// Serves until told to stop; returns by whom, and how long in-flight work may take.
    async fn serve(
        &self,
        signals: &mut Signals,
        drains: &mut Receiver<Drain>,
    ) -> (&'static str, Duration) {
        // Roles that end while the others go on.
        let mut draining = JoinSet::new();
        loop {
            tokio::select! {
                _ = signals.terminate.recv() => return ("SIGTERM", self.drain_timeout),
                _ = signals.interrupt.recv() => return ("SIGINT", self.drain_timeout),
                _ = signals.hang_up.recv() => match self.reload.as_deref().map(Reload::reload) {
                    None => return ("SIGHUP", self.drain_timeout),
                    Some(Ok(said)) => tracing::info!(said = said.trim_end(), "read the configuration again"),
                    Some(Err(why)) => tracing::error!(why = why.trim_end(), "nothing was taken over from the configuration"),
                },
                _ = signals.reopen.recv() => self.access_log.reopen(),
                Some((role, timeout)) = drains.recv(), if draining.len() < DRAINS => {
                    let within = timeout.unwrap_or(self.drain_timeout);
                    let Some(role) = role else {
                        return ("POST /drain", within);
                    };
                    draining.spawn(self.roles.clone().drain(role, within));
                }
                Some(_) = draining.join_next() => {}
                () = self.roles.broker_failed() => return ("the broker has failed", self.drain_timeout),
            }
        }
    }

    /// Stops all roles, and then what they write to.
    async fn stop(mut self, within: Duration) {
        self.roles.stop(within).await;
        self.access_log.close();
        if let Some(thread) = self.access_log_thread.take() {
            if !until(LAST_LINES, || thread.is_finished()).await {
                tracing::warn!("the access log's disk does not take its last lines");
            } else if thread.join().is_err() {
                tracing::error!("the access log's thread has panicked");
            }
        }
    }
}

fn admin_token(config: &Config) -> anyhow::Result<Option<String>> {
    let Some(path) = config
        .admin
        .as_ref()
        .and_then(|admin| admin.token_file.as_ref())
    else {
        return Ok(None);
    };
    let token = config::token(path).map_err(anyhow::Error::msg)?;
    Ok(Some(token))
}

fn about(config: &Config) -> serde_json::Map<String, serde_json::Value> {
    let mut about = serde_json::Map::new();
    about.insert("version".into(), env!("CARGO_PKG_VERSION").into());
    about.insert("node".into(), json!(config.node.name.to_string()));
    about.insert("site".into(), json!(config.site.name.to_string()));
    about
}

fn announcement(
    config: &Config,
    frontend: Option<&Frontend>,
    broker: Option<&BrokerHandle>,
    admin: Option<&Admin>,
    demo: Demo,
) -> String {
    let mut lines = vec![format!(
        "scale0 {}  node {}, site {}",
        env!("CARGO_PKG_VERSION"),
        config.node.name,
        config.site.name
    )];
    for address in frontend.map(Frontend::addresses).unwrap_or_default() {
        lines.push(format!(
            "  pages     http://{address}{}",
            if demo == Demo::On { "  (the demo)" } else { "" }
        ));
    }
    if let Some(admin) = admin {
        lines.push(format!(
            "  admin     http://{}  /status /metrics /healthz /readyz",
            admin.address()
        ));
    }
    for (port, endpoint) in broker.map(BrokerHandle::endpoints).unwrap_or_default() {
        let whose = match port {
            Port::Frontends => "frontends",
            Port::Backends => "backends",
            Port::Peers => "peers",
        };
        lines.push(format!("  broker    {endpoint}  for {whose}"));
    }
    for bridge in &config.bridges {
        let upstreams: Vec<String> = bridge.upstream.iter().map(ToString::to_string).collect();
        let services: Vec<String> = bridge.services.iter().map(ToString::to_string).collect();
        lines.push(format!(
            "  bridge    {} to {}",
            services.join(", "),
            upstreams.join(", ")
        ));
    }
    lines.push(
        "Stop with Ctrl-C or SIGTERM: what is in flight ends first. A second one ends at once.\n"
            .into(),
    );
    lines.join("\n")
}
