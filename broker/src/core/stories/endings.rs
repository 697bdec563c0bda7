//! The broker's own drain.

use std::time::Duration;

use scale0_wire::{Bye, Flags, Heartbeat, Kind, Message, Reason, RoutingHeader, limits};

use crate::core::Event;
use crate::core::testing::{SHOP, Site, chunk, response};

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
    site.hears_nothing(frontend);
    site.beat(frontend);
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
    site.hears(frontend, Kind::Drain);
    site.is_failed(frontend, 1, Reason::Draining);
    site.is_refused(frontend, 2, Reason::Draining);
    site.beat(frontend);
    site.is_dismissed(frontend, Bye::Leaving);
    assert!(site.broker.is_gone());
}

#[test]
fn a_broker_that_nobody_can_ask_leaves_at_once() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 1);
    let until = site.now + Duration::from_secs(5);
    site.step(Event::Drain { until });
    site.hears(backend, Kind::Drain);
    site.hears(backend, Kind::Return);
    site.is_dismissed(backend, Bye::Leaving);
    assert!(site.broker.is_gone());
}

#[test]
fn a_request_that_crosses_drain_is_refused_and_not_lost() {
    let mut site = Site::new();
    let frontend = site.frontend();
    let other = site.frontend();
    // Its regular heartbeat crosses DRAIN as well, and proves nothing.
    site.wait(Duration::from_secs(1));
    let before = echo(site.newest_beat(frontend));
    assert_ne!(site.newest_beat(frontend), 0);
    let until = site.now + Duration::from_secs(30);
    site.step(Event::Drain { until });
    site.beat(other);
    site.say(frontend, before);
    assert!(!site.broker.is_gone());
    site.post(frontend, 1);
    site.hears(frontend, Kind::Drain);
    site.is_refused(frontend, 1, Reason::Draining);
    site.beat(frontend);
    site.is_dismissed(frontend, Bye::Leaving);
    assert!(site.broker.is_gone());
    assert_eq!(site.broker.counters().drains_unread, 0);
}

#[test]
fn a_drain_does_not_wait_for_frontends_that_are_gone() {
    let mut site = Site::new();
    let [cut, silent] = [(); 2].map(|()| site.frontend());
    let until = site.now + Duration::from_secs(30);
    site.step(Event::Drain { until });
    site.cut(cut);
    assert!(!site.broker.is_gone());
    site.mute(silent);
    site.wait(Duration::from_secs(3));
    assert!(site.broker.is_gone());
}

#[test]
fn a_drain_waits_for_who_comes_while_it_lasts() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 1);
    let first = site.frontend();
    site.post(first, 1);
    let asked = site.is_asked(backend);
    let until = site.now + Duration::from_secs(30);
    site.step(Event::Drain { until });
    let late = site.frontend();
    site.hears(late, Kind::Drain);
    site.respond(backend, asked);
    site.beat(first);
    assert!(!site.broker.is_gone());
    site.beat(late);
    assert!(site.broker.is_gone());
}

#[test]
fn a_broker_does_not_leave_before_a_slow_reader_has_all_of_its_answer() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 1);
    let frontend = site.frontend();
    site.get(frontend, 1);
    let asked = site.is_asked(backend);
    site.say(backend, response(asked, Flags(0)));
    site.is_answered(frontend, 1);
    let until = site.now + Duration::from_secs(30);
    site.step(Event::Drain { until });
    site.hears(frontend, Kind::Drain);
    // More than the window: the last of it waits here, and END behind it.
    let chunks = limits::CONNECTION_WINDOW as usize / limits::CONTENT;
    for _ in 0..=chunks {
        site.say(backend, chunk(asked, limits::CONTENT));
    }
    site.complete(backend, asked);
    for _ in 0..chunks {
        site.hears(frontend, Kind::Chunk);
    }
    site.beat(frontend);
    site.hears_nothing(frontend);
    site.window(frontend, 0, u64::from(limits::CONNECTION_WINDOW) * 2);
    site.hears(frontend, Kind::Chunk);
    site.hears(frontend, Kind::End);
    site.hears_nothing(frontend);
    site.beat(frontend);
    site.is_dismissed(frontend, Bye::Leaving);
}

#[test]
fn who_never_says_that_it_has_read_all_delays_the_end_by_one_heartbeat() {
    let mut site = Site::new();
    let frontend = site.frontend();
    let backend = site.backend(SHOP, 1);
    site.post(frontend, 1);
    site.is_asked(backend);
    let until = site.now + Duration::from_millis(1500);
    site.step(Event::Drain { until });
    site.mute(frontend);
    site.wait(Duration::from_millis(1500));
    site.hears(frontend, Kind::Drain);
    site.is_failed(frontend, 1, Reason::Draining);
    site.hears_nothing(frontend);
    // It lives, and echoes nothing newer.
    site.say(frontend, echo(0));
    site.wait(Duration::from_millis(999));
    assert!(!site.broker.is_gone());
    site.wait(Duration::from_millis(1));
    assert_eq!(site.last_said(frontend), Some(Kind::Bye));
    site.is_dismissed(frontend, Bye::Leaving);
    assert_eq!(site.broker.counters().drains_unread, 1);
}

/// A heartbeat that says it has read this one.
fn echo(sequence: u32) -> Message {
    let heartbeat = Heartbeat {
        echo: sequence,
        ..Heartbeat::default()
    };
    Message::new(RoutingHeader::new(Kind::Heartbeat)).with_metadata(heartbeat.encode())
}
