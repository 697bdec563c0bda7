//! Who sits in a flight.

use std::time::Instant;

use super::window::Cursor;

/// A seat's place in the table and the ticket of whoever has it: a place is given to others later,
/// a ticket never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct SeatId {
    pub(super) index: usize,
    ticket: u64,
}

#[derive(Debug)]
pub(super) struct Seat {
    ticket: u64,
    pub(super) is_leader: bool,
    /// Whether it wants bytes; a HEAD does not.
    pub(super) is_reading: bool,
    /// Its place in the window, or that from which on the window is kept for it while it reads from the disk.
    pub(super) cursor: Option<Cursor>,
    /// It has its bytes from the disk, until it has caught up with the window.
    pub(super) is_on_disk: bool,
    pub(super) joined: Instant,
}

/// The seats of one flight.
#[derive(Debug, Default)]
pub(super) struct Seats {
    places: Vec<Option<Seat>>,
    free: Vec<usize>,
    next_ticket: u64,
    taken: usize,
    reading: usize,
}

impl Seats {
    pub(super) fn take(
        &mut self,
        is_leader: bool,
        is_reading: bool,
        cursor: Option<Cursor>,
        joined: Instant,
    ) -> SeatId {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.taken += 1;
        self.reading += usize::from(is_reading);
        let seat = Some(Seat {
            ticket,
            is_leader,
            is_reading,
            cursor,
            is_on_disk: is_reading && cursor.is_none(),
            joined,
        });
        let index = match self.free.pop() {
            Some(index) => {
                self.places[index] = seat;
                index
            }
            None => {
                self.places.push(seat);
                self.places.len() - 1
            }
        };
        SeatId { index, ticket }
    }

    pub(super) fn get_mut(&mut self, id: SeatId) -> Option<&mut Seat> {
        self.places
            .get_mut(id.index)?
            .as_mut()
            .filter(|seat| seat.ticket == id.ticket)
    }

    pub(super) fn leave(&mut self, id: SeatId) -> Option<Seat> {
        self.get_mut(id)?;
        self.vacate(id.index)
    }

    /// Vacates every seat that `stays` refuses; how many those were.
    pub(super) fn retain(&mut self, mut stays: impl FnMut(&Seat) -> bool) -> u64 {
        let mut vacated = 0;
        for index in 0..self.places.len() {
            if self.places[index].as_ref().is_some_and(|seat| !stays(seat)) {
                self.vacate(index);
                vacated += 1;
            }
        }
        vacated
    }

    fn vacate(&mut self, index: usize) -> Option<Seat> {
        let seat = self.places[index].take()?;
        self.free.push(index);
        self.taken -= 1;
        self.reading -= usize::from(seat.is_reading);
        Some(seat)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Seat> {
        self.places.iter_mut().flatten()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Seat> {
        self.places.iter().flatten()
    }

    pub(super) fn cursors_mut(&mut self) -> impl Iterator<Item = &mut Cursor> {
        self.places
            .iter_mut()
            .flatten()
            .filter_map(|seat| seat.cursor.as_mut())
    }

    /// How many seats are taken.
    pub(super) fn taken(&self) -> usize {
        self.taken
    }

    /// How many of them want bytes.
    pub(super) fn reading(&self) -> usize {
        self.reading
    }
}
