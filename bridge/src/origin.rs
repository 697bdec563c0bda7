//! One upstream at work: its connections, its load, its condition.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use crate::condition::Condition;
use crate::config::Upstream;
use crate::pool::Pool;

/// One upstream, shared by all requests to it.
pub(crate) struct Origin<C> {
    pub(crate) upstream: Upstream,
    pub(crate) idle: Pool<C>,
    outstanding: AtomicUsize,
    condition: Mutex<Condition>,
    /// Whether the condition is beyond improvement by an answer: saves the lock on the way of every request.
    spotless: AtomicBool,
    up: AtomicBool,
    /// Wakes the prober when the upstream went down.
    pub(crate) went_down: Notify,
}

impl<C> Origin<C> {
    pub(crate) fn new(upstream: Upstream, idle_connections: usize) -> Self {
        Self {
            upstream,
            idle: Pool::new(idle_connections),
            outstanding: AtomicUsize::new(0),
            condition: Mutex::default(),
            spotless: AtomicBool::new(true),
            up: AtomicBool::new(true),
            went_down: Notify::new(),
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding.load(Ordering::Relaxed)
    }

    /// Counts a request until the seat is dropped.
    pub(crate) fn seat(self: Arc<Self>) -> Seat<C> {
        self.outstanding.fetch_add(1, Ordering::Relaxed);
        Seat(self)
    }

    fn judge<R>(&self, judgement: impl FnOnce(&mut Condition) -> R) -> R {
        let mut condition = self
            .condition
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let result = judgement(&mut condition);
        self.spotless
            .store(condition.is_spotless(), Ordering::Relaxed);
        let is_up = condition.is_up();
        let was_up = self.up.swap(is_up, Ordering::Relaxed);
        if was_up != is_up {
            let upstream = &self.upstream;
            if is_up {
                tracing::info!(%upstream, "the application is up");
            } else {
                tracing::warn!(%upstream, "the application is down");
                self.went_down.notify_one();
            }
        }
        result
    }

    /// An answer came; nearly always that is no news.
    pub(crate) fn answered(&self) {
        if !self.spotless.load(Ordering::Relaxed) {
            self.judge(Condition::answered);
        }
    }
}

/// A request's place at an upstream: it is outstanding until this is dropped.
pub(crate) struct Seat<C>(Arc<Origin<C>>);

impl<C> std::ops::Deref for Seat<C> {
    type Target = Origin<C>;

    fn deref(&self) -> &Origin<C> {
        &self.0
    }
}

impl<C> Drop for Seat<C> {
    fn drop(&mut self) {
        self.0.outstanding.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All upstreams of one bridge.
pub(crate) struct Origins<C> {
    all: Box<[Arc<Origin<C>>]>,
    /// Where the next search begins, so that equals take turns.
    turn: AtomicUsize,
    any_up: watch::Sender<bool>,
    followers: Mutex<Vec<Follower>>,
}

/// Is told, on the spot, whether any upstream is up.
pub(crate) type Follower = Box<dyn Fn(bool) + Send + Sync>;

impl<C> Origins<C> {
    pub(crate) fn new(upstreams: &[Upstream], idle_connections: usize) -> Self {
        let origin =
            |upstream: &Upstream| Arc::new(Origin::new(upstream.clone(), idle_connections));
        Self {
            all: upstreams.iter().map(origin).collect(),
            turn: AtomicUsize::new(0),
            any_up: watch::Sender::new(true),
            followers: Mutex::default(),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Origin<C>>> {
        self.all.iter()
    }

    /// A seat at the one with the fewest outstanding requests of those that are up.
    pub(crate) fn least_outstanding(&self) -> Option<Seat<C>> {
        if let [only] = &*self.all {
            return only.is_up().then(|| only.clone().seat());
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.all.len();
        let (before, from) = self.all.split_at(turn);
        let up = from.iter().chain(before).filter(|origin| origin.is_up());
        let least = up.min_by_key(|origin| origin.outstanding())?;
        Some(least.clone().seat())
    }

    /// Something was seen of one of them. Whoever follows or watches is told if it changes whether any is up: followers before
    /// this returns.
    pub(crate) fn judge<R>(
        &self,
        origin: &Origin<C>,
        judgement: impl FnOnce(&mut Condition) -> R,
    ) -> R {
        let result = origin.judge(judgement);
        // Computed while the value is locked: of two changes at once the later one sees both.
        self.any_up.send_if_modified(|any_up| {
            let now = self.all.iter().any(|origin| origin.is_up());
            let has_changed = std::mem::replace(any_up, now) != now;
            if has_changed {
                self.followers().iter().for_each(|follow| follow(now));
            }
            has_changed
        });
        result
    }

    /// Tells this one how things stand, and whenever they change.
    pub(crate) fn follow(&self, follower: Follower) {
        let any_up = self.any_up.borrow();
        follower(*any_up);
        self.followers().push(follower);
    }

    fn followers(&self) -> MutexGuard<'_, Vec<Follower>> {
        (self.followers.lock()).unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn any_up(&self) -> watch::Receiver<bool> {
        self.any_up.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(ports: &[u16]) -> Origins<()> {
        let upstream = |port: &u16| Upstream::Tcp {
            host: "app".into(),
            port: *port,
        };
        Origins::new(&ports.iter().map(upstream).collect::<Vec<_>>(), 1)
    }

    fn port(seat: &Seat<()>) -> u16 {
        match seat.upstream {
            Upstream::Tcp { port, .. } => port,
            Upstream::Unix(_) => 0,
        }
    }

    #[test]
    fn a_request_goes_to_the_upstream_with_the_fewest_outstanding_and_equals_take_turns() {
        let origins = origins(&[1, 2, 3]);
        let mut seats: Vec<_> = (0..3)
            .map(|_| origins.least_outstanding().unwrap())
            .collect();
        seats.sort_by_key(port);
        assert_eq!(seats.iter().map(port).collect::<Vec<_>>(), [1, 2, 3]);
        seats.remove(1);
        assert_eq!(port(&origins.least_outstanding().unwrap()), 2);
    }

    #[test]
    fn one_that_is_down_is_sent_nothing_and_the_watcher_is_told_of_the_last() {
        let origins = origins(&[1, 2]);
        let mut any_up = origins.any_up();
        for (origin, left) in origins.iter().zip([true, false]) {
            origins.judge(origin, Condition::refused);
            assert_eq!(*any_up.borrow_and_update(), left);
            let seat = origins.least_outstanding();
            assert_eq!(seat.map(|seat| port(&seat)), left.then_some(2));
        }
    }
}
