//! Messages for one peer that its connection had no room for.

use std::collections::VecDeque;

use scale0_wire::{Message, limits};

/// Bytes that may wait for one connection: as many as the largest window lets be under way. More come only to a peer that does
/// not read, or that makes us answer it without end.
const BYTES: usize = limits::CONNECTION_WINDOW_MAX as usize;

/// What waits for one peer, in order.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: VecDeque<Message>,
    bytes: usize,
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Appends a message. Returns false if that is more than may wait.
    #[must_use]
    pub(super) fn push(&mut self, message: Message) -> bool {
        self.bytes += message.size();
        self.waiting.push_back(message);
        self.bytes <= BYTES
    }

    /// Offers what waits to `send`, which gives a message back for want of room.
    pub(super) fn flush(&mut self, mut send: impl FnMut(Message) -> Option<Message>) {
        while let Some(message) = self.waiting.pop_front() {
            let size = message.size();
            if let Some(message) = send(message) {
                self.waiting.push_front(message);
                return;
            }
            self.bytes -= size;
        }
    }
}

#[cfg(test)]
mod tests {
    use scale0_wire::{Kind, RoutingHeader};

    use super::*;

    fn message(correlation: u64) -> Message {
        Message::new(RoutingHeader {
            correlation,
            ..RoutingHeader::new(Kind::Chunk)
        })
    }

    #[test]
    fn what_waits_goes_out_in_order_as_there_is_room() {
        let mut outbox = Outbox::default();
        for correlation in 1..=3 {
            assert!(outbox.push(message(correlation)));
        }
        let (mut sent, mut room) = (Vec::new(), 2);
        outbox.flush(|message| {
            if room == 0 {
                return Some(message);
            }
            room -= 1;
            sent.push(message.header.correlation);
            None
        });
        assert!(!outbox.is_empty());
        outbox.flush(|message| {
            assert_eq!(message.header.correlation, 3);
            None
        });
        assert!(outbox.is_empty());
        assert_eq!(sent, [1, 2]);
        assert_eq!(outbox.bytes, 0);
    }

    #[test]
    fn more_than_a_window_waits_for_nobody() {
        let mut outbox = Outbox::default();
        let chunk = message(1).with_content(vec![0; limits::CONTENT].into());
        let full = (0..1000).take_while(|_| outbox.push(chunk.clone())).count();
        assert!((200..=256).contains(&full), "{full}");
    }
}
