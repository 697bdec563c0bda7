//! A frontend and its successor: who listens is another process, and no client notices.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use support::{Client, Content, Origin, Request, Response, Scale0, get, soon, text};
use tempfile::TempDir;
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A broker with a bridge to an application, for frontends that come and go.
struct Site {
    folder: TempDir,
    _broker: Scale0,
}

impl Site {
    async fn of(app: &Origin) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let broker = Self::broker(&folder, "broker", app).await;
        Self {
            folder,
            _broker: broker,
        }
    }

    /// A broker whose frontends find it at `NAME-frontends`.
    async fn broker(folder: &TempDir, name: &str, app: &Origin) -> Scale0 {
        let config = format!(
            r#"
[node]
name = "{name}"
[broker]
frontends = "ipc://{0}/{name}-frontends"
backends = "ipc://{0}/{name}-backends"
peers = "ipc://{0}/{name}-peers"
[[bridge]]
service = "*"
upstream = "{1}"
concurrency = 256
[admin]
listen = "127.0.0.1:0"
"#,
            folder.path().display(),
            app.url()
        );
        Scale0::start(&config).await
    }

    fn post(&self) -> PathBuf {
        self.folder.path().join("handover")
    }

    /// A frontend's file; each that hands over takes the place of the one before it.
    fn frontend(&self, more: &str) -> String {
        format!(
            r#"
[node]
name = "frontend"
[frontend]
http = "127.0.0.1:0"
brokers = "ipc://{0}/broker-frontends"
{more}
[cache]
path = "{0}/cache"
[admin]
listen = "127.0.0.1:0"
[log]
access = "off"
"#,
            self.folder.path().display()
        )
    }

    /// One that hands over.
    fn heir(&self) -> String {
        self.frontend(&format!("handover = {:?}", self.post()))
    }
}

fn page(request: &Request) -> http::Response<Content> {
    http::Response::new(text(request.uri().path().to_owned()))
}

async fn app() -> Origin {
    Origin::start(|request| async move { page(&request) }).await
}

/// A request on a new connection, or on one that has served before.
async fn ask(kept: &mut Option<Client>, at: SocketAddr, target: &str) -> Result<Response, String> {
    if let Some(client) = kept {
        client.ask("GET", target, "").await;
        match client.try_response().await {
            Ok(response) => return Ok(response),
            // It was closed while it was idle: a client asks again on a new one (RFC 9112 §9.3.1).
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(format!("a kept connection: {error}")),
        }
    }
    let stream = TcpStream::connect(at).await;
    let mut client = Client::on(stream.map_err(|error| format!("connecting: {error}"))?);
    let sent = client.send(format!(
        "GET {target} HTTP/1.1\r\nHost: www.example.com\r\n\r\n"
    ));
    sent.await.map_err(|error| format!("sending: {error}"))?;
    let response = client.try_response().await;
    let response = response.map_err(|error| format!("a new connection: {error}"))?;
    *kept = Some(client);
    Ok(response)
}

/// Clients that ask until they are told to stop: every second one on new connections alone.
struct Clients {
    stop: watch::Sender<bool>,
    tasks: JoinSet<Result<(), String>>,
    answered: Arc<AtomicUsize>,
}

impl Clients {
    fn start(count: usize, at: SocketAddr) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let answered = Arc::<AtomicUsize>::default();
        for number in 0..count {
            let (stopped, answered) = (stopped.clone(), Arc::clone(&answered));
            tasks.spawn(async move {
                let mut kept = None;
                for turn in 0.. {
                    let target = format!("/{number}/{turn}");
                    let response = ask(&mut kept, at, &target).await?;
                    if response.status() != 200 || response.text() != target {
                        return Err(format!("{target}: {response:?}"));
                    }
                    if number % 2 == 0 || response.field("connection") == "close" {
                        kept = None;
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                    if *stopped.borrow() {
                        break;
                    }
                }
                Ok(())
            });
        }
        Self {
            stop,
            tasks,
            answered,
        }
    }

    /// Waits until they have had so many more answers.
    async fn go_on(&self, more: usize) {
        let goal = self.answered.load(Ordering::Relaxed) + more;
        soon(async {
            while self.answered.load(Ordering::Relaxed) < goal {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// How often one of them was failed.
    async fn end(mut self) -> Vec<String> {
        self.stop.send_replace(true);
        let mut failures = Vec::new();
        while let Some(done) = soon(self.tasks.join_next()).await {
            failures.extend(done.unwrap().err());
        }
        failures
    }
}

#[tokio::test]
async fn a_hundred_clients_do_not_notice_that_frontends_follow_each_other() {
    let app = app().await;
    let site = Site::of(&app).await;
    let mut frontend = Scale0::start(&site.heir()).await;
    let clients = Clients::start(100, frontend.pages());
    let mut old = Vec::new();
    for _ in 0..4 {
        clients.go_on(200).await;
        let successor = Scale0::start(&site.heir()).await;
        assert_eq!(successor.pages(), frontend.pages());
        assert_eq!(successor.admin(), frontend.admin());
        old.push(std::mem::replace(&mut frontend, successor));
    }
    clients.go_on(200).await;
    assert_eq!(clients.end().await, [""; 0]);
    for mut process in old {
        assert_eq!(process.wait_exit().await.code(), Some(0));
    }
    let mode = std::fs::metadata(site.post()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_successor_that_dies_before_it_is_ready_has_changed_nothing() {
    let app = app().await;
    let site = Site::of(&app).await;
    let frontend = Scale0::start(&site.heir()).await;
    let clients = Clients::start(10, frontend.pages());
    clients.go_on(10).await;
    // Its broker is not there, so it never becomes ready.
    let config = site.heir().replace("/broker-", "/other-");
    let mut dies = successor(&config, &frontend).await;
    dies.kill().await.unwrap();
    until_said(&frontend, "nothing was handed over").await;
    clients.go_on(100).await;
    assert_eq!(clients.end().await, [""; 0]);
    assert_eq!(get(frontend.admin(), "/readyz").await.status(), 200);
    // And the next one is handed over to all the same.
    let next = Scale0::start(&site.heir()).await;
    assert_eq!(next.pages(), frontend.pages());
}

/// Starts a process, and waits until the one before it has offered it its sockets.
async fn successor(config: &str, before: &Scale0) -> Child {
    let file = before.folder().join("successor.toml");
    std::fs::write(&file, config).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_scale0"))
        .args(["up", "--config", "successor.toml"])
        .current_dir(before.folder())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    until_said(before, "was offered the sockets").await;
    child
}

/// Waits until it has written this to its standard error.
async fn until_said(process: &Scale0, what: &str) {
    soon(async {
        while !process.stderr().contains(what) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn whoever_connects_while_the_predecessor_dies_is_answered_by_the_successor() {
    let app = app().await;
    let site = Site::of(&app).await;
    let mut frontend = Scale0::start(&site.heir()).await;
    let address = frontend.pages();
    let config = site.heir().replace("/broker-", "/other-");
    let _successor = successor(&config, &frontend).await;
    frontend.kill9().await;
    // Nobody accepts: the kernel keeps it in the queue of the socket, which both have had.
    let mut waiting = Client::connect(address).await;
    waiting.ask("GET", "/waiting", "").await;
    let _other = Site::broker(&site.folder, "other", &app).await;
    assert_eq!(waiting.response().await.text(), "/waiting");
}

#[tokio::test]
async fn a_file_that_nobody_waits_behind_is_taken_over_and_another_is_left_alone() {
    let app = app().await;
    let site = Site::of(&app).await;
    let mut frontend = Scale0::start(&site.heir()).await;
    frontend.kill9().await;
    assert!(site.post().exists());
    let mut frontend = Scale0::start(&site.heir()).await;
    assert_eq!(frontend.get("/").await.status(), 200);
    UnixStream::connect(site.post()).await.unwrap();
    frontend.terminate();
    assert_eq!(frontend.wait_exit().await.code(), Some(0));
    assert!(!site.post().exists());

    std::fs::write(site.post(), "letters").unwrap();
    let refused = run(&site.heir()).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("it is no socket"), "{said}");
    assert_eq!(std::fs::read(site.post()).unwrap(), b"letters");
}

/// A process that is to fail.
async fn run(config: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("scale0.toml"), config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_scale0"));
    command
        .args(["up", "--config", "scale0.toml"])
        .current_dir(folder.path());
    soon(command.output()).await.unwrap()
}

#[tokio::test]
async fn what_is_stored_and_what_is_purged_goes_over_to_the_successor() {
    let app = Origin::start(|request| async move {
        let mut response = page(&request);
        let fields = response.headers_mut();
        fields.insert("cache-control", "max-age=1000".parse().unwrap());
        fields.insert("surrogate-key", "all".parse().unwrap());
        response
    })
    .await;
    let site = Site::of(&app).await;
    let mut old = Scale0::start(&site.heir()).await;
    for target in ["/kept", "/purged-before", "/purged-after"] {
        assert_eq!(old.get(target).await.status(), 200);
    }
    assert_eq!(purge(&old, "/purged-before").await, 200);
    let new = Scale0::start(&site.heir()).await;
    // Confirmed as soon as the store is this process's: the purge must outlive it.
    assert_eq!(purge(&new, "/purged-after").await, 200);
    assert_eq!(old.wait_exit().await.code(), Some(0));
    new.until_metric("scale0_store_open", |it| it == 1.0).await;
    for (target, asked) in [("/kept", 1), ("/purged-before", 2), ("/purged-after", 2)] {
        assert_eq!(new.get(target).await.status(), 200);
        assert_eq!(app.counts().gets(target), asked, "{target}");
    }
    let mut new = new;
    new.terminate();
    assert_eq!(new.wait_exit().await.code(), Some(0));
    let last = Scale0::start(&site.heir()).await;
    for target in ["/kept", "/purged-before", "/purged-after"] {
        let before = app.counts().gets(target);
        assert_eq!(last.get(target).await.status(), 200);
        assert_eq!(app.counts().gets(target), before, "{target}");
    }
}

async fn purge(process: &Scale0, target: &str) -> u16 {
    let content = format!("{{\"url\": \"http://www.example.com{target}\"}}");
    let mut client = Client::connect(process.admin()).await;
    let request = format!(
        "POST /purge HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n\r\n{content}",
        content.len()
    );
    client.send(request).await.unwrap();
    client.response().await.status()
}

/// The command of a service manager that has opened a socket before the process begins, and keeps it.
fn managed(socket: &TcpListener, pid: &str) -> Command {
    let script = format!(
        "exec 3<&0 0</dev/null; export LISTEN_PID={pid} LISTEN_FDS=1 LISTEN_FDNAMES=http; exec {} \"$@\"",
        env!("CARGO_BIN_EXE_scale0")
    );
    let mut command = Command::new("sh");
    let socket = OwnedFd::from(socket.try_clone().unwrap());
    command.args(["-c", &script, "scale0"]).stdin(socket);
    command
}

/// Runs a frontend that is given this socket.
async fn start_managed(site: &Site, socket: &TcpListener, name: &str) -> Scale0 {
    let folder = tempfile::tempdir().unwrap();
    let address = socket.local_addr().unwrap();
    let config = site
        .frontend("")
        .replace("127.0.0.1:0\"\nbrokers", &format!("{address}\"\nbrokers"))
        .replace("name = \"frontend\"", &format!("name = {name:?}"));
    std::fs::write(folder.path().join("scale0.toml"), config).unwrap();
    let arguments = ["up", "--config", "scale0.toml"];
    let scale0 = Scale0::launch_by(managed(socket, "$$"), folder, &arguments).await;
    soon(async {
        while get(scale0.admin(), "/readyz").await.status() != 200 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    scale0
}

#[tokio::test]
async fn who_is_given_a_socket_by_its_parent_leaves_it_as_it_was() {
    let app = app().await;
    let site = Site::of(&app).await;
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let mut first = start_managed(&site, &socket, "first").await;
    let clients = Clients::start(50, address);
    clients.go_on(100).await;
    let mut second = start_managed(&site, &socket, "second").await;
    first.terminate();
    assert_eq!(first.wait_exit().await.code(), Some(0));
    clients.go_on(200).await;
    assert_eq!(clients.end().await, [""; 0]);

    second.terminate();
    assert_eq!(second.wait_exit().await.code(), Some(0));
    // Nobody accepts just now; the socket is there all the same.
    let mut waiting = Client::connect(address).await;
    waiting.ask("GET", "/waiting", "").await;
    let _third = start_managed(&site, &socket, "third").await;
    assert_eq!(waiting.response().await.text(), "/waiting");
}

#[tokio::test]
async fn a_socket_that_nothing_is_configured_for_is_refused_and_that_of_another_process_not_looked_at()
 {
    let app = app().await;
    let site = Site::of(&app).await;
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = site.frontend("").replace("127.0.0.1:0", "127.0.0.2:0");
    std::fs::write(folder.path().join("scale0.toml"), config).unwrap();
    let arguments = ["up", "--config", "scale0.toml"];
    let mut refused = managed(&socket, "$$");
    let refused = soon(
        refused
            .args(arguments)
            .current_dir(folder.path())
            .kill_on_drop(true)
            .output(),
    );
    let refused = refused.await.unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    let expected = format!(
        "descriptor 3 (http) of LISTEN_FDS listens on {}, which is no address in frontend.http; configured are: 127.0.0.2:0",
        socket.local_addr().unwrap()
    );
    assert!(said.contains(&expected), "{said}");

    let not_meant = Scale0::launch_by(managed(&socket, "1"), folder, &arguments).await;
    assert_ne!(not_meant.pages(), socket.local_addr().unwrap());
}
