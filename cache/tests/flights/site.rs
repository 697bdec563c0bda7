//! An origin with a few resources, and clients that use the cache as a frontend does.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, StatusCode};
use scale0_cache::flights::MAX_VARIANT_HOPS;
use scale0_cache::policy::{
    RangeSpec, Ranged, Trouble, judge_range, not_satisfiable_head, partial_head,
};
use scale0_cache::{
    Asker, Cache, CacheConfig, CacheKey, Chunk, Failure, Fill, Hit, Join, Lookup, Reader, Rejoin,
    RequestFacts, ResponseHead, Served, Turn, Verdict,
};

use crate::world::World;

/// A cache and an origin in one world.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) world: World,
    pub(crate) cache: Rc<Cache>,
    origin: Rc<Origin>,
    /// Every response that a client got whole, as it went out.
    pub(crate) sent: Rc<RefCell<Vec<Sent>>>,
}

/// A response that a client got whole.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) asked: HeaderMap,
    pub(crate) head: ResponseHead,
    pub(crate) body: Vec<u8>,
}

#[derive(Default)]
struct Origin {
    resources: RefCell<HashMap<String, Resource>>,
    executions: Cell<usize>,
    cancelled: Cell<usize>,
}

/// What the origin has under a path.
#[derive(Debug, Clone)]
pub(crate) struct Resource {
    pub(crate) fields: Vec<(&'static str, &'static str)>,
    /// Another content under the same path.
    pub(crate) version: u64,
    pub(crate) length: usize,
    pub(crate) says_length: bool,
    pub(crate) knows_ranges: bool,
    pub(crate) status: StatusCode,
    /// It answers 304 to whatever it is asked, which is wrong.
    pub(crate) confirms_anything: bool,
    pub(crate) chunk: usize,
    /// Before the head.
    pub(crate) latency: Duration,
    /// Between chunks.
    pub(crate) pause: Duration,
    pub(crate) fate: Fate,
}

/// How the origin's answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Complete,
    FailBeforeHead,
    FailAfter(usize),
    VanishAfter(usize),
    EndShortAfter(usize),
}

pub(crate) const FAILURE: Failure = Failure {
    status: StatusCode::SERVICE_UNAVAILABLE,
    reason: "backend-down",
    retry_after: Some(1),
    trouble: Trouble::Unreachable,
};

impl Default for Resource {
    fn default() -> Self {
        Self {
            fields: vec![("cache-control", "max-age=60"), ("etag", "\"v1\"")],
            version: 0,
            length: 10_000,
            says_length: true,
            knows_ranges: true,
            status: StatusCode::OK,
            confirms_anything: false,
            chunk: 1000,
            latency: Duration::from_millis(500),
            pause: Duration::ZERO,
            fate: Fate::Complete,
        }
    }
}

/// A client's request.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) visitor: u64,
    pub(crate) path: String,
    pub(crate) key: CacheKey,
    pub(crate) facts: RequestFacts,
    pub(crate) headers: HeaderMap,
}

impl Request {
    pub(crate) fn get(visitor: u64, path: &str) -> Self {
        Self::new(&Method::GET, visitor, path, &[])
    }

    pub(crate) fn head(visitor: u64, path: &str) -> Self {
        Self::new(&Method::HEAD, visitor, path, &[])
    }

    pub(crate) fn new(
        method: &Method,
        visitor: u64,
        path: &str,
        fields: &[(&'static str, &str)],
    ) -> Self {
        let headers = to_map(fields);
        let facts = RequestFacts::of(method, &headers, false);
        Self {
            visitor,
            path: path.into(),
            key: CacheKey::new("http", "example.com", path),
            facts,
            headers,
        }
    }

    pub(crate) fn asker(&self, site: &Site) -> Asker<'_> {
        Asker {
            key: self.key,
            authority: "example.com",
            path_and_query: &self.path,
            facts: self.facts,
            headers: &self.headers,
            deadline: site.world.now() + Duration::from_secs(30),
        }
    }
}

pub(crate) fn to_map(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(HeaderName::from_static(name), value.parse().unwrap());
    }
    map
}

/// How a client reads.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Habits {
    /// After each piece of the body.
    pub(crate) pause: Duration,
    /// Leaves after so many bytes.
    pub(crate) leaves_after: Option<usize>,
}

/// What a client got in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A whole response, and when its first and last byte came.
    Whole {
        body: Vec<u8>,
        shared: bool,
        first: Duration,
        last: Duration,
    },
    /// A head, to a HEAD.
    Head,
    /// An error instead of a head.
    Error(Failure),
    /// The connection was aborted after the head.
    Aborted(Vec<u8>),
    /// It left by itself.
    Left,
}

impl Outcome {
    pub(crate) fn body(&self) -> &[u8] {
        match self {
            Self::Whole { body, .. } => body,
            other => panic!("no whole body: {other:?}"),
        }
    }
}

/// A client's outcome, once it has one.
pub(crate) type Pending = Rc<RefCell<Option<Outcome>>>;

impl Site {
    pub(crate) fn new(config: CacheConfig) -> Self {
        Self {
            world: World::new(),
            cache: Rc::new(Cache::new(config)),
            origin: Rc::default(),
            sent: Rc::default(),
        }
    }

    pub(crate) fn has(&self, path: &str, resource: Resource) {
        self.origin
            .resources
            .borrow_mut()
            .insert(path.into(), resource);
    }

    /// How many requests the origin was sent.
    pub(crate) fn executions(&self) -> usize {
        self.origin.executions.get()
    }

    /// How many of them were cancelled.
    pub(crate) fn cancelled(&self) -> usize {
        self.origin.cancelled.get()
    }

    /// What the origin sends to that visitor: a private resource is another for everyone.
    pub(crate) fn expected(&self, request: &Request) -> Vec<u8> {
        let resources = self.origin.resources.borrow();
        let resource = &resources[&request.path];
        let mut owner = 0;
        for (name, value) in &resource.fields {
            if *name == "cache-control" && (value.contains("private") || value.contains("no-store"))
            {
                owner = request.visitor;
            }
            if *name == "vary" {
                let selected = request
                    .headers
                    .get(*value)
                    .map_or(&b""[..], |value| value.as_bytes());
                owner = selected
                    .iter()
                    .fold(7, |hash, byte| hash * 31 + u64::from(*byte));
            }
        }
        owner = owner.wrapping_add(resource.version.wrapping_mul(0x9e37_79b9));
        let salt = request.path.bytes().fold(owner, |hash, byte| {
            hash.wrapping_mul(31).wrapping_add(byte.into())
        });
        (0..resource.length as u64)
            .map(|index| (index.wrapping_mul(salt | 1) >> 3).wrapping_add(salt) as u8)
            .collect()
    }

    /// A client that arrives now.
    pub(crate) fn client(&self, request: Request, habits: Habits) -> Pending {
        self.client_at(Duration::ZERO, request, habits)
    }

    /// A client that arrives after a while.
    pub(crate) fn client_at(&self, delay: Duration, request: Request, habits: Habits) -> Pending {
        let pending = Pending::default();
        let (site, result) = (self.clone(), Rc::clone(&pending));
        self.world.spawn("client", async move {
            if !delay.is_zero() {
                site.world.sleep(delay).await;
            }
            let outcome = site.serve(&request, habits).await;
            let before = result.borrow_mut().replace(outcome);
            assert_eq!(before, None, "exactly one outcome");
        });
        pending
    }

    /// Runs the world to its end, tasks in the order of their arrival.
    pub(crate) fn run(&self) {
        let run = self.world.run(&[], |_| 0, || {});
        assert_eq!(run.orphans, Vec::<&str>::new());
        self.assert_empty();
    }

    /// Nothing is left of any flight.
    pub(crate) fn assert_empty(&self) {
        assert_eq!(
            (self.cache.flights(), self.cache.flight_bytes()),
            (0, 0),
            "a flight without owner"
        );
    }

    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.cache
            .counters()
            .each()
            .find(|counted| counted.name == name)
            .expect(name)
            .value
    }

    async fn serve(&self, request: &Request, habits: Habits) -> Outcome {
        let asker = request.asker(self);
        let mut under = match self.cache.lookup(self.world.now(), &asker) {
            Lookup::Hit(hit) => {
                if hit.served == Served::WhileRevalidating
                    && let Some(fill) = self.cache.refresh(self.world.now(), &hit, &asker)
                {
                    self.fetch(fill, request.clone());
                }
                return self.hit(&request.headers, &hit);
            }
            Lookup::Miss { under, .. } => under,
            Lookup::Loading(_) => panic!("there is no disk"),
            Lookup::GatewayTimeout => return Outcome::Error(FAILURE),
        };
        let mut hops = 0;
        let (mut reader, head) = loop {
            self.world.step().await;
            let mut reader = match self.cache.join(self.world.now(), under, &asker) {
                Join::Lead { fill, reader } => {
                    self.fetch(fill, request.clone());
                    reader
                }
                Join::Wait(reader) => reader,
                Join::Stored(hit) => return self.hit(&request.headers, &hit),
                Join::Alone(_) => return self.alone(request).await,
                Join::Failed(failure) => return self.failed(&asker, failure),
            };
            self.world.step().await;
            match reader.head(&asker).await {
                Turn::Yours(_) if request.facts.is_head() => return Outcome::Head,
                Turn::Yours(head) => break (reader, head),
                Turn::Released(_) | Turn::Unfit => return self.alone(request).await,
                Turn::Variant(key) if hops < MAX_VARIANT_HOPS => {
                    hops += 1;
                    under = key;
                }
                Turn::Variant(_) => return self.alone(request).await,
                Turn::Missed => {}
                Turn::Confirmed { hit, .. } => return self.hit(&request.headers, &hit),
                Turn::Failed(failure) => return self.failed(&asker, failure),
            }
        };
        let (begin, total) = (reader.offset(), reader.whole_length());
        match self.read(&mut reader, request, habits).await {
            Outcome::Whole {
                body,
                shared,
                first,
                last,
            } => Outcome::Whole {
                body: self.deliver(&request.headers, &head, begin, total, body),
                shared,
                first,
                last,
            },
            other => other,
        }
    }

    /// What of the content from `begin` on goes to a client that asked so, as a frontend cuts it.
    fn deliver(
        &self,
        asked: &HeaderMap,
        head: &ResponseHead,
        begin: u64,
        total: Option<u64>,
        mut body: Vec<u8>,
    ) -> Vec<u8> {
        // Without a length there is no telling where the last byte is.
        let ranged = total.map_or(Ranged::Whole, |total| judge_range(asked, head, total));
        let head = match ranged {
            Ranged::Part(part) => {
                let from = (part.first - begin) as usize;
                body = body[from..from + part.length() as usize].to_vec();
                partial_head(head, &part, total.unwrap())
            }
            Ranged::NotSatisfiable => {
                body.clear();
                not_satisfiable_head(head, total.unwrap())
            }
            Ranged::Whole => head.clone(),
        };
        self.sent.borrow_mut().push(Sent {
            asked: asked.clone(),
            head,
            body: body.clone(),
        });
        body
    }

    async fn read(&self, reader: &mut Reader, request: &Request, habits: Habits) -> Outcome {
        let mut body = Vec::new();
        let mut first = None;
        let shared = !reader.is_leader();
        loop {
            match reader.chunk().await {
                Chunk::Data(bytes) => {
                    first.get_or_insert(self.world.elapsed());
                    body.extend_from_slice(&bytes);
                    if habits.leaves_after.is_some_and(|most| most <= body.len()) {
                        return Outcome::Left;
                    }
                    if !habits.pause.is_zero() {
                        self.world.sleep(habits.pause).await;
                    }
                }
                Chunk::End(_) => {
                    let last = self.world.elapsed();
                    return Outcome::Whole {
                        body,
                        shared,
                        first: first.unwrap_or(last),
                        last,
                    };
                }
                Chunk::Failed(_) => return Outcome::Aborted(body),
                Chunk::Behind(behind) => {
                    assert!(
                        behind
                            .offset()
                            .is_none_or(|offset| offset == body.len() as u64)
                    );
                    *reader =
                        match self
                            .cache
                            .rejoin(self.world.now(), behind, &request.asker(self))
                        {
                            Rejoin::Wait(reader) => reader,
                            Rejoin::Lead { fill, reader } => {
                                self.fetch(fill, request.clone());
                                reader
                            }
                            Rejoin::Abort => return Outcome::Aborted(body),
                        };
                }
            }
        }
    }

    async fn alone(&self, request: &Request) -> Outcome {
        self.origin.executions.set(self.origin.executions.get() + 1);
        let resource = self.origin.resources.borrow()[&request.path].clone();
        self.world.sleep(resource.latency).await;
        let whole = Bytes::from(self.expected(request));
        match resource.fate {
            Fate::Complete if request.headers.contains_key("range") => {
                let (_, body) = answer(&resource, &whole, &request.headers);
                self.whole(body.into(), false)
            }
            Fate::Complete => self.whole(whole.into(), false),
            _ => Outcome::Error(FAILURE),
        }
    }

    fn hit(&self, asked: &HeaderMap, hit: &Hit) -> Outcome {
        let (response, bytes) = (&hit.response, hit.response.blocks().unwrap().concat());
        let Some(part) = response.part() else {
            let total = Some(response.length());
            return self.whole(self.deliver(asked, response.head(), 0, total, bytes), true);
        };
        // As a part it may be sent to nobody else than who asks for bytes within it.
        let wanted = part.answer(asked, response.head()).unwrap();
        let from = (wanted.first - part.range.first) as usize;
        let body = bytes[from..from + wanted.length() as usize].to_vec();
        self.sent.borrow_mut().push(Sent {
            asked: asked.clone(),
            head: partial_head(response.head(), &wanted, part.total),
            body: body.clone(),
        });
        self.whole(body, true)
    }

    fn failed(&self, asker: &Asker<'_>, failure: Failure) -> Outcome {
        let now = self.world.now();
        match self.cache.stand_in(now, asker, failure.trouble) {
            Some(hit) => self.hit(asker.headers, &hit),
            None => Outcome::Error(failure),
        }
    }

    fn whole(&self, body: Vec<u8>, shared: bool) -> Outcome {
        let now = self.world.elapsed();
        Outcome::Whole {
            body,
            shared,
            first: now,
            last: now,
        }
    }

    /// The task that fetches for a flight.
    fn fetch(&self, mut fill: Fill, request: Request) {
        let site = self.clone();
        self.world.spawn("fetch", async move {
            site.origin.executions.set(site.origin.executions.get() + 1);
            let resource = site.origin.resources.borrow()[&request.path].clone();
            if !site.wait(&mut fill, resource.latency).await {
                return;
            }
            if resource.fate == Fate::FailBeforeHead {
                fill.fail(site.world.now(), FAILURE);
                return;
            }
            let whole = Bytes::from(site.expected(&request));
            let mut sent = request.headers.clone();
            fill.dress(&mut sent);
            let (head, mut rest) = answer(&resource, &whole, &sent);
            site.world.step().await;
            let verdict = fill.head(site.world.now(), site.world.wall(), &request.headers, head);
            match verdict {
                Verdict::Mismatch | Verdict::Confirmed | Verdict::StoodInFor => return,
                Verdict::Again => return site.fetch(fill, request),
                Verdict::Share | Verdict::LeaderOnly(_) | Verdict::Vary(_) => {}
            }
            let mut sent = 0;
            while !rest.is_empty() {
                match resource.fate {
                    Fate::FailAfter(most) if most <= sent => {
                        return fill.fail(site.world.now(), FAILURE);
                    }
                    Fate::VanishAfter(most) if most <= sent => return,
                    Fate::EndShortAfter(most) if most <= sent => break,
                    _ => {}
                }
                if !site.room(&mut fill).await {
                    return;
                }
                let chunk = rest.split_to(resource.chunk.min(rest.len()));
                sent += chunk.len();
                fill.push(site.world.now(), chunk);
                site.world.step().await;
                if !resource.pause.is_zero() && !site.wait(&mut fill, resource.pause).await {
                    return;
                }
            }
            let _ = fill.complete(site.world.now(), None);
        });
    }

    /// Sleeps; false when the fetch was given up meanwhile.
    async fn wait(&self, fill: &mut Fill, duration: Duration) -> bool {
        let until = self.world.now() + duration;
        let mut registered = false;
        poll_fn(|cx| {
            if fill.poll_abandoned(cx).is_ready() {
                self.origin.cancelled.set(self.origin.cancelled.get() + 1);
                return Poll::Ready(false);
            }
            if registered && until <= self.world.now() {
                return Poll::Ready(true);
            }
            registered = true;
            self.world.wake_at(cx, until);
            Poll::Pending
        })
        .await
    }

    /// Waits for room; false when the fetch was given up meanwhile.
    async fn room(&self, fill: &mut Fill) -> bool {
        poll_fn(|cx| {
            if fill.poll_abandoned(cx).is_ready() {
                self.origin.cancelled.set(self.origin.cancelled.get() + 1);
                return Poll::Ready(false);
            }
            if let Poll::Ready(room) = fill.poll_room(cx, self.world.now()) {
                assert!(0 < room);
                return Poll::Ready(true);
            }
            if let Some(time) = fill.wake_at() {
                self.world.wake_at(cx, time);
            }
            Poll::Pending
        })
        .await
    }
}

fn answer(resource: &Resource, whole: &Bytes, request: &HeaderMap) -> (ResponseHead, Bytes) {
    let mut headers = to_map(&resource.fields);
    let mut body = whole.clone();
    let mut status = resource.status;
    if request.contains_key("if-none-match") && resource.status.is_success() {
        let is_current = headers.get("etag") == request.get("if-none-match");
        if is_current || resource.confirms_anything {
            return (
                ResponseHead {
                    status: StatusCode::NOT_MODIFIED,
                    headers,
                },
                Bytes::new(),
            );
        }
    }
    let condition = request.get("if-range");
    let is_current = condition.is_none_or(|tag| headers.get("etag") == Some(tag));
    if let Some(range) = RangeSpec::of(request).filter(|_| resource.knows_ranges && is_current) {
        let total = whole.len();
        let content_range = if let Some(part) = range.within(total as u64) {
            body = whole.slice(part.first as usize..=part.last as usize);
            status = StatusCode::PARTIAL_CONTENT;
            format!("bytes {}-{}/{total}", part.first, part.last)
        } else {
            body = Bytes::new();
            status = StatusCode::RANGE_NOT_SATISFIABLE;
            format!("bytes */{total}")
        };
        headers.insert("content-range", content_range.parse().unwrap());
    }
    if resource.says_length {
        headers.insert("content-length", body.len().into());
    }
    (ResponseHead { status, headers }, body)
}
