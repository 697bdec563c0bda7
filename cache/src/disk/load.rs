//! An answer that comes from another thread.

use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// A place for one answer, and for all who wait for it.
#[derive(Debug)]
pub(crate) struct Load<T>(Mutex<State<T>>);

#[derive(Debug)]
enum State<T> {
    Waiting(Vec<Waker>),
    Here(T),
}

impl<T: Clone> Load<T> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State::Waiting(Vec::new())))
    }

    /// The answer, once it is here.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<T> {
        match &mut *self.0.lock() {
            State::Here(answer) => Poll::Ready(answer.clone()),
            State::Waiting(wakers) => {
                if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                    wakers.push(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }

    /// How many wait for it, some of whom may have lost patience.
    pub(super) fn waiting(&self) -> usize {
        match &*self.0.lock() {
            State::Waiting(wakers) => wakers.len(),
            State::Here(_) => 0,
        }
    }

    /// Here it is.
    pub(super) fn answer(&self, answer: T) {
        let before = std::mem::replace(&mut *self.0.lock(), State::Here(answer));
        if let State::Waiting(wakers) = before {
            for waker in wakers {
                waker.wake();
            }
        }
    }
}
