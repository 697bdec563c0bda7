//! What must hold between any two steps, looked up from the inside; and what a simulation asks.

use super::stream::{Standing, Stream};
use super::{BrokerId, Session};

impl Session {
    /// What this broker was granted, has used and has returned in its session, if it has one.
    pub fn credit(&self, broker: BrokerId) -> Option<[u64; 3]> {
        self.ledger.credit(broker)
    }

    /// Checks every sum and every link between two tables. For simulations and fuzzers: it costs a walk over everything.
    ///
    /// # Panics
    /// When something does not hold, which is a mistake in this crate.
    pub fn audit(&self) {
        let credited = self.streams.iter().filter(|(_, it)| it.credited).count();
        assert_eq!(credited as u64, self.ledger.occupied(), "requests at work");
        for (index, broker) in self.brokers.iter().enumerate() {
            for (correlation, place) in &broker.streams {
                let stream = &self.streams[*place];
                assert_eq!(stream.broker, BrokerId(index), "with another: {stream:?}");
                assert_eq!(stream.correlation, *correlation, "{stream:?}");
            }
            for place in &broker.line {
                assert!(self.streams[*place].in_line, "in line unknowingly");
            }
            let has_session = self.ledger.credit(BrokerId(index)).is_some();
            assert_eq!(broker.is_open(), has_session, "a ledger without a session");
            if let Some([granted, used, returned]) = self.ledger.credit(BrokerId(index)) {
                assert!(used + returned <= granted, "more than was granted");
            }
        }
        let is_in_line = |it: &Stream| it.in_line && it.standing != Standing::Orphan;
        let in_line = self.streams.iter().filter(|(_, it)| is_in_line(it)).count();
        let lines = self.brokers.iter().map(|broker| broker.line.len());
        assert_eq!(
            lines.sum::<usize>(),
            in_line,
            "lines and who stands in them"
        );
    }
}
