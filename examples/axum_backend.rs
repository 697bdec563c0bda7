//! You have an axum application. You get it behind Scale0 with one line, in place of `axum::serve`.
//!
//! Start a site with `cargo run --release -- up`, then this with `cargo run -p scale0-examples --example axum_backend`.

use std::time::Duration;

use axum::extract::{Path, Query};
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use clap::Parser;
use scale0_backend::Backend;
use scale0_examples::{Arguments, registered};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let app = Router::new()
        .route("/", get(|| async { "hello from axum\n" }))
        .route("/users/{name}", get(user))
        .route("/slow", get(slow));

    Backend::new("axum.example")
        .broker(arguments.broker)
        .on_registered(registered)
        .serve(app)
        .await?;
    Ok(())
}

/// Extractors and responses work as they always do.
async fn user(
    Path(name): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
) -> impl IntoResponse {
    Json((name, query))
}

/// Asked by many at once, it runs once: the answer may be shared for a second.
async fn slow() -> impl IntoResponse {
    tokio::time::sleep(Duration::from_millis(500)).await;
    (
        [(header::CACHE_CONTROL, "max-age=1")],
        "that took a while\n",
    )
}

// What you should see:
//
//     $ curl -H 'Host: axum.example' http://127.0.0.1:8080/
//     hello from axum
//     $ curl -H 'Host: axum.example' 'http://127.0.0.1:8080/users/ada?lang=en'
//     ["ada",[["lang","en"]]]
//
// Start it a second time: both processes share the load. Stop one with Ctrl-C: it finishes what it has and leaves, and no request
// fails.
