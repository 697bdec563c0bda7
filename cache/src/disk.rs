//! The tier behind the memory: a [`Store`], the threads that wait for it, and what is checked of what it gives back.
//!
//! Nobody who serves a client waits for a disk. Writing is left to a thread of its own, and given up where it cannot keep up;
//! reading happens at once where the system has the bytes in memory, and else on threads that may wait. Whatever comes back is
//! checked before it is used: a head with its key, each block of content by its checksum.

mod clock;
mod folder;
mod load;
mod metadata;
mod queue;
mod readers;
mod recorded;
mod spool;
#[cfg(test)]
mod tests;
mod writer;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::task::{Context, Poll};
use std::time::Duration;

use http::HeaderName;
use parking_lot::Mutex;

pub(crate) use folder::Folder;
pub use folder::FolderError;
pub(crate) use metadata::ResponseMetadata;
pub use metadata::is_metadata;
pub(crate) use readers::Loaded;
pub(crate) use recorded::{Content, Stored};
pub use recorded::{Damaged, StoredBody};
pub(crate) use spool::{Reading, Spool};

use crate::counters::CacheCounters;
use crate::flights::Invalidations;
use crate::key::CacheKey;
use crate::store::{Store, StoredResponse};
use load::Load;
use readers::Readers;
use writer::Writer;

/// How long the end waits for a disk that has been too slow already.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// A store, and the threads around it.
#[derive(Debug)]
pub(crate) struct Disk {
    readers: Arc<Readers>,
    writer: Arc<Writer>,
    /// What was read under a key before its last change is of no use after it.
    changes: Invalidations,
    /// Hears that all threads have ended.
    ended: Mutex<Receiver<Infallible>>,
    is_open: Mutex<Receiver<()>>,
}

/// What a store has under a key.
#[derive(Debug)]
pub(crate) enum Look {
    /// This, when the key had changed so often.
    Here(Loaded, u64),
    /// That takes a while.
    Wait(Loading),
}

/// A record on its way from the disk.
#[derive(Debug)]
pub struct Loading {
    key: CacheKey,
    /// How often what lies under the key had changed when it was asked for.
    changes: u64,
    load: Arc<Load<Loaded>>,
}

impl Loading {
    /// Ready when it is here: look again.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<Loaded> {
        self.load.poll(cx)
    }

    pub(crate) fn key(&self) -> &CacheKey {
        &self.key
    }

    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }
}

impl Disk {
    /// Has a thread open a store in a folder, which stays taken until the store is dropped, and calls `leave_word` when the next
    /// process must not use it. `max_object` is what the memory keeps of one response. Until it is open there is nothing in it; if it cannot be opened, never.
    ///
    /// # Errors
    /// There are no threads to be had.
    pub(crate) fn new(
        folder: Option<Arc<Folder>>,
        open: impl FnOnce() -> io::Result<Arc<dyn Store>> + Send + 'static,
        leave_word: impl Fn() + Send + Sync + 'static,
        max_object: u64,
        counters: &Arc<CacheCounters>,
    ) -> io::Result<Self> {
        let readers = Readers::new(folder, max_object, Arc::clone(counters));
        let writer = Writer::new(leave_word, Arc::clone(counters));
        let (opened, is_open) = channel();
        let (alive, ended) = channel();
        readers.start(&alive)?;
        let when_open = move || {
            // Nobody may be waiting.
            _ = opened.send(());
        };
        writer.start(&readers, open, when_open, alive)?;
        Ok(Self {
            readers,
            writer,
            changes: Invalidations::default(),
            ended: Mutex::new(ended),
            is_open: Mutex::new(is_open),
        })
    }

    /// Waits until the store is open, or cannot be opened. False: it takes longer than that, and opens in the background.
    pub(crate) fn wait_until_open(&self, patience: Duration) -> bool {
        self.is_open.lock().recv_timeout(patience).is_ok()
    }

    /// What lies under a key.
    pub(crate) fn look(&self, key: &CacheKey) -> Look {
        // Counted before it is asked whether a change is under way, which is noted before it is counted.
        let changes = self.changes_of(key);
        if !self.readers.may_hold(key) || self.writer.is_changing(key) {
            return Look::Here(Loaded::Nothing, changes);
        }
        if let Some(loaded) = self.readers.load_now(key) {
            return Look::Here(loaded, changes);
        }
        match self.readers.load(key, changes) {
            Some(load) => Look::Wait(Loading {
                key: *key,
                changes,
                load,
            }),
            None => Look::Here(Loaded::Nothing, changes),
        }
    }

    /// Whether something is still to be done under that key.
    pub(crate) fn is_changing(&self, key: &CacheKey) -> bool {
        self.writer.is_changing(key)
    }

    /// How often what lies under a key has changed.
    pub(crate) fn changes_of(&self, key: &CacheKey) -> u64 {
        self.changes.of(key)
    }

    /// Keeps a response under a key.
    pub(crate) fn save(&self, key: CacheKey, response: &Arc<StoredResponse>) {
        let is_queued = self.writer.save(key, response);
        self.changed(key, is_queued);
    }

    /// Keeps a new head of a response under a key.
    pub(crate) fn renew(&self, key: CacheKey, response: &Arc<StoredResponse>) {
        let is_queued = self.writer.renew(key, response);
        self.changed(key, is_queued);
    }

    /// What cannot be written must not leave an older one in its place. Most of what a busy site stores is new, so there is none.
    fn changed(&self, key: CacheKey, is_queued: bool) {
        let may_be_there = || {
            // What a store holds that is not open yet, nobody knows.
            self.readers.is_opening()
                || self.readers.may_hold(&key)
                || self.writer.is_changing(&key)
        };
        if !is_queued && may_be_there() {
            self.clear_away(key);
        }
        self.outdate(&key);
    }

    /// Begins a body, of that length if it is known, that is to be written under a key while it comes. `committed` is called, by the
    /// thread that writes, with what the key gives when it has taken the place of what was there.
    pub(crate) fn spool(
        &self,
        key: CacheKey,
        length: Option<u64>,
        committed: impl FnOnce(Loaded) + Send + 'static,
    ) -> Option<Arc<Spool>> {
        let was_opening = self.readers.is_opening();
        let Some(store) = self.store() else {
            if was_opening {
                // It would answer with an older one as soon as it is open.
                self.clear_away(key);
            }
            return None;
        };
        if store.max_body() < length.unwrap_or(0) {
            self.readers.count_too_large();
            self.clear_away(key);
            return None;
        }
        let (writer, readers) = (Arc::clone(&self.writer), Arc::clone(&self.readers));
        Some(Spool::new(key, writer, readers, Box::new(committed)))
    }

    /// What was read under a key before is of no use from here on.
    pub(crate) fn outdate(&self, key: &CacheKey) {
        self.changes.count(key);
    }

    /// Keeps by which fields a URI varies.
    pub(crate) fn save_variants(&self, key: CacheKey, names: &Arc<[HeaderName]>, generation: u64) {
        let is_queued = self.writer.save_variants(key, names, generation);
        self.changed(key, is_queued);
    }

    /// Forgets what lies under a key.
    pub(crate) fn remove(&self, key: CacheKey) {
        self.writer.remove(key);
        self.outdate(&key);
    }

    /// The same for what is of no use, or older than it need be. At the end of the process it stays: nobody was told that it is gone.
    pub(crate) fn clear_away(&self, key: CacheKey) {
        if !self.writer.is_stopped() {
            self.writer.remove(key);
        }
        self.outdate(&key);
    }

    /// A response under that key was used without the store being asked.
    pub(crate) fn touch(&self, key: &CacheKey) {
        if let Some(store) = self.store() {
            store.touch(key);
        }
    }

    /// The store, once it is open and while it is not given up.
    pub(crate) fn store(&self) -> Option<&Arc<dyn Store>> {
        let store = self.readers.store()?;
        (!self.writer.is_given_up()).then_some(store)
    }

    /// Bytes that wait to be written.
    pub(crate) fn waiting(&self) -> usize {
        self.writer.waiting()
    }

    /// Writes what is still to be written, as far as that is done in time, and ends the threads. Nothing is kept afterwards.
    pub(crate) fn close(&self, patience: Duration) {
        let is_done = self.writer.sync(patience);
        self.writer.stop();
        self.readers.stop();
        if !is_done {
            tracing::warn!("the store was too slow to write all it was given");
        }
        // One that hangs in a read is no reason to stay.
        let last = if is_done { patience } else { LAST_PATIENCE };
        _ = self.ended.lock().recv_timeout(last);
        if self.writer.owes_removals() {
            self.writer.lose_removal();
            self.writer.wait_for_word(LAST_PATIENCE);
        }
    }
}

impl Drop for Disk {
    /// Waits for the threads, so that whoever comes next finds the folder free; not for a disk that stands still, nor where
    /// [`Disk::close`] has waited already.
    fn drop(&mut self) {
        if !self.writer.is_stopped() {
            self.writer.stop();
            self.readers.stop();
            _ = self.ended.lock().recv_timeout(LAST_PATIENCE);
        }
    }
}
