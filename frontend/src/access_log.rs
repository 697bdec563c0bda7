//! One line per request, written by a thread of its own so that no request waits for a disk.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

/// Lines that may wait for the writer; what comes when so many do is dropped and counted. A second's worth at 16,000 a second.
const QUEUE: usize = 16 * 1024;

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Standard output.
    Stdout,
    /// Appended to this file, which is opened anew when asked.
    File(PathBuf),
}

/// The access log; clones write to the same one.
#[derive(Clone, Debug, Default)]
pub struct AccessLog(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    lines: SyncSender<Job>,
    wishes: Arc<Wishes>,
}

/// What the writer is told.
#[derive(Debug)]
enum Job {
    Line(String),
    /// To look at what was [wished](Wishes).
    Look,
}

/// What is said to the writer beside the queue, which may be full.
#[derive(Debug, Default)]
struct Wishes {
    reopen: AtomicBool,
    close: AtomicBool,
    dropped: AtomicU64,
}

/// What there is to say about a request that is over.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    pub(crate) finished: SystemTime,
    pub(crate) request_id: &'a str,
    pub(crate) client: Option<IpAddr>,
    pub(crate) method: &'a str,
    pub(crate) authority: &'a str,
    pub(crate) target: &'a str,
    pub(crate) version: &'a str,
    pub(crate) status: u16,
    pub(crate) service: &'a str,
    pub(crate) backend: &'a str,
    pub(crate) site: &'a str,
    pub(crate) cache_status: &'a str,
    pub(crate) reason: &'a str,
    pub(crate) bytes: u64,
    /// Whether all of the response was handed to the connection.
    pub(crate) complete: bool,
    /// From the request's head to the response's.
    pub(crate) head_after: Duration,
    /// From the request's head to the response's end.
    pub(crate) after: Duration,
}

impl AccessLog {
    /// No log.
    #[must_use]
    pub const fn off() -> Self {
        Self(None)
    }

    /// Starts a log; the thread returned ends after [`close`](Self::close), or when all clones are dropped, with everything written.
    ///
    /// # Errors
    /// When the file cannot be opened, or no thread started.
    pub fn start(destination: Destination) -> io::Result<(Self, JoinHandle<()>)> {
        let (lines, queue) = sync_channel(QUEUE);
        let wishes = Arc::default();
        let mut writer = Writer {
            output: destination.open()?,
            destination,
            wishes: Arc::clone(&wishes),
            failing: false,
        };
        let thread = std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || writer.run(&queue))?;
        Ok((Self(Some(Arc::new(Shared { lines, wishes }))), thread))
    }

    /// Opens the file anew: it was renamed.
    pub fn reopen(&self) {
        self.wish(|wishes| &wishes.reopen);
    }

    /// Ends the log: the thread writes what waits and ends. What is said to any clone afterwards is dropped and counted.
    pub fn close(&self) {
        self.wish(|wishes| &wishes.close);
    }

    fn wish(&self, which: impl FnOnce(&Wishes) -> &AtomicBool) {
        if let Some(shared) = &self.0 {
            which(&shared.wishes).store(true, Ordering::Release);
            // With a full queue the writer has something to do, and looks after it.
            _ = shared.lines.try_send(Job::Look);
        }
    }

    /// Lines dropped because the writer was too slow, could not write, or had ended.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        let dropped = |shared: &Arc<Shared>| shared.wishes.dropped.load(Ordering::Relaxed);
        self.0.as_ref().map_or(0, dropped)
    }

    pub(crate) const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn write(&self, record: &Record<'_>) {
        let Some(shared) = &self.0 else { return };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            shared.lines.try_send(Job::Line(record.line()))
        {
            shared.wishes.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Record<'_> {
    /// One JSON object and a newline.
    fn line(&self) -> String {
        let mut to = String::with_capacity(384);
        let since_1970 = self
            .finished
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        to.push('{');
        _ = write!(
            to,
            "\"time\":{}.{:03}",
            since_1970.as_secs(),
            since_1970.subsec_millis()
        );
        let client = self
            .client
            .map(|client| client.to_string())
            .unwrap_or_default();
        for (name, value) in [
            ("request_id", self.request_id),
            ("client", client.as_str()),
            ("method", self.method),
            ("authority", self.authority),
            ("target", self.target),
            ("version", self.version),
        ] {
            string(&mut to, name, value);
        }
        _ = write!(
            to,
            ",\"status\":{},\"bytes\":{},\"complete\":{}",
            self.status, self.bytes, self.complete
        );
        for (name, value) in [
            ("service", self.service),
            ("backend", self.backend),
            ("site", self.site),
            ("cache", self.cache_status),
            ("reason", self.reason),
        ] {
            if !value.is_empty() {
                string(&mut to, name, value);
            }
        }
        _ = write!(
            to,
            ",\"head_ms\":{:.3},\"total_ms\":{:.3}",
            milliseconds(self.head_after),
            milliseconds(self.after)
        );
        to.push_str("}\n");
        to
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Appends `,"name":"value"`, the value escaped as RFC 8259 §7 asks.
fn string(to: &mut String, name: &str, value: &str) {
    _ = write!(to, ",\"{name}\":\"");
    for character in value.chars() {
        match character {
            '"' => to.push_str("\\\""),
            '\\' => to.push_str("\\\\"),
            control if control.is_control() => _ = write!(to, "\\u{:04x}", u32::from(control)),
            plain => to.push(plain),
        }
    }
    to.push('"');
}

impl Destination {
    fn open(&self) -> io::Result<Output> {
        Ok(match self {
            Self::Stdout => Output::Stdout(io::stdout()),
            Self::File(path) => {
                Output::File(OpenOptions::new().append(true).create(true).open(path)?)
            }
        })
    }
}

enum Output {
    Stdout(io::Stdout),
    File(File),
}

impl Output {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout(stdout) => stdout.lock().write_all(lines),
            Self::File(file) => file.write_all(lines),
        }
    }
}

struct Writer {
    output: Output,
    destination: Destination,
    wishes: Arc<Wishes>,
    failing: bool,
}

impl Writer {
    fn run(&mut self, queue: &Receiver<Job>) {
        let mut batch = String::new();
        let mut next = queue.recv().ok();
        while let Some(first) = next {
            batch.clear();
            let mut lines = 0;
            // What waits is written at once, but so that a full queue does not become a huge buffer.
            for job in std::iter::once(first).chain(queue.try_iter().take(512)) {
                if let Job::Line(line) = job {
                    batch.push_str(&line);
                    lines += 1;
                }
            }
            if self.wishes.reopen.swap(false, Ordering::Acquire) {
                self.reopen();
            }
            self.write(&batch, lines);
            next = if self.wishes.close.load(Ordering::Acquire) {
                queue.try_recv().ok()
            } else {
                queue.recv().ok()
            };
        }
    }

    fn reopen(&mut self) {
        match self.destination.open() {
            Ok(output) => self.output = output,
            Err(error) => {
                tracing::error!(%error, "the access log cannot be opened anew; it stays where it is");
            }
        }
    }

    fn write(&mut self, batch: &str, lines: u64) {
        match self.output.write(batch.as_bytes()) {
            Ok(()) => self.failing = false,
            Err(error) => {
                self.wishes.dropped.fetch_add(lines, Ordering::Relaxed);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(%error, "the access log cannot be written; its lines are dropped and counted");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_json_object_whatever_the_client_sent() {
        let record = Record {
            finished: SystemTime::UNIX_EPOCH + Duration::from_millis(1500),
            request_id: "id",
            client: Some(IpAddr::from([127, 0, 0, 1])),
            method: "GET",
            authority: "example.com",
            target: "/\"\\\n\u{7f}é",
            version: "HTTP/1.1",
            status: 200,
            service: "shop",
            backend: "",
            site: "local",
            cache_status: "hit",
            reason: "",
            bytes: 5,
            complete: true,
            head_after: Duration::from_micros(1500),
            after: Duration::from_micros(2500),
        };
        let line = record.line();
        assert_eq!(line.matches('\n').count(), 1);
        let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(parsed["target"], "/\"\\\n\u{7f}é");
        assert_eq!(parsed["time"], 1.5);
        assert_eq!(parsed["head_ms"], 1.5);
        assert!(parsed.get("backend").is_none());
    }

    #[test]
    fn a_renamed_file_is_left_behind_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let (log, writer) = AccessLog::start(Destination::File(path.clone())).unwrap();
        let shared = log.0.as_ref().unwrap();
        shared.lines.send(Job::Line("before\n".into())).unwrap();
        while std::fs::read_to_string(&path).unwrap() != "before\n" {
            std::thread::yield_now();
        }
        std::fs::rename(&path, folder.path().join("old")).unwrap();
        log.reopen();
        shared.lines.send(Job::Line("after\n".into())).unwrap();
        log.close();
        writer.join().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "after\n");
    }

    #[test]
    fn lines_for_a_full_disk_are_counted() {
        let (log, writer) = AccessLog::start(Destination::File("/dev/full".into())).unwrap();
        let shared = log.0.as_ref().unwrap();
        for _ in 0..3 {
            shared.lines.send(Job::Line("lost\n".into())).unwrap();
        }
        log.close();
        writer.join().unwrap();
        assert_eq!(log.dropped(), 3);
    }
}
