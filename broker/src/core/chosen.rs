//! A backend that a request goes to, and why.

use scale0_wire::Why;

use super::backend::BackendKey;

/// One of those that could take a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chosen {
    pub(crate) backend: BackendKey,
    pub(crate) why: Why,
    /// How many there were to choose from.
    pub(crate) among: usize,
}

impl Chosen {
    /// Of one there is no choice.
    pub(crate) const fn new(backend: BackendKey, why: Why, among: usize) -> Self {
        let why = if among <= 1 { Why::ONLY } else { why };
        Self {
            backend,
            why,
            among,
        }
    }
}
