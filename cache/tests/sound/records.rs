//! What is true of any bytes that may be found on a disk. The fuzz targets include this file too.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use scale0_cache::purge::{Purge, Purges, Target};
use scale0_cache::store::{FileStore, Store as _};
use scale0_cache::{CacheCounters, CacheKey, is_metadata};

/// A record of the list of purges, without its checksum.
const PURGE: usize = 17;

/// Enough for a few segments.
const CAPACITY: u64 = 4 * 1024 * 1024;

const WALL: SystemTime = SystemTime::UNIX_EPOCH;

/// As the head of a record: refused or read, whatever time it is; and nothing allocated for what is not there.
pub(crate) fn check_metadata(bytes: &[u8]) -> bool {
    let day = Duration::from_secs(24 * 60 * 60);
    let is_read = is_metadata(bytes, now(), WALL);
    for wall in [WALL + day * 20_000, WALL + day * 3_000_000] {
        assert_eq!(is_metadata(bytes, now(), wall), is_read);
    }
    is_read
}

/// As a list of purges: as it is, and as records with a true checksum each. Either way a purge that comes after it holds.
pub(crate) fn check_purges(folder: &Path, bytes: &[u8]) {
    let sealed = bytes.chunks_exact(PURGE).flat_map(|record| {
        let sum = blake3::hash(record);
        [record, &sum.as_bytes()[..7]].concat()
    });
    for list in [bytes.to_vec(), sealed.collect()] {
        fs::write(folder.join("purges"), list).expect("there is room");
        let counters = std::sync::Arc::<CacheCounters>::default();
        // No epochs are left where the list says that the last one was given out.
        if let Ok((purges, _)) = Purges::open(folder, WALL, counters) {
            let before = purges.now();
            let all = Purge {
                target: Target::All,
                soft: false,
            };
            let after = purges.purge(&[all]).expect("there is room");
            assert!(before < after);
        }
    }
}

/// As what has come over the files of a file store: it opens, and gives what was stored or nothing.
pub(crate) fn check_segments(folder: &Path, bytes: &[u8]) {
    let key = |number: u8| CacheKey::new("https", "example.com", &number.to_string());
    let path = folder.join("store");
    _ = fs::remove_dir_all(&path);
    let store = FileStore::open(&path, CAPACITY).expect("there is room");
    for number in 0..8 {
        let mut new = store.create(&key(number)).expect("there is room");
        new.append(&Bytes::from(vec![number; 100]))
            .expect("there is room");
        new.commit(&[number; 20]).expect("there is room");
    }
    drop(store);
    if let [which, place, more, rest @ ..] = bytes {
        let files = files(&path);
        let file = &files[usize::from(*which) % files.len()];
        let mut content = fs::read(file).expect("it is there");
        let place = usize::from(u16::from_le_bytes([*place, *more])) % (content.len() + 1);
        content.truncate(place.max(content.len().min(place + rest.len())));
        for (at, byte) in rest.iter().enumerate() {
            match content.get_mut(place + at) {
                Some(there) => *there = *byte,
                None => content.push(*byte),
            }
        }
        fs::write(file, content).expect("there is room");
    }
    let store = FileStore::open(&path, CAPACITY).expect("damage is no reason not to open");
    for number in 0..8 {
        if let Ok(Some(record)) = store.open(&key(number)) {
            assert_eq!(record.head()[..], [number; 20]);
            assert_eq!(record.length(), 100);
        }
    }
}

/// The files below a folder, in a certain order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("it is there") {
        let path = entry.expect("it is there").path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

#[expect(clippy::disallowed_methods, reason = "nothing is asked of this time")]
fn now() -> Instant {
    Instant::now()
}
