//! What operators purge, and what they are told of it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::process::Output;

use serde_json::{Value, json};
use support::{Origin, Scale0, empty, get, site, soon};
use tokio::process::Command;

const QUIET: &str = "[log]\naccess = \"off\"\n";

async fn start() -> (Scale0, Origin) {
    let app = Origin::start(|_| async { http::Response::new(empty()) }).await;
    let scale0 = Scale0::start(&site(&app, QUIET)).await;
    (scale0, app)
}

async fn purge(process: &Scale0, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scale0"));
    let admin = format!("http://{}", process.admin());
    command
        .arg("purge")
        .args(arguments)
        .args(["--admin", &admin]);
    soon(command.env_remove("SCALE0_ADMIN_TOKEN").output())
        .await
        .unwrap()
}

fn words(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn who_purges_is_told_which_nodes_confirmed() {
    let (scale0, _app) = start().await;
    let purged = purge(&scale0, &["--tag", "a", "--tag", "b"]).await;
    assert_eq!(purged.status.code(), Some(0), "{purged:?}");
    assert_eq!(words(&purged.stdout), "confirmed by 1 of 1: test\n");

    let purged = purge(&scale0, &["--all", "--soft", "--json"]).await;
    assert_eq!(purged.status.code(), Some(0), "{purged:?}");
    let account: Value = serde_json::from_slice(&purged.stdout).unwrap();
    let expected = json!({ "confirmed": 1, "of": 1, "nodes": ["test"], "unconfirmed": [] });
    assert_eq!(account, expected);
}

#[tokio::test]
async fn purges_are_counted_by_kind() {
    let (scale0, _app) = start().await;
    let url = "https://www.example.com/a";
    for (arguments, kind, count) in [
        (&["--url", url, "--url", "b.example/?c"][..], "url", 2),
        (&["--prefix", url], "prefix", 1),
        (&["--tag", "a", "--soft"], "tag", 1),
        (&["--all"], "all", 1),
    ] {
        let purged = purge(&scale0, arguments).await;
        assert_eq!(purged.status.code(), Some(0), "{purged:?}");
        let name = format!("scale0_cache_purges_{kind}_total");
        assert_eq!(scale0.metrics(&name).await, f64::from(count), "{kind}");
    }
}

#[tokio::test]
async fn what_cannot_be_purged_is_told_with_what_is_expected() {
    let (scale0, _app) = start().await;
    for (arguments, told) in [
        (["--url", "/only/a/path"], "expected https://host/path"),
        (["--prefix", "https://a/b?c"], "a prefix has no query"),
        (["--tag", "a, b"], "several tags are a list"),
    ] {
        let refused = purge(&scale0, &arguments).await;
        assert_eq!(refused.status.code(), Some(1));
        let message = words(&refused.stderr);
        assert!(
            message.contains("400") && message.contains(told),
            "{message}"
        );
        assert!(
            message.contains(&format!("{:?}", arguments[1])),
            "{message}"
        );
    }
    for (arguments, odd) in [
        (["--tag", "a,b"], "is one tag"),
        (["--tag", "a b"], "is one tag"),
        (["--prefix", "https://a/b*"], "* is no wildcard"),
    ] {
        let purged = purge(&scale0, &arguments).await;
        assert_eq!(purged.status.code(), Some(0), "{purged:?}");
        let message = words(&purged.stderr);
        assert!(
            message.starts_with("warning: ") && message.contains(odd),
            "{message}"
        );
    }
    let plain = purge(&scale0, &["--tag", "a"]).await;
    assert_eq!(words(&plain.stderr), "");
    let wrong = purge(&scale0, &["--all", "--tag", "a"]).await;
    assert_eq!(wrong.status.code(), Some(2));
}

#[tokio::test]
async fn a_process_without_a_cache_confirms_nothing() {
    let (_scale0, app) = start().await;
    let bridge = Scale0::launch(&format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\n{QUIET}[[bridge]]\nservice = \"shop\"\nupstream = \"{}\"\nbrokers = \"tcp://127.0.0.1:1\"\n",
        app.url()
    ))
    .await;
    let refused = purge(&bridge, &["--all"]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(words(&refused.stderr).contains("[frontend]"), "{refused:?}");
    assert_eq!(get(bridge.admin(), "/purge").await.status(), 405);
}

#[tokio::test]
async fn who_asks_a_port_that_is_no_admin_interface_is_told_so() {
    let app = Origin::start(|_| async { http::Response::new(support::text("ok")) }).await;
    for command in [&["purge", "--all"][..], &["status"], &["drain"]] {
        let mut asked = Command::new(env!("CARGO_BIN_EXE_scale0"));
        asked.args(command).args(["--admin", &app.url()]);
        let asked = soon(asked.output()).await.unwrap();
        assert_eq!(asked.status.code(), Some(1), "{asked:?}");
        let message = words(&asked.stderr);
        assert!(
            message.contains("does not look like the admin interface"),
            "{message}"
        );
    }
}
