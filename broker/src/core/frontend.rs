//! The session of one frontend's runtime thread.

use std::collections::HashMap;

use super::hash::Secret;
use super::link::Link;
use super::stream::StreamKey;

/// Names a frontend session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrontendKey(pub(crate) usize);

/// One frontend session.
#[derive(Debug)]
pub(crate) struct Frontend {
    pub(crate) link: Link,
    /// Its streams, by the correlation ids it has chosen.
    pub(crate) streams: HashMap<u64, StreamKey, Secret>,
}
