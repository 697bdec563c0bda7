//! What is hidden before a line of somebody's configuration is shown: a message ends up in logs and bug reports.

use std::borrow::Cow;

/// What stands for a secret.
const HIDDEN: &str = "…";

/// A line of a file without the secrets it may hold.
pub(super) fn line(line: &str) -> Cow<'_, str> {
    match line.split_once('=') {
        Some((key, _)) if names_a_secret(key) => format!("{key}= {HIDDEN}").into(),
        _ => addresses(line),
    }
}

/// Whether what a key of this name holds is nobody else's business. Judged by its words, since the keys that matter most are
/// those we do not know. An inline table's keys count with those before them on the line.
pub(super) fn names_a_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["secret", "token", "passw", "private", "credential"]
        .iter()
        .any(|word| key.contains(word))
        || key.contains("key") && !key.contains("keepalive") && !key.contains("public_key")
}

/// Addresses without the user and password before their `@`.
pub(super) fn addresses(text: &str) -> Cow<'_, str> {
    let mut shown = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("//") {
        let authority = &after[..after
            .find(['/', '"', '\'', ',', ' '])
            .unwrap_or(after.len())];
        let Some((_, host)) = authority.rsplit_once('@') else {
            shown.push_str(before);
            shown.push_str("//");
            rest = after;
            continue;
        };
        shown.push_str(&format!("{before}//{HIDDEN}@{host}"));
        rest = &after[authority.len()..];
    }
    if shown.is_empty() {
        text.into()
    } else {
        (shown + rest).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_hidden_wherever_it_stands() {
        assert_eq!(line("token = \"s3cret\""), "token = …");
        assert_eq!(line("secret_key = \"s3cret\""), "secret_key = …");
        assert_eq!(line("curve-key=\"s3cret\""), "curve-key= …");
        assert_eq!(
            line("upstream = \"http://me:s3cret@app:80/x\""),
            "upstream = \"http://…@app:80/x\""
        );
        assert_eq!(
            line("a = [\"http://a/b\", \"http://u:p@c\"]"),
            "a = [\"http://a/b\", \"http://…@c\"]"
        );
    }

    #[test]
    fn an_ordinary_line_is_shown_as_it_is() {
        for ordinary in [
            "keepalive_timeout = \"60s\"",
            "# http://example.com/a",
            "[frontend]",
            "b = { public_key = \"x\" }",
            "",
        ] {
            assert_eq!(line(ordinary), ordinary);
        }
    }
}
