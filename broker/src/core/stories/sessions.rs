//! Who is here, and who no longer is.

use std::time::Duration;

use scale0_transport::Port;
use scale0_wire::{Bye, Flags, Heartbeat, Kind, Message, Reason, RoutingHeader};

use crate::core::testing::{SHOP, Site, get, response};

#[test]
fn hello_repeated_is_welcomed_again_and_changes_nothing() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 1);
    let frontend = site.frontend();
    site.get(frontend, 1);
    let asked = site.is_asked(backend);
    site.hello(backend, &[SHOP], 1);
    site.hears(backend, Kind::Welcome);
    site.respond(backend, asked);
    site.is_answered(frontend, 1);
}

#[test]
fn a_process_that_dials_anew_replaces_its_former_session() {
    let mut site = Site::new();
    let former = site.backend(SHOP, 1);
    let frontend = site.frontend();
    site.get(frontend, 1);
    site.is_asked(former);
    let mut again = site.peer(Port::Backends);
    again.instance = former.instance;
    site.join(again, &[SHOP], 1);
    site.is_dismissed(former, Bye::Replaced);
    site.grant(again, 1);
    site.hears(again, Kind::Demand);
    let asked = site.is_asked(again);
    site.respond(again, asked);
    site.is_answered(frontend, 1);
    assert_eq!(site.broker.snapshot(site.now).backends.len(), 1);
}

#[test]
fn a_new_epoch_on_the_same_connection_ends_the_former_session() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 1);
    let mut frontend = site.frontend();
    site.get(frontend, 1);
    site.is_asked(backend);
    frontend.epoch += 1;
    site.join(frontend, &[], 0);
    site.hears(backend, Kind::Cancel);
    // The number is free again, and the former session's messages count for nothing.
    site.get(frontend, 1);
    let mut former = frontend;
    former.epoch -= 1;
    site.cancel(former, 1);
    assert_eq!(site.broker.counters().dropped_epoch, 1);
    assert_eq!(site.broker.snapshot(site.now).open_requests, 1);
}

#[test]
fn a_message_of_another_epoch_is_dropped() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 1);
    let frontend = site.frontend();
    site.get(frontend, 1);
    let asked = site.is_asked(backend);
    let mut other = backend;
    other.epoch += 1;
    site.respond(other, asked);
    site.hears_nothing(frontend);
}

#[test]
fn who_has_no_session_is_told_so_at_a_bounded_rate() {
    let mut site = Site::new();
    let stranger = site.peer(Port::Frontends);
    for _ in 0..1000 {
        site.get(stranger, 1);
    }
    let mut answers = 0;
    while site.next(stranger).is_some() {
        answers += 1;
    }
    assert_eq!(answers, 5);
    let honest = site.peer(Port::Backends);
    site.grant(honest, 1);
    site.is_dismissed(honest, Bye::UnknownSession);
    site.wait(Duration::from_secs(1));
    site.wait(Duration::from_millis(1));
    site.get(stranger, 1);
    let mut message = site.hears(stranger, Kind::Bye);
    assert_eq!(message.header.epoch, stranger.epoch);
    // BYE is never answered with BYE.
    message.header.credit = 0;
    site.say(stranger, message);
    site.hears_nothing(stranger);
}

#[test]
fn a_peer_that_falls_silent_is_dead_after_three_heartbeats() {
    let mut site = Site::new();
    let first = site.backend(SHOP, 1);
    let second = site.backend(SHOP, 1);
    let frontend = site.frontend();
    site.get(frontend, 1);
    site.is_asked(first);
    site.mute(first);
    site.wait(Duration::from_millis(2999));
    site.hears_nothing(second);
    site.wait(Duration::from_millis(1));
    site.is_asked(second);
    site.is_dismissed(first, Bye::Silent);
}

#[test]
fn after_our_own_pause_nobody_is_blamed_for_our_silence() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 1);
    let frontend = site.frontend();
    site.get(frontend, 1);
    site.is_asked(backend);
    // The process is stopped; what was sent to it meanwhile lies in its sockets, behind the tick.
    site.now += Duration::from_secs(20);
    site.step(crate::core::Event::Tick);
    site.wait(Duration::from_millis(999));
    assert_eq!(site.broker.counters().pauses, 1);
    assert_eq!(site.broker.counters().sessions_silent, 0);
    // Whoever stays silent after that is dead.
    site.mute(backend);
    site.wait(Duration::from_secs(3));
    site.is_dismissed(backend, Bye::Silent);
}

#[test]
fn both_sides_are_heard_once_in_an_interval_and_the_round_trip_is_known() {
    let mut site = Site::new();
    let frontend = site.peer(Port::Frontends);
    site.hello(frontend, &[], 0);
    site.hears(frontend, Kind::Welcome);
    let sent = site.now;
    site.wait(Duration::from_secs(1));
    site.now += Duration::from_millis(5);
    let heartbeat = Heartbeat {
        sequence: 1,
        echo: 1,
        ..Heartbeat::default()
    };
    let message = Message::new(RoutingHeader::new(Kind::Heartbeat));
    site.say(frontend, message.with_metadata(heartbeat.encode()));
    let snapshot = site.broker.snapshot(site.now);
    assert_eq!(snapshot.frontends[0].session.round_trip_us, 5000);
    assert_eq!(site.now - sent, Duration::from_millis(1005));
}

#[test]
fn a_frontend_that_is_gone_has_its_work_cancelled() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 1);
    let frontend = site.frontend();
    site.get(frontend, 1);
    site.get(frontend, 2);
    let asked = site.is_asked(backend);
    site.hears(backend, Kind::Demand);
    site.cut(frontend);
    assert_eq!(site.hears(backend, Kind::Cancel).header.correlation, asked);
    site.fail(backend, asked, Reason::Cancelled);
    site.hears_nothing(backend);
    let snapshot = site.broker.snapshot(site.now);
    assert_eq!((snapshot.open_requests, snapshot.abandoned), (0, 0));
    assert_eq!(site.broker.counters().frontend_lost, 2);
}

#[test]
fn a_stuck_peer_is_as_good_as_lost() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 1);
    let frontend = site.frontend();
    site.post(frontend, 1);
    site.is_asked(backend);
    site.step(crate::core::Event::Stuck { peer: backend.id });
    site.is_failed(frontend, 1, Reason::BackendLost);
    assert_eq!(site.broker.counters().sessions_stuck, 1);
}

#[test]
fn a_draining_backend_finishes_its_work_and_gets_no_more() {
    let mut site = Site::new();
    let leaving = site.backend(SHOP, 5);
    let frontend = site.frontend();
    site.get(frontend, 1);
    let asked = site.is_asked(leaving);
    let staying = site.backend(SHOP, 5);
    site.say(leaving, Message::new(RoutingHeader::new(Kind::Drain)));
    site.get(frontend, 2);
    site.is_asked(staying);
    site.say(leaving, response(asked, Flags(0)));
    site.is_answered(frontend, 1);
    site.complete(leaving, asked);
    site.hears(frontend, Kind::End);
    let bye = Message::new(RoutingHeader::new(Kind::Bye));
    site.say(leaving, bye.with_metadata(Bye::Leaving.encode()));
    site.hears_nothing(frontend);
    assert_eq!(site.broker.counters().sessions_left, 1);
}

#[test]
fn a_backend_that_drains_already_when_it_comes_is_sent_nothing() {
    let mut site = Site::new();
    let peer = site.peer(Port::Backends);
    site.hello(peer, &[], 1);
    let backend = site.backend(SHOP, 1);
    let frontend = site.frontend();
    let _ = peer;
    site.say(frontend, get(1));
    site.is_asked(backend);
}
