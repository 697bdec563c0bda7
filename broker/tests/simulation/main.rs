//! A site in virtual time: frontends, brokers and backends, and everything that can befall them.
//!
//! `SCALE0_SEED` runs one seed; `SCALE0_SIM_STEPS` says how many steps to take in all, for a long run. A failure prints the
//! command that replays it.
#![expect(
    clippy::unwrap_used,
    reason = "a simulation that cannot go on has failed"
)]

mod backend;
mod dialler;
mod dice;
mod frontend;
mod record;
mod world;

use std::str::FromStr;
use std::sync::OnceLock;
use std::time::Instant;

use world::World;

/// Enough for every kind of accident to happen dozens of times; eight seconds of a core, most of them for the audit after each
/// step.
const STEPS: u64 = 1_000_000;

/// A moment to count from.
#[expect(clippy::disallowed_methods, reason = "an epoch for tests")]
pub(crate) fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

fn variable<T: FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

/// Tells how to see it again, when the test panics.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "replay with: SCALE0_SEED={} cargo test -p scale0-broker --test simulation",
                self.0
            );
        }
    }
}

#[test]
fn a_site_keeps_its_promises_whatever_breaks() {
    let steps = variable("SCALE0_SIM_STEPS").unwrap_or(STEPS);
    let only: Option<u64> = variable("SCALE0_SEED");
    let mut taken = 0;
    for seed in only.unwrap_or(1).. {
        let _replay = Replay(seed);
        let report = World::new(seed).run();
        println!("seed {seed}: {report}");
        taken += report.steps;
        if only.is_some() || steps <= taken {
            return;
        }
    }
}
