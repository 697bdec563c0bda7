//! What peers of version 1 say, and what they can read: for the tests of all who speak with them. Included by path.

use std::path::Path;

use bytes::Bytes;
use scale0_wire::{Kind, Message};

/// The numbers of all kinds that version 1 has.
const KINDS: [u8; 20] = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 17, 18, 19, 20, 21, 22, 23, 24, 25, 128,
];

/// The largest numbers that reasons, and those of BYE, have in version 1.
const LAST_REASON: u8 = 22;
const LAST_BYE: u8 = 6;

/// A message of `wire/vectors/v1`.
pub(crate) fn recorded(name: &str) -> Message {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wire/vectors/v1");
    let file = std::fs::read_to_string(folder.join(name).with_extension("txt")).unwrap();
    let frame = |number: &str| -> Vec<u8> {
        let lines = file.lines().filter_map(|line| line.strip_prefix(number));
        let digits: String = lines.map(str::trim).collect();
        let bytes = digits.as_bytes().chunks(2);
        bytes
            .map(|two| u8::from_str_radix(str::from_utf8(two).unwrap(), 16).unwrap())
            .collect()
    };
    let second = frame("frame.2 =");
    let content = (!second.is_empty()).then(|| Bytes::from(second));
    Message::decode(&frame("frame.1 =").into(), content).unwrap()
}

/// Judges a message as its receiver does, which knows nothing of today.
#[track_caller]
pub(crate) fn can_be_read_by_version_1(message: &Message) {
    let mut frame = Vec::new();
    message.encode(&mut frame).unwrap();
    assert_eq!(frame[0], 1, "{:?} states another version", message.header);
    assert!(KINDS.contains(&frame[1]), "{:?}", message.header.kind);
    let number = message.metadata.first().copied().unwrap_or_default();
    let last = match message.header.kind {
        Kind::Bye => LAST_BYE,
        Kind::Reject | Kind::End | Kind::Cancel => LAST_REASON,
        _ => u8::MAX,
    };
    assert!(
        number <= last,
        "{:?} for reason {number}",
        message.header.kind
    );
    if message.header.kind == Kind::Bye {
        assert_eq!(message.metadata.len(), 1);
    }
}
