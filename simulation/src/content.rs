//! What streams carry: of each byte it can be told whose it is and where in its stream.

use std::sync::OnceLock;

use bytes::Bytes;

use crate::dice::Dice;

/// The longest stream.
pub(crate) const LONGEST: u64 = 256 * 1024;

/// The length of a stream that goes on until somebody ends it.
pub(crate) const ENDLESS: u64 = u64::MAX;

/// Where streams begin in the pattern: spread by a prime, so that no two near in number share much.
const STARTS: u64 = 256 * 1024;
const STRIDE: u64 = 7919;

/// So many random bytes, of which each stream is a part.
fn pattern() -> &'static Bytes {
    static PATTERN: OnceLock<Bytes> = OnceLock::new();
    PATTERN.get_or_init(|| {
        let mut dice = Dice::new(0x05ca_1e00);
        let words = (STARTS + LONGEST) / 8;
        let bytes = (0..words).flat_map(|_| dice.next().to_le_bytes());
        bytes.collect()
    })
}

/// So much of a stream, from there on.
pub(crate) fn content(id: u64, offset: u64, length: u64) -> Bytes {
    assert!(offset + length <= LONGEST, "nothing is as long as that");
    let from = usize::try_from(id.wrapping_mul(STRIDE) % STARTS + offset).unwrap();
    pattern().slice(from..from + usize::try_from(length).unwrap())
}

/// Panics unless these bytes are what the stream has there.
pub(crate) fn check_content(what: &str, id: u64, offset: u64, bytes: &[u8]) {
    assert!(
        offset + bytes.len() as u64 <= LONGEST && content(id, offset, bytes.len() as u64) == bytes,
        "{what} {id}: content of another stream, lost or out of order at {offset}"
    );
}

/// Two numbers as the metadata of heads: whose it is, and how much content follows.
pub(crate) fn pair(first: u64, second: u64) -> Bytes {
    [first.to_le_bytes(), second.to_le_bytes()].concat().into()
}

/// The two numbers, unless it is something else.
pub(crate) fn read_pair(bytes: &[u8]) -> Option<(u64, u64)> {
    let number = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    (bytes.len() == 16).then_some((number(0)?, number(8)?))
}
