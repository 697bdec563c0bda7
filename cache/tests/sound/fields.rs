//! What is true of any fields that a client or an origin may send. The fuzz target includes this file too.

use std::sync::LazyLock;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use scale0_cache::policy::conditional::{judge_conditionals, not_modified_head};
use scale0_cache::policy::range::{content_range, if_range_holds};
use scale0_cache::policy::validation::{
    ask_whether_current, confirms, freshened, head_says, strip_conditionals,
};
use scale0_cache::policy::{
    ByteRange, Directives, Freshness, Policy, RangeSpec, Ranged, RequestFacts, Sharing, Terms,
    Trouble, Vary, date, judge_range, not_satisfiable_head, partial_head,
};
use scale0_cache::{
    Asker, Cache, CacheConfig, CacheKey, Chunk, Join, Lookup, ResponseHead, Served, Turn,
};

/// The fields that anything here reads. Requests and responses get all of them: nobody promises that a field comes where it belongs.
pub(crate) const NAMES: [&str; 28] = [
    "cache-control",
    "cdn-cache-control",
    "pragma",
    "expires",
    "date",
    "age",
    "last-modified",
    "etag",
    "vary",
    "accept",
    "accept-encoding",
    "accept-language",
    "content-language",
    "content-length",
    "content-range",
    "content-type",
    "range",
    "if-range",
    "if-none-match",
    "if-modified-since",
    "if-match",
    "if-unmodified-since",
    "authorization",
    "cookie",
    "set-cookie",
    "surrogate-key",
    "cache-tag",
    "upgrade",
];

/// A millennium, a lifetime that ends, and no time at all.
const ELAPSED: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_secs(60),
    Duration::from_secs(1000 * 365 * 24 * 60 * 60),
    Duration::MAX,
];

/// Reads a message out of any bytes: a line for each field, its first byte says which, the others are its value. The first line is
/// for the status, the method, the delay and the clock.
pub(crate) fn check(bytes: &[u8]) {
    let mut lines = bytes.split(|&byte| byte == b'\n');
    let mut first = lines.next().unwrap_or_default().iter().copied();
    let mut next = || first.next().unwrap_or(0);
    let status = StatusCode::from_u16(100 + u16::from(next()) * 2).unwrap_or(StatusCode::OK);
    let method = [Method::GET, Method::HEAD, Method::POST][usize::from(next()) % 3].clone();
    let delay = Duration::from_secs(u64::from(next()));
    let clock = u64::from(u32::from_le_bytes([next(), next(), next(), next()]));
    let mut headers = HeaderMap::new();
    for line in lines {
        if let [name, value @ ..] = line
            && let Ok(value) = HeaderValue::from_bytes(value)
        {
            let name = NAMES[usize::from(*name) % NAMES.len()];
            headers.append(HeaderName::from_static(name), value);
        }
    }
    let head = ResponseHead { status, headers };
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(clock);
    check_message(&method, &head, delay, wall);
}

/// The same fields are a request's and a response's.
fn check_message(method: &Method, head: &ResponseHead, delay: Duration, wall: SystemTime) {
    let headers = &head.headers;
    check_times(headers, head.status, delay, wall);
    check_sharing(method, head, delay, wall);
    for length in [0, 1, 1000, u64::MAX] {
        check_ranges(head, length);
    }
    if let Vary::Names(names) = Vary::of(headers) {
        let mut sorted = names.iter().map(HeaderName::as_str).collect::<Vec<_>>();
        sorted.dedup();
        assert!(sorted.is_sorted() && sorted.len() == names.len());
    }
    judge_conditionals(headers, head);
    assert_eq!(not_modified_head(head).status, StatusCode::NOT_MODIFIED);
    check_validation(head);
    check_cache(method, head, wall);
}

fn check_times(headers: &HeaderMap, status: StatusCode, delay: Duration, wall: SystemTime) {
    for name in ["date", "expires", "last-modified"].map(HeaderName::from_static) {
        let read = date::date_field(headers, &name);
        let mut lines = headers.get_all(&name).iter();
        if let (Some(line), None) = (lines.next(), lines.next()) {
            let parsed = line.to_str().ok().and_then(date::parse);
            assert!(read.is_none() || read == parsed, "{read:?}, {parsed:?}");
        }
    }
    let freshness = Freshness::of(status, headers, delay, wall);
    assert!(!freshness.is_explicit() || delay <= freshness.age);
    let mut before = None;
    for elapsed in ELAPSED {
        let ttl = freshness.ttl_after(elapsed);
        assert!(elapsed <= freshness.age_after(elapsed));
        assert!(
            ttl.is_none() || freshness.stale_for(elapsed).is_zero(),
            "fresh and stale at once"
        );
        assert!(
            before.is_none_or(|before| ttl <= before),
            "what is stale becomes fresh"
        );
        before = Some(ttl);
    }
}

fn check_sharing(method: &Method, head: &ResponseHead, delay: Duration, wall: SystemTime) {
    let facts = RequestFacts::of(method, &head.headers, false);
    let (directives, _) = Directives::governing(&head.headers);
    let sharing = Sharing::judge(Policy::default(), &facts, head, delay, wall);
    if directives.private || (directives.no_store && !directives.must_understand) {
        assert!(sharing.kept().is_none(), "{directives:?}");
    }
    let freshness = Freshness::of(head.status, &head.headers, delay, wall);
    let terms = Terms::of(&directives, freshness);
    for elapsed in ELAPSED {
        let reuse = terms.reuse(&facts, elapsed);
        assert!(!reuse.is_sent() || !directives.no_cache);
        for trouble in [Trouble::Unreachable, Trouble::ServerError] {
            let stands_in = terms.stands_in(&facts, trouble, elapsed);
            assert!(!stands_in || !directives.must_revalidate);
        }
    }
}

fn check_ranges(head: &ResponseHead, length: u64) {
    let within = |part: ByteRange| part.first <= part.last && part.last < length;
    let range = RangeSpec::of(&head.headers).and_then(|range| range.within(length));
    assert!(range.is_none_or(within));
    if_range_holds(&head.headers, &head.headers);
    if let Some((part, whole)) = content_range(&head.headers) {
        assert!(part.first <= part.last && part.last < whole);
    }
    match judge_range(&head.headers, head, length) {
        Ranged::Part(part) => {
            assert!(within(part));
            let partial = partial_head(head, &part, length);
            assert_eq!(content_range(&partial.headers), Some((part, length)));
        }
        Ranged::NotSatisfiable => {
            let refused = not_satisfiable_head(head, length);
            assert_eq!(refused.status, StatusCode::RANGE_NOT_SATISFIABLE);
        }
        Ranged::Whole => {}
    }
}

fn check_validation(head: &ResponseHead) {
    let headers = &head.headers;
    let mut request = headers.clone();
    strip_conditionals(&mut request);
    assert!(!request.contains_key("if-none-match"));
    ask_whether_current(&mut request, headers);
    confirms(headers, headers);
    head_says(head, head, 5);
    assert_eq!(freshened(head, headers).status, head.status);
}

/// A whole flight of such a response to such a request, and the same request once more.
fn check_cache(method: &Method, head: &ResponseHead, wall: SystemTime) {
    static CACHE: LazyLock<(Cache, Instant)> =
        LazyLock::new(|| (Cache::new(CacheConfig::default()), now()));
    let (cache, now) = &*CACHE;
    let now = *now;
    let asker = Asker {
        key: CacheKey::new("https", "example.com", "/"),
        authority: "example.com",
        path_and_query: "/",
        facts: RequestFacts::of(method, &head.headers, false),
        headers: &head.headers,
        deadline: now + Duration::from_secs(1),
    };
    let mut nobody = Context::from_waker(Waker::noop());
    if let Lookup::Miss { under, .. } = cache.lookup(now, &asker)
        && let Join::Lead {
            mut fill,
            mut reader,
        } = cache.join(now, under, &asker)
    {
        fill.head(now, wall, &head.headers, head.clone());
        fill.push(now, "content".into());
        // Its length may be another than the one it speaks of.
        _ = fill.complete(now, None);
        // Without a head no content follows.
        if let Poll::Ready(Turn::Yours(_)) = reader.poll_head(&mut nobody, &asker) {
            while let Poll::Ready(Chunk::Data(_)) = reader.poll_chunk(&mut nobody) {}
        }
    }
    for elapsed in [Duration::ZERO, Duration::from_secs(60)] {
        if let Lookup::Hit(hit) = cache.lookup(now + elapsed, &asker) {
            assert!(hit.served != Served::Fresh || 0 <= hit.ttl);
            assert!(elapsed <= hit.age);
        }
    }
    cache.invalidate(&asker.key);
}

#[expect(
    clippy::disallowed_methods,
    reason = "all times are later than this one"
)]
fn now() -> Instant {
    Instant::now()
}
