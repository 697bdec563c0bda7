//! The cache as its owner sees it: a store, and the flights in front of it.

use std::sync::Arc;
use std::time::Instant;

use crate::asker::Asker;
use crate::counters::CacheCounters;
use crate::flights::{Behind, Flights, FlightsConfig, Join, MAX_MARKERS, Rejoin};
use crate::key::CacheKey;
use crate::policy::{Forward, Policy, Sharing};
use crate::store::{Found, Hit, MemoryStore};

const MIB: usize = 1024 * 1024;

/// The bounds of a cache.
#[derive(Debug, Clone, Copy)]
pub struct CacheConfig {
    /// Bytes of stored responses in memory, overhead included; 0 stores nothing and still
    /// coalesces.
    pub memory: u64,
    /// The largest response that is stored; by default a sixteenth of `memory`.
    pub memory_max_object: Option<u64>,
    /// What one flight keeps of a body that is not (or no longer) on its way into the store. More
    /// lets late and slow clients share longer.
    pub flight_buffer: usize,
    /// What all flights together keep. Beyond it each makes do with 256 KiB, so that many slow
    /// downloads of different URLs stay bounded.
    pub flights_memory: usize,
    /// Where the RFCs leave a choice.
    pub policy: Policy,
    /// Any random number; it spreads the ends of markers.
    pub seed: u64,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            memory: 256 * MIB as u64,
            memory_max_object: None,
            flight_buffer: 8 * MIB,
            flights_memory: 64 * MIB,
            policy: Policy::default(),
            seed: 0,
        }
    }
}

/// Stored responses and flights, shared by all threads of a frontend.
#[derive(Debug)]
pub struct Cache {
    store: Arc<MemoryStore>,
    flights: Arc<Flights>,
    counters: Arc<CacheCounters>,
    policy: Policy,
}

/// What a lookup found.
#[derive(Debug)]
pub enum Lookup {
    /// A fresh stored response: send it.
    Hit(Hit),
    /// Nothing that may be sent: [`Cache::join`].
    Miss {
        /// The key to join under: the primary one, or that of the variant this request selects.
        under: CacheKey,
        /// Why it goes forward, for `Cache-Status`.
        forward: Forward,
    },
    /// The same, and the request said `only-if-cached`: answer 504.
    GatewayTimeout,
}

impl Cache {
    /// An empty cache.
    pub fn new(config: CacheConfig) -> Self {
        let counters = Arc::new(CacheCounters::default());
        let store = Arc::new(MemoryStore::new(
            config.memory,
            config.memory_max_object,
            Arc::clone(&counters),
        ));
        let flights_config = FlightsConfig {
            policy: config.policy,
            // With less than one piece at a time nothing would ever move.
            flight_buffer: config.flight_buffer.max(1),
            flights_memory: config.flights_memory,
            max_markers: MAX_MARKERS,
            seed: config.seed,
        };
        let flights = Flights::new(flights_config, Arc::clone(&store), Arc::clone(&counters));
        Self {
            store,
            flights,
            counters,
            policy: config.policy,
        }
    }

    /// Looks for a stored response that may answer this request now. No lock is held afterwards, no
    /// body copied.
    pub fn lookup(&self, now: Instant, asker: &Asker<'_>) -> Lookup {
        if !asker.facts.may_be_answered_from_store() {
            return miss(asker, asker.key, Forward::Bypass);
        }
        match self.store.find(&asker.key, asker.headers) {
            Found::Response(response, key) => match self.store.hit(now, asker, &response) {
                Some(hit) => {
                    self.counters.hits.add(1);
                    Lookup::Hit(hit)
                }
                None if response.ttl(now).is_none() => {
                    self.counters.stale.add(1);
                    miss(asker, key, Forward::Stale)
                }
                None => {
                    self.counters.refused_by_request.add(1);
                    miss(asker, key, Forward::Request)
                }
            },
            Found::Nothing => {
                self.counters.misses.add(1);
                miss(asker, asker.key, Forward::UriMiss)
            }
            Found::NoVariant(key) => {
                self.counters.misses.add(1);
                miss(asker, key, Forward::VaryMiss)
            }
        }
    }

    /// Joins the flight of a key, or opens it. `under` comes from [`Lookup::Miss`], or from
    /// [`crate::Turn::Variant`].
    pub fn join(&self, now: Instant, under: CacheKey, asker: &Asker<'_>) -> Join {
        self.flights.join(now, under, asker)
    }

    /// Lets a client that was too slow for its flight go on in a slower one. `asker` is its
    /// request; its facts and fields go into the request for the rest.
    pub fn rejoin(&self, now: Instant, behind: Behind, asker: &Asker<'_>) -> Rejoin {
        self.flights.rejoin(now, behind, asker)
    }

    /// Tells what a request that went alone heard: a shareable response ends the key's marker, one
    /// for its leader only renews it. Judge it with [`Sharing::judge`] and [`Cache::policy`].
    pub fn learn(&self, now: Instant, under: &CacheKey, sharing: &Sharing) {
        self.flights.learn(now, under, sharing);
    }

    /// Where the RFCs leave a choice.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Everything counted.
    pub fn counters(&self) -> &CacheCounters {
        &self.counters
    }

    /// The store, for its sizes.
    pub fn store(&self) -> &MemoryStore {
        &self.store
    }

    /// How many flights can be joined now.
    pub fn flights(&self) -> usize {
        self.flights.len()
    }

    /// What the windows of all flights weigh.
    pub fn flight_bytes(&self) -> usize {
        self.flights.bytes()
    }
}

fn miss(asker: &Asker<'_>, under: CacheKey, forward: Forward) -> Lookup {
    if asker.facts.only_if_cached() {
        Lookup::GatewayTimeout
    } else {
        Lookup::Miss { under, forward }
    }
}
