//! What a router has received and another sends on: nothing of it is altered but its header, whoever else keeps it.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use scale0_transport::{Arrival, Incoming, RouterOptions, SendOutcome};
use scale0_wire::{Kind, Message, RoutingHeader};
use support::{Bound, Dialling, context, local};

/// Messages of all lengths from nothing to two frames: those that lie in libzmq's message itself, those that share a receive
/// buffer with their neighbours, and those that are not sent on in their frame.
const MESSAGES: u64 = 20_000;

/// Messages under way.
const UNDER_WAY: u64 = 500;

fn message(number: u64) -> Message {
    let length = usize::try_from(number * 7919 % 5000).unwrap();
    let content = vec![number.to_le_bytes()[0]; length];
    let metadata = number.to_le_bytes().to_vec();
    Message::new(RoutingHeader {
        correlation: number,
        ..RoutingHeader::new(Kind::Response)
    })
    .with_metadata(metadata.into())
    .with_content(content.into())
}

#[test]
fn what_is_sent_on_arrives_unaltered_and_so_stays_what_is_kept() {
    let context = context();
    let options = RouterOptions::default();
    let mut front = Bound::new(&context, &local(), &options);
    let mut back = Bound::new(&context, &local(), &options);
    let mut dialling = Dialling::new();
    let asker = dialling.connect(&context, &front.endpoint());
    let answerer = dialling.connect(&context, &back.endpoint());
    dialling.send(answerer, &message(0));
    let (to, _) = back.next_message();

    let mut kept = Vec::new();
    let (mut sent, mut sent_on, mut arrived) = (0, 0, 0);
    let mut framed = 0;
    while arrived < MESSAGES {
        while sent < MESSAGES && sent < arrived + UNDER_WAY {
            dialling.send(asker, &message(sent));
            sent += 1;
        }
        while let Some((_, arrival)) = front.router.receive_framed() {
            let Arrival::Message(mut incoming, frame) = arrival else {
                panic!("{arrival:?}");
            };
            assert_eq!(*incoming, message(sent_on));
            if sent_on % 5 == 0 {
                kept.push(incoming.clone());
            }
            framed += u64::from(frame.is_some());
            incoming.header.correlation += MESSAGES;
            let outcome = back.router.send_on(to, &incoming, frame);
            assert_eq!(outcome, SendOutcome::Sent);
            sent_on += 1;
        }
        while back.router.receive().is_some() {}
        while let Some((link, incoming)) = dialling.next_within(Duration::ZERO) {
            let Incoming::Message(mut incoming) = incoming else {
                panic!("{incoming:?}");
            };
            assert_eq!(link, answerer);
            incoming.header.correlation -= MESSAGES;
            assert_eq!(incoming, message(arrived));
            arrived += 1;
            if arrived % 16 == 0 {
                dialling.send(answerer, &message(0));
            }
        }
    }
    assert!(MESSAGES / 2 < framed, "{framed}");
    let sent_on = back.router.counters().sent_on;
    assert!(MESSAGES / 4 < sent_on, "{sent_on}");
    for message_kept in kept {
        assert_eq!(*message_kept, message(message_kept.header.correlation));
    }
}

#[test]
fn frames_of_many_buffers_are_sent_on_to_a_peer_that_says_nothing_and_then_messages_arrive_by_copy()
{
    let context = context();
    let options = RouterOptions::default();
    let mut front = Bound::new(&context, &local(), &options);
    let mut back = Bound::new(&context, &local(), &options);
    let mut dialling = Dialling::new();
    let asker = dialling.connect(&context, &front.endpoint());
    let answerer = dialling.connect(&context, &back.endpoint());
    dialling.send(answerer, &message(0));
    let (to, _) = back.next_message();

    let mut pass_on = |back: &mut Bound, dialling: &mut Dialling| {
        for number in 0..100 {
            dialling.send(asker, &message(0));
            let (mut incoming, mut frame) = (None, None);
            while incoming.is_none() {
                match front.router.receive_framed() {
                    Some((_, Arrival::Message(message, its))) => {
                        (incoming, frame) = (Some(message), its);
                    }
                    Some(other) => panic!("{other:?}"),
                    None => std::thread::yield_now(),
                }
            }
            let outcome = back.router.send_on(to, &incoming.unwrap(), frame);
            assert_eq!(outcome, SendOutcome::Sent, "{number}");
        }
        back.router.counters().sent_on
    };
    // How many are received into one buffer is libzmq's choice.
    let sent_on = pass_on(&mut back, &mut dialling);
    assert!(64 <= sent_on, "{sent_on}");
    dialling.send(answerer, &message(0));
    back.next_message();
    let sent_on = pass_on(&mut back, &mut dialling) - sent_on;
    assert!(64 <= sent_on, "{sent_on}");
}
