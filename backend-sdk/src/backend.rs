//! What users call.

use std::fmt::{self, Display};
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body as HttpBody;
use parking_lot::Mutex;
use scale0_transport::{Context, Endpoint, Hub, KeyPair, LinkOptions};
use scale0_wire::{Hello, limits};
use tokio::runtime::{Handle, RuntimeFlavor};
use tower_service::Service;

use crate::exchange::Outbox;
use crate::session::{Event, HEARTBEAT_MIN, Settings};
use crate::shell::{self, LinkPlan, OnRegistered, Plan, Shutdown};
use crate::{Announcer, Body, Counters, Error};

/// Requests at a time unless told otherwise: enough for handlers that wait for a database, few enough for those that compute.
const CONCURRENCY: u32 = 64;

/// Event streams and tunnels at a time, beyond the concurrency, unless told otherwise.
const STREAMS: usize = 10_000;

/// What in-flight work may take once a drain has begun, unless told otherwise.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// A backend to be: what it offers, and to whom.
///
/// ```no_run
/// # async fn run() -> Result<(), scale0_backend::Error> {
/// use axum::{Router, routing::get};
/// use scale0_backend::Backend;
///
/// let app = Router::new().route("/", get(|| async { "hello" }));
/// Backend::new("www.example.com").broker("tcp://127.0.0.1:5702").serve(app).await
/// # }
/// ```
pub struct Backend {
    announcer: Announcer,
    endpoints: Vec<String>,
    links: Vec<LinkPlan>,
    node: Option<String>,
    concurrency: u32,
    max_streams: usize,
    drain_timeout: Duration,
    heartbeat: Duration,
    insecure: bool,
    options: LinkOptions,
    context: Option<Context>,
    shutdown: Shutdown,
    throttle: Throttle,
    counters: Arc<Counters>,
    on_registered: Option<OnRegistered>,
}

impl Backend {
    /// A backend for this service: a route's service or a host name, in whatever case; `*` answers for all that nobody else offers.
    #[must_use]
    pub fn new(service: impl Into<String>) -> Self {
        Self {
            announcer: Announcer::new([service.into()]),
            endpoints: Vec::new(),
            links: Vec::new(),
            node: None,
            concurrency: CONCURRENCY,
            max_streams: STREAMS,
            drain_timeout: DRAIN_TIMEOUT,
            heartbeat: limits::HEARTBEAT,
            insecure: false,
            options: LinkOptions::default(),
            context: None,
            shutdown: Shutdown::Signals,
            throttle: Throttle::default(),
            counters: Arc::default(),
            on_registered: None,
        }
    }

    /// Offers these services instead.
    #[must_use]
    pub fn services(self, services: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.announcer.replace(services.into_iter().map(Into::into));
        self
    }

    /// Serves for the broker at this endpoint, `tcp://host:port` or `ipc://path`; said several times, for several. They share the
    /// concurrency.
    #[must_use]
    pub fn broker(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoints.push(endpoint.into());
        self
    }

    /// Serves for the broker at this endpoint, which may name the broker's key.
    #[must_use]
    pub fn endpoint(mut self, endpoint: Endpoint) -> Self {
        self.links.push(LinkPlan::Dial(endpoint));
        self
    }

    /// Serves for a broker of this very process, without sockets. Frontends of an equal `locality` are served from here first.
    #[must_use]
    pub fn in_process(mut self, hub: Arc<dyn Hub>, locality: u32) -> Self {
        self.links.push(LinkPlan::Attach { hub, locality });
        self
    }

    /// Works on this many requests at a time, over all brokers. Event streams and upgraded connections do not count once they
    /// have begun. Sound: what the application can do before it gets slower; 64 if nothing is said.
    #[must_use]
    pub const fn concurrency(mut self, requests: u32) -> Self {
        self.concurrency = requests;
        self
    }

    /// Has this many requests, event streams and upgraded connections at most; 10,000 if nothing is said.
    #[must_use]
    pub const fn max_streams(mut self, streams: usize) -> Self {
        self.max_streams = streams;
        self
    }

    /// Is called this in logs, metrics and status; the machine's name if nothing is said.
    #[must_use]
    pub fn node(mut self, name: impl Into<String>) -> Self {
        self.node = Some(name.into());
        self
    }

    /// Lets in-flight work take this long once a drain has begun; 30 s if nothing is said. Then it is cancelled.
    #[must_use]
    pub const fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// Wants brokers to be heard this often at least; 1 s if nothing is said. A broker silent for three of these is dialled anew.
    #[must_use]
    pub const fn heartbeat(mut self, interval: Duration) -> Self {
        self.heartbeat = interval;
        self
    }

    /// Drains when this resolves, instead of on SIGTERM or Ctrl-C.
    #[must_use]
    pub fn shutdown(mut self, shutdown: impl Future<Output = ()> + Send + 'static) -> Self {
        self.shutdown = Shutdown::Future(Box::pin(shutdown));
        self
    }

    /// Proves to be this key's owner to brokers whose key is known.
    #[must_use]
    pub fn keys(mut self, keys: KeyPair) -> Self {
        self.options.keys = Some(keys);
        self
    }

    /// Allows unencrypted links to other machines.
    #[must_use]
    pub const fn insecure(mut self) -> Self {
        self.insecure = true;
        self
    }

    /// Uses the sockets of this context instead of one of its own.
    #[must_use]
    pub fn context(mut self, context: Context) -> Self {
        self.context = Some(context);
        self
    }

    /// Calls this with a broker's name whenever one has accepted this backend. It must not block.
    #[must_use]
    pub fn on_registered(mut self, call: impl Fn(&str) + Send + 'static) -> Self {
        self.on_registered = Some(Box::new(call));
        self
    }

    /// What it counts, for as long as it serves and after.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Changes the services while it serves.
    #[must_use]
    pub fn announcer(&self) -> Announcer {
        self.announcer.clone()
    }

    /// Changes the concurrency while it serves.
    #[must_use]
    pub fn throttle(&self) -> Throttle {
        self.throttle.clone()
    }

    /// Serves until it is asked to shut down, and returns when it has drained. Connections are made, and made again, by themselves.
    ///
    /// Each request is given to a clone of `service`, on a task of this runtime. Dropping its future cancels it, when nobody wants
    /// the answer any more. On a runtime of one thread everything happens on that thread.
    ///
    /// # Errors
    /// When it cannot begin, or not go on; see [`Error`]. That no broker can be reached is no error.
    ///
    /// # Cancel safety
    /// Dropped, it leaves at once: requests in flight are cancelled.
    pub async fn serve<S, B>(self, service: S) -> Result<(), Error>
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Display + Send,
        B: HttpBody + Send + 'static,
        B::Data: Send,
        B::Error: Display + Send,
    {
        let runtime = Handle::try_current()?;
        let flavor = runtime.runtime_flavor();
        let (plan, shutdown, controls) = self.plan(service, runtime)?;
        if flavor == RuntimeFlavor::CurrentThread {
            shell::run_here(plan, shutdown, controls).await
        } else {
            shell::run_on_a_thread(plan, shutdown, controls).await
        }
    }

    /// Judges all that was said.
    fn plan<S>(self, service: S, runtime: Handle) -> Result<(Plan<S>, Shutdown, Controls), Error> {
        let services = self.announcer.checked()?;
        let node = self.node.unwrap_or_else(machine_name);
        if !Hello::is_name(&node) {
            let (what, name) = ("node", node);
            return Err(Error::Name { what, name });
        }
        let mut links = self.links;
        for endpoint in &self.endpoints {
            links.push(LinkPlan::Dial(endpoint.parse()?));
        }
        if links.is_empty() {
            return Err(Error::NoBroker);
        }
        for link in &links {
            if let LinkPlan::Dial(endpoint) = link
                && !(self.insecure || endpoint.is_loopback() || endpoint.server_key().is_some())
            {
                let endpoint = endpoint.to_string();
                return Err(Error::Insecure { endpoint });
            }
        }
        if self.concurrency == 0 {
            return Err(Error::NoConcurrency);
        }
        let settings = Settings {
            node,
            instance: *INSTANCE,
            lane: LANE.fetch_add(1, Ordering::Relaxed),
            services,
            capacity: self.concurrency,
            max_streams: self.max_streams.max(self.concurrency as usize),
            heartbeat: self.heartbeat.clamp(HEARTBEAT_MIN, limits::HEARTBEAT_MAX),
            drain_timeout: self.drain_timeout,
            epoch: random(),
        };
        let plan = Plan {
            settings,
            links,
            options: self.options,
            context: self.context,
            counters: self.counters,
            on_registered: self.on_registered,
            service,
            runtime,
        };
        let controls = Controls {
            throttle: self.throttle,
            announcer: self.announcer,
        };
        Ok((plan, self.shutdown, controls))
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend")
            .field("services", &self.announcer.services())
            .field("endpoints", &self.endpoints)
            .field("concurrency", &self.concurrency)
            .finish_non_exhaustive()
    }
}

/// What changes a backend while it serves.
pub(crate) struct Controls {
    throttle: Throttle,
    announcer: Announcer,
}

impl Controls {
    pub(crate) fn attach(&self, outbox: &Arc<Outbox>) {
        self.throttle.attach(outbox);
        self.announcer.attach(outbox);
    }
}

/// Changes how many requests at a time a backend works on while it serves: none for a gateway whose application is away, fewer when
/// it is slow, more when it has grown.
///
/// A clone changes the same backend.
#[derive(Clone, Default)]
pub struct Throttle(Arc<Throttled>);

#[derive(Default)]
struct Throttled {
    limit: Mutex<Option<u32>>,
    outbox: OnceLock<Arc<Outbox>>,
}

impl Throttle {
    /// Takes this many requests at a time from now on, more or fewer than [`Backend::concurrency`]; brokers hear of it at once. Requests
    /// under way go on, and those that a broker sends before it hears of fewer are served. At 0 all credit that brokers do not use
    /// is asked back, and they wait for this backend as for one that is not there.
    pub fn limit(&self, requests: u32) {
        *self.0.limit.lock() = Some(requests);
        if let Some(outbox) = self.0.outbox.get() {
            outbox.push(Event::Capacity(requests));
        }
    }

    /// From here on the session hears of it, and of what was said before.
    fn attach(&self, outbox: &Arc<Outbox>) {
        let _ = self.0.outbox.set(Arc::clone(outbox));
        if let Some(limit) = *self.0.limit.lock() {
            outbox.push(Event::Capacity(limit));
        }
    }
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = *self.0.limit.lock();
        f.debug_struct("Throttle").field("limit", &limit).finish()
    }
}

/// Drawn once per process.
static INSTANCE: LazyLock<u64> = LazyLock::new(random);

/// Counts the backends of this process.
static LANE: AtomicU16 = AtomicU16::new(0);

/// A number nobody can foresee: the standard library's hasher is seeded by the operating system.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}

fn machine_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if Hello::is_name(name) {
        name.to_owned()
    } else {
        "backend".to_owned()
    }
}
