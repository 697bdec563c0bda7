//! The store in memory: its contract, its bound, and what it keeps of that.

#![expect(
    clippy::unwrap_used,
    reason = "test helpers; allowed in tests only by function"
)]

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use scale0_cache::CacheKey;
use scale0_cache::store::{BLOCK, MemoryStore, NewRecord, Record, Store, conformance};

const CAPACITY: u64 = 8 << 20;

#[test]
fn it_keeps_the_contract_of_a_store() {
    // Each part of it has room for all that the suite writes, however the keys fall.
    conformance::check(|| MemoryStore::new(16 * conformance::ROOM));
}

#[test]
fn it_never_holds_more_than_its_capacity_and_serves_all_the_while() {
    conformance::check_capacity(CAPACITY, |_| MemoryStore::new(CAPACITY));
}

fn key(number: u64) -> CacheKey {
    CacheKey::new("https", "example.com", &format!("/{number}"))
}

/// A record that is being written, with so many bytes of body.
fn begun(store: &MemoryStore, number: u64, length: u64) -> io::Result<Box<dyn NewRecord>> {
    let mut new = store.create(&key(number))?;
    let mut rest = Bytes::from(vec![7; usize::try_from(length).unwrap()]);
    while !rest.is_empty() {
        new.append(&rest.split_to(rest.len().min(BLOCK)))?;
    }
    Ok(new)
}

fn open(store: &MemoryStore, number: u64) -> Option<Arc<dyn Record>> {
    store.open(&key(number)).unwrap()
}

/// The kind of the error, where there is one.
fn failure<T>(result: io::Result<T>) -> Option<io::ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn a_body_of_the_greatest_length_is_kept_and_a_longer_one_is_refused_as_it_comes() {
    let store = MemoryStore::new(CAPACITY);
    let longest = store.max_body();
    assert_eq!(longest, CAPACITY / 16);
    begun(&store, 1, longest).unwrap().commit(b"").unwrap();
    assert_eq!(open(&store, 1).unwrap().length(), longest);

    let mut too_long = begun(&store, 1, longest).unwrap();
    let beyond = too_long.append(&Bytes::from_static(b"x"));
    assert_eq!(failure(beyond), Some(io::ErrorKind::FileTooLarge));
    assert_eq!(store.counters().refused_too_large.get(), 1);
    let held = too_long.so_far().unwrap();
    assert_eq!(held.length(), longest, "no more than that is held");
    assert!(too_long.commit(b"cut off").is_err(), "nor is it whole");
    assert_eq!(open(&store, 1).unwrap().head(), "");
}

#[test]
fn a_head_that_leaves_no_room_beside_it_is_refused_and_the_record_stays_as_it_was() {
    let store = MemoryStore::new(CAPACITY);
    begun(&store, 1, 10).unwrap().commit(b"head").unwrap();
    let huge = vec![0; usize::try_from(CAPACITY).unwrap()];
    let replaced = store.replace_head(&key(1), &huge);
    assert_eq!(failure(replaced), Some(io::ErrorKind::FileTooLarge));
    let committed = begun(&store, 1, 20).unwrap().commit(&huge);
    assert_eq!(failure(committed), Some(io::ErrorKind::FileTooLarge));
    assert_eq!(store.counters().refused_too_large.get(), 2);
    let record = open(&store, 1).unwrap();
    assert_eq!((record.head(), record.length()), ("head".into(), 10));
}

#[test]
fn what_follows_the_last_block_of_a_body_is_refused_and_spoils_it() {
    let store = MemoryStore::new(CAPACITY);
    let too_long_a_block = Bytes::from(vec![0; BLOCK + 1]);
    for (length, next) in [(10, Bytes::from_static(b"x")), (0, too_long_a_block)] {
        let mut new = begun(&store, 1, length).unwrap();
        new.append(&Bytes::new()).unwrap();
        assert_eq!(
            failure(new.append(&next)),
            Some(io::ErrorKind::InvalidInput)
        );
        assert!(new.append(&Bytes::new()).is_err());
        assert!(new.commit(b"").is_err());
        assert!(open(&store, 1).is_none());
    }
}

#[test]
fn what_is_used_stays_and_what_had_to_go_is_counted() {
    let store = MemoryStore::new(CAPACITY);
    let used = 0;
    let bodies = 2 * CAPACITY / 1000;
    for number in 0..bodies {
        begun(&store, number, 1000).unwrap().commit(b"").unwrap();
        store.touch(&key(used));
    }
    assert!(open(&store, used).is_some());
    let usage = store.usage();
    assert!(usage.bytes + usage.memory <= CAPACITY);
    assert_eq!(store.counters().evictions.get(), bodies - usage.records);
    let counted = Store::counters(&store);
    let evictions = counted.iter().find(|it| it.name == "evictions").unwrap();
    assert_eq!(evictions.value, bodies - usage.records);
}

#[test]
fn whole_blocks_are_shared_and_the_last_one_pins_no_larger_buffer() {
    let store = MemoryStore::new(CAPACITY);
    let received = Bytes::from(vec![1; 2 * BLOCK]);
    let (whole, last) = (received.slice(..BLOCK), received.slice(BLOCK..BLOCK + 10));
    let mut new = store.create(&key(1)).unwrap();
    new.append(&whole).unwrap();
    new.append(&last).unwrap();
    new.commit(b"").unwrap();
    let record = open(&store, 1).unwrap();
    assert_eq!(record.read(0).unwrap().as_ptr(), whole.as_ptr());
    assert_eq!(record.read(1).unwrap(), last);
    assert_ne!(record.read(1).unwrap().as_ptr(), last.as_ptr());
}

#[test]
fn a_new_head_is_another_record_of_the_same_body() {
    let store = MemoryStore::new(CAPACITY);
    begun(&store, 1, 100_000).unwrap().commit(b"old").unwrap();
    let old = open(&store, 1).unwrap();
    let before = store.usage();
    assert!(store.replace_head(&key(1), b"newer").unwrap());
    let new = open(&store, 1).unwrap();
    assert_eq!((old.head(), new.head()), ("old".into(), "newer".into()));
    for block in 0..2 {
        let at = |record: &Arc<dyn Record>| record.read(block).unwrap().as_ptr();
        assert_eq!(at(&old), at(&new), "it was not copied");
    }
    let after = store.usage();
    assert_eq!(after.bytes, before.bytes + 2, "and is counted once");
    assert_eq!(store.counters().evictions.get(), 0);
}
