//! How the capacity is divided, and who waits for room.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Below this the database's own buffers and files would be more than what it holds.
const LEAST: u64 = 32 << 20;

/// Waits for room this many times this long, a second in all: about what it takes to remove a database that was dropped.
const WAITS: u32 = 20;
const WAIT: Duration = Duration::from_millis(50);

/// The bytes on the disk, and what they may be.
///
/// Two generations may have three eighths of the capacity each before the older one goes. While it goes, the newer one and the one
/// begun after it may grow into another eighth. Over that sum nothing is written; the last eighth is for what is known late: what
/// sled has in its buffers, or writes on its own to tidy up, and what was written since a size was measured.
#[derive(Debug)]
pub(super) struct Space {
    capacity: u64,
    /// Bodies being written.
    incoming: AtomicU64,
    /// Generations being removed.
    leaving: AtomicU64,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Space {
    pub(super) fn new(capacity: u64) -> Self {
        Self {
            capacity: capacity.max(LEAST),
            incoming: AtomicU64::new(0),
            leaving: AtomicU64::new(0),
            lock: Mutex::new(()),
            changed: Condvar::new(),
        }
    }

    /// Whether it is time to begin another generation and to drop the older one: the newest has its share, or both together leave no
    /// room, since sled goes on writing to the older one.
    pub(super) fn is_time_for_another(&self, newest: u64, in_use: u64) -> bool {
        self.capacity / 8 * 3 <= newest
            || self.limit() <= in_use + self.incoming.load(Ordering::Relaxed)
    }

    /// From here on nothing is written.
    fn limit(&self) -> u64 {
        self.capacity / 8 * 7
    }

    fn has_room(&self, in_use: u64) -> bool {
        in_use + self.beside() < self.limit()
    }

    /// The largest body. Two of them at once then fit into what two full generations leave.
    pub(super) fn max_body(&self) -> u64 {
        self.capacity / 16
    }

    /// What may be written to a database before its size has to be measured again; sled writes several times as much.
    pub(super) fn step(&self) -> u64 {
        (self.capacity / 512).clamp(64 << 10, 4 << 20)
    }

    /// What is on the disk beside generations in use.
    pub(super) fn beside(&self) -> u64 {
        self.incoming.load(Ordering::Relaxed) + self.leaving.load(Ordering::Relaxed)
    }

    pub(super) fn arrive(&self, bytes: u64) {
        self.incoming.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn arrived(&self, bytes: u64) {
        self.incoming.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn leave(&self, bytes: u64) {
        self.leaving.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn left(&self, bytes: u64) {
        self.leaving.fetch_sub(bytes, Ordering::Relaxed);
        self.notify();
    }

    /// Whoever waits looks again.
    pub(super) fn notify(&self) {
        drop(self.lock.lock());
        self.changed.notify_all();
    }

    /// Waits until there is room. `in_use`: bytes of the generations in use; `ask`: makes room, if that is possible.
    pub(super) fn wait_for_room(&self, in_use: impl Fn() -> u64, ask: impl Fn()) -> io::Result<()> {
        let room = || self.has_room(in_use());
        for _ in 0..WAITS {
            if room() {
                return Ok(());
            }
            ask();
            self.wait(WAIT);
        }
        if room() {
            return Ok(());
        }
        Err(io::ErrorKind::StorageFull.into())
    }

    /// Waits until that is so, for about that long at most.
    pub(super) fn wait_until(&self, at_most: Duration, so: impl Fn() -> bool) {
        let mut left = at_most;
        while !so() && !left.is_zero() {
            let wait = left.min(WAIT);
            self.wait(wait);
            left -= wait;
        }
    }

    /// Until something has changed, at most that long.
    fn wait(&self, at_most: Duration) {
        self.changed.wait_for(&mut self.lock.lock(), at_most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn where_nothing_is_on_its_way_out_a_lack_of_room_calls_for_another_generation(
            newest in 0_u64..LEAST,
            previous in 0_u64..LEAST,
            incoming in 0_u64..LEAST,
        ) {
            let space = Space::new(0);
            space.arrive(incoming);
            let in_use = newest + previous;
            proptest::prop_assert!(space.has_room(in_use) || space.is_time_for_another(newest, in_use));
        }
    }

    #[test]
    fn who_waits_for_room_has_it_when_something_has_left_and_not_before() {
        let space = Space::new(64 << 20);
        space.leave(60 << 20);
        assert!(space.wait_for_room(|| 0, || {}).is_err());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| space.wait_for_room(|| 0, || {}));
            space.left(60 << 20);
            assert!(waiting.join().unwrap().is_ok());
        });
    }
}
