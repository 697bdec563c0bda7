//! Much more is written than fits.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use scale0_cache::store::{FileStore, Record, Store};

use crate::world::*;

#[test]
fn ten_times_the_capacity_never_takes_more_than_a_tenth_beyond_it() {
    const CAPACITY: u64 = 8 * MIB;
    let mut rng = StdRng::seed_from_u64(1);
    let directory = tempfile::tempdir().unwrap();
    let store = FileStore::open(directory.path(), CAPACITY).unwrap();
    let mut written = 0;
    for number in 0_u64.. {
        let length = match rng.random_range(0..10) {
            0 => rng.random_range(0..900 * KIB),
            1..4 => rng.random_range(0..100 * KIB),
            _ => rng.random_range(0..8 * KIB),
        };
        let body = body(number, length);
        let name = number % 3000;
        put(&store, &key(name), number.to_string(), &body).unwrap();
        assert!(get(&store, &key(name)).unwrap().1 == body);
        if number % 3 == 0 {
            store.touch(&key(name));
        }
        if number % 50 == 0 {
            store.remove(&key(name)).unwrap();
        }
        let taken = bytes_on_disk(directory.path());
        assert!(taken <= CAPACITY * 11 / 10, "{taken} after {written}");
        assert!(taken <= store.usage().bytes, "{taken} after {written}");
        written += length;
        if 10 * CAPACITY < written {
            break;
        }
    }
    assert!(CAPACITY * 8 / 10 < store.usage().bytes);
    assert!(0 < counter(&store, "segments_dropped"));
    assert!(0 < counter(&store, "carried_over"));
}

#[test]
fn what_is_used_stays_and_what_is_not_goes() {
    let directory = tempfile::tempdir().unwrap();
    let store = FileStore::open(directory.path(), 4 * MIB).unwrap();
    let (used, large, unused) = (key("used"), key("large"), key("unused"));
    put(&store, &used, "used", &body(1, 4 * KIB)).unwrap();
    put(&store, &large, "large", &body(2, LARGE)).unwrap();
    put(&store, &unused, "unused", &body(3, 4 * KIB)).unwrap();
    for number in 0..3000 {
        store.touch(&used);
        store.touch(&large);
        put(&store, &key(number), "", &body(number, 4 * KIB)).unwrap();
    }
    assert!(get(&store, &used).unwrap().1 == body(1, 4 * KIB));
    assert!(get(&store, &large).unwrap().1 == body(2, LARGE));
    assert!(!store.may_hold(&unused));
    drop(store);
    let store = FileStore::open(directory.path(), 4 * MIB).unwrap();
    assert!(get(&store, &used).unwrap().1 == body(1, 4 * KIB));
    assert!(get(&store, &large).unwrap().1 == body(2, LARGE));
}

#[test]
fn a_large_record_replaced_over_and_over_pushes_nobody_out_and_leaves_few_files() {
    let directory = tempfile::tempdir().unwrap();
    let store = FileStore::open(directory.path(), 16 * MIB).unwrap();
    put(&store, &key("small"), "small", &body(1, 100)).unwrap();
    let body = body(2, LARGE);
    for _ in 0..600 {
        put(&store, &key("large"), "large", &body).unwrap();
    }
    assert!(store.may_hold(&key("small")));
    let files = std::fs::read_dir(directory.path()).unwrap().count();
    assert!(files < 270, "{files}");
    assert!(store.usage().bytes < 4 * MIB);
}

#[test]
fn full_segments_that_are_in_the_way_of_many_empty_ones_are_not_all_moved_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = FileStore::open(directory.path(), 16 * MIB).unwrap();
    // Four make a segment.
    for number in 0..120 {
        put(&store, &key(number), "", &body(number, 64 * KIB)).unwrap();
    }
    let large = body(2, LARGE);
    while counter(&store, "carried_over") == 0 {
        put(&store, &key("large"), "", &large).unwrap();
    }
    let begun = counter(&store, "carried_over");
    for number in 0..30 {
        put(&store, &key("small"), "", &body(number, 100)).unwrap();
    }
    assert!(counter(&store, "carried_over") <= begun + 8);
    for number in 0..300 {
        put(&store, &key("large"), "", &large).unwrap();
        let files = std::fs::read_dir(directory.path()).unwrap().count();
        assert!(files < 2 * 192, "{files} after {number}");
    }
    assert_eq!(store.usage().records, 122);
}

#[test]
fn an_open_record_can_be_read_to_its_end_whatever_happens_to_its_key() {
    let directory = tempfile::tempdir().unwrap();
    let store = FileStore::open(directory.path(), 8 * MIB).unwrap();
    for length in [10 * KIB, LARGE] {
        let (first, second) = (body(1, length), body(2, length));
        let open = || store.open(&key("a")).unwrap().unwrap();
        put(&store, &key("a"), "1", &first).unwrap();
        let replaced = open();
        put(&store, &key("a"), "2", &second).unwrap();
        let removed = open();
        store.remove(&key("a")).unwrap();
        for number in 0..1000 {
            put(&store, &key(number), "", &body(number, 20 * KIB)).unwrap();
        }
        let read = |record: Arc<dyn Record>| (record.head(), whole_body(&*record).unwrap());
        assert_eq!(read(replaced), ("1".into(), first.to_vec()));
        assert_eq!(read(removed), ("2".into(), second.to_vec()));
    }
}

#[test]
fn a_record_that_is_open_counts_until_it_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let store = FileStore::open(directory.path(), 8 * MIB).unwrap();
    put(&store, &key("a"), "", &body(1, LARGE)).unwrap();
    let record = store.open(&key("a")).unwrap().unwrap();
    store.remove(&key("a")).unwrap();
    assert!(LARGE < store.usage().bytes);
    drop(record);
    put(&store, &key("b"), "", &body(1, 10)).unwrap();
    assert!(store.usage().bytes < LARGE);
}

#[test]
fn while_all_is_being_read_nothing_is_dropped_in_vain() {
    let directory = tempfile::tempdir().unwrap();
    let store = FileStore::open(directory.path(), 4 * MIB).unwrap();
    let mut open = Vec::new();
    let mut put_and_hold = || {
        put(&store, &key("large"), "", &body(1, LARGE))?;
        open.push(store.open(&key("large"))?);
        store.remove(&key("large"))
    };
    while put_and_hold().is_ok() {}
    put(&store, &key("small"), "", &body(1, 1000)).unwrap();
    for _ in 0..3 {
        let error = put_and_hold().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        assert!(store.may_hold(&key("small")));
    }
    drop(open);
    put(&store, &key("large"), "", &body(1, LARGE)).unwrap();
    assert!(store.may_hold(&key("small")));
}

#[test]
fn a_large_record_that_is_used_stays_however_long_its_head() {
    let directory = tempfile::tempdir().unwrap();
    let store = FileStore::open(directory.path(), 8 * MIB).unwrap();
    put(&store, &key("used"), [7; 30_000], &body(1, LARGE)).unwrap();
    for number in 0..100 {
        store.touch(&key("used"));
        put(&store, &key(number), "", &body(number, LARGE)).unwrap();
    }
    assert!(get(&store, &key("used")).unwrap().1 == body(1, LARGE));
}

#[test]
fn a_body_beyond_an_eighth_of_the_capacity_is_refused_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = FileStore::open(directory.path(), 8 * MIB).unwrap();
    put(&store, &key("kept"), "", &body(1, MIB)).unwrap();
    let error = put(&store, &key("a"), "", &body(1, MIB + 1)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::FileTooLarge);
    assert!(!store.may_hold(&key("a")) && store.may_hold(&key("kept")));
    assert!(store.usage().bytes < MIB + 64 * KIB);
}

#[test]
fn a_smaller_capacity_is_kept_to_from_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let store = FileStore::open(directory.path(), 16 * MIB).unwrap();
    for number in 0..200 {
        put(&store, &key(number), "", &body(number, 64 * KIB)).unwrap();
    }
    drop(store);
    let store = FileStore::open(directory.path(), 4 * MIB).unwrap();
    assert!(bytes_on_disk(directory.path()) <= 4 * MIB);
    assert!(store.may_hold(&key(199)) && !store.may_hold(&key(0)));
}

#[test]
fn a_store_that_is_opened_often_drops_no_more_at_once_than_one_that_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let open = || FileStore::open(directory.path(), 16 * MIB).unwrap();
    for number in 0..50 {
        put(&open(), &key(number), "", &body(number, LARGE)).unwrap();
    }
    let store = open();
    assert_eq!(store.usage().records, 50);
    for number in 50..60 {
        put(&store, &key(number), "", &body(number, LARGE)).unwrap();
    }
    assert!((50..55).contains(&store.usage().records));
}

#[test]
fn a_store_without_capacity_stores_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = FileStore::open(directory.path(), 0).unwrap();
    assert!(put(&store, &key("a"), "head", &body(1, 10)).is_err());
    assert!(put(&store, &key("a"), "", &body(1, 0)).is_err());
    assert_eq!(store.usage().records, 0);
    assert_eq!(bytes_on_disk(directory.path()), 0);
}
