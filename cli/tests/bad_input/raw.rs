//! Any bytes to a listener, and whatever comes back.

use std::io::ErrorKind;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{PATIENCE, Scale0, soon};

/// All roles in one process, a bridge to `origin` for every service, no access log, and whatever `more` says.
pub(crate) async fn in_front_of(origin: SocketAddr, more: &str) -> Scale0 {
    let config = format!(
        r#"
[node]
name = "test"
[frontend]
http = "127.0.0.1:0"
[broker]
frontends = "tcp://127.0.0.1:0"
backends = "tcp://127.0.0.1:0"
peers = "tcp://127.0.0.1:0"
[[bridge]]
service = "*"
upstream = "http://{origin}"
[admin]
listen = "127.0.0.1:0"
[log]
access = "off"
{more}
"#
    );
    let scale0 = Scale0::start(&config).await;
    assert_eq!(page(&scale0, "/ready").await.status, Some(200));
    scale0
}

/// An honest request for a page over a connection of its own.
pub(crate) async fn page(scale0: &Scale0, target: &str) -> Answer {
    let request =
        format!("GET {target} HTTP/1.1\r\nHost: honest.example\r\nConnection: close\r\n\r\n");
    answer(scale0.pages(), request.as_bytes()).await
}

/// What came back over one connection until the other side closed it.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Of the first response that is not interim.
    pub(crate) status: Option<u16>,
    pub(crate) text: String,
    /// Whether the other side closed.
    pub(crate) closed: bool,
}

impl Answer {
    /// How many responses there are, interim ones aside.
    pub(crate) fn responses(&self) -> usize {
        statuses(&self.text).count()
    }
}

fn statuses(text: &str) -> impl Iterator<Item = u16> {
    // No content in these tests has these characters in it.
    let starts = text.match_indices("HTTP/1.");
    starts
        .filter_map(|(at, _)| text.get(at + 9..at + 12)?.parse().ok())
        .filter(|status| 200 <= *status)
}

/// Sends bytes, and reads until the other side closes.
pub(crate) async fn answer(to: SocketAddr, bytes: &[u8]) -> Answer {
    let mut connection = soon(TcpStream::connect(to)).await.unwrap();
    // Who is refused early may find the way closed.
    let _ = connection.write_all(bytes).await;
    read_to_end(&mut connection).await
}

/// Reads until the other side closes.
pub(crate) async fn read_to_end(connection: &mut TcpStream) -> Answer {
    let mut read = Vec::new();
    let closed = match tokio::time::timeout(PATIENCE, connection.read_to_end(&mut read)).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => error.kind() == ErrorKind::ConnectionReset,
        Err(_) => false,
    };
    let text = String::from_utf8_lossy(&read).into_owned();
    let status = statuses(&text).next();
    Answer {
        status,
        text,
        closed,
    }
}
