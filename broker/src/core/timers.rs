//! When something is due: a heap that knows where each of its timers stands.

use std::time::Instant;

use slab::Slab;

/// Names one running timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimerId(usize);

/// Running timers, the earliest first.
///
/// Most requests end long before their deadline, so stopping a timer must really free it: each knows its place in the heap. New
/// deadlines are mostly the latest, which makes starting one constant in practice.
#[derive(Debug)]
pub(crate) struct Timers<T> {
    heap: Vec<(Instant, TimerId)>,
    timers: Slab<Timer<T>>,
}

#[derive(Debug)]
struct Timer<T> {
    place: usize,
    what: T,
}

impl<T> Timers<T> {
    pub(crate) const fn new() -> Self {
        Self {
            heap: Vec::new(),
            timers: Slab::new(),
        }
    }

    /// When the earliest is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.first().map(|&(at, _)| at)
    }

    pub(crate) fn start(&mut self, at: Instant, what: T) -> TimerId {
        let place = self.heap.len();
        let id = TimerId(self.timers.insert(Timer { place, what }));
        self.heap.push((at, id));
        self.rise(place);
        id
    }

    /// Moves a running timer to another time.
    pub(crate) fn restart(&mut self, id: TimerId, at: Instant) {
        let place = self.timers[id.0].place;
        self.heap[place].0 = at;
        self.settle(place);
    }

    pub(crate) fn stop(&mut self, id: TimerId) {
        let timer = self.timers.remove(id.0);
        let last = self.heap.len() - 1;
        self.swap(timer.place, last);
        self.heap.truncate(last);
        if timer.place < last {
            self.settle(timer.place);
        }
    }

    /// Stops and returns the earliest timer if it is due.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<T>
    where
        T: Copy,
    {
        let &(at, id) = self.heap.first()?;
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
        self.heap.len()
    }

    fn settle(&mut self, place: usize) {
        self.rise(place);
        self.sink(place);
    }

    fn rise(&mut self, mut place: usize) {
        while 0 < place {
            let above = (place - 1) / 2;
            if self.heap[above].0 <= self.heap[place].0 {
                return;
            }
            self.swap(above, place);
            place = above;
        }
    }

    fn sink(&mut self, mut place: usize) {
        loop {
            let left = 2 * place + 1;
            let Some(&(left_at, _)) = self.heap.get(left) else {
                return;
            };
            let below = match self.heap.get(left + 1) {
                Some(&(right_at, _)) if right_at < left_at => left + 1,
                _ => left,
            };
            if self.heap[place].0 <= self.heap[below].0 {
                return;
            }
            self.swap(place, below);
            place = below;
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        for place in [a, b] {
            let id = self.heap[place].1;
            // The one being stopped has left the slab already.
            if let Some(timer) = self.timers.get_mut(id.0) {
                timer.place = place;
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
}
