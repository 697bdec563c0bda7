//! Refuses to build over a libzmq that lacks what this crate needs, and says what to add.
//!
//! The published `zmq-sys` builds an older libzmq without CURVE and without the draft interface. A `[patch]` section works
//! only in the root of a build, so every workspace that links this crate has its own; without it the answer should come
//! here and not when a program starts.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if env::var_os("DEP_ZMQ_SCALE0").is_some() {
        return;
    }
    let here = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!(
        "cargo:error=scale0-transport needs its own build of libzmq. Add these two lines to the Cargo.toml at the root of \
         your workspace, then run `cargo update -p zmq-sys`:"
    );
    println!("cargo:error=[patch.crates-io]");
    println!("cargo:error=zmq-sys = {{ path = \"{here}/zmq-sys\" }}");
    println!(
        "cargo:error=(where scale0 is a git dependency: `{{ git = … }}` with the same address and revision)"
    );
    std::process::exit(1);
}
