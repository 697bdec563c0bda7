//! A directory with a store in it, and records whose heads tell what they should be.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use bytes::Bytes;
use scale0_cache::CacheKey;
use scale0_cache::store::{BLOCK, FileStore, Record, Store};

pub(crate) const KIB: u64 = 1024;
pub(crate) const MIB: u64 = 1024 * KIB;

/// A body of this length has a file of its own.
pub(crate) const LARGE: u64 = 300 * KIB;

#[expect(
    clippy::needless_pass_by_value,
    reason = "callers have numbers and literals"
)]
pub(crate) fn key(name: impl ToString) -> CacheKey {
    CacheKey::new("http", "example.com", &name.to_string())
}

pub(crate) fn body(seed: u64, length: u64) -> Bytes {
    let mut bytes = vec![0; usize::try_from(length).unwrap()];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes.into()
}

pub(crate) fn put(
    store: &dyn Store,
    key: &CacheKey,
    head: impl AsRef<[u8]>,
    body: &Bytes,
) -> std::io::Result<()> {
    let mut record = store.create(key)?;
    for start in (0..body.len()).step_by(BLOCK) {
        record.append(&body.slice(start..body.len().min(start + BLOCK)))?;
    }
    record.commit(head.as_ref())
}

pub(crate) fn whole_body(record: &dyn Record) -> std::io::Result<Vec<u8>> {
    let blocks = record.length().div_ceil(BLOCK as u64);
    let blocks = (0..blocks).map(|block| record.read(block));
    Ok(blocks.collect::<Result<Vec<_>, _>>()?.concat())
}

/// Head and body, if they are there and can be read.
pub(crate) fn get(store: &dyn Store, key: &CacheKey) -> Option<(Bytes, Vec<u8>)> {
    let record = store.open(key).ok()??;
    Some((record.head(), whole_body(&*record).ok()?))
}

/// What the files of a directory take, by their lengths and by the blocks they have, whichever is more.
pub(crate) fn bytes_on_disk(directory: &Path) -> u64 {
    let files = fs::read_dir(directory).unwrap();
    // A file may be deleted while it is looked at.
    let sizes = files.filter_map(|file| {
        let metadata = file.unwrap().metadata().ok()?;
        Some(metadata.len().max(metadata.blocks() * 512))
    });
    sizes.sum()
}

pub(crate) fn counter(store: &FileStore, name: &str) -> u64 {
    let mut each = store.counters().each();
    each.find(|counted| counted.name == name).unwrap().value
}

/// The store as a killed process leaves it: nothing is written or deleted any more.
pub(crate) fn kill(store: FileStore) {
    std::mem::forget(store);
}
