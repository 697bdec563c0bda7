//! The fuzzer's seeds, and many changes to each, where no fuzzer runs.
//!
//! `SCALE0_FUZZ_SECONDS` says for how long each target is tried; without it, it is a number of scripts.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use scale0_simulation::fuzz;

#[path = "../../wire/tests/protocol/mutator.rs"]
mod mutator;

use mutator::{Dice, change};

/// Seeds stay few and small.
const FILES: usize = 100;
const BYTES: usize = 100 * 1024;

/// How many scripts are made from the seeds of a target: a second or two, and a few hundred thousand events.
const SCRIPTS: usize = 2000;

/// Scripts that found something to do are changed further, so many of them.
const KEPT: usize = 256;

/// Scripts out of nothing are shorter than this: nearly all of their bytes mean something.
const FRESH: usize = 1024;

/// The longest script.
const LONGEST: usize = 12_000;

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let files = fs::read_dir(folder.join(target)).unwrap();
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    // The same order everywhere, so that a failure is the same everywhere.
    paths.sort();
    let seeds: Vec<_> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    assert!((1..FILES).contains(&seeds.len()));
    assert!(seeds.iter().map(Vec::len).sum::<usize>() < BYTES);
    seeds
}

/// Says what broke it, when the test panics: as a seed it breaks it again.
struct Broken<'a>(&'a str, &'a [u8]);

impl Drop for Broken<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self(target, script) = *self;
            let hex: String = script.iter().map(|byte| format!("{byte:02x}")).collect();
            eprintln!("put it into fuzz/corpus/{target}: echo {hex} | xxd -r -p");
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "it tries for so long")]
fn now() -> Instant {
    Instant::now()
}

/// Runs the seeds, and changes of them and of such changes.
fn run(target: &str, check: fn(&[u8])) {
    let seconds = std::env::var("SCALE0_FUZZ_SECONDS");
    let seconds: Option<u64> = seconds.ok().and_then(|text| text.parse().ok());
    let until = seconds.map(|seconds| now() + Duration::from_secs(seconds));
    let mut scripts = seeds(target);
    for script in &scripts {
        let _broken = Broken(target, script);
        check(script);
    }
    let mut dice = Dice::new(0x5ca1e0);
    for turn in 0.. {
        let is_over = until.map_or(SCRIPTS <= turn, |until| until <= now());
        if is_over {
            return;
        }
        let mut script = if dice.below(4) == 0 {
            (0..dice.below(FRESH)).map(|_| dice.byte()).collect()
        } else {
            scripts[dice.below(scripts.len())].clone()
        };
        for _ in 0..=dice.below(8) {
            change(&mut script, &scripts, &[], &mut dice);
        }
        script.truncate(LONGEST);
        {
            let _broken = Broken(target, &script);
            check(&script);
        }
        // The walk goes on from here, now and then.
        if scripts.len() < KEPT {
            scripts.push(script);
        } else if dice.below(16) == 0 {
            let place = dice.below(KEPT);
            scripts[place] = script;
        }
    }
}

#[test]
fn a_broker_keeps_its_counts_whatever_happens_to_it() {
    run("broker", fuzz::broker);
}

#[test]
fn a_lane_keeps_its_counts_whatever_happens_to_it() {
    run("lane", fuzz::lane);
}

#[test]
fn a_session_keeps_its_counts_whatever_happens_to_it() {
    run("session", fuzz::session);
}
