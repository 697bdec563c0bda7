//! You serve what is long or never ends. You get bodies that move at their reader's pace, in both directions, in little memory.
//!
//! Start a site with `cargo run --release -- up`, then this with `cargo run -p scale0-examples --example streaming`.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Query;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use clap::Parser;
use futures_util::stream::{self, Stream};
use http_body_util::BodyExt;
use scale0_backend::Backend;
use scale0_examples::{Arguments, registered};

/// Made once, sent as often as somebody reads: a piece is shared, not copied.
static PIECE: Bytes = Bytes::from_static(&[b'.'; 64 * 1024]);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let app = Router::new()
        .route("/download", get(download))
        .route("/ticks", get(ticks))
        .route("/upload", post(upload));

    Backend::new("streaming.example")
        .broker(arguments.broker)
        .on_registered(registered)
        .serve(app)
        .await?;
    Ok(())
}

/// `?pieces=N` times 64 KiB. The next piece is asked for when there is room for it between here and the reader.
async fn download(Query(query): Query<Vec<(String, usize)>>) -> Response {
    let pieces = query.iter().find(|(name, _)| name == "pieces");
    let pieces = pieces.map_or(16, |(_, number)| *number);
    let body = stream::iter((0..pieces).map(|_| Ok::<_, Infallible>(PIECE.clone())));
    Body::from_stream(body).into_response()
}

/// Server-sent events: the head goes out at once, each event when it happens.
async fn ticks() -> impl IntoResponse {
    let ticks = stream::unfold(1, |tick| async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let event = format!("data: tick {tick}\n\n");
        Some((Ok::<_, Infallible>(event), tick + 1))
    });
    (
        [(header::CONTENT_TYPE, "text/event-stream")],
        Body::from_stream(take(ticks, 5)),
    )
}

fn take<S: Stream>(stream: S, items: usize) -> impl Stream<Item = S::Item> {
    futures_util::StreamExt::take(stream, items)
}

/// Counts what comes without keeping it. Nothing is sent before this reads, and a client that breaks off is an error here.
async fn upload(mut body: Body) -> Result<String, (StatusCode, String)> {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
        bytes += frame.data_ref().map_or(0, Bytes::len);
    }
    Ok(format!("{bytes} bytes\n"))
}

// What you should see:
//
//     $ curl -sH 'Host: streaming.example' 'http://127.0.0.1:8080/download?pieces=1000' | wc -c
//     65536000
//     $ curl -NH 'Host: streaming.example' http://127.0.0.1:8080/ticks
//     data: tick 1
//     … and four more, one every 200 ms
//     $ head -c 10000000 /dev/zero | curl -H 'Host: streaming.example' -T - -X POST http://127.0.0.1:8080/upload
//     10000000 bytes
//
// With `--limit-rate 100k` on a download, this process stays as small as it was.
