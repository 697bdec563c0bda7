//! The content of a response on its way from the application.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::task::JoinHandle;

use crate::connection::Connection;
use crate::error::BridgeError;
use crate::forward::Shared;
use crate::origin::Seat;
use crate::upload::RequestBody;

/// The content of one response, read from the application as fast as this is polled.
///
/// Content that breaks off ends with an error, never early. Dropping it closes the connection, so that the application learns
/// that nobody reads on; read to its end, it gives the connection back.
pub struct Content<B: RequestBody> {
    incoming: Option<Incoming>,
    source: Source<B>,
    /// Where the content is from, until it has ended.
    seat: Option<Seat<Box<Connection<B>>>>,
    /// How long the connection may be kept afterwards, if at all.
    keep: Option<Duration>,
    shared: Arc<Shared<B>>,
}

/// Who moves the bytes.
pub(crate) enum Source<B: RequestBody> {
    /// Nobody: all of it is here.
    Done,
    /// The reader, as it reads.
    Reader(Box<Connection<B>>),
    /// A task, because the request's content is still on its way and must not wait for the reader of the response.
    Task { _until_dropped: AbortOnDrop },
}

impl<B: RequestBody> Source<B> {
    pub(crate) fn task(mut connection: Box<Connection<B>>) -> Self {
        let task = tokio::spawn(std::future::poll_fn(move |cx| connection.poll(cx)));
        Self::Task {
            _until_dropped: AbortOnDrop(task),
        }
    }
}

/// A task that ends with its owner.
pub(crate) struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<B: RequestBody> Content<B> {
    pub(crate) fn empty(shared: Arc<Shared<B>>) -> Self {
        Self {
            incoming: None,
            source: Source::Done,
            seat: None,
            keep: None,
            shared,
        }
    }

    pub(crate) fn new(
        incoming: Incoming,
        source: Source<B>,
        seat: Seat<Box<Connection<B>>>,
        keep: Option<Duration>,
        shared: Arc<Shared<B>>,
    ) -> Self {
        Self {
            incoming: Some(incoming),
            source,
            seat: Some(seat),
            keep,
            shared,
        }
    }

    fn poll_incoming(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(None);
        };
        let mut incoming = Pin::new(incoming);
        let Source::Reader(connection) = &mut self.source else {
            return incoming.poll_frame(cx);
        };
        // Only the connection brings more, and it is polled here: nobody need wake us but the socket.
        let mut silent = Context::from_waker(Waker::noop());
        if let Poll::Ready(frame) = incoming.as_mut().poll_frame(&mut silent) {
            return Poll::Ready(frame);
        }
        if connection.poll(cx).is_ready() {
            // Going, it turns what is missing into an error.
            self.source = Source::Done;
        }
        incoming.poll_frame(&mut silent)
    }

    /// All of it has been read.
    fn finish(&mut self) {
        self.incoming = None;
        let source = std::mem::replace(&mut self.source, Source::Done);
        if let (Source::Reader(connection), Some(seat)) = (source, self.seat.take()) {
            self.shared.give_back(connection, &seat, self.keep);
        }
    }

    fn fail(&mut self, error: hyper::Error) -> BridgeError {
        self.incoming = None;
        self.source = Source::Done;
        self.shared.counters.failed_in_content.add_one();
        match self.seat.take() {
            Some(seat) => BridgeError::failed(&seat.upstream, error),
            None => BridgeError::ContentLost(error.into()),
        }
    }
}

impl<B: RequestBody> Body for Content<B> {
    type Data = Bytes;
    type Error = BridgeError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BridgeError>>> {
        let this = self.get_mut();
        let frame = match ready!(this.poll_incoming(cx)) {
            Some(Ok(frame)) if this.is_end_stream() => {
                this.finish();
                Some(Ok(frame))
            }
            Some(Ok(frame)) => Some(Ok(frame)),
            Some(Err(error)) => Some(Err(this.fail(error))),
            None => {
                this.finish();
                None
            }
        };
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let nothing = SizeHint::with_exact(0);
        self.incoming.as_ref().map_or(nothing, Body::size_hint)
    }
}
