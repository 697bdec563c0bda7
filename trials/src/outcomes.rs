//! What became of requests, and what that comes to.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use crate::ledger::Id;

/// What became of one request. Times count from when the trial's clients came to be.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// Which one.
    pub(crate) id: Id,
    /// When it was sent.
    pub(crate) begun: Duration,
    /// How long its whole answer took.
    pub(crate) took: Duration,
    /// Its status, or how it broke off.
    pub(crate) result: Result<u16, String>,
    /// Whether the client had to send it twice; see [`crate::client::Client::ask`].
    pub(crate) retried: bool,
}

impl Outcome {
    /// When its answer was there.
    pub(crate) fn ended(&self) -> Duration {
        self.begun + self.took
    }

    /// Whether it was served.
    pub(crate) fn is_good(&self) -> bool {
        self.result == Ok(200)
    }
}

/// What became of all requests of a load.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcomes(Vec<Outcome>);

impl Outcomes {
    /// Of these.
    pub(crate) fn new(outcomes: Vec<Outcome>) -> Self {
        Self(outcomes)
    }

    /// Each.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Outcome> {
        self.0.iter()
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Requests served per second of this time.
    pub(crate) fn goodput(&self, during: &Range<Duration>) -> f64 {
        let served = self
            .0
            .iter()
            .filter(|it| it.is_good() && during.contains(&it.ended()));
        served.count() as f64 / (during.end - during.start).as_secs_f64()
    }

    /// The slowest of those that were sent and answered within this time.
    pub(crate) fn slowest_within(&self, during: &Range<Duration>) -> Duration {
        let within = |it: &&Outcome| during.start <= it.begun && it.ended() <= during.end;
        let took = self.0.iter().filter(within).map(|it| it.took);
        took.max().unwrap_or_default()
    }

    /// Requests served in each second of this time, of the last one as far as it goes.
    pub(crate) fn by_second(&self, during: &Range<Duration>) -> Vec<usize> {
        let mut seconds = Vec::new();
        for outcome in self
            .0
            .iter()
            .filter(|it| it.is_good() && during.contains(&it.ended()))
        {
            #[expect(clippy::cast_possible_truncation, reason = "a trial has few seconds")]
            let second = (outcome.ended() - during.start).as_secs() as usize;
            seconds.resize(seconds.len().max(second + 1), 0);
            seconds[second] += 1;
        }
        seconds
    }

    /// The slowest of those that were under way at some moment of this time.
    pub(crate) fn slowest(&self, during: &Range<Duration>) -> Option<&Outcome> {
        self.under_way(during).max_by_key(|it| it.took)
    }

    /// How long it took at most for this part of those that were served and sent in this time; zero if there are none.
    pub(crate) fn quantile(&self, during: &Range<Duration>, part: f64) -> Duration {
        let good = self
            .0
            .iter()
            .filter(|it| it.is_good() && during.contains(&it.begun));
        let mut took: Vec<Duration> = good.map(|it| it.took).collect();
        took.sort_unstable();
        quantile(&took, part)
    }

    /// Of how many statuses, and ways to break off, there were how many.
    pub(crate) fn by_result(&self) -> BTreeMap<String, usize> {
        let mut results = BTreeMap::new();
        for outcome in &self.0 {
            let result = match &outcome.result {
                Ok(status) => format!("{} {status}", outcome.id.method()),
                Err(error) => format!("{} {error}", outcome.id.method()),
            };
            *results.entry(result).or_default() += 1;
        }
        results
    }

    fn under_way(&self, during: &Range<Duration>) -> impl Iterator<Item = &Outcome> {
        self.0
            .iter()
            .filter(|it| it.begun < during.end && during.start <= it.ended())
    }
}

/// The value below which this part of sorted values is.
pub(crate) fn quantile(sorted: &[Duration], part: f64) -> Duration {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index of a vector, rounded on purpose"
    )]
    let index = (sorted.len() as f64 * part) as usize;
    let last = sorted.len().saturating_sub(1);
    sorted.get(index.min(last)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(number: u64, begun_ms: u64, took_ms: u64, status: u16) -> Outcome {
        Outcome {
            id: Id::new(number, false),
            begun: Duration::from_millis(begun_ms),
            took: Duration::from_millis(took_ms),
            result: Ok(status),
            retried: false,
        }
    }

    fn span(from_ms: u64, to_ms: u64) -> Range<Duration> {
        Duration::from_millis(from_ms)..Duration::from_millis(to_ms)
    }

    #[test]
    fn goodput_counts_what_was_served_when_it_was_served() {
        let outcomes = Outcomes::new(vec![
            outcome(0, 0, 600, 200),
            outcome(1, 400, 200, 200),
            outcome(2, 500, 100, 503),
            outcome(3, 900, 200, 200),
        ]);
        assert_eq!(outcomes.goodput(&span(500, 1000)), 4.0);
        assert_eq!(outcomes.goodput(&span(0, 500)), 0.0);
    }

    #[test]
    fn the_slowest_is_found_though_it_began_before_and_ended_after() {
        let outcomes = Outcomes::new(vec![outcome(0, 0, 5000, 200), outcome(1, 1000, 10, 200)]);
        let slowest = outcomes.slowest(&span(1000, 2000)).unwrap();
        assert_eq!(slowest.id, Id::new(0, false));
    }

    #[test]
    fn a_quantile_of_nothing_is_nothing_and_that_of_one_is_it() {
        assert_eq!(quantile(&[], 0.99), Duration::ZERO);
        let one = [Duration::from_millis(3)];
        assert_eq!(quantile(&one, 0.0), one[0]);
        assert_eq!(quantile(&one, 1.0), one[0]);
    }
}
