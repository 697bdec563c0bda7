//! How often the backend ran.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Ids that are remembered: hours of somebody trying the page, and at most a few hundred KiB of whatever else comes.
const MOST_IDS: usize = 1000;

/// Counts runs by id, for the newest [`MOST_IDS`] ids.
#[derive(Debug, Default)]
pub(super) struct Runs {
    /// The newest id first, which is the one that is asked for.
    newest: Mutex<VecDeque<(String, u64)>>,
}

impl Runs {
    /// Notes that the backend begins to run for this id. Returns which run this is, from 1.
    pub(super) fn begin(&self, id: &str) -> u64 {
        let mut newest = self.lock();
        if let Some((_, runs)) = newest.iter_mut().find(|(known, _)| known == id) {
            *runs += 1;
            return *runs;
        }
        newest.push_front((id.to_owned(), 1));
        newest.truncate(MOST_IDS);
        1
    }

    /// How often it ran for this id.
    pub(super) fn of(&self, id: &str) -> u64 {
        let newest = self.lock();
        let known = newest.iter().find(|(known, _)| known == id);
        known.map_or(0, |(_, runs)| *runs)
    }

    /// Whoever panicked while counting left a count that is right.
    fn lock(&self) -> MutexGuard<'_, VecDeque<(String, u64)>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_id_counts_for_itself() {
        let runs = Runs::default();
        assert_eq!(
            (runs.begin("a"), runs.begin("b"), runs.begin("a")),
            (1, 1, 2)
        );
        assert_eq!((runs.of("a"), runs.of("b"), runs.of("c")), (2, 1, 0));
    }

    #[test]
    fn the_oldest_ids_are_forgotten_when_there_are_too_many() {
        let runs = Runs::default();
        for id in 0..=MOST_IDS {
            runs.begin(&id.to_string());
        }
        assert_eq!((runs.of("0"), runs.of("1")), (0, 1));
        assert_eq!(runs.lock().len(), MOST_IDS);
    }
}
