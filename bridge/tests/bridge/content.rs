//! Heads and content, both ways.

use std::time::Duration;

use crate::harness::*;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use scale0_bridge::{BridgeError, Upstream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::join;
use tokio::net::UnixListener;

/// One request, answered with these bytes and then closed.
async fn answered(asked: http::Request<Body>, bytes: &str) -> (Answer, String) {
    let app = App::listen().await;
    let bridge = bridge(&[app.upstream()]);
    let served = async {
        let (mut peer, request) = app.take().await;
        peer.send(bytes).await;
        request
    };
    join!(send(&bridge, asked), served)
}

#[tokio::test]
async fn the_app_sees_the_clients_request_in_origin_form() {
    let mut asked = get("http://shop.example/cart?id=7");
    let fields = asked.headers_mut();
    fields.insert("x-forwarded-for", "192.0.2.1".parse().unwrap());
    fields.insert("x-forwarded-proto", "https".parse().unwrap());
    fields.insert("x-forwarded-host", "shop.example".parse().unwrap());
    let (_, seen) = answered(asked, "HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(
        seen,
        "GET /cart?id=7 HTTP/1.1\r\nhost: shop.example\r\nx-forwarded-for: 192.0.2.1\r\n\
         x-forwarded-proto: https\r\nx-forwarded-host: shop.example\r\n\r\n"
    );
}

#[tokio::test]
async fn options_of_the_server_and_a_target_without_path_arrive_as_rfc_9112_writes_them() {
    for (method, target, line) in [
        ("OPTIONS", "*", "OPTIONS * "),
        ("GET", "http://a", "GET / "),
    ] {
        let asked = request(method, target, nothing());
        let (_, seen) = answered(asked, "HTTP/1.1 204 No Content\r\n\r\n").await;
        assert!(seen.starts_with(line), "{seen}");
    }
}

#[tokio::test]
async fn a_unix_socket_serves_as_a_port_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let app = UnixListener::bind(&path).unwrap();
    let bridge = bridge(&[Upstream::Unix(path)]);
    let (answer, ()) = join!(send(&bridge, get("/")), async {
        let mut peer = Peer(app.accept().await.unwrap().0);
        peer.serve("over a file").await;
    });
    assert_eq!(text(answer.unwrap()).await.unwrap(), "over a file");
}

#[tokio::test]
async fn responses_without_content_keep_their_length_and_their_connection() {
    let app = App::listen().await;
    let bridge = bridge(&[app.upstream()]);
    let cases = [
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n\r\n",
            Some("1024"),
        ),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", None),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
            Some("7"),
        ),
    ];
    let client = async {
        for (method, head, length) in cases {
            let answer = send(&bridge, request(method, "/", nothing()))
                .await
                .unwrap();
            let said = answer.headers().get("content-length");
            assert_eq!(
                said.map(|length| length.to_str().unwrap()),
                length,
                "{head}"
            );
            assert!(answer.body().is_end_stream());
        }
    };
    let served = async {
        let mut peer = app.accept().await;
        for (_, head, _) in cases {
            peer.request().await;
            peer.send(head).await;
        }
    };
    join!(client, served);
    assert_eq!(bridge.counts().connections, 1);
}

#[tokio::test]
async fn content_is_whole_by_its_own_framing() {
    for (name, response) in [
        (
            "by length",
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfour",
        ),
        (
            "longer than its length",
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfour and more",
        ),
        (
            "in chunks",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nfo\r\n2\r\nur\r\n0\r\n\r\n",
        ),
        ("by closing", "HTTP/1.1 200 OK\r\n\r\nfour"),
        ("by closing, in HTTP/1.0", "HTTP/1.0 200 OK\r\n\r\nfour"),
    ] {
        let (answer, _) = answered(get("/"), response).await;
        let answer = answer.unwrap();
        assert!(!answer.headers().contains_key("transfer-encoding"));
        assert_eq!(text(answer).await.unwrap(), "four", "{name}");
    }
}

#[tokio::test]
async fn content_that_breaks_off_is_an_error_never_a_short_success() {
    for response in [
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nshort",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno chunk",
    ] {
        let (answer, _) = answered(get("/"), response).await;
        let content = text(answer.unwrap()).await;
        assert!(
            matches!(content, Err(BridgeError::Failed { .. })),
            "{response}"
        );
    }
}

#[tokio::test]
async fn what_is_no_response_is_a_failure() {
    let endless = format!(
        "HTTP/1.1 200 OK\r\nx-long: {}",
        "x".repeat(scale0_bridge::HEAD_BYTES)
    );
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x-many: 1\r\n".repeat(1000));
    for response in [
        "",
        "HTTP/1.1 200 OK\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        &endless,
        &many,
    ] {
        let (answer, _) = answered(get("/"), response).await;
        let start = &response[..response.len().min(60)];
        assert!(matches!(answer, Err(BridgeError::Failed { .. })), "{start}");
    }
}

#[tokio::test]
async fn chunks_arrive_as_they_are_sent_and_trailers_behind_them() {
    let app = App::listen().await;
    let bridge = bridge(&[app.upstream()]);
    let (answer, mut peer) = join!(send(&bridge, get("/")), async {
        let (mut peer, _) = app.take().await;
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n")
            .await;
        peer
    });
    let mut content = answer.unwrap().into_body();
    for _ in 0..3 {
        peer.send("3\r\nabc\r\n").await;
        let frame = content.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "abc");
    }
    peer.send("0\r\nx-sum: 9\r\n\r\n").await;
    let trailers = content.frame().await.unwrap().unwrap().into_trailers();
    assert_eq!(trailers.unwrap()["x-sum"], "9");
    assert!(content.frame().await.is_none());
    assert_eq!(bridge.idle_connections(), 1);
}

#[tokio::test]
async fn an_app_can_send_no_more_than_is_read() {
    const ALL: usize = 64 * 1024 * 1024;
    let app = App::listen().await;
    let bridge = bridge(&[app.upstream()]);
    let (answer, mut peer) = join!(send(&bridge, get("/")), async {
        let (mut peer, _) = app.take().await;
        peer.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {ALL}\r\n\r\n"))
            .await;
        peer
    });
    let mut content = answer.unwrap().into_body();
    // Until the sockets between the two are full.
    let chunk = [0; 64 * 1024];
    let mut sent = 0;
    loop {
        settled().await;
        match peer.0.try_write(&chunk) {
            Ok(written) => sent += written,
            Err(_would_block) => break,
        }
    }
    assert!(sent < ALL / 2, "{sent} bytes went nowhere");
    let rest = async {
        while sent < ALL {
            let next = chunk.len().min(ALL - sent);
            peer.0.write_all(&chunk[..next]).await.unwrap();
            sent += next;
        }
    };
    let read = async {
        let mut read = 0;
        while let Some(frame) = content.frame().await {
            read += frame.unwrap().into_data().unwrap().len();
        }
        read
    };
    assert_eq!(join!(rest, read).1, ALL);
}

#[tokio::test]
async fn content_of_a_request_is_streamed_with_its_trailers_and_waits_for_the_app() {
    let app = App::listen().await;
    let bridge = bridge(&[app.upstream()]);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "9".parse().unwrap());
    let frames = [
        Frame::data(Bytes::from_static(b"abc")),
        Frame::data(Bytes::from_static(b"def")),
        Frame::trailers(trailers),
    ];
    let mut asked = request("POST", "/", streamed(stream::iter(frames.map(Ok))));
    asked
        .headers_mut()
        .insert("trailer", "x-sum".parse().unwrap());
    let (answer, seen) = join!(send(&bridge, asked), async {
        let (mut peer, head) = app.take().await;
        let mut content = String::new();
        while !content.ends_with("\r\n\r\n") {
            content.push(char::from(peer.0.read_u8().await.unwrap()));
        }
        peer.answer("").await;
        head + &content
    });
    assert!(answer.is_ok());
    assert!(seen.contains("transfer-encoding: chunked"), "{seen}");
    let content = "3\r\nabc\r\n3\r\ndef\r\n0\r\nx-sum: 9\r\n\r\n";
    assert!(seen.ends_with(content), "{seen}");
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_request_is_delivered_even_if_the_app_closes_on_the_rest() {
    let app = App::listen().await;
    let bridge = bridge(&[app.upstream()]);
    let (answer, _) = join!(send(&bridge, request("POST", "/", endless())), async {
        let (mut peer, _) = app.take().await;
        peer.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
            .await;
    });
    let answer = answer.unwrap();
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(text(answer).await.unwrap(), "big");
    assert_eq!(bridge.idle_connections(), 0);
}

#[tokio::test]
async fn an_answer_streams_while_the_request_still_does_though_nobody_reads_it() {
    let app = App::listen().await;
    let bridge = bridge(&[app.upstream()]);
    let (answer, mut peer) = join!(send(&bridge, request("POST", "/", endless())), async {
        let (mut peer, _) = app.take().await;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nec")
            .await;
        peer
    });
    let mut content = answer.unwrap().into_body();
    // More than all buffers between hold: the request goes on while the response is not read.
    let mut sink = vec![0; 64 * 1024 * 1024];
    peer.0.read_exact(&mut sink).await.unwrap();
    peer.send("ho").await;
    let mut read = Vec::new();
    while let Some(frame) = content.frame().await {
        read.extend_from_slice(&frame.unwrap().into_data().unwrap());
    }
    assert_eq!(read, b"echo");
    drop(content);
    peer.closed().await;
}

#[tokio::test]
async fn content_is_held_back_until_the_app_says_continue() {
    for (interim, expected) in [("HTTP/1.1 100 Continue\r\n\r\n", true), ("", false)] {
        let app = App::listen().await;
        let bridge = bridge(&[app.upstream()]);
        let (read, mut was_read) = tokio::sync::oneshot::channel();
        let frames = stream::once(async move {
            read.send(()).expect("the test waits");
            Ok(Frame::data(Bytes::from_static(b"content")))
        });
        let mut asked = request("POST", "/", streamed(frames));
        asked
            .headers_mut()
            .insert("expect", "100-continue".parse().unwrap());
        let (answer, ()) = join!(send(&bridge, asked), async {
            let (mut peer, head) = app.take().await;
            assert!(head.contains("expect: 100-continue"));
            settled().await;
            assert!(
                was_read.try_recv().is_err(),
                "the content was read too early"
            );
            peer.send(interim).await;
            if expected {
                was_read.await.unwrap();
            }
            peer.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n")
                .await;
        });
        assert_eq!(answer.unwrap().status(), StatusCode::EXPECTATION_FAILED);
    }
}

#[tokio::test]
async fn a_client_that_breaks_off_is_not_the_apps_failure() {
    let app = App::listen().await;
    let bridge = bridge(&[app.upstream()]);
    let frames = [
        Ok(Frame::data(Bytes::from_static(b"abc"))),
        Err("gone".into()),
    ];
    let asked = request("POST", "/", streamed(stream::iter(frames)));
    let (answer, _) = join!(send(&bridge, asked), async {
        app.accept().await.closed().await
    });
    assert!(matches!(answer, Err(BridgeError::ContentLost(_))));
    let counts = bridge.counts();
    assert_eq!((counts.content_lost, counts.failed_before_head), (1, 0));
}

#[tokio::test]
async fn a_request_to_connect_elsewhere_does_not_reach_the_app() {
    let bridge = bridge(&[nobody().await]);
    let answer = send(&bridge, request("CONNECT", "other.example:443", nothing())).await;
    assert_eq!(answer.unwrap().status(), StatusCode::NOT_IMPLEMENTED);
}

#[tokio::test]
async fn an_app_that_comes_back_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let bridge = with(&[Upstream::Unix(path.clone())], |config| {
        config.health.backoff = Duration::from_millis(1);
    });
    let mut up = bridge.any_up();
    assert!(send(&bridge, get("/")).await.is_err());
    assert!(!*up.borrow_and_update());
    let _app = UnixListener::bind(&path).unwrap();
    tokio::select! {
        never = bridge.watch() => match never {},
        changed = up.changed() => changed.unwrap(),
    }
    assert!(*up.borrow());
}

#[tokio::test]
async fn with_a_health_path_the_answer_decides() {
    let app = App::listen().await;
    let bridge = with(&[app.upstream()], |config| {
        config.health.path = Some("/healthz".parse().unwrap());
        config.health.interval = Duration::from_millis(1);
        config.health.backoff = Duration::from_millis(1);
    });
    let mut up = bridge.any_up();
    let served = async {
        for status in ["200 OK", "503 Busy", "302 Found", "503 Busy", "503 Busy"] {
            let (mut peer, request) = app.take().await;
            assert!(request.starts_with("GET /healthz HTTP/1.1\r\n"));
            assert!(*up.borrow_and_update(), "two in a row, not one");
            peer.send(&format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"))
                .await;
        }
        up.changed().await.unwrap();
        assert!(!*up.borrow_and_update());
        let (mut peer, _) = app.take().await;
        peer.send("HTTP/1.1 204 No Content\r\n\r\n").await;
        up.changed().await.unwrap();
        assert!(*up.borrow());
    };
    tokio::select! {
        never = bridge.watch() => match never {},
        () = served => {}
    }
}
