//! What holds of a store that survives a restart.

use super::sample::{Sample, done, expect, expect_nothing, key, put};
use crate::store::{BLOCK, Store};

/// Opens the store again where it was; the one before has to be dropped.
type Reopen<'a> = &'a dyn Fn() -> Box<dyn Store>;

/// Like [`super::Rule`], told of a store that can be opened again.
type Rule = (&'static str, fn(Reopen<'_>));

pub(super) const RULES: &[Rule] = &[
    ("a record survives a restart as it was given", kept),
    (
        "after a restart the newest record and head are there",
        newest,
    ),
    (
        "a removed record is not remembered after a restart",
        not_remembered,
    ),
    (
        "what was never committed is not there after a restart",
        never_committed,
    ),
];

fn samples() -> impl Iterator<Item = (u64, Sample)> {
    let lengths = [
        0,
        1,
        5000,
        16 * 1024,
        16 * 1024 + 1,
        BLOCK,
        BLOCK + 1,
        9 * BLOCK + 5,
    ];
    let sample = |(number, length)| (number, Sample::new(number, 250, length));
    (0..).zip(lengths).map(sample)
}

fn kept(open: Reopen<'_>) {
    let store = open();
    for (number, sample) in samples() {
        put(&*store, &key(number), &sample);
    }
    done("sync", store.sync());
    drop(store);
    for _ in 0..2 {
        let store = open();
        for (number, sample) in samples() {
            expect(&*store, &key(number), &sample, "after a restart");
        }
        let count = samples().count() as u64;
        assert_eq!(store.usage().records, count, "records after a restart");
    }
}

fn newest(open: Reopen<'_>) {
    // A record of each restart is there beside those of the ones before.
    for (round, (_, _)) in (0..).zip(samples()) {
        let store = open();
        for (number, sample) in samples().take(round) {
            let number = 100 + number;
            let before = Sample::new(round as u64 - 1 + 1000 * number, 70, sample.body.len());
            expect(
                &*store,
                &key(number),
                &before,
                "after a commit, a new head and a restart",
            );
        }
        for (number, sample) in samples().take(round + 1) {
            let number = 100 + number;
            let next = Sample::new(round as u64 + 1000 * number, 70, sample.body.len());
            put(&*store, &key(number), &next.with_head(&sample.head));
            let replaced = store.replace_head(&key(number), &next.head);
            assert!(
                done("replace_head", replaced),
                "replace_head found no record"
            );
            expect(&*store, &key(number), &next, "before a restart");
        }
        done("sync", store.sync());
    }
}

fn not_remembered(open: Reopen<'_>) {
    let store = open();
    for (number, sample) in samples() {
        put(&*store, &key(number), &sample);
        put(
            &*store,
            &key(number),
            &Sample::new(900 + number, 30, sample.body.len()),
        );
        put(&*store, &key(100 + number), &sample);
    }
    done("sync", store.sync());
    for (number, _) in samples() {
        done("remove", store.remove(&key(number)));
    }
    drop(store);
    let store = open();
    for (number, sample) in samples() {
        expect_nothing(&*store, &key(number), "removed before a restart");
        expect(
            &*store,
            &key(100 + number),
            &sample,
            "beside removed records, after a restart",
        );
        done("remove", store.remove(&key(100 + number)));
    }
    drop(store);
    let store = open();
    for (number, _) in samples() {
        expect_nothing(&*store, &key(100 + number), "removed after a restart");
    }
    assert_eq!(store.usage().records, 0, "records after all were removed");
}

fn never_committed(open: Reopen<'_>) {
    let store = open();
    let begin = |number, sample: &Sample| {
        let mut new = done("create", store.create(&key(number)));
        for block in sample.blocks() {
            done("append", new.append(&block));
        }
        new
    };
    for (number, sample) in samples() {
        drop(begin(number, &sample));
    }
    done("sync", store.sync());
    drop(store);
    let store = open();
    for (number, _) in samples() {
        expect_nothing(&*store, &key(number), "dropped before a restart");
    }
    assert_eq!(
        store.usage().records,
        0,
        "records though none was committed"
    );
}
