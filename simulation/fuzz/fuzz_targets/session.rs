//! Any bytes as what happens to a session. `../README.md` says how to run it.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| scale0_simulation::fuzz::session(data));
