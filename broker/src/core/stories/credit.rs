//! Who gets a request, and what it costs.

use std::time::Duration;

use scale0_transport::Port;
use scale0_wire::{Flags, Kind, Message, Reason, RoutingHeader, Wanted};

use crate::core::Event;
use crate::core::testing::{SHOP, Site, response, upload};

#[test]
fn a_request_goes_to_the_backend_and_its_response_back_under_the_frontends_number() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 1);
    let frontend = site.frontend();
    site.get(frontend, 7);
    let request = site.hears(backend, Kind::Request);
    assert_eq!(request.header.epoch, backend.epoch);
    assert_eq!(&request.metadata[..], b"a head");
    site.respond(backend, request.header.correlation);
    let response = site.hears(frontend, Kind::Response);
    assert_eq!(response.header.correlation, 7);
    assert_eq!(response.header.epoch, frontend.epoch);
    assert_eq!(site.broker.snapshot(site.now).open_requests, 0);
}

#[test]
fn nothing_is_sent_beyond_the_credit_and_the_next_grant_goes_to_who_waits() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 2);
    let frontend = site.frontend();
    for correlation in 1..=3 {
        site.get(frontend, correlation);
    }
    let first = site.is_asked(backend);
    site.is_asked(backend);
    assert_eq!(demand(&mut site, backend), 1);
    site.hears_nothing(backend);
    site.respond(backend, first);
    site.is_asked(backend);
}

#[test]
fn three_idle_backends_and_three_long_requests_are_three_busy_backends() {
    let mut site = Site::new();
    let backends = [(); 3].map(|()| site.backend(SHOP, 8));
    let frontend = site.frontend();
    for correlation in 1..=3 {
        site.get(frontend, correlation);
    }
    for backend in backends {
        site.is_asked(backend);
        site.hears_nothing(backend);
    }
}

#[test]
fn among_equals_the_one_that_rested_longest_is_next() {
    let mut site = Site::new();
    let backends = [(); 3].map(|()| site.backend(SHOP, 8));
    let frontend = site.frontend();
    for (correlation, backend) in (1..=6).zip(backends.into_iter().cycle()) {
        site.get(frontend, correlation);
        let asked = site.is_asked(backend);
        site.respond(backend, asked);
    }
}

#[test]
fn a_backend_of_the_askers_process_is_preferred_until_it_is_two_requests_behind() {
    let mut site = Site::new();
    let far = site.backend(SHOP, 8);
    let mut near = site.peer(Port::Backends);
    near.locality = Some(1);
    let near = site.join(near, &[SHOP], 8);
    site.grant(near, 8);
    let mut frontend = site.peer(Port::Frontends);
    frontend.locality = Some(1);
    let frontend = site.join(frontend, &[], 0);
    for (correlation, expected) in (1..).zip([near, near, near, far, near]) {
        site.get(frontend, correlation);
        site.is_asked(expected);
    }
}

#[test]
fn idle_credit_is_returned_to_who_reclaims_it_and_not_used_again() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 3);
    let frontend = site.frontend();
    site.get(frontend, 1);
    site.is_asked(backend);
    reclaim(&mut site, backend, 9);
    assert_eq!(site.hears(backend, Kind::Return).header.credit, 2);
    site.get(frontend, 2);
    assert_eq!(demand(&mut site, backend), 1);
    site.hears_nothing(backend);
    // Nothing is idle while somebody waits, and the answer says so.
    reclaim(&mut site, backend, 9);
    assert_eq!(site.hears(backend, Kind::Return).header.credit, 2);
}

#[test]
fn demand_is_told_at_most_every_ten_milliseconds_and_taken_back_when_it_is_over() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 1);
    let frontend = site.frontend();
    for correlation in 1..=50 {
        site.get(frontend, correlation);
    }
    site.is_asked(backend);
    assert_eq!(demand(&mut site, backend), 1);
    site.hears_nothing(backend);
    site.wait(Duration::from_millis(10));
    assert_eq!(demand(&mut site, backend), 49);
    for correlation in 2..=50 {
        site.cancel(frontend, correlation);
    }
    site.wait(Duration::from_millis(10));
    assert_eq!(demand(&mut site, backend), 0);
    site.wait(Duration::from_secs(5));
    site.hears_nothing(backend);
}

#[test]
fn an_event_stream_gives_its_credit_back_at_once_and_counts_among_the_streams() {
    let mut site = Site::with(|config| config.limits.streams = 1);
    let backend = site.backend(SHOP, 1);
    let frontend = site.frontend();
    site.get(frontend, 1);
    let asked = site.is_asked(backend);
    site.grant(backend, 1);
    site.say(backend, response(asked, Flags::EVENT_STREAM));
    site.is_answered(frontend, 1);
    site.get(frontend, 2);
    let asked = site.is_asked(backend);
    site.grant(backend, 1);
    site.say(backend, response(asked, Flags::EVENT_STREAM));
    site.is_failed(frontend, 2, Reason::TooManyStreams);
    site.hears(backend, Kind::Cancel);
}

#[test]
fn services_of_one_backend_take_turns_with_its_credit() {
    let mut site = Site::new();
    let peer = site.peer(Port::Backends);
    let backend = site.join(peer, &["cart", SHOP], 8);
    let frontend = site.frontend();
    for correlation in 1..=4 {
        site.get(frontend, correlation);
    }
    for correlation in 5..=6 {
        let mut message = crate::core::testing::get(correlation);
        message.header.service = scale0_wire::ServiceId::of(b"cart");
        site.say(frontend, message);
    }
    site.grant(backend, 4);
    let mut carts = 0;
    while let Some(message) = site.next(backend) {
        carts += u32::from(message.header.service == scale0_wire::ServiceId::of(b"cart"));
    }
    assert_eq!(carts, 2);
}

#[track_caller]
fn demand(site: &mut Site, backend: crate::core::testing::Peer) -> u32 {
    let message = site.hears(backend, Kind::Demand);
    Wanted::decode(&message.metadata).unwrap().0
}

fn reclaim(site: &mut Site, backend: crate::core::testing::Peer, wanted: u32) {
    let message = Message::new(RoutingHeader::new(Kind::Reclaim));
    site.say(backend, message.with_metadata(Wanted(wanted).encode()));
}

#[test]
fn credit_that_is_idle_beside_uploads_that_cannot_have_it_goes_to_who_reclaims_it() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 4);
    let frontend = site.frontend();
    for correlation in 1..=5 {
        site.say(frontend, upload(correlation));
    }
    for _ in 1..=3 {
        site.is_asked(backend);
    }
    site.wait(Duration::from_millis(20));
    site.hears_nothing(backend);
    reclaim(&mut site, backend, 9);
    assert_eq!(site.hears(backend, Kind::Return).header.credit, 1);
    // Another upload would be the fourth of six at the most: what lets it go is asked for.
    site.wait(Duration::from_millis(20));
    assert_eq!(demand(&mut site, backend), 2);
    site.grant(backend, 2);
    site.is_asked(backend);
    site.wait(Duration::from_millis(20));
    assert_eq!(demand(&mut site, backend), 0);
}

#[test]
fn a_backend_is_not_asked_for_credit_for_what_it_has_had_already() {
    let mut site = Site::new();
    let had = site.backend(SHOP, 1);
    let frontend = site.frontend();
    site.get(frontend, 1);
    let asked = site.is_asked(had);
    let other = site.busy_backend(SHOP);
    site.reject(had, asked, Reason::AppRefused);
    assert_eq!(demand(&mut site, other), 1);
    site.wait(Duration::from_millis(20));
    site.hears_nothing(had);
    // It waits all the same, and whoever comes hears of it.
    let third = site.busy_backend(SHOP);
    site.wait(Duration::from_millis(20));
    assert_eq!(demand(&mut site, third), 1);
}

#[test]
fn a_draining_broker_tells_anew_of_demand_after_it_has_returned_credit() {
    let mut site = Site::new();
    let first = site.backend(SHOP, 2);
    let frontend = site.frontend();
    for correlation in 1..=2 {
        site.get(frontend, correlation);
    }
    let asked = [(); 2].map(|()| site.is_asked(first));
    let second = site.busy_backend(SHOP);
    let third = site.busy_backend(SHOP);
    let until = site.now + Duration::from_secs(30);
    site.step(Event::Drain { until });
    for backend in [second, third] {
        site.hears(backend, Kind::Drain);
    }
    site.reject(first, asked[0], Reason::AppRefused);
    assert_eq!(demand(&mut site, second), 1);
    assert_eq!(demand(&mut site, third), 1);
    site.grant(second, 1);
    site.is_asked(second);
    // It grants one too late, and takes what is returned for the end of all demand.
    site.grant(third, 1);
    assert_eq!(site.hears(third, Kind::Return).header.credit, 1);
    site.reject(first, asked[1], Reason::AppRefused);
    site.wait(Duration::from_millis(20));
    assert_eq!(demand(&mut site, third), 1);
}
