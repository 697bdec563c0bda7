//! Flights: identical requests at the same time are one request to a backend (DESIGN:
//! "Coalescing").
//!
//! A **flight** is a fetch in progress. Whoever opens it holds two ends: a [`Fill`], into which a
//! task of its own puts what the backend sends, and a [`Reader`], from which the leader's client is
//! served exactly as everybody else. Nobody gets a byte before the head has given the **verdict**;
//! then all waiters are told in one pass.
//!
//! What decides is `flight.rs`, a state machine without locks, wakers or clocks. Around it is a
//! thin shell: a table sharded by key, a lock per flight, the wakers. The order of locks is shard,
//! then flight; wakers are woken when both are released. Whether a request joins, and whether a
//! flight ends, is decided under the shard's lock, so each is one step and neither can fall between
//! the other's two halves.

mod aim;
mod announced;
mod failure;
mod fill;
mod flight;
mod invalidations;
mod markers;
#[cfg(test)]
mod model;
mod pace;
mod reader;
mod seats;
mod shared;
mod window;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use http::header::{IF_MODIFIED_SINCE, IF_NONE_MATCH};
use parking_lot::{Mutex, MutexGuard};

pub use aim::Continuation;
pub use failure::Failure;
pub use fill::{Fill, Verdict};
pub use reader::{Behind, Chunk, Reader, Turn};

use aim::Aim;
use flight::{Admission, Bounds, Flight};
pub(crate) use invalidations::Invalidations;
use markers::{Marked, Markers, Meaning};
use shared::SharedFlight;

use crate::asker::Asker;
use crate::counters::CacheCounters;
use crate::key::CacheKey;
use crate::policy::{Bypass, Coalescing, LeaderOnly, Policy, Reuse, Sharing};
use crate::purge::Purges;
use crate::store::{Found, Hit, Served, StoredResponse, Tiers};

/// The table's shards: many more than there are cores, so that two rarely meet.
const SHARDS: usize = 64;

/// Flights of one key at the same time. In the last one the slowest reader sets the pace, so there
/// is no need for a fifth.
pub const MAX_FLIGHTS_PER_KEY: usize = 4;

/// Keys remembered as leader-only: under 64 bytes each beside the key, some 20 MB with all slack.
pub const MAX_MARKERS: usize = 100_000;

/// How often a waiter may be sent on to the flight of its variant before it goes alone: an origin
/// that changes its `Vary` with every response must not make a client wait for ever.
pub const MAX_VARIANT_HOPS: usize = 3;

/// What came of asking for a seat.
#[derive(Debug)]
pub enum Join {
    /// You lead: give `fill` to a task of its own that fetches; serve the client from `reader`.
    Lead {
        /// The fetching end.
        fill: Fill,
        /// The client's end.
        reader: Reader,
    },
    /// Somebody fetches it already; RFC 9211 calls this `collapsed`.
    Wait(Reader),
    /// It has been stored since the lookup: a hit.
    Stored(Hit),
    /// Fetch for this client alone, without a flight.
    Alone(Alone),
    /// A herd of the same key met this failure less than a second ago: answer the same.
    Failed(Failure),
}

/// Why a request goes alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alone {
    /// It has nothing to do with flights.
    Bypass(Bypass),
    /// The key is remembered as leader-only; tell [`crate::Cache::learn`] what the response says.
    Marked(LeaderOnly),
    /// A HEAD, and no GET is in flight.
    HeadWithoutGet,
    /// It wants an answer made for it (`no-cache`), and a flight is under way already.
    WantsItsOwn,
    /// [`MAX_FLIGHTS_PER_KEY`] are under way, and it can join none.
    Crowded,
}

/// What came of a laggard's wish to go on.
#[derive(Debug)]
pub enum Rejoin {
    /// A slower flight holds its place: go on with [`Reader::poll_chunk`].
    Wait(Reader),
    /// Fetch the rest ([`Fill::dress`] says from where) and go on with
    /// [`Reader::poll_chunk`].
    Lead {
        /// The fetching end.
        fill: Fill,
        /// The client's end.
        reader: Reader,
    },
    /// There is no way to go on: abort the connection. Never a clean short body.
    Abort,
}

/// The bounds of all flights.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FlightsConfig {
    pub(crate) policy: Policy,
    pub(crate) flight_buffer: usize,
    pub(crate) flights_memory: usize,
    pub(crate) max_markers: usize,
    pub(crate) seed: u64,
}

/// The table of flights.
#[derive(Debug)]
pub(crate) struct Flights {
    config: FlightsConfig,
    shards: Box<[Mutex<Shard>]>,
    store: Arc<Tiers>,
    purges: Arc<Purges>,
    counters: Arc<CacheCounters>,
    invalidations: Invalidations,
    /// What the windows of all flights weigh together.
    bytes: AtomicUsize,
}

#[derive(Debug)]
struct Shard {
    /// The flights that may be joined, or continued in, by key. None of them has ended, none is for
    /// its leader only.
    groups: HashMap<CacheKey, Vec<Arc<SharedFlight>>>,
    markers: Markers,
}

impl Shard {
    fn group(&self, key: &CacheKey) -> &[Arc<SharedFlight>] {
        self.groups.get(key).map(Vec::as_slice).unwrap_or_default()
    }
}

impl Flights {
    pub(crate) fn new(
        config: FlightsConfig,
        store: Arc<Tiers>,
        purges: Arc<Purges>,
        counters: Arc<CacheCounters>,
    ) -> Arc<Self> {
        let shard = || {
            Mutex::new(Shard {
                groups: HashMap::new(),
                markers: Markers::new(config.max_markers / SHARDS, config.seed),
            })
        };
        let shards = std::iter::repeat_with(shard).take(SHARDS).collect();
        Arc::new(Self {
            config,
            shards,
            store,
            purges,
            counters,
            invalidations: Invalidations::default(),
            bytes: AtomicUsize::new(0),
        })
    }

    /// Joins or opens the flight of a key.
    pub(crate) fn join(self: &Arc<Self>, now: Instant, under: CacheKey, asker: &Asker<'_>) -> Join {
        let join = match asker.facts.coalescing() {
            Coalescing::Never(bypass) => Join::Alone(Alone::Bypass(bypass)),
            Coalescing::LeadOrWait
            | Coalescing::LeadOnly
            | Coalescing::WaitOnly
            | Coalescing::Part => {
                match self.join_under(now, under, asker) {
                    Ok(join) => join,
                    // Only a primary key sends us on, and only to a variant: once.
                    Err(variant) => self
                        .join_under(now, variant, asker)
                        .unwrap_or(Join::Alone(Alone::Crowded)),
                }
            }
        };
        match &join {
            Join::Lead { .. } => self.counters.flights_led.add(1),
            Join::Wait(_) => self.counters.flights_joined.add(1),
            Join::Stored(_) => self.counters.hits.add(1),
            Join::Alone(Alone::Marked(_)) => self.counters.alone_marked.add(1),
            Join::Alone(_) => self.counters.alone_other.add(1),
            Join::Failed(_) => self.counters.failure_repeated.add(1),
        }
        join
    }

    /// `Err` is the key of the variant to try instead, which the store has learnt of since the
    /// lookup.
    fn join_under(
        self: &Arc<Self>,
        now: Instant,
        under: CacheKey,
        asker: &Asker<'_>,
    ) -> Result<Join, CacheKey> {
        let facts = &asker.facts;
        let mut shard = self.shard(&under).lock();
        let marked = match shard.markers.get(now, &under) {
            Some(Meaning::Failed(failure)) => return Ok(Join::Failed(failure)),
            Some(Meaning::LeaderOnly(reason)) if reason.concerns(facts) => {
                Some(Alone::Marked(reason))
            }
            Some(Meaning::LeaderOnly(_)) | None => None,
        };
        let group = shard.group(&under);
        let wants_its_own = facts.coalescing() == Coalescing::LeadOnly && !group.is_empty();
        let alone = marked.or(wants_its_own.then_some(Alone::WantsItsOwn));
        if alone.is_none() {
            for shared in group.iter().filter(|shared| !shared.is_outdated()) {
                if let Some(reader) = Self::take_seat(shared, now, asker) {
                    return Ok(Join::Wait(reader));
                }
            }
        }
        // A flight is stored before it leaves the table, unless it is too long for the memory: what is
        // neither here nor there has not been fetched.
        let mut aim = Aim::Whole;
        let found = if facts.is_kept() {
            self.store.find(&asker.key, asker.headers)
        } else {
            Found::Nothing
        };
        match found {
            Found::Response(at, _) | Found::NoVariant(at)
                if under == asker.key && at.under != under =>
            {
                return Err(at.under);
            }
            Found::Response(at, response) => match response.reuse_for(now, asker, &self.purges) {
                Reuse::Fresh => {
                    self.store.used(&at.at, &response);
                    return Ok(Join::Stored(Hit::new(now, response, at, Served::Fresh)));
                }
                Reuse::NotForThis => {}
                _ if response.part().is_some() => aim = Aim::completing(response),
                Reuse::Stale
                | Reuse::OtherPart
                | Reuse::WhileRevalidating
                | Reuse::ValidateStale
                | Reuse::ValidateForRequest => aim = Aim::Renew(response),
            },
            Found::NoVariant(_) | Found::Nothing => {}
        }
        match facts.coalescing() {
            Coalescing::WaitOnly => return Ok(Join::Alone(Alone::HeadWithoutGet)),
            Coalescing::Part if !aim.is_cheap() && alone.is_none() && self.keeps_part(asker) => {
                let (fill, reader) = self.open(None, now, under, asker, Aim::Part);
                return Ok(Join::Lead { fill, reader });
            }
            Coalescing::Part if !aim.is_cheap() => {
                return Ok(Join::Alone(Alone::Bypass(Bypass::Range)));
            }
            Coalescing::LeadOrWait
            | Coalescing::LeadOnly
            | Coalescing::Part
            | Coalescing::Never(_) => {}
        }
        let is_crowded = MAX_FLIGHTS_PER_KEY <= current(group);
        match alone.or(is_crowded.then_some(Alone::Crowded)) {
            None => {
                let (fill, reader) = self.open(Some(&mut shard), now, under, asker, aim);
                Ok(Join::Lead { fill, reader })
            }
            // What is stored can be validated for this client alone.
            Some(_) if matches!(&aim, Aim::Renew(stored) if stored.has_validator()) => {
                let (fill, reader) = self.open(None, now, under, asker, aim);
                Ok(Join::Lead { fill, reader })
            }
            Some(reason) => Ok(Join::Alone(reason)),
        }
    }

    /// Whether a part that this request fetches may be stored. Its own preconditions are the origin's to judge, which may save it
    /// the content.
    fn keeps_part(&self, asker: &Asker<'_>) -> bool {
        asker.facts.is_kept()
            && asker.facts.range().is_some()
            && ![IF_NONE_MATCH, IF_MODIFIED_SINCE]
                .iter()
                .any(|it| asker.headers.contains_key(it))
            && 0 < self.store.memory().max_object()
    }

    fn take_seat(shared: &Arc<SharedFlight>, now: Instant, asker: &Asker<'_>) -> Option<Reader> {
        let facts = &asker.facts;
        if !facts.waits() {
            return None;
        }
        let mut inner = shared.lock();
        let (seat, offset) = if facts.coalescing() == Coalescing::Part {
            inner.flight.seat_at_part(now, asker)?
        } else {
            if inner.flight.admission(now, facts) != Admission::Welcome {
                return None;
            }
            (inner.flight.seat(now, facts, asker.deadline, false), 0)
        };
        drop(inner);
        Some(Reader::new(Arc::clone(shared), seat, offset, None))
    }

    /// Opens a flight that brings what is stored up to date, unless one is under way or has just failed.
    pub(crate) fn refresh(
        self: &Arc<Self>,
        now: Instant,
        under: CacheKey,
        stored: Arc<StoredResponse>,
        asker: &Asker<'_>,
    ) -> Option<Fill> {
        let mut shard = self.shard(&under).lock();
        let is_in_vain = match shard.markers.get(now, &under) {
            Some(Meaning::Failed(_)) => true,
            Some(Meaning::LeaderOnly(reason)) => reason.concerns(&asker.facts),
            None => false,
        };
        let group = shard.group(&under);
        let is_under_way =
            (group.iter()).any(|shared| !shared.is_outdated() && !shared.continues());
        if is_in_vain || is_under_way || MAX_FLIGHTS_PER_KEY <= current(group) {
            return None;
        }
        // Another may have ended since the look-up.
        if let Found::Response(_, newest) = self.store.find(&asker.key, asker.headers)
            && !Arc::ptr_eq(&newest, &stored)
        {
            return None;
        }
        let bounds = self.bounds(true);
        let flight =
            Flight::new(now, asker.facts.as_get(), bounds, Aim::Renew(stored)).in_background();
        let shared = SharedFlight::new(Arc::clone(self), under, asker, flight);
        shard
            .groups
            .entry(under)
            .or_default()
            .push(Arc::clone(&shared));
        self.counters.refreshed.add(1);
        Some(Fill::new(shared, None))
    }

    /// What is in flight for a URI that is invalidated serves those it has, and nobody after them.
    pub(crate) const fn invalidations(&self) -> &Invalidations {
        &self.invalidations
    }

    /// Gives a laggard a place in a slower flight.
    pub(crate) fn rejoin(
        self: &Arc<Self>,
        now: Instant,
        behind: Behind,
        asker: &Asker<'_>,
    ) -> Rejoin {
        let rejoin = self.try_rejoin(now, behind, asker);
        match &rejoin {
            Rejoin::Wait(_) => self.counters.rejoined.add(1),
            Rejoin::Lead { .. } => self.counters.continued.add(1),
            Rejoin::Abort => self.counters.laggards_aborted.add(1),
        }
        rejoin
    }

    fn try_rejoin(self: &Arc<Self>, now: Instant, behind: Behind, asker: &Asker<'_>) -> Rejoin {
        let Some(continuation) = behind.continuation else {
            return Rejoin::Abort;
        };
        let mut shard = self.shard(&behind.under).lock();
        let group = shard.group(&behind.under);
        for shared in group {
            let seat = shared.lock().flight.seat_at(now, &continuation);
            if let Some(seat) = seat {
                return Rejoin::Wait(Reader::new(
                    Arc::clone(shared),
                    seat,
                    continuation.offset,
                    Some(continuation),
                ));
            }
        }
        if MAX_FLIGHTS_PER_KEY <= current(group) {
            return Rejoin::Abort;
        }
        let aim = Aim::Rest(continuation);
        let (fill, reader) = self.open(Some(&mut shard), now, behind.under, asker, aim);
        Rejoin::Lead { fill, reader }
    }

    /// Opens a flight; without a shard, one that nobody else can join.
    fn open(
        self: &Arc<Self>,
        shard: Option<&mut Shard>,
        now: Instant,
        under: CacheKey,
        asker: &Asker<'_>,
        aim: Aim,
    ) -> (Fill, Reader) {
        let group = shard.map(|shard| shard.groups.entry(under).or_default());
        let is_last =
            (group.as_ref()).is_none_or(|group| MAX_FLIGHTS_PER_KEY <= current(group) + 1);
        let continuation = aim.continuation().cloned();
        let leader = match aim {
            Aim::Part => asker.facts.sent_with_range(),
            Aim::Whole | Aim::Renew(_) | Aim::Complete(_) | Aim::Rest(_) => asker.facts,
        };
        let mut flight = Flight::new(now, leader, self.bounds(is_last), aim);
        let seat = flight.seat(now, &asker.facts, asker.deadline, true);
        let shared = SharedFlight::new(Arc::clone(self), under, asker, flight);
        if let Some(group) = group {
            group.push(Arc::clone(&shared));
        }
        let reader = Reader::leading(Arc::clone(&shared), seat, continuation.clone());
        (Fill::new(shared, continuation), reader)
    }

    fn bounds(&self, patient: bool) -> Bounds {
        Bounds {
            buffer: self.config.flight_buffer,
            max_object: self.store.memory().max_object(),
            patient,
            has_disk: self.store.disk().is_some_and(|disk| disk.store().is_some()),
        }
    }

    /// What a response to a request that went alone says about its key.
    pub(crate) fn learn(&self, now: Instant, under: &CacheKey, sharing: &Sharing) {
        let mut group = GroupLock {
            shard: self.shard(under).lock(),
            under: *under,
            counters: &self.counters,
        };
        match sharing {
            Sharing::Shared(_) => group.end_marker(),
            Sharing::LeaderOnly {
                reason,
                marks: true,
                ..
            } => group.mark_leader_only(now, *reason),
            Sharing::LeaderOnly { marks: false, .. } => {}
        }
    }

    /// How many flights can be joined now.
    pub(crate) fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.lock().groups.values().map(Vec::len).sum::<usize>())
            .sum()
    }

    /// What their windows weigh.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn group<'a>(&'a self, shared: &SharedFlight) -> GroupLock<'a> {
        GroupLock {
            shard: self.shard(&shared.under).lock(),
            under: shared.under,
            counters: &self.counters,
        }
    }

    fn shard(&self, key: &CacheKey) -> &Mutex<Shard> {
        // The low bits; the tables inside use others.
        let index = usize::try_from(key.short_hash() % SHARDS as u64).unwrap_or(0);
        &self.shards[index]
    }
}

/// How many of a key's flights can still be of use to those who come.
fn current(group: &[Arc<SharedFlight>]) -> usize {
    group.iter().filter(|shared| !shared.is_outdated()).count()
}

/// The shard of a key, locked: what is decided under it about the key's flights holds.
struct GroupLock<'a> {
    shard: MutexGuard<'a, Shard>,
    under: CacheKey,
    counters: &'a CacheCounters,
}

impl GroupLock<'_> {
    /// Nobody may join that flight any more.
    fn remove(&mut self, shared: &Arc<SharedFlight>) {
        if let Some(group) = self.shard.groups.get_mut(&self.under) {
            group.retain(|other| !Arc::ptr_eq(other, shared));
            if group.is_empty() {
                self.shard.groups.remove(&self.under);
            }
        }
    }

    fn mark_leader_only(&mut self, now: Instant, reason: LeaderOnly) {
        let marked = self.shard.markers.mark_leader_only(now, self.under, reason);
        self.count(marked);
    }

    fn mark_failed(&mut self, now: Instant, failure: Failure) {
        let marked = self.shard.markers.mark_failed(now, self.under, failure);
        self.count(marked);
    }

    fn end_marker(&mut self) {
        if self.shard.markers.end(&self.under) {
            self.counters.markers_ended.add(1);
        }
    }

    fn count(&self, marked: Marked) {
        match marked {
            Marked::New => self.counters.markers_set.add(1),
            Marked::NewForOld => {
                self.counters.markers_set.add(1);
                self.counters.markers_evicted.add(1);
            }
            Marked::Renewed => {}
        }
    }
}

#[cfg(test)]
pub(crate) mod test_time {
    use std::sync::OnceLock;
    use std::time::{Duration, Instant};

    /// So many milliseconds after the tests' epoch.
    pub(crate) fn at(milliseconds: u64) -> Instant {
        static EPOCH: OnceLock<Instant> = OnceLock::new();
        #[expect(
            clippy::disallowed_methods,
            reason = "the tests' epoch; from here on time is an argument"
        )]
        let epoch = *EPOCH.get_or_init(Instant::now);
        epoch + Duration::from_millis(milliseconds)
    }
}
