//! Messages that are none: one for each way to be wrong.

use bytes::{BufMut, Bytes};
use scale0_wire::{Kind, Message, RoutingHeader, limits};

use crate::golden::golden;

/// Frames that are refused, with the name of their file, what is wrong, and the error's name.
pub(crate) struct Malformed {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) error: &'static str,
    pub(crate) frames: Vec<Bytes>,
}

/// All of them: the message itself first, metadata of otherwise sound messages after.
pub(crate) fn malformed() -> Vec<Malformed> {
    let mut all = messages();
    all.extend(metadata());
    all
}

fn messages() -> Vec<Malformed> {
    let get = || frames("request-get");
    let chunk = || frames("chunk");
    vec![
        one(
            "frame-empty",
            "No byte at all.",
            "Truncated",
            [Bytes::new()],
        ),
        one(
            "header-short",
            "A header without its last byte.",
            "Truncated",
            [get()[0].slice(..RoutingHeader::LENGTH - 1)],
        ),
        one(
            "version-old",
            "Version 0.",
            "Version",
            patched(get(), 0, &[0]),
        ),
        one(
            "version-new",
            "Version 3; a version not spoken is judged before anything else.",
            "Version",
            [Bytes::from_static(&[3])],
        ),
        one(
            "header-length-short",
            "A header of 135 bytes.",
            "HeaderLength",
            patched(get(), 2, &135_u16.to_le_bytes()),
        ),
        one(
            "header-length-long",
            "A header of 513 bytes.",
            "TooLong",
            patched(get(), 2, &513_u16.to_le_bytes()),
        ),
        one(
            "header-length-beyond",
            "An extension that the frame does not have.",
            "Truncated",
            patched(frames("drain"), 2, &144_u16.to_le_bytes()),
        ),
        one(
            "metadata-length-limit",
            "Metadata one byte over the limit.",
            "TooLong",
            patched(get(), 4, &over(limits::METADATA)),
        ),
        one(
            "metadata-length-huge",
            "Metadata of 4 GiB.",
            "TooLong",
            patched(get(), 4, &[0xff; 4]),
        ),
        one(
            "content-length-limit",
            "Content one byte over the limit.",
            "TooLong",
            patched(chunk(), 56, &over(limits::CONTENT)),
        ),
        one(
            "content-length-huge",
            "Content of 4 GiB.",
            "TooLong",
            patched(chunk(), 56, &[0xff; 4]),
        ),
        one(
            "reserved",
            "Byte 63 is not zero.",
            "Reserved",
            patched(get(), 63, &[1]),
        ),
        one("priority", "Priority 3.", "Value", patched(get(), 28, &[3])),
        one(
            "scope",
            "Coalescing scope 4.",
            "Value",
            patched(get(), 29, &[4]),
        ),
        one("spill", "Spill mode 3.", "Value", patched(get(), 30, &[3])),
        one(
            "frame-short",
            "The last byte of metadata is missing.",
            "Truncated",
            [get()[0].slice(..get()[0].len() - 1)],
        ),
        one(
            "frame-long",
            "A byte after all that was announced.",
            "Excess",
            [joined(&[get()[0].clone(), Bytes::from_static(&[0])])],
        ),
        one(
            "content-short",
            "The second frame lacks a byte.",
            "Truncated",
            [chunk()[0].clone(), chunk()[1].slice(1..)],
        ),
        one(
            "content-long",
            "The second frame has a byte too many.",
            "Excess",
            [
                chunk()[0].clone(),
                joined(&[chunk()[1].clone(), Bytes::from_static(&[0])]),
            ],
        ),
        one(
            "content-missing",
            "The second frame is missing.",
            "Truncated",
            [chunk()[0].clone()],
        ),
        one(
            "content-empty-frame",
            "A second frame without a byte.",
            "Framing",
            [frames("drain")[0].clone(), Bytes::new()],
        ),
        one(
            "chunk-in-one-frame",
            "A CHUNK's content is in its first frame.",
            "Framing",
            [joined(&chunk())],
        ),
        one(
            "short-in-two-frames",
            "4096 bytes in all, in two frames instead of one.",
            "Framing",
            {
                let frame = frames("edge-one-frame-largest").remove(0);
                let head = frames("edge-two-frames-smallest")[0].len();
                [frame.slice(..head), frame.slice(head..)]
            },
        ),
        one(
            "long-in-one-frame",
            "4097 bytes in all, in one frame instead of two.",
            "Framing",
            [joined(&frames("edge-two-frames-smallest"))],
        ),
        one(
            "http",
            "Somebody speaks HTTP.",
            "Version",
            [Bytes::from_static(
                b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n",
            )],
        ),
    ]
}

fn metadata() -> Vec<Malformed> {
    let hello = frames("hello-backend")[0].slice(RoutingHeader::LENGTH..);
    let services_at = hello.len() - (2 + 2 + "shop.example".len() + 2 + "*".len());
    let head = frames("request-get")[0].slice(RoutingHeader::LENGTH..);
    let secure_at = 2 + "GET".len();
    let fields_over = |count: usize| {
        let mut to = vec![200, 0];
        to.put_u16_le(u16::try_from(count).unwrap());
        to.put_bytes(0, 4 * count);
        to
    };
    let of = |name, about, error, kind, metadata: &[u8]| {
        let header = RoutingHeader {
            correlation: 7,
            epoch: 1,
            ..RoutingHeader::new(kind)
        };
        let message = Message::new(header).with_metadata(Bytes::copy_from_slice(metadata));
        one(name, about, error, encoded(&message))
    };
    vec![
        of(
            "hello-empty",
            "HELLO without metadata.",
            "Truncated",
            Kind::Hello,
            &[],
        ),
        of(
            "hello-short",
            "The last service is not all there.",
            "Truncated",
            Kind::Hello,
            &hello[..hello.len() - 1],
        ),
        of(
            "hello-long",
            "A byte after the last service.",
            "Excess",
            Kind::Hello,
            &[&hello[..], &[0]].concat(),
        ),
        of(
            "hello-node-empty",
            "A node without a name.",
            "Name",
            Kind::Hello,
            &[&[1, 1, 0, 0][..], &hello[10..]].concat(),
        ),
        of(
            "hello-node-space",
            "A node's name with a space.",
            "Name",
            Kind::Hello,
            &replaced(&hello, 8, b" "),
        ),
        of(
            "hello-node-not-ascii",
            "A node's name that is not ASCII.",
            "Name",
            Kind::Hello,
            &replaced(&hello, 8, &[0xe9]),
        ),
        of(
            "hello-node-long",
            "A node's name of 254 bytes.",
            "Name",
            Kind::Hello,
            &[&[1, 1, 254, 0][..], &[b'n'; 254], &hello[10..]].concat(),
        ),
        of(
            "hello-service-upper-case",
            "A service in upper case.",
            "Name",
            Kind::Hello,
            &replaced(&hello, services_at + 4, b"S"),
        ),
        of(
            "hello-services-over",
            "1025 services.",
            "TooLong",
            Kind::Hello,
            &replaced(&hello, services_at, &1025_u16.to_le_bytes()),
        ),
        of(
            "welcome-short",
            "WELCOME with a version alone.",
            "Truncated",
            Kind::Welcome,
            &[1],
        ),
        of(
            "heartbeat-short",
            "29 bytes of HEARTBEAT.",
            "Truncated",
            Kind::Heartbeat,
            &[0; 29],
        ),
        of(
            "heartbeat-long",
            "31 bytes of HEARTBEAT.",
            "Excess",
            Kind::Heartbeat,
            &[0; 31],
        ),
        of(
            "demand-short",
            "3 bytes of DEMAND.",
            "Truncated",
            Kind::Demand,
            &[0; 3],
        ),
        of(
            "reclaim-long",
            "5 bytes of RECLAIM.",
            "Excess",
            Kind::Reclaim,
            &[0; 5],
        ),
        of(
            "bye-value",
            "BYE for a reason that means nothing.",
            "Value",
            Kind::Bye,
            &[9],
        ),
        of(
            "bye-quarantined-short",
            "Quarantined, but not for how long.",
            "Truncated",
            Kind::Bye,
            &[8, 0, 1, 0],
        ),
        of(
            "announce-one-list",
            "ANNOUNCE without what is withdrawn.",
            "Truncated",
            Kind::Announce,
            &[1, 0, 1, 0, b'a'],
        ),
        of(
            "announce-long",
            "A byte after two empty lists.",
            "Excess",
            Kind::Announce,
            &[0, 0, 0, 0, 0],
        ),
        of(
            "announce-upper-case",
            "A service withdrawn in upper case.",
            "Name",
            Kind::Announce,
            &[0, 0, 1, 0, 1, 0, b'A'],
        ),
        of(
            "announce-over",
            "1025 services added.",
            "TooLong",
            Kind::Announce,
            &[1, 4],
        ),
        of(
            "redirect-over",
            "17 brokers.",
            "TooLong",
            Kind::Redirect,
            &[17, 0],
        ),
        of(
            "redirect-key-short",
            "A key of 31 bytes.",
            "Truncated",
            Kind::Redirect,
            &[&[1, 0, 1, 0, b'e', 31, 0][..], &[7; 31], &[1, 0, b'n']].concat(),
        ),
        of(
            "redirect-key-long",
            "A key of 33 bytes.",
            "Excess",
            Kind::Redirect,
            &[&[1, 0, 1, 0, b'e', 33, 0][..], &[7; 33], &[1, 0, b'n']].concat(),
        ),
        of(
            "redirect-endpoint",
            "An endpoint that is not UTF-8.",
            "Text",
            Kind::Redirect,
            &[1, 0, 1, 0, 0xff, 0, 0, 1, 0, b'n'],
        ),
        of(
            "redirect-nobody",
            "A broker without a name.",
            "Name",
            Kind::Redirect,
            &[1, 0, 1, 0, b'e', 0, 0, 0, 0],
        ),
        of(
            "explain-over",
            "33 hops.",
            "TooLong",
            Kind::Explain,
            &[33, 0],
        ),
        of(
            "explain-short",
            "A hop without its node.",
            "Truncated",
            Kind::Explain,
            &[&[1, 0, 1][..], &[0; 12]].concat(),
        ),
        of(
            "explain-node",
            "A node's name with a space.",
            "Name",
            Kind::Explain,
            &[&[1, 0, 1][..], &[0; 12], &[1, 0, b' ']].concat(),
        ),
        of(
            "unsupported-empty",
            "UNSUPPORTED without a kind.",
            "Truncated",
            Kind::Unsupported,
            &[],
        ),
        of(
            "window-short",
            "7 bytes of WINDOW.",
            "Truncated",
            Kind::Window,
            &[0; 7],
        ),
        of(
            "window-long",
            "9 bytes of WINDOW.",
            "Excess",
            Kind::Window,
            &[0; 9],
        ),
        of(
            "request-scheme",
            "Scheme 2.",
            "Value",
            Kind::Request,
            &replaced(&head, secure_at, &[2]),
        ),
        of(
            "request-method-beyond",
            "A method longer than the metadata.",
            "Truncated",
            Kind::Request,
            &replaced(&head, 0, &[0xff, 0xff]),
        ),
        of(
            "request-without-fields",
            "Not even the number of fields.",
            "Truncated",
            Kind::Request,
            &[0, 0, 0, 0, 0, 0, 0],
        ),
        of(
            "response-fields-short",
            "Two fields announced, one there.",
            "Truncated",
            Kind::Response,
            &[200, 0, 2, 0, 1, 0, b'a', 0, 0],
        ),
        of(
            "response-fields-long",
            "A byte after the last field.",
            "Excess",
            Kind::Response,
            &[200, 0, 1, 0, 1, 0, b'a', 0, 0, 0],
        ),
        of(
            "response-value-beyond",
            "A value longer than the metadata.",
            "Truncated",
            Kind::Response,
            &[200, 0, 1, 0, 1, 0, b'a', 1, 0],
        ),
        of(
            "response-fields-over",
            "1025 fields.",
            "TooLong",
            Kind::Response,
            &fields_over(1025),
        ),
        of(
            "interim-short",
            "INTERIM without a status.",
            "Truncated",
            Kind::Interim,
            &[103],
        ),
        of(
            "upgrade-long",
            "A byte after no fields.",
            "Excess",
            Kind::Upgrade,
            &[101, 0, 0, 0, 0],
        ),
        of(
            "end-value",
            "END for a reason that means nothing.",
            "Value",
            Kind::End,
            &[255, 0, 0],
        ),
        of(
            "end-short",
            "END, complete, without the number of trailers.",
            "Truncated",
            Kind::End,
            &[0],
        ),
        of(
            "end-long",
            "A byte after the detail.",
            "Excess",
            Kind::End,
            &[1, 0, 0, 0],
        ),
        of(
            "cancel-zero",
            "CANCEL for reason 0, which means success elsewhere.",
            "Value",
            Kind::Cancel,
            &[0],
        ),
        of(
            "reject-value",
            "REJECT for a reason that means nothing.",
            "Value",
            Kind::Reject,
            &[200, 0, 0, 0, 0, 0, 0],
        ),
        of(
            "reject-text",
            "A detail that is not UTF-8.",
            "Text",
            Kind::Reject,
            &[1, 0, 0, 0, 0, 1, 0, 0xff],
        ),
        of(
            "reject-text-long",
            "A detail of 1025 bytes.",
            "TooLong",
            Kind::Reject,
            &[&[1, 0, 0, 0, 0, 1, 4][..], &[b'd'; 1025]].concat(),
        ),
    ]
}

fn one(
    name: &'static str,
    about: &'static str,
    error: &'static str,
    frames: impl Into<Vec<Bytes>>,
) -> Malformed {
    Malformed {
        name,
        about,
        error,
        frames: frames.into(),
    }
}

/// The frames of this golden message.
fn frames(name: &str) -> Vec<Bytes> {
    let golden = golden().into_iter().find(|golden| golden.name == name);
    encoded(&golden.unwrap().message)
}

/// The frames of this message.
pub(crate) fn encoded(message: &Message) -> Vec<Bytes> {
    let mut frame = Vec::new();
    let content = message.encode(&mut frame).unwrap();
    std::iter::once(frame.into()).chain(content).collect()
}

/// The same frames with these bytes at an offset of the first.
fn patched(mut frames: Vec<Bytes>, at: usize, bytes: &[u8]) -> Vec<Bytes> {
    frames[0] = replaced(&frames[0], at, bytes).into();
    frames
}

fn replaced(original: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut to = original.to_vec();
    to[at..at + bytes.len()].copy_from_slice(bytes);
    to
}

fn joined(parts: &[Bytes]) -> Bytes {
    parts.concat().into()
}

fn over(limit: usize) -> [u8; 4] {
    u32::try_from(limit + 1).unwrap().to_le_bytes()
}
