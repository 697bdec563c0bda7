//! Parts: stored, answered from, put together, completed.

use std::collections::HashMap;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use scale0_cache::policy::{Forward, Part};
use scale0_cache::purge::{Purge, Target};
use scale0_cache::{CacheConfig, Lookup};

use crate::site::{Fate, Habits, Outcome, Request, Resource, Sent, Site};
use crate::world::any_seed;

const STRONG: &[(&str, &str)] = &[("cache-control", "max-age=60"), ("etag", "\"v1\"")];
const WEAK: &[(&str, &str)] = &[("cache-control", "max-age=60"), ("etag", "W/\"v1\"")];

fn site_with(fields: &[(&'static str, &'static str)]) -> Site {
    let site = Site::new(CacheConfig::default());
    site.has("/", resource(fields));
    site
}

fn resource(fields: &[(&'static str, &'static str)]) -> Resource {
    Resource {
        fields: fields.to_vec(),
        ..Resource::default()
    }
}

fn range(range: &str) -> Request {
    Request::new(&Method::GET, 1, "/", &[("range", range)])
}

fn ask(site: &Site, request: Request) -> Sent {
    let before = site.sent.borrow().len();
    let client = site.client(request, Habits::default());
    site.run();
    let outcome = client.borrow().clone().unwrap();
    assert!(matches!(outcome, Outcome::Whole { .. }), "{outcome:?}");
    let sent = site.sent.borrow();
    assert_eq!(sent.len(), before + 1, "it went around the cache");
    sent[before].clone()
}

/// Asks, and says whether the origin was asked as well.
fn fetches(site: &Site, request: Request) -> bool {
    let before = site.executions();
    let content = site.expected(&Request::get(1, "/"));
    let sent = ask(site, request);
    check(&sent, &content);
    before < site.executions()
}

fn pass(site: &Site, seconds: u64) {
    let world = site.world.clone();
    site.world.spawn("time", async move {
        world.sleep(Duration::from_secs(seconds)).await;
    });
    site.run();
}

/// What was sent is of that content, and the part that it says it is.
fn check(sent: &Sent, content: &[u8]) {
    let expected = match sent.head.status {
        StatusCode::OK => content,
        StatusCode::PARTIAL_CONTENT => {
            let part = Part::of(&sent.head).expect("a part says which");
            assert_eq!(part.total, content.len() as u64);
            &content[part.range.first as usize..=part.range.last as usize]
        }
        StatusCode::RANGE_NOT_SATISFIABLE => &[],
        other => panic!("nobody sends {other}"),
    };
    assert!(sent.body == expected, "other bytes: {:?}", sent.head);
    let length = &sent.head.headers["content-length"];
    assert_eq!(length, &expected.len().to_string());
}

#[test]
fn a_part_that_was_fetched_answers_for_every_range_within_it() {
    for fields in [STRONG, WEAK, &[("cache-control", "max-age=60")]] {
        let site = site_with(fields);
        assert!(fetches(&site, range("bytes=1000-1999")));
        for within in ["bytes=1000-1999", "bytes=1000-1000", "bytes=1500-1999"] {
            assert!(!fetches(&site, range(within)), "{within} of {fields:?}");
        }
        assert_eq!(site.counter("parts_stored"), 1);
        assert!(fetches(&site, range("bytes=1500-2000")));
    }
    let site = site_with(STRONG);
    assert!(fetches(&site, range("bytes=-100")));
    assert!(!fetches(&site, range("bytes=9990-")));
    assert!(!fetches(&site, range("bytes=-7")));
    assert!(fetches(&site, range("bytes=-101")));
}

#[test]
fn a_part_is_never_an_answer_to_who_asks_for_the_whole_or_for_its_head() {
    let site = site_with(WEAK);
    fetches(&site, range("bytes=0-999"));
    assert_eq!(ask(&site, Request::get(1, "/")).head.status, 200);

    let site = site_with(STRONG);
    fetches(&site, range("bytes=0-999"));
    for request in [
        Request::head(1, "/"),
        Request::get(1, "/"),
        range("bytes=0-1,5-6"),
    ] {
        let asker = request.asker(&site);
        let found = site.cache.lookup(site.world.now(), &asker);
        let Lookup::Miss { forward, .. } = found else {
            panic!("{found:?}")
        };
        assert_eq!(forward, Forward::Partial);
    }
}

#[test]
fn the_condition_of_a_range_is_judged_against_the_stored_part() {
    let site = site_with(STRONG);
    fetches(&site, range("bytes=0-999"));
    let with = |tag| {
        Request::new(
            &Method::GET,
            1,
            "/",
            &[("range", "bytes=5-9"), ("if-range", tag)],
        )
    };
    assert!(!fetches(&site, with("\"v1\"")));
    // The origin says no as well, and sends the whole.
    let sent = ask(&site, with("\"v0\""));
    assert_eq!(sent.head.status, 200);
    assert_eq!(sent.body, site.expected(&Request::get(1, "/")));
    assert!(!fetches(&site, Request::get(1, "/")));
}

#[test]
fn parts_that_overlap_or_touch_become_one_and_in_the_end_the_whole() {
    let site = site_with(STRONG);
    assert!(fetches(&site, range("bytes=2000-3999")));
    assert!(fetches(&site, range("bytes=3000-5999")));
    assert!(!fetches(&site, range("bytes=2500-5500")));
    assert!(fetches(&site, range("bytes=0-1999")));
    assert!(!fetches(&site, range("bytes=0-5999")));
    assert_eq!(site.counter("parts_combined"), 2);
    assert!(fetches(&site, range("bytes=6000-")));
    assert_eq!(site.counter("parts_combined"), 3);
    let whole = ask(&site, Request::get(1, "/"));
    assert_eq!((whole.head.status, site.executions()), (StatusCode::OK, 4));
    assert_eq!(whole.body, site.expected(&Request::get(1, "/")));
    assert!(!whole.head.headers.contains_key("content-range"));
}

#[test]
fn parts_that_cannot_be_told_to_be_of_one_are_not_put_together() {
    let site = site_with(WEAK);
    fetches(&site, range("bytes=0-999"));
    fetches(&site, range("bytes=1000-1999"));
    assert!(
        fetches(&site, range("bytes=0-999")),
        "the newer takes its place"
    );
    assert_eq!(site.counter("parts_combined"), 0);

    let site = site_with(STRONG);
    fetches(&site, range("bytes=0-999"));
    fetches(&site, range("bytes=2000-2999"));
    assert!(!fetches(&site, range("bytes=2000-2999")));
    assert!(fetches(&site, range("bytes=0-999")), "there is a gap");

    let site = site_with(STRONG);
    fetches(&site, range("bytes=0-999"));
    let fields = vec![("cache-control", "max-age=60"), ("etag", "\"v2\"")];
    site.has(
        "/",
        Resource {
            fields,
            version: 2,
            ..Resource::default()
        },
    );
    fetches(&site, range("bytes=1000-1999"));
    assert!(fetches(&site, range("bytes=0-1999")));
    assert_eq!(site.counter("parts_combined"), 1, "the last two");
}

#[test]
fn who_asks_for_the_whole_gets_the_stored_part_and_only_the_rest_is_fetched() {
    for age in [0, 100] {
        let site = site_with(STRONG);
        fetches(&site, range("bytes=0-6999"));
        pass(&site, age);
        let clients: Vec<_> = (0..5)
            .map(|visitor| site.client(Request::get(visitor, "/"), Habits::default()))
            .collect();
        site.run();
        let content = site.expected(&Request::get(1, "/"));
        for client in clients {
            assert_eq!(client.borrow().as_ref().unwrap().body(), content);
        }
        assert_eq!((site.executions(), site.counter("parts_completed")), (2, 1));
        assert!(!fetches(&site, Request::get(1, "/")));
        assert!(!fetches(&site, range("bytes=6990-7010")));
    }
}

#[test]
fn a_part_of_what_has_changed_is_never_completed() {
    for knows_ranges in [true, false] {
        let site = site_with(STRONG);
        fetches(&site, range("bytes=0-6999"));
        let fields = vec![("cache-control", "max-age=60"), ("etag", "\"v2\"")];
        site.has(
            "/",
            Resource {
                fields,
                version: 2,
                knows_ranges,
                ..Resource::default()
            },
        );
        assert!(fetches(&site, Request::get(1, "/")));
        assert_eq!(site.counter("parts_completed"), 0);
        assert!(!fetches(&site, range("bytes=0-9")));
    }
}

#[test]
fn an_origin_that_continues_something_else_is_asked_for_the_whole() {
    let site = site_with(STRONG);
    fetches(&site, range("bytes=0-6999"));
    // Shorter than what is stored, under the same validator, which is wrong: 416.
    site.has(
        "/",
        Resource {
            length: 5000,
            ..resource(STRONG)
        },
    );
    let sent = ask(&site, Request::get(1, "/"));
    assert_eq!(sent.body, site.expected(&Request::get(1, "/")));
    assert_eq!(
        (site.executions(), site.counter("parts_discontinued")),
        (3, 1)
    );
}

#[test]
fn a_rest_that_breaks_off_is_stored_by_nobody() {
    let site = site_with(STRONG);
    fetches(&site, range("bytes=0-6999"));
    site.has(
        "/",
        Resource {
            fate: Fate::FailAfter(1000),
            ..resource(STRONG)
        },
    );
    let client = site.client(Request::get(1, "/"), Habits::default());
    site.run();
    assert!(matches!(*client.borrow(), Some(Outcome::Aborted(_))));
    site.has("/", resource(STRONG));
    assert!(!fetches(&site, range("bytes=0-6999")));
    assert!(fetches(&site, Request::get(1, "/")));
}

#[test]
fn a_stale_part_is_fetched_again() {
    let site = site_with(&[
        ("cache-control", "max-age=10, stale-while-revalidate=60"),
        ("etag", "\"v1\""),
    ]);
    fetches(&site, range("bytes=0-999"));
    pass(&site, 20);
    assert!(fetches(&site, range("bytes=0-99")));
    // Which confirms the rest of it as well.
    assert!(!fetches(&site, range("bytes=500-999")));
}

#[test]
fn a_part_with_the_validator_of_a_stale_whole_makes_that_current() {
    let site = Site::new(CacheConfig::default());
    let large = || Resource {
        length: 2 << 20,
        chunk: 64 * 1024,
        ..resource(STRONG)
    };
    site.has("/", large());
    fetches(&site, Request::get(1, "/"));
    pass(&site, 100);
    assert!(fetches(&site, range("bytes=5-9")));
    assert!(!fetches(&site, Request::get(1, "/")));
}

#[test]
fn purges_and_invalidation_hit_parts() {
    let site = site_with(STRONG);
    fetches(&site, range("bytes=0-999"));
    let purge = Purge {
        target: Target::All,
        soft: false,
    };
    site.cache.purge(&[purge]).unwrap();
    assert!(fetches(&site, range("bytes=0-999")));
    site.cache.invalidate(&range("").key);
    assert!(fetches(&site, range("bytes=0-999")));
}

#[test]
fn what_may_not_be_stored_is_not_stored_in_parts() {
    for fields in [
        &[("cache-control", "no-store")][..],
        &[("cache-control", "private, max-age=60")],
        &[("cache-control", "max-age=60"), ("vary", "*")],
    ] {
        let site = site_with(fields);
        ask(&site, range("bytes=0-99"));
        assert!(site.cache.memory_tier().is_empty(), "{fields:?}");
    }
    let unstored = |mut request: Request| {
        request.facts = request.facts.unstored();
        request
    };
    let site = site_with(STRONG);
    site.client(unstored(range("bytes=0-99")), Habits::default());
    site.run();
    assert!(site.cache.memory_tier().is_empty());
}

#[test]
fn the_end_of_a_range_that_there_is_not_says_nothing_about_the_whole() {
    let site = site_with(STRONG);
    assert_eq!(ask(&site, range("bytes=10000-")).head.status, 416);
    assert!(fetches(&site, Request::get(1, "/")));
}

#[test]
fn whatever_is_asked_for_in_whatever_order_is_of_the_representation_it_says_it_is() {
    const ROUNDS: u64 = 200;
    let start = any_seed();
    let mut seen: HashMap<&str, u64> = HashMap::new();
    for seed in (0..ROUNDS).map(|round| start.wrapping_add(round)) {
        let site = seeded(seed);
        for name in ["parts_stored", "parts_combined", "parts_completed", "hits"] {
            *seen.entry(name).or_default() += site.counter(name);
        }
    }
    assert!(seen.values().all(|count| 0 < *count), "{seen:?}");
}

/// Says which seed it was, if the round does not end well.
struct Round(u64);

impl Drop for Round {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the seed was {}", self.0);
        }
    }
}

fn seeded(seed: u64) -> Site {
    const TAGS: [&str; 4] = ["\"a\"", "\"b\"", "\"c\"", "\"d\""];
    let _round = Round(seed);
    let mut rng = StdRng::seed_from_u64(seed);
    let site = Site::new(CacheConfig {
        seed,
        ..CacheConfig::default()
    });
    let mut contents = HashMap::new();
    for _ in 0..rng.random_range(2..8) {
        let version = rng.random_range(0..TAGS.len());
        // Some lengths are the same, to be mistaken for each other.
        let length = [3000, 3000, 3000, 2000][version];
        let lifetime = ["max-age=1", "max-age=60"].choose(&mut rng).unwrap();
        site.has(
            "/",
            Resource {
                fields: vec![("cache-control", lifetime), ("etag", TAGS[version])],
                version: version as u64,
                length,
                chunk: 500,
                knows_ranges: rng.random_bool(0.9),
                says_length: rng.random_bool(0.8),
                latency: Duration::from_millis(rng.random_range(0..500)),
                pause: Duration::from_millis(rng.random_range(0..50)),
                ..Resource::default()
            },
        );
        contents.insert(TAGS[version], site.expected(&Request::get(1, "/")));
        for _ in 0..rng.random_range(1..12) {
            let request = random_request(&mut rng);
            let delay = Duration::from_millis(rng.random_range(0..1500));
            site.client_at(delay, request, Habits::default());
        }
        site.run();
    }
    for sent in site.sent.borrow().iter() {
        let Some(tag) = sent.head.headers.get("etag") else {
            assert_eq!(sent.head.status, 416);
            continue;
        };
        let content = &contents[tag.to_str().unwrap()];
        let length = sent.head.headers.contains_key("content-length");
        let mut sent = sent.clone();
        if !length {
            sent.head
                .headers
                .insert("content-length", sent.body.len().into());
        }
        if sent.head.status != 416 {
            check(&sent, content);
        }
        is_asked_for(&sent.asked, &sent);
    }
    site
}

fn random_request(rng: &mut StdRng) -> Request {
    let first = rng.random_range(0..32) * 100;
    let last = first + rng.random_range(1..16) * 100 - 1;
    let range = match rng.random_range(0..16) {
        0 => return Request::get(1, "/"),
        1 => format!("bytes={first}-"),
        2 => format!("bytes=-{}", last - first),
        3..=6 => format!("bytes=0-{last}"),
        _ => format!("bytes={first}-{last}"),
    };
    let tag = ["\"a\"", "\"b\"", "\"c\""].choose(rng).unwrap();
    let fields = [("range", range.as_str()), ("if-range", tag)];
    let some = if rng.random_bool(0.2) { 2 } else { 1 };
    Request::new(&Method::GET, 1, "/", &fields[..some])
}

/// Nobody gets a part who did not ask for that part.
fn is_asked_for(asked: &HeaderMap, sent: &Sent) {
    if sent.head.status != 206 {
        return;
    }
    let part = Part::of(&sent.head).unwrap();
    let wanted = scale0_cache::policy::RangeSpec::of(asked).unwrap();
    assert_eq!(wanted.within(part.total), Some(part.range), "{asked:?}");
}
