//! A store whose files are not what it wrote.

use std::fs;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use scale0_cache::store::{SledStore, Store};

use crate::{has, has_whole, open, put};

const RECORDS: u64 = 40;

/// A closed store with all records.
fn written(directory: &Path) {
    let store = open(directory);
    for number in 0..RECORDS {
        put(&store, number).unwrap();
    }
    store.sync().unwrap();
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let copy = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(file, copy).unwrap();
    }
}

/// The store opens, gives nothing wrong, and takes records again, at the latest when the database that failed has been replaced. Says
/// how many it gave of those that were there.
fn survives(directory: &Path) -> (SledStore, u64) {
    let store = open(directory);
    let found = (0..RECORDS).filter(|&number| has(&store, number)).count() as u64;
    let fresh = RECORDS + 1;
    while put(&store, fresh).is_err() || !has_whole(&store, fresh) {
        std::thread::yield_now();
    }
    (store, found)
}

#[test]
fn flipped_bytes_in_any_file_never_give_a_wrong_head_nor_a_store_that_does_not_open() {
    let original = tempfile::tempdir().unwrap();
    written(original.path());
    let mut random = StdRng::seed_from_u64(3);
    let mut tried = 0;
    let mut found_in_damaged = Vec::new();
    for file in files(original.path()) {
        let length = fs::metadata(&file).unwrap().len();
        let is_body = file.parent().unwrap().ends_with("bodies");
        if length == 0 || is_body && 2 < tried {
            continue;
        }
        tried += u32::from(is_body);
        // The database's own files most of all.
        let rounds = if file.ends_with("db") { 20 } else { 3 };
        for round in 0..rounds {
            let flips = [1, 1, 8][round % 3];
            let directory = tempfile::tempdir().unwrap();
            copy(original.path(), directory.path());
            let path = directory
                .path()
                .join(file.strip_prefix(original.path()).unwrap());
            let mut bytes = fs::read(&path).unwrap();
            for _ in 0..flips {
                // Where something is: much of a database is padding.
                let all = bytes.len();
                let mut starts = (0..1000).map(|_| random.random_range(0..all));
                let at = starts.find(|&at| bytes[at] != 0).unwrap_or(0);
                bytes[at] ^= random.random_range(1..=255);
            }
            fs::write(&path, bytes).unwrap();
            let (_, found) = survives(directory.path());
            println!("{flips} flips in {}: {found} found", path.display());
            if file.ends_with("db") {
                found_in_damaged.push(found);
            } else if !file.ends_with("conf") {
                // Without its configuration sled has nothing; a body that is damaged is for others to find out.
                assert_eq!(found, RECORDS);
            }
        }
    }
    // What lies before the damage is there, wherever that is: an eighth of all is certain enough.
    let (found, all) = (found_in_damaged.iter().sum(), 20 * RECORDS);
    assert_eq!(found_in_damaged.len(), 20);
    assert!((all / 8..all).contains(&found), "{found_in_damaged:?}");
}

#[test]
fn truncated_and_missing_files_never_give_a_wrong_head_nor_a_store_that_does_not_open() {
    let original = tempfile::tempdir().unwrap();
    written(original.path());
    let index = original.path().join("db-0/index");
    for file in files(&index) {
        for keep in [None, Some(0), Some(1), Some(2)] {
            let directory = tempfile::tempdir().unwrap();
            copy(original.path(), directory.path());
            let path = directory
                .path()
                .join(file.strip_prefix(original.path()).unwrap());
            match keep {
                None => fs::remove_file(&path).unwrap(),
                Some(thirds) => {
                    let bytes = fs::read(&path).unwrap();
                    fs::write(&path, &bytes[..bytes.len() * thirds / 3]).unwrap();
                }
            }
            let (_, found) = survives(directory.path());
            println!("{keep:?} thirds of {}: {found} found", path.display());
            if file.ends_with("db") && keep == Some(2) {
                assert!((1..RECORDS).contains(&found), "the beginning is there");
            }
        }
    }
}

#[test]
fn a_directory_full_of_garbage_is_a_store_with_nothing_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path();
    let mut garbage = vec![0; 300_000];
    StdRng::seed_from_u64(1).fill(&mut garbage[..]);
    for file in [
        "db-7/index/db",
        "db-7/index/conf",
        "db-7/records",
        "db-7/bodies/x.y",
        "db-3/index/db",
        "db-1/x",
        "db-2.gone/x",
    ] {
        let path = store.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, &garbage).unwrap();
    }
    fs::write(store.join("db-8"), &garbage).unwrap();
    fs::write(store.join("incoming"), &garbage).unwrap();
    let (opened, _) = survives(store);
    assert_eq!(opened.usage().records, 1);
    drop(opened);
    for gone in ["db-1", "db-2.gone", "db-3", "db-8"] {
        assert!(!store.join(gone).exists(), "{gone} is still there");
    }
    assert!(has_whole(&open(store), RECORDS + 1), "and opens again");
}
