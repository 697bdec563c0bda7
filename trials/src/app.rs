//! The application: a backend of a known capacity that writes down what it executes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use scale0_backend::{Backend, Body};

use crate::ledger::{Id, Pen};

/// What the application is started with.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// What it is called.
    #[arg(long)]
    node: String,
    /// The service it offers.
    #[arg(long)]
    service: String,
    /// A broker to serve for; may be repeated.
    #[arg(long = "broker")]
    brokers: Vec<String>,
    /// Requests at a time.
    #[arg(long)]
    concurrency: u32,
    /// Milliseconds that each takes.
    #[arg(long)]
    service_ms: u64,
    /// The file in which each execution is counted.
    #[arg(long)]
    ledger: PathBuf,
}

/// Serves until it is told to stop. Prints `registered BROKER` whenever a broker has accepted it.
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let pen = Arc::new(Pen::open(&arguments.ledger)?);
    let service_time = Duration::from_millis(arguments.service_ms);
    let mut backend = Backend::new(arguments.service)
        .node(arguments.node)
        .concurrency(arguments.concurrency)
        .insecure()
        .on_registered(|broker| println!("registered {broker}"));
    for broker in arguments.brokers {
        backend = backend.broker(broker);
    }
    let service = tower::service_fn(move |request| answer(Arc::clone(&pen), service_time, request));
    Ok(backend.serve(service).await?)
}

/// Counts the request, takes its time, and answers with the request's id.
async fn answer(
    pen: Arc<Pen>,
    service_time: Duration,
    request: Request<Body>,
) -> anyhow::Result<Response<Full<Bytes>>> {
    let target = request.uri().path().trim_start_matches('/').to_owned();
    let Ok(id) = target.parse::<Id>() else {
        let mut unknown = Response::new(Full::default());
        *unknown.status_mut() = StatusCode::NOT_FOUND;
        return Ok(unknown);
    };
    pen.begins(id).context("the ledger")?;
    // A broken body fails the request; it has been counted.
    let read = request.into_body().collect().await;
    read.map_err(|error| anyhow::anyhow!("{error}"))?;
    tokio::time::sleep(service_time).await;
    let answer = Response::builder()
        .header(header::CACHE_CONTROL, "no-store")
        .body(Full::from(target));
    Ok(answer?)
}
