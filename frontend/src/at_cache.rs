//! A request at the cache: answered from the store or from a flight, or sent on alone.

use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::time::Duration;

use http::header::HeaderValue;
use http::{Method, Response, StatusCode};
use scale0_cache::flights::MAX_VARIANT_HOPS;
use scale0_cache::policy::{
    ByteRange, CacheStatus, Conditional, Forward, Part, Ranged, Trouble, judge_conditionals,
    judge_range, not_modified_head, not_satisfiable_head, partial_head,
};
use scale0_cache::{Asker, CacheKey, Hit, Join, Lookup, Reader, ResponseHead, Served, Turn};

use crate::account::Account;
use crate::body::{Content, ResponseBody, stated_length};
use crate::clock;
use crate::error_response::ErrorResponse;
use crate::exchange::Exchange;
use crate::flight::{Asking, Cut, FlightBody, spawn_fetch};
use crate::interim::Interims;
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

/// What memory says to a request.
pub(crate) enum AtOnce {
    /// The answer.
    Answered(Response<ResponseBody>),
    /// This, which takes more than a look.
    Found(Account, Lookup),
}

/// What became of a request at the cache.
pub(crate) enum AtCache {
    Answered(Response<ResponseBody>),
    Alone(Account, Alone),
}

/// A URI and its variant; what memory has lost again by then is fetched.
const MAX_LOADS: usize = 2;

/// How long a request waits for the disk; then it is cheaper to ask the backend.
const DISK_PATIENCE: Duration = Duration::from_secs(1);

/// What a lookup has found, in an account.
const fn found_of(found: &Lookup) -> &'static str {
    match found {
        Lookup::Hit(_) => "hit",
        Lookup::Miss { .. } => "miss",
        Lookup::Loading(_) => "on-disk",
        Lookup::GatewayTimeout => "only-if-cached",
    }
}

/// Why a waiter has to go on from its flight, in an account; none: it need not.
const fn turn_of(turn: &Turn) -> Option<&'static str> {
    match turn {
        Turn::Released(_) => Some("leader-only"),
        Turn::Unfit => Some("unfit"),
        Turn::Variant(_) => Some("variant"),
        Turn::Missed => Some("missed"),
        Turn::Yours(_) | Turn::Confirmed { .. } | Turn::Failed(_) => None,
    }
}

impl Worker {
    /// Answers with what is fresh and in memory, which is what most requests are for; else says what was found.
    pub(crate) fn at_once(
        &self,
        exchange: &Exchange,
        asker: &Asker<'_>,
        account: Account,
    ) -> AtOnce {
        match self.shared.cache.lookup(exchange.started, asker) {
            Lookup::Hit(hit) if hit.served == Served::Fresh && hit.response.blocks().is_some() => {
                exchange.note_why("looked-up", "hit");
                let (head, content) = self.delivery(exchange, &hit);
                let status = CacheStatus::hit();
                AtOnce::Answered(Self::deliver(
                    exchange, &hit, head, content, account, status,
                ))
            }
            found => {
                exchange.note_why("looked-up", found_of(&found));
                AtOnce::Found(account, found)
            }
        }
    }

    /// Answers from the store or from a flight, if that can be. `found` is what a lookup has found.
    pub(crate) async fn at_cache(
        self: &Rc<Self>,
        asking: Asking,
        account: Account,
        found: Lookup,
    ) -> AtCache {
        match self.try_at_cache(&asking, account, Some(found)).await {
            Ok(done) => done,
            // What was found is damaged, and forgotten.
            Err(account) => match self.try_at_cache(&asking, account, None).await {
                Ok(done) => done,
                Err(account) => AtCache::Alone(
                    account,
                    Alone {
                        forward: Forward::Miss,
                        detail: Some("damaged"),
                        learn: Some((asking.key, asking)),
                    },
                ),
            },
        }
    }

    /// Gives the account back where what was found cannot be read.
    async fn try_at_cache(
        self: &Rc<Self>,
        asking: &Asking,
        account: Account,
        found: Option<Lookup>,
    ) -> Result<AtCache, Account> {
        let cache = &self.shared.cache;
        let (mut under, forward) = match self.look(asking, found).await {
            Lookup::Hit(hit) => return self.hit(asking, hit, account, CacheStatus::hit()).await,
            Lookup::Miss { under, forward } => (under, forward),
            // Whoever looked has waited already.
            Lookup::Loading(_) => (asking.key, Forward::Miss),
            Lookup::GatewayTimeout => {
                let error = ErrorResponse::new(
                    StatusCode::GATEWAY_TIMEOUT,
                    "only-if-cached",
                    "nothing suitable is stored",
                );
                let id = &asking.exchange.request_id;
                return Ok(AtCache::Answered(self.error(&error, id, account, None)));
            }
        };
        let alone = |under, detail| Alone {
            forward,
            detail,
            learn: Some((under, asking.clone())),
        };
        let interims = Rc::new(Interims::to(&asking.exchange, &account));
        let mut moves = 0;
        loop {
            let join = cache.join(clock::now(), under, &asking.asker());
            let (mut reader, fetched_from) = match join {
                Join::Lead { fill, reader } => {
                    asking.exchange.note("leads");
                    let to = Rc::downgrade(&interims);
                    let (exchange, due) = (&asking.exchange, asking.exchange.due());
                    (reader, Some(spawn_fetch(self, exchange, fill, due, to)))
                }
                Join::Wait(reader) => {
                    asking.exchange.note("joins");
                    (reader, None)
                }
                Join::Stored(hit) => {
                    return self.hit(asking, hit, account, CacheStatus::hit()).await;
                }
                Join::Alone(reason) => {
                    return Ok(AtCache::Alone(account, alone(under, detail(&reason))));
                }
                Join::Failed(failure) => {
                    let status = CacheStatus::forward(forward).collapsed(true);
                    return Ok(self.flight_failed(asking, failure, account, &status).await);
                }
            };
            let collapsed = fetched_from.is_none();
            let status = CacheStatus::forward(forward).collapsed(collapsed);
            let turn = {
                let asker = asking.asker();
                let head = interims.during(reader.head(&asker));
                tokio::time::timeout_at(asking.exchange.due().into(), head).await
            };
            if let Some(turn) = turn.as_ref().ok().and_then(turn_of) {
                asking.exchange.note_why("released", turn);
            }
            let again = match turn {
                Ok(Turn::Yours(head)) => {
                    let stores = !collapsed
                        && asking.exchange.rules.cache
                        && reader.sharing().is_some_and(|it| it.kept().is_some());
                    let status = status.stored(stores);
                    let backend = fetched_from.as_ref().and_then(|from| from.get());
                    let asking = asking.clone();
                    let response = self.flight(asking, &head, reader, status, account, backend);
                    return Ok(AtCache::Answered(response));
                }
                Ok(Turn::Confirmed { hit, is_kept }) => {
                    let not_modified = StatusCode::NOT_MODIFIED.as_u16();
                    let status = (status.fwd_status(not_modified)).stored(!collapsed && is_kept);
                    return self.hit(asking, hit, account, status).await;
                }
                Ok(Turn::Released(_)) => Err("leader-only"),
                Ok(Turn::Unfit) => Err("unfit"),
                Ok(Turn::Variant(variant)) => Ok(variant),
                Ok(Turn::Missed) => Ok(under),
                Ok(Turn::Failed(failure)) => {
                    return Ok(self.flight_failed(asking, failure, account, &status).await);
                }
                Err(_elapsed) => {
                    let failure = Failure::deadline();
                    let response = self
                        .failed_at_cache(asking, &failure, account, status)
                        .await;
                    return Ok(AtCache::Answered(response));
                }
            };
            under = match again {
                Ok(next) if moves < MAX_VARIANT_HOPS => next,
                Ok(_) => return Ok(AtCache::Alone(account, alone(under, Some("variant")))),
                Err(detail) => return Ok(AtCache::Alone(account, alone(under, Some(detail)))),
            };
            moves += 1;
        }
    }

    /// Looks for a stored response, unless something was found already, and waits for the disk where it may be there, within
    /// reason.
    async fn look(&self, asking: &Asking, mut found: Option<Lookup>) -> Lookup {
        let cache = &self.shared.cache;
        let asker = asking.asker();
        let patience = clock::now() + DISK_PATIENCE;
        for _ in 0..MAX_LOADS {
            let found = found.take();
            let loading = match found.unwrap_or_else(|| cache.lookup(clock::now(), &asker)) {
                Lookup::Loading(loading) => loading,
                found => return found,
            };
            let loaded = poll_fn(|cx| cache.poll_loading(cx, &loading));
            match tokio::time::timeout_at(patience.into(), loaded).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(_elapsed) => {
                    cache.count_late();
                    break;
                }
            }
        }
        cache.lookup_in_memory(clock::now(), &asker)
    }

    /// Answers with a stored response, and has it brought up to date where it is sent stale meanwhile.
    async fn hit(
        self: &Rc<Self>,
        asking: &Asking,
        hit: Hit,
        account: Account,
        status: CacheStatus,
    ) -> Result<AtCache, Account> {
        if hit.served == Served::WhileRevalidating {
            let fill = (self.shared.cache).refresh(clock::now(), &hit, &asking.asker());
            if let Some(fill) = fill {
                let due = asking.exchange.due();
                spawn_fetch(self, &asking.exchange, fill, due, Weak::new());
            }
        }
        let stored = self.stored(&asking.exchange, hit, account, status).await;
        stored.map(AtCache::Answered)
    }

    /// Answers with a stored response; gives the account back where it cannot be read.
    async fn stored(
        &self,
        exchange: &Exchange,
        hit: Hit,
        account: Account,
        status: CacheStatus,
    ) -> Result<Response<ResponseBody>, Account> {
        let (head, content) = self.delivery(exchange, &hit);
        match self.prepared(&hit, content).await {
            Some(content) => Ok(Self::deliver(
                exchange, &hit, head, content, account, status,
            )),
            None => Err(account),
        }
    }

    /// A stored response as this client gets it.
    fn delivery(&self, exchange: &Exchange, hit: &Hit) -> (ResponseHead, Content) {
        let response = &hit.response;
        let delivery = match response.part() {
            Some(part) => Delivered::of_part(exchange, response.head(), part),
            None => Delivered::judge(exchange, response.head(), Some(response.length())),
        };
        // The place of what is stored in the whole.
        let begin = response.part().map_or(0, |part| part.range.first);
        let content = match delivery.content {
            Sent::Nothing => Content::Nothing,
            Sent::Whole => Content::Stored {
                body: self.shared.cache.content(hit, 0).0,
                cut: Cut::NONE,
            },
            Sent::Part(part) => {
                let (body, skip) = self.shared.cache.content(hit, part.first - begin);
                let cut = Cut::after(skip, part.length());
                Content::Stored { body, cut }
            }
        };
        (delivery.head, content)
    }

    /// The same content, its first block read and found good: after the head it would be too late to say that there is none.
    async fn prepared(&self, hit: &Hit, mut content: Content) -> Option<Content> {
        if let Content::Stored { body, .. } = &mut content
            && hit.response.blocks().is_none()
        {
            let first = poll_fn(|cx| body.poll_first(cx));
            match tokio::time::timeout(DISK_PATIENCE, first).await {
                Ok(Ok(())) => {}
                Ok(Err(_damaged)) => return None,
                // A slow disk is no damage: what lies there is as good as before.
                Err(_elapsed) => {
                    self.shared.cache.count_late();
                    return None;
                }
            }
        }
        Some(content)
    }

    fn deliver(
        exchange: &Exchange,
        hit: &Hit,
        mut head: ResponseHead,
        content: Content,
        mut account: Account,
        status: CacheStatus,
    ) -> Response<ResponseBody> {
        let status = match hit.served {
            Served::Fresh | Served::Validated => status,
            Served::Stale => status.detail("max-stale"),
            Served::WhileRevalidating => status.detail("stale-while-revalidate"),
            Served::InTrouble => status.detail("stale-if-error"),
        };
        response::finish(
            &mut head.headers,
            &exchange.request_id,
            Some(&status.ttl(hit.ttl)),
            Some(hit.age),
        );
        account.head(head.status, &mut head.headers, "", None);
        let body = ResponseBody::new(content, None, account);
        assemble(head.status, head.headers, body)
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
        // Whoever came a while after the head gets what is stored, without its being validated (RFC 9111 §4).
        let age = reader.age(clock::now()).filter(|age| 1 <= age.as_secs());
        response::finish(&mut headers, &exchange.request_id, Some(&status), age);
        account.head(delivery.head.status, &mut headers, "", backend);
        let nothing = || reader.whole_length().filter(|length| *length == 0);
        let length = stated_length(&headers).or_else(nothing);
        let content = match cut {
            Some(cut) => Content::Flight(Box::new(FlightBody::new(self, asking, reader, cut))),
            None => Content::Nothing,
        };
        let body = ResponseBody::new(content, length, account);
        assemble(delivery.head.status, headers, body)
    }

    /// Answers with what the flight's fetch failed with, unless something stored stands in.
    async fn flight_failed(
        &self,
        asking: &Asking,
        failure: scale0_cache::Failure,
        account: Account,
        status: &CacheStatus,
    ) -> AtCache {
        let stood_in = self.stand_in(asking, failure.trouble, account).await;
        AtCache::Answered(stood_in.unwrap_or_else(|account| {
            let error = ErrorResponse {
                retry_after: failure.retry_after,
                ..ErrorResponse::new(failure.status, failure.reason, "")
            };
            let id = &asking.exchange.request_id;
            self.error(&error, id, account, Some(status))
        }))
    }

    /// Answers with an error, unless something stored stands in.
    pub(crate) async fn failed_at_cache(
        &self,
        asking: &Asking,
        failure: &Failure,
        account: Account,
        status: CacheStatus,
    ) -> Response<ResponseBody> {
        let stood_in = self.stand_in(asking, Trouble::Unreachable, account).await;
        stood_in.unwrap_or_else(|account| self.failed(&asking.exchange, failure, account, status))
    }

    async fn stand_in(
        &self,
        asking: &Asking,
        trouble: Trouble,
        account: Account,
    ) -> Result<Response<ResponseBody>, Account> {
        let hit = (self.shared.cache).stand_in(clock::now(), &asking.asker(), trouble);
        match hit {
            Some(hit) => {
                let status = CacheStatus::hit();
                self.stored(&asking.exchange, hit, account, status).await
            }
            None => Err(account),
        }
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
    /// Of a stored part, which has all bytes that this client asks for: the cache has seen to that.
    fn of_part(exchange: &Exchange, head: &ResponseHead, part: &Part) -> Self {
        let request = &exchange.headers;
        if judge_conditionals(request, head) == Conditional::NotModified {
            return Self {
                head: not_modified_head(head),
                content: Sent::Nothing,
            };
        }
        let wanted = part.answer(request, head).unwrap_or(part.range);
        Self {
            head: partial_head(head, &wanted, part.total),
            content: Sent::Part(wanted),
        }
    }

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
        // Without a length there is no telling where the last byte is.
        let ranged = length.map(|length| (judge_range(request, head, length), length));
        match ranged {
            Some((Ranged::Part(part), length)) => Self {
                head: partial_head(head, &part, length),
                content: Sent::Part(part),
            },
            Some((Ranged::NotSatisfiable, length)) => Self {
                head: not_satisfiable_head(head, length),
                content: Sent::Nothing,
            },
            Some((Ranged::Whole, _)) | None => Self {
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
