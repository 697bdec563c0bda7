//! Which connection a request goes out on, and how often.

use std::time::Duration;

use crate::harness::*;
use scale0_bridge::{BridgeError, Refused};
use tokio::join;

#[tokio::test]
async fn requests_one_after_the_other_share_a_connection() {
    let app = App::listen().await;
    let bridge = bridge(&[app.upstream()]);
    let client = async {
        for content in ["one", "two", "three"] {
            let response = send(&bridge, get("/")).await.unwrap();
            assert_eq!(text(response).await.unwrap(), content);
        }
    };
    let served = async {
        let mut peer = app.accept().await;
        for content in ["one", "two", "three"] {
            peer.serve(content).await;
        }
        peer
    };
    let ((), _peer) = join!(client, served);
    let counts = bridge.counts();
    assert_eq!((counts.connections, counts.reused), (1, 2));
    assert_eq!(bridge.idle_connections(), 1);
}

#[tokio::test]
async fn requests_at_once_have_a_connection_each_and_no_more_stay_than_the_bound() {
    let app = App::listen().await;
    let bridge = with(&[app.upstream()], |config| config.idle_connections = 1);
    let client = async { join!(send(&bridge, get("/")), send(&bridge, get("/"))) };
    let served = async {
        let (mut one, mut two) = (app.take().await.0, app.take().await.0);
        one.answer("").await;
        two.answer("").await;
        (one, two)
    };
    let ((one, two), _peers) = join!(client, served);
    assert!(one.is_ok() && two.is_ok());
    assert_eq!(bridge.counts().connections, 2);
    assert_eq!(bridge.idle_connections(), 1);
}

#[tokio::test]
async fn a_connection_that_the_app_has_closed_is_not_used_not_even_for_a_post() {
    let app = App::listen().await;
    let bridge = bridge(&[app.upstream()]);
    let (_, peer) = join!(send(&bridge, get("/")), async {
        let mut peer = app.accept().await;
        peer.serve("").await;
        peer
    });
    assert_eq!(bridge.idle_connections(), 1);
    drop(peer);
    settled().await;
    let (answer, seen) = join!(
        send(&bridge, request("POST", "/", whole("content"))),
        async { app.accept().await.serve("").await }
    );
    assert!(answer.is_ok());
    assert!(seen.ends_with("\r\n\r\ncontent"), "{seen}");
    assert_eq!(bridge.counts().found_closed, 1);
    assert_eq!(bridge.counts().repeated, 0);
}

#[tokio::test]
async fn an_idempotent_request_under_which_the_app_closes_goes_once_more_with_all_its_content() {
    for (method, content) in [("GET", ""), ("PUT", "content")] {
        let app = App::listen().await;
        let bridge = bridge(&[app.upstream()]);
        let client = async {
            send(&bridge, get("/")).await.unwrap();
            let body = if content.is_empty() {
                nothing()
            } else {
                whole(content)
            };
            let response = send(&bridge, request(method, "/item", body)).await;
            text(response.unwrap()).await.unwrap()
        };
        let served = async {
            let mut first = app.accept().await;
            first.serve("").await;
            let before = first.request().await;
            drop(first);
            let after = app.accept().await.serve("done").await;
            assert_eq!(before, after);
            after
        };
        let (answer, seen) = join!(client, served);
        assert_eq!(answer, "done");
        assert!(
            seen.ends_with(content) && seen.starts_with(method),
            "{seen}"
        );
        assert_eq!(bridge.counts().repeated, 1);
    }
}

#[tokio::test]
async fn it_goes_no_third_time() {
    let app = App::listen().await;
    let bridge = bridge(&[app.upstream()]);
    let client = async {
        send(&bridge, get("/")).await.unwrap();
        send(&bridge, get("/")).await
    };
    let served = async {
        let mut first = app.accept().await;
        first.serve("").await;
        first.request().await;
        drop(first);
        app.take().await;
    };
    let (answer, ()) = join!(client, served);
    assert!(matches!(answer, Err(BridgeError::Failed { .. })));
    assert_eq!(bridge.counts().connections, 2);
}

#[tokio::test]
async fn what_may_have_run_is_not_sent_again() {
    let keyed = || {
        let mut request = request("POST", "/", whole("content"));
        let key = "8e03978e".parse().unwrap();
        request.headers_mut().insert("idempotency-key", key);
        request
    };
    let post = || request("POST", "/", whole("content"));
    // What is asked, what the application sends before it closes, and whether it sees the request again.
    for (name, asked, half, again) in [
        ("a POST", post(), "", false),
        ("a POST with a key", keyed(), "", true),
        ("a GET half answered", get("/"), "HTTP/1.1 200", false),
    ] {
        let app = App::listen().await;
        let bridge = bridge(&[app.upstream()]);
        let client = async {
            send(&bridge, get("/")).await.unwrap();
            send(&bridge, asked).await
        };
        let served = async {
            let mut first = app.accept().await;
            first.serve("").await;
            first.request().await;
            first.send(half).await;
            drop(first);
            if again {
                app.accept().await.serve("").await;
            }
        };
        let (answer, ()) = join!(client, served);
        assert_eq!(answer.is_ok(), again, "{name}");
        assert_eq!(bridge.counts().repeated, u64::from(again), "{name}");
        assert_eq!(
            bridge.counts().failed_before_head,
            u64::from(!again),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_request_nobody_waits_for_and_a_response_nobody_reads_close_their_connection() {
    let app = App::listen().await;
    let bridge = bridge(&[app.upstream()]);
    let mut asked = Box::pin(send(&bridge, get("/")));
    let peer = tokio::select! {
        _ = &mut asked => unreachable!("it is not answered"),
        (peer, _) = app.take() => peer,
    };
    drop(asked);
    assert_eq!(peer.closed().await, 0);

    let (response, mut peer) = join!(send(&bridge, get("/")), async {
        let (mut peer, _) = app.take().await;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
            .await;
        peer
    });
    drop(response);
    peer = Peer(peer.0);
    assert_eq!(peer.closed().await, 0);
    assert_eq!(bridge.idle_connections(), 0);
}

#[tokio::test]
async fn a_connection_of_doubtful_state_is_used_once() {
    for (name, response) in [
        (
            "told to close",
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        ),
        (
            "HTTP/1.0",
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
        ),
        (
            "more than it should be",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok, and more",
        ),
        (
            "two framings",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ),
        (
            "gone in a moment",
            "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nContent-Length: 2\r\n\r\nok",
        ),
    ] {
        let app = App::listen().await;
        let bridge = bridge(&[app.upstream()]);
        let client = async {
            for _ in 0..2 {
                let answer = send(&bridge, get("/")).await.unwrap();
                assert_eq!(text(answer).await.unwrap(), "ok", "{name}");
            }
        };
        let served = async {
            for _ in 0..2 {
                let (mut peer, _) = app.take().await;
                peer.send(response).await;
            }
        };
        join!(client, served);
        assert_eq!(bridge.counts().connections, 2, "{name}");
    }
}

#[tokio::test]
async fn an_app_that_takes_no_connections_leaves_requests_unstarted() {
    let folder = tempfile::tempdir().unwrap();
    let missing = format!("unix:{}/app.sock", folder.path().display());
    for upstream in [nobody().await, missing.parse().unwrap()] {
        let bridge = bridge(&[upstream]);
        let up = bridge.any_up();
        assert!(*up.borrow());
        let first = send(&bridge, request("POST", "/", whole("content"))).await;
        let connect = matches!(first, Err(BridgeError::Refused(Refused::Connect { .. })));
        assert!(connect);
        assert!(!*up.borrow());
        let next = send(&bridge, get("/")).await;
        assert!(matches!(next, Err(BridgeError::Refused(Refused::AllDown))));
        assert_eq!(bridge.counts().connects_failed, 1);
    }
}

#[tokio::test]
async fn of_several_upstreams_a_dead_one_costs_nothing() {
    let app = App::listen().await;
    let bridge = bridge(&[nobody().await, app.upstream(), nobody().await]);
    let client = async {
        for _ in 0..6 {
            send(&bridge, request("POST", "/", whole("content")))
                .await
                .unwrap();
        }
    };
    let served = async {
        let mut peer = app.accept().await;
        for _ in 0..6 {
            peer.serve("").await;
        }
    };
    join!(client, served);
    assert_eq!(bridge.counts().refused, 0);
    assert!(*bridge.any_up().borrow());
}

#[tokio::test]
async fn an_app_that_only_accepts_is_left_alone_after_a_few_requests() {
    let app = App::listen().await;
    let bridge = with(&[app.upstream()], |config| {
        config.health.broken_for = Duration::ZERO;
    });
    let client = async {
        for _ in 0..scale0_bridge::BROKEN_LIMIT {
            let answer = send(&bridge, get("/")).await;
            assert!(matches!(answer, Err(BridgeError::Failed { .. })));
        }
    };
    let served = async {
        for _ in 0..scale0_bridge::BROKEN_LIMIT {
            app.take().await;
        }
    };
    join!(client, served);
    let next = send(&bridge, get("/")).await;
    assert!(matches!(next, Err(BridgeError::Refused(Refused::AllDown))));
}
