//! A request and its response under way at once: the client's content goes up as the backend asks for it, while what comes
//! back is polled.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use scale0_wire::{End, Fields, Reason, limits};

use crate::clock;
use crate::config::Limits;
use crate::dispatch::Stream;
use crate::session::{Delivery, Failure};
use crate::watch::{Answering, TooSlow, Turn, Uploading, Watched};

/// Content of a request that did not fit into its first message.
pub(crate) struct Upload {
    body: Incoming,
    /// What was read and not handed over yet.
    pending: Bytes,
    /// Bytes that may still come.
    allowed: u64,
    turn: Option<Turn>,
}

/// Why a request's content could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadError {
    /// The client broke off, or what it sent is no content.
    ClientGone,
    /// More than `body_bytes`.
    TooLarge,
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        let reason = match error {
            ReadError::ClientGone => Reason::ClientGone,
            ReadError::TooLarge => Reason::ContentTooLarge,
        };
        Self {
            reason,
            started: true,
            retry_after_ms: 0,
            detail: String::new(),
        }
    }
}

/// What can be read of a request's content before it is sent: all of it if it is short, else its beginning.
///
/// Content that is known to be long, or that the client holds back until it is asked for, is not waited for.
pub(crate) async fn read_ahead(
    mut body: Incoming,
    wait: bool,
    most: u64,
    limits: &Limits,
    answering: &Answering,
) -> Result<(Bytes, Option<Upload>), ReadError> {
    if most < body.size_hint().lower() {
        return Err(ReadError::TooLarge);
    }
    if body.is_end_stream() {
        return Ok((Bytes::new(), None));
    }
    let mut turn = Turn::new(answering.watched(), TooSlow::Content, limits);
    let long = (limits::REPEATABLE_CONTENT as u64) < body.size_hint().lower();
    if !wait || long {
        return Ok((
            Bytes::new(),
            Some(Upload {
                body,
                pending: Bytes::new(),
                allowed: most,
                turn,
            }),
        ));
    }
    let _uploading = answering.watched().upload();
    let mut first = Bytes::new();
    let mut more = BytesMut::new();
    let mut allowed = most;
    let mut has_trailers = false;
    loop {
        if let Some(turn) = &mut turn {
            turn.pass(clock::now(), 0);
        }
        let Some(frame) = body.frame().await else {
            break;
        };
        let frame = frame.map_err(|_| ReadError::ClientGone)?;
        // Trailers of a request this short say nothing a backend waits for.
        let Ok(data) = frame.into_data() else {
            has_trailers = true;
            continue;
        };
        if let Some(turn) = &mut turn {
            turn.take_back(clock::now(), data.len());
        }
        allowed = allowed
            .checked_sub(data.len() as u64)
            .ok_or(ReadError::TooLarge)?;
        if limits::REPEATABLE_CONTENT < first.len() + more.len() + data.len() {
            let content = joined(first, &more);
            return Ok((
                content,
                Some(Upload {
                    body,
                    pending: data,
                    allowed,
                    turn,
                }),
            ));
        }
        if first.is_empty() {
            first = data;
        } else {
            more.extend_from_slice(&data);
        }
    }
    if !has_trailers {
        answering.watched().set_last(false);
    }
    Ok((joined(first, &more), None))
}

/// One piece is not copied.
fn joined(first: Bytes, more: &BytesMut) -> Bytes {
    if more.is_empty() {
        return first;
    }
    let mut whole = BytesMut::with_capacity(first.len() + more.len());
    whole.extend_from_slice(&first);
    whole.extend_from_slice(more);
    whole.freeze()
}

/// A stream and the request content that still has to go up.
pub(crate) struct Conversation {
    stream: Stream,
    upload: Option<Upload>,
    /// The backend takes the next piece.
    ready: bool,
    /// While the client's next piece is waited for.
    uploading: Option<Uploading>,
    watched: Arc<Watched>,
    /// Content that came with the response's head.
    first: Bytes,
}

impl Conversation {
    pub(crate) fn new(stream: Stream, upload: Option<Upload>, watched: &Arc<Watched>) -> Self {
        Self {
            stream,
            upload,
            ready: false,
            uploading: None,
            watched: Arc::clone(watched),
            first: Bytes::new(),
        }
    }

    /// The same, after content that came with the response's head.
    pub(crate) fn after(self, first: Bytes) -> Self {
        Self { first, ..self }
    }

    /// What comes back next.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Delivery> {
        if !self.first.is_empty() {
            return Poll::Ready(Delivery::Content(std::mem::take(&mut self.first)));
        }
        while self.upload.is_some() && (self.ready || self.stream.poll_ready(cx).is_ready()) {
            self.ready = true;
            match self.poll_upload(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    let failure = Failure::from(error);
                    self.stream.cancel(failure.reason);
                    return Poll::Ready(Delivery::Failed(failure));
                }
                Poll::Pending => break,
            }
        }
        self.stream.poll_next(cx)
    }

    pub(crate) async fn next(&mut self) -> Delivery {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    pub(crate) fn consume(&self, bytes: usize) {
        self.stream.consume(bytes);
    }

    /// The stream alone: it is a tunnel from here on.
    pub(crate) fn into_stream(self) -> Stream {
        self.stream
    }

    /// Hands the next piece of content over.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ReadError>> {
        let Some(upload) = &mut self.upload else {
            return Poll::Ready(Ok(()));
        };
        if !upload.pending.is_empty() {
            self.ready = false;
            self.stream.upload(std::mem::take(&mut upload.pending));
            return Poll::Ready(Ok(()));
        }
        if self.uploading.is_none() {
            self.uploading = Some(self.watched.upload());
            if let Some(turn) = &mut upload.turn {
                turn.pass(clock::now(), 0);
            }
        }
        let end = match std::task::ready!(Pin::new(&mut upload.body).poll_frame(cx))
            .map(|frame| frame.map(Frame::into_data))
        {
            Some(Ok(Ok(data))) => {
                self.uploading = None;
                if let Some(turn) = &mut upload.turn {
                    turn.take_back(clock::now(), data.len());
                }
                upload.allowed = upload
                    .allowed
                    .checked_sub(data.len() as u64)
                    .ok_or(ReadError::TooLarge)?;
                if !data.is_empty() {
                    self.ready = false;
                    self.stream.upload(data);
                }
                return Poll::Ready(Ok(()));
            }
            Some(Ok(Err(trailers))) => {
                // What frames, routes or authorises does not come late.
                let trailers = trailers.into_trailers().unwrap_or_default();
                let kept = trailers
                    .iter()
                    .filter(|(name, _)| crate::fields::may_trail(name));
                End::Complete(
                    Fields::new(
                        kept.map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())),
                    )
                    .unwrap_or_default(),
                )
            }
            None => {
                self.watched.set_last(false);
                End::Complete(Fields::default())
            }
            Some(Err(_)) => {
                self.end_upload(&End::Failed {
                    reason: Reason::ClientGone,
                    detail: String::new(),
                });
                return Poll::Ready(Err(ReadError::ClientGone));
            }
        };
        self.end_upload(&end);
        Poll::Ready(Ok(()))
    }

    fn end_upload(&mut self, end: &End) {
        self.upload = None;
        self.uploading = None;
        self.ready = false;
        self.stream.end_upload(end);
    }
}
