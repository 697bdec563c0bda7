//! `scale0 purge`: make what a running process has stored count as stale, or as gone.
#![expect(
    clippy::print_stderr,
    reason = "a command line says on standard error what is odd"
)]

use std::io::{ErrorKind, Write as _};

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::admin_client::{ask_with, refusal};
use crate::args::PurgeArguments;

/// Asks for it, and tells who confirmed.
///
/// # Errors
/// When the process cannot be asked, refuses, or not all nodes have confirmed.
pub(crate) fn run(arguments: &PurgeArguments) -> anyhow::Result<()> {
    let admin = &arguments.admin.admin;
    for doubt in doubts(arguments) {
        eprintln!("warning: {doubt}");
    }
    let asked = json!({
        "urls": arguments.urls,
        "prefixes": arguments.prefixes,
        "tags": arguments.tags,
        "all": arguments.all,
        "soft": arguments.soft,
    });
    let (status, text) = ask_with(admin, Method::POST, "/purge", asked.to_string())?;
    let account = serde_json::from_str::<Value>(&text).ok();
    let account = account.filter(|account| account["unconfirmed"].is_array());
    let account = account.ok_or_else(|| refusal(admin, status, &text))?;
    let told = if arguments.json {
        text
    } else {
        summary(&account)
    };
    match std::io::stdout().write_all(told.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        written => written?,
    }
    anyhow::ensure!(
        status == StatusCode::OK && unconfirmed(&account).is_empty(),
        "not confirmed by {}",
        unconfirmed(&account).join(", ")
    );
    Ok(())
}

/// What is purged as it stands, although something else was probably meant. A comma may be part of a tag in `Surrogate-Key`, and
/// a blank of one in `Cache-Tag`.
fn doubts(arguments: &PurgeArguments) -> Vec<String> {
    let several = |tag: &&String| tag.contains([',', ' ', '\t']);
    let several = arguments.tags.iter().filter(several).map(|tag| {
        format!("--tag {tag:?} is one tag; to name several, give each a --tag of its own")
    });
    let patterns = arguments.prefixes.iter().filter(|it| it.contains('*'));
    let patterns = patterns.map(|prefix| {
        format!("--prefix {prefix:?}: a * is no wildcard; without it, a prefix is about all below its path")
    });
    several.chain(patterns).collect()
}

fn summary(account: &Value) -> String {
    let nodes = account["nodes"].as_array().into_iter().flatten();
    let names: Vec<&str> = nodes.filter_map(Value::as_str).collect();
    let (confirmed, of) = (&account["confirmed"], &account["of"]);
    let names = if names.is_empty() {
        String::new()
    } else {
        format!(": {}", names.join(", "))
    };
    format!("confirmed by {confirmed} of {of}{names}\n")
}

/// Their names, and why.
fn unconfirmed(account: &Value) -> Vec<String> {
    let nodes = account["unconfirmed"].as_array().into_iter().flatten();
    let word = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    nodes
        .map(|node| format!("{} ({})", word(&node["node"]), word(&node["reason"])))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_confirmed_and_who_did_not_is_told_by_name() {
        let account = json!({
            "confirmed": 2, "of": 3, "nodes": ["fra-1", "fra-2"],
            "unconfirmed": [{ "node": "nyc-1", "reason": "the disk is full" }],
        });
        assert_eq!(summary(&account), "confirmed by 2 of 3: fra-1, fra-2\n");
        assert_eq!(unconfirmed(&account), ["nyc-1 (the disk is full)"]);
    }
}
