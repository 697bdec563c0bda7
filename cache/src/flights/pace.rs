//! How long a flight may be held back for its slower readers.

use std::time::{Duration, Instant};

/// All slower readers together may hold a flight back for this long in its whole life. Enough to ride out a hiccup of a client,
/// and so short that with everything else the fastest one loses less than the second that is promised.
pub(super) const HOLD_IN_ALL: Duration = Duration::from_millis(750);

/// The budget of [`HOLD_IN_ALL`], and how much of it is spent.
#[derive(Debug, Default)]
pub(super) struct Pace {
    spent: Duration,
    held_since: Option<Instant>,
}

impl Pace {
    /// The producer is held back for others. When that must end; `None`: now.
    pub(super) fn hold(&mut self, now: Instant) -> Option<Instant> {
        let since = *self.held_since.get_or_insert(now);
        let until = since + HOLD_IN_ALL.saturating_sub(self.spent);
        (now < until).then_some(until)
    }

    /// The producer goes on.
    pub(super) fn release(&mut self, now: Instant) {
        if let Some(since) = self.held_since.take() {
            self.spent = (self.spent + now.saturating_duration_since(since)).min(HOLD_IN_ALL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flights::test_time::at;

    #[test]
    fn the_budget_is_for_all_holds_together() {
        let mut pace = Pace::default();
        assert_eq!(pace.hold(at(0)), Some(at(750)));
        assert_eq!(pace.hold(at(300)), Some(at(750)));
        pace.release(at(400));
        pace.release(at(5000));
        assert_eq!(pace.hold(at(9000)), Some(at(9350)));
        assert_eq!(pace.hold(at(9350)), None);
        pace.release(at(20_000));
        assert_eq!(pace.hold(at(30_000)), None, "spent is spent");
    }
}
