//! Any bytes, as one frame, as two, and as metadata: refused, or written again as they were. `../README.md` says how to run it.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/protocol/sound.rs"]
mod sound;

fuzz_target!(|data: &[u8]| sound::check(&Bytes::copy_from_slice(data)));
