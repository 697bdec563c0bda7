//! What a purge does to stored responses, in the memory and on the disk.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Response;

use super::support::{Client, Origin, Scale0, soon, text};
use super::{STORES, is_hit, stored, until_written};

/// Answers with how many requests there have been, under the tag `all`.
async fn counting() -> Origin {
    let number = Arc::new(AtomicUsize::new(0));
    Origin::start(move |_| {
        let number = number.fetch_add(1, Ordering::Relaxed) + 1;
        async move {
            Response::builder()
                .header("cache-control", "max-age=3600")
                .header("surrogate-key", "all")
                .body(text(number.to_string()))
                .unwrap()
        }
    })
    .await
}

/// Purges, and comes back when it is confirmed.
async fn purge(scale0: &Scale0, what: &str) {
    let mut client = Client::connect(scale0.admin()).await;
    let (host, length) = (scale0.admin(), what.len());
    let head = format!("POST /purge HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n");
    client.send(head + what).await.unwrap();
    let response = client.response().await;
    assert_eq!(response.status(), 200, "{}", response.text());
}

#[tokio::test]
async fn what_is_purged_is_fetched_again_and_the_rest_is_not() {
    for store in STORES {
        let folder = tempfile::tempdir().unwrap();
        let origin = counting().await;
        let scale0 = Scale0::start(&stored(&origin, store, folder.path(), "")).await;
        for (request, purged) in [
            (r#"{"url": "http://www.example.com/a/b"}"#, &["/a/b"][..]),
            (r#"{"prefix": "www.example.com/a"}"#, &["/a/b", "/a?c"]),
            (r#"{"tag": "all"}"#, &["/a/b", "/a?c", "/d"]),
            (r#"{"all": true}"#, &["/a/b", "/a?c", "/d"]),
        ] {
            for target in ["/a/b", "/a?c", "/d"] {
                scale0.get(target).await;
            }
            purge(&scale0, request).await;
            for target in ["/a/b", "/a?c", "/d"] {
                let is_purged = !is_hit(&scale0.get(target).await);
                assert_eq!(is_purged, purged.contains(&target), "{request} {target}");
            }
        }
    }
}

/// Whether these bytes are in a file below that folder.
fn is_on_the_disk(folder: &Path, bytes: &[u8]) -> bool {
    // Files come and go meanwhile.
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| {
        let read = || std::fs::read(&path).unwrap_or_default();
        is_on_the_disk(&path, bytes) || read().windows(bytes.len()).any(|found| found == bytes)
    })
}

#[tokio::test]
async fn a_confirmed_purge_survives_a_kill_and_what_was_not_purged_too() {
    for store in STORES {
        let folder = tempfile::tempdir().unwrap();
        // The content is the target's own, under a tag of that name.
        let origin = Origin::start(|request| async move {
            let target = request.uri().path().to_owned();
            Response::builder()
                .header("cache-control", "max-age=3600")
                .header("surrogate-key", &target)
                .body(text(format!("what {target} was")))
                .unwrap()
        })
        .await;
        let config = stored(&origin, store, folder.path(), "");
        let mut scale0 = Scale0::start(&config).await;
        for target in ["/purged", "/kept"] {
            let content = scale0.get(target).await.text();
            // sled has written it out only after a while, and what a kill had lost would be a miss without any purge.
            soon(async {
                while !is_on_the_disk(folder.path(), content.as_bytes()) {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        }
        purge(&scale0, r#"{"tag": "/purged"}"#).await;
        scale0.kill9().await;
        let scale0 = Scale0::start(&config).await;
        assert!(!is_hit(&scale0.get("/purged").await), "{store}");
        assert!(is_hit(&scale0.get("/kept").await), "{store}");
    }
}

#[tokio::test]
async fn what_is_purged_softly_is_sent_once_more_while_it_is_fetched() {
    let folder = tempfile::tempdir().unwrap();
    let origin = counting().await;
    let config = stored(&origin, "file", folder.path(), "");
    let mut scale0 = Scale0::start(&config).await;
    assert_eq!(scale0.get("/page").await.text(), "1");
    until_written(&scale0, 1).await;
    purge(&scale0, r#"{"tag": "all", "soft": true}"#).await;
    scale0.kill9().await;

    let scale0 = Scale0::start(&config).await;
    let stale = scale0.get("/page").await;
    assert_eq!(stale.text(), "1");
    let status = stale.field("cache-status");
    assert!(status.contains("stale-while-revalidate"), "{status}");
    until_written(&scale0, 1).await;
    let fresh = scale0.get("/page").await;
    assert!(is_hit(&fresh));
    assert_eq!(fresh.text(), "2");
    assert_eq!(origin.gets("/page"), 2);
}
