//! What waits for peers that read slowly.

/// Bytes that wait for the windows of all connections together, and how many may.
///
/// No peer may have more waiting than is left free: where many are slow each gets an equal share, and one that becomes slow finds
/// room however many already are (Choudhury and Hahne's dynamic thresholds). So nothing that waits ever has to give way.
#[derive(Debug)]
pub(crate) struct Backlog {
    bytes: usize,
    per_peer: usize,
    total: usize,
}

impl Backlog {
    pub(crate) const fn new(per_peer: usize, total: usize) -> Self {
        Self {
            bytes: 0,
            per_peer,
            total,
        }
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether so many bytes more may wait for a peer for which so many do.
    pub(crate) fn admits(&self, waiting: usize, more: usize) -> bool {
        let free = self.total.saturating_sub(self.bytes);
        waiting + more <= self.per_peer.min(free)
    }

    pub(crate) const fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    pub(crate) const fn remove(&mut self, bytes: usize) {
        self.bytes -= bytes;
    }
}
