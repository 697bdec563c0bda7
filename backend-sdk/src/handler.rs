//! One request in the hands of a service: the task that calls it and says what it answers.

use std::any::Any;
use std::fmt::Display;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::FutureExt;
use http::response::Parts;
use http::{Method, Request, Response, StatusCode, header};
use http_body::{Body as HttpBody, Frame};
use scale0_wire::{End, Fields, Message, Reason, Reject, ResponseHead};
use tower_service::Service;

use crate::exchange::{Closed, Reply};
use crate::session::Shape;
use crate::{Body, Counters, fields, request};

/// Tells a client, and whoever looks at its traffic, why the SDK answered in the place of the handler.
const REASON: &[u8] = b"x-scale0-reason";

/// In a response's extensions: the request was not begun, and another backend may have it, whatever its method is. The response
/// itself is dropped.
///
/// For gateways whose application refuses connections. A handler that has had any effect must not say this: the request will be
/// executed again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NotStarted {
    /// When it is worth asking this backend again, if that is known.
    pub retry_after: Option<Duration>,
}

/// In a response's extensions: the request was begun, and whoever should answer it broke off before. It is executed again where
/// that is safe, and failed otherwise. The response itself is dropped.
///
/// For gateways whose application closes a connection instead of answering.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unanswered;

/// What all handlers of a backend have in common.
pub(crate) struct Shared {
    pub(crate) node: String,
    pub(crate) counters: Arc<Counters>,
}

/// Why the service gave no complete response.
enum Failure {
    /// The service said so.
    Failed(String),
    /// The response's body broke off.
    Broken(String),
    /// The response's head is longer than any may be.
    HeadTooLarge,
    /// 101 without anybody to take the tunnel, or another interim status as the final one.
    NoResponse,
    /// Nobody listens any more.
    Closed,
}

impl From<Closed> for Failure {
    fn from(_: Closed) -> Self {
        Self::Closed
    }
}

/// Calls the service and says what it answers, whatever that is: the request is always answered.
pub(crate) async fn handle<S, B>(
    service: S,
    message: Message,
    mut reply: Reply,
    shared: Arc<Shared>,
) where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Display,
    B: HttpBody,
    B::Error: Display,
{
    let Some(request) = request::build(message, reply.exchange()) else {
        shared.counters.malformed.add();
        fail(
            &mut reply,
            Reason::ProtocolError,
            "the request's head is malformed",
        );
        return;
    };
    let answered = answer(service, request, &mut reply, &shared);
    match AssertUnwindSafe(answered).catch_unwind().await {
        Ok(Ok(()) | Err(Failure::Closed)) => {}
        Ok(Err(failure)) => {
            shared.counters.failures.add();
            explain(&mut reply, &failure, &shared);
        }
        Err(panic) => {
            shared.counters.panics.add();
            tracing::error!(panic = panic_text(&*panic), "a handler panicked");
            apologise(
                &mut reply,
                &shared,
                StatusCode::INTERNAL_SERVER_ERROR,
                "handler-panicked",
            );
        }
    }
}

async fn answer<S, B>(
    mut service: S,
    request: Request<Body>,
    reply: &mut Reply,
    shared: &Shared,
) -> Result<(), Failure>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Display,
    B: HttpBody,
    B::Error: Display,
{
    let failed = |error: S::Error| Failure::Failed(error.to_string());
    let is_head = request.method() == Method::HEAD;
    poll_fn(|cx| service.poll_ready(cx)).await.map_err(failed)?;
    let response = service.call(request).await.map_err(failed)?;
    drop(service);

    let (parts, body) = response.into_parts();
    if let Some(not_started) = parts.extensions.get::<NotStarted>() {
        reject(reply, *not_started);
        return Ok(());
    }
    if parts.extensions.get::<Unanswered>().is_some() {
        shared.counters.failures.add();
        fail(reply, Reason::AppFailed, "it broke off before it answered");
        return Ok(());
    }
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        return switch(reply, &parts, shared);
    }
    if parts.status.is_informational() {
        return Err(Failure::NoResponse);
    }
    let has_content = !is_head
        && parts.status != StatusCode::NO_CONTENT
        && parts.status != StatusCode::NOT_MODIFIED;
    respond(reply, &parts, has_content.then_some(body), shared).await
}

/// Says head and body. What is ready at once travels with the head; a head never waits for a body that is not.
async fn respond<B>(
    reply: &mut Reply,
    parts: &Parts,
    body: Option<B>,
    shared: &Shared,
) -> Result<(), Failure>
where
    B: HttpBody,
    B::Error: Display,
{
    let length = body.as_ref().and_then(|body| body.size_hint().exact());
    let Some(body) = body else {
        let head = head(parts, None, shared)?;
        reply.head(head, Bytes::new(), shape(parts), true);
        return Ok(());
    };
    let mut body = pin!(body);
    let mut opening = Opening::default();
    // Twice: the content, and that there is no more of it. A third time would copy what is better sent on.
    for _ in 0..2 {
        if opening.is_complete || body.is_end_stream() {
            opening.is_complete = true;
            break;
        }
        if !opening.take(poll_once(body.as_mut()).await)? {
            break;
        }
    }

    let is_whole = opening.is_complete && opening.next.is_empty() && opening.trailers.is_none();
    let head = head(parts, length.filter(|_| !is_whole), shared)?;
    let first = std::mem::take(&mut opening.first);
    reply.head(head, first, shape(parts), is_whole);
    if is_whole {
        return Ok(());
    }
    stream_on(reply, body, opening).await
}

/// Says what follows the opening, as fast as it is taken.
async fn stream_on<B>(
    reply: &mut Reply,
    mut body: Pin<&mut B>,
    opening: Opening,
) -> Result<(), Failure>
where
    B: HttpBody,
    B::Error: Display,
{
    if !opening.next.is_empty() {
        poll_fn(|cx| reply.poll_room(cx)).await?;
        reply.data(opening.next);
    }
    let mut trailers = opening.trailers;
    let mut is_complete = opening.is_complete;
    let mut ahead = None;
    while !is_complete {
        poll_fn(|cx| reply.poll_room(cx)).await?;
        let next = match ahead.take() {
            Some(next) => next,
            None => poll_fn(|cx| body.as_mut().poll_frame(cx)).await,
        };
        match next {
            None => is_complete = true,
            Some(Err(error)) => return Err(Failure::Broken(error.to_string())),
            Some(Ok(frame)) => match split(frame) {
                Piece::Content(content) if content.is_empty() => {}
                Piece::Content(content) => {
                    let content = join(content, body.as_mut(), &mut ahead).await;
                    reply.data(content);
                }
                Piece::Trailers(fields) => {
                    trailers = Some(fields);
                    is_complete = true;
                }
                Piece::Unknown => {}
            },
        }
    }
    reply.end(&End::Complete(trailers.unwrap_or_default()));
    Ok(())
}

/// Content shorter than this is joined with what is ready behind it, so that an application which writes a few bytes at a time
/// does not cost a message for each.
const SHORT: usize = 4 * 1024;

/// What a body said when it was asked.
type Polled<B> = Option<Result<Frame<<B as HttpBody>::Data>, <B as HttpBody>::Error>>;

/// Joins short content with what is ready. What was found behind it, and is not content, is left in `ahead`.
async fn join<B: HttpBody>(
    first: Bytes,
    mut body: Pin<&mut B>,
    ahead: &mut Option<Polled<B>>,
) -> Bytes {
    if SHORT <= first.len() {
        return first;
    }
    let mut joined = BytesMut::new();
    while joined.len() < SHORT {
        match poll_once(body.as_mut()).await {
            Poll::Pending => break,
            Poll::Ready(Some(Ok(frame))) if frame.data_ref().is_some_and(Buf::has_remaining) => {
                if joined.is_empty() {
                    joined.reserve(2 * SHORT);
                    joined.extend_from_slice(&first);
                }
                if let Ok(more) = frame.into_data() {
                    joined.put(more);
                }
            }
            // A frame without content too: whoever has no end of them waits his turn.
            Poll::Ready(next) => {
                *ahead = Some(next);
                break;
            }
        }
    }
    if joined.is_empty() {
        return first;
    }
    joined.freeze()
}

/// What a body had ready when it was first asked.
#[derive(Default)]
struct Opening {
    first: Bytes,
    next: Bytes,
    trailers: Option<Fields>,
    is_complete: bool,
}

impl Opening {
    /// Returns whether to ask on.
    fn take<D: Buf, E: Display>(
        &mut self,
        polled: Poll<Option<Result<Frame<D>, E>>>,
    ) -> Result<bool, Failure> {
        match polled {
            Poll::Pending => return Ok(false),
            Poll::Ready(None) => self.is_complete = true,
            Poll::Ready(Some(Err(error))) => return Err(Failure::Broken(error.to_string())),
            Poll::Ready(Some(Ok(frame))) => match split(frame) {
                Piece::Content(content) if self.first.is_empty() => self.first = content,
                Piece::Content(content) => self.next = content,
                Piece::Trailers(fields) => {
                    self.trailers = Some(fields);
                    self.is_complete = true;
                }
                Piece::Unknown => {}
            },
        }
        Ok(!self.is_complete)
    }
}

enum Piece {
    Content(Bytes),
    Trailers(Fields),
    /// Of a kind that `http_body` has got since.
    Unknown,
}

fn split<D: Buf>(frame: Frame<D>) -> Piece {
    match frame.into_data() {
        Ok(mut data) => Piece::Content(data.copy_to_bytes(data.remaining())),
        Err(frame) => match frame.into_trailers() {
            // Trailers may be dropped by any hop (RFC 9110 §6.5.1); too many of them are.
            Ok(trailers) => Piece::Trailers(fields::encode_trailers(&trailers).unwrap_or_default()),
            Err(_) => Piece::Unknown,
        },
    }
}

async fn poll_once<B: HttpBody>(
    mut body: Pin<&mut B>,
) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
    poll_fn(|cx| Poll::Ready(body.as_mut().poll_frame(cx))).await
}

fn shape(parts: &Parts) -> Shape {
    let content_type = parts.headers.get(header::CONTENT_TYPE);
    let is_events = content_type.is_some_and(|value| {
        let essence = value.as_bytes().split(|byte| *byte == b';').next();
        essence.is_some_and(|essence| {
            essence
                .trim_ascii()
                .eq_ignore_ascii_case(b"text/event-stream")
        })
    });
    if parts.status.is_server_error() {
        Shape::Failure
    } else if is_events {
        Shape::EventStream
    } else {
        Shape::Plain
    }
}

/// The head as it travels; `length` is said if the handler did not.
fn head(parts: &Parts, length: Option<u64>, shared: &Shared) -> Result<Bytes, Failure> {
    let length = length
        .filter(|_| !parts.headers.contains_key(header::CONTENT_LENGTH))
        .map(|length| length.to_string());
    let backend = (fields::BACKEND.as_bytes(), shared.node.as_bytes());
    let with_length;
    let more: &[_] = match &length {
        Some(length) => {
            with_length = [backend, (&b"content-length"[..], length.as_bytes())];
            &with_length
        }
        None => &[backend],
    };
    let switches = parts.status == StatusCode::SWITCHING_PROTOCOLS;
    let fields =
        fields::encode(&parts.headers, more, switches).map_err(|_| Failure::HeadTooLarge)?;
    let status = parts.status.as_u16();
    Ok(ResponseHead { status, fields }.encode())
}

fn switch(reply: &mut Reply, parts: &Parts, shared: &Shared) -> Result<(), Failure> {
    let head = head(parts, None, shared)?;
    let taker = reply.take_upgrade().ok_or(Failure::NoResponse)?;
    reply.head(head, Bytes::new(), Shape::Upgrade, false);
    // Gone in this very moment, it drops the tunnel, which ends it.
    let _ = taker.send(reply.hand_over());
    Ok(())
}

fn reject(reply: &mut Reply, not_started: NotStarted) {
    let retry_after = not_started.retry_after.unwrap_or_default();
    let reject = Reject {
        reason: Reason::AppRefused,
        retry_after_ms: u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX),
        detail: String::new(),
    };
    reply.reject(reject.encode());
}

fn explain(reply: &mut Reply, failure: &Failure, shared: &Shared) {
    let (status, reason) = match failure {
        Failure::Failed(error) => {
            tracing::warn!(error, "a handler failed");
            (StatusCode::INTERNAL_SERVER_ERROR, "handler-failed")
        }
        Failure::Broken(error) => {
            tracing::debug!(error, "a response broke off");
            return fail(reply, Reason::AppFailed, "the response broke off");
        }
        Failure::HeadTooLarge => (StatusCode::BAD_GATEWAY, Reason::HeadTooLarge.name()),
        Failure::NoResponse => (StatusCode::BAD_GATEWAY, "no-final-response"),
        Failure::Closed => return,
    };
    apologise(reply, shared, status, reason);
}

/// Answers in the place of the handler, or breaks off if it has begun to.
fn apologise(reply: &mut Reply, shared: &Shared, status: StatusCode, reason: &'static str) {
    let fields = Fields::new([
        (&b"content-type"[..], &b"text/plain"[..]),
        (b"cache-control", b"no-store"),
        (REASON, reason.as_bytes()),
        (fields::BACKEND.as_bytes(), shared.node.as_bytes()),
    ]);
    match fields {
        Ok(fields) if !reply.has_head() => {
            let content = format!("{status}\n{reason}\n").into();
            let shape = match status.is_server_error() {
                true => Shape::Failure,
                false => Shape::Plain,
            };
            let status = status.as_u16();
            let head = ResponseHead { status, fields }.encode();
            reply.head(head, content, shape, true);
        }
        _ => fail(reply, Reason::AppFailed, reason),
    }
}

fn fail(reply: &mut Reply, reason: Reason, detail: &str) {
    reply.end(&End::Failed {
        reason,
        detail: detail.to_owned(),
    });
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("of no text")
}
