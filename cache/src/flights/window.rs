//! The part of a body that a flight holds, and who is reading where.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::store::detach;

/// A run of blocks from `start` to `end` of a body. Each block knows how many readers are in it, so
/// that what nobody needs any more is found without asking them.
#[derive(Debug)]
pub(super) struct Window {
    blocks: VecDeque<Block>,
    /// The number of the first block, counting from the flight's begin.
    first: u64,
    begin: u64,
    start: u64,
    end: u64,
    weight: usize,
    readers_at_end: u32,
}

#[derive(Debug)]
struct Block {
    bytes: Bytes,
    offset: u64,
    weight: usize,
    readers: u32,
}

/// Where a reader is: an offset, and the number of the block it lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) offset: u64,
    block: u64,
}

impl Window {
    /// An empty window at `begin`.
    pub(super) fn new(begin: u64) -> Self {
        Self {
            blocks: VecDeque::new(),
            first: 0,
            begin,
            start: begin,
            end: begin,
            weight: 0,
            readers_at_end: 0,
        }
    }

    /// A whole body that somebody else keeps, and counts.
    pub(super) fn of(stored: &[Bytes]) -> Self {
        let mut window = Self::new(0);
        for bytes in stored {
            let offset = window.end;
            window.end += bytes.len() as u64;
            window.blocks.push_back(Block {
                bytes: bytes.clone(),
                offset,
                weight: 0,
                readers: 0,
            });
        }
        window
    }

    /// Appends a piece; one shorter than `copy_below` is copied out of its receive buffer.
    pub(super) fn push(&mut self, chunk: Bytes, copy_below: usize) {
        let (bytes, weight) = detach(chunk, copy_below);
        let offset = self.end;
        self.end += bytes.len() as u64;
        self.weight += weight;
        let readers = std::mem::take(&mut self.readers_at_end);
        self.blocks.push_back(Block {
            bytes,
            offset,
            weight,
            readers,
        });
    }

    /// Seats a reader at `offset`; `None` when that byte is gone, or further than the end.
    pub(super) fn enter(&mut self, offset: u64) -> Option<Cursor> {
        if offset < self.start || self.end < offset {
            return None;
        }
        let index = self
            .blocks
            .partition_point(|block| block.offset + block.bytes.len() as u64 <= offset);
        *self.readers_mut(index) += 1;
        Some(Cursor {
            offset,
            block: self.first + index as u64,
        })
    }

    /// A reader leaves; the window must still hold where it is.
    pub(super) fn leave(&mut self, cursor: Cursor) {
        if let Some(index) = self.index(cursor) {
            *self.readers_mut(index) -= 1;
        }
    }

    /// The rest of the reader's block, and the reader behind it. `None` at the end.
    pub(super) fn read(&mut self, cursor: &mut Cursor) -> Option<Bytes> {
        let index = self.index(*cursor)?;
        let block = self.blocks.get_mut(index)?;
        let within =
            usize::try_from(cursor.offset - block.offset).expect("a cursor lies within its block");
        let bytes = block.bytes.slice(within..);
        block.readers -= 1;
        cursor.offset += bytes.len() as u64;
        cursor.block += 1;
        *self.readers_mut(index + 1) += 1;
        Some(bytes)
    }

    /// Whether the reader's place is still held.
    pub(super) fn holds(&self, cursor: Cursor) -> bool {
        self.first <= cursor.block
    }

    /// Whether blocks at the front have no reader any more.
    pub(super) fn has_unread_front(&self) -> bool {
        self.blocks.front().is_some_and(|block| block.readers == 0)
    }

    /// Where the block at the front ends; the end of an empty window.
    pub(super) fn first_end(&self) -> u64 {
        (self.blocks.front()).map_or(self.end, |block| block.offset + block.bytes.len() as u64)
    }

    /// Where what it holds begins.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// Lets go of the first block, whoever still reads it.
    pub(super) fn pop(&mut self) {
        if let Some(block) = self.blocks.pop_front() {
            self.first += 1;
            self.start += block.bytes.len() as u64;
            self.weight -= block.weight;
        }
    }

    /// Lets go of everything.
    pub(super) fn clear(&mut self) {
        while !self.blocks.is_empty() {
            self.pop();
        }
    }

    /// The bytes it keeps from being freed.
    pub(super) fn weight(&self) -> usize {
        self.weight
    }

    /// The weight of what lies at and behind an offset.
    pub(super) fn weight_from(&self, offset: u64) -> usize {
        self.blocks
            .iter()
            .rev()
            .take_while(|block| offset <= block.offset)
            .map(|block| block.weight)
            .sum()
    }

    /// The offset behind the last byte received.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Whether nothing is held.
    pub(super) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Whether everything since the flight's begin is held.
    pub(super) fn is_whole(&self) -> bool {
        self.start == self.begin
    }

    /// The pieces it holds, in order.
    pub(super) fn pieces(&self) -> Vec<Bytes> {
        self.blocks
            .iter()
            .map(|block| block.bytes.clone())
            .collect()
    }

    fn index(&self, cursor: Cursor) -> Option<usize> {
        usize::try_from(cursor.block.checked_sub(self.first)?).ok()
    }

    fn readers_mut(&mut self, index: usize) -> &mut u32 {
        match self.blocks.get_mut(index) {
            Some(block) => &mut block.readers,
            None => &mut self.readers_at_end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets go of all blocks that every reader has passed.
    fn trim(window: &mut Window) {
        while window.has_unread_front() {
            window.pop();
        }
    }

    #[test]
    fn what_every_reader_has_passed_is_let_go_and_nothing_else() {
        let mut window = Window::new(0);
        let mut fast = window.enter(0).unwrap();
        let slow = window.enter(0).unwrap();
        for byte in 0..3 {
            window.push(Bytes::from(vec![byte; 10]), 100);
        }
        assert_eq!(window.read(&mut fast).unwrap(), vec![0; 10]);
        assert_eq!(window.read(&mut fast).unwrap(), vec![1; 10]);
        trim(&mut window);
        assert!(window.is_whole(), "the slow reader still needs it");

        window.leave(slow);
        trim(&mut window);
        assert!(!window.is_whole());
        assert_eq!(window.read(&mut fast).unwrap(), vec![2; 10]);
        assert_eq!(window.read(&mut fast), None);
        window.push(Bytes::from_static(b"more"), 0);
        assert_eq!(window.read(&mut fast).unwrap(), "more");
    }

    #[test]
    fn a_reader_enters_in_the_middle_of_a_block_but_not_outside_the_window() {
        let mut window = Window::new(100);
        window.push(Bytes::from_static(b"abcdef"), 0);
        window.push(Bytes::from_static(b"ghi"), 0);
        assert_eq!(window.enter(99), None);
        assert_eq!(window.enter(110), None);
        let mut middle = window.enter(104).unwrap();
        assert_eq!(window.read(&mut middle).unwrap(), "ef");
        assert_eq!(window.read(&mut middle).unwrap(), "ghi");
        let mut at_end = window.enter(109).unwrap();
        assert_eq!(window.read(&mut at_end), None);
        trim(&mut window);
        assert_eq!(window.enter(104), None);
        assert_eq!(window.weight(), 0);
    }
}
