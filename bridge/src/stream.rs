//! A byte stream to the application, over TCP or a Unix socket.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::config::Upstream;

/// A connected stream whose broken write side does not hide what can still be read.
///
/// An application that answers before it has read the whole request, and closes, breaks our writes while its answer already
/// waits to be read. So a write that fails for that reason counts as done: whether the request failed is for the read side
/// to say.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: Socket,
    write_broken: bool,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Connects within `timeout`.
    pub(crate) async fn connect(upstream: &Upstream, timeout: Duration) -> io::Result<Self> {
        let connect = async {
            match upstream {
                Upstream::Tcp { host, port } => {
                    let tcp = TcpStream::connect((host.as_str(), *port)).await?;
                    tcp.set_nodelay(true)?;
                    Ok(Socket::Tcp(tcp))
                }
                Upstream::Unix(path) => UnixStream::connect(path).await.map(Socket::Unix),
            }
        };
        let socket = match tokio::time::timeout(timeout, connect).await {
            Ok(connected) => connected?,
            Err(_elapsed) => return Err(ErrorKind::TimedOut.into()),
        };
        Ok(Self {
            socket,
            write_broken: false,
        })
    }

    /// Whether this failure of a write leaves the read side worth reading.
    fn forgives(&mut self, error: &io::Error) -> bool {
        self.write_broken = matches!(
            error.kind(),
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
        );
        self.write_broken
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            Socket::Tcp(tcp) => Pin::new(tcp).poll_read(cx, to),
            Socket::Unix(unix) => Pin::new(unix).poll_read(cx, to),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(from)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let all = || from.iter().map(|slice| slice.len()).sum();
        if this.write_broken {
            return Poll::Ready(Ok(all()));
        }
        let written = match &mut this.socket {
            Socket::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(cx, from),
            Socket::Unix(unix) => Pin::new(unix).poll_write_vectored(cx, from),
        };
        match ready!(written) {
            Err(error) if this.forgives(&error) => Poll::Ready(Ok(all())),
            written => Poll::Ready(written),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Neither kind of socket buffers in this process.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            Socket::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Socket::Unix(unix) => Pin::new(unix).poll_shutdown(cx),
        }
    }
}
