//! How long backends take, and what that is worth where one of them is chosen.

use std::time::Duration;

/// A moving average of times, which is the plain average until there are as many as it looks back on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Mean {
    /// Seconds. Its 24 bits are more than is known of it.
    seconds: f32,
    samples: u8,
    looks_back: u8,
}

/// A backend's average at a service looks back on so many requests: few enough to notice a change within a second of work.
const OF_BACKEND: u8 = 16;

/// That of a service looks back on more: it is what others are compared with.
const OF_SERVICE: u8 = 64;

/// An average of fewer times says nothing yet.
const ENOUGH: u8 = 8;

/// What a request more weighs at a backend that is as quick as others are, or is not known yet. Weights are quarters of that of the
/// average: nobody is so well known that a finer difference would be one.
pub(crate) const EVEN: u32 = 4;

/// Weights that make no difference: averages over a few requests of many kinds differ by as much from chance alone.
const ALIKE: std::ops::RangeInclusive<f32> = 2.7..=6.5;

/// However slow a backend is, it weighs no more than sixteen even ones.
const HEAVIEST: f32 = 16.0 * EVEN as f32;

/// In seconds: what is added to all times that are compared, for the way there and back. Differences far below it are none.
const ON_THE_WAY: f32 = 100e-6;

impl Mean {
    pub(crate) const fn of_backend() -> Self {
        Self::new(OF_BACKEND)
    }

    pub(crate) const fn of_service() -> Self {
        Self::new(OF_SERVICE)
    }

    const fn new(looks_back: u8) -> Self {
        Self {
            seconds: 0.0,
            samples: 0,
            looks_back,
        }
    }

    /// One more request has taken so long.
    pub(crate) fn take_in(&mut self, time: Duration) {
        self.samples = self.samples.saturating_add(1).min(self.looks_back);
        self.seconds += (time.as_secs_f32() - self.seconds) / f32::from(self.samples);
    }

    /// The average, if it says something.
    pub(crate) fn known(&self) -> Option<Duration> {
        (ENOUGH <= self.samples).then(|| Duration::from_secs_f32(self.seconds.max(0.0)))
    }

    /// What a request more weighs at a backend of this average, where that of its service is `typical`.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 1 and the heaviest"
    )]
    pub(crate) fn weight(&self, typical: &Self) -> u32 {
        if self.samples < ENOUGH || typical.samples < ENOUGH {
            return EVEN;
        }
        let times = (self.seconds + ON_THE_WAY) / (typical.seconds + ON_THE_WAY);
        let quarters = times * EVEN as f32;
        if ALIKE.contains(&quarters) {
            return EVEN;
        }
        quarters.round().clamp(1.0, HEAVIEST) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(ms: u64, samples: usize) -> Mean {
        let mut mean = Mean::of_backend();
        for _ in 0..samples {
            mean.take_in(Duration::from_millis(ms));
        }
        mean
    }

    #[test]
    fn an_average_is_plain_at_first_and_moves_with_the_newest_later() {
        let mut mean = mean(10, 1);
        mean.take_in(Duration::from_millis(30));
        assert_eq!(mean.seconds, 0.02);
        assert_eq!(mean.known(), None, "of two requests");
        for _ in 0..100 {
            mean.take_in(Duration::from_millis(5));
        }
        let known = mean.known().unwrap();
        assert!((4_900..5_200).contains(&known.as_micros()), "{known:?}");
    }

    #[test]
    fn a_backend_weighs_what_it_takes_beside_others_and_an_unknown_one_as_they_do() {
        let typical = mean(10, 100);
        for (ms, weight) in [
            (10, EVEN),
            (8, EVEN),
            (16, EVEN),
            (20, 2 * EVEN),
            (40, 4 * EVEN),
            (5, EVEN / 2),
            (1, 1),
            (0, 1),
            (u64::MAX / 2, 16 * EVEN),
        ] {
            assert_eq!(mean(ms, 20).weight(&typical), weight, "{ms} ms");
        }
        assert_eq!(mean(1000, 7).weight(&typical), EVEN);
        assert_eq!(mean(1000, 20).weight(&mean(10, 7)), EVEN);
    }
}
