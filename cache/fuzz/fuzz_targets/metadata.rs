//! Any bytes, as the head of a record, its checksum right. `../README.md` says how to run it.

#![no_main]
#![expect(dead_code, reason = "each target checks one of several things")]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/sound/records.rs"]
mod records;

fuzz_target!(|data: &[u8]| {
    records::check_metadata(data);
});
