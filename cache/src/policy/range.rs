//! Ranges of a stored response (RFC 9110 §14).

use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG,
    IF_RANGE, LAST_MODIFIED, RANGE,
};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::conditional::strong_validator;
use super::date::{date_field, parse};
use crate::store::ResponseHead;

/// What a request asks for of a representation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeSpec {
    /// From this byte on, up to and including the second where there is one: `bytes=5-` or `bytes=5-9`.
    From(u64, Option<u64>),
    /// The last so many bytes: `bytes=-5`.
    Last(u64),
}

/// The bytes of a representation that lie in a message: `first..=last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRange {
    /// The first byte.
    pub first: u64,
    /// The last one, which belongs to it.
    pub last: u64,
}

/// What a request's `Range` comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ranged {
    /// Send everything: nothing was asked for, or nothing that we do parts of, or the condition does not hold.
    Whole,
    /// Send this part of it with 206.
    Part(ByteRange),
    /// It has no such bytes: 416.
    NotSatisfiable,
}

impl ByteRange {
    /// How many bytes that is.
    pub const fn length(&self) -> u64 {
        self.last - self.first + 1
    }

    /// Whether the other lies within it.
    pub fn contains(&self, other: &Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }
}

impl RangeSpec {
    /// The one range that a request asks for. `None`: none, several, another unit, or something that is no range; all of which
    /// a server may answer with everything (RFC 9110 §14.2).
    pub fn of(request: &HeaderMap) -> Option<Self> {
        let mut lines = request.get_all(RANGE).iter();
        let line = lines.next()?.to_str().ok()?;
        if lines.next().is_some() {
            return None;
        }
        let (unit, ranges) = line.split_once('=')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return None;
        }
        let (first, last) = ranges.trim().split_once('-')?;
        match (position(first)?, position(last)?) {
            (None, None) => None,
            (None, Some(length)) => Some(Self::Last(length)),
            (Some(first), last) if last.is_none_or(|last| first <= last) => {
                Some(Self::From(first, last))
            }
            (Some(_), _) => None,
        }
    }

    /// The bytes it means of a representation of that length; `None`: there are none.
    pub fn within(self, length: u64) -> Option<ByteRange> {
        let end = length.checked_sub(1)?;
        match self {
            Self::From(first, last) if first <= end => Some(ByteRange {
                first,
                last: last.map_or(end, |last| last.min(end)),
            }),
            Self::Last(wanted) if 0 < wanted => Some(ByteRange {
                first: length.saturating_sub(wanted),
                last: end,
            }),
            Self::From(..) | Self::Last(_) => None,
        }
    }
}

/// A position in decimal digits: `Some(None)` where there is none, `None` where it is no number.
fn position(digits: &str) -> Option<Option<u64>> {
    if digits.is_empty() {
        return Some(None);
    }
    // `parse` would take a sign as well.
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().map(Some)
}

/// What of a stored 200 with `length` bytes of content the request gets.
pub fn judge_range(request: &HeaderMap, head: &ResponseHead, length: u64) -> Ranged {
    if head.status != StatusCode::OK || !request.contains_key(RANGE) {
        return Ranged::Whole;
    }
    if !if_range_holds(request, &head.headers) {
        return Ranged::Whole;
    }
    match RangeSpec::of(request) {
        None => Ranged::Whole,
        Some(spec) => spec
            .within(length)
            .map_or(Ranged::NotSatisfiable, Ranged::Part),
    }
}

/// RFC 9110 §13.1.5: a strong comparison, or the very date; a date counts as strong only when it is at least a second older than
/// the response.
pub fn if_range_holds(request: &HeaderMap, stored: &HeaderMap) -> bool {
    let Some(condition) = request.get(IF_RANGE) else {
        return true;
    };
    if condition.as_bytes().starts_with(b"\"") {
        return strong_validator(stored) == Some(condition);
    }
    let asked = condition.to_str().ok().and_then(parse);
    let modified = date_field(stored, &LAST_MODIFIED);
    match (asked, modified, date_field(stored, &DATE)) {
        (Some(asked), Some(modified), Some(date)) => asked == modified && modified < date,
        _ => false,
    }
}

/// The head of the 206 that carries `part` of a response of `length` bytes.
pub fn partial_head(head: &ResponseHead, part: &ByteRange, length: u64) -> ResponseHead {
    let ByteRange { first, last } = part;
    let mut headers = head.headers.clone();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(part.length()));
    headers.insert(
        CONTENT_RANGE,
        text(format!("bytes {first}-{last}/{length}")),
    );
    ResponseHead {
        status: StatusCode::PARTIAL_CONTENT,
        headers,
    }
}

/// The head of the 416 for a range that a response of `length` bytes does not have.
pub fn not_satisfiable_head(head: &ResponseHead, length: u64) -> ResponseHead {
    let mut headers = head.headers.clone();
    for name in [
        CONTENT_TYPE,
        CONTENT_ENCODING,
        ETAG,
        LAST_MODIFIED,
        CACHE_CONTROL,
    ] {
        headers.remove(name);
    }
    headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
    headers.insert(CONTENT_RANGE, text(format!("bytes */{length}")));
    ResponseHead {
        status: StatusCode::RANGE_NOT_SATISFIABLE,
        headers,
    }
}

fn text(value: String) -> HeaderValue {
    HeaderValue::try_from(value).expect("digits and a few signs are a field value")
}

/// What part of which whole the content of a 206 is: the one range of its `Content-Range`, and the complete length. `None` where it
/// says something else, or does not know the length.
pub fn content_range(headers: &HeaderMap) -> Option<(ByteRange, u64)> {
    let mut lines = headers.get_all(CONTENT_RANGE).iter();
    let line = lines.next()?.to_str().ok()?;
    if lines.next().is_some() {
        return None;
    }
    let (range, length) = line.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (position(first)??, position(last)??);
    let length = position(length)??;
    (first <= last && last < length).then_some((ByteRange { first, last }, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(http::HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    fn judged(range: &str, length: u64) -> Ranged {
        let head = ResponseHead {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
        };
        judge_range(&fields(&[(RANGE, range)]), &head, length)
    }

    fn part(first: u64, last: u64) -> Ranged {
        Ranged::Part(ByteRange { first, last })
    }

    #[test]
    fn a_range_means_the_bytes_that_there_are() {
        for (range, expected) in [
            ("bytes=0-1", part(0, 1)),
            ("bytes=9-", part(9, 9)),
            ("bytes=5-99", part(5, 9)),
            ("bytes=-1", part(9, 9)),
            ("bytes=-99", part(0, 9)),
            ("Bytes=2-2", part(2, 2)),
            ("bytes=10-", Ranged::NotSatisfiable),
            ("bytes=-0", Ranged::NotSatisfiable),
            ("bytes=5-4", Ranged::Whole),
            ("bytes=0-1,3-4", Ranged::Whole),
            ("bytes=+1-2", Ranged::Whole),
            ("bytes=-", Ranged::Whole),
            ("bytes=99999999999999999999-", Ranged::Whole),
            ("lines=0-1", Ranged::Whole),
            ("", Ranged::Whole),
        ] {
            assert_eq!(judged(range, 10), expected, "{range}");
        }
        assert_eq!(judged("bytes=0-", 0), Ranged::NotSatisfiable);
    }

    #[test]
    fn if_range_wants_the_very_same_representation() {
        let monday = "Mon, 02 Nov 2026 00:00:00 GMT";
        let tuesday = "Tue, 03 Nov 2026 00:00:00 GMT";
        let holds = |condition: &str, stored: &[(http::HeaderName, &str)]| {
            if_range_holds(&fields(&[(IF_RANGE, condition)]), &fields(stored))
        };
        assert!(holds("\"a\"", &[(ETAG, "\"a\"")]));
        assert!(!holds("\"b\"", &[(ETAG, "\"a\"")]));
        assert!(!holds("W/\"a\"", &[(ETAG, "W/\"a\"")]));
        assert!(holds(monday, &[(LAST_MODIFIED, monday), (DATE, tuesday)]));
        assert!(!holds(monday, &[(LAST_MODIFIED, monday), (DATE, monday)]));
        assert!(!holds(tuesday, &[(LAST_MODIFIED, monday), (DATE, tuesday)]));
    }

    #[test]
    fn a_part_says_which_part_it_is() {
        let head = ResponseHead {
            status: StatusCode::OK,
            headers: fields(&[(CONTENT_LENGTH, "10"), (ETAG, "\"a\"")]),
        };
        let range = ByteRange { first: 2, last: 4 };
        let partial = partial_head(&head, &range, 10);
        assert_eq!(partial.status, 206);
        assert_eq!(partial.headers[CONTENT_LENGTH], "3");
        assert_eq!(partial.headers[CONTENT_RANGE], "bytes 2-4/10");
        assert_eq!(content_range(&partial.headers), Some((range, 10)));
        assert_eq!(
            not_satisfiable_head(&head, 10).headers[CONTENT_RANGE],
            "bytes */10"
        );
    }

    #[test]
    fn only_one_range_of_a_known_length_is_a_part() {
        for wrong in [
            "bytes 0-4/*",
            "bytes */10",
            "bytes 5-4/10",
            "bytes 0-10/10",
            "lines 0-1/10",
            "bytes 0-1",
        ] {
            assert_eq!(
                content_range(&fields(&[(CONTENT_RANGE, wrong)])),
                None,
                "{wrong}"
            );
        }
    }
}
