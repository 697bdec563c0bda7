//! Bindings to libzmq, as published by `zmq-sys` 0.12.0 (<https://github.com/erickt/rust-zmq>, MIT/Apache-2.0), over a libzmq
//! that is built with CURVE and its draft interface. `ffi.rs` and `errno.rs` are the published files; `draft.rs` is added.

#[cfg(not(unix))]
compile_error!("only Unix is supported");

pub mod errno;

pub use crate::draft::*;
pub use crate::ffi::*;

/// What `ZMQ_FD` is.
pub type RawFd = std::os::unix::io::RawFd;

mod draft;
#[allow(non_camel_case_types, dead_code, clippy::all)]
mod ffi;
