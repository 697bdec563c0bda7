//! Whatever happens, in whatever order: what must hold holds.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use scale0_wire::{Bye, End, Explain, Flags, FlightKey, Kind, Reason, Window, limits};

use super::site::{Site, broken, complete, get};
use super::{Delivery, Lane, OpenRequest, StreamId};

const BROKERS: usize = 3;

/// Something that happens. Streams and brokers are named by numbers, of which the remainder counts.
#[derive(Clone, Debug)]
enum Event {
    Up(usize),
    Down(usize),
    Welcome(usize, u32),
    Bye(usize, Bye),
    Drain(usize),
    Open {
        whole: bool,
        idempotent: bool,
        upgrade: bool,
        flight: u128,
    },
    /// The owner, if it was told that it may.
    Upload(usize, usize),
    EndUpload(usize, bool),
    Consume(usize),
    Cancel(usize),
    Extend(usize),
    /// The broker that has the stream says this of it.
    Say(usize, Saying),
    /// Any broker does, whether it has it or not.
    Lie(usize, usize, Saying),
    ConnectionWindow(usize, u64),
    /// These brokers say heartbeats meanwhile, by the bits.
    Pass(u64, u8),
}

#[derive(Clone, Debug)]
enum Saying {
    Interim,
    Explain,
    Head { content: usize, whole: bool },
    Upgrade,
    Chunk(usize),
    End,
    Failed(Reason, u8),
    Reject(Reason),
    Window(u64),
    Rubbish(Kind),
}

fn reason() -> impl Strategy<Value = Reason> {
    prop::sample::select(Reason::ALL)
}

fn saying() -> impl Strategy<Value = Saying> {
    let content = prop_oneof![0..10_usize, Just(limits::CONTENT)];
    prop_oneof![
        1 => Just(Saying::Interim),
        1 => Just(Saying::Explain),
        1 => (0..10_usize, any::<bool>()).prop_map(|(content, whole)| Saying::Head { content, whole }),
        1 => Just(Saying::Upgrade),
        1 => content.prop_map(Saying::Chunk),
        1 => Just(Saying::End),
        1 => (reason(), 0..5_u8).prop_map(|(reason, losses)| Saying::Failed(reason, losses)),
        1 => reason().prop_map(Saying::Reject),
        4 => (0..200_000_u64).prop_map(Saying::Window),
        1 => any::<u8>().prop_map(|number| Saying::Rubbish(Kind::from_number(number))),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let bye = prop_oneof![
        Just(Bye::Leaving),
        Just(Bye::Lost),
        Just(Bye::Replaced),
        Just(Bye::ProtocolError),
        Just(Bye::UnknownSession),
        Just(Bye::Version),
        Just(Bye::Silent),
        Just(Bye::NotAllowed),
        (0..3000_u32).prop_map(Bye::Quarantined),
    ];
    prop_oneof![
        2 => (0..BROKERS).prop_map(Event::Up),
        1 => (0..BROKERS).prop_map(Event::Down),
        4 => (0..BROKERS, 0..200_000_u32).prop_map(|(broker, window)| Event::Welcome(broker, window)),
        1 => (0..BROKERS, bye).prop_map(|(broker, bye)| Event::Bye(broker, bye)),
        1 => (0..BROKERS).prop_map(Event::Drain),
        6 => (any::<bool>(), any::<bool>(), any::<bool>(), 0..3_u128).prop_map(|(whole, idempotent, upgrade, flight)| {
            Event::Open { whole, idempotent, upgrade, flight }
        }),
        8 => (any::<usize>(), 0..150_000_usize).prop_map(|(stream, bytes)| Event::Upload(stream, bytes)),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(stream, complete)| Event::EndUpload(stream, complete)),
        2 => any::<usize>().prop_map(Event::Consume),
        1 => any::<usize>().prop_map(Event::Cancel),
        1 => any::<usize>().prop_map(Event::Extend),
        16 => (any::<usize>(), saying()).prop_map(|(stream, saying)| Event::Say(stream, saying)),
        2 => (0..BROKERS, any::<usize>(), saying()).prop_map(|(broker, stream, saying)| Event::Lie(broker, stream, saying)),
        4 => (0..BROKERS, 0..1_000_000_u64).prop_map(|(broker, limit)| Event::ConnectionWindow(broker, limit)),
        2 => (0..4000_u64, any::<u8>()).prop_map(|(time, alive)| Event::Pass(time, alive)),
    ]
}

/// A stream as its owner and its brokers see it.
#[derive(Debug, Default)]
struct Told {
    /// Handed over, and how much of it has been sent.
    content: Vec<u8>,
    chunks: Vec<u8>,
    may_upload: bool,
    has_ended: bool,
    broke_off: bool,
    /// Bytes the backend it is with now lets go up.
    window: u64,
    sent: u64,
    unconsumed: usize,
    head_came: bool,
    is_over: bool,
    /// REQUESTs sent.
    requests: usize,
}

/// What a broker's present session allows.
#[derive(Debug, Default)]
struct Allowed {
    window: u64,
    sent: u64,
}

struct World {
    site: Site,
    streams: HashMap<StreamId, Told>,
    ids: Vec<StreamId>,
    allowed: Vec<Allowed>,
    /// The next byte that an owner hands over, so that each is known again.
    byte: u8,
}

impl World {
    fn pick(&self, number: usize) -> Option<StreamId> {
        (!self.ids.is_empty()).then(|| self.ids[number % self.ids.len()])
    }

    fn holder(&self, id: StreamId) -> Option<usize> {
        let stream = self
            .site
            .lane
            .streams
            .get(id.seat())
            .filter(|stream| stream.id == id)?;
        self.site
            .links
            .iter()
            .position(|link| Some(*link) == stream.link)
    }

    fn say(&mut self, broker: usize, id: StreamId, saying: &Saying) {
        let head = Bytes::from_static(b"head");
        match *saying {
            Saying::Interim => self.site.say(broker, Kind::Interim, Some(id), head),
            Saying::Explain => {
                let account = Explain::default().encode();
                self.site.say(broker, Kind::Explain, Some(id), account);
            }
            Saying::Head { content, whole } => {
                let flags = Flags(0).with(Flags::FINAL, whole);
                self.site
                    .say_more(broker, Kind::Response, Some(id), head, content, flags);
            }
            Saying::Upgrade => self.site.say(broker, Kind::Upgrade, Some(id), head),
            Saying::Chunk(bytes) => self.site.chunk(broker, id, bytes),
            Saying::End => self.site.end(broker, id, &complete()),
            Saying::Failed(reason, losses) => self.site.fail_after(broker, id, reason, losses),
            Saying::Reject(reason) => self.site.reject(broker, id, reason),
            Saying::Window(limit) => {
                if self.holder(id) == Some(broker)
                    && let Some(told) = self.streams.get_mut(&id)
                {
                    told.window = told.window.max(limit);
                }
                self.site.window(broker, Some(id), limit);
            }
            Saying::Rubbish(kind) => {
                self.site
                    .say(broker, kind, Some(id), Bytes::from_static(b"\xfe\xfe"));
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Up(broker) => self.site.up(broker),
            Event::Down(broker) => self.site.down(broker),
            Event::Welcome(broker, window) => {
                if self.site.lane.brokers()[broker].state == "greeting" {
                    self.allowed[broker] = Allowed {
                        window: window.into(),
                        sent: 0,
                    };
                }
                self.site.welcome_with(broker, window, limits::HEARTBEAT);
            }
            Event::Bye(broker, why) => self.site.bye(broker, why),
            Event::Drain(broker) => self.site.say(broker, Kind::Drain, None, Bytes::new()),
            Event::Open {
                whole,
                idempotent,
                upgrade,
                flight,
            } => {
                let open = OpenRequest {
                    whole,
                    idempotent,
                    upgrade,
                    flight: FlightKey(flight),
                    explain: flight == 0,
                    ..get()
                };
                if let Ok(id) = self
                    .site
                    .step(|lane, now, actions| lane.open(now, open, actions))
                {
                    self.ids.push(id);
                    self.streams.insert(
                        id,
                        Told {
                            has_ended: whole,
                            ..Told::default()
                        },
                    );
                }
            }
            Event::Upload(stream, bytes) => {
                let Some(id) = self.pick(stream) else { return };
                let Some(told) = self.streams.get_mut(&id) else {
                    return;
                };
                if told.may_upload && !told.has_ended {
                    told.may_upload = false;
                    let piece: Vec<u8> = (0..bytes)
                        .map(|_| {
                            self.byte = self.byte.wrapping_mul(5).wrapping_add(1);
                            self.byte
                        })
                        .collect();
                    told.content.extend_from_slice(&piece);
                    self.site.upload(id, &piece);
                }
            }
            Event::EndUpload(stream, is_complete) => {
                let Some(id) = self.pick(stream) else { return };
                let Some(told) = self.streams.get_mut(&id) else {
                    return;
                };
                if !told.has_ended {
                    told.has_ended = true;
                    told.broke_off = !is_complete;
                    self.site.end_upload(
                        id,
                        &if is_complete {
                            complete()
                        } else {
                            broken(Reason::ClientGone)
                        },
                    );
                }
            }
            Event::Consume(stream) => {
                let Some(id) = self.pick(stream) else { return };
                let bytes = self
                    .streams
                    .get_mut(&id)
                    .map_or(0, |told| std::mem::take(&mut told.unconsumed));
                self.site
                    .step(|lane, now, actions| lane.consume(now, id, bytes, actions));
            }
            Event::Cancel(stream) => {
                let Some(id) = self.pick(stream) else { return };
                self.site
                    .step(|lane, now, actions| lane.cancel(now, id, Reason::Cancelled, actions));
                if let Some(told) = self.streams.get_mut(&id) {
                    told.is_over = true;
                }
            }
            Event::Extend(stream) => {
                let Some(id) = self.pick(stream) else { return };
                let due = self.site.now + Duration::from_secs(40);
                self.site
                    .step(|lane, now, actions| lane.extend(now, id, due, 3, actions));
            }
            Event::Say(stream, saying) => {
                let Some(id) = self.pick(stream) else { return };
                if let Some(broker) = self.holder(id) {
                    self.say(broker, id, &saying);
                }
            }
            Event::Lie(broker, stream, saying) => {
                if let Some(id) = self.pick(stream) {
                    self.say(broker, id, &saying);
                }
            }
            Event::ConnectionWindow(broker, limit) => {
                self.allowed[broker].window = self.allowed[broker].window.max(limit);
                self.site
                    .say(broker, Kind::Window, None, Window(limit).encode());
            }
            Event::Pass(time, alive) => {
                let alive: Vec<usize> = (0..BROKERS)
                    .filter(|broker| alive & 1 << broker != 0)
                    .collect();
                self.site.pass(Duration::from_millis(time), &alive);
            }
        }
        self.settle();
    }

    /// Compares what the lane did with what it may do.
    fn settle(&mut self) {
        for broker in 0..BROKERS {
            for message in self.site.sent_to(broker) {
                let header = message.header;
                assert!(message.content.len() <= limits::CONTENT);
                let id = StreamId(header.correlation);
                match header.kind {
                    Kind::Request => {
                        let told = self
                            .streams
                            .get_mut(&id)
                            .expect("a REQUEST is of a stream that was opened");
                        assert!(
                            !told.is_over && !told.head_came,
                            "a request is repeated after its head or its end"
                        );
                        assert!(
                            told.chunks.is_empty(),
                            "a request is repeated after its first CHUNK"
                        );
                        told.requests += 1;
                        // Three after losses at the most, each to every broker that refuses.
                        assert!(told.requests <= 3 * BROKERS);
                        (told.window, told.sent) = (0, 0);
                    }
                    Kind::Chunk => {
                        let told = self
                            .streams
                            .get_mut(&id)
                            .expect("a CHUNK is of a stream that was opened");
                        assert!(!message.content.is_empty() && !told.is_over);
                        told.chunks.extend_from_slice(&message.content);
                        told.sent += message.content.len() as u64;
                        assert!(told.sent <= told.window, "beyond the stream's window");
                        assert!(
                            told.content.starts_with(&told.chunks),
                            "content out of order"
                        );
                        let allowed = &mut self.allowed[broker];
                        allowed.sent += message.content.len() as u64;
                        assert!(
                            allowed.sent <= allowed.window,
                            "beyond the connection's window"
                        );
                    }
                    Kind::End => {
                        let told = self
                            .streams
                            .get_mut(&id)
                            .expect("an END is of a stream that was opened");
                        assert!(told.has_ended && !told.is_over);
                        let is_complete =
                            matches!(End::decode(&message.metadata), Ok(End::Complete(_)));
                        assert_eq!(is_complete, !told.broke_off);
                        assert!(
                            told.broke_off || told.chunks == told.content,
                            "an END before all content"
                        );
                    }
                    _ => {}
                }
            }
        }
        for (id, delivery) in self.site.delivered() {
            let told = self
                .streams
                .get_mut(&id)
                .expect("a delivery is for a stream that was opened");
            assert!(!told.is_over, "{delivery:?} after the last word");
            match delivery {
                Delivery::Ready => {
                    assert!(!told.may_upload, "asked for a second piece");
                    told.may_upload = true;
                }
                Delivery::Interim(_) | Delivery::Told(_) => assert!(!told.head_came),
                Delivery::Head {
                    content,
                    whole,
                    upgrade,
                    ..
                } => {
                    assert!(!std::mem::replace(&mut told.head_came, true));
                    told.unconsumed += content.len();
                    told.is_over = whole;
                    if upgrade && told.has_ended {
                        // The way up is open anew, for other bytes.
                        told.has_ended = false;
                        told.broke_off = false;
                        told.may_upload = false;
                        told.content.truncate(told.chunks.len());
                    }
                }
                Delivery::Content(content) => {
                    assert!(told.head_came);
                    told.unconsumed += content.len();
                    assert!(
                        told.unconsumed <= limits::STREAM_WINDOW as usize,
                        "more than its reader has room for"
                    );
                }
                Delivery::End(_) => {
                    assert!(told.head_came);
                    told.is_over = true;
                }
                Delivery::Failed(failure) => {
                    assert!(failure.started || !told.head_came);
                    told.is_over = true;
                }
            }
        }
        let open = self.streams.values().filter(|told| !told.is_over).count();
        assert_eq!(
            open,
            self.site.lane.open_streams(),
            "a stream without a last word, or with one and still open"
        );
        self.site.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn every_stream_has_one_last_word_and_no_window_is_exceeded(events in prop::collection::vec(event(), 1..150)) {
        let mut world = World {
            site: Site::dialling(BROKERS),
            streams: HashMap::new(),
            ids: Vec::new(),
            allowed: (0..BROKERS).map(|_| Allowed::default()).collect(),
            byte: 0,
        };
        for event in events {
            world.happen(event);
        }
        // With nobody there any more, time alone ends what is left.
        for broker in 0..BROKERS {
            world.site.down(broker);
        }
        world.site.pass(Duration::from_secs(11), &[]);
        world.settle();
        prop_assert_eq!(world.site.lane.open_streams(), 0);
        prop_assert!(world.streams.values().all(|told| told.is_over));
        world.site.step(Lane::tick);
        world.settle();
    }
}
