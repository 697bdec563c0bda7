//! The two generations that a store looks into, and how one follows the other.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard, RwLock};

use super::counters::SledCounters;
use super::generation::{self, Generation};
use super::key_set::KeySet;
use super::record::SledRecord;
use super::space::Space;
use super::value::{Body, Value};
use crate::key::CacheKey;
use crate::store::Usage;

/// A database that takes longer to open is given up.
pub(super) const OPEN_LIMIT: Duration = Duration::from_secs(10);

/// Orders that may wait for the keeper. One more to carry a record over is dropped: the record goes with its generation.
const ORDERS: usize = 1024;

/// Changes of one key are made one after the other; keys share so many turns.
const TURNS: usize = 64;

/// A look-up that finds a body gone looks again so often: the record was replaced, or carried over, meanwhile.
const LOOKS: usize = 4;

/// About what sled keeps in memory of each record beside its page cache, as measured: see the store's documentation.
const MEMORY_PER_RECORD: u64 = 100;

/// The directory of bodies that are being written.
const INCOMING: &str = "incoming";

/// What the keeper is asked for.
#[derive(Debug)]
pub(super) enum Order {
    /// Something is full, or has failed.
    Look,
    /// This record was asked for, and is in the older generation.
    CarryOver(CacheKey),
}

/// All that a store is, shared by its callers and the thread that keeps it.
#[derive(Debug)]
pub(super) struct Generations {
    pub(super) directory: PathBuf,
    pub(super) open_limit: Duration,
    pub(super) space: Arc<Space>,
    pub(super) counters: Arc<SledCounters>,
    pair: RwLock<Pair>,
    /// The generations of the last process have been opened, or given up.
    settled: AtomicBool,
    /// The keys that the keeper was asked to carry over from the generation that is the older one now.
    asked_for: KeySet,
    /// The disk is, whatever the capacity.
    disk_is_full: AtomicBool,
    turns: [Mutex<()>; TURNS],
    orders: SyncSender<Order>,
    is_stopped: AtomicBool,
    next_body: AtomicU64,
}

/// Where records are: written to the newest, looked for in both. A key is in at most one of them, but for the moment in which it is
/// written or carried over; and the newer one counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Pair {
    pub(super) newest: Option<Arc<Generation>>,
    pub(super) previous: Option<Arc<Generation>>,
}

impl Pair {
    pub(super) fn each(&self) -> impl Iterator<Item = &Arc<Generation>> {
        self.newest.iter().chain(&self.previous)
    }

    pub(super) fn size(&self) -> u64 {
        self.each().map(|generation| generation.size()).sum()
    }
}

impl Generations {
    /// Nothing yet: the keeper opens what there is.
    ///
    /// # Errors
    /// The directory cannot be made or written to.
    pub(super) fn new(
        directory: &Path,
        capacity: u64,
        open_limit: Duration,
    ) -> io::Result<(Arc<Self>, Receiver<Order>)> {
        fs::create_dir_all(directory)?;
        let (orders, receiver) = sync_channel(ORDERS);
        let generations = Self {
            directory: directory.to_owned(),
            open_limit,
            space: Arc::new(Space::new(capacity)),
            counters: Arc::default(),
            pair: RwLock::default(),
            settled: AtomicBool::new(false),
            asked_for: KeySet::default(),
            disk_is_full: AtomicBool::new(false),
            turns: [const { Mutex::new(()) }; TURNS],
            orders,
            is_stopped: AtomicBool::new(false),
            // Random, so that no number of an earlier process comes again.
            next_body: AtomicU64::new(RandomState::new().hash_one(directory)),
        };
        // What was being written is nobody's.
        let incoming = directory.join(INCOMING);
        generation::remove(&incoming);
        fs::create_dir(incoming)?;
        Ok((Arc::new(generations), receiver))
    }

    /// Where the body of that number is written.
    pub(super) fn incoming(&self, body: u64) -> PathBuf {
        self.directory.join(INCOMING).join(format!("{body:016x}"))
    }

    pub(super) fn next_body(&self) -> u64 {
        self.next_body.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn pair(&self) -> Pair {
        self.pair.read().clone()
    }

    /// The keeper has opened what there was.
    pub(super) fn settle(&self, pair: Pair) {
        *self.pair.write() = pair;
        self.settled.store(true, Ordering::Release);
        self.space.notify();
    }

    /// Writes to this one from now on. What was the newest is now the older one, and what was that has to go.
    pub(super) fn follow_with(&self, fresh: Arc<Generation>) -> Option<Arc<Generation>> {
        let mut pair = self.pair.write();
        let full = pair.newest.replace(fresh)?;
        self.asked_for.clear();
        pair.previous.replace(full)
    }

    /// Looks into this one no more.
    pub(super) fn leave(&self, generation: &Arc<Generation>) {
        let is_it = |other: &mut Arc<Generation>| Arc::ptr_eq(other, generation);
        let mut pair = self.pair.write();
        pair.newest.take_if(is_it);
        pair.previous.take_if(is_it);
    }

    /// Until it is dropped, nobody else changes what is under this key.
    pub(super) fn turn(&self, key: &CacheKey) -> MutexGuard<'_, ()> {
        let turn = usize::try_from(key.short_hash() % TURNS as u64).unwrap_or(0);
        self.turns[turn].lock()
    }

    /// The record under this key.
    pub(super) fn find(&self, key: &CacheKey) -> io::Result<Option<SledRecord>> {
        for _ in 0..LOOKS {
            let pair = self.pair();
            // The newest again at the end: the record may have been carried over in between.
            let again = pair.previous.as_ref().and(pair.newest.as_ref());
            let mut gone = false;
            for generation in pair.each().chain(again) {
                let Some(value) = self.ask(generation.find(key))? else {
                    continue;
                };
                let old = pair
                    .previous
                    .as_ref()
                    .is_some_and(|previous| Arc::ptr_eq(previous, generation));
                if old {
                    self.carry_over_later(key);
                }
                match value.body {
                    Body::Inline(body) => return Ok(Some(SledRecord::inline(value.head, body))),
                    Body::File(body) => {
                        if let Some(file) = generation.open_body(body)? {
                            return Ok(Some(SledRecord::file(value.head, body.length, file)));
                        }
                    }
                }
                gone = true;
                break;
            }
            if !gone {
                return Ok(None);
            }
        }
        self.forget_without_body(key)?;
        Ok(None)
    }

    /// A record's file went otherwise than by us.
    fn forget_without_body(&self, key: &CacheKey) -> io::Result<()> {
        let _turn = self.turn(key);
        for generation in self.pair().each() {
            if let Some(Value {
                body: Body::File(body),
                ..
            }) = generation.find(key)?
                && generation.open_body(body)?.is_none()
            {
                self.counters.lost_bodies.add(1);
                generation.forget(key)?;
            }
        }
        Ok(())
    }

    /// Puts a record in place of what is under its key. A file is in `incoming`, and stays there if that fails.
    pub(super) fn put(&self, key: &CacheKey, head: &[u8], body: Body) -> io::Result<()> {
        let _turn = self.turn(key);
        let pair = self.pair();
        let Some(newest) = &pair.newest else {
            return Err(not_ready());
        };
        let file = match body {
            Body::Inline(_) => None,
            Body::File(file) => Some(file),
        };
        if let Some(file) = file {
            newest.adopt(&self.incoming(file.id), file)?;
        }
        let head = Bytes::copy_from_slice(head);
        let put = self.ask(newest.put(key, &Value { head, body }));
        if put.is_err() {
            if let Some(file) = file {
                newest.free(file);
            }
            return put;
        }
        if let Some(previous) = &pair.previous {
            // One that fails goes as a whole, and the newest counts.
            let _ = self.ask(previous.forget(key));
        }
        self.look_if_full(&pair);
        Ok(())
    }

    /// Gives a record another head. False: there is none.
    pub(super) fn replace_head(&self, key: &CacheKey, head: &[u8]) -> io::Result<bool> {
        let _turn = self.turn(key);
        let pair = self.pair();
        if pair.newest.is_none() && !self.settled.load(Ordering::Relaxed) {
            return Err(not_ready());
        }
        for generation in pair.each() {
            if let Some(mut value) = self.ask(generation.find(key))? {
                value.head = Bytes::copy_from_slice(head);
                self.ask(generation.put(key, &value))?;
                self.look_if_full(&pair);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Forgets a record, in whichever generation it is.
    pub(super) fn remove(&self, key: &CacheKey) -> io::Result<()> {
        self.wait_until_settled()?;
        let _turn = self.turn(key);
        let mut removed = Ok(());
        for generation in self.pair().each() {
            removed = removed.and(self.ask(generation.forget(key)).map(|_| ()));
        }
        removed
    }

    /// A record was used: if it is in the older generation, it should not go with it.
    pub(super) fn used(&self, key: &CacheKey) {
        if self
            .pair
            .try_read()
            .is_some_and(|pair| pair.previous.is_some())
        {
            self.carry_over_later(key);
        }
    }

    fn carry_over_later(&self, key: &CacheKey) {
        if self.asked_for.insert(key) && self.orders.try_send(Order::CarryOver(*key)).is_err() {
            // The next one to ask for it may have more luck.
            self.asked_for.remove(key);
        }
    }

    /// Everything so far is on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.wait_until_settled()?;
        for generation in self.pair().each() {
            self.ask(generation.sync())?;
        }
        Ok(())
    }

    pub(super) fn usage(&self) -> Usage {
        let pair = self.pair.read();
        let records = pair.each().map(|generation| generation.records()).sum();
        let databases = pair.each().count() as u64;
        Usage {
            records,
            bytes: pair.size() + self.space.beside(),
            memory: databases * super::database::PAGE_CACHE + records * MEMORY_PER_RECORD,
        }
    }

    /// Waits for room, for about a second.
    pub(super) fn wait_for_room(&self) -> io::Result<()> {
        if self.pair.read().newest.is_none() {
            return Err(not_ready());
        }
        let in_use = || self.pair.read().size();
        let room = self.space.wait_for_room(in_use, || self.order(Order::Look));
        room.inspect_err(|_| self.counters.refused_full.add(1))
    }

    /// Passes an error on that a file gave. Where it says that the disk is full, the older generation has to go.
    pub(super) fn blame(&self, error: io::Error) -> io::Error {
        if matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        ) {
            self.counters.disk_full.add(1);
            self.disk_is_full.store(true, Ordering::Relaxed);
            self.order(Order::Look);
        }
        error
    }

    /// Whether that was so since this was asked last.
    pub(super) fn take_disk_is_full(&self) -> bool {
        self.disk_is_full.swap(false, Ordering::Relaxed)
    }

    /// Until the generations of the last process have been opened or given up, and an empty one begun in their place: each takes the
    /// limit for opening at most.
    pub(super) fn wait_until_settled(&self) -> io::Result<()> {
        if !self.settled.load(Ordering::Acquire) {
            self.space
                .wait_until(2 * self.open_limit, || self.settled.load(Ordering::Acquire));
        }
        if self.settled.load(Ordering::Acquire) {
            Ok(())
        } else {
            Err(not_ready())
        }
    }

    /// Waits that long for the store to be of use.
    pub(super) fn wait_until_open(&self, at_most: Duration) {
        self.space
            .wait_until(at_most, || self.settled.load(Ordering::Acquire));
    }

    /// Passes an answer on, and has the keeper look at a database that failed.
    fn ask<T>(&self, answer: io::Result<T>) -> io::Result<T> {
        answer.inspect_err(|_| self.order(Order::Look))
    }

    fn look_if_full(&self, pair: &Pair) {
        let newest = pair.newest.as_ref().map_or(0, |newest| newest.size());
        if self.space.is_time_for_another(newest, pair.size()) {
            self.order(Order::Look);
        }
    }

    /// Never waits. An order that has no place is no loss: with so many others before it, the keeper looks anyway.
    fn order(&self, order: Order) {
        let _ = self.orders.try_send(order);
    }

    /// Ends the keeper, when it has done with what it is at.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        // Otherwise there are so many orders that it is not asleep.
        self.order(Order::Look);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }

    /// Lets go of the databases, which writes what they have in memory.
    pub(super) fn close(&self) {
        let pair = std::mem::take(&mut *self.pair.write());
        drop(pair);
    }
}

fn not_ready() -> io::Error {
    io::Error::new(io::ErrorKind::ResourceBusy, "the database is being opened")
}
