//! Writes that fail.

use std::path::Path;
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use scale0_cache::store::{FileStore, Store};

use crate::world::*;

const DIRECTORY: &str = "SCALE0_TEST_FULL_STORE";

fn limit_files_to(bytes: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    let limit = Rlimit {
        current: bytes.or(maximum),
        maximum,
    };
    setrlimit(Resource::Fsize, limit).unwrap();
}

/// Not a test but a process whose files may not grow, unless nobody asks for it.
#[test]
fn the_process_whose_writes_fail() {
    let Ok(directory) = std::env::var(DIRECTORY) else {
        return;
    };
    let directory = Path::new(&directory);
    let store = FileStore::open(directory, 16 * MIB).unwrap();
    put(&store, &key("before"), "before", &body(1, 1000)).unwrap();
    put(&store, &key("large"), "large", &body(2, LARGE)).unwrap();

    limit_files_to(Some(30 * KIB));
    let mut fitting = 0;
    while put(&store, &key(fitting), "", &body(fitting, 1000)).is_ok() {
        fitting += 1;
    }
    assert!((10..40).contains(&fitting), "{fitting}");
    assert!(put(&store, &key("before"), "after", &body(3, 30 * KIB)).is_err());
    assert!(put(&store, &key("large"), "after", &body(4, LARGE)).is_err());
    assert!(0 < counter(&store, "writes_failed"));
    // What fits is written even now.
    put(&store, &key("small"), "", &body(5, 10)).unwrap();
    let check = |store: &FileStore| {
        assert!(get(store, &key("before")).unwrap().1 == body(1, 1000));
        assert!(get(store, &key("large")).unwrap().1 == body(2, LARGE));
        assert!(get(store, &key("small")).unwrap().1 == body(5, 10));
        assert!(
            (0..fitting).all(|number| get(store, &key(number)).unwrap().1 == body(number, 1000))
        );
        assert!(!store.may_hold(&key(fitting)));
        assert_eq!(counter(store, "damaged"), 0);
    };
    check(&store);

    limit_files_to(None);
    put(&store, &key("behind"), "", &body(6, LARGE)).unwrap();
    check(&store);
    kill(store);
    let store = FileStore::open(directory, 16 * MIB).unwrap();
    check(&store);
    assert!(get(&store, &key("behind")).unwrap().1 == body(6, LARGE));
    assert_eq!(counter(&store, "orphans_removed"), 0);
}

#[test]
fn a_write_that_fails_leaves_all_else_as_it_was_and_later_ones_succeed() {
    let directory = tempfile::tempdir().unwrap();
    // A process that ignores this signal is told by an error instead of being killed by it.
    let status = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "full::the_process_whose_writes_fail"])
        .env(DIRECTORY, directory.path())
        .status()
        .unwrap();
    assert!(status.success());
    assert!(0 < bytes_on_disk(directory.path()), "it did something");
}

#[test]
fn a_directory_that_cannot_be_made_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, "").unwrap();
    assert!(FileStore::open(&path, MIB).is_err());
    assert!(FileStore::open(&path.join("store"), MIB).is_err());
}

#[test]
fn a_directory_that_vanishes_makes_errors_until_it_is_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = FileStore::open(&path, 16 * MIB).unwrap();
    put(&store, &key("kept"), "", &body(1, 1000)).unwrap();
    std::fs::remove_dir_all(&path).unwrap();
    assert!(put(&store, &key("large"), "", &body(2, LARGE)).is_err());
    assert!(!store.may_hold(&key("large")));
    std::fs::create_dir(&path).unwrap();
    put(&store, &key("large"), "", &body(2, LARGE)).unwrap();
    assert!(get(&store, &key("large")).unwrap().1 == body(2, LARGE));
    assert!(
        get(&store, &key("kept")).unwrap().1 == body(1, 1000),
        "its file is still open"
    );
}
