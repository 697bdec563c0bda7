//! The flight's state machine against a naive model: a model keeps the whole body and knows only
//! what a reader may be told, not how it is kept.

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use proptest::prelude::*;

use super::Failure;
use super::aim::Aim;
use super::announced::Announced;
use super::flight::{Admission, Bounds, Flight, Read, Room};
use super::seats::SeatId;
use super::test_time::at;
use crate::policy::{Policy, RequestFacts, Sharing};
use crate::store::ResponseHead;

const BUFFER: usize = 4096;
const LARGEST_CHUNK: usize = 700;
/// What a piece weighs beyond its bytes is less than this.
const OVERHEAD: usize = 128;

#[derive(Debug, Clone)]
enum Event {
    Join {
        is_head: bool,
    },
    Leave(usize),
    Announce,
    /// If there is room.
    Push(usize),
    Read(usize),
    Pass(u64),
    Complete,
    Fail,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => any::<bool>().prop_map(|is_head| Event::Join { is_head }),
        1 => (0_usize..8).prop_map(Event::Leave),
        2 => Just(Event::Announce),
        12 => (1..LARGEST_CHUNK).prop_map(Event::Push),
        12 => (0_usize..8).prop_map(Event::Read),
        4 => (0_u64..600).prop_map(Event::Pass),
        1 => Just(Event::Complete),
        1 => Just(Event::Fail),
    ]
}

/// A reader as the model sees it.
struct Seat {
    id: SeatId,
    is_head: bool,
    is_leader: bool,
    read: Vec<u8>,
}

struct Model {
    flight: Flight,
    is_shared: bool,
    patient: bool,
    now: Instant,
    body: Vec<u8>,
    seats: Vec<Seat>,
    is_announced: bool,
    is_complete: bool,
    is_failed: bool,
    /// Since when the producer has found no room although the fastest reader had read all.
    starving_since: Option<Instant>,
}

impl Model {
    fn new(is_shared: bool, patient: bool) -> Self {
        let facts = RequestFacts::of(&Method::GET, &HeaderMap::new(), false);
        let mut flight = Flight::new(
            at(0),
            facts,
            Bounds {
                buffer: BUFFER,
                max_object: 0,
                patient,
                has_disk: false,
            },
            Aim::Whole,
        );
        let leader = flight.seat(at(0), &facts, at(0), true);
        let seats = vec![Seat {
            id: leader,
            is_head: false,
            is_leader: true,
            read: Vec::new(),
        }];
        Self {
            flight,
            is_shared,
            patient,
            now: at(0),
            body: Vec::new(),
            seats,
            is_announced: false,
            is_complete: false,
            is_failed: false,
            starving_since: None,
        }
    }

    fn take(&mut self, event: &Event) {
        let has_ended = self.is_complete || self.is_failed;
        match event {
            Event::Join { is_head } => {
                let method = if *is_head { Method::HEAD } else { Method::GET };
                let facts = RequestFacts::of(&method, &HeaderMap::new(), false);
                if self.flight.admission(self.now, &facts) == Admission::Welcome {
                    assert!(!has_ended && (self.is_shared || !self.is_announced));
                    let id = self.flight.seat(self.now, &facts, self.now, false);
                    let read = Vec::new();
                    self.seats.push(Seat {
                        id,
                        is_head: *is_head,
                        is_leader: false,
                        read,
                    });
                }
            }
            Event::Leave(which) if *which < self.seats.len() => {
                let seat = self.seats.swap_remove(*which);
                self.flight.leave(seat.id);
            }
            Event::Announce if !self.is_announced && !has_ended => self.announce(),
            Event::Push(length) if !has_ended => self.push(*length),
            Event::Read(which) if *which < self.seats.len() => self.read(*which),
            Event::Pass(milliseconds) => self.now += Duration::from_millis(*milliseconds),
            Event::Complete if self.is_announced && !has_ended => {
                self.flight.check_complete().unwrap();
                self.flight.complete(None, None);
                self.is_complete = true;
            }
            Event::Fail if !has_ended => {
                self.flight.fail(Failure::VANISHED);
                self.is_failed = true;
            }
            _ => {}
        }
        assert!(self.flight.weight() <= BUFFER + LARGEST_CHUNK + OVERHEAD);
    }

    fn announce(&mut self) {
        let mut headers = HeaderMap::new();
        let control = if self.is_shared {
            "max-age=9999"
        } else {
            "private"
        };
        headers.insert("cache-control", control.parse().unwrap());
        let head = ResponseHead {
            status: StatusCode::OK,
            headers,
        };
        let wall = SystemTime::UNIX_EPOCH;
        let leader = *self.flight.leader();
        let sharing = Sharing::judge(Policy::default(), &leader, &head, Duration::ZERO, wall);
        let released = self
            .flight
            .announce(Announced::new(self.now, head, sharing, None, None));
        let waiters = self.seats.iter().filter(|seat| !seat.is_leader).count();
        assert_eq!(
            released,
            Ok(if self.is_shared { 0 } else { waiters as u64 })
        );
        self.is_announced = true;
        if !self.is_shared {
            self.seats.retain(|seat| seat.is_leader);
        }
    }

    fn push(&mut self, length: usize) {
        let (room, left_behind) = self.flight.room(self.now, false);
        let furthest = self
            .seats
            .iter()
            .filter(|seat| !seat.is_head)
            .map(|seat| seat.read.len());
        let furthest = furthest.max();
        if 0 < left_behind {
            let since = self.starving_since.expect("nobody is left behind at once");
            assert!(!self.patient && super::pace::HOLD_IN_ALL <= self.now - since);
        }
        match room {
            Room::Open(room) => {
                assert!(self.is_announced && 0 < room);
                let byte = u8::try_from(self.body.len() % 251).unwrap();
                let chunk = Bytes::from(vec![byte; length]);
                self.body.extend_from_slice(&chunk);
                self.flight.push(chunk).unwrap();
            }
            Room::Closed(until) => {
                assert!(until.is_none_or(|until| self.now < until));
                // Whoever has read everything is fed within what all holds may take together.
                if self.is_announced && !self.patient && furthest == Some(self.body.len()) {
                    assert!(until.is_some(), "the fastest reader starves for ever");
                }
                if until.is_some() {
                    self.starving_since.get_or_insert(self.now);
                }
            }
        }
    }

    fn read(&mut self, which: usize) {
        let furthest = self.seats.iter().map(|seat| seat.read.len()).max();
        let seat = &mut self.seats[which];
        let (read, _) = self.flight.read(seat.id);
        match read {
            Read::Data(bytes) => {
                assert!(self.is_announced && !self.is_failed && !seat.is_head);
                seat.read.extend_from_slice(&bytes);
                assert!(self.body.starts_with(&seat.read), "a wrong byte");
            }
            Read::Starved => {
                assert!(!self.is_complete && !self.is_failed);
                assert_eq!(seat.read.len(), self.body.len());
            }
            Read::End(_) => {
                let is_whole = self.is_complete && seat.read == self.body;
                assert!(is_whole || seat.is_head, "a clean short body");
            }
            Read::OnDisk => panic!("there is no disk"),
            Read::Behind => {
                assert!(self.is_shared && !self.patient && seat.read.len() < self.body.len());
                assert!(
                    Some(seat.read.len()) < furthest,
                    "the fastest was left behind"
                );
                self.seats.swap_remove(which);
            }
            Read::Failed(_) => assert!(self.is_failed),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_flight_tells_its_readers_what_the_model_would(
        is_shared in proptest::bool::weighted(0.8),
        patient in proptest::bool::weighted(0.2),
        events in proptest::collection::vec(event(), 1..300),
    ) {
        let mut model = Model::new(is_shared, patient);
        for event in &events {
            model.take(event);
        }
        // Whoever is left gets to an end, one way or the other.
        if !model.is_failed && !model.is_complete {
            if !model.is_announced {
                model.announce();
            }
            model.flight.complete(None, None);
            model.is_complete = true;
        }
        for seat in &model.seats {
            let end = loop {
                match model.flight.read(seat.id).0 {
                    Read::Data(_) => {}
                    end => break end,
                }
            };
            prop_assert!(!matches!(end, Read::Starved));
        }
        for seat in std::mem::take(&mut model.seats) {
            model.flight.leave(seat.id);
        }
        prop_assert_eq!((model.flight.taken_seats(), model.flight.weight()), (0, 0));
    }
}

#[test]
fn a_continuation_must_start_where_it_was_asked_to_and_reach_the_end() {
    use super::aim::Continuation;
    let facts = RequestFacts::of(&Method::GET, &HeaderMap::new(), false);
    let continuation = Continuation {
        offset: 10,
        validator: "\"a\"".parse().unwrap(),
        variant: None,
    };
    let bounds = Bounds {
        buffer: BUFFER,
        max_object: 0,
        patient: false,
        has_disk: false,
    };
    let announce = |status, fields: &[(&'static str, &str)]| {
        let mut flight = Flight::new(at(0), facts, bounds, Aim::Rest(continuation.clone()));
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.insert(*name, value.parse().unwrap());
        }
        let head = ResponseHead { status, headers };
        let wall = SystemTime::UNIX_EPOCH;
        let sharing = Sharing::judge(Policy::default(), &facts, &head, Duration::ZERO, wall);
        flight.announce(Announced::new(at(0), head, sharing, None, Some(10)))
    };
    let part = StatusCode::PARTIAL_CONTENT;
    assert!(
        announce(
            part,
            &[("etag", "\"a\""), ("content-range", "bytes 10-99/100")]
        )
        .is_ok()
    );
    assert!(
        announce(StatusCode::OK, &[("etag", "\"a\"")]).is_ok(),
        "it knows no ranges"
    );
    for (status, etag, range) in [
        (part, "\"b\"", "bytes 10-99/100"),
        (part, "W/\"a\"", "bytes 10-99/100"),
        (part, "\"a\"", "bytes 11-99/100"),
        (part, "\"a\"", "bytes 10-98/100"),
        (part, "\"a\"", "bytes 10-99/*"),
        (part, "\"a\"", "bytes 10-18446744073709551615/0"),
        (part, "\"a\"", "rubbish"),
        (StatusCode::OK, "\"b\"", ""),
        (StatusCode::RANGE_NOT_SATISFIABLE, "\"a\"", ""),
    ] {
        let outcome = announce(status, &[("etag", etag), ("content-range", range)]);
        assert_eq!(
            outcome,
            Err(Failure::DISCONTINUED),
            "{status} {etag} {range}"
        );
    }
}
