//! Each trial for a few seconds, so that none rots, and none of what is to hold is lost unseen.
//!
//! They need the `scale0` of the same build, which `cargo test --workspace` makes; `cargo test -p scale0-trials` alone does not.

use std::process::Command;

use parking_lot::Mutex;

/// One at a time: each measures, and would measure the others.
static ALONE: Mutex<()> = Mutex::new(());

/// Runs a trial; its verdict must be that all holds. What it says is shown if not.
#[track_caller]
fn passes(arguments: &str) {
    let _alone = ALONE.lock();
    let trial = Command::new(env!("CARGO_BIN_EXE_scale0-trials"))
        .args(arguments.split(' '))
        .output()
        .expect("it was built with this test");
    let [said, progress] = [&trial.stdout, &trial.stderr].map(|it| String::from_utf8_lossy(it));
    assert!(trial.status.success(), "{arguments}\n{progress}\n{said}");
    if said.starts_with("SKIPPED") {
        eprintln!("{said}");
    }
}

#[test]
fn a_killed_backend_fails_no_get_and_runs_no_post_twice() {
    passes("kill-backend 3 --clients 20 --every-ms 1000");
}

#[test]
fn a_killed_broker_fails_no_get_and_runs_no_post_twice() {
    passes("kill-broker 3 --clients 20 --every-ms 1500");
}

#[test]
fn a_stopped_backend_is_done_without_and_starts_nothing_when_it_goes_on() {
    passes("pause 5 --clients 20 --stop-ms 4500");
}

#[test]
fn a_cut_link_is_noticed_and_used_again_when_it_is_healed() {
    passes("cut 5 --clients 20 --links backend --cut-ms 4000");
}

#[test]
fn a_rolling_restart_of_all_processes_fails_nothing() {
    passes("rolling 2 --clients 20");
}

#[test]
fn an_idle_site_stays_idle_and_closed_links_leave_nothing_behind() {
    // A build for tests computes several times as long as the one that is judged.
    passes("idle 3 --percent 4");
}

#[test]
fn a_backend_restarted_ten_times_a_second_serves_each_time() {
    passes("restarts 3");
}
