//! What must hold between any two steps, looked up from the inside.

use super::Lane;
use super::stream::Upload;

impl Lane {
    /// Checks every sum, every link between two tables and every bound that can be checked from the inside. For simulations and
    /// fuzzers: it costs a walk over everything.
    ///
    /// # Panics
    /// When something does not hold, which is a mistake in this crate.
    pub fn audit(&self) {
        assert!(self.streams.len() <= self.config.max_streams, "streams");
        for broker in &self.brokers {
            let its = self.streams.iter().map(|(_, stream)| stream);
            let its = its.filter(|stream| stream.link == Some(broker.link));
            assert_eq!(its.count(), broker.outstanding, "{:?}", broker.node);
            assert!(
                broker.outstanding == 0 || broker.is_connected(),
                "streams with {:?}, which has no session",
                broker.node
            );
            for id in &broker.line {
                let stream = &self.streams[id.seat()];
                assert!(stream.id == *id && stream.in_line, "{stream:?}");
                assert_eq!(stream.link, Some(broker.link), "in another's line");
            }
        }
        let mut in_line = 0;
        for (seat, stream) in &self.streams {
            assert_eq!(stream.id.seat(), seat, "{stream:?}");
            assert!(stream.tried.len() <= self.brokers.len(), "{stream:?}");
            assert!(
                !stream.in_line || matches!(stream.upload, Upload::Waiting(_)),
                "nothing to send: {stream:?}"
            );
            in_line += usize::from(stream.in_line);
        }
        let lines = self.brokers.iter().map(|broker| broker.line.len());
        assert_eq!(
            lines.sum::<usize>(),
            in_line,
            "lines and who stands in them"
        );
    }
}
