//! An HTTP/1.1 client that keeps its connection, and does for a request on a reused one what standard clients do.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// No client waits longer than this for a whole answer: more than every deadline of a trial's site.
const GIVES_UP: Duration = Duration::from_secs(60);

/// An answer that has come to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    /// 200, 502 …
    pub(crate) status: StatusCode,
    /// Its content.
    pub(crate) content: Bytes,
    /// Whether a connection that had been used before turned out to be over, and the request was sent again.
    pub(crate) retried: bool,
}

/// One client, which has one request under way.
#[derive(Debug)]
pub(crate) struct Client {
    address: SocketAddr,
    host: &'static str,
    connection: Option<SendRequest<Full<Bytes>>>,
    /// Whether it opens a connection for each request.
    reconnects: bool,
}

impl Client {
    /// A client that asks for this host, without a connection; the first request opens one.
    pub(crate) fn new(address: SocketAddr, host: &'static str) -> Self {
        Self {
            address,
            host,
            connection: None,
            reconnects: false,
        }
    }

    /// A client that opens a connection for each request.
    pub(crate) fn reconnecting(self, reconnects: bool) -> Self {
        Self { reconnects, ..self }
    }

    /// Asks, and waits for the whole answer.
    ///
    /// RFC 9112 §9.3.1: if a reused connection is closed before any byte of an answer, an idempotent request is sent once more, on
    /// a new connection; any other only if nothing of it was sent.
    ///
    /// # Errors
    /// Says how it broke off; or that nobody could be reached.
    pub(crate) async fn ask(
        &mut self,
        method: &Method,
        target: &str,
        content: Bytes,
    ) -> Result<Answer, String> {
        let asked = timeout(GIVES_UP, self.ask_in_time(method, target, content)).await;
        asked.unwrap_or_else(|_| {
            self.connection = None;
            Err(format!("no answer within {GIVES_UP:?}"))
        })
    }

    async fn ask_in_time(
        &mut self,
        method: &Method,
        target: &str,
        content: Bytes,
    ) -> Result<Answer, String> {
        let mut retried = false;
        loop {
            let (mut connection, is_reused) = self.connection().await?;
            let request = Request::builder()
                .method(method)
                .uri(target)
                .header(header::HOST, self.host)
                .body(Full::new(content.clone()))
                .map_err(|error| error.to_string())?;
            let response = match connection.send_request(request).await {
                Ok(response) => response,
                Err(error) => {
                    let was_unsent = error.is_canceled();
                    let was_closed =
                        was_unsent || error.is_incomplete_message() || is_reset(&error);
                    let may_repeat = was_unsent || method.is_idempotent();
                    if is_reused && !retried && was_closed && may_repeat {
                        retried = true;
                        continue;
                    }
                    return Err(format!("{error} (reused: {is_reused})"));
                }
            };
            let status = response.status();
            let body = response.into_body().collect().await;
            let content = body.map_err(|error| format!("after {status}: {error}"))?;
            if !self.reconnects {
                self.connection = Some(connection);
            }
            return Ok(Answer {
                status,
                content: content.to_bytes(),
                retried,
            });
        }
    }

    /// The connection if it is still good, else a new one; and whether it was used before.
    async fn connection(&mut self) -> Result<(SendRequest<Full<Bytes>>, bool), String> {
        if let Some(mut connection) = self.connection.take()
            && connection.ready().await.is_ok()
        {
            return Ok((connection, true));
        }
        let stream = TcpStream::connect(self.address).await;
        let stream = stream.map_err(|error| format!("cannot connect: {error}"))?;
        stream
            .set_nodelay(true)
            .map_err(|error| error.to_string())?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        // Ends with the sender, or with the server's side of the connection; the sender tells how.
        tokio::spawn(connection);
        Ok((sender, false))
    }
}

fn is_reset(error: &hyper::Error) -> bool {
    use std::error::Error as _;
    let cause = error
        .source()
        .and_then(|cause| cause.downcast_ref::<std::io::Error>());
    cause.is_some_and(|cause| {
        matches!(
            cause.kind(),
            std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe
        )
    })
}
