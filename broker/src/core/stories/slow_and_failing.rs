//! Backends that are slower than others, or fail: how much they are sent, and when nothing.

use std::time::Duration;

use scale0_wire::{Flags, Kind, Reason, Why};

use crate::core::testing::{Peer, SHOP, Site, response};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// Asks for something, which these backends answer after as long as each takes. Returns which of them was asked.
fn ask(site: &mut Site, frontend: Peer, correlation: u64, backends: &[(Peer, Duration)]) -> usize {
    site.get(frontend, correlation);
    let (place, asked) = asked(site, backends);
    let (backend, takes) = backends[place];
    site.wait(takes);
    site.respond(backend, asked);
    place
}

/// Which of them has the next request, and its number.
fn asked(site: &mut Site, backends: &[(Peer, Duration)]) -> (usize, u64) {
    let mut all = (0..).zip(backends);
    let asked = all.find_map(|(place, &(backend, _))| {
        let request = std::iter::from_fn(|| site.next(backend));
        let mut request = request.filter(|message| message.header.kind == Kind::Request);
        Some((place, request.next()?.header.correlation))
    });
    asked.expect("somebody is asked")
}

#[test]
fn a_backend_four_times_as_slow_is_asked_a_third_as_often_when_both_have_work() {
    let mut site = Site::new();
    let frontend = site.frontend();
    let backends = [MS * 40, MS * 10].map(|takes| (site.backend(SHOP, 16), takes));
    for correlation in 1..=60 {
        ask(&mut site, frontend, correlation, &backends);
    }
    let mut order = Vec::new();
    for correlation in 101..=108 {
        site.get(frontend, correlation);
        order.push(asked(&mut site, &backends).0);
    }
    // By the number alone they would take turns.
    assert_eq!(order.iter().sum::<usize>(), 6, "{order:?}");
    let snapshot = site.broker.snapshot(site.now);
    let times = snapshot.backends.iter().map(|it| it.service_times_us[0]);
    assert_eq!(times.collect::<Vec<_>>(), [40_000, 10_000]);
}

#[test]
fn a_slow_backend_that_has_not_been_asked_for_ten_seconds_is_asked_like_others() {
    let mut site = Site::new();
    let frontend = site.frontend();
    let backends = [MS * 40, MS * 10].map(|takes| (site.backend(SHOP, 16), takes));
    for correlation in 1..=60 {
        ask(&mut site, frontend, correlation, &backends);
    }
    site.wait(SECOND * 11);
    let mut order = Vec::new();
    for correlation in 101..=104 {
        site.get(frontend, correlation);
        order.push(asked(&mut site, &backends).0);
    }
    assert_eq!(order.iter().sum::<usize>(), 2, "{order:?}");
}

#[test]
fn backends_that_differ_by_chance_are_asked_in_turn() {
    let mut site = Site::new();
    let frontend = site.frontend();
    let backends = [MS * 10, MS * 14].map(|takes| (site.backend(SHOP, 16), takes));
    let mut counts = [0; 2];
    for correlation in 1..=100 {
        counts[ask(&mut site, frontend, correlation, &backends)] += 1;
    }
    assert_eq!(counts, [50, 50]);
}

/// Lets this backend fail so many requests, while the others answer theirs at once.
fn fail(
    site: &mut Site,
    frontend: Peer,
    backends: &[(Peer, Duration)],
    failing: usize,
    times: u64,
) {
    let mut failed = 0;
    for correlation in site.broker.counters().requests + 1.. {
        if failed == times {
            return;
        }
        site.post(frontend, correlation);
        let (place, asked) = asked(site, backends);
        let (backend, _) = backends[place];
        if place == failing {
            site.fail(backend, asked, Reason::AppFailed);
            failed += 1;
        } else {
            site.respond(backend, asked);
        }
    }
}

/// How many of so many requests each of them is sent, all of which are answered at once.
fn spread(site: &mut Site, frontend: Peer, backends: &[(Peer, Duration)], count: u64) -> Vec<u64> {
    let mut counts = vec![0; backends.len()];
    let first = site.broker.counters().requests + 1;
    for correlation in first..first + count {
        counts[ask(site, frontend, correlation, backends)] += 1;
    }
    counts
}

#[test]
fn after_five_failures_in_a_row_a_backend_rests_for_ten_seconds_and_one_request_decides() {
    let mut site = Site::new();
    let frontend = site.frontend();
    let backends = [(); 3].map(|()| (site.backend(SHOP, 4), Duration::ZERO));
    fail(&mut site, frontend, &backends, 1, 4);
    assert_eq!(spread(&mut site, frontend, &backends, 3), [1, 1, 1]);
    fail(&mut site, frontend, &backends, 1, 5);
    assert_eq!(site.broker.counters().ejected, 1);
    assert_eq!(spread(&mut site, frontend, &backends, 10), [5, 0, 5]);
    assert_eq!(site.broker.snapshot(site.now).services[0].resting, 1);
    assert_eq!(
        &*site.broker.snapshot(site.now).backends[1].resting[0],
        SHOP
    );

    site.wait(SECOND * 10);
    // One, and while it is under way no other.
    fail(&mut site, frontend, &backends, 1, 1);
    assert_eq!(site.broker.counters().chosen.of(Why::PROBE), 1);
    site.wait(SECOND * 19);
    assert_eq!(spread(&mut site, frontend, &backends, 10), [5, 0, 5]);
    site.wait(SECOND);
    let counts = spread(&mut site, frontend, &backends, 30);
    assert_eq!(counts, [10, 10, 10], "it is well");
    assert_eq!(site.broker.counters().returned, 1);
}

#[test]
fn while_a_backend_is_tried_it_has_one_request() {
    let mut site = Site::new();
    let frontend = site.frontend();
    let backends = [(); 2].map(|()| (site.backend(SHOP, 4), Duration::ZERO));
    fail(&mut site, frontend, &backends, 0, 5);
    site.wait(SECOND * 10);
    let mut counts = [0; 2];
    for correlation in 101..=104 {
        site.get(frontend, correlation);
        counts[asked(&mut site, &backends).0] += 1;
    }
    assert_eq!(counts, [1, 3]);
    // Its client leaves: that says nothing, and the next one is tried.
    let probe = 101 + u64::from(site.broker.counters().chosen.of(Why::PROBE) == 0);
    site.cancel(frontend, probe);
    assert_eq!(site.broker.counters().chosen.of(Why::PROBE), 1);
}

#[test]
fn never_more_than_half_of_a_services_backends_rest() {
    let mut site = Site::new();
    let frontend = site.frontend();
    let only = [(site.backend(SHOP, 4), Duration::ZERO)];
    fail(&mut site, frontend, &only, 0, 20);
    assert_eq!(site.broker.counters().ejected, 0, "one alone");
    let mut all = only.to_vec();
    all.push((site.backend(SHOP, 4), Duration::ZERO));
    fail(&mut site, frontend, &all, 0, 1);
    assert_eq!(site.broker.counters().ejected, 1);
    fail(&mut site, frontend, &all, 1, 20);
    assert_eq!(
        site.broker.counters().ejected,
        1,
        "the other one is left alone"
    );
    // When that one goes, the first is all there is.
    site.cut(all[1].0);
    assert_eq!(spread(&mut site, frontend, &only, 2), [2]);
    assert_eq!(site.broker.snapshot(site.now).services[0].resting, 0);
}

#[test]
fn who_waits_is_served_by_a_backend_that_must_come_back_early() {
    let mut site = Site::new();
    let frontend = site.frontend();
    let backends = [(); 2].map(|()| (site.backend(SHOP, 1), Duration::ZERO));
    fail(&mut site, frontend, &backends, 0, 5);
    for correlation in 101..=102 {
        site.post(frontend, correlation);
    }
    site.is_asked(backends[1].0);
    site.cut(backends[1].0);
    asked(&mut site, &backends[..1]);
}

#[test]
fn a_request_that_the_others_have_had_is_tried_where_one_rests() {
    let mut site = Site::new();
    let frontend = site.frontend();
    let backends = [(); 2].map(|()| (site.backend(SHOP, 1), Duration::ZERO));
    fail(&mut site, frontend, &backends, 0, 5);
    site.get(frontend, 101);
    let (place, first) = asked(&mut site, &backends);
    assert_eq!(place, 1);
    site.fail(backends[1].0, first, Reason::AppFailed);
    assert_eq!(asked(&mut site, &backends).0, 0, "better than an error");
}

#[test]
fn answers_that_say_the_application_failed_count_and_are_passed_on() {
    let mut site = Site::new();
    let frontend = site.frontend();
    let backends = [(); 2].map(|()| (site.backend(SHOP, 4), Duration::ZERO));
    let mut failed = 0;
    for correlation in 1..=20 {
        site.get(frontend, correlation);
        let (place, asked) = asked(&mut site, &backends);
        let flags = if place == 0 {
            failed += 1;
            Flags(Flags::FINAL.0 | 1 << 8)
        } else {
            Flags::FINAL
        };
        site.grant(backends[place].0, 1);
        site.say(backends[place].0, response(asked, flags));
        site.is_answered(frontend, correlation);
    }
    assert_eq!((failed, site.broker.counters().ejected), (5, 1));
}

#[test]
fn five_requests_that_were_not_answered_in_time_are_worth_a_rest() {
    let mut site = Site::new();
    let frontend = site.frontend();
    let backends = [(); 2].map(|()| (site.backend(SHOP, 16), Duration::ZERO));
    for correlation in 1..=10 {
        site.get(frontend, correlation);
        asked(&mut site, &backends);
    }
    site.wait(SECOND * 30);
    assert_eq!(site.broker.counters().ejected, 1, "both, but for the half");
}

#[test]
fn one_of_three_that_is_ten_times_as_slow_rests() {
    let mut site = Site::new();
    let frontend = site.frontend();
    let backends = [MS * 20, MS * 20, MS * 200].map(|takes| (site.backend(SHOP, 16), takes));
    for correlation in 1..=400 {
        ask(&mut site, frontend, correlation, &backends);
    }
    assert_eq!(site.broker.counters().ejected_slow, 1);
    let snapshot = site.broker.snapshot(site.now);
    assert_eq!(snapshot.backends[2].resting.len(), 1);
    // It is asked no more, where by its weight alone it would be now and then.
    assert_eq!(spread(&mut site, frontend, &backends, 40)[2], 0);
}

#[test]
fn a_backend_that_crashes_at_each_request_rests_when_it_comes_back() {
    let mut site = Site::new();
    let frontend = site.frontend();
    let well = site.backend(SHOP, 4);
    let mut ill = site.backend(SHOP, 4);
    for crash in 1..=5 {
        let both = [(well, Duration::ZERO), (ill, Duration::ZERO)];
        loop {
            site.get(frontend, site.broker.counters().requests + 1);
            let (place, asked) = asked(&mut site, &both);
            if place == 1 {
                break;
            }
            site.respond(well, asked);
        }
        site.cut(ill);
        let (_, repeated) = asked(&mut site, &both[..1]);
        site.respond(well, repeated);
        ill.id = site.peer(scale0_transport::Port::Backends).id;
        ill = site.join(ill, &[SHOP], 4);
        site.grant(ill, 4);
        assert_eq!(site.broker.counters().ejected, u64::from(crash == 5));
    }
    let both = [(well, Duration::ZERO), (ill, Duration::ZERO)];
    assert_eq!(spread(&mut site, frontend, &both, 10), [10, 0]);
    site.wait(SECOND * 10);
    assert_eq!(spread(&mut site, frontend, &both, 10), [5, 5], "it is well");
}
