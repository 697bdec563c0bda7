//! Parts of a representation, as responses with 206 bring them (RFC 9110 §15.3.7, RFC 9111 §3.3 and §3.4).

use http::header::{CONTENT_LENGTH, CONTENT_RANGE};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::conditional::strong_validator;
use super::range::{ByteRange, RangeSpec, content_range, if_range_holds, partial_head};
use super::validation::freshened;
use crate::store::ResponseHead;

/// Which bytes of a representation a response carries, and how many that representation has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The bytes that are there.
    pub range: ByteRange,
    /// The complete length; the range lies within it.
    pub total: u64,
}

impl Part {
    /// The part that a 206 says it carries: one range of a known length, of which its `Content-Length` says the same if it says
    /// anything. `None` for every other response: what contradicts itself is passed on, and never used again.
    pub fn of(head: &ResponseHead) -> Option<Self> {
        if head.status != StatusCode::PARTIAL_CONTENT {
            return None;
        }
        let (range, total) = content_range(&head.headers)?;
        let agrees = (head.headers.get_all(CONTENT_LENGTH).iter()).all(|stated| {
            stated.to_str().ok().and_then(|it| it.parse().ok()) == Some(range.length())
        });
        agrees.then_some(Self { range, total })
    }

    /// All of a representation of that length, which is not 0.
    pub(crate) const fn whole(total: u64) -> Self {
        let range = ByteRange {
            first: 0,
            last: total - 1,
        };
        Self { range, total }
    }

    /// Whether it is everything there is.
    pub const fn is_whole(&self) -> bool {
        self.range.first == 0 && self.range.last + 1 == self.total
    }

    /// The bytes a request gets of it: those of its one range, all of which have to be here, under a condition that holds. `head` is
    /// that of the part.
    pub fn answer(&self, request: &HeaderMap, head: &ResponseHead) -> Option<ByteRange> {
        let wanted = RangeSpec::of(request)?.within(self.total)?;
        (self.range.contains(&wanted) && if_range_holds(request, &head.headers)).then_some(wanted)
    }

    /// Both together, where they overlap or touch.
    pub fn joined_with(&self, other: &Self) -> Option<Self> {
        let (a, b) = (&self.range, &other.range);
        // No last byte is the last there can be: a length counts one more.
        let touches = a.first <= b.last + 1 && b.first <= a.last + 1;
        (self.total == other.total && touches).then_some(Self {
            range: ByteRange {
                first: a.first.min(b.first),
                last: a.last.max(b.last),
            },
            total: self.total,
        })
    }

    /// Whether `next` is exactly what of the whole comes behind it.
    pub fn is_continued_by(&self, next: &Self) -> bool {
        self.total == next.total
            && self.range.last + 1 == next.range.first
            && next.range.last + 1 == self.total
    }
}

/// Whether two heads are of one representation for certain, so that parts of it may be put together (RFC 9111 §3.4).
pub(crate) fn are_of_one(a: &HeaderMap, b: &HeaderMap) -> bool {
    strong_validator(a).is_some_and(|tag| strong_validator(b) == Some(tag))
}

/// The head of what two parts make together: the fields of the newer one, and of the older one those that it does not repeat, as
/// the origin may leave out what its client knows (RFC 9110 §15.3.7). A whole is a 200.
pub(crate) fn joined_head(older: &ResponseHead, newer: &HeaderMap, joined: &Part) -> ResponseHead {
    head_of(&freshened(older, newer), joined)
}

/// `head` as that of this part: a whole is a 200.
pub(crate) fn head_of(head: &ResponseHead, part: &Part) -> ResponseHead {
    let mut head = partial_head(head, &part.range, part.total);
    if part.is_whole() {
        head.status = StatusCode::OK;
        head.headers.remove(CONTENT_RANGE);
        head.headers
            .insert(CONTENT_LENGTH, HeaderValue::from(part.total));
    }
    head
}

#[cfg(test)]
mod tests {
    use http::header::{AGE, CONTENT_TYPE, ETAG, IF_RANGE, RANGE};

    use super::*;

    fn head(fields: &[(http::HeaderName, &str)]) -> ResponseHead {
        let headers = fields
            .iter()
            .map(|(name, value)| (name.clone(), value.parse().unwrap()));
        ResponseHead {
            status: StatusCode::PARTIAL_CONTENT,
            headers: headers.collect(),
        }
    }

    fn part(first: u64, last: u64) -> Part {
        let range = ByteRange { first, last };
        Part { range, total: 10 }
    }

    #[test]
    fn a_part_is_what_says_so_without_contradiction() {
        let of = |range: &str, length: &str| {
            Part::of(&head(&[(CONTENT_RANGE, range), (CONTENT_LENGTH, length)]))
        };
        assert_eq!(of("bytes 2-4/10", "3"), Some(part(2, 4)));
        for (range, length) in [
            ("bytes 2-4/10", "4"),
            ("bytes 2-4/10", "x"),
            ("bytes 2-4/*", "3"),
            ("bytes 0-18446744073709551615/18446744073709551615", "0"),
        ] {
            assert_eq!(of(range, length), None, "{range} {length}");
        }
        let unstated = head(&[(CONTENT_RANGE, "bytes 2-4/10")]);
        assert_eq!(Part::of(&unstated), Some(part(2, 4)));
        let whole = ResponseHead {
            status: StatusCode::OK,
            ..unstated
        };
        assert_eq!(Part::of(&whole), None);
    }

    #[test]
    fn a_part_answers_for_the_bytes_it_has_and_no_others() {
        let stored = head(&[(ETAG, "\"a\"")]);
        let answer = |range: &str, condition: Option<&str>| {
            let mut request = head(&[(RANGE, range)]).headers;
            if let Some(condition) = condition {
                request.insert(IF_RANGE, condition.parse().unwrap());
            }
            let wanted = part(4, 9).answer(&request, &stored)?;
            Some((wanted.first, wanted.last))
        };
        assert_eq!(answer("bytes=4-5", None), Some((4, 5)));
        assert_eq!(answer("bytes=-3", None), Some((7, 9)));
        assert_eq!(answer("bytes=6-99", None), Some((6, 9)));
        assert_eq!(answer("bytes=6-", Some("\"a\"")), Some((6, 9)));
        assert_eq!(answer("bytes=6-", Some("\"b\"")), None);
        for elsewhere in [
            "bytes=3-5",
            "bytes=-7",
            "bytes=0-",
            "bytes=10-",
            "bytes=4-5,7-8",
            "x=4-5",
        ] {
            assert_eq!(answer(elsewhere, None), None, "{elsewhere}");
        }
    }

    #[test]
    fn parts_that_overlap_or_touch_make_one() {
        for (a, b, joined) in [
            (part(0, 3), part(4, 5), Some(part(0, 5))),
            (part(4, 5), part(0, 3), Some(part(0, 5))),
            (part(0, 5), part(2, 3), Some(part(0, 5))),
            (part(0, 5), part(3, 9), Some(part(0, 9))),
            (part(0, 3), part(5, 6), None),
        ] {
            assert_eq!(a.joined_with(&b), joined, "{a:?} {b:?}");
        }
        let of_another = Part {
            total: 11,
            ..part(4, 5)
        };
        assert_eq!(part(0, 3).joined_with(&of_another), None);
        assert!(part(0, 3).is_continued_by(&part(4, 9)));
        assert!(!part(0, 3).is_continued_by(&part(3, 9)));
        assert!(!part(0, 3).is_continued_by(&part(4, 8)));
    }

    #[test]
    fn what_is_put_together_keeps_what_the_newer_head_leaves_out() {
        let older = head(&[
            (CONTENT_TYPE, "a/b"),
            (AGE, "5"),
            (ETAG, "\"a\""),
            (CONTENT_RANGE, "bytes 0-3/10"),
        ]);
        let newer = head(&[(ETAG, "\"a\""), (CONTENT_RANGE, "bytes 4-9/10")]);
        let whole = joined_head(&older, &newer.headers, &part(0, 9));
        assert_eq!(
            (whole.status, &whole.headers[CONTENT_LENGTH]),
            (StatusCode::OK, &HeaderValue::from(10))
        );
        assert_eq!(whole.headers[CONTENT_TYPE], "a/b");
        assert!(!whole.headers.contains_key(CONTENT_RANGE) && !whole.headers.contains_key(AGE));
        let longer = joined_head(&older, &newer.headers, &part(0, 5));
        assert_eq!(longer.headers[CONTENT_RANGE], "bytes 0-5/10");
        assert_eq!(longer.status, StatusCode::PARTIAL_CONTENT);
        assert!(are_of_one(&older.headers, &newer.headers));
        assert!(!are_of_one(&older.headers, &head(&[]).headers));
        assert!(!are_of_one(
            &head(&[(ETAG, "W/\"a\"")]).headers,
            &head(&[(ETAG, "W/\"a\"")]).headers
        ));
    }
}
