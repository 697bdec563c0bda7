//! The target URI in the one form that routes, cache key and backends all see (RFC 3986 §6.2.2): what is keyed is what is sent.

use std::borrow::Cow;

/// Why a target URI cannot be served; the words go to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BadTarget(pub(crate) &'static str);

/// The authority in normal form: lower case, without the scheme's default port.
///
/// # Errors
/// What is no host with an optional port: user information, blanks, an empty host, a port that is no number.
pub(crate) fn authority(raw: &str, secure: bool) -> Result<String, BadTarget> {
    normal_authority(raw, secure).map_err(|bad| match raw.contains('@') {
        true => BadTarget("the authority must not have user information"),
        false => bad,
    })
}

fn normal_authority(raw: &str, secure: bool) -> Result<String, BadTarget> {
    let (host, port) = split_port(raw.as_bytes())?;
    if host.is_empty() {
        return Err(BadTarget("the host is empty"));
    }
    if !is_host(host) {
        return Err(BadTarget("the host is no valid name or address"));
    }
    let default: &[u8] = if secure { b"443" } else { b"80" };
    let kept = match port {
        Some(port) if port.is_empty() || port == default => host.len(),
        Some(port) if port.len() <= 5 && port.iter().all(u8::is_ascii_digit) => raw.len(),
        Some(_) => return Err(BadTarget("the port is no number")),
        None => raw.len(),
    };
    // What is a host is ASCII.
    Ok(raw[..kept].to_ascii_lowercase())
}

/// The host of a normalised authority.
pub(crate) fn host(authority: &str) -> &str {
    let host = split_port(authority.as_bytes()).ok();
    host.and_then(|(host, _)| authority.get(..host.len()))
        .unwrap_or(authority)
}

fn split_port(raw: &[u8]) -> Result<(&[u8], Option<&[u8]>), BadTarget> {
    let search_from = if raw.first() == Some(&b'[') {
        // An IPv6 address has colons of its own.
        raw.iter()
            .position(|byte| *byte == b']')
            .ok_or(BadTarget("the address has no closing bracket"))?
    } else {
        0
    };
    match raw[search_from..].iter().position(|byte| *byte == b':') {
        Some(at) => Ok((&raw[..search_from + at], Some(&raw[search_from + at + 1..]))),
        None => Ok((raw, None)),
    }
}

fn is_host(host: &[u8]) -> bool {
    if let [b'[', inside @ .., b']'] = host {
        return !inside.is_empty()
            && inside
                .iter()
                .all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'));
    }
    // reg-name without sub-delims but for those seen in practice; underscores are no DNS but are used as service names.
    host.len() <= scale0_wire::limits::NAME && host.iter().all(|byte| is_unreserved(*byte))
}

/// The path, and what follows the first question mark.
pub(crate) fn split_query(raw: &str) -> (&str, Option<&str>) {
    // Most are short: a searcher takes longer to be set up than to search.
    match raw.bytes().position(|byte| byte == b'?') {
        Some(at) => (&raw[..at], Some(&raw[at + 1..])),
        None => (raw, None),
    }
}

/// Path and query in normal form: unreserved characters decoded, other escapes in upper case, bytes that no URI has escaped,
/// dot segments removed. The query is left as it is: what an escape means there is the application's business.
///
/// # Errors
/// A percent sign without two hexadecimal digits, a path that does not start with a slash.
pub(crate) fn path_and_query(raw: &str) -> Result<Cow<'_, str>, BadTarget> {
    let (path, query) = split_query(raw);
    if !path.starts_with('/') {
        return Err(BadTarget("the path must start with a slash"));
    }
    let normal = if path.bytes().all(is_plain) && !has_dot_segment(path) {
        Cow::Borrowed(path)
    } else {
        Cow::Owned(without_dot_segments(&escapes_normalised(path)?))
    };
    Ok(match (normal, query) {
        (Cow::Borrowed(_), _)
            if query.is_none_or(|query| query.bytes().all(|byte| byte.is_ascii_graphic())) =>
        {
            Cow::Borrowed(raw)
        }
        (path, None) => path,
        (path, Some(query)) => {
            let mut whole = path.into_owned();
            whole.push('?');
            for byte in query.bytes() {
                push_escaped_unless(&mut whole, byte, byte.is_ascii_graphic());
            }
            Cow::Owned(whole)
        }
    })
}

/// A byte of a path that needs no second look: unreserved, sub-delimiter, or separator (RFC 3986 §3.3).
const fn is_plain(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(
            byte,
            b'/' | b':'
                | b'@'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
        )
}

const fn is_unreserved(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~')
}

fn has_dot_segment(path: &str) -> bool {
    path.as_bytes().windows(2).any(|pair| pair == b"/.")
        && path.split('/').any(|segment| matches!(segment, "." | ".."))
}

fn escapes_normalised(path: &str) -> Result<String, BadTarget> {
    let mut to = String::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            push_escaped_unless(&mut to, byte, is_plain(byte));
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(bytes.next()), digit(bytes.next())) else {
            return Err(BadTarget(
                "a percent sign must be followed by two hexadecimal digits",
            ));
        };
        #[expect(
            clippy::cast_possible_truncation,
            reason = "two hexadecimal digits are a byte"
        )]
        let decoded = (high * 16 + low) as u8;
        push_escaped_unless(&mut to, decoded, is_unreserved(decoded));
    }
    Ok(to)
}

fn push_escaped_unless(to: &mut String, byte: u8, plain: bool) {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
    ];
    if plain {
        to.push(char::from(byte));
    } else {
        to.push('%');
        to.push(DIGITS[usize::from(byte >> 4)]);
        to.push(DIGITS[usize::from(byte & 15)]);
    }
}

/// RFC 3986 §5.2.4; what would lead above the root stays at it.
fn without_dot_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if is_last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    let mut to = String::with_capacity(path.len());
    for segment in kept {
        to.push('/');
        to.push_str(segment);
    }
    if to.is_empty() {
        to.push('/');
    }
    to
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_in_normal_form_is_not_copied() {
        for path in [
            "/",
            "/a/b.html",
            "/a//b",
            "/a/b?x=%7e&y=/../",
            "/...",
            "/a/.b",
            "/%C3%A9",
        ] {
            let normal = path_and_query(path).unwrap();
            assert_eq!(normal, path);
            assert!(
                matches!(normal, Cow::Borrowed(_)) || path.contains('%'),
                "{path}"
            );
        }
    }

    #[test]
    fn equivalent_paths_have_one_form() {
        for (raw, normal) in [
            ("/%7Euser", "/~user"),
            ("/a%2fb", "/a%2Fb"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/%2e%2E/b", "/b"),
            ("/../../b", "/b"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/..", "/"),
            ("/é", "/%C3%A9"),
            ("/a\"b", "/a%22b"),
            ("/a/../b?c=/../d", "/b?c=/../d"),
            ("/a?é", "/a?%C3%A9"),
            ("/%00", "/%00"),
        ] {
            assert_eq!(path_and_query(raw).as_deref(), Ok(normal), "{raw}");
            assert_eq!(
                path_and_query(normal).as_deref(),
                Ok(normal),
                "{normal} changes once more"
            );
        }
    }

    #[test]
    fn a_broken_escape_is_refused() {
        for raw in ["/%", "/%4", "/%zz", "/a%", "a/b", ""] {
            assert!(path_and_query(raw).is_err(), "{raw}");
        }
    }

    #[test]
    fn equivalent_authorities_have_one_form() {
        for (raw, normal) in [
            ("Example.COM", "example.com"),
            ("example.com:80", "example.com"),
            ("example.com:", "example.com"),
            ("example.com:8080", "example.com:8080"),
            ("[::1]:80", "[::1]"),
            ("[2001:DB8::1]:81", "[2001:db8::1]:81"),
            ("127.0.0.1:8080", "127.0.0.1:8080"),
        ] {
            assert_eq!(authority(raw, false).unwrap(), normal);
        }
        assert_eq!(authority("a:443", true).unwrap(), "a");
        assert_eq!(host("[::1]:81"), "[::1]");
        assert_eq!(host("a:81"), "a");
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for raw in [
            "",
            ":80",
            "user@host",
            "a b",
            "a/b",
            "a:b",
            "a:123456",
            "[::1",
            "[]",
            "a,b",
            "a\u{e9}",
        ] {
            assert!(authority(raw, false).is_err(), "{raw}");
        }
    }
}
