//! Content on its way to a client, and the account kept of it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use scale0_cache::StoredResponse;

use crate::account::Account;
use crate::clock;
use crate::conversation::Conversation;
use crate::fields;
use crate::flight::FlightBody;
use crate::session::Delivery;

/// The content broke off: the connection is closed so that nobody takes what came for all of it.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the content broke off: {0}")]
pub(crate) struct BrokenOff(pub(crate) &'static str);

/// What comes next of some content, and whether it is the last.
pub(crate) type Piece = (Option<Result<Frame<Bytes>, BrokenOff>>, bool);

/// Where content comes from.
pub(crate) enum Content {
    /// There is none, or no more.
    Nothing,
    /// All of it, in one piece.
    Whole(Bytes),
    /// A stored response; `next` is the block to come.
    Stored {
        response: Arc<StoredResponse>,
        next: usize,
    },
    /// Straight from a backend.
    Direct(Box<Conversation>),
    /// From a flight, shared with others.
    Flight(Box<FlightBody>),
}

/// A response's content.
pub(crate) struct ResponseBody {
    content: Content,
    /// How much is left, where that is known.
    left: Option<u64>,
    account: Account,
}

impl ResponseBody {
    /// `length` is how much content there will be, where that is known; that of a HEAD is none.
    pub(crate) fn new(content: Content, length: Option<u64>, mut account: Account) -> Self {
        if matches!(content, Content::Nothing) {
            account.completed();
        }
        let left = match &content {
            Content::Nothing => Some(0),
            Content::Whole(bytes) => Some(bytes.len() as u64),
            Content::Stored { response, .. } => Some(response.length()),
            Content::Direct(_) | Content::Flight(_) => length,
        };
        Self {
            content,
            left,
            account,
        }
    }

    fn poll_content(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let (frame, is_last) = match &mut self.content {
            Content::Nothing => (None, true),
            Content::Whole(bytes) => (Some(Ok(Frame::data(std::mem::take(bytes)))), true),
            Content::Stored { response, next } => {
                let block = response.blocks().get(*next).cloned();
                *next += 1;
                let is_last = response.blocks().len() <= *next && response.trailers().is_none();
                match block {
                    Some(block) => (Some(Ok(Frame::data(block))), is_last),
                    None => (
                        response
                            .trailers()
                            .cloned()
                            .map(|trailers| Ok(Frame::trailers(trailers))),
                        true,
                    ),
                }
            }
            Content::Direct(conversation) => {
                let delivery = ready!(conversation.poll_next(cx));
                direct(conversation, delivery)
            }
            Content::Flight(flight) => ready!(flight.poll_frame(cx, clock::now())),
        };
        if is_last {
            self.content = Content::Nothing;
        }
        Poll::Ready(frame)
    }
}

/// What a delivery is to the client, and whether it is the last.
fn direct(conversation: &Conversation, delivery: Delivery) -> Piece {
    match delivery {
        Delivery::Content(content) => {
            conversation.consume(content.len());
            (Some(Ok(Frame::data(content))), false)
        }
        Delivery::End(fields) => (
            fields::trailers(&fields).map(|trailers| Ok(Frame::trailers(trailers))),
            true,
        ),
        Delivery::Failed(failure) => (Some(Err(BrokenOff(failure.reason.name()))), true),
        Delivery::Head { .. } | Delivery::Interim(_) | Delivery::Ready => {
            (Some(Err(BrokenOff("protocol-error"))), true)
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let frame = ready!(self.poll_content(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    let bytes = data.len() as u64;
                    self.account.sent(bytes);
                    self.left = self.left.map(|left| left.saturating_sub(bytes));
                }
                // A connection that knows the length does not ask for more once it has it.
                if matches!(self.content, Content::Nothing) || self.left == Some(0) {
                    self.account.completed();
                }
            }
            Some(Err(error)) => self.account.broke_off(error.0),
            None => self.account.completed(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, Content::Nothing)
    }

    fn size_hint(&self) -> SizeHint {
        match self.left {
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
        }
    }
}

/// The length that a head states for its content.
pub(crate) fn stated_length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(http::header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}
