//! The cache as its owner sees it: a store, and the flights in front of it.

mod learning;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use crate::asker::Asker;
use crate::counters::{CacheCounters, Counted};
use crate::disk::{Disk, Folder, FolderError, Loading, Stored, StoredBody};
use crate::flights::{Behind, Fill, Flights, FlightsConfig, Join, MAX_MARKERS, Rejoin};
use crate::key::CacheKey;
use crate::policy::{Forward, Policy, Reuse, Trouble};
use crate::purge::{Epoch, Purge, PurgeError, Purged, Purges, Restored};
use crate::store::{
    FileStore, Found, Hit, MemoryTier, Served, SledStore, Store, StoredResponse, Tiers, Usage,
};

pub use learning::Beginning;

const MIB: usize = 1024 * 1024;

/// The largest response that is kept in memory, unless configured: this part of the capacity.
const DEFAULT_OBJECT_SHARE: u64 = 16;

/// A store behind a memory tier of nothing still needs the heads of what is being sent from it.
const HEADS_IN_USE: u64 = 4 * MIB as u64;

/// How long a start waits for the folder, and for its list of purges of at most 40 MiB. A disk that takes longer stands still.
const START_PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error("the disk did not answer within {START_PATIENCE:?}")]
    StandsStill,
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error("the list of purges cannot be written: {0}")]
    Purges(io::Error),
    #[error("there are no threads for the store: {0}")]
    Threads(io::Error),
}

/// The bounds of a cache.
#[derive(Debug, Clone, Copy)]
pub struct CacheConfig {
    /// Bytes of stored responses in memory, overhead included. Without a store 0 stores nothing, and still
    /// coalesces; with one a few MiB for heads are kept in any case.
    pub memory: u64,
    /// The largest content that is kept in memory; by default a sixteenth of `memory`. What is longer goes to the store, if there is
    /// one.
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

impl CacheConfig {
    /// The largest response kept in memory.
    fn max_object(&self) -> u64 {
        self.memory_max_object
            .unwrap_or(self.memory / DEFAULT_OBJECT_SHARE)
    }
}

/// Stored responses and flights, shared by all threads of a frontend.
#[derive(Debug)]
pub struct Cache {
    store: Arc<Tiers>,
    flights: Arc<Flights>,
    purges: Arc<Purges>,
    counters: Arc<CacheCounters>,
    policy: Policy,
    /// What was asked for behind the memory tier.
    configured: Option<StoreConfig>,
    /// Held for as long as anything is written there.
    _folder: Option<Arc<Folder>>,
    /// Another process had that when this one began.
    awaits_folder: bool,
}

/// What stands behind a memory tier.
struct Backing {
    folder: Arc<Folder>,
    is_taken: bool,
    disk: Disk,
}

/// What a lookup found.
#[derive(Debug)]
pub enum Lookup {
    /// A stored response that may be sent: send it. Where it is [`Served::WhileRevalidating`], [`Cache::refresh`] too.
    Hit(Hit),
    /// It may be on the disk: wait with [`Cache::poll_loading`].
    Loading(Loading),
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

/// Where a cache keeps what is to outlive the process.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Which store.
    pub kind: StoreKind,
    /// The folder, which no other process may use.
    pub path: PathBuf,
    /// Bytes on the disk.
    pub capacity: u64,
    /// Whether a process that has the folder is about to end. Then its memory serves until that has let go of it, and purges
    /// wait for that to be confirmed. Otherwise a folder in use is an error, and is done without.
    pub awaits_folder: bool,
}

/// The stores there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    /// [`FileStore`]: segments and files.
    File,
    /// [`SledStore`]: a database, and files for what is large.
    Sled,
}

impl StoreKind {
    /// Its name, as in a configuration and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Sled => "sled",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::File => Self::Sled,
            Self::Sled => Self::File,
        }
    }
}

/// What stands behind the memory tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreState {
    /// Nothing was asked for.
    None,
    /// A store that is open.
    Open,
    /// A store that is being opened, could not be, or was given up: the log says which.
    NotOpen,
    /// A store was asked for, and its folder is in use or cannot be written: the log says why.
    Without,
}

impl StoreState {
    /// Its name, as operators are told it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Open => "open",
            Self::NotOpen => "not-open",
            Self::Without => "without",
        }
    }
}

impl Cache {
    /// An empty cache in memory.
    pub fn new(config: CacheConfig) -> Self {
        let counters = Arc::new(CacheCounters::default());
        let purges = Purges::in_memory(Arc::clone(&counters));
        Self::of(config, counters, Arc::new(purges), None, None)
    }

    /// A cache with a store behind its memory. Whatever is wrong with the store is logged, and the cache runs without: a site is
    /// served more slowly rather than not at all. `wall` is the time of day.
    ///
    /// Waits for the folder and its list of purges, for 30 s at most. The store opens in the background;
    /// [`Cache::wait_until_open`] waits for it.
    pub fn with_store(config: CacheConfig, store: &StoreConfig, wall: SystemTime) -> Self {
        let counters = Arc::new(CacheCounters::default());
        match Self::open_in_time(store, config.max_object(), wall, &counters) {
            Ok((purges, backing)) => Self::of(config, counters, purges, Some(backing), Some(store)),
            Err(error) => {
                tracing::error!(%error, "running without a store on the disk");
                let purges = Purges::out_of_reach(Arc::clone(&counters));
                Self::of(config, counters, Arc::new(purges), None, Some(store))
            }
        }
    }

    fn open_in_time(
        config: &StoreConfig,
        max_object: u64,
        wall: SystemTime,
        counters: &Arc<CacheCounters>,
    ) -> Result<(Arc<Purges>, Backing), OpenError> {
        let (config, counters) = (config.clone(), Arc::clone(counters));
        let (opened, in_time) = channel();
        std::thread::Builder::new()
            .name("store-folder".into())
            .spawn(move || {
                let store = Self::open_store(&config, max_object, wall, &counters);
                // Too late, it is let go of.
                _ = opened.send(store);
            })
            .map_err(OpenError::Threads)?;
        let store = in_time.recv_timeout(START_PATIENCE);
        store.unwrap_or(Err(OpenError::StandsStill))
    }

    fn open_store(
        config: &StoreConfig,
        max_object: u64,
        wall: SystemTime,
        counters: &Arc<CacheCounters>,
    ) -> Result<(Arc<Purges>, Backing), OpenError> {
        let (folder, is_taken) = if config.awaits_folder {
            Folder::take_or_find(&config.path)?
        } else {
            (Folder::take(&config.path)?, true)
        };
        let folder = Arc::new(folder);
        // Without knowing what was purged, nothing of what is stored could be used.
        let purges = if is_taken {
            let opened = Purges::open(folder.path(), wall, Arc::clone(counters));
            let (purges, restored) = opened.map_err(OpenError::Purges)?;
            warn_of(restored);
            purges
        } else {
            tracing::info!(
                "the store is used as soon as the process before this one lets go of it"
            );
            Purges::awaited(folder.path(), wall, Arc::clone(counters)).map_err(OpenError::Purges)?
        };
        let purges = Arc::new(purges);
        let StoreConfig { kind, capacity, .. } = *config;
        let (place, awaited) = (Arc::clone(&folder), Arc::clone(&purges));
        let open = move || -> io::Result<Arc<dyn Store>> {
            let path = place.path();
            if !is_taken {
                let reached = place.wait().and_then(|()| awaited.reach(path, wall));
                warn_of(reached.inspect_err(|_| awaited.give_up_reach())?);
                tracing::info!("the process before this one has let go of the store");
            }
            Folder::discard_if_told(path, &["file", "sled"])?;
            // What is invalidated from here on is not removed from the other's records: they must not come back.
            Folder::discard(path, kind.other().name())?;
            Ok(match kind {
                StoreKind::File => Arc::new(FileStore::open(&path.join("file"), capacity)?),
                StoreKind::Sled => Arc::new(SledStore::open(&path.join("sled"), capacity)?),
            })
        };
        let discard = folder.discard_at_next_start();
        let held = Some(Arc::clone(&folder));
        let disk =
            Disk::new(held, open, discard, max_object, counters).map_err(OpenError::Threads)?;
        let backing = Backing {
            folder,
            is_taken,
            disk,
        };
        Ok((purges, backing))
    }

    fn of(
        config: CacheConfig,
        counters: Arc<CacheCounters>,
        purges: Arc<Purges>,
        backing: Option<Backing>,
        configured: Option<&StoreConfig>,
    ) -> Self {
        let awaits_folder = backing.as_ref().is_some_and(|backing| !backing.is_taken);
        let (folder, disk) = backing.map(|it| (it.folder, it.disk)).unzip();
        let floor = if disk.is_some() { HEADS_IN_USE } else { 0 };
        let memory = MemoryTier::new(
            config.memory.max(floor),
            config.memory_max_object,
            config.seed,
            Arc::clone(&purges),
            Arc::clone(&counters),
        );
        let store = Arc::new(Tiers::new(memory, disk));
        let flights_config = FlightsConfig {
            policy: config.policy,
            // With less than one piece at a time nothing would ever move.
            flight_buffer: config.flight_buffer.max(1),
            flights_memory: config.flights_memory,
            max_markers: MAX_MARKERS,
            seed: config.seed,
        };
        let flights = Flights::new(
            flights_config,
            Arc::clone(&store),
            Arc::clone(&purges),
            Arc::clone(&counters),
        );
        Self {
            store,
            flights,
            purges,
            counters,
            policy: config.policy,
            configured: configured.cloned(),
            _folder: folder,
            awaits_folder,
        }
    }

    /// Waits until the store is open, as long as that; it goes on opening afterwards. For one that another process has still it does
    /// not wait. Blocks its thread.
    pub fn wait_until_open(&self, patience: Duration) {
        if let Some(disk) = self.store.disk()
            && !self.awaits_folder
            && !disk.wait_until_open(patience)
        {
            tracing::warn!("the store is still being opened: what it holds is not used yet");
        }
    }

    /// Writes what is still to be written to the disk, as far as that is done in time. Nothing is kept there afterwards. Blocks its
    /// thread.
    pub fn close(&self, patience: Duration) {
        if let Some(disk) = self.store.disk() {
            disk.close(patience);
        }
    }

    /// What stands behind the memory tier.
    pub fn store_state(&self) -> StoreState {
        match (&self.configured, self.store.disk()) {
            (None, _) => StoreState::None,
            (Some(_), None) => StoreState::Without,
            (Some(_), Some(disk)) if disk.store().is_some() => StoreState::Open,
            (Some(_), Some(_)) => StoreState::NotOpen,
        }
    }

    /// What was asked for behind the memory tier.
    pub fn store_config(&self) -> Option<&StoreConfig> {
        self.configured.as_ref()
    }

    /// What the store behind the memory tier counts itself; nothing while it is not open.
    pub fn store_counters(&self) -> Vec<Counted> {
        let store = self.store.disk().and_then(Disk::store);
        store.map_or_else(Vec::new, |store| store.counters())
    }

    /// What the store behind the memory tier holds, if there is one and it is open.
    pub fn store_usage(&self) -> Option<Usage> {
        Some(self.store.disk()?.store()?.usage())
    }

    /// Bytes that wait to be written to the disk.
    pub fn store_waiting(&self) -> usize {
        self.store.disk().map_or(0, Disk::waiting)
    }

    /// Looks for a stored response that may answer this request now. No lock is held afterwards, no
    /// body copied.
    pub fn lookup(&self, now: Instant, asker: &Asker<'_>) -> Lookup {
        if !asker.facts.looks_in_store() {
            return miss(asker, asker.key, Forward::Bypass);
        }
        let serves =
            |stored: &StoredResponse| stored.reuse_for(now, asker, &self.purges) == Reuse::Fresh;
        match self.store.look(&asker.key, asker.headers, serves) {
            Ok(found) => self.judge(now, asker, found),
            Err(loading) => Lookup::Loading(loading),
        }
    }

    /// The same with what is in memory alone, when the disk has been asked.
    pub fn lookup_in_memory(&self, now: Instant, asker: &Asker<'_>) -> Lookup {
        let found = self.store.find(&asker.key, asker.headers);
        self.judge(now, asker, found)
    }

    /// Waits for what a lookup found on the disk. True: look again. False: there was nothing, go on with
    /// [`Cache::lookup_in_memory`].
    pub fn poll_loading(&self, cx: &mut Context<'_>, loading: &Loading) -> Poll<bool> {
        self.store.poll_loading(cx, loading)
    }

    fn judge(&self, now: Instant, asker: &Asker<'_>, found: Found) -> Lookup {
        let (at, response) = match found {
            Found::Response(at, response) => (at, response),
            Found::Nothing => {
                self.counters.misses.add(1);
                return miss(asker, asker.key, Forward::UriMiss);
            }
            Found::NoVariant(at) => {
                self.counters.misses.add(1);
                return miss(asker, at.under, Forward::VaryMiss);
            }
        };
        match response.purged(&self.purges) {
            Purged::No | Purged::Hard => {}
            Purged::Soft => self.counters.purged_soft.add(1),
            Purged::Unsure => self.counters.purged_unsure.add(1),
        }
        let (counter, served) = match response.reuse_for(now, asker, &self.purges) {
            Reuse::Fresh => (&self.counters.hits, Served::Fresh),
            Reuse::Stale => (&self.counters.stale_as_wanted, Served::Stale),
            Reuse::WhileRevalidating => (
                &self.counters.stale_while_revalidate,
                Served::WhileRevalidating,
            ),
            Reuse::ValidateStale => {
                self.counters.stale.add(1);
                return miss(asker, at.under, Forward::Stale);
            }
            Reuse::OtherPart => {
                self.counters.misses.add(1);
                return miss(asker, at.under, Forward::Partial);
            }
            Reuse::ValidateForRequest | Reuse::NotForThis => {
                self.counters.refused_by_request.add(1);
                return miss(asker, at.under, Forward::Request);
            }
        };
        counter.add(1);
        let is_from_disk = self.store.used(&at.at, &response);
        if is_from_disk && served == Served::Fresh {
            self.counters.hits_from_disk.add(1);
        }
        Lookup::Hit(Hit::new(now, response, at, served))
    }

    /// Somebody has lost patience with the disk.
    pub fn count_late(&self) {
        self.counters.store_late.add(1);
    }

    /// The content of a hit from the block on in which that byte lies, and how many bytes before it come with it. If a block turns
    /// out to be damaged, the response is forgotten, and the next lookup is a miss.
    pub fn content(&self, hit: &Hit, first: u64) -> (StoredBody, u64) {
        let is_in_memory = hit.response.blocks().is_some();
        let stored = (!is_in_memory).then(|| Stored {
            at: hit.at,
            tiers: Arc::clone(&self.store),
            counters: Arc::clone(&self.counters),
        });
        StoredBody::from_byte(Arc::clone(&hit.response), first, stored)
    }

    /// Opens the flight that brings a response up to date which is sent stale meanwhile; none where one is under way, or failed
    /// a moment ago.
    pub fn refresh(&self, now: Instant, hit: &Hit, asker: &Asker<'_>) -> Option<Fill> {
        let stored = Arc::clone(&hit.response);
        self.flights.refresh(now, hit.key, stored, asker)
    }

    /// The stored response that stands in for an answer, because of that trouble.
    pub fn stand_in(&self, now: Instant, asker: &Asker<'_>, trouble: Trouble) -> Option<Hit> {
        if !asker.facts.looks_in_store() {
            return None;
        }
        let Found::Response(at, response) = self.store.find(&asker.key, asker.headers) else {
            return None;
        };
        let stands_in = response.stands_in(now, &asker.facts, &self.purges, trouble);
        if !stands_in || !response.has_bytes_for(asker) {
            return None;
        }
        self.counters.stale_in_trouble.add(1);
        self.store.used(&at.at, &response);
        Some(Hit::new(now, response, at, Served::InTrouble))
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

    /// Purges: see [`Purges::purge`]. Takes as long as a disk takes; call it from a thread that may wait.
    ///
    /// # Errors
    /// The purges hold, but the next process may not know of them: they must not be confirmed.
    pub fn purge(&self, purges: &[Purge]) -> Result<Epoch, PurgeError> {
        self.purges.purge(purges)
    }

    /// Where the RFCs leave a choice.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Everything counted.
    pub fn counters(&self) -> &CacheCounters {
        &self.counters
    }

    /// The memory tier, for its sizes.
    pub fn memory_tier(&self) -> &MemoryTier {
        self.store.memory()
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

fn warn_of(restored: Restored) {
    if restored == Restored::Damaged {
        tracing::warn!(
            "the list of purges is damaged: all that is stored is validated before it is used"
        );
    }
}

fn miss(asker: &Asker<'_>, under: CacheKey, forward: Forward) -> Lookup {
    if asker.facts.only_if_cached() {
        Lookup::GatewayTimeout
    } else {
        Lookup::Miss { under, forward }
    }
}
