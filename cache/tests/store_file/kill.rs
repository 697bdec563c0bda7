//! Real kills of a real process, in the middle of its writing.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use scale0_cache::CacheKey;
use scale0_cache::store::{FileStore, Store};

use crate::world::*;

const THREADS: u64 = 2;

/// Where the writer writes, how much, and which round it is.
const DIRECTORY: &str = "SCALE0_TEST_STORE";
const CAPACITY: &str = "SCALE0_TEST_CAPACITY";
const ROUND: &str = "SCALE0_TEST_ROUND";

/// What a thread of the writer does in its `number`th step. `None`: it removes the record.
fn step(round: u64, thread: u64, number: u64) -> (CacheKey, Option<(String, u64)>) {
    let key = key(format!("{round}/{thread}/{}", number % 20));
    let head = format!("{round} {thread} {number}");
    let length = match number % 9 {
        0 => return (key, None),
        1 => LARGE + number,
        _ => number * 997 % 20_000,
    };
    (key, Some((head, length)))
}

fn seed(head: &str) -> u64 {
    u64::from_le_bytes(
        blake3::hash(head.as_bytes()).as_bytes()[..8]
            .try_into()
            .unwrap(),
    )
}

/// Not a test but the process that is killed, unless nobody asks for it.
#[test]
fn the_writer_that_is_killed() {
    let Ok(directory) = std::env::var(DIRECTORY) else {
        return;
    };
    let number = |name| std::env::var(name).unwrap().parse().unwrap();
    let (capacity, round) = (number(CAPACITY), number(ROUND));
    let store = FileStore::open(Path::new(&directory), capacity).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let store = &store;
            scope.spawn(move || {
                for number in 1.. {
                    match step(round, thread, number) {
                        (key, None) => store.remove(&key).unwrap(),
                        (key, Some((head, length))) => {
                            put(store, &key, &head, &body(seed(&head), length)).unwrap();
                        }
                    }
                    println!("\ndone {thread} {number}");
                }
            });
        }
    });
}

/// Lets the writer take so many steps and kills it; the last step of each thread that it told of.
fn write_and_kill(directory: &Path, capacity: u64, round: u64, steps: usize) -> Vec<u64> {
    let mut writer = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::the_writer_that_is_killed", "--nocapture"])
        .env(DIRECTORY, directory)
        .env(CAPACITY, capacity.to_string())
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut last = vec![0; THREADS as usize];
    let mut told = 0;
    for line in BufReader::new(writer.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some(done) = line.strip_prefix("done ") {
            let (thread, number) = done.split_once(' ').unwrap();
            last[thread.parse::<usize>().unwrap()] = number.parse().unwrap();
            told += 1;
            if told == steps {
                writer.kill().unwrap();
            }
        }
    }
    let status = writer.wait().unwrap();
    assert_eq!(status.signal(), Some(9), "it ended by itself: {status}");
    assert!(
        steps <= told,
        "it was to take {steps} steps and took {told}"
    );
    last
}

/// What a key may have, as the head tells it; `None`: nothing.
type Allowed = HashMap<CacheKey, Vec<Option<(String, u64)>>>;

/// Several rounds of writing in the same place. Every key must have what was last committed or nothing, and with `all_fits` not
/// nothing.
fn storm(capacity: u64, all_fits: bool, steps: impl Fn(u64) -> usize) {
    let directory = tempfile::tempdir().unwrap();
    let mut allowed = Allowed::new();
    for round in 0..8 {
        let last = write_and_kill(directory.path(), capacity, round, steps(round));
        for (thread, last) in (0..).zip(last) {
            for number in 1..=last {
                let (key, record) = step(round, thread, number);
                allowed.insert(key, vec![record]);
            }
            // The one that was being written may have come to be.
            let (key, record) = step(round, thread, last + 1);
            allowed.entry(key).or_insert(vec![None]).push(record);
        }
        let store = FileStore::open(directory.path(), capacity).unwrap();
        assert_eq!(counter(&store, "damaged"), 0);
        for (key, allowed) in &allowed {
            let found = get(&store, key).map(|(head, body)| {
                let head = String::from_utf8(head.to_vec()).unwrap();
                assert!(body == self::body(seed(&head), body.len() as u64));
                (head, body.len() as u64)
            });
            let gone = found.is_none() && !all_fits;
            assert!(
                gone || allowed.contains(&found),
                "{found:?} is none of {allowed:?}"
            );
        }
        assert!(bytes_on_disk(directory.path()) <= store.usage().bytes);
        assert!(store.usage().bytes <= capacity);
        kill(store);
    }
}

#[test]
fn a_kill_at_any_instant_loses_nothing_that_was_committed() {
    storm(64 * MIB, true, |round| 7 + 37 * round as usize);
}

#[test]
fn a_kill_while_segments_are_dropped_brings_nothing_back_and_damages_nothing() {
    storm(4 * MIB, false, |round| 150 + 7 * round as usize);
}
