//! The content of a request on its way to the application.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use crate::error::BoxError;

/// How long content waits for `100 Continue` before it is sent all the same: RFC 9110 §10.1.1 asks not to wait for ever, as
/// many applications never say it. The same second that curl waits.
const GO_AHEAD_PATIENCE: Duration = Duration::from_secs(1);

/// What can be the content of a request to the application: any body of [`Bytes`].
pub trait RequestBody:
    Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static
{
}

impl<B> RequestBody for B where B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static
{}

/// The content of one request.
pub(crate) enum Upload<B> {
    /// None, or all of it at hand: can be sent again.
    Whole(Option<Bytes>),
    /// As it comes, once.
    Streaming(Streaming<B>),
}

/// Content that is sent as it comes.
pub(crate) struct Streaming<B> {
    body: B,
    stage: Stage,
    /// How long it still waits for `100 Continue`.
    patience: Option<Pin<Box<Sleep>>>,
}

/// Where content that is sent as it comes is: its connection's owner wants to know.
#[derive(Clone, Debug)]
pub(crate) struct Stage(Arc<AtomicU8>);

/// Waits for `100 Continue`. → `OPEN` | `WITHHELD` | `OVER`
const WAITING: u8 = 0;
/// On its way. → `OVER`
const OPEN: u8 = 1;
/// Not wanted: the answer came without it.
const WITHHELD: u8 = 2;
/// All sent, or given up.
const OVER: u8 = 3;

impl Stage {
    fn starting_at(stage: u8) -> Self {
        Self(Arc::new(AtomicU8::new(stage)))
    }

    /// The application has asked for the content.
    pub(crate) fn go_ahead(&self) {
        self.leave_waiting(OPEN);
    }

    /// The application has answered. Whether content is still on its way to it.
    pub(crate) fn is_running_after_the_answer(&self) -> bool {
        self.leave_waiting(WITHHELD);
        self.is(OPEN)
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.is(WAITING)
    }

    fn is(&self, stage: u8) -> bool {
        self.0.load(Ordering::Acquire) == stage
    }

    fn leave_waiting(&self, next: u8) {
        // Failing means that it was not waiting any more, which is as well.
        let _ = self
            .0
            .compare_exchange(WAITING, next, Ordering::AcqRel, Ordering::Acquire);
    }
}

impl<B> Upload<B> {
    /// Content to be sent as it comes; with `go_ahead` not before the application asks for it.
    pub(crate) fn streaming(body: B, go_ahead: bool) -> (Self, Stage) {
        let stage = Stage::starting_at(if go_ahead { WAITING } else { OPEN });
        let patience = go_ahead.then(|| Box::pin(tokio::time::sleep(GO_AHEAD_PATIENCE)));
        let streaming = Streaming {
            body,
            stage: stage.clone(),
            patience,
        };
        (Self::Streaming(streaming), stage)
    }
}

impl<B> Streaming<B> {
    fn poll_go_ahead(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.stage.is(WITHHELD) {
            return Poll::Pending;
        }
        if let Some(patience) = &mut self.patience {
            if self.stage.is(WAITING) {
                ready!(patience.as_mut().poll(cx));
                self.stage.go_ahead();
            }
            self.patience = None;
        }
        Poll::Ready(())
    }
}

/// hyper lets go of content when it needs no more of it, whether it has ended or not.
impl<B> Drop for Streaming<B> {
    fn drop(&mut self) {
        self.stage.0.store(OVER, Ordering::Release);
    }
}

impl<B: RequestBody> Body for Upload<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Whole(content) => Poll::Ready(content.take().map(Frame::data).map(Ok)),
            Self::Streaming(streaming) => {
                ready!(streaming.poll_go_ahead(cx));
                let frame = ready!(Pin::new(&mut streaming.body).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(content) => content.is_none(),
            Self::Streaming(streaming) => streaming.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(content) => {
                SizeHint::with_exact(content.as_ref().map_or(0, |content| content.len() as u64))
            }
            Self::Streaming(streaming) => streaming.body.size_hint(),
        }
    }
}
