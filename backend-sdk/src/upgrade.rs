//! Taking over the connection to the client: WebSockets and whatever else begins with 101.
//!
//! It works as `hyper::upgrade` does: ask for the tunnel with [`on`] while handling the request, answer 101, and the future
//! resolves with bytes in both directions. It is not hyper's own type, which only hyper can make: code that asks for that, such as
//! axum's `WebSocketUpgrade`, does not find it. Run a WebSocket library over [`Upgraded`], or put the application behind
//! `scale0 bridge`.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Request;
use scale0_wire::{End, Fields, limits};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use crate::RequestContext;
use crate::exchange::Reply;

/// Asks for the tunnel of this request, should it be answered with 101.
pub fn on<B>(request: &Request<B>) -> OnUpgrade {
    let context = request.extensions().get::<RequestContext>();
    OnUpgrade(context.map(|context| context.exchange().want_upgrade()))
}

/// Resolves with the tunnel once the handler has answered 101.
pub struct OnUpgrade(Option<oneshot::Receiver<Reply>>);

/// There is no tunnel: the handler answered something else or was cancelled, or the request did not come through Scale0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request was not answered with 101 Switching Protocols")]
pub struct NotUpgraded;

impl Future for OnUpgrade {
    type Output = Result<Upgraded, NotUpgraded>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(receiver) = &mut self.0 else {
            return Poll::Ready(Err(NotUpgraded));
        };
        let reply = ready!(Pin::new(receiver).poll(cx)).map_err(|_| NotUpgraded)?;
        self.0 = None;
        Poll::Ready(Ok(Upgraded {
            reply,
            unread: Bytes::new(),
            is_reading: false,
        }))
    }
}

impl fmt::Debug for OnUpgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OnUpgrade").finish_non_exhaustive()
    }
}

/// Bytes to and from the client, under flow control.
///
/// Shutting it down, or dropping it, ends both directions: the protocol has no half-closed tunnels. What was not read by then is an
/// error to read, not a clean end.
pub struct Upgraded {
    reply: Reply,
    unread: Bytes,
    is_reading: bool,
}

impl AsyncRead for Upgraded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            let exchange = self.reply.exchange();
            if !self.is_reading {
                exchange.start_reading();
            }
            let polled = exchange.poll_input(cx);
            self.is_reading = true;
            match ready!(polled) {
                Ok(Ok(piece)) => self.unread = piece,
                Ok(Err(_trailers)) => return Poll::Ready(Ok(())),
                Err(error) => {
                    let error = io::Error::new(io::ErrorKind::ConnectionReset, error);
                    return Poll::Ready(Err(error));
                }
            }
        }
        let length = self.unread.len().min(buf.remaining());
        buf.put_slice(&self.unread.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.reply.poll_room(cx)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        let length = buf.len().min(limits::CONTENT);
        self.reply.data(Bytes::copy_from_slice(&buf[..length]));
        Poll::Ready(Ok(length))
    }

    /// What was written is on its way already.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.reply.end(&End::Complete(Fields::default()));
        Poll::Ready(Ok(()))
    }
}

impl Drop for Upgraded {
    fn drop(&mut self) {
        self.reply.end(&End::Complete(Fields::default()));
    }
}

impl fmt::Debug for Upgraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgraded")
            .field("unread", &self.unread.len())
            .finish_non_exhaustive()
    }
}
