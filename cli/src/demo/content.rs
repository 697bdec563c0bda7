//! What the demo's responses contain.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Interval, MissedTickBehavior, interval};

/// Events of a stream; with [`PACE`] it lasts five seconds, and ends by itself.
const EVENTS: u32 = 20;

/// The time from one event to the next: slow enough to see them come.
const PACE: Duration = Duration::from_millis(250);

/// The content of a response to a request with a `B`.
pub(crate) enum Content<B> {
    /// It is there.
    Whole(Option<Bytes>),
    /// It comes as time goes by.
    Events(Events),
    /// It is what the request contained.
    Echo(B),
}

impl<B> Content<B> {
    /// All of it.
    pub(super) fn whole(content: impl Into<Bytes>) -> Self {
        Self::Whole(Some(content.into()).filter(|content| !content.is_empty()))
    }

    /// An event stream.
    pub(super) fn events() -> Self {
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self::Events(Events { pace, sent: 0 })
    }
}

/// Numbered events, one by one.
pub(crate) struct Events {
    pace: Interval,
    sent: u32,
}

impl Events {
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.sent == EVENTS {
            return Poll::Ready(None);
        }
        ready!(self.pace.poll_tick(cx));
        self.sent += 1;
        Poll::Ready(Some(
            format!("data: event {} of {EVENTS}\n\n", self.sent).into(),
        ))
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Content<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let data = |data: Option<Bytes>| data.map(|data| Ok(Frame::data(data)));
        match &mut *self {
            Self::Whole(content) => Poll::Ready(data(content.take())),
            Self::Events(events) => events.poll_event(cx).map(data),
            Self::Echo(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(content) => content.is_none(),
            Self::Events(events) => events.sent == EVENTS,
            Self::Echo(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(content) => {
                SizeHint::with_exact(content.as_ref().map_or(0, Bytes::len) as u64)
            }
            Self::Events(_) => SizeHint::default(),
            Self::Echo(body) => body.size_hint(),
        }
    }
}
