//! CURVE: who has the right key is heard, and nobody else.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use scale0_transport::{
    Endpoint, Incoming, KeyPair, LinkOptions, Router, RouterOptions, SendOutcome,
};
use support::{Bound, Dialling, PATIENCE, context, local, message};

fn encrypted(keys: &KeyPair) -> RouterOptions {
    RouterOptions {
        secret_key: Some(keys.secret.clone()),
        ..RouterOptions::default()
    }
}

#[test]
fn with_the_brokers_key_messages_go_both_ways() {
    let keys = KeyPair::generate().unwrap();
    let context = context();
    let mut bound = Bound::new(&context, &local(), &encrypted(&keys));
    let mut dialling = Dialling::new();
    let link = dialling.connect(&context, &bound.endpoint().with_server_key(keys.public));
    for size in [0, 10, 60_000] {
        let sent = message(1, vec![7; size]);
        dialling.send(link, &sent);
        let (peer, received) = bound.next_message();
        assert_eq!(received, sent);
        assert_eq!(bound.router.send(peer, &received), SendOutcome::Sent);
        assert_eq!(dialling.next_message(), (link, sent));
    }
}

/// Dials wrongly, and shows that nothing comes of it while somebody with the right key is served.
fn is_never_up(wrong: impl FnOnce(Endpoint) -> Endpoint, serves_encrypted: bool) {
    let keys = KeyPair::generate().unwrap();
    let context = context();
    let options = if serves_encrypted {
        encrypted(&keys)
    } else {
        RouterOptions::default()
    };
    let mut bound = Bound::new(&context, &local(), &options);
    let mut stranger = Dialling::new();
    let endpoint = wrong(bound.endpoint());
    stranger
        .links
        .connect(&context, &endpoint, &LinkOptions::default())
        .unwrap();
    // Its handshake has been refused at least once.
    while stranger.links.counters().failed_handshakes == 0 {
        assert_eq!(stranger.next_within(Duration::from_millis(50)), None);
    }

    let mut friend = Dialling::new();
    let right = bound.endpoint();
    let right = if serves_encrypted {
        right.with_server_key(keys.public)
    } else {
        right
    };
    let link = friend.connect(&context, &right);
    friend.send(link, &message(1, "friend"));
    assert_eq!(bound.next_message().1, message(1, "friend"));
    assert_eq!(stranger.links.receive(), None);
    assert!(bound.router.receive().is_none());
}

#[test]
fn a_wrong_key_of_the_broker_never_comes_up() {
    let other = KeyPair::generate().unwrap().public;
    is_never_up(|endpoint| endpoint.with_server_key(other), true);
}

#[test]
fn who_does_not_encrypt_never_comes_up() {
    is_never_up(|endpoint| endpoint, true);
}

#[test]
fn who_insists_on_encryption_never_comes_up_without() {
    let any = KeyPair::generate().unwrap().public;
    is_never_up(|endpoint| endpoint.with_server_key(any), false);
}

#[test]
fn a_link_that_libzmq_has_given_up_is_dialled_anew() {
    let context = context();
    // The broker comes back with the right key at the same place.
    let wrong = KeyPair::generate().unwrap();
    let right = KeyPair::generate().unwrap();
    let first = Router::bind(&context, &local(), 0, &encrypted(&wrong)).unwrap();
    let endpoint: Endpoint = first.local_endpoint().parse().unwrap();
    let mut dialling = Dialling::new();
    let link = dialling
        .links
        .connect(
            &context,
            &endpoint.clone().with_server_key(right.public),
            &LinkOptions::default(),
        )
        .unwrap();
    while dialling.links.counters().failed_handshakes == 0 {
        assert_eq!(dialling.next_within(Duration::from_millis(50)), None);
    }
    drop(first);
    let _second = loop {
        // libzmq closes its socket a moment later.
        match Router::bind(&context, &endpoint, 0, &encrypted(&right)) {
            Ok(router) => break router,
            Err(_) => std::thread::yield_now(),
        }
    };
    assert_eq!(dialling.next_within(PATIENCE), Some((link, Incoming::Up)));
}
