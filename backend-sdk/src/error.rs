//! Why a backend cannot serve.

use scale0_transport::{EndpointError, TransportError};

/// Why [`crate::Backend::serve`] ended without having been asked to. Repeating is safe for all of them; it helps where the variant
/// says so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller's: a name of 1 to 253 visible ASCII characters is needed. Nothing was started.
    #[error(
        "{name:?} cannot be the name of a {what}: 1 to 253 visible ASCII characters are needed"
    )]
    Name {
        /// What was to be named.
        what: &'static str,
        /// How.
        name: String,
    },
    /// The caller's: more services than one backend may offer, which is 1024 whose names have 128 KiB together.
    #[error("{services} services with {bytes} bytes of names are too many for one backend")]
    TooManyServices {
        /// How many there would be.
        services: usize,
        /// How many bytes their names have, with two more for each.
        bytes: usize,
    },
    /// The caller's: there is no broker to serve for. Nothing was started.
    #[error("no broker was given")]
    NoBroker,
    /// The caller's: with no concurrency no request could ever be served. Nothing was started.
    #[error("concurrency must be 1 at least")]
    NoConcurrency,
    /// The caller's: text that is no endpoint. Nothing was started.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The caller's: the link would leave this machine unencrypted. Nothing was started. Give the broker's key, or say
    /// [`crate::Backend::insecure`].
    #[error("{endpoint} is on another machine, and no key of the broker is given")]
    Insecure {
        /// Where it leads.
        endpoint: String,
    },
    /// The caller's: there is no tokio runtime here. Nothing was started.
    #[error("a backend serves within a tokio runtime")]
    NoRuntime(#[from] tokio::runtime::TryCurrentError),
    /// The build's, or the machine's: no socket was to be had. Nothing is left behind; repeating helps if the machine was at fault.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The machine's: the operating system refused a thread, a descriptor or a wait. Requests in flight were cancelled.
    #[error("the socket thread cannot go on: {0}")]
    Io(#[from] std::io::Error),
    /// Ours: the socket thread is gone. Requests in flight were cancelled.
    #[error("the socket thread broke off, which is a mistake in this crate")]
    Broken,
}

/// Why the content of a request ends before it is complete. The request's client or a link is at fault; the handler should give up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request's content broke off: {reason}")]
pub struct BodyError {
    reason: &'static str,
}

impl BodyError {
    pub(crate) const fn new(reason: &'static str) -> Self {
        Self { reason }
    }

    /// The reason's name, as in logs and metrics: `client-gone`, `cancelled`, `session-ended` and so on.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        self.reason
    }
}
