//! Any bytes, over the files of a file store. `../README.md` says how to run it.

#![no_main]
#![expect(dead_code, reason = "each target checks one of several things")]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

#[path = "../../tests/sound/records.rs"]
mod records;

/// `TMPDIR=/dev/shm` puts it into memory.
static FOLDER: LazyLock<TempDir> =
    LazyLock::new(|| TempDir::new().expect("there is room for temporary files"));

fuzz_target!(|data: &[u8]| records::check_segments(FOLDER.path(), data));
