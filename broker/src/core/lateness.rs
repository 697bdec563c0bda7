//! How long a request has to be under way to be late: longer than nearly all of its service take.

use std::time::Duration;

/// A histogram of how long a service's requests take, with four buckets for each doubling, so that it is wrong by no more than a quarter.
/// It forgets slowly, and its memory is the same however many it has seen.
#[derive(Clone, Debug)]
pub(crate) struct Lateness {
    counts: [u16; BUCKETS],
    total: u16,
    /// Times taken in since `late` was looked up.
    news: u16,
    late: Option<Duration>,
}

/// From 64 µs to 18 minutes.
const BUCKETS: usize = 4 * 24;
const SHORTEST: u32 = 6;

/// One request in so many is late.
const ONE_IN: u16 = 20;

/// Of fewer nothing is known: two of them would be late.
const ENOUGH: u16 = 2 * ONE_IN;

/// With so many, each counts for half from then on.
const MOST: u16 = 1024;

/// It is looked up anew after so many.
const NEWS: u16 = 16;

/// What is shorter is not worth a second request: that would come to its backend no sooner.
const LEAST: Duration = Duration::from_millis(2);

impl Lateness {
    pub(crate) const fn new() -> Self {
        Self {
            counts: [0; BUCKETS],
            total: 0,
            news: 0,
            late: None,
        }
    }

    /// A request has taken so long.
    pub(crate) fn take_in(&mut self, time: Duration) {
        self.counts[bucket(time)] += 1;
        self.total += 1;
        if MOST <= self.total {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().sum();
        }
        self.news += 1;
        if NEWS <= self.news {
            self.news = 0;
            self.late = (ENOUGH <= self.total).then(|| self.look_up());
        }
    }

    /// After so long nineteen of twenty requests have been answered; none: that is not known.
    pub(crate) const fn late(&self) -> Option<Duration> {
        self.late
    }

    fn look_up(&self) -> Duration {
        let late = self.total / ONE_IN;
        let mut longer = 0;
        let mut buckets = self.counts.iter().enumerate().rev();
        let found = buckets.find(|&(_, &count)| {
            longer += count;
            late < longer
        });
        found.map_or(LEAST, |(bucket, _)| end(bucket).max(LEAST))
    }
}

fn bucket(time: Duration) -> usize {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let micros = micros.max(1 << SHORTEST);
    let doublings = micros.ilog2();
    let quarter = (micros >> (doublings - 2)) & 3;
    let bucket = 4 * u64::from(doublings - SHORTEST) + quarter;
    usize::try_from(bucket).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// Where a bucket's times end.
fn end(bucket: usize) -> Duration {
    let (doublings, quarter) = (bucket / 4, bucket as u64 % 4);
    Duration::from_micros((5 + quarter) << (doublings + SHORTEST as usize - 2))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn late_is_what_one_in_twenty_takes_longer_than_and_nothing_of_the_first_forty() {
        let mut lateness = Lateness::new();
        for number in 0..400_u32 {
            assert!(40 <= number || lateness.late().is_none());
            lateness.take_in(if number % 25 == 0 { MS * 900 } else { MS * 10 });
        }
        let late = lateness.late().unwrap();
        assert!((MS * 10..=MS * 13).contains(&late), "{late:?}");
        for number in 0..400_u32 {
            lateness.take_in(if number % 10 == 0 { MS * 900 } else { MS * 10 });
        }
        let late = lateness.late().unwrap();
        assert!((MS * 900..=MS * 1150).contains(&late), "{late:?}");
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let mut lateness = Lateness::new();
        (0..10_000).for_each(|_| lateness.take_in(MS * 500));
        (0..10_000).for_each(|_| lateness.take_in(MS * 5));
        assert!(lateness.late().unwrap() < MS * 7);
    }

    #[test]
    fn next_to_nothing_is_not_late() {
        let mut lateness = Lateness::new();
        (0..100).for_each(|_| lateness.take_in(Duration::from_micros(90)));
        assert_eq!(lateness.late(), Some(LEAST));
    }

    proptest! {
        #[test]
        fn a_time_is_in_a_bucket_that_ends_within_a_quarter_behind_it(micros in 0_u64..1 << 30) {
            let time = Duration::from_micros(micros);
            let end = end(bucket(time));
            prop_assert!(time < end);
            prop_assert!(end <= (time * 5 / 4 + Duration::from_micros(1)).max(Duration::from_micros(80)));
        }

        #[test]
        fn no_time_is_without_a_bucket(nanos in any::<u64>()) {
            let mut lateness = Lateness::new();
            (0..3000_u32).for_each(|_| lateness.take_in(Duration::from_nanos(nanos)));
            prop_assert!(lateness.late().is_some());
        }
    }
}
