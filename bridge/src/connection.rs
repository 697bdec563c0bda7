//! One HTTP/1.1 connection to the application, driven by whoever uses it.
//!
//! hyper's connection is a future that its users usually give a task of its own. Here the request's future polls it, then the
//! response's content does: while it is idle nobody does. So a request costs no wake-up of another task and no message
//! between the two, reading stops by itself when the reader stops, and dropping the request closes the connection.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;

use crate::config::Upstream;
use crate::stream::Stream;
use crate::upload::{RequestBody, Upload};

/// The longest response head, and the most that is read at a time: content arrives in pieces that fit one message to the
/// broker.
pub const HEAD_BYTES: usize = 64 * 1024;

type Http<B> = http1::Connection<TokioIo<Stream>, Upload<B>>;

/// A connection which takes one request at a time.
pub(crate) struct Connection<B: RequestBody> {
    sender: SendRequest<Upload<B>>,
    http: Option<Http<B>>,
    is_over: bool,
}

/// What became of a request that got no response.
pub(crate) enum Lost<B> {
    /// The connection had been closed; the application has seen nothing of the request.
    Unsent(Box<Request<Upload<B>>>),
    /// It was sent, at least in part.
    Sent {
        /// What went wrong.
        error: hyper::Error,
        /// Whether nothing at all came back.
        silent: bool,
    },
}

impl<B: RequestBody> Connection<B> {
    /// Connects within `timeout`.
    pub(crate) async fn open(upstream: &Upstream, timeout: Duration) -> io::Result<Box<Self>> {
        let stream = Stream::connect(upstream, timeout).await?;
        let handshake = http1::Builder::new()
            .max_buf_size(HEAD_BYTES)
            .handshake(TokioIo::new(stream));
        let (sender, http) = handshake.await.map_err(io::Error::other)?;
        // Boxed: it moves between request, content and pool, and is large.
        Ok(Box::new(Self {
            sender,
            http: Some(http),
            is_over: false,
        }))
    }

    /// Sends a request and waits for the head of its response.
    ///
    /// A connection that the application has closed in the meantime is noticed before anything is written.
    ///
    /// # Cancel safety
    /// Dropped halfway, the connection is of no further use.
    pub(crate) async fn exchange(
        &mut self,
        request: Request<Upload<B>>,
    ) -> Result<Response<Incoming>, Lost<B>> {
        let mut response = pin!(self.sender.try_send_request(request));
        let outcome = std::future::poll_fn(|cx| {
            // Only the connection can bring the response, and it is polled right before: nobody need wake us a second time.
            let mut silent = Context::from_waker(Waker::noop());
            let drive = Self::drive(&mut self.http, &mut self.is_over, cx);
            match response.as_mut().poll(&mut silent) {
                Poll::Pending if drive.is_ready() => {
                    // A request that was not taken is given back when the connection goes.
                    self.http = None;
                    response.as_mut().poll(&mut silent)
                }
                polled => polled,
            }
        });
        let mut error = match outcome.await {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        if let Some(request) = error.take_message() {
            return Err(Lost::Unsent(Box::new(request)));
        }
        let unread = self.http.take().map(|http| http.into_parts().read_buf);
        Err(Lost::Sent {
            silent: unread.is_none_or(|unread| unread.is_empty()),
            error: error.into_error(),
        })
    }

    /// Moves bytes both ways. Ready: the connection is over.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Self::drive(&mut self.http, &mut self.is_over, cx)
    }

    fn drive(http: &mut Option<Http<B>>, is_over: &mut bool, cx: &mut Context<'_>) -> Poll<()> {
        if !*is_over {
            let Some(http) = http else {
                return Poll::Ready(());
            };
            // An error goes to whoever waits for the response or its content; without either it only ends the connection.
            *is_over = Pin::new(http).poll(cx).is_ready();
        }
        if *is_over {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Whether it waits for the next request. It may have been closed since it was last polled.
    pub(crate) fn is_idle(&self) -> bool {
        !self.is_over && self.sender.is_ready()
    }

    /// After a 101: the stream, and what was already read of the other protocol. `None` while the request is still being sent.
    pub(crate) fn into_stream(self) -> Option<(Stream, Bytes)> {
        let parts = self.http.filter(|_| self.is_over)?.into_parts();
        Some((parts.io.into_inner(), parts.read_buf))
    }
}
