//! A request as the cache sees it.

use std::time::Duration;

use http::header::{
    AUTHORIZATION, CACHE_CONTROL, COOKIE, IF_MATCH, IF_UNMODIFIED_SINCE, RANGE, UPGRADE,
};
use http::{HeaderMap, Method};

use super::{Directives, RangeSpec};

/// What of a request bears on storing and sharing; read once, copied freely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestFacts {
    coalescing: Coalescing,
    is_head: bool,
    has_authorization: bool,
    has_cookie: bool,
    no_store: bool,
    no_cache: bool,
    only_if_cached: bool,
    max_age: Option<u32>,
    min_fresh: Option<u32>,
    max_stale: Option<u32>,
    range: Option<RangeSpec>,
    is_sent_with_range: bool,
    is_kept: bool,
    waits: bool,
}

/// The part a request may play in a flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coalescing {
    /// A plain GET: it leads a flight or waits for one.
    LeadOrWait,
    /// A GET that wants an answer made for it (`no-cache`, `max-age=0`): others may wait for it, it
    /// waits for nobody.
    LeadOnly,
    /// A HEAD: it takes the head of a running GET, and is dispatched alone where there is none.
    WaitOnly,
    /// A GET for a part: answered from a stored whole or part, or from a flight that has come as far; otherwise that part alone is
    /// fetched, as the whole may cost any multiple of it.
    Part,
    /// Dispatched alone, whatever is in flight.
    Never(Bypass),
}

/// Why a request has nothing to do with flights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bypass {
    /// Neither GET nor HEAD.
    Method,
    /// A request for a part of what is not stored.
    Range,
    /// `Cache-Control: no-store` in the request.
    NoStore,
    /// It carries content, of which the key knows nothing.
    Content,
    /// It asks for another protocol.
    Upgrade,
    /// `If-Match` or `If-Unmodified-Since`, which a cache must leave to the origin (RFC 9111
    /// §4.3.2).
    Precondition,
}

/// Which fields a request has, of those that bear on storing and sharing. One pass over the few that it has costs less than a look
/// for each.
#[derive(Default)]
struct Present {
    authorization: bool,
    cache_control: bool,
    cookie: bool,
    precondition: bool,
    range: bool,
    upgrade: bool,
}

impl Present {
    fn of(headers: &HeaderMap) -> Self {
        let mut present = Self::default();
        for name in headers.keys() {
            match *name {
                AUTHORIZATION => present.authorization = true,
                CACHE_CONTROL => present.cache_control = true,
                COOKIE => present.cookie = true,
                IF_MATCH | IF_UNMODIFIED_SINCE => present.precondition = true,
                RANGE => present.range = true,
                UPGRADE => present.upgrade = true,
                _ => {}
            }
        }
        present
    }
}

impl RequestFacts {
    /// Reads a request's method and fields.
    pub fn of(method: &Method, headers: &HeaderMap, has_content: bool) -> Self {
        let present = Present::of(headers);
        let directives = if present.cache_control {
            Directives::of(headers)
        } else {
            Directives::default()
        };
        let is_head = method == Method::HEAD;
        let never = [
            (!is_head && method != Method::GET, Bypass::Method),
            (present.upgrade, Bypass::Upgrade),
            (has_content, Bypass::Content),
            (directives.no_store, Bypass::NoStore),
            (present.precondition, Bypass::Precondition),
        ];
        let no_cache = directives.no_cache || directives.max_age == Some(0);
        let range = present.range.then(|| RangeSpec::of(headers)).flatten();
        // From the first byte to the last is the whole: players ask so.
        let wants_part = present.range && range != Some(RangeSpec::From(0, None));
        let coalescing = match never.into_iter().find(|(applies, _)| *applies) {
            Some((_, bypass)) => Coalescing::Never(bypass),
            None if is_head && no_cache => Coalescing::Never(Bypass::Method),
            None if is_head => Coalescing::WaitOnly,
            None if wants_part => Coalescing::Part,
            None if no_cache => Coalescing::LeadOnly,
            None => Coalescing::LeadOrWait,
        };
        Self {
            coalescing,
            is_head,
            has_authorization: present.authorization,
            has_cookie: present.cookie,
            no_store: directives.no_store,
            no_cache,
            only_if_cached: directives.only_if_cached,
            max_age: directives.max_age,
            min_fresh: directives.min_fresh,
            max_stale: directives.max_stale,
            range,
            is_sent_with_range: false,
            is_kept: true,
            waits: true,
        }
    }

    /// The same for a route that stores nothing: it may share a fetch, and that is all.
    #[must_use]
    pub fn unstored(self) -> Self {
        Self {
            is_kept: false,
            ..self
        }
    }

    /// The same for a route that coalesces nothing: it waits for no other request's answer.
    #[must_use]
    pub fn waiting_for_nobody(self) -> Self {
        let coalescing = match self.coalescing {
            Coalescing::LeadOrWait => Coalescing::LeadOnly,
            other => other,
        };
        Self {
            coalescing,
            waits: false,
            ..self
        }
    }

    /// The same for a request that is sent with its `Range`: then a part is an answer to it.
    pub(crate) fn sent_with_range(self) -> Self {
        Self {
            is_sent_with_range: true,
            ..self
        }
    }

    /// Whether the request that is sent asks for a part.
    pub(crate) fn is_sent_with_range(&self) -> bool {
        self.is_sent_with_range
    }

    /// Whether it takes the answer to another request that is under way.
    pub(crate) fn waits(&self) -> bool {
        self.waits
    }

    /// The facts of a GET with the same fields.
    pub(crate) fn as_get(&self) -> Self {
        let coalescing = match self.coalescing {
            Coalescing::WaitOnly => Coalescing::LeadOrWait,
            Coalescing::Never(Bypass::Method) if self.is_head => Coalescing::LeadOnly,
            other => other,
        };
        Self {
            coalescing,
            is_head: false,
            ..*self
        }
    }

    /// Whether what it fetches may be stored, as far as its route goes.
    pub(crate) fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// The part it may play in a flight.
    pub fn coalescing(&self) -> Coalescing {
        self.coalescing
    }

    /// Whether a stored response may answer it at all: GET or HEAD, without content, preconditions
    /// or another protocol.
    pub fn may_be_answered_from_store(&self) -> bool {
        !matches!(self.coalescing, Coalescing::Never(_))
    }

    /// The same, if its route has anything stored.
    pub(crate) fn looks_in_store(&self) -> bool {
        self.is_kept && self.may_be_answered_from_store()
    }

    /// A HEAD: it ends with the head.
    pub fn is_head(&self) -> bool {
        self.is_head
    }

    /// `only-if-cached`: 504 rather than a fetch (RFC 9111 §5.2.1.7).
    pub fn only_if_cached(&self) -> bool {
        self.only_if_cached
    }

    /// `no-store`: nothing of the exchange is kept (RFC 9111 §5.2.1.5).
    pub fn no_store(&self) -> bool {
        self.no_store
    }

    /// It carries `Authorization` (RFC 9111 §3.5).
    pub fn has_authorization(&self) -> bool {
        self.has_authorization
    }

    /// It carries `Cookie` or `Authorization`: an answer without explicit freshness is not for
    /// others, and theirs not for it.
    pub fn is_personal(&self) -> bool {
        self.has_cookie || self.has_authorization
    }

    /// The one range it asks for.
    pub fn range(&self) -> Option<RangeSpec> {
        self.range
    }

    /// `no-cache`, or `max-age=0`: it takes no stored response that has not been validated for it.
    pub fn wants_validation(&self) -> bool {
        self.no_cache || self.no_store
    }

    /// Whether a response of that age is too old for it (`max-age`).
    pub(super) fn is_older_than_wanted(&self, age: Duration) -> bool {
        seconds(self.max_age).is_some_and(|limit| limit < age)
    }

    /// For how long a response is still to be fresh (`min-fresh`).
    pub(super) fn wants_fresh_for(&self) -> Option<Duration> {
        seconds(self.min_fresh)
    }

    /// For how long a response may have been stale (`max-stale`).
    pub(super) fn takes_stale_for(&self) -> Option<Duration> {
        seconds(self.max_stale)
    }
}

fn seconds(seconds: Option<u32>) -> Option<Duration> {
    Some(Duration::from_secs(seconds?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;
    use http::header::CACHE_CONTROL;

    fn request(method: &Method, fields: &[(HeaderName, &str)]) -> RequestFacts {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, value.parse().unwrap());
        }
        RequestFacts::of(method, &headers, false)
    }

    #[test]
    fn a_route_without_coalescing_still_answers_from_the_store() {
        for (method, coalescing) in [
            (Method::GET, Coalescing::LeadOnly),
            (Method::HEAD, Coalescing::WaitOnly),
        ] {
            let facts = RequestFacts::of(&method, &HeaderMap::new(), false).waiting_for_nobody();
            assert_eq!((facts.coalescing(), facts.waits()), (coalescing, false));
            assert!(facts.may_be_answered_from_store());
        }
    }

    #[test]
    fn only_a_plain_get_leads_and_a_head_only_waits() {
        assert_eq!(
            request(&Method::GET, &[]).coalescing(),
            Coalescing::LeadOrWait
        );
        assert_eq!(
            request(&Method::HEAD, &[]).coalescing(),
            Coalescing::WaitOnly
        );
        // cloudflare/pingora#265: the answer to OPTIONS was stored for GET.
        for method in [
            Method::OPTIONS,
            Method::POST,
            Method::PUT,
            Method::from_bytes(b"M-SEARCH").unwrap(),
        ] {
            assert_eq!(
                request(&method, &[]).coalescing(),
                Coalescing::Never(Bypass::Method)
            );
        }
        assert_eq!(
            request(&Method::GET, &[(RANGE, "bytes=0-1")]).coalescing(),
            Coalescing::Part
        );
        assert_eq!(
            request(&Method::GET, &[(RANGE, "bytes=0-")]).coalescing(),
            Coalescing::LeadOrWait
        );
        assert_eq!(
            request(&Method::HEAD, &[(RANGE, "bytes=0-1")]).coalescing(),
            Coalescing::WaitOnly
        );
        assert_eq!(
            request(&Method::GET, &[(UPGRADE, "websocket")]).coalescing(),
            Coalescing::Never(Bypass::Upgrade)
        );
        assert_eq!(
            request(&Method::GET, &[(IF_MATCH, "\"a\"")]).coalescing(),
            Coalescing::Never(Bypass::Precondition)
        );
        assert_eq!(
            request(&Method::GET, &[(CACHE_CONTROL, "no-store")]).coalescing(),
            Coalescing::Never(Bypass::NoStore)
        );
        assert_eq!(
            RequestFacts::of(&Method::GET, &HeaderMap::new(), true).coalescing(),
            Coalescing::Never(Bypass::Content)
        );
        assert_eq!(
            request(&Method::GET, &[(CACHE_CONTROL, "no-cache")]).coalescing(),
            Coalescing::LeadOnly
        );
        assert_eq!(
            request(&Method::GET, &[(CACHE_CONTROL, "max-age=0")]).coalescing(),
            Coalescing::LeadOnly
        );
    }
}
