//! On what terms a stored response may be reused (RFC 9111 §4, RFC 5861).

use std::time::Duration;

use http::StatusCode;

use super::{Directives, Freshness, RequestFacts, Source};

/// How long after its lifetime a response stands in for a backend that cannot be reached, where the origin says nothing about it
/// (RFC 9111 §4.2.4 allows it to a cache that is "disconnected" and sets no bound). A day bridges an outage, and does not show a
/// page of last month.
pub const UNREACHABLE_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// What the origin allows to be done with a stored response, as far as time decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Lifetime and age at receipt.
    pub freshness: Freshness,
    /// `no-cache`: every use is validated first.
    pub validated_always: bool,
    /// Whether it may be sent although it is stale.
    pub staleness: Staleness,
    /// `stale-while-revalidate`: for so long after its lifetime it is sent while it is being validated.
    pub while_revalidate: Duration,
    /// `stale-if-error`: for so long after its lifetime it is sent rather than an error.
    pub if_error: Option<Duration>,
}

/// What the origin says about stale responses in general.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Staleness {
    /// Nothing: the cache may decide.
    Unspoken,
    /// Only where a directive of RFC 5861 allows it: `s-maxage` alone implies `proxy-revalidate` (RFC 9111 §5.2.2.10), and an
    /// origin that writes `s-maxage=60, stale-while-revalidate=30` means both.
    AsAllowed,
    /// Never: `must-revalidate`, `proxy-revalidate`, `no-cache`.
    Never,
}

/// What a stored response is to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Fresh: send it.
    Fresh,
    /// Stale, and the client takes it so (`max-stale`): send it.
    Stale,
    /// Stale, and within `stale-while-revalidate`: send it, and validate it meanwhile.
    WhileRevalidating,
    /// It is stale: validate it first.
    ValidateStale,
    /// It is fresh, but this request asks for more: validate it first.
    ValidateForRequest,
    /// It is a part of the representation, and not all of what is asked for.
    OtherPart,
    /// It is not for this request, validated or not.
    NotForThis,
}

impl Reuse {
    /// Whether it may be sent as it is.
    pub fn is_sent(self) -> bool {
        match self {
            Self::Fresh | Self::Stale | Self::WhileRevalidating => true,
            Self::ValidateStale | Self::ValidateForRequest | Self::OtherPart | Self::NotForThis => {
                false
            }
        }
    }
}

/// Why there is no better answer than a stale one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// No answer came from the origin at all.
    Unreachable,
    /// The origin answered 500, 502, 503 or 504 (RFC 5861 §4).
    ServerError,
}

/// Whether that status counts as an error for which a stale response stands in (RFC 5861 §4).
pub(crate) fn is_error_to_stand_in_for(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

impl Terms {
    /// The terms that a response's governing directives give.
    pub fn of(directives: &Directives, freshness: Freshness) -> Self {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        let staleness =
            if directives.must_revalidate || directives.proxy_revalidate || directives.no_cache {
                Staleness::Never
            } else if directives.s_maxage.is_some() {
                Staleness::AsAllowed
            } else {
                Staleness::Unspoken
            };
        Self {
            freshness,
            validated_always: directives.no_cache,
            staleness,
            while_revalidate: seconds(directives.stale_while_revalidate.unwrap_or(0)),
            if_error: directives.stale_if_error.map(seconds),
        }
    }

    /// The same for a response that nobody may have unvalidated.
    pub(crate) fn always_validated(self) -> Self {
        Self {
            validated_always: true,
            staleness: Staleness::Never,
            ..self
        }
    }

    /// What such a response is to `request`, `elapsed` after it was received.
    pub fn reuse(&self, request: &RequestFacts, elapsed: Duration) -> Reuse {
        if self.freshness.source == Source::Heuristic && request.is_personal() {
            return Reuse::NotForThis;
        }
        if request.wants_validation() {
            return Reuse::ValidateForRequest;
        }
        if self.validated_always {
            return Reuse::ValidateStale;
        }
        if request.is_older_than_wanted(self.freshness.age_after(elapsed)) {
            return match self.freshness.ttl_after(elapsed) {
                Some(_) => Reuse::ValidateForRequest,
                None => Reuse::ValidateStale,
            };
        }
        match self.freshness.ttl_after(elapsed) {
            Some(ttl) if request.wants_fresh_for().is_none_or(|least| least <= ttl) => Reuse::Fresh,
            Some(_) => Reuse::ValidateForRequest,
            None => self.reuse_stale(request, self.freshness.stale_for(elapsed)),
        }
    }

    fn reuse_stale(&self, request: &RequestFacts, stale_for: Duration) -> Reuse {
        if self.staleness == Staleness::Never || request.wants_fresh_for().is_some() {
            return Reuse::ValidateStale;
        }
        if stale_for < self.while_revalidate {
            return Reuse::WhileRevalidating;
        }
        let takes_stale = request
            .takes_stale_for()
            .is_some_and(|limit| stale_for <= limit);
        if takes_stale && self.staleness == Staleness::Unspoken {
            Reuse::Stale
        } else {
            Reuse::ValidateStale
        }
    }

    /// Whether it may be sent, `elapsed` after it was received, because of that trouble.
    pub fn stands_in(&self, request: &RequestFacts, trouble: Trouble, elapsed: Duration) -> bool {
        if self.staleness == Staleness::Never
            || request.wants_validation()
            || (self.freshness.source == Source::Heuristic && request.is_personal())
        {
            return false;
        }
        let stale_for = self.freshness.stale_for(elapsed);
        match (self.if_error, trouble, self.staleness) {
            (Some(limit), _, _) => stale_for <= limit,
            (None, Trouble::Unreachable, Staleness::Unspoken) => stale_for <= UNREACHABLE_FOR,
            (None, _, _) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::header::CACHE_CONTROL;
    use http::{HeaderMap, Method};

    use super::*;

    const AGE: Duration = Duration::from_secs(10);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn headers(cache_control: &str) -> HeaderMap {
        [(CACHE_CONTROL, cache_control.parse().unwrap())]
            .into_iter()
            .collect()
    }

    fn terms(cache_control: &str) -> Terms {
        let directives = Directives::of(&headers(cache_control));
        let lifetime = directives.s_maxage.or(directives.max_age).unwrap_or(0);
        let freshness = Freshness {
            lifetime: seconds(lifetime.into()),
            age: AGE,
            source: Source::MaxAge,
        };
        Terms::of(&directives, freshness)
    }

    fn request(cache_control: &str) -> RequestFacts {
        RequestFacts::of(&Method::GET, &headers(cache_control), false)
    }

    fn reuse(response: &str, asked: &str, after: u64) -> Reuse {
        terms(response).reuse(&request(asked), seconds(after))
    }

    #[test]
    fn a_request_gets_what_is_fresh_enough_for_it() {
        for (asked, expected) in [
            ("", Reuse::Fresh),
            ("max-age=30", Reuse::Fresh),
            ("max-age=29", Reuse::ValidateForRequest),
            ("min-fresh=70", Reuse::Fresh),
            ("min-fresh=71", Reuse::ValidateForRequest),
            ("no-cache", Reuse::ValidateForRequest),
        ] {
            assert_eq!(reuse("max-age=100", asked, 20), expected, "{asked}");
        }
        assert_eq!(reuse("max-age=100", "", 90), Reuse::ValidateStale);
    }

    #[test]
    fn a_stale_response_is_sent_only_where_somebody_allows_it() {
        for (response, asked, expected) in [
            ("max-age=10", "", Reuse::ValidateStale),
            ("max-age=10", "max-stale", Reuse::Stale),
            ("max-age=10", "max-stale=20", Reuse::Stale),
            ("max-age=10", "max-stale=19", Reuse::ValidateStale),
            (
                "max-age=10, must-revalidate",
                "max-stale",
                Reuse::ValidateStale,
            ),
            ("s-maxage=10", "max-stale", Reuse::ValidateStale),
            (
                "max-age=10, stale-while-revalidate=21",
                "",
                Reuse::WhileRevalidating,
            ),
            (
                "max-age=10, stale-while-revalidate=20",
                "",
                Reuse::ValidateStale,
            ),
            (
                "s-maxage=10, stale-while-revalidate=21",
                "",
                Reuse::WhileRevalidating,
            ),
            (
                "max-age=10, stale-while-revalidate=21",
                "min-fresh=1",
                Reuse::ValidateStale,
            ),
            (
                "max-age=10, proxy-revalidate, stale-while-revalidate=21",
                "",
                Reuse::ValidateStale,
            ),
        ] {
            assert_eq!(reuse(response, asked, 20), expected, "{response} | {asked}");
        }
    }

    #[test]
    fn a_response_with_no_cache_is_validated_however_fresh_it_is() {
        assert_eq!(reuse("max-age=100, no-cache", "", 0), Reuse::ValidateStale);
    }

    #[test]
    fn in_trouble_a_stale_response_stands_in_unless_its_origin_forbids_it() {
        use Trouble::{ServerError, Unreachable};
        for (response, asked, trouble, expected) in [
            ("max-age=10", "", Unreachable, true),
            ("max-age=10", "", ServerError, false),
            ("max-age=10", "no-cache", Unreachable, false),
            ("max-age=10, must-revalidate", "", Unreachable, false),
            (
                "max-age=10, proxy-revalidate, stale-if-error=99",
                "",
                Unreachable,
                false,
            ),
            ("max-age=10, no-cache", "", Unreachable, false),
            ("s-maxage=10", "", Unreachable, false),
            ("s-maxage=10, stale-if-error=20", "", Unreachable, true),
            ("max-age=10, stale-if-error=20", "", ServerError, true),
            ("max-age=10, stale-if-error=19", "", ServerError, false),
            ("max-age=10, stale-if-error=19", "", Unreachable, false),
        ] {
            let stands_in = terms(response).stands_in(&request(asked), trouble, seconds(20));
            assert_eq!(stands_in, expected, "{response} | {asked} | {trouble:?}");
        }
        let yesterday = UNREACHABLE_FOR + seconds(1);
        assert!(!terms("max-age=10").stands_in(&request(""), Unreachable, yesterday));
    }

    #[test]
    fn a_guessed_lifetime_is_not_for_requests_with_cookies_or_credentials() {
        let mut guessed = terms("max-age=100");
        guessed.freshness.source = Source::Heuristic;
        let with = |name: &str| {
            let headers = [(name.parse().unwrap(), "a=b".parse().unwrap())]
                .into_iter()
                .collect();
            guessed.reuse(
                &RequestFacts::of(&Method::GET, &headers, false),
                Duration::ZERO,
            )
        };
        assert_eq!(guessed.reuse(&request(""), Duration::ZERO), Reuse::Fresh);
        assert_eq!(with("cookie"), Reuse::NotForThis);
        assert_eq!(with("authorization"), Reuse::NotForThis);
    }
}
