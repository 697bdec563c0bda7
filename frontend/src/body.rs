//! Content on its way to a client, and the account kept of it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use scale0_cache::StoredBody;

use crate::account::Account;
use crate::clock;
use crate::conversation::Conversation;
use crate::fields;
use crate::flight::{Cut, FlightBody};
use crate::session::Delivery;
use crate::watch::Turn;

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
    /// A stored response, or a part of it.
    Stored { body: StoredBody, cut: Cut },
    /// Straight from a backend.
    Direct(Box<Conversation>),
    /// From a flight, shared with others.
    Flight(Box<FlightBody>),
}

/// A response's content.
pub(crate) struct ResponseBody {
    content: Content,
    paced: Option<Box<Paced>>,
    /// How much is left, where that is known.
    left: Option<u64>,
    account: Account,
}

/// Of a stream that its client can keep from moving while others of the connection move.
struct Paced {
    turn: Turn,
    /// What does not go out in one piece.
    rest: Bytes,
}

/// HTTP/2 is given pieces of this length: what a stream whose client does not read has in hyper's buffers is one of them. It is
/// the length of a frame, unless the client allows longer ones (RFC 9113 §6.5.2).
const HTTP2_PIECE: usize = 16 * 1024;

impl ResponseBody {
    /// `length` is how much content there will be, where that is known; that of a HEAD is none.
    pub(crate) fn new(content: Content, length: Option<u64>, mut account: Account) -> Self {
        let left = match &content {
            Content::Nothing => Some(0),
            Content::Whole(bytes) => Some(bytes.len() as u64),
            Content::Stored { body, cut } => Some(cut.length_of(body.response().length())),
            Content::Direct(_) | Content::Flight(_) => length,
        };
        if left == Some(0) {
            // Nobody asks for content of no length.
            account.completed();
        }
        let paced = account.turn().map(|mut turn| {
            // hyper asks for content once the client has room for some.
            turn.pass(clock::now(), 0);
            let rest = Bytes::new();
            Box::new(Paced { turn, rest })
        });
        Self {
            content,
            paced,
            left,
            account,
        }
    }

    /// What comes next, in pieces that the connection is fit for.
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let Some(paced) = &mut self.paced else {
            return self.poll_content(cx);
        };
        paced.turn.take_back(clock::now(), 0);
        let mut rest = std::mem::take(&mut paced.rest);
        if rest.is_empty() {
            rest = match ready!(self.poll_content(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                other => return Poll::Ready(other),
            };
        }
        let piece = rest.split_to(rest.len().min(HTTP2_PIECE));
        if let Some(paced) = &mut self.paced {
            paced.turn.pass(clock::now(), piece.len());
            paced.rest = rest;
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn poll_content(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let (frame, is_last) = match &mut self.content {
            Content::Nothing => (None, true),
            Content::Whole(bytes) => (Some(Ok(Frame::data(std::mem::take(bytes)))), true),
            Content::Stored { body, cut } => {
                let block = loop {
                    let Some(block) = ready!(body.poll_block(cx)) else {
                        break None;
                    };
                    match block.map(|block| cut.take(block)) {
                        Ok(block) if block.is_empty() && !cut.is_over() => {}
                        block => break Some(block),
                    }
                };
                let trailers = body.response().trailers().filter(|_| cut.is_whole());
                match block {
                    Some(Ok(block)) => {
                        let is_last = cut.is_over() || (body.is_over() && trailers.is_none());
                        (Some(Ok(Frame::data(block))), is_last)
                    }
                    Some(Err(_damaged)) => (Some(Err(BrokenOff("damaged"))), true),
                    None => (trailers.map(|it| Ok(Frame::trailers(it.clone()))), true),
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
        Delivery::Head { .. } | Delivery::Interim(_) | Delivery::Told(_) | Delivery::Ready => {
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
        let frame = ready!(self.poll_piece(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    let bytes = data.len() as u64;
                    self.account.sent(bytes);
                    self.left = self.left.map(|left| left.saturating_sub(bytes));
                }
                // A connection that knows the length does not ask for more once it has it.
                if self.is_end_stream() || self.left == Some(0) {
                    self.account.completed();
                }
            }
            Some(Err(error)) => self.account.broke_off(error.0),
            None => self.account.completed(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let has_rest = (self.paced.as_ref()).is_some_and(|paced| !paced.rest.is_empty());
        matches!(self.content, Content::Nothing) && !has_rest
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
