//! Any bytes, as the fields of a request and of a response. `../README.md` says how to run it.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/sound/fields.rs"]
mod fields;

fuzz_target!(|data: &[u8]| fields::check(data));
