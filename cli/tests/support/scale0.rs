//! The real binary as a process of its own.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::watch;

use super::{Client, Origin, Response, get, soon};

/// A file with all roles in one process on ports of its own: a bridge to `origin` for every service, and whatever `more` says.
pub(crate) fn site(origin: &Origin, more: impl Display) -> String {
    site_of(&origin.url(), more)
}

/// The same in front of whatever application is at `upstream`.
pub(crate) fn site_of(upstream: &str, more: impl Display) -> String {
    format!(
        r#"
[node]
name = "test"
[frontend]
http = "127.0.0.1:0"
[broker]
frontends = "ipc://frontends"
backends = "ipc://backends"
peers = "ipc://peers"
[[bridge]]
service = "*"
upstream = "{upstream}"
concurrency = 256
[admin]
listen = "127.0.0.1:0"
{more}
"#
    )
}

/// `scale0 up` with a file. It is killed when dropped; if the test has failed by then, what it wrote is shown.
pub(crate) struct Scale0 {
    process: Child,
    folder: TempDir,
    announcement: Vec<String>,
    /// The lines after the announcement: the access log, unless the file says otherwise.
    lines: Arc<Mutex<Vec<String>>>,
    written: watch::Receiver<usize>,
}

impl Scale0 {
    /// Starts it and waits until it is ready, as far as it has an admin address to ask.
    pub(crate) async fn start(config: &str) -> Self {
        let scale0 = Self::launch(config).await;
        if let Some(admin) = scale0.announced("admin") {
            soon(until_ready(address(admin))).await;
        }
        scale0
    }

    /// Starts it and waits until it has said where it answers; it may not be ready.
    pub(crate) async fn launch(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("scale0.toml"), config).unwrap();
        Self::launch_in(folder, &["up", "--config", "scale0.toml"]).await
    }

    /// The same with these arguments, in this folder.
    pub(crate) async fn launch_in(folder: TempDir, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_scale0"));
        command.stdin(Stdio::null());
        Self::launch_by(command, folder, arguments).await
    }

    /// The same by a command that starts it with the arguments it is given.
    pub(crate) async fn launch_by(
        mut command: Command,
        folder: TempDir,
        arguments: &[&str],
    ) -> Self {
        let errors = std::fs::File::create(folder.path().join("stderr")).unwrap();
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SCALE0__") {
                command.env_remove(name);
            }
        }
        command
            .args(arguments)
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .stderr(errors)
            .kill_on_drop(true);
        let mut process = command.spawn().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut announcement = Vec::new();
        while let Some(line) = soon(output.next_line()).await.unwrap() {
            if line.starts_with("Stop with") {
                break;
            }
            announcement.push(line);
        }
        let lines = Arc::default();
        let (tell, written) = watch::channel(0);
        tokio::spawn(collect(output, Arc::clone(&lines), tell));
        let scale0 = Self {
            process,
            folder,
            announcement,
            lines,
            written,
        };
        assert!(!scale0.announcement.is_empty(), "{}", scale0.stderr());
        scale0
    }

    /// Where its frontend answers.
    pub(crate) fn pages(&self) -> SocketAddr {
        address(self.announced("pages").expect("it has a [frontend]"))
    }

    /// Where its admin endpoints are.
    pub(crate) fn admin(&self) -> SocketAddr {
        address(self.announced("admin").expect("it has an [admin]"))
    }

    /// Where its broker is reached by `whom`: `frontends`, `backends` or `peers`.
    pub(crate) fn broker(&self, whom: &str) -> &str {
        let line = self.announcement.iter().find(|line| {
            line.trim_start().starts_with("broker") && line.ends_with(&format!("for {whom}"))
        });
        let endpoint = line.and_then(|line| line.split_whitespace().nth(1));
        endpoint.expect("it has a [broker]")
    }

    /// Its working directory.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The id of the process.
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.process.id().expect("it runs")).unwrap()
    }

    /// A new connection to its frontend.
    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.pages()).await
    }

    /// A GET on a connection of its own.
    pub(crate) async fn get(&self, target: &str) -> Response {
        get(self.pages(), target).await
    }

    /// The sum of a metric over all its labels; a metric that is not there counts as nothing. `name{label="value"` narrows it.
    pub(crate) async fn metrics(&self, name: &str) -> f64 {
        let page = get(self.admin(), "/metrics").await.text();
        let of_it = page.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| name.contains('{') || rest.starts_with(['{', ' ']))
        });
        of_it
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Asks for a metric until it is as wanted.
    pub(crate) async fn until_metric(&self, name: &str, wanted: impl Fn(f64) -> bool) {
        soon(async {
            while !wanted(self.metrics(name).await) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// The most memory it has had at once so far, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.unwrap().trim().trim_end_matches(" kB");
        kib.parse::<u64>().unwrap() * 1024
    }

    /// Its access log as soon as it has so many lines.
    pub(crate) async fn access_log(&self, lines: usize) -> Vec<serde_json::Value> {
        let mut written = self.written.clone();
        soon(written.wait_for(|written| lines <= *written))
            .await
            .expect("it still runs");
        let lines = self.lines.lock().unwrap();
        lines
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// What it has written to its standard error.
    pub(crate) fn stderr(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default()
    }

    /// Ends it without a word of warning.
    pub(crate) async fn kill9(&mut self) {
        self.signal(Signal::KILL);
        soon(self.process.wait()).await.unwrap();
    }

    /// Asks it to stop.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.pid()).unwrap(), signal).unwrap();
    }

    /// How it has ended, if it has.
    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().unwrap()
    }

    /// Waits for its end.
    pub(crate) async fn wait_exit(&mut self) -> ExitStatus {
        soon(self.process.wait()).await.unwrap()
    }

    fn announced(&self, what: &str) -> Option<&str> {
        self.announcement.iter().find_map(|line| {
            let url = line.trim_start().strip_prefix(what)?.split_whitespace();
            url.into_iter().next()
        })
    }
}

impl Drop for Scale0 {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}\n{}", self.announcement.join("\n"), self.stderr());
        }
    }
}

async fn collect(
    mut output: Lines<BufReader<ChildStdout>>,
    lines: Arc<Mutex<Vec<String>>>,
    tell: watch::Sender<usize>,
) {
    while let Ok(Some(line)) = output.next_line().await {
        lines.lock().unwrap().push(line);
        tell.send_modify(|written| *written += 1);
    }
}

async fn until_ready(admin: SocketAddr) {
    while get(admin, "/readyz").await.status() != 200 {
        tokio::task::yield_now().await;
    }
}

fn address(url: &str) -> SocketAddr {
    url.strip_prefix("http://")
        .unwrap_or(url)
        .parse()
        .expect("an address with a port")
}
