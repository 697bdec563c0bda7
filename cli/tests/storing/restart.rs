//! What a new process finds of what the last one stored.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinSet;

use super::support::{Origin, Scale0, empty};
use super::{STORES, content, is_hit, length_of, page, stop, stored, until_written};

#[tokio::test]
async fn a_restart_serves_what_was_stored_in_all_variants() {
    for store in STORES {
        let folder = tempfile::tempdir().unwrap();
        let origin = Origin::start(|request| async move {
            let target = request.uri().to_string();
            let language = request.headers().get("accept-language");
            let of = format!("{target}{language:?}");
            let mut response = page(&of, length_of(&target));
            let vary = "accept-language".parse().unwrap();
            response.headers_mut().insert("vary", vary);
            response
        })
        .await;
        let config = stored(&origin, store, folder.path(), "");
        let mut asked = Vec::new();
        for target in ["/0/a", "/1000/b", "/100000/c", "/2000000/d"] {
            for language in ["de", "en"] {
                asked.push((target, format!("Accept-Language: {language}\r\n")));
            }
        }

        let mut scale0 = Scale0::start(&config).await;
        let mut client = scale0.client().await;
        let mut before = Vec::new();
        for (target, fields) in &asked {
            let response = client.get_with(target, fields).await;
            assert_eq!(response.body.len(), length_of(target));
            before.push(response.body);
        }
        stop(&mut scale0).await;

        let scale0 = Scale0::start(&config).await;
        let mut client = scale0.client().await;
        for ((target, fields), body) in asked.iter().zip(before) {
            let response = client.get_with(target, fields).await;
            assert!(is_hit(&response), "{store} {target}: {:?}", response.head);
            assert!(response.body == body, "{store} {target}");
            assert!(!response.field("age").is_empty());
        }
        assert_eq!(origin.counts().all(), asked.len());
    }
}

/// Mostly short, and now and then long enough for a file of its own.
fn some_length(number: usize) -> usize {
    if number % 7 == 6 {
        400_000
    } else {
        100 + 3000 * (number % 20)
    }
}

#[tokio::test]
async fn a_kill_in_a_storm_of_writes_costs_no_byte_and_little_else() {
    for store in STORES {
        let folder = tempfile::tempdir().unwrap();
        let origin = Origin::start(|request| async move {
            let target = request.uri().to_string();
            page(&target, length_of(&target))
        })
        .await;
        let config = stored(&origin, store, folder.path(), "");
        let mut scale0 = Scale0::start(&config).await;
        for round in 0..3 {
            let early: Vec<_> = (0..20)
                .map(|n| format!("/{}/{round}-early-{n}", some_length(n)))
                .collect();
            let mut client = scale0.client().await;
            for target in &early {
                client.get(target).await;
            }
            until_written(&scale0, 20).await;

            let goes_on = Arc::new(AtomicBool::new(true));
            let mut storm = JoinSet::new();
            for writer in 0..4 {
                let (goes_on, mut client) = (Arc::clone(&goes_on), scale0.client().await);
                storm.spawn(async move {
                    let mut came = Vec::new();
                    for n in 0.. {
                        let target = format!("/{}/{round}-{writer}-{n}", some_length(n));
                        client.ask("GET", &target, "").await;
                        let whole = client.try_response().await.is_ok();
                        came.push(target);
                        if !whole || !goes_on.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                    came
                });
            }
            until_written(&scale0, 40).await;
            scale0.kill9().await;
            goes_on.store(false, Ordering::Relaxed);
            let late = storm.join_all().await.concat();

            scale0 = Scale0::start(&config).await;
            let mut client = scale0.client().await;
            for target in early.iter().chain(&late) {
                let response = client.get(target).await;
                assert_eq!(response.status(), 200);
                let expected = content(target, length_of(target));
                assert!(response.body == expected, "{store} {target}");
                // A sled database may have half a second's writes in memory.
                if store == "file" && early.contains(target) {
                    assert!(is_hit(&response), "{target}: {:?}", response.head);
                }
            }
            // What was written anew counts for this process, so the next round begins with one that has written nothing.
            scale0.kill9().await;
            scale0 = Scale0::start(&config).await;
        }
    }
}

#[tokio::test]
async fn a_second_process_in_the_same_folder_runs_without_a_store_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::start(|_| async { super::fresh(empty()) }).await;
    let config = stored(&origin, "file", folder.path(), "");
    let mut first = Scale0::start(&config).await;
    first.get("/page").await;
    until_written(&first, 1).await;

    let second = Scale0::start(&config).await;
    assert!(!is_hit(&second.get("/page").await));
    assert!(is_hit(&second.get("/page").await), "from its memory");
    let told = second.stderr();
    assert!(told.contains("in use by another process"), "{told}");
    drop(second);

    stop(&mut first).await;
    let third = Scale0::start(&config).await;
    assert!(is_hit(&third.get("/page").await));
    assert_eq!(origin.gets("/page"), 2);
}
