//! A seeded world of flights: clients of all habits, origins of all fates, tasks in any order.
//!
//! Replay one seed with `FLIGHTS_SEED=… cargo test -p scale0-cache --test flights simulation`.

use std::cell::Cell;
use std::time::Duration;

use http::Method;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use scale0_cache::CacheConfig;

use crate::site::{Fate, Habits, Outcome, Request, Resource, Site};
use crate::world::any_seed;

const ROUNDS: u64 = 100;
const BUFFER: usize = 16 * 1024;
const PATHS: [&str; 3] = ["/a", "/b", "/c"];

/// Says which seed it was, if the round does not end well.
struct Round(u64);

impl Drop for Round {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with FLIGHTS_SEED={}", self.0);
        }
    }
}

#[test]
fn every_client_has_one_outcome_and_every_whole_body_is_the_origins() {
    if let Ok(seed) = std::env::var("FLIGHTS_SEED") {
        round(seed.parse().unwrap());
        return;
    }
    let start = any_seed();
    let rounds: Vec<_> = (0..ROUNDS)
        .map(|seed| round(start.wrapping_add(seed)))
        .collect();
    for name in [
        "joined_then_private",
        "joined_then_variant",
        "lagged",
        "rejoined",
        "continued",
        "abandoned",
    ] {
        let count: u64 = rounds.iter().map(|site| site.counter(name)).sum();
        assert!(0 < count, "a simulation without {name} shows little");
    }
}

fn round(seed: u64) -> Site {
    let _round = Round(seed);
    let mut rng = StdRng::seed_from_u64(seed);
    // Chance alone rarely lets two fall behind in one flight that can be continued.
    let crowd = rng.random_ratio(1, 4);
    let paths = if crowd { &PATHS[..1] } else { &PATHS };
    let memory = if crowd {
        0
    } else {
        *[0, 64 * 1024, 16 << 20].choose(&mut rng).unwrap()
    };
    let flights_memory = *[BUFFER, 64 * BUFFER].choose(&mut rng).unwrap();
    let site = Site::new(CacheConfig {
        memory,
        flight_buffer: BUFFER,
        flights_memory,
        seed,
        ..CacheConfig::default()
    });
    for path in paths {
        let any = resource(&mut rng);
        site.has(path, if crowd { continuable(&any) } else { any });
    }
    let clients: Vec<_> = (1..=rng.random_range(1..40))
        .map(|visitor| {
            let request = request(&mut rng, visitor, paths);
            let delay = Duration::from_millis(rng.random_range(0..3000));
            (
                request.clone(),
                site.client_at(delay, request, habits(&mut rng)),
            )
        })
        .collect();

    // Four flights per key, of three keys with two variants each; a chunk more than the window
    // each; what is on its way into the store.
    let bound = 24 * (BUFFER + 4096 + 96) + usize::try_from(memory / 8).unwrap();
    let peak = Cell::new(0);
    let run = site.world.run(
        &[],
        |ready| rng.random_range(0..ready),
        || peak.set(peak.get().max(site.cache.flight_bytes())),
    );
    assert_eq!(run.orphans, Vec::<&str>::new());
    site.assert_empty();
    assert!(peak.get() <= bound, "{} of {bound} bytes", peak.get());

    for (request, client) in &clients {
        let expected = site.expected(request);
        match client
            .borrow()
            .as_ref()
            .expect("every client has an outcome")
        {
            Outcome::Whole { body, .. } => assert!(*body == expected, "{request:?}"),
            Outcome::Aborted(body) => assert!(expected.starts_with(body), "{request:?}"),
            Outcome::Head => assert!(request.facts.is_head()),
            Outcome::Error(_) | Outcome::Left => {}
        }
    }
    let [led, continued, refreshed] =
        ["flights_led", "continued", "refreshed"].map(|name| site.counter(name));
    let ended: u64 = ["completed", "failed", "vanished", "abandoned"]
        .iter()
        .map(|name| site.counter(name))
        .sum();
    assert_eq!(
        led + continued + refreshed,
        ended,
        "every flight ends exactly once"
    );
    site
}

fn resource(rng: &mut StdRng) -> Resource {
    let mut fields = vec![(
        "cache-control",
        *[
            "max-age=60",
            "max-age=2",
            "private",
            "no-store",
            "no-cache",
            "max-age=2, stale-while-revalidate=1",
            "max-age=2, must-revalidate",
            "max-age=60",
        ]
        .choose(rng)
        .unwrap(),
    )];
    fields.extend(
        *[None, Some(("etag", "\"v1\"")), Some(("etag", "W/\"v1\""))]
            .choose(rng)
            .unwrap(),
    );
    if rng.random_ratio(1, 4) {
        fields.push(("vary", "accept-language"));
    }
    let length = rng.random_range(0..20) * 5000;
    let some = rng.random_range(0..=length);
    let fates = [
        Fate::Complete,
        Fate::FailBeforeHead,
        Fate::FailAfter(some),
        Fate::VanishAfter(some),
        Fate::EndShortAfter(some),
    ];
    let fate = if rng.random_ratio(2, 3) {
        Fate::Complete
    } else {
        *fates.choose(rng).unwrap()
    };
    Resource {
        fields,
        length,
        // A body that ends short is a whole one to whoever was not told its length.
        says_length: matches!(fate, Fate::EndShortAfter(_)) || rng.random(),
        knows_ranges: rng.random(),
        chunk: *[100, 1000, 4096].choose(rng).unwrap(),
        latency: Duration::from_millis(rng.random_range(0..1000)),
        pause: Duration::from_millis(*[0, 0, 1, 20].choose(rng).unwrap()),
        fate,
        ..Resource::default()
    }
}

/// Long enough to fall behind in, and whoever did can ask for the rest.
fn continuable(resource: &Resource) -> Resource {
    Resource {
        fields: vec![("cache-control", "max-age=60"), ("etag", "\"v1\"")],
        length: 10 * BUFFER,
        says_length: true,
        knows_ranges: true,
        chunk: 4096,
        fate: Fate::Complete,
        ..*resource
    }
}

fn request(rng: &mut StdRng, visitor: u64, paths: &[&str]) -> Request {
    let method = if rng.random_ratio(1, 10) {
        &Method::HEAD
    } else {
        &Method::GET
    };
    let path = paths.choose(rng).unwrap();
    let mut fields = vec![("accept-language", *["de", "en"].choose(rng).unwrap())];
    if rng.random_ratio(1, 10) {
        fields.push((
            "cache-control",
            ["no-cache", "no-store", "max-age=1"].choose(rng).unwrap(),
        ));
    }
    Request::new(method, visitor, path, &fields)
}

fn habits(rng: &mut StdRng) -> Habits {
    Habits {
        pause: Duration::from_millis(*[0, 0, 0, 1, 10, 100].choose(rng).unwrap()),
        leaves_after: rng.random_ratio(1, 5).then(|| rng.random_range(0..50_000)),
    }
}
