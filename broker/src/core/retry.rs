//! How many repeats a service may cost.

use std::time::{Duration, Instant};

/// Repeats per request that the budget allows: one in so many.
const ONE_IN: u32 = 5;

/// Repeats that are always allowed within a window: a quiet service must survive a hiccup, too.
const AT_LEAST: u32 = 3;

/// Requests and repeats of the last ten seconds are weighed against each other, in steps of one.
const STEP: Duration = Duration::from_secs(1);
const STEPS: usize = 10;

/// The budget of repeats after errors, of one service: a backend that fails everything must not be sent everything twice.
///
/// Charged when the repeat is decided. Repeats after a lost connection are free: they are bounded per request, and a backend
/// dies once.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    started: Instant,
    step: u64,
    requests: [u32; STEPS],
    repeats: [u32; STEPS],
}

impl Budget {
    pub(crate) const fn new(now: Instant) -> Self {
        Self {
            started: now,
            step: 0,
            requests: [0; STEPS],
            repeats: [0; STEPS],
        }
    }

    pub(crate) fn count_request(&mut self, now: Instant) {
        let slot = self.advance(now);
        self.requests[slot] = self.requests[slot].saturating_add(1);
    }

    /// Pays for one repeat. Returns false, and pays nothing, if the budget is spent.
    #[must_use]
    pub(crate) fn pay(&mut self, now: Instant) -> bool {
        let slot = self.advance(now);
        let spent = self.repeats.iter().sum::<u32>();
        let allowed = AT_LEAST.max(
            self.requests
                .iter()
                .fold(0_u32, |sum, count| sum.saturating_add(*count))
                / ONE_IN,
        );
        let pays = spent < allowed;
        self.repeats[slot] += u32::from(pays);
        pays
    }

    /// Clears the steps that have passed since, and returns the slot of this one.
    fn advance(&mut self, now: Instant) -> usize {
        let step = now.saturating_duration_since(self.started).as_secs() / STEP.as_secs();
        for passed in self.step + 1..=step.min(self.step + STEPS as u64) {
            let slot = slot(passed);
            (self.requests[slot], self.repeats[slot]) = (0, 0);
        }
        if self.step + (STEPS as u64) < step {
            (self.requests, self.repeats) = ([0; STEPS], [0; STEPS]);
        }
        self.step = step.max(self.step);
        slot(self.step)
    }
}

fn slot(step: u64) -> usize {
    usize::try_from(step % STEPS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::epoch;

    #[test]
    fn a_quiet_service_has_three_repeats_and_they_come_back_after_ten_seconds() {
        let start = epoch();
        let mut budget = Budget::new(start);
        assert!((0..3).all(|_| budget.pay(start)));
        assert!(!budget.pay(start + Duration::from_secs(9)));
        assert!(budget.pay(start + Duration::from_secs(10)));
    }

    #[test]
    fn a_busy_service_has_one_repeat_for_five_requests() {
        let start = epoch();
        let mut budget = Budget::new(start);
        for index in 0..100 {
            budget.count_request(start + Duration::from_millis(index * 50));
        }
        let now = start + Duration::from_secs(5);
        assert_eq!((0..100).filter(|_| budget.pay(now)).count(), 20);
        assert!(budget.pay(now + Duration::from_secs(1000)));
    }
}
