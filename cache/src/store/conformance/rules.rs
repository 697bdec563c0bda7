//! What holds while a store is asked one thing after the other.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;

use super::Rule;
use super::sample::{
    Sample, block_count, done, expect, expect_nothing, key, open, put, verify, verify_or_fails,
};
use crate::key::CacheKey;
use crate::store::{BLOCK, NewRecord, Store};

/// Lengths at which something changes in a store that knows of blocks, pages or inline values.
const LENGTHS: [usize; 12] = [
    0,
    1,
    100,
    4096,
    16 * 1024 - 1,
    16 * 1024,
    16 * 1024 + 1,
    BLOCK - 1,
    BLOCK,
    BLOCK + 1,
    2 * BLOCK,
    17 * BLOCK + 12_345,
];

/// A response's fields may be more than a block.
const HEADS: [usize; 5] = [0, 1, 300, 16 * 1024, BLOCK + 7];

pub(super) const RULES: &[Rule] = &[
    ("heads and bodies come back as they were given", round_trips),
    ("a commit takes the place of what was there", replaced),
    ("a removed record is forgotten", removed),
    (
        "replace_head says false where there is no record",
        no_head_without_a_record,
    ),
    (
        "replace_head gives another head and leaves the body",
        another_head,
    ),
    ("a record is nowhere until it is committed", uncommitted),
    (
        "a record dropped before it was committed leaves nothing behind",
        dropped,
    ),
    (
        "of two records of one key the one committed last stays, unmixed",
        two_at_once,
    ),
    (
        "keys that differ in one bit are different keys",
        similar_keys,
    ),
    (
        "an open record stays what it was, or fails, whatever happens to its key",
        held_open,
    ),
    (
        "so_far is what was appended, for as long as it is held",
        so_far,
    ),
    ("reading past the end is an error", past_the_end),
    ("may_hold denies no record that is there", may_hold),
    ("usage counts what is there", usage),
    ("touch changes nothing", touched),
];

fn round_trips(store: &dyn Store) {
    let mut samples = Vec::new();
    for (number, length) in (0..).zip(LENGTHS) {
        samples.push(Sample::new(number, 200, length));
    }
    for (number, head) in (100..).zip(HEADS) {
        samples.push(Sample::new(number, head, 0));
        samples.push(Sample::new(number + 100, head, 2 * BLOCK + 1));
    }
    // Bytes that would not survive being taken for text.
    samples.push(Sample {
        head: Bytes::from_static(b" \r\n\xFF\0\t\n "),
        body: Bytes::from_static(b"\0 \xEF\xBB\xBF\r\n\0\0"),
    });
    for (number, sample) in (0..).zip(&samples) {
        put(store, &key(number), sample);
        expect(store, &key(number), sample, &shape(sample));
    }
    done("sync", store.sync());
    for (number, sample) in (0..).zip(&samples) {
        expect(
            store,
            &key(number),
            sample,
            &format!("after others were written, {}", shape(sample)),
        );
    }
}

fn shape(sample: &Sample) -> String {
    format!(
        "with a head of {} and a body of {} bytes",
        sample.head.len(),
        sample.body.len()
    )
}

/// A record with these blocks, neither committed nor dropped.
fn begun(store: &dyn Store, key: &CacheKey, sample: &Sample) -> Box<dyn NewRecord> {
    let mut new = done("create", store.create(key));
    for block in sample.blocks() {
        done("append", new.append(&block));
    }
    new
}

fn uncommitted(store: &dyn Store) {
    for (number, length) in (0..).zip(LENGTHS) {
        let (key, sample) = (key(number), Sample::new(number, 50, length));
        let new = begun(store, &key, &sample);
        expect_nothing(store, &key, "before the commit");
        let replaced = done("replace_head", store.replace_head(&key, b"a head"));
        assert!(!replaced, "before the commit, replace_head found a record");
        assert_eq!(
            store.usage().records,
            number,
            "before the commit, usage counts it"
        );
        done("commit", new.commit(&sample.head));
        expect(store, &key, &sample, "after the commit");
    }
}

fn dropped(store: &dyn Store) {
    for (number, length) in (0..).zip(LENGTHS) {
        let (fresh, taken) = (key(number), key(1000 + number));
        let old = Sample::new(number, 50, LENGTHS[LENGTHS.len() - 1] - length);
        put(store, &taken, &old);
        for key in [fresh, taken] {
            drop(begun(store, &key, &Sample::new(2000 + number, 0, length)));
        }
        expect_nothing(store, &fresh, "after the drop");
        expect(store, &taken, &old, "after a new record was dropped");
    }
    let bytes = store.usage().bytes;
    for number in 0..4 {
        drop(begun(
            store,
            &key(number),
            &Sample::new(number, 0, 16 * BLOCK),
        ));
    }
    assert!(
        store.usage().bytes < bytes + 16 * BLOCK as u64,
        "what was dropped is counted in usage"
    );
}

fn replaced(store: &dyn Store) {
    let key = key(1);
    // From long to short and back, so that nothing of the longer one may stay.
    let lengths = LENGTHS
        .iter()
        .rev()
        .chain(&LENGTHS)
        .chain([&LENGTHS[11], &0, &LENGTHS[9]]);
    for (number, &length) in (0..).zip(lengths) {
        let sample = Sample::new(number, length % 1000, length);
        put(store, &key, &sample);
        expect(store, &key, &sample, "after a commit upon another");
        assert_eq!(store.usage().records, 1, "usage counts what was replaced");
    }
}

fn two_at_once(store: &dyn Store) {
    for (number, length) in (0..).zip([1, 20_000, 3 * BLOCK]) {
        let key = key(number);
        let first = Sample::new(10 + number, 40, length);
        let second = Sample::new(20 + number, 80, length + BLOCK);
        let mut one = done("create", store.create(&key));
        let mut other = done("create", store.create(&key));
        let (mut ones, others) = (first.blocks(), second.blocks());
        // In turns; the other one has a block more.
        for block in others {
            done("append", other.append(&block));
            if let Some(block) = ones.next() {
                done("append", one.append(&block));
            }
        }
        done("commit", other.commit(&second.head));
        expect(
            store,
            &key,
            &second,
            "after the commit of the one begun last",
        );
        done("commit", one.commit(&first.head));
        expect(
            store,
            &key,
            &first,
            "after the commit of the one begun first",
        );
    }
}

fn similar_keys(store: &dyn Store) {
    let original = *key(1).as_bytes();
    let mut keys = vec![key(1)];
    for byte in 0..original.len() {
        let mut bytes = original;
        bytes[byte] ^= 1 << (byte % 8);
        keys.push(CacheKey::from_bytes(bytes));
    }
    for (number, key) in (0..).zip(&keys) {
        let sample = Sample::new(number, 20, 100);
        put(store, key, &sample);
        expect(store, key, &sample, "beside a similar key");
    }
    for (number, key) in (0..).zip(&keys) {
        // One may have displaced another: a store may forget.
        if let Some(record) = open(store, key) {
            verify(
                &*record,
                &Sample::new(number, 20, 100),
                "under a similar key",
            );
        }
    }
}

fn another_head(store: &dyn Store) {
    for (number, length) in (0..).zip([0, 1, 16 * 1024, 5 * BLOCK + 5]) {
        let (key, sample) = (key(number), Sample::new(number, 100, length));
        put(store, &key, &sample);
        for (version, head) in (1000..).zip([300, 0, BLOCK + 7, 100]) {
            let changed = sample.with_head(&Sample::new(version, head, 0).head);
            let replaced = done("replace_head", store.replace_head(&key, &changed.head));
            assert!(replaced, "replace_head found no record");
            expect(store, &key, &changed, "after replace_head");
        }
        let next = Sample::new(500 + number, 100, 10);
        put(store, &key, &next);
        expect(store, &key, &next, "after replace_head and a commit");
    }
    assert_eq!(
        store.usage().records,
        4,
        "usage counts heads that were replaced"
    );
}

fn no_head_without_a_record(store: &dyn Store) {
    for key in [key(1), key(2)] {
        for when in ["of a key never written", "of a removed key"] {
            let replaced = done("replace_head", store.replace_head(&key, b"a head"));
            assert!(!replaced, "replace_head {when} said true");
            expect_nothing(store, &key, &format!("after replace_head {when}"));
            put(store, &key, &Sample::new(1, 100, 100));
            done("remove", store.remove(&key));
        }
    }
}

fn removed(store: &dyn Store) {
    done("remove", store.remove(&key(999)));
    for (number, length) in (0..).zip(LENGTHS) {
        let (key, sample) = (key(number), Sample::new(number, 30, length));
        put(store, &key, &Sample::new(100, 30, BLOCK));
        put(store, &key, &sample);
        done("replace_head", store.replace_head(&key, &sample.head));
        done("remove", store.remove(&key));
        expect_nothing(store, &key, "after remove");
        done("remove", store.remove(&key));
        assert_eq!(
            store.usage().records,
            number,
            "usage counts a removed record"
        );
        put(store, &key, &sample);
        expect(store, &key, &sample, "after remove and a commit");
    }
}

fn held_open(store: &dyn Store) {
    let other_head = Bytes::from_static(b"another head");
    type Event = (&'static str, fn(&dyn Store, &CacheKey, &[u8]));
    let events: [Event; 4] = [
        ("after a commit of the same length", |store, key, _| {
            let length = open(store, key).map_or(0, |record| record.length());
            let length = usize::try_from(length).unwrap_or(0);
            put(store, key, &Sample::new(77, 64, length));
        }),
        ("after replace_head", |store, key, head| {
            done("replace_head", store.replace_head(key, head));
        }),
        ("after remove", |store, key, _| {
            done("remove", store.remove(key));
        }),
        ("after remove and another commit", |store, key, _| {
            put(store, key, &Sample::new(78, 65, 3 * BLOCK));
        }),
    ];
    for (number, length) in (0..).zip([1, 4096, 16 * 1024 + 1, 3 * BLOCK + 9]) {
        let (key, sample) = (key(number), Sample::new(number, 64, length));
        put(store, &key, &sample);
        let Some(record) = open(store, &key) else {
            panic!("there is no record after its commit");
        };
        for (event, happens) in events {
            happens(store, &key, &other_head);
            verify_or_fails(&*record, &sample, event, &mut |_| {});
        }
    }
}

fn so_far(store: &dyn Store) {
    for (number, end) in (0..).zip(["commit", "drop"]) {
        let key = key(number);
        let sample = Sample::new(number, 90, 5 * BLOCK + 321);
        let mut new = done("create", store.create(&key));
        let mut taken = Vec::new();
        for (count, block) in (1..).zip(sample.blocks()) {
            done("append", new.append(&block));
            if let Some(record) = new.so_far() {
                let length = sample.body.len().min(count * BLOCK);
                let body = sample.body.slice(..length);
                taken.push((
                    record,
                    Sample {
                        head: Bytes::new(),
                        body,
                    },
                ));
            }
            for (record, so_far) in &taken {
                verify(&**record, so_far, &format!("after {count} blocks, so_far"));
            }
            expect_nothing(store, &key, "while so_far is held");
        }
        match end {
            "commit" => {
                done("commit", new.commit(&sample.head));
                expect(
                    store,
                    &key,
                    &sample,
                    "while so_far is held, after the commit",
                );
                put(store, &key, &Sample::new(50, 10, 5 * BLOCK + 321));
                done("remove", store.remove(&key));
            }
            _ => drop(new),
        }
        for (record, so_far) in &taken {
            verify(&**record, so_far, &format!("after the {end}, so_far"));
        }
        expect_nothing(
            store,
            &key,
            &format!("after the {end}, while so_far is held"),
        );
    }
}

fn past_the_end(store: &dyn Store) {
    for (number, length) in (0..).zip(LENGTHS) {
        let key = key(number);
        put(store, &key, &Sample::new(number, 10, length));
        let Some(record) = open(store, &key) else {
            panic!("there is no record after its commit");
        };
        let blocks = block_count(length as u64);
        for block in [blocks, blocks + 1, 1 << 32, (1 << 48) + blocks, u64::MAX] {
            let read = catch_unwind(AssertUnwindSafe(|| {
                let later = record.read(block).is_ok();
                let now = record.read_now(block).is_some_and(|read| read.is_ok());
                later || now
            }));
            let Ok(read) = read else {
                panic!("block {block} of {blocks} made it panic");
            };
            assert!(!read, "it has a block {block} of {blocks}");
        }
    }
}

fn may_hold(store: &dyn Store) {
    /// So many that a filter has to share its bits among them.
    const KEYS: u64 = 400;
    let sample = |number| Sample::new(number, 30, usize::try_from(number).unwrap_or(0) * 7);
    for number in 0..KEYS {
        put(store, &key(number), &sample(number));
        expect(store, &key(number), &sample(number), "after its commit");
    }
    for number in (0..KEYS).step_by(3) {
        done("remove", store.remove(&key(number)));
    }
    for number in (1..KEYS).step_by(3) {
        put(store, &key(number), &sample(number));
        let replaced = store.replace_head(&key(number), &sample(number).head);
        assert!(
            done("replace_head", replaced),
            "replace_head found no record"
        );
    }
    for number in 0..KEYS {
        if number % 3 != 0 {
            expect(
                store,
                &key(number),
                &sample(number),
                "after others were removed",
            );
        }
    }
}

fn usage(store: &dyn Store) {
    assert_eq!(store.usage().records, 0, "an empty store has records");
    let mut bytes = 0;
    for number in 0..30 {
        let sample = Sample::new(number, 200, 60_000);
        put(store, &key(number), &sample);
        bytes += sample.length() + 200;
        let usage = store.usage();
        assert_eq!(usage.records, number + 1, "records after as many commits");
        assert!(bytes <= usage.bytes, "{} bytes hold {bytes}", usage.bytes);
    }
    for number in 0..30 {
        done("remove", store.remove(&key(number)));
    }
    assert_eq!(store.usage().records, 0, "records after all were removed");
}

fn touched(store: &dyn Store) {
    store.touch(&key(2));
    expect_nothing(store, &key(2), "after touch");
    let sample = Sample::new(1, 10, BLOCK + 10);
    put(store, &key(1), &sample);
    for _ in 0..100 {
        store.touch(&key(1));
    }
    expect(store, &key(1), &sample, "after touch");
    assert_eq!(store.usage().records, 1, "usage counts touches");
}
