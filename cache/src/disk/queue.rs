//! What waits for a thread that may wait for a disk.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};

/// A queue between many threads that must not wait and a few that may. It is bounded by weight.
#[derive(Debug)]
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    capacity: usize,
}

#[derive(Debug)]
struct State<T> {
    jobs: VecDeque<(T, usize)>,
    weight: usize,
    is_closed: bool,
}

impl<T> Queue<T> {
    /// Takes jobs until those that wait weigh that much together. The last of them may weigh what it likes: else one that is heavier
    /// than all may be would never find room. So what waits weighs less than this and the heaviest job together.
    pub(super) fn new(capacity: usize) -> Self {
        let state = State {
            jobs: VecDeque::new(),
            weight: 0,
            is_closed: false,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            capacity,
        }
    }

    /// Puts a job behind the others; false where there is no room for it, or nobody left to do it.
    pub(super) fn push(&self, job: T, weight: usize) -> bool {
        let mut state = self.state.lock();
        if state.is_closed || self.capacity <= state.weight {
            return false;
        }
        state.put(job, weight);
        drop(state);
        self.changed.notify_one();
        true
    }

    /// The same for jobs that weigh nothing, and find room while there is anybody to do them.
    pub(super) fn push_light(&self, job: T) -> bool {
        let mut state = self.state.lock();
        if state.is_closed {
            return false;
        }
        state.put(job, 0);
        drop(state);
        self.changed.notify_one();
        true
    }

    /// The next job, as soon as there is one; `None` when the queue is closed and empty.
    pub(super) fn pop(&self) -> Option<T> {
        let mut state = self.state.lock();
        loop {
            if let Some((job, weight)) = state.jobs.pop_front() {
                state.weight -= weight;
                return Some(job);
            }
            if state.is_closed {
                return None;
            }
            self.changed.wait(&mut state);
        }
    }

    /// Takes no more jobs; those that wait are done.
    pub(super) fn close(&self) {
        self.state.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// What those that wait weigh together.
    pub(super) fn weight(&self) -> usize {
        self.state.lock().weight
    }
}

impl<T> State<T> {
    fn put(&mut self, job: T, weight: usize) {
        self.weight += weight;
        self.jobs.push_back((job, weight));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_finds_room_whatever_it_weighs_while_the_others_are_not_too_many() {
        let queue = Queue::new(10);
        assert!(queue.push("light", 9) && queue.push("heavy", 1000));
        assert!(!queue.push("one more", 1) && queue.push_light("of no weight"));
        assert_eq!((queue.pop(), queue.weight()), (Some("light"), 1000));
        assert!(!queue.push("one more", 1));
        assert_eq!((queue.pop(), queue.weight()), (Some("heavy"), 0));
        assert!(queue.push("heavy", 1000));
    }
}
