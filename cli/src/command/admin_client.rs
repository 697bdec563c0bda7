//! One request to a running process's admin listener.

use std::time::Duration;

use anyhow::Context as _;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// How long a running process may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The largest answer that is read: the status of a site with thousands of backends.
const ANSWER: usize = 64 * 1024 * 1024;

/// Asks, and returns status and text.
///
/// # Errors
/// When nobody answers there, or it is no HTTP.
pub(crate) fn ask(admin: &str, method: Method, path: &str) -> anyhow::Result<(StatusCode, String)> {
    ask_with(admin, method, path, String::new())
}

/// The same with content.
///
/// # Errors
/// When nobody answers there, or it is no HTTP.
pub(crate) fn ask_with(
    admin: &str,
    method: Method,
    path: &str,
    content: String,
) -> anyhow::Result<(StatusCode, String)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let asked = runtime.block_on(async {
        tokio::time::timeout(PATIENCE, exchange(admin, method, path, content)).await
    });
    asked.map_err(|_| anyhow::anyhow!("no answer within {} s", PATIENCE.as_secs())).and_then(|answer| answer).with_context(|| {
        format!("cannot ask {admin}: is a scale0 with [admin] running there? (--admin names another)")
    })
}

async fn exchange(
    admin: &str,
    method: Method,
    path: &str,
    content: String,
) -> anyhow::Result<(StatusCode, String)> {
    let authority = admin
        .strip_prefix("http://")
        .context("an admin URL looks like http://127.0.0.1:8081")?
        .trim_end_matches('/');
    let stream = TcpStream::connect(authority).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, authority);
    // Beside the flag's place in shell histories and process lists, an environment variable is the lesser evil.
    if let Ok(token) = std::env::var("SCALE0_ADMIN_TOKEN") {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Full::new(bytes::Bytes::from(content)))?;
    let answer = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let text = Limited::new(body, ANSWER)
            .collect()
            .await
            .map_err(|error| anyhow::anyhow!(error))?
            .to_bytes();
        Ok::<_, anyhow::Error>((head.status, String::from_utf8_lossy(&text).into_owned()))
    };
    tokio::select! {
        answer = answer => answer,
        closed = connection => Err(closed.err().map_or_else(|| anyhow::anyhow!("the connection was closed"), Into::into)),
    }
}
