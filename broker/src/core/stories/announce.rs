//! Services that come and go while their backend stays.

use std::time::Duration;

use scale0_wire::{Announce, Kind, Message, Reason, RoutingHeader, ServiceId, Wanted};

use crate::core::testing::{Peer, SHOP, Site, get};

const IMAGES: &str = "img";

/// This backend offers these from now on, and those no more.
fn announce(site: &mut Site, backend: Peer, added: &[&str], withdrawn: &[&str]) {
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    let announce = Announce {
        added: names(added),
        withdrawn: names(withdrawn),
    };
    let message = Message::new(RoutingHeader::new(Kind::Announce));
    site.say(backend, message.with_metadata(announce.encode()));
}

fn get_of(service: &str, correlation: u64) -> Message {
    let mut message = get(correlation);
    message.header.service = ServiceId::of(service.as_bytes());
    message
}

#[test]
fn a_service_that_a_backend_adds_is_answered_at_once_in_the_session_it_has() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 2);
    let frontend = site.frontend();
    // Somebody asked before there was anybody to ask.
    site.say(frontend, get_of(IMAGES, 1));
    announce(&mut site, backend, &[IMAGES], &[]);
    site.hears(backend, Kind::Demand);
    let stream = site.is_asked(backend);
    site.respond(backend, stream);
    site.is_answered(frontend, 1);
    for (correlation, service) in [(2, IMAGES), (3, SHOP)] {
        site.say(frontend, get_of(service, correlation));
        let stream = site.is_asked(backend);
        site.respond(backend, stream);
        site.is_answered(frontend, correlation);
    }
    assert_eq!(site.broker.counters().sessions_opened, 2);
}

#[test]
fn what_is_under_way_for_a_withdrawn_service_goes_on_and_what_waits_has_others_to_wait_for() {
    let mut site = Site::new();
    let first = site.backend(SHOP, 1);
    let frontend = site.frontend();
    site.get(frontend, 1);
    let stream = site.is_asked(first);
    site.get(frontend, 2);
    let demand = site.hears(first, Kind::Demand);
    assert_eq!(Wanted::decode(&demand.metadata).unwrap().0, 1);

    announce(&mut site, first, &[IMAGES], &[SHOP]);
    let demand = site.hears(first, Kind::Demand);
    let none = Wanted::decode(&demand.metadata).unwrap().0;
    assert_eq!(none, 0, "it is not waited for any more");
    site.respond(first, stream);
    site.is_answered(frontend, 1);
    site.hears_nothing(first);

    let second = site.backend(SHOP, 1);
    let stream = site.is_asked(second);
    site.respond(second, stream);
    site.is_answered(frontend, 2);
}

#[test]
fn with_its_last_backend_a_service_is_deserted_and_who_waits_does_so_as_long_as_it_holds() {
    let mut site = Site::new();
    let backend = site.busy_backend(SHOP);
    let frontend = site.frontend();
    site.get(frontend, 1);
    site.hears(backend, Kind::Demand);
    site.wait(Duration::from_secs(5));
    announce(&mut site, backend, &[], &[SHOP]);
    site.wait(Duration::from_millis(9_999));
    site.hears_nothing(frontend);
    site.wait(Duration::from_millis(1));
    site.is_refused(frontend, 1, Reason::NoBackend);
    // It is known for a while yet, and comes back.
    announce(&mut site, backend, &[SHOP], &[]);
    site.grant(backend, 1);
    site.get(frontend, 2);
    while site.hears_any(backend) != Kind::Request {}
}

#[test]
fn saying_again_what_is_so_already_changes_nothing_and_one_in_both_lists_is_offered() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 4);
    let frontend = site.frontend();
    announce(&mut site, backend, &[SHOP, IMAGES], &["never-offered"]);
    announce(&mut site, backend, &[IMAGES], &[IMAGES, "nor-this"]);
    let offered = site.broker.snapshot(site.now).backends[0].services.len();
    assert_eq!(offered, 2);
    site.say(frontend, get_of(IMAGES, 1));
    site.is_asked(backend);
    announce(&mut site, backend, &[], &[IMAGES]);
    announce(&mut site, backend, &[], &[IMAGES]);
    site.get(frontend, 2);
    site.is_asked(backend);
}

#[test]
fn a_session_has_so_many_services_and_no_more_however_they_are_announced() {
    let mut site = Site::with(|config| config.limits.services_per_session = 2);
    let peer = site.peer(scale0_transport::Port::Backends);
    let backend = site.join(peer, &["a", "b", "c"], 1);
    assert_eq!(site.broker.counters().services_refused, 1);
    announce(&mut site, backend, &["a", "d"], &[]);
    assert_eq!(
        site.broker.counters().services_refused,
        2,
        "not \"a\" again"
    );
    announce(&mut site, backend, &["d"], &["a"]);
    assert_eq!(site.broker.counters().services_refused, 2);
    let snapshot = site.broker.snapshot(site.now);
    let names: Vec<&str> = (snapshot.backends[0].services.iter())
        .map(|name| &**name)
        .collect();
    assert_eq!(names, ["b", "d"]);
}

#[test]
fn a_backend_that_drains_announces_nothing_more() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 1);
    site.say(backend, Message::new(RoutingHeader::new(Kind::Drain)));
    announce(&mut site, backend, &[SHOP], &[]);
    let frontend = site.frontend();
    site.get(frontend, 1);
    site.hears_nothing(backend);
}

#[test]
fn a_frontend_that_announces_is_out_of_place() {
    let mut site = Site::new();
    let frontend = site.frontend();
    announce(&mut site, frontend, &[SHOP], &[]);
    assert_eq!(site.broker.counters().dropped_out_of_place, 1);
}
