//! Connections: accepted in one place, given to the thread that has the fewest, served there.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::interim_io::InterimIo;
use crate::socket::{BACKLOG, Listener, Others, Place, let_nobody_in};
use crate::watch::WatchedIo;
use crate::worker::{Shared, Worker};

/// How long accepting rests when the system has no descriptor or no memory for a connection.
pub(crate) const ACCEPT_REST: Duration = Duration::from_millis(50);

/// How long an idle connection is left open while draining, for a request that may be on its way already.
pub(crate) const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// How long a handshake under way may take when the last connections are taken in: the round trip to the other end of the world.
/// On loopback it takes none.
const HANDSHAKE: Duration = Duration::from_millis(300);

/// A connection on its way to its thread.
pub(crate) struct Accepted {
    stream: std::net::TcpStream,
    peer: SocketAddr,
    /// None: it came while the drain had begun.
    _permit: Option<OwnedSemaphorePermit>,
    _seat: Seat,
}

/// Where one thread takes connections from.
pub(crate) struct Door {
    pub(crate) connections: UnboundedSender<Accepted>,
    pub(crate) count: Arc<AtomicUsize>,
}

/// Counts as one of its thread's connections, or of the open listeners, until it is dropped.
pub(crate) struct Seat(Arc<AtomicUsize>);

impl Seat {
    pub(crate) fn take(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How far a drain has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DrainStage {
    /// Nothing is accepted yet: another process does. → Serving, Last
    Waiting,
    /// Not at all. → Last
    #[default]
    Serving,
    /// Nothing is accepted, and each connection's next response is its last. → Closing
    Last,
    /// Idle connections are closed.
    Closing,
}

/// Accepts until the drain begins, and then what had come before.
pub(crate) async fn accept(
    listener: Listener,
    place: Arc<Place>,
    doors: Rc<Vec<Door>>,
    permits: Arc<Semaphore>,
    shared: Arc<Shared>,
    mut drain: watch::Receiver<DrainStage>,
) {
    _ = drain.wait_for(|stage| *stage != DrainStage::Waiting).await;
    if !place.is_open() {
        // Whoever accepts here goes on with it.
        place.leave();
        return place.left();
    }
    let listener = match TcpListener::from_std(listener.into_socket()) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "a listening socket cannot be used"),
    };
    while let Some((accepted, permit)) = next(&listener, &permits, &mut drain).await {
        match accepted.and_then(|(stream, peer)| Ok((stream.into_std()?, peer))) {
            Ok((stream, peer)) => give(stream, peer, Some(permit), &doors, &shared),
            Err(error) => {
                shared.counters.accept_errors.add(1);
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
    let others = place.leave();
    match others {
        // It has a descriptor of the same queue, and takes who waits there.
        Others::Successor => return place.left(),
        // Should there be no holder after all, closing the socket would reset them.
        Others::Holder => {}
        // Closing the socket resets what the kernel has queued for it: that is taken in first, and nothing may come after it.
        Others::Nobody => {
            if let Err(error) = let_nobody_in(&SockRef::from(&listener)) {
                tracing::debug!(%error, "a connection that is made in this moment may be reset");
            }
            if !place.address.ip().is_loopback() {
                tokio::time::sleep(HANDSHAKE).await;
            }
        }
    }
    if let Ok(listener) = listener.into_std() {
        // Where others go on listening, those who wait might never end.
        for _ in 0..=BACKLOG {
            let Ok((stream, peer)) = listener.accept() else {
                break;
            };
            if stream.set_nonblocking(true).is_ok() {
                give(stream, peer, None, &doors, &shared);
            }
        }
    }
    place.left();
}

/// The next connection and the right to have it; `None`: the drain has begun.
async fn next(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
    drain: &mut watch::Receiver<DrainStage>,
) -> Option<(io::Result<(TcpStream, SocketAddr)>, OwnedSemaphorePermit)> {
    let accepted = async {
        // While as many connections are open as may be, further ones wait in the kernel's queue.
        let permit = Arc::clone(permits).acquire_owned().await.ok()?;
        Some((listener.accept().await, permit))
    };
    tokio::select! {
        biased;
        accepted = accepted => accepted,
        _ = drain.wait_for(|stage| DrainStage::Serving < *stage) => None,
    }
}

/// Gives a connection to the thread that has the fewest.
fn give(
    stream: std::net::TcpStream,
    peer: SocketAddr,
    permit: Option<OwnedSemaphorePermit>,
    doors: &[Door],
    shared: &Shared,
) {
    shared.counters.connections.add(1);
    let Some(door) = doors
        .iter()
        .min_by_key(|door| door.count.load(Ordering::Relaxed))
    else {
        return;
    };
    let accepted = Accepted {
        stream,
        peer,
        _permit: permit,
        _seat: Seat::take(&door.count),
    };
    // It can only fail while the process ends.
    _ = door.connections.send(accepted);
}

/// Serves the connections of one thread until no more come and all are done.
pub(crate) async fn serve(worker: Rc<Worker>, mut connections: UnboundedReceiver<Accepted>) {
    while let Some(accepted) = connections.recv().await {
        let io = accepted
            .stream
            .set_nodelay(true)
            .and_then(|()| TcpStream::from_std(accepted.stream));
        let Ok(stream) = io else {
            worker.shared.counters.connection_errors.add(1);
            continue;
        };
        let io = WatchedIo::new(stream);
        let watched = Arc::clone(io.watched());
        let guards = (accepted._permit, accepted._seat);
        let connection = connection(Rc::clone(&worker), io, accepted.peer);
        let task = tokio::task::spawn_local(async move {
            let _guards = guards;
            connection.await;
        });
        worker.watch.add(&watched, task.abort_handle());
    }
}

async fn connection(worker: Rc<Worker>, io: WatchedIo<TcpStream>, peer: SocketAddr) {
    let watched = Arc::clone(io.watched());
    let told = Arc::clone(&watched);
    let limits = &worker.shared.limits;
    let mut builder = auto::Builder::new(OnThisThread);
    // Not `pipeline_flush`: with it hyper holds a response back while its read buffer has bytes, so that a client which has begun
    // its next request, or sent rubbish, never gets the answer to the one before; and `interim_io` would wait for a flush as long.
    builder
        .http1()
        .max_buf_size(limits.header_bytes.max(MINIMUM_BUFFER))
        .max_headers(limits.header_count)
        // `watch` sees to that, and knows an idle connection from a slow head.
        .header_read_timeout(None);
    builder
        .http2()
        .max_concurrent_streams(HTTP2_STREAMS)
        .max_pending_accept_reset_streams(HTTP2_RESETS)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .timer(TokioTimer::new());
    let service = {
        let worker = Rc::clone(&worker);
        service_fn(move |request| {
            let started = crate::clock::now();
            let answering = watched.request();
            Rc::clone(&worker).serve(peer, started, answering, request)
        })
    };
    let connection =
        builder.serve_connection_with_upgrades(TokioIo::new(InterimIo::new(io)), service);
    let mut connection = std::pin::pin!(connection);
    let mut is_closing = false;
    let served = poll_fn(|cx| {
        told.wake_with(cx.waker());
        let served = connection.as_mut().poll(cx);
        if served.is_ready() || is_closing || !worker.closing.get() {
            return served;
        }
        is_closing = true;
        connection.as_mut().graceful_shutdown();
        connection.as_mut().poll(cx)
    });
    if let Err(error) = served.await {
        worker.shared.counters.connection_errors.add(1);
        tracing::debug!(%error, %peer, "a connection ended in error");
    }
}

/// hyper wants at least this much for a request's head.
const MINIMUM_BUFFER: usize = 8192;

/// Requests that one HTTP/2 connection may have under way (RFC 9113 §5.1.2 recommends no fewer than 100).
const HTTP2_STREAMS: u32 = 256;

/// Streams that a client may reset before they are accepted; beyond it the connection ends (CVE-2023-44487).
const HTTP2_RESETS: usize = 64;

/// Runs what hyper spawns on the thread that spawned it.
#[derive(Clone, Copy)]
struct OnThisThread;

impl<F: Future<Output = ()> + 'static> Executor<F> for OnThisThread {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
