//! How long a response may be reused, and how old it is already (RFC 9111 §4.2).

use std::time::{Duration, SystemTime};

use http::header::{AGE, DATE, EXPIRES, LAST_MODIFIED};
use http::{HeaderMap, StatusCode};

use super::date::date_field;
use super::directives::{Directives, Members, delta_seconds};

/// A heuristic lifetime is this part of the time since `Last-Modified`, the RFC's own suggestion
/// (§4.2.2) …
const HEURISTIC_DIVISOR: u32 = 10;
/// … and never longer than this, beyond which a guess should be asked for again (RFC 7234 warned at
/// the same length).
const HEURISTIC_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// No sum of ages and lifetimes comes near an overflow: RFC 9111 §1.2.2 calls anything beyond 2^31
/// s infinite.
const INFINITE: Duration = Duration::from_secs(1 << 31);

/// Lifetime and age of a response at the moment its head was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// How long it counts as fresh, from its generation at the origin.
    pub lifetime: Duration,
    /// Its corrected initial age at receipt.
    pub age: Duration,
    /// What gave the lifetime.
    pub source: Source,
}

/// What gave a freshness lifetime, strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// `CDN-Cache-Control`, alone.
    Targeted,
    /// `s-maxage`.
    SMaxAge,
    /// `max-age`.
    MaxAge,
    /// `Expires` minus `Date`.
    Expires,
    /// A part of the time since `Last-Modified`.
    Heuristic,
    /// Nothing speaks of freshness: it is stale at once.
    Nothing,
}

impl Freshness {
    /// Judges a response's fields. `delay` is the time from sending the request to receiving the
    /// head, `wall` the time of receipt.
    pub fn of(status: StatusCode, headers: &HeaderMap, delay: Duration, wall: SystemTime) -> Self {
        let (directives, targeted) = Directives::governing(headers);
        Self::governed(&directives, targeted, status, headers, delay, wall)
    }

    /// The same, where the directives have been read already.
    pub(super) fn governed(
        directives: &Directives,
        targeted: bool,
        status: StatusCode,
        headers: &HeaderMap,
        delay: Duration,
        wall: SystemTime,
    ) -> Self {
        let date = date_field(headers, &DATE).unwrap_or(wall);
        let (lifetime, source) = lifetime(status, headers, directives, targeted, date);
        let age = initial_age(headers, date, delay, wall);
        Self {
            lifetime: lifetime.min(INFINITE),
            age,
            source,
        }
    }

    /// Whether the origin said so, rather than we guessed.
    pub fn is_explicit(&self) -> bool {
        match self.source {
            Source::Targeted | Source::SMaxAge | Source::MaxAge | Source::Expires => true,
            Source::Heuristic | Source::Nothing => false,
        }
    }

    /// The current age.
    pub fn age_after(&self, elapsed: Duration) -> Duration {
        self.age.saturating_add(elapsed)
    }

    /// For how long it has been stale; nothing while it is fresh.
    pub fn stale_for(&self, elapsed: Duration) -> Duration {
        self.age_after(elapsed).saturating_sub(self.lifetime)
    }

    /// What remains of the lifetime; `None` when stale.
    pub fn ttl_after(&self, elapsed: Duration) -> Option<Duration> {
        self.lifetime
            .checked_sub(self.age_after(elapsed))
            .filter(|ttl| !ttl.is_zero())
    }
}

fn lifetime(
    status: StatusCode,
    headers: &HeaderMap,
    directives: &Directives,
    targeted: bool,
    date: SystemTime,
) -> (Duration, Source) {
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    if targeted {
        return match directives.s_maxage.or(directives.max_age) {
            Some(lifetime) => (seconds(lifetime), Source::Targeted),
            None => heuristic(status, headers, directives, date),
        };
    }
    if let Some(lifetime) = directives.s_maxage {
        return (seconds(lifetime), Source::SMaxAge);
    }
    if let Some(lifetime) = directives.max_age {
        return (seconds(lifetime), Source::MaxAge);
    }
    if headers.contains_key(EXPIRES) {
        // No date, or two, means "already expired" (§5.3).
        let lifetime =
            date_field(headers, &EXPIRES).and_then(|expires| expires.duration_since(date).ok());
        return (lifetime.unwrap_or_default(), Source::Expires);
    }
    heuristic(status, headers, directives, date)
}

fn heuristic(
    status: StatusCode,
    headers: &HeaderMap,
    directives: &Directives,
    date: SystemTime,
) -> (Duration, Source) {
    if !(is_heuristically_cacheable(status) || directives.public) {
        return (Duration::ZERO, Source::Nothing);
    }
    let unchanged_for =
        date_field(headers, &LAST_MODIFIED).and_then(|modified| date.duration_since(modified).ok());
    match unchanged_for {
        Some(unchanged_for) if !unchanged_for.is_zero() => (
            (unchanged_for / HEURISTIC_DIVISOR).min(HEURISTIC_MAX),
            Source::Heuristic,
        ),
        _ => (Duration::ZERO, Source::Nothing),
    }
}

/// RFC 9110 §15.1.
pub(super) fn is_heuristically_cacheable(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501
    )
}

/// RFC 9111 §4.2.3: the larger of what the clocks say and what `Age` says plus our own round trip.
fn initial_age(
    headers: &HeaderMap,
    date: SystemTime,
    delay: Duration,
    wall: SystemTime,
) -> Duration {
    let apparent = wall.duration_since(date).unwrap_or_default();
    apparent
        .max(age_field(headers).saturating_add(delay))
        .min(INFINITE)
}

/// The first member of `Age`, which is all that several of them can mean (§5.1); no plain number is
/// no age.
fn age_field(headers: &HeaderMap) -> Duration {
    let first = headers
        .get(AGE)
        .and_then(|line| Members::of(line.as_bytes()).next());
    let digits = first.filter(|text| text.iter().all(u8::is_ascii_digit));
    Duration::from_secs(digits.and_then(delta_seconds).unwrap_or(0).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    fn wall() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000)
    }

    fn http_date(offset: i64) -> String {
        let base = wall();
        let shift = Duration::from_secs(offset.unsigned_abs());
        httpdate::fmt_http_date(if offset < 0 {
            base - shift
        } else {
            base + shift
        })
    }

    fn freshness_of(status: u16, fields: &[(&str, &str)]) -> Freshness {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                value.parse().unwrap(),
            );
        }
        Freshness::of(
            StatusCode::from_u16(status).unwrap(),
            &headers,
            Duration::ZERO,
            wall(),
        )
    }

    fn ttl(fields: &[(&str, &str)]) -> Option<u64> {
        freshness_of(200, fields)
            .ttl_after(Duration::ZERO)
            .map(|ttl| ttl.as_secs())
    }

    #[test]
    fn the_strongest_source_of_a_lifetime_wins() {
        let soon = http_date(60);
        type Fields<'a> = &'a [(&'a str, &'a str)];
        let table: &[(Fields<'_>, Option<u64>)] = &[
            (&[], None),
            (&[("cache-control", "max-age=100")], Some(100)),
            (&[("cache-control", "max-age=0")], None),
            (&[("cache-control", "s-maxage=1, max-age=3600")], Some(1)),
            (
                &[
                    ("cache-control", "max-age=0"),
                    ("cache-control", "s-maxage=3600"),
                ],
                Some(3600),
            ),
            (&[("expires", &soon)], Some(60)),
            (
                &[("expires", &soon), ("cache-control", "max-age=3")],
                Some(3),
            ),
            (&[("expires", "0"), ("cache-control", "max-age=3")], Some(3)),
            (&[("expires", "0")], None),
            (&[("expires", &soon), ("expires", &soon)], None),
            (
                &[
                    ("cdn-cache-control", "max-age=5"),
                    ("cache-control", "max-age=100"),
                ],
                Some(5),
            ),
            (
                &[("cdn-cache-control", "max-age=0"), ("expires", &soon)],
                None,
            ),
            (
                &[
                    ("cdn-cache-control", "max-age=\"9\""),
                    ("cache-control", "max-age=100"),
                ],
                Some(100),
            ),
            (&[("cache-control", "max-age=99999999999")], Some(1 << 31)),
        ];
        for (fields, expected) in table {
            assert_eq!(ttl(fields), *expected, "{fields:?}");
        }
    }

    #[test]
    fn expires_counts_from_date_whatever_our_clock_says() {
        for skew in [-7200, 7200] {
            let date = http_date(skew);
            let equal = [("date", date.as_str()), ("expires", date.as_str())];
            assert_eq!(ttl(&equal), None);
            let older = http_date(skew - 10);
            assert_eq!(
                ttl(&[("date", date.as_str()), ("expires", older.as_str())]),
                None
            );
        }
        // A Date ahead of us adds nothing to the age.
        let (date, expires) = (http_date(7200), http_date(7260));
        assert_eq!(ttl(&[("date", &date), ("expires", &expires)]), Some(60));
        // A Date behind us makes it older, and its lifetime longer by the same.
        let (date, expires) = (http_date(-7200), http_date(60));
        assert_eq!(ttl(&[("date", &date), ("expires", &expires)]), Some(60));
    }

    #[test]
    fn age_is_a_plain_number_and_the_first_one_counts() {
        for (age, expected) in [
            ("10", Some(3590)),
            ("abc", Some(3600)),
            ("-7200", Some(3600)),
            ("7200.0", Some(3600)),
            ("\"7200\"", Some(3600)),
            ("7200;foo=bar", Some(3600)),
            ("0, 7200", Some(3600)),
            ("7200, 0", None),
            ("2147483647", None),
            ("2147483648", None),
            ("99999999999999999999999", None),
        ] {
            assert_eq!(
                ttl(&[("cache-control", "max-age=3600"), ("age", age)]),
                expected,
                "{age}"
            );
        }
        assert_eq!(
            ttl(&[
                ("cache-control", "max-age=3600"),
                ("age", "7200"),
                ("age", "0")
            ]),
            None
        );
    }

    #[test]
    fn an_old_date_without_age_counts_as_age() {
        let date = http_date(-7200);
        assert_eq!(
            ttl(&[("cache-control", "max-age=3600"), ("date", &date)]),
            None
        );
    }

    #[test]
    fn our_own_round_trip_counts_as_age() {
        let mut headers = HeaderMap::new();
        headers.insert("cache-control", "max-age=10".parse().unwrap());
        headers.insert("age", "3".parse().unwrap());
        let freshness = Freshness::of(StatusCode::OK, &headers, Duration::from_secs(2), wall());
        assert_eq!(
            freshness.ttl_after(Duration::ZERO),
            Some(Duration::from_secs(5))
        );
        assert_eq!(
            freshness.ttl_after(Duration::from_secs(5)),
            None,
            "at its limit it is stale"
        );
    }

    #[test]
    fn a_heuristic_needs_a_last_modified_and_a_status_that_allows_it() {
        let day_old = http_date(-86_400);
        let very_old = http_date(-86_400 * 3650);
        for status in [200, 203, 204, 404, 405, 410, 414, 501] {
            let guessed = freshness_of(status, &[("last-modified", &day_old)]);
            assert_eq!(
                (guessed.lifetime.as_secs(), guessed.source),
                (8640, Source::Heuristic),
                "{status}"
            );
        }
        for status in [201, 202, 403, 502, 503, 504, 599] {
            assert_eq!(
                freshness_of(status, &[("last-modified", &day_old)]).source,
                Source::Nothing,
                "{status}"
            );
        }
        assert_eq!(
            freshness_of(
                599,
                &[("last-modified", &day_old), ("cache-control", "public")]
            )
            .source,
            Source::Heuristic
        );
        assert_eq!(
            freshness_of(200, &[("last-modified", &very_old)]).lifetime,
            HEURISTIC_MAX
        );
        assert_eq!(freshness_of(200, &[]).source, Source::Nothing);
    }
}
