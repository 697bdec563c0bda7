//! Whatever happens in whatever order, the counts hold and nothing is left over.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use scale0_wire::{Bye, Cancel, End, Fields, Flags, Kind, Message, Reason};

use super::tests::Stage;
use super::{Action, BrokerId, Event, Output, Shape, StreamId};

const CAPACITY: u32 = 3;
const BROKERS: usize = 2;

/// A stage on which handlers are remembered, as the shell does.
struct Storm {
    stage: Stage,
    handlers: Vec<StreamId>,
    /// The greatest capacity so far.
    most: u32,
}

impl Storm {
    fn step(&mut self, event: Event) {
        self.stage.step(event);
        self.settle();
    }

    /// Takes in what the session wants of handlers, and checks what must hold.
    fn settle(&mut self) {
        for action in self.stage.actions.drain(..) {
            match action {
                Action::Serve(call) => self.handlers.push(call.stream),
                Action::Forget(stream) => self.handlers.retain(|it| *it != stream),
                _ => {}
            }
        }
        let session = &self.stage.session;
        let credited = session.streams.iter().filter(|(_, it)| it.credited);
        assert_eq!(credited.count() as u64, session.ledger.occupied());
        assert!(session.ledger.occupied() <= u64::from(self.most));
        for broker in &session.brokers {
            let known = broker.streams.values();
            assert!(known.into_iter().all(|it| session.streams.contains(*it)));
            let in_line = broker.line.iter();
            assert!(in_line.into_iter().all(|it| session.streams.contains(*it)));
        }
    }

    fn handler(&self, number: u64) -> Option<StreamId> {
        let count = self.handlers.len().max(1);
        let at = usize::try_from(number).unwrap() % count;
        self.handlers.get(at).copied()
    }

    fn deed(&mut self, what: u8, broker: usize, number: u64) {
        let id = BrokerId(broker);
        let epoch_is_right = !number.is_multiple_of(7);
        let mut header = self.stage.header(broker, Kind::Request, number);
        header.epoch -= u64::from(!epoch_is_right);
        header.window = 100;
        let length = usize::try_from(number).unwrap() * 40;
        let content = Bytes::from(vec![0; length]);
        let end = || End::Complete(Fields::default()).encode();
        match what {
            0 => {
                self.stage.up(broker);
                self.stage.welcome(broker);
                self.settle();
            }
            1 => self.step(Event::Down(id)),
            2 | 3 => {
                header.flags = header.flags.with(Flags::FINAL, what == 2);
                self.step(Event::Message(id, Message::new(header)));
            }
            4 => {
                header.kind = Kind::Chunk;
                let message = Message::new(header).with_content(content);
                self.step(Event::Message(id, message));
            }
            5 => {
                self.stage.window(broker, number, number * 1_000);
                self.settle();
            }
            6 => {
                let cancel = Cancel(Reason::ClientGone).encode();
                self.stage.say(broker, Kind::Cancel, number, cancel);
                self.settle();
            }
            7 => {
                self.stage.say(broker, Kind::End, number, end());
                self.settle();
            }
            8 => {
                self.stage.bye(broker, Bye::UnknownSession);
                self.settle();
            }
            9 => self.step(Event::Full(id)),
            10 => self.step(Event::Writable(id)),
            11 => {
                self.stage.demand(broker, u32::try_from(number).unwrap());
                self.stage.give_back(broker, number);
                self.settle();
            }
            12 => {
                self.stage.pass(Duration::from_millis(300));
                self.settle();
            }
            13 => {
                let capacity = u32::try_from(number).unwrap();
                self.most = self.most.max(capacity);
                self.step(Event::Capacity(capacity));
            }
            _ => self.handler_deed(what, number, content, end()),
        }
    }

    fn handler_deed(&mut self, what: u8, number: u64, content: Bytes, end: Bytes) {
        let Some(stream) = self.handler(number) else {
            return;
        };
        let charge = content.len();
        let head = |shape, last| Output::Head {
            metadata: Bytes::new(),
            content: content.clone(),
            shape,
            last,
        };
        self.step(match what {
            14 => Event::Output(stream, head(Shape::Plain, true)),
            15 => Event::Output(stream, head(Shape::Plain, false)),
            16 => Event::Output(stream, head(Shape::EventStream, false)),
            17 => Event::Output(stream, head(Shape::Upgrade, false)),
            18 => Event::Output(stream, Output::Data { content, charge }),
            19 => Event::Output(stream, Output::End(end)),
            20 => Event::Output(stream, Output::Reject(Bytes::new())),
            21 => Event::Reading(stream),
            22 => Event::Consumed(stream, 40),
            _ => Event::Stopped(stream),
        });
    }
}

proptest! {
    #[test]
    fn nothing_is_counted_twice_and_nothing_is_left_over(
        deeds in proptest::collection::vec((0u8..24, 0..BROKERS, 1u64..9), 0..400),
    ) {
        let mut storm = Storm {
            stage: Stage::welcomed(CAPACITY, BROKERS),
            handlers: Vec::new(),
            most: CAPACITY,
        };
        for (what, broker, number) in deeds {
            storm.deed(what, broker, number);
        }
        storm.step(Event::Cut);
        while let Some(stream) = storm.handlers.pop() {
            storm.step(Event::Stopped(stream));
        }
        storm.stage.tick();
        storm.settle();
        prop_assert!(storm.stage.session.streams.is_empty());
        prop_assert!(storm.stage.session.is_gone());
    }
}
