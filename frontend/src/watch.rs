//! Which clients are too slow. Every connection notes where it stands; once a second one task per thread looks at all of them,
//! so that a request sets no timer.
//!
//! On HTTP/2 one stream can be kept from moving while others move: each has a clock of its own there, its [`Turn`].
//!
//! A connection whose head does not come is told so: 408 (RFC 9110 §15.5.9) goes out beneath hyper, which has nothing under way
//! there. The others are just closed: what they were being told cannot be interrupted.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use slab::Slab;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::AbortHandle;

use crate::clock;
use crate::config::Limits;
use crate::interim_io::Outgoing;

/// How often connections are looked at, and so how much later than its time one may end.
pub(crate) const LOOK: Duration = Duration::from_secs(1);

/// Why a connection was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TooSlow {
    /// It sent no request for `keepalive_timeout`.
    Idle,
    /// The head took longer than `header_timeout`.
    Head,
    /// The request's content came slower than `min_rate`.
    Content,
    /// It read slower than `min_rate`.
    Reading,
}

/// Where one connection stands. Only its own thread writes here; atomics because hyper wants an upgraded connection to be able
/// to move.
#[derive(Debug)]
pub(crate) struct Watched {
    epoch: Instant,
    /// When it became idle, or the present head began to come; in milliseconds since `epoch`.
    since: AtomicU64,
    /// Whether bytes have come since then, on a connection where only a request's head can come then.
    head_began: AtomicBool,
    /// HTTP/2, by its preface: a connection without requests still says things (RFC 9113 §6).
    is_http2: AtomicBool,
    /// The next read finds that it is over.
    is_over: AtomicBool,
    /// Of its task, which is one and the same for as long as it is open.
    waker: OnceLock<Waker>,
    /// Requests being answered; more than one on HTTP/2.
    requests: AtomicU32,
    /// Requests whose content is being waited for.
    uploads: AtomicU32,
    read: AtomicU64,
    written: AtomicU64,
    /// It is closed after the next response.
    is_last: AtomicBool,
    interims: Outgoing,
    /// Until when streams have to move whose turn it is, in milliseconds since `epoch`.
    turns: Mutex<Slab<(u64, TooSlow)>>,
    /// The last write found no room.
    write_blocked: AtomicBool,
    /// When the present stretch of slowness began, or [`NEVER`], and how many bytes had moved by then.
    slow_since: AtomicU64,
    slow_from: AtomicU64,
}

const NEVER: u64 = u64::MAX;

/// How an HTTP/2 connection begins (RFC 9113 §3.4), as far as is needed to tell.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0";

const REQUEST_TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

impl Watched {
    fn new() -> Self {
        Self {
            epoch: clock::now(),
            since: AtomicU64::new(0),
            head_began: AtomicBool::new(false),
            is_http2: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            waker: OnceLock::new(),
            requests: AtomicU32::new(0),
            uploads: AtomicU32::new(0),
            read: AtomicU64::new(0),
            written: AtomicU64::new(0),
            is_last: AtomicBool::new(false),
            interims: Outgoing::default(),
            turns: Mutex::default(),
            write_blocked: AtomicBool::new(false),
            slow_since: AtomicU64::new(NEVER),
            slow_from: AtomicU64::new(0),
        }
    }

    /// A request has come in, as far as its head goes; the guard is dropped when it is answered.
    pub(crate) fn request(self: &Arc<Self>) -> Answering {
        self.requests
            .store(self.requests.load(Relaxed) + 1, Relaxed);
        self.head_began.store(false, Relaxed);
        Answering(Arc::clone(self))
    }

    /// Somebody waits for the request's content; the guard is dropped when it came.
    pub(crate) fn upload(self: &Arc<Self>) -> Uploading {
        self.uploads.store(self.uploads.load(Relaxed) + 1, Relaxed);
        Uploading(Arc::clone(self))
    }

    /// Whether the connection is closed after the next response: where content in chunks ends is certain only once it has been
    /// read to an end without trailers. In a trailer section a bare LF has two readings, and hyper's may not be that of whoever
    /// forwarded it.
    pub(crate) fn is_last(&self) -> bool {
        self.is_last.load(Relaxed)
    }

    pub(crate) fn set_last(&self, is_last: bool) {
        self.is_last.store(is_last, Relaxed);
    }

    /// Interim heads on their way to the client, on HTTP/1.1.
    pub(crate) const fn interims(&self) -> &Outgoing {
        &self.interims
    }

    fn idle_from(&self, now: Instant) {
        self.head_began.store(false, Relaxed);
        self.since.store(self.milliseconds(now), Relaxed);
    }

    fn milliseconds(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.epoch).as_millis()).unwrap_or(NEVER)
    }

    fn did_read(&self, bytes: &[u8]) {
        let before = self.read.load(Relaxed);
        self.read.store(before + bytes.len() as u64, Relaxed);
        if before == 0 {
            self.is_http2
                .store(bytes.starts_with(HTTP2_PREFACE), Relaxed);
        }
        let is_head = self.requests.load(Relaxed) == 0
            && !self.head_began.load(Relaxed)
            && !self.is_http2.load(Relaxed)
            && !bytes.is_empty();
        if is_head {
            self.idle_from(clock::now());
            self.head_began.store(true, Relaxed);
        }
    }

    /// Remembers by which its task is woken to see that something has been decided about it, which costs its requests less than a
    /// look at whatever may decide.
    pub(crate) fn wake_with(&self, waker: &Waker) {
        self.waker.get_or_init(|| waker.clone());
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }

    fn did_write(&self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Ready(Ok(bytes)) => {
                self.written
                    .store(self.written.load(Relaxed) + *bytes as u64, Relaxed);
                self.write_blocked.store(false, Relaxed);
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.write_blocked.store(true, Relaxed),
        }
    }

    fn judge(&self, now: Instant, limits: &Limits) -> Option<TooSlow> {
        let lasted = Duration::from_millis(
            self.milliseconds(now)
                .saturating_sub(self.since.load(Relaxed)),
        );
        if 0 < self.requests.load(Relaxed) {
            return self.overdue(now).or_else(|| self.judge_rate(now, limits));
        }
        if self.head_began.load(Relaxed) {
            return (limits.header_timeout <= lasted).then_some(TooSlow::Head);
        }
        (limits.keepalive_timeout <= lasted).then_some(TooSlow::Idle)
    }

    fn overdue(&self, now: Instant) -> Option<TooSlow> {
        let now = self.milliseconds(now);
        let turns = self.turns.lock();
        let overdue = turns.iter().find(|(_, (due, _))| *due <= now);
        overdue.map(|(_, (_, why))| *why)
    }

    fn is_http2(&self) -> bool {
        self.is_http2.load(Relaxed)
    }

    /// A request has come in HTTP/2. The preface may come in crumbs, by which it is not known.
    pub(crate) fn speaks_http2(&self) {
        self.is_http2.store(true, Relaxed);
    }

    /// Whoever keeps us waiting must move `min_rate` on average over each stretch of `header_timeout`.
    fn judge_rate(&self, now: Instant, limits: &Limits) -> Option<TooSlow> {
        let verdict = match (self.write_blocked.load(Relaxed), self.uploads.load(Relaxed)) {
            (true, _) => TooSlow::Reading,
            (false, 0) => {
                self.slow_since.store(NEVER, Relaxed);
                return None;
            }
            (false, _) => TooSlow::Content,
        };
        // Both directions together: whichever is waited for, the other stands still.
        let moved = self.read.load(Relaxed) + self.written.load(Relaxed);
        let now = self.milliseconds(now);
        let since = self.slow_since.load(Relaxed);
        if since == NEVER {
            self.slow_since.store(now, Relaxed);
            self.slow_from.store(moved, Relaxed);
            return None;
        }
        let lasted = Duration::from_millis(now.saturating_sub(since));
        if lasted < limits.header_timeout {
            return None;
        }
        let before = self.slow_from.swap(moved, Relaxed);
        self.slow_since.store(now, Relaxed);
        let due = u128::from(limits.min_rate) * lasted.as_millis() / 1000;
        (u128::from(moved - before) < due).then_some(verdict)
    }
}

/// A request being answered; see [`Watched::request`].
#[derive(Debug)]
pub(crate) struct Answering(Arc<Watched>);

impl Answering {
    pub(crate) fn watched(&self) -> &Arc<Watched> {
        &self.0
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let left = self.0.requests.load(Relaxed) - 1;
        self.0.requests.store(left, Relaxed);
        if left == 0 {
            self.0.idle_from(clock::now());
        }
    }
}

/// A stream that may wait for its client. It has `header_timeout` to spend on waiting, and what moves earns more at `min_rate`:
/// so one cannot be kept from moving for long, nor be moved by a byte now and then.
#[derive(Debug)]
pub(crate) struct Turn {
    watched: Arc<Watched>,
    key: usize,
    min_rate: u64,
    patience: Duration,
    left: Duration,
    /// While it is the client's turn: since when, and what it earns by taking what it was given.
    since: Option<(Instant, Duration)>,
    why: TooSlow,
}

impl Turn {
    /// It is ours at first. None if nothing is expected of clients, or of those of this connection together.
    pub(crate) fn new(watched: &Arc<Watched>, why: TooSlow, limits: &Limits) -> Option<Self> {
        if !watched.is_http2() || limits.min_rate == 0 {
            return None;
        }
        Some(Self {
            watched: Arc::clone(watched),
            key: watched.turns.lock().insert((NEVER, why)),
            min_rate: limits.min_rate,
            patience: limits.header_timeout,
            left: limits.header_timeout,
            since: None,
            why,
        })
    }

    /// The client is to send something, or to take this much.
    pub(crate) fn pass(&mut self, now: Instant, to_take: usize) {
        if self.since.is_none() {
            let earned = self.earned(to_take);
            self.since = Some((now, earned));
            let due = self.watched.milliseconds(now + self.left + earned);
            self.set(due);
        }
    }

    /// The client has sent this much, or has taken what it was given.
    pub(crate) fn take_back(&mut self, now: Instant, sent: usize) {
        if let Some((since, earned)) = self.since.take() {
            let waited = now.saturating_duration_since(since);
            let left = self.left + earned + self.earned(sent);
            self.left = left.saturating_sub(waited).min(self.patience);
            self.set(NEVER);
        }
    }

    fn earned(&self, bytes: usize) -> Duration {
        Duration::from_millis(bytes as u64 * 1000 / self.min_rate)
    }

    fn set(&self, due: u64) {
        self.watched.turns.lock()[self.key] = (due, self.why);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.watched.turns.lock().remove(self.key);
    }
}

/// Content being waited for; see [`Watched::upload`].
#[derive(Debug)]
pub(crate) struct Uploading(Arc<Watched>);

impl Drop for Uploading {
    fn drop(&mut self) {
        self.0
            .uploads
            .store(self.0.uploads.load(Relaxed) - 1, Relaxed);
    }
}

/// All connections of a thread.
#[derive(Debug, Default)]
pub(crate) struct Watch(RefCell<Vec<(Weak<Watched>, AbortHandle)>>);

impl Watch {
    /// Keeps an eye on a connection, whose task ends with it.
    pub(crate) fn add(&self, watched: &Arc<Watched>, task: AbortHandle) {
        self.0.borrow_mut().push((Arc::downgrade(watched), task));
    }

    /// Wakes the task of each connection.
    pub(crate) fn wake(&self) {
        for (watched, _) in &*self.0.borrow() {
            if let Some(watched) = watched.upgrade() {
                watched.wake();
            }
        }
    }

    /// Ends the connections that are too slow; tells of each.
    pub(crate) fn look(&self, now: Instant, limits: &Limits, mut tell: impl FnMut(TooSlow)) {
        self.0.borrow_mut().retain(|(watched, task)| {
            let Some(watched) = watched.upgrade() else {
                return false;
            };
            let Some(verdict) = watched.judge(now, limits) else {
                return true;
            };
            if verdict == TooSlow::Head {
                watched.is_over.store(true, Relaxed);
                watched.wake();
            } else {
                task.abort();
            }
            tell(verdict);
            false
        });
    }
}

/// A connection's bytes, counted on their way.
#[derive(Debug)]
pub(crate) struct WatchedIo<T> {
    inner: T,
    watched: Arc<Watched>,
}

impl<T> WatchedIo<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self {
            inner,
            watched: Arc::new(Watched::new()),
        }
    }

    pub(crate) fn watched(&self) -> &Arc<Watched> {
        &self.watched
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for WatchedIo<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.watched.is_over.load(Relaxed) {
            // Whether or not there is room for it: nobody waits for this client any more.
            _ = Pin::new(&mut self.inner).poll_write(cx, REQUEST_TIMEOUT);
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        self.watched.did_read(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for WatchedIo<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.watched.did_write(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.watched.did_write(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            max_connections: 1,
            header_bytes: 1,
            header_count: 1,
            body_bytes: 0,
            header_timeout: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(60),
            min_rate: 100,
            max_streams: 1,
            in_flight_bytes: 1,
        }
    }

    fn after(watched: &Watched, seconds: u64) -> Option<TooSlow> {
        watched.judge(watched.epoch + Duration::from_secs(seconds), &limits())
    }

    #[test]
    fn an_idle_connection_lasts_for_the_keepalive_timeout() {
        let watched = Watched::new();
        assert_eq!(after(&watched, 59), None);
        assert_eq!(after(&watched, 60), Some(TooSlow::Idle));
    }

    #[test]
    fn a_head_that_dribbles_in_ends_after_the_header_timeout_however_many_bytes_come() {
        let watched = Watched::new();
        watched.did_read(b"G");
        watched.did_read(b"E");
        assert_eq!(after(&watched, 9), None);
        assert_eq!(after(&watched, 11), Some(TooSlow::Head));
    }

    #[test]
    fn an_http2_connection_may_say_things_while_it_has_no_requests() {
        let watched = Watched::new();
        watched.did_read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        watched.did_read(b"a PING");
        assert_eq!(after(&watched, 59), None);
        assert_eq!(after(&watched, 60), Some(TooSlow::Idle));
    }

    #[test]
    fn a_stream_of_http2_has_to_move_whatever_others_do() {
        let watched = Arc::new(Watched::new());
        watched.did_read(HTTP2_PREFACE);
        let _answering = watched.request();
        let at = |seconds| watched.epoch + Duration::from_secs(seconds);
        let turn = |why| Turn::new(&watched, why, &limits()).unwrap();
        let mut reading = turn(TooSlow::Reading);
        // 10 s, and another 10 for what it may take at 100 bytes a second.
        reading.pass(at(0), 1000);
        watched.did_read(&[0; 1 << 20]);
        assert_eq!(after(&watched, 19), None);
        reading.take_back(at(19), 0);
        assert_eq!(after(&watched, 100), None, "it waits for the backend");
        reading.pass(at(100), 0);
        assert_eq!(after(&watched, 101), Some(TooSlow::Reading), "1 s was left");
        drop(reading);

        let mut uploading = turn(TooSlow::Content);
        for second in 0..9 {
            uploading.pass(at(second), 0);
            uploading.take_back(at(second + 1), 1);
        }
        uploading.pass(at(9), 0);
        assert_eq!(after(&watched, 9), None);
        assert_eq!(after(&watched, 11), Some(TooSlow::Content));
        drop(uploading);
        assert_eq!(after(&watched, 11), None);
    }

    #[test]
    fn a_preface_in_crumbs_does_not_make_another_protocol_of_it() {
        let watched = Arc::new(Watched::new());
        watched.did_read(&HTTP2_PREFACE[..3]);
        watched.did_read(&HTTP2_PREFACE[3..]);
        assert!(Turn::new(&watched, TooSlow::Reading, &limits()).is_none());
        watched.speaks_http2();
        assert!(Turn::new(&watched, TooSlow::Reading, &limits()).is_some());
    }

    #[test]
    fn a_request_may_take_long_while_nobody_waits_for_its_client() {
        let watched = Arc::new(Watched::new());
        watched.did_read(b"GET / HTTP/1.1");
        let answering = watched.request();
        assert_eq!(after(&watched, 3600), None);
        drop(answering);
        assert_eq!(after(&watched, 59), None);
    }

    #[test]
    fn a_client_that_sends_or_reads_slower_than_the_least_rate_is_ended() {
        for reads in [false, true] {
            let watched = Arc::new(Watched::new());
            let _answering = watched.request();
            let _uploading = (!reads).then(|| watched.upload());
            let moves = |bytes: usize| {
                if reads {
                    watched.did_write(&Poll::Ready(Ok(bytes)));
                    watched.did_write(&Poll::Pending);
                } else {
                    watched.did_read(&vec![0; bytes]);
                }
            };
            moves(1);
            assert_eq!(after(&watched, 1), None);
            moves(1000);
            assert_eq!(after(&watched, 11), None, "100 bytes a second are enough");
            moves(999);
            let verdict = if reads {
                TooSlow::Reading
            } else {
                TooSlow::Content
            };
            assert_eq!(after(&watched, 21), Some(verdict));
        }
    }
}
