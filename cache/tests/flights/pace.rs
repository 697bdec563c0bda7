//! Bounded and fair: one URL, readers of different speed.

use std::cell::Cell;
use std::time::Duration;

use scale0_cache::CacheConfig;

use crate::site::{Habits, Outcome, Pending, Request, Resource, Site};

const KIB: usize = 1024;
const BUFFER: usize = 512 * KIB;
const CHUNK: usize = 16 * KIB;

/// A small window, a store that takes none of it, a body of many windows.
fn site_with(resource: Resource) -> Site {
    let site = Site::new(CacheConfig {
        memory: 0,
        flight_buffer: BUFFER,
        ..CacheConfig::default()
    });
    site.has("/", resource);
    site
}

fn long() -> Resource {
    Resource {
        length: 16 * BUFFER,
        chunk: CHUNK,
        latency: Duration::from_millis(1),
        ..Resource::default()
    }
}

fn reads_every(milliseconds: u64) -> Habits {
    Habits {
        pause: Duration::from_millis(milliseconds),
        ..Habits::default()
    }
}

/// Runs to the end and gives the highest weight that all windows ever had.
fn run(site: &Site) -> usize {
    let peak = Cell::new(0);
    let run = site.world.run(
        &[],
        |_| 0,
        || peak.set(peak.get().max(site.cache.flight_bytes())),
    );
    assert_eq!(run.orphans, Vec::<&str>::new());
    site.assert_empty();
    peak.get()
}

fn whole(client: &Pending) -> (Vec<u8>, Duration) {
    match client.borrow().clone().expect("it is over") {
        Outcome::Whole { body, last, .. } => (body, last),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_fast_reader_is_held_back_by_at_most_a_second_and_the_slow_one_still_gets_every_byte() {
    let site = site_with(long());
    let fast = site.client(Request::get(1, "/"), reads_every(1));
    let slow = site.client(Request::get(2, "/"), reads_every(200));
    let peak = run(&site);
    let expected = site.expected(&Request::get(1, "/"));
    let alone = Duration::from_millis(16 * (BUFFER / CHUNK) as u64);
    let (body, last) = whole(&fast);
    assert!(
        body == expected && last <= alone + Duration::from_millis(1100),
        "{last:?} instead of {alone:?}"
    );
    assert!(whole(&slow).0 == expected);
    assert_eq!(site.executions(), 2, "by Range from where it was");
    assert!(peak <= 2 * BUFFER + 2 * 65 * KIB, "{peak}");
}

#[test]
fn a_laggard_without_a_strong_validator_is_aborted_never_cut_short() {
    for fields in [
        vec![("cache-control", "max-age=60")],
        vec![("cache-control", "max-age=60"), ("etag", "W/\"v1\"")],
    ] {
        let site = site_with(Resource { fields, ..long() });
        let fast = site.client(Request::get(1, "/"), reads_every(1));
        let slow = site.client(Request::get(2, "/"), reads_every(200));
        run(&site);
        assert_eq!(whole(&fast).0.len(), 16 * BUFFER);
        assert!(matches!(&*slow.borrow(), Some(Outcome::Aborted(_))));
        assert_eq!(
            (site.executions(), site.counter("laggards_aborted")),
            (1, 1)
        );
    }
}

#[test]
fn a_laggard_goes_on_even_where_the_origin_knows_no_ranges() {
    let site = site_with(Resource {
        knows_ranges: false,
        ..long()
    });
    site.client(Request::get(1, "/"), reads_every(1));
    let slow = site.client(Request::get(2, "/"), reads_every(200));
    run(&site);
    assert!(whole(&slow).0 == site.expected(&Request::get(2, "/")));
}

#[test]
fn a_continuation_of_another_representation_is_never_glued_on() {
    let site = site_with(long());
    site.client(Request::get(1, "/"), reads_every(1));
    let slow = site.client(Request::get(2, "/"), reads_every(200));
    let changed = site.clone();
    site.world.spawn("deploy", async move {
        changed.world.sleep(Duration::from_millis(100)).await;
        changed.has(
            "/",
            Resource {
                fields: vec![("cache-control", "max-age=60"), ("etag", "\"v2\"")],
                ..long()
            },
        );
    });
    run(&site);
    let outcome = slow.borrow().clone();
    let Some(Outcome::Aborted(body)) = outcome else {
        panic!("{outcome:?}")
    };
    assert!(site.expected(&Request::get(2, "/")).starts_with(&body));
}

#[test]
fn a_request_that_comes_after_the_start_is_gone_gets_a_flight_of_its_own() {
    let site = site_with(long());
    site.client(Request::get(1, "/"), reads_every(1));
    let late = site.client_at(
        Duration::from_millis(300),
        Request::get(2, "/"),
        reads_every(1),
    );
    run(&site);
    assert_eq!(whole(&late).0.len(), 16 * BUFFER);
    assert_eq!((site.executions(), site.counter("flights_led")), (2, 2));
}

#[test]
fn readers_of_many_speeds_make_at_most_four_flights_and_the_last_one_waits_for_the_slowest() {
    let site = site_with(long());
    let all: Vec<_> = (0..10)
        .map(|n| site.client(Request::get(n, "/"), reads_every(1 << n)))
        .collect();
    let peak = run(&site);
    let expected = site.expected(&Request::get(0, "/"));
    for client in &all {
        match client.borrow().clone() {
            Some(Outcome::Whole { body, .. }) => assert!(body == expected),
            Some(Outcome::Aborted(body)) => assert!(expected.starts_with(&body)),
            other => panic!("{other:?}"),
        }
    }
    assert!(peak <= 4 * (BUFFER + 65 * KIB), "{peak}");
    assert!(site.executions() <= 10);
}

#[test]
fn slow_readers_push_back_upon_the_backend() {
    let site = site_with(long());
    let all: Vec<_> = (0..5)
        .map(|n| site.client(Request::get(n, "/"), reads_every(50)))
        .collect();
    let peak = run(&site);
    assert!(
        all.iter()
            .all(|client| whole(client).0.len() == 16 * BUFFER)
    );
    assert_eq!((site.executions(), site.counter("lagged")), (1, 0));
    assert!(peak <= BUFFER + 65 * KIB, "{peak}");
}

#[test]
fn a_response_for_one_client_alone_keeps_only_the_smallest_window() {
    let site = site_with(Resource {
        fields: vec![("cache-control", "private")],
        ..long()
    });
    site.client(Request::get(1, "/"), reads_every(10));
    assert!(run(&site) <= 256 * KIB + 65 * KIB);
}

#[test]
fn many_long_bodies_at_once_stay_within_their_common_bound() {
    let config = CacheConfig {
        memory: 0,
        flight_buffer: BUFFER,
        flights_memory: 2 * BUFFER,
        ..CacheConfig::default()
    };
    let site = Site::new(config);
    for n in 0..20 {
        let path = format!("/{n}");
        site.has(&path, long());
        site.client(Request::get(n, &path), reads_every(20));
    }
    let peak = run(&site);
    assert!(peak <= 2 * BUFFER + 20 * (256 + 65) * KIB, "{peak}");
}

#[test]
fn a_body_that_goes_into_the_store_is_kept_whole_beyond_the_window() {
    let site = Site::new(CacheConfig {
        flight_buffer: BUFFER,
        ..CacheConfig::default()
    });
    site.has("/", long());
    let slow = site.client(Request::get(1, "/"), reads_every(200));
    let fast = site.client(Request::get(2, "/"), reads_every(1));
    let late = site.client_at(
        Duration::from_secs(30),
        Request::get(3, "/"),
        reads_every(1),
    );
    run(&site);
    for client in [slow, fast, late] {
        assert_eq!(whole(&client).0.len(), 16 * BUFFER);
    }
    assert_eq!((site.executions(), site.counter("insertions")), (1, 1));
}

#[test]
fn a_fetch_that_waits_for_room_hears_at_once_that_its_last_reader_has_left() {
    for control in ["private", "max-age=60"] {
        let fields = vec![("cache-control", control)];
        let site = site_with(Resource { fields, ..long() });
        let habits = Habits {
            leaves_after: Some(2 * BUFFER),
            ..reads_every(10)
        };
        let client = site.client(Request::get(1, "/"), habits);
        run(&site);
        assert_eq!(
            (client.take(), site.cancelled()),
            (Some(Outcome::Left), 1),
            "{control}"
        );
    }
}
