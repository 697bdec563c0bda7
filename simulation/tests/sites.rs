//! Sites in all weathers, and that what is said of them could be false.
//!
//! `SCALE0_SEED` runs one seed of the storm; `SCALE0_SIM_STEPS` says how many steps to take in all, for a long run. A failure prints
//! the command that replays it.

use std::str::FromStr;

use scale0_simulation::{Report, Weather, World};

/// Enough for every kind of accident to happen dozens of times; half a minute of a core.
const STEPS: u64 = 2_000_000;

fn variable<T: FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

/// Tells how to see it again, when the test panics.
struct Replay(u64, &'static str);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self(seed, test) = self;
            eprintln!(
                "replay with: SCALE0_SEED={seed} cargo test -p scale0-simulation --test sites {test}"
            );
        }
    }
}

/// Runs seed after seed until so many steps are taken, or the one that is asked for.
fn run(test: &'static str, steps: u64, weather: &Weather) {
    let only: Option<u64> = variable("SCALE0_SEED");
    let mut taken = 0;
    for seed in only.unwrap_or(1).. {
        let _replay = Replay(seed, test);
        let report = World::new(seed, weather.clone()).run();
        eprintln!("seed {seed}: {report}");
        taken += report.steps;
        if only.is_some() || steps <= taken {
            return;
        }
    }
}

#[test]
fn a_site_keeps_its_promises_whatever_breaks() {
    let steps = variable("SCALE0_SIM_STEPS").unwrap_or(STEPS);
    run("whatever_breaks", steps, &Weather::storm());
}

#[test]
fn a_rolling_restart_of_everything_fails_no_request() {
    run("a_rolling_restart", 300_000, &Weather::rolling());
}

#[test]
fn processes_that_are_killed_fail_no_request_that_may_be_repeated() {
    run("processes_that_are_killed", 300_000, &Weather::kills());
}

#[test]
fn paths_that_are_cut_fail_no_request_that_may_be_repeated() {
    run("paths_that_are_cut", 300_000, &Weather::cuts());
}

#[test]
fn a_seed_tells_the_same_story_each_time() {
    let tell = |seed| -> Report { World::new(seed, Weather::storm()).run() };
    assert_eq!(tell(2), tell(2));
}
