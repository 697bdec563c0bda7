//! Processes that die, leave, refuse or are not there yet, under the eyes of clients, with the real binary.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use support::{Client, Counts, Origin, Response, Scale0, site, soon, text};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// A frontend, and whatever else the process does.
const FRONTEND: &str = "[frontend]\nhttp = \"127.0.0.1:0\"\n";

/// Every process is asked whether it is ready.
const ADMIN: &str = "[admin]\nlisten = \"127.0.0.1:0\"\n[log]\naccess = \"off\"\n";

/// A broker whose sockets lie in `folder`, so that it can come back to where it was.
fn broker(folder: &Path, name: &str) -> String {
    let mut section = format!("[node]\nname = \"{name}\"\n[broker]\n");
    for whom in ["frontends", "backends", "peers"] {
        writeln!(section, "{whom} = \"{}\"", socket(folder, name, whom)).unwrap();
    }
    section
}

/// A frontend and that broker in one process, and whatever `more` says.
async fn front(more: &str) -> (tempfile::TempDir, Scale0) {
    let folder = tempfile::tempdir().unwrap();
    let broker = broker(folder.path(), "one");
    let front = Scale0::start(&format!("{broker}{FRONTEND}{ADMIN}{more}")).await;
    (folder, front)
}

fn socket(folder: &Path, name: &str, whom: &str) -> String {
    format!("ipc://{}/{name}-{whom}", folder.display())
}

/// A process with nothing but a bridge, which dials these brokers.
fn bridge(service: &str, upstream: SocketAddr, folder: &Path, brokers: &[&str]) -> String {
    let brokers: Vec<String> = brokers
        .iter()
        .map(|name| socket(folder, name, "backends"))
        .collect();
    format!(
        "{ADMIN}[[bridge]]\nservice = \"{service}\"\nupstream = \"http://{upstream}\"\nconcurrency = 32\nbrokers = {brokers:?}\n"
    )
}

/// An application that takes a moment, so that whatever happens happens to requests under way.
async fn app() -> Origin {
    Origin::start(|_| async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        http::Response::builder()
            .header("cache-control", "no-store")
            .body(text("done"))
            .unwrap()
    })
    .await
}

/// What became of one request.
#[derive(Clone, Debug)]
struct Outcome {
    target: String,
    /// Its status, or how it broke off.
    status: Result<u16, String>,
    took: Duration,
}

impl Outcome {
    fn is_get(&self) -> bool {
        self.target.starts_with("GET")
    }
}

/// Clients that ask and ask, each over a connection of its own, every second request a POST; no two requests are alike.
struct Load {
    clients: JoinSet<()>,
    outcomes: Arc<Mutex<Vec<Outcome>>>,
    done: watch::Receiver<usize>,
    stop: watch::Sender<bool>,
}

impl Load {
    fn start(pages: SocketAddr, clients: usize) -> Self {
        let outcomes: Arc<Mutex<Vec<Outcome>>> = Arc::default();
        let (tell, done) = watch::channel(0);
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for number in 0..clients {
            let (outcomes, tell, stopped) = (Arc::clone(&outcomes), tell.clone(), stopped.clone());
            tasks.spawn(async move {
                let (mut client, mut is_reused) = (Client::connect(pages).await, false);
                for turn in 0.. {
                    if *stopped.borrow() {
                        return;
                    }
                    let method = if (number + turn) % 2 == 0 {
                        "GET"
                    } else {
                        "POST"
                    };
                    let target = format!("/{number}/{turn}");
                    let begun = Instant::now();
                    client.ask_for(method, &target).await;
                    let response = client.try_response().await;
                    let took = begun.elapsed();
                    let closes = response
                        .as_ref()
                        .is_ok_and(|response| response.field("connection") == "close");
                    let status = response
                        .map(|response| response.status())
                        .map_err(|error| format!("{error} (reused: {is_reused})"));
                    let broken = status.is_err();
                    outcomes.lock().push(Outcome {
                        target: format!("{method} {target}"),
                        status,
                        took,
                    });
                    tell.send_modify(|done| *done += 1);
                    is_reused = true;
                    if broken {
                        return;
                    }
                    if closes {
                        let Ok(stream) = tokio::net::TcpStream::connect(pages).await else {
                            return;
                        };
                        (client, is_reused) = (Client::on(stream), false);
                    }
                }
            });
        }
        Self {
            clients: tasks,
            outcomes,
            done,
            stop,
        }
    }

    /// Waits until so many more requests are over.
    async fn more(&mut self, count: usize) {
        let goal = *self.done.borrow() + count;
        soon(self.done.wait_for(|done| goal <= *done))
            .await
            .unwrap();
    }

    /// Lets every client end its request; what became of all.
    async fn end(mut self) -> Vec<Outcome> {
        self.stop.send(true).unwrap();
        self.all().await
    }

    /// Waits until no client finds anybody to ask any more; what became of all.
    async fn all(&mut self) -> Vec<Outcome> {
        while let Some(client) = soon(self.clients.join_next()).await {
            client.unwrap();
        }
        self.outcomes.lock().clone()
    }
}

trait AskFor {
    async fn ask_for(&mut self, method: &str, target: &str);
}

impl AskFor for Client {
    /// A request, with content if it is a POST. A connection that is over shows when the response is waited for.
    async fn ask_for(&mut self, method: &str, target: &str) {
        let content = if method == "POST" {
            "Content-Length: 4\r\n\r\nwork"
        } else {
            "\r\n"
        };
        let _ = self
            .send(format!(
                "{method} {target} HTTP/1.1\r\nHost: www.example.com\r\n{content}"
            ))
            .await;
    }
}

/// A GET from a host.
async fn get_of(pages: SocketAddr, host: &str, target: &str) -> Response {
    let mut client = Client::connect(pages).await;
    client
        .send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
        .await
        .unwrap();
    client.response().await
}

/// How often each request was begun at any of these applications.
fn begun(apps: &[&Origin]) -> HashMap<String, usize> {
    let mut all = HashMap::new();
    for app in apps {
        for (request, times) in app.counts().requests {
            *all.entry(request).or_default() += times;
        }
    }
    all
}

/// No GET has failed, and no POST has run twice; a POST may have been answered 502.
fn assert_nothing_lost(outcomes: &[Outcome], apps: &[&Origin]) {
    let begun = begun(apps);
    for outcome in outcomes {
        let times = begun.get(&outcome.target).copied().unwrap_or_default();
        match (&outcome.status, outcome.is_get()) {
            (Ok(200), true) => {}
            (Ok(200), false) => assert_eq!(times, 1, "{outcome:?}"),
            (Ok(502), false) => assert!(times <= 1, "{outcome:?} ran {times} times"),
            _ => panic!("{outcome:?} ran {times} times"),
        }
    }
}

/// A broker and a frontend in one process, and two bridges to two applications in two.
async fn two_backends() -> (tempfile::TempDir, Scale0, [Origin; 2], [Scale0; 2]) {
    let (folder, front) = front("").await;
    let apps = [app().await, app().await];
    let mut bridges = Vec::new();
    for app in &apps {
        bridges.push(Scale0::launch(&bridge("*", app.address(), folder.path(), &["one"])).await);
    }
    (folder, front, apps, bridges.try_into().ok().unwrap())
}

/// Waits until this application is asked.
async fn until_asked(app: &Origin) {
    let before = app.counts().all();
    app.until(|counts: &Counts| before < counts.all()).await;
}

#[tokio::test]
async fn a_killed_backend_fails_no_get_and_runs_no_post_twice() {
    let (_folder, front, apps, [_stays, mut dies]) = two_backends().await;
    let mut load = Load::start(front.pages(), 40);
    until_asked(&apps[0]).await;
    until_asked(&apps[1]).await;
    load.more(200).await;
    dies.kill9().await;
    load.more(400).await;
    until_asked(&apps[0]).await;
    assert_nothing_lost(&load.end().await, &[&apps[0], &apps[1]]);
}

#[tokio::test]
async fn a_backend_that_is_told_to_stop_fails_nothing() {
    let (_folder, front, apps, [_stays, mut leaves]) = two_backends().await;
    let mut load = Load::start(front.pages(), 40);
    until_asked(&apps[0]).await;
    until_asked(&apps[1]).await;
    load.more(200).await;
    leaves.terminate();
    assert_eq!(leaves.wait_exit().await.code(), Some(0));
    load.more(200).await;
    for outcome in load.end().await {
        assert_eq!(outcome.status, Ok(200), "{outcome:?}");
    }
}

/// Two brokers in processes of their own, a frontend and two bridges that dial both, and the bridges' applications.
struct TwoBrokers {
    folder: tempfile::TempDir,
    brokers: [Scale0; 2],
    front: Scale0,
    apps: [Origin; 2],
    _bridges: [Scale0; 2],
}

impl TwoBrokers {
    const NAMES: [&str; 2] = ["one", "two"];

    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let brokers = [
            Self::broker(folder.path(), 0).await,
            Self::broker(folder.path(), 1).await,
        ];
        let dialled = Self::NAMES.map(|name| socket(folder.path(), name, "frontends"));
        let front = Scale0::start(&format!("{ADMIN}{FRONTEND}brokers = {dialled:?}\n")).await;
        let apps = [app().await, app().await];
        let bridge = |app: &Origin| bridge("*", app.address(), folder.path(), &Self::NAMES);
        let bridges = [
            Scale0::launch(&bridge(&apps[0])).await,
            Scale0::launch(&bridge(&apps[1])).await,
        ];
        Self {
            folder,
            brokers,
            front,
            apps,
            _bridges: bridges,
        }
    }

    async fn broker(folder: &Path, index: usize) -> Scale0 {
        let name = Self::NAMES[index];
        Scale0::start(&format!("{}{ADMIN}", broker(folder, name))).await
    }

    /// Starts a broker that has ended once more, and waits until it has answered something.
    async fn restart(&mut self, index: usize) {
        self.brokers[index] = Self::broker(self.folder.path(), index).await;
        self.until_answered(index, 0.0).await;
    }

    /// Waits until this broker has answered more requests than that.
    async fn until_answered(&self, index: usize, count: f64) {
        self.brokers[index]
            .until_metric("scale0_broker_answered_total", |it| count < it)
            .await;
    }

    /// Clients' requests, once all take part in answering them.
    async fn under_load(&self) -> Load {
        let load = Load::start(self.front.pages(), 40);
        until_asked(&self.apps[0]).await;
        until_asked(&self.apps[1]).await;
        load
    }
}

#[tokio::test]
async fn a_killed_broker_fails_no_get_and_is_used_again_when_it_is_back() {
    let mut site = TwoBrokers::start().await;
    let mut load = site.under_load().await;
    site.until_answered(0, 100.0).await;
    site.brokers[0].kill9().await;
    load.more(400).await;

    site.restart(0).await;
    let outcomes = load.end().await;
    assert_nothing_lost(&outcomes, &[&site.apps[0], &site.apps[1]]);
    let slowest = outcomes
        .iter()
        .filter(|outcome| outcome.is_get())
        .max_by_key(|outcome| outcome.took)
        .unwrap();
    assert!(slowest.took < Duration::from_secs(2), "{slowest:?}");
}

#[tokio::test]
async fn brokers_that_are_told_to_stop_one_after_the_other_fail_nothing() {
    let mut site = TwoBrokers::start().await;
    let load = site.under_load().await;
    for index in [0, 1, 0, 1, 0, 1] {
        site.until_answered(index, 20.0).await;
        site.brokers[index].terminate();
        assert_eq!(site.brokers[index].wait_exit().await.code(), Some(0));
        site.restart(index).await;
    }
    for outcome in load.end().await {
        assert_eq!(outcome.status, Ok(200), "{outcome:?}");
    }
    assert!(
        begun(&[&site.apps[0], &site.apps[1]])
            .values()
            .all(|times| *times == 1)
    );
}

#[tokio::test]
async fn a_whole_process_that_is_told_to_stop_ends_what_it_has_begun() {
    let app = app().await;
    let mut scale0 = Scale0::start(&site(&app, "[log]\naccess = \"off\"\n")).await;
    let mut load = Load::start(scale0.pages(), 40);
    load.more(200).await;
    scale0.terminate();
    // They come back at once, until nobody listens. Who is let in is answered.
    let outcomes = load.all().await;
    assert_eq!(scale0.wait_exit().await.code(), Some(0));
    for outcome in &outcomes {
        assert_eq!(outcome.status, Ok(200), "{outcome:?}");
    }
    assert!(begun(&[&app]).values().all(|times| *times == 1));
}

#[tokio::test]
async fn a_later_sigterm_ends_at_once() {
    let app = Origin::start(|_| std::future::pending()).await;
    let mut scale0 = Scale0::start(&site(
        &app,
        "[limits]\ndrain_timeout = \"1h\"\ntimeout = \"1h\"\n",
    ))
    .await;
    let mut client = scale0.client().await;
    client.ask("GET", "/for-ever", "").await;
    app.until(|counts| counts.running == 1).await;
    scale0.terminate();
    // From here on the first is known to have been heard.
    soon(async { while scale0.admin_status("/readyz").await == 200 {} }).await;
    assert_eq!(app.counts().running, 1);
    // Those that come with the first are one with it; sooner or later there is one that is not.
    let exit = soon(async {
        loop {
            scale0.terminate();
            if let Some(exit) = scale0.exited() {
                return exit;
            }
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(exit.await.code(), Some(1));
}

trait AdminStatus {
    async fn admin_status(&self, target: &str) -> u16;
}

impl AdminStatus for Scale0 {
    async fn admin_status(&self, target: &str) -> u16 {
        support::get(self.admin(), target).await.status()
    }
}

/// A port that was free a moment ago: who dials it is refused.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

/// The application at this address is back: it answers one request, which is enough.
fn answer_one(at: SocketAddr) -> tokio::sync::oneshot::Receiver<String> {
    use std::io::{BufRead as _, BufReader, Write as _};
    let listener = TcpListener::bind(at).unwrap();
    let (tell, asked) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let mut first = String::new();
            // The prober says nothing.
            if BufReader::new(&connection)
                .read_line(&mut first)
                .is_ok_and(|length| 0 < length)
            {
                (&connection)
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                    .unwrap();
                return tell.send(first).unwrap();
            }
        }
    });
    asked
}

#[tokio::test]
async fn an_application_that_refuses_connections_is_no_black_hole_and_may_come_back() {
    let (folder, front) = front("").await;
    let healthy = app().await;
    let _bridge = Scale0::launch(&bridge("*", healthy.address(), folder.path(), &["one"])).await;
    assert_eq!(front.get("/first").await.status(), 200);
    let before = front.metrics("scale0_broker_backends").await;
    let nobody = nobody();
    let _refused = Scale0::launch(&bridge("*", nobody, folder.path(), &["one"])).await;
    front
        .until_metric("scale0_broker_backends", |backends| before < backends)
        .await;

    let mut load = Load::start(front.pages(), 8);
    load.more(200).await;
    for outcome in load.end().await {
        assert_eq!(outcome.status, Ok(200), "{outcome:?}");
    }
    let refused = front
        .metrics("scale0_broker_repeated_after_reject_total")
        .await;
    assert!(0.0 < refused, "nobody has found out that it refuses");

    let asked = answer_one(nobody);
    let mut load = Load::start(front.pages(), 8);
    soon(asked).await.unwrap();
    load.more(8).await;
    drop(load);
}

#[tokio::test]
async fn a_request_for_a_known_service_waits_for_its_first_backend() {
    let folder = tempfile::tempdir().unwrap();
    let late = "[[service]]\nname = \"late.example\"\n[[route]]\nhost = \"late.example\"\nservice = \"late.example\"\nhold = \"10m\"\ntimeout = \"10m\"\n";
    let front = Scale0::start(&format!(
        "{}{FRONTEND}{ADMIN}[limits]\nhold = \"200ms\"\n{late}",
        broker(folder.path(), "one")
    ))
    .await;

    let unknown = get_of(front.pages(), "nobody.example", "/").await;
    assert_eq!(unknown.status(), 404, "{unknown:?}");
    assert!(unknown.text().contains("unknown-service"), "{unknown:?}");

    let mut client = front.client().await;
    client
        .send("GET /held HTTP/1.1\r\nHost: late.example\r\n\r\n")
        .await
        .unwrap();
    front
        .until_metric("scale0_broker_queued_requests", |queued| queued == 1.0)
        .await;
    let app = app().await;
    let _bridge = Scale0::launch(&bridge(
        "late.example",
        app.address(),
        folder.path(),
        &["one"],
    ))
    .await;
    assert_eq!(client.response().await.status(), 200);
    assert_eq!(app.gets("/held"), 1);
}

#[tokio::test]
async fn without_a_broker_requests_are_answered_503_and_nobody_is_ready() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = socket(folder.path(), "nowhere", "frontends");
    let front = Scale0::launch(&format!(
        "{ADMIN}[limits]\nhold = \"200ms\"\n{FRONTEND}brokers = \"{nowhere}\"\n"
    ))
    .await;
    assert_eq!(front.admin_status("/readyz").await, 503);
    assert_eq!(front.admin_status("/healthz").await, 200);
    let response = front.get("/").await;
    assert_eq!(response.status(), 503, "{response:?}");
    assert!(response.text().contains("no-broker"), "{response:?}");
    assert!(
        response
            .field("retry-after")
            .parse::<u32>()
            .is_ok_and(|seconds| 0 < seconds),
        "{response:?}"
    );
}

#[tokio::test]
async fn an_application_that_refuses_connections_is_answered_for_by_503_and_a_reason() {
    let (folder, front) = front("[limits]\nhold = \"100ms\"\n").await;
    let _bridge = Scale0::launch(&bridge("*", nobody(), folder.path(), &["one"])).await;
    front
        .until_metric("scale0_broker_backends", |backends| 1.0 <= backends)
        .await;
    // The first learns that the application refuses, the others know.
    for _ in 0..5 {
        let response = front.get("/refused").await;
        assert_eq!(response.status(), 503, "{response:?}");
        assert!(
            response
                .field("retry-after")
                .parse::<u32>()
                .is_ok_and(|seconds| 0 < seconds),
            "{response:?}"
        );
        assert!(
            ["no-backend", "app-refused"]
                .iter()
                .any(|reason| response.text().contains(reason)),
            "{response:?}"
        );
    }
}

#[tokio::test]
async fn what_an_application_refuses_while_it_restarts_waits_for_it() {
    let (folder, front) = front("").await;
    let away = nobody();
    let _bridge = Scale0::launch(&bridge("*", away, folder.path(), &["one"])).await;
    // It may run once only, and was not begun.
    let mut client = front.client().await;
    client.ask("POST", "/order", "Content-Length: 0\r\n").await;
    front
        .until_metric("scale0_broker_repeated_after_reject_total", |n| 0.0 < n)
        .await;
    let asked = answer_one(away);
    assert_eq!(client.response().await.status(), 200);
    let asked = soon(asked).await.unwrap();
    assert_eq!(asked.trim_end(), "POST /order HTTP/1.1");
}
