//! The broker's own drain.

use std::time::Duration;

use scale0_wire::{Bye, Kind, Reason};

use crate::core::Event;
use crate::core::testing::{SHOP, Site};

#[test]
fn a_draining_broker_finishes_what_it_has_refuses_what_is_new_and_leaves() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 1);
    let frontend = site.frontend();
    site.get(frontend, 1);
    site.get(frontend, 2);
    let first = site.is_asked(backend);
    site.hears(backend, Kind::Demand);
    let until = site.now + Duration::from_secs(30);
    site.step(Event::Drain { until });
    site.hears(frontend, Kind::Drain);
    site.hears(backend, Kind::Drain);
    site.post(frontend, 3);
    site.is_refused(frontend, 3, Reason::Draining);
    site.respond(backend, first);
    site.is_answered(frontend, 1);
    let second = site.is_asked(backend);
    assert!(!site.broker.is_gone());
    site.respond(backend, second);
    site.is_answered(frontend, 2);
    site.is_dismissed(frontend, Bye::Leaving);
    assert!(site.broker.is_gone());
}

#[test]
fn a_draining_broker_gives_idle_credit_back_for_others() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 3);
    let frontend = site.frontend();
    site.get(frontend, 1);
    site.is_asked(backend);
    let until = site.now + Duration::from_secs(30);
    site.step(Event::Drain { until });
    site.hears(backend, Kind::Drain);
    assert_eq!(site.hears(backend, Kind::Return).header.credit, 2);
}

#[test]
fn a_drain_ends_in_time_whatever_is_left() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 1);
    let frontend = site.frontend();
    site.post(frontend, 1);
    site.post(frontend, 2);
    site.is_asked(backend);
    let until = site.now + Duration::from_secs(5);
    site.step(Event::Drain { until });
    site.wait(Duration::from_secs(5));
    assert!(site.broker.is_gone());
    site.hears(frontend, Kind::Drain);
    site.is_failed(frontend, 1, Reason::Draining);
    site.is_refused(frontend, 2, Reason::Draining);
    site.is_dismissed(frontend, Bye::Leaving);
}

#[test]
fn a_broker_with_nothing_to_do_leaves_at_once() {
    let mut site = Site::new();
    let until = site.now + Duration::from_secs(5);
    site.step(Event::Drain { until });
    assert!(site.broker.is_gone());
}
