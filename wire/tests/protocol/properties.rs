//! What holds for all messages, and for all bytes that are none.

use std::time::Duration;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use scale0_wire::{
    Announce, Bye, Cancel, End, Explain, Fields, Flags, FlightKey, Heartbeat, Hello, Hop, Kind,
    Message, OLDEST_VERSION, OtherBroker, Priority, Reason, Redirect, Reject, RequestHead,
    ResponseHead, RoutingHeader, Scope, ServiceId, SpillMode, TraceContext, Unsupported, VERSION,
    Wanted, Welcome, What, Window, limits,
};

use crate::malformed::encoded;
use crate::sound::{Metadata, check, check_frames, check_metadata};

proptest! {
    #[test]
    fn every_message_reads_back_as_it_was_written(message in message()) {
        let frames = encoded(&message);
        prop_assert_eq!(check_frames(&frames[0], frames.get(1)).unwrap(), message);
    }

    #[test]
    fn a_message_is_two_frames_exactly_if_its_content_is_a_chunks_or_makes_it_long(message in message()) {
        let is_two = !message.content.is_empty()
            && (message.header.kind == Kind::Chunk || limits::ONE_FRAME < message.size());
        prop_assert_eq!(encoded(&message).len() == 2, is_two);
    }

    #[test]
    fn a_header_written_over_another_is_that_of_a_message_written_anew(message in message(), header in message()) {
        let altered = Message { header: header.header, ..message.clone() };
        let (from, to) = (encoded(&message), encoded(&altered));
        let mut frame = from[0].to_vec();
        let is_written = altered.encode_over(&mut frame);
        prop_assert_eq!(is_written, from.len() == 1 && to.len() == 1);
        prop_assert_eq!(&frame, if is_written { &to[0] } else { &from[0] });
        let mut longer = [&from[0][..], &vec![0; altered.size()]].concat();
        prop_assert!(!altered.encode_over(&mut longer));
        prop_assert!(!altered.encode_over(&mut frame[..RoutingHeader::LENGTH - 1]));
    }

    #[test]
    fn every_truncation_of_a_message_is_an_error(message in message()) {
        let frames = encoded(&message);
        for end in 0..frames[0].len() {
            prop_assert!(Message::decode(&frames[0].slice(..end), frames.get(1).cloned()).is_err());
        }
        if let Some(content) = frames.get(1) {
            prop_assert!(Message::decode(&frames[0], None).is_err());
            for end in 0..content.len() {
                prop_assert!(Message::decode(&frames[0], Some(content.slice(..end))).is_err());
            }
        }
    }

    #[test]
    fn bytes_after_a_message_are_an_error(message in message(), excess in vec(any::<u8>(), 1..9)) {
        let frames = encoded(&message);
        let longer = |frame: &Bytes| Bytes::from([frame, &excess[..]].concat());
        prop_assert!(Message::decode(&longer(&frames[0]), frames.get(1).cloned()).is_err());
        match frames.get(1) {
            Some(content) => prop_assert!(Message::decode(&frames[0], Some(longer(content))).is_err()),
            None => prop_assert!(Message::decode(&frames[0], Some(excess.into())).is_err()),
        }
    }

    #[test]
    fn a_length_that_disagrees_with_the_frames_is_an_error(
        message in message(),
        (at, width) in prop::sample::select(&[(2, 2), (4, 4), (56, 4)][..]),
        difference in prop_oneof![1_u32..9, any::<u32>(), (1_u32..9).prop_map(u32::wrapping_neg)],
    ) {
        let frames = encoded(&message);
        let mut frame = frames[0].to_vec();
        let stated = &mut frame[at..at + width];
        let mut wide = [0; 4];
        wide[..width].copy_from_slice(stated);
        let other = u32::from_le_bytes(wide).wrapping_add(difference).to_le_bytes();
        prop_assume!(other[..width] != wide[..width]);
        stated.copy_from_slice(&other[..width]);
        prop_assert!(Message::decode(&frame.into(), frames.get(1).cloned()).is_err());
    }

    #[test]
    fn any_flipped_bit_is_an_error_or_another_message_with_just_these_bytes(message in message(), bit in any::<prop::sample::Index>()) {
        let frames = encoded(&message);
        // Most of what a bit decides is in the header, so all of its bits are tried, and one of all others.
        let bits = 8 * frames[0].len();
        for bit in (0..8 * RoutingHeader::LENGTH).chain([bit.index(bits)]) {
            let mut frame = frames[0].to_vec();
            frame[bit / 8] ^= 1 << (bit % 8);
            if let Ok(other) = check_frames(&frame.into(), frames.get(1)) {
                prop_assert_ne!(other, message.clone());
            }
        }
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in vec(any::<u8>(), 0..600)) {
        check(&bytes.into());
    }

    #[test]
    fn arbitrary_bytes_behind_a_sound_header_do_no_harm(message in message(), bytes in vec(any::<u8>(), 0..600)) {
        let header = encoded(&Message { metadata: bytes.into(), ..message });
        check(&header.concat().into());
    }

    #[test]
    fn short_arbitrary_metadata_does_no_harm(bytes in vec(prop_oneof![Just(0_u8), 0..4_u8, any::<u8>()], 0..40)) {
        check_metadata(&bytes.into());
    }

    #[test]
    fn hello_is_sound(value in hello()) { is_sound(&value)?; }

    #[test]
    fn announce_is_sound(value in announce()) { is_sound(&value)?; }

    #[test]
    fn redirect_is_sound(value in redirect()) { is_sound(&value)?; }

    #[test]
    fn explain_is_sound(value in explain()) { is_sound(&value)?; }

    #[test]
    fn welcome_is_sound(value in welcome()) { is_sound(&value)?; }

    #[test]
    fn heartbeat_is_sound(value in heartbeat()) { is_sound(&value)?; }

    #[test]
    fn wanted_is_sound(value in any::<u32>().prop_map(Wanted)) { is_sound(&value)?; }

    #[test]
    fn bye_is_sound(value in bye()) { is_sound(&value)?; }

    #[test]
    fn unsupported_is_sound(value in kind().prop_map(Unsupported)) { is_sound(&value)?; }

    #[test]
    fn request_head_is_sound(value in request_head()) { is_sound(&value)?; }

    #[test]
    fn response_head_is_sound(value in (any::<u16>(), fields()).prop_map(|(status, fields)| ResponseHead { status, fields })) {
        is_sound(&value)?;
    }

    #[test]
    fn reject_is_sound(value in reject()) { is_sound(&value)?; }

    #[test]
    fn end_is_sound(value in end()) { is_sound(&value)?; }

    #[test]
    fn cancel_is_sound(value in reason().prop_map(Cancel)) { is_sound(&value)?; }

    #[test]
    fn window_is_sound(value in any::<u64>().prop_map(Window)) { is_sound(&value)?; }

    #[test]
    fn fields_come_back_in_the_order_they_went(fields in vec((text_bytes(), text_bytes()), 0..20)) {
        let written = Fields::new(fields.iter().map(|(name, value)| (&name[..], &value[..]))).unwrap();
        prop_assert_eq!(written.len(), fields.len());
        prop_assert_eq!(written.iter().collect::<Vec<_>>(), fields);
    }

    #[test]
    fn texts_too_long_are_cut_between_characters(detail in "\\PC{300,2000}") {
        let reject = Reject { reason: Reason::Paused, retry_after_ms: 0, detail };
        let read = Reject::decode(&reject.encode()).unwrap();
        prop_assert!(reject.detail.starts_with(&read.detail));
        prop_assert!(read.detail == reject.detail || limits::TEXT - 4 < read.detail.len());
    }
}

#[test]
fn a_service_has_one_spelling_on_the_wire() {
    let mut dice = proptest::test_runner::TestRunner::deterministic();
    let mut hello = hello().new_tree(&mut dice).unwrap().current();
    hello.services = vec!["Shop.Example".into()];
    assert_eq!(
        Hello::decode(&hello.encode()).unwrap().services,
        ["shop.example"]
    );
}

#[test]
fn parts_and_fields_over_their_limits_are_never_cut_to_something_else() {
    let long = vec![b'a'; usize::from(u16::MAX) + 1];
    assert!(Fields::new([(&b"a"[..], &long[..])]).is_err());
    assert!(Fields::new([(&long[..], &b"a"[..])]).is_err());
    let many = |count| Fields::new(std::iter::repeat_n((&b"a"[..], &b""[..]), count));
    assert_eq!(many(limits::FIELDS).unwrap().len(), limits::FIELDS);
    assert!(many(limits::FIELDS + 1).is_err());
    let half = vec![b'a'; limits::FIELD_BYTES / 2 - 7];
    let two = |rest: &[u8]| Fields::new([(&b"a"[..], &half[..]), (rest, &half[..])]);
    assert!(
        two(b"abc").is_ok(),
        "2 + (4 + 1 + half) + (4 + 3 + half) bytes"
    );
    assert!(two(b"abcd").is_err());

    let head = RequestHead {
        method: "GET".into(),
        secure: true,
        authority: "a".into(),
        target: long.into(),
        fields: Fields::default(),
    };
    assert_eq!(RequestHead::decode(&head.encode()).unwrap().target, "");
}

#[test]
fn a_message_over_a_limit_is_not_written() {
    let message = Message::new(RoutingHeader::new(Kind::Response));
    let written = |message: &Message| {
        let mut frame = vec![1];
        let result = message.encode(&mut frame);
        assert_eq!(result.is_err(), frame == [1], "{:?}", message.size());
        result.is_ok()
    };
    let bytes = |length| Bytes::from(vec![0; length]);
    assert!(written(
        &message.clone().with_content(bytes(limits::CONTENT))
    ));
    assert!(!written(
        &message.clone().with_content(bytes(limits::CONTENT + 1))
    ));
    assert!(written(
        &message.clone().with_metadata(bytes(limits::METADATA))
    ));
    assert!(!written(
        &message.clone().with_metadata(bytes(limits::METADATA + 1))
    ));
    let extended = |length| Message {
        extension: bytes(length),
        ..message.clone()
    };
    assert!(written(&extended(limits::HEADER - RoutingHeader::LENGTH)));
    assert!(!written(&extended(
        limits::HEADER - RoutingHeader::LENGTH + 1
    )));
}

/// It reads back as it was written, from no other length, and no bit of it is without effect.
fn is_sound<M: Metadata>(value: &M) -> Result<(), TestCaseError> {
    let bytes = value.to_bytes();
    prop_assert_eq!(&M::from_bytes(&bytes).unwrap(), value);
    for end in 0..bytes.len() {
        prop_assert!(
            M::from_bytes(&bytes.slice(..end)).is_err(),
            "{} of {} bytes",
            end,
            bytes.len()
        );
    }
    prop_assert!(M::from_bytes(&[&bytes[..], &[0]].concat().into()).is_err());
    for bit in 0..8 * bytes.len().min(64) {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let flipped = Bytes::from(flipped);
        if let Ok(other) = M::from_bytes(&flipped) {
            prop_assert_eq!(other.to_bytes(), flipped);
        }
    }
    Ok(())
}

fn message() -> impl Strategy<Value = Message> {
    let metadata = prop_oneof![4 => 0..200_usize, 1 => 3_900..4_100_usize];
    let content = prop_oneof![2 => Just(0), 4 => 1..200_usize, 1 => 3_600..4_200_usize];
    let extension = prop_oneof![4 => Just(0), 1 => 1..=limits::HEADER - RoutingHeader::LENGTH];
    (header(), metadata, content, extension, any::<u8>()).prop_map(
        |(header, metadata, content, extension, fill)| Message {
            header,
            extension: vec![fill; extension].into(),
            metadata: vec![fill.wrapping_add(1); metadata].into(),
            content: vec![fill.wrapping_add(2); content].into(),
        },
    )
}

prop_compose! {
    fn header()(
        kind in prop_oneof![kind(), Just(Kind::Chunk)],
        flags in any::<u16>(),
        (correlation, epoch, affinity, credit) in any::<(u64, u64, u64, u64)>(),
        (hops, attempt, trace_flags) in any::<(u8, u8, u8)>(),
        priority in prop::sample::select(vec![Priority::Interactive, Priority::Normal, Priority::Background]),
        scope in prop::sample::select(vec![Scope::Off, Scope::Frontend, Scope::Site, Scope::Global]),
        spill in prop::sample::select(vec![SpillMode::Never, SpillMode::Failover, SpillMode::Overload]),
        (deadline_ms, hold_ms, max_round_trip_ms) in any::<(u32, u32, u32)>(),
        (waiters, origin_site, window) in any::<(u32, u32, u32)>(),
        (flight, service, trace, parent) in any::<(u128, [u8; 16], [u8; 16], [u8; 8])>(),
        version in OLDEST_VERSION..=VERSION,
    ) -> RoutingHeader {
        RoutingHeader {
            version,
            kind,
            flags: Flags(flags),
            correlation,
            epoch,
            hops,
            attempt,
            priority,
            scope,
            spill,
            deadline_ms,
            hold_ms,
            max_round_trip_ms,
            waiters,
            origin_site,
            window,
            flight: FlightKey(flight),
            affinity,
            service: ServiceId(service),
            trace: TraceContext { trace, parent, flags: trace_flags },
            credit,
        }
    }
}

fn kind() -> impl Strategy<Value = Kind> {
    any::<u8>().prop_map(Kind::from_number)
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[!-~]{1,20}", 1 => "[!-~]{250,253}"]
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,60}"
}

fn text_bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..20).prop_map(Bytes::from)
}

fn fields() -> impl Strategy<Value = Fields> {
    vec((text_bytes(), text_bytes()), 0..6).prop_map(|fields| {
        Fields::new(fields.iter().map(|(name, value)| (&name[..], &value[..]))).unwrap()
    })
}

fn milliseconds() -> impl Strategy<Value = Duration> {
    any::<u32>().prop_map(|milliseconds| Duration::from_millis(milliseconds.into()))
}

fn reason() -> impl Strategy<Value = Reason> {
    prop::sample::select(Reason::ALL)
}

fn bye() -> impl Strategy<Value = Bye> {
    use Bye::{
        Leaving, Lost, NotAllowed, ProtocolError, Replaced, Silent, UnknownSession, Version,
    };
    prop_oneof![
        prop::sample::select(vec![
            Leaving,
            Lost,
            Replaced,
            ProtocolError,
            UnknownSession,
            Version,
            Silent,
            NotAllowed,
        ]),
        any::<u32>().prop_map(Bye::Quarantined),
    ]
}

fn services() -> impl Strategy<Value = Vec<String>> {
    vec("[!-@\\[-~]{1,30}", 0..5)
}

prop_compose! {
    fn announce()(added in services(), withdrawn in services()) -> Announce {
        Announce { added, withdrawn }
    }
}

fn redirect() -> impl Strategy<Value = Redirect> {
    let broker = (text(), any::<Option<[u8; 32]>>(), name());
    let broker = broker.prop_map(|(endpoint, key, node)| OtherBroker {
        endpoint,
        key,
        node,
    });
    vec(broker, 0..3).prop_map(|brokers| Redirect { brokers })
}

fn explain() -> impl Strategy<Value = Explain> {
    let node = prop_oneof![Just(String::new()), name()];
    let hop = (any::<u8>(), any::<(u32, u32, u32)>(), node);
    let hop = hop.prop_map(|(what, (at_us, a, b), node)| Hop {
        what: What(what),
        at_us,
        a,
        b,
        node,
    });
    vec(hop, 0..4).prop_map(|hops| Explain { hops })
}

prop_compose! {
    fn hello()(
        (oldest, newest, instance, lane) in any::<(u8, u8, u64, u16)>(),
        node in name(),
        heartbeat in milliseconds(),
        (window, capacity) in any::<(u32, u32)>(),
        services in services(),
    ) -> Hello {
        Hello { oldest, newest, node, instance, lane, heartbeat, window, capacity, services }
    }
}

prop_compose! {
    fn welcome()(
        (version, instance, window) in any::<(u8, u64, u32)>(),
        (node, site) in (name(), name()),
        heartbeat in milliseconds(),
    ) -> Welcome {
        Welcome { version, node, instance, site, heartbeat, window }
    }
}

prop_compose! {
    fn heartbeat()(
        (sequence, echo, echo_delay_us, outstanding) in any::<(u32, u32, u32, u32)>(),
        (capacity, service_time_us, queue_time_us, cpu_permille) in any::<(u32, u32, u32, u16)>(),
    ) -> Heartbeat {
        Heartbeat { sequence, echo, echo_delay_us, outstanding, capacity, service_time_us, queue_time_us, cpu_permille }
    }
}

prop_compose! {
    fn request_head()(
        (method, authority, target) in (text_bytes(), text_bytes(), text_bytes()),
        secure in any::<bool>(),
        fields in fields(),
    ) -> RequestHead {
        RequestHead { method, secure, authority, target, fields }
    }
}

prop_compose! {
    fn reject()(reason in reason(), retry_after_ms in any::<u32>(), detail in text()) -> Reject {
        Reject { reason, retry_after_ms, detail }
    }
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        fields().prop_map(End::Complete),
        (reason(), text()).prop_map(|(reason, detail)| End::Failed { reason, detail }),
    ]
}
