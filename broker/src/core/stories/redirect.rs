//! Where else to go, when a broker leaves.

use std::time::Duration;

use scale0_transport::Port;
use scale0_wire::{Kind, OtherBroker, Redirect};

use crate::core::testing::{Peer, SHOP, Site};
use crate::core::{Event, Neighbour};

const KEY: Option<[u8; 32]> = Some([9; 32]);

/// A site of two other brokers, one of which listens for backends alone.
fn site() -> Site {
    Site::with(|config| {
        config.others = vec![
            Neighbour {
                node: "broker-2".into(),
                frontends: Some("tcp://192.0.2.2:5701".into()),
                backends: Some("tcp://192.0.2.2:5702".into()),
                key: KEY,
            },
            Neighbour {
                node: "broker-3".into(),
                frontends: None,
                backends: Some("ipc:///run/broker-3".into()),
                key: None,
            },
            Neighbour {
                node: "no name".into(),
                frontends: Some("tcp://192.0.2.4:5701".into()),
                backends: Some("x".repeat(2000)),
                key: None,
            },
        ];
    })
}

fn drain(site: &mut Site) {
    let until = site.now + Duration::from_secs(30);
    site.step(Event::Drain { until });
}

#[track_caller]
fn is_sent_elsewhere(site: &mut Site, peer: Peer, to: &[(&str, Option<[u8; 32]>)]) {
    let redirect = site.hears(peer, Kind::Redirect);
    let brokers = Redirect::decode(&redirect.metadata).unwrap().brokers;
    let told = brokers
        .iter()
        .map(|OtherBroker { endpoint, key, .. }| (&endpoint[..], *key));
    assert_eq!(told.collect::<Vec<_>>(), to);
    site.hears(peer, Kind::Drain);
}

#[test]
fn a_broker_that_drains_tells_each_peer_first_who_else_listens_for_its_role() {
    let mut site = site();
    let (backend, frontend) = (site.backend(SHOP, 1), site.frontend());
    site.post(frontend, 1);
    let stream = site.is_asked(backend);
    drain(&mut site);
    let at_frontends = [("tcp://192.0.2.2:5701", KEY)];
    is_sent_elsewhere(&mut site, frontend, &at_frontends);
    let at_backends = [("tcp://192.0.2.2:5702", KEY), ("ipc:///run/broker-3", None)];
    is_sent_elsewhere(&mut site, backend, &at_backends);
    // Who comes while it drains hears it, too.
    let late = site.peer(Port::Frontends);
    site.hello(late, &[], 0);
    site.hears(late, Kind::Welcome);
    is_sent_elsewhere(&mut site, late, &at_frontends);
    site.respond(backend, stream);
    site.is_answered(frontend, 1);
}

#[test]
fn a_broker_that_knows_no_other_says_nothing_of_it() {
    let mut site = Site::new();
    let (backend, frontend) = (site.backend(SHOP, 1), site.frontend());
    drain(&mut site);
    for peer in [backend, frontend] {
        site.hears(peer, Kind::Drain);
    }
}
