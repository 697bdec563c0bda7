//! Ways to read a record, and who does so at the same time.

use std::io::ErrorKind;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use scale0_cache::store::{BLOCK, FileStore, Record, Store};

use crate::world::*;

fn store() -> (tempfile::TempDir, FileStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = FileStore::open(directory.path(), 16 * MIB).unwrap();
    (directory, store)
}

#[test]
fn what_is_read_without_waiting_is_what_is_read_with_waiting() {
    let (_directory, store) = store();
    for length in [0, 1000, BLOCK as u64, 200 * KIB, LARGE] {
        let body = body(1, length);
        put(&store, &key(length), "head", &body).unwrap();
        let waited = store.open(&key(length)).unwrap().unwrap();
        assert!(whole_body(&*waited).unwrap() == body);
        // Some file systems cannot tell what is in memory.
        let Some(opened) = store.open_now(&key(length)) else {
            continue;
        };
        let record = opened.unwrap().unwrap();
        assert_eq!((record.head(), record.length()), ("head".into(), length));
        for block in 0..length.div_ceil(BLOCK as u64) {
            if let Some(read) = record.read_now(block) {
                assert_eq!(read.unwrap(), waited.read(block).unwrap());
            }
        }
    }
    assert!(store.open_now(&key("none")).unwrap().unwrap().is_none());
}

#[test]
fn a_large_record_that_nobody_has_open_is_not_opened_without_waiting() {
    let (_directory, store) = store();
    put(&store, &key("a"), "", &body(1, LARGE)).unwrap();
    assert!(store.open_now(&key("a")).is_none());
}

#[test]
fn a_block_that_is_not_there_is_an_error() {
    let (_directory, store) = store();
    for length in [0, 1000, BLOCK as u64, LARGE] {
        put(&store, &key(length), "", &body(1, length)).unwrap();
        let record = store.open(&key(length)).unwrap().unwrap();
        for block in [length.div_ceil(BLOCK as u64), u64::MAX] {
            assert_eq!(
                record.read(block).unwrap_err().kind(),
                ErrorKind::InvalidInput
            );
            assert!(record.read_now(block).is_none_or(|read| read.is_err()));
        }
    }
}

#[test]
fn what_was_written_so_far_can_be_read_while_more_is_written_and_after() {
    let (directory, store) = store();
    let body = body(1, 10 * BLOCK as u64);
    let mut record = store.create(&key("a")).unwrap();
    let mut views = vec![record.so_far().unwrap()];
    for start in (0..body.len()).step_by(BLOCK) {
        record.append(&body.slice(start..start + BLOCK)).unwrap();
        views.push(record.so_far().unwrap());
    }
    assert!(!store.may_hold(&key("a")));
    drop(record);
    for (blocks, view) in views.iter().enumerate() {
        assert!(view.head().is_empty());
        assert!(whole_body(&**view).unwrap() == body[..blocks * BLOCK]);
    }
    assert!((body.len() as u64) < store.usage().bytes);
    drop(views);
    put(&store, &key("b"), "", &body.slice(..10)).unwrap();
    assert!(store.usage().bytes < 20 * KIB, "it left nothing behind");
    assert!(bytes_on_disk(directory.path()) < 20 * KIB);
}

#[test]
fn a_large_record_that_is_not_committed_leaves_nothing_behind() {
    let (directory, store) = store();
    let mut record = store.create(&key("a")).unwrap();
    for _ in 0..10 {
        record.append(&body(1, BLOCK as u64)).unwrap();
    }
    assert!(640 * KIB <= bytes_on_disk(directory.path()));
    drop(record);
    assert_eq!(bytes_on_disk(directory.path()), 0);
    assert_eq!(store.usage().bytes, 0);
}

#[test]
fn a_short_block_is_the_last() {
    let (_directory, store) = store();
    let mut record = store.create(&key("a")).unwrap();
    record.append(&body(1, 10)).unwrap();
    assert!(record.append(&body(1, 10)).is_err());
    assert!(record.commit(b"").is_err());
    assert!(store.open(&key("a")).unwrap().is_none());
}

#[test]
fn nothing_is_committed_to_a_store_that_was_closed() {
    let (directory, store) = store();
    let mut small = store.create(&key("small")).unwrap();
    small.append(&body(1, 10)).unwrap();
    let mut large = store.create(&key("large")).unwrap();
    for _ in 0..5 {
        large.append(&body(1, BLOCK as u64)).unwrap();
    }
    drop(store);
    assert!(small.commit(b"").is_err());
    assert!(large.commit(b"").is_err());
    assert_eq!(bytes_on_disk(directory.path()), 0);
}

#[test]
fn many_at_a_time_find_whole_records_only() {
    const THREADS: u64 = 4;
    let directory = tempfile::tempdir().unwrap();
    let capacity = 6 * MIB;
    let store = FileStore::open(directory.path(), capacity).unwrap();
    let check = |record: &dyn Record| {
        let head = String::from_utf8(record.head().to_vec()).unwrap();
        let (seed, length) = head.split_once(' ').unwrap();
        let body = body(seed.parse().unwrap(), length.parse().unwrap());
        assert!(
            whole_body(record).unwrap() == body,
            "{head} has another body"
        );
    };
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (store, directory, check) = (&store, directory.path(), &check);
            scope.spawn(move || {
                let mut rng = StdRng::seed_from_u64(thread);
                let mut held = Vec::new();
                for number in 0..400 {
                    let seed = number * THREADS + thread;
                    // Some keys are everybody's. Where heads are replaced they are one thread's, to know which body they belong to.
                    let any = key(rng.random_range(0..60));
                    let own = key(rng.random_range(0..10) * THREADS + thread);
                    let shared = key(rng.random_range(40..60));
                    match rng.random_range(0..10) {
                        choice @ 0..5 => {
                            let key = if choice < 2 { &shared } else { &own };
                            let longest = if rng.random_bool(0.1) { 500 } else { 20 };
                            let length = rng.random_range(0..longest * KIB);
                            let head = format!("{seed} {length}");
                            put(store, key, head, &body(seed, length)).unwrap();
                        }
                        5 => store.remove(&any).unwrap(),
                        6 => {
                            if let Some(record) = store.open(&own).unwrap() {
                                store.replace_head(&own, &record.head()).unwrap();
                            }
                        }
                        _ => {
                            held.extend(store.open(&any).unwrap());
                            if let Some(Ok(Some(record))) = store.open_now(&any) {
                                check(&*record);
                            }
                        }
                    }
                    if 3 < held.len() {
                        held.drain(..).for_each(|record| check(&*record));
                    }
                    if number % 20 == 0 {
                        assert!(bytes_on_disk(directory) <= capacity * 11 / 10);
                    }
                }
            });
        }
    });
    assert_eq!(counter(&store, "damaged"), 0);
    let records = store.usage().records;
    drop(store);
    let store = FileStore::open(directory.path(), capacity).unwrap();
    assert_eq!(store.usage().records, records);
    assert_eq!(counter(&store, "damaged"), 0);
    for name in 0..60 {
        if let Some(record) = store.open(&key(name)).unwrap() {
            check(&*record);
        }
    }
}
