//! One request to a running process's admin listener, and what is said of an answer that is not the one hoped for.

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

/// How much of an answer from who knows whom is shown.
const SHOWN: usize = 200;

/// Where the token is.
const TOKEN: &str = "SCALE0_ADMIN_TOKEN";

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

/// The error that an answer comes to which does not do what was asked for: a refusal, or the answer of somebody else.
pub(crate) fn refusal(admin: &str, status: StatusCode, text: &str) -> anyhow::Error {
    explained(admin, status, text, token().is_some())
}

fn explained(admin: &str, status: StatusCode, text: &str, with_token: bool) -> anyhow::Error {
    let line = text.trim().lines().next().unwrap_or_default();
    let shown: String = line.chars().take(SHOWN).collect();
    match status {
        StatusCode::UNAUTHORIZED if with_token => {
            anyhow::anyhow!("{admin} answered {status}: the token in {TOKEN} is wrong")
        }
        StatusCode::UNAUTHORIZED => anyhow::anyhow!(
            "{admin} answered {status}: it wants a token, which belongs in the variable {TOKEN}"
        ),
        // The others with which an admin interface refuses.
        StatusCode::BAD_REQUEST
        | StatusCode::FORBIDDEN
        | StatusCode::REQUEST_TIMEOUT
        | StatusCode::CONFLICT
        | StatusCode::PAYLOAD_TOO_LARGE => anyhow::anyhow!("{admin} answered {status}: {shown}"),
        _ => anyhow::anyhow!(
            "what answers at {admin} does not look like the admin interface of a scale0 \
             (--admin names another): {status}: {shown}"
        ),
    }
}

/// The file that a token comes from mostly ends with a newline, which is no part of it.
fn token() -> Option<String> {
    let token = std::env::var(TOKEN).ok()?;
    Some(token.trim().to_owned())
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
    if let Some(token) = token() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_refused_learns_whether_the_token_is_missing_or_wrong_or_the_port_another() {
        let told = |status, text, with_token| {
            explained("http://h:1", status, text, with_token).to_string()
        };
        let wrong = told(StatusCode::UNAUTHORIZED, "the admin token is wrong\n", true);
        assert!(wrong.ends_with("the token in SCALE0_ADMIN_TOKEN is wrong"));
        let missing = told(StatusCode::UNAUTHORIZED, "", false);
        assert!(
            missing.ends_with("it wants a token, which belongs in the variable SCALE0_ADMIN_TOKEN")
        );
        let refused = told(StatusCode::CONFLICT, "no cache is here\n", false);
        assert_eq!(
            refused,
            "http://h:1 answered 409 Conflict: no cache is here"
        );
        let page = format!("<html>{}\n<body>", "x".repeat(SHOWN));
        for status in [
            StatusCode::OK,
            StatusCode::NOT_FOUND,
            StatusCode::BAD_GATEWAY,
        ] {
            let other = told(status, &page, true);
            assert!(
                other.contains("does not look like the admin interface"),
                "{other}"
            );
            assert!(
                other.contains("<html>") && !other.contains("<body>") && other.len() < 400,
                "{other}"
            );
        }
    }
}
