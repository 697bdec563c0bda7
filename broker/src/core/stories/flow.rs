//! Content under way: order, windows, and peers that do not read.

use std::time::Duration;

use scale0_wire::{Bye, Flags, Kind, Reason, Window, limits};

use crate::core::testing::{Peer, SHOP, Site, about, chunk, get, response};

/// A stream whose response has begun, by its backend's number.
fn begun(site: &mut Site, frontend: Peer, backend: Peer, correlation: u64) -> u64 {
    site.get(frontend, correlation);
    let asked = site.is_asked(backend);
    site.say(backend, response(asked, Flags(0)));
    site.is_answered(frontend, correlation);
    asked
}

/// Sends content until nothing of it arrives, and returns how much has.
fn fill(site: &mut Site, frontend: Peer, backend: Peer, asked: u64) -> usize {
    let mut arrived = 0;
    loop {
        site.say(backend, chunk(asked, limits::CONTENT));
        match site.next(frontend) {
            Some(message) => arrived += message.content.len(),
            None => return arrived,
        }
    }
}

#[test]
fn a_streams_windows_and_content_pass_both_ways_under_each_sides_number() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 1);
    let frontend = site.frontend();
    let asked = begun(&mut site, frontend, backend, 5);
    site.window(frontend, 5, 777);
    let window = site.hears(backend, Kind::Window);
    assert_eq!(window.header.correlation, asked);
    assert_eq!(Window::decode(&window.metadata).unwrap(), Window(777));
    site.say(backend, chunk(asked, 10));
    assert_eq!(site.hears(frontend, Kind::Chunk).header.correlation, 5);
    site.complete(backend, asked);
    assert_eq!(site.hears(frontend, Kind::End).header.correlation, 5);
    assert_eq!(site.broker.counters().answered, 1);
}

#[test]
fn content_beyond_the_frontends_connection_window_waits_for_it_in_order() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 1);
    let frontend = site.frontend();
    let asked = begun(&mut site, frontend, backend, 1);
    let arrived = fill(&mut site, frontend, backend, asked);
    assert_eq!(arrived, limits::CONNECTION_WINDOW as usize);
    site.say(backend, chunk(asked, 1));
    site.complete(backend, asked);
    site.hears_nothing(frontend);
    site.window(frontend, 0, u64::from(limits::CONNECTION_WINDOW) * 2);
    let sizes = [limits::CONTENT, 1];
    for size in sizes {
        assert_eq!(site.hears(frontend, Kind::Chunk).content.len(), size);
    }
    site.hears(frontend, Kind::End);
}

#[test]
fn control_messages_pass_by_the_content_that_waits() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 1);
    let frontend = site.frontend();
    let asked = begun(&mut site, frontend, backend, 1);
    fill(&mut site, frontend, backend, asked);
    let mut refused = get(2);
    refused.header.deadline_ms = 0;
    site.say(frontend, refused);
    site.is_refused(frontend, 2, Reason::Deadline);
}

#[test]
fn one_stuck_frontend_does_not_hold_up_its_backends_others_and_costs_a_bounded_queue() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 2);
    let stuck = site.frontend();
    let other = site.frontend();
    let to_stuck = begun(&mut site, stuck, backend, 1);
    let to_other = begun(&mut site, other, backend, 1);
    fill(&mut site, stuck, backend, to_stuck);
    let bound = 4 * 1024 * 1024 / limits::CONTENT;
    for _ in 0..=bound {
        site.say(backend, chunk(to_stuck, limits::CONTENT));
    }
    let mut is_cancelled = false;
    while let Some(message) = site.next(backend) {
        is_cancelled |= message.header.kind == Kind::Cancel;
    }
    assert!(is_cancelled);
    assert_eq!(site.broker.counters().failed.of(Reason::Overloaded), 1);
    site.say(backend, chunk(to_other, 100));
    assert_eq!(site.hears(other, Kind::Chunk).content.len(), 100);
    // What it reads at last is whole up to where it was given up.
    site.window(stuck, 0, u64::MAX);
    let mut waiting = 0;
    while let Some(message) = site.next(stuck) {
        if message.header.kind == Kind::End {
            break;
        }
        waiting += message.content.len();
    }
    assert!(0 < waiting && waiting <= 4 * 1024 * 1024);
    site.hears_nothing(stuck);
}

#[test]
fn a_backend_gets_its_connection_window_back_as_it_sends() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 1);
    let frontend = site.frontend();
    let asked = begun(&mut site, frontend, backend, 1);
    site.window(frontend, 0, u64::MAX);
    for _ in 0..100 {
        site.say(backend, chunk(asked, limits::CONTENT));
        site.hears(frontend, Kind::Chunk);
    }
    let window = site.hears(backend, Kind::Window);
    assert_eq!(window.header.correlation, 0);
}

#[test]
fn a_frontend_that_exceeds_the_connection_window_is_dismissed() {
    let mut site = Site::new();
    let frontend = site.frontend();
    // Nobody gives the window back for content of no stream faster than it is dropped; a single burst is within it.
    for _ in 0..100 {
        site.say(frontend, chunk(9, limits::CONTENT));
    }
    let mut oversized = chunk(9, 0);
    oversized.content = vec![0; 64 * 1024 * 1024].into();
    site.say(frontend, oversized);
    while let Some(message) = site.next(frontend) {
        if message.header.kind == Kind::Bye {
            assert_eq!(Bye::decode(&message.metadata).unwrap(), Bye::ProtocolError);
            return;
        }
    }
    panic!("it stays");
}

#[test]
fn a_tunnel_carries_bytes_both_ways_and_holds_no_credit() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 1);
    let frontend = site.frontend();
    let mut request = get(1);
    request.header.flags = Flags(0).with(Flags::UPGRADE, true);
    site.say(frontend, request);
    let asked = site.is_asked(backend);
    site.grant(backend, 1);
    site.say(backend, about(Kind::Upgrade, asked));
    site.hears(frontend, Kind::Upgrade);
    site.get(frontend, 2);
    site.is_asked(backend);
    site.say(frontend, chunk(1, 5));
    assert_eq!(site.hears(backend, Kind::Chunk).header.correlation, asked);
    site.say(backend, chunk(asked, 6));
    assert_eq!(site.hears(frontend, Kind::Chunk).content.len(), 6);
    site.wait(Duration::from_secs(29));
    site.complete(frontend, 1);
    site.hears(backend, Kind::End);
    site.complete(backend, asked);
    site.hears(frontend, Kind::End);
}

#[test]
fn late_content_of_a_cancelled_stream_reaches_nobody() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 1);
    let frontend = site.frontend();
    let asked = begun(&mut site, frontend, backend, 1);
    site.cancel(frontend, 1);
    site.hears(backend, Kind::Cancel);
    // The frontend may use the number again at once.
    site.get(frontend, 1);
    site.say(backend, chunk(asked, 10));
    site.hears_nothing(frontend);
    site.fail(backend, asked, Reason::Cancelled);
    site.hears_nothing(frontend);
    site.hears(backend, Kind::Demand);
    let again = site.is_asked(backend);
    assert_ne!(again, asked);
    assert_eq!(site.broker.counters().dropped_abandoned, 1);
}
