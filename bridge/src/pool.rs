//! Idle connections to one upstream, the last used first.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Threads beyond so many share a shelf with another one.
const SHELVES: usize = 64;

/// A shelf of idle connections for each thread: a connection stays with the runtime that watches its socket, and no two
/// threads wait for the same lock.
pub(crate) struct Pool<C> {
    shelves: Box<[Shelf<C>]>,
    per_shelf: usize,
}

/// Alone on its cache lines, as its neighbours belong to other threads.
#[repr(align(128))]
struct Shelf<C>(Mutex<Vec<Idle<C>>>);

struct Idle<C> {
    connection: C,
    since: Instant,
    until: Instant,
}

impl<C> Pool<C> {
    /// Keeps up to `per_shelf` connections for each thread.
    pub(crate) fn new(per_shelf: usize) -> Self {
        let shelves = (0..SHELVES)
            .map(|_| Shelf(Mutex::new(Vec::new())))
            .collect();
        Self { shelves, per_shelf }
    }

    /// The connection used last, unless it has been idle for more than `at_most`; those past their time are dropped.
    pub(crate) fn take(&self, now: Instant, at_most: Duration) -> Option<C> {
        let mut shelf = self.shelf();
        while let Some(idle) = shelf.pop() {
            if idle.until <= now {
                continue;
            }
            if at_most < now.saturating_duration_since(idle.since) {
                shelf.push(idle);
                return None;
            }
            return Some(idle.connection);
        }
        None
    }

    /// Keeps a connection for `patience`. Over the bound it is dropped.
    pub(crate) fn put(&self, now: Instant, patience: Duration, connection: C) {
        let mut shelf = self.shelf();
        if shelf.len() < self.per_shelf {
            let (since, until) = (now, now + patience);
            shelf.push(Idle {
                connection,
                since,
                until,
            });
        }
    }

    /// Drops what is past its time or fails `is_open`, on all shelves.
    pub(crate) fn sweep(&self, now: Instant, mut is_open: impl FnMut(&mut C) -> bool) {
        for shelf in &self.shelves {
            lock(shelf).retain_mut(|idle| now < idle.until && is_open(&mut idle.connection));
        }
    }

    /// How many connections are idle.
    pub(crate) fn len(&self) -> usize {
        self.shelves.iter().map(|shelf| lock(shelf).len()).sum()
    }

    fn shelf(&self) -> MutexGuard<'_, Vec<Idle<C>>> {
        lock(&self.shelves[thread_number() % SHELVES])
    }
}

fn lock<C>(shelf: &Shelf<C>) -> MutexGuard<'_, Vec<Idle<C>>> {
    // No code that can panic runs under the lock, but a connection's drop; the shelf is in order even so.
    shelf.0.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A small number of this thread's own.
fn thread_number() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<usize> = Cell::new(THREADS.fetch_add(1, Ordering::Relaxed));
    }
    NUMBER.get()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_connection_used_last_is_used_next_and_old_ones_are_dropped() {
        let now = clock::now();
        let pool = Pool::new(8);
        pool.put(now, 4 * SECOND, "first");
        pool.put(now + SECOND, 4 * SECOND, "second");
        pool.put(now + SECOND, 2 * SECOND, "impatient");
        assert_eq!(pool.take(now + 3 * SECOND, 9 * SECOND), Some("second"));
        assert_eq!(pool.take(now + 4 * SECOND, 9 * SECOND), None);
        assert_eq!(pool.len(), 0);
    }

    #[test]
    fn who_wants_a_recently_used_connection_gets_no_older_one() {
        let now = clock::now();
        let pool = Pool::new(8);
        pool.put(now, 9 * SECOND, "idle");
        assert_eq!(pool.take(now + 2 * SECOND, SECOND), None);
        assert_eq!(pool.take(now + 2 * SECOND, 2 * SECOND), Some("idle"));
    }

    #[test]
    fn no_more_connections_are_kept_than_the_bound() {
        let now = clock::now();
        let pool = Pool::new(2);
        for connection in 0..5 {
            pool.put(now, SECOND, connection);
        }
        assert_eq!(pool.len(), 2);
    }

    #[test]
    fn sweeping_drops_closed_and_old_connections_of_every_thread() {
        let now = clock::now();
        let pool = Pool::new(8);
        std::thread::scope(|threads| {
            threads.spawn(|| pool.put(now, 2 * SECOND, "open"));
            threads.spawn(|| pool.put(now, 2 * SECOND, "closed"));
        });
        pool.put(now, SECOND, "old");
        pool.sweep(now + SECOND, |connection| *connection != "closed");
        assert_eq!(pool.len(), 1);
    }
}
