//! You have an application that speaks HTTP, in any language, and will not change it. You get it behind Scale0 by starting
//! `scale0 bridge` beside it.
//!
//! This is such an application: it knows nothing of Scale0. Start a site with `cargo run --release -- up`, this with
//! `cargo run -p scale0-examples --example bridge`, and then the command that it prints.

use std::net::SocketAddr;

use axum::Router;
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use axum::routing::get;
use clap::Parser;
use scale0_examples::{BROKER, say};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

#[derive(clap::Parser)]
struct Arguments {
    /// Where to listen for HTTP.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
    /// The broker that the bridge is to serve for.
    #[arg(long, value_name = "ENDPOINT", default_value = BROKER)]
    broker: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let app = Router::new()
        .route("/", get(page))
        .route("/healthz", get(|| async { "well\n" }));

    let listener = TcpListener::bind(arguments.listen).await?;
    let upstream = listener.local_addr()?;
    let broker = &arguments.broker;
    say(&format!(
        "listening; now run: scale0 bridge --service bridge.example --upstream http://{upstream} --health /healthz --broker {broker}"
    ));
    let mut terminate = signal(SignalKind::terminate())?;
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    axum::serve(listener, app)
        .with_graceful_shutdown(shutdown)
        .await?;
    Ok(())
}

/// The application sees the host that the client asked for, and who asked.
async fn page(headers: HeaderMap) -> impl IntoResponse {
    let field = |name| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("nobody")
    };
    let text = format!(
        "hello {} from {}\n",
        field("x-forwarded-for"),
        field("host")
    );
    ([(header::CACHE_CONTROL, "private, no-store")], text)
}

// What you should see:
//
//     $ curl -H 'Host: bridge.example' http://127.0.0.1:8080/
//     hello 127.0.0.1 from bridge.example
//
// Stop the application: requests wait up to 10 s for it to come back, then are answered 503. Nothing is lost meanwhile, and the
// bridge need not be restarted.
