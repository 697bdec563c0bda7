//! Peers that break the rules: counted, bounded, and nobody else's business.

use bytes::Bytes;
use proptest::prelude::*;
use scale0_transport::{PeerId, Port};
use scale0_wire::{Flags, Kind, Message, Reason, RoutingHeader, ServiceId};
use std::time::Duration;

use crate::core::testing::{Peer, SHOP, Site, about, chunk, get, response};
use crate::core::{Action, Broker, BrokerConfig, Event};

#[test]
fn kinds_that_a_side_must_not_send_are_dropped_and_counted() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 1);
    let frontend = site.frontend();
    for kind in [Kind::Welcome, Kind::Credit, Kind::Reject, Kind::Response] {
        site.say(frontend, about(kind, 1));
    }
    for kind in [Kind::Request, Kind::Cancel, Kind::Demand] {
        site.say(backend, about(kind, 1));
    }
    assert_eq!(site.broker.counters().dropped_out_of_place, 7);
    site.hears_nothing(frontend);
    site.hears_nothing(backend);
}

#[test]
fn a_kind_of_a_later_version_is_ignored_or_answered_as_its_number_says() {
    let mut site = Site::new();
    let frontend = site.frontend();
    site.say(frontend, about(Kind::Unknown(99), 3));
    site.hears_nothing(frontend);
    site.say(frontend, about(Kind::Unknown(200), 3));
    assert_eq!(
        site.hears(frontend, Kind::Unsupported).header.correlation,
        3
    );
}

#[test]
fn a_number_in_use_cannot_be_used_twice() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 2);
    let frontend = site.frontend();
    site.get(frontend, 1);
    site.get(frontend, 1);
    site.get(frontend, 0);
    site.is_asked(backend);
    site.hears_nothing(backend);
}

#[test]
fn a_backend_cannot_answer_what_another_was_asked() {
    let mut site = Site::new();
    let asked_one = site.backend(SHOP, 1);
    let frontend = site.frontend();
    site.get(frontend, 1);
    let asked = site.is_asked(asked_one);
    let thief = site.backend("other", 1);
    site.respond(thief, asked);
    site.hears_nothing(frontend);
    assert_eq!(site.broker.counters().dropped_unknown_stream, 1);
}

#[test]
fn a_response_out_of_order_fails_its_stream_alone() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 2);
    let frontend = site.frontend();
    site.get(frontend, 1);
    site.get(frontend, 2);
    let (first, second) = (site.is_asked(backend), site.is_asked(backend));
    site.say(backend, chunk(first, 1));
    site.is_failed(frontend, 1, Reason::ProtocolError);
    site.hears(backend, Kind::Cancel);
    site.respond(backend, second);
    site.is_answered(frontend, 2);
}

#[test]
fn an_upgrade_nobody_asked_for_fails_the_request() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 1);
    let frontend = site.frontend();
    site.get(frontend, 1);
    let asked = site.is_asked(backend);
    site.say(backend, about(Kind::Upgrade, asked));
    site.is_failed(frontend, 1, Reason::ProtocolError);
}

#[test]
fn upload_content_before_anybody_asked_for_it_fails_the_request() {
    let mut site = Site::new();
    let _backend = site.busy_backend(SHOP);
    let frontend = site.frontend();
    let mut request = get(1);
    request.header.flags = Flags(0);
    site.say(frontend, request);
    site.say(frontend, chunk(1, 1));
    site.is_refused(frontend, 1, Reason::ProtocolError);
}

#[test]
fn more_streams_than_a_session_may_have_are_refused() {
    let mut site = Site::with(|config| config.limits.requests_per_session = 2);
    let _backend = site.busy_backend(SHOP);
    let frontend = site.frontend();
    for correlation in 1..=3 {
        site.get(frontend, correlation);
    }
    site.is_refused(frontend, 3, Reason::TooManyStreams);
}

#[test]
fn a_flood_of_hellos_costs_one_session_at_the_most() {
    let mut site = Site::new();
    let mut peer = site.peer(Port::Backends);
    for _ in 0..10_000 {
        peer.epoch += 1;
        site.hello(peer, &[SHOP, "cart"], 1);
    }
    let snapshot = site.broker.snapshot(site.now);
    assert!(snapshot.backends.len() <= 1 && snapshot.services.len() == 2);
    let counters = site.broker.counters();
    assert!(counters.sessions_opened <= 5);
}

#[test]
fn sessions_and_services_are_bounded() {
    let mut site = Site::with(|config| {
        config.limits.sessions = 3;
        config.limits.services = 4;
    });
    for number in 0..10 {
        let peer = site.peer(Port::Backends);
        let names = [format!("a{number}"), format!("b{number}")];
        site.hello(peer, &[&names[0], &names[1]], 1);
    }
    let snapshot = site.broker.snapshot(site.now);
    assert_eq!((snapshot.backends.len(), snapshot.services.len()), (3, 4));
    assert_eq!(site.broker.counters().sessions_refused, 7);
    assert_eq!(site.broker.counters().services_refused, 2);
    // Services that are only asked for count as well.
    let frontend = site.frontend();
    site.get(frontend, 1);
    site.is_refused(frontend, 1, Reason::UnknownService);
}

#[test]
fn peers_of_other_sites_are_told_that_they_are_not_spoken_to() {
    let mut site = Site::new();
    let peer = site.peer(Port::Peers);
    site.hello(peer, &[], 0);
    site.hears(peer, Kind::Unsupported);
}

#[test]
fn another_version_is_told_so() {
    let mut site = Site::new();
    let peer = site.peer(Port::Frontends);
    let hello = scale0_wire::Hello {
        oldest: 7,
        newest: 9,
        node: "later".to_owned(),
        instance: 1,
        lane: 0,
        heartbeat: Duration::from_secs(1),
        window: 1,
        capacity: 0,
        services: Vec::new(),
    };
    let message = Message::new(RoutingHeader::new(Kind::Hello));
    site.say(peer, message.with_metadata(hello.encode()));
    site.is_dismissed(peer, scale0_wire::Bye::Version);
}

#[test]
fn names_that_nobody_offers_any_more_give_way_to_those_that_somebody_does() {
    let mut site = Site::with(|config| config.limits.services = 3);
    let flood = site.peer(Port::Backends);
    site.join(flood, &["a", "b", "c"], 1);
    site.cut(flood);
    let frontend = site.frontend();
    site.say(frontend, {
        let mut asked = get(1);
        asked.header.service = ServiceId::of(b"a");
        asked
    });
    let shop = site.backend(SHOP, 1);
    assert_eq!(site.broker.counters().services_refused, 0);
    site.get(frontend, 2);
    site.is_asked(shop);
    let mut names: Vec<_> = (site.broker.snapshot(site.now).services.into_iter())
        .map(|service| service.name)
        .collect();
    names.sort_unstable();
    let names: Vec<&str> = names.iter().map(|name| &**name).collect();
    assert_eq!(names, ["a", "c", SHOP], "who waits for \"a\" still does");
}

#[test]
fn who_dials_the_port_of_others_is_told_so() {
    let mut site = Site::new();
    let backend = site.peer(Port::Frontends);
    site.hello(backend, &[SHOP], 4);
    site.is_dismissed(backend, scale0_wire::Bye::ProtocolError);
    let frontend = site.peer(Port::Backends);
    site.hello(frontend, &[], 0);
    site.is_dismissed(frontend, scale0_wire::Bye::ProtocolError);
}

/// One of the things that can happen, most of them wrong.
#[derive(Clone, Debug)]
enum Happening {
    Message {
        peer: usize,
        kind: u8,
        correlation: u8,
        flags: u16,
        credit: u64,
        old_epoch: bool,
        metadata: Vec<u8>,
        content: usize,
    },
    Hello(usize),
    /// Which of the services it adds and withdraws, a bit for each.
    Announce(usize, u8, u8),
    Get(usize, u64),
    Answer(usize, u16),
    Reject(usize),
    Lost(usize),
    Wait(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening::{Announce, Answer, Get, Hello, Lost, Reject, Wait};
    let message = (
        0..PEERS,
        any::<u8>(),
        0_u8..6,
        any::<u16>(),
        prop_oneof![0_u64..20, any::<u64>()],
        any::<bool>(),
        prop::collection::vec(any::<u8>(), 0..12),
        0_usize..70_000,
    )
        .prop_map(
            |(peer, kind, correlation, flags, credit, old_epoch, metadata, content)| {
                Happening::Message {
                    peer,
                    kind: if kind < 160 { kind % 26 } else { kind },
                    correlation,
                    flags,
                    credit,
                    old_epoch,
                    metadata,
                    content,
                }
            },
        );
    prop_oneof![
        6 => message,
        3 => (0..PEERS).prop_map(Hello),
        3 => (0..PEERS, 0..16_u8, 0..16_u8).prop_map(|(peer, added, withdrawn)| Announce(peer, added, withdrawn)),
        6 => (0..PEERS, 1_u64..6).prop_map(|(peer, correlation)| Get(peer, correlation)),
        6 => (0..PEERS, prop_oneof![Just(1), Just(0), Just(8)]).prop_map(|(peer, flags)| Answer(peer, flags)),
        1 => (0..PEERS).prop_map(Reject),
        1 => (0..PEERS).prop_map(Lost),
        2 => (1_u64..5000).prop_map(Wait),
    ]
}

/// What is asked for.
const SERVICES: [&str; 4] = [SHOP, "img", "api", "*"];

/// The even ones are frontends.
const PEERS: usize = 6;

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_nothing_panics_every_request_has_one_outcome_and_all_is_given_back(
        happenings in prop::collection::vec(happening(), 1..150),
    ) {
        let mut site = Site::with(|config| {
            config.queue.requests = 4;
            config.limits.bytes_per_peer = 200_000;
            config.limits.kept_bytes = 2000;
            config.limits.streams = 3;
        });
        let mut peers: Vec<Peer> = (0..PEERS)
            .map(|index| site.peer(if index % 2 == 0 { Port::Frontends } else { Port::Backends }))
            .collect();
        let mut asked: Vec<(usize, u64)> = Vec::new();
        for happening in happenings {
            match happening {
                Happening::Message { peer, kind, correlation, flags, credit, old_epoch, metadata, content } => {
                    let header = RoutingHeader {
                        flags: Flags(flags),
                        correlation: asked.get(usize::from(correlation)).map_or(correlation.into(), |&(_, asked)| asked),
                        epoch: peers[peer].epoch - u64::from(old_epoch),
                        deadline_ms: u32::from(flags),
                        hold_ms: 1000,
                        service: ServiceId::of(SHOP.as_bytes()),
                        credit,
                        ..RoutingHeader::new(Kind::from_number(kind))
                    };
                    let message = Message::new(header)
                        .with_metadata(metadata.into())
                        .with_content(Bytes::from(vec![0; content]));
                    let Peer { id: from, port, locality, .. } = peers[peer];
                    site.step(Event::Received { from, port, locality, message: message.into() });
                }
                Happening::Hello(peer) => {
                    peers[peer].epoch += 1;
                    site.hello(peers[peer], &[SHOP], 2);
                    site.grant(peers[peer], 2);
                }
                Happening::Announce(peer, added, withdrawn) => {
                    let named = |bits: u8| {
                        let names = SERVICES.iter().enumerate();
                        let named = names.filter(|(bit, _)| bits & 1 << bit != 0);
                        named.map(|(_, name)| (*name).to_owned()).collect()
                    };
                    let (added, withdrawn) = (named(added), named(withdrawn));
                    let announce = scale0_wire::Announce { added, withdrawn };
                    site.tell(peers[peer], Kind::Announce, 0, announce.encode());
                }
                Happening::Get(peer, correlation) => {
                    let mut asked = get(correlation);
                    let service = SERVICES[usize::try_from(correlation).unwrap() % SERVICES.len()];
                    asked.header.service = ServiceId::of(service.as_bytes());
                    site.say(peers[peer], asked);
                }
                Happening::Answer(peer, flags) => {
                    if let Some(index) = asked.iter().position(|&(whose, _)| whose == peer) {
                        let (_, stream) = asked[index];
                        site.grant(peers[peer], 1);
                        site.say(peers[peer], response(stream, Flags(flags)));
                        if flags == 1 {
                            asked.swap_remove(index);
                        }
                    }
                }
                Happening::Reject(peer) => {
                    if let Some(index) = asked.iter().position(|&(whose, _)| whose == peer) {
                        let (_, stream) = asked.swap_remove(index);
                        site.reject(peers[peer], stream, Reason::AppRefused);
                    }
                }
                Happening::Lost(peer) => site.step(Event::Lost { peer: peers[peer].id }),
                Happening::Wait(ms) => site.wait(Duration::from_millis(ms)),
            }
            for (index, &peer) in peers.iter().enumerate() {
                while let Some(message) = site.next(peer) {
                    if message.header.kind == Kind::Request {
                        asked.push((index, message.header.correlation));
                    }
                }
            }
            check(&site);
        }
        for peer in peers {
            site.step(Event::Lost { peer: peer.id });
        }
        check(&site);
        let snapshot = site.broker.snapshot(site.now);
        prop_assert_eq!(snapshot.open_requests + snapshot.abandoned + snapshot.streams, 0);
        prop_assert_eq!(snapshot.kept_bytes, 0);
        prop_assert!(snapshot.services.iter().all(|service| service.queued == 0 && service.queued_bytes == 0));
    }
}

/// What must hold after every step.
fn check(site: &Site) {
    let snapshot = site.broker.snapshot(site.now);
    let counters = site.broker.counters();
    let outcomes = counters.answered
        + counters.failed_by_backend
        + counters.cancelled
        + counters.frontend_lost
        + counters.given_up;
    assert_eq!(counters.requests, outcomes + snapshot.open_requests as u64);
    assert_eq!(
        counters.given_up,
        counters.refused.sum() + counters.failed.sum()
    );
    assert!(snapshot.kept_bytes <= 2000);
    assert!(snapshot.streams <= 3 + snapshot.abandoned);
    for service in &snapshot.services {
        assert!(service.queued - service.queued_repeats <= service.queue_limit);
    }
    for backend in &snapshot.backends {
        assert!(backend.used + backend.returned <= backend.granted);
    }
    for frontend in &snapshot.frontends {
        assert!(frontend.session.waiting_bytes <= 200_000 + 1000 * 200);
    }
}

#[test]
fn nothing_is_due_when_nobody_is_here() {
    let mut site = Site::new();
    let config = BrokerConfig::new("broker-1", "fra", 1, 1);
    let mut broker = Broker::new(config, site.now);
    assert_eq!(broker.deadline(), None);
    let mut actions: Vec<Action> = Vec::new();
    let from = PeerId::in_process(9);
    broker.step(site.now, Event::Malformed { from }, &mut actions);
    broker.step(site.now, Event::Lost { peer: from }, &mut actions);
    assert_eq!((actions.len(), broker.deadline()), (0, None));
    site.wait(Duration::from_secs(1));
}
