//! Purging: what was stored before is not what is answered after.
//!
//! Nothing is searched for. A purge takes the next [`Epoch`] and notes it under a hash of what it names ([`Target`]); a stored
//! response knows the epoch at which its fetch began, and the same hashes of what it can be purged by ([`Labels`]). Whoever is
//! about to use it asks whether one of them was purged since ([`Purges::judge`]). So a purge costs the same whatever it hits, and
//! what it hits is removed when it is found, or makes room like everything else.

mod labels;
mod log;
mod record;
mod table;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use parking_lot::{Condvar, Mutex};

use crate::counters::CacheCounters;
use record::{Record, What};

pub use labels::{Labels, MAX_PREFIXES, MAX_TAGS};
use log::PurgeLog;
pub use log::Restored;
use table::PurgeTable;

/// A point in the sequence of purges. Every call of [`Purges::purge`] takes the next.
///
/// A response is of the epoch at which its *fetch* began, for life, and on the disk too: a purge that came while it was under way
/// has a later one. Epochs never run backwards, not over restarts either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Epoch(u64);

impl Epoch {
    /// The epoch that [`Epoch::get`] told.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// As a number, to be stored.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// What to purge, and how thoroughly.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Purge {
    /// Which responses.
    pub target: Target,
    /// True: they count as stale from now on, and may serve while one request refreshes them. False: they are gone.
    pub soft: bool,
}

/// Which responses a purge is about. Authority, path and query are in the form in which requests are keyed; the scheme is of no
/// account, as who purges cannot always know which one a proxy in front has told.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// Those of one URL, all variants.
    Url {
        /// Lower case, without a default port.
        authority: String,
        /// From its first slash, the query included.
        path_and_query: String,
    },
    /// Those of a path and of all below it, whatever their query: `/a/b` is about `/a/b`, `/a/b/` and `/a/b/c`, and not about
    /// `/a/bc`. One slash at its end is of no account; an empty path is the whole authority.
    Prefix {
        /// Lower case, without a default port.
        authority: String,
        /// Without a query.
        path: String,
    },
    /// Those that carry this tag in `Surrogate-Key` or `Cache-Tag`, letter by letter.
    Tag(String),
    /// All.
    All,
}

/// What became of a response through the purges since its fetch began; the strongest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purged {
    /// It was not purged: use it.
    No,
    /// It is stale: serve it where `stale-while-revalidate` would allow that, and validate it.
    Soft,
    /// It may have been purged, and what was noted is not enough to tell: validate it before it is used. Where the origin says that
    /// it is unchanged, it is of the epoch at which it was asked.
    Unsure,
    /// It is gone: neither serve nor validate it.
    Hard,
}

/// An answer of [`Purges::judge`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement {
    /// What became of it.
    pub purged: Purged,
    /// The epoch for which this holds: while [`Purges::now`] is the same, there is no need to ask again.
    pub as_of: Epoch,
}

/// A purge holds in this process, and may be forgotten by the next: it must not be confirmed. Repeating it is safe.
#[derive(Debug, thiserror::Error)]
#[error("the purge holds, but could not be written down: {source}")]
pub struct PurgeError {
    /// Its epoch.
    pub epoch: Epoch,
    /// What the disk said.
    pub source: io::Error,
}

/// All purges of a cache, in memory, and where its responses outlive the process, on the disk.
pub struct Purges {
    table: PurgeTable,
    log: Log,
    counters: Arc<CacheCounters>,
}

/// Where purges are written down.
#[derive(Debug)]
enum Log {
    /// Nowhere: nothing outlives the process.
    Needless,
    /// There.
    Here(PurgeLog),
    /// Nowhere, though the next process may use what was stored before.
    OutOfReach,
    /// There, as soon as the process before has let go of it.
    Awaited(AwaitedLog),
}

/// How long a purge waits for the process before to let go of the file: two seconds less than `scale0 purge` waits.
const AWAITS_LOG: Duration = Duration::from_secs(8);

#[derive(Debug, Default)]
struct AwaitedLog {
    /// `None` inside: it will never come.
    log: OnceLock<Option<PurgeLog>>,
    setting: Mutex<()>,
    is_set: Condvar,
}

impl AwaitedLog {
    fn set(&self, log: Option<PurgeLog>) {
        let _setting = self.setting.lock();
        _ = self.log.set(log);
        self.is_set.notify_all();
    }

    fn within(&self, patience: Duration) -> io::Result<&PurgeLog> {
        let mut setting = self.setting.lock();
        let is_awaited = |(): &mut ()| self.log.get().is_none();
        self.is_set
            .wait_while_for(&mut setting, is_awaited, patience);
        match self.log.get() {
            Some(log) => log.as_ref().ok_or_else(out_of_reach),
            None => Err(io::Error::other(
                "the process before this one has the store still",
            )),
        }
    }
}

fn out_of_reach() -> io::Error {
    io::Error::other("the store is out of reach of this process")
}

impl Purges {
    /// For a cache that begins empty with every process.
    pub fn in_memory(counters: Arc<CacheCounters>) -> Self {
        let (table, log) = (PurgeTable::default(), Log::Needless);
        Self {
            table,
            log,
            counters,
        }
    }

    /// For a cache whose folder is out of reach just now. What lies there may be used by the next process, which will not know of
    /// these purges: none of them can be confirmed.
    pub fn out_of_reach(counters: Arc<CacheCounters>) -> Self {
        let (table, log) = (PurgeTable::default(), Log::OutOfReach);
        Self {
            table,
            log,
            counters,
        }
    }

    /// For a cache whose responses lie in this folder: reads what was purged there before. `wall` says the time. No other process
    /// may have it open.
    ///
    /// # Errors
    /// Nothing can be written there. What is stored there must not be used then, and nothing be stored: nobody could say later what
    /// of it was purged.
    pub fn open(
        folder: &Path,
        wall: SystemTime,
        counters: Arc<CacheCounters>,
    ) -> io::Result<(Self, Restored)> {
        let table = PurgeTable::default();
        let (log, restored) = PurgeLog::open(folder, wall, &table)?;
        let purges = Self {
            table,
            log: Log::Here(log),
            counters,
        };
        Ok((purges, restored))
    }

    /// For a cache whose responses lie in a folder that another process has still: [`Purges::reach`] follows when that has let go of
    /// it. Until then nothing of them can be judged, and purges wait to be confirmed.
    ///
    /// # Errors
    /// There are no epochs left.
    pub fn awaited(
        folder: &Path,
        wall: SystemTime,
        counters: Arc<CacheCounters>,
    ) -> io::Result<Self> {
        let table = PurgeTable::default();
        log::begin_after(folder, wall, &table)?;
        let log = Log::Awaited(AwaitedLog::default());
        Ok(Self {
            table,
            log,
            counters,
        })
    }

    /// Reads what was purged in that folder, which is this process's now, and writes down what was purged here meanwhile.
    ///
    /// # Errors
    /// As with [`Purges::open`].
    pub fn reach(&self, folder: &Path, wall: SystemTime) -> io::Result<Restored> {
        let opened = PurgeLog::open(folder, wall, &self.table);
        let (log, restored) = match opened {
            Ok((log, restored)) => (Some(log), Ok(restored)),
            Err(error) => (None, Err(error)),
        };
        if let Log::Awaited(awaited) = &self.log {
            awaited.set(log);
        }
        restored
    }

    /// What lies in that folder will never be used by this process.
    pub fn give_up_reach(&self) {
        if let Log::Awaited(awaited) = &self.log {
            awaited.set(None);
        }
    }

    /// The latest epoch: what a fetch that begins now is of. One atomic load.
    pub fn now(&self) -> Epoch {
        self.table.latest()
    }

    /// Purges. When this returns, nobody who asks afterwards is told that they were not; and they are on the disk, if there is one.
    /// What is given together takes one epoch and one wait for the disk, which calls of other threads share.
    ///
    /// Takes as long as a disk takes: call it from a thread that may wait.
    ///
    /// # Errors
    /// They hold, but were not written down.
    pub fn purge(&self, purges: &[Purge]) -> Result<Epoch, PurgeError> {
        let marks: Vec<(What, bool)> = purges
            .iter()
            .map(|purge| (what(&purge.target), purge.soft))
            .collect();
        self.count(purges);
        let epoch = self.table.purge(&marks);
        let records = marks.iter().map(|&(what, soft)| Record {
            epoch: epoch.0,
            what,
            soft,
        });
        let written = match &self.log {
            Log::Needless => Ok(()),
            Log::Here(log) => log.append(records, &self.table),
            Log::OutOfReach => Err(out_of_reach()),
            // When the process before this one has let go of the store, it answers nothing more from it.
            Log::Awaited(log) => log
                .within(AWAITS_LOG)
                .and_then(|log| log.append(records, &self.table)),
        };
        written.map_err(|source| {
            self.counters.purges_unconfirmed.add(purges.len() as u64);
            PurgeError { epoch, source }
        })?;
        Ok(epoch)
    }

    /// Whether a response with these labels, the fetch of which began at `born`, was purged since. Waits for nobody.
    pub fn judge(&self, born: Epoch, labels: &Labels) -> Judgement {
        self.table.judge(born, labels)
    }

    fn count(&self, purges: &[Purge]) {
        for purge in purges {
            let counter = match purge.target {
                Target::Url { .. } => &self.counters.purges_url,
                Target::Prefix { .. } => &self.counters.purges_prefix,
                Target::Tag(_) => &self.counters.purges_tag,
                Target::All => &self.counters.purges_all,
            };
            counter.add(1);
        }
    }
}

impl fmt::Debug for Purges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Purges")
            .field("now", &self.now())
            .field("log", &self.log)
            .finish_non_exhaustive()
    }
}

/// What a purge of this target is noted under.
fn what(target: &Target) -> What {
    match target {
        Target::Url {
            authority,
            path_and_query,
        } => What::Label(labels::of_url(authority, path_and_query)),
        Target::Prefix { authority, path } => {
            labels::of_prefix(authority, path).map_or(What::DeepPrefix, What::Label)
        }
        Target::Tag(tag) => What::Tag(labels::of_tag(tag.as_bytes())),
        Target::All => What::All,
    }
}
