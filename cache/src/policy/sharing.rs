//! Who may share a response: the verdict of a flight.
//!
//! One rule (RFC 9111 §3 and §4): a response is shared with a waiter iff a shared cache may reuse
//! it, unvalidated, for that very request now.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{ETAG, SET_COOKIE};
use http::{HeaderName, StatusCode};

use super::validation::has_validator;
use super::{
    Directives, Freshness, Policy, RequestFacts, Reuse, Staleness, Terms, Vary, may_store,
};
use crate::store::ResponseHead;

/// What a response's head says about sharing it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sharing {
    /// Others may have it: each waiter still asks [`Shareable::admits`], and compares its variant.
    Shared(Shareable),
    /// Only the request that fetched it may have it.
    LeaderOnly {
        /// Why.
        reason: LeaderOnly,
        /// Whether the key should be remembered as leader-only: errors of the server say nothing
        /// about the next answer.
        marks: bool,
        /// It may be stored all the same: nobody gets it unvalidated, but it spares its content being sent again.
        kept: Option<Shareable>,
    },
}

/// Why a response is for the leader only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LeaderOnly {
    /// The request is not one whose response is stored: no plain GET, or `no-store`.
    Request,
    /// Its status cannot be stored: a 206 that was not asked for or contradicts itself, 304, or one that `must-understand` wants understood.
    Status,
    /// `no-store`.
    NoStore,
    /// `private`.
    Private,
    /// The leader carried `Authorization` and the response does not open itself to others (RFC 9111
    /// §3.5).
    Authorization,
    /// An event stream.
    EventStream,
    /// `Vary: *`, or more of `Vary` than we compare.
    VaryStar,
    /// `Set-Cookie` without explicit freshness, or refused by configuration.
    SetCookie,
    /// No explicit freshness, and the leader carried `Cookie` or `Authorization`.
    Personal,
    /// No freshness, neither explicit nor heuristic.
    NoFreshness,
    /// `no-cache`: reuse needs validation.
    NoCache,
    /// Its lifetime was over when it came.
    Stale,
}

/// A response that a shared cache may reuse unvalidated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shareable {
    /// For how long, and what then.
    pub terms: Terms,
    /// The fields that select the variant, sorted; empty when there is but one.
    pub vary: Arc<[HeaderName]>,
}

impl Sharing {
    /// Judges the head of a response to `leader`. `delay` is the time from sending the request to
    /// receiving the head, `wall` the time of receipt.
    pub fn judge(
        policy: Policy,
        leader: &RequestFacts,
        head: &ResponseHead,
        delay: Duration,
        wall: SystemTime,
    ) -> Self {
        let (directives, targeted) = Directives::governing(&head.headers);
        let freshness = Freshness::governed(
            &directives,
            targeted,
            head.status,
            &head.headers,
            delay,
            wall,
        );
        let leader_only = |reason: LeaderOnly, kept| Self::LeaderOnly {
            reason,
            marks: reason.is_about_the_resource() && speaks_of_the_resource(head.status),
            kept,
        };
        if let Err(reason) = may_store(policy, leader, head, &directives, &freshness) {
            return leader_only(reason, None);
        }
        let vary = match Vary::of(&head.headers) {
            Vary::Star => return leader_only(LeaderOnly::VaryStar, None),
            Vary::Nothing => Arc::new([]),
            Vary::Names(vary) => vary,
        };
        let terms = Terms::of(&directives, freshness);
        let shareable = Shareable { terms, vary };
        let reason = if terms.validated_always {
            LeaderOnly::NoCache
        } else if freshness.lifetime.is_zero() {
            LeaderOnly::NoFreshness
        } else if freshness.ttl_after(Duration::ZERO).is_none() {
            LeaderOnly::Stale
        } else {
            return Self::Shared(shareable);
        };
        let speaks_of_reuse = freshness.is_explicit() || terms.staleness == Staleness::Never;
        // Kept only to be validated, it is one client's all the same: its cookies, and what a client with cookies got by a date alone,
        // which pages for others may bear as well.
        let is_somebodys = head.headers.contains_key(SET_COOKIE)
            || (leader.is_personal() && !directives.public && !head.headers.contains_key(ETAG));
        let is_worth_keeping = speaks_of_reuse && !is_somebodys && has_validator(&head.headers);
        // What was never fresh was never anybody else's: no staleness makes it so.
        let kept = Shareable {
            terms: shareable.terms.always_validated(),
            ..shareable
        };
        leader_only(reason, is_worth_keeping.then_some(kept))
    }

    /// Whether the response says itself that it is not to be kept. Else that is due to who asked for it, and what is stored already
    /// may stay.
    pub(crate) fn forbids_keeping(&self) -> bool {
        match self {
            Self::Shared(_) => false,
            Self::LeaderOnly { reason, kept, .. } => {
                kept.is_none()
                    && !matches!(
                        reason,
                        LeaderOnly::Request
                            | LeaderOnly::Authorization
                            | LeaderOnly::Personal
                            | LeaderOnly::SetCookie
                    )
            }
        }
    }

    /// Whether anybody but the leader may have it.
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Shared(_))
    }

    /// On what terms it is stored, if it is.
    pub fn kept(&self) -> Option<&Shareable> {
        match self {
            Self::Shared(shareable) => Some(shareable),
            Self::LeaderOnly { kept, .. } => kept.as_ref(),
        }
    }
}

/// Whether an answer with that status would be given to others as well: what is wrong with one request is none of theirs.
fn speaks_of_the_resource(status: StatusCode) -> bool {
    let is_refusal = status.is_client_error()
        && !matches!(
            status,
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::GONE
        );
    !is_refusal && !status.is_server_error()
}

impl LeaderOnly {
    /// Whether the response to `request` is likely to be for its leader only too, where the last one was for this reason.
    pub(crate) fn concerns(self, request: &RequestFacts) -> bool {
        match self {
            Self::Authorization => request.has_authorization(),
            Self::Personal => request.is_personal(),
            Self::Request
            | Self::Status
            | Self::NoStore
            | Self::Private
            | Self::EventStream
            | Self::VaryStar
            | Self::SetCookie
            | Self::NoFreshness
            | Self::NoCache
            | Self::Stale => true,
        }
    }

    /// Whether the next response is likely to be for its leader only as well.
    fn is_about_the_resource(self) -> bool {
        match self {
            Self::Request | Self::Status => false,
            Self::NoStore
            | Self::Private
            | Self::Authorization
            | Self::EventStream
            | Self::VaryStar
            | Self::SetCookie
            | Self::Personal
            | Self::NoFreshness
            | Self::NoCache
            | Self::Stale => true,
        }
    }
}

impl Shareable {
    /// Whether a waiter of the same variant may have it, `elapsed` after the head was received.
    pub fn admits(&self, waiter: &RequestFacts, elapsed: Duration) -> bool {
        self.terms.reuse(waiter, elapsed) == Reuse::Fresh
    }
}

/// The whole rule for one pair of requests of the same key and variant.
pub fn may_share(
    policy: Policy,
    leader: &RequestFacts,
    waiter: &RequestFacts,
    head: &ResponseHead,
    delay: Duration,
    wall: SystemTime,
) -> bool {
    match Sharing::judge(policy, leader, head, delay, wall) {
        Sharing::Shared(shareable) => shareable.admits(waiter, Duration::ZERO),
        Sharing::LeaderOnly { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::SetCookie;
    use http::{HeaderMap, Method};

    const PLAIN: &[(&str, &str)] = &[];
    const COOKIE: &[(&str, &str)] = &[("cookie", "user=1")];
    const CREDENTIALS: &[(&str, &str)] = &[("authorization", "Bearer x")];

    fn wall() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000)
    }

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                value.parse().unwrap(),
            );
        }
        headers
    }

    fn facts(fields: &[(&str, &str)]) -> RequestFacts {
        RequestFacts::of(&Method::GET, &headers(fields), false)
    }

    fn judge(
        leader: &[(&str, &str)],
        status: u16,
        response: &[(&str, &str)],
    ) -> Result<Shareable, LeaderOnly> {
        let head = ResponseHead {
            status: StatusCode::from_u16(status).unwrap(),
            headers: headers(response),
        };
        match Sharing::judge(
            Policy::default(),
            &facts(leader),
            &head,
            Duration::ZERO,
            wall(),
        ) {
            Sharing::Shared(shareable) => Ok(shareable),
            Sharing::LeaderOnly { reason, .. } => Err(reason),
        }
    }

    fn shares(leader: &[(&str, &str)], waiter: &[(&str, &str)], response: &[(&str, &str)]) -> bool {
        let head = ResponseHead {
            status: StatusCode::OK,
            headers: headers(response),
        };
        may_share(
            Policy::default(),
            &facts(leader),
            &facts(waiter),
            &head,
            Duration::ZERO,
            wall(),
        )
    }

    #[test]
    fn without_explicit_freshness_a_response_is_for_its_leader_only() {
        assert_eq!(judge(PLAIN, 200, &[]).unwrap_err(), LeaderOnly::NoFreshness);
        assert_eq!(
            judge(PLAIN, 200, &[("etag", "\"a\"")]).unwrap_err(),
            LeaderOnly::NoFreshness
        );
        assert_eq!(
            judge(PLAIN, 200, &[("cache-control", "public")]).unwrap_err(),
            LeaderOnly::NoFreshness
        );
        assert_eq!(
            judge(PLAIN, 200, &[("cache-control", "max-age=0")]).unwrap_err(),
            LeaderOnly::NoFreshness
        );
        assert_eq!(judge(PLAIN, 503, &[]).unwrap_err(), LeaderOnly::NoFreshness);
        for fresh in [
            ("cache-control", "max-age=1"),
            ("cache-control", "s-maxage=1"),
            ("cdn-cache-control", "max-age=1"),
        ] {
            assert!(judge(PLAIN, 200, &[fresh]).is_ok(), "{fresh:?}");
        }
    }

    #[test]
    fn what_may_not_be_reused_unvalidated_is_not_shared() {
        for (reason, response) in [
            (
                LeaderOnly::NoStore,
                ("cache-control", "no-store, max-age=60"),
            ),
            (
                LeaderOnly::Private,
                ("cache-control", "private, max-age=60"),
            ),
            (
                LeaderOnly::Private,
                ("cache-control", "private=\"set-cookie\", max-age=60"),
            ),
            (
                LeaderOnly::NoCache,
                ("cache-control", "no-cache, max-age=60"),
            ),
            (
                LeaderOnly::NoCache,
                ("cache-control", "max-age=60, no-cache=\"foo\""),
            ),
            (
                LeaderOnly::Private,
                ("cdn-cache-control", "private, max-age=60"),
            ),
            (LeaderOnly::NoStore, ("cdn-cache-control", "no-store")),
        ] {
            assert_eq!(
                judge(PLAIN, 200, &[response]).unwrap_err(),
                reason,
                "{response:?}"
            );
        }
        assert_eq!(
            judge(
                PLAIN,
                200,
                &[("cache-control", "max-age=60"), ("age", "60")]
            )
            .unwrap_err(),
            LeaderOnly::Stale
        );
        assert_eq!(
            judge(
                PLAIN,
                200,
                &[
                    ("cache-control", "max-age=60"),
                    ("vary", "accept"),
                    ("vary", " , *")
                ]
            )
            .unwrap_err(),
            LeaderOnly::VaryStar
        );
        assert_eq!(
            judge(PLAIN, 206, &[("cache-control", "max-age=60")]).unwrap_err(),
            LeaderOnly::Status
        );
        assert_eq!(
            judge(PLAIN, 304, &[("cache-control", "max-age=60")]).unwrap_err(),
            LeaderOnly::Status
        );
        assert_eq!(
            judge(
                &[("cache-control", "no-store")],
                200,
                &[("cache-control", "max-age=60")]
            )
            .unwrap_err(),
            LeaderOnly::Request
        );
    }

    #[test]
    fn an_event_stream_is_never_shared_whatever_its_freshness() {
        let stream = [
            ("cache-control", "max-age=60"),
            ("content-type", "Text/Event-Stream; charset=utf-8"),
        ];
        assert_eq!(
            judge(PLAIN, 200, &stream).unwrap_err(),
            LeaderOnly::EventStream
        );
    }

    #[test]
    fn every_status_with_explicit_freshness_is_shared() {
        for status in [
            200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 502, 503, 504,
            599, 999,
        ] {
            assert!(
                judge(PLAIN, status, &[("cache-control", "max-age=60")]).is_ok(),
                "{status}"
            );
        }
        assert!(
            judge(
                PLAIN,
                200,
                &[("cache-control", "max-age=60, no-store, must-understand")]
            )
            .is_ok()
        );
        assert_eq!(
            judge(
                PLAIN,
                599,
                &[("cache-control", "max-age=60, no-store, must-understand")]
            )
            .unwrap_err(),
            LeaderOnly::Status
        );
    }

    #[test]
    fn an_answer_to_credentials_is_shared_only_if_it_opens_itself() {
        assert_eq!(
            judge(CREDENTIALS, 200, &[("cache-control", "max-age=60")]).unwrap_err(),
            LeaderOnly::Authorization
        );
        for open in [
            "max-age=60, public",
            "max-age=60, must-revalidate",
            "s-maxage=60",
        ] {
            assert!(
                judge(CREDENTIALS, 200, &[("cache-control", open)]).is_ok(),
                "{open}"
            );
        }
        // A waiter with credentials may have what was fetched without them: a shared cache would
        // serve it.
        assert!(shares(
            PLAIN,
            CREDENTIALS,
            &[("cache-control", "max-age=60")]
        ));
    }

    #[test]
    fn heuristic_freshness_shares_only_between_strangers_without_cookies() {
        let old = httpdate::fmt_http_date(wall() - Duration::from_secs(86_400));
        let guess = [("last-modified", old.as_str())];
        assert!(shares(PLAIN, PLAIN, &guess));
        assert!(!shares(COOKIE, PLAIN, &guess));
        assert!(!shares(PLAIN, COOKIE, &guess));
        assert!(!shares(PLAIN, CREDENTIALS, &guess));
        assert!(!shares(
            PLAIN,
            PLAIN,
            &[("last-modified", old.as_str()), ("set-cookie", "a=b")]
        ));
        assert!(
            shares(
                COOKIE,
                COOKIE,
                &[("cache-control", "max-age=60"), ("set-cookie", "a=b")]
            ),
            "explicit freshness is the origin's word"
        );
    }

    #[test]
    fn set_cookie_can_be_refused_by_configuration() {
        let head = ResponseHead {
            status: StatusCode::OK,
            headers: headers(&[("cache-control", "max-age=60"), ("set-cookie", "a=b")]),
        };
        let policy = Policy {
            set_cookie: SetCookie::Refuse,
        };
        assert!(!may_share(
            policy,
            &facts(PLAIN),
            &facts(PLAIN),
            &head,
            Duration::ZERO,
            wall()
        ));
    }

    #[test]
    fn the_answer_to_anything_but_a_plain_get_says_nothing_about_the_key() {
        let facts = |method: &Method, fields: &[(&str, &str)]| {
            RequestFacts::of(method, &headers(fields), false)
        };
        for (request, status) in [
            (facts(&Method::GET, &[("cache-control", "no-store")]), 200),
            (facts(&Method::HEAD, &[]), 200),
            (facts(&Method::POST, &[]), 200),
        ] {
            let head = ResponseHead {
                status: StatusCode::from_u16(status).unwrap(),
                headers: headers(&[("cache-control", "max-age=60")]),
            };
            let sharing =
                Sharing::judge(Policy::default(), &request, &head, Duration::ZERO, wall());
            let expected = Sharing::LeaderOnly {
                reason: LeaderOnly::Request,
                marks: false,
                kept: None,
            };
            assert_eq!(sharing, expected, "{request:?}");
        }
    }

    #[test]
    fn what_was_never_fresh_is_kept_to_be_validated_and_for_nothing_else() {
        for cache_control in [
            "max-age=0, stale-while-revalidate=60, stale-if-error=60",
            "no-cache",
        ] {
            let fields = [("cache-control", cache_control), ("etag", "\"a\"")];
            let head = ResponseHead {
                status: StatusCode::OK,
                headers: headers(&fields),
            };
            let facts = RequestFacts::of(&Method::GET, &HeaderMap::new(), false);
            let sharing = Sharing::judge(Policy::default(), &facts, &head, Duration::ZERO, wall());
            let kept = sharing.kept().expect("it has a validator");
            assert_eq!(
                kept.terms.reuse(&facts, Duration::ZERO),
                Reuse::ValidateStale
            );
            let trouble = crate::policy::Trouble::Unreachable;
            assert!(!kept.terms.stands_in(&facts, trouble, Duration::ZERO));
        }
    }

    #[test]
    fn errors_of_the_server_mark_no_key() {
        for (status, expected) in [(200, true), (404, true), (500, false), (503, false)] {
            let head = ResponseHead {
                status: StatusCode::from_u16(status).unwrap(),
                headers: HeaderMap::new(),
            };
            let Sharing::LeaderOnly { marks, .. } = Sharing::judge(
                Policy::default(),
                &facts(PLAIN),
                &head,
                Duration::ZERO,
                wall(),
            ) else {
                panic!("{status} without freshness was shared");
            };
            assert_eq!(marks, expected, "{status}");
        }
    }
}
