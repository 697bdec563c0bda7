//! What one service may have of the backends.

use std::time::Duration;

use scale0_transport::Port;
use scale0_wire::{Kind, Message, Reason, RoutingHeader, ServiceId, Wanted};

use crate::core::ServiceConfig;
use crate::core::testing::{Peer, SHOP, Site, get};

const JOBS: &str = "jobs";

/// A backend of two services, with all its credit granted.
fn shared(site: &mut Site, capacity: u32) -> Peer {
    let peer = site.peer(Port::Backends);
    let peer = site.join(peer, &[SHOP, JOBS], capacity);
    site.grant(peer, capacity.into());
    peer
}

fn job(site: &mut Site, frontend: Peer, correlation: u64) {
    let mut message = get(correlation);
    message.header.service = ServiceId::of(JOBS.as_bytes());
    site.say(frontend, message);
}

/// How many requests it has been sent.
fn asked(site: &mut Site, backend: Peer) -> usize {
    let heard = std::iter::from_fn(|| site.next(backend));
    heard
        .filter(|message| message.header.kind == Kind::Request)
        .count()
}

#[test]
fn of_a_shared_backend_one_service_has_three_quarters_and_the_rest_is_for_others() {
    let mut site = Site::new();
    let backend = shared(&mut site, 8);
    let frontend = site.frontend();
    for correlation in 1..=10 {
        job(&mut site, frontend, correlation);
    }
    assert_eq!(asked(&mut site, backend), 6);
    for correlation in 11..=20 {
        site.get(frontend, correlation);
    }
    assert_eq!(asked(&mut site, backend), 2, "at once");
}

#[test]
fn a_backend_of_one_service_is_all_for_it() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 8);
    let frontend = site.frontend();
    for correlation in 1..=10 {
        site.get(frontend, correlation);
    }
    assert_eq!(asked(&mut site, backend), 8);
}

#[test]
fn a_shared_place_that_a_service_may_not_have_goes_to_the_broker_that_reclaims_it() {
    let mut site = Site::new();
    let backend = shared(&mut site, 4);
    let frontend = site.frontend();
    for correlation in 1..=8 {
        job(&mut site, frontend, correlation);
    }
    site.wait(Duration::from_millis(20));
    let heard: Vec<_> = std::iter::from_fn(|| site.next(backend)).collect();
    assert!(
        heard
            .iter()
            .all(|message| message.header.kind == Kind::Request),
        "no DEMAND for what would only lie idle: {heard:?}"
    );
    let reclaim = Message::new(RoutingHeader::new(Kind::Reclaim));
    site.say(backend, reclaim.with_metadata(Wanted(4).encode()));
    assert_eq!(site.hears(backend, Kind::Return).header.credit, 1);
}

#[test]
fn a_service_may_be_kept_from_more_than_so_many_places_wherever_they_are() {
    let mut site = Site::with(|config| {
        config.services.push(ServiceConfig {
            outstanding: Some(3),
            ..ServiceConfig::new(SHOP)
        });
    });
    let backends = [(); 2].map(|()| site.backend(SHOP, 4));
    let frontend = site.frontend();
    for correlation in 1..=6 {
        site.get(frontend, correlation);
    }
    let counts = backends.map(|backend| asked(&mut site, backend));
    assert_eq!(counts.iter().sum::<usize>(), 3);
    assert_eq!(site.broker.snapshot(site.now).services[0].outstanding, 3);
    // One is over that has no credit to renew: another backend takes the next.
    site.cancel(frontend, 1);
    site.hears(backends[0], Kind::Cancel);
    site.cut(backends[0]);
    assert_eq!(site.broker.snapshot(site.now).services[0].outstanding, 3);
    assert_eq!(asked(&mut site, backends[1]), 2, "and a repeat");
}

#[test]
fn the_first_request_waits_until_as_many_backends_as_are_wanted_have_come() {
    let mut site = Site::with(|config| {
        config.services.push(ServiceConfig {
            min_backends: 2,
            ..ServiceConfig::new(SHOP)
        });
    });
    let frontend = site.frontend();
    let first = site.backend(SHOP, 4);
    for correlation in 1..=3 {
        site.get(frontend, correlation);
    }
    site.wait(Duration::from_secs(5));
    assert_eq!(asked(&mut site, first), 0);
    let second = site.backend(SHOP, 4);
    assert_eq!(asked(&mut site, first) + asked(&mut site, second), 3);
    // From then on one is enough.
    site.cut(second);
    site.get(frontend, 4);
    assert!(0 < asked(&mut site, first));
}

#[test]
fn who_waits_for_enough_backends_is_refused_when_its_hold_is_over() {
    let mut site = Site::with(|config| {
        config.services.push(ServiceConfig {
            min_backends: 2,
            ..ServiceConfig::new(SHOP)
        });
    });
    let frontend = site.frontend();
    let _first = site.backend(SHOP, 4);
    site.get(frontend, 1);
    site.wait(Duration::from_millis(9_999));
    site.hears_nothing(frontend);
    site.wait(Duration::from_millis(1));
    site.is_refused(frontend, 1, Reason::NoBackend);
}

#[test]
fn services_that_share_a_backend_have_the_same_time_of_it_and_not_as_many_requests() {
    let mut site = Site::with(|config| {
        for name in [SHOP, JOBS] {
            config.services.push(ServiceConfig {
                share_percent: 100,
                ..ServiceConfig::new(name)
            });
        }
    });
    let backend = shared(&mut site, 1);
    let frontend = site.frontend();
    let mut correlation = 0;
    let mut counts = [0; 2];
    let jobs = ServiceId::of(JOBS.as_bytes());
    for round in 0..200 {
        // Twenty of each always wait.
        while correlation < 40 + 2 * round {
            correlation += 2;
            site.get(frontend, correlation);
            job(&mut site, frontend, correlation + 1);
        }
        let heard = std::iter::from_fn(|| site.next(backend));
        let mut requests = heard.filter(|message| message.header.kind == Kind::Request);
        let asked = requests.next().unwrap();
        let is_job = asked.header.service == jobs;
        if 100 <= round {
            counts[usize::from(is_job)] += 1;
        }
        site.wait(Duration::from_millis(if is_job { 40 } else { 10 }));
        site.respond(backend, asked.header.correlation);
    }
    assert!((78..=82).contains(&counts[0]), "{counts:?}");
}
