//! When something is due: timers that know where they stand.

use std::collections::VecDeque;
use std::time::Instant;

use slab::Slab;

/// Names one running timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimerId(usize);

/// Running timers, the earliest first.
///
/// Most requests end long before their deadline, so stopping a timer must really free it, and mostly the new one is the latest of its kind
/// and the one that stops among the earliest. So those that come in the order of their times stand in a row, where starting and stopping
/// one is constant: in one of a few rows, as deadlines differ. Whoever fits into none stands in a heap.
#[derive(Debug)]
pub(crate) struct Timers<T> {
    rows: [Row; ROWS],
    heap: Vec<(Instant, TimerId)>,
    timers: Slab<Timer<T>>,
}

/// Heartbeats, deadlines of two kinds, and what lies far ahead.
const ROWS: usize = 4;

#[derive(Debug)]
struct Timer<T> {
    place: Place,
    what: T,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    /// In this row, by its number.
    Row(usize, usize),
    /// By its index.
    Heap(usize),
}

/// Timers in the order of their times.
#[derive(Debug)]
struct Row {
    /// The place of one that was stopped or moved stays until those before it or behind it are gone, or until such are more than the
    /// others.
    places: VecDeque<(Instant, Option<TimerId>)>,
    /// The number of the first: places keep theirs.
    first: usize,
    /// Places without a timer: never the first nor the last.
    vacant: usize,
}

/// A row is not tidied up for fewer vacant places.
const FEW: usize = 64;

impl Row {
    const fn new() -> Self {
        Self {
            places: VecDeque::new(),
            first: 0,
            vacant: 0,
        }
    }

    fn earliest(&self) -> Option<(Instant, TimerId)> {
        let &(at, id) = self.places.front()?;
        Some((at, id?))
    }

    fn latest(&self) -> Option<Instant> {
        self.places.back().map(|&(at, _)| at)
    }

    /// Appends one that is no earlier than the others. Returns the number of its place.
    fn push(&mut self, at: Instant, id: TimerId) -> usize {
        self.places.push_back((at, Some(id)));
        self.first.wrapping_add(self.places.len() - 1)
    }

    /// Nobody stands at this place any more. Returns whether the row is to be tidied up.
    fn vacate(&mut self, number: usize) -> bool {
        self.places[number.wrapping_sub(self.first)].1 = None;
        self.vacant += 1;
        while let Some((_, None)) = self.places.front() {
            self.places.pop_front();
            self.first = self.first.wrapping_add(1);
            self.vacant -= 1;
        }
        while let Some((_, None)) = self.places.back() {
            self.places.pop_back();
            self.vacant -= 1;
        }
        FEW + self.places.len() < 2 * self.vacant
    }
}

impl<T> Timers<T> {
    pub(crate) const fn new() -> Self {
        Self {
            rows: [const { Row::new() }; ROWS],
            heap: Vec::new(),
            timers: Slab::new(),
        }
    }

    /// When the earliest is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.earliest().map(|(at, _)| at)
    }

    pub(crate) fn start(&mut self, at: Instant, what: T) -> TimerId {
        let place = Place::Heap(usize::MAX);
        let id = TimerId(self.timers.insert(Timer { place, what }));
        self.place(id, at);
        id
    }

    /// Moves a running timer to another time.
    pub(crate) fn restart(&mut self, id: TimerId, at: Instant) {
        match self.timers[id.0].place {
            Place::Heap(index) => {
                self.heap[index].0 = at;
                self.settle(index);
            }
            Place::Row(row, number) => {
                self.vacate(row, number);
                self.place(id, at);
            }
        }
    }

    pub(crate) fn stop(&mut self, id: TimerId) {
        match self.timers.remove(id.0).place {
            Place::Row(row, number) => self.vacate(row, number),
            Place::Heap(index) => {
                let last = self.heap.len() - 1;
                self.swap(index, last);
                self.heap.truncate(last);
                if index < last {
                    self.settle(index);
                }
            }
        }
    }

    /// Stops and returns the earliest timer if it is due.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<T>
    where
        T: Copy,
    {
        let (at, id) = self.earliest()?;
        if now < at {
            return None;
        }
        let what = self.timers[id.0].what;
        self.stop(id);
        Some(what)
    }

    /// All that run, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (TimerId, T)> + '_
    where
        T: Copy,
    {
        self.timers
            .iter()
            .map(|(id, timer)| (TimerId(id), timer.what))
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.timers.len()
    }

    fn earliest(&self) -> Option<(Instant, TimerId)> {
        let in_rows = self.rows.iter().filter_map(Row::earliest);
        let all = in_rows.chain(self.heap.first().copied());
        all.min_by_key(|&(at, _)| at)
    }

    /// Gives a timer that stands nowhere its place: behind whom it follows most closely.
    fn place(&mut self, id: TimerId, at: Instant) {
        let rows = self.rows.iter_mut().enumerate();
        let fitting = rows.filter(|(_, row)| row.latest().is_none_or(|latest| latest <= at));
        let closest = fitting.max_by_key(|(_, row)| row.latest());
        let place = match closest {
            Some((index, row)) => Place::Row(index, row.push(at, id)),
            None => Place::Heap(self.heap.len()),
        };
        self.timers[id.0].place = place;
        if let Place::Heap(index) = place {
            self.heap.push((at, id));
            self.rise(index);
        }
    }

    fn vacate(&mut self, index: usize, number: usize) {
        let row = &mut self.rows[index];
        if !row.vacate(number) {
            return;
        }
        row.places.retain(|(_, id)| id.is_some());
        row.vacant = 0;
        for (offset, (_, id)) in row.places.iter().enumerate() {
            if let Some(id) = id {
                let number = row.first.wrapping_add(offset);
                self.timers[id.0].place = Place::Row(index, number);
            }
        }
    }

    fn settle(&mut self, index: usize) {
        self.rise(index);
        self.sink(index);
    }

    fn rise(&mut self, mut index: usize) {
        while 0 < index {
            let above = (index - 1) / 2;
            if self.heap[above].0 <= self.heap[index].0 {
                return;
            }
            self.swap(above, index);
            index = above;
        }
    }

    fn sink(&mut self, mut index: usize) {
        loop {
            let left = 2 * index + 1;
            let Some(&(left_at, _)) = self.heap.get(left) else {
                return;
            };
            let below = match self.heap.get(left + 1) {
                Some(&(right_at, _)) if right_at < left_at => left + 1,
                _ => left,
            };
            if self.heap[index].0 <= self.heap[below].0 {
                return;
            }
            self.swap(index, below);
            index = below;
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        for index in [a, b] {
            let id = self.heap[index].1;
            // The one being stopped has left the slab already.
            if let Some(timer) = self.timers.get_mut(id.0) {
                timer.place = Place::Heap(index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::core::testing::epoch;

    proptest! {
        #[test]
        fn timers_fire_in_order_and_stopped_ones_never(
            steps in prop::collection::vec((0_u8..3, 0_u64..50, any::<prop::sample::Index>()), 0..200),
        ) {
            let start = epoch();
            let at = |ms| start + Duration::from_millis(ms);
            let mut timers = Timers::new();
            let mut model: Vec<(u64, u32, TimerId)> = Vec::new();
            for (number, (what, ms, which)) in (0_u32..).zip(steps) {
                match what {
                    0 => model.push((ms, number, timers.start(at(ms), number))),
                    1 if !model.is_empty() => {
                        let (_, _, id) = model.swap_remove(which.index(model.len()));
                        timers.stop(id);
                    }
                    2 if !model.is_empty() => {
                        let index = which.index(model.len());
                        model[index].0 = ms;
                        timers.restart(model[index].2, at(ms));
                    }
                    _ => {}
                }
                let first = model.iter().map(|&(ms, ..)| at(ms)).min();
                prop_assert_eq!(timers.next(), first);
                prop_assert_eq!(timers.len(), model.len());
            }
            let mut fired = Vec::new();
            for ms in 0..=50 {
                while let Some(number) = timers.pop_due(at(ms)) {
                    fired.push((ms, number));
                }
            }
            fired.sort_unstable();
            let mut expected: Vec<_> = model.iter().map(|&(ms, number, _)| (ms, number)).collect();
            expected.sort_unstable();
            prop_assert_eq!(fired, expected);
        }
    }

    #[test]
    fn what_was_stopped_takes_no_room_however_long_the_one_before_it_runs() {
        let start = epoch();
        let at = |ms| start + Duration::from_millis(ms);
        let mut timers = Timers::new();
        let first = timers.start(at(0), 0);
        let mut last = timers.start(at(1), 1);
        for number in 2..10_000 {
            let next = timers.start(at(number), number);
            timers.stop(last);
            last = next;
            let places: usize = timers.rows.iter().map(|row| row.places.len()).sum();
            assert!(places < 3 * FEW, "{places} for two timers");
        }
        timers.restart(first, at(20_000));
        assert_eq!(timers.pop_due(at(15_000)), Some(9_999));
        assert_eq!(timers.pop_due(at(15_000)), None);
        assert_eq!(timers.pop_due(at(20_000)), Some(0));
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn deadlines_of_few_kinds_stand_in_rows() {
        let start = epoch();
        let mut timers = Timers::new();
        timers.start(start + Duration::from_secs(600), 0);
        for ms in 0..1000 {
            for seconds in [1, 5, 30] {
                timers.start(start + Duration::from_millis(ms + seconds * 1000), ms);
            }
        }
        assert_eq!(timers.heap.len(), 0);
    }
}
