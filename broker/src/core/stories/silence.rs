//! Backends of which nothing is heard: suspect at first, in the end dead.

use std::time::Duration;

use scale0_wire::{Kind, Reason};

use crate::core::testing::{Peer, SHOP, Site, get};

const SECOND: Duration = Duration::from_secs(1);

/// After so long without a word a backend that is to speak once in a second is suspect.
const SUSPECT: Duration = Duration::from_millis(1500);

/// How many of these were sent a request since they were asked last.
fn asked(site: &mut Site, backends: &[Peer]) -> usize {
    let mut asked = 0;
    for &backend in backends {
        while let Some(message) = site.next(backend) {
            asked += usize::from(message.header.kind == Kind::Request);
        }
    }
    asked
}

#[test]
fn a_backend_that_is_silent_for_one_and_a_half_heartbeats_is_sent_nothing_while_another_speaks() {
    let mut site = Site::new();
    let silent = site.backend(SHOP, 8);
    let other = site.backend(SHOP, 8);
    let frontend = site.frontend();
    site.mute(silent);
    site.wait(SUSPECT - Duration::from_millis(1));
    site.post(frontend, 1);
    site.post(frontend, 2);
    assert_eq!(asked(&mut site, &[silent]), 1, "it may be late");
    site.wait(Duration::from_millis(1));
    for correlation in 3..8 {
        site.post(frontend, correlation);
    }
    assert_eq!(asked(&mut site, &[silent]), 0);
    assert_eq!(asked(&mut site, &[other]), 6);
    assert_eq!(site.broker.counters().suspected, 1);
    // Any word of it will do.
    site.window(silent, 0, 1 << 20);
    for correlation in 8..12 {
        site.post(frontend, correlation);
    }
    assert_eq!(asked(&mut site, &[silent]), 4);
}

#[test]
fn a_broker_that_is_cut_from_all_its_backends_does_not_waste_repeats_on_silent_ones() {
    let mut site = Site::new();
    let backends = [(); 5].map(|()| site.backend(SHOP, 4));
    let frontend = site.frontend();
    for backend in backends {
        site.wait(SECOND / 10);
        site.mute(backend);
    }
    for correlation in 1..=10 {
        site.get(frontend, correlation);
    }
    assert_eq!(asked(&mut site, &backends), 10);
    site.wait(SECOND * 4);
    assert_eq!(asked(&mut site, &backends), 0);
    assert_eq!(site.broker.counters().repeated_after_loss, 10);
    site.hears_nothing(frontend);
    let back = site.backend(SHOP, 10);
    assert_eq!(asked(&mut site, &[back]), 10);
}

#[test]
fn while_all_backends_are_silent_requests_wait_and_the_first_that_speaks_is_sent_them() {
    let mut site = Site::new();
    let backends = [(); 40].map(|()| site.backend(SHOP, 4));
    let frontend = site.frontend();
    for backend in backends {
        site.mute(backend);
    }
    site.wait(SUSPECT);
    site.get(frontend, 1);
    site.post(frontend, 2);
    assert_eq!(asked(&mut site, &backends), 0);
    site.beat(backends[7]);
    assert_eq!(asked(&mut site, &backends[7..8]), 2);
    site.post(frontend, 3);
    assert_eq!(asked(&mut site, &backends[7..8]), 1);
}

#[test]
fn of_many_backends_those_that_speak_are_found_however_few_they_are() {
    let mut site = Site::new();
    let backends = [(); 60].map(|()| site.backend(SHOP, 4));
    let frontend = site.frontend();
    let (speaking, silent) = backends.split_at(2);
    for &backend in silent {
        site.mute(backend);
    }
    site.wait(SUSPECT);
    for correlation in 1..=8 {
        site.post(frontend, correlation);
    }
    assert_eq!(asked(&mut site, speaking), 8);
    assert_eq!(asked(&mut site, silent), 0);
}

#[test]
fn the_silence_of_backends_during_our_own_pause_is_not_held_against_them() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 8);
    let frontend = site.frontend();
    site.wait(SECOND);
    site.now += SECOND * 2;
    site.post(frontend, 1);
    assert_eq!(asked(&mut site, &[backend]), 1);
    assert_eq!(site.broker.counters().suspected, 0);
}

#[test]
fn who_may_not_be_held_does_not_wait_for_backends_that_are_all_silent() {
    let mut site = Site::new();
    let backend = site.busy_backend(SHOP);
    let frontend = site.frontend();
    let request = |correlation| {
        let mut request = get(correlation);
        request.header.hold_ms = 0;
        request
    };
    site.say(frontend, request(1));
    site.mute(backend);
    site.wait(SUSPECT - Duration::from_millis(1));
    site.hears_nothing(frontend);
    site.wait(Duration::from_millis(1));
    site.is_refused(frontend, 1, Reason::NoBackend);
    site.say(frontend, request(2));
    site.is_refused(frontend, 2, Reason::NoBackend);
    site.beat(backend);
    site.say(frontend, request(3));
    site.hears_nothing(frontend);
}

#[test]
fn what_one_backend_refuses_waits_for_a_silent_one_that_may_speak_again() {
    let mut site = Site::new();
    let first = site.backend(SHOP, 1);
    let silent = site.backend(SHOP, 1);
    let frontend = site.frontend();
    site.mute(silent);
    site.wait(SUSPECT);
    site.post(frontend, 1);
    let refused = site.is_asked(first);
    site.reject(first, refused, Reason::AppRefused);
    site.hears_nothing(frontend);
    site.beat(silent);
    while site.last_said(silent) != Some(Kind::Request) {
        site.hears_any(silent);
    }
}

#[test]
fn backends_that_rest_come_back_when_the_others_are_silent() {
    let mut site = Site::new();
    let failing = site.backend(SHOP, 1);
    let other = site.backend(SHOP, 1);
    let frontend = site.frontend();
    for correlation in 1.. {
        site.post(frontend, correlation);
        let resting = site.broker.snapshot(site.now).services[0].resting;
        if resting == 1 {
            break;
        }
        for backend in [failing, other] {
            while let Some(message) = site.next(backend) {
                let stream = message.header.correlation;
                match message.header.kind {
                    Kind::Request if backend == failing => {
                        site.fail(backend, stream, Reason::AppFailed);
                    }
                    Kind::Request => site.respond(backend, stream),
                    _ => {}
                }
            }
        }
    }
    asked(&mut site, &[failing, other]);
    site.mute(other);
    site.wait(SUSPECT);
    site.post(frontend, 1_000_000);
    assert_eq!(asked(&mut site, &[failing]), 1);
}
