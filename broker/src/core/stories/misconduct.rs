//! Peers that break the rules again and again, and what honest ones feel of it: nothing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use scale0_transport::{PeerId, Port, PublicKey};
use scale0_wire::{Bye, Kind};

use crate::core::testing::{Peer, SHOP, Site, about};
use crate::core::{Action, Event, Right, Rights};

const KEY: PublicKey = PublicKey::from_bytes([1; 32]);

/// More than anybody needs for a quarantine.
const MANY: usize = 20;

/// What became of one event: who is muted, and who is heard again.
fn step(site: &mut Site, event: Event) -> Vec<(PeerId, bool)> {
    let mut actions = Vec::new();
    site.broker.step(site.now, event, &mut actions);
    site.broker.audit();
    let muted = actions.into_iter().filter_map(|action| match action {
        Action::Mute { peer, .. } => Some((peer, true)),
        Action::Unmute { peer } => Some((peer, false)),
        Action::Send { .. } | Action::Forget { .. } => None,
    });
    muted.collect()
}

/// Garbage from this peer until it is muted; nothing comes of what is under way then.
fn flood(site: &mut Site, peer: Peer) -> usize {
    let garbage = Event::Malformed { from: peer.id };
    let muted: Vec<_> = (0..MANY)
        .flat_map(|_| step(site, garbage.clone()))
        .collect();
    muted.len()
}

#[test]
fn who_opens_sessions_without_end_is_ignored_and_then_not_heard() {
    let mut site = Site::new();
    let mut flooder = site.peer(Port::Backends);
    let (mut welcomes, services) = (0, [SHOP, "img", "api"]);
    for _ in 0..100 {
        // However it gets rid of the former one.
        site.hello(flooder, &services, 1);
        site.tell(flooder, Kind::Bye, 0, Bye::Leaving.encode());
        flooder.epoch += 1;
        while let Some(message) = site.next(flooder) {
            welcomes += usize::from(message.header.kind == Kind::Welcome);
        }
    }
    assert_eq!(welcomes, 5);
    assert_eq!(site.broker.counters().quarantines, 1);
    assert_eq!(site.broker.counters().hellos_ignored, 8);
}

#[test]
fn who_sends_garbage_again_and_again_is_dismissed_and_not_heard_and_then_heard_again() {
    let mut site = Site::new();
    let frontend = site.frontend();
    let honest = site.frontend();
    assert_eq!(flood(&mut site, frontend), 1);
    let counters = site.broker.counters();
    assert_eq!((counters.quarantines, counters.sessions_opened), (1, 2));
    let snapshot = site.broker.snapshot(site.now);
    assert_eq!(
        (snapshot.frontends.len(), snapshot.quarantined.len()),
        (1, 1)
    );
    assert_eq!(snapshot.quarantined[0].left_ms, 1000);

    // What was on its way counts for nothing, HELLO neither.
    site.hello(frontend, &[], 0);
    site.get(frontend, 1);
    assert_eq!(site.broker.counters().dropped_muted, 2);
    site.hears_nothing(frontend);

    site.now += Duration::from_secs(1);
    assert_eq!(step(&mut site, Event::Tick), [(frontend.id, false)]);
    site.join(frontend, &[], 0);
    site.get(honest, 1);
    assert!(site.broker.snapshot(site.now).quarantined.is_empty());
    assert_eq!(flood(&mut site, frontend), 1);
    let again = site.broker.snapshot(site.now).quarantined.remove(0);
    assert_eq!((again.left_ms, again.terms), (2000, 2));
}

#[test]
fn every_kind_of_breach_counts_and_a_session_that_breaks_off_is_told() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 1);
    let frontend = site.frontend();
    for _ in 0..3 {
        site.say(backend, about(Kind::Request, 1));
        site.tell(backend, Kind::Heartbeat, 0, Bytes::from_static(b"short"));
    }
    site.hears_nothing(backend);
    assert_eq!(site.broker.counters().quarantines, 0);
    step(&mut site, Event::Malformed { from: backend.id });
    site.say(backend, about(Kind::Request, 1));
    site.is_dismissed(backend, Bye::Quarantined(1000));
    assert_eq!(site.broker.counters().quarantines, 1);
    site.hears_nothing(frontend);
}

#[test]
fn a_peer_that_is_gone_leaves_nothing_behind_and_its_key_a_record() {
    let mut rights = Rights::new();
    let right = Right {
        name: "page-1".to_owned(),
        asks: true,
        ..Right::default()
    };
    rights.allow(KEY, right);
    let mut site = Site::with(|config| config.rights = Some(Arc::new(rights)));
    let connection = |site: &mut Site| {
        let peer = site.peer(Port::Frontends);
        step(
            site,
            Event::Proved {
                peer: peer.id,
                key: KEY,
            },
        );
        peer
    };
    let first = connection(&mut site);
    site.join(first, &[], 0);
    let garbage = Event::Malformed { from: first.id };
    let mut actions = Vec::new();
    for _ in 0..MANY {
        site.broker.step(site.now, garbage.clone(), &mut actions);
    }
    let until = site.now + Duration::from_secs(1);
    let mute = Action::Mute {
        peer: first.id,
        key: Some(KEY),
        until,
    };
    assert!(actions.contains(&mute));
    step(&mut site, Event::Lost { peer: first.id });
    let snapshot = site.broker.snapshot(site.now);
    assert_eq!(snapshot.quarantined[0].name, "page-1");

    // Another connection of the same key is muted with its first breach, as long as the quarantine lasts.
    let second = connection(&mut site);
    let muted = step(&mut site, Event::Malformed { from: second.id });
    assert_eq!(muted, [(second.id, true)]);

    // Without keys, a connection's record goes with it.
    let mut site = Site::new();
    let stranger = site.peer(Port::Frontends);
    assert_eq!(flood(&mut site, stranger), 1);
    step(&mut site, Event::Lost { peer: stranger.id });
    assert!(site.broker.snapshot(site.now).quarantined.is_empty());
    site.now += Duration::from_secs(5);
    assert_eq!(step(&mut site, Event::Tick), []);
}

#[test]
fn a_flood_of_small_talk_is_a_breach_and_the_pace_of_work_is_none() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 1);
    let frontend = site.frontend();
    // As fast as it can be, without a moment in between: each request gives leave for what follows from it.
    for number in 1..=6_000 {
        site.get(frontend, number);
        let asked = site.is_asked(backend);
        for _ in 0..16 {
            site.tell(backend, Kind::Interim, asked, Bytes::new());
            site.hears(frontend, Kind::Interim);
        }
        site.respond(backend, asked);
        site.is_answered(frontend, number);
    }
    assert_eq!(site.broker.counters().control_floods, 0);
    let chatter = |site: &mut Site| site.tell(backend, Kind::Credit, 0, Bytes::new());
    for _ in 0..49_900 {
        chatter(&mut site);
    }
    assert_eq!(
        site.broker.counters().quarantines,
        0,
        "what lay in a connection"
    );
    for _ in 0..200 {
        chatter(&mut site);
    }
    assert_eq!(site.broker.counters().quarantines, 1);
    site.hears_nothing(frontend);
}

#[test]
fn a_new_epoch_gives_no_leave_for_more() {
    let mut site = Site::new();
    let mut frontend = site.frontend();
    for _ in 0..60_000 {
        frontend.epoch += 1;
        site.hello(frontend, &[], 0);
        if 0 < site.broker.counters().quarantines {
            return;
        }
    }
    panic!("HELLO after HELLO, and nobody minds");
}

#[test]
fn peers_of_this_process_are_never_put_into_quarantine() {
    let mut site = Site::new();
    let mut backend = site.peer(Port::Backends);
    backend.locality = Some(1);
    site.join(backend, &[SHOP], 1);
    for _ in 0..MANY {
        site.say(backend, about(Kind::Request, 1));
    }
    let counters = site.broker.counters();
    assert_eq!(
        (counters.dropped_out_of_place, counters.quarantines),
        (20, 0)
    );
}
