//! How many repeats and hedges a service may cost.

use std::time::{Duration, Instant};

/// Repeats per request that the budget allows: one in so many.
const ONE_IN: u32 = 5;

/// Repeats that are always allowed within a window: a quiet service must survive a hiccup, too.
const AT_LEAST: u32 = 3;

/// Hedges per request: one in so many, and of fewer requests none. They are for the slowest few; what is slow as a whole they would
/// only make slower.
const HEDGE_ONE_IN: u32 = 50;

/// Requests, repeats and hedges of the last ten seconds are weighed against each other, in steps of one.
const STEP: Duration = Duration::from_secs(1);
const STEPS: usize = 10;

/// The budget of repeats after errors and of hedges, of one service: a backend that fails everything must not be sent everything twice.
///
/// Charged when the repeat is decided. Repeats after a lost connection are free: they are bounded per request, and a backend
/// dies once.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    started: Instant,
    step: u64,
    /// When it is over.
    until: Instant,
    requests: [u32; STEPS],
    repeats: [u32; STEPS],
    hedges: [u32; STEPS],
}

impl Budget {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            started: now,
            step: 0,
            until: now + STEP,
            requests: [0; STEPS],
            repeats: [0; STEPS],
            hedges: [0; STEPS],
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
        let pays = self.has_left();
        self.repeats[slot] += u32::from(pays);
        pays
    }

    /// Pays for one hedge, out of what there is for repeats. Returns false, and pays nothing, if too many have been paid for.
    #[must_use]
    pub(crate) fn pay_hedge(&mut self, now: Instant) -> bool {
        let slot = self.advance(now);
        let pays = self.has_left() && sum(&self.hedges) < sum(&self.requests) / HEDGE_ONE_IN;
        self.hedges[slot] += u32::from(pays);
        pays
    }

    fn has_left(&self) -> bool {
        let spent = sum(&self.repeats) + sum(&self.hedges);
        spent < AT_LEAST.max(sum(&self.requests) / ONE_IN)
    }

    /// Clears the steps that have passed since, and returns the slot of this one.
    fn advance(&mut self, now: Instant) -> usize {
        if now < self.until {
            return slot(self.step);
        }
        let step = now.saturating_duration_since(self.started).as_secs() / STEP.as_secs();
        for passed in self.step + 1..=step.min(self.step + STEPS as u64) {
            let slot = slot(passed);
            (self.requests[slot], self.repeats[slot]) = (0, 0);
            self.hedges[slot] = 0;
        }
        self.step = step.max(self.step);
        self.until = self.started + Duration::from_secs(self.step + 1);
        slot(self.step)
    }
}

fn sum(counts: &[u32; STEPS]) -> u32 {
    counts
        .iter()
        .fold(0, |sum, &count| sum.saturating_add(count))
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
    fn one_request_in_fifty_is_hedged_and_a_hedge_is_one_repeat_less() {
        let start = epoch();
        let mut budget = Budget::new(start);
        assert!(!budget.pay_hedge(start), "of none");
        for index in 0..100 {
            budget.count_request(start + Duration::from_millis(index * 50));
        }
        let now = start + Duration::from_secs(5);
        assert_eq!((0..100).filter(|_| budget.pay_hedge(now)).count(), 2);
        assert_eq!((0..100).filter(|_| budget.pay(now)).count(), 18);
        (0..100).for_each(|_| budget.count_request(now));
        assert!(budget.pay_hedge(now));
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
