//! N identical requests cost the origin one, and whoever may not share gets an answer of their own without waiting for others.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Response;
use support::{Client, Content, Origin, Scale0, body, site, text};
use tokio::sync::{Barrier, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// What the issue asks for, and then some for a machine that does other things as well.
const GENEROUS: Duration = Duration::from_secs(5);

fn cacheable(content: Content) -> Response<Content> {
    Response::builder()
        .header("cache-control", "max-age=60")
        .body(content)
        .unwrap()
}

#[tokio::test]
async fn a_thousand_identical_requests_are_one_to_the_origin() {
    let origin = Origin::start(|request| async move {
        tokio::time::sleep(Duration::from_millis(500)).await;
        cacheable(text(format!("{} {}", request.uri(), "x".repeat(10_000))))
    })
    .await;
    let scale0 = Scale0::start(&site(&origin, "")).await;

    let mut clients = JoinSet::new();
    for _ in 0..1000 {
        let mut client = scale0.client().await;
        clients.spawn(async move {
            let response = client.get("/page").await;
            (response.status(), response.body, Instant::now())
        });
    }
    let answers = clients.join_all().await;
    assert_eq!(origin.counts().all(), 1);
    let expected = format!("/page {}", "x".repeat(10_000)).into_bytes();
    for (status, body, _) in &answers {
        assert_eq!(*status, 200);
        assert!(*body == expected);
    }
    let times = answers.iter().map(|(_, _, when)| *when);
    let apart = times.clone().max().unwrap() - times.min().unwrap();
    assert!(
        apart < GENEROUS,
        "the last answer {apart:?} after the first"
    );
}

#[tokio::test]
async fn whoever_asks_while_the_answer_is_awaited_gets_that_one() {
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let origin = Origin::start(move |_| {
        let held = Arc::clone(&held);
        async move {
            held.acquire().await.unwrap().forget();
            cacheable(text("the only one"))
        }
    })
    .await;
    let scale0 = Scale0::start(&site(&origin, "")).await;

    // Each comes only when the one before is known to wait, so their arrivals spread over the whole flight.
    let mut clients = JoinSet::new();
    for seen in 1..=100 {
        let mut client = scale0.client().await;
        client.ask("GET", "/page", "").await;
        clients.spawn(async move { client.response().await });
        if seen % 10 == 0 {
            let is_here = |requests| f64::from(seen) <= requests;
            scale0
                .until_metric("scale0_http_requests_total", is_here)
                .await;
        }
    }
    origin.until(|counts| counts.running == 1).await;
    gate.add_permits(1);
    let answers = clients.join_all().await;
    assert_eq!(origin.gets("/page"), 1);
    assert!(answers.iter().all(|answer| answer.text() == "the only one"));
    let of_waiters = answers
        .iter()
        .filter(|answer| answer.field("cache-status").contains("collapsed"));
    assert_eq!(of_waiters.count(), 99);
    // And whoever asks afterwards gets what was stored.
    assert!(
        scale0
            .get("/page")
            .await
            .field("cache-status")
            .contains("hit")
    );
    assert_eq!(origin.gets("/page"), 1);
}

#[tokio::test]
async fn two_hundred_who_may_not_share_are_asked_for_together() {
    const OTHERS: usize = 199;
    let number = AtomicUsize::new(0);
    let gate = Arc::new(Semaphore::new(0));
    // Lets nobody pass before all are there: were they asked for one after the other, none would be answered.
    let together = Arc::new(Barrier::new(OTHERS));
    let held = Arc::clone(&gate);
    let origin = Origin::start(move |_| {
        let mine = number.fetch_add(1, Ordering::Relaxed);
        let (held, together) = (Arc::clone(&held), Arc::clone(&together));
        async move {
            if mine == 0 {
                held.acquire().await.unwrap().forget();
            } else {
                together.wait().await;
            }
            Response::builder()
                .header("cache-control", "private, max-age=60")
                .body(text(format!("answer {mine}")))
                .unwrap()
        }
    })
    .await;
    let scale0 = Scale0::start(&site(&origin, "")).await;

    let mut clients = JoinSet::new();
    for _ in 0..=OTHERS {
        let mut client = scale0.client().await;
        clients.spawn(async move { client.get("/account").await.text() });
    }
    // All wait for the first, whose answer then turns out to be its own.
    let all_are_here = |requests| 200.0 <= requests;
    scale0
        .until_metric("scale0_http_requests_total", all_are_here)
        .await;
    assert_eq!(origin.gets("/account"), 1);
    gate.add_permits(1);
    let mut answers = clients.join_all().await;
    answers.sort();
    answers.dedup();
    assert_eq!(answers.len(), 200, "each client has an answer of its own");
    assert_eq!(origin.gets("/account"), 200);
}

#[tokio::test]
async fn requests_that_carry_different_cookies_are_not_mixed_up_while_they_wait_together() {
    let origin = Origin::start(|request| async move {
        let cookie = request.headers()["cookie"].to_str().unwrap().to_owned();
        tokio::time::sleep(Duration::from_millis(50)).await;
        Response::new(text(cookie))
    })
    .await;
    let scale0 = Scale0::start(&site(&origin, "")).await;
    let mut clients = JoinSet::new();
    for user in 0..100 {
        let mut client = scale0.client().await;
        clients.spawn(async move {
            let cookie = format!("user={user}");
            let answer = client
                .get_with("/", &format!("Cookie: {cookie}\r\n"))
                .await
                .text();
            (cookie, answer)
        });
    }
    for (cookie, answer) in clients.join_all().await {
        assert_eq!(cookie, answer);
    }
}

/// An origin that sends 4 MB: a half at once, the rest when told to.
async fn halves(gate: &Arc<Semaphore>) -> Origin {
    let gate = Arc::clone(gate);
    Origin::start(move |_| {
        let gate = Arc::clone(&gate);
        async move {
            let (mut sender, content) = body();
            tokio::spawn(async move {
                for piece in 0..HALF / PIECE {
                    if sender.send_data(piece_of(piece)).await.is_err() {
                        return;
                    }
                }
                gate.acquire().await.unwrap().forget();
                for piece in HALF / PIECE..2 * HALF / PIECE {
                    if sender.send_data(piece_of(piece)).await.is_err() {
                        return;
                    }
                }
            });
            cacheable(content)
        }
    })
    .await
}

const PIECE: usize = 32 * 1024;
const HALF: usize = 2 * 1024 * 1024;

fn piece_of(number: usize) -> bytes::Bytes {
    let word = format!("{number:016}");
    word.repeat(PIECE / word.len()).into()
}

fn whole() -> Vec<u8> {
    (0..2 * HALF / PIECE).flat_map(piece_of).collect()
}

#[tokio::test]
async fn who_joins_a_body_half_way_gets_it_from_its_start_at_once() {
    let gate = Arc::new(Semaphore::new(0));
    let origin = halves(&gate).await;
    let scale0 = Scale0::start(&site(&origin, "")).await;
    let whole = whole();

    let mut leader = scale0.client().await;
    leader.ask("GET", "/film", "").await;
    assert_eq!(leader.head().await.unwrap().status, 200);
    let mut first = leader.exactly(HALF).await.unwrap();

    // The origin sends nothing now; all of this comes from what is already here.
    let mut joiner = scale0.client().await;
    joiner.ask("GET", "/film", "").await;
    assert_eq!(joiner.head().await.unwrap().status, 200);
    let mut second = joiner.exactly(HALF).await.unwrap();
    assert!(second == whole[..HALF]);

    gate.add_permits(2);
    first.extend(leader.rest().await.unwrap());
    second.extend(joiner.rest().await.unwrap());
    assert!(first == whole);
    assert!(second == whole);
    assert_eq!(origin.gets("/film"), 1);
}

#[tokio::test]
async fn waiters_are_answered_though_the_leader_has_left_before_the_head() {
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let origin = Origin::start(move |_| {
        let held = Arc::clone(&held);
        async move {
            held.acquire().await.unwrap().forget();
            cacheable(text("for whoever is left"))
        }
    })
    .await;
    let scale0 = Scale0::start(&site(&origin, "")).await;

    let mut leader = scale0.client().await;
    leader.ask("GET", "/page", "").await;
    origin.until(|counts| counts.running == 1).await;
    let mut waiters = JoinSet::new();
    for _ in 0..20 {
        let mut waiter = scale0.client().await;
        waiter.ask("GET", "/page", "").await;
        waiters.spawn(async move { waiter.response().await.text() });
    }
    let all_are_here = |requests| 21.0 <= requests;
    scale0
        .until_metric("scale0_http_requests_total", all_are_here)
        .await;
    leader.abort();
    let one_has_left = |connections| connections <= 20.0;
    scale0
        .until_metric("scale0_http_connections", one_has_left)
        .await;
    gate.add_permits(1);
    for answer in waiters.join_all().await {
        assert_eq!(answer, "for whoever is left");
    }
    assert_eq!(origin.counts().all(), 1);
}

#[tokio::test]
async fn waiters_are_answered_though_the_leader_has_left_within_the_body() {
    let gate = Arc::new(Semaphore::new(0));
    let origin = halves(&gate).await;
    let scale0 = Scale0::start(&site(&origin, "")).await;

    let mut leader = scale0.client().await;
    leader.ask("GET", "/film", "").await;
    leader.head().await.unwrap();
    leader.exactly(PIECE).await.unwrap();
    let mut waiter = scale0.client().await;
    waiter.ask("GET", "/film", "").await;
    waiter.head().await.unwrap();
    let mut bytes = waiter.exactly(PIECE).await.unwrap();
    leader.abort();
    let one_has_left = |connections| connections <= 1.0;
    scale0
        .until_metric("scale0_http_connections", one_has_left)
        .await;
    gate.add_permits(1);
    bytes.extend(waiter.rest().await.unwrap());
    assert!(bytes == whole());
    assert_eq!(origin.counts().all(), 1);
}

#[tokio::test]
async fn a_request_nobody_waits_for_any_more_is_given_up() {
    let origin = Origin::start(|_| std::future::pending()).await;
    let scale0 = Scale0::start(&site(&origin, "")).await;
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..3 {
        let mut client = scale0.client().await;
        client.ask("GET", "/page", "").await;
        clients.push(client);
    }
    let all_are_here = |requests| 3.0 <= requests;
    scale0
        .until_metric("scale0_http_requests_total", all_are_here)
        .await;
    origin.until(|counts| counts.running == 1).await;
    clients.into_iter().for_each(Client::abort);
    origin.until(|counts| counts.running == 0).await;
    assert_eq!(origin.counts().all(), 1);
}

#[tokio::test]
async fn a_slow_and_a_fast_reader_of_one_body_do_not_hold_each_other() {
    const SIZE: usize = 24 * 1024 * 1024;
    let origin = Origin::start(|_| async {
        let (mut sender, content) = body();
        tokio::spawn(async move {
            for piece in 0..SIZE / PIECE {
                if sender.send_data(piece_of(piece)).await.is_err() {
                    return;
                }
            }
        });
        let mut response = cacheable(content);
        let headers = response.headers_mut();
        headers.insert("content-length", SIZE.into());
        headers.insert("etag", "\"one\"".parse().unwrap());
        response
    })
    .await;
    let scale0 = Scale0::start(&site(&origin, "[cache]\nmemory = \"16MiB\"\n")).await;
    let mut slow = scale0.client().await;
    slow.ask("GET", "/disk", "").await;
    assert_eq!(slow.head().await.unwrap().status, 200);
    let mut of_slow = slow.exactly(PIECE).await.unwrap();

    let whole: Vec<u8> = (0..SIZE / PIECE).flat_map(piece_of).collect();
    let fast = scale0.get("/disk").await;
    assert!(fast.body == whole);

    // Only now does the other go on: it gets every byte, or it is cut off; it is never told that a part is all.
    let ended = loop {
        match slow.some().await {
            Ok(Some(piece)) => of_slow.extend(piece),
            Ok(None) => break true,
            Err(_) => break false,
        }
    };
    assert!(whole.starts_with(&of_slow));
    assert_eq!(ended, of_slow.len() == SIZE);
}
