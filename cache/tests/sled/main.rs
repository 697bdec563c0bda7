//! The sled store on a real disk: its contract, its bound, and what is left after a kill or damage.

#![expect(
    clippy::unwrap_used,
    reason = "test helpers; allowed in tests only by function"
)]

mod damage;
mod kill;

use std::io;
use std::path::Path;

use bytes::Bytes;
use scale0_cache::CacheKey;
use scale0_cache::store::{BLOCK, SledStore, Store, conformance};

const CAPACITY: u64 = 32 << 20;

fn open(directory: &Path) -> SledStore {
    SledStore::open(directory, CAPACITY).unwrap()
}

#[test]
fn it_keeps_the_contract_of_a_store_also_after_a_restart() {
    // It has to keep all of the suite's records, and no generation more than three eighths.
    let capacity = 4 * conformance::ROOM;
    conformance::check_durable(|directory| SledStore::open(directory, capacity).unwrap());
}

#[test]
fn it_never_takes_more_than_its_capacity_and_serves_all_the_while() {
    conformance::check_capacity(CAPACITY, open);
}

fn key(number: u64) -> CacheKey {
    CacheKey::new("https", "example.com", &format!("/{number}"))
}

/// What the record of that number is: its head tells, and its body is in the database or in a file.
fn head(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(10)
}

fn body(number: u64) -> Vec<u8> {
    let length = [300, 3000, 10_000, BLOCK][(number % 4) as usize];
    number
        .to_be_bytes()
        .into_iter()
        .cycle()
        .take(length)
        .collect()
}

fn put(store: &SledStore, number: u64) -> io::Result<()> {
    let mut new = store.create(&key(number))?;
    new.append(&Bytes::from(body(number)))?;
    new.commit(&head(number))
}

/// Whether the record is there; if so, it has its head and a body of its length.
fn has(store: &SledStore, number: u64) -> bool {
    // Damage may be an error where it is met first.
    let Ok(Some(record)) = store.open(&key(number)) else {
        return false;
    };
    assert_eq!(record.head(), head(number), "the head of {number}");
    assert_eq!(
        record.length(),
        body(number).len() as u64,
        "the length of {number}"
    );
    true
}

/// Whether the record is there; if so, all of it is right.
fn has_whole(store: &SledStore, number: u64) -> bool {
    if !has(store, number) {
        return false;
    }
    let record = store.open(&key(number)).unwrap().unwrap();
    assert!(
        record.read(0).unwrap() == body(number),
        "the body of {number}"
    );
    true
}
