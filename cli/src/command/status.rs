//! `scale0 status`: how a running process stands.

use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};

use http::{Method, StatusCode};
use serde_json::Value;

use super::admin_client::{ask, refusal};
use crate::args::StatusArguments;

/// Prints it, for people or as JSON.
///
/// # Errors
/// When the process cannot be asked, or answers otherwise than a scale0 does.
pub(crate) fn run(arguments: &StatusArguments) -> anyhow::Result<()> {
    let admin = &arguments.admin.admin;
    let (status, text) = ask(admin, Method::GET, "/status")?;
    let shown = serde_json::from_str::<Value>(&text).ok();
    let shown = shown.filter(|it| it["node"].is_string() && it["version"].is_string());
    let shown = shown.filter(|_| status == StatusCode::OK);
    let shown = shown.ok_or_else(|| refusal(admin, status, &text))?;
    let text = if arguments.json {
        text
    } else {
        overview(&shown)
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// What an operator wants to see first, in columns that scripts can read.
fn overview(status: &Value) -> String {
    let mut to = String::new();
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let number = |value: &Value| {
        value
            .as_u64()
            .map_or_else(|| "-".into(), |number| number.to_string())
    };
    _ = writeln!(
        to,
        "node {}  site {}  version {}",
        word(&status["node"]),
        word(&status["site"]),
        word(&status["version"])
    );
    let frontend = &status["frontend"];
    if frontend.is_object() {
        let ready = if frontend["ready"] == true {
            "ready"
        } else {
            "not ready"
        };
        let (connections, streams) = (
            number(&frontend["connections"]),
            number(&frontend["streams"]),
        );
        _ = writeln!(
            to,
            "\nfrontend  {ready}  connections {connections}  streams {streams}  requests {}",
            number(&frontend["requests"])
        );
        let cache = &frontend["cache"];
        let (hits, misses) = (&cache["counters"]["hits"], &cache["counters"]["misses"]);
        let (led, joined) = (
            &cache["counters"]["flights_led"],
            &cache["counters"]["flights_joined"],
        );
        _ = writeln!(
            to,
            "cache     hits {}  misses {}  fetches {}  joined {}  stored {} ({} bytes)",
            number(hits),
            number(misses),
            number(led),
            number(joined),
            number(&cache["stored_responses"]),
            number(&cache["stored_bytes"]),
        );
        let store = &cache["store"];
        if store["path"].is_string() {
            _ = writeln!(
                to,
                "store     {} {}  records {}  bytes {} of {}  waiting {}",
                word(&store["kind"]),
                word(&store["state"]),
                number(&store["records"]),
                number(&store["bytes"]),
                number(&store["capacity"]),
                number(&store["waiting"]),
            );
        }
        for broker in frontend["brokers"].as_array().into_iter().flatten() {
            let (node, state) = (word(&broker["node"]), word(&broker["state"]));
            _ = writeln!(
                to,
                "  to broker {node}  lane {}  {state}  outstanding {}",
                number(&broker["lane"]),
                number(&broker["outstanding"])
            );
        }
    }
    let broker = &status["broker"];
    if broker.is_object() {
        let draining = if broker["is_draining"] == true {
            "draining"
        } else {
            "up"
        };
        _ = writeln!(
            to,
            "\nbroker    {draining}  open requests {}  streams {}",
            number(&broker["open_requests"]),
            number(&broker["streams"])
        );
        for service in broker["services"].as_array().into_iter().flatten() {
            let (name, queued) = (word(&service["name"]), number(&service["queued"]));
            let resting = match &service["resting"] {
                Value::Number(resting) if resting.as_u64() != Some(0) => {
                    format!(" ({resting} resting)")
                }
                _ => String::new(),
            };
            let overloaded = if service["is_overloaded"] == true {
                "  overloaded"
            } else {
                ""
            };
            _ = writeln!(
                to,
                "  service {name}  backends {}{resting}  outstanding {}  queued {queued}  oldest {} ms{overloaded}",
                number(&service["backends"]),
                number(&service["outstanding"]),
                number(&service["oldest_ms"])
            );
        }
        for backend in broker["backends"].as_array().into_iter().flatten() {
            let session = &backend["session"];
            let (node, lane) = (word(&session["node"]), number(&session["lane"]));
            let (outstanding, capacity) = (
                number(&backend["outstanding"]),
                number(&backend["capacity"]),
            );
            let draining = if session["is_draining"] == true {
                "  draining"
            } else {
                ""
            };
            let key = match session["key"].as_str() {
                Some(key) => format!("  key {key}"),
                None => String::new(),
            };
            let resting = names("resting", &backend["resting"]);
            let barred = names("not allowed", &backend["not_allowed"]);
            _ = writeln!(
                to,
                "  backend {node}/{lane}  outstanding {outstanding} of {capacity}  credit {}{draining}{resting}{key}{barred}",
                number(&backend["credit"])
            );
        }
        for frontend in broker["frontends"].as_array().into_iter().flatten() {
            let session = &frontend["session"];
            _ = writeln!(
                to,
                "  frontend {}/{}  open requests {}",
                word(&session["node"]),
                number(&session["lane"]),
                number(&frontend["open_requests"])
            );
        }
    }
    for offender in broker["quarantined"].as_array().into_iter().flatten() {
        _ = writeln!(
            to,
            "  quarantined {}  for {} ms  terms {}",
            word(&offender["name"]),
            number(&offender["left_ms"]),
            number(&offender["terms"]),
        );
    }
    let bridges = match &status["bridge"] {
        Value::Array(several) => several.iter().collect(),
        Value::Null => Vec::new(),
        one => vec![one],
    };
    for bridge in bridges {
        let up = if bridge["up"] == true { "up" } else { "down" };
        _ = writeln!(
            to,
            "\nbridge    {}  application {up}  requests {}",
            word(&bridge["services"]),
            number(&bridge["requests"])
        );
    }
    to
}

/// Services that something is said of; nothing where it is said of none.
fn names(what: &str, services: &Value) -> String {
    let services = services.as_array().into_iter().flatten();
    let services: Vec<&str> = services.filter_map(Value::as_str).collect();
    if services.is_empty() {
        return String::new();
    }
    format!("  {what} {}", services.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_overview_needs_nothing_but_what_is_there() {
        assert_eq!(
            overview(&json!({ "node": "n", "site": "s", "version": "1" })),
            "node n  site s  version 1\n"
        );
        let status = json!({
            "node": "n", "site": "s", "version": "1",
            "frontend": { "ready": true, "connections": 3, "cache": { "store": {
                "kind": "file", "state": "open", "path": "/x", "records": 4, "bytes": 9, "capacity": 10, "waiting": 0,
            } }, "brokers": [{ "node": "b", "state": "live", "lane": 0, "outstanding": 1 }] },
            "broker": { "services": [
                { "name": "blog", "backends": 1, "resting": 0, "outstanding": 0, "queued": 0, "oldest_ms": 0, "is_overloaded": false },
                { "name": "shop", "backends": 2, "resting": 1, "outstanding": 3, "queued": 5, "oldest_ms": 7, "is_overloaded": true },
            ], "frontends": [{ "session": { "node": "f", "lane": 1 }, "open_requests": 4 }], "backends": [{
                "session": { "node": "a", "lane": 0, "key": "shop-1" }, "not_allowed": ["blog", "*"], "outstanding": 1, "capacity": 8, "credit": 7,
                "resting": ["shop"],
            }], "quarantined": [{ "name": "blog-1", "left_ms": 900, "terms": 3 }] },
            "bridge": [{ "services": "shop", "up": false }, { "services": "*", "up": true, "requests": 9 }],
        });
        let text = overview(&status);
        for line in [
            "store     file open  records 4  bytes 9 of 10  waiting 0",
            "  to broker b  lane 0  live  outstanding 1",
            "  service blog  backends 1  outstanding 0  queued 0  oldest 0 ms\n",
            "  service shop  backends 2 (1 resting)  outstanding 3  queued 5  oldest 7 ms  overloaded",
            "  backend a/0  outstanding 1 of 8  credit 7  resting shop  key shop-1  not allowed blog,*",
            "  frontend f/1  open requests 4",
            "  quarantined blog-1  for 900 ms  terms 3",
            "bridge    shop  application down",
        ] {
            assert!(text.contains(line), "{line}\nis not in\n{text}");
        }
    }
}
