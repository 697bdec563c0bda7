//! The content of a request.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use scale0_wire::Fields;

use crate::BodyError;
use crate::exchange::Exchange;
use crate::fields;

/// The content of a request, as it comes.
///
/// Up to 64 KiB lie ready; of what is longer nothing is sent by the client's frontend until this is polled. So a handler that
/// refuses by the head alone costs nobody an upload, and `Expect: 100-continue` is answered when the handler wants the content.
pub struct Body {
    ready: Bytes,
    rest: Rest,
    /// Bytes not read yet, where `Content-Length` told.
    left: Option<u64>,
}

enum Rest {
    /// → `Coming`
    Unread(Arc<Exchange>),
    /// → `Over`
    Coming(Arc<Exchange>),
    Over,
}

impl Body {
    /// All of it is here.
    pub(crate) const fn whole(content: Bytes) -> Self {
        Self {
            left: Some(content.len() as u64),
            ready: content,
            rest: Rest::Over,
        }
    }

    /// More follows after this.
    pub(crate) const fn streamed(
        first: Bytes,
        length: Option<u64>,
        exchange: Arc<Exchange>,
    ) -> Self {
        Self {
            ready: first,
            rest: Rest::Unread(exchange),
            left: length,
        }
    }

    fn piece(&mut self, piece: Bytes) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(piece.len() as u64);
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn end(&mut self, trailers: &Fields) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.rest = Rest::Over;
        if trailers.is_empty() {
            return Poll::Ready(None);
        }
        let decoded = fields::decode(trailers).map(Frame::trailers);
        Poll::Ready(Some(decoded.ok_or(BodyError::new("malformed-trailers"))))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if !self.ready.is_empty() {
            let ready = std::mem::take(&mut self.ready);
            return self.piece(ready);
        }
        let polled = match &self.rest {
            Rest::Over => return Poll::Ready(None),
            Rest::Unread(exchange) => {
                exchange.start_reading();
                let exchange = Arc::clone(exchange);
                let polled = exchange.poll_input(cx);
                self.rest = Rest::Coming(exchange);
                polled
            }
            Rest::Coming(exchange) => exchange.poll_input(cx),
        };
        match ready!(polled) {
            Ok(Ok(piece)) => self.piece(piece),
            Ok(Err(trailers)) => self.end(&trailers),
            Err(error) => {
                self.rest = Rest::Over;
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ready.is_empty() && matches!(self.rest, Rest::Over)
    }

    fn size_hint(&self) -> SizeHint {
        match (self.left, &self.rest) {
            (Some(left), _) => SizeHint::with_exact(left),
            (None, Rest::Over) => SizeHint::with_exact(self.ready.len() as u64),
            (None, _) => SizeHint::default(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body")
            .field("ready", &self.ready.len())
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}
