//! The origin of the benchmarks as a native backend: the same answers without an HTTP hop.

use std::convert::Infallible;
use std::thread;

use bytes::Bytes;
use clap::Parser;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use scale0_backend::{Backend, Body};

#[derive(Debug, Parser)]
struct Arguments {
    /// A broker to serve for; may be given several times.
    #[arg(long, value_name = "ENDPOINT", required = true)]
    broker: Vec<String>,
    /// Requests at a time, over all threads.
    #[arg(long, default_value_t = 6_000)]
    concurrency: u32,
    /// Threads, each with a runtime and connections of its own.
    #[arg(long, default_value_t = 1)]
    threads: u32,
}

static KIB: Bytes = Bytes::from_static(&[b'x'; 1024]);

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let share = arguments.concurrency.div_ceil(arguments.threads.max(1));
    let lanes: Vec<_> = (0..arguments.threads.max(1))
        .map(|_| {
            let brokers = arguments.broker.clone();
            thread::spawn(move || serve(brokers, share))
        })
        .collect();
    for lane in lanes {
        lane.join()
            .map_err(|_| anyhow::anyhow!("a thread panicked"))??;
    }
    Ok(())
}

fn serve(brokers: Vec<String>, concurrency: u32) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let backend = Backend::new("*").concurrency(concurrency);
    let backend = brokers.into_iter().fold(backend, Backend::broker);
    let service = tower::service_fn(|request| async move { Ok::<_, Infallible>(answer(&request)) });
    runtime.block_on(backend.serve(service))?;
    Ok(())
}

fn answer(request: &Request<Body>) -> Response<Full<Bytes>> {
    let (status, content) = match request.uri().path() {
        "/ready" => (StatusCode::OK, Bytes::from_static(b"ready\n")),
        "/pass/m/1k" => (StatusCode::OK, KIB.clone()),
        _ => (StatusCode::NOT_FOUND, Bytes::from_static(b"not found\n")),
    };
    let mut response = Response::new(Full::new(content));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}
