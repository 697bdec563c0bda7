//! Bounds over all services, and over all peers.

use scale0_wire::{End, Fields, Flags, Kind, Reason, ServiceId, limits};

use crate::core::testing::{Peer, SHOP, Site, chunk, get, response};

/// Of a request with a head of six bytes.
const REQUEST: usize = 142;

fn ask(site: &mut Site, frontend: Peer, correlation: u64, service: &str) {
    let mut message = get(correlation);
    message.header.service = ServiceId::of(service.as_bytes());
    assert_eq!(message.size(), REQUEST);
    site.say(frontend, message);
}

/// How many of so many requests for a service may wait.
fn let_in(site: &mut Site, frontend: Peer, service: &str, from: u64) -> usize {
    for correlation in from..from + 100 {
        ask(site, frontend, correlation, service);
    }
    let mut let_in = 100;
    while let Some(message) = site.next(frontend) {
        assert_eq!(message.header.kind, Kind::Reject);
        let_in -= 1;
    }
    let_in
}

#[test]
fn queues_together_are_bounded_and_the_last_to_fill_up_still_finds_room() {
    let mut site = Site::with(|config| config.limits.queued_bytes = 64 * REQUEST);
    let services = ["a", "b", "c", "d"];
    for service in services {
        site.busy_backend(service);
    }
    let frontend = site.frontend();
    let counts: Vec<_> = (services.iter().zip([1000, 2000, 3000, 4000]))
        .map(|(service, from)| let_in(&mut site, frontend, service, from))
        .collect();
    // Each half of what was free: nobody who waits is turned out, and nobody takes all.
    assert_eq!(counts, [32, 16, 8, 4]);
    assert_eq!(site.broker.snapshot(site.now).queued_bytes, 60 * REQUEST);
    assert_eq!(site.broker.counters().queues_full, 340);
    assert_eq!(site.broker.counters().refused.of(Reason::QueueBytes), 340);
    // As soon as one is short again the others have the room.
    for correlation in 1000..1032 {
        site.cancel(frontend, correlation);
    }
    assert_eq!(let_in(&mut site, frontend, "d", 5000), 16);
}

#[test]
fn a_service_alone_is_bounded_by_its_own_queue_first() {
    let mut site = Site::with(|config| {
        config.queue.bytes = 10 * REQUEST;
        config.limits.queued_bytes = 64 * REQUEST;
    });
    site.busy_backend("a");
    let frontend = site.frontend();
    assert_eq!(let_in(&mut site, frontend, "a", 1), 10);
    assert_eq!(site.broker.counters().queues_full, 0);
}

/// A response that fills the connection's window, so that all that follows waits.
fn fill(site: &mut Site, backend: Peer, frontend: Peer, correlation: u64) -> u64 {
    site.get(frontend, correlation);
    let asked = site.is_asked(backend);
    site.say(backend, response(asked, Flags(0)));
    for _ in 0..limits::CONNECTION_WINDOW as usize / limits::CONTENT {
        site.say(backend, chunk(asked, limits::CONTENT));
    }
    while site.next(frontend).is_some() {}
    asked
}

#[test]
fn what_waits_for_slow_readers_is_bounded_for_all_of_them_together() {
    const TOTAL: usize = 1024 * 1024;
    let mut site = Site::with(|config| config.limits.waiting_bytes = TOTAL);
    let mut waits = Vec::new();
    for _ in 0..3 {
        let backend = site.backend(SHOP, 1);
        let frontend = site.frontend();
        let asked = fill(&mut site, backend, frontend, 1);
        while site.broker.counters().failed.of(Reason::Overloaded) == waits.len() as u64 {
            site.say(backend, chunk(asked, 16 * 1024));
        }
        let snapshot = site.broker.snapshot(site.now);
        let waiting = snapshot.frontends[waits.len()].session.waiting_bytes;
        assert!(snapshot.waiting_bytes < TOTAL);
        waits.push(waiting / 1024);
        site.cut(backend);
    }
    // Each half of what was free, in messages of a little more than 16 KiB.
    assert_eq!(waits, [516, 258, 129]);
}

#[test]
fn trailers_beyond_what_may_wait_are_left_out_and_the_stream_still_ends() {
    let mut site = Site::with(|config| config.limits.bytes_per_peer = 100_000);
    let backend = site.backend(SHOP, 1);
    let frontend = site.frontend();
    let asked = fill(&mut site, backend, frontend, 1);
    site.say(backend, chunk(asked, 60_000));
    let trailers = Fields::new([(&b"x-long"[..], &[b'x'; 50_000][..])]).unwrap();
    let end = End::Complete(trailers).encode();
    site.tell(backend, Kind::End, asked, end);
    assert_eq!(site.broker.counters().trailers_dropped, 1);
    site.window(frontend, 0, u64::from(limits::CONNECTION_WINDOW) * 2);
    site.hears(frontend, Kind::Chunk);
    let end = site.hears(frontend, Kind::End);
    let bare = End::Complete(Fields::default());
    assert_eq!(End::decode(&end.metadata).unwrap(), bare);
    assert_eq!(site.broker.counters().answered, 1);
}
