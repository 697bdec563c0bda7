//! Who shares what. Names after `peers.md`-like reports: how other systems got it wrong.

use std::time::Duration;

use http::Method;
use scale0_cache::flights::{Alone, MAX_FLIGHTS_PER_KEY};
use scale0_cache::{CacheConfig, Fill, Join, Lookup, Reader};

use crate::site::{FAILURE, Fate, Habits, Outcome, Pending, Request, Resource, Site};

const PRIVATE: &[(&str, &str)] = &[("cache-control", "private")];

fn site_with(resource: Resource) -> Site {
    let site = Site::new(CacheConfig::default());
    site.has("/", resource);
    site
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn clients(site: &Site, count: u64) -> Vec<Pending> {
    (1..=count)
        .map(|visitor| site.client(Request::get(visitor, "/"), Habits::default()))
        .collect()
}

fn outcome(pending: &Pending) -> Outcome {
    pending
        .borrow()
        .clone()
        .expect("the world has come to its end")
}

fn lead(site: &Site, request: &Request) -> (Fill, Reader) {
    match site
        .cache
        .join(site.world.now(), request.key, &request.asker(site))
    {
        Join::Lead { fill, reader } => (fill, reader),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_thousand_identical_requests_are_one_request_and_a_thousand_identical_bodies() {
    let site = site_with(Resource::default());
    let all = clients(&site, 1000);
    site.run();
    let expected = site.expected(&Request::get(0, "/"));
    for client in &all {
        assert_eq!(outcome(client).body(), expected);
    }
    assert_eq!(site.executions(), 1);
    assert_eq!(
        (site.counter("flights_led"), site.counter("flights_joined")),
        (1, 999)
    );
    assert!(500_000 * 999 <= site.counter("join_wait_micros"));
}

#[test]
fn requests_that_arrive_at_any_time_around_a_flight_never_cost_a_second_one() {
    let site = site_with(Resource {
        pause: ms(100),
        ..Resource::default()
    });
    let all: Vec<_> = (0..200)
        .map(|n| site.client_at(ms(n * 11), Request::get(n, "/"), Habits::default()))
        .collect();
    site.run();
    assert!(
        all.iter()
            .all(|client| outcome(client).body().len() == 10_000)
    );
    assert_eq!(site.executions(), 1);
}

#[test]
fn a_private_response_releases_all_waiters_at_once_and_each_gets_its_own() {
    // varnish-cache#2978: released in growing batches; magento2#28927: one at a time.
    let site = site_with(Resource {
        fields: PRIVATE.to_vec(),
        ..Resource::default()
    });
    let all = clients(&site, 10_000);
    site.run();
    for (visitor, client) in (1..).zip(&all) {
        let Outcome::Whole {
            body,
            shared: false,
            last,
            ..
        } = outcome(client)
        else {
            panic!("{client:?}")
        };
        assert_eq!(body, site.expected(&Request::get(visitor, "/")));
        assert!(
            last <= ms(1001),
            "one round of waiting and one of fetching, not {last:?}"
        );
    }
    assert_eq!(site.counter("joined_then_private"), 9_999);
}

#[test]
fn a_leader_only_key_is_remembered_so_that_nobody_waits_again() {
    let site = site_with(Resource {
        fields: PRIVATE.to_vec(),
        ..Resource::default()
    });
    clients(&site, 2);
    site.run();
    let start = site.world.elapsed();
    let second_round = clients(&site, 100);
    site.run();
    assert!(site.world.elapsed() - start <= ms(501));
    assert!(
        second_round
            .iter()
            .all(|client| matches!(outcome(client), Outcome::Whole { shared: false, .. }))
    );
    assert_eq!(site.counter("alone_marked"), 100);
}

#[test]
fn what_one_client_gets_for_itself_marks_the_key_for_no_other() {
    for (cookie_or_so, status) in [
        ("authorization", http::StatusCode::OK),
        ("authorization", http::StatusCode::UNAUTHORIZED),
        ("x-forbidden", http::StatusCode::FORBIDDEN),
        ("x-often", http::StatusCode::TOO_MANY_REQUESTS),
    ] {
        let fields = if status.is_success() {
            vec![("cache-control", "max-age=60")]
        } else {
            vec![]
        };
        let site = site_with(Resource {
            fields,
            status,
            ..Resource::default()
        });
        let fields = [("cache-control", "no-cache"), (cookie_or_so, "mine")];
        site.client(
            Request::new(&Method::GET, 1, "/", &fields),
            Habits::default(),
        );
        site.run();
        assert_eq!(site.executions(), 1);
        site.has("/", Resource::default());
        clients(&site, 100);
        site.run();
        assert_eq!(site.executions(), 2, "{cookie_or_so}, {status}");
    }
}

#[test]
fn a_marker_is_forgotten_after_its_time_and_after_a_shareable_response() {
    let site = site_with(Resource {
        fields: PRIVATE.to_vec(),
        ..Resource::default()
    });
    let request = Request::get(1, "/");
    clients(&site, 1);
    site.run();
    let join = |time| site.cache.join(time, request.key, &request.asker(&site));
    assert!(matches!(
        join(site.world.now()),
        Join::Alone(Alone::Marked(_))
    ));
    assert!(
        matches!(join(site.world.now() + ms(12_500)), Join::Lead { .. }),
        "its time is over"
    );

    clients(&site, 1);
    site.run();
    site.cache
        .learn(site.world.now(), &request.key, &shareable());
    assert!(
        matches!(join(site.world.now()), Join::Lead { .. }),
        "the origin has changed its mind"
    );
}

fn shareable() -> scale0_cache::policy::Sharing {
    let head = scale0_cache::ResponseHead {
        status: http::StatusCode::OK,
        headers: crate::site::to_map(&[("cache-control", "max-age=1")]),
    };
    let wall = std::time::SystemTime::UNIX_EPOCH;
    scale0_cache::policy::Sharing::judge(
        Default::default(),
        &Request::get(0, "/").facts,
        &head,
        Duration::ZERO,
        wall,
    )
}

#[test]
fn ten_thousand_random_pairs_leak_no_byte_to_a_stranger() {
    // unjs/ocache#61, cache-handler#82: cookie or private replies handed to strangers.
    use rand::rngs::StdRng;
    use rand::seq::IndexedRandom;
    use rand::{RngExt, SeedableRng};
    let seed = crate::world::any_seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let controls = [
        "",
        "private",
        "no-store",
        "private, max-age=60",
        "no-store, s-maxage=9",
        "max-age=60",
        "public",
        "no-cache",
    ];
    let others = [
        None,
        Some(("set-cookie", "id=1")),
        Some(("last-modified", "Thu, 18 Aug 2011 02:01:18 GMT")),
        Some(("vary", "cookie")),
    ];
    for round in 0..10_000 {
        let mut asks = |visitor| {
            let mut fields = Vec::new();
            if rng.random() {
                fields.push(("cookie", format!("user={visitor}")));
            }
            if rng.random() {
                fields.push(("authorization", format!("Bearer {visitor}")));
            }
            let fields: Vec<(&'static str, &str)> = fields
                .iter()
                .map(|(name, value)| (*name, value.as_str()))
                .collect();
            Request::new(&Method::GET, visitor, "/", &fields)
        };
        let (leader, waiter) = (asks(1), asks(2));
        let mut fields = vec![("cache-control", *controls.choose(&mut rng).unwrap())];
        fields.extend(others.choose(&mut rng).unwrap());
        let site = site_with(Resource {
            fields: fields.clone(),
            length: 10,
            ..Resource::default()
        });
        let clients = [
            site.client(leader.clone(), Habits::default()),
            site.client(waiter.clone(), Habits::default()),
        ];
        site.run();
        let Outcome::Whole { shared, .. } = outcome(&clients[1]) else {
            panic!("seed {seed}, round {round}")
        };

        // The rule, told a second time and more coarsely than the policy tells it.
        let is = |name: &str, word: &str| {
            fields
                .iter()
                .any(|(other, value)| *other == name && value.contains(word))
        };
        let has = |request: &Request, name: &str| request.headers.contains_key(name);
        let explicit = is("cache-control", "max-age") || is("cache-control", "s-maxage");
        let closed = ["private", "no-store", "no-cache"]
            .iter()
            .any(|word| is("cache-control", word));
        let personal = |request: &Request| has(request, "cookie") || has(request, "authorization");
        let forbidden = closed
            || (has(&leader, "authorization")
                && !is("cache-control", "public")
                && !is("cache-control", "s-maxage"))
            || (!explicit && (personal(&leader) || personal(&waiter) || is("set-cookie", "id")))
            || (is("vary", "cookie")
                && leader.headers.get("cookie") != waiter.headers.get("cookie"));
        assert!(
            !(shared && forbidden),
            "seed {seed}, round {round}: {fields:?} {leader:?} {waiter:?}"
        );
    }
}

#[test]
fn a_leader_whose_client_leaves_fails_none_of_its_waiters() {
    // newchat#451, kuberay#4765: shared work inherited its leader's cancellation.
    let site = site_with(Resource {
        pause: ms(50),
        ..Resource::default()
    });
    let leader = site.client(
        Request::get(1, "/"),
        Habits {
            leaves_after: Some(1),
            ..Habits::default()
        },
    );
    let waiters = clients(&site, 99);
    site.run();
    assert_eq!(outcome(&leader), Outcome::Left);
    assert!(
        waiters
            .iter()
            .all(|client| outcome(client).body().len() == 10_000)
    );
    assert_eq!((site.executions(), site.cancelled()), (1, 0));
}

#[test]
fn a_leader_that_leaves_before_the_head_leaves_its_flight_to_the_others() {
    let site = site_with(Resource::default());
    let request = Request::get(1, "/");
    let (mut fill, reader) = lead(&site, &request);
    let Join::Wait(waiter) = site
        .cache
        .join(site.world.now(), request.key, &request.asker(&site))
    else {
        panic!()
    };
    drop(reader);
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(fill.poll_abandoned(&mut cx).is_pending());
    drop(waiter);
    assert!(
        fill.poll_abandoned(&mut cx).is_ready(),
        "now there is nobody"
    );
    let (_second, _reader) = lead(&site, &request);
}

#[test]
fn a_leader_whose_client_does_not_read_delays_nobody() {
    // parapet#190, envoy#34595: followers went in lockstep with the leader's own slow client.
    let site = site_with(Resource {
        length: 300_000,
        chunk: 65_536,
        ..Resource::default()
    });
    let slow = site.client(
        Request::get(1, "/"),
        Habits {
            pause: Duration::from_secs(100),
            ..Habits::default()
        },
    );
    let waiters = clients(&site, 99);
    site.run();
    for client in &waiters {
        let Outcome::Whole { last, .. } = outcome(client) else {
            panic!()
        };
        assert!(last <= ms(510), "{last:?}");
    }
    assert_eq!(outcome(&slow).body().len(), 300_000);
}

#[test]
fn whoever_joins_a_running_body_gets_what_there_is_at_once() {
    // nginx#1189: waiters polled their lock every 500 ms.
    let site = site_with(Resource {
        pause: ms(100),
        ..Resource::default()
    });
    clients(&site, 1);
    let late = site.client_at(ms(1000), Request::get(2, "/"), Habits::default());
    site.run();
    let Outcome::Whole { first, body, .. } = outcome(&late) else {
        panic!()
    };
    assert_eq!((first, body.len()), (ms(1000), 10_000));
    assert_eq!(site.executions(), 1);
}

#[test]
fn a_vanished_writer_is_a_failure_and_nothing_of_it_is_stored() {
    // pingora#932, trafficserver#9274: it looked like the end of the body.
    for fate in [
        Fate::VanishAfter(3000),
        Fate::FailAfter(3000),
        Fate::EndShortAfter(3000),
    ] {
        let site = site_with(Resource {
            fate,
            ..Resource::default()
        });
        let all = clients(&site, 3);
        site.run();
        for client in &all {
            assert!(matches!(outcome(client), Outcome::Aborted(_)), "{fate:?}");
        }
        assert!(site.cache.memory_tier().is_empty(), "{fate:?}");
    }
    // Without a Content-Length only the explicit end tells a whole from a part.
    let site = site_with(Resource {
        fate: Fate::VanishAfter(3000),
        says_length: false,
        ..Resource::default()
    });
    let all = clients(&site, 2);
    site.run();
    assert!(
        all.iter()
            .all(|client| matches!(outcome(client), Outcome::Aborted(_)))
    );
    assert_eq!(site.counter("vanished"), 1);
}

#[test]
fn a_thousand_waiters_of_a_dead_backend_cost_one_request_and_so_does_the_next_herd_within_a_second()
{
    // ww#269, ClickHouse#117636: each waiter became leader in turn, or all at once.
    let site = site_with(Resource {
        fate: Fate::FailBeforeHead,
        ..Resource::default()
    });
    let all = clients(&site, 1000);
    site.run();
    assert!(
        all.iter()
            .all(|client| outcome(client) == Outcome::Error(FAILURE))
    );
    let next = clients(&site, 1000);
    site.run();
    assert!(
        next.iter()
            .all(|client| outcome(client) == Outcome::Error(FAILURE))
    );
    assert_eq!(site.executions(), 1);

    let later = site.client_at(ms(1001), Request::get(1, "/"), Habits::default());
    site.run();
    assert_eq!(outcome(&later), Outcome::Error(FAILURE));
    assert_eq!(site.executions(), 2, "after a second somebody looks again");
}

#[test]
fn a_failure_that_met_no_herd_is_not_remembered() {
    let site = site_with(Resource {
        fate: Fate::FailBeforeHead,
        ..Resource::default()
    });
    for round in 1..4 {
        clients(&site, 1);
        site.run();
        assert_eq!(site.executions(), round);
    }
}

#[test]
fn waiters_that_leave_keep_no_seat() {
    // veryfront-code#4188.
    let site = site_with(Resource::default());
    let request = Request::get(1, "/");
    let (fill, _reader) = lead(&site, &request);
    for _ in 0..10_000 {
        let join = site
            .cache
            .join(site.world.now(), request.key, &request.asker(&site));
        assert!(matches!(join, Join::Wait(_)));
    }
    assert_eq!(fill.waiters(), 1);
}

#[test]
fn a_flight_waits_as_long_as_its_most_patient_waiter() {
    let site = site_with(Resource::default());
    let request = Request::get(1, "/");
    let (fill, _reader) = lead(&site, &request);
    let own = fill.latest_deadline();
    let mut patient = request.asker(&site);
    patient.deadline += Duration::from_secs(100);
    let _waiter = site.cache.join(site.world.now(), request.key, &patient);
    assert_eq!(fill.latest_deadline(), own + Duration::from_secs(100));
}

#[test]
fn a_head_joins_a_running_get_and_never_leads() {
    // pingora#265: the method is part of what is shared.
    let site = site_with(Resource {
        pause: ms(100),
        ..Resource::default()
    });
    let request = Request::head(9, "/");
    let join = site
        .cache
        .join(site.world.now(), request.key, &request.asker(&site));
    assert!(matches!(join, Join::Alone(Alone::HeadWithoutGet)));
    let get = clients(&site, 1);
    let head = site.client_at(ms(10), Request::head(2, "/"), Habits::default());
    let late_head = site.client_at(ms(700), Request::head(2, "/"), Habits::default());
    site.run();
    assert_eq!(
        (outcome(&head), outcome(&late_head)),
        (Outcome::Head, Outcome::Head)
    );
    assert_eq!(
        (outcome(&get[0]).body().len(), site.executions()),
        (10_000, 1)
    );
}

#[test]
fn a_request_that_wants_its_own_answer_leads_but_never_waits() {
    let site = site_with(Resource::default());
    let reload = Request::new(&Method::GET, 1, "/", &[("cache-control", "no-cache")]);
    let (_fill, _reader) = lead(&site, &reload);
    let join = |request: &Request| {
        site.cache
            .join(site.world.now(), request.key, &request.asker(&site))
    };
    assert!(matches!(join(&reload), Join::Alone(Alone::WantsItsOwn)));
    assert!(matches!(join(&Request::get(2, "/")), Join::Wait(_)));
}

#[test]
fn vary_splits_the_waiters_into_one_flight_per_variant() {
    // go-proxy-cache#267: the key ignored Vary until too late.
    let fields = vec![("cache-control", "max-age=60"), ("vary", "accept-language")];
    let site = site_with(Resource {
        fields,
        ..Resource::default()
    });
    let languages = ["de", "en", "fr"];
    let request = |n: usize| {
        Request::new(
            &Method::GET,
            n as u64,
            "/",
            &[("accept-language", languages[n % 3])],
        )
    };
    let all: Vec<_> = (0..300)
        .map(|n| (n, site.client(request(n), Habits::default())))
        .collect();
    site.run();
    for (n, client) in &all {
        assert_eq!(outcome(client).body(), site.expected(&request(*n)));
    }
    assert_eq!(site.executions(), 3);
    // And side by side in the store.
    for n in 0..3 {
        let lookup = site
            .cache
            .lookup(site.world.now(), &request(n).asker(&site));
        let Lookup::Hit(hit) = lookup else {
            panic!("{lookup:?}")
        };
        assert_eq!(
            hit.response.blocks().unwrap().concat(),
            site.expected(&request(n))
        );
    }
}

#[test]
fn a_stale_flight_is_not_joined_and_there_are_at_most_four() {
    let fields = vec![("cache-control", "max-age=2")];
    let site = site_with(Resource {
        fields,
        pause: Duration::from_secs(1000),
        ..Resource::default()
    });
    let all: Vec<_> = (0..8)
        .map(|n| {
            site.client_at(
                Duration::from_secs(n * 3),
                Request::get(n, "/"),
                Habits::default(),
            )
        })
        .collect();
    site.run();
    assert!(
        all.iter()
            .all(|client| outcome(client).body().len() == 10_000)
    );
    assert_eq!(site.counter("flights_led") as usize, MAX_FLIGHTS_PER_KEY);
    assert_eq!(site.counter("alone_other"), 4);
}

#[test]
fn nobody_is_left_before_the_head_means_cancel() {
    let site = site_with(Resource::default());
    let request = Request::get(1, "/");
    site.client(request, Habits::default());
    let run = site
        .world
        .run(&[crate::world::DropAt { task: 0, polls: 3 }], |_| 0, || {});
    assert_eq!((run.orphans.len(), site.cancelled()), (0, 1));
    site.assert_empty();
}

#[test]
fn a_fill_that_nobody_wants_is_finished_only_if_storable_and_nearly_done() {
    let big = Resource {
        length: 4_000_000,
        chunk: 65_536,
        pause: ms(1),
        ..Resource::default()
    };
    let cases = [
        ("nearly done", big.clone(), 3_100_000, true),
        ("not nearly done", big.clone(), 100_000, false),
        (
            "of unknown length",
            Resource {
                says_length: false,
                ..big.clone()
            },
            3_900_000,
            false,
        ),
        (
            "for its leader only",
            Resource {
                fields: PRIVATE.to_vec(),
                ..big
            },
            3_900_000,
            false,
        ),
    ];
    for (what, resource, leaves_after, is_stored) in cases {
        let site = site_with(resource);
        site.client(
            Request::get(1, "/"),
            Habits {
                leaves_after: Some(leaves_after),
                ..Habits::default()
            },
        );
        site.run();
        assert_eq!(!site.cache.memory_tier().is_empty(), is_stored, "{what}");
        assert_eq!(site.cancelled(), usize::from(!is_stored), "{what}");
    }
}

#[test]
fn a_request_that_was_refused_by_its_own_fields_goes_alone() {
    let fields = vec![("cache-control", "max-age=60"), ("age", "10")];
    let site = site_with(Resource {
        fields,
        ..Resource::default()
    });
    let first = site.client(Request::get(1, "/"), Habits::default());
    let picky = site.client(
        Request::new(&Method::GET, 2, "/", &[("cache-control", "max-age=5")]),
        Habits::default(),
    );
    site.run();
    assert!(matches!(outcome(&first), Outcome::Whole { .. }));
    assert!(matches!(
        outcome(&picky),
        Outcome::Whole { shared: false, .. }
    ));
    assert_eq!(
        (site.executions(), site.counter("joined_then_unfit")),
        (2, 1)
    );
}

#[test]
fn the_fetch_is_woken_when_the_last_client_leaves() {
    struct Heard(std::sync::atomic::AtomicBool);
    impl std::task::Wake for Heard {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }
    let site = site_with(Resource::default());
    let (mut fill, reader) = lead(&site, &Request::get(1, "/"));
    let heard = std::sync::Arc::new(Heard(false.into()));
    let waker = std::task::Waker::from(std::sync::Arc::clone(&heard));
    let mut cx = std::task::Context::from_waker(&waker);
    assert!(fill.poll_abandoned(&mut cx).is_pending());
    drop(reader);
    assert!(heard.0.load(std::sync::atomic::Ordering::Relaxed));
    assert!(fill.poll_abandoned(&mut cx).is_ready());
}
