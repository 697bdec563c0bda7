//! Flow control on two levels, as in HTTP/2 (RFC 9113 §5.2) with the cumulative limits of QUIC (RFC 9000 §4).
//!
//! A stream's window is kept by its two ends; a broker between them passes it on. A connection's window is kept by the two
//! ends of that connection. Only content of RESPONSE, CHUNK and UPGRADE counts; control messages never wait.

use std::time::{Duration, Instant};

use crate::limits;

/// What may still be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendWindow {
    limit: u64,
    sent: u64,
}

impl SendWindow {
    /// A window of this many bytes from the start.
    #[must_use]
    pub const fn new(initial: u32) -> Self {
        Self {
            limit: initial as u64,
            sent: 0,
        }
    }

    /// Bytes that may be sent now.
    #[must_use]
    pub const fn room(&self) -> u64 {
        self.limit.saturating_sub(self.sent)
    }

    /// Bytes sent so far.
    #[must_use]
    pub const fn sent(&self) -> u64 {
        self.sent
    }

    /// Counts bytes as sent. Returns false, and counts them all the same, if there was no room for them.
    pub const fn take(&mut self, bytes: usize) -> bool {
        self.sent += bytes as u64;
        self.sent <= self.limit
    }

    /// Takes in a WINDOW. Returns whether it made room.
    pub const fn raise(&mut self, limit: u64) -> bool {
        let raised = self.limit < limit;
        if raised {
            self.limit = limit;
        }
        raised
    }
}

/// What the other side may still send, and when to tell it more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveWindow {
    size: u32,
    largest: u32,
    received: u64,
    consumed: u64,
    announced: u64,
    announced_at: Option<Instant>,
}

impl ReceiveWindow {
    /// A stream's window: it keeps its size.
    #[must_use]
    pub const fn stream(size: u32) -> Self {
        Self {
            size,
            largest: size,
            received: 0,
            consumed: 0,
            announced: size as u64,
            announced_at: None,
        }
    }

    /// A connection's window: it starts at [`limits::CONNECTION_WINDOW`] and doubles, up to [`limits::CONNECTION_WINDOW_MAX`],
    /// while it is used up faster than twice the round trip.
    #[must_use]
    pub const fn connection() -> Self {
        let size = limits::CONNECTION_WINDOW;
        Self {
            largest: limits::CONNECTION_WINDOW_MAX,
            ..Self::stream(size)
        }
    }

    /// The window's size now.
    #[must_use]
    pub const fn size(&self) -> u32 {
        self.size
    }

    /// Bytes received and not consumed yet.
    #[must_use]
    pub const fn held(&self) -> u64 {
        self.received.saturating_sub(self.consumed)
    }

    /// Counts bytes as received. Returns false if the other side had no right to send them: it breaks the protocol.
    #[must_use]
    pub const fn receive(&mut self, bytes: usize) -> bool {
        self.received += bytes as u64;
        self.received <= self.announced
    }

    /// Counts bytes as consumed. The limit returned, if any, is to be sent as WINDOW: one comes for each half of the window,
    /// so that the other side neither waits nor hears of every byte.
    #[must_use]
    pub fn consume(&mut self, bytes: usize, now: Instant, round_trip: Duration) -> Option<u64> {
        self.consumed += bytes as u64;
        let left = self.announced.saturating_sub(self.consumed);
        if u64::from(self.size / 2) < left {
            return None;
        }
        // Half a window in less than one round trip: the sender waits for us rather than for its own side.
        if self.size < self.largest
            && self
                .announced_at
                .is_some_and(|at| now.saturating_duration_since(at) < round_trip)
        {
            self.size = self.size.saturating_mul(2).min(self.largest);
        }
        self.announced = self.consumed + u64::from(self.size);
        self.announced_at = Some(now);
        Some(self.announced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "an epoch for tests")]
    fn epoch() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_sender_without_room_is_told_so_and_a_late_smaller_window_takes_nothing_back() {
        let mut window = SendWindow::new(10);
        assert!(window.take(10));
        assert_eq!(window.room(), 0);
        assert!(window.raise(30));
        assert!(!window.raise(20));
        assert_eq!(window.room(), 20);
        assert!(!window.take(21));
    }

    #[test]
    fn a_receiver_announces_once_for_each_half_and_its_sender_never_starves() {
        let (mut receive, mut send) = (ReceiveWindow::stream(100), SendWindow::new(100));
        let mut announcements = 0;
        for _ in 0..1000 {
            assert!(send.take(10) && receive.receive(10));
            if let Some(limit) = receive.consume(10, epoch(), Duration::ZERO) {
                announcements += 1;
                assert!(send.raise(limit));
            }
        }
        assert_eq!(announcements, 10_000 / 50);
    }

    #[test]
    fn more_than_was_announced_is_noticed() {
        let mut window = ReceiveWindow::stream(100);
        assert!(window.receive(100));
        assert!(!window.receive(1));
    }

    #[test]
    fn a_connection_grows_only_while_it_is_used_up_within_a_round_trip_and_only_to_its_largest() {
        let start = epoch();
        let mut window = ReceiveWindow::connection();
        let half = limits::CONNECTION_WINDOW as usize / 2;
        assert!(window.receive(half));
        assert!(
            window
                .consume(half, start, Duration::from_millis(10))
                .is_some()
        );
        assert_eq!(window.size(), limits::CONNECTION_WINDOW);
        for _ in 0..100 {
            assert!(window.receive(half));
            let _ = window.consume(half, start, Duration::from_millis(10));
        }
        assert_eq!(window.size(), limits::CONNECTION_WINDOW_MAX);

        let mut slow = ReceiveWindow::connection();
        for step in 0..100 {
            assert!(slow.receive(half));
            let _ = slow.consume(
                half,
                start + Duration::from_millis(20) * step,
                Duration::from_millis(10),
            );
        }
        assert_eq!(slow.size(), limits::CONNECTION_WINDOW);
    }
}
