//! What is stored, and no longer fresh: validated, refreshed, standing in, invalidated.

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{Method, StatusCode};
use scale0_cache::purge::{Purge, Target};
use scale0_cache::{CacheConfig, Join, Lookup, ResponseHead, Turn};

use crate::site::{Fate, Habits, Outcome, Pending, Request, Resource, Site, to_map};

const STALE_SOON: &[(&str, &str)] = &[("cache-control", "max-age=10"), ("etag", "\"v1\"")];

fn resource(fields: &[(&'static str, &'static str)]) -> Resource {
    Resource {
        fields: fields.to_vec(),
        ..Resource::default()
    }
}

/// A site whose response was stored that long ago.
fn stored_ago(seconds: u64, resource: Resource) -> Site {
    let site = Site::new(CacheConfig::default());
    site.has("/", resource);
    site.client(get(), Habits::default());
    site.run();
    pass(&site, seconds);
    site
}

fn pass(site: &Site, seconds: u64) {
    let world = site.world.clone();
    site.world.spawn("time", async move {
        world.sleep(Duration::from_secs(seconds)).await;
    });
    site.run();
}

fn get() -> Request {
    Request::get(1, "/")
}

fn reload() -> Request {
    Request::new(&Method::GET, 1, "/", &[("cache-control", "no-cache")])
}

fn ask(site: &Site, request: Request) -> Outcome {
    let client = site.client(request, Habits::default());
    site.run();
    outcome(&client)
}

fn outcome(client: &Pending) -> Outcome {
    client
        .borrow()
        .clone()
        .expect("the world has come to its end")
}

fn is_fresh(site: &Site) -> bool {
    let request = get();
    let lookup = site.cache.lookup(site.world.now(), &request.asker(site));
    matches!(lookup, Lookup::Hit(_))
}

#[test]
fn a_confirmed_response_is_sent_from_the_store_to_everybody_who_waits() {
    let site = stored_ago(11, resource(STALE_SOON));
    let clients: Vec<_> = (0..100)
        .map(|_| site.client(get(), Habits::default()))
        .collect();
    site.run();
    let expected = site.expected(&get());
    for client in &clients {
        assert_eq!(outcome(client).body(), expected);
    }
    assert_eq!(site.executions(), 2);
    assert_eq!(site.counter("revalidated"), 1);
    assert_eq!(site.counter("insertions"), 2);
    assert!(is_fresh(&site));
    pass(&site, 11);
    assert!(!is_fresh(&site));
}

#[test]
fn a_response_that_has_changed_takes_the_place_of_the_stored_one() {
    let site = stored_ago(11, resource(STALE_SOON));
    site.has(
        "/",
        Resource {
            length: 500,
            ..resource(&[("cache-control", "max-age=10"), ("etag", "\"v2\"")])
        },
    );
    assert_eq!(ask(&site, get()).body(), site.expected(&get()));
    assert_eq!(site.counter("revalidated"), 0);
    assert!(is_fresh(&site));
}

#[test]
fn a_confirmation_of_something_else_is_answered_by_asking_for_the_whole() {
    let site = stored_ago(11, resource(STALE_SOON));
    site.has(
        "/",
        Resource {
            confirms_anything: true,
            ..resource(&[("cache-control", "max-age=10"), ("etag", "\"v2\"")])
        },
    );
    assert_eq!(ask(&site, get()).body(), site.expected(&get()));
    assert_eq!((site.counter("unconfirmed"), site.executions()), (1, 3));
}

#[test]
fn no_cache_is_stored_and_validated_for_each_client_by_itself() {
    let site = stored_ago(
        0,
        resource(&[("cache-control", "no-cache"), ("etag", "\"v1\"")]),
    );
    for seen in 1..=3 {
        assert_eq!(ask(&site, get()).body(), site.expected(&get()));
        assert_eq!(
            (site.executions(), site.counter("revalidated")),
            (1 + seen, seen as u64)
        );
    }
}

#[test]
fn a_reload_validates_what_is_fresh() {
    let site = stored_ago(1, resource(STALE_SOON));
    assert_eq!(ask(&site, reload()).body(), site.expected(&get()));
    assert_eq!((site.executions(), site.counter("revalidated")), (2, 1));
}

#[test]
fn stale_while_revalidate_answers_at_once_and_asks_once() {
    let fields = &[
        ("cache-control", "max-age=10, stale-while-revalidate=60"),
        ("etag", "\"v1\""),
    ];
    let site = stored_ago(11, resource(fields));
    let before = site.world.elapsed();
    for _ in 0..1000 {
        site.client(get(), Habits::default());
    }
    let client = site.client(get(), Habits::default());
    site.run();
    let Outcome::Whole { last, .. } = outcome(&client) else {
        panic!("it was stored");
    };
    assert_eq!(last, before, "nobody waits");
    assert_eq!(site.executions(), 2);
    assert_eq!(site.counter("refreshed"), 1);
    assert_eq!(site.counter("stale_while_revalidate"), 1001);
    assert!(is_fresh(&site));
    site.assert_empty();
}

#[test]
fn a_refresh_fetches_the_whole_with_nobody_waiting_for_it() {
    let fields = &[("cache-control", "max-age=10, stale-while-revalidate=60")];
    let site = stored_ago(11, resource(fields));
    ask(&site, get());
    assert!(is_fresh(&site));
    assert_eq!(
        (site.counter("abandoned"), site.counter("revalidated")),
        (0, 0)
    );
}

#[test]
fn a_stale_response_stands_in_for_a_dead_backend_which_is_asked_once_a_second() {
    let site = stored_ago(11, resource(STALE_SOON));
    site.has(
        "/",
        Resource {
            fate: Fate::FailBeforeHead,
            latency: Duration::ZERO,
            ..resource(STALE_SOON)
        },
    );
    let expected = site.expected(&get());
    for _ in 0..100 {
        assert_eq!(ask(&site, get()).body(), expected);
    }
    assert_eq!(site.executions(), 2);
    assert_eq!(site.counter("stale_in_trouble"), 100);
    pass(&site, 2);
    ask(&site, get());
    assert_eq!(site.executions(), 3);
}

#[test]
fn must_revalidate_is_an_error_rather_than_stale() {
    let fields = &[
        ("cache-control", "max-age=10, must-revalidate"),
        ("etag", "\"v1\""),
    ];
    let site = stored_ago(11, resource(fields));
    site.has(
        "/",
        Resource {
            fate: Fate::FailBeforeHead,
            ..resource(fields)
        },
    );
    for _ in 0..2 {
        assert!(matches!(ask(&site, get()), Outcome::Error(_)));
    }
    assert_eq!(site.executions(), 3, "each asks for itself");
}

#[test]
fn an_error_of_the_origin_is_hidden_only_where_stale_if_error_says_so() {
    for (cache_control, stands_in) in [
        ("max-age=10, stale-if-error=60", true),
        ("max-age=10", false),
    ] {
        let site = stored_ago(11, resource(&[("cache-control", cache_control)]));
        let expected = site.expected(&get());
        site.has(
            "/",
            Resource {
                status: StatusCode::SERVICE_UNAVAILABLE,
                length: 3,
                ..resource(&[])
            },
        );
        let body = ask(&site, get()).body().to_vec();
        assert_eq!(body == expected, stands_in, "{cache_control}");
    }
}

fn purge(site: &Site, target: Target, soft: bool) {
    site.cache.purge(&[Purge { target, soft }]).unwrap();
}

fn url() -> Target {
    Target::Url {
        authority: "example.com".into(),
        path_and_query: "/".into(),
    }
}

#[test]
fn what_was_purged_is_fetched_again_and_not_validated() {
    let site = stored_ago(1, resource(STALE_SOON));
    purge(&site, url(), false);
    assert!(!is_fresh(&site));
    assert_eq!(ask(&site, get()).body(), site.expected(&get()));
    assert_eq!((site.executions(), site.counter("revalidated")), (2, 0));
    assert!(is_fresh(&site));
}

#[test]
fn what_was_purged_softly_serves_while_it_is_validated() {
    let fields = &[
        ("cache-control", "max-age=10"),
        ("etag", "\"v1\""),
        ("cache-tag", "news"),
    ];
    let site = stored_ago(1, resource(fields));
    purge(&site, Target::Tag("news".into()), true);
    assert_eq!(ask(&site, get()).body(), site.expected(&get()));
    assert_eq!(site.counter("stale_while_revalidate"), 1);
    assert_eq!((site.executions(), site.counter("revalidated")), (2, 1));
    ask(&site, get());
    assert_eq!(site.executions(), 2);
}

#[test]
fn what_was_under_way_at_a_purge_serves_its_waiters_and_is_neither_joined_nor_stored() {
    for target in [url(), Target::Tag("any".into()), Target::All] {
        let site = Site::new(CacheConfig::default());
        site.has("/", resource(STALE_SOON));
        let early = site.client(get(), Habits::default());
        let (cache, world) = (site.cache.clone(), site.world.clone());
        let soft = target == Target::All;
        site.world.spawn("purge", async move {
            world.sleep(Duration::from_millis(100)).await;
            cache.purge(&[Purge { target, soft }]).unwrap();
        });
        let late = site.client_at(Duration::from_millis(200), get(), Habits::default());
        site.run();
        assert!(matches!(outcome(&early), Outcome::Whole { .. }));
        assert!(matches!(outcome(&late), Outcome::Whole { .. }));
        assert_eq!(site.executions(), 2);
        assert!(is_fresh(&site), "the later one is stored");
    }
}

#[test]
fn a_purge_of_a_tag_is_no_matter_to_what_is_under_way_without_it() {
    let site = Site::new(CacheConfig::default());
    let fields = &[("cache-control", "max-age=60"), ("cache-tag", "news")];
    site.has(
        "/",
        Resource {
            pause: Duration::from_millis(100),
            ..resource(fields)
        },
    );
    let (cache, world) = (site.cache.clone(), site.world.clone());
    site.client(get(), Habits::default());
    site.world.spawn("purge", async move {
        world.sleep(Duration::from_millis(800)).await;
        let target = Target::Tag("sports".into());
        let purge = |target| {
            cache
                .purge(&[Purge {
                    target,
                    soft: false,
                }])
                .unwrap()
        };
        purge(target);
    });
    let late = site.client_at(Duration::from_millis(900), get(), Habits::default());
    site.run();
    assert!(matches!(outcome(&late), Outcome::Whole { .. }));
    assert_eq!(site.executions(), 1);
    assert!(is_fresh(&site));
}

#[test]
fn what_is_stale_is_refreshed_though_somebody_has_been_answered_alone() {
    let site = stored_ago(
        1,
        resource(&[("cache-control", "max-age=2, stale-while-revalidate=60")]),
    );
    let fields = [("cache-control", "no-cache"), ("authorization", "mine")];
    ask(&site, Request::new(&Method::GET, 2, "/", &fields));
    assert_eq!(site.executions(), 2);
    pass(&site, 2);
    ask(&site, get());
    assert_eq!(site.counter("stale_while_revalidate"), 1);
    assert_eq!((site.executions(), site.counter("refreshed")), (3, 1));
    assert!(is_fresh(&site));
}

#[test]
fn what_has_become_private_is_not_asked_for_again_by_each_who_gets_it_stale() {
    let site = stored_ago(
        3,
        resource(&[("cache-control", "max-age=2, stale-while-revalidate=60")]),
    );
    site.has("/", resource(&[("cache-control", "private")]));
    for _ in 0..10 {
        ask(&site, get());
    }
    assert_eq!(site.counter("refreshed"), 1);
    assert_eq!(site.executions(), 2);
}

#[test]
fn what_was_refreshed_since_a_look_is_not_refreshed_again() {
    let site = stored_ago(
        3,
        resource(&[("cache-control", "max-age=2, stale-while-revalidate=60")]),
    );
    let request = get();
    let Lookup::Hit(stale) = site.cache.lookup(site.world.now(), &request.asker(&site)) else {
        panic!("it may be sent stale");
    };
    ask(&site, get());
    assert_eq!(site.counter("refreshed"), 1);
    let again = (site.cache).refresh(site.world.now(), &stale, &request.asker(&site));
    assert!(again.is_none());
}

#[test]
fn a_route_that_stores_nothing_is_answered_with_nothing_that_was_stored() {
    let site = stored_ago(1, resource(STALE_SOON));
    let mut request = get();
    request.facts = request.facts.unstored();
    assert_eq!(ask(&site, request).body(), site.expected(&get()));
    assert_eq!(site.executions(), 2);
    assert!(is_fresh(&site), "for other routes it is there");
}

#[test]
fn what_was_under_way_when_its_uri_was_invalidated_serves_its_waiters_and_nobody_else() {
    let site = Site::new(CacheConfig::default());
    site.has("/", resource(STALE_SOON));
    let early = site.client(get(), Habits::default());
    let (cache, world, key) = (site.cache.clone(), site.world.clone(), get().key);
    site.world.spawn("write", async move {
        world.sleep(Duration::from_millis(100)).await;
        cache.invalidate(&key);
    });
    let late = site.client_at(Duration::from_millis(200), get(), Habits::default());
    site.run();
    assert!(matches!(outcome(&early), Outcome::Whole { .. }));
    assert!(matches!(outcome(&late), Outcome::Whole { .. }));
    assert_eq!(
        (site.executions(), site.counter("refused_outdated")),
        (2, 1)
    );
    site.cache.invalidate(&get().key);
    assert!(!is_fresh(&site));
}

#[test]
fn the_response_to_a_post_is_not_stored_where_another_wrote_while_it_was_under_way() {
    for others in [0, 1] {
        let site = stored_ago(1, resource(STALE_SOON));
        let (cache, request) = (&site.cache, get());
        let beginning = cache.begin(&request.key);
        for _ in 0..others {
            cache.invalidate(&request.key);
        }
        let head = ResponseHead {
            status: StatusCode::OK,
            headers: to_map(STALE_SOON),
        };
        cache.replace(
            site.world.now(),
            site.world.wall(),
            Duration::ZERO,
            beginning,
            &request.asker(&site),
            head,
            "newer".into(),
        );
        assert_eq!(is_fresh(&site), others == 0);
        assert_eq!(site.counter("refused_outdated"), others);
        assert_eq!(site.counter("invalidated"), 1 + others);
    }
}

#[test]
fn a_confirmation_whose_terms_forbid_to_keep_it_is_the_answer_and_not_stored() {
    let site = stored_ago(11, resource(STALE_SOON));
    let forbids = [("cache-control", "no-store"), ("etag", "\"v1\"")];
    site.has("/", resource(&forbids));
    let request = get();
    let asker = request.asker(&site);
    let now = site.world.now();
    let Lookup::Miss { under, .. } = site.cache.lookup(now, &asker) else {
        panic!("it is stale");
    };
    let Join::Lead {
        mut fill,
        mut reader,
    } = site.cache.join(now, under, &asker)
    else {
        panic!("nothing is under way");
    };
    let head = ResponseHead {
        status: StatusCode::NOT_MODIFIED,
        headers: to_map(&forbids),
    };
    fill.head(now, site.world.wall(), &request.headers, head);
    let turn = reader.poll_head(&mut Context::from_waker(Waker::noop()), &asker);
    let Poll::Ready(Turn::Confirmed { is_kept, .. }) = turn else {
        panic!("{turn:?}");
    };
    assert!(!is_kept);
}

#[test]
fn cookies_set_for_one_client_are_not_kept_to_be_validated_for_another() {
    for cache_control in ["public, max-age=0", "no-cache, max-age=60"] {
        let fields = [
            ("cache-control", cache_control),
            ("etag", "\"v1\""),
            ("set-cookie", "sid=1"),
        ];
        let site = stored_ago(1, resource(&fields));
        assert_eq!(site.counter("insertions"), 0, "{cache_control}");
        ask(&site, get());
        assert_eq!((site.executions(), site.counter("revalidated")), (2, 0));
    }
}

#[test]
fn what_a_client_with_cookies_got_is_kept_by_an_entity_tag_and_not_by_a_date() {
    let date = ("last-modified", "Mon, 02 Nov 2026 00:00:00 GMT");
    for (validator, insertions) in [(("etag", "\"v1\""), 1), (date, 0)] {
        let site = Site::new(CacheConfig::default());
        site.has("/", resource(&[("cache-control", "max-age=0"), validator]));
        let known = Request::new(&Method::GET, 1, "/", &[("cookie", "sid=1")]);
        ask(&site, known);
        assert_eq!(site.counter("insertions"), insertions, "{validator:?}");
    }
}

#[test]
fn a_confirmation_for_a_client_with_credentials_leaves_what_others_may_have() {
    let site = stored_ago(11, resource(STALE_SOON));
    let known = Request::new(&Method::GET, 1, "/", &[("authorization", "Basic eA==")]);
    ask(&site, known);
    assert_eq!((site.executions(), site.counter("revalidated")), (2, 1));
    ask(&site, get());
    assert_eq!((site.executions(), site.counter("revalidated")), (3, 2));
}

#[test]
fn a_refresh_that_finds_nothing_any_more_ends_what_was_sent_stale() {
    let fields = &[("cache-control", "max-age=10, stale-while-revalidate=60")];
    for status in [StatusCode::NOT_FOUND, StatusCode::GONE] {
        let site = stored_ago(11, resource(fields));
        let gone = Resource {
            status,
            ..resource(&[("cache-control", "no-store")])
        };
        site.has("/", gone);
        ask(&site, get());
        assert!(!is_fresh(&site), "neither fresh nor sent stale");
    }
}

#[test]
fn a_head_that_is_answered_stale_refreshes_what_a_get_gets() {
    let fields = &[
        ("cache-control", "max-age=10, stale-while-revalidate=60"),
        ("etag", "\"v1\""),
    ];
    let site = stored_ago(11, resource(fields));
    ask(&site, Request::head(1, "/"));
    assert_eq!(
        (site.counter("refreshed"), site.counter("revalidated")),
        (1, 1)
    );
    pass(&site, 1);
    assert!(is_fresh(&site));
}
