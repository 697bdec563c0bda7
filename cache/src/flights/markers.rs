//! What is remembered about keys that have no flight: that sharing is of no use, or that a herd has
//! just been turned away.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::Failure;
use crate::key::CacheKey;
use crate::policy::LeaderOnly;

/// How long a key is remembered as leader-only …
const LEADER_ONLY: Duration = Duration::from_secs(10);
/// … give or take so much, so that keys learnt together are not forgotten together.
const JITTER: Duration = Duration::from_millis(JITTER_MS);
const JITTER_MS: u64 = 2_000;
/// How long the next herd is answered with the failure of the last one: long enough to break a
/// stampede, short enough that a recovered backend is noticed at once.
const FAILED: Duration = Duration::from_secs(1);

/// The markers of one shard: bounded, oldest out first, no body and no head in them.
#[derive(Debug)]
pub(super) struct Markers {
    by_key: HashMap<CacheKey, Marker>,
    /// Keys in the order of their marking; an entry counts only while its stamp is the marker's.
    order: VecDeque<(CacheKey, u32)>,
    capacity: usize,
    next_stamp: u32,
    seed: u64,
}

#[derive(Debug, Clone, Copy)]
struct Marker {
    until: Instant,
    stamp: u32,
    meaning: Meaning,
}

/// What a marker says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Its last response was for its leader only.
    LeaderOnly(LeaderOnly),
    /// A flight with waiters has just failed.
    Failed(Failure),
}

/// What came of marking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marked {
    /// It is new.
    New,
    /// It is new, and the oldest one had to go.
    NewForOld,
    /// It was there, and has another end now.
    Renewed,
}

impl Markers {
    /// At most `capacity` markers; `seed` spreads their ends.
    pub(super) fn new(capacity: usize, seed: u64) -> Self {
        Self {
            by_key: HashMap::new(),
            order: VecDeque::new(),
            capacity: capacity.max(1),
            next_stamp: 0,
            seed,
        }
    }

    /// What is remembered about a key.
    pub(super) fn get(&mut self, now: Instant, key: &CacheKey) -> Option<Meaning> {
        let marker = self.by_key.get(key)?;
        if now < marker.until {
            return Some(marker.meaning);
        }
        self.by_key.remove(key);
        None
    }

    /// Remembers a key as leader-only.
    pub(super) fn mark_leader_only(
        &mut self,
        now: Instant,
        key: CacheKey,
        reason: LeaderOnly,
    ) -> Marked {
        let until = now + LEADER_ONLY - JITTER + self.jitter(&key);
        self.mark(now, key, until, Meaning::LeaderOnly(reason))
    }

    /// Remembers that a herd met a failure.
    pub(super) fn mark_failed(&mut self, now: Instant, key: CacheKey, failure: Failure) -> Marked {
        self.mark(now, key, now + FAILED, Meaning::Failed(failure))
    }

    /// Forgets a key; whether there was something to forget.
    pub(super) fn end(&mut self, key: &CacheKey) -> bool {
        self.by_key.remove(key).is_some()
    }

    fn mark(&mut self, now: Instant, key: CacheKey, until: Instant, meaning: Meaning) -> Marked {
        if self.get(now, &key).is_some()
            && let Some(marker) = self.by_key.get_mut(&key)
        {
            marker.until = until;
            marker.meaning = meaning;
            return Marked::Renewed;
        }
        let mut marked = Marked::New;
        while self.capacity <= self.by_key.len() {
            // Every marker has its entry in the order, so this ends.
            let Some((oldest, stamp)) = self.order.pop_front() else {
                break;
            };
            if self
                .by_key
                .get(&oldest)
                .is_some_and(|marker| marker.stamp == stamp)
            {
                self.by_key.remove(&oldest);
                marked = Marked::NewForOld;
            }
        }
        // Markers that ended by themselves leave their entries behind.
        if 2 * self.capacity <= self.order.len() {
            let by_key = &self.by_key;
            self.order.retain(|(key, stamp)| {
                by_key.get(key).is_some_and(|marker| marker.stamp == *stamp)
            });
        }
        let stamp = self.next_stamp;
        self.next_stamp = stamp.wrapping_add(1);
        self.order.push_back((key, stamp));
        self.by_key.insert(
            key,
            Marker {
                until,
                stamp,
                meaning,
            },
        );
        marked
    }

    /// Between nothing and twice [`JITTER`], by key and seed (the finalizer of splitmix64).
    fn jitter(&mut self, key: &CacheKey) -> Duration {
        let mut bits = key.short_hash() ^ self.seed.wrapping_add(u64::from(self.next_stamp));
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        Duration::from_millis(bits % (2 * JITTER_MS + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flights::test_time::at;

    fn key(number: usize) -> CacheKey {
        CacheKey::new("http", "example.com", &format!("/{number}"))
    }

    #[test]
    fn a_leader_only_marker_lasts_ten_seconds_give_or_take_two_and_not_all_alike() {
        let mut markers = Markers::new(100, 7);
        let mut gone_after_9_s = 0;
        for number in 0..100 {
            markers.mark_leader_only(at(0), key(number), LeaderOnly::Private);
        }
        for number in 0..100 {
            assert_eq!(
                markers.get(at(7_999), &key(number)),
                Some(Meaning::LeaderOnly(LeaderOnly::Private))
            );
            gone_after_9_s += usize::from(markers.get(at(9_000), &key(number)).is_none());
            assert_eq!(markers.get(at(12_001), &key(number)), None);
        }
        assert!((5..60).contains(&gone_after_9_s), "{gone_after_9_s}");
    }

    #[test]
    fn markers_are_small_and_bounded_and_the_oldest_go_first() {
        assert!(size_of::<Marker>() + size_of::<u32>() <= 64);
        let mut markers = Markers::new(10, 0);
        for number in 0..10 {
            assert_eq!(
                markers.mark_leader_only(at(0), key(number), LeaderOnly::NoStore),
                Marked::New
            );
        }
        assert_eq!(
            markers.mark_leader_only(at(0), key(3), LeaderOnly::NoStore),
            Marked::Renewed
        );
        assert_eq!(
            markers.mark_leader_only(at(1), key(10), LeaderOnly::NoStore),
            Marked::NewForOld
        );
        assert_eq!(
            markers.mark_leader_only(at(60_000), key(10), LeaderOnly::NoStore),
            Marked::New,
            "the one before had ended, though nobody looked"
        );
        assert_eq!(markers.get(at(1), &key(0)), None);
        assert!(markers.get(at(1), &key(1)).is_some());
        for round in 0..1000 {
            markers.mark_leader_only(at(2), key(round), LeaderOnly::NoStore);
            markers.end(&key(round));
        }
        assert!(markers.order.len() <= 20 && markers.by_key.len() <= 10);
    }
}
