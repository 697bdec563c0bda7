//! Stored responses that are validated, or invalidated.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Method, Response};

use super::support::{Content, Origin, Request, Scale0, empty, text};
use super::{STORES, is_hit, stop, stored, until_written};

/// An answer with an `ETag`: 200, or 304 to whoever has it.
fn validated(request: &Request, cache_control: &str, more: &str) -> Response<Content> {
    let has_it = request.headers().contains_key("if-none-match");
    let content = if has_it { empty() } else { text("content") };
    Response::builder()
        .status(if has_it { 304 } else { 200 })
        .header("etag", "\"a\"")
        .header("cache-control", cache_control)
        .header("x-more", more)
        .body(content)
        .unwrap()
}

#[tokio::test]
async fn a_304_brings_the_stored_fields_up_to_date_on_the_disk_too() {
    for store in STORES {
        let folder = tempfile::tempdir().unwrap();
        let origin = Origin::start(|request| async move {
            if request.headers().contains_key("if-none-match") {
                validated(&request, "max-age=3600", "new")
            } else {
                validated(&request, "max-age=1", "old")
            }
        })
        .await;
        let config = stored(&origin, store, folder.path(), "");
        let mut scale0 = Scale0::start(&config).await;
        assert_eq!(scale0.get("/page").await.field("x-more"), "old");
        until_written(&scale0, 1).await;
        while scale0.get("/page").await.field("x-more") == "old" {
            tokio::task::yield_now().await;
        }
        assert_eq!(origin.gets("/page"), 2);
        stop(&mut scale0).await;

        let scale0 = Scale0::start(&config).await;
        let renewed = scale0.get("/page").await;
        assert!(is_hit(&renewed), "{store}: {:?}", renewed.head);
        assert_eq!(renewed.field("x-more"), "new");
        assert_eq!(renewed.text(), "content");
    }
}

#[tokio::test]
async fn what_says_no_cache_is_stored_and_validated_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let whole = Arc::new(AtomicUsize::new(0));
    let sent = Arc::clone(&whole);
    let origin = Origin::start(move |request| {
        let sent = Arc::clone(&sent);
        async move {
            let response = validated(&request, "no-cache", "");
            if response.status() == 200 {
                sent.fetch_add(1, Ordering::Relaxed);
            }
            response
        }
    })
    .await;
    let scale0 = Scale0::start(&stored(&origin, "file", folder.path(), "")).await;
    for _ in 0..4 {
        let response = scale0.get("/page").await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.text(), "content");
    }
    assert_eq!(origin.gets("/page"), 4);
    assert_eq!(whole.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_post_invalidates_what_is_stored_for_its_url_on_the_disk_too() {
    for store in STORES {
        let folder = tempfile::tempdir().unwrap();
        let number = Arc::new(AtomicUsize::new(0));
        let origin = Origin::start(move |request| {
            let is_post = request.method() == Method::POST;
            let number = number.fetch_add(usize::from(is_post), Ordering::Relaxed);
            async move { super::fresh(text(number.to_string())) }
        })
        .await;
        let config = stored(&origin, store, folder.path(), "");
        let mut scale0 = Scale0::start(&config).await;
        let mut client = scale0.client().await;
        for target in ["/page", "/other"] {
            assert_eq!(client.get(target).await.text(), "0");
        }
        until_written(&scale0, 2).await;
        client.ask("POST", "/page", "Content-Length: 0\r\n").await;
        assert_eq!(client.response().await.status(), 200);
        stop(&mut scale0).await;

        let scale0 = Scale0::start(&config).await;
        assert_eq!(scale0.get("/page").await.text(), "1", "{store}");
        assert!(is_hit(&scale0.get("/other").await));
    }
}
