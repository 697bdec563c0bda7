//! Starts the roles a configuration has, waits for the end, and stops them in order.

use std::io::Write as _;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use scale0_broker::BrokerHandle;
use scale0_frontend::admin::{Admin, AdminConfig, OnPurge, OnReload, Source};
use scale0_frontend::{AccessLog, Frontend, Listener, Threads};
use scale0_transport::{Context, Hub, Port};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::JoinSet;

use super::backends::{Backends, Surroundings};
use super::handover::{Post, Predecessor, Successor};
use super::reload::Reload;
use super::roles::{Roles, until};
use super::sockets::{self, Sockets, Whose};
use super::sources::{OfBackends, OfBroker};
use super::{broker, frontend, limits, logging, notify, random};
use crate::args::Role;
use crate::config::{self, Brokers, Config, Sources};
use crate::demo;

/// Drains asked for by the admin interface that are under way, or wait to be, at a time.
const DRAINS: usize = 16;

/// What is to drain, or all; and within which time, if that was said.
type Drain = (Option<Role>, Option<Duration>);

/// How long a process that takes over may take to be ready: its brokers may be on their way too.
const READY: Duration = Duration::from_secs(60);

/// How long connections to a socket that was given to the process may wait for it to be ready: a broker that is there answers much
/// sooner, and where none is, clients are better told so.
const READY_ALONE: Duration = Duration::from_secs(5);

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
        let (sockets, succession) = Succession::begin(config).await?;
        let (mut process, mut drains) = Process::start(config, sockets, sources, demo)?;
        let stop = tokio::select! {
            post = succession.turn(&process) => {
                process.open(post?)?;
                notify::ready();
                process.announce()?;
                process.serve(&mut signals, &mut drains).await
            }
            () = signals.stop() => Stop::because("told to stop before it was ready", process.drain_timeout),
        };
        tracing::info!(why = stop.why, "stopping");
        tokio::select! {
            () = process.stop(stop) => Ok(()),
            () = signals.second_stop() => {
                tracing::warn!("told to stop twice: ending at once");
                std::process::exit(1);
            }
        }
    })
}

/// How a process comes by its sockets, and by its turn to accept on them.
struct Succession {
    turn: Turn,
    post: Option<Post>,
}

/// When a process may accept.
enum Turn {
    /// At once: it has bound its sockets.
    Now,
    /// When it is ready: who gave it its sockets keeps them, and others may accept there.
    WhenReady,
    /// When it is ready and has relieved the process before it; with which of that one's sockets it uses.
    After(Predecessor, Vec<usize>),
}

impl Succession {
    /// Takes the sockets that there are, and binds the others.
    async fn begin(config: &Config) -> anyhow::Result<(Inheritance, Self)> {
        let handover = config.frontend.as_ref().and_then(|it| it.handover.as_ref());
        let found = match handover {
            Some(path) => Predecessor::find(path).await?,
            None => None,
        };
        let (predecessor, offered) = found.unzip();
        let mut given = offered.unwrap_or_default();
        let offered = given.len();
        given.extend(sockets::of_service_manager()?);
        let is_managed = offered < given.len();
        let claimed = sockets::claim(config, given)?;
        // What the one before does not hand over any more is left behind on purpose; what a service manager opens is not.
        sockets::none_left(config, &claimed, offered)?;
        let turn = match predecessor {
            Some(predecessor) => {
                let uses = claimed.used.into_iter().filter(|&index| index < offered);
                Turn::After(predecessor, uses.collect())
            }
            None if is_managed => Turn::WhenReady,
            None => Turn::Now,
        };
        let post = handover.map(|path| Post::prepare(path)).transpose()?;
        let inheritance = Inheritance {
            sockets: claimed.sockets,
            awaits_store: !matches!(turn, Turn::Now),
        };
        Ok((inheritance, Self { turn, post }))
    }

    /// Returns when it is this process's turn to accept; with where it waits for its own successor.
    async fn turn(self, process: &Process) -> anyhow::Result<Option<Post>> {
        let is_ready = || process.sources.iter().all(|it| it.is_ready());
        match self.turn {
            Turn::Now => {}
            Turn::WhenReady => {
                // Nobody else can be asked how it is.
                process.open_admin();
                if !until(READY_ALONE, is_ready).await {
                    tracing::warn!("not ready yet, and accepts connections all the same");
                }
            }
            Turn::After(predecessor, uses) => {
                ensure!(
                    until(READY, is_ready).await,
                    "this process was not ready within {READY:?}, and the one before it goes on"
                );
                predecessor.relieve(uses).await;
            }
        }
        Ok(self.post)
    }
}

/// What a process has of those before it.
struct Inheritance {
    sockets: Sockets,
    /// One of them may have the store still, and is about to let go of it.
    awaits_store: bool,
}

/// Why the process ends, and how.
struct Stop {
    why: &'static str,
    /// How long in-flight work may take.
    within: Duration,
    /// Who accepts from then on.
    successor: Option<Successor>,
}

impl Stop {
    fn because(why: &'static str, within: Duration) -> Self {
        Self {
            why,
            within,
            successor: None,
        }
    }
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
    /// Whoever can say whether the process is ready.
    sources: Vec<Arc<dyn Source>>,
    /// Where it waits for its successor.
    post: Option<Post>,
    /// Last, so that everything that runs on them has ended before.
    admin: Option<Admin>,
    _threads: Threads,
}

impl Process {
    fn start(
        config: &Config,
        inheritance: Inheritance,
        read_from: Option<Sources>,
        demo: Demo,
    ) -> anyhow::Result<(Self, Receiver<Drain>)> {
        let Inheritance {
            sockets,
            awaits_store,
        } = inheritance;
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
            awaits_store,
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
                let (http, token) = (sockets.http, token.clone());
                let started = frontend::start(settings, http, instance, log, token, &around)?;
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
        let admin = match sockets.admin {
            Some(listener) => Some(
                Admin::start(
                    listener,
                    AdminConfig {
                        token,
                        about: about(config),
                        sources: sources.clone(),
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
                .context("the admin endpoints cannot start")?,
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
            sources,
            post: None,
            admin,
            _threads: threads,
        };
        Ok((process, drains))
    }

    /// Begins to accept, and to wait for its successor.
    fn open(&mut self, mut post: Option<Post>) -> anyhow::Result<()> {
        if let Some(frontend) = &self.roles.frontend {
            frontend.open();
        }
        self.open_admin();
        if let Some(post) = &mut post {
            post.publish()?;
        }
        self.post = post;
        Ok(())
    }

    fn open_admin(&self) {
        if let Some(admin) = &self.admin {
            admin.open();
        }
    }

    /// Descriptors of the sockets for a successor.
    fn listeners(&self) -> anyhow::Result<Vec<(Whose, Listener)>> {
        let mut listeners = Vec::new();
        if let Some(frontend) = &self.roles.frontend {
            let http = frontend
                .listeners()?
                .context("the frontend is draining already")?;
            listeners.extend(http.into_iter().map(|listener| (Whose::Http, listener)));
        }
        if let Some(admin) = &self.admin {
            let admin = admin.listener()?.map(|listener| (Whose::Admin, listener));
            listeners.extend(admin);
        }
        Ok(listeners)
    }

    /// Waits for a successor that is ready: for ever, as a rule.
    async fn successor(&self) -> Successor {
        match &self.post {
            Some(post) => post.successor(|| self.listeners()).await,
            None => std::future::pending().await,
        }
    }

    /// Accepts no more, and gives the word to the successor.
    async fn give_way(&mut self, successor: Successor) {
        if let Some(frontend) = &self.roles.frontend {
            // Those of the frontend come first in the offer; what is beyond them is none of its own.
            frontend.leave_to_successor(&successor.uses).await;
        }
        if let Some(admin) = &self.admin {
            admin.leave_to_successor();
        }
        if let Some(post) = &mut self.post {
            post.leave_to_successor();
        }
        successor.take_turn().await;
    }

    /// Says where it answers and how to stop it.
    fn announce(&self) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        out.write_all(self.announcement.as_bytes())?;
        Ok(out.flush()?)
    }

    /// Serves until told to stop, or until a successor is ready.
    async fn serve(&self, signals: &mut Signals, drains: &mut Receiver<Drain>) -> Stop {
        let within = self.drain_timeout;
        let mut successor = std::pin::pin!(self.successor());
        // Roles that end while the others go on.
        let mut draining = JoinSet::new();
        loop {
            tokio::select! {
                _ = signals.terminate.recv() => return Stop::because("SIGTERM", within),
                _ = signals.interrupt.recv() => return Stop::because("SIGINT", within),
                _ = signals.hang_up.recv() => match self.reload.as_deref().map(Reload::reload) {
                    None => return Stop::because("SIGHUP", within),
                    Some(Ok(said)) => tracing::info!(said = said.trim_end(), "read the configuration again"),
                    Some(Err(why)) => tracing::error!(why = why.trim_end(), "nothing was taken over from the configuration"),
                },
                _ = signals.reopen.recv() => self.access_log.reopen(),
                Some((role, timeout)) = drains.recv(), if draining.len() < DRAINS => {
                    let within = timeout.unwrap_or(within);
                    let Some(role) = role else {
                        return Stop::because("POST /drain", within);
                    };
                    draining.spawn(self.roles.clone().drain(role, within));
                }
                Some(_) = draining.join_next() => {}
                successor = &mut successor => return Stop {
                    successor: Some(successor),
                    ..Stop::because("a successor is ready", within)
                },
                () = self.roles.broker_failed() => return Stop::because("the broker has failed", within),
            }
        }
    }

    /// Stops all roles, and then what they write to.
    async fn stop(mut self, stop: Stop) {
        match stop.successor {
            Some(successor) => self.give_way(successor).await,
            None => notify::stopping(),
        }
        // Who comes from now on finds nobody to take over from.
        self.post = None;
        self.roles.stop(stop.within).await;
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
