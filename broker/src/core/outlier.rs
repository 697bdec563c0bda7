//! Backends that fail, or are far slower than others, have a rest.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use scale0_wire::{Flags, Reason};

/// So many requests in a row fail, and the backend has a rest.
const IN_A_ROW: u8 = 5;

/// A backend is grossly slow if it takes more than so many times what others do, …
const TIMES_SLOWER: u32 = 5;

/// … of which there are as many at least, itself included, …
pub(crate) const AMONG: usize = 3;

/// … and more than this: what takes a millisecond in place of a fifth of one may be chance, and does little harm.
const HARMLESS: Duration = Duration::from_millis(20);

/// The first rest; each further one is longer by as much, up to the longest.
const REST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(300);

/// For each time so long without a rest, one of those before is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(300);

/// How one backend does at one service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    state: State,
    /// In a row.
    failures: u8,
    /// Rests so far that are not forgotten.
    rests: u8,
    /// The end of the latest rest.
    returned: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// It is sent requests like any other. // → Out
    #[default]
    In,
    /// It is sent nothing before then, and one request from then on. // → Probed, In
    Out { until: Instant },
    /// That one is under way: its outcome decides. // → In, Out
    Probed,
}

impl Health {
    /// Whether it may be sent a request now.
    pub(crate) fn admits(&self, now: Instant) -> bool {
        match self.state {
            State::In => true,
            State::Out { until } => until <= now,
            State::Probed => false,
        }
    }

    pub(crate) fn is_out(&self) -> bool {
        self.state != State::In
    }

    /// It is sent a request. Returns whether that is the one by which it is judged.
    pub(crate) fn sent(&mut self) -> bool {
        let is_probe = matches!(self.state, State::Out { .. });
        if is_probe {
            self.state = State::Probed;
        }
        is_probe
    }

    /// A request has succeeded. Returns whether its rest is over by that.
    pub(crate) fn succeeded(&mut self, is_probe: bool, now: Instant) -> bool {
        self.failures = 0;
        let returns = is_probe && self.state == State::Probed;
        if returns {
            self.readmit(now);
        }
        returns
    }

    /// A request has failed. Returns whether it should have a rest, unless it has one already.
    pub(crate) fn failed(&mut self, is_probe: bool, now: Instant) -> bool {
        match self.state {
            State::In => {
                self.failures = self.failures.saturating_add(1);
                IN_A_ROW <= self.failures
            }
            State::Probed if is_probe => {
                self.rest(now);
                false
            }
            State::Probed | State::Out { .. } => false,
        }
    }

    /// The probe came to nothing that would say anything: the next request is one.
    pub(crate) fn was_not_judged(&mut self, now: Instant) {
        if self.state == State::Probed {
            self.state = State::Out { until: now };
        }
    }

    /// As if it had had so many rests before.
    pub(crate) const fn had_rests(&mut self, rests: u8) {
        self.rests = rests;
    }

    pub(crate) fn rest(&mut self, now: Instant) {
        let well = self.returned.map_or(Duration::ZERO, |returned| {
            now.saturating_duration_since(returned)
        });
        let forgotten = u8::try_from(well.as_secs() / FORGOTTEN.as_secs()).unwrap_or(u8::MAX);
        self.rests = self.rests.saturating_sub(forgotten).saturating_add(1);
        let rest = (REST * u32::from(self.rests)).min(LONGEST);
        self.state = State::Out { until: now + rest };
        self.failures = 0;
        // Out again at its probe, it has not been well for a moment.
        self.returned = Some(now + rest);
    }

    /// It is sent requests like any other again.
    pub(crate) fn readmit(&mut self, now: Instant) {
        self.state = State::In;
        self.failures = 0;
        self.returned = Some(now);
    }
}

/// Backends whose connections were lost under requests, one time after the other: a session's end is the end of its [`Health`], and of what
/// crashes at each request nothing else would be known.
#[derive(Debug, Default)]
pub(crate) struct Losses(HashMap<u64, (u8, Instant)>);

/// So many backends are remembered; a further one takes the place of whoever was lost longest ago.
const REMEMBERED: usize = 1024;

impl Losses {
    /// The backend of this seed is gone, and requests with it.
    pub(crate) fn count(&mut self, seed: u64, now: Instant) {
        if REMEMBERED <= self.0.len() && !self.0.contains_key(&seed) {
            let oldest = self.0.iter().min_by_key(|(_, (_, at))| *at);
            if let Some(oldest) = oldest.map(|(&seed, _)| seed) {
                self.0.remove(&oldest);
            }
        }
        let (count, at) = self.0.entry(seed).or_insert((0, now));
        if FORGOTTEN < now.saturating_duration_since(*at) {
            *count = 0;
        }
        (*count, *at) = (count.saturating_add(1), now);
    }

    /// It has answered a request.
    pub(crate) fn is_well(&mut self, seed: u64) {
        if !self.0.is_empty() {
            self.0.remove(&seed);
        }
    }

    /// How many rests it should have had by now.
    pub(crate) fn rests(&self, seed: u64, now: Instant) -> u8 {
        match self.0.get(&seed) {
            Some(&(count, at)) if now.saturating_duration_since(at) <= FORGOTTEN => {
                count.saturating_sub(IN_A_ROW - 1)
            }
            _ => 0,
        }
    }
}

/// Whether this average is grossly more than those of others, its own among them. Their order changes.
pub(crate) fn is_grossly_slow(own: Duration, all: &mut [Duration]) -> bool {
    if all.len() < AMONG || own < HARMLESS {
        return false;
    }
    let middle = (all.len() - 1) / 2;
    let (_, median, _) = all.select_nth_unstable(middle);
    *median * TIMES_SLOWER < own
}

/// Whether a backend that ends a request like this has failed at it.
pub(crate) const fn is_fault(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::AppFailed
            | Reason::BackendLost
            | Reason::IdleTimeout
            | Reason::ProtocolError
            | Reason::HeadTooLarge
    )
}

/// Whether a RESPONSE says that the application has failed: a status of 500 or more. Only backends that speak version 2 say so.
pub(crate) const fn says_failed(flags: Flags) -> bool {
    flags.contains(Flags::APP_ERROR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::epoch;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn five_failures_in_a_row_are_worth_a_rest_and_four_are_not() {
        let now = epoch();
        let mut health = Health::default();
        for _ in 0..3 {
            for _ in 0..4 {
                assert!(!health.failed(false, now));
            }
            assert!(!health.succeeded(false, now));
        }
        for failure in 1..=5 {
            assert_eq!(health.failed(false, now), failure == 5);
        }
    }

    #[test]
    fn after_a_rest_one_request_decides_and_each_rest_is_longer_up_to_five_minutes() {
        let mut now = epoch();
        let mut health = Health::default();
        health.rest(now);
        for rests in 1..40 {
            let rest = SECOND * (10 * rests).min(300);
            assert!(!health.admits(now + rest - SECOND / 10));
            now += rest;
            assert!(health.admits(now));
            assert!(health.sent(), "the probe");
            assert!(!health.admits(now), "one at a time");
            assert!(!health.succeeded(false, now), "an old one says nothing");
            assert!(!health.failed(true, now));
        }
        now += LONGEST;
        assert!(health.sent());
        assert!(health.succeeded(true, now));
        assert!(health.admits(now) && !health.is_out());
    }

    #[test]
    fn a_probe_that_says_nothing_is_followed_by_another() {
        let now = epoch();
        let mut health = Health::default();
        health.rest(now);
        assert!(health.sent());
        health.was_not_judged(now);
        assert!(health.admits(now) && health.sent());
    }

    #[test]
    fn rests_are_forgotten_one_for_each_five_minutes_without() {
        let mut now = epoch();
        let mut health = Health::default();
        for _ in 0..3 {
            health.rest(now);
            health.readmit(now);
        }
        now += SECOND * 700;
        health.rest(now);
        assert!(health.admits(now + SECOND * 20), "the second");
        assert!(!health.admits(now + SECOND * 19));
    }

    #[test]
    fn a_backend_that_is_lost_five_times_without_an_answer_is_to_rest_and_longer_each_time() {
        let now = epoch();
        let mut losses = Losses::default();
        for (count, rests) in (1..=7).zip([0, 0, 0, 0, 1, 2, 3]) {
            losses.count(9, now);
            assert_eq!(losses.rests(9, now), rests, "{count}");
        }
        assert_eq!(losses.rests(8, now), 0);
        assert_eq!(losses.rests(9, now + FORGOTTEN + SECOND), 0);
        losses.is_well(9);
        assert_eq!(losses.rests(9, now), 0);
    }

    #[test]
    fn of_so_many_lost_backends_the_latest_are_remembered() {
        let now = epoch();
        let mut losses = Losses::default();
        for seed in 0..2_000 {
            losses.count(seed, now + SECOND * u32::try_from(seed).unwrap() / 100);
        }
        assert_eq!(losses.0.len(), REMEMBERED);
        assert!(losses.0.contains_key(&1_999) && !losses.0.contains_key(&0));
    }

    #[test]
    fn slow_is_who_takes_five_times_the_median_of_three_and_long() {
        let ms = Duration::from_millis;
        let is_slow = |own, others: &[u64]| {
            let mut all: Vec<_> = others.iter().map(|&other| ms(other)).collect();
            all.push(ms(own));
            is_grossly_slow(ms(own), &mut all)
        };
        assert!(is_slow(51, &[10, 10]));
        assert!(!is_slow(50, &[10, 10]));
        assert!(!is_slow(51, &[10]), "one of two: which is the odd one?");
        assert!(!is_slow(19, &[1, 1]), "nobody is hurt");
        assert!(is_slow(100, &[10, 10, 100]));
        assert!(!is_slow(100, &[10, 100, 100]));
    }
}
