//! The way of one request to the application and of its answer back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Extensions, HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body::Body;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;

use crate::clock;
use crate::condition::Condition;
use crate::config::BridgeConfig;
use crate::connection::{Connection, Lost};
use crate::content::{Content, Source};
use crate::counters::Counters;
use crate::error::{BridgeError, Refused};
use crate::fields::{self, Length};
use crate::origin::{Origins, Seat};
use crate::stream::Stream;
use crate::upload::{RequestBody, Stage, Upload};

/// Content up to this many bytes is read whole before a repeatable request is sent, so that it can be sent again. What travels
/// whole from the client's frontend is no longer.
const REPEATABLE_CONTENT: u32 = 64 * 1024;

/// A request that must not be sent twice takes only a connection used this recently: no server closes one so soon, so the race
/// in which it would fail cannot happen.
const SURELY_OPEN: Duration = Duration::from_secs(1);

/// What a bridge's requests share.
pub(crate) struct Shared<B: RequestBody> {
    pub(crate) config: BridgeConfig,
    pub(crate) origins: Origins<Box<Connection<B>>>,
    pub(crate) counters: Counters,
}

/// What a request can use beyond a response.
pub(crate) struct Asker<I> {
    /// Told of each interim response.
    pub(crate) on_interim: Option<I>,
    /// Whether its connection can become another protocol's.
    pub(crate) can_upgrade: bool,
}

/// What is done with an interim response. Returns whether it is passed on.
pub(crate) trait OnInterim:
    Fn(StatusCode, &HeaderMap) -> bool + Send + Sync + 'static
{
}

impl<I: Fn(StatusCode, &HeaderMap) -> bool + Send + Sync + 'static> OnInterim for I {}

/// What the application made of a request.
pub(crate) enum Answer<B: RequestBody> {
    /// A response.
    Response(Response<Content<B>>),
    /// 101: from here on the stream belongs to the other protocol, of which some bytes may have been read already.
    Upgrade {
        head: Response<()>,
        stream: Stream,
        already_read: Bytes,
        seat: Seat<Box<Connection<B>>>,
    },
}

type Open<B> = Box<Connection<B>>;

impl<B: RequestBody> Shared<B> {
    /// Takes one request to an upstream. It is sent twice only where that is safe: nothing of it was sent, or it is idempotent
    /// and the application closed a used connection under it.
    pub(crate) async fn forward(
        self: Arc<Self>,
        request: Request<B>,
        asker: Asker<impl OnInterim>,
    ) -> Result<Answer<B>, BridgeError> {
        self.counters.requests.add_one();
        let (mut head, body) = request.into_parts();
        if head.method == Method::CONNECT {
            // The application is no proxy, and its 200 would open a tunnel past everybody.
            let mut refusal = Response::new(Content::empty(self));
            *refusal.status_mut() = StatusCode::NOT_IMPLEMENTED;
            return Ok(Answer::Response(refusal));
        }
        let asks = fields::for_application(&mut head, length(&body), asker.can_upgrade);
        let idempotent = head.method.is_idempotent() || asks.idempotency_key;
        let collect = idempotent && !asks.go_ahead && !asks.trailers;
        let (upload, stage) = self.upload(body, collect, asks.go_ahead).await?;
        let repeatable = idempotent && stage.is_none();
        let at_most = if repeatable {
            Duration::MAX
        } else {
            SURELY_OPEN
        };

        head.extensions = Extensions::new();
        let mut request = Request::from_parts(head, upload);
        self.pass_on_interims(&mut request, asker.on_interim, stage.as_ref());

        let mut seat = self.seat(Refused::AllDown)?;
        let mut may_reuse = true;
        loop {
            let idle = may_reuse.then(|| seat.idle.take(clock::now(), at_most));
            let reused = idle.flatten();
            let copy = reused
                .as_ref()
                .filter(|_| repeatable)
                .map(|_| again(&request));
            let was_used = reused.is_some();
            let mut connection = match reused {
                Some(connection) => {
                    self.counters.reused.add_one();
                    connection
                }
                None => match self.connect(&seat).await {
                    Ok(connection) => connection,
                    // Nothing was sent: another upstream may have it.
                    Err(refused) => {
                        seat = self.seat(refused)?;
                        continue;
                    }
                },
            };
            match connection.exchange(request).await {
                Ok(response) => {
                    return self.answer(connection, seat, stage.as_ref(), asks.upgrade, response);
                }
                Err(Lost::Unsent(unsent)) => {
                    self.counters.found_closed.add_one();
                    if !was_used {
                        self.origins.judge(&seat, |condition| {
                            condition.broke(clock::now(), &self.config.health);
                        });
                        self.counters.refused.add_one();
                        let upstream = seat.upstream.clone();
                        return Err(BridgeError::Refused(Refused::Closed { upstream }));
                    }
                    request = *unsent;
                }
                Err(Lost::Sent { error, silent }) => match copy {
                    Some(copy) if silent => {
                        self.counters.repeated.add_one();
                        request = copy;
                        may_reuse = false;
                    }
                    _ => return Err(self.failed_before_head(&seat, error)),
                },
            }
        }
    }

    /// The content as it will be sent, and where it will be if it can be sent only once.
    async fn upload(
        &self,
        body: B,
        collect: bool,
        go_ahead: bool,
    ) -> Result<(Upload<B>, Option<Stage>), BridgeError> {
        if body.is_end_stream() {
            return Ok((Upload::Whole(None), None));
        }
        let size = body.size_hint().exact();
        let is_short = size.is_some_and(|size| size <= REPEATABLE_CONTENT.into());
        if !collect || !is_short {
            let (upload, stage) = Upload::streaming(body, go_ahead);
            return Ok((upload, Some(stage)));
        }
        let limit = REPEATABLE_CONTENT as usize;
        match Limited::new(body, limit).collect().await {
            Ok(collected) => Ok((Upload::Whole(Some(collected.to_bytes())), None)),
            Err(error) => {
                self.counters.content_lost.add_one();
                Err(BridgeError::ContentLost(error))
            }
        }
    }

    fn pass_on_interims(
        self: &Arc<Self>,
        request: &mut Request<Upload<B>>,
        on_interim: Option<impl OnInterim>,
        stage: Option<&Stage>,
    ) {
        let waiting = stage.filter(|stage| stage.is_waiting()).cloned();
        if waiting.is_none() && on_interim.is_none() {
            return;
        }
        let shared = self.clone();
        hyper::ext::on_informational(request, move |interim| {
            if interim.status() == StatusCode::CONTINUE {
                // Whoever reads the content says so to the client.
                waiting.iter().for_each(Stage::go_ahead);
            } else if let Some(on_interim) = &on_interim {
                let counter = if on_interim(interim.status(), interim.headers()) {
                    &shared.counters.interims
                } else {
                    &shared.counters.interims_dropped
                };
                counter.add_one();
            }
        });
    }

    /// A seat at an upstream that is up, or the refusal.
    fn seat(&self, otherwise: Refused) -> Result<Seat<Open<B>>, BridgeError> {
        self.origins.least_outstanding().ok_or_else(|| {
            self.counters.refused.add_one();
            BridgeError::Refused(otherwise)
        })
    }

    async fn connect(&self, seat: &Seat<Open<B>>) -> Result<Open<B>, Refused> {
        match Connection::open(&seat.upstream, self.config.connect_timeout).await {
            Ok(connection) => {
                self.counters.connections.add_one();
                Ok(connection)
            }
            Err(source) => {
                self.counters.connects_failed.add_one();
                tracing::debug!(upstream = %seat.upstream, error = %source, "no connection");
                self.origins.judge(seat, Condition::refused);
                let upstream = seat.upstream.clone();
                Err(Refused::Connect { upstream, source })
            }
        }
    }

    fn failed_before_head(&self, seat: &Seat<Open<B>>, error: hyper::Error) -> BridgeError {
        if error.is_user() || error.is_body_write_aborted() {
            self.counters.content_lost.add_one();
            return BridgeError::ContentLost(error.into());
        }
        self.counters.failed_before_head.add_one();
        self.origins.judge(seat, |condition| {
            condition.broke(clock::now(), &self.config.health);
        });
        tracing::debug!(upstream = %seat.upstream, %error, "no answer to a request");
        BridgeError::failed(&seat.upstream, error)
    }

    fn answer(
        self: Arc<Self>,
        connection: Open<B>,
        seat: Seat<Open<B>>,
        stage: Option<&Stage>,
        upgrade: bool,
        response: Response<Incoming>,
    ) -> Result<Answer<B>, BridgeError> {
        seat.answered();
        let (mut head, incoming) = response.into_parts();
        head.extensions = Extensions::new();
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return self.upgraded(*connection, seat, upgrade, Response::from_parts(head, ()));
        }
        let leaves = fields::for_client(&mut head.headers).map_err(|error| {
            self.counters.failed_before_head.add_one();
            BridgeError::failed(&seat.upstream, error)
        })?;
        // A connection to a server of HTTP/1.0 cannot carry chunked content: none is used twice.
        let reusable = head.version == Version::HTTP_11 && !leaves.doubtful;
        head.version = Version::HTTP_11;
        let keep = reusable.then(|| self.patience(leaves.patience));

        let source = if stage.is_some_and(Stage::is_running_after_the_answer) {
            Source::task(connection)
        } else if connection.is_idle() {
            // The content has been read with the head, as most is: others may have the connection already.
            self.give_back(connection, &seat, keep);
            Source::Done
        } else {
            Source::Reader(connection)
        };
        let content = Content::new(incoming, source, seat, keep, self);
        Ok(Answer::Response(Response::from_parts(head, content)))
    }

    fn upgraded(
        &self,
        connection: Connection<B>,
        seat: Seat<Open<B>>,
        asked: bool,
        head: Response<()>,
    ) -> Result<Answer<B>, BridgeError> {
        let Some((stream, already_read)) = connection.into_stream().filter(|_| asked) else {
            self.counters.failed_before_head.add_one();
            let why = "it switched protocols without being asked to, or in the middle of a request";
            return Err(BridgeError::failed(&seat.upstream, why));
        };
        self.counters.upgrades.add_one();
        Ok(Answer::Upgrade {
            head,
            stream,
            already_read,
            seat,
        })
    }

    /// A connection whose response has been read whole goes back to the idle ones, if it is fit for another request.
    pub(crate) fn give_back(
        &self,
        connection: Open<B>,
        seat: &Seat<Open<B>>,
        keep: Option<Duration>,
    ) {
        if let Some(patience) = keep
            && connection.is_idle()
        {
            seat.idle.put(clock::now(), patience, connection);
        }
    }

    /// How long to keep an idle connection: a second less than the application does, if it says how long that is.
    fn patience(&self, said: Option<Duration>) -> Duration {
        let ours = self.config.idle_timeout;
        said.map_or(ours, |theirs| {
            ours.min(theirs.saturating_sub(Duration::from_secs(1)))
        })
    }
}

fn length<B: Body>(body: &B) -> Length {
    if body.is_end_stream() {
        Length::Zero
    } else if body.size_hint().exact().is_some() {
        Length::Exact
    } else {
        Length::Unknown
    }
}

/// The same request once more. Its content must be whole.
fn again<B>(request: &Request<Upload<B>>) -> Request<Upload<B>> {
    let content = match request.body() {
        Upload::Whole(content) => content.clone(),
        Upload::Streaming(_) => None,
    };
    let mut again = Request::new(Upload::Whole(content));
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.headers_mut() = request.headers().clone();
    *again.extensions_mut() = request.extensions().clone();
    again
}
