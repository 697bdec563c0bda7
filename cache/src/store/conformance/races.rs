//! What holds while several threads ask a store at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use bytes::Bytes;

use super::Rule;
use super::sample::{
    Sample, done, expect, expect_nothing, key, open, put, verify, verify_or_fails,
};
use crate::store::{BLOCK, Record, Store};

pub(super) const RULES: &[Rule] = &[
    (
        "readers of a key see one record of its writers, never a mixture",
        one_key,
    ),
    ("replace_head does not undo a commit", heads_and_commits),
    (
        "a record is removed whatever else its key is asked for",
        removals,
    ),
    (
        "threads with keys of their own do not disturb each other",
        many_keys,
    ),
];

/// Commits by each writer of a rule.
const COMMITS: u64 = 60;

/// The record of that number: its head says the number, and its length follows from it.
fn numbered(number: u64) -> Sample {
    const LENGTHS: [usize; 5] = [BLOCK + 1, 100, 3 * BLOCK, 17_000, 9];
    let index = usize::try_from(number % 5).unwrap_or(0);
    let mut sample = Sample::new(number, 40, LENGTHS[index]);
    let head = [&number.to_le_bytes()[..], &sample.head].concat();
    let body = [&number.to_le_bytes()[..], &sample.body].concat();
    sample.head = Bytes::from(head);
    sample.body = Bytes::from(body);
    sample
}

/// The number that the first eight bytes say.
fn number_in(bytes: &[u8]) -> u64 {
    let Some(number) = bytes.first_chunk() else {
        panic!(
            "of a head or body written whole, {} bytes are there",
            bytes.len()
        );
    };
    u64::from_le_bytes(*number)
}

/// Its head tells which record it is, and all of it that can be read is of that one.
fn verify_numbered(record: &Arc<dyn Record>) {
    let sample = numbered(number_in(&record.head()));
    verify_or_fails(&**record, &sample, "while it is written", &mut |_| {});
}

/// Tells the other threads that one has done, also when it panicked.
struct Done<'a>(&'a AtomicU64);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn one_key(store: &dyn Store) {
    let key = &key(1);
    put(store, key, &numbered(0));
    let writers = &AtomicU64::new(2);
    let found = &AtomicU64::new(0);
    thread::scope(|scope| {
        for writer in 1..3 {
            scope.spawn(move || {
                let _done = Done(writers);
                for commit in 0..COMMITS {
                    put(store, key, &numbered(writer * 1000 + commit));
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(move || {
                let mut held = None;
                while 0 < writers.load(Ordering::Relaxed) {
                    let Some(record) = open(store, key) else {
                        continue;
                    };
                    found.fetch_add(1, Ordering::Relaxed);
                    verify_numbered(&record);
                    // One that has been open for a while is no mixture either.
                    held.replace(record).as_ref().map(verify_numbered);
                }
            });
        }
    });
    assert!(
        0 < found.load(Ordering::Relaxed),
        "no reader ever found the record"
    );
    let last: Vec<u64> = (1..3).map(|writer| writer * 1000 + COMMITS - 1).collect();
    let Some(record) = open(store, key) else {
        panic!("after the last commit, there is no record");
    };
    let number = number_in(&record.head());
    assert!(
        last.contains(&number),
        "the record committed last is not there"
    );
    verify(&*record, &numbered(number), "after the last commit");
}

fn heads_and_commits(store: &dyn Store) {
    let key = &key(1);
    put(store, key, &numbered(0));
    let replacing = &AtomicU64::new(1);
    let committing = &AtomicU64::new(1);
    let replaced = &AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(move || {
            let _done = Done(replacing);
            while 0 < committing.load(Ordering::Relaxed) {
                done(
                    "replace_head",
                    store.replace_head(key, &u64::MAX.to_le_bytes()),
                );
                replaced.fetch_add(1, Ordering::Relaxed);
            }
        });
        // The one thread that commits knows which body has to be there.
        scope.spawn(move || {
            let _done = Done(committing);
            for number in 1..=COMMITS {
                let sample = numbered(number);
                put(store, key, &sample);
                // One that ran beside the commit has ended when another has.
                let before = replaced.load(Ordering::Relaxed);
                while replaced.load(Ordering::Relaxed) == before
                    && 0 < replacing.load(Ordering::Relaxed)
                {
                    thread::yield_now();
                }
                let Some(record) = open(store, key) else {
                    panic!("after a commit, there is no record");
                };
                let another = number_in(&record.head()) == u64::MAX;
                let head = if another {
                    record.head()
                } else {
                    sample.head.clone()
                };
                verify_or_fails(
                    &*record,
                    &sample.with_head(&head),
                    "after a commit",
                    &mut |_| {},
                );
                let denied = !store.may_hold(key);
                assert!(
                    !denied || open(store, key).is_none(),
                    "may_hold denies a record"
                );
            }
        });
    });
}

fn removals(store: &dyn Store) {
    let key = &key(1);
    thread::scope(|scope| {
        scope.spawn(move || (0..COMMITS).for_each(|number| put(store, key, &numbered(number))));
        scope.spawn(move || (0..COMMITS).for_each(|_| done("remove", store.remove(key))));
        scope.spawn(move || {
            for _ in 0..COMMITS {
                open(store, key).as_ref().map(verify_numbered);
            }
        });
    });
    done("remove", store.remove(key));
    expect_nothing(store, key, "after a removal that came last");
    assert_eq!(
        store.usage().records,
        0,
        "records after the last was removed"
    );
    put(store, key, &numbered(1));
    expect(store, key, &numbered(1), "after all that and a commit");
}

fn many_keys(store: &dyn Store) {
    const EACH: u64 = 25;
    thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for number in thread * EACH..(thread + 1) * EACH {
                    put(store, &key(number), &numbered(number + 7000));
                    put(store, &key(number), &numbered(number));
                    expect(
                        store,
                        &key(number),
                        &numbered(number),
                        "beside other threads",
                    );
                }
            });
        }
    });
    for number in 0..4 * EACH {
        expect(
            store,
            &key(number),
            &numbered(number),
            "after all threads have written",
        );
    }
    assert_eq!(
        store.usage().records,
        4 * EACH,
        "records after as many keys"
    );
}
