//! The admin endpoints of a process: is it well, is it ready, what does it count, how do things stand, drain,
//! purge.
//!
//! They have a listener of their own, never the public one. Whoever plays a role hands in a [`Source`]; what is said there is
//! shown under its role's name.

mod frontend;
mod metrics;
mod purge;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body::Body;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Map, Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use crate::listener::{self, DrainStage};
use crate::secret;
use crate::socket::{Listener, Place};
use crate::threads::Threads;
pub use metrics::{Kind, Metrics};
pub use purge::OnPurge;

/// Connections at a time: a scraper, a dashboard and a few people. More wait.
const CONNECTIONS: usize = 64;

/// How long a client may take to send a request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// What a role tells about itself.
pub trait Source: Send + Sync {
    /// Whether the role does its work: `/readyz` answers 200 while all do.
    fn is_ready(&self) -> bool {
        true
    }

    /// Writes the role's counters and gauges.
    fn metrics(&self, metrics: &mut Metrics);

    /// The role's name in `/status`, and what stands there.
    fn status(&self) -> (&'static str, Value);
}

/// A wish to drain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainRequest {
    /// The role; `None`: the whole process.
    pub role: Option<String>,
    /// How long in-flight work may take; `None`: as configured.
    pub timeout: Option<Duration>,
}

/// Takes in a wish to drain; says why it cannot be met.
pub type OnDrain = Box<dyn Fn(DrainRequest) -> Result<(), String> + Send + Sync>;

/// Reads the configuration again, on a thread that may wait; says what was taken over, or why nothing was.
pub type OnReload = Arc<dyn Fn() -> Result<String, String> + Send + Sync>;

/// What the admin endpoints need to know.
pub struct AdminConfig {
    /// What requests must carry as `Authorization: Bearer`; `None`: nothing, on loopback only.
    pub token: Option<String>,
    /// The version, node and site that `/status` begins with.
    pub about: Map<String, Value>,
    /// Whom to ask.
    pub sources: Vec<Arc<dyn Source>>,
    /// Whom to tell.
    pub on_drain: OnDrain,
    /// Who purges; `None`: there is no cache in this process.
    pub on_purge: Option<OnPurge>,
    /// Who reads the configuration again; `None`: it came from no file.
    pub on_reload: Option<OnReload>,
}

/// The running admin endpoints; they end with their threads.
#[derive(Debug)]
pub struct Admin {
    place: Place,
    stage: watch::Sender<DrainStage>,
}

impl Admin {
    /// Starts on these threads. They answer from [`Admin::open`] on.
    ///
    /// # Errors
    /// When there is no descriptor to be had.
    pub fn start(listener: Listener, config: AdminConfig, threads: &Threads) -> io::Result<Self> {
        let place = Place::of(&listener)?;
        let port = place.address.port();
        let endpoints = Arc::new(Endpoints { config, port });
        let (stage, told) = watch::channel(DrainStage::Waiting);
        threads.spawn(0, move || accept(listener, endpoints, told));
        Ok(Self { place, stage })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.place.address
    }

    /// Begins to answer.
    pub fn open(&self) {
        self.stage.send_replace(DrainStage::Serving);
    }

    /// A descriptor of its socket for another process; `None` once it has been left to one.
    ///
    /// # Errors
    /// When there is no descriptor to be had.
    pub fn listener(&self) -> io::Result<Option<Listener>> {
        self.place.spare()
    }

    /// Answers what is being asked, and nothing after it: another process does, on this socket or on one of its own.
    pub fn leave_to_successor(&self) {
        self.place.leave();
        self.stage.send_replace(DrainStage::Last);
    }
}

async fn accept(
    listener: Listener,
    endpoints: Arc<Endpoints>,
    mut stage: watch::Receiver<DrainStage>,
) {
    _ = stage.wait_for(|stage| *stage != DrainStage::Waiting).await;
    let listener = match TcpListener::from_std(listener.into_socket()) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the admin socket cannot be used"),
    };
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        let accepted = tokio::select! {
            biased;
            _ = stage.wait_for(|stage| *stage == DrainStage::Last) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (endpoints, stage) = (Arc::clone(&endpoints), stage.clone());
                tokio::task::spawn_local(async move {
                    let _permit = permit;
                    connection(stream, endpoints, stage).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "an admin connection could not be accepted");
                tokio::time::sleep(listener::ACCEPT_REST).await;
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    endpoints: Arc<Endpoints>,
    mut stage: watch::Receiver<DrainStage>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let endpoints = Arc::clone(&endpoints);
        async move { Ok::<_, Infallible>(endpoints.answer(request).await) }
    });
    let mut server = http1::Builder::new();
    let served = server
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = std::pin::pin!(served);
    let served = tokio::select! {
        biased;
        served = served.as_mut() => served,
        // Else whoever keeps a connection would go on to ask a process that is leaving.
        _ = stage.wait_for(|stage| *stage == DrainStage::Last) => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "an admin connection ended in error");
    }
}

struct Endpoints {
    config: AdminConfig,
    port: u16,
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The token is nobody's business.
        f.debug_struct("Endpoints")
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

type Answer = Response<Full<Bytes>>;

impl Endpoints {
    async fn answer<B>(&self, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
    {
        let path = request.uri().path();
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        match path {
            // Health checkers have no token, and learn nothing but this.
            "/healthz" if reads => text(StatusCode::OK, "ok\n"),
            "/readyz" if reads => self.readiness(),
            "/metrics" | "/status" | "/drain" | "/purge" | "/reload" | "/"
                if !self.is_authorised(request.headers()) =>
            {
                let why = if request.headers().contains_key(header::AUTHORIZATION) {
                    "the admin token is wrong: its file has another\n"
                } else {
                    "the admin token is needed: Authorization: Bearer …\n"
                };
                let mut answer = text(StatusCode::UNAUTHORIZED, why);
                answer
                    .headers_mut()
                    .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                answer
            }
            "/metrics" if reads => self.metrics(),
            "/status" if reads => self.status(),
            "/" if reads => text(
                StatusCode::OK,
                "scale0 admin: /healthz /readyz /metrics /status, POST /drain /purge /reload\n",
            ),
            "/drain" if *request.method() == Method::POST => match self.own_page(request.headers())
            {
                Ok(()) => self.drain(request.uri()),
                Err(why) => text(StatusCode::FORBIDDEN, why),
            },
            "/purge" if *request.method() == Method::POST => match self.own_page(request.headers())
            {
                Ok(()) => self.purge(request.into_body()).await,
                Err(why) => text(StatusCode::FORBIDDEN, why),
            },
            "/reload" if *request.method() == Method::POST => {
                match self.own_page(request.headers()) {
                    Ok(()) => self.reload().await,
                    Err(why) => text(StatusCode::FORBIDDEN, why),
                }
            }
            "/healthz" | "/readyz" | "/metrics" | "/status" | "/" => not_allowed("GET, HEAD"),
            "/drain" | "/purge" | "/reload" => not_allowed("POST"),
            _ => text(
                StatusCode::NOT_FOUND,
                "no such endpoint: /healthz /readyz /metrics /status, POST /drain /purge /reload\n",
            ),
        }
    }

    fn readiness(&self) -> Answer {
        let waiting: Vec<&str> = self
            .config
            .sources
            .iter()
            .filter(|source| !source.is_ready())
            .map(|source| source.status().0)
            .collect();
        if waiting.is_empty() {
            return text(StatusCode::OK, "ready\n");
        }
        text(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {}\n", waiting.join(", ")),
        )
    }

    fn metrics(&self) -> Answer {
        let mut metrics = Metrics::default();
        for source in &self.config.sources {
            source.metrics(&mut metrics);
        }
        let mut answer = text(StatusCode::OK, metrics.into_text());
        let of_prometheus = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        answer
            .headers_mut()
            .insert(header::CONTENT_TYPE, of_prometheus);
        answer
    }

    fn status(&self) -> Answer {
        let mut status = self.config.about.clone();
        for source in &self.config.sources {
            let (role, value) = source.status();
            // A process may have several bridges, so a role's name can come twice.
            match status.get_mut(role) {
                Some(Value::Array(several)) => several.push(value),
                Some(one) => *one = json!([one.take(), value]),
                None => _ = status.insert(role.to_owned(), value),
            }
        }
        let mut answer = text(StatusCode::OK, format!("{:#}\n", Value::Object(status)));
        answer.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        answer
    }

    fn drain(&self, uri: &Uri) -> Answer {
        let request = match drain_request(uri.query().unwrap_or_default()) {
            Ok(request) => request,
            Err(why) => return text(StatusCode::BAD_REQUEST, why),
        };
        match (self.config.on_drain)(request) {
            Ok(()) => text(StatusCode::ACCEPTED, "draining\n"),
            Err(why) => text(StatusCode::CONFLICT, why + "\n"),
        }
    }

    async fn reload(&self) -> Answer {
        let Some(on_reload) = self.config.on_reload.clone() else {
            let why = "this process was started without a file: there is nothing to read again\n";
            return text(StatusCode::CONFLICT, why);
        };
        // It waits for a disk, and this thread serves requests.
        let done = tokio::task::spawn_blocking(move || on_reload()).await;
        match done.unwrap_or_else(|error| Err(format!("it was not carried out: {error}"))) {
            Ok(said) => text(StatusCode::OK, said),
            Err(why) => text(StatusCode::CONFLICT, why),
        }
    }

    async fn purge<B>(&self, content: B) -> Answer
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
    {
        let Some(on_purge) = self.config.on_purge.clone() else {
            return text(
                StatusCode::CONFLICT,
                "no cache is in this process: ask those with a [frontend]\n",
            );
        };
        let purges = match purge::read(content).await {
            Ok(purges) => purges,
            Err((status, why)) => return text(status, why),
        };
        // It waits for a disk, and this thread serves requests.
        let done = tokio::task::spawn_blocking(move || on_purge(&purges)).await;
        let done = done.unwrap_or_else(|error| Err(format!("it was not carried out: {error}")));
        let node = self.config.about.get("node").and_then(Value::as_str);
        purge::answer(node.unwrap_or_default(), done)
    }

    fn is_authorised(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.config.token else {
            return true;
        };
        let given = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        given.is_some_and(|given| secret::is_same(given, token.as_bytes()))
    }

    /// Refuses what a page of somebody else's, open in the operator's browser, could have sent: one that has another origin, or
    /// that reached us under a name of its own making.
    fn own_page(&self, headers: &HeaderMap) -> Result<(), &'static str> {
        let host = headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok())
            .unwrap_or_default();
        let name = host
            .strip_suffix(&format!(":{}", self.port))
            .unwrap_or(host);
        let is_address = name
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok();
        if !is_address && name != "localhost" {
            return Err("Host must be an address or localhost\n");
        }
        match headers
            .get(header::ORIGIN)
            .map(|origin| origin.to_str().unwrap_or_default())
        {
            Some(origin) if origin != format!("http://{host}") => {
                Err("Origin must be this listener\n")
            }
            _ => Ok(()),
        }
    }
}

/// Reads `role=frontend&timeout_ms=30000`.
fn drain_request(query: &str) -> Result<DrainRequest, String> {
    let mut request = DrainRequest {
        role: None,
        timeout: None,
    };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("role", role)) => request.role = Some(role.to_owned()),
            Some(("timeout_ms", timeout)) => {
                let milliseconds = timeout
                    .parse()
                    .map_err(|_| format!("timeout_ms={timeout} is no number of milliseconds\n"))?;
                request.timeout = Some(Duration::from_millis(milliseconds));
            }
            _ => return Err(format!("{pair}: expected role=… or timeout_ms=…\n")),
        }
    }
    Ok(request)
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(text.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn not_allowed(allow: &'static str) -> Answer {
    let mut answer = text(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("allowed here: {allow}\n"),
    );
    answer
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static(allow));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use parking_lot::Mutex;

    struct Role(bool);

    impl Source for Role {
        fn is_ready(&self) -> bool {
            self.0
        }

        fn metrics(&self, metrics: &mut Metrics) {
            metrics.add("scale0_test_total", Kind::Counter, "A test.", &[], 1_u64);
        }

        fn status(&self) -> (&'static str, Value) {
            ("role", json!({ "ready": self.0 }))
        }
    }

    fn endpoints(ready: bool, token: Option<&str>) -> (Endpoints, Arc<Mutex<Vec<DrainRequest>>>) {
        let drains = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&drains);
        let config = AdminConfig {
            token: token.map(str::to_owned),
            about: Map::from_iter([("node".to_owned(), "fra-1".into())]),
            sources: vec![Arc::new(Role(true)), Arc::new(Role(ready))],
            on_drain: Box::new(move |request| {
                told.lock().push(request);
                Ok(())
            }),
            on_purge: Some(Arc::new(|purges| match purges {
                [] => Err("nothing to do".into()),
                [purge, ..] if purge.soft => Err("the disk is full".into()),
                _ => Ok(()),
            })),
            on_reload: Some(Arc::new(|| Err("line 7 is wrong".into()))),
        };
        (Endpoints { config, port: 8081 }, drains)
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(future)
    }

    fn ask(endpoints: &Endpoints, method: &str, path: &str, fields: &[(&str, &str)]) -> u16 {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::default()).unwrap();
        run(endpoints.answer(request)).status().as_u16()
    }

    fn purge(endpoints: &Endpoints, content: impl Into<Bytes>) -> (u16, String) {
        let request = Request::post("/purge").header("host", "localhost:8081");
        let request = request.body(Full::new(content.into())).unwrap();
        run(async {
            let answer = endpoints.answer(request).await;
            let status = answer.status().as_u16();
            let content = answer.into_body().collect().await.unwrap().to_bytes();
            (status, String::from_utf8_lossy(&content).into_owned())
        })
    }

    #[test]
    fn a_process_is_ready_when_all_its_roles_are() {
        assert_eq!(ask(&endpoints(true, None).0, "GET", "/readyz", &[]), 200);
        let (endpoints, _) = endpoints(false, None);
        assert_eq!(ask(&endpoints, "GET", "/readyz", &[]), 503);
        assert_eq!(ask(&endpoints, "GET", "/healthz", &[]), 200);
    }

    #[test]
    fn a_reload_that_fails_says_why_and_only_a_post_of_ones_own_asks_for_one() {
        let (endpoints, _) = endpoints(true, None);
        let own = [("host", "localhost:8081")];
        assert_eq!(ask(&endpoints, "POST", "/reload", &own), 409);
        assert_eq!(ask(&endpoints, "GET", "/reload", &own), 405);
        let strange = [("host", "localhost:8081"), ("origin", "http://example.com")];
        assert_eq!(ask(&endpoints, "POST", "/reload", &strange), 403);
    }

    #[test]
    fn with_a_token_only_its_bearer_learns_more_than_health() {
        let (endpoints, _) = endpoints(true, Some("secret"));
        for path in ["/metrics", "/status", "/"] {
            assert_eq!(ask(&endpoints, "GET", path, &[]), 401);
            assert_eq!(
                ask(
                    &endpoints,
                    "GET",
                    path,
                    &[("authorization", "Bearer secre")]
                ),
                401
            );
            assert_eq!(
                ask(
                    &endpoints,
                    "GET",
                    path,
                    &[("authorization", "Bearer secret")]
                ),
                200
            );
        }
        assert_eq!(ask(&endpoints, "GET", "/healthz", &[]), 200);
    }

    #[test]
    fn somebody_elses_page_cannot_drain() {
        let (endpoints, drains) = endpoints(true, None);
        let post = |fields: &[(&str, &str)]| {
            ask(
                &endpoints,
                "POST",
                "/drain?role=frontend&timeout_ms=5000",
                fields,
            )
        };
        assert_eq!(post(&[("host", "evil.example")]), 403);
        assert_eq!(
            post(&[
                ("host", "127.0.0.1:8081"),
                ("origin", "http://evil.example")
            ]),
            403
        );
        assert_eq!(post(&[("host", "127.0.0.1:8081"), ("origin", "null")]), 403);
        assert!(drains.lock().is_empty());
        assert_eq!(
            post(&[
                ("host", "localhost:8081"),
                ("origin", "http://localhost:8081")
            ]),
            202
        );
        assert_eq!(post(&[("host", "127.0.0.1:8081")]), 202);
        let told = DrainRequest {
            role: Some("frontend".into()),
            timeout: Some(Duration::from_secs(5)),
        };
        assert_eq!(*drains.lock(), [told.clone(), told]);
    }

    #[test]
    fn somebody_elses_page_and_who_has_no_token_cannot_purge() {
        let (open, _) = endpoints(true, None);
        let evil = [
            ("host", "localhost:8081"),
            ("origin", "http://evil.example"),
        ];
        assert_eq!(ask(&open, "POST", "/purge", &evil), 403);
        assert_eq!(
            ask(&open, "POST", "/purge", &[("host", "evil.example")]),
            403
        );
        assert_eq!(ask(&open, "GET", "/purge", &[]), 405);
        let (guarded, _) = endpoints(true, Some("secret"));
        assert_eq!(purge(&guarded, r#"{"all": true}"#).0, 401);
    }

    #[test]
    fn who_purges_is_told_who_confirmed_and_who_did_not() {
        let (endpoints, _) = endpoints(true, None);
        let (status, account) = purge(&endpoints, r#"{"tag": "a"}"#);
        let account: Value = serde_json::from_str(&account).unwrap();
        let expected = json!({ "confirmed": 1, "of": 1, "nodes": ["fra-1"], "unconfirmed": [] });
        assert_eq!((status, account), (200, expected));

        let (status, account) = purge(&endpoints, r#"{"tag": "a", "soft": true}"#);
        let account: Value = serde_json::from_str(&account).unwrap();
        let unconfirmed = [json!({ "node": "fra-1", "reason": "the disk is full" })];
        let expected = json!({ "confirmed": 0, "of": 1, "nodes": [], "unconfirmed": unconfirmed });
        assert_eq!((status, account), (503, expected));
    }

    #[test]
    fn a_purge_that_is_not_understood_is_not_carried_out() {
        let (mut endpoints, _) = endpoints(true, None);
        endpoints.config.on_purge = Some(Arc::new(|_| panic!("it was")));
        assert_eq!(purge(&endpoints, "{").0, 400);
        assert_eq!(purge(&endpoints, vec![b' '; 2 * 1024 * 1024]).0, 413);
        endpoints.config.on_purge = None;
        let (status, why) = purge(&endpoints, r#"{"all": true}"#);
        assert_eq!(status, 409);
        assert!(why.contains("[frontend]"), "{why}");
    }

    #[test]
    fn wrong_methods_and_queries_are_told_what_is_right() {
        let (endpoints, _) = endpoints(true, None);
        assert_eq!(ask(&endpoints, "GET", "/drain", &[]), 405);
        assert_eq!(ask(&endpoints, "POST", "/status", &[]), 405);
        assert_eq!(
            ask(
                &endpoints,
                "POST",
                "/drain?timeout_ms=soon",
                &[("host", "127.0.0.1")]
            ),
            400
        );
        assert_eq!(ask(&endpoints, "GET", "/nothing", &[]), 404);
    }
}
