//! `Vary`: which of several stored responses a request selects (RFC 9111 §4.1).

use std::cmp::Reverse;
use std::sync::Arc;

use http::header::{ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, CONTENT_LANGUAGE, VARY};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::directives::Members;

/// More nominated fields than this make every request its own variant anyway; such a response is
/// treated as `Vary: *`.
const MAX_NAMES: usize = 16;

/// What `Vary` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vary {
    /// One response for all.
    Nothing,
    /// The nominated fields, sorted, each once.
    Names(Arc<[HeaderName]>),
    /// `*` anywhere in it, something that is no field name, or too much: no stored response can be
    /// selected.
    Star,
}

impl Vary {
    /// All lines of `Vary` together.
    pub fn of(response: &HeaderMap) -> Self {
        let mut names = Vec::new();
        for line in response.get_all(VARY) {
            for member in Members::of(line.as_bytes()) {
                // `*` is a token and so a field name to the parser.
                match HeaderName::from_bytes(member) {
                    Ok(name) if member != b"*" => names.push(name),
                    _ => return Self::Star,
                }
            }
        }
        Self::from_names(names)
    }

    /// Sorts and bounds.
    pub(crate) fn from_names(mut names: Vec<HeaderName>) -> Self {
        names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        names.dedup();
        match names.len() {
            0 => Self::Nothing,
            1..=MAX_NAMES => Self::Names(names.into()),
            _ => Self::Star,
        }
    }
}

/// The one language that a request prefers to all others, in lower case (RFC 9110 §12.5.4).
pub(crate) fn favourite_language(request: &HeaderMap) -> Option<String> {
    let accepted = accepted_languages(request)?;
    let mut ranges = LanguageRange::all(&accepted)?;
    ranges.sort_unstable();
    let first = ranges.first()?;
    let is_alone = ranges
        .get(1)
        .is_none_or(|second| second.weight != first.weight);
    (is_alone && first.tag != "*" && first.weight != Reverse(0)).then(|| first.tag.to_owned())
}

/// The one language that a response is in, in lower case.
pub(crate) fn content_language(response: &HeaderMap) -> Option<String> {
    let mut lines = response.get_all(CONTENT_LANGUAGE).iter();
    let language = lines.next()?.to_str().ok()?.trim();
    let is_alone = lines.next().is_none() && !language.contains(',');
    (is_alone && !language.is_empty()).then(|| language.to_ascii_lowercase())
}

/// The nominated fields of a request that is the same but for wanting that language alone; `None` where the language selects
/// nothing. A response in the language that somebody prefers to all others is the one to be had by asking for it.
pub(crate) fn in_language(
    names: &[HeaderName],
    request: &HeaderMap,
    language: &str,
) -> Option<HeaderMap> {
    if !names.contains(&ACCEPT_LANGUAGE) {
        return None;
    }
    let mut nominated = HeaderMap::new();
    for name in names {
        for value in request.get_all(name) {
            nominated.append(name, value.clone());
        }
    }
    nominated.insert(ACCEPT_LANGUAGE, HeaderValue::from_str(language).ok()?);
    Some(nominated)
}

/// A member of `Accept-Language`; the heavier ones come first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct LanguageRange<'a> {
    /// `q` in thousandths.
    weight: Reverse<u16>,
    tag: &'a str,
}

impl<'a> LanguageRange<'a> {
    /// All that a request accepts, in lower case; `None` where one of them is no language with a weight.
    fn all(accepted: &'a str) -> Option<Vec<Self>> {
        let members = accepted.split(',').map(str::trim);
        let ranges: Vec<_> = members
            .filter(|member| !member.is_empty())
            .map(Self::read)
            .collect::<Option<_>>()?;
        (!ranges.is_empty()).then_some(ranges)
    }

    fn read(member: &'a str) -> Option<Self> {
        let (tag, weight) = match member.split_once(';') {
            None => (member, 1000),
            Some((tag, parameter)) => {
                let (name, value) = parameter.split_once('=')?;
                if name.trim() != "q" {
                    return None;
                }
                (tag.trim(), thousandths(value.trim())?)
            }
        };
        let is_tag = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'*');
        let weight = Reverse(weight);
        (!tag.is_empty() && tag.bytes().all(is_tag)).then_some(Self { weight, tag })
    }
}

/// The lines of `Accept-Language` as one, in lower case; `None` where the field is absent or no text.
fn accepted_languages(request: &HeaderMap) -> Option<String> {
    let mut lines = request.get_all(ACCEPT_LANGUAGE).iter();
    let mut accepted = lines.next()?.to_str().ok()?.to_ascii_lowercase();
    for line in lines {
        accepted.push(',');
        accepted.push_str(&line.to_str().ok()?.to_ascii_lowercase());
    }
    Some(accepted)
}

/// A weight (RFC 9110 §12.4.2): at most 1, at most three decimals.
fn thousandths(weight: &str) -> Option<u16> {
    let (whole, decimals) = weight.split_once('.').unwrap_or((weight, ""));
    let digits = decimals.bytes().all(|digit| digit.is_ascii_digit());
    if decimals.len() > 3 || !digits {
        return None;
    }
    let digit = |place: usize| {
        let digit = decimals.as_bytes().get(place);
        digit.map_or(0, |digit| u16::from(digit - b'0'))
    };
    let part = 100 * digit(0) + 10 * digit(1) + digit(2);
    match whole {
        "0" => Some(part),
        "1" if part == 0 => Some(1000),
        _ => None,
    }
}

fn digit_of(number: u16, unit: u16) -> u8 {
    b'0' + u8::try_from(number / unit % 10).unwrap_or(0)
}

/// A nominated field in the form in which values are compared: lines joined, blanks around members
/// dropped, empty members too; case folded where the field's own definition has none. `None` when
/// it is absent.
pub(crate) fn normalised_value(name: &HeaderName, request: &HeaderMap) -> Option<Vec<u8>> {
    if *name == ACCEPT_LANGUAGE
        && let Some(accepted) = accepted_languages(request)
        && let Some(mut ranges) = LanguageRange::all(&accepted)
    {
        // Only the weights say what is preferred, not the order.
        ranges.sort_unstable();
        let mut value = Vec::with_capacity(accepted.len() + 4 * ranges.len());
        for range in ranges {
            if !value.is_empty() {
                value.extend_from_slice(b", ");
            }
            value.extend_from_slice(range.tag.as_bytes());
            if range.weight != Reverse(1000) {
                // A weight as a request may write it: no other form may mean the same.
                value.extend_from_slice(b";q=0.");
                value.extend([100, 10, 1].map(|unit| digit_of(range.weight.0, unit)));
            }
        }
        return Some(value);
    }
    let mut value = None::<Vec<u8>>;
    for line in request.get_all(name) {
        let value = value.get_or_insert_default();
        for member in Members::of(line.as_bytes()) {
            if !value.is_empty() {
                value.extend_from_slice(b", ");
            }
            value.extend_from_slice(member);
        }
    }
    if [ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE].contains(name)
        && let Some(value) = &mut value
        // Only the parameters of media types are ever quoted, and what is quoted may be told apart by its case.
        && !value.contains(&b'"')
    {
        value.make_ascii_lowercase();
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use http::header::USER_AGENT;

    fn vary(lines: &[&str]) -> Vary {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(VARY, line.parse().unwrap());
        }
        Vary::of(&headers)
    }

    #[test]
    fn a_star_anywhere_is_a_star() {
        for lines in [
            &["*"][..],
            &["accept, *"],
            &["*, accept"],
            &[", *"],
            &["accept", "*"],
            &["accept,,, *"],
            &["not a name"],
        ] {
            assert_eq!(vary(lines), Vary::Star, "{lines:?}");
        }
        let many = (0..=MAX_NAMES)
            .map(|n| format!("x-{n}"))
            .collect::<Vec<_>>()
            .join(",");
        assert_eq!(vary(&[&many]), Vary::Star);
    }

    #[test]
    fn the_order_and_case_of_names_are_no_matter() {
        assert_eq!(
            vary(&["User-Agent, accept"]),
            vary(&["Accept", "user-agent, ACCEPT"])
        );
        assert_eq!(vary(&[]), Vary::Nothing);
        assert_eq!(vary(&[" ,"]), Vary::Nothing);
    }

    #[test]
    fn values_are_compared_as_lists_and_case_folded_only_where_it_means_nothing() {
        let mut one_line = HeaderMap::new();
        one_line.append(ACCEPT_LANGUAGE, "en,  DE;q=0.5".parse().unwrap());
        one_line.append(USER_AGENT, "Mine".parse().unwrap());
        let mut two_lines = HeaderMap::new();
        two_lines.append(ACCEPT_LANGUAGE, "en".parse().unwrap());
        two_lines.append(ACCEPT_LANGUAGE, "de;q=0.5".parse().unwrap());
        two_lines.append(USER_AGENT, "mine".parse().unwrap());
        assert_eq!(
            normalised_value(&ACCEPT_LANGUAGE, &one_line),
            normalised_value(&ACCEPT_LANGUAGE, &two_lines)
        );
        assert_ne!(
            normalised_value(&USER_AGENT, &one_line),
            normalised_value(&USER_AGENT, &two_lines)
        );
        let accepted = |types: &'static str| {
            let field = [(ACCEPT, HeaderValue::from_static(types))];
            normalised_value(&ACCEPT, &field.into_iter().collect())
        };
        assert_eq!(accepted("Text/HTML,*/*"), accepted("text/html, */*"));
        assert_ne!(accepted("a/b;p=\"C\""), accepted("a/b;p=\"c\""));
    }

    #[test]
    fn languages_are_preferred_by_weight_and_not_by_order() {
        let request = |languages: &str| {
            let field = (ACCEPT_LANGUAGE, languages.parse().unwrap());
            [field].into_iter().collect::<HeaderMap>()
        };
        let normal = |languages| normalised_value(&ACCEPT_LANGUAGE, &request(languages)).unwrap();
        assert_eq!(normal("en, de"), normal("DE ,en;q=1.0"));
        assert_ne!(normal("en, de"), normal("en, de;q=0.9"));
        assert_eq!(normal("de;q=0.50, en"), normal("en;q=1, de;q=0.5"));
        assert_eq!(normal("rubbish !"), b"rubbish !");
        for (languages, favourite) in [
            ("fr;q=0.5, de;q=1.0", Some("de")),
            ("de", Some("de")),
            ("en, de", None),
            ("*", None),
            ("de;q=0", None),
            ("de;q=2", None),
            ("", None),
        ] {
            let found = favourite_language(&request(languages));
            assert_eq!(found.as_deref(), favourite, "{languages}");
        }
    }
}
