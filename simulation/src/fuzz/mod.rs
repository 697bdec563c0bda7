//! The state machines one by one, with events that any bytes spell: nothing panics, and after each event the sums agree.
//!
//! Bytes are read as a script: what happens, to whom, and how. Messages come through the codec, either as frames that stand in the
//! script or put together from a few of its bytes; of these many mean something, so that a script gets somewhere.

mod broker;
mod lane;
mod script;
mod session;
mod trace;

pub use broker::broker;
pub use lane::lane;
pub use session::session;
pub(crate) use trace::Trace;
