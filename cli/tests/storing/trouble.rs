//! Stale responses where they help.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::Response;
use tokio::sync::Semaphore;

use super::stored;
use super::support::{Origin, Response as Answer, Scale0, empty, soon, text};

/// Asks until what is stored is stale.
async fn until_stale(scale0: &Scale0, detail: &str) -> Answer {
    soon(async {
        loop {
            let response = scale0.get("/page").await;
            assert_eq!(response.status(), 200);
            if response.field("cache-status").contains(detail) {
                return response;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_stale_response_is_sent_at_once_while_one_request_brings_it_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let gate = Arc::new(Semaphore::new(1));
    let held = Arc::clone(&gate);
    let origin = Origin::start(move |_| {
        let held = Arc::clone(&held);
        async move {
            held.acquire().await.unwrap().forget();
            Response::builder()
                .header("cache-control", "max-age=1, stale-while-revalidate=60")
                .body(text("content"))
                .unwrap()
        }
    })
    .await;
    let scale0 = Scale0::start(&stored(&origin, "file", folder.path(), "")).await;
    scale0.get("/page").await;
    // The origin holds its second answer back, and nobody waits for it.
    for _ in 0..20 {
        until_stale(&scale0, "stale-while-revalidate").await;
    }
    origin.until(|counts| counts.gets("/page") == 2).await;
    gate.add_permits(1);
    scale0
        .until_metric("scale0_cache_insertions_total", |stored| stored == 2.0)
        .await;
    assert_eq!(origin.gets("/page"), 2);
}

#[tokio::test]
async fn while_the_origin_fails_the_stale_response_stands_in_and_the_origin_is_left_in_peace() {
    let folder = tempfile::tempdir().unwrap();
    let fails = Arc::new(AtomicBool::new(false));
    let failing = Arc::clone(&fails);
    let origin = Origin::start(move |_| {
        let fails = failing.load(Ordering::Relaxed);
        async move {
            let response = Response::builder();
            if fails {
                return response.status(503).body(empty()).unwrap();
            }
            response
                .header("cache-control", "max-age=1, stale-if-error=600")
                .body(text("content"))
                .unwrap()
        }
    })
    .await;
    let scale0 = Scale0::start(&stored(&origin, "file", folder.path(), "")).await;
    scale0.get("/page").await;
    fails.store(true, Ordering::Relaxed);
    for _ in 0..100 {
        let stale = until_stale(&scale0, "stale-if-error").await;
        assert_eq!(stale.text(), "content");
    }
    let asked = origin.gets("/page");
    assert!(asked < 10, "{asked} requests");
}

#[tokio::test]
async fn without_an_origin_the_stale_response_stands_in_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::start(|_| async {
        Response::builder()
            .header("cache-control", "max-age=1")
            .body(text("content"))
            .unwrap()
    })
    .await;
    // What is not stored waits so long for the application.
    let config = stored(&origin, "file", folder.path(), "") + "[limits]\nhold = \"1s\"\n";
    let mut scale0 = Scale0::start(&config).await;
    scale0.get("/page").await;
    drop(origin);
    assert_eq!(
        until_stale(&scale0, "stale-if-error").await.text(),
        "content"
    );
    super::stop(&mut scale0).await;
    let scale0 = Scale0::start(&config).await;
    assert_eq!(
        until_stale(&scale0, "stale-if-error").await.text(),
        "content"
    );
    assert!(500 <= scale0.get("/unknown").await.status());
}

#[tokio::test]
async fn a_head_that_is_answered_stale_has_a_get_refresh_it() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::start(|_| async {
        Response::builder()
            .header("cache-control", "max-age=1, stale-while-revalidate=60")
            .body(text("content"))
            .unwrap()
    })
    .await;
    let scale0 = Scale0::start(&stored(&origin, "file", folder.path(), "")).await;
    scale0.get("/page").await;
    soon(async {
        loop {
            let mut client = scale0.client().await;
            client.ask("HEAD", "/page", "").await;
            let head = client.response().await;
            if head
                .field("cache-status")
                .contains("stale-while-revalidate")
            {
                return;
            }
        }
    })
    .await;
    scale0
        .until_metric("scale0_cache_insertions_total", |stored| stored == 2.0)
        .await;
    assert_eq!(origin.gets("/page"), 2);
}

#[tokio::test]
async fn a_response_without_content_is_complete_wherever_it_comes_from() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::start(|_| async {
        Response::builder()
            .status(301)
            .header("cache-control", "max-age=60")
            .header("location", "/elsewhere")
            .body(empty())
            .unwrap()
    })
    .await;
    let scale0 = Scale0::start(&stored(&origin, "file", folder.path(), "")).await;
    for _ in 0..3 {
        assert_eq!(scale0.get("/moved").await.status(), 301);
    }
    assert_eq!(origin.gets("/moved"), 1);
    // The account of a response is closed when its last byte is written.
    let responses = r#"scale0_http_responses_total{class="3xx"#;
    scale0.until_metric(responses, |count| count == 3.0).await;
    let incomplete = scale0.metrics("scale0_http_incomplete_responses_total");
    assert_eq!(incomplete.await, 0.0);
}
