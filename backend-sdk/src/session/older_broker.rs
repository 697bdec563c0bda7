//! A broker that speaks version 1 alone, in the very bytes that it says (`wire/vectors/v1`).

use scale0_wire::{End, Hello, Kind, Message, Reason, VERSION};

use super::tests::Stage;
use super::{Action, BrokerId, Event, Output, Shape};

#[path = "../../../wire/tests/recorded/mod.rs"]
mod recorded;

use recorded::{can_be_read_by_version_1, recorded};

/// The broker says what was recorded, in its present session.
fn say(stage: &mut Stage, name: &str, correlation: u64) {
    let mut message = recorded(name);
    message.header.epoch = stage.header(0, Kind::Hello, 0).epoch;
    message.header.correlation = correlation;
    stage.deliver(0, message);
}

/// What the broker hears, every message of which it can read.
fn heard(stage: &mut Stage) -> Vec<Message> {
    stage.tick();
    let sent = stage.sent_to(0);
    sent.iter().for_each(can_be_read_by_version_1);
    sent
}

fn kinds(stage: &mut Stage) -> Vec<Kind> {
    let heard = heard(stage);
    heard.iter().map(|message| message.header.kind).collect()
}

fn welcomed() -> Stage {
    let mut stage = Stage::new(4, 1);
    stage.version = 1;
    stage.up(0);
    say(&mut stage, "welcome", 0);
    assert!(stage.session.is_registered());
    assert_eq!(kinds(&mut stage), [Kind::Credit]);
    stage.quiet();
    stage
}

#[test]
fn hello_names_both_versions_and_can_be_read_in_the_older() {
    let mut stage = Stage::new(4, 1);
    stage.step(Event::Up(BrokerId(0)));
    let hello = heard(&mut stage).remove(0);
    let hello = Hello::decode(&hello.metadata).unwrap();
    assert_eq!((hello.oldest, hello.newest), (1, VERSION));
}

#[test]
fn an_older_broker_is_answered_in_its_own_words() {
    let mut stage = welcomed();
    say(&mut stage, "request-get", 1);
    let Some(Action::Serve(call)) = stage.actions.pop() else {
        panic!("not served");
    };
    assert_eq!(call.request.metadata, recorded("request-get").metadata);
    stage.head(call.stream, b"hello", Shape::Plain, true);
    assert_eq!(kinds(&mut stage), [Kind::Response]);
    stage.quiet();

    say(&mut stage, "request-upload", 2);
    let Some(Action::Serve(call)) = stage.actions.pop() else {
        panic!("not served");
    };
    stage.step(Event::Reading(call.stream));
    say(&mut stage, "chunk", 2);
    say(&mut stage, "end-trailers", 2);
    let inputs = (stage.actions.iter())
        .filter(|action| matches!(action, Action::Input(..) | Action::InputEnd(..)))
        .count();
    assert_eq!(inputs, 2);
    stage.head(call.stream, b"", Shape::Plain, false);
    stage.step(Event::Output(
        call.stream,
        Output::End(
            End::Failed {
                reason: Reason::NotAllowed,
                detail: String::new(),
            }
            .encode(),
        ),
    ));
    let sent = kinds(&mut stage);
    assert_eq!(sent, [Kind::Window, Kind::Response, Kind::End]);
    stage.quiet();

    say(&mut stage, "request-post", 3);
    let Some(Action::Serve(call)) = stage.actions.pop() else {
        panic!("not served");
    };
    say(&mut stage, "cancel", 3);
    assert!(stage.cancelled(call.stream));
    stage.step(Event::Stopped(call.stream));
    assert_eq!(kinds(&mut stage), [Kind::End]);
    for name in ["demand", "return", "window-connection", "update", "drain"] {
        say(&mut stage, name, 0);
    }
    heard(&mut stage);
    say(&mut stage, "bye", 0);
    assert!(!stage.session.is_registered());
    let counters = &stage.counters;
    assert_eq!(
        (counters.unexpected.get(), counters.malformed.get()),
        (0, 0)
    );
}

#[test]
fn what_an_older_broker_says_in_the_newer_version_is_dropped() {
    let mut stage = welcomed();
    stage.version = VERSION;
    assert_eq!(stage.request(0, 1), None);
    assert_eq!(stage.counters.protocol_errors.get(), 1);
    stage.version = 1;
    assert!(stage.request(0, 1).is_some());
}
