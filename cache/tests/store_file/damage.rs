//! Files that are not what was written to them.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::fs::{CWD, Mode, mkfifoat};
use scale0_cache::CacheKey;
use scale0_cache::store::{FileStore, Store};

use crate::world::*;

const CAPACITY: u64 = 4 * MIB;

/// What every key had last.
type Contents = HashMap<CacheKey, Option<Bytes>>;

/// A store of several segments with records of all kinds, some of them replaced or removed.
fn fill(store: &FileStore) -> Contents {
    let mut contents = Contents::new();
    for number in 0..300_u64 {
        let key = key(number % 90);
        let head = Bytes::from(format!("{number} {}", "x".repeat(number as usize % 300)));
        match number % 11 {
            3 => {
                store.remove(&key).unwrap();
                contents.insert(key, None);
            }
            5 => {
                if store.replace_head(&key, &head).unwrap() {
                    contents.insert(key, Some(head));
                }
            }
            _ => {
                let length = if number % 100 == 0 {
                    LARGE
                } else {
                    number % 4000
                };
                put(store, &key, &head, &body(number, length)).unwrap();
                contents.insert(key, Some(head));
            }
        }
    }
    assert_eq!(counter(store, "segments_dropped"), 0);
    contents
}

/// The segments of a store, the oldest first.
fn segments(directory: &Path) -> Vec<PathBuf> {
    let mut files = files(directory);
    files.retain(|file| {
        let name = file.file_name().unwrap().to_str().unwrap();
        name.starts_with("segment-") && file.extension().is_none()
    });
    files
}

/// Every key has exactly what it had, or nothing; how many of them have lost it.
fn lost(store: &FileStore, contents: &Contents) -> usize {
    let lost = contents
        .iter()
        .filter(|(key, expected)| match (store.open(key), expected) {
            (Ok(Some(record)), Some(expected)) => {
                assert_eq!(record.head(), expected);
                false
            }
            (Ok(Some(record)), None) => panic!("{:?} was removed", record.head()),
            (Ok(None) | Err(_), expected) => expected.is_some(),
        });
    lost.count()
}

fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for file in files(from) {
        fs::copy(&file, to.path().join(file.file_name().unwrap())).unwrap();
    }
    to
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    files
}

fn flip(file: &Path, rng: &mut StdRng) {
    let mut bytes = fs::read(file).unwrap();
    if !bytes.is_empty() {
        let at = rng.random_range(0..bytes.len());
        bytes[at] ^= rng.random_range(1..=255);
        fs::write(file, bytes).unwrap();
    }
}

/// Opens a damaged store, looks at it, uses it, and opens it again. How many records were lost.
fn survive(directory: &Path, contents: &Contents) -> usize {
    let store = FileStore::open(directory, CAPACITY).unwrap();
    let lost = lost(&store, contents);
    let damaged = counter(&store, "damaged");
    assert!(lost == 0 || 0 < damaged, "{lost} are lost, uncounted");
    put(&store, &key("new"), "new", &body(1, 5000)).unwrap();
    drop(store);

    let store = FileStore::open(directory, CAPACITY).unwrap();
    let still_lost = self::lost(&store, contents);
    assert!(still_lost <= lost + 1, "{still_lost} instead of {lost}");
    assert!(get(&store, &key("new")).unwrap().1 == body(1, 5000));
    assert!(bytes_on_disk(directory) <= CAPACITY * 11 / 10);
    lost
}

/// The files of a store that was closed, and those of one that was killed.
fn stores() -> [(tempfile::TempDir, Contents); 2] {
    [true, false].map(|closed| {
        let directory = tempfile::tempdir().unwrap();
        let store = FileStore::open(directory.path(), CAPACITY).unwrap();
        let contents = fill(&store);
        if closed {
            drop(store);
        } else {
            kill(store);
        }
        (directory, contents)
    })
}

#[test]
fn a_byte_flipped_in_one_file_costs_one_record_and_never_gives_another() {
    let mut rng = StdRng::seed_from_u64(2);
    let [(original, contents), _] = stores();
    for round in 0..60 {
        let directory = copy(original.path());
        let files = files(directory.path());
        flip(&files[round % files.len()], &mut rng);
        assert!(survive(directory.path(), &contents) <= 1, "{round}");
    }
}

#[test]
fn bytes_flipped_in_every_file_never_give_another_record() {
    let mut rng = StdRng::seed_from_u64(3);
    for (original, contents) in stores() {
        for round in 0..10 {
            let directory = copy(original.path());
            for file in files(directory.path()) {
                for _ in 0..=round % 4 {
                    flip(&file, &mut rng);
                }
            }
            survive(directory.path(), &contents);
        }
    }
}

#[test]
fn records_before_and_behind_a_damaged_head_are_there_without_a_sidecar() {
    let directory = tempfile::tempdir().unwrap();
    let store = FileStore::open(directory.path(), CAPACITY).unwrap();
    for name in 0..3 {
        put(&store, &key(name), "the head", &body(name, 1000)).unwrap();
    }
    kill(store);
    let segment = &files(directory.path())[0];
    let mut bytes = fs::read(segment).unwrap();
    let heads: Vec<_> = (0..bytes.len() - 8)
        .filter(|&at| &bytes[at..at + 8] == b"the head")
        .collect();
    bytes[heads[1]] ^= 1;
    fs::write(segment, &bytes).unwrap();

    let store = FileStore::open(directory.path(), CAPACITY).unwrap();
    assert!(get(&store, &key(0)).is_some() && get(&store, &key(2)).is_some());
    assert!(
        store.open(&key(1)).is_err(),
        "it is there and cannot be read"
    );
    assert_eq!(counter(&store, "damaged"), 1);
    assert!(store.open(&key(1)).unwrap().is_none(), "it is forgotten");
}

#[test]
fn a_lost_label_does_not_bring_back_what_it_replaced_or_removed() {
    const LABEL: usize = 72;
    for replace in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let store = FileStore::open(directory.path(), CAPACITY).unwrap();
        put(&store, &key("a"), "old", &body(1, 100)).unwrap();
        if replace {
            put(&store, &key("a"), "new", &body(2, 100)).unwrap();
        } else {
            store.remove(&key("a")).unwrap();
        }
        kill(store);
        let segment = &files(directory.path())[0];
        let length = fs::metadata(segment).unwrap().len() as usize;
        let at = if replace {
            length - LABEL - 103
        } else {
            length - LABEL
        };
        let store = FileStore::open(directory.path(), CAPACITY).unwrap();
        put(&store, &key("b"), "behind", &body(3, 100)).unwrap();
        kill(store);
        let mut bytes = fs::read(segment).unwrap();
        bytes[at + 40] ^= 1;
        fs::write(segment, &bytes).unwrap();
        let _ = fs::remove_file(segment.with_extension("index"));

        let store = FileStore::open(directory.path(), CAPACITY).unwrap();
        assert!(store.open(&key("a")).unwrap().is_none());
        assert!(get(&store, &key("b")).is_some());
        assert_eq!(counter(&store, "damaged"), 1);
    }
}

#[test]
fn a_file_that_is_short_empty_missing_a_directory_or_a_pipe_costs_what_was_in_it() {
    let mut rng = StdRng::seed_from_u64(4);
    for (original, contents) in stores() {
        for index in 0..files(original.path()).len() {
            for harm in [index % 5, (index + 2) % 5] {
                let directory = copy(original.path());
                let files = files(directory.path());
                let file = &files[index];
                // Without its sidecar nothing tells what the newest segment had been: the store is as it was some time before.
                let newest = index == files.len() - 1 && file.extension().is_none();
                if newest && harm < 3 {
                    continue;
                }
                match harm {
                    0 => {
                        let length = fs::metadata(file).unwrap().len();
                        let file = fs::OpenOptions::new().write(true).open(file).unwrap();
                        file.set_len(rng.random_range(0..=length)).unwrap();
                    }
                    1 => fs::write(file, "").unwrap(),
                    2 => fs::remove_file(file).unwrap(),
                    3 => {
                        fs::remove_file(file).unwrap();
                        mkfifoat(CWD, file, Mode::RWXU).unwrap();
                    }
                    _ => {
                        fs::remove_file(file).unwrap();
                        fs::create_dir(file).unwrap();
                        fs::write(file.join("extra"), "extra").unwrap();
                    }
                }
                survive(directory.path(), &contents);
            }
        }
    }
}

#[test]
fn files_that_nobody_knows_are_left_alone_and_those_that_only_look_like_ours_cost_nothing() {
    let [(directory, contents), _] = stores();
    fs::write(directory.path().join("lock"), "1").unwrap();
    fs::write(directory.path().join("body-0123456789abcdef"), "an orphan").unwrap();
    fs::write(directory.path().join("segment-ffffffff"), "rubbish").unwrap();
    fs::write(directory.path().join("segment-00009999.index"), "rubbish").unwrap();
    let store = FileStore::open(directory.path(), CAPACITY).unwrap();
    assert_eq!(lost(&store, &contents), 0);
    assert_eq!(counter(&store, "orphans_removed"), 1);
    assert!(directory.path().join("lock").exists());
    let names: Vec<_> = files(directory.path());
    assert!(names.iter().all(
        |name| !name.ends_with("segment-ffffffff") && !name.ends_with("segment-00009999.index")
    ));
}

#[test]
fn a_file_with_the_name_of_a_last_segment_does_not_keep_a_store_from_writing() {
    for number in [u32::MAX - 1, u32::MAX] {
        for deletable in [true, false] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join(format!("segment-{number:08x}"));
            if deletable {
                fs::write(path, "rubbish").unwrap();
            } else {
                fs::create_dir(path).unwrap();
            }
            for round in 0..3 {
                let store = FileStore::open(directory.path(), CAPACITY).unwrap();
                for name in 0..20 {
                    assert_eq!(store.may_hold(&key(name)), 0 < round);
                    put(&store, &key(name), "", &body(name, 10 * KIB)).unwrap();
                }
            }
        }
    }
}

#[test]
fn a_segment_that_was_only_just_created_or_half_deleted_is_no_damage() {
    let [(directory, contents), _] = stores();
    let segments = segments(directory.path());
    fs::remove_file(segments[0].with_extension("index")).unwrap();
    let next = directory
        .path()
        .join(format!("segment-{:08x}", segments.len() + 1));
    fs::write(&next, "").unwrap();

    for round in 0..2 {
        let store = FileStore::open(directory.path(), CAPACITY).unwrap();
        assert_eq!(lost(&store, &contents), 0);
        assert_eq!(counter(&store, "damaged"), 0);
        // What is written now comes after what was there.
        assert_eq!(next.exists(), 0 < round);
        for _ in 0..5 {
            put(&store, &key("new"), "new", &body(1, 50 * KIB)).unwrap();
        }
        assert_eq!(fs::metadata(&next).unwrap().len() / KIB, 100);
    }
}

/// The names of files in the order in which they are changed or deleted meanwhile.
#[cfg(target_os = "linux")]
fn changed_by(directory: &Path, open: impl FnOnce()) -> Vec<String> {
    use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};
    let watch = init(CreateFlags::NONBLOCK).unwrap();
    add_watch(&watch, directory, WatchFlags::DELETE | WatchFlags::MODIFY).unwrap();
    open();
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut reader = Reader::new(&watch, &mut buffer);
    let mut names = Vec::new();
    while let Ok(event) = reader.next() {
        let name = event.file_name().unwrap();
        names.push(name.to_str().unwrap().to_owned());
    }
    names
}

#[cfg(target_os = "linux")]
#[test]
fn what_shows_the_damage_goes_after_all_that_it_may_have_replaced() {
    let [_, (original, contents)] = stores();
    // A tail that says nothing, and a segment that says nothing at all.
    for whole in [false, true] {
        let directory = copy(original.path());
        let segments = segments(directory.path());
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        let (newest, older) = segments.split_last().unwrap();
        let mut bytes = fs::read(newest).unwrap();
        if whole {
            bytes.clear();
        }
        bytes.extend([0xaa; 200]);
        fs::write(newest, bytes).unwrap();

        let changed = changed_by(directory.path(), || {
            let store = FileStore::open(directory.path(), CAPACITY).unwrap();
            lost(&store, &contents);
            kill(store);
        });
        let place = |path: &PathBuf| changed.iter().position(|changed| *changed == name(path));
        let shown_until = place(newest).expect("the damage is still there");
        for (older, next) in older.iter().zip(&segments[1..]) {
            let gone = place(older).expect("it may have been replaced");
            assert!(gone < shown_until, "{changed:?}");
            assert!(gone < place(next).unwrap(), "the oldest goes first");
        }
    }
}
