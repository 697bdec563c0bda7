//! Messages for one peer that its connection had no room for.

use std::collections::VecDeque;

use scale0_wire::{Message, limits};

use crate::core::Backlog;

/// Bytes that may wait for one connection: as many as the largest window lets be under way. More come only to a peer that does
/// not read, or that makes us answer it without end.
const PER_PEER: usize = limits::CONNECTION_WINDOW_MAX as usize;

/// Bytes that may wait for all connections of one kind, sockets or inboxes of this process, together: enough for some peers that rest for a
/// moment, however much each was asked for. No one's outbox may be longer than what is left free, so that those that do not read give way
/// before those that do.
const TOGETHER: usize = 4 * PER_PEER;

/// How much may wait for peers of one kind, and does.
pub(super) const fn room() -> Backlog {
    Backlog::new(PER_PEER, TOGETHER)
}

/// What waits for one peer, in order.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: VecDeque<Box<Message>>,
    bytes: usize,
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Appends a message. Returns false, and takes nothing in, if that is more than may wait.
    #[must_use]
    pub(super) fn push(&mut self, message: Box<Message>, room: &mut Backlog) -> bool {
        let size = message.size();
        let is_let_in = room.admits(self.bytes, size);
        if is_let_in {
            room.add(size);
            self.bytes += size;
            self.waiting.push_back(message);
        }
        is_let_in
    }

    /// Drops all that waits.
    pub(super) fn clear(self, room: &mut Backlog) {
        room.remove(self.bytes);
    }

    /// Offers what waits to `send`, which gives a message back for want of room.
    pub(super) fn flush(
        &mut self,
        room: &mut Backlog,
        mut send: impl FnMut(Box<Message>) -> Option<Box<Message>>,
    ) {
        while let Some(message) = self.waiting.pop_front() {
            let size = message.size();
            if let Some(message) = send(message) {
                self.waiting.push_front(message);
                return;
            }
            self.bytes -= size;
            room.remove(size);
        }
    }
}

#[cfg(test)]
mod tests {
    use scale0_wire::{Kind, RoutingHeader};

    use super::*;

    fn message(correlation: u64) -> Box<Message> {
        Box::new(Message::new(RoutingHeader {
            correlation,
            ..RoutingHeader::new(Kind::Chunk)
        }))
    }

    #[test]
    fn what_waits_goes_out_in_order_as_there_is_room() {
        let (mut outbox, mut room) = (Outbox::default(), room());
        for correlation in 1..=3 {
            assert!(outbox.push(message(correlation), &mut room));
        }
        let (mut sent, mut left) = (Vec::new(), 2);
        outbox.flush(&mut room, |message| {
            if left == 0 {
                return Some(message);
            }
            left -= 1;
            sent.push(message.header.correlation);
            None
        });
        assert!(!outbox.is_empty());
        outbox.flush(&mut room, |message| {
            assert_eq!(message.header.correlation, 3);
            None
        });
        assert!(outbox.is_empty());
        assert_eq!(sent, [1, 2]);
        assert_eq!((outbox.bytes, room.bytes()), (0, 0));
    }

    /// How many chunks may wait for one more peer.
    fn let_in(outboxes: &mut Vec<Outbox>, room: &mut Backlog) -> usize {
        let mut chunk = message(1);
        chunk.content = vec![0; limits::CONTENT].into();
        let mut outbox = Outbox::default();
        let mut count = 0;
        while outbox.push(chunk.clone(), room) {
            count += 1;
        }
        outboxes.push(outbox);
        count
    }

    #[test]
    fn more_than_a_window_waits_for_nobody() {
        let full = let_in(&mut Vec::new(), &mut room());
        assert!((200..=256).contains(&full), "{full}");
    }

    #[test]
    fn all_outboxes_together_are_bounded_and_the_next_peer_still_finds_room() {
        let (mut outboxes, mut room) = (Vec::new(), room());
        let counts: Vec<_> = (0..8).map(|_| let_in(&mut outboxes, &mut room)).collect();
        assert!(room.bytes() <= TOGETHER);
        assert!(
            counts.windows(2).all(|pair| pair[1] <= pair[0]),
            "{counts:?}"
        );
        assert!(0 < counts[6] && counts[6] < counts[0] / 8, "{counts:?}");
        for outbox in outboxes {
            outbox.clear(&mut room);
        }
        assert_eq!(room.bytes(), 0);
    }
}
