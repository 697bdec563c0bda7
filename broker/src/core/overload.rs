//! How fast a queue moves, and whether more is asked for than can be done.

use std::time::{Duration, Instant};

/// How fast a service's queue moves: the mean time from one departure to the next while somebody waits. Learnt anew each time that somebody
/// does: how fast it was when backends had their pauses says nothing about later.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    /// Seconds.
    gap: f32,
    samples: u8,
    /// The latest departure that left somebody waiting.
    latest: Option<Instant>,
}

/// The mean looks back on so many departures.
const LOOKS_BACK: u8 = 64;

/// From fewer nothing is concluded.
const ENOUGH: u8 = 8;

impl Pace {
    /// One that waited has been sent on, and others wait or not.
    pub(crate) fn departed(&mut self, now: Instant, others_wait: bool) {
        if let Some(latest) = self.latest {
            let gap = now.saturating_duration_since(latest).as_secs_f32();
            self.samples = self.samples.saturating_add(1).min(LOOKS_BACK);
            self.gap += (gap - self.gap) / f32::from(self.samples);
        }
        self.latest = others_wait.then_some(now);
    }

    /// Nobody waits any more, whatever became of the last.
    pub(crate) fn emptied(&mut self) {
        *self = Self::default();
    }

    /// How long so many departures take at least, as far as chance allows to say; none: that is not known.
    pub(crate) fn least_time_for(&self, departures: usize, now: Instant) -> Option<Duration> {
        let time = self.time_for(departures, now)?;
        // Times from one departure to the next scatter about as much as they are long, at worst.
        Some(time.mul_f32(1.0 - f32::from(self.samples).sqrt().recip()))
    }

    /// How long so many departures take on average; none: that is not known.
    pub(crate) fn time_for(&self, departures: usize, now: Instant) -> Option<Duration> {
        if self.samples < ENOUGH {
            return None;
        }
        // A departure that is late counts as if it were now.
        let due = self.latest.map_or(0.0, |latest| {
            now.saturating_duration_since(latest).as_secs_f32()
        });
        let gap = self.gap + (due - self.gap).max(0.0) / f32::from(LOOKS_BACK);
        Some(Duration::from_secs_f32(
            (gap * departures as f32).clamp(0.0, LONGEST),
        ))
    }
}

/// In seconds: more than any deadline.
const LONGEST: f32 = 86_400.0;

/// Whether a queue is overloaded: not full for a moment, but for as long as it takes to say that it does not pass by itself.
///
/// While it is not, whoever came first is served first, and whoever would be served too late is refused when it comes. A standing queue
/// would make that everybody's lot: all are served at the end of their patience, and whatever the queue holds goes before those who
/// come when the overload is over. So while it stands the newest is served first, with next to no delay, and whoever has been passed over
/// for longer than [`patience`](Overload::patience) is refused, while there is time left to ask elsewhere.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Overload {
    /// Since when requests have been turned away, and the latest of them.
    turned_away: Option<(Instant, Instant)>,
    stands: bool,
}

/// Requests turned away for so long are a standing overload, …
const STANDS: Duration = Duration::from_millis(100);

/// … if there is never as much between two of them.
const APART: Duration = Duration::from_secs(1);

/// How long a request may wait in an overload, in times that one takes, …
const PATIENCE: u32 = 10;

/// … but no less than this, so that a pause of a backend's does not refuse all, …
const LEAST_PATIENCE: Duration = Duration::from_millis(100);

/// … and no more: what is left of a queue when an overload is over is gone so soon.
const MOST_PATIENCE: Duration = Duration::from_secs(1);

impl Overload {
    /// One that came cannot be let in, or would be served too late. Returns whether the overload stands, so that it should be let in, and
    /// others give way.
    pub(crate) fn turn_away(&mut self, now: Instant) -> bool {
        let since = match self.turned_away {
            Some((since, latest)) if now.saturating_duration_since(latest) < APART => since,
            _ => now,
        };
        self.turned_away = Some((since, now));
        self.stands |= STANDS <= now.saturating_duration_since(since);
        self.stands
    }

    /// Nobody waits: it is over.
    pub(crate) const fn emptied(&mut self) {
        self.turned_away = None;
        self.stands = false;
    }

    pub(crate) const fn stands(&self) -> bool {
        self.stands
    }

    /// How long a request may wait in an overload, of a service whose requests take so long.
    pub(crate) fn patience(service_time: Duration) -> Duration {
        (service_time * PATIENCE).clamp(LEAST_PATIENCE, MOST_PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::epoch;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_queue_that_moves_every_ten_milliseconds_takes_a_second_for_a_hundred() {
        let start = epoch();
        let mut pace = Pace::default();
        assert_eq!(pace.time_for(100, start), None);
        for departure in 0..40 {
            pace.departed(start + MS * 10 * departure, true);
        }
        let now = start + MS * 390;
        let known = |pace: &Pace, now| pace.time_for(100, now).unwrap().as_millis();
        assert!((990..=1010).contains(&known(&pace, now)));
        // Nothing has left for a while: each that comes waits longer.
        assert!((1140..=1160).contains(&known(&pace, now + MS * 106)));
        // Of 39, a sixth may be chance.
        let least = |pace: &Pace, now| pace.least_time_for(100, now).unwrap().as_millis();
        assert!((830..=850).contains(&least(&pace, now)));
        pace.emptied();
        assert_eq!(pace.time_for(100, now), None, "it begins anew");
    }

    #[test]
    fn an_overload_stands_after_a_tenth_of_a_second_and_is_over_with_the_queue() {
        let start = epoch();
        let mut overload = Overload::default();
        assert!(!overload.turn_away(start));
        assert!(!overload.turn_away(start + MS * 99));
        assert!(overload.turn_away(start + MS * 100));
        assert!(overload.turn_away(start + MS * 9_000), "until it is over");
        overload.emptied();
        assert!(!overload.stands());
        // A full queue now and then is none.
        for second in 10..20 {
            assert!(!overload.turn_away(start + MS * 1_000 * second));
        }
    }

    #[test]
    fn patience_is_ten_service_times_between_a_tenth_and_a_second() {
        for (takes, patience) in [(1, 100), (30, 300), (500, 1_000)] {
            assert_eq!(Overload::patience(MS * takes), MS * patience);
        }
    }
}
