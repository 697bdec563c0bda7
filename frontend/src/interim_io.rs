//! Interim heads on their way to an HTTP/1.1 client, beneath hyper: its server has no call for them.
//!
//! Two write to one connection, so their bytes must not mix. That holds by four rules:
//!
//! - Heads are queued only while a request waits for its response. Until its future is ready hyper writes nothing of that
//!   response, and it has one request of a connection under way.
//! - What hyper may still have in its buffer then is the end of the response before (content of a request may end after its
//!   response did) and `100 Continue`. It flushes what is beneath only when that buffer is empty, so a flush is where a head
//!   begins, and nowhere else.
//! - Once a head has begun, all that is queued goes out before anything else is written.
//! - The request's future is not ready before the queue is empty, so the final head comes last.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::watch::{Watched, WatchedIo};

/// Bytes of interim heads that may wait for one client: a hint that comes that late is none.
const BACKLOG: usize = 64 * 1024;

/// The interim heads that a connection still has to write. Only its own thread comes here; see [`Watched`].
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// There are some. Connections without any pay for reading this, and take no lock.
    waiting: AtomicBool,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    heads: Vec<u8>,
    written: usize,
    /// Who waits until all are written.
    waiter: Option<Waker>,
}

impl Outgoing {
    /// Queues a whole head. Returns false if too much is waiting already.
    ///
    /// It goes out when hyper flushes, which it does whenever the connection's task has polled the request's future.
    pub(crate) fn push(&self, head: &[u8]) -> bool {
        let mut queue = self.queue.lock();
        let has_room = queue.heads.len() + head.len() <= BACKLOG;
        if has_room {
            queue.heads.extend_from_slice(head);
            self.waiting.store(true, Relaxed);
        }
        has_room
    }

    /// Waits until there is none.
    pub(crate) async fn written(&self) {
        poll_fn(|cx| {
            if !self.waiting.load(Relaxed) {
                return Poll::Ready(());
            }
            self.queue.lock().waiter = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn has_begun(&self) -> bool {
        self.waiting.load(Relaxed) && 0 < self.queue.lock().written
    }

    fn poll_write_to<T: AsyncWrite + Unpin>(
        &self,
        io: &mut T,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut queue = self.queue.lock();
        while queue.written < queue.heads.len() {
            let left = &queue.heads[queue.written..];
            let written = ready!(Pin::new(&mut *io).poll_write(cx, left))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            queue.written += written;
        }
        let done = std::mem::take(&mut *queue);
        self.waiting.store(false, Relaxed);
        if let Some(waiter) = done.waiter {
            waiter.wake();
        }
        Poll::Ready(Ok(()))
    }
}

/// A connection on which interim heads go out between hyper's bytes.
#[derive(Debug)]
pub(crate) struct InterimIo<T> {
    inner: WatchedIo<T>,
    watched: Arc<Watched>,
}

impl<T> InterimIo<T> {
    pub(crate) fn new(inner: WatchedIo<T>) -> Self {
        let watched = Arc::clone(inner.watched());
        Self { inner, watched }
    }
}

impl<T: AsyncWrite + Unpin> InterimIo<T> {
    fn poll_interims(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watched.interims().poll_write_to(&mut self.inner, cx)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for InterimIo<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for InterimIo<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.watched.interims().has_begun() {
            ready!(self.poll_interims(cx))?;
        }
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.watched.interims().has_begun() {
            ready!(self.poll_interims(cx))?;
        }
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.watched.interims().waiting.load(Relaxed) {
            ready!(self.poll_interims(cx))?;
        }
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::convert::Infallible;
    use std::rc::Rc;
    use std::time::Duration;

    use bytes::Bytes;
    use http::{HeaderValue, Request, Response};
    use http_body_util::{BodyExt, Full};
    use hyper::body::Incoming;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;
    use tokio::task::LocalSet;

    use super::*;

    /// Takes as many bytes as there is room for.
    #[derive(Clone, Default)]
    struct Narrow {
        room: Rc<Cell<usize>>,
        taken: Rc<RefCell<Vec<u8>>>,
    }

    impl AsyncWrite for Narrow {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let length = self.room.get().min(bytes.len());
            if length == 0 {
                return Poll::Pending;
            }
            self.room.set(self.room.get() - length);
            self.taken.borrow_mut().extend_from_slice(&bytes[..length]);
            Poll::Ready(Ok(length))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    struct Stage {
        io: InterimIo<Narrow>,
        connection: Narrow,
        watched: Arc<Watched>,
    }

    impl Stage {
        fn new() -> Self {
            let connection = Narrow::default();
            let io = InterimIo::new(WatchedIo::new(connection.clone()));
            let watched = Arc::clone(&io.watched);
            Self {
                io,
                connection,
                watched,
            }
        }

        fn room(&self, bytes: usize) {
            self.connection.room.set(bytes);
        }

        fn write(&mut self, bytes: &[u8]) -> Option<usize> {
            match Pin::new(&mut self.io).poll_write(&mut Context::from_waker(Waker::noop()), bytes)
            {
                Poll::Ready(written) => Some(written.unwrap()),
                Poll::Pending => None,
            }
        }

        fn flush(&mut self) -> bool {
            Pin::new(&mut self.io)
                .poll_flush(&mut Context::from_waker(Waker::noop()))
                .is_ready()
        }

        fn taken(&self) -> String {
            String::from_utf8(self.connection.taken.take()).unwrap()
        }

        fn all_written(&self) -> bool {
            let mut written = Box::pin(self.watched.interims().written());
            let cx = &mut Context::from_waker(Waker::noop());
            written.as_mut().poll(cx).is_ready()
        }
    }

    #[test]
    fn a_head_begins_behind_what_hyper_has_not_written_yet() {
        let mut stage = Stage::new();
        stage.room(4);
        assert_eq!(stage.write(b"response"), Some(4));
        assert!(stage.watched.interims().push(b"<interim>"));
        stage.room(4);
        assert_eq!(stage.write(b"onse"), Some(4));
        assert_eq!(stage.taken(), "response");

        stage.room(100);
        assert!(!stage.all_written());
        assert!(stage.flush());
        assert!(stage.all_written());
        assert_eq!(stage.taken(), "<interim>");
    }

    #[test]
    fn nothing_gets_between_the_parts_of_a_head_that_has_begun() {
        let mut stage = Stage::new();
        assert!(stage.watched.interims().push(b"<interim>"));
        stage.room(3);
        assert!(!stage.flush());
        assert_eq!(stage.write(b"continue"), None);
        stage.room(2);
        assert_eq!(stage.write(b"continue"), None);
        assert!(stage.watched.interims().push(b"<another>"));
        assert!(!stage.all_written());

        stage.room(100);
        assert_eq!(stage.write(b"continue"), Some(8));
        assert!(stage.all_written());
        assert!(stage.flush());
        assert_eq!(stage.taken(), "<interim><another>continue");
    }

    #[test]
    fn a_client_that_takes_none_has_no_more_than_the_backlog_kept_for_it() {
        let mut stage = Stage::new();
        let half = vec![b'x'; BACKLOG / 2];
        let interims = stage.watched.interims();
        assert!(interims.push(&half));
        assert!(interims.push(&half));
        assert!(!interims.push(b"x"));
        stage.room(BACKLOG);
        assert!(stage.flush());
        assert!(stage.watched.interims().push(b"x"));
    }

    const PADDING: &str = "a field that does not fit into the pipe, so that it is written in parts";

    fn interim(name: &str) -> String {
        format!("HTTP/1.1 103 Early Hints\r\nlink: {name}\r\n\r\n")
    }

    /// What should come back; `100 Continue` is behind so many of the first request's interim heads.
    fn expected(position: usize) -> String {
        let mut first = vec![interim("one"), interim("two")];
        first.insert(position, "HTTP/1.1 100 Continue\r\n\r\n".into());
        let last = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}content-length: 0\r\n\r\n");
        let padded = last(&format!("padding: {PADDING}\r\n"));
        [
            &first.concat(),
            &last(""),
            &padded,
            &interim("three"),
            &last(""),
        ]
        .map(String::as_str)
        .concat()
    }

    fn hint(watched: &Watched, name: &str) {
        assert!(watched.interims().push(interim(name).as_bytes()));
    }

    async fn answer(
        watched: Arc<Watched>,
        third_asked: Rc<Notify>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let mut response = Response::new(Full::default());
        match request.uri().path() {
            "/1" => {
                hint(&watched, "one");
                let content = request.into_body().collect().await.unwrap();
                assert_eq!(content.to_bytes(), "content");
                hint(&watched, "two");
            }
            // It is answered before its content has come: hyper takes in the next request while it still writes this response.
            "/2" => {
                tokio::task::spawn_local(request.into_body().collect());
                let padding = HeaderValue::from_static(PADDING);
                response.headers_mut().insert("padding", padding);
            }
            _ => {
                hint(&watched, "three");
                third_asked.notify_one();
            }
        }
        watched.interims().written().await;
        Ok(response)
    }

    /// Talks to hyper over a connection that takes so many bytes at once. Returns all that came back.
    async fn conversation(width: usize) -> String {
        let (client, server) = tokio::io::duplex(width);
        let io = WatchedIo::new(server);
        let watched = Arc::clone(io.watched());
        let third_asked = Rc::new(Notify::new());
        let asked = Rc::clone(&third_asked);
        let service =
            service_fn(move |request| answer(Arc::clone(&watched), Rc::clone(&asked), request));
        let connection = http1::Builder::new()
            .auto_date_header(false)
            .serve_connection(TokioIo::new(InterimIo::new(io)), service);

        let (mut from_server, mut to_server) = tokio::io::split(client);
        let second_begun = Notify::new();
        let writes = async {
            let first =
                "POST /1 HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 7\r\n\r\ncontent";
            let second = "POST /2 HTTP/1.1\r\ncontent-length: 7\r\n\r\n";
            for request in [first, second] {
                to_server.write_all(request.as_bytes()).await.unwrap();
            }
            second_begun.notified().await;
            let third = "contentGET /3 HTTP/1.1\r\n\r\n";
            to_server.write_all(third.as_bytes()).await.unwrap();
        };
        let reads = async {
            let length = expected(0).len();
            let begun = expected(0).find("padding").unwrap();
            let mut all = vec![0; length];
            from_server.read_exact(&mut all[..begun]).await.unwrap();
            // The second response stays half written until the third request is under way.
            second_begun.notify_one();
            third_asked.notified().await;
            from_server.read_exact(&mut all[begun..]).await.unwrap();
            String::from_utf8(all).unwrap()
        };
        tokio::select! {
            ((), all) = async { tokio::join!(writes, reads) } => all,
            served = connection => panic!("the connection ended: {served:?}"),
        }
    }

    #[tokio::test]
    async fn bytes_of_hyper_and_interim_heads_never_mix_however_narrow_the_connection() {
        for width in 1..64 {
            let local = LocalSet::new();
            let all = local.run_until(conversation(width));
            let all = tokio::time::timeout(Duration::from_secs(30), all)
                .await
                .unwrap_or_else(|_| panic!("{width}: stuck"));
            let is_whole = (0..3).any(|position| all == expected(position));
            assert!(is_whole, "{width}: {all}");
        }
    }
}
