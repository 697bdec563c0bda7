//! Sites with many backends and services.

use std::time::Duration;

use scale0_transport::Port;
use scale0_wire::{Kind, Reason, ServiceId, Why};

use crate::core::testing::{Peer, SHOP, Site, get};

#[test]
fn requests_spread_evenly_over_many_backends() {
    let mut site = Site::new();
    let backends: Vec<_> = (0..100).map(|_| site.backend(SHOP, 8)).collect();
    let frontend = site.frontend();
    for correlation in 1..=400 {
        site.get(frontend, correlation);
    }
    // Drawn one at a time, the unluckiest would have a dozen: more than its credit.
    let counts: Vec<_> = backends
        .iter()
        .map(|&backend| asked(&mut site, backend))
        .collect();
    assert_eq!(counts.iter().sum::<usize>(), 400);
    assert!(
        counts.iter().all(|&count| (1..=6).contains(&count)),
        "{counts:?}"
    );
}

#[test]
fn the_last_free_backend_of_many_is_found_and_then_nobody_is_looked_for() {
    let mut site = Site::new();
    let backends: Vec<_> = (0..50).map(|_| site.backend(SHOP, 1)).collect();
    let frontend = site.frontend();
    for correlation in 1..=50 {
        site.get(frontend, correlation);
    }
    assert!(
        backends
            .iter()
            .all(|&backend| asked(&mut site, backend) == 1)
    );
    assert_eq!(site.broker.counters().queued, 0);
    site.get(frontend, 51);
    assert_eq!(site.broker.counters().queued, 1);
}

#[test]
fn a_busy_backend_is_found_again_once_it_is_idle() {
    let mut site = Site::new();
    let backends: Vec<_> = (0..40).map(|_| site.backend(SHOP, 1)).collect();
    let frontend = site.frontend();
    let mut asked = Vec::new();
    for correlation in 1..=40 {
        site.get(frontend, correlation);
    }
    for &backend in &backends {
        asked.push(site.is_asked(backend));
    }
    // All are known to be busy; one by one they are idle, with nobody waiting.
    site.get(frontend, 41);
    site.cancel(frontend, 41);
    for (correlation, (&backend, asked)) in (42..).zip(backends.iter().zip(asked)) {
        site.respond(backend, asked);
        site.get(frontend, correlation);
        while site
            .next(backend)
            .is_some_and(|it| it.header.kind != Kind::Request)
        {}
    }
    assert_eq!(site.broker.counters().queued, 1);
    assert_eq!(site.broker.counters().sent, 80);
}

#[test]
fn a_backend_of_the_askers_process_is_preferred_among_many() {
    let mut site = Site::new();
    let _far: Vec<_> = (0..100).map(|_| site.backend(SHOP, 8)).collect();
    let mut near = site.peer(Port::Backends);
    near.locality = Some(1);
    let near = site.join(near, &[SHOP], 8);
    site.grant(near, 8);
    let mut frontend = site.peer(Port::Frontends);
    frontend.locality = Some(1);
    let frontend = site.join(frontend, &[], 0);
    for correlation in 1..=3 {
        site.get(frontend, correlation);
        site.is_asked(near);
    }
    site.get(frontend, 4);
    site.hears_nothing(near);
    site.cut(near);
    site.get(frontend, 5);
    assert_eq!(site.broker.counters().queued, 0);
}

#[test]
fn a_get_goes_to_the_only_one_of_many_that_has_not_had_it() {
    let mut site = Site::new();
    let backends: Vec<_> = (0..20).map(|_| site.backend(SHOP, 1)).collect();
    let frontend = site.frontend();
    site.post(frontend, 1);
    for round in 0..20 {
        let at = backends
            .iter()
            .filter_map(|&backend| Some((backend, site.next(backend)?)));
        let at: Vec<_> = at.collect();
        let [(backend, message)] = &at[..] else {
            panic!("round {round}: {at:?}");
        };
        let backend = *backend;
        site.grant(backend, 1);
        site.reject(backend, message.header.correlation, Reason::AppRefused);
    }
    site.is_refused(frontend, 1, Reason::AppRefused);
}

#[test]
fn a_hundred_backends_hear_of_demand_at_once_and_all_within_moments() {
    let mut site = Site::new();
    let backends: Vec<_> = (0..250).map(|_| site.busy_backend(SHOP)).collect();
    let frontend = site.frontend();
    site.get(frontend, 1);
    let told = |site: &mut Site| {
        let told = backends.iter().filter(|&&backend| {
            let message = site.next(backend);
            message.is_some_and(|message| message.header.kind == Kind::Demand)
        });
        told.count()
    };
    assert_eq!(told(&mut site), 100);
    site.wait(Duration::from_millis(20));
    assert_eq!(told(&mut site), 150);
    site.wait(Duration::from_millis(100));
    assert_eq!(told(&mut site), 0);
}

#[test]
fn a_service_with_many_waiting_does_not_keep_the_news_of_another_waiting() {
    let mut site = Site::new();
    let busy = site.busy_backend(SHOP);
    let cart = site.busy_backend("cart");
    let frontend = site.frontend();
    site.get(frontend, 1);
    site.hears(busy, Kind::Demand);
    site.wait(Duration::from_millis(3));
    let mut asked = get(2);
    asked.header.service = ServiceId::of(b"cart");
    site.say(frontend, asked);
    site.hears(cart, Kind::Demand);
}

/// Asks for something that belongs to others. Returns which backend was asked.
fn ask_for(site: &mut Site, frontend: Peer, backends: &[Peer], affinity: u64) -> usize {
    let mut message = get(site.broker.counters().requests + 1);
    message.header.affinity = affinity;
    site.say(frontend, message);
    let mut all = backends.iter();
    all.position(|&backend| asked(site, backend) == 1).unwrap()
}

#[test]
fn requests_that_belong_together_go_to_one_backend_until_it_has_more_than_its_part() {
    let mut site = Site::new();
    let backends: Vec<_> = (0..4).map(|_| site.backend(SHOP, 100)).collect();
    let frontend = site.frontend();
    let mut counts = [0; 4];
    for _ in 0..40 {
        counts[ask_for(&mut site, frontend, &backends, 77)] += 1;
    }
    // A quarter more than ten, and one.
    assert_eq!(counts.iter().max(), Some(&14), "{counts:?}");
    assert!(2 < counts.iter().filter(|&&count| 0 < count).count());
    assert_eq!(site.broker.counters().chosen.of(Why::AFFINITY), 40);
}

#[test]
fn where_a_key_goes_does_not_depend_on_who_else_comes_or_on_the_broker() {
    let mut homes = Vec::new();
    for more in [0, 3] {
        let mut site = Site::with(|config| config.hash_secret = 5 + more as u64);
        let mut backends: Vec<_> = (0..4).map(|_| site.backend(SHOP, 100)).collect();
        backends.extend((0..more).map(|_| site.backend(SHOP, 100)));
        let frontend = site.frontend();
        let mut home = Vec::new();
        for key in 1..=100 {
            let place = ask_for(&mut site, frontend, &backends, key);
            site.cancel(frontend, key);
            let kinds = std::iter::from_fn(|| site.next(backends[place])).count();
            assert_eq!(kinds, 1, "its CANCEL");
            // Its place is free again at once.
            let mut peer = backends[place];
            site.cut(peer);
            peer.id = site.peer(Port::Backends).id;
            backends[place] = site.join(peer, &[SHOP], 100);
            site.grant(backends[place], 100);
            home.push(place);
        }
        homes.push(home);
    }
    let moved = homes[0].iter().zip(&homes[1]).filter(|(a, b)| a != b);
    let moved: Vec<_> = moved.collect();
    assert!(moved.iter().all(|&(_, &home)| 4 <= home), "{moved:?}");
    assert!((25..=60).contains(&moved.len()), "{}", moved.len());
}

/// How many requests it has been sent.
fn asked(site: &mut Site, backend: Peer) -> usize {
    std::iter::from_fn(|| site.next(backend))
        .filter(|message| message.header.kind == Kind::Request)
        .count()
}
