//! Who is let in, with real sockets: the right key at the right port, and nobody else; and what a muted peer is worth.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use scale0_transport::{
    Context, Endpoint, Gate, GateCounters, Gatekeeper, Incoming, KeyPair, LinkId, LinkOptions,
    Port, PublicKey, Router, RouterCounters, RouterOptions,
};
use scale0_wire::{Bye, Kind, Message, RoutingHeader};
use support::{Bound, Dialling, context, local, message};

/// A router for backends that lets in these keys.
struct Guarded {
    bound: Bound,
    keeper: Gatekeeper,
    context: Context,
    key: PublicKey,
}

impl Guarded {
    fn new(allowed: &[(&KeyPair, Port)]) -> Self {
        let keys = KeyPair::generate().unwrap();
        let context = context();
        let keeper = Gatekeeper::start(&context, gate(allowed)).unwrap();
        Self {
            bound: Bound::new(&context, &local(), &options(&keys)),
            keeper,
            context,
            key: keys.public,
        }
    }

    fn endpoint(&self) -> Endpoint {
        self.bound.endpoint().with_server_key(self.key)
    }

    /// Dials with these keys and has come in.
    fn admit(&self, keys: &KeyPair) -> (Dialling, LinkId) {
        let mut dialling = Dialling::new();
        let link = dialling.connect_with(&self.context, &self.endpoint(), &with(keys));
        (dialling, link)
    }

    /// Dials, and is refused for the reason that `count` counts; somebody else comes in as ever.
    fn refuse(
        &mut self,
        endpoint: &Endpoint,
        options: &LinkOptions,
        friend: &KeyPair,
        count: impl Fn(&GateCounters, &RouterCounters) -> u64,
    ) {
        let so_far = |it: &Self| count(&it.keeper.counters(), &it.bound.router.counters());
        let before = so_far(self);
        let mut stranger = Dialling::new();
        stranger
            .links
            .connect(&self.context, endpoint, options)
            .unwrap();
        while so_far(self) == before || stranger.links.counters().failed_handshakes == 0 {
            let patience = Duration::from_millis(20);
            assert_eq!(stranger.next_within(patience), None);
            assert_eq!(self.bound.next_within(patience), None);
        }
        let (mut dialling, link) = self.admit(friend);
        dialling.send(link, &message(1, "friend"));
        assert_eq!(self.bound.next_message().1, message(1, "friend"));
        assert_eq!(stranger.links.receive(), None);
        drop(dialling);
        assert!(matches!(self.bound.next(), (_, Incoming::Down)));
    }
}

fn gate(allowed: &[(&KeyPair, Port)]) -> Gate {
    let mut gate = Gate::new();
    for (keys, port) in allowed {
        gate.allow(keys.public, *port);
    }
    gate
}

fn options(keys: &KeyPair) -> RouterOptions {
    RouterOptions {
        secret_key: Some(keys.secret.clone()),
        port: Some(Port::Backends),
        ..RouterOptions::default()
    }
}

fn with(keys: &KeyPair) -> LinkOptions {
    LinkOptions {
        keys: Some(keys.clone()),
        ..LinkOptions::default()
    }
}

#[test]
fn who_has_an_allowed_key_comes_in_and_is_known_by_it() {
    let [shop, blog] = [(); 2].map(|()| KeyPair::generate().unwrap());
    let mut guarded = Guarded::new(&[(&shop, Port::Backends), (&blog, Port::Backends)]);
    for keys in [&shop, &blog, &shop] {
        let (mut dialling, link) = guarded.admit(keys);
        for correlation in 0..2 {
            dialling.send(link, &message(correlation, "hello"));
            let (peer, _) = guarded.bound.next_message();
            assert_eq!(guarded.bound.router.key_of(peer), Some(keys.public));
        }
        drop(dialling);
        let (peer, event) = guarded.bound.next();
        assert_eq!(event, Incoming::Down);
        assert_eq!(guarded.bound.router.key_of(peer), None);
    }
    assert_eq!(guarded.keeper.counters().admitted, 3);
}

#[test]
fn a_strange_key_and_a_right_key_at_the_wrong_port_are_refused_and_counted() {
    let [shop, page, stranger] = [(); 3].map(|()| KeyPair::generate().unwrap());
    let mut guarded = Guarded::new(&[(&shop, Port::Backends), (&page, Port::Frontends)]);
    let endpoint = guarded.endpoint();
    guarded.refuse(&endpoint, &with(&stranger), &shop, |gate, _| {
        gate.unknown_key
    });
    guarded.refuse(&endpoint, &with(&page), &shop, |gate, _| gate.wrong_port);
    // Without keys of its own, a link draws some.
    guarded.refuse(&endpoint, &LinkOptions::default(), &shop, |gate, _| {
        gate.unknown_key
    });
}

#[test]
fn no_key_and_a_wrong_key_of_the_broker_are_refused_and_counted() {
    let [shop, other] = [(); 2].map(|()| KeyPair::generate().unwrap());
    let mut guarded = Guarded::new(&[(&shop, Port::Backends)]);
    let plain = guarded.bound.endpoint();
    guarded.refuse(&plain, &LinkOptions::default(), &shop, |_, router| {
        router.handshakes_unencrypted
    });
    let elsewhere = plain.with_server_key(other.public);
    guarded.refuse(&elsewhere, &with(&shop), &shop, |_, router| {
        router.handshakes_wrong_key
    });
}

#[test]
fn a_key_that_is_taken_off_the_list_is_refused_at_its_next_handshake_and_a_new_one_let_in() {
    let [shop, blog] = [(); 2].map(|()| KeyPair::generate().unwrap());
    let mut guarded = Guarded::new(&[(&shop, Port::Backends)]);
    let (mut standing, link) = guarded.admit(&shop);
    guarded.keeper.swap(gate(&[(&blog, Port::Backends)]));
    // What stands is the broker's to judge: it knows whose it is.
    standing.send(link, &message(1, "still here"));
    let (peer, _) = guarded.bound.next_message();
    assert_eq!(guarded.bound.router.key_of(peer), Some(shop.public));
    let endpoint = guarded.endpoint();
    guarded.refuse(&endpoint, &with(&shop), &blog, |gate, _| gate.unknown_key);
}

#[test]
fn a_key_in_quarantine_is_refused_until_its_time_is_over() {
    let [shop, blog] = [(); 2].map(|()| KeyPair::generate().unwrap());
    let mut guarded = Guarded::new(&[(&shop, Port::Backends), (&blog, Port::Backends)]);
    #[expect(clippy::disallowed_methods, reason = "a test's clock")]
    let now = std::time::Instant::now();
    let endpoint = guarded.endpoint();
    let hour = Duration::from_secs(3600);
    guarded.keeper.refuse(shop.public, now + hour);
    guarded.refuse(&endpoint, &with(&shop), &blog, |gate, _| gate.quarantined);
    guarded.keeper.refuse(shop.public, now);
    guarded.admit(&shop);
}

#[test]
fn without_a_gatekeeper_nobody_comes_in() {
    let [broker, shop] = [(); 2].map(|()| KeyPair::generate().unwrap());
    let context = context();
    let mut bound = Bound::new(&context, &local(), &options(&broker));
    let endpoint = bound.endpoint().with_server_key(broker.public);
    let mut dialling = Dialling::new();
    dialling
        .links
        .connect(&context, &endpoint, &with(&shop))
        .unwrap();
    while bound.router.counters().handshakes_unfinished == 0 {
        let patience = Duration::from_millis(20);
        assert_eq!(dialling.next_within(patience), None);
        assert_eq!(bound.next_within(patience), None);
    }
}

#[test]
fn what_a_muted_peer_sends_is_dropped_and_counted_whatever_it_is() {
    let shop = KeyPair::generate().unwrap();
    let guarded = Guarded::new(&[(&shop, Port::Backends)]);
    let (context, plain) = (
        guarded.context.clone(),
        Bound::new(&guarded.context, &local(), &RouterOptions::default()),
    );
    let of_shop = guarded.admit(&shop);
    let mut dialling = Dialling::new();
    let link = dialling.connect(&context, &plain.endpoint());
    for (mut bound, (mut dialling, link)) in [(guarded.bound, of_shop), (plain, (dialling, link))] {
        dialling.send(link, &message(1, "before"));
        let (peer, _) = bound.next_message();
        bound.router.mute(peer, true);
        // The last of these is what libzmq says of who is gone: a muted peer's own word does not count.
        let gone = Message::new(RoutingHeader::new(Kind::Bye)).with_metadata(Bye::Lost.encode());
        let large = message(2, vec![0; 20_000]);
        for quiet in [&large, &message(3, "quiet"), &gone, &message(4, "quiet")] {
            dialling.send(link, quiet);
        }
        while bound.router.counters().muted < 4 {
            assert_eq!(bound.next_within(Duration::from_millis(20)), None);
        }
        bound.router.mute(peer, false);
        dialling.send(link, &message(5, "after"));
        assert_eq!(bound.next_message(), (peer, message(5, "after")));

        bound.router.mute(peer, true);
        drop(dialling);
        assert_eq!(bound.next(), (peer, Incoming::Down));
    }
}

#[test]
fn garbage_within_an_encrypted_connection_is_its_senders_alone() {
    let [shop, blog] = [(); 2].map(|()| KeyPair::generate().unwrap());
    let mut guarded = Guarded::new(&[(&shop, Port::Backends), (&blog, Port::Backends)]);
    let raw = zmq::Context::new();
    let stranger = raw.socket(zmq::DEALER).unwrap();
    stranger
        .set_curve_serverkey(guarded.key.as_bytes())
        .unwrap();
    stranger
        .set_curve_publickey(shop.public.as_bytes())
        .unwrap();
    let secret = zmq::z85_decode(&shop.secret.to_z85()).unwrap();
    stranger.set_curve_secretkey(&secret).unwrap();
    stranger
        .connect(guarded.bound.endpoint().address())
        .unwrap();
    let (mut friend, link) = guarded.admit(&blog);
    for garbage in [&b""[..], b"GET / HTTP/1.1", &[0xff; 5_000]] {
        stranger.send(garbage, 0).unwrap();
        let (peer, event) = guarded.bound.next();
        assert!(matches!(event, Incoming::Malformed(_)), "{event:?}");
        assert_eq!(guarded.bound.router.key_of(peer), Some(shop.public));
        friend.send(link, &message(1, "friend"));
        assert_eq!(guarded.bound.next_message().1, message(1, "friend"));
    }
    assert_eq!(guarded.bound.router.counters().malformed, 3);
}

#[test]
fn a_gate_stands_as_long_as_its_keeper_whatever_became_of_its_routers() {
    let shop = KeyPair::generate().unwrap();
    let guarded = Guarded::new(&[(&shop, Port::Backends)]);
    let Guarded {
        bound,
        keeper,
        context,
        ..
    } = guarded;
    drop(bound);
    let keys = KeyPair::generate().unwrap();
    let mut second = Bound {
        router: Router::bind(&context, &local(), 1, &options(&keys)).unwrap(),
        waker: scale0_transport::ThreadWaker::new().unwrap(),
    };
    let endpoint = second.endpoint().with_server_key(keys.public);
    let mut dialling = Dialling::new();
    let link = dialling.connect_with(&context, &endpoint, &with(&shop));
    dialling.send(link, &message(1, "x"));
    assert_eq!(second.next_message().1, message(1, "x"));
    drop(keeper);
}
