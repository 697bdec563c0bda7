//! `POST /purge`: what is asked, in the form in which requests are keyed, and what is answered.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderValue};
use http_body::Body;
use http_body_util::{BodyExt, Limited};
use scale0_cache::purge::{Purge, Target};
use serde::Deserialize;
use serde_json::json;

use super::{Answer, text};
use crate::target;

/// Carries out purges on a thread that may wait; says why they cannot be confirmed, though they hold.
pub type OnPurge = Arc<dyn Fn(&[Purge]) -> Result<(), String> + Send + Sync>;

/// What one request may name. More are several requests; each waits for the disk once.
const MOST: usize = 1000;

/// A thousand URLs of a thousand bytes.
const LONGEST: usize = 1024 * 1024;

/// How long a request's content may take.
const PATIENCE: Duration = Duration::from_secs(10);

const EXPECTED: &str = r#"{"url": …}, {"prefix": …}, {"tag": …} or {"all": true}, or lists as "urls", "prefixes", "tags"; with "soft": true softly"#;

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Asked {
    url: Option<String>,
    urls: Vec<String>,
    prefix: Option<String>,
    prefixes: Vec<String>,
    tag: Option<String>,
    tags: Vec<String>,
    all: bool,
    soft: bool,
}

/// Reads the content of a request to purge.
///
/// # Errors
/// The status, and for people what is wrong, where, and what is expected.
pub(super) async fn read<B>(content: B) -> Result<Vec<Purge>, (StatusCode, String)>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    let content = Limited::new(content, LONGEST).collect();
    let content = match tokio::time::timeout(PATIENCE, content).await {
        Ok(Ok(content)) => content.to_bytes(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            let why = format!("at most {LONGEST} bytes are taken at once\n");
            return Err((StatusCode::PAYLOAD_TOO_LARGE, why));
        }
        Ok(Err(error)) => return Err((StatusCode::BAD_REQUEST, format!("{error}\n"))),
        Err(_) => {
            let why = format!("the content took longer than {} s\n", PATIENCE.as_secs());
            return Err((StatusCode::REQUEST_TIMEOUT, why));
        }
    };
    parse(&content).map_err(|why| (StatusCode::BAD_REQUEST, why + "\n"))
}

fn parse(content: &[u8]) -> Result<Vec<Purge>, String> {
    let asked: Asked = serde_json::from_slice(content)
        .map_err(|error| format!("the content is not as expected: {error}; expected {EXPECTED}"))?;
    let named = |one: Option<String>, several: Vec<String>, name: &'static str| {
        let one = one.into_iter().map(move |text| (name.to_owned(), text));
        let plural = if name == "prefix" {
            "prefixes".into()
        } else {
            format!("{name}s")
        };
        let several = several.into_iter().enumerate();
        one.chain(several.map(move |(at, text)| (format!("{plural}[{at}]"), text)))
            .collect::<Vec<_>>()
    };
    let urls = named(asked.url, asked.urls, "url");
    let prefixes = named(asked.prefix, asked.prefixes, "prefix");
    let tags = named(asked.tag, asked.tags, "tag");
    let count = urls.len() + prefixes.len() + tags.len();
    if count == 0 && !asked.all {
        return Err(format!("nothing to purge is named: expected {EXPECTED}"));
    }
    if MOST < count {
        return Err(format!(
            "{count} are named, and at most {MOST} are taken at once"
        ));
    }
    let mut targets = Vec::with_capacity(count);
    for (place, text) in urls {
        targets.extend(url(&text).map_err(|why| format!("{place}: {text:?}: {why}"))?);
    }
    for (place, text) in prefixes {
        targets.extend(prefix(&text).map_err(|why| format!("{place}: {text:?}: {why}"))?);
    }
    for (place, text) in tags {
        targets.push(tag(&text).map_err(|why| format!("{place}: {text:?}: {why}"))?);
    }
    targets.extend(asked.all.then_some(Target::All));
    let soft = asked.soft;
    let purge = |target| Purge { target, soft };
    Ok(targets.into_iter().map(purge).collect())
}

fn url(text: &str) -> Result<impl Iterator<Item = Target> + use<>, String> {
    let (authorities, path_and_query) = parts(text)?;
    Ok(authorities.into_iter().map(move |authority| Target::Url {
        authority,
        path_and_query: path_and_query.clone(),
    }))
}

fn prefix(text: &str) -> Result<impl Iterator<Item = Target> + use<>, String> {
    let (authorities, path) = parts(text)?;
    if path.contains('?') {
        return Err(
            "a prefix has no query, and is about every query: expected https://host/path".into(),
        );
    }
    if path.ends_with("/*") {
        return Err(
            "a prefix is written without *, and is about all below it: expected https://host/path"
                .into(),
        );
    }
    Ok(authorities
        .into_iter()
        .map(move |authority| Target::Prefix {
            authority,
            path: path.clone(),
        }))
}

fn tag(text: &str) -> Result<Target, &'static str> {
    if text.is_empty() || text.trim() != text {
        return Err("expected a tag without blanks around it");
    }
    if text.contains(',') && text.contains([' ', '\t']) {
        return Err("no tag has both commas and blanks: several tags are a list, \"tags\"");
    }
    Ok(Target::Tag(text.to_owned()))
}

/// Authority and target of an absolute URL, as of a request for it. Without a scheme it may have been either, and the port of one
/// is no default of the other: then there can be two authorities.
fn parts(text: &str) -> Result<(Vec<String>, String), String> {
    const FORM: &str = "expected https://host/path, http://host/path or host/path";
    let (schemes, rest): (&[bool], &str) = match text.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (&[true], rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (&[false], rest),
        // A path or a query may hold one.
        Some((scheme, _)) if !scheme.contains(['/', '?', '#']) => return Err(FORM.into()),
        _ => (&[true, false], text.strip_prefix("//").unwrap_or(text)),
    };
    // Browsers show a fragment, and never send it.
    let rest = rest.split_once('#').map_or(rest, |(rest, _)| rest);
    let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let target = if target.starts_with('/') {
        target.to_owned()
    } else {
        format!("/{target}")
    };
    let wrong = |error| format!("{error}: {FORM}");
    let mut authorities = Vec::new();
    for &secure in schemes {
        let authority = target::authority(authority, secure).map_err(wrong)?;
        authorities.push(authority);
    }
    authorities.dedup();
    let target = target::path_and_query(&target).map_err(wrong)?;
    Ok((authorities, target.into_owned()))
}

/// Tells who confirmed, of all that were asked: this node. Not confirmed, it is a 503, as repeating it is right.
pub(super) fn answer(node: &str, done: Result<(), String>) -> Answer {
    let (status, nodes, unconfirmed) = match done {
        Ok(()) => (StatusCode::OK, vec![node], vec![]),
        Err(why) => {
            let unconfirmed = vec![json!({ "node": node, "reason": why })];
            (StatusCode::SERVICE_UNAVAILABLE, vec![], unconfirmed)
        }
    };
    let account = json!({
        "confirmed": nodes.len(),
        "of": nodes.len() + unconfirmed.len(),
        "nodes": nodes,
        "unconfirmed": unconfirmed,
    });
    let mut answer = text(status, format!("{account:#}\n"));
    let json = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, json);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(content: &str) -> Vec<Target> {
        let purges = parse(content.as_bytes()).unwrap();
        purges.into_iter().map(|purge| purge.target).collect()
    }

    fn of_url(authority: &str, path_and_query: &str) -> Target {
        Target::Url {
            authority: authority.into(),
            path_and_query: path_and_query.into(),
        }
    }

    fn of_prefix(authority: &str, path: &str) -> Target {
        Target::Prefix {
            authority: authority.into(),
            path: path.into(),
        }
    }

    #[test]
    fn urls_that_are_one_request_are_one_purge() {
        for url in [
            "https://example.com/a~b/c?d=E",
            "HTTPS://Example.COM:443/a%7Eb/./c?d=E",
            "http://example.com:80/a%7eb/x/../c?d=E#part",
            "//example.com/a~b/c?d=E",
            "example.com/a~b/c?d=E",
        ] {
            let content = json!({ "url": url }).to_string();
            assert_eq!(
                targets(&content),
                [of_url("example.com", "/a~b/c?d=E")],
                "{url}"
            );
        }
        for (url, normal) in [
            ("https://a", "/"),
            ("a", "/"),
            ("a?b", "/?b"),
            ("a/?b=http://c", "/?b=http://c"),
            ("a/é", "/%C3%A9"),
        ] {
            let content = json!({ "url": url }).to_string();
            assert_eq!(targets(&content), [of_url("a", normal)], "{url}");
        }
    }

    #[test]
    fn a_port_is_a_default_of_its_scheme_only() {
        let one = |url: &str| targets(&json!({ "url": url }).to_string());
        assert_eq!(one("http://a:443/"), [of_url("a:443", "/")]);
        assert_eq!(one("a:443"), [of_url("a", "/"), of_url("a:443", "/")]);
        assert_eq!(one("a:8080"), [of_url("a:8080", "/")]);
        assert_eq!(one("http://[::1]:8080"), [of_url("[::1]:8080", "/")]);
    }

    #[test]
    fn lists_and_single_ones_are_purged_together() {
        let content = r#"{"urls": ["a/b", "a/c"], "prefix": "a/d/", "tags": ["t", "u,v"], "tag": "w x", "all": true, "soft": true}"#;
        let purges = parse(content.as_bytes()).unwrap();
        assert!(purges.iter().all(|purge| purge.soft));
        let expected = [
            of_url("a", "/b"),
            of_url("a", "/c"),
            of_prefix("a", "/d/"),
            Target::Tag("w x".into()),
            Target::Tag("t".into()),
            Target::Tag("u,v".into()),
            Target::All,
        ];
        assert_eq!(targets(content), expected);
        assert!(!parse(br#"{"tag": "t"}"#).unwrap()[0].soft);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place_and_what_is_expected() {
        for (content, told) in [
            ("", "expected {\"url\""),
            ("[]", "expected {\"url\""),
            ("{}", "nothing to purge"),
            (r#"{"all": false}"#, "nothing to purge"),
            (r#"{"tag": 5}"#, "expected a string"),
            (r#"{"uri": "a/b"}"#, "unknown field `uri`"),
            (r#"{"url": "a/", "url": "b/"}"#, "duplicate field"),
            (
                r#"{"urls": ["a/b", "ftp://a/b"]}"#,
                r#"urls[1]: "ftp://a/b": expected https://host/path"#,
            ),
            (
                r#"{"url": "/b"}"#,
                "the host is empty: expected https://host/path",
            ),
            (r#"{"url": "me@a/b"}"#, "user information"),
            (r#"{"url": "a/%zz"}"#, "hexadecimal"),
            (r#"{"url": " a/b"}"#, "no valid name"),
            (
                r#"{"prefix": "a/b?c"}"#,
                r#"prefix: "a/b?c": a prefix has no query"#,
            ),
            (
                r#"{"prefixes": ["a/b/*"]}"#,
                r#"prefixes[0]: "a/b/*": a prefix is written without *"#,
            ),
            (r#"{"tag": ""}"#, "without blanks"),
            (r#"{"tags": ["a", "b "]}"#, r#"tags[1]: "b ": "#),
            (r#"{"tag": "a, b"}"#, "a list"),
        ] {
            let why = parse(content.as_bytes()).unwrap_err();
            assert!(why.contains(told), "{content}: {why}");
        }
    }

    #[test]
    fn a_request_names_at_most_so_many() {
        let of = |count| json!({ "tags": vec!["t"; count] }).to_string();
        assert_eq!(targets(&of(MOST)).len(), MOST);
        assert!(
            parse(of(MOST + 1).as_bytes())
                .unwrap_err()
                .contains("1001 are named")
        );
    }
}
