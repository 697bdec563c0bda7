//! The threads that read records for those who must not wait.

use std::collections::HashMap;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;

use super::clock;
use super::folder::Folder;
use super::load::Load;
use super::metadata::{self, Metadata, ResponseMetadata, Unreadable};
use super::queue::Queue;
use super::recorded::{Block, Content, Damaged, Recorded};
use crate::counters::CacheCounters;
use crate::key::CacheKey;
use crate::store::{BLOCK, Record, Store, StoredContent, StoredResponse};

/// Enough to keep a disk with a queue busy; what is in the page cache is read without them.
const THREADS: usize = 4;

/// Reads that may wait at once. Beyond it a disk is so far behind that asking the backend is quicker. Whoever is in the middle of a
/// body has nobody else to ask, and waits in any case: one block for each client.
const MAX_WAITING: usize = 1024;

/// Bodies up to this size are read with their heads, and kept in memory with them; longer ones are read block by block, each time.
const READ_WHOLE: u64 = 4 * BLOCK as u64;

/// What a record turned out to be.
#[derive(Debug, Clone)]
pub(crate) enum Loaded {
    /// There is none, or it cannot be read just now.
    Nothing,
    /// There is one that nobody can use.
    Useless,
    /// A response.
    Response(Arc<StoredResponse>),
    /// The variants of a URI.
    Variants(Vec<http::HeaderName>, u64),
}

/// The reading side of a store.
#[derive(Debug)]
pub(crate) struct Readers {
    /// `None` where it could not be opened.
    store: OnceLock<Option<Arc<dyn Store>>>,
    jobs: Queue<Job>,
    /// One read per key serves all who want it, but for those who came after a change of what lies there.
    loading: Mutex<HashMap<Loading, Arc<Load<Loaded>>>>,
    /// Bodies up to this size go into memory.
    read_whole: u64,
    counters: Arc<CacheCounters>,
    /// Where the store lies, which writes there until it is dropped: it comes before this.
    _folder: Option<Arc<Folder>>,
}

/// A record that is being opened; `None`: it is not the one any more.
pub(super) type Opening = Load<Option<Arc<dyn Record>>>;

/// A block on its way from the disk.
pub(super) type ReadingBlock = Load<Result<Bytes, Damaged>>;

/// A key, and how often what lies under it had changed.
type Loading = (CacheKey, u64);

#[derive(Debug)]
enum Job {
    Load(Loading, Arc<Load<Loaded>>),
    Open(Recorded, Arc<Opening>),
    Read(Block, Arc<ReadingBlock>),
}

impl Readers {
    /// `max_object` is what the memory keeps of one response; `folder` is held for as long as there may be a store.
    pub(super) fn new(
        folder: Option<Arc<Folder>>,
        max_object: u64,
        counters: Arc<CacheCounters>,
    ) -> Arc<Self> {
        Arc::new(Self {
            store: OnceLock::new(),
            jobs: Queue::new(MAX_WAITING),
            loading: Mutex::default(),
            read_whole: READ_WHOLE.min(max_object),
            counters,
            _folder: folder,
        })
    }

    /// The threads hold `alive` until they end.
    pub(super) fn start(self: &Arc<Self>, alive: &Sender<Infallible>) -> std::io::Result<()> {
        (1..=THREADS).try_for_each(|number| {
            let (readers, alive) = (Arc::clone(self), alive.clone());
            std::thread::Builder::new()
                .name(format!("store-read-{number}"))
                .spawn(move || {
                    // Goes after the other.
                    let _alive = alive;
                    let readers = readers;
                    while let Some(job) = readers.jobs.pop() {
                        readers.carry_out(job);
                    }
                })
                .map(drop)
        })
    }

    pub(super) fn stop(&self) {
        self.jobs.close();
    }

    /// From here on there is something to read from, or there never will be.
    pub(super) fn opened(&self, store: Option<Arc<dyn Store>>) {
        _ = self.store.set(store);
    }

    /// The store, once it is open.
    pub(super) fn store(&self) -> Option<&Arc<dyn Store>> {
        self.store.get()?.as_ref()
    }

    /// Whether the store is still being opened.
    pub(super) fn is_opening(&self) -> bool {
        self.store.get().is_none()
    }

    /// The store does not take a body.
    pub(super) fn count_too_large(&self) {
        self.counters.refused_too_large.add(1);
    }

    /// Something that was read is not what was written.
    pub(super) fn count_damaged(&self) {
        self.counters.store_damaged.add(1);
    }

    /// Whether there may be a record under that key, as far as is known by now.
    pub(super) fn may_hold(&self, key: &CacheKey) -> bool {
        self.store().is_some_and(|store| store.may_hold(key))
    }

    /// What lies under that key, if that is known without waiting.
    pub(super) fn load_now(self: &Arc<Self>, key: &CacheKey) -> Option<Loaded> {
        let opened = self.store()?.open_now(key)?;
        self.read_record(key, opened, true)
    }

    /// Has a thread find out what lies under that key, which has changed so often; `None` when too many wait already.
    pub(super) fn load(
        self: &Arc<Self>,
        key: &CacheKey,
        changes: u64,
    ) -> Option<Arc<Load<Loaded>>> {
        let what = (*key, changes);
        let mut loading = self.loading.lock();
        if let Some(load) = loading.get(&what) {
            // Who has lost patience is among those who wait, until the disk answers.
            let joins = load.waiting() < MAX_WAITING;
            if !joins {
                self.counters.store_busy.add(1);
            }
            return joins.then(|| Arc::clone(load));
        }
        let load = Arc::new(Load::new());
        if !self.jobs.push(Job::Load(what, Arc::clone(&load)), 1) {
            self.counters.store_busy.add(1);
            return None;
        }
        loading.insert(what, Arc::clone(&load));
        Some(load)
    }

    /// Opens the record that this content lies in, if that can be done without waiting. `Some(None)`: it lies there no more.
    pub(super) fn open_now(&self, recorded: &Recorded) -> Option<Option<Arc<dyn Record>>> {
        let opened = self.store()?.open_now(&recorded.key)?;
        Some(self.same(recorded, opened))
    }

    /// Has a thread open it; `None` when too many wait already.
    pub(super) fn open(&self, recorded: &Recorded) -> Option<Arc<Opening>> {
        let load = Arc::new(Load::new());
        let job = Job::Open(recorded.clone(), Arc::clone(&load));
        if !self.jobs.push(job, 1) {
            self.counters.store_busy.add(1);
            return None;
        }
        Some(load)
    }

    /// The record, if its body is that one.
    fn same(
        &self,
        recorded: &Recorded,
        opened: std::io::Result<Option<Arc<dyn Record>>>,
    ) -> Option<Arc<dyn Record>> {
        let record = self.opened_record(opened).ok()??;
        let seal = metadata::seal_of(&record.head());
        if seal.is_some() && seal == recorded.seal {
            return Some(record);
        }
        // Another head need not be one of another content: it may have been renewed.
        let head = Metadata::decode(&recorded.key, &record.head(), clock::now(), clock::wall());
        match head {
            Ok(Metadata::Response(head)) if *head.checksums == *recorded.checksums => Some(record),
            Ok(_) => None,
            Err(why) => {
                self.count_unreadable(why);
                None
            }
        }
    }

    /// `Err`: it is damaged.
    fn opened_record(
        &self,
        opened: std::io::Result<Option<Arc<dyn Record>>>,
    ) -> Result<Option<Arc<dyn Record>>, Damaged> {
        match opened {
            Ok(record) => Ok(record),
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                self.count_damaged();
                Err(Damaged)
            }
            Err(_) => {
                self.counters.store_errors.add(1);
                Ok(None)
            }
        }
    }

    fn count_unreadable(&self, why: Unreadable) {
        match why {
            Unreadable::Damaged => self.count_damaged(),
            Unreadable::Version => self.counters.store_other_version.add(1),
        }
    }

    /// Has a thread read a block; `None` when too many wait already.
    pub(super) fn read(&self, block: Block) -> Option<Arc<ReadingBlock>> {
        self.read_by(block, |job| self.jobs.push(job, 1))
    }

    /// The same for whoever has begun to send the body, and could only break off: however many wait. One block at a time for each
    /// client, so that there are no more of them than connections. `None` at the end of the process.
    pub(super) fn read_on(&self, block: Block) -> Option<Arc<ReadingBlock>> {
        self.read_by(block, |job| self.jobs.push_light(job))
    }

    fn read_by(&self, block: Block, push: impl FnOnce(Job) -> bool) -> Option<Arc<ReadingBlock>> {
        let load = Arc::new(Load::new());
        if !push(Job::Read(block, Arc::clone(&load))) {
            self.counters.store_busy.add(1);
            return None;
        }
        Some(load)
    }

    fn carry_out(self: &Arc<Self>, job: Job) {
        match job {
            Job::Load(what, load) => {
                // A store that panics has lost a record, and nobody waits for it for ever.
                let loaded = catch_unwind(AssertUnwindSafe(|| self.load_waiting(&what.0)));
                let loaded = loaded.unwrap_or_else(|_| {
                    self.counters.store_errors.add(1);
                    Loaded::Nothing
                });
                self.loading.lock().remove(&what);
                load.answer(loaded);
            }
            Job::Open(recorded, load) => {
                let open = || self.same(&recorded, self.store()?.open(&recorded.key));
                let opened = catch_unwind(AssertUnwindSafe(open));
                load.answer(opened.unwrap_or_else(|_| {
                    self.counters.store_errors.add(1);
                    None
                }));
            }
            Job::Read(block, load) => {
                let read = catch_unwind(AssertUnwindSafe(|| block.read()));
                load.answer(read.unwrap_or(Err(Damaged)));
            }
        }
    }

    /// What lies under a key; takes as long as a disk takes.
    pub(super) fn load_waiting(self: &Arc<Self>, key: &CacheKey) -> Loaded {
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
        let record = match self.opened_record(opened) {
            Ok(Some(record)) => record,
            Ok(None) => return Some(Loaded::Nothing),
            Err(Damaged) => return Some(Loaded::Useless),
        };
        let decoded = Metadata::decode(key, &record.head(), clock::now(), clock::wall());
        match decoded {
            Ok(Metadata::Variants { names, generation }) => {
                Some(Loaded::Variants(names, generation))
            }
            Ok(Metadata::Response(metadata)) => self.response(key, *metadata, &record, at_once),
            Err(why) => {
                self.count_unreadable(why);
                Some(Loaded::Useless)
            }
        }
    }

    fn response(
        self: &Arc<Self>,
        key: &CacheKey,
        response: ResponseMetadata,
        record: &Arc<dyn Record>,
        at_once: bool,
    ) -> Option<Loaded> {
        let ResponseMetadata {
            head,
            trailers,
            terms,
            received,
            origin,
            checksums,
        } = response;
        let length = record.length();
        if length.div_ceil(BLOCK as u64) != checksums.len() as u64 {
            self.count_damaged();
            return Some(Loaded::Useless);
        }
        let content = if length <= self.read_whole {
            let mut blocks = Vec::with_capacity(checksums.len());
            for (number, &expected) in (0..).zip(&checksums) {
                let block = Block {
                    record: Arc::clone(record),
                    number,
                    expected,
                };
                let read = if at_once {
                    block.read_now()?
                } else {
                    block.read()
                };
                match read {
                    Ok(bytes) => blocks.push(bytes),
                    Err(Damaged) => {
                        self.count_damaged();
                        return Some(Loaded::Useless);
                    }
                }
            }
            Content::Blocks(blocks)
        } else {
            Content::Recorded(Recorded {
                key: *key,
                length,
                checksums: checksums.into(),
                seal: metadata::seal_of(&record.head()),
                readers: Arc::clone(self),
            })
        };
        let content = Arc::new(StoredContent::new(content, trailers));
        let response = StoredResponse::loaded(head, content, terms, received, origin);
        Some(Loaded::Response(Arc::new(response)))
    }
}
