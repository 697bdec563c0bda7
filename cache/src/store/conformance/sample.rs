//! Records that say in each of their bytes whose they are, and how they are written and looked for.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::key::CacheKey;
use crate::store::{BLOCK, Record, Store};

/// What a record should be.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) head: Bytes,
    pub(super) body: Bytes,
}

impl Sample {
    /// The bytes depend on the number in each place, do not repeat and cannot be compressed.
    pub(super) fn new(number: u64, head: usize, body: usize) -> Self {
        Self {
            head: noise(number.rotate_left(32) ^ 1, head),
            body: noise(number.rotate_left(32) ^ 2, body),
        }
    }

    pub(super) fn with_head(&self, head: &Bytes) -> Self {
        Self {
            head: head.clone(),
            body: self.body.clone(),
        }
    }

    pub(super) fn blocks(&self) -> impl Iterator<Item = Bytes> {
        let body = &self.body;
        (0..block_count(body.len() as u64)).map(|block| body.slice(block_range(block, body.len())))
    }

    pub(super) fn length(&self) -> u64 {
        self.body.len() as u64
    }
}

pub(super) fn key(number: u64) -> CacheKey {
    CacheKey::new("https", "conformance.example", &format!("/{number}"))
}

pub(super) fn block_count(length: u64) -> u64 {
    length.div_ceil(BLOCK as u64)
}

fn block_range(block: u64, length: usize) -> Range<usize> {
    let start = usize::try_from(block)
        .unwrap_or(usize::MAX)
        .saturating_mul(BLOCK);
    start.min(length)..start.saturating_add(BLOCK).min(length)
}

/// splitmix64.
fn noise(seed: u64, length: usize) -> Bytes {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bytes.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    bytes.truncate(length);
    Bytes::from(bytes)
}

/// Writes and commits a record.
pub(super) fn write(store: &dyn Store, key: &CacheKey, sample: &Sample) -> io::Result<()> {
    let mut new = store.create(key)?;
    for block in sample.blocks() {
        new.append(&block)?;
    }
    new.commit(&sample.head)
}

/// The same, where nothing excuses a failure.
pub(super) fn put(store: &dyn Store, key: &CacheKey, sample: &Sample) {
    done("writing a record", write(store, key, sample));
}

pub(super) fn done<T>(what: &str, result: io::Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{what} failed: {error}"))
}

pub(super) fn open(store: &dyn Store, key: &CacheKey) -> Option<Arc<dyn Record>> {
    done("opening a record", store.open(key))
}

/// The key gives exactly this, in every way there is to ask.
pub(super) fn expect(store: &dyn Store, key: &CacheKey, sample: &Sample, when: &str) {
    assert!(
        store.may_hold(key),
        "{when}, may_hold denies a record that should be there"
    );
    let Some(record) = open(store, key) else {
        panic!("{when}, there is no record");
    };
    verify(&*record, sample, when);
    if let Some(now) = store.open_now(key) {
        let Some(record) = done("open_now", now) else {
            panic!("{when}, open gives a record and open_now gives none");
        };
        verify(&*record, sample, &format!("{when}, by open_now"));
    }
}

/// The key gives nothing, in every way there is to ask.
pub(super) fn expect_nothing(store: &dyn Store, key: &CacheKey, when: &str) {
    assert!(open(store, key).is_none(), "{when}, there is a record");
    if let Some(now) = store.open_now(key) {
        let record = done("open_now", now);
        assert!(
            record.is_none(),
            "{when}, open gives no record and open_now gives one"
        );
    }
}

/// The record is exactly this.
pub(super) fn verify(record: &dyn Record, sample: &Sample, when: &str) {
    verify_or_fails(record, sample, when, &mut |error| {
        panic!("{when}, reading a block failed: {error}")
    });
}

/// The record is exactly this as far as it can be read.
pub(super) fn verify_or_fails(
    record: &dyn Record,
    sample: &Sample,
    when: &str,
    failed: &mut dyn FnMut(io::Error),
) {
    assert!(record.head() == sample.head, "{when}, the head is another");
    assert_eq!(
        record.length(),
        sample.length(),
        "{when}, the length of the body is another"
    );
    for (number, block) in (0..).zip(sample.blocks()) {
        match record.read(number) {
            Ok(read) => assert!(read == block, "{when}, block {number} is another"),
            Err(error) => failed(error),
        }
        match record.read_now(number) {
            None => {}
            Some(Ok(read)) => assert!(
                read == block,
                "{when}, block {number} is another by read_now"
            ),
            Some(Err(error)) => failed(error),
        }
    }
}
