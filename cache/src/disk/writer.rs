//! The thread that writes records, one after the other.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
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

/// While so many bytes wait to be written, more is not stored on the disk: it is in memory, and stored there. A response that is
/// longer than that waits like others; the memory tier takes no longer one than it is configured to, a sixteenth of it by default.
const MAX_WAITING: usize = 64 * 1024 * 1024;

/// Removals that may wait, or have failed: those of a disk that stands still while a site is busy. One that is lost would bring back
/// what was forgotten, so beyond it the whole store is given up.
const MAX_REMOVALS: usize = 100_000;

/// What a job weighs beside its content.
const PER_JOB: usize = 1024;

/// The writing side of a store. Everything goes through one queue, so that what is done to a key is done in order.
pub(crate) struct Writer {
    jobs: Queue<Job>,
    changes: Mutex<Changes>,
    /// Bytes of bodies that come and are not written yet.
    spooled: AtomicUsize,
    is_given_up: AtomicBool,
    is_stopped: AtomicBool,
    is_out_of_date: AtomicBool,
    leave_word: Arc<dyn Fn() + Send + Sync>,
    /// Hears that the word was left.
    word: Mutex<Option<Receiver<Infallible>>>,
    counters: Arc<CacheCounters>,
}

/// What waits in the queue, and removals that have failed.
#[derive(Debug, Default)]
struct Changes {
    /// How often each key is to be changed. Until then the disk has something older, and nothing is read under the key.
    by_key: HashMap<CacheKey, u32>,
    /// How many of them are removals.
    removals: usize,
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
    /// `leave_word` is called at most once, from a thread of its own, when the disk has something that was to be removed: it must see
    /// to it that the next process does not use the store.
    pub(super) fn new(
        leave_word: impl Fn() + Send + Sync + 'static,
        counters: Arc<CacheCounters>,
    ) -> Arc<Self> {
        Arc::new(Self {
            jobs: Queue::new(MAX_WAITING),
            changes: Mutex::default(),
            spooled: AtomicUsize::new(0),
            is_given_up: AtomicBool::new(false),
            is_stopped: AtomicBool::new(false),
            is_out_of_date: AtomicBool::new(false),
            leave_word: Arc::new(leave_word),
            word: Mutex::default(),
            counters,
        })
    }

    /// Opens the store, then writes what there is to write until it is told to stop. The thread holds `alive` until it ends.
    pub(super) fn start(
        self: &Arc<Self>,
        readers: &Arc<Readers>,
        open: impl FnOnce() -> std::io::Result<Arc<dyn Store>> + Send + 'static,
        opened: impl FnOnce() + Send + 'static,
        alive: Sender<Infallible>,
    ) -> std::io::Result<()> {
        let (writer, readers) = (Arc::clone(self), Arc::clone(readers));
        std::thread::Builder::new()
            .name("store-write".into())
            .spawn(move || {
                // Goes after the others, and with them perhaps the store.
                let _alive = alive;
                let (writer, readers) = (writer, readers);
                let store = catch_unwind(AssertUnwindSafe(open));
                match store.unwrap_or_else(|_| Err(std::io::Error::other("it panicked"))) {
                    Ok(store) => {
                        readers.opened(Some(Arc::clone(&store)));
                        opened();
                        writer.run(&store);
                    }
                    Err(error) => {
                        tracing::error!(%error, "the store cannot be opened: nothing is kept on the disk");
                        readers.opened(None);
                        writer.run_without_store();
                        opened();
                    }
                }
            })
            .map(drop)
    }

    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Release);
        self.jobs.close();
    }

    /// Whether the process comes to its end.
    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Acquire)
    }

    /// Bytes that wait to be written.
    pub(super) fn waiting(&self) -> usize {
        self.jobs.weight() + self.spooled.load(Ordering::Relaxed)
    }

    /// Whether the disk is behind with as many bytes as may wait, in bodies that come.
    pub(super) fn is_behind(&self) -> bool {
        MAX_WAITING <= self.spooled.load(Ordering::Relaxed)
    }

    /// So many bytes of a body wait.
    pub(super) fn spooled(&self, bytes: usize) {
        self.spooled.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many do not any more.
    pub(super) fn unspooled(&self, bytes: usize) {
        self.spooled.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether the store is of no use any more.
    pub(super) fn is_given_up(&self) -> bool {
        self.is_given_up.load(Ordering::Relaxed)
    }

    /// Stores a response. False: too much waits already, and what is under the key must not stay there.
    #[must_use]
    pub(super) fn save(&self, key: CacheKey, response: &Arc<StoredResponse>) -> bool {
        let weight = usize::try_from(response.weight()).unwrap_or(usize::MAX);
        self.queue(key, Job::Response(key, Arc::clone(response)), weight)
    }

    /// The same for the new head of a response whose content is there already.
    #[must_use]
    pub(super) fn renew(&self, key: CacheKey, response: &Arc<StoredResponse>) -> bool {
        self.queue(key, Job::Renewed(key, Arc::clone(response)), PER_JOB)
    }

    /// The same for the fields by which a URI varies.
    #[must_use]
    pub(super) fn save_variants(
        &self,
        key: CacheKey,
        names: &Arc<[HeaderName]>,
        generation: u64,
    ) -> bool {
        let job = Job::Variants(key, Arc::clone(names), generation);
        self.queue(key, job, PER_JOB)
    }

    fn queue(&self, key: CacheKey, job: Job, weight: usize) -> bool {
        self.changes.lock().begin(key);
        let is_queued = self.jobs.push(job, weight.max(PER_JOB));
        if !is_queued {
            self.counters.store_busy.add(1);
            self.changes.lock().end(&key);
        }
        is_queued
    }

    /// Forgets what lies under a key; nothing is read there from here on.
    pub(super) fn remove(&self, key: CacheKey) {
        {
            let mut changes = self.changes.lock();
            if MAX_REMOVALS <= changes.removals {
                drop(changes);
                return self.give_up();
            }
            changes.removals += 1;
            changes.begin(key);
        }
        if !self.jobs.push_light(Job::Remove(key)) {
            self.lose_removal();
        }
    }

    /// Whether something is still to be done under that key, or will never be.
    pub(super) fn is_changing(&self, key: &CacheKey) -> bool {
        self.is_given_up.load(Ordering::Acquire) || self.changes.lock().by_key.contains_key(key)
    }

    /// Whether something that was to be removed may still be there.
    pub(super) fn owes_removals(&self) -> bool {
        self.changes.lock().removals != 0
    }

    /// Nothing of the store is used from here on.
    fn give_up(&self) {
        if !self.is_given_up.swap(true, Ordering::AcqRel) {
            self.jobs.close();
            tracing::error!(
                "the store's disk stands still: it is not used any more, and begins afresh with the next start"
            );
            self.lose_removal();
        }
    }

    /// A removal was not carried out. Its key is not read any more, and the next process must not read it either.
    pub(super) fn lose_removal(&self) {
        if self.is_out_of_date.swap(true, Ordering::AcqRel) {
            return;
        }
        let leave_word = Arc::clone(&self.leave_word);
        let (alive, ended) = channel();
        *self.word.lock() = Some(ended);
        // Whoever calls this must not wait for a disk that stands still.
        let thread = std::thread::Builder::new()
            .name("store-word".into())
            .spawn(move || {
                let _alive: Sender<Infallible> = alive;
                let leave_word = leave_word;
                leave_word();
            });
        if let Err(error) = thread {
            tracing::error!(%error, "what the store holds is out of date, and that cannot be written down: delete its folder");
        }
    }

    /// Waits until the word is left, as long as that.
    pub(super) fn wait_for_word(&self, patience: Duration) {
        if let Some(word) = &*self.word.lock() {
            _ = word.recv_timeout(patience);
        }
    }

    /// Content of a body that is written while it comes.
    pub(super) fn spool(&self, spool: &Arc<Spool>) {
        if !self.jobs.push_light(Job::Spool(Arc::clone(spool))) {
            // Whoever waits for it would wait for ever.
            spool.close();
        }
    }

    /// Waits until everything so far is written, as long as that may take.
    pub(super) fn sync(&self, patience: Duration) -> bool {
        let (done, is_done) = channel();
        self.jobs.push_light(Job::Sync(done));
        is_done.recv_timeout(patience).is_ok()
    }

    fn run(&self, store: &Arc<dyn Store>) {
        while let Some(job) = self.jobs.pop() {
            let (key, is_removal) = (job.key(), matches!(job, Job::Remove(_)));
            let is_done = self.attempt(|| self.carry_out(store, job));
            let Some(key) = key else { continue };
            // What could not be written must not leave an older one in its place.
            let is_done = is_done || (!is_removal && self.attempt(|| store.remove(&key)));
            let mut changes = self.changes.lock();
            if is_done {
                changes.removals -= usize::from(is_removal);
                changes.end(&key);
            } else {
                changes.removals += usize::from(!is_removal);
                drop(changes);
                self.lose_removal();
            }
        }
    }

    /// Whether it came to its end; a store that panics has not done it.
    fn attempt(&self, work: impl FnOnce() -> std::io::Result<()>) -> bool {
        let outcome = catch_unwind(AssertUnwindSafe(work));
        let is_done = matches!(outcome, Ok(Ok(())));
        if !is_done {
            self.counters.store_errors.add(1);
        }
        is_done
    }

    /// Without a store nobody waits for one.
    fn run_without_store(&self) {
        self.jobs.close();
        while let Some(job) = self.jobs.pop() {
            match job {
                Job::Remove(_) => self.lose_removal(),
                Job::Spool(spool) => spool.close(),
                Job::Response(..) | Job::Renewed(..) | Job::Variants(..) | Job::Sync(_) => {}
            }
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

impl Changes {
    fn begin(&mut self, key: CacheKey) {
        *self.by_key.entry(key).or_default() += 1;
    }

    fn end(&mut self, key: &CacheKey) {
        if let Some(count) = self.by_key.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                self.by_key.remove(key);
            }
        }
    }
}

impl Job {
    /// The key that it changes something under. A body that comes says itself what becomes of its key.
    fn key(&self) -> Option<CacheKey> {
        match self {
            Self::Response(key, _)
            | Self::Renewed(key, _)
            | Self::Variants(key, ..)
            | Self::Remove(key) => Some(*key),
            Self::Spool(_) | Self::Sync(_) => None,
        }
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
