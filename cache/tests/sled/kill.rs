//! A store whose process is killed while it writes.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use scale0_cache::store::{SledStore, Store};

use crate::{has_whole, key, put};

/// Far more than is written, however late the kill comes: nothing may leave to make room.
const CAPACITY: u64 = 1 << 30;

fn open(directory: &Path) -> SledStore {
    SledStore::open(directory, CAPACITY).unwrap()
}

/// Set in the process that is to be killed: the directory of its store, and the number it writes first.
const DIRECTORY: &str = "SCALE0_SLED_DIRECTORY";
const FIRST: &str = "SCALE0_SLED_FIRST";

/// Records between two calls of `sync`.
const SYNC_EVERY: u64 = 40;

/// Not a test where nobody set what it needs: the process that [`rounds_of_kills`] starts, and kills.
#[test]
fn process_to_be_killed() {
    let (Ok(directory), Ok(first)) = (std::env::var(DIRECTORY), std::env::var(FIRST)) else {
        return;
    };
    let first: u64 = first.parse().unwrap();
    let store = open(Path::new(&directory));
    println!("opened");
    for number in first.. {
        put(&store, number).unwrap();
        println!("put {number}");
        if number % SYNC_EVERY == 0 {
            store.remove(&key(number - 1)).unwrap();
            store.sync().unwrap();
            println!("synced {number}");
        }
    }
}

#[test]
fn rounds_of_kills() {
    let directory = tempfile::tempdir().unwrap();
    let mut first = 1;
    let mut synced = Vec::new();
    let mut written = 0;
    for round in 0..5 {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::process_to_be_killed", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .env(FIRST, first.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        // Killed after another number of records each time, wherever it is by then.
        let until = first + 60 + 37 * round;
        let mut last = first;
        for line in lines.map_while(Result::ok) {
            if let Some(number) = line.strip_prefix("synced ") {
                let number: u64 = number.parse().unwrap();
                synced.extend(first..=number);
                first = number + 1;
            }
            if let Some(number) = line.strip_prefix("put ") {
                last = number.parse().unwrap();
                if last == until {
                    process.kill().unwrap();
                }
            }
        }
        let status = process.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "it ended by itself: {status}");
        written = last;

        let store = open(directory.path());
        let counters = store.counters();
        assert_eq!(counters.dropped_unopenable.get(), 0, "round {round}");
        for &number in &synced {
            let removed = number % SYNC_EVERY == SYNC_EVERY - 1;
            assert_eq!(
                has_whole(&store, number),
                !removed,
                "{number} in round {round}"
            );
        }
        // What came after is right where it is there.
        let more = (first..=last + 10)
            .filter(|&number| has_whole(&store, number))
            .count();
        println!(
            "round {round}: {} synced, {more} of {} after",
            synced.len(),
            last + 1 - first
        );
        first = last + 20;
    }
    assert!(300 < written);
}
