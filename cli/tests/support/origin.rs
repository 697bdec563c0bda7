//! An HTTP/1.1 application inside the test, which counts what it is asked.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::channel::{Channel, Sender};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::soon;

/// What the origin is asked.
pub(crate) type Request = http::Request<Incoming>;

/// What the origin answers with.
pub(crate) type Content = UnsyncBoxBody<Bytes, io::Error>;

/// Whatever has happened so far at an [`Origin`].
#[derive(Clone, Default)]
pub(crate) struct Counts {
    /// Requests by method and target: `GET /page?x`.
    pub(crate) requests: HashMap<String, usize>,
    /// Requests whose head is not answered yet.
    pub(crate) running: usize,
    /// The most of those at any time.
    pub(crate) most_at_once: usize,
    /// Heads answered, and requests given up by the other side before.
    pub(crate) finished: usize,
}

impl Counts {
    /// How often `GET target` was asked for.
    pub(crate) fn gets(&self, target: &str) -> usize {
        let key = format!("GET {target}");
        self.requests.get(&key).copied().unwrap_or_default()
    }

    /// How many requests there were.
    pub(crate) fn all(&self) -> usize {
        self.requests.values().sum()
    }
}

/// An application whose every answer is the test's. It ends when dropped, its connections with it.
pub(crate) struct Origin {
    address: SocketAddr,
    counts: watch::Sender<Counts>,
    accepting: JoinHandle<()>,
}

impl Origin {
    /// Answers every request by `handler`.
    pub(crate) async fn start<H, F>(handler: H) -> Self
    where
        H: Fn(Request) -> F + Send + Sync + 'static,
        F: Future<Output = http::Response<Content>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let counts = watch::Sender::new(Counts::default());
        let accepting = tokio::spawn(accept(listener, Arc::new(handler), counts.clone()));
        Self {
            address,
            counts,
            accepting,
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens, for a `[[bridge]]`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What has happened so far.
    pub(crate) fn counts(&self) -> Counts {
        self.counts.borrow().clone()
    }

    /// How often `GET target` was asked for.
    pub(crate) fn gets(&self, target: &str) -> usize {
        self.counts.borrow().gets(target)
    }

    /// Waits until what has happened is as wanted.
    pub(crate) async fn until(&self, wanted: impl Fn(&Counts) -> bool) {
        let mut counts = self.counts.subscribe();
        soon(counts.wait_for(|counts| wanted(counts)))
            .await
            .expect("the origin is there");
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept<H, F>(listener: TcpListener, handler: Arc<H>, counts: watch::Sender<Counts>)
where
    H: Fn(Request) -> F + Send + Sync + 'static,
    F: Future<Output = http::Response<Content>> + Send + 'static,
{
    // Aborts the connections when the origin ends.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).unwrap();
        let (handler, counts) = (Arc::clone(&handler), counts.clone());
        let service = service_fn(move |request: Request| {
            let key = format!("{} {}", request.method(), request.uri());
            let running = Running::begin(&counts, key);
            let answer = handler(request);
            async move {
                let _running = running;
                Ok::<_, Infallible>(answer.await)
            }
        });
        connections.spawn(async move {
            let server = http1::Builder::new();
            let served = server.serve_connection(TokioIo::new(stream), service);
            // What broke off is the test's to notice.
            _ = served.with_upgrades().await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Counts a request as running for as long as it lives.
struct Running(watch::Sender<Counts>);

impl Running {
    fn begin(counts: &watch::Sender<Counts>, key: String) -> Self {
        counts.send_modify(|counts| {
            *counts.requests.entry(key).or_default() += 1;
            counts.running += 1;
            counts.most_at_once = counts.most_at_once.max(counts.running);
        });
        Self(counts.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_modify(|counts| {
            counts.running -= 1;
            counts.finished += 1;
        });
    }
}

/// Content that is all there.
pub(crate) fn text(content: impl Into<Bytes>) -> Content {
    Full::new(content.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// No content.
pub(crate) fn empty() -> Content {
    text(Bytes::new())
}

/// Content that the test sends piece by piece. It ends where the sender is dropped, and breaks off where it is told to abort.
pub(crate) fn body() -> (Sender<Bytes, io::Error>, Content) {
    let (sender, channel) = Channel::new(1);
    (sender, channel.boxed_unsync())
}
