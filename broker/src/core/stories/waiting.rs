//! Requests that wait: queues, deadlines, `hold`, unknown services.

use std::time::Duration;

use scale0_transport::Port;
use scale0_wire::{Kind, Priority, Reason, ServiceId};

use crate::core::testing::{SHOP, Site, get, post, upload};
use crate::core::{QueueLimits, ServiceConfig};

#[test]
fn a_full_queue_refuses_at_once() {
    let mut site = Site::with(|config| config.queue.requests = 2);
    let _backend = site.busy_backend(SHOP);
    let frontend = site.frontend();
    for correlation in 1..=3 {
        site.get(frontend, correlation);
    }
    site.is_refused(frontend, 3, Reason::QueueFull);
    site.hears_nothing(frontend);
}

#[test]
fn a_queue_full_of_bytes_refuses_at_once() {
    let mut site = Site::with(|config| config.queue.bytes = 200);
    let _backend = site.busy_backend(SHOP);
    let frontend = site.frontend();
    site.get(frontend, 1);
    site.get(frontend, 2);
    site.is_refused(frontend, 2, Reason::QueueBytes);
}

#[test]
fn a_named_service_has_a_queue_of_its_own() {
    let mut site = Site::with(|config| {
        config.services.push(ServiceConfig {
            queue: QueueLimits {
                requests: 0,
                bytes: 0,
            },
            ..ServiceConfig::new(SHOP)
        });
    });
    let frontend = site.frontend();
    site.get(frontend, 1);
    site.is_refused(frontend, 1, Reason::QueueBytes);
}

#[test]
fn who_waits_is_refused_at_its_deadline_and_not_before() {
    let mut site = Site::new();
    let backend = site.busy_backend(SHOP);
    let frontend = site.frontend();
    site.get(frontend, 1);
    site.hears(backend, Kind::Demand);
    site.wait(Duration::from_millis(29_999));
    site.hears_nothing(frontend);
    site.wait(Duration::from_millis(1));
    site.is_refused(frontend, 1, Reason::Deadline);
}

#[test]
fn a_deadline_after_it_was_sent_fails_it_and_cancels_the_backends_work() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 1);
    let frontend = site.frontend();
    site.get(frontend, 1);
    let asked = site.is_asked(backend);
    site.wait(Duration::from_secs(30));
    site.is_failed(frontend, 1, Reason::Deadline);
    let cancel = site.hears(backend, Kind::Cancel);
    assert_eq!(cancel.header.correlation, asked);
    // What it says late goes nowhere, and its own end frees the slot.
    site.respond(backend, asked);
    site.hears_nothing(frontend);
    assert_eq!(site.broker.snapshot(site.now).abandoned, 0);
}

#[test]
fn a_response_that_has_begun_has_no_deadline() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 1);
    let frontend = site.frontend();
    site.get(frontend, 1);
    let asked = site.is_asked(backend);
    site.say(
        backend,
        crate::core::testing::response(asked, scale0_wire::Flags(0)),
    );
    site.is_answered(frontend, 1);
    site.wait(Duration::from_secs(60));
    site.hears_nothing(frontend);
}

#[test]
fn a_request_sent_late_tells_the_backend_what_is_left_of_its_time() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 1);
    let frontend = site.frontend();
    site.get(frontend, 1);
    let first = site.is_asked(backend);
    site.get(frontend, 2);
    site.hears(backend, Kind::Demand);
    site.wait(Duration::from_secs(10));
    while site.next(backend).is_some() {}
    site.respond(backend, first);
    let request = site.hears(backend, Kind::Request);
    assert_eq!(request.header.deadline_ms, 20_000);
}

#[test]
fn an_update_moves_the_deadline() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 1);
    let frontend = site.frontend();
    site.get(frontend, 1);
    site.is_asked(backend);
    let mut update = crate::core::testing::about(Kind::Update, 1);
    update.header.deadline_ms = 1000;
    site.say(frontend, update);
    assert_eq!(site.hears(backend, Kind::Update).header.deadline_ms, 1000);
    site.wait(Duration::from_secs(1));
    site.is_failed(frontend, 1, Reason::Deadline);
}

#[test]
fn a_known_service_without_a_backend_is_held_for_one() {
    let mut site = Site::new();
    let first = site.backend(SHOP, 1);
    let frontend = site.frontend();
    site.cut(first);
    site.get(frontend, 1);
    site.get(frontend, 2);
    site.wait(Duration::from_secs(9));
    let second = site.backend(SHOP, 1);
    site.hears(second, Kind::Demand);
    site.is_asked(second);
    site.wait(Duration::from_secs(5));
    // The other one waits for credit, not for a backend.
    site.hears_nothing(frontend);
}

#[test]
fn a_known_service_that_nobody_offers_any_more_is_refused_after_its_hold() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 1);
    let frontend = site.frontend();
    site.cut(backend);
    site.wait(Duration::from_secs(60));
    site.get(frontend, 1);
    site.wait(Duration::from_millis(9_999));
    site.hears_nothing(frontend);
    site.wait(Duration::from_millis(1));
    site.is_refused(frontend, 1, Reason::NoBackend);
}

#[test]
fn who_waits_for_credit_when_the_last_backend_leaves_is_held_from_then_on() {
    let mut site = Site::new();
    let backend = site.busy_backend(SHOP);
    let frontend = site.frontend();
    site.get(frontend, 1);
    site.wait(Duration::from_secs(12));
    site.cut(backend);
    site.wait(Duration::from_millis(9_999));
    site.hears_nothing(frontend);
    site.wait(Duration::from_millis(1));
    site.is_refused(frontend, 1, Reason::NoBackend);
}

#[test]
fn a_backend_that_takes_no_work_is_held_for_as_if_it_were_not_there() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 2);
    let frontend = site.frontend();
    site.resize(backend, 0);
    site.get(frontend, 1);
    site.wait(Duration::from_millis(9_999));
    site.hears_nothing(frontend);
    site.wait(Duration::from_millis(1));
    site.is_refused(frontend, 1, Reason::NoBackend);
    site.get(frontend, 2);
    while site.next(backend).is_some() {}
    site.resize(backend, 2);
    site.is_asked(backend);
}

#[test]
fn what_the_last_backend_refuses_for_its_application_waits_for_it_to_return() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 1);
    let frontend = site.frontend();
    site.say(frontend, post(1));
    let asked = site.is_asked(backend);
    site.resize(backend, 0);
    site.grant(backend, 1);
    site.reject(backend, asked, Reason::AppRefused);
    site.wait(Duration::from_secs(9));
    site.hears_nothing(frontend);
    while site.next(backend).is_some() {}
    site.resize(backend, 1);
    site.is_asked(backend);
}

#[test]
fn who_waits_for_credit_when_the_last_backend_stops_taking_work_is_held_from_then_on() {
    let mut site = Site::new();
    let backend = site.busy_backend(SHOP);
    let frontend = site.frontend();
    site.get(frontend, 1);
    site.wait(Duration::from_secs(12));
    site.resize(backend, 0);
    site.wait(Duration::from_millis(9_999));
    site.hears_nothing(frontend);
    site.wait(Duration::from_millis(1));
    site.is_refused(frontend, 1, Reason::NoBackend);
}

#[test]
fn what_may_not_be_held_is_refused_at_once_by_a_young_broker_too_but_not_as_unknown() {
    let mut site = Site::new();
    let frontend = site.frontend();
    let mut request = get(1);
    request.header.hold_ms = 0;
    site.say(frontend, request);
    site.is_refused(frontend, 1, Reason::NoBackend);
}

#[test]
fn a_young_broker_holds_a_service_it_has_not_heard_of_and_an_old_one_refuses_it() {
    let mut site = Site::new();
    let frontend = site.frontend();
    site.wait(Duration::from_secs(4));
    site.get(frontend, 1);
    site.wait(Duration::from_millis(5_999));
    site.hears_nothing(frontend);
    site.wait(Duration::from_millis(1));
    site.is_refused(frontend, 1, Reason::UnknownService);
    site.get(frontend, 2);
    site.is_refused(frontend, 2, Reason::UnknownService);
    assert_eq!(site.broker.snapshot(site.now).services, []);
}

#[test]
fn a_young_broker_hands_held_requests_to_whoever_announces_the_service() {
    let mut site = Site::new();
    let frontend = site.frontend();
    site.get(frontend, 1);
    site.wait(Duration::from_secs(4));
    let backend = site.backend(SHOP, 1);
    site.hears(backend, Kind::Demand);
    site.is_asked(backend);
}

#[test]
fn the_wildcard_answers_for_unknown_services_and_for_those_already_waited_for() {
    let mut site = Site::new();
    let frontend = site.frontend();
    site.get(frontend, 1);
    let wildcard = site.backend(ServiceId::ANY_NAME, 2);
    site.hears(wildcard, Kind::Demand);
    site.is_asked(wildcard);
    site.get(frontend, 2);
    site.is_asked(wildcard);
    let shop = site.backend(SHOP, 1);
    site.get(frontend, 3);
    site.is_asked(shop);
}

#[test]
fn a_service_is_forgotten_ten_minutes_after_its_last_backend() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 1);
    let frontend = site.frontend();
    site.cut(backend);
    site.wait(Duration::from_secs(599));
    site.get(frontend, 1);
    site.cancel(frontend, 1);
    site.hears_nothing(frontend);
    site.wait(Duration::from_secs(1));
    site.get(frontend, 2);
    site.is_refused(frontend, 2, Reason::UnknownService);
}

#[test]
fn more_urgent_requests_overtake_and_equals_do_not() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 8);
    let frontend = site.frontend();
    let peer = site.peer(Port::Backends);
    site.cut(backend);
    let backend = site.join(peer, &[SHOP], 8);
    let order = [
        (1, Priority::Background),
        (2, Priority::Normal),
        (3, Priority::Interactive),
        (4, Priority::Interactive),
    ];
    for (correlation, priority) in order {
        let mut message = get(correlation.into());
        message.header.priority = priority;
        message.metadata = vec![correlation].into();
        site.say(frontend, message);
    }
    site.hears(backend, Kind::Demand);
    site.grant(backend, 4);
    for expected in [3, 4, 2, 1] {
        assert_eq!(site.hears(backend, Kind::Request).metadata[0], expected);
    }
}

#[test]
fn a_cancelled_request_that_waits_is_never_sent() {
    let mut site = Site::new();
    let backend = site.busy_backend(SHOP);
    let frontend = site.frontend();
    site.get(frontend, 1);
    site.cancel(frontend, 1);
    site.hears(backend, Kind::Demand);
    site.grant(backend, 1);
    site.hears_nothing(backend);
    site.hears_nothing(frontend);
}

#[test]
fn the_end_of_an_upload_that_came_while_it_waited_follows_its_request() {
    let mut site = Site::new();
    let backend = site.busy_backend(SHOP);
    let frontend = site.frontend();
    site.say(frontend, upload(1));
    site.complete(frontend, 1);
    site.hears(backend, Kind::Demand);
    site.grant(backend, 1);
    let asked = site.is_asked(backend);
    assert_eq!(site.hears(backend, Kind::End).header.correlation, asked);
}

#[test]
fn uploads_leave_a_quarter_of_a_backend_to_others() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 4);
    let frontend = site.frontend();
    let mut asked = Vec::new();
    for correlation in 1..=3 {
        site.say(frontend, upload(correlation));
        asked.push(site.is_asked(backend));
    }
    site.say(frontend, upload(4));
    site.hears_nothing(backend);
    site.get(frontend, 5);
    let page = site.is_asked(backend);
    site.respond(backend, page);
    site.hears_nothing(backend);
    // One whose content has come is a request like any other.
    site.window(backend, asked[0], 100);
    site.complete(frontend, 1);
    site.hears(backend, Kind::End);
    site.is_asked(backend);
}

/// So many ask, a tenth of a second apart.
fn ask_on(site: &mut Site, frontend: crate::core::testing::Peer, count: u64) {
    for _ in 0..count {
        let correlation = site.broker.counters().requests + 1;
        site.get(frontend, correlation);
        site.wait(Duration::from_millis(100));
    }
}

#[test]
fn a_full_queue_for_an_application_that_is_away_keeps_those_who_came_first() {
    let mut site = Site::with(|config| config.queue.requests = 3);
    let backend = site.backend(SHOP, 8);
    let frontend = site.frontend();
    site.resize(backend, 0);
    ask_on(&mut site, frontend, 10);
    for correlation in 4..=10 {
        site.is_refused(frontend, correlation, Reason::QueueFull);
    }
    site.hears_nothing(frontend);
}

#[test]
fn a_queue_that_has_been_full_for_a_while_lets_the_newest_in_for_the_oldest() {
    let mut site = Site::with(|config| config.queue.requests = 3);
    let backend = site.busy_backend(SHOP);
    let frontend = site.frontend();
    ask_on(&mut site, frontend, 10);
    site.is_refused(frontend, 4, Reason::QueueFull);
    for correlation in [1, 2, 3, 5, 6, 7] {
        site.is_refused(frontend, correlation, Reason::QueueFull);
    }
    assert!(site.broker.snapshot(site.now).services[0].is_overloaded);
    // The newest is served, and those that it has been served before had waited long enough.
    site.grant(backend, 1);
    site.is_refused(frontend, 8, Reason::QueueFull);
    site.is_refused(frontend, 9, Reason::QueueFull);
    assert!(!site.broker.snapshot(site.now).services[0].is_overloaded);
    assert_eq!(site.broker.counters().passed_over, 8);
}

#[test]
fn what_several_wait_for_is_let_into_a_full_queue_and_stays() {
    let mut site = Site::with(|config| config.queue.requests = 1);
    let backend = site.busy_backend(SHOP);
    let frontend = site.frontend();
    for correlation in 1..=4 {
        let mut message = get(correlation);
        message.header.waiters = u32::from(correlation != 1) + 1;
        site.say(frontend, message);
    }
    site.hears_nothing(frontend);
    site.get(frontend, 5);
    site.is_refused(frontend, 5, Reason::QueueFull);
    // One more client comes to wait for the first: that leaves its place to others.
    let mut update = crate::core::testing::about(Kind::Update, 1);
    update.header.deadline_ms = 30_000;
    update.header.waiters = 2;
    site.say(frontend, update);
    site.get(frontend, 6);
    site.hears_nothing(frontend);
    while site.next(backend).is_some() {}
    site.grant(backend, 5);
    for _ in 0..5 {
        site.is_asked(backend);
    }
}

#[test]
fn a_background_request_goes_first_once_it_is_ten_seconds_older() {
    let mut site = Site::new();
    let backend = site.busy_backend(SHOP);
    let frontend = site.frontend();
    for (label, priority) in [(1, Priority::Background), (2, Priority::Interactive)] {
        let mut message = get(label.into());
        message.header.priority = priority;
        message.metadata = vec![label].into();
        site.say(frontend, message);
        site.wait(Duration::from_millis(10_001));
    }
    while site.next(backend).is_some() {}
    site.grant(backend, 2);
    for expected in [1, 2] {
        assert_eq!(site.hears(backend, Kind::Request).metadata[0], expected);
    }
}

#[test]
fn an_upload_that_became_whole_while_it_waited_takes_any_place() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 4);
    let frontend = site.frontend();
    for correlation in 1..=3 {
        site.say(frontend, upload(correlation));
        site.is_asked(backend);
    }
    site.say(frontend, upload(4));
    site.hears_nothing(backend);
    site.complete(frontend, 4);
    let asked = site.is_asked(backend);
    assert_eq!(site.hears(backend, Kind::End).header.correlation, asked);
}

#[test]
fn an_upload_that_became_whole_while_it_waited_keeps_its_turn() {
    let mut site = Site::new();
    let backend = site.busy_backend(SHOP);
    let frontend = site.frontend();
    for correlation in 1..=3 {
        let mut message = if correlation == 2 {
            upload(correlation.into())
        } else {
            get(correlation.into())
        };
        message.metadata = vec![correlation].into();
        site.say(frontend, message);
        site.wait(Duration::from_millis(1));
    }
    site.complete(frontend, 2);
    while site.next(backend).is_some() {}
    site.grant(backend, 2);
    for expected in [1, 2] {
        assert_eq!(site.hears(backend, Kind::Request).metadata[0], expected);
    }
}

#[test]
fn an_upload_whose_client_leaves_while_it_waits_is_never_sent() {
    let mut site = Site::new();
    let backend = site.busy_backend(SHOP);
    let frontend = site.frontend();
    site.say(frontend, upload(1));
    site.fail(frontend, 1, Reason::ClientGone);
    site.is_refused(frontend, 1, Reason::ClientGone);
    site.hears(backend, Kind::Demand);
    site.grant(backend, 1);
    site.hears_nothing(backend);
}
