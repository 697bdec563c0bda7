//! Clients that hold what others could use: they are ended, counted, and nobody waits for them.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::raw::{in_front_of, page, read_to_end};
use crate::strict_origin::StrictOrigin;
use crate::support::{Scale0, soon};

const SHORT: &str = "[limits]\nheader_timeout = \"1s\"\nkeepalive_timeout = \"1s\"\nmin_rate = \"64KiB\"\nmax_connections = 64\n";

/// How many attack at once; fewer than there is room for.
const ATTACKERS: usize = 24;

/// Attacks until the other side has ended every attacker, with honest requests all the while.
async fn attack<F: Future<Output = ()> + 'static>(
    scale0: &Scale0,
    why: &str,
    attacker: impl Fn() -> F,
) {
    let name = format!("scale0_http_too_slow_total{{why=\"{why}\"");
    let before = scale0.metrics(&name).await;
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let attackers: Vec<_> = (0..ATTACKERS)
                .map(|_| tokio::task::spawn_local(attacker()))
                .collect();
            while !attackers.iter().all(tokio::task::JoinHandle::is_finished) {
                assert_eq!(
                    page(scale0, "/honest").await.status,
                    Some(200),
                    "while {why} is slow"
                );
            }
            for attacker in attackers {
                attacker.await.unwrap();
            }
        })
        .await;
    scale0
        .until_metric(&name, |now| ATTACKERS as f64 <= now - before)
        .await;
}

/// Sends a byte whenever the other side lets it, until that has closed the connection.
async fn dribble(scale0: std::net::SocketAddr, beginning: String, byte: &'static [u8]) {
    let mut connection = TcpStream::connect(scale0).await.unwrap();
    connection.write_all(beginning.as_bytes()).await.unwrap();
    let (mut reading, mut writing) = connection.split();
    let mut pace = tokio::time::interval(std::time::Duration::from_millis(100));
    let mut answer = [0; 1024];
    let ended = async {
        loop {
            tokio::select! {
                read = reading.read(&mut answer) => if !matches!(read, Ok(1..)) { return },
                _ = pace.tick() => if writing.write_all(byte).await.is_err() { return },
            }
        }
    };
    soon(ended).await;
}

#[tokio::test]
async fn who_does_not_finish_a_head_is_told_so() {
    let origin = StrictOrigin::start();
    let scale0 = in_front_of(origin.address, SHORT).await;
    for beginning in ["G", "GET / HTTP/1.1\r\nHost: a\r\n"] {
        let mut connection = TcpStream::connect(scale0.pages()).await.unwrap();
        connection.write_all(beginning.as_bytes()).await.unwrap();
        let answer = read_to_end(&mut connection).await;
        assert_eq!(answer.status, Some(408), "{beginning:?}");
    }
}

#[tokio::test]
async fn heads_and_bodies_that_dribble_in_are_ended_while_others_are_served() {
    let origin = StrictOrigin::start();
    let scale0 = in_front_of(origin.address, SHORT).await;
    let pages = scale0.pages();
    attack(&scale0, "idle", || async move {
        read_to_end(&mut TcpStream::connect(pages).await.unwrap()).await;
    })
    .await;
    attack(&scale0, "head", || {
        dribble(pages, "GET / HTTP/1.1\r\nHost: a\r\nX: ".into(), b"x")
    })
    .await;
    attack(&scale0, "content", || {
        dribble(
            pages,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n".into(),
            b"x",
        )
    })
    .await;
    attack(&scale0, "content", || {
        dribble(
            pages,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
            b"1\r\nx\r\n",
        )
    })
    .await;
}

#[tokio::test]
async fn who_does_not_read_is_ended_while_others_are_served() {
    let origin = StrictOrigin::start();
    let scale0 = in_front_of(origin.address, SHORT).await;
    let pages = scale0.pages();
    attack(&scale0, "reading", || async move {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut connection = socket.connect(pages).await.unwrap();
        connection
            .write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        // A byte now and then, so that the connection is alive as TCP sees it.
        let mut pace = tokio::time::interval(std::time::Duration::from_millis(100));
        let mut byte = [0];
        let ended = async {
            while matches!(connection.read(&mut byte).await, Ok(1..))
                && connection.take_error().is_ok_and(|error| error.is_none())
            {
                pace.tick().await;
                // What was sent before the end is still there to be read; whether there was an end shows in a write.
                if connection.write_all(b"\r\n").await.is_err() {
                    return;
                }
            }
        };
        soon(ended).await;
    })
    .await;
}

#[tokio::test]
async fn who_has_no_room_for_a_stream_is_ended_while_others_are_served() {
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let origin = StrictOrigin::start();
    let scale0 = in_front_of(origin.address, SHORT).await;
    let pages = scale0.pages();
    attack(&scale0, "reading", || async move {
        let connection = TcpStream::connect(pages).await.unwrap();
        let (mut client, connection) =
            hyper::client::conn::http2::Builder::new(TokioExecutor::new())
                .initial_stream_window_size(0)
                .handshake::<_, http_body_util::Empty<bytes::Bytes>>(TokioIo::new(connection))
                .await
                .unwrap();
        let ended = tokio::spawn(connection);
        let request = http::Request::get(format!("http://{pages}/large"));
        let request = request.body(http_body_util::Empty::new()).unwrap();
        // The head comes; for its content there is no room, ever.
        let response = client.send_request(request).await.unwrap();
        _ = soon(ended).await.unwrap();
        drop(response);
    })
    .await;
}
