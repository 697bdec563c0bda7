//! Backends as their users start them, over real sockets and within the process, each story in all shapes.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "all of this is tests, which say which shape they failed in"
)]

mod site;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use scale0_backend::{Backend, Body, Error, NotStarted, RequestContext, upgrade};
use scale0_wire::{
    Cancel, End, Fields, Flags, Kind, Reason, Reject, ResponseHead, Wanted, Window, limits,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, Semaphore, mpsc};
use tower::service_fn;

use site::{SHAPES, Shape, Site, field, telling};

type Answer = Result<Response<axum::body::Body>, Infallible>;

const PLAIN: fn(Backend) -> Backend = |backend| backend;

fn text(text: &'static str) -> Response<axum::body::Body> {
    Response::new(axum::body::Body::from(text))
}

fn each_shape(story: impl Fn(Shape)) {
    for shape in SHAPES {
        println!("{shape:?}");
        story(shape);
    }
}

#[test]
fn an_axum_router_is_a_backend_and_a_short_response_is_one_message() {
    each_shape(|shape| {
        let app = Router::new().route("/hello", get(|| async { "hello" }));
        let mut site = Site::new(shape, PLAIN, app);
        let hello = site.hello.clone().unwrap();
        assert_eq!(hello.services, ["shop.example"]);
        assert_eq!(hello.capacity, 64);

        let request = site.get("/hello");
        let (head, message) = site.response(request);
        assert_eq!((head.status, &message.content[..]), (200, &b"hello"[..]));
        assert!(message.header.flags.contains(Flags::FINAL));
        assert_eq!(field(&head, "scale0-backend").as_deref(), Some("shop-1"));
        assert_eq!(message.header.credit, 65);

        let missing = site.get("/missing");
        assert_eq!(site.response(missing).0.status, 404);
    });
}

#[test]
fn a_handler_sees_the_request_as_the_frontend_wrote_it() {
    each_shape(|shape| {
        let service = service_fn(|request: Request<Body>| async move {
            let context = request.extensions().get::<RequestContext>().unwrap();
            let seen = format!(
                "{} {} {:?} {:?} {} {} {}",
                request.method(),
                request.uri(),
                request.headers()["host"],
                request.headers()["x-asked"],
                context.broker(),
                context.waiters(),
                context.deadline().is_some(),
            );
            Answer::Ok(Response::new(seen.into()))
        });
        let mut site = Site::new(shape, PLAIN, service);
        let request = site.get("/a?b=c");
        let content = site.response(request).1.content;
        let expected = "GET http://shop.example/a?b=c \"shop.example\" \"yes\" fra-1 3 true";
        assert_eq!(content, expected);
    });
}

#[test]
fn content_streams_both_ways_and_nothing_is_lost() {
    const PIECES: usize = 40;
    each_shape(|shape| {
        let service = service_fn(|request: Request<Body>| async move {
            Answer::Ok(Response::new(axum::body::Body::new(request.into_body())))
        });
        let mut site = Site::new(shape, PLAIN, service);
        let window = limits::STREAM_WINDOW;
        let request = site.request("POST", "/echo", Flags::default(), b"first,", window);
        let (_, head) = site.response(request);
        assert!(!head.header.flags.contains(Flags::FINAL));

        let mut limit = Window::decode(&site.next(Kind::Window, request).metadata)
            .unwrap()
            .0;
        let mut sent = Vec::from(&head.content[..]);
        let mut chunks = 0;
        for piece in 0..PIECES {
            let content = vec![u8::try_from(piece).unwrap(); limits::CONTENT];
            while limit < ((piece + 1) * limits::CONTENT) as u64 {
                // The handler echoes only what is taken from it.
                site.window(request, 1 << 40);
                site.window(0, 1 << 40);
                let more = site.next(Kind::Window, request);
                limit = Window::decode(&more.metadata).unwrap().0;
            }
            sent.extend_from_slice(&content);
            site.chunk(request, content);
            chunks += 1;
        }
        assert_eq!(chunks, PIECES);
        let trailers = Fields::new([(&b"x-sum"[..], &b"1"[..])]).unwrap();
        let end = End::Complete(trailers);
        site.say(Kind::End, request, end.encode());
        let (content, ended) = site.content(request);
        assert!(b"first," == &sent[..6] && content == sent[head.content.len()..]);
        assert_eq!(ended, end, "with the trailers");
    });
}

#[test]
fn an_upload_that_breaks_off_is_an_error_to_its_handler() {
    each_shape(|shape| {
        let service = service_fn(|request: Request<Body>| async move {
            let error = request.into_body().collect().await.unwrap_err();
            Answer::Ok(text(error.reason()))
        });
        let mut site = Site::new(shape, PLAIN, service);
        let request = site.request("POST", "/", Flags::default(), b"half", 1000);
        let failed = End::Failed {
            reason: Reason::ClientGone,
            detail: String::new(),
        };
        site.say(Kind::End, request, failed.encode());
        assert_eq!(site.response(request).1.content, "client-gone");
    });
}

/// Tells when it is dropped.
struct Watched(Sender<&'static str>);

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.0.send("dropped");
    }
}

#[test]
fn a_cancel_reaches_the_handler_and_frees_its_place() {
    each_shape(|shape| {
        let (tell, told) = telling();
        let service = service_fn(move |request: Request<Body>| {
            let tell = tell.clone();
            async move {
                if request.uri().path() == "/quick" {
                    return Answer::Ok(text("quick"));
                }
                let _watched = Watched(tell.clone());
                tell.send("started").unwrap();
                std::future::pending::<Answer>().await
            }
        });
        let mut site = Site::new(shape, |backend| backend.concurrency(1), service);
        let request = site.get("/");
        assert_eq!(told.recv().unwrap(), "started");
        site.say(Kind::Cancel, request, Cancel(Reason::ClientGone).encode());
        assert_eq!(told.recv().unwrap(), "dropped");
        let end = site.next(Kind::End, request);
        let reason = match End::decode(&end.metadata).unwrap() {
            End::Failed { reason, .. } => reason,
            End::Complete(_) => panic!("complete"),
        };
        assert_eq!((reason, end.header.credit), (Reason::Cancelled, 2));

        let next = site.get("/quick");
        assert_eq!(site.response(next).1.content, "quick");
    });
}

#[test]
fn a_panic_is_one_500_and_one_after_the_head_is_a_broken_stream() {
    each_shape(|shape| {
        let service = service_fn(|request: Request<Body>| async move {
            match request.uri().path() {
                "/early" => panic!("on purpose"),
                "/late" => {
                    let pieces = stream::iter([1, 2, 3]).map_piece();
                    Answer::Ok(Response::new(axum::body::Body::new(pieces)))
                }
                _ => Answer::Ok(text("fine")),
            }
        });
        let mut site = Site::new(shape, PLAIN, service);
        let early = site.get("/early");
        let (head, message) = site.response(early);
        assert_eq!(head.status, 500);
        let reason = field(&head, "x-scale0-reason");
        assert_eq!(reason.as_deref(), Some("handler-panicked"));
        assert!(message.header.flags.contains(Flags::FINAL));

        let late = site.get("/late");
        assert_eq!(site.response(late).0.status, 200);
        let (_, end) = site.content(late);
        assert!(matches!(
            end,
            End::Failed {
                reason: Reason::AppFailed,
                ..
            }
        ));

        let fine = site.get("/fine");
        assert_eq!(site.response(fine).1.content, "fine");
        assert_eq!(site.counters.panics.get(), 2);
    });
}

/// A body whose third piece panics.
trait MapPiece {
    fn map_piece(self) -> impl http_body::Body<Data = Bytes, Error = Infallible> + Send + 'static;
}

impl MapPiece for stream::Iter<std::array::IntoIter<i32, 3>> {
    fn map_piece(self) -> impl http_body::Body<Data = Bytes, Error = Infallible> + Send + 'static {
        use futures_util::StreamExt;
        StreamBody::new(self.map(|number| {
            assert_ne!(number, 3, "on purpose");
            Ok(Frame::data(Bytes::from_static(b"piece")))
        }))
    }
}

#[test]
fn a_drain_ends_what_is_under_way_and_then_leaves() {
    each_shape(|shape| {
        let (tell, told) = telling();
        let go = Arc::new(Notify::new());
        let handlers_go = Arc::clone(&go);
        let service = service_fn(move |_: Request<Body>| {
            let (tell, go) = (tell.clone(), Arc::clone(&handlers_go));
            async move {
                tell.send(()).unwrap();
                go.notified().await;
                Answer::Ok(text("done"))
            }
        });
        let mut site = Site::new(shape, |backend| backend.concurrency(2), service);
        let request = site.get("/");
        told.recv().unwrap();
        site.shut_down();
        site.next(Kind::Drain, 0);
        let wanted = Wanted::decode(&site.next(Kind::Reclaim, 0).metadata).unwrap();
        assert_eq!(wanted, Wanted(1));
        assert_eq!(site.count(Kind::Bye, 0), 0);
        go.notify_one();
        assert_eq!(site.response(request).1.content, "done");
        site.next(Kind::Bye, 0);
        site.join().unwrap();
    });
}

#[test]
fn a_broker_that_comes_back_is_served_again_and_its_former_work_is_cancelled() {
    each_shape(|shape| {
        let (tell, told) = telling();
        let service = service_fn(move |request: Request<Body>| {
            let tell = tell.clone();
            async move {
                if request.uri().path() == "/again" {
                    return Answer::Ok(text("again"));
                }
                let _watched = Watched(tell.clone());
                tell.send("started").unwrap();
                std::future::pending::<Answer>().await
            }
        });
        let mut site = Site::new(shape, PLAIN, service);
        site.get("/");
        assert_eq!(told.recv().unwrap(), "started");
        site.restart_broker();
        assert_eq!(told.recv().unwrap(), "dropped");
        site.until(|site| 0 < site.credit);
        let again = site.get("/again");
        assert_eq!(site.response(again).1.content, "again");
        assert_eq!(site.counters.sessions.get(), 2);
    });
}

#[test]
fn no_more_handlers_run_than_there_is_concurrency_for() {
    const CONCURRENCY: usize = 3;
    each_shape(|shape| {
        let running = Arc::new(AtomicUsize::new(0));
        let (tell, told) = telling();
        // Not a Notify: of three calls that come before the handlers wait it would keep one.
        let go = Arc::new(Semaphore::new(0));
        let handlers_go = Arc::clone(&go);
        let counted = Arc::clone(&running);
        let service = service_fn(move |_: Request<Body>| {
            let (running, tell) = (Arc::clone(&counted), tell.clone());
            let go = Arc::clone(&handlers_go);
            async move {
                tell.send(running.fetch_add(1, Ordering::SeqCst) + 1)
                    .unwrap();
                go.acquire().await.unwrap().forget();
                running.fetch_sub(1, Ordering::SeqCst);
                Answer::Ok(text(""))
            }
        });
        let mut site = Site::new(shape, |backend| backend.concurrency(3), service);
        // A broker that has gone mad: five times what was granted.
        let requests: Vec<u64> = (0..5 * CONCURRENCY).map(|_| site.get("/")).collect();
        for _ in 0..CONCURRENCY {
            assert!(told.recv().unwrap() <= CONCURRENCY);
        }
        for beyond in &requests[CONCURRENCY..] {
            let reject = site.next(Kind::Reject, *beyond);
            let reason = Reject::decode(&reject.metadata).unwrap().reason;
            assert_eq!(reason, Reason::NoCredit);
        }
        go.add_permits(CONCURRENCY);
        for within in &requests[..CONCURRENCY] {
            site.response(*within);
        }
        assert!(told.try_recv().is_err(), "no other handler was started");
    });
}

#[test]
fn a_response_without_end_stops_where_its_reader_does() {
    const PIECE: usize = 16 * 1024;
    const WINDOW: u32 = 100 * 1024;
    each_shape(|shape| {
        let made = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&made);
        let service = service_fn(move |_: Request<Body>| {
            let made = Arc::clone(&counted);
            async move {
                let pieces = stream::repeat_with(move || {
                    made.fetch_add(PIECE, Ordering::SeqCst);
                    Ok::<_, Infallible>(Frame::data(Bytes::from(vec![b'x'; PIECE])))
                });
                Answer::Ok(Response::new(axum::body::Body::new(StreamBody::new(
                    pieces,
                ))))
            }
        });
        let mut site = Site::new(shape, PLAIN, service);
        let request = site.request("GET", "/", Flags::FINAL, b"", WINDOW);
        site.until(|site| WINDOW as usize == site.received(request));
        // Beyond the window: a queue of 64 KiB, and the piece with which it was exceeded.
        let bound = WINDOW as usize + 64 * 1024 + 2 * PIECE;
        assert!(made.load(Ordering::SeqCst) <= bound);

        site.window(request, u64::from(WINDOW) + 50_000);
        site.until(|site| WINDOW as usize + 50_000 == site.received(request));
        assert!(made.load(Ordering::SeqCst) <= bound + 50_000 + PIECE);
        site.say(Kind::Cancel, request, Cancel(Reason::ClientGone).encode());
        site.next(Kind::End, request);
    });
}

#[test]
fn a_head_does_not_wait_for_its_body() {
    each_shape(|shape| {
        let (feed, eaten) = mpsc::channel::<Bytes>(1);
        let eaten = Arc::new(parking_lot::Mutex::new(Some(eaten)));
        let service = service_fn(move |_: Request<Body>| {
            let mut eaten = eaten.lock().take().unwrap();
            async move {
                let pieces = stream::poll_fn(move |cx| {
                    eaten
                        .poll_recv(cx)
                        .map(|piece| piece.map(|piece| Ok::<_, Infallible>(Frame::data(piece))))
                });
                let mut response = Response::new(axum::body::Body::new(StreamBody::new(pieces)));
                response.headers_mut().insert(
                    "content-type",
                    "text/event-stream; charset=utf-8".parse().unwrap(),
                );
                Answer::Ok(response)
            }
        });
        let mut site = Site::new(shape, |backend| backend.concurrency(1), service);
        let request = site.get("/");
        let (head, message) = site.response(request);
        assert_eq!((head.status, message.content.len()), (200, 0));
        assert!(message.header.flags.contains(Flags::EVENT_STREAM));
        assert_eq!(message.header.credit, 2, "its place is free for others");
        feed.blocking_send("data: 1\n\n".into()).unwrap();
        assert_eq!(site.next(Kind::Chunk, request).content, "data: 1\n\n");
        drop(feed);
        assert_eq!(site.content(request).1, End::Complete(Fields::default()));
    });
}

#[test]
fn a_tunnel_carries_bytes_both_ways_until_one_side_ends_it() {
    each_shape(|shape| {
        let service = service_fn(|request: Request<Body>| async move {
            let upgraded = upgrade::on(&request);
            let is_dropped = request.uri().path() == "/drop";
            tokio::spawn(async move {
                let mut tunnel = upgraded.await.unwrap();
                if is_dropped {
                    return;
                }
                let mut line = [0; 5];
                while tunnel.read_exact(&mut line).await.is_ok() {
                    line.reverse();
                    tunnel.write_all(&line).await.unwrap();
                }
                tunnel.shutdown().await.unwrap();
            });
            let mut response = Response::new(axum::body::Body::empty());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response
                .headers_mut()
                .insert("upgrade", "echo".parse().unwrap());
            response
                .headers_mut()
                .insert("connection", "upgrade".parse().unwrap());
            Answer::Ok(response)
        });
        let mut site = Site::new(shape, |backend| backend.concurrency(1), service);
        let flags = Flags::FINAL.with(Flags::UPGRADE, true);
        let request = site.request("GET", "/", flags, b"", 1000);
        let upgrade = site.next(Kind::Upgrade, request);
        let head = ResponseHead::decode(&upgrade.metadata).unwrap();
        assert_eq!(head.status, 101);
        assert_eq!(field(&head, "upgrade").as_deref(), Some("echo"));
        assert_eq!(field(&head, "connection"), None);
        assert_eq!(upgrade.header.credit, 2);

        site.next(Kind::Window, request);
        site.chunk(request, "hel");
        site.chunk(request, "loworld");
        assert_eq!(site.next(Kind::Chunk, request).content, "olleh");
        assert_eq!(site.next(Kind::Chunk, request).content, "dlrow");
        let end = End::Complete(Fields::default());
        site.say(Kind::End, request, end.encode());
        assert_eq!(site.content(request).1, end);

        let dropped = site.request("GET", "/drop", flags, b"", 1000);
        assert_eq!(site.content(dropped).1, end);
    });
}

#[test]
fn a_101_that_nobody_takes_is_a_502() {
    each_shape(|shape| {
        let service = service_fn(|_: Request<Body>| async move {
            let mut response = Response::new(axum::body::Body::empty());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            Answer::Ok(response)
        });
        let mut site = Site::new(shape, PLAIN, service);
        let request = site.get("/");
        assert_eq!(site.response(request).0.status, 502);
    });
}

#[test]
fn early_hints_go_ahead_of_the_response() {
    each_shape(|shape| {
        let service = service_fn(|request: Request<Body>| async move {
            let context = request.extensions().get::<RequestContext>().unwrap();
            let mut hints = HeaderMap::new();
            hints.insert("link", "</style.css>; rel=preload".parse().unwrap());
            assert!(context.interim(StatusCode::EARLY_HINTS, &hints));
            assert!(!context.interim(StatusCode::OK, &hints));
            Answer::Ok(text("page"))
        });
        let mut site = Site::new(shape, PLAIN, service);
        let request = site.get("/");
        let interim = site.next(Kind::Interim, request);
        let head = ResponseHead::decode(&interim.metadata).unwrap();
        assert_eq!(head.status, 103);
        assert_eq!(site.response(request).1.content, "page");
    });
}

#[test]
fn a_request_that_was_not_started_goes_back_to_the_broker() {
    each_shape(|shape| {
        let service = service_fn(|_: Request<Body>| async move {
            let mut response = text("never seen");
            response.extensions_mut().insert(NotStarted {
                retry_after: Some(Duration::from_millis(1500)),
            });
            Answer::Ok(response)
        });
        let mut site = Site::new(shape, PLAIN, service);
        let request = site.get("/");
        let reject = Reject::decode(&site.next(Kind::Reject, request).metadata).unwrap();
        assert_eq!(reject.reason, Reason::AppRefused);
        assert_eq!(reject.retry_after_ms, 1500);
    });
}

#[test]
fn heads_beyond_the_limits_and_failing_services_are_answered_all_the_same() {
    each_shape(|shape| {
        let service = service_fn(|request: Request<Body>| async move {
            if request.uri().path() == "/fails" {
                return Err("the database is gone");
            }
            let mut response = Response::new(Empty::<Bytes>::new());
            for number in 0..limits::FIELDS {
                response
                    .headers_mut()
                    .append("x-many", number.to_string().parse().unwrap());
            }
            Ok(response)
        });
        let mut site = Site::new(shape, PLAIN, service);
        for (target, status, reason) in [
            ("/fails", 500, "handler-failed"),
            ("/large", 502, "head-too-large"),
        ] {
            let request = site.get(target);
            let head = site.response(request).0;
            assert_eq!(head.status, status);
            assert_eq!(field(&head, "x-scale0-reason").as_deref(), Some(reason));
        }
    });
}

#[test]
fn a_response_to_head_has_no_content_and_keeps_its_length() {
    each_shape(|shape| {
        let service = service_fn(|_: Request<Body>| async move {
            let mut response = Response::new(Full::new(Bytes::from_static(b"content")));
            response
                .headers_mut()
                .insert("content-length", "7".parse().unwrap());
            Ok::<_, Infallible>(response)
        });
        let mut site = Site::new(shape, PLAIN, service);
        let request = site.request("HEAD", "/", Flags::FINAL, b"", 1000);
        let (head, message) = site.response(request);
        assert!(message.content.is_empty() && message.header.flags.contains(Flags::FINAL));
        assert_eq!(field(&head, "content-length").as_deref(), Some("7"));
    });
}

#[test]
fn credit_goes_back_while_the_application_is_away() {
    each_shape(|shape| {
        let mut throttle = None;
        let configure = |backend: Backend| {
            throttle = Some(backend.throttle());
            backend.concurrency(4)
        };
        let service = service_fn(|_: Request<Body>| async move { Answer::Ok(text("")) });
        let mut site = Site::new(shape, configure, service);
        throttle.unwrap().limit(0);
        let wanted = Wanted::decode(&site.next(Kind::Reclaim, 0).metadata).unwrap();
        assert_eq!(wanted, Wanted(4));
    });
}

#[tokio::test]
async fn a_backend_that_cannot_serve_says_why_before_it_starts() {
    let service = || service_fn(|_: Request<Body>| async move { Answer::Ok(text("")) });
    let local = "tcp://127.0.0.1:1";
    let serve = |backend: Backend| backend.serve(service());
    let name = serve(Backend::new("two words").broker(local)).await;
    assert!(matches!(
        name,
        Err(Error::Name {
            what: "service",
            ..
        })
    ));
    let nobody = serve(Backend::new("shop")).await;
    assert!(matches!(nobody, Err(Error::NoBroker)));
    let endpoint = serve(Backend::new("shop").broker("127.0.0.1:5702")).await;
    assert!(matches!(endpoint, Err(Error::Endpoint(_))));
    let far = serve(Backend::new("shop").broker("tcp://192.0.2.1:5702")).await;
    assert!(matches!(far, Err(Error::Insecure { .. })));
    let none = serve(Backend::new("shop").broker(local).concurrency(0)).await;
    assert!(matches!(none, Err(Error::NoConcurrency)));
}
