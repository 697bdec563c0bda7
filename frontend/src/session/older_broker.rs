//! A broker that speaks version 1 alone, in the very bytes that it says (`wire/vectors/v1`).

use std::time::Duration;

use scale0_wire::{Fields, Heartbeat, Hello, Kind, Message, Reason, ResponseHead, VERSION};

use super::site::{Site, broken, complete, get, put};
use super::{Delivery, StreamId};

#[path = "../../../wire/tests/recorded/mod.rs"]
mod recorded;

use recorded::{can_be_read_by_version_1, recorded};

/// The broker says what was recorded, in its present session with this lane.
fn say(site: &mut Site, name: &str, id: Option<StreamId>) {
    let mut message = recorded(name);
    message.header.epoch = site.epoch(0);
    message.header.correlation = id.map_or(0, |id| id.0);
    message.header.credit = 0;
    site.hear(0, message);
}

/// What the broker hears, every message of which it can read.
fn heard(site: &mut Site) -> Vec<Message> {
    let sent = site.sent_to(0);
    sent.iter().for_each(can_be_read_by_version_1);
    sent
}

fn kinds(site: &mut Site) -> Vec<Kind> {
    let heard = heard(site);
    heard.iter().map(|message| message.header.kind).collect()
}

fn welcomed() -> Site {
    let mut site = Site::dialling(1);
    site.version = 1;
    site.up(0);
    let hello = heard(&mut site).remove(0);
    let hello = Hello::decode(&hello.metadata).unwrap();
    assert_eq!((hello.oldest, hello.newest), (1, VERSION));
    say(&mut site, "welcome", None);
    assert!(site.lane.is_welcome());
    site
}

#[test]
fn an_older_broker_gets_each_request_in_its_own_words_and_its_answer_is_understood() {
    let mut site = welcomed();
    let id = site.open(get());
    assert_eq!(kinds(&mut site), [Kind::Request]);
    say(&mut site, "interim", Some(id));
    say(&mut site, "response", Some(id));
    let content = recorded("response").content;
    match &site.delivered()[..] {
        [
            (_, Delivery::Interim(interim)),
            (
                _,
                Delivery::Head {
                    head, content: it, ..
                },
            ),
            ..,
        ] => {
            assert_eq!(*interim, recorded("interim").metadata);
            assert_eq!(*head, recorded("response").metadata);
            assert_eq!(*it, content);
        }
        other => panic!("{other:?}"),
    }

    let id = site.open(put());
    say(&mut site, "window-stream", Some(id));
    site.upload(id, b"content");
    site.end_upload(id, &complete());
    assert_eq!(
        kinds(&mut site),
        [Kind::Request, Kind::Chunk, Kind::End],
        "all of it"
    );
    say(&mut site, "response-events", Some(id));
    say(&mut site, "chunk", Some(id));
    say(&mut site, "end-failed", Some(id));
    let failed = site.delivered().pop().unwrap();
    assert!(
        matches!(&failed.1, Delivery::Failed(failure) if failure.reason == Reason::AppFailed),
        "{failed:?}"
    );

    let id = site.open(put());
    site.end_upload(id, &broken(Reason::TooLate));
    site.step(|lane, now, actions| lane.cancel(now, id, Reason::Quarantined, actions));
    heard(&mut site);
    let id = site.open(get());
    say(&mut site, "reject", Some(id));
    assert_eq!(site.failure().reason, Reason::QueueFull);

    say(&mut site, "window-connection", None);
    say(&mut site, "drain", None);
    assert!(!site.lane.is_welcome());
    say(&mut site, "heartbeat", None);
    let answer = heard(&mut site).pop().unwrap();
    let echo = Heartbeat::decode(&answer.metadata).unwrap().echo;
    let recorded = Heartbeat::decode(&recorded("heartbeat").metadata).unwrap();
    assert_eq!(echo, recorded.sequence);
    let counters = site.lane.counters;
    let dropped = counters.dropped_protocol + counters.dropped_epoch + counters.unknown_kind;
    assert_eq!(dropped + counters.malformed, 0, "all of it was understood");
}

#[test]
fn what_an_older_broker_says_in_the_newer_version_is_dropped() {
    let mut site = welcomed();
    let id = site.open(get());
    site.version = VERSION;
    let head = ResponseHead {
        status: 200,
        fields: Fields::default(),
    };
    site.say(0, Kind::Response, Some(id), head.encode());
    assert!(site.delivered().is_empty());
    assert_eq!(site.lane.counters.dropped_protocol, 1);
}

#[test]
fn after_an_older_broker_the_newer_one_in_its_place_is_spoken_to_in_full() {
    let mut site = welcomed();
    say(&mut site, "bye", None);
    site.version = VERSION;
    site.welcome(0);
    heard_in_full(&mut site);
    site.pass(Duration::from_secs(2), &[0]);
    heard_in_full(&mut site);
}

fn heard_in_full(site: &mut Site) {
    site.open(get());
    let sent = site.sent_to(0);
    let stated = |message: &Message| message.header.kind.stated_version(VERSION);
    assert!(
        sent.iter()
            .all(|message| message.header.version == stated(message))
    );
    assert!(!sent.is_empty());
}
