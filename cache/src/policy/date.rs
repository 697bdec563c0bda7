//! HTTP dates (RFC 9110 §5.6.7).

use std::time::SystemTime;

use http::{HeaderMap, HeaderName};

/// The date in a field that may stand only once; `None` when it is absent, repeated or not an HTTP
/// date.
pub fn date_field(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    let mut lines = headers.get_all(name).iter();
    let line = lines.next()?;
    match lines.next() {
        Some(_) => None,
        None => parse(line.to_str().ok()?),
    }
}

/// All three forms of RFC 9110; names of days, months and zone in any case, and a day of the week that is not that of the date,
/// both of which the grammar forbids and the field accepts.
pub fn parse(text: &str) -> Option<SystemTime> {
    let parse = |text: &str| httpdate::parse_http_date(text).ok();
    parse(text).or_else(|| {
        let proper = in_proper_case(text);
        parse(&proper).or_else(|| {
            let (day, rest) = proper.split_at_checked(3)?;
            let is_day = DAYS.contains(&day) && rest.starts_with([',', ' ']);
            is_day.then(|| DAYS.iter().find_map(|day| parse(&format!("{day}{rest}"))))?
        })
    })
}

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// `THU, 18 AUG 2050 02:01:18 gmt` → `Thu, 18 Aug 2050 02:01:18 GMT`.
fn in_proper_case(text: &str) -> String {
    let mut inside_word = false;
    let mut proper = String::with_capacity(text.len());
    for letter in text.chars() {
        proper.push(if inside_word {
            letter.to_ascii_lowercase()
        } else {
            letter.to_ascii_uppercase()
        });
        inside_word = letter.is_ascii_alphabetic();
    }
    if proper.ends_with(" Gmt") {
        proper.truncate(proper.len() - 3);
        proper.push_str("GMT");
    }
    proper
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms_and_their_wrong_cases_are_dates() {
        for text in [
            "Thu, 18 Aug 2050 02:01:18 GMT",
            "Thursday, 18-Aug-50 02:01:18 GMT",
            "Thu Aug 18 02:01:18 2050",
            "THU, 18 Aug 2050 02:01:18 GMT",
            "Thu, 18 AUG 2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 02:01:18 gMT",
            "Sun, 21 Nov 2286 04:46:39 GMT",
            "Thu Aug  8 02:01:18 2050",
        ] {
            assert!(parse(text).is_some(), "{text}");
        }
    }

    #[test]
    fn what_is_almost_a_date_is_none() {
        for text in [
            "0",
            "",
            "Thu, 18 Aug 2050 02:01:18 UTC",
            "Thu, 18 Aug 2050 02:01:18 AEST",
            "Thu, 18 Aug 50 02:01:18 GMT",
            "Thu 18 Aug 2050 02:01:18 GMT",
            "Thu, 18  Aug  2050 02:01:18 GMT",
            "Thu, 18-Aug-2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 02.01.18 GMT",
            "Thu, 18 Aug 2050 2:01:18 GMT",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
