//! Interim responses of an application (RFC 9110 §15.2) reach the client that asked, before the final response is there.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, StatusCode, Version};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::{Client, Scale0, site_of, soon};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;

/// The content of `/large`: more than the sockets' buffers on the way take in.
const LARGE: usize = 32 << 20;

/// The content that a client with an expectation sends.
const UPLOAD: &str = "an upload";

const DROPPED: &str = "scale0_http_interims_dropped_total";

/// An application that hyper's server could not be: it says interim responses. By the first segment of the target:
/// `/hints` says two, and `/late` waits before it does; `/many` says twenty, `/wide` two that are large; `/large` says none.
///
/// All but `/large` wait before their final response.
struct Origin {
    url: String,
    /// Each wait takes one.
    go_on: Arc<Semaphore>,
}

impl Origin {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let go_on = Arc::new(Semaphore::new(0));
        let permits = Arc::clone(&go_on);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let permits = Arc::clone(&permits);
                // Whatever breaks off is the test's to notice.
                tokio::spawn(async move { _ = serve(stream, &permits).await });
            }
        });
        Self { url, go_on }
    }

    fn go_on(&self) {
        self.go_on.add_permits(1);
    }
}

async fn serve(stream: TcpStream, go_on: &Semaphore) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await? == 0 {
                return Ok(());
            }
        }
        let target = head.split(' ').nth(1).unwrap();
        let segment = target.split('/').nth(1).unwrap();
        let hint = "HTTP/1.1 103 Early Hints\r\n";
        if segment == "late" {
            go_on.acquire().await.unwrap().forget();
        }
        let interims = match segment {
            "many" => (0..20)
                .map(|number| format!("{hint}link: </{number}>\r\n\r\n"))
                .collect(),
            "wide" => format!("{hint}padding: {}\r\n\r\n", "x".repeat(60_000)).repeat(2),
            "large" => String::new(),
            _ => format!(
                "HTTP/1.1 102 Processing\r\n\r\n\
                 {hint}Link: </a.css>; rel=preload\r\nX-Early: 1\r\nX-Hop: 1\r\nConnection: x-hop\r\nContent-Length: 3\r\n\r\n"
            ),
        };
        stream.write_all(interims.as_bytes()).await?;
        if head.contains("xpect: 100-continue") {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
            stream.read_exact(&mut [0; UPLOAD.len()]).await?;
        }
        let content = if segment == "large" {
            "x".repeat(LARGE)
        } else {
            go_on.acquire().await.unwrap().forget();
            "final".into()
        };
        let length = content.len();
        let head = format!(
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: {length}\r\n\r\n"
        );
        stream
            .write_all(format!("{head}{content}").as_bytes())
            .await?;
    }
}

async fn scale0(origin: &Origin) -> Scale0 {
    Scale0::start(&site_of(&origin.url, "[log]\naccess = \"off\"\n")).await
}

async fn hints(client: &mut Client) {
    assert_eq!(client.head().await.unwrap().status, 102);
    let hint = client.head().await.unwrap();
    assert_eq!(hint.status, 103);
    let expected = [("link", "</a.css>; rel=preload"), ("x-early", "1")];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(hint.fields, expected);
}

async fn final_response(client: &mut Client) -> support::Head {
    let head = client.head().await.unwrap();
    assert_eq!(head.status, 200);
    assert_eq!(client.rest().await.unwrap(), b"final");
    assert_eq!((head.field("link"), head.field("x-early")), (None, None));
    head
}

#[tokio::test]
async fn interim_responses_come_before_the_final_one_is_there_and_are_not_stored_with_it() {
    let origin = Origin::start().await;
    let scale0 = scale0(&origin).await;
    let mut client = scale0.client().await;
    // A flight's leader, and a request that goes alone.
    for method in ["GET", "DELETE"] {
        client.ask(method, "/hints", "").await;
        hints(&mut client).await;
        origin.go_on();
        final_response(&mut client).await;

        if method == "GET" {
            client.ask("GET", "/hints", "").await;
            let head = final_response(&mut client).await;
            let status = head.field("cache-status").unwrap();
            assert!(status.contains("hit"), "{status}");
        }
    }
    assert!(scale0.metrics("scale0_http_interims_total").await == 4.0);
    assert!(scale0.metrics(DROPPED).await == 0.0);
}

#[tokio::test]
async fn who_waits_for_another_s_response_is_not_sent_that_one_s_hints() {
    let origin = Origin::start().await;
    let scale0 = scale0(&origin).await;
    let mut leader = scale0.client().await;
    leader.ask("GET", "/late", "").await;
    (scale0.until_metric("scale0_cache_flights_led_total", |led| led == 1.0)).await;
    let mut waiter = scale0.client().await;
    waiter.ask("GET", "/late", "").await;
    (scale0.until_metric("scale0_cache_flights_joined_total", |joined| joined == 1.0)).await;
    origin.go_on();
    hints(&mut leader).await;
    origin.go_on();
    final_response(&mut leader).await;
    final_response(&mut waiter).await;
}

#[tokio::test]
async fn hints_for_a_client_that_has_left_are_dropped_and_those_who_wait_are_answered() {
    let origin = Origin::start().await;
    let scale0 = scale0(&origin).await;
    let mut leader = scale0.client().await;
    leader.ask("GET", "/late", "").await;
    (scale0.until_metric("scale0_cache_flights_led_total", |led| led == 1.0)).await;
    let mut waiter = scale0.client().await;
    waiter.ask("GET", "/late", "").await;
    (scale0.until_metric("scale0_cache_flights_joined_total", |joined| joined == 1.0)).await;
    leader.abort();
    (scale0.until_metric("scale0_http_connections", |open| open == 1.0)).await;
    origin.go_on();
    let dropped = format!("{DROPPED}{{why=\"no-client\"");
    (scale0.until_metric(&dropped, |dropped| dropped == 2.0)).await;
    origin.go_on();
    final_response(&mut waiter).await;
}

#[tokio::test]
async fn an_http_1_0_client_is_sent_the_final_response_alone() {
    let origin = Origin::start().await;
    let scale0 = scale0(&origin).await;
    origin.go_on();
    let mut client = scale0.client().await;
    let request = "GET /hints HTTP/1.0\r\nHost: www.example.com\r\n\r\n";
    client.send(request).await.unwrap();
    let all = String::from_utf8(client.until_closed().await.unwrap()).unwrap();
    assert!(all.starts_with("HTTP/1.0 200 OK\r\n"), "{all}");
    assert!(all.ends_with("\r\n\r\nfinal"), "{all}");
    let dropped = format!("{DROPPED}{{why=\"http10\"");
    assert!(scale0.metrics(&dropped).await == 2.0);
}

#[tokio::test]
async fn an_http_2_client_is_sent_the_final_response_alone() {
    let origin = Origin::start().await;
    let scale0 = scale0(&origin).await;
    origin.go_on();
    let stream = TcpStream::connect(scale0.pages()).await.unwrap();
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://www.example.com/hints")
        .version(Version::HTTP_2)
        .body(Empty::<Bytes>::new())
        .unwrap();
    let response = soon(sender.send_request(request)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let content = soon(response.into_body().collect()).await.unwrap();
    assert_eq!(content.to_bytes(), "final");
    let dropped = format!("{DROPPED}{{why=\"http2\"");
    assert!(scale0.metrics(&dropped).await == 2.0);
}

#[tokio::test]
async fn an_application_that_hints_without_end_is_cut_short() {
    let origin = Origin::start().await;
    let scale0 = scale0(&origin).await;
    let mut client = scale0.client().await;
    // The final response is right behind them.
    origin.go_on();
    client.ask("GET", "/many", "").await;
    for number in 0..16 {
        let head = client.head().await.unwrap();
        assert_eq!(head.field("link"), Some(&*format!("</{number}>")));
    }
    final_response(&mut client).await;
    assert!(scale0.metrics("scale0_bridge_interims_dropped_total").await == 4.0);
}

#[tokio::test]
async fn interim_responses_keep_their_place_among_those_of_other_requests() {
    let origin = Origin::start().await;
    let scale0 = scale0(&origin).await;
    let mut client = scale0.client().await;
    let head = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: www.example.com\r\n\r\n");
    let requests = ["/large", "/hints/1", "/hints/2"].map(head).concat();
    client.send(requests).await.unwrap();
    // Its end is not written before most of it is read.
    assert_eq!(client.head().await.unwrap().status, 200);
    assert_eq!(client.rest().await.unwrap().len(), LARGE);
    for _ in 0..2 {
        hints(&mut client).await;
        origin.go_on();
        final_response(&mut client).await;
    }
}

#[tokio::test]
async fn a_client_with_an_expectation_is_told_to_go_on_beside_the_hints() {
    let origin = Origin::start().await;
    let scale0 = scale0(&origin).await;
    let mut client = scale0.client().await;
    let fields = format!(
        "Expect: 100-continue\r\nContent-Length: {}\r\n",
        UPLOAD.len()
    );
    client.ask("PUT", "/hints", &fields).await;
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(client.head().await.unwrap().status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [100, 102, 103]);
    client.send(UPLOAD).await.unwrap();
    origin.go_on();
    final_response(&mut client).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_its_hints_is_ended_like_any_that_does_not_read() {
    let origin = Origin::start().await;
    let limits = "[limits]\nheader_timeout = \"1s\"\nmin_rate = \"64KiB\"\n";
    let scale0 = Scale0::start(&site_of(&origin.url, limits)).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut client = Client::on(socket.connect(scale0.pages()).await.unwrap());
    // Each request's hints take more of the buffers on the way, until they do not take all.
    let ended = "scale0_http_too_slow_total{why=\"reading\"";
    for number in 0.. {
        let request = format!("GET /wide/{number} HTTP/1.1\r\nHost: www.example.com\r\n\r\n");
        let is_over = client.send(request).await.is_err();
        if is_over || scale0.metrics(ended).await == 1.0 {
            break;
        }
        origin.go_on();
    }
    scale0.until_metric(ended, |ended| ended == 1.0).await;
    let dropped = format!("{DROPPED}{{why=\"backlog\"");
    assert!(0.0 < scale0.metrics(&dropped).await);
}
