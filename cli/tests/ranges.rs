//! Ranges: answered from what is stored, stored as parts, put together, completed.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::Arc;

use http::{Response, StatusCode};
use parking_lot::Mutex;
use support::{Content, Origin, Request, Scale0, empty, site, text};

const QUIET: &str = "[log]\naccess = \"off\"\n";

/// More than one block, and no two places alike.
fn content(version: u8) -> Vec<u8> {
    (0..100_000_u32)
        .map(|index| (index.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0] ^ version)
        .collect()
}

/// An application that knows ranges, and what it is asked for.
struct App {
    origin: Origin,
    version: Arc<Mutex<u8>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl App {
    async fn start() -> Self {
        let version = Arc::new(Mutex::new(1));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (of, to) = (Arc::clone(&version), Arc::clone(&asked));
        let origin = Origin::start(move |request| {
            let field = |name| {
                request
                    .headers()
                    .get(name)
                    .map(|it| it.to_str().unwrap().to_owned())
            };
            let range = field("range").unwrap_or_else(|| "all".into());
            to.lock().push(format!("{} {range}", request.method()));
            let answer = answer(&request, *of.lock());
            async { answer }
        });
        Self {
            origin: origin.await,
            version,
            asked,
        }
    }

    /// What it was asked for since the last time.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock())
    }
}

fn answer(request: &Request, version: u8) -> Response<Content> {
    let whole = content(version);
    let field = |name| Some(request.headers().get(name)?.to_str().unwrap());
    let etag = format!("\"v{version}\"");
    let response = Response::builder()
        .header("cache-control", "max-age=60")
        .header("content-type", "video/mp4")
        .header("etag", &etag);
    let is_current = field("if-range").is_none_or(|tag| tag == etag);
    let range = field("range").filter(|_| is_current);
    let Some((first, last)) = range.and_then(|it| it.strip_prefix("bytes=")?.split_once('-'))
    else {
        return response.body(text(whole)).unwrap();
    };
    let end = whole.len() - 1;
    let (first, last) = match (first.parse(), last.parse::<usize>()) {
        (Ok(first), last) => (first, last.unwrap_or(end).min(end)),
        (Err(_), last) => (whole.len() - last.unwrap(), end),
    };
    if end < first {
        let content_range = format!("bytes */{}", whole.len());
        let response = response.status(StatusCode::RANGE_NOT_SATISFIABLE);
        return response
            .header("content-range", content_range)
            .body(empty())
            .unwrap();
    }
    let content_range = format!("bytes {first}-{last}/{}", whole.len());
    let response = response.status(StatusCode::PARTIAL_CONTENT);
    let part = whole[first..=last].to_vec();
    response
        .header("content-range", content_range)
        .body(text(part))
        .unwrap()
}

async fn start() -> (Scale0, App) {
    let app = App::start().await;
    let scale0 = Scale0::start(&site(&app.origin, QUIET)).await;
    (scale0, app)
}

/// Asks for a range, checks every byte of it, and says what `Cache-Status` says.
async fn part(scale0: &Scale0, fields: &str, first: usize, last: usize) -> String {
    let response = scale0.client().await.get_with("/film", fields).await;
    assert_eq!(response.status(), 206, "{fields}");
    assert_eq!(
        response.field("content-range"),
        format!("bytes {first}-{last}/100000")
    );
    assert!(
        response.body == content(1)[first..=last],
        "other bytes for {fields}"
    );
    assert_eq!(
        response.field("content-length"),
        (last - first + 1).to_string()
    );
    response.field("cache-status").to_owned()
}

#[tokio::test]
async fn a_stored_whole_answers_every_range() {
    let (scale0, app) = start().await;
    assert!(scale0.get("/film").await.body == content(1));
    for (fields, first, last) in [
        ("Range: bytes=60000-70000\r\n", 60_000, 70_000),
        ("Range: bytes=0-0\r\n", 0, 0),
        ("Range: bytes=-5\r\n", 99_995, 99_999),
        ("Range: bytes=99990-200000\r\n", 99_990, 99_999),
        ("Range: bytes=5-9\r\nIf-Range: \"v1\"\r\n", 5, 9),
        ("Range: bytes=0-\r\n", 0, 99_999),
    ] {
        let status = part(&scale0, fields, first, last).await;
        assert!(status.starts_with("scale0; hit"), "{status}");
    }
    let mut client = scale0.client().await;
    let beyond = client.get_with("/film", "Range: bytes=100000-\r\n").await;
    assert_eq!((beyond.status(), beyond.body.len()), (416, 0));
    assert_eq!(beyond.field("content-range"), "bytes */100000");
    for whole in [
        "Range: bytes=5-9\r\nIf-Range: \"v0\"\r\n",
        "Range: bytes=5-9,20-30\r\n",
        "Range: lines=5-9\r\n",
    ] {
        let response = client.get_with("/film", whole).await;
        assert_eq!(response.status(), 200, "{whole}");
        assert!(response.body == content(1));
    }
    assert_eq!(app.asked(), ["GET all"]);
}

#[tokio::test]
async fn a_part_is_stored_and_answers_for_what_lies_within_it() {
    let (scale0, app) = start().await;
    let status = part(&scale0, "Range: bytes=1000-80000\r\n", 1000, 80_000).await;
    assert!(
        status.contains("fwd=uri-miss") && status.contains("stored"),
        "{status}"
    );
    for (fields, first, last) in [
        ("Range: bytes=70000-80000\r\n", 70_000, 80_000),
        ("Range: bytes=1000-1000\r\nIf-Range: \"v1\"\r\n", 1000, 1000),
    ] {
        let status = part(&scale0, fields, first, last).await;
        assert!(status.starts_with("scale0; hit"), "{status}");
    }
    assert_eq!(app.asked(), ["GET bytes=1000-80000"]);
    let mut client = scale0.client().await;
    let condition = "Range: bytes=1000-1001\r\nIf-None-Match: \"v1\"\r\n";
    assert_eq!(client.get_with("/film", condition).await.status(), 304);
    let status = part(&scale0, "Range: bytes=90000-\r\n", 90_000, 99_999).await;
    assert!(status.contains("fwd=partial"), "{status}");
    assert_eq!(app.asked(), ["GET bytes=90000-"]);
}

#[tokio::test]
async fn parts_are_put_together_until_they_are_the_whole() {
    let (scale0, app) = start().await;
    part(&scale0, "Range: bytes=0-29999\r\n", 0, 29_999).await;
    part(&scale0, "Range: bytes=30000-79999\r\n", 30_000, 79_999).await;
    part(&scale0, "Range: bytes=70000-\r\n", 70_000, 99_999).await;
    app.asked();
    let whole = scale0.get("/film").await;
    assert_eq!((whole.status(), whole.field("content-range")), (200, ""));
    assert!(whole.field("cache-status").starts_with("scale0; hit"));
    assert!(whole.body == content(1));
    assert!(app.asked().is_empty());
}

#[tokio::test]
async fn a_stored_beginning_is_completed_by_the_rest_alone() {
    let (scale0, app) = start().await;
    part(&scale0, "Range: bytes=0-69999\r\n", 0, 69_999).await;
    let whole = scale0.get("/film").await;
    assert_eq!(
        (whole.status(), whole.field("content-type")),
        (200, "video/mp4")
    );
    assert!(whole.field("cache-status").contains("fwd=partial"));
    assert!(whole.body == content(1));
    assert_eq!(app.asked(), ["GET bytes=0-69999", "GET bytes=70000-"]);
    assert!(scale0.get("/film").await.body == content(1));
    assert!(app.asked().is_empty());
}

#[tokio::test]
async fn a_beginning_of_what_has_changed_is_not_completed() {
    let (scale0, app) = start().await;
    part(&scale0, "Range: bytes=0-69999\r\n", 0, 69_999).await;
    *app.version.lock() = 2;
    let whole = scale0.get("/film").await;
    assert_eq!(whole.status(), 200);
    assert!(whole.body == content(2));
    assert_eq!(app.asked(), ["GET bytes=0-69999", "GET bytes=70000-"]);
}
