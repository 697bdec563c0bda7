//! What the benchmarks share: a typical exchange, sessions with a broker, and for how long to measure.
//!
//! The benchmarks themselves are in `benches/`, a file per room. They see what strangers see: public items. `README.md` says
//! how to run and compare them.

mod exchange;
mod measure;
mod session;

pub use exchange::{
    AUTHORITY, REQUEST_FIELDS, RESPONSE_FIELDS, SERVICE, TARGET, fields, header_map, request,
    request_head, response, response_head,
};
pub use measure::{criterion, epoch};
pub use session::Session;

/// As the `scale0` binary allocates.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
