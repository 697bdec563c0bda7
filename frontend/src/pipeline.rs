//! The life of a request: read, looked up, coalesced, dispatched, answered.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::{Either, ready};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use scale0_cache::policy::{CacheStatus, Forward};
use scale0_cache::{CacheKey, Lookup, RequestFacts, ResponseHead};
use scale0_wire::FlightKey;

use crate::account::Account;
use crate::at_cache::{Alone, AtCache, AtOnce};
use crate::body::{Content, ResponseBody, stated_length};
use crate::clock;
use crate::conversation::{Conversation, ReadError, read_ahead};
use crate::error_response::ErrorResponse;
use crate::exchange::Exchange;
use crate::fields::{self, Present};
use crate::flight::Asking;
use crate::interim::Interims;
use crate::response;
use crate::route::Coalesce;
use crate::session::{Delivery, Failure, OpenRequest};
use crate::tunnel;
use crate::watch::{Answering, Watched};
use crate::worker::{TakenSeat, Worker};

/// A request, as far as it can be handled without waiting.
enum Begun {
    Answered(Response<ResponseBody>),
    Waiting(Waiting),
}

/// A request whose answer has to be waited for.
struct Waiting {
    exchange: Rc<Exchange>,
    body: Incoming,
    account: Account,
    upgrade: Option<(HeaderValue, OnUpgrade)>,
    source: Source,
}

/// Where an answer is to come from.
enum Source {
    /// The cache, which has found this so far.
    Cache(CacheKey, RequestFacts, Lookup),
    /// A backend that is asked for this client alone.
    Alone(Alone),
}

impl Worker {
    /// Answers one request. While the node drains it is its connection's last.
    ///
    /// What needs no waiting is answered in the call: hyper moves the future about, and that of the long way is large.
    pub(crate) fn serve(
        self: Rc<Self>,
        peer: SocketAddr,
        started: Instant,
        answering: Answering,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<ResponseBody>, Infallible>> {
        let may_close = request.version() != Version::HTTP_2;
        let watched = Arc::clone(answering.watched());
        if !may_close {
            watched.speaks_http2();
        }
        watched.set_last(request.body().size_hint().exact().is_none());
        match self.begin(peer, started, answering, request) {
            Begun::Answered(mut response) => {
                self.mark_last(&mut response, may_close, &watched);
                Either::Left(ready(Ok(response)))
            }
            Begun::Waiting(waiting) => Either::Right(Box::pin(async move {
                let mut response = self.answer(waiting).await;
                watched.interims().written().await;
                self.mark_last(&mut response, may_close, &watched);
                Ok(response)
            })),
        }
    }

    /// Says so where no other request is read from the connection.
    fn mark_last(&self, response: &mut Response<ResponseBody>, may_close: bool, watched: &Watched) {
        let is_last = self.draining.get() || watched.is_last();
        if may_close && is_last && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }

    fn begin(
        &self,
        peer: SocketAddr,
        started: Instant,
        answering: Answering,
        mut request: Request<Incoming>,
    ) -> Begun {
        let present = Present::of(request.headers());
        // A request with content is answered as what it is: the protocol may be switched by one without (RFC 9110 §7.8).
        let upgrade = fields::wanted_upgrade(request.version(), request.headers(), present)
            .filter(|_| request.body().is_end_stream())
            .cloned();
        let upgrade = upgrade.map(|protocol| (protocol, hyper::upgrade::on(&mut request)));
        let (parts, body) = request.into_parts();
        let exchange = match Exchange::read(&self.shared, peer, started, parts, present) {
            Ok(exchange) => exchange,
            Err((error, id)) => {
                let account =
                    Account::refused(&self.shared, Some(answering), peer.ip(), &id, started);
                return Begun::Answered(self.error(&error, &id, account, None));
            }
        };
        let mut account = Account::open(&self.shared, Some(answering), &exchange);
        let is_shareable_method = matches!(exchange.method, Method::GET | Method::HEAD);
        let rules = &exchange.rules;
        let source = if !is_shareable_method {
            Source::Alone(Alone {
                forward: Forward::Method,
                detail: None,
                learn: None,
            })
        } else if upgrade.is_some() || (!rules.cache && rules.coalesce == Coalesce::Off) {
            Source::Alone(Alone {
                forward: Forward::Bypass,
                detail: None,
                learn: None,
            })
        } else {
            let mut facts =
                RequestFacts::of(&exchange.method, &exchange.headers, !body.is_end_stream());
            if !rules.cache {
                facts = facts.unstored();
            }
            if rules.coalesce == Coalesce::Off {
                facts = facts.waiting_for_nobody();
            }
            let key = exchange.cache_key();
            match self.at_once(&exchange, &exchange.asker(key, facts), account) {
                AtOnce::Answered(response) => return Begun::Answered(response),
                AtOnce::Found(opened, found) => {
                    account = opened;
                    Source::Cache(key, facts, found)
                }
            }
        };
        Begun::Waiting(Waiting {
            exchange: Rc::new(exchange),
            body,
            account,
            upgrade,
            source,
        })
    }

    async fn answer(self: &Rc<Self>, waiting: Waiting) -> Response<ResponseBody> {
        let Waiting {
            exchange,
            body,
            account,
            upgrade,
            source,
        } = waiting;
        let (account, alone) = match source {
            Source::Alone(alone) => (account, alone),
            Source::Cache(key, facts, found) => {
                let asking = Asking {
                    key,
                    facts,
                    exchange: Rc::clone(&exchange),
                };
                match self.at_cache(asking, account, found).await {
                    AtCache::Answered(response) => return response,
                    AtCache::Alone(account, alone) => (account, alone),
                }
            }
        };
        self.forward(exchange, body, account, upgrade, alone).await
    }

    /// Sends the request to a backend for its client alone.
    async fn forward(
        self: &Rc<Self>,
        exchange: Rc<Exchange>,
        body: Incoming,
        account: Account,
        upgrade: Option<(HeaderValue, OnUpgrade)>,
        alone: Alone,
    ) -> Response<ResponseBody> {
        let status = CacheStatus::forward(alone.forward);
        let status = alone.detail.map_or(status, |detail| status.detail(detail));
        let protocol = upgrade.as_ref().map(|(protocol, _)| protocol);
        match alone.detail {
            Some(why) => exchange.note_why("alone", why),
            None => exchange.note("alone"),
        }
        let mut conversation = match self.converse(&exchange, body, &account, protocol).await {
            Ok(conversation) => conversation,
            Err(failure) => {
                return self
                    .failed_alone(&exchange, &failure, account, status, &alone)
                    .await;
            }
        };
        let interims = Interims::to(&exchange, &account);
        loop {
            match conversation.next().await {
                Delivery::Told(told) => exchange.hear(told),
                Delivery::Interim(head) => self.pass_on(&head, Some(&interims)),
                Delivery::Head {
                    head,
                    upgrade: true,
                    ..
                } => {
                    return match upgrade {
                        Some((_, on_upgrade)) => {
                            self.tunnel(&exchange, &head, on_upgrade, conversation, account)
                        }
                        None => self.failed(
                            &exchange,
                            &Failure::app_failed("it switched protocols unasked"),
                            account,
                            status,
                        ),
                    };
                }
                Delivery::Head {
                    head,
                    content,
                    whole,
                    upgrade: false,
                } => {
                    return self.direct(
                        &exchange,
                        &head,
                        content,
                        (!whole).then_some(conversation),
                        account,
                        status,
                        &alone,
                    );
                }
                Delivery::Failed(failure) => {
                    return self
                        .failed_alone(&exchange, &failure, account, status, &alone)
                        .await;
                }
                Delivery::Ready => {}
                Delivery::Content(_) | Delivery::End(_) => {
                    return self.failed(&exchange, &Failure::protocol_error(), account, status);
                }
            }
        }
    }

    /// Reads as much of the request's content as is worth reading first, and opens its stream.
    async fn converse(
        &self,
        exchange: &Exchange,
        body: Incoming,
        account: &Account,
        upgrade: Option<&HeaderValue>,
    ) -> Result<Conversation, Failure> {
        let Some(answering) = account.answering() else {
            return Err(Failure::from(ReadError::ClientGone));
        };
        let most = self.shared.most_content();
        let wait = !exchange.expects_continue() && upgrade.is_none();
        let (content, upload) = if upgrade.is_some() {
            (Bytes::new(), None)
        } else {
            read_ahead(body, wait, most, &self.shared.limits, answering).await?
        };
        let protocol = upgrade.map(HeaderValue::as_bytes);
        let head = exchange
            .encode(
                &self.shared,
                &exchange.method,
                &exchange.headers,
                protocol,
                upload.is_some(),
            )
            .map_err(|error| Failure::of_request(&error))?;
        let stream = self.dispatcher.open(OpenRequest {
            head,
            content,
            whole: upload.is_none(),
            idempotent: exchange.is_idempotent(),
            upgrade: upgrade.is_some(),
            hedge: exchange.rules.allow_hedging(&exchange.method)
                && upload.is_none()
                && upgrade.is_none(),
            priority: exchange.rules.priority,
            service: exchange.service,
            affinity: exchange.affinity(),
            flight: FlightKey(0),
            // Short content was waited for: the backend's time begins when it has come.
            timeout: exchange.rules.timeout,
            idle_timeout: exchange.rules.idle_timeout,
            hold: exchange.rules.hold,
            trace: exchange.trace(),
            explain: exchange.is_explained(),
        })?;
        Ok(Conversation::new(stream, upload, answering.watched()))
    }

    /// Answers with what one backend sends to this client alone.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is one thing a response is made of"
    )]
    fn direct(
        &self,
        exchange: &Exchange,
        head: &Bytes,
        content: Bytes,
        more: Option<Conversation>,
        mut account: Account,
        status: CacheStatus,
        alone: &Alone,
    ) -> Response<ResponseBody> {
        exchange.note("head");
        let (code, headers) = match fields::response_head(head) {
            Ok(head) => head,
            Err(why) => return self.failed(exchange, &Failure::app_failed(why), account, status),
        };
        let wall = clock::wall();
        let mut headers = response::received(headers, &self.shared, wall);
        let backend = response::take_backend(&mut headers);
        let mut head = ResponseHead {
            status: code,
            headers,
        };
        self.teach_cache(exchange, wall, &head, alone.learn.as_ref(), || {
            more.is_none().then(|| content.clone())
        });
        if more.is_some()
            && let Err(failure) = self.seat(&head.headers, &mut account)
        {
            return self.failed(exchange, &failure, account, status);
        }
        let status = status.fwd_status(code.as_u16());
        response::finish(&mut head.headers, &exchange.request_id, Some(&status), None);
        account.head(code, &mut head.headers, "", backend.as_ref());
        let length = stated_length(&head.headers);
        let content = match more {
            _ if exchange.method == Method::HEAD => Content::Nothing,
            None if content.is_empty() => Content::Nothing,
            None => Content::Whole(content),
            Some(conversation) => Content::Direct(Box::new(conversation.after(content))),
        };
        assemble(
            code,
            head.headers,
            ResponseBody::new(content, length, account),
        )
    }

    /// An event stream is given a seat among the long streams.
    pub(crate) fn seat(&self, headers: &HeaderMap, account: &mut Account) -> Result<(), Failure> {
        if response::is_event_stream(headers) {
            account.seated(self.long_stream()?);
        }
        Ok(())
    }

    fn long_stream(&self) -> Result<TakenSeat, Failure> {
        let most = self.shared.limits.max_streams;
        let seat = self.shared.long_streams.take(most);
        seat.ok_or_else(Failure::too_many_streams)
    }

    /// Lets the client and the backend talk past us.
    fn tunnel(
        &self,
        exchange: &Exchange,
        head: &Bytes,
        on_upgrade: OnUpgrade,
        conversation: Conversation,
        mut account: Account,
    ) -> Response<ResponseBody> {
        let status = CacheStatus::forward(Forward::Bypass);
        let seat = match self.long_stream() {
            Ok(seat) => seat,
            Err(failure) => return self.failed(exchange, &failure, account, status),
        };
        let headers = match fields::upgrade_head(head) {
            Ok(headers) => headers,
            Err(why) => return self.failed(exchange, &Failure::app_failed(why), account, status),
        };
        let mut headers = response::received(headers, &self.shared, clock::wall());
        let backend = response::take_backend(&mut headers);
        response::finish(&mut headers, &exchange.request_id, None, None);
        account.head(
            StatusCode::SWITCHING_PROTOCOLS,
            &mut headers,
            "",
            backend.as_ref(),
        );
        self.shared.counters.tunnels.add(1);
        let relay = tunnel::run(
            on_upgrade,
            conversation.into_stream(),
            exchange.rules.idle_timeout,
        );
        tokio::task::spawn_local(async move {
            let _seat = seat;
            relay.await;
        });
        assemble(
            StatusCode::SWITCHING_PROTOCOLS,
            headers,
            ResponseBody::new(Content::Nothing, None, account),
        )
    }

    pub(crate) fn failed(
        &self,
        exchange: &Exchange,
        failure: &Failure,
        account: Account,
        status: CacheStatus,
    ) -> Response<ResponseBody> {
        self.error(
            &ErrorResponse::from(failure),
            &exchange.request_id,
            account,
            Some(&status),
        )
    }

    /// The same where a stored response may stand in for the answer.
    async fn failed_alone(
        &self,
        exchange: &Exchange,
        failure: &Failure,
        account: Account,
        status: CacheStatus,
        alone: &Alone,
    ) -> Response<ResponseBody> {
        match &alone.learn {
            Some((_, asking)) => self.failed_at_cache(asking, failure, account, status).await,
            None => self.failed(exchange, failure, account, status),
        }
    }

    /// Answers with an error of our own.
    pub(crate) fn error(
        &self,
        error: &ErrorResponse,
        request_id: &str,
        mut account: Account,
        status: Option<&CacheStatus>,
    ) -> Response<ResponseBody> {
        self.shared.counters.errors.count(error.reason);
        let (mut headers, content) = error.render(&self.shared.node, request_id);
        headers.insert(header::VIA, self.shared.via.clone());
        response::finish(&mut headers, request_id, status, None);
        account.head(error.status, &mut headers, error.reason, None);
        assemble(
            error.status,
            headers,
            ResponseBody::new(Content::Whole(content), None, account),
        )
    }
}

pub(crate) fn assemble(
    status: StatusCode,
    headers: HeaderMap,
    body: ResponseBody,
) -> Response<ResponseBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

impl Failure {
    /// As many tunnels and event streams are open as may be.
    fn too_many_streams() -> Self {
        Self {
            reason: scale0_wire::Reason::TooManyStreams,
            started: true,
            retry_after_ms: 0,
            detail: String::new(),
        }
    }
}
