//! Bytes that are no message are counted and dropped, and nobody else notices. The strangers are bare libzmq sockets.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::Bytes;
use scale0_transport::{Incoming, Router, RouterOptions, SendOutcome};
use scale0_wire::limits;
use support::{Bound, Dialling, PATIENCE, context, local, message};

fn bad_messages() -> Vec<Vec<Vec<u8>>> {
    let mut good = Vec::new();
    let content = message(1, vec![1; 100]).encode(&mut good).unwrap().unwrap();
    let content = content.to_vec();
    vec![
        vec![vec![]],
        vec![vec![], vec![]],
        vec![b"GET / HTTP/1.1".to_vec()],
        vec![vec![0xff; limits::FRAME]],
        // The right bytes in the wrong frames.
        vec![good.clone()],
        vec![[good.clone(), content.clone()].concat()],
        vec![good.clone(), content.clone(), vec![]],
        vec![good.clone(), content[1..].to_vec()],
        vec![vec![1]; 1_000],
    ]
}

#[test]
fn a_router_counts_and_drops_what_is_no_message_and_serves_on() {
    let context = context();
    let mut bound = Bound::new(&context, &local(), &RouterOptions::default());
    let mut friend = Dialling::new();
    let link = friend.connect(&context, &bound.endpoint());

    let raw = zmq::Context::new();
    let stranger = raw.socket(zmq::DEALER).unwrap();
    stranger.connect(bound.endpoint().address()).unwrap();
    for (number, bad) in bad_messages().iter().enumerate() {
        stranger.send_multipart(bad, 0).unwrap();
        assert!(matches!(bound.next().1, Incoming::Malformed(_)), "{number}");
        assert_eq!(bound.router.counters().malformed, number as u64 + 1);
        friend.send(link, &message(1, "friend"));
        assert_eq!(bound.next_message().1, message(1, "friend"));
    }
}

#[test]
fn a_link_counts_and_drops_what_is_no_message() {
    let raw = zmq::Context::new();
    let stranger = raw.socket(zmq::ROUTER).unwrap();
    stranger.bind("tcp://127.0.0.1:*").unwrap();
    let endpoint = stranger.get_last_endpoint().unwrap().unwrap();
    let mut dialling = Dialling::new();
    let link = dialling.connect(&context(), &endpoint.parse().unwrap());
    dialling.send(link, &message(1, "here"));
    let identity = stranger.recv_multipart(0).unwrap().swap_remove(0);
    for bad in bad_messages() {
        stranger.send(&identity, zmq::SNDMORE).unwrap();
        stranger.send_multipart(&bad, 0).unwrap();
        assert!(
            matches!(dialling.next(), (_, Incoming::Malformed(_))),
            "{bad:?}"
        );
    }
    assert_eq!(
        dialling.links.counters().malformed,
        bad_messages().len() as u64
    );
    assert_eq!(dialling.links.counters().lost, 0);
}

#[test]
fn a_peer_that_has_chosen_its_own_routing_id_is_not_heard() {
    let context = context();
    let mut bound = Bound::new(&context, &local(), &RouterOptions::default());
    let raw = zmq::Context::new();
    let stranger = raw.socket(zmq::DEALER).unwrap();
    stranger.set_identity(b"shop").unwrap();
    stranger.connect(bound.endpoint().address()).unwrap();
    stranger.send("hello", 0).unwrap();
    while bound.router.counters().foreign == 0 {
        assert!(bound.router.receive().is_none());
    }
}

#[test]
fn a_frame_that_is_too_long_costs_its_sender_the_connection() {
    let context = context();
    let mut bound = Bound::new(&context, &local(), &RouterOptions::default());
    let raw = zmq::Context::new();
    let stranger = raw.socket(zmq::DEALER).unwrap();
    stranger.connect(bound.endpoint().address()).unwrap();
    stranger.send("x", 0).unwrap();
    let (peer, _) = bound.next();
    stranger.send(vec![0; limits::FRAME + 1], 0).unwrap();
    assert_eq!(bound.next(), (peer, Incoming::Down));
}

#[test]
fn a_link_whose_broker_sends_too_long_a_frame_is_down_and_dials_anew() {
    let raw = zmq::Context::new();
    let stranger = raw.socket(zmq::ROUTER).unwrap();
    stranger.bind("tcp://127.0.0.1:*").unwrap();
    let endpoint = stranger.get_last_endpoint().unwrap().unwrap();
    let mut dialling = Dialling::new();
    let link = dialling.connect(&context(), &endpoint.parse().unwrap());
    dialling.send(link, &message(1, "here"));
    let identity = stranger.recv_multipart(0).unwrap().swap_remove(0);
    stranger.send(identity, zmq::SNDMORE).unwrap();
    stranger.send(vec![0; limits::FRAME + 1], 0).unwrap();
    assert_eq!(dialling.next(), (link, Incoming::Down));
    assert_eq!(dialling.next(), (link, Incoming::Up));
}

#[test]
fn somebody_who_does_not_speak_zmtp_disturbs_nobody() {
    let context = context();
    let mut bound = Bound::new(&context, &local(), &RouterOptions::default());
    let address = bound.router.local_endpoint();
    let mut browser = TcpStream::connect(address.strip_prefix("tcp://").unwrap()).unwrap();
    browser
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let mut friend = Dialling::new();
    let link = friend.connect(&context, &bound.endpoint());
    friend.send(link, &message(1, "friend"));
    assert_eq!(bound.next_message().1, message(1, "friend"));
}

#[test]
fn who_never_finishes_the_handshake_is_cut_off() {
    let options = RouterOptions {
        handshake: Duration::from_millis(50),
        ..RouterOptions::default()
    };
    let bound = Bound::new(&context(), &local(), &options);
    let address = bound.router.local_endpoint();
    let mut silent = TcpStream::connect(address.strip_prefix("tcp://").unwrap()).unwrap();
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    // libzmq's greeting, then the end.
    silent.read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn a_message_over_the_protocols_limits_is_refused_by_its_sender() {
    let context = context();
    let mut bound = Bound::new(&context, &local(), &RouterOptions::default());
    let mut dialling = Dialling::new();
    let link = dialling.connect(&context, &bound.endpoint());
    let long = message(1, Bytes::from(vec![0; limits::CONTENT + 1]));
    assert_eq!(dialling.links.send(link, &long), SendOutcome::TooLong);
    dialling.send(link, &message(1, "short"));
    let (peer, _) = bound.next_message();
    assert_eq!(bound.router.send(peer, &long), SendOutcome::TooLong);
    assert_eq!(
        bound.router.send(peer, &message(2, "short")),
        SendOutcome::Sent
    );
    assert_eq!(dialling.next_message().1, message(2, "short"));
}

#[test]
fn a_router_that_cannot_be_bound_says_why() {
    let context = context();
    let bound = Bound::new(&context, &local(), &RouterOptions::default());
    let taken = bound.endpoint();
    let error = Router::bind(&context, &taken, 0, &RouterOptions::default())
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        format!("cannot bind {taken}: Address already in use")
    );
}
