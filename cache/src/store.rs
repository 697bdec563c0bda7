//! Stored responses, and where they are kept.
//!
//! In front is the **memory tier** ([`MemoryTier`]), which keeps responses as they are sent. Behind it may stand a [`Store`],
//! which keeps **records**: a body in blocks, and a head of which it knows nothing. [`FileStore`] and [`SledStore`] keep them on a
//! disk, beyond the life of the process; [`MemoryStore`] does not, and is for tests and for building upon.

mod blocks;
mod combined;
pub mod conformance;
mod doorkeeper;
mod file;
mod memory;
mod memory_tier;
mod response;
mod sled;
mod table;
mod tiers;

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::counters::Counted;
use crate::key::CacheKey;

pub use blocks::{BLOCK, COPY_BELOW};
pub(crate) use blocks::{detach, settle};
pub(crate) use combined::{Combined, combine};
pub use file::{FileCounters, FileStore};
pub use memory::{MemoryCounters, MemoryStore};
pub use memory_tier::MemoryTier;
pub(crate) use memory_tier::{At, Found, Place};
pub use response::{Hit, ResponseHead, Served, StoredResponse};
pub(crate) use response::{Origin, StoredContent};
pub use sled::{SledCounters, SledStore};
pub(crate) use tiers::Tiers;

/// Keeps records by key, up to a number of bytes that is its own.
///
/// A store need not keep what it was given, and may forget at any time: a cache can always ask the origin. What it must not do is
/// give back something else. What it keeps is checked by whoever asked, block by block, so damage on a disk is none of its
/// concern; an [`Err`] is counted, and costs a request to the origin and nothing more.
///
/// Every call may take as long as a disk takes: it comes from a thread that may wait. Those whose name ends in `now` and
/// [`Store::may_hold`], [`Store::touch`], [`Store::usage`] and [`Store::counters`] come from threads that may not.
///
/// Calls about one key may come from several threads at once. A record that is open stays readable, or fails, whatever happens to
/// its key; what was read before and what is read after belong to the same record.
///
/// `scale0_cache::store::conformance` tests an implementation in one line.
pub trait Store: fmt::Debug + Send + Sync {
    /// Whether there may be a record under this key. `false` has to be certain, as it spares a hand-over to another thread.
    fn may_hold(&self, key: &CacheKey) -> bool {
        let _ = key;
        true
    }

    /// The record under this key.
    ///
    /// # Errors
    /// It is there and cannot be read.
    fn open(&self, key: &CacheKey) -> io::Result<Option<Arc<dyn Record>>>;

    /// The same without waiting. `None`: that cannot be; ask [`Store::open`] on a thread that may wait.
    fn open_now(&self, key: &CacheKey) -> Option<io::Result<Option<Arc<dyn Record>>>> {
        let _ = key;
        None
    }

    /// The longest body that it takes, in bytes. What is known to be longer is not begun.
    fn max_body(&self) -> u64 {
        u64::MAX
    }

    /// Begins a record, which is nowhere until [`NewRecord::commit`] puts it in place of what was there.
    ///
    /// # Errors
    /// There is no room, or no way to write.
    fn create(&self, key: &CacheKey) -> io::Result<Box<dyn NewRecord>>;

    /// Gives the record under this key another head; its body stays. False: there is none.
    ///
    /// # Errors
    /// It could not be written; the record is as it was, or gone.
    fn replace_head(&self, key: &CacheKey, head: &[u8]) -> io::Result<bool>;

    /// Forgets the record under this key, and does not remember it after a restart.
    ///
    /// # Errors
    /// It may be there again after a restart.
    fn remove(&self, key: &CacheKey) -> io::Result<()>;

    /// A record was used without being opened: it should be among the last to go.
    fn touch(&self, key: &CacheKey) {
        let _ = key;
    }

    /// What it holds.
    fn usage(&self) -> Usage;

    /// What it counts, for whoever exports it; names that are in every answer.
    fn counters(&self) -> Vec<Counted> {
        Vec::new()
    }

    /// Returns when everything so far would survive a loss of power.
    ///
    /// # Errors
    /// It might not.
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A record of a [`Store`], open for reading.
pub trait Record: fmt::Debug + Send + Sync {
    /// The head, as it was given.
    fn head(&self) -> Bytes;

    /// The length of the body in bytes.
    fn length(&self) -> u64;

    /// A block of the body: [`BLOCK`] bytes, or what is left where it is the last.
    ///
    /// # Errors
    /// It cannot be read, or there is none of that number.
    fn read(&self, block: u64) -> io::Result<Bytes>;

    /// The same without waiting. `None`: that cannot be; ask [`Record::read`] on a thread that may wait.
    fn read_now(&self, block: u64) -> Option<io::Result<Bytes>> {
        let _ = block;
        None
    }
}

/// A record that is being written. Dropped before it was committed, it leaves nothing behind.
pub trait NewRecord: fmt::Debug + Send {
    /// Adds a block: of [`BLOCK`] bytes, unless it is the last.
    ///
    /// # Errors
    /// It could not be written; the record is good for nothing any more.
    fn append(&mut self, block: &Bytes) -> io::Result<()>;

    /// What was appended up to now, for whoever cannot wait for the rest: with an empty head, and readable for as long as it is
    /// held. `None`: this store has no such thing.
    fn so_far(&self) -> Option<Arc<dyn Record>> {
        None
    }

    /// It is complete: from here on it is what its key gives.
    ///
    /// # Errors
    /// It could not be written; its key gives nothing, or what it gave before.
    fn commit(self: Box<Self>, head: &[u8]) -> io::Result<()>;
}

/// What a store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Records.
    pub records: u64,
    /// Bytes on the disk, or wherever it keeps them.
    pub bytes: u64,
    /// Bytes of memory that its bookkeeping takes.
    pub memory: u64,
}
