//! The demo's page in a real browser, in front of the real binary.
//!
//! Needs chromedriver and the browser it drives. Where there is none the test says so and passes, unless `CI` is set.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::HashSet;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What anything here may take on a busy machine: 200 requests of a browser, or its start.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn the_button_fires_200_requests_and_the_backend_runs_once() {
    let Some(browser) = Browser::start() else {
        assert!(std::env::var_os("CI").is_none(), "no chromedriver");
        eprintln!("SKIPPED: no chromedriver, so nobody has seen the demo's page");
        return;
    };
    let scale0 = Scale0::up();
    browser.open(&scale0.pages);
    // Among them: a script or style that is not the one the page's policy names.
    assert_eq!(browser.errors(), Vec::<String>::new());

    let sentence = browser.click("#slow");
    assert_eq!(sentence, "200 answers. The backend ran 1 time.");
    assert_eq!(browser.text("#answered"), "200 of 200");
    assert_eq!(browser.text("#runs"), "1");
    assert!(
        browser
            .text("#legend")
            .starts_with("1 fetched from the backend")
    );

    let sentence = browser.click("#again");
    assert!(sentence.starts_with("200 answers within "), "{sentence}");
    assert!(sentence.ends_with(". Still 1 run."), "{sentence}");
    assert_eq!(browser.text("#legend"), "200 from the cache hit");

    let sentence = browser.click("#private");
    assert_eq!(sentence, "50 private requests: 50 different answers.");
    assert_eq!(browser.text("#runs"), "50");

    assert_eq!(browser.errors(), Vec::<String>::new());

    // That the page did not ask its browser's cache instead is known to the other side.
    let log = scale0.stop();
    let targets = |path: &str| -> Vec<String> {
        let lines = log.lines().map(|line| serde_json::from_str(line).unwrap());
        let targets = lines.map(|line: Value| line["target"].as_str().unwrap().to_owned());
        targets.filter(|target| target.starts_with(path)).collect()
    };
    for (path, requests) in [("/slow?", 400), ("/private?", 50)] {
        let targets = targets(path);
        assert_eq!(targets.len(), requests, "{path}");
        assert_eq!(targets.iter().collect::<HashSet<_>>().len(), 1, "{path}");
    }
}

/// `scale0 up` without a file, on ports of its own.
struct Scale0 {
    process: Child,
    folder: TempDir,
    pages: String,
    /// Kept, as what it writes must go somewhere.
    _output: BufReader<ChildStdout>,
}

impl Scale0 {
    fn up() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_scale0"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SCALE0__") {
                command.env_remove(name);
            }
        }
        command.arg("up").args(["--set", "log.access=access.log"]);
        for (setting, port) in [
            ("frontend.http", "127.0.0.1:0"),
            ("admin.listen", "127.0.0.1:0"),
            ("broker.frontends", "ipc://frontends"),
            ("broker.backends", "ipc://backends"),
            ("broker.peers", "ipc://peers"),
        ] {
            command.args(["--set", &format!("{setting}={port}")]);
        }
        command.current_dir(folder.path());
        let (process, pages, output) = started(&mut command, |line| {
            line.split_whitespace().find(|it| it.starts_with("http://"))
        })
        .expect("the binary runs");
        Self {
            process,
            folder,
            pages,
            _output: output,
        }
    }

    /// Asks it to stop. Returns its access log.
    fn stop(mut self) -> String {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        assert!(self.process.wait().unwrap().success());
        std::fs::read_to_string(self.folder.path().join("access.log")).unwrap()
    }
}

impl Drop for Scale0 {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

/// A browser that is driven (W3C WebDriver).
struct Browser {
    driver: Child,
    port: String,
    /// `/session/…`; nothing before there is one.
    session: String,
    _profile: TempDir,
    _output: BufReader<ChildStdout>,
}

impl Browser {
    /// A headless one that knows nothing of any other; `None` if there is no driver.
    fn start() -> Option<Self> {
        let (driver, port, output) =
            started(Command::new("chromedriver").arg("--port=0"), |line| {
                let (_, port) = line.rsplit_once("started successfully on port ")?;
                Some(port.trim_end_matches('.'))
            })?;
        let profile = tempfile::tempdir().unwrap();
        let folder = format!("--user-data-dir={}", profile.path().display());
        let mut browser = Self {
            driver,
            port,
            session: String::new(),
            _profile: profile,
            _output: output,
        };
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            &folder,
        ];
        let wanted = json!({
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
            "timeouts": { "script": millis(PATIENCE), "pageLoad": millis(PATIENCE) },
        });
        let wanted = json!({ "capabilities": { "alwaysMatch": wanted } });
        let session = browser.command("POST", "/session", &wanted);
        browser.session = format!("/session/{}", session["sessionId"].as_str().unwrap());
        Some(browser)
    }

    fn open(&self, url: &str) {
        self.command("POST", "/url", &json!({ "url": url }));
    }

    /// Clicks a button of the page and waits for the sentence it comes to.
    fn click(&self, selector: &str) -> String {
        let find = json!({ "using": "css selector", "value": selector });
        let element = self.command("POST", "/element", &find);
        let element = element.as_object().unwrap().values().next().unwrap();
        let path = format!("/element/{}/click", element.as_str().unwrap());
        self.command("POST", &path, &json!({}));

        let script = "
            const done = arguments[0];
            const result = document.querySelector('#result');
            const look = () => {
                if (result.textContent.includes('on their way')) return;
                observer.disconnect();
                done(result.textContent);
            };
            const observer = new MutationObserver(look);
            observer.observe(result, { childList: true, characterData: true, subtree: true });
            look();";
        let sentence = self.script("async", script, &[]);
        sentence.as_str().unwrap().to_owned()
    }

    /// The text of an element, as read: what stands side by side, one space between.
    fn text(&self, selector: &str) -> String {
        let script = "
            const texts = document.createTreeWalker(document.querySelector(arguments[0]), NodeFilter.SHOW_TEXT);
            let text = '';
            while (texts.nextNode()) text += ' ' + texts.currentNode.data.trim();
            return text.trim();";
        let text = self.script("sync", script, &[selector]);
        text.as_str().unwrap().to_owned()
    }

    /// What the browser's console has of errors.
    fn errors(&self) -> Vec<String> {
        let log = self.command("POST", "/se/log", &json!({ "type": "browser" }));
        let entries = log.as_array().unwrap().iter();
        let severe = entries.filter(|entry| entry["level"] == "SEVERE");
        severe.map(|entry| entry["message"].to_string()).collect()
    }

    fn script(&self, kind: &str, script: &str, arguments: &[&str]) -> Value {
        let body = json!({ "script": script, "args": arguments });
        self.command("POST", &format!("/execute/{kind}"), &body)
    }

    fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.ask(method, path, body).expect("the driver answers");
        let value = &answer["value"];
        assert!(value["error"].is_null(), "{method} {path}: {value:#}");
        value.clone()
    }

    /// One exchange with the driver.
    fn ask(&self, method: &str, path: &str, body: &Value) -> std::io::Result<Value> {
        let (port, session, body) = (&self.port, &self.session, body.to_string());
        let mut stream = TcpStream::connect(format!("127.0.0.1:{port}"))?;
        stream.set_read_timeout(Some(PATIENCE + PATIENCE))?;
        write!(
            stream,
            "{method} {session}{path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut stream = BufReader::new(stream);
        let mut length = 0;
        let mut line = String::new();
        while 2 < stream.read_line(&mut line)? {
            let field = line.to_ascii_lowercase();
            if let Some(value) = field.strip_prefix("content-length:") {
                length = value.trim().parse().map_err(std::io::Error::other)?;
            }
            line.clear();
        }
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer)?;
        Ok(serde_json::from_slice(&answer)?)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends its browser with the session, but not when it is killed.
        if !self.session.is_empty() {
            _ = self.ask("DELETE", "", &json!({}));
        }
        end(&mut self.driver);
    }
}

/// Starts a program and reads its output up to the line in which it says what is wanted of it. `None` if there is no such program.
fn started(
    command: &mut Command,
    said: impl Fn(&str) -> Option<&str>,
) -> Option<(Child, String, BufReader<ChildStdout>)> {
    let mut process = match command.stdout(Stdio::piped()).spawn() {
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        spawned => spawned.unwrap(),
    };
    let mut output = BufReader::new(process.stdout.take().unwrap());
    let mut line = String::new();
    while output.read_line(&mut line).unwrap() != 0 {
        if let Some(said) = said(line.trim_end()) {
            return Some((process, said.to_owned(), output));
        }
        line.clear();
    }
    panic!("{command:?} ended with {}", process.wait().unwrap());
}

fn end(process: &mut Child) {
    _ = process.kill();
    _ = process.wait();
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap()
}
