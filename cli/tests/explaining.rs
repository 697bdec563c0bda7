//! What became of one request, as its operator may ask, with the real binary.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::fs;
use std::path::Path;

use serde_json::Value;
use support::{Client, Origin, Response, Scale0, empty, site, text};
use tokio::sync::watch;

const TOKEN: &str = "open sesame";
const QUIET: &str = "[log]\naccess = \"off\"\n";

/// A file with the token in `folder`, and the section that names it.
fn admin(folder: &Path) -> String {
    let file = folder.join("token");
    fs::write(&file, format!("{TOKEN}\n")).unwrap();
    format!("[admin]\ntoken_file = {file:?}\n")
}

async fn explained(client: &mut Client, target: &str) -> (Response, Vec<Value>) {
    let field = format!("Scale0-Debug: {TOKEN}\r\n");
    let response = client.get_with(target, &field).await;
    let hops = hops(&response);
    (response, hops)
}

fn hops(response: &Response) -> Vec<Value> {
    let account = response.field("scale0-debug");
    assert!(account.len() <= 4096, "{}", account.len());
    let account: Value = serde_json::from_str(account).unwrap();
    assert_eq!(account["request"], response.field("x-request-id"));
    account["hops"].as_array().unwrap().clone()
}

/// What happened, where it happened, in order.
fn told(hops: &[Value]) -> Vec<String> {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut all: Vec<_> = hops
        .iter()
        .map(|hop| format!("{} {}", word(&hop["at"]), word(&hop["what"])))
        .collect();
    // At a busy moment it waits for credit first; that is another test's business.
    all.retain(|told| !told.ends_with(" queued"));
    all
}

fn hop<'a>(hops: &'a [Value], what: &str) -> &'a Value {
    let found = hops.iter().find(|hop| hop["what"] == what);
    found.unwrap_or_else(|| panic!("no {what} in {hops:?}"))
}

#[tokio::test]
async fn who_has_the_token_learns_what_became_of_a_request_and_nobody_else_does() {
    let app = Origin::start(|request| async move {
        assert!(!request.headers().contains_key("scale0-debug"));
        let fresh = http::Response::builder().header("cache-control", "max-age=60");
        fresh.body(text("page")).unwrap()
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let config = site(&app, QUIET).replace("[admin]\n", &admin(folder.path()));
    let scale0 = Scale0::start(&config).await;
    let mut client = scale0.client().await;

    let (response, fetched) = explained(&mut client, "/page").await;
    assert_eq!((response.status(), &response.text()[..]), (200, "page"));
    assert_eq!(
        told(&fetched),
        [
            "test received",
            "test looked-up",
            "test leads",
            "test sent",
            "test arrived",
            "test chosen",
            "test responded",
            "test head",
            "test answered",
        ]
    );
    assert_eq!(hop(&fetched, "looked-up")["why"], "miss");
    assert_eq!(hop(&fetched, "sent")["why"], "only");
    let answered = hop(&fetched, "answered");
    assert_eq!(answered["status"], 200);
    assert_eq!(answered["cache"], response.field("cache-status"));
    let times: Vec<_> = fetched.iter().map(|hop| hop["us"].as_u64()).collect();
    assert!(times.is_sorted(), "{times:?}");

    // What is stored has no account, neither that one nor another.
    let (_, stored) = explained(&mut client, "/page").await;
    assert_eq!(
        told(&stored),
        ["test received", "test looked-up", "test answered"]
    );
    assert_eq!(hop(&stored, "looked-up")["why"], "hit");
    for fields in ["", "Scale0-Debug: \r\n", "Scale0-Debug: open\r\n"] {
        let plain = client.get_with("/page", fields).await;
        assert_eq!(plain.text(), "page");
        assert_eq!(plain.head.field("scale0-debug"), None);
        assert_eq!(plain.field("cache-control"), "max-age=60");
    }
    let mut admin = Client::connect(scale0.admin()).await;
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    let metrics = admin.get_with("/metrics", &bearer).await.text();
    for line in [
        "scale0_http_explained_total 2",
        "scale0_http_explanations_refused_total 2",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
}

#[tokio::test]
async fn who_joins_an_explained_request_gets_the_answer_and_not_the_account() {
    let (let_go, gate) = watch::channel(());
    let app = Origin::start(move |_| {
        let mut gate = gate.clone();
        async move {
            gate.changed().await.unwrap();
            let fresh = http::Response::builder().header("cache-control", "max-age=60");
            fresh.body(text("page")).unwrap()
        }
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let config = site(&app, QUIET).replace("[admin]\n", &admin(folder.path()));
    let scale0 = Scale0::start(&config).await;
    let mut clients = [
        scale0.client().await,
        scale0.client().await,
        scale0.client().await,
    ];
    let debug = format!("Scale0-Debug: {TOKEN}\r\n");
    for (client, fields) in clients.iter_mut().zip([&debug[..], "", &debug]) {
        client.ask("GET", "/page", fields).await;
        app.until(|counts| counts.running == 1).await;
    }
    let mut admin = Client::connect(scale0.admin()).await;
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    support::soon(async {
        let joined = "scale0_cache_flights_joined_total 2";
        while !admin
            .get_with("/metrics", &bearer)
            .await
            .text()
            .contains(joined)
        {}
    })
    .await;
    let_go.send(()).unwrap();
    let [leader, waiter, curious] = &mut clients;
    let leads = hops(&leader.response().await);
    assert!(
        told(&leads).contains(&"test chosen".to_owned()),
        "{leads:?}"
    );
    let plain = waiter.response().await;
    assert_eq!(
        (plain.text(), plain.head.field("scale0-debug")),
        ("page".into(), None)
    );
    let joins = hops(&curious.response().await);
    assert_eq!(
        told(&joins),
        [
            "test received",
            "test looked-up",
            "test joins",
            "test answered"
        ]
    );
}

#[tokio::test]
async fn without_a_token_nobody_is_told_anything() {
    let app = Origin::start(|_| async { http::Response::new(empty()) }).await;
    let scale0 = Scale0::start(&site(&app, QUIET)).await;
    let response = scale0
        .client()
        .await
        .get_with("/", "Scale0-Debug: \r\n")
        .await;
    assert_eq!(response.head.field("scale0-debug"), None);
    let refused = "scale0_http_explanations_refused_total";
    assert_eq!(scale0.metrics(refused).await, 1.0);
}

#[tokio::test]
async fn the_account_tells_of_a_backend_that_died_and_of_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let socket =
        |broker: &str, whom: &str| format!("ipc://{}/{broker}-{whom}", folder.path().display());
    let broker = async |name: &str| {
        let mut section =
            format!("[node]\nname = \"{name}\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[broker]\n");
        for whom in ["frontends", "backends", "peers"] {
            section += &format!("{whom} = {:?}\n", socket(name, whom));
        }
        Scale0::start(&section).await
    };
    let brokers = [broker("one").await, broker("two").await];
    let bridge = async |name: &str, app: &Origin| {
        let brokers = ["one", "two"].map(|broker| socket(broker, "backends"));
        let url = app.url();
        Scale0::start(&format!(
            "[node]\nname = \"{name}\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[[bridge]]\nservice = \"shop\"\nupstream = \"{url}\"\nconcurrency = 1\nbrokers = {brokers:?}\n"
        ))
        .await
    };
    let there = async |count: f64| {
        for broker in &brokers {
            let metric = "scale0_broker_service_backends";
            broker.until_metric(metric, |there| there == count).await;
        }
    };
    let deaf = Origin::start(|_| std::future::pending()).await;
    let well = Origin::start(|_| async { http::Response::new(text("well")) }).await;
    let at = ["one", "two"].map(|broker| socket(broker, "frontends"));
    let front = Scale0::start(&format!(
        "{}listen = \"127.0.0.1:0\"\n{QUIET}[node]\nname = \"front\"\n[frontend]\nhttp = \"127.0.0.1:0\"\nbrokers = {at:?}\n[[route]]\nservice = \"shop\"\n",
        admin(folder.path())
    ))
    .await;
    let mut first = bridge("first", &deaf).await;
    there(1.0).await;
    let mut client = front.client().await;
    client
        .ask("GET", "/", &format!("Scale0-Debug: {TOKEN}\r\n"))
        .await;
    deaf.until(|counts| counts.running == 1).await;
    let _second = bridge("second", &well).await;
    there(2.0).await;
    first.kill9().await;
    let response = client.response().await;
    assert_eq!(response.text(), "well");
    let hops = hops(&response);
    let chosen: Vec<_> = hops.iter().filter(|hop| hop["what"] == "chosen").collect();
    assert_eq!(
        (&chosen[0]["node"], &chosen[1]["node"]),
        (&"first".into(), &"second".into())
    );
    assert_eq!(hop(&hops, "lost")["node"], "first");
    assert_eq!(hop(&hops, "responded")["node"], "second");
    let sent = hop(&hops, "sent");
    assert_eq!((&sent["why"], &sent["among"]), (&"home".into(), &2.into()));
    assert_eq!(chosen[0]["at"], sent["node"]);
}
