//! Whether one upstream is well: a pure state machine of what was seen of it.

use std::time::{Duration, Instant};

use crate::config::Health;

/// So many connections closed without an answer, one after the other, and an upstream counts as down.
///
/// One may be a bug that one request meets; several without any answer in between are an application that only accepts, as
/// a port forwarder does whose container is gone. Sent more, it would fail everything faster than anybody else succeeds.
pub const BROKEN_LIMIT: u32 = 3;

/// What is known of an upstream.
#[derive(Debug)]
pub(crate) struct Condition {
    state: State,
    /// Failures since the last response: they set how long it is left alone.
    failures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    // Up → Down by a refused connection, by broken ones in a row, or by missed probes.
    Up {
        broken: u32,
        since: Option<Instant>,
        missed: u32,
    },
    // Down → Up by a probe. It has to answer a request before its failures are forgotten.
    Down,
}

impl State {
    const UP: Self = Self::Up {
        broken: 0,
        since: None,
        missed: 0,
    };
}

impl Default for Condition {
    /// Innocent until seen otherwise.
    fn default() -> Self {
        Self {
            state: State::UP,
            failures: 0,
        }
    }
}

impl Condition {
    pub(crate) fn is_up(&self) -> bool {
        self.state != State::Down
    }

    /// Whether an answer would change anything: asked by the fast path, so that it can leave the lock alone.
    pub(crate) fn is_spotless(&self) -> bool {
        self.state == State::UP && self.failures == 0
    }

    /// A connection could not be opened.
    pub(crate) fn refused(&mut self) {
        if self.is_up() {
            self.go_down();
        }
    }

    /// A connection was opened, and closed without an answer to what it was asked.
    pub(crate) fn broke(&mut self, now: Instant, health: &Health) {
        if let State::Up { broken, since, .. } = &mut self.state {
            *broken += 1;
            let lasts = now.saturating_duration_since(*since.get_or_insert(now));
            // One that came back by a mere connect has used up its trust.
            if (BROKEN_LIMIT <= *broken && health.broken_for <= lasts) || 0 < self.failures {
                self.go_down();
            }
        }
    }

    /// A request was answered, whatever the answer.
    pub(crate) fn answered(&mut self) {
        if let State::Up { broken, since, .. } = &mut self.state {
            *broken = 0;
            *since = None;
            self.failures = 0;
        }
    }

    /// A probe came back.
    pub(crate) fn probed(&mut self, well: bool, health: &Health) {
        match (&mut self.state, well) {
            (State::Up { missed, .. }, true) => *missed = 0,
            (State::Up { missed, .. }, false) => {
                *missed += 1;
                if health.misses <= *missed {
                    self.go_down();
                }
            }
            (State::Down, true) => {
                self.state = State::UP;
                if health.path.is_some() {
                    // It has answered a request: more cannot be asked of it.
                    self.failures = 0;
                }
            }
            (State::Down, false) => self.failures = self.failures.saturating_add(1),
        }
    }

    /// When to probe next, unless something changes before. `jitter` is between 0 and 1.
    pub(crate) fn next_probe(&self, health: &Health, jitter: f64) -> Option<Duration> {
        let even = match self.state {
            State::Up { .. } => health.path.as_ref().map(|_| health.interval)?,
            State::Down => {
                let doublings = self.failures.saturating_sub(1).min(16);
                (health.backoff * 2_u32.pow(doublings)).min(health.backoff_max)
            }
        };
        // Between 3/4 and 5/4, so that the bridges of one application do not probe in step.
        Some(even.mul_f64(0.75 + jitter / 2.0))
    }

    fn go_down(&mut self) {
        self.state = State::Down;
        self.failures = self.failures.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIDDLE: f64 = 0.5;

    fn with_path() -> Health {
        Health {
            path: Some("/healthz".parse().unwrap()),
            ..Health::default()
        }
    }

    fn waits(condition: &Condition) -> Option<u128> {
        condition
            .next_probe(&Health::default(), MIDDLE)
            .map(|delay| delay.as_millis())
    }

    #[test]
    fn one_refused_connection_takes_an_upstream_down_and_one_probe_brings_it_back() {
        let mut condition = Condition::default();
        assert_eq!(waits(&condition), None);
        condition.refused();
        assert!(!condition.is_up());
        condition.probed(true, &Health::default());
        assert!(condition.is_up());
    }

    #[test]
    fn probes_of_an_upstream_that_stays_down_grow_apart_up_to_a_limit() {
        let mut condition = Condition::default();
        condition.refused();
        let mut delays = Vec::new();
        for _ in 0..7 {
            delays.push(waits(&condition).unwrap());
            condition.probed(false, &Health::default());
        }
        assert_eq!(delays, [250, 500, 1000, 2000, 4000, 5000, 5000]);
    }

    #[test]
    fn jitter_moves_a_probe_by_at_most_a_quarter() {
        let mut condition = Condition::default();
        condition.refused();
        let at = |jitter| {
            condition
                .next_probe(&Health::default(), jitter)
                .unwrap()
                .as_micros()
        };
        assert_eq!((at(0.0), at(1.0)), (187_500, 312_500));
    }

    #[test]
    fn an_upstream_that_accepts_and_answers_nothing_does_not_stay_up() {
        let mut condition = Condition::default();
        let start = crate::clock::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        condition.broke(at(0), &Health::default());
        condition.broke(at(900), &Health::default());
        condition.answered();
        condition.broke(at(1000), &Health::default());
        condition.broke(at(2000), &Health::default());
        assert!(
            condition.is_up(),
            "an answer between them starts the count again"
        );
        condition.broke(at(2000), &Health::default());
        assert!(!condition.is_up());
    }

    #[test]
    fn one_url_that_crashes_its_handler_takes_nothing_away_while_others_are_answered() {
        let mut condition = Condition::default();
        let start = crate::clock::now();
        for second in 0..60 {
            for millisecond in 0..999 {
                condition.broke(
                    start + Duration::from_millis(second * 1000 + millisecond),
                    &Health::default(),
                );
            }
            assert!(condition.is_up());
            condition.answered();
        }
    }

    #[test]
    fn one_that_came_back_by_a_mere_connect_goes_at_the_first_failure_and_for_longer() {
        let mut condition = Condition::default();
        condition.refused();
        condition.probed(true, &Health::default());
        assert!(!condition.is_spotless());
        condition.broke(crate::clock::now(), &Health::default());
        assert!(!condition.is_up());
        assert_eq!(waits(&condition), Some(500));
        condition.probed(true, &Health::default());
        condition.answered();
        assert!(condition.is_spotless());
    }

    #[test]
    fn with_a_path_so_many_missed_probes_in_a_row_take_it_down() {
        let health = with_path();
        let mut condition = Condition::default();
        assert_eq!(condition.next_probe(&health, MIDDLE), Some(health.interval));
        condition.probed(false, &health);
        condition.probed(true, &health);
        condition.probed(false, &health);
        assert!(condition.is_up());
        condition.probed(false, &health);
        assert!(!condition.is_up());
        condition.probed(true, &health);
        assert!(condition.is_spotless());
    }

    #[test]
    fn what_was_under_way_when_it_went_down_does_not_lengthen_its_rest() {
        let mut condition = Condition::default();
        condition.refused();
        condition.refused();
        condition.broke(crate::clock::now(), &Health::default());
        condition.answered();
        assert!(!condition.is_up());
        assert_eq!(waits(&condition), Some(250));
    }
}
