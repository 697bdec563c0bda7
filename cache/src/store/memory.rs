//! The store in memory: records in a bounded table.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::table::{Bounded, Table};
use super::{BLOCK, NewRecord, Record, Store, Usage, detach};
use crate::counters::{Counted, Counter, counters};
use crate::key::CacheKey;

/// What a record takes beside its head and its blocks: its key, its place in the table, and what holds them together.
const PER_RECORD: u64 = 256;

counters! {
    /// What happened in a [`MemoryStore`] since it was made.
    pub struct MemoryCounters {
        /// Records that made room for others.
        evictions,
        /// Records that were not kept because they are larger than the store takes.
        refused_too_large,
    }
}

/// Records in memory, up to a capacity in bytes; they go with the store.
///
/// It is for whoever needs a [`Store`] and no disk: tests, and a store of one's own that differs from others in one thing and leaves
/// the rest to this. A cache needs none behind its memory tier, which keeps the same in a form that is sent as it is.
///
/// - *Bound*: what can be found is at most the capacity, overhead included. A body may take a sixteenth of it, which is also the most
///   that a record takes while it is written, when it does not count yet; nor does what is only held by those who have it open.
/// - *What goes* is what was used least. A long run of records that are written and never asked for pushes out little else.
/// - *Nothing waits*: it opens and reads at once, under locks that are held for a moment.
/// - *Whole blocks are not copied*, going in or out: they are shared with whoever gave them.
#[derive(Debug)]
pub struct MemoryStore {
    records: Arc<Records>,
}

#[derive(Debug)]
struct Records {
    table: Table<Arc<MemoryRecord>>,
    /// Held while a key gets another record or loses the one it has, so that a new head cannot bring back what is gone.
    changing: Mutex<()>,
    counters: Arc<MemoryCounters>,
}

impl MemoryStore {
    /// An empty store of `capacity` bytes.
    pub fn new(capacity: u64) -> Self {
        let counters = Arc::default();
        let records = Arc::new(Records {
            table: Table::new(capacity, None, Arc::clone(&counters)),
            changing: Mutex::new(()),
            counters,
        });
        Self { records }
    }

    /// What it counts.
    pub fn counters(&self) -> &MemoryCounters {
        &self.records.counters
    }
}

impl Records {
    fn too_large(&self) -> io::Error {
        self.counters.refused_too_large.add(1);
        io::ErrorKind::FileTooLarge.into()
    }

    /// Puts a record in the place of what was there, while `changing` is held.
    fn insert(&self, key: CacheKey, record: MemoryRecord) -> io::Result<()> {
        if (self.table).is_too_large(record.body.length, record.weight()) {
            return Err(self.too_large());
        }
        self.table.insert(key, Arc::new(record));
        Ok(())
    }
}

impl Store for MemoryStore {
    fn may_hold(&self, key: &CacheKey) -> bool {
        self.records.table.contains(key)
    }

    fn open(&self, key: &CacheKey) -> io::Result<Option<Arc<dyn Record>>> {
        let record = self.records.table.get(key);
        Ok(record.map(|record| record as Arc<dyn Record>))
    }

    fn open_now(&self, key: &CacheKey) -> Option<io::Result<Option<Arc<dyn Record>>>> {
        Some(self.open(key))
    }

    fn max_body(&self) -> u64 {
        self.records.table.max_object()
    }

    fn create(&self, key: &CacheKey) -> io::Result<Box<dyn NewRecord>> {
        Ok(Box::new(Draft {
            records: Arc::clone(&self.records),
            key: *key,
            body: Body::default(),
            is_spoilt: false,
        }))
    }

    fn replace_head(&self, key: &CacheKey, head: &[u8]) -> io::Result<bool> {
        let _changing = self.records.changing.lock();
        let Some(record) = self.records.table.peek(key) else {
            return Ok(false);
        };
        let renewed = MemoryRecord {
            head: Bytes::copy_from_slice(head),
            body: record.body.clone(),
        };
        self.records.insert(*key, renewed)?;
        Ok(true)
    }

    fn remove(&self, key: &CacheKey) -> io::Result<()> {
        let _changing = self.records.changing.lock();
        self.records.table.remove(key);
        Ok(())
    }

    fn touch(&self, key: &CacheKey) {
        self.records.table.get(key);
    }

    fn usage(&self) -> Usage {
        let records = self.records.table.len() as u64;
        let memory = records * PER_RECORD;
        Usage {
            records,
            // Between the two questions another thread may have removed some.
            bytes: self.records.table.weight().saturating_sub(memory),
            memory,
        }
    }

    fn counters(&self) -> Vec<Counted> {
        self.records.counters.each().collect()
    }
}

/// A record, which is never changed: with another head it is another record of the same body.
#[derive(Debug)]
struct MemoryRecord {
    head: Bytes,
    body: Body,
}

impl Bounded for Arc<MemoryRecord> {
    type Counters = MemoryCounters;

    fn weight(&self) -> u64 {
        MemoryRecord::weight(self)
    }

    fn evictions(counters: &MemoryCounters) -> &Counter {
        &counters.evictions
    }
}

impl MemoryRecord {
    fn weight(&self) -> u64 {
        PER_RECORD + self.head.len() as u64 + self.body.weight
    }
}

impl Record for MemoryRecord {
    fn head(&self) -> Bytes {
        self.head.clone()
    }

    fn length(&self) -> u64 {
        self.body.length
    }

    fn read(&self, block: u64) -> io::Result<Bytes> {
        self.body
            .block(block)
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn read_now(&self, block: u64) -> Option<io::Result<Bytes>> {
        Some(self.read(block))
    }
}

/// A body as long as it was at some time. Its blocks are shared with the draft that adds more, and with all heads it has had.
#[derive(Debug, Clone, Default)]
struct Body {
    blocks: Arc<RwLock<Vec<Bytes>>>,
    /// Bytes of it. What lies beyond was added later.
    length: u64,
    /// What its blocks take in memory.
    weight: u64,
}

impl Body {
    fn block(&self, number: u64) -> Option<Bytes> {
        let count = self.length.div_ceil(BLOCK as u64);
        let index = usize::try_from(number).ok().filter(|_| number < count)?;
        self.blocks.read().get(index).cloned()
    }

    /// Whether this can follow: none is longer than a block, and only the last is shorter.
    fn takes(&self, block: &Bytes) -> bool {
        let is_open = self.length.is_multiple_of(BLOCK as u64);
        block.is_empty() || (is_open && block.len() <= BLOCK)
    }

    fn push(&mut self, block: &Bytes) {
        if !block.is_empty() {
            let (block, weight) = detach(block.clone(), BLOCK);
            self.length += block.len() as u64;
            self.weight += weight as u64;
            self.blocks.write().push(block);
        }
    }
}

/// What is being written: nobody finds it.
#[derive(Debug)]
struct Draft {
    records: Arc<Records>,
    key: CacheKey,
    body: Body,
    /// It lacks what could not be added.
    is_spoilt: bool,
}

impl NewRecord for Draft {
    fn append(&mut self, block: &Bytes) -> io::Result<()> {
        // A body that lacks something must not be taken for a whole one.
        if self.is_spoilt || !self.body.takes(block) {
            self.is_spoilt = true;
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if self.records.table.max_object() < self.body.length + block.len() as u64 {
            self.is_spoilt = true;
            return Err(self.records.too_large());
        }
        self.body.push(block);
        Ok(())
    }

    fn so_far(&self) -> Option<Arc<dyn Record>> {
        Some(Arc::new(MemoryRecord {
            head: Bytes::new(),
            body: self.body.clone(),
        }))
    }

    fn commit(self: Box<Self>, head: &[u8]) -> io::Result<()> {
        if self.is_spoilt {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let record = MemoryRecord {
            head: Bytes::copy_from_slice(head),
            body: self.body,
        };
        let _changing = self.records.changing.lock();
        self.records.insert(self.key, record)
    }
}
