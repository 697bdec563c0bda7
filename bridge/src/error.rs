//! Why a request did not get its answer.

use std::io;

use crate::config::Upstream;

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why the application's answer to a request is missing, or not whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BridgeError {
    /// No upstream takes connections: the environment's fault. The request was not started; it is safe to repeat elsewhere,
    /// whatever its method.
    #[error("the application takes no connections: {0}")]
    Refused(#[source] Refused),
    /// The application broke off, or what it sent is no response. It may have acted on the request.
    #[error("the application failed at {upstream}: {source}")]
    Failed {
        /// Which instance.
        upstream: Upstream,
        /// What was seen of it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The request's content broke off: the client's fault. The application has seen a part of the request.
    #[error("the request's content broke off: {0}")]
    ContentLost(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why no connection was to be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Every upstream is known to be down and is being probed.
    #[error("every upstream is down")]
    AllDown,
    /// The last upstream left could not be connected to.
    #[error("connecting to {upstream}: {source}")]
    Connect {
        /// Which instance.
        upstream: Upstream,
        /// Why not.
        source: io::Error,
    },
    /// A new connection was closed before anything could be sent on it.
    #[error("{upstream} closed the connection at once")]
    Closed {
        /// Which instance.
        upstream: Upstream,
    },
}

impl BridgeError {
    pub(crate) fn failed(upstream: &Upstream, source: impl Into<BoxError>) -> Self {
        Self::Failed {
            upstream: upstream.clone(),
            source: source.into(),
        }
    }
}
