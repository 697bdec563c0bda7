//! `Cache-Control` (RFC 9111 §5.2) and its targeted form `CDN-Cache-Control` (RFC 9213), read once
//! into a plain struct.

use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderName};
use sfv::{BareItem, Dictionary, ListEntry, Parser};

/// The targeted field that speaks to us (RFC 9213 §3.1).
pub const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

/// Beyond this a delta-seconds is "infinite" (RFC 9111 §1.2.2): 68 years, and nothing overflows.
const MAX_SECONDS: u32 = 1 << 31;

/// The directives we act upon, of a request or of a response. Unknown ones are ignored, as the RFC
/// asks.
///
/// Times are in seconds. A directive that occurs twice counts in its stricter form; one whose
/// seconds are no number counts as 0, that is, as stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Directives {
    /// `max-age`.
    pub max_age: Option<u32>,
    /// `s-maxage`.
    pub s_maxage: Option<u32>,
    /// `min-fresh` of a request.
    pub min_fresh: Option<u32>,
    /// `max-stale` of a request; without a number, as large as can be.
    pub max_stale: Option<u32>,
    /// `stale-while-revalidate` (RFC 5861).
    pub stale_while_revalidate: Option<u32>,
    /// `stale-if-error` (RFC 5861).
    pub stale_if_error: Option<u32>,
    /// `no-store`.
    pub no_store: bool,
    /// `no-cache`, also in its form with field names: then too the whole response is validated.
    pub no_cache: bool,
    /// `private`, also in its form with field names: then too the whole response is private.
    pub private: bool,
    /// `public`.
    pub public: bool,
    /// `must-revalidate`.
    pub must_revalidate: bool,
    /// `proxy-revalidate`.
    pub proxy_revalidate: bool,
    /// `must-understand`.
    pub must_understand: bool,
    /// `only-if-cached` of a request.
    pub only_if_cached: bool,
}

impl Directives {
    /// All lines of `Cache-Control` together.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut directives = Self::default();
        for line in headers.get_all(CACHE_CONTROL) {
            for member in Members::of(line.as_bytes()) {
                let (name, argument) = match member.iter().position(|&byte| byte == b'=') {
                    Some(equals) => (&member[..equals], Some(&member[equals + 1..])),
                    None => (member, None),
                };
                let name = name.trim_ascii_end();
                directives.take_in(name, argument);
            }
        }
        directives
    }

    /// What governs a response: the targeted field alone where there is a valid one, else
    /// `Cache-Control` (RFC 9213 §2.2). The flag says "targeted", in which case `Expires` has no
    /// say either.
    pub fn governing(response: &HeaderMap) -> (Self, bool) {
        match Self::targeted(response) {
            Some(directives) => (directives, true),
            None => (Self::of(response), false),
        }
    }

    /// `None` when the field is absent, empty, no Dictionary, or gives a directive we know a value
    /// of the wrong type.
    fn targeted(response: &HeaderMap) -> Option<Self> {
        let mut lines = response.get_all(CDN_CACHE_CONTROL).iter();
        let mut joined = lines.next()?.as_bytes().to_vec();
        for line in lines {
            joined.extend_from_slice(b", ");
            joined.extend_from_slice(line.as_bytes());
        }
        let dictionary: Dictionary = Parser::new(&joined).parse().ok()?;
        if dictionary.is_empty() {
            return None;
        }
        let mut directives = Self::default();
        for (name, member) in &dictionary {
            let ListEntry::Item(item) = member else {
                return None;
            };
            match &item.bare_item {
                BareItem::Boolean(false) => {}
                BareItem::Boolean(true) => {
                    if directives.seconds_mut(name.as_str().as_bytes()).is_some() {
                        return None;
                    }
                    directives.take_in(name.as_str().as_bytes(), None);
                }
                BareItem::Integer(seconds) => {
                    let seconds = i64::from(*seconds);
                    if let Some(known) = directives.seconds_mut(name.as_str().as_bytes()) {
                        *known = Some(
                            u32::try_from(seconds.max(0))
                                .map_or(MAX_SECONDS, |s| s.min(MAX_SECONDS)),
                        );
                    } else {
                        directives.take_in(name.as_str().as_bytes(), None);
                    }
                }
                // `private="x"` and `no-cache="x"` are whole here as in `Cache-Control`; seconds in
                // quotes are of the wrong type.
                BareItem::String(_)
                | BareItem::Token(_)
                | BareItem::Decimal(_)
                | BareItem::ByteSequence(_)
                | BareItem::Date(_)
                | BareItem::DisplayString(_) => {
                    if directives.seconds_mut(name.as_str().as_bytes()).is_some() {
                        return None;
                    }
                    directives.take_in(name.as_str().as_bytes(), None);
                }
            }
        }
        Some(directives)
    }

    fn take_in(&mut self, name: &[u8], argument: Option<&[u8]>) {
        if argument.is_none() && name.eq_ignore_ascii_case(b"max-stale") {
            self.max_stale.get_or_insert(MAX_SECONDS);
            return;
        }
        if let Some(known) = self.seconds_mut(name) {
            let seconds = argument.and_then(delta_seconds).unwrap_or(0);
            *known = Some(known.map_or(seconds, |before| before.min(seconds)));
            return;
        }
        let flag = match name {
            _ if name.eq_ignore_ascii_case(b"no-store") => &mut self.no_store,
            _ if name.eq_ignore_ascii_case(b"no-cache") => &mut self.no_cache,
            _ if name.eq_ignore_ascii_case(b"private") => &mut self.private,
            _ if name.eq_ignore_ascii_case(b"public") => &mut self.public,
            _ if name.eq_ignore_ascii_case(b"must-revalidate") => &mut self.must_revalidate,
            _ if name.eq_ignore_ascii_case(b"proxy-revalidate") => &mut self.proxy_revalidate,
            _ if name.eq_ignore_ascii_case(b"must-understand") => &mut self.must_understand,
            _ if name.eq_ignore_ascii_case(b"only-if-cached") => &mut self.only_if_cached,
            _ => return,
        };
        *flag = true;
    }

    fn seconds_mut(&mut self, name: &[u8]) -> Option<&mut Option<u32>> {
        Some(match name {
            _ if name.eq_ignore_ascii_case(b"max-age") => &mut self.max_age,
            _ if name.eq_ignore_ascii_case(b"s-maxage") => &mut self.s_maxage,
            _ if name.eq_ignore_ascii_case(b"min-fresh") => &mut self.min_fresh,
            _ if name.eq_ignore_ascii_case(b"max-stale") => &mut self.max_stale,
            _ if name.eq_ignore_ascii_case(b"stale-while-revalidate") => {
                &mut self.stale_while_revalidate
            }
            _ if name.eq_ignore_ascii_case(b"stale-if-error") => &mut self.stale_if_error,
            _ => return None,
        })
    }
}

/// A non-negative whole number, bare or in double quotes; saturating.
pub(super) fn delta_seconds(text: &[u8]) -> Option<u32> {
    let digits = match text {
        [b'"', inner @ .., b'"'] => inner,
        _ => text,
    };
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u32, |seconds, digit| {
        digit.is_ascii_digit().then(|| {
            seconds
                .saturating_mul(10)
                .saturating_add(u32::from(digit - b'0'))
                .min(MAX_SECONDS)
        })
    })
}

/// The members of a comma-separated list, trimmed; commas within quoted strings do not separate,
/// empty members are skipped.
pub(super) struct Members<'a> {
    rest: &'a [u8],
    /// A quote that is never closed hides nothing, and neither do those behind it: what they would have hidden may forbid something.
    is_unclosed: bool,
}

impl<'a> Members<'a> {
    pub(super) fn of(list: &'a [u8]) -> Self {
        Self {
            rest: list,
            is_unclosed: false,
        }
    }

    /// Where the next comma is that separates.
    fn separator(&mut self) -> Option<usize> {
        let mut quoted = false;
        let mut escaped = false;
        let mut first_comma = None;
        for (at, &byte) in self.rest.iter().enumerate() {
            if byte == b',' {
                if !quoted || self.is_unclosed {
                    return Some(at);
                }
                first_comma = first_comma.or(Some(at));
            }
            if escaped {
                escaped = false;
            } else if byte == b'"' {
                quoted = !quoted;
            } else {
                escaped = quoted && byte == b'\\';
            }
        }
        self.is_unclosed |= quoted;
        first_comma.filter(|_| quoted)
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while !self.rest.is_empty() {
            let (member, rest) = match self.separator() {
                Some(comma) => (&self.rest[..comma], &self.rest[comma + 1..]),
                None => (self.rest, &[][..]),
            };
            self.rest = rest;
            let member = member.trim_ascii();
            if !member.is_empty() {
                return Some(member);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(lines: &[&str]) -> Directives {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CACHE_CONTROL, line.parse().unwrap());
        }
        Directives::of(&headers)
    }

    fn targeted(line: &str) -> Option<Directives> {
        let mut headers = HeaderMap::new();
        headers.append(CDN_CACHE_CONTROL, line.parse().unwrap());
        Directives::targeted(&headers)
    }

    #[test]
    fn seconds_are_plain_digits_and_anything_else_is_stale() {
        for (line, seconds) in [
            ("max-age=3600", 3600),
            ("MaX-aGe=3600", 3600),
            ("max-age=003600", 3600),
            ("max-age=\"3600\"", 3600),
            ("max-age=2147483649", MAX_SECONDS),
            ("max-age=99999999999999999999", MAX_SECONDS),
            ("max-age='3600'", 0),
            ("max-age=-3600", 0),
            ("max-age=3600.0", 0),
            ("max-age=3600a", 0),
            ("max-age= 3600", 0),
            ("max-age=", 0),
            ("max-age", 0),
            ("max-age=1800, max-age=1", 1),
            ("max-age=1, max-age=1800", 1),
            ("foobar, max-age=7", 7),
        ] {
            assert_eq!(parse(&[line]).max_age, Some(seconds), "{line}");
        }
    }

    #[test]
    fn a_directive_inside_a_quoted_string_is_none() {
        assert_eq!(
            parse(&["extension=\"max-age=3600\", max-age=1"]).max_age,
            Some(1)
        );
        assert_eq!(
            parse(&["max-age=1, extension=\"a, max-age=0\""]).max_age,
            Some(1)
        );
        assert_eq!(
            parse(&["extension=\"\\\", no-store, \", public"]),
            Directives {
                public: true,
                ..Directives::default()
            }
        );
        assert!(
            parse(&["extension=\"unterminated, no-store"]).no_store,
            "what is never closed hides nothing"
        );
        assert!(
            parse(&["a=\"b, c\\\"d, no-store, e\\\"f"]).no_store,
            "nor does what comes behind it"
        );
    }

    #[test]
    fn a_list_is_read_in_as_many_steps_as_it_has_bytes_whatever_is_quoted_in_it() {
        // Each member looks as if its quote went on to the end of the line.
        let line = "\\\",".repeat(1 << 20);
        assert_eq!(Members::of(line.as_bytes()).count(), 1 << 20);
    }

    #[test]
    fn lines_add_up_and_case_is_no_matter() {
        let directives = parse(&["No-StOrE", "pRiVate=\"a, b\", s-maxage=3"]);
        assert!(directives.no_store && directives.private);
        assert_eq!(directives.s_maxage, Some(3));
        assert_eq!(parse(&["nothing-to-see-here"]), Directives::default());
    }

    #[test]
    fn an_invalid_targeted_field_is_ignored_whole() {
        for line in [
            "&&&&&",
            "max-age=10000, &&&&&",
            "max-age=\"10000\"",
            "max-age",
            "max-age =100",
            "max-age=1.5",
            "",
        ] {
            assert_eq!(targeted(line), None, "{line}");
        }
    }

    #[test]
    fn a_valid_targeted_field_decides_alone() {
        let mut headers = HeaderMap::new();
        headers.append(
            CDN_CACHE_CONTROL,
            "max-age=100, private=?0, foobar".parse().unwrap(),
        );
        headers.append(CACHE_CONTROL, "no-store".parse().unwrap());
        let (directives, is_targeted) = Directives::governing(&headers);
        assert!(is_targeted);
        assert_eq!(
            directives,
            Directives {
                max_age: Some(100),
                ..Directives::default()
            }
        );

        headers.insert(CDN_CACHE_CONTROL, "&&".parse().unwrap());
        assert_eq!(
            Directives::governing(&headers),
            (
                Directives {
                    no_store: true,
                    ..Directives::default()
                },
                false
            )
        );
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic_or_read_seconds_beyond_the_bound(line in "[ -~\\t]{0,80}") {
            let directives = parse(&[&line]);
            proptest::prop_assert!(directives.max_age.unwrap_or(0) <= MAX_SECONDS);
            let _ = targeted(&line);
        }
    }
}
