//! The hasher of the broker's tables.

use std::hash::{BuildHasher, Hasher};

/// Hashes short keys in a few cycles, under a secret.
///
/// Peers choose correlation ids and services, so the plain multiply of an Fx hasher would let one of them fill a single bucket;
/// std's SipHash costs more than the rest of a step. A multiply folded over a secret is neither.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Secret(u64);

impl Secret {
    pub(crate) const fn new(secret: u64) -> Self {
        Self(secret)
    }
}

impl BuildHasher for Secret {
    type Hasher = Folded;

    fn build_hasher(&self) -> Folded {
        Folded {
            state: self.0,
            // Odd, so that the multiply loses nothing; unlike the state, so that no key makes it vanish.
            factor: self.0.rotate_left(32) ^ PI | 1,
        }
    }
}

/// The fractional digits of pi: a number with nothing up its sleeve.
const PI: u64 = 0x243f_6a88_85a3_08d3;

/// See [`Secret`].
#[derive(Debug)]
pub(crate) struct Folded {
    state: u64,
    factor: u64,
}

impl Hasher for Folded {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        for &word in words {
            self.write_u64(u64::from_le_bytes(word));
        }
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(value.into());
    }

    fn write_u16(&mut self, value: u16) {
        self.write_u64(value.into());
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        self.state = self.fold(value);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn finish(&self) -> u64 {
        // Once more: tables look at the lowest bits, which a single round leaves too regular.
        self.fold(PI)
    }
}

impl Folded {
    fn fold(&self, value: u64) -> u64 {
        let (low, high) = (self.state ^ value).carrying_mul(self.factor, PI);
        low ^ high
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn neighbouring_keys_fall_into_different_buckets_whatever_the_secret() {
        for secret in [0, 1, u64::MAX, 0x1234_5678_9abc_def0] {
            let hasher = Secret::new(secret);
            for stride in [1_u64, 64, 1 << 32, 1 << 57] {
                let buckets: HashSet<_> = (0..100_u64)
                    .map(|index| hasher.hash_one(index.wrapping_mul(stride)) % 1024)
                    .collect();
                assert!(
                    50 < buckets.len(),
                    "{secret:#x} {stride:#x}: {}",
                    buckets.len()
                );
            }
        }
    }
}
