//! A disk with a fault.

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::key::CacheKey;
use crate::store::{MemoryStore, NewRecord, Record, Store, Usage};

/// What a store is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Open,
    Create,
    ReplaceHead,
    Remove,
}

/// A store that keeps its records in memory and behaves as if they were on a disk with a fault: each call asks `fault` first, which
/// may take its time, and whose error is the answer. Nothing is to be had of it without waiting.
pub(super) struct Faulty<F> {
    pub(super) records: MemoryStore,
    pub(super) fault: F,
}

impl<F> fmt::Debug for Faulty<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.records.fmt(f)
    }
}

impl<F: Fn(Call) -> io::Result<()> + Send + Sync> Store for Faulty<F> {
    fn open(&self, key: &CacheKey) -> io::Result<Option<Arc<dyn Record>>> {
        (self.fault)(Call::Open)?;
        let record = self.records.open(key)?;
        Ok(record.map(|record| Arc::new(OnDisk(record)) as Arc<dyn Record>))
    }

    fn create(&self, key: &CacheKey) -> io::Result<Box<dyn NewRecord>> {
        (self.fault)(Call::Create)?;
        self.records.create(key)
    }

    fn replace_head(&self, key: &CacheKey, head: &[u8]) -> io::Result<bool> {
        (self.fault)(Call::ReplaceHead)?;
        self.records.replace_head(key, head)
    }

    fn remove(&self, key: &CacheKey) -> io::Result<()> {
        (self.fault)(Call::Remove)?;
        self.records.remove(key)
    }

    fn usage(&self) -> Usage {
        self.records.usage()
    }
}

/// A record that nobody finds in the page cache.
#[derive(Debug)]
struct OnDisk(Arc<dyn Record>);

impl Record for OnDisk {
    fn head(&self) -> Bytes {
        self.0.head()
    }

    fn length(&self) -> u64 {
        self.0.length()
    }

    fn read(&self, block: u64) -> io::Result<Bytes> {
        self.0.read(block)
    }
}

/// The fault of a disk that can be read, and not written to any more.
pub(super) fn read_only(call: Call) -> io::Result<()> {
    match call {
        Call::Open => Ok(()),
        Call::Create | Call::ReplaceHead | Call::Remove => {
            Err(io::ErrorKind::ReadOnlyFilesystem.into())
        }
    }
}
