//! The thread that writes records, one after the other.

use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderName;
use parking_lot::Mutex;

use super::clock;
use super::metadata::{Checksum, Metadata, ResponseMetadata, checksum};
use super::queue::Queue;
use super::readers::Readers;
use super::recorded::Content;
use super::spool::Spool;
use crate::counters::CacheCounters;
use crate::key::CacheKey;
use crate::store::{BLOCK, Store, StoredResponse};

/// Bytes that may wait to be written. What is beyond it is not stored on the disk: it is in memory, and stored there.
const MAX_WAITING: usize = 64 * 1024 * 1024;

/// Removals that may wait: those of a disk that stands still while a site is busy. One that is lost would bring back what was
/// forgotten, so beyond it the whole store is given up.
const MAX_REMOVALS: usize = 100_000;

/// What a job weighs beside its content.
const PER_JOB: usize = 1024;

/// The writing side of a store. Everything goes through one queue, so that what is done to a key is done in order.
pub(crate) struct Writer {
    jobs: Queue<Job>,
    removals: Mutex<Removals>,
    is_given_up: AtomicBool,
    give_up: Box<dyn Fn() + Send + Sync>,
    counters: Arc<CacheCounters>,
}

/// Removals that wait in the queue.
#[derive(Debug, Default)]
struct Removals {
    /// How often each key is to be removed: nothing is read under it.
    by_key: HashMap<CacheKey, u32>,
    /// How many those are together.
    waiting: usize,
}

#[derive(Debug)]
pub(super) enum Job {
    Response(CacheKey, Arc<StoredResponse>),
    /// The same content under another head.
    Renewed(CacheKey, Arc<StoredResponse>),
    Variants(CacheKey, Arc<[HeaderName]>, u64),
    Remove(CacheKey),
    Spool(Arc<Spool>),
    Sync(Sender<()>),
}

impl Writer {
    /// `give_up` is called once when the store is of no use any more, and must see to it that it is not used by the next process.
    pub(super) fn new(
        give_up: impl Fn() + Send + Sync + 'static,
        counters: Arc<CacheCounters>,
    ) -> Arc<Self> {
        Arc::new(Self {
            jobs: Queue::new(MAX_WAITING),
            removals: Mutex::default(),
            is_given_up: AtomicBool::new(false),
            give_up: Box::new(give_up),
            counters,
        })
    }

    /// Opens the store, then writes what there is to write until it is told to stop.
    pub(super) fn start(
        self: &Arc<Self>,
        readers: &Arc<Readers>,
        open: impl FnOnce() -> std::io::Result<Arc<dyn Store>> + Send + 'static,
        opened: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<JoinHandle<()>> {
        let (writer, readers) = (Arc::clone(self), Arc::clone(readers));
        std::thread::Builder::new()
            .name("store-write".into())
            .spawn(move || {
                let store = catch_unwind(AssertUnwindSafe(open));
                match store {
                    Ok(Ok(store)) => {
                        readers.opened(Arc::clone(&store));
                        opened();
                        writer.run(&store);
                    }
                    Ok(Err(error)) => {
                        tracing::error!(%error, "the store cannot be opened: nothing is kept on the disk");
                        writer.give_up();
                        opened();
                    }
                    Err(_panic) => {
                        tracing::error!("opening the store panicked: nothing is kept on the disk");
                        writer.give_up();
                        opened();
                    }
                }
            })
    }

    pub(super) fn stop(&self) {
        self.jobs.close();
    }

    /// Bytes that wait to be written.
    pub(super) fn waiting(&self) -> usize {
        self.jobs.weight()
    }

    /// Whether the store is of no use any more.
    pub(super) fn is_given_up(&self) -> bool {
        self.is_given_up.load(Ordering::Relaxed)
    }

    /// Stores a response.
    pub(super) fn save(&self, key: CacheKey, response: &Arc<StoredResponse>) {
        let weight = usize::try_from(response.weight()).unwrap_or(usize::MAX);
        self.queue_or_remove(key, Job::Response(key, Arc::clone(response)), weight);
    }

    /// Stores the new head of a response whose content is there already.
    pub(super) fn renew(&self, key: CacheKey, response: &Arc<StoredResponse>) {
        self.queue_or_remove(key, Job::Renewed(key, Arc::clone(response)), PER_JOB);
    }

    /// Stores by which fields a URI varies.
    pub(super) fn save_variants(&self, key: CacheKey, names: &Arc<[HeaderName]>, generation: u64) {
        let job = Job::Variants(key, Arc::clone(names), generation);
        self.queue_or_remove(key, job, PER_JOB);
    }

    /// What cannot be written must not leave an older one in its place.
    fn queue_or_remove(&self, key: CacheKey, job: Job, weight: usize) {
        if !self.jobs.push(job, weight.max(PER_JOB)) {
            self.counters.store_busy.add(1);
            self.remove(key);
        }
    }

    /// Forgets what lies under a key; nothing is read there from here on.
    pub(super) fn remove(&self, key: CacheKey) {
        {
            let mut removals = self.removals.lock();
            if removals.waiting < MAX_REMOVALS {
                *removals.by_key.entry(key).or_default() += 1;
                removals.waiting += 1;
            } else if !self.is_given_up.swap(true, Ordering::AcqRel) {
                drop(removals);
                self.jobs.close();
                tracing::error!(
                    "the store's disk stands still: it is not used any more, and begins afresh with the next start"
                );
                return (self.give_up)();
            } else {
                return;
            }
        }
        self.jobs.push_light(Job::Remove(key));
    }

    /// Whether the removal of that key is still to be carried out, or will never be.
    pub(super) fn is_removing(&self, key: &CacheKey) -> bool {
        self.is_given_up.load(Ordering::Acquire) || self.removals.lock().by_key.contains_key(key)
    }

    /// Content of a body that is written while it comes.
    pub(super) fn spool(&self, spool: &Arc<Spool>) {
        self.jobs.push_light(Job::Spool(Arc::clone(spool)));
    }

    /// Waits until everything so far is written, as long as that may take.
    pub(super) fn sync(&self, patience: Duration) -> bool {
        let (done, is_done) = std::sync::mpsc::channel();
        self.jobs.push_light(Job::Sync(done));
        is_done.recv_timeout(patience).is_ok()
    }

    fn run(&self, store: &Arc<dyn Store>) {
        while let Some(job) = self.jobs.pop() {
            let removed = match &job {
                Job::Remove(key) => Some(*key),
                _ => None,
            };
            // A store that panics has not stored this one.
            let outcome = catch_unwind(AssertUnwindSafe(|| self.carry_out(store, job)));
            if !matches!(outcome, Ok(Ok(()))) {
                self.counters.store_errors.add(1);
            }
            if let Some(key) = removed {
                self.removed(&key);
            }
        }
    }

    /// Without a store nobody waits for one.
    fn give_up(&self) {
        self.jobs.close();
        while let Some(job) = self.jobs.pop() {
            match job {
                Job::Remove(key) => self.removed(&key),
                Job::Spool(spool) => spool.close(),
                Job::Response(..) | Job::Renewed(..) | Job::Variants(..) | Job::Sync(_) => {}
            }
        }
    }

    fn removed(&self, key: &CacheKey) {
        let mut removals = self.removals.lock();
        if let Some(count) = removals.by_key.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                removals.by_key.remove(key);
            }
            removals.waiting -= 1;
        }
    }

    /// Content that lies in another record is not copied from there.
    fn write(
        &self,
        store: &Arc<dyn Store>,
        key: &CacheKey,
        response: &StoredResponse,
    ) -> std::io::Result<()> {
        let Content::Blocks(blocks) = response.content() else {
            return Ok(());
        };
        let mut record = store.create(key)?;
        let mut checksums = Vec::with_capacity(blocks.len());
        each_block(blocks, |block| {
            checksums.push(checksum(block));
            record.append(block)
        })?;
        let head = encode(key, response, checksums.into())?;
        record.commit(&head)?;
        self.counters.store_writes.add(1);
        Ok(())
    }

    fn carry_out(&self, store: &Arc<dyn Store>, job: Job) -> std::io::Result<()> {
        match job {
            Job::Response(key, response) => self.write(store, &key, &response)?,
            Job::Renewed(key, response) => {
                let checksums = match response.content() {
                    Content::Recorded(recorded) => recorded.checksums.as_ref().into(),
                    Content::Blocks(blocks) => checksums(blocks)?,
                };
                let head = encode(&key, &response, checksums)?;
                if !store.replace_head(&key, &head)? {
                    self.write(store, &key, &response)?;
                }
            }
            Job::Variants(key, names, generation) => {
                let metadata = Metadata::Variants {
                    names: names.to_vec(),
                    generation,
                };
                let head = metadata.encode(&key, clock::now(), clock::wall());
                let record = store.create(&key)?;
                record.commit(&head.ok_or_else(too_large)?)?;
            }
            Job::Remove(key) => store.remove(&key)?,
            Job::Spool(spool) => {
                let more = catch_unwind(AssertUnwindSafe(|| spool.write(store, &self.counters)));
                match more {
                    Ok(true) => self.spool(&spool),
                    Ok(false) => {}
                    Err(panic) => {
                        // Whoever waits for it would wait for ever.
                        spool.close();
                        resume_unwind(panic);
                    }
                }
            }
            Job::Sync(done) => {
                let outcome = store.sync();
                // Whoever asked may have lost patience.
                _ = done.send(());
                outcome?;
            }
        }
        Ok(())
    }
}

fn checksums(blocks: &[Bytes]) -> std::io::Result<Box<[Checksum]>> {
    let mut checksums = Vec::with_capacity(blocks.len());
    each_block(blocks, |block| {
        checksums.push(checksum(block));
        Ok(())
    })?;
    Ok(checksums.into())
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

/// The content in blocks of which only the last is shorter, as records have them.
fn each_block(
    blocks: &[Bytes],
    mut each: impl FnMut(&Bytes) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let are_exact = blocks.split_last().is_none_or(|(last, before)| {
        last.len() <= BLOCK && before.iter().all(|block| block.len() == BLOCK)
    });
    if are_exact {
        return blocks.iter().try_for_each(each);
    }
    let mut open = Vec::with_capacity(BLOCK);
    for block in blocks {
        let mut rest = &block[..];
        while !rest.is_empty() {
            let (fits, beyond) = rest.split_at(rest.len().min(BLOCK - open.len()));
            open.extend_from_slice(fits);
            rest = beyond;
            if open.len() == BLOCK {
                each(&std::mem::replace(&mut open, Vec::with_capacity(BLOCK)).into())?;
            }
        }
    }
    if open.is_empty() {
        Ok(())
    } else {
        each(&open.into())
    }
}

fn encode(
    key: &CacheKey,
    response: &StoredResponse,
    checksums: Box<[Checksum]>,
) -> std::io::Result<Vec<u8>> {
    let metadata = Metadata::Response(Box::new(ResponseMetadata {
        head: Arc::clone(response.head()),
        trailers: response.trailers().cloned(),
        terms: *response.terms(),
        received: response.received(),
        origin: response.origin().clone(),
        checksums,
    }));
    let encoded = metadata.encode(key, clock::now(), clock::wall());
    encoded.ok_or_else(too_large)
}

pub(super) fn too_large() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidInput, "the head is too large")
}
