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
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::interim_io::InterimIo;
use crate::watch::WatchedIo;
use crate::worker::{Shared, Worker};

/// Connections that the kernel keeps for us until they are accepted; it may cut this down (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

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
    /// Not at all. → Last
    #[default]
    Serving,
    /// Nothing is accepted, and each connection's next response is its last. → Closing
    Last,
    /// Idle connections are closed.
    Closing,
}

/// Binds an address so that as many connections can wait as may come at once.
///
/// # Errors
/// When the address is taken or not ours.
pub(crate) fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        // "[::]" is for those who mean both; IPv4 has an address of its own.
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts until the drain begins, and then what had come before.
pub(crate) async fn accept(
    listener: std::net::TcpListener,
    doors: Rc<Vec<Door>>,
    permits: Arc<Semaphore>,
    shared: Arc<Shared>,
    mut drain: watch::Receiver<DrainStage>,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "a listening socket cannot be used"),
    };
    while let Some((accepted, permit)) = next(&listener, &permits, &mut drain).await {
        match accepted.and_then(|(stream, peer)| Ok((stream.into_std()?, peer))) {
            Ok((stream, peer)) => hand_over(stream, peer, Some(permit), &doors, &shared),
            Err(error) => {
                shared.counters.accept_errors.add(1);
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
    // Closing the socket resets what the kernel has queued for it: that is taken in first, and nothing may come after it.
    if let Err(error) = let_nobody_in(&listener) {
        tracing::debug!(%error, "a connection that is made in this moment may be reset");
    }
    let is_near = (listener.local_addr()).is_ok_and(|address| address.ip().is_loopback());
    if !is_near {
        tokio::time::sleep(HANDSHAKE).await;
    }
    if let Ok(listener) = listener.into_std() {
        while let Ok((stream, peer)) = listener.accept() {
            if stream.set_nonblocking(true).is_ok() {
                hand_over(stream, peer, None, &doors, &shared);
            }
        }
    }
}

/// From here on no connection begins, while handshakes under way go on: the kernel drops what has SYN without ACK. Who sent it
/// tries again a second later, and finds our successor or nobody.
fn let_nobody_in(listener: &TcpListener) -> io::Result<()> {
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    /// Where the flags are in a TCP header, and two of them (RFC 9293 §3.1).
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    SockRef::from(listener).attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
        SockFilter::new(AND, 0, 0, SYN | ACK),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ])
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
        _ = drain.wait_for(|stage| *stage != DrainStage::Serving) => None,
    }
}

/// Gives a connection to the thread that has the fewest.
fn hand_over(
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
