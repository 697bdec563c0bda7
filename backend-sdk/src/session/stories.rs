//! What a session promises, told to it in virtual time.

use std::time::Duration;

use bytes::Bytes;
use scale0_wire::{
    Bye, Cancel, End, Flags, Heartbeat, Hello, Kind, Message, Reason, Reject, Wanted, Window,
    limits,
};

use super::tests::Stage;
use super::{Action, BrokerId, Event, Output, Shape};

const SECOND: Duration = Duration::from_secs(1);

fn wanted(message: &Message) -> u32 {
    Wanted::decode(&message.metadata).unwrap().0
}

#[test]
fn hello_is_repeated_until_welcome_comes_and_says_what_is_offered() {
    let mut stage = Stage::new(4, 1);
    stage.step(Event::Up(BrokerId(0)));
    stage.pass(SECOND * 2);
    let hellos = stage.sent(Kind::Hello);
    assert_eq!(hellos.len(), 3);
    assert_eq!(hellos[0], hellos[2], "the same epoch: it is one session");
    let hello = Hello::decode(&hellos[0].metadata).unwrap();
    assert_eq!((hello.services, hello.capacity), (vec!["shop".into()], 4));
}

#[test]
fn credit_is_granted_only_after_welcome_and_rides_on_everything() {
    let mut stage = Stage::new(4, 1);
    stage.up(0);
    stage.tick();
    assert!(stage.sent(Kind::Credit).is_empty());
    stage.welcome(0);
    stage.tick();
    assert_eq!(stage.sent(Kind::Credit)[0].header.credit, 4);

    let stream = stage.request(0, 1).unwrap();
    stage.respond(stream, b"hello");
    stage.tick();
    let response = &stage.sent(Kind::Response)[0];
    assert_eq!(response.header.credit, 5, "renewed by the response itself");
    assert!(response.header.flags.contains(Flags::FINAL));
    assert!(stage.sent(Kind::Credit).is_empty());
}

#[test]
fn one_place_serves_three_brokers_in_turn() {
    let mut stage = Stage::welcomed(1, 3);
    stage.demand(2, 1);
    assert_eq!(stage.sent(Kind::Reclaim).len(), 1);
    stage.give_back(0, 1);
    assert_eq!(stage.sent(Kind::Credit)[0].header.credit, 1);
    let stream = stage.request(2, 1).unwrap();

    stage.demand(1, 1);
    stage.respond(stream, b"");
    stage.tick();
    assert_eq!(stage.sent(Kind::Response)[0].header.credit, 1);
    let credit = stage.actions.iter().find_map(|action| match action {
        Action::Send(BrokerId(1), message) => Some(message.header.credit),
        _ => None,
    });
    assert_eq!(credit, Some(1));
}

#[test]
fn a_request_beyond_the_credit_is_rejected_and_the_others_are_served() {
    let mut stage = Stage::welcomed(1, 1);
    let stream = stage.request(0, 1).unwrap();
    assert_eq!(stage.request(0, 2), None);
    assert_eq!(stage.rejects(), [Reason::NoCredit]);
    assert_eq!(stage.counters.rejected.get(), 1);
    stage.respond(stream, b"done");
    assert_eq!(stage.sent(Kind::Response).len(), 1);
    assert!(stage.request(0, 3).is_some());
}

#[test]
fn a_message_of_another_epoch_is_dropped_and_counted() {
    let mut stage = Stage::welcomed(1, 1);
    let mut header = stage.header(0, Kind::Request, 1);
    header.epoch += 1;
    stage.deliver(0, Message::new(header));
    assert_eq!(stage.actions, []);
    assert_eq!(stage.counters.foreign_epoch.get(), 1);
}

#[test]
fn a_broker_is_told_that_an_application_has_failed() {
    let mut stage = Stage::welcomed(2, 1);
    for (correlation, shape, has_failed) in [(1, Shape::Plain, false), (2, Shape::Failure, true)] {
        let stream = stage.request(0, correlation).unwrap();
        stage.head(stream, b"", shape, true);
        let response = stage.sent(Kind::Response).remove(0);
        let flags = response.header.flags;
        assert_eq!(flags.contains(Flags::APP_ERROR), has_failed);
        stage.quiet();
    }
}

#[test]
fn a_response_is_sent_as_far_as_its_window_reaches_and_goes_on_when_it_opens() {
    let mut stage = Stage::welcomed(1, 1);
    let stream = stage.request(0, 1).unwrap();
    stage.head(stream, b"", Shape::Plain, false);
    stage.data(stream, 150);
    stage.end(stream);
    assert_eq!(stage.chunks(), [100]);
    assert!(stage.ends().is_empty());
    stage.quiet();

    stage.window(0, 1, 120);
    assert_eq!(stage.chunks(), [20]);
    stage.window(0, 1, 1_000);
    assert_eq!((stage.chunks(), stage.ends()), (vec![30], vec![None]));
    let released = stage.actions.iter().filter_map(|action| match action {
        Action::Released(_, bytes) => Some(*bytes),
        _ => None,
    });
    assert_eq!(released.sum::<usize>(), 50);
}

#[test]
fn a_head_does_not_wait_for_a_window_that_its_content_lacks() {
    let mut stage = Stage::welcomed(1, 1);
    let stream = stage.request(0, 1).unwrap();
    let content: &'static [u8] = &[b'x'; 130];
    stage.respond(stream, content);
    let response = stage.sent(Kind::Response).remove(0);
    assert_eq!(response.content.len(), 100);
    assert!(!response.header.flags.contains(Flags::FINAL));
    stage.window(0, 1, 1_000);
    assert_eq!((stage.chunks(), stage.ends()), (vec![30], vec![None]));
}

#[test]
fn streams_that_wait_for_the_connection_take_turns() {
    let mut stage = Stage::welcomed(3, 1);
    let streams: Vec<_> = (1..=3).map(|n| stage.request(0, n).unwrap()).collect();
    for (correlation, stream) in (1..).zip(&streams) {
        stage.window(0, correlation, 1_000_000);
        stage.head(*stream, b"", Shape::Plain, false);
    }
    // The connection's window is 1000 bytes: the first stream takes it all.
    stage.data(streams[0], 200_000);
    stage.data(streams[1], 100);
    stage.data(streams[2], 100);
    assert_eq!(stage.chunks(), [1_000]);

    stage.window(0, 0, 1_000 + 65_536 + 200);
    let order: Vec<u64> = stage
        .sent(Kind::Chunk)
        .iter()
        .map(|chunk| chunk.header.correlation)
        .collect();
    assert_eq!(order, [1, 2, 3]);
}

#[test]
fn a_stream_that_waits_for_its_own_window_holds_nobody_up() {
    let mut stage = Stage::welcomed(2, 1);
    let slow = stage.request(0, 1).unwrap();
    let quick = stage.request(0, 2).unwrap();
    stage.head(slow, b"", Shape::Plain, false);
    stage.data(slow, 500);
    stage.respond(quick, b"quick");
    assert_eq!(stage.sent(Kind::Response).len(), 2);
}

#[test]
fn a_full_transport_gets_no_more_until_it_has_room() {
    let mut stage = Stage::welcomed(2, 1);
    let stream = stage.request(0, 1).unwrap();
    stage.step(Event::Full(BrokerId(0)));
    stage.head(stream, b"hello", Shape::Plain, false);
    stage.end(stream);
    assert!(stage.sent(Kind::Response).is_empty());
    stage.step(Event::Writable(BrokerId(0)));
    assert_eq!(stage.sent(Kind::Response).len(), 1);
    assert_eq!(stage.ends(), [None]);
}

#[test]
fn a_transport_that_was_full_has_room_when_it_is_dialled_anew() {
    let mut stage = Stage::welcomed(2, 1);
    stage.step(Event::Full(BrokerId(0)));
    stage.pass(SECOND * 3);
    assert!(stage.actions.contains(&Action::Redial(BrokerId(0))));
    stage.up(0);
    stage.welcome(0);
    let stream = stage.request(0, 1).unwrap();
    stage.respond(stream, b"hello");
    assert_eq!(stage.sent(Kind::Response).len(), 1);
}

#[test]
fn an_upload_may_come_only_when_its_handler_reads() {
    let mut stage = Stage::welcomed(1, 1);
    let stream = stage.request_with(0, 1, Flags::default()).unwrap();
    assert!(stage.sent(Kind::Window).is_empty());
    stage.step(Event::Reading(stream));
    stage.step(Event::Reading(stream));
    let windows = stage.sent(Kind::Window);
    assert_eq!(windows.len(), 1);
    let limit = Window::decode(&windows[0].metadata).unwrap().0;
    assert_eq!(limit, u64::from(limits::STREAM_WINDOW));

    let piece = Bytes::from(vec![0; limits::CONTENT]);
    let header = stage.header(0, Kind::Chunk, 1);
    for _ in 0..4 {
        stage.deliver(0, Message::new(header).with_content(piece.clone()));
    }
    assert!(stage.sent(Kind::Window).is_empty(), "nothing was read yet");
    for _ in 0..2 {
        stage.step(Event::Consumed(stream, limits::CONTENT));
    }
    let more = Window::decode(&stage.sent(Kind::Window)[0].metadata).unwrap();
    assert_eq!(more.0, limit + 2 * limits::CONTENT as u64);

    let end = End::Complete(scale0_wire::Fields::default()).encode();
    stage.quiet();
    stage.say(0, Kind::End, 1, end.clone());
    assert_eq!(stage.actions, [Action::InputEnd(stream, end)]);
}

#[test]
fn an_upload_beyond_its_window_fails_its_request_alone() {
    let mut stage = Stage::welcomed(2, 1);
    let rude = stage.request_with(0, 1, Flags::default()).unwrap();
    let other = stage.request(0, 2).unwrap();
    let header = stage.header(0, Kind::Chunk, 1);
    stage.deliver(
        0,
        Message::new(header).with_content(Bytes::from_static(b"early")),
    );
    assert!(stage.cancelled(rude));
    stage.step(Event::Stopped(rude));
    assert_eq!(stage.ends(), [Some(Reason::ProtocolError)]);
    stage.respond(other, b"fine");
    assert_eq!(stage.sent(Kind::Response).len(), 1);
    assert_eq!(stage.counters.protocol_errors.get(), 1);
}

#[test]
fn a_cancelled_request_keeps_its_credit_until_its_handler_has_stopped() {
    let mut stage = Stage::welcomed(1, 1);
    let stream = stage.request(0, 1).unwrap();
    stage.head(stream, b"", Shape::Plain, false);
    stage.quiet();
    stage.say(0, Kind::Cancel, 1, Cancel(Reason::ClientGone).encode());
    assert_eq!(stage.actions, [Action::Cancel(stream, Reason::Cancelled)]);
    stage.data(stream, 50);
    stage.tick();
    assert!(stage.chunks().is_empty() && stage.sent(Kind::Credit).is_empty());

    stage.step(Event::Stopped(stream));
    let end = stage.sent(Kind::End).remove(0);
    assert_eq!(end.header.credit, 2);
    assert!(stage.request(0, 2).is_some());
}

#[test]
fn a_cancel_after_the_handler_stopped_ends_what_is_still_to_be_sent() {
    let mut stage = Stage::welcomed(1, 1);
    let stream = stage.request(0, 1).unwrap();
    stage.head(stream, b"", Shape::Plain, false);
    stage.data(stream, 500);
    stage.end(stream);
    stage.say(0, Kind::Cancel, 1, Cancel(Reason::ClientGone).encode());
    assert_eq!(stage.ends(), [Some(Reason::Cancelled)]);
    stage.window(0, 1, 10_000);
    assert_eq!(stage.counters.late.get(), 1);
}

#[test]
fn an_event_stream_and_a_tunnel_give_their_credit_back_at_once() {
    let mut stage = Stage::welcomed(1, 1);
    let events = stage.request(0, 1).unwrap();
    stage.head(events, b"", Shape::EventStream, false);
    let head = stage.sent(Kind::Response).remove(0);
    assert!(head.header.flags.contains(Flags::EVENT_STREAM));
    assert_eq!(head.header.credit, 2);

    let tunnel = stage.request_with(0, 2, Flags::FINAL).unwrap();
    stage.head(tunnel, b"", Shape::Upgrade, false);
    assert_eq!(stage.sent(Kind::Upgrade)[0].header.credit, 3);
    stage.step(Event::Reading(tunnel));
    assert_eq!(stage.sent(Kind::Window).len(), 1, "bytes may come now");
    assert!(stage.request(0, 3).is_some());

    stage.end(events);
    stage.end(tunnel);
    stage.tick();
    assert!(stage.sent(Kind::Credit).is_empty(), "not given back twice");
}

#[test]
fn an_interim_response_behind_the_head_is_not_sent() {
    let mut stage = Stage::welcomed(1, 1);
    let stream = stage.request(0, 1).unwrap();
    let interim = || Output::Interim(Bytes::from_static(b"hints"));
    stage.step(Event::Output(stream, interim()));
    stage.head(stream, b"", Shape::Plain, false);
    stage.step(Event::Output(stream, interim()));
    assert_eq!(stage.sent(Kind::Interim).len(), 1);
}

#[test]
fn open_streams_are_bounded_whatever_the_credit() {
    let mut stage = Stage::welcomed(1, 1);
    for correlation in 1..=100 {
        let events = stage.request(0, correlation).unwrap();
        stage.head(events, b"", Shape::EventStream, false);
    }
    assert_eq!(stage.request(0, 101), None);
    assert_eq!(stage.rejects(), [Reason::TooManyStreams]);
}

#[test]
fn what_was_queued_during_our_own_pause_is_rejected_however_late_it_is_handed_over() {
    let mut stage = Stage::welcomed(4, 1);
    stage.now += SECOND * 2;
    assert_eq!(stage.request(0, 1), None);
    let answers = stage.sent_to(0);
    assert_eq!(
        answers.iter().map(|it| it.header.kind).collect::<Vec<_>>(),
        [Kind::Reclaim, Kind::Reject],
        "what is given back is not to come again on old credit"
    );
    assert_eq!(wanted(&answers[0]), 4);
    let reject = Reject::decode(&answers[1].metadata).unwrap();
    assert_eq!(
        (reject.reason, answers[1].header.credit),
        (Reason::Paused, 5)
    );
    stage.tick();
    assert!(stage.session.is_registered(), "no broker is blamed");

    // The second request of four was sent before RECLAIM was read, and lay in some buffer for long.
    stage.heartbeat(0);
    stage.pass(SECOND / 2);
    assert_eq!(stage.request(0, 2), None);
    assert_eq!(stage.rejects(), [Reason::Paused]);
    stage.give_back(0, 2);
    assert_eq!(stage.sent_to(0).pop().unwrap().header.credit, 8);
    assert!(stage.request(0, 3).is_some(), "that is new");
    assert_eq!(stage.counters.pauses.get(), 1);
}

#[test]
fn after_a_pause_one_round_trip_without_a_timer_makes_a_backend_whole_again() {
    let mut stage = Stage::welcomed(4, 2);
    stage.now += SECOND * 2;
    stage.tick();
    for broker in 0..2 {
        assert_eq!(wanted(&stage.sent_to(broker)[0]), 2, "RECLAIM");
        stage.give_back(broker, 2);
        assert!(stage.request(broker, 1).is_some());
        assert!(stage.request(broker, 2).is_some());
    }
    assert_eq!(stage.rejects(), []);
}

#[test]
fn what_was_queued_in_a_session_that_a_pause_has_cost_is_rejected_and_the_next_one_serves() {
    let mut stage = Stage::welcomed(4, 1);
    stage.now += SECOND * 10;
    assert_eq!(stage.request(0, 1), None);
    assert_eq!(stage.request(0, 2), None);
    stage.bye(0, Bye::Silent);
    stage.pass(super::REST);
    stage.up(0);
    stage.welcome(0);
    assert!(stage.request(0, 1).is_some());
}

#[test]
fn a_silent_broker_is_dialled_anew_and_its_work_is_cancelled() {
    let mut stage = Stage::welcomed(1, 1);
    let stream = stage.request(0, 1).unwrap();
    stage.pass(SECOND * 2);
    assert!(stage.session.is_registered());
    stage.pass(SECOND);
    assert!(stage.cancelled(stream));
    assert!(stage.actions.contains(&Action::Redial(BrokerId(0))));
    assert_eq!(stage.sent(Kind::Bye).len(), 1);
}

#[test]
fn a_broker_that_is_heard_stays_and_hears_our_load_once_per_interval() {
    let mut stage = Stage::welcomed(1, 1);
    for _ in 0..10 {
        stage.pass(SECOND);
        stage.heartbeat(0);
    }
    assert!(stage.session.is_registered());
    assert_eq!(stage.sent(Kind::Heartbeat).len(), 10);
}

#[test]
fn a_lost_session_occupies_capacity_until_its_handlers_have_stopped() {
    let mut stage = Stage::welcomed(1, 2);
    let stream = stage.request(0, 1).unwrap();
    stage.demand(1, 1);
    stage.step(Event::Down(BrokerId(0)));
    stage.tick();
    assert!(stage.cancelled(stream));
    assert!(stage.sent(Kind::Credit).is_empty());
    stage.step(Event::Stopped(stream));
    stage.tick();
    assert_eq!(stage.sent(Kind::Credit).len(), 1);
    assert!(stage.ends().is_empty(), "nobody is there to hear it");
}

#[test]
fn a_new_connection_is_a_new_session_of_another_epoch() {
    let mut stage = Stage::welcomed(2, 1);
    let before = stage.header(0, Kind::Request, 1).epoch;
    stage.step(Event::Down(BrokerId(0)));
    stage.up(0);
    assert_ne!(stage.header(0, Kind::Request, 1).epoch, before);
    stage.welcome(0);
    stage.tick();
    assert_eq!(stage.sent(Kind::Credit)[0].header.credit, 2);
}

#[test]
fn a_broker_that_forgot_us_hears_hello_again_but_not_at_once() {
    let mut stage = Stage::welcomed(1, 1);
    stage.bye(0, Bye::UnknownSession);
    stage.tick();
    assert!(stage.sent(Kind::Hello).is_empty());
    stage.pass(super::REST);
    assert_eq!(stage.sent(Kind::Hello).len(), 1);
}

#[test]
fn a_drain_serves_what_crossed_it_and_leaves_when_nothing_can_come_any_more() {
    let mut stage = Stage::welcomed(3, 1);
    let first = stage.request(0, 1).unwrap();
    stage.step(Event::Drain);
    stage.tick();
    assert_eq!(stage.sent(Kind::Drain).len(), 1);
    assert_eq!(wanted(&stage.sent(Kind::Reclaim)[0]), 2);

    let crossed = stage.request(0, 2).expect("sent before DRAIN was read");
    stage.give_back(0, 1);
    stage.respond(first, b"");
    stage.tick();
    assert!(stage.sent(Kind::Bye).is_empty());
    stage.respond(crossed, b"");
    assert!(!stage.session.is_gone());
    stage.tick();
    assert_eq!(stage.sent(Kind::Bye).len(), 1);
    assert!(stage.session.is_gone());
}

#[test]
fn idle_credit_leaves_a_draining_broker_once_and_does_not_come_back() {
    let mut stage = Stage::welcomed(8, 2);
    stage
        .request(0, 1)
        .expect("long work, which keeps the broker");
    stage.say(0, Kind::Drain, 0, Bytes::new());
    let (mut granted, mut returned, mut messages) = (4, 0, 0);
    for _ in 0..1_000 {
        if returned < granted - 1 {
            returned = granted - 1;
            messages += 1;
            stage.give_back(0, returned);
        }
        stage.tick();
        for message in stage.sent_to(0) {
            messages += 1;
            granted = granted.max(message.header.credit);
        }
    }
    assert_eq!((granted, messages), (4, 1), "one RETURN");
    let credit = stage.sent(Kind::Credit).pop().expect("for the other");
    assert_eq!(credit.header.credit, 7);
}

#[test]
fn what_waits_at_a_draining_broker_is_still_served() {
    let mut stage = Stage::welcomed(2, 2);
    stage.say(0, Kind::Drain, 0, Bytes::new());
    stage.give_back(0, 1);
    stage.demand(0, 1);
    assert_eq!(wanted(&stage.sent(Kind::Reclaim)[0]), 1);
    stage.give_back(1, 1);
    let credit = stage.sent_to(0).pop().expect("CREDIT").header.credit;
    assert_eq!(credit, 2);
    let stream = stage.request(0, 1).expect("the one that waited");
    stage.respond(stream, b"");
    stage.tick();
    let newest = stage.sent_to(0).pop().expect("RESPONSE").header.credit;
    assert_eq!(newest, 2, "and no credit for another");
}

#[test]
fn a_drain_does_not_wait_for_a_broker_that_returns_nothing() {
    let mut stage = Stage::welcomed(3, 1);
    stage.step(Event::Drain);
    stage.pass(SECOND / 2);
    assert!(!stage.session.is_gone());
    stage.pass(SECOND / 2);
    assert!(stage.session.is_gone());
}

#[test]
fn a_drain_ends_in_time_with_handlers_that_do_not() {
    let mut stage = Stage::welcomed(1, 1);
    let stream = stage.request(0, 1).unwrap();
    stage.step(Event::Drain);
    for _ in 0..30 {
        stage.heartbeat(0);
        stage.pass(SECOND);
    }
    assert!(stage.cancelled(stream));
    assert!(!stage.session.is_gone(), "it may still stop");
    stage.pass(super::CUT_GRACE);
    assert!(stage.session.is_gone());
}

#[test]
fn nobody_connected_is_nobody_to_wait_for() {
    let mut stage = Stage::new(1, 2);
    stage.up(0);
    stage.step(Event::Drain);
    stage.tick();
    assert!(stage.session.is_gone());
    assert_eq!(stage.sent(Kind::Bye).len(), 1);
}

#[test]
fn credit_is_withdrawn_while_the_application_takes_nothing_and_comes_back_with_it() {
    let mut stage = Stage::welcomed(4, 1);
    stage.step(Event::Capacity(0));
    assert_eq!(capacity_and_credit(&stage), (0, 4), "said at once");
    stage.tick();
    assert_eq!(wanted(&stage.sent(Kind::Reclaim)[0]), 4);
    stage.give_back(0, 4);
    stage.demand(0, 10);
    assert!(stage.sent(Kind::Credit).is_empty());
    stage.step(Event::Capacity(4));
    assert_eq!(capacity_and_credit(&stage), (4, 8));
}

#[test]
fn a_backend_whose_application_is_away_from_the_start_says_so_in_its_hello() {
    let mut stage = Stage::new(4, 1);
    stage.step(Event::Capacity(0));
    stage.step(Event::Up(BrokerId(0)));
    let hello = stage.sent(Kind::Hello).pop().unwrap();
    assert_eq!(Hello::decode(&hello.metadata).unwrap().capacity, 0);
}

#[test]
fn a_capacity_may_grow_beyond_the_first_and_shrink_and_brokers_hear_of_it_at_once() {
    let mut stage = Stage::welcomed(2, 1);
    stage.pass(SECOND / 10);
    stage.step(Event::Capacity(6));
    stage.tick();
    assert_eq!(capacity_and_credit(&stage), (6, 6));
    let streams: Vec<_> = (1..=6).map(|n| stage.request(0, n).unwrap()).collect();

    stage.step(Event::Capacity(3));
    stage.pass(super::CAPACITY_SPACING);
    assert_eq!(capacity_and_credit(&stage), (3, 6));
    for stream in &streams[..3] {
        stage.respond(*stream, b"");
    }
    stage.tick();
    assert!(stage.sent(Kind::Credit).is_empty());
    stage.respond(streams[3], b"");
    assert_eq!(stage.sent_to(0).pop().unwrap().header.credit, 7);
}

#[test]
fn a_capacity_that_trembles_is_not_said_more_often_than_ever_so_many_milliseconds() {
    let mut stage = Stage::welcomed(2, 1);
    for turn in 0..1_000 {
        stage.step(Event::Capacity(2 + turn % 7));
        stage.pass(Duration::from_micros(100));
    }
    let said = stage.sent(Kind::Heartbeat).len();
    assert!((8..=11).contains(&said), "{said}");
}

/// What the heartbeat says that was sent last of all.
fn capacity_and_credit(stage: &Stage) -> (u32, u64) {
    let Some(Action::Send(_, message)) = stage.actions.last() else {
        panic!("nothing was sent")
    };
    assert_eq!(message.header.kind, Kind::Heartbeat);
    let heartbeat = Heartbeat::decode(&message.metadata).unwrap();
    (heartbeat.capacity, message.header.credit)
}

#[test]
fn a_stranger_of_a_kind_that_must_be_known_is_told_so() {
    let mut stage = Stage::welcomed(1, 1);
    stage.say(0, Kind::Unknown(200), 5, Bytes::new());
    stage.say(0, Kind::Unknown(100), 5, Bytes::new());
    let answers = stage.sent(Kind::Unsupported);
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].header.correlation, 5);
    assert_eq!(stage.counters.unexpected.get(), 2);
}
