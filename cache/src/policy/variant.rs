//! `Vary`: which of several stored responses a request selects (RFC 9111 §4.1).

use std::sync::Arc;

use http::header::{ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, VARY};
use http::{HeaderMap, HeaderName};

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
            for member in Members(line.as_bytes()) {
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

/// A nominated field in the form in which values are compared: lines joined, blanks around members
/// dropped, empty members too; case folded where the field's own definition has none. `None` when
/// it is absent.
pub(crate) fn normalised_value(name: &HeaderName, request: &HeaderMap) -> Option<Vec<u8>> {
    let mut value = None::<Vec<u8>>;
    for line in request.get_all(name) {
        let value = value.get_or_insert_default();
        for member in Members(line.as_bytes()) {
            if !value.is_empty() {
                value.extend_from_slice(b", ");
            }
            value.extend_from_slice(member);
        }
    }
    if [ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE].contains(name)
        && let Some(value) = &mut value
    {
        value.make_ascii_lowercase();
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
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
    }
}
