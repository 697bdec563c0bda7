//! Randomness that can be had again.

/// SplitMix64: quick, and good enough to choose between equals. Nothing that must not be guessed may rest on it.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// One of the numbers below `bound`, which is not 0. Which it is is a little uneven for bounds near 2³².
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // The upper half, scaled: no division.
        let scaled = u128::from(mixed ^ (mixed >> 31)) * bound as u128;
        usize::try_from(scaled >> 64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_below_the_bound_comes_about_equally_often() {
        let mut rng = Rng::new(7);
        let mut counts = [0_u32; 17];
        for _ in 0..17_000 {
            counts[rng.below(17)] += 1;
        }
        assert!(
            counts.iter().all(|count| (850..1150).contains(count)),
            "{counts:?}"
        );
    }
}
