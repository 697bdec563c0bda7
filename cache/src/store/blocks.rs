//! How a body lies in memory.

use bytes::Bytes;

/// Bodies are kept in blocks of this size; only the last one is shorter.
pub const BLOCK: usize = 64 * 1024;

/// A received piece shorter than this is copied before it is kept: it may pin a receive buffer of
/// 64 KiB, so that keeping it costs at least four times its length, and the copy at most 1 µs.
pub const COPY_BELOW: usize = 16 * 1024;

/// A piece that pins nothing but itself if it is small, and what it then counts in memory.
pub(crate) fn detach(chunk: Bytes, copy_below: usize) -> (Bytes, usize) {
    /// The `Bytes` itself, its place in a queue, and the allocator's share.
    const PER_PIECE: usize = 96;
    if chunk.len() < copy_below {
        let own = Bytes::copy_from_slice(&chunk);
        let weight = own.len() + PER_PIECE;
        (own, weight)
    } else {
        let weight = chunk.len().max(BLOCK) + PER_PIECE;
        (chunk, weight)
    }
}

/// A whole body in blocks that are to be kept for long. Its pieces pin nothing but themselves; runs
/// of short ones are copied together into exact blocks, so that many pieces do not cost more than
/// they hold.
pub(crate) fn settle(pieces: &[Bytes]) -> Vec<Bytes> {
    let mut blocks = Vec::with_capacity(pieces.len());
    for run in pieces.chunk_by(|a, b| a.len() < BLOCK && b.len() < BLOCK) {
        match run {
            [alone] => blocks.push(alone.clone()),
            _ => merge(run, &mut blocks),
        }
    }
    blocks
}

fn merge(run: &[Bytes], blocks: &mut Vec<Bytes>) {
    let mut missing: usize = run.iter().map(Bytes::len).sum();
    let mut open = Vec::with_capacity(missing.min(BLOCK));
    for piece in run {
        let mut rest = &piece[..];
        while !rest.is_empty() {
            let (fits, beyond) = rest.split_at(rest.len().min(BLOCK - open.len()));
            open.extend_from_slice(fits);
            missing -= fits.len();
            rest = beyond;
            if open.len() == BLOCK || missing == 0 {
                let next = Vec::with_capacity(missing.min(BLOCK));
                blocks.push(Bytes::from(std::mem::replace(&mut open, next)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_piece_of_a_large_receive_buffer_does_not_pin_it() {
        let receive_buffer = Bytes::from(vec![7; BLOCK]);
        let piece = receive_buffer.slice(100..COPY_BELOW);
        let (kept, weight) = detach(piece.clone(), COPY_BELOW);
        assert_eq!(kept, piece);
        assert_ne!(kept.as_ptr(), piece.as_ptr());
        assert!(weight < COPY_BELOW + 100);

        let large = receive_buffer.slice(..COPY_BELOW);
        let (kept, weight) = detach(large.clone(), COPY_BELOW);
        assert_eq!(
            kept.as_ptr(),
            large.as_ptr(),
            "a large piece is shared, not copied"
        );
        assert!(BLOCK <= weight, "and counted with the buffer it may pin");
    }

    proptest::proptest! {
        #[test]
        fn settling_changes_no_byte_and_leaves_exact_blocks(lengths in proptest::collection::vec(0_usize..200_000, 0..12)) {
            let length = lengths.iter().sum();
            let body: Vec<u8> = (0..=250).cycle().take(length).collect();
            let mut rest = Bytes::from(body.clone());
            let pieces: Vec<Bytes> = lengths.iter().map(|&length| rest.split_to(length)).collect();
            let blocks = settle(&pieces);
            proptest::prop_assert_eq!(blocks.concat(), body);
            let whole = pieces.iter().filter(|piece| BLOCK <= piece.len()).count();
            proptest::prop_assert!(blocks.len() <= 2 * whole + 2 + length / BLOCK);
        }
    }
}
