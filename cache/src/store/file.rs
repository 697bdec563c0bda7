//! The store for disks: records one after the other in large files, and large bodies in files of their own.

mod bodies;
mod counters;
mod index;
mod layout;
mod limits;
mod load;
mod log;
mod new_record;
mod nowait;
mod record;
mod recovery;
mod room;
mod scan;
mod segment;
mod sidecar;

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use index::{Found, IndexKey};
use limits::Limits;
use log::Log;
use new_record::Writing;
use record::{InlineRecord, LargeRecord};
use segment::Stored;

use super::{NewRecord, Record, Store, Usage};
use crate::counters::Counted;
use crate::key::CacheKey;

pub use counters::FileCounters;

/// Records on a disk that survive the process, up to a capacity in bytes.
///
/// Records are appended to **segments**, files of a 64th of the capacity, or of 1 GiB where that is less. When the capacity is reached
/// the oldest segment is deleted; what was used of it since it was written moves to the newest first. A body above 256 KiB is a file
/// of its own and lives as long as its record does. Where each record lies is in memory, in about 60 bytes, and beside each full
/// segment in a sidecar, so that a start does not read the records.
///
/// - *Bound*: what it has on the disk, with what is being written and what is open though forgotten, is at most the capacity, and a
///   segment more (at most a 64th; below 4 MiB up to a 16th) for the moment in which records move. A body may take an eighth of the
///   capacity.
/// - *After `kill -9`* everything that was committed is there; after a loss of power, what was committed before the last
///   [`Store::sync`].
/// - *Damage* costs the records that are damaged. Where it hides whose they were it costs all that is older, too, since it might
///   have been replaced or removed by them. Only where a process was killed, and the newest segment it left is short, empty or missing
///   later, can nobody tell: the store is as it was some time before. Labels and heads are checked here, bodies by whoever asked for
///   them.
/// - *Start*: what was listed beside its segment is read from there. After a kill the newest segment is scanned, which is at most
///   1 GiB of reading.
/// - *Descriptors*: one for each segment, and one for each large body that is open. There are about 64 segments, beyond 64 GiB as many
///   as the capacity has GiB; up to three times as many where large bodies are replaced over and over.
///
/// There must be one store for a directory at a time; that is for the caller to see to.
#[derive(Debug)]
pub struct FileStore {
    log: Arc<Log>,
}

impl FileStore {
    /// Opens the store in that directory, with what is good of what is there, and creates what lacks.
    ///
    /// # Errors
    /// The directory cannot be created or listed, or there are no descriptors left.
    pub fn open(directory: &Path, capacity: u64) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let log = recovery::open(directory, Limits::of(capacity))?;
        // It may have been opened with a larger capacity before.
        log.fit()?;
        Ok(Self { log: Arc::new(log) })
    }

    /// What it counts.
    pub fn counters(&self) -> &FileCounters {
        &self.log.counters
    }

    fn inline_record(stored: Stored) -> Arc<dyn Record> {
        let Stored { head, body, .. } = stored;
        Arc::new(InlineRecord { head, body })
    }

    fn large_record(
        &self,
        stored: Stored,
        file: Arc<fs::File>,
        body: Arc<bodies::Body>,
    ) -> Arc<dyn Record> {
        let nowait = Arc::clone(&self.log.nowait);
        Arc::new(LargeRecord::new(
            stored.head,
            stored.label.body,
            file,
            body,
            nowait,
        ))
    }
}

impl Drop for FileStore {
    /// Records that are open can still be read; what is being written cannot be committed any more.
    fn drop(&mut self) {
        self.log.close();
    }
}

impl Store for FileStore {
    fn may_hold(&self, key: &CacheKey) -> bool {
        self.log.index.contains(&IndexKey::of(key))
    }

    fn open(&self, key: &CacheKey) -> io::Result<Option<Arc<dyn Record>>> {
        let Some((found, segment)) = self.log.locate(key) else {
            return Ok(None);
        };
        let read = segment.read(found.location);
        let Some(stored) = self.log.judge(key, &found, read)? else {
            return Ok(None);
        };
        let Found { location, body } = found;
        let Some(body) = body else {
            return Ok(Some(Self::inline_record(stored)));
        };
        let file = body
            .open()
            .map_err(|error| self.log.forget_damaged(key, location, error))?;
        Ok(Some(self.large_record(stored, file, body)))
    }

    fn open_now(&self, key: &CacheKey) -> Option<io::Result<Option<Arc<dyn Record>>>> {
        let Some((found, segment)) = self.log.locate(key) else {
            return Some(Ok(None));
        };
        let opened = match &found.body {
            Some(body) => Some(body.opened()?),
            None => None,
        };
        let read = segment.read_now(found.location, &self.log.nowait)?;
        let stored = match self.log.judge(key, &found, read) {
            Ok(Some(stored)) => stored,
            Ok(None) => return Some(Ok(None)),
            Err(error) => return Some(Err(error)),
        };
        Some(Ok(Some(match (found.body, opened) {
            (Some(body), Some(file)) => self.large_record(stored, file, body),
            (_, _) => Self::inline_record(stored),
        })))
    }

    fn max_body(&self) -> u64 {
        self.log.limits.body
    }

    fn create(&self, key: &CacheKey) -> io::Result<Box<dyn NewRecord>> {
        Ok(Box::new(Writing::new(Arc::clone(&self.log), *key)))
    }

    fn replace_head(&self, key: &CacheKey, head: &[u8]) -> io::Result<bool> {
        self.log.replace_head(key, head)
    }

    fn remove(&self, key: &CacheKey) -> io::Result<()> {
        self.log.remove(key)
    }

    fn touch(&self, key: &CacheKey) {
        self.log.index.heat(&IndexKey::of(key));
    }

    fn usage(&self) -> Usage {
        self.log.usage()
    }

    fn counters(&self) -> Vec<Counted> {
        self.log.counters.each().collect()
    }

    fn sync(&self) -> io::Result<()> {
        self.log.sync()
    }
}
