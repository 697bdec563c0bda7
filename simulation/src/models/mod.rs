//! Frontends and backends written a second time, in the fewest words: they say what an older implementation would, or one of somebody
//! else, and check what brokers may say to it.

mod backend;
mod dialler;
mod frontend;

pub(crate) use backend::Backend;
pub(crate) use frontend::Frontend;
