//! A request at the cache: answered from the store or from a flight, or sent on alone.

use std::rc::Rc;

use http::header::HeaderValue;
use http::{Method, Response, StatusCode};
use scale0_cache::flights::MAX_VARIANT_HOPS;
use scale0_cache::policy::{
    ByteRange, CacheStatus, Conditional, Forward, Ranged, Trouble, judge_conditionals, judge_range,
    not_modified_head, not_satisfiable_head, partial_head,
};
use scale0_cache::{CacheKey, Hit, Join, Lookup, Reader, ResponseHead, Served, Turn};

use crate::account::Account;
use crate::body::{Content, ResponseBody, stated_length};
use crate::clock;
use crate::error_response::ErrorResponse;
use crate::exchange::Exchange;
use crate::flight::{Asking, Cut, FlightBody, spawn_fetch};
use crate::pipeline::assemble;
use crate::response;
use crate::session::Failure;
use crate::worker::Worker;

/// A request that goes on its own, and what is known of why.
pub(crate) struct Alone {
    pub(crate) forward: Forward,
    pub(crate) detail: Option<&'static str>,
    /// The key under which the cache wants to hear what came of it.
    pub(crate) learn: Option<(CacheKey, Asking)>,
}

/// What became of a request at the cache.
pub(crate) enum AtCache {
    Answered(Response<ResponseBody>),
    Alone(Account, Alone),
}

impl Worker {
    /// Answers from the store or from a flight, if that can be.
    pub(crate) async fn at_cache(self: &Rc<Self>, asking: Asking, account: Account) -> AtCache {
        let cache = &self.shared.cache;
        let (mut under, forward) = match cache.lookup(clock::now(), &asking.asker()) {
            Lookup::Hit(hit) => return self.hit(&asking, hit, account, CacheStatus::hit()),
            Lookup::Miss { under, forward } => (under, forward),
            Lookup::GatewayTimeout => {
                let error = ErrorResponse::new(
                    StatusCode::GATEWAY_TIMEOUT,
                    "only-if-cached",
                    "nothing suitable is stored",
                );
                let id = &asking.exchange.request_id;
                return AtCache::Answered(self.error(&error, id, account, None));
            }
        };
        let alone = |asking: &Asking, under, detail| Alone {
            forward,
            detail,
            learn: Some((under, asking.clone())),
        };
        let mut moves = 0;
        loop {
            let join = cache.join(clock::now(), under, &asking.asker());
            let (mut reader, fetched_from) = match join {
                Join::Lead { fill, reader } => {
                    (reader, Some(spawn_fetch(self, &asking.exchange, fill)))
                }
                Join::Wait(reader) => (reader, None),
                Join::Stored(hit) => return self.hit(&asking, hit, account, CacheStatus::hit()),
                Join::Alone(reason) => {
                    let alone = alone(&asking, under, detail(&reason));
                    return AtCache::Alone(account, alone);
                }
                Join::Failed(failure) => {
                    let status = CacheStatus::forward(forward).collapsed(true);
                    return self.flight_failed(&asking, failure, account, &status);
                }
            };
            let collapsed = fetched_from.is_none();
            let status = CacheStatus::forward(forward).collapsed(collapsed);
            let turn = {
                let asker = asking.asker();
                let head = reader.head(&asker);
                tokio::time::timeout_at(asking.exchange.due().into(), head).await
            };
            let again = match turn {
                Ok(Turn::Yours(head)) => {
                    let stores = !collapsed
                        && asking.exchange.rules.cache
                        && reader.sharing().is_some_and(|it| it.kept().is_some());
                    let status = status.stored(stores);
                    let backend = fetched_from.as_ref().and_then(|from| from.get());
                    let response = self.flight(asking, &head, reader, status, account, backend);
                    return AtCache::Answered(response);
                }
                Ok(Turn::Stored(hit)) => {
                    let not_modified = StatusCode::NOT_MODIFIED.as_u16();
                    let status = status.fwd_status(not_modified).stored(!collapsed);
                    return self.hit(&asking, hit, account, status);
                }
                Ok(Turn::Released(_)) => Err("leader-only"),
                Ok(Turn::Unfit) => Err("unfit"),
                Ok(Turn::Variant(variant)) => Ok(variant),
                Ok(Turn::Missed) => Ok(under),
                Ok(Turn::Failed(failure)) => {
                    return self.flight_failed(&asking, failure, account, &status);
                }
                Err(_elapsed) => {
                    let failure = Failure::deadline();
                    let response = self.failed_at_cache(&asking, &failure, account, status);
                    return AtCache::Answered(response);
                }
            };
            under = match again {
                Ok(next) if moves < MAX_VARIANT_HOPS => next,
                Ok(_) => {
                    return AtCache::Alone(account, alone(&asking, under, Some("variant")));
                }
                Err(detail) => {
                    return AtCache::Alone(account, alone(&asking, under, Some(detail)));
                }
            };
            moves += 1;
        }
    }

    /// Answers with a stored response, and has it brought up to date where it is sent stale meanwhile.
    fn hit(
        self: &Rc<Self>,
        asking: &Asking,
        hit: Hit,
        account: Account,
        status: CacheStatus,
    ) -> AtCache {
        if hit.served == Served::WhileRevalidating {
            let fill = (self.shared.cache).refresh(clock::now(), &hit, &asking.asker());
            if let Some(fill) = fill {
                spawn_fetch(self, &asking.exchange, fill);
            }
        }
        AtCache::Answered(self.stored(&asking.exchange, hit, account, status))
    }

    /// Answers with a stored response.
    fn stored(
        &self,
        exchange: &Exchange,
        hit: Hit,
        mut account: Account,
        status: CacheStatus,
    ) -> Response<ResponseBody> {
        let status = match hit.served {
            Served::Fresh | Served::Validated => status,
            Served::Stale => status.detail("max-stale"),
            Served::WhileRevalidating => status.detail("stale-while-revalidate"),
            Served::InTrouble => status.detail("stale-if-error"),
        };
        let response = hit.response;
        let delivery = Delivered::judge(exchange, response.head(), Some(response.length()));
        let mut headers = delivery.head.headers;
        response::finish(
            &mut headers,
            &exchange.request_id,
            Some(&status.ttl(hit.ttl)),
            Some(hit.age),
        );
        account.head(delivery.head.status, &headers, "", None);
        let content = match delivery.content {
            Sent::Nothing => Content::Nothing,
            Sent::Whole => Content::stored(response, Cut::NONE),
            Sent::Part(part) => Content::stored(response, Cut::of(part, 0)),
        };
        let body = ResponseBody::new(content, None, account);
        assemble(delivery.head.status, headers, body)
    }

    /// Answers with what a flight brings.
    fn flight(
        self: &Rc<Self>,
        asking: Asking,
        head: &ResponseHead,
        reader: Reader,
        status: CacheStatus,
        mut account: Account,
        backend: Option<&HeaderValue>,
    ) -> Response<ResponseBody> {
        let exchange = Rc::clone(&asking.exchange);
        let delivery = Delivered::judge(&exchange, head, reader.whole_length());
        let cut = match delivery.content {
            Sent::Nothing => None,
            Sent::Whole => Some(Cut::NONE),
            Sent::Part(part) => Some(Cut::of(part, reader.offset())),
        };
        let mut headers = delivery.head.headers;
        if cut.is_some()
            && let Err(failure) = self.seat(&headers, &mut account)
        {
            return self.failed(&exchange, &failure, account, status);
        }
        let status = status.fwd_status(head.status.as_u16());
        response::finish(&mut headers, &exchange.request_id, Some(&status), None);
        account.head(delivery.head.status, &headers, "", backend);
        let length = stated_length(&headers);
        let content = match cut {
            Some(cut) => Content::Flight(Box::new(FlightBody::new(self, asking, reader, cut))),
            None => Content::Nothing,
        };
        let body = ResponseBody::new(content, length, account);
        assemble(delivery.head.status, headers, body)
    }

    /// Answers with what the flight's fetch failed with, unless something stored stands in.
    fn flight_failed(
        &self,
        asking: &Asking,
        failure: scale0_cache::Failure,
        account: Account,
        status: &CacheStatus,
    ) -> AtCache {
        AtCache::Answered(match self.stand_in(asking, failure.trouble) {
            Some(hit) => self.stored(&asking.exchange, hit, account, CacheStatus::hit()),
            None => {
                let error = ErrorResponse {
                    retry_after: failure.retry_after,
                    ..ErrorResponse::new(failure.status, failure.reason, "")
                };
                let id = &asking.exchange.request_id;
                self.error(&error, id, account, Some(status))
            }
        })
    }

    /// Answers with an error, unless something stored stands in.
    pub(crate) fn failed_at_cache(
        &self,
        asking: &Asking,
        failure: &Failure,
        account: Account,
        status: CacheStatus,
    ) -> Response<ResponseBody> {
        match self.stand_in(asking, Trouble::Unreachable) {
            Some(hit) => self.stored(&asking.exchange, hit, account, CacheStatus::hit()),
            None => self.failed(&asking.exchange, failure, account, status),
        }
    }

    fn stand_in(&self, asking: &Asking, trouble: Trouble) -> Option<Hit> {
        (self.shared.cache).stand_in(clock::now(), &asking.asker(), trouble)
    }
}

/// A response as one client gets it: its own conditions and ranges are judged here (RFC 9110 §13, §14), whoever led.
struct Delivered {
    head: ResponseHead,
    content: Sent,
}

/// What of the content goes to a client.
enum Sent {
    Nothing,
    Whole,
    Part(ByteRange),
}

impl Delivered {
    /// `length` is that of the whole content, where it is known.
    fn judge(exchange: &Exchange, head: &ResponseHead, length: Option<u64>) -> Self {
        let request = &exchange.headers;
        if judge_conditionals(request, head) == Conditional::NotModified {
            return Self {
                head: not_modified_head(head),
                content: Sent::Nothing,
            };
        }
        if exchange.method == Method::HEAD {
            return Self {
                head: head.clone(),
                content: Sent::Nothing,
            };
        }
        let length = length.unwrap_or(u64::MAX);
        match judge_range(request, head, length) {
            // Without a length there is no telling where the last byte is.
            Ranged::Part(part) if length != u64::MAX => Self {
                head: partial_head(head, &part, length),
                content: Sent::Part(part),
            },
            Ranged::NotSatisfiable => Self {
                head: not_satisfiable_head(head, length),
                content: Sent::Nothing,
            },
            Ranged::Whole | Ranged::Part(_) => Self {
                head: head.clone(),
                content: Sent::Whole,
            },
        }
    }
}

/// Why a request that could have shared a fetch did not, for `Cache-Status`.
const fn detail(reason: &scale0_cache::flights::Alone) -> Option<&'static str> {
    use scale0_cache::flights::Alone;
    match reason {
        Alone::Bypass(_) => None,
        Alone::Marked(_) => Some("leader-only"),
        Alone::HeadWithoutGet => Some("head"),
        Alone::WantsItsOwn => Some("no-cache"),
        Alone::Crowded => Some("crowded"),
    }
}

impl Failure {
    /// The client's patience ended before there was a head.
    fn deadline() -> Self {
        Self {
            reason: scale0_wire::Reason::Deadline,
            started: true,
            retry_after_ms: 0,
            detail: String::new(),
        }
    }
}
