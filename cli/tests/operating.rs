//! What operators do to a running process: drain a role, reopen the log, ask with a token.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::path::Path;
use std::process::Output;

use rustix::process::Signal;
use support::{Origin, Scale0, empty, get, site, soon};
use tokio::process::Command;
use tokio::sync::watch;

const QUIET: &str = "[log]\naccess = \"off\"\n";

async fn app() -> Origin {
    Origin::start(|_| async { http::Response::new(empty()) }).await
}

/// A subcommand that asks this process.
async fn ask(process: &Scale0, arguments: &[&str], token: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scale0"));
    command
        .args(arguments)
        .args(["--admin", &format!("http://{}", process.admin())])
        .env_remove("SCALE0_ADMIN_TOKEN")
        .envs(token.map(|token| ("SCALE0_ADMIN_TOKEN", token)));
    soon(command.output()).await.unwrap()
}

fn lines(path: &Path) -> usize {
    std::fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

#[tokio::test]
async fn a_role_drains_and_the_others_go_on() {
    let app = app().await;
    let impatient = format!("[limits]\nhold = \"100ms\"\n{QUIET}");
    let scale0 = Scale0::start(&site(&app, impatient)).await;
    let drained = ask(&scale0, &["drain", "--role", "broker", "--wait"], None).await;
    assert_eq!(drained.status.code(), Some(0), "{drained:?}");
    let response = scale0.get("/").await;
    assert_eq!(response.status(), 503);
    assert!(response.text().contains("no-broker"), "{response:?}");
    let refused = "scale0_http_errors_total{reason=\"no-broker\"";
    assert_eq!(scale0.metrics(refused).await, 1.0);

    let drained = ask(&scale0, &["drain", "--role", "frontend", "--wait"], None).await;
    assert_eq!(drained.status.code(), Some(0), "{drained:?}");
    assert_eq!(get(scale0.admin(), "/readyz").await.status(), 503);
    assert_eq!(get(scale0.admin(), "/healthz").await.status(), 200);
}

#[tokio::test]
async fn a_process_hears_sigterm_while_a_role_drains() {
    let app = Origin::start(|_| std::future::pending()).await;
    let limits = "[limits]\ntimeout = \"1h\"\ndrain_timeout = \"100ms\"\n";
    let mut scale0 = Scale0::start(&site(&app, format!("{limits}{QUIET}"))).await;
    let mut client = scale0.client().await;
    client.ask("GET", "/for-ever", "").await;
    app.until(|counts| counts.running == 1).await;
    let patient = ["drain", "--role", "frontend", "--timeout", "1h"];
    assert_eq!(ask(&scale0, &patient, None).await.status.code(), Some(0));
    soon(async { while get(scale0.admin(), "/readyz").await.status() == 200 {} }).await;
    assert_eq!(app.counts().running, 1);
    scale0.terminate();
    assert_eq!(scale0.wait_exit().await.code(), Some(0));
}

/// As GNU `timeout` and some supervisors have it, which signal their child and its process group.
#[tokio::test]
async fn two_signals_to_stop_that_come_together_are_one() {
    let (let_go, gate) = watch::channel(());
    let app = Origin::start(move |_| {
        let mut gate = gate.clone();
        async move {
            gate.changed().await.unwrap();
            http::Response::new(empty())
        }
    })
    .await;
    let mut scale0 = Scale0::start(&site(&app, QUIET)).await;
    let mut client = scale0.client().await;
    client.ask("GET", "/page", "").await;
    app.until(|counts| counts.running == 1).await;
    // Not one kind twice, of which the system would make one.
    scale0.signal(Signal::INT);
    scale0.signal(Signal::TERM);
    soon(async { while get(scale0.admin(), "/readyz").await.status() == 200 {} }).await;
    let_go.send(()).unwrap();
    assert_eq!(client.head().await.unwrap().status, 200);
    assert_eq!(scale0.wait_exit().await.code(), Some(0));
}

#[tokio::test]
async fn the_demo_stores_where_no_site_of_ones_own_does() {
    let mut arguments = vec!["up"];
    for set in [
        "frontend.http=127.0.0.1:0",
        "admin.listen=127.0.0.1:0",
        "broker.frontends=ipc://frontends",
        "broker.backends=ipc://backends",
        "broker.peers=ipc://peers",
    ] {
        arguments.extend(["--set", set]);
    }
    let demo = Scale0::launch_in(tempfile::tempdir().unwrap(), &arguments).await;
    soon(async { while get(demo.admin(), "/readyz").await.status() != 200 {} }).await;
    assert!(demo.folder().join("scale0-demo").exists());
    assert!(!demo.folder().join("scale0-cache").exists());
}

#[tokio::test]
async fn a_role_that_a_process_does_not_play_cannot_be_drained() {
    let app = app().await;
    let scale0 = Scale0::launch(&format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\n{QUIET}[[bridge]]\nservice = \"shop\"\nupstream = \"{}\"\nbrokers = \"tcp://127.0.0.1:1\"\n",
        app.url()
    ))
    .await;
    let refused = ask(&scale0, &["drain", "--role", "frontend"], None).await;
    assert_eq!(refused.status.code(), Some(1));
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(
        message.contains("\"frontend\"; it has: bridge"),
        "{message}"
    );
}

#[tokio::test]
async fn a_log_that_was_moved_away_is_opened_anew_at_sigusr1() {
    let app = app().await;
    let scale0 = Scale0::start(&site(&app, "[log]\naccess = \"access.log\"\n")).await;
    let (log, moved) = (
        scale0.folder().join("access.log"),
        scale0.folder().join("access.log.1"),
    );
    scale0.get("/before").await;
    soon(async {
        while lines(&log) < 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    std::fs::rename(&log, &moved).unwrap();
    scale0.signal(Signal::USR1);
    soon(async {
        while !log.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    scale0.get("/after").await;
    soon(async {
        while lines(&log) < 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(std::fs::read_to_string(&log).unwrap().contains("/after"));
    assert_eq!(lines(&moved), 1);
}

#[tokio::test]
async fn where_there_is_a_token_only_who_has_it_sees_or_changes_anything() {
    let app = app().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "open sesame\n").unwrap();
    let config =
        site(&app, QUIET).replace("[admin]\n", &format!("[admin]\ntoken_file = {file:?}\n"));
    let scale0 = Scale0::start(&config).await;
    for page in ["/metrics", "/status", "/drain", "/purge"] {
        assert_eq!(get(scale0.admin(), page).await.status(), 401, "{page}");
    }
    assert_eq!(get(scale0.admin(), "/healthz").await.status(), 200);
    for token in [None, Some("open"), Some("open sesame!")] {
        let refused = ask(&scale0, &["status"], token).await;
        assert_eq!(refused.status.code(), Some(1), "{token:?}");
        let message = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(message.contains("is wrong"), token.is_some(), "{message}");
        assert!(message.contains("SCALE0_ADMIN_TOKEN"), "{message}");
    }
    let shown = ask(&scale0, &["status", "--json"], Some("open sesame")).await;
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    assert!(!String::from_utf8_lossy(&shown.stdout).contains("sesame"));
}

#[tokio::test]
async fn the_log_says_of_each_request_what_became_of_it_and_who_answered() {
    let app = Origin::start(|_| async {
        let fresh = http::Response::builder().header("cache-control", "max-age=60");
        fresh.body(support::text("page")).unwrap()
    })
    .await;
    let scale0 = Scale0::start(&site(&app, "")).await;
    scale0.get("/page").await;
    scale0.get("/page").await;
    let lines = scale0.access_log(2).await;
    for (line, cache, backend) in [
        (
            &lines[0],
            "scale0; fwd=uri-miss; fwd-status=200; stored",
            "test".into(),
        ),
        (&lines[1], "scale0; hit; ttl=", serde_json::Value::Null),
    ] {
        assert_eq!(
            (&line["target"], &line["status"]),
            (&"/page".into(), &200.into())
        );
        assert_eq!(
            (&line["bytes"], &line["complete"]),
            (&4.into(), &true.into())
        );
        assert!(line["cache"].as_str().unwrap().starts_with(cache), "{line}");
        assert_eq!(line["backend"], backend, "{line}");
    }
}

#[tokio::test]
async fn a_bridge_that_no_broker_answers_says_so_and_whom_it_dials() {
    let app = app().await;
    let bridge = Scale0::launch(&format!(
        "{QUIET}[[bridge]]\nservice = \"shop\"\nupstream = \"{}\"\nbrokers = \"ipc://nobody\"\n",
        app.url()
    ))
    .await;
    let said = || {
        bridge.stderr().contains("no broker answers") && bridge.stderr().contains("ipc://nobody")
    };
    soon(async {
        while !said() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
