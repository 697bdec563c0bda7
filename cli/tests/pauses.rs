//! Processes that are stopped and go on, under the eyes of clients, with the real binary.

mod support;

use rustix::process::Signal;
use support::{Origin, Scale0, soon, text};

#[tokio::test]
async fn what_came_while_a_backend_was_stopped_is_started_only_if_it_is_still_wanted() {
    let app = Origin::start(|_| async {
        let response = http::Response::builder().header("cache-control", "no-store");
        response.body(text("done")).unwrap()
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let socket = |whom: &str| format!("ipc://{}/{whom}", folder.path().display());
    let (frontends, backends, peers) = (socket("frontends"), socket("backends"), socket("peers"));
    let front = Scale0::start(&format!(
        "[broker]\nfrontends = \"{frontends}\"\nbackends = \"{backends}\"\npeers = \"{peers}\"\n\
         [frontend]\nhttp = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\naccess = \"off\"\n\
         [[route]]\npath = \"/impatient/\"\nservice = \"shop\"\ntimeout = \"1100ms\"\n\
         [[route]]\nservice = \"shop\"\n"
    ))
    .await;
    let bridge = Scale0::start(&format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\n[log]\naccess = \"off\"\n\
         [[bridge]]\nservice = \"shop\"\nupstream = \"{}\"\nconcurrency = 32\nbrokers = [\"{backends}\"]\n",
        app.url()
    ))
    .await;
    assert_eq!(front.get("/").await.status(), 200);

    bridge.signal(Signal::STOP);
    let targets = (0..10).flat_map(|number| [format!("/{number}"), format!("/impatient/{number}")]);
    let mut clients = Vec::new();
    for target in targets {
        clients.push((front.client().await, target));
    }
    for (client, target) in &mut clients {
        let head = format!("POST {target} HTTP/1.1\r\nhost: shop\r\ncontent-length: 0\r\n\r\n");
        client.send(head).await.unwrap();
    }
    // As many as it had granted credit for are on their way to it; the others wait at the broker.
    let mut sent = 0.0;
    soon(async {
        while sent + front.metrics("scale0_broker_queued_total").await < 20.0 {
            sent = front.metrics("scale0_broker_sent_total").await - 1.0;
        }
    })
    .await;
    assert!(0.0 < sent);
    // Their time is longer than a heartbeat, and shorter than three, after which the broker would give the backend up.
    for (client, target) in &mut clients {
        if target.starts_with("/impatient/") {
            assert_eq!(client.response().await.status(), 504, "{target}");
        }
    }
    bridge.signal(Signal::CONT);
    for (client, target) in &mut clients {
        if !target.starts_with("/impatient/") {
            assert_eq!(client.response().await.status(), 200, "{target}");
        }
    }
    bridge
        .until_metric("scale0_backend_rejected_total", |rejected| sent <= rejected)
        .await;
    for (_, target) in &clients {
        let is_over = target.starts_with("/impatient/");
        let starts = app
            .counts()
            .requests
            .get(&format!("POST {target}"))
            .copied();
        assert_eq!(starts, (!is_over).then_some(1), "{target}");
    }
}
