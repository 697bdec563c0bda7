//! Builds libzmq 4.3.5 from the sources in `zeromq-src`, with what the published build script leaves out:
//! CURVE (by the bundled libsodium), the draft interface, and the platform's abilities.
//!
//! `zeromq-src` writes an empty platform header and defines a dozen macros. Without those below, libzmq signals through
//! socket pairs instead of eventfd and ignores TCP keep-alive without a word. The `cc` crate takes them from CXXFLAGS.

use std::env;

/// What every Linux of this decade can do.
const LINUX: &[&str] = &[
    "HAVE_ACCEPT4",
    "HAVE_FORK",
    "HAVE_POSIX_MEMALIGN",
    "ZMQ_HAVE_ACCEPT4",
    "ZMQ_HAVE_EVENTFD",
    "ZMQ_HAVE_EVENTFD_CLOEXEC",
    "ZMQ_HAVE_O_CLOEXEC",
    "ZMQ_HAVE_PPOLL",
    "ZMQ_HAVE_PTHREAD_SETNAME_2",
    "ZMQ_HAVE_PTHREAD_SET_AFFINITY",
    "ZMQ_HAVE_SOCK_CLOEXEC",
    "ZMQ_HAVE_SO_KEEPALIVE",
    "ZMQ_HAVE_SO_PEERCRED",
    "ZMQ_HAVE_TCP_KEEPCNT",
    "ZMQ_HAVE_TCP_KEEPIDLE",
    "ZMQ_HAVE_TCP_KEEPINTVL",
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=CXXFLAGS");

    let mut defines = vec!["ZMQ_CACHELINE_SIZE=64"];
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        defines.extend(LINUX);
    }
    add_to_cxxflags(&defines);

    let sodium = |what: &str| env::var(what).expect("libsodium-sys-stable states where it built libsodium");
    zeromq_src::Build::new()
        .with_libsodium(Some(zeromq_src::LibLocation::new(
            sodium("DEP_SODIUM_LIB"),
            sodium("DEP_SODIUM_INCLUDE"),
        )))
        .enable_draft(true)
        .build();

    // scale0-transport's build script looks for this: the published zmq-sys does not say it.
    println!("cargo:scale0=4.3.5 curve draft");
}

/// Adds to what the `cc` crate will use: the first of these variables that is set, of which the first is the most specific.
fn add_to_cxxflags(defines: &[&str]) {
    let target = env::var("TARGET").expect("cargo sets TARGET");
    let names = [
        format!("CXXFLAGS_{target}"),
        format!("CXXFLAGS_{}", target.replace('-', "_")),
        "TARGET_CXXFLAGS".to_owned(),
        "CXXFLAGS".to_owned(),
    ];
    let mut flags = names
        .iter()
        .find_map(|name| env::var(name).ok())
        .unwrap_or_default();
    for define in defines {
        flags.push_str(" -D");
        flags.push_str(define);
        if !define.contains('=') {
            flags.push_str("=1");
        }
    }
    env::set_var(&names[0], flags);
}
