//! What becomes of a stored response when a part of the same representation comes (RFC 9111 §3.4).

use std::sync::Arc;

use bytes::Bytes;

use super::{COPY_BELOW, ResponseHead, StoredResponse, detach};
use crate::policy::part::{Part, are_of_one, head_of, joined_head};

/// What is to be stored.
#[derive(Debug)]
pub(crate) enum Combined {
    /// This takes the place of what is there: there is nothing to put it together with.
    Alone(ResponseHead, Vec<Bytes>),
    /// What is there and what has come, under one head.
    Together(ResponseHead, Vec<Bytes>),
    /// The whole is there, and current: it gets this head.
    Renewed(ResponseHead, Arc<StoredResponse>),
    /// What is there stays: the whole is worth more than a part of which it cannot be told whether it belongs to it.
    Kept,
}

/// Puts what is stored, if anything is, together with a part: its head, which bytes they are, and the bytes.
pub(crate) fn combine(
    stored: Option<Arc<StoredResponse>>,
    head: &ResponseHead,
    part: &Part,
    blocks: Vec<Bytes>,
) -> Combined {
    if let Some(stored) = stored {
        let is_one = are_of_one(&stored.head().headers, &head.headers);
        match stored.part() {
            Some(before) if is_one => {
                if let (Some(joined), Some(older)) = (before.joined_with(part), stored.blocks()) {
                    let head = joined_head(stored.head(), &head.headers, &joined);
                    return Combined::Together(head, joined_blocks(before, older, part, &blocks));
                }
            }
            None if is_one && stored.length() == part.total => {
                let whole = Part::whole(part.total);
                let head = joined_head(stored.head(), &head.headers, &whole);
                return Combined::Renewed(head, stored);
            }
            None if stored.status().is_success() && !is_known(&stored, head) => {
                return Combined::Kept;
            }
            Some(_) | None => {}
        }
    }
    Combined::Alone(head_of(head, part), blocks)
}

/// Whether it can be told that the two are of different representations.
fn is_known(stored: &StoredResponse, head: &ResponseHead) -> bool {
    are_of_one(&stored.head().headers, &stored.head().headers)
        && are_of_one(&head.headers, &head.headers)
}

/// The bytes of both; where both have them, those of the newer.
fn joined_blocks(before: &Part, older: &[Bytes], part: &Part, newer: &[Bytes]) -> Vec<Bytes> {
    let begin = before.range.first;
    let front = part.range.first.saturating_sub(begin);
    let behind = (part.range.last + 1).saturating_sub(begin);
    let mut joined = cut(older, 0, front);
    joined.extend_from_slice(newer);
    joined.extend(cut(older, behind, u64::MAX));
    joined
}

/// The bytes from `from` up to `to`, in pieces that pin little but themselves.
fn cut(blocks: &[Bytes], from: u64, to: u64) -> Vec<Bytes> {
    let mut offset = 0;
    let mut pieces = Vec::new();
    for block in blocks {
        let within = |place: u64| {
            let place = place.saturating_sub(offset).min(block.len() as u64);
            usize::try_from(place).unwrap_or(block.len())
        };
        let range = within(from)..within(to);
        offset += block.len() as u64;
        if range.len() == block.len() {
            pieces.push(block.clone());
        } else if !range.is_empty() {
            pieces.push(detach(block.slice(range), COPY_BELOW).0);
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::ByteRange;

    const WHOLE: &[u8] = b"0123456789abcdefghij";

    fn part(first: u64, last: u64) -> Part {
        let range = ByteRange { first, last };
        Part {
            range,
            total: WHOLE.len() as u64,
        }
    }

    /// In blocks of three bytes.
    fn blocks(part: &Part) -> Vec<Bytes> {
        let place = |at: u64| usize::try_from(at).unwrap();
        let (first, last) = (place(part.range.first), place(part.range.last));
        let blocks = WHOLE[first..=last].chunks(3);
        blocks.map(Bytes::copy_from_slice).collect()
    }

    #[test]
    fn two_parts_make_exactly_the_bytes_from_the_first_to_the_last() {
        let all = || (0..20).flat_map(|first| (first..20).map(move |last| part(first, last)));
        let mut pairs = 0;
        for older in all() {
            for newer in all() {
                let Some(joined) = older.joined_with(&newer) else {
                    continue;
                };
                let bytes = joined_blocks(&older, &blocks(&older), &newer, &blocks(&newer));
                assert_eq!(
                    bytes.concat(),
                    blocks(&joined).concat(),
                    "{older:?} {newer:?}"
                );
                pairs += 1;
            }
        }
        assert!(10_000 < pairs);
    }
}
