//! A fuzzer's changes, where no fuzzer runs.

/// Values on which lengths and counts tend to go wrong.
const EDGES: [u32; 8] = [0, 1, 135, 136, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff];

/// Changes a bit, a number or the length, or goes on as another seed does; now and then at one of these places, where it matters.
pub(crate) fn change(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], places: &[usize], dice: &mut Dice) {
    let at = dice.below(bytes.len() + 1);
    match dice.below(6) {
        0 => bytes.truncate(at),
        1 => bytes.insert(at, dice.byte()),
        2 => {
            let other = &seeds[dice.below(seeds.len())];
            bytes.truncate(at);
            bytes.extend_from_slice(&other[at.min(other.len())..]);
        }
        3 => {
            let edge = EDGES[dice.below(EDGES.len())].to_le_bytes();
            for (to, byte) in bytes[at..].iter_mut().zip(&edge[..=dice.below(4)]) {
                *to = *byte;
            }
        }
        4 if !places.is_empty() => {
            if let Some(to) = bytes.get_mut(places[dice.below(places.len())]) {
                *to = dice.byte();
            }
        }
        _ => {
            if let Some(to) = bytes.get_mut(at) {
                *to ^= 1 << dice.below(8);
            }
        }
    }
}

/// SplitMix64: the same numbers in every run.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % end as u64).unwrap()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }
}
