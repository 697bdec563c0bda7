//! What a backend tells its brokers about how busy it is.

use std::time::Duration;

/// One request moves the average by this part of its difference: the last twenty or so decide.
const WEIGHT: u64 = 16;

/// Moving average of how long requests take.
#[derive(Debug, Default)]
pub(crate) struct Load {
    service_time_us: u64,
}

impl Load {
    /// A request took this long.
    pub(crate) fn record(&mut self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.service_time_us = match self.service_time_us {
            0 => took,
            average => average - average / WEIGHT + took / WEIGHT,
        };
    }

    /// The average in microseconds, as HEARTBEAT says it.
    pub(crate) fn service_time_us(&self) -> u32 {
        u32::try_from(self.service_time_us).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_starts_at_the_first_request_and_follows_the_later_ones() {
        let mut load = Load::default();
        load.record(Duration::from_millis(100));
        assert_eq!(load.service_time_us(), 100_000);
        for _ in 0..200 {
            load.record(Duration::from_millis(10));
        }
        assert!(
            (9_000..12_000).contains(&load.service_time_us()),
            "{load:?}"
        );
    }
}
