//! The fuzzer's seeds, and many small changes to each, where no fuzzer runs.

use std::fs;
use std::path::Path;

use bytes::Bytes;

use crate::sound::check;

/// The seeds are thrown at live sockets too, so they stay few and small.
const FILES: usize = 300;
const BYTES: usize = 200 * 1024;

/// How many changes of each seed are tried.
const CHANGES: usize = 300;

/// Values on which lengths and counts tend to go wrong.
const EDGES: [u32; 8] = [0, 1, 135, 136, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff];

#[test]
fn no_seed_and_no_change_of_one_does_harm() {
    let seeds = seeds();
    assert!((1..FILES).contains(&seeds.len()));
    assert!(seeds.iter().map(Vec::len).sum::<usize>() < BYTES);
    let mut dice = Dice(0x5ca1e0);
    for seed in &seeds {
        check(&Bytes::copy_from_slice(seed));
        for _ in 0..CHANGES {
            let mut bytes = seed.clone();
            for _ in 0..=dice.below(3) {
                change(&mut bytes, &seeds, &mut dice);
            }
            check(&bytes.into());
        }
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut paths: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    // The same order everywhere, so that a failure is the same everywhere.
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Changes a bit, a number or the length, or goes on as another seed does.
fn change(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], dice: &mut Dice) {
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
        // Where the header states lengths.
        4 => {
            if let Some(to) = bytes.get_mut([2, 3, 4, 5, 56, 57][dice.below(6)]) {
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
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % end as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }
}
