//! What is repeated, where, how often; and what is not.

use std::time::Duration;

use scale0_wire::{End, Flags, Kind, Reason};

use crate::core::testing::{SHOP, Site, about, chunk, get, post, response, upload};

#[test]
fn a_get_whose_backend_dies_is_answered_by_another() {
    let mut site = Site::new();
    let first = site.backend(SHOP, 1);
    let second = site.backend(SHOP, 1);
    let frontend = site.frontend();
    site.get(frontend, 1);
    let lost = site.is_asked(first);
    site.cut(first);
    let request = site.hears(second, Kind::Request);
    assert_eq!(request.header.attempt, 1);
    // The dead cannot answer any more.
    site.respond(first, lost);
    site.respond(second, request.header.correlation);
    site.is_answered(frontend, 1);
    site.hears_nothing(frontend);
}

#[test]
fn a_post_whose_backend_dies_fails_and_runs_nowhere_else() {
    let mut site = Site::new();
    let first = site.backend(SHOP, 1);
    let second = site.backend(SHOP, 1);
    let frontend = site.frontend();
    site.post(frontend, 1);
    site.is_asked(first);
    site.cut(first);
    site.is_failed(frontend, 1, Reason::BackendLost);
    site.hears_nothing(second);
}

#[test]
fn a_post_that_was_rejected_goes_elsewhere_and_never_back() {
    let mut site = Site::new();
    let first = site.backend(SHOP, 2);
    let second = site.backend(SHOP, 1);
    let frontend = site.frontend();
    site.post(frontend, 1);
    let asked = site.is_asked(first);
    site.reject(first, asked, Reason::AppRefused);
    let asked = site.is_asked(second);
    site.reject(second, asked, Reason::AppRefused);
    site.is_refused(frontend, 1, Reason::AppRefused);
    site.hears_nothing(first);
}

#[test]
fn a_backend_that_does_not_speak_request_is_passed_by() {
    let mut site = Site::new();
    let first = site.backend(SHOP, 1);
    let second = site.backend(SHOP, 1);
    let frontend = site.frontend();
    site.post(frontend, 1);
    let asked = site.is_asked(first);
    site.tell(first, Kind::Unsupported, asked, vec![128].into());
    site.is_asked(second);
}

#[test]
fn a_backend_that_was_only_paused_may_be_asked_again_but_not_for_ever() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 9);
    let frontend = site.frontend();
    site.post(frontend, 1);
    for _ in 0..3 {
        let asked = site.is_asked(backend);
        site.reject(backend, asked, Reason::Paused);
    }
    site.is_refused(frontend, 1, Reason::Paused);
    site.hears_nothing(backend);
}

#[test]
fn a_request_that_kills_backends_kills_three_at_most() {
    let mut site = Site::new();
    let backends = [(); 5].map(|()| site.backend(SHOP, 1));
    let frontend = site.frontend();
    site.get(frontend, 1);
    for backend in &backends[..3] {
        site.is_asked(*backend);
        site.cut(*backend);
    }
    site.is_failed(frontend, 1, Reason::BackendLost);
    site.hears_nothing(backends[3]);
}

#[test]
fn losses_under_other_brokers_count() {
    for lost_before in [0, 1, 2, u8::MAX] {
        let mut site = Site::new();
        let backends = [(); 4].map(|()| site.backend(SHOP, 1));
        let frontend = site.frontend();
        let mut request = get(1);
        request.header.attempt = lost_before;
        site.say(frontend, request);
        let mut starts = 0;
        for backend in backends {
            if site
                .next(backend)
                .is_some_and(|it| it.header.kind == Kind::Request)
            {
                starts += 1;
                site.cut(backend);
            }
        }
        assert_eq!(starts, 3_u8.saturating_sub(lost_before).max(1));
        site.is_failed(frontend, 1, Reason::BackendLost);
    }
}

#[test]
fn a_frontend_hears_how_many_losses_its_request_has_had_and_may_go_elsewhere_below_the_bound() {
    for (lost_before, backends, hold_ms, reason, losses) in [
        (0, 1, 0, Reason::BackendLost, 1),
        (0, 2, 0, Reason::BackendLost, 2),
        (0, 3, 0, Reason::BackendLost, 3),
        (1, 1, 0, Reason::BackendLost, 2),
        (2, 1, 0, Reason::BackendLost, 3),
        (0, 1, 500, Reason::NoBackend, 1),
    ] {
        let mut site = Site::new();
        let backends: Vec<_> = (0..backends).map(|_| site.backend(SHOP, 1)).collect();
        let frontend = site.frontend();
        let mut request = get(1);
        (request.header.attempt, request.header.hold_ms) = (lost_before, hold_ms);
        site.say(frontend, request);
        for &backend in &backends {
            site.cut(backend);
        }
        site.wait(Duration::from_secs(1));
        let failure = site.hears(frontend, Kind::End);
        assert_eq!(failure.header.attempt, losses);
        let said = End::decode(&failure.metadata);
        assert!(
            matches!(said, Ok(End::Failed { reason: said, .. }) if said == reason),
            "{said:?}"
        );
    }
}

#[test]
fn what_was_never_started_and_may_not_be_held_is_refused_for_want_of_a_backend() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 9);
    let frontend = site.frontend();
    let mut request = post(1);
    request.header.hold_ms = 0;
    site.say(frontend, request);
    let asked = site.is_asked(backend);
    site.resize(backend, 0);
    site.reject(backend, asked, Reason::AppRefused);
    // Another broker may have other backends: what one of them said of itself is not all there is to say.
    site.is_refused(frontend, 1, Reason::NoBackend);
}

#[test]
fn a_get_whose_only_backend_dies_waits_for_its_successor() {
    let mut site = Site::new();
    let first = site.backend(SHOP, 1);
    let frontend = site.frontend();
    site.get(frontend, 1);
    site.is_asked(first);
    site.cut(first);
    site.wait(Duration::from_secs(3));
    let second = site.backend(SHOP, 1);
    site.hears(second, Kind::Demand);
    let asked = site.is_asked(second);
    site.respond(second, asked);
    site.is_answered(frontend, 1);
}

#[test]
fn what_a_backend_cuts_off_at_the_end_of_its_drain_goes_to_another_if_it_may() {
    let mut site = Site::new();
    let leaving = site.backend(SHOP, 2);
    let frontend = site.frontend();
    site.get(frontend, 1);
    site.post(frontend, 2);
    let (get, post) = (site.is_asked(leaving), site.is_asked(leaving));
    site.say(leaving, about(Kind::Drain, 0));
    let other = site.backend(SHOP, 1);
    site.fail(leaving, get, Reason::Draining);
    site.fail(leaving, post, Reason::Draining);
    site.is_failed(frontend, 2, Reason::Draining);
    let again = site.hears(other, Kind::Request).header;
    assert_eq!(again.attempt, 1);
    site.respond(other, again.correlation);
    site.is_answered(frontend, 1);
    site.hears_nothing(other);
    // As free of the budget as a death.
    assert_eq!(site.broker.counters().repeated_after_loss, 1);
    assert_eq!(site.broker.counters().repeated_after_error, 0);
}

#[test]
fn a_get_that_may_have_run_does_not_end_as_never_started() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 1);
    let frontend = site.frontend();
    site.get(frontend, 1);
    site.is_asked(backend);
    site.cut(backend);
    site.wait(Duration::from_secs(10));
    site.is_failed(frontend, 1, Reason::NoBackend);
}

#[test]
fn nothing_is_repeated_once_the_head_has_passed() {
    let mut site = Site::new();
    let first = site.backend(SHOP, 1);
    let second = site.backend(SHOP, 1);
    let frontend = site.frontend();
    site.get(frontend, 1);
    let asked = site.is_asked(first);
    site.say(first, response(asked, Flags(0)));
    site.is_answered(frontend, 1);
    site.cut(first);
    site.is_failed(frontend, 1, Reason::BackendLost);
    site.hears_nothing(second);
}

#[test]
fn an_error_is_repeated_elsewhere_once_there_is_somewhere_else() {
    let mut site = Site::new();
    let first = site.backend(SHOP, 1);
    let second = site.backend(SHOP, 1);
    let frontend = site.frontend();
    site.get(frontend, 1);
    let asked = site.is_asked(first);
    site.fail(first, asked, Reason::AppFailed);
    let asked = site.is_asked(second);
    site.fail(second, asked, Reason::AppFailed);
    site.is_failed(frontend, 1, Reason::AppFailed);
}

#[test]
fn a_service_that_fails_everything_is_not_sent_everything_twice() {
    let mut site = Site::new();
    let backends = [(); 2].map(|()| site.backend(SHOP, 1));
    let frontend = site.frontend();
    let mut asked = 0;
    for correlation in 1..=100 {
        site.get(frontend, correlation);
        while let Some((backend, stream)) = backends.iter().find_map(|&backend| {
            let message = site.next(backend)?;
            (message.header.kind == Kind::Request).then_some((backend, message.header.correlation))
        }) {
            asked += 1;
            site.fail(backend, stream, Reason::AppFailed);
        }
        site.is_failed(frontend, correlation, Reason::AppFailed);
    }
    assert_eq!(asked, 100 + 20);
    assert_eq!(site.broker.counters().budget_spent, 80);
}

#[test]
fn a_repeat_overtakes_who_has_not_waited_yet() {
    let mut site = Site::new();
    let first = site.backend(SHOP, 1);
    let second = site.backend(SHOP, 1);
    let frontend = site.frontend();
    site.get(frontend, 1);
    site.post(frontend, 2);
    site.get(frontend, 3);
    site.is_asked(first);
    let busy = site.is_asked(second);
    while site.next(second).is_some() {}
    site.cut(first);
    site.respond(second, busy);
    site.is_answered(frontend, 2);
    assert_eq!(site.hears(second, Kind::Request).header.attempt, 1);
}

#[test]
fn an_upload_is_repeated_until_the_backend_has_asked_for_its_content() {
    let mut site = Site::new();
    let first = site.backend(SHOP, 1);
    let second = site.backend(SHOP, 1);
    let third = site.backend(SHOP, 1);
    let frontend = site.frontend();
    site.say(frontend, upload(1));
    site.is_asked(first);
    site.cut(first);
    let asked = site.is_asked(second);
    site.window(second, asked, 1000);
    assert_eq!(site.hears(frontend, Kind::Window).header.correlation, 1);
    site.say(frontend, chunk(1, 1000));
    assert_eq!(site.hears(second, Kind::Chunk).content.len(), 1000);
    site.cut(second);
    site.is_failed(frontend, 1, Reason::BackendLost);
    site.hears_nothing(third);
}

#[test]
fn what_cannot_be_kept_is_sent_all_the_same_and_not_repeated() {
    let mut site = Site::with(|config| config.limits.kept_bytes = 200);
    let first = site.backend(SHOP, 1);
    let second = site.backend(SHOP, 1);
    let third = site.backend(SHOP, 1);
    let frontend = site.frontend();
    site.get(frontend, 1);
    site.get(frontend, 2);
    let answered = site.is_asked(first);
    site.is_asked(second);
    site.cut(second);
    site.is_failed(frontend, 2, Reason::BackendLost);
    site.hears_nothing(third);
    site.respond(first, answered);
    site.is_answered(frontend, 1);
    assert_eq!(site.broker.snapshot(site.now).kept_bytes, 0);
}
