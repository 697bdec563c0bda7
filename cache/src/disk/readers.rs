//! The threads that read records for those who must not wait.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use bytes::Bytes;
use parking_lot::Mutex;

use super::clock;
use super::load::Load;
use super::metadata::{Metadata, ResponseMetadata};
use super::queue::Queue;
use super::recorded::{Block, Content, Damaged, Recorded};
use crate::counters::CacheCounters;
use crate::key::CacheKey;
use crate::store::{BLOCK, Record, Store, StoredContent, StoredResponse};

/// Enough to keep a disk with a queue busy; what is in the page cache is read without them.
const THREADS: usize = 4;

/// Reads that may wait at once. Beyond it a disk is so far behind that asking the backend is quicker.
const MAX_WAITING: usize = 1024;

/// Bodies up to this size are read with their heads, and kept in memory with them; longer ones are read block by block, each time.
pub(crate) const READ_WHOLE: u64 = 4 * BLOCK as u64;

/// What a record turned out to be.
#[derive(Debug, Clone)]
pub(crate) enum Loaded {
    /// There is none, or none of use.
    Nothing,
    /// A response.
    Response(Arc<StoredResponse>),
    /// The variants of a URI.
    Variants(Vec<http::HeaderName>, u64),
}

/// The reading side of a store.
#[derive(Debug)]
pub(crate) struct Readers {
    store: OnceLock<Arc<dyn Store>>,
    jobs: Queue<Job>,
    /// One read per key serves all who want it.
    loading: Mutex<HashMap<CacheKey, Arc<Load<Loaded>>>>,
    /// Bodies up to this size go into memory.
    read_whole: u64,
    counters: Arc<CacheCounters>,
}

#[derive(Debug)]
enum Job {
    Load(CacheKey, Arc<Load<Loaded>>),
    Read(Block, Arc<Load<Result<Bytes, Damaged>>>),
}

impl Readers {
    /// `max_object` is what the memory keeps of one response.
    pub(super) fn new(max_object: u64, counters: Arc<CacheCounters>) -> Arc<Self> {
        Arc::new(Self {
            store: OnceLock::new(),
            jobs: Queue::new(MAX_WAITING),
            loading: Mutex::default(),
            read_whole: READ_WHOLE.min(max_object),
            counters,
        })
    }

    pub(super) fn start(self: &Arc<Self>) -> std::io::Result<Vec<JoinHandle<()>>> {
        let spawn = |number| {
            let readers = Arc::clone(self);
            std::thread::Builder::new()
                .name(format!("store-read-{number}"))
                .spawn(move || {
                    while let Some(job) = readers.jobs.pop() {
                        readers.carry_out(job);
                    }
                })
        };
        (1..=THREADS).map(spawn).collect()
    }

    pub(super) fn stop(&self) {
        self.jobs.close();
    }

    /// From here on there is something to read from.
    pub(super) fn opened(&self, store: Arc<dyn Store>) {
        _ = self.store.set(store);
    }

    /// The store, once it is open.
    pub(super) fn store(&self) -> Option<&Arc<dyn Store>> {
        self.store.get()
    }

    /// The store does not take a body.
    pub(super) fn count_too_large(&self) {
        self.counters.refused_too_large.add(1);
    }

    /// Whether there may be a record under that key.
    pub(super) fn may_hold(&self, key: &CacheKey) -> bool {
        self.store().is_some_and(|store| store.may_hold(key))
    }

    /// What lies under that key, if that is known without waiting.
    pub(super) fn load_now(self: &Arc<Self>, key: &CacheKey) -> Option<Loaded> {
        let opened = self.store()?.open_now(key)?;
        self.read_record(key, opened, true)
    }

    /// Has a thread find out what lies under that key; `None` when too many wait already.
    pub(super) fn load(self: &Arc<Self>, key: &CacheKey) -> Option<Arc<Load<Loaded>>> {
        let mut loading = self.loading.lock();
        if let Some(load) = loading.get(key) {
            return Some(Arc::clone(load));
        }
        let load = Arc::new(Load::new());
        if !self.jobs.push(Job::Load(*key, Arc::clone(&load)), 1) {
            self.counters.store_busy.add(1);
            return None;
        }
        loading.insert(*key, Arc::clone(&load));
        Some(load)
    }

    /// Has a thread read a block; `None` when too many wait already.
    pub(super) fn read(&self, block: Block) -> Option<Arc<Load<Result<Bytes, Damaged>>>> {
        let load = Arc::new(Load::new());
        let job = Job::Read(block, Arc::clone(&load));
        if !self.jobs.push(job, 1) {
            self.counters.store_busy.add(1);
            return None;
        }
        Some(load)
    }

    fn carry_out(self: &Arc<Self>, job: Job) {
        match job {
            Job::Load(key, load) => {
                // A store that panics has lost a record, and nobody waits for it for ever.
                let loaded = catch_unwind(AssertUnwindSafe(|| self.load_waiting(&key)));
                let loaded = loaded.unwrap_or_else(|_| {
                    self.counters.store_errors.add(1);
                    Loaded::Nothing
                });
                self.loading.lock().remove(&key);
                load.answer(loaded);
            }
            Job::Read(block, load) => {
                let read = catch_unwind(AssertUnwindSafe(|| block.read()));
                load.answer(read.unwrap_or(Err(Damaged)));
            }
        }
    }

    fn load_waiting(self: &Arc<Self>, key: &CacheKey) -> Loaded {
        let Some(store) = self.store() else {
            return Loaded::Nothing;
        };
        self.read_record(key, store.open(key), false)
            .unwrap_or(Loaded::Nothing)
    }

    /// `None`: that would take waiting.
    fn read_record(
        self: &Arc<Self>,
        key: &CacheKey,
        opened: std::io::Result<Option<Arc<dyn Record>>>,
        at_once: bool,
    ) -> Option<Loaded> {
        let record = match opened {
            Ok(Some(record)) => record,
            Ok(None) => return Some(Loaded::Nothing),
            Err(_) => {
                self.counters.store_errors.add(1);
                return Some(Loaded::Nothing);
            }
        };
        let decoded = Metadata::decode(key, &record.head(), clock::now(), clock::wall());
        match decoded {
            Ok(Metadata::Variants { names, generation }) => {
                Some(Loaded::Variants(names, generation))
            }
            Ok(Metadata::Response(metadata)) => self.response(*metadata, record, at_once),
            Err(_) => {
                self.counters.store_damaged.add(1);
                Some(Loaded::Nothing)
            }
        }
    }

    fn response(
        self: &Arc<Self>,
        metadata: ResponseMetadata,
        record: Arc<dyn Record>,
        at_once: bool,
    ) -> Option<Loaded> {
        let ResponseMetadata {
            head,
            trailers,
            terms,
            received,
            origin,
            checksums,
        } = metadata;
        let length = record.length();
        if length.div_ceil(BLOCK as u64) != checksums.len() as u64 {
            self.counters.store_damaged.add(1);
            return Some(Loaded::Nothing);
        }
        let recorded = Recorded {
            record,
            checksums: checksums.into(),
            readers: Arc::clone(self),
        };
        let content = if length <= self.read_whole {
            let mut blocks = Vec::with_capacity(recorded.checksums.len());
            for number in 0..recorded.checksums.len() as u64 {
                let block = recorded.block(number)?;
                let read = if at_once {
                    block.read_now()?
                } else {
                    block.read()
                };
                match read {
                    Ok(bytes) => blocks.push(bytes),
                    Err(Damaged) => {
                        self.counters.store_damaged.add(1);
                        return Some(Loaded::Nothing);
                    }
                }
            }
            Content::Blocks(blocks)
        } else {
            Content::Recorded(recorded)
        };
        let content = Arc::new(StoredContent::new(content, trailers));
        let response = StoredResponse::loaded(head, content, terms, received, origin);
        Some(Loaded::Response(Arc::new(response)))
    }
}
