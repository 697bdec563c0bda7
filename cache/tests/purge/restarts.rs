//! What was confirmed is known to the next process; and what is not known is not trusted.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use scale0_cache::purge::{Epoch, Labels, Purged, Purges, Restored, Target};

use super::{hard, labels, tag};

/// A clock that goes on by a second each time it is read.
fn wall() -> SystemTime {
    static READ: AtomicU64 = AtomicU64::new(1_800_000_000);
    SystemTime::UNIX_EPOCH + Duration::from_secs(READ.fetch_add(1, Ordering::Relaxed))
}

/// From byte to byte of a file: every record and every part of one is met, and each costs some waits for the disk.
const STEP: usize = 5;

fn open(folder: &Path) -> (Purges, Restored) {
    Purges::open(folder, wall(), Arc::default()).unwrap()
}

fn file(folder: &Path) -> PathBuf {
    folder.join("purges")
}

/// A folder in which these tags were purged, and an epoch before that.
fn purged(tags: &[&str]) -> (tempfile::TempDir, Epoch) {
    let folder = tempfile::tempdir().unwrap();
    let (purges, _) = open(folder.path());
    let born = purges.now();
    for name in tags {
        purges.purge(&[hard(tag(name))]).unwrap();
    }
    (folder, born)
}

fn tagged(name: &str) -> Labels {
    labels("/", name)
}

#[test]
fn what_was_purged_stays_purged_and_what_was_not_is_used() {
    let (folder, born) = purged(&["one", "two"]);
    for _ in 0..3 {
        let (purges, restored) = open(folder.path());
        assert_eq!(restored, Restored::Whole);
        assert_eq!(purges.judge(born, &tagged("one")).purged, Purged::Hard);
        assert_eq!(purges.judge(born, &tagged("two")).purged, Purged::Hard);
        assert_eq!(purges.judge(born, &tagged("three")).purged, Purged::No);
    }
}

#[test]
fn every_kind_of_purge_is_remembered() {
    let deep = "/s".repeat(40);
    let authority = || "a".to_owned();
    let targets = [
        (
            Target::Url {
                authority: authority(),
                path_and_query: "/u?q".into(),
            },
            Purged::Hard,
        ),
        (
            Target::Prefix {
                authority: authority(),
                path: "/u".into(),
            },
            Purged::Hard,
        ),
        (
            Target::Prefix {
                authority: authority(),
                path: deep.clone(),
            },
            Purged::Unsure,
        ),
        (tag("t"), Purged::Hard),
        (Target::All, Purged::Hard),
    ];
    for (target, expected) in targets {
        let path = if expected == Purged::Unsure {
            &deep
        } else {
            "/u?q"
        };
        for soft in [false, true] {
            let (folder, born) = purged(&[]);
            let (purges, _) = open(folder.path());
            let mut purge = hard(target.clone());
            purge.soft = soft;
            purges.purge(&[purge]).unwrap();
            let (purges, _) = open(folder.path());
            let judged = purges.judge(born, &labels(path, "t")).purged;
            assert_eq!(
                judged,
                if soft { Purged::Soft } else { expected },
                "{target:?}"
            );
        }
    }
}

#[test]
fn an_epoch_is_never_given_out_twice() {
    let folder = tempfile::tempdir().unwrap();
    let mut latest = Epoch::default();
    for _ in 0..5 {
        let (purges, _) = open(folder.path());
        assert!(latest < purges.now());
        // As if many purges could not be written down.
        latest = Epoch::new(purges.now().get() + 1_000_000);
    }
    fs::remove_file(file(folder.path())).unwrap();
    assert!(latest < open(folder.path()).0.now());
}

#[test]
fn without_its_file_nothing_stored_before_is_trusted() {
    let (folder, born) = purged(&["one"]);
    let (purges, _) = open(folder.path());
    let later = purges.purge(&[hard(tag("two"))]).unwrap();
    drop(purges);
    fs::remove_file(file(folder.path())).unwrap();

    for expected in [Restored::Nothing, Restored::Whole] {
        let (purges, restored) = open(folder.path());
        assert_eq!(restored, expected);
        for born in [born, later] {
            assert_eq!(purges.judge(born, &tagged("three")).purged, Purged::Unsure);
        }
        assert_eq!(
            purges.judge(purges.now(), &tagged("one")).purged,
            Purged::No
        );
    }
}

#[test]
fn a_flipped_byte_anywhere_is_noticed_and_nothing_stored_before_is_trusted() {
    let (folder, born) = purged(&["one", "two"]);
    let whole = fs::read(file(folder.path())).unwrap();
    for at in (0..whole.len()).step_by(STEP) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x40;
        fs::write(file(folder.path()), damaged).unwrap();
        let (purges, restored) = open(folder.path());
        assert_eq!(restored, Restored::Damaged, "byte {at}");
        for name in ["one", "two", "three"] {
            let judged = purges.judge(born, &tagged(name)).purged;
            assert!(Purged::Unsure <= judged, "byte {at}, {name}: {judged:?}");
        }
    }
}

#[test]
fn a_file_cut_short_loses_what_is_cut_off_and_nothing_else() {
    let (folder, born) = purged(&["one", "two", "three"]);
    let whole = fs::read(file(folder.path())).unwrap();
    let mut lost = 0;
    for length in (0..whole.len()).rev().step_by(STEP) {
        fs::write(file(folder.path()), &whole[..length]).unwrap();
        let (purges, restored) = open(folder.path());
        let judged = ["one", "two", "three"].map(|name| purges.judge(born, &tagged(name)).purged);
        if restored == Restored::Damaged {
            assert!(judged.iter().all(|judged| Purged::Unsure <= *judged));
            continue;
        }
        let known = judged
            .iter()
            .filter(|judged| **judged == Purged::Hard)
            .count();
        assert_eq!(
            known,
            3 - (whole.len() - length).div_ceil(24),
            "of {length} bytes"
        );
        assert!(judged[..known].iter().all(|judged| *judged == Purged::Hard));
        lost = 3 - known;
    }
    assert_eq!(
        lost, 3,
        "the purges behind the snapshot, one after the other"
    );
}

#[test]
fn a_snapshot_cut_short_is_damaged() {
    let (folder, born) = purged(&["one", "two", "three"]);
    drop(open(folder.path()));
    let snapshot = fs::read(file(folder.path())).unwrap();
    for length in (0..snapshot.len()).rev().step_by(STEP) {
        fs::write(file(folder.path()), &snapshot[..length]).unwrap();
        let (purges, restored) = open(folder.path());
        assert_eq!(restored, Restored::Damaged, "{length} bytes");
        assert!(Purged::Unsure <= purges.judge(born, &tagged("one")).purged);
    }
}

#[test]
fn where_nothing_can_be_written_there_is_no_log() {
    let folder = tempfile::tempdir().unwrap();
    let gone = folder.path().join("gone");
    assert!(Purges::open(&gone, wall(), Arc::default()).is_err());
}

const FOLDER: &str = "SCALE0_TEST_PURGES";

/// No test: the process that [`what_was_confirmed_survives_kill_9`] kills.
#[test]
#[ignore = "runs in a process of its own"]
fn purges_until_it_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let (purges, _) = open(Path::new(&folder));
    let mut out = std::io::stdout();
    for number in 0_u64.. {
        purges.purge(&[hard(tag(&number.to_string()))]).unwrap();
        writeln!(out, "confirmed {number}").unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn what_was_confirmed_survives_kill_9() {
    let (folder, born) = purged(&[]);
    for round in 1..=4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "restarts::purges_until_it_is_killed",
                "--ignored",
                "--nocapture",
            ])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut next = || loop {
            let line = lines.next()?.unwrap();
            // The harness may have begun the line.
            if let Some((_, number)) = line.split_once("confirmed ") {
                return number.parse::<u64>().ok();
            }
        };
        while next().is_some_and(|number| number < 10 * round) {}
        child.kill().unwrap();
        let last = std::iter::from_fn(&mut next).last().unwrap_or(10 * round);
        child.wait().unwrap();

        let (purges, restored) = open(folder.path());
        assert_eq!(restored, Restored::Whole);
        for number in 0..=last {
            let judged = purges.judge(born, &tagged(&number.to_string())).purged;
            assert_eq!(judged, Purged::Hard, "{number} of {last}");
        }
        assert_eq!(purges.judge(born, &tagged("never")).purged, Purged::No);
    }
}
