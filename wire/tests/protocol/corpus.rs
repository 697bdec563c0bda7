//! The fuzzer's seeds, and many small changes to each, where no fuzzer runs.

use std::fs;
use std::path::Path;

use bytes::Bytes;

use crate::mutator::{Dice, change};
use crate::sound::check;

/// The seeds are thrown at live sockets too, so they stay few and small.
const FILES: usize = 300;
const BYTES: usize = 200 * 1024;

/// How many changes of each seed are tried.
const CHANGES: usize = 300;

/// Where the header states lengths.
const LENGTHS: [usize; 6] = [2, 3, 4, 5, 56, 57];

#[test]
fn no_seed_and_no_change_of_one_does_harm() {
    let seeds = seeds();
    assert!((1..FILES).contains(&seeds.len()));
    assert!(seeds.iter().map(Vec::len).sum::<usize>() < BYTES);
    let mut dice = Dice::new(0x5ca1e0);
    for seed in &seeds {
        check(&Bytes::copy_from_slice(seed));
        for _ in 0..CHANGES {
            let mut bytes = seed.clone();
            for _ in 0..=dice.below(3) {
                change(&mut bytes, &seeds, &LENGTHS, &mut dice);
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
