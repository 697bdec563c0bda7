//! A sled database that may fail, or panic, at any call.

use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ::sled::{Db, IVec};

use super::counters::SledCounters;
use crate::key::CacheKey;

/// sled's page cache. Small, as the memory tier is in front; more of it made writing faster (16 against 64 MiB: 13,000 and 25,000
/// puts of 1 KiB a second) and nothing else.
pub(super) const PAGE_CACHE: u64 = 16 << 20;

/// sled writes out and syncs what it has at most this late, in a thread of its own. What a `kill -9` loses is what was written since.
pub(super) const FLUSH_EVERY_MS: u64 = 200;

/// A sled database whose first failure is its last: it is then asked nothing more, and waits to be replaced.
pub(super) struct Database {
    /// Taken out only to be dropped.
    db: Option<Db>,
    failed: AtomicBool,
    counters: Arc<SledCounters>,
}

impl fmt::Debug for Database {
    /// sled's own would print its whole content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("failed", &self.has_failed())
            .finish_non_exhaustive()
    }
}

impl Database {
    /// Opens the database in this directory, or makes one. It may take as long as it likes, and panic.
    pub(super) fn open(directory: &Path, counters: &Arc<SledCounters>) -> io::Result<Self> {
        wait_for_predecessor(directory)?;
        let config = ::sled::Config::new()
            .path(directory)
            .cache_capacity(PAGE_CACHE)
            .flush_every_ms(Some(FLUSH_EVERY_MS));
        let db = Some(config.open().map_err(to_io)?);
        let (failed, counters) = (AtomicBool::new(false), Arc::clone(counters));
        Ok(Self {
            db,
            failed,
            counters,
        })
    }

    pub(super) fn get(&self, key: &CacheKey) -> io::Result<Option<IVec>> {
        self.call(|db| db.get(key.as_bytes()))
    }

    /// Puts the value in the place of the one that is returned.
    pub(super) fn insert(&self, key: &CacheKey, value: Vec<u8>) -> io::Result<Option<IVec>> {
        self.call(|db| db.insert(key.as_bytes(), value))
    }

    pub(super) fn remove(&self, key: &CacheKey) -> io::Result<Option<IVec>> {
        self.call(|db| {
            // A removal is written even where there is nothing to remove.
            if db.contains_key(key.as_bytes())? {
                db.remove(key.as_bytes())
            } else {
                Ok(None)
            }
        })
    }

    /// On this thread, never by `flush_async`, which has dead-locked (sled#1241, #1357).
    pub(super) fn flush(&self) -> io::Result<()> {
        self.call(|db| db.flush()).map(|_| ())
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// What sled does now and then.
    #[cfg(test)]
    pub(super) fn panic(&self) {
        assert!(
            self.call(|_| -> ::sled::Result<()> { panic!("as sled does") })
                .is_err()
        );
    }

    fn call<T>(&self, ask: impl FnOnce(&Db) -> ::sled::Result<T>) -> io::Result<T> {
        let Some(db) = self.db.as_ref().filter(|_| !self.has_failed()) else {
            return Err(io::Error::other("the database failed before"));
        };
        let error = match catch_unwind(AssertUnwindSafe(|| ask(db))) {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => {
                self.counters.database_errors.add(1);
                to_io(error)
            }
            Err(_) => {
                self.counters.database_panics.add(1);
                io::Error::other("the database panicked")
            }
        };
        self.failed.store(true, Ordering::Relaxed);
        Err(error)
    }
}

impl Drop for Database {
    /// Waits until everything is written; not so for one that failed, which might never be done with that.
    fn drop(&mut self) {
        let Some(db) = self.db.take() else {
            return;
        };
        let end = move || {
            let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
        };
        if self.has_failed() {
            // Where there is no thread to be had, it ends here.
            let _ = thread::Builder::new()
                .name("sled-end".to_owned())
                .spawn(end);
        } else {
            end();
        }
    }
}

/// A database closed a moment ago may hold its lock a little longer, in sled's own threads; sled would refuse to open it. Who holds
/// the lock is nobody else, as there is one process per store.
fn wait_for_predecessor(directory: &Path) -> io::Result<()> {
    match OpenOptions::new().read(true).open(directory.join("db")) {
        // Let go when the file is closed, at the end of this statement.
        Ok(file) => file.lock(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn to_io(error: ::sled::Error) -> io::Error {
    match error {
        ::sled::Error::Io(error) => error,
        other => io::Error::other(other.to_string()),
    }
}
