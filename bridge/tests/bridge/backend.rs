//! What brokers see of the bridge.

use std::num::NonZeroU32;
use std::time::Duration;

use scale0_backend::Body;
use scale0_bridge::{Bridge, BridgeConfig, Upstream};
use scale0_wire::{End, Fields, Flags, Kind, Message, Reason, Reject, ResponseHead, RoutingHeader};
use tokio::join;
use tokio::net::UnixListener;

use crate::broker::with_broker;
use crate::harness::{App, Peer, settled};

const CONCURRENCY: u64 = 5;

fn bridge(upstream: Upstream) -> Bridge<Body> {
    let mut config = BridgeConfig::new(vec!["shop.example".into()], vec![upstream]);
    config.concurrency = NonZeroU32::new(5).expect("not zero");
    config.health.backoff = Duration::from_millis(1);
    Bridge::new(config).expect("a sound configuration")
}

fn head(message: &Message) -> ResponseHead {
    ResponseHead::decode(&message.metadata).expect("a head")
}

fn has(head: &ResponseHead, name: &str, value: &str) -> bool {
    let mut fields = head.fields.iter();
    fields.any(|(it, its)| it == name.as_bytes() && its == value.as_bytes())
}

/// The bridge looks before it serves, which costs the application a connection.
async fn first_look(app: &App) {
    app.accept().await.closed().await;
}

#[tokio::test]
async fn a_request_reaches_the_app_and_its_answer_the_broker() {
    let app = App::listen().await;
    with_broker(bridge(app.upstream()), async |broker| {
        join!(first_look(&app), async {
            while broker.credit < CONCURRENCY {
                broker.receive().await;
            }
        });
        broker.get();
        let (message, seen) = join!(broker.next(Kind::Response), async {
            app.accept().await.serve("hello").await
        });
        assert_eq!(
            (head(&message).status, &message.content[..]),
            (200, &b"hello"[..])
        );
        assert!(message.header.flags.contains(Flags::FINAL));
        assert!(seen.starts_with("GET /cart?id=7 HTTP/1.1\r\n"), "{seen}");
        assert!(seen.contains("\r\nhost: shop.example\r\n"), "{seen}");
        assert!(seen.contains("\r\nx-forwarded-proto: https\r\n"), "{seen}");
    })
    .await;
}

#[tokio::test]
async fn an_app_that_refuses_loses_its_credit_until_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let app = UnixListener::bind(&path).unwrap();
    with_broker(bridge(Upstream::Unix(path.clone())), async |broker| {
        while broker.credit < CONCURRENCY {
            broker.receive().await;
        }
        drop(app);
        std::fs::remove_file(&path).unwrap();
        let request = broker.ask("POST", Flags::FINAL, &[]);
        let message = broker.next(Kind::Reject).await;
        let reject = Reject::decode(&message.metadata).unwrap();
        assert_eq!(message.header.correlation, request);
        assert_eq!(reject.reason, Reason::AppRefused);

        broker.next(Kind::Reclaim).await;
        let unused = broker.credit - 1;
        let credit = RoutingHeader {
            credit: unused,
            ..broker.header(Kind::Return, 0)
        };
        broker.send(Message::new(credit));
        let _app = UnixListener::bind(&path).unwrap();
        let withdrawn = broker.credit;
        while broker.credit < withdrawn + CONCURRENCY {
            broker.receive().await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_app_that_is_not_there_yet_is_given_no_credit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let bridge = bridge(Upstream::Unix(path.clone()));
    let mut up = bridge.any_up();
    with_broker(bridge, async |broker| {
        broker.receive().await;
        assert!(!*up.borrow_and_update());
        assert_eq!(broker.credit, 0);
        let _app = UnixListener::bind(&path).unwrap();
        while broker.credit < CONCURRENCY {
            broker.receive().await;
        }
        assert!(*up.borrow());
    })
    .await;
}

fn is_failed(end: &Message) -> bool {
    let reason = Reason::AppFailed;
    matches!(End::decode(&end.metadata), Ok(End::Failed { reason: its, .. }) if its == reason)
}

#[tokio::test]
async fn what_the_app_does_not_answer_is_failed_without_a_head() {
    let app = App::listen().await;
    with_broker(bridge(app.upstream()), async |broker| {
        join!(first_look(&app), broker.receive());
        broker.get();
        let (end, ()) = join!(broker.next(Kind::End), async {
            app.take().await;
        });
        assert!(is_failed(&end));
        assert!(!broker.has(Kind::Response));
    })
    .await;
}

#[tokio::test]
async fn what_the_app_breaks_off_is_failed_after_its_head() {
    let app = App::listen().await;
    with_broker(bridge(app.upstream()), async |broker| {
        join!(first_look(&app), broker.receive());
        broker.get();
        let (response, peer) = join!(broker.next(Kind::Response), async {
            let (mut peer, _) = app.take().await;
            let half = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf";
            peer.send(half).await;
            peer
        });
        assert_eq!(&response.content[..], b"half");
        drop(peer);
        assert!(is_failed(&broker.next(Kind::End).await));
    })
    .await;
}

#[tokio::test]
async fn interim_responses_pass_but_for_100_which_is_said_when_content_is_wanted() {
    let app = App::listen().await;
    with_broker(bridge(app.upstream()), async |broker| {
        join!(first_look(&app), broker.receive());
        broker.ask("POST", Flags::default(), &[("expect", "100-continue")]);
        let taking = async { join!(app.take(), settled()).0 };
        let (mut peer, _) = tokio::select! {
            taken = taking => taken,
            _ = broker.next(Kind::Window) => panic!("content was asked for too early"),
        };
        peer.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
            .await;
        let hints = head(&broker.next(Kind::Interim).await);
        assert_eq!(hints.status, 103);
        assert!(has(&hints, "link", "</a.css>"));
        assert!(!broker.has(Kind::Window));

        peer.send("HTTP/1.1 100 Continue\r\n\r\n").await;
        let window = broker.next(Kind::Window).await;
        let request = window.header.correlation;
        broker.say(Kind::Chunk, request, Default::default(), "content");
        let end = End::Complete(Fields::default());
        broker.say(Kind::End, request, end.encode(), "");
        let (message, ()) = join!(broker.next(Kind::Response), async {
            let mut content = [0; 17];
            tokio::io::AsyncReadExt::read_exact(&mut peer.0, &mut content)
                .await
                .unwrap();
            assert_eq!(&content, b"7\r\ncontent\r\n0\r\n\r\n");
            peer.answer("").await;
        });
        assert_eq!(head(&message).status, 200);
    })
    .await;
}

#[tokio::test]
async fn an_upgraded_connection_carries_bytes_both_ways_until_one_side_ends() {
    let app = App::listen().await;
    with_broker(bridge(app.upstream()), async |broker| {
        join!(first_look(&app), broker.receive());
        let request = broker.ask(
            "GET",
            Flags::FINAL.with(Flags::UPGRADE, true),
            &[("connection", "upgrade"), ("upgrade", "echo")],
        );
        let (mut peer, asked) = {
            let taken = app.take();
            tokio::pin!(taken);
            loop {
                tokio::select! {
                    taken = &mut taken => break taken,
                    () = broker.receive() => {}
                }
            }
        };
        assert!(asked.contains("\r\nupgrade: echo\r\n"), "{asked}");
        assert!(asked.contains("\r\nconnection: upgrade\r\n"), "{asked}");
        peer.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nhello",
        )
        .await;
        let upgrade = head(&broker.next(Kind::Upgrade).await);
        assert_eq!(upgrade.status, 101);
        assert!(has(&upgrade, "upgrade", "echo"));
        let first = broker.next(Kind::Chunk).await;
        assert_eq!(&first.content[..], b"hello");

        broker.say(Kind::Chunk, request, Default::default(), "ping");
        let Peer(stream) = &mut peer;
        let mut ping = [0; 4];
        let reading = tokio::io::AsyncReadExt::read_exact(stream, &mut ping);
        tokio::select! {
            read = reading => read.map(drop).unwrap(),
            _ = broker.next(Kind::End) => panic!("the tunnel ended"),
        };
        assert_eq!(&ping, b"ping");
        peer.send("pong").await;
        let pong = broker.next(Kind::Chunk).await;
        assert_eq!(&pong.content[..], b"pong");
        drop(peer);
        let end = broker.next(Kind::End).await;
        assert!(matches!(End::decode(&end.metadata), Ok(End::Complete(_))));
    })
    .await;
}
