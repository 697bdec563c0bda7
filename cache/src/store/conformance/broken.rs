//! The suite passes a store that is right, and catches each way in which this one can be broken.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{check, check_capacity, check_durable};
use crate::key::CacheKey;
use crate::store::{BLOCK, NewRecord, Record, Store, Usage};

/// What is wrong with a [`BrokenStore`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Nothing,
    KeepsNothing,
    CutsTheLastByte,
    PadsTheLastBlock,
    TrimsHeads,
    DropsHeadsBeyondABlock,
    ShowsTheUncommitted,
    CommitsOnDrop,
    LeavesADebtOnDrop,
    KeepsTheFirst,
    MixesTheBlocksOfTwoWriters,
    LooksAtHalfTheKey,
    NewHeadsCutTheBody,
    NewHeadsMakeRecords,
    NewHeadsAreNeverFound,
    RemovesNothing,
    RemovesOnlyWhatIsSmall,
    OpenRecordsFollowTheirKey,
    OpenRecordsTakeNewHeads,
    SoFarLacksABlock,
    SoFarGoesWithItsWriter,
    EmptyBlocksPastTheEnd,
    PanicsPastTheEnd,
    DeniesWhatItHas,
    OpenNowFindsNothing,
    ReadNowIsAnother,
    CountsReplacements,
    CountsNoBytes,
    TouchMakesRecords,
    Tears,
    NewHeadsUndoCommits,
    LosesBesideOthers,
    HasNoBound,
    ForgetsAtRestart,
    ForgetsNewHeadsAtRestart,
    RemembersTheRemoved,
    RefusesWhenFull,
}

/// A record as it is kept: immutable, so that one that is open does not change.
#[derive(Debug, Clone)]
struct Kept {
    key: CacheKey,
    head: Bytes,
    blocks: Vec<Bytes>,
}

impl Kept {
    fn length(&self) -> u64 {
        self.blocks.iter().map(|block| block.len() as u64).sum()
    }
}

/// A store in memory that is right if [`Fault::Nothing`] is wrong with it.
#[derive(Debug, Clone)]
struct BrokenStore {
    fault: Fault,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    records: Mutex<HashMap<CacheKey, Kept>>,
    /// What two writers of [`Fault::MixesTheBlocksOfTwoWriters`] write to.
    blocks: Mutex<HashMap<CacheKey, Vec<Bytes>>>,
    /// Bytes it says to hold beyond those it does.
    debt: AtomicU64,
    opened: AtomicU64,
    inserted: AtomicU64,
}

impl BrokenStore {
    fn new(fault: Fault) -> Self {
        let shared = Arc::default();
        Self { fault, shared }
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn insert(&self, key: &CacheKey, mut kept: Kept) {
        if self.has(Fault::Tears) {
            let mut records = self.shared.records.lock();
            if let Some(old) = records.get_mut(key) {
                old.head = kept.head.clone();
            }
            drop(records);
            Self::wait_for(&self.shared.opened);
        }
        if self.has(Fault::CutsTheLastByte)
            && let Some(last) = kept.blocks.last_mut()
        {
            last.truncate(last.len() - 1);
        }
        if self.has(Fault::KeepsNothing) {
            return;
        }
        let mut records = self.shared.records.lock();
        if self.has(Fault::KeepsTheFirst) && records.contains_key(key) {
            return;
        }
        if self.has(Fault::CountsReplacements) && records.contains_key(key) {
            self.shared.debt.fetch_add(1, Ordering::Relaxed);
        }
        if !self.has(Fault::HasNoBound) {
            while BOUND < kept.length() + records.values().map(Kept::length).sum::<u64>() {
                let Some(&any) = records.keys().next() else {
                    break;
                };
                records.remove(&any);
            }
        }
        records.insert(*key, kept);
        self.shared.inserted.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives other threads the time to do this once more while something is half done.
    fn wait_for(count: &AtomicU64) {
        let before = count.load(Ordering::Relaxed);
        for _ in 0..1000 {
            if before != count.load(Ordering::Relaxed) {
                break;
            }
            std::thread::yield_now();
        }
    }
}

/// The bytes that a store which is right keeps at most, of bodies.
const BOUND: u64 = 8 << 20;

impl Store for BrokenStore {
    fn may_hold(&self, key: &CacheKey) -> bool {
        !(self.has(Fault::DeniesWhatItHas) && key.as_bytes()[0] == 0)
    }

    fn open(&self, key: &CacheKey) -> io::Result<Option<Arc<dyn Record>>> {
        self.shared.opened.fetch_add(1, Ordering::Relaxed);
        let records = self.shared.records.lock();
        let found = if self.has(Fault::LooksAtHalfTheKey) {
            let alike = |kept: &&Kept| kept.key.as_bytes()[..16] == key.as_bytes()[..16];
            records.values().find(alike)
        } else {
            records.get(key)
        };
        Ok(found.map(|kept| -> Arc<dyn Record> {
            Arc::new(Opened {
                kept: kept.clone(),
                store: self.clone(),
                so_far: false,
            })
        }))
    }

    fn open_now(&self, key: &CacheKey) -> Option<io::Result<Option<Arc<dyn Record>>>> {
        Some(if self.has(Fault::OpenNowFindsNothing) {
            Ok(None)
        } else {
            self.open(key)
        })
    }

    fn create(&self, key: &CacheKey) -> io::Result<Box<dyn NewRecord>> {
        let full = BOUND / 2 <= self.usage().bytes;
        if self.has(Fault::RefusesWhenFull) && full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let blocks = Arc::default();
        Ok(Box::new(New {
            key: *key,
            blocks,
            store: self.clone(),
            committed: false,
        }))
    }

    fn replace_head(&self, key: &CacheKey, head: &[u8]) -> io::Result<bool> {
        let Some(mut kept) = self.shared.records.lock().get(key).cloned() else {
            if self.has(Fault::NewHeadsMakeRecords) {
                let (key, head) = (*key, Bytes::copy_from_slice(head));
                self.insert(
                    &key,
                    Kept {
                        key,
                        head,
                        blocks: Vec::new(),
                    },
                );
            }
            return Ok(false);
        };
        if self.has(Fault::NewHeadsAreNeverFound) {
            return Ok(false);
        }
        if self.has(Fault::NewHeadsUndoCommits) {
            Self::wait_for(&self.shared.inserted);
            kept.head = Bytes::copy_from_slice(head);
            self.shared.records.lock().insert(*key, kept);
            return Ok(true);
        }
        let mut records = self.shared.records.lock();
        let Some(kept) = records.get_mut(key) else {
            return Ok(false);
        };
        kept.head = Bytes::copy_from_slice(head);
        if self.has(Fault::NewHeadsCutTheBody) {
            kept.blocks.truncate(1);
        }
        Ok(true)
    }

    fn remove(&self, key: &CacheKey) -> io::Result<()> {
        let mut records = self.shared.records.lock();
        let large = |kept: &Kept| BLOCK as u64 <= kept.length();
        let keeps = match self.fault {
            Fault::RemovesNothing => true,
            Fault::RemovesOnlyWhatIsSmall => records.get(key).is_some_and(large),
            _ => false,
        };
        if !keeps {
            records.remove(key);
        }
        Ok(())
    }

    fn touch(&self, key: &CacheKey) {
        if self.has(Fault::TouchMakesRecords) {
            let (key, head, blocks) = (*key, Bytes::new(), Vec::new());
            self.insert(&key, Kept { key, head, blocks });
        }
    }

    fn usage(&self) -> Usage {
        let records = self.shared.records.lock();
        let debt = self.shared.debt.load(Ordering::Relaxed);
        let bytes = |kept: &Kept| kept.length() + kept.head.len() as u64;
        let bytes = records.values().map(bytes).sum::<u64>();
        let replacements = if self.has(Fault::CountsReplacements) {
            debt
        } else {
            0
        };
        Usage {
            records: records.len() as u64 + replacements,
            bytes: if self.has(Fault::CountsNoBytes) {
                0
            } else {
                bytes + debt
            },
            memory: bytes,
        }
    }
}

#[derive(Debug)]
struct Opened {
    kept: Kept,
    store: BrokenStore,
    so_far: bool,
}

impl Opened {
    /// What its key gives now, in a store whose open records follow it.
    fn current(&self) -> Kept {
        let now = || {
            self.store
                .shared
                .records
                .lock()
                .get(&self.kept.key)
                .cloned()
        };
        match self.store.fault {
            Fault::OpenRecordsFollowTheirKey => now().unwrap_or_else(|| self.kept.clone()),
            _ => self.kept.clone(),
        }
    }
}

impl Record for Opened {
    fn head(&self) -> Bytes {
        let head = match self.store.fault {
            Fault::OpenRecordsTakeNewHeads if !self.so_far => {
                let records = self.store.shared.records.lock();
                let kept = records.get(&self.kept.key).unwrap_or(&self.kept);
                kept.head.clone()
            }
            _ => self.kept.head.clone(),
        };
        match self.store.fault {
            Fault::TrimsHeads => Bytes::copy_from_slice(head.trim_ascii()),
            Fault::DropsHeadsBeyondABlock if BLOCK < head.len() => head.slice(..BLOCK),
            _ => head,
        }
    }

    fn length(&self) -> u64 {
        self.kept.length()
    }

    fn read(&self, block: u64) -> io::Result<Bytes> {
        let kept = self.current();
        let found = usize::try_from(block)
            .ok()
            .and_then(|block| kept.blocks.get(block));
        match (found, self.store.fault) {
            (Some(block), Fault::PadsTheLastBlock) => {
                let mut padded = block.to_vec();
                padded.resize(BLOCK, 0);
                Ok(Bytes::from(padded))
            }
            (Some(block), _) => Ok(block.clone()),
            (None, Fault::EmptyBlocksPastTheEnd) => Ok(Bytes::new()),
            (None, Fault::PanicsPastTheEnd) => panic!("index out of bounds"),
            (None, _) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn read_now(&self, block: u64) -> Option<io::Result<Bytes>> {
        let block = match self.store.fault {
            Fault::ReadNowIsAnother => block.saturating_sub(1),
            _ => block,
        };
        Some(self.read(block))
    }
}

#[derive(Debug)]
struct New {
    key: CacheKey,
    blocks: Arc<Mutex<Vec<Bytes>>>,
    store: BrokenStore,
    committed: bool,
}

impl New {
    fn kept(&self, head: Bytes) -> Kept {
        let blocks = self.blocks.lock().clone();
        Kept {
            key: self.key,
            head,
            blocks,
        }
    }
}

impl NewRecord for New {
    fn append(&mut self, block: &Bytes) -> io::Result<()> {
        self.blocks.lock().push(block.clone());
        let all = &self.store.shared.blocks;
        if self.store.has(Fault::MixesTheBlocksOfTwoWriters) {
            all.lock().entry(self.key).or_default().push(block.clone());
        }
        if self.store.has(Fault::ShowsTheUncommitted) {
            self.store.insert(&self.key, self.kept(Bytes::new()));
        }
        Ok(())
    }

    fn so_far(&self) -> Option<Arc<dyn Record>> {
        let mut kept = self.kept(Bytes::new());
        if self.store.has(Fault::SoFarLacksABlock) {
            kept.blocks.pop();
        }
        if self.store.has(Fault::SoFarGoesWithItsWriter) {
            return Some(Arc::new(SoFar {
                kept,
                blocks: Arc::downgrade(&self.blocks),
            }));
        }
        Some(Arc::new(Opened {
            kept,
            store: self.store.clone(),
            so_far: true,
        }))
    }

    fn commit(mut self: Box<Self>, head: &[u8]) -> io::Result<()> {
        self.committed = true;
        let mut kept = self.kept(Bytes::copy_from_slice(head));
        if let Some(blocks) = self.store.shared.blocks.lock().remove(&self.key) {
            kept.blocks = blocks;
        }
        if self.store.has(Fault::LosesBesideOthers) {
            // Reads the whole table, and writes it back without what others wrote meanwhile.
            let mut table = self.store.shared.records.lock().clone();
            std::thread::yield_now();
            table.insert(self.key, kept);
            *self.store.shared.records.lock() = table;
            return Ok(());
        }
        self.store.insert(&self.key, kept);
        Ok(())
    }
}

impl Drop for New {
    fn drop(&mut self) {
        if self.committed {
            return;
        }
        let length = self.kept(Bytes::new()).length();
        match self.store.fault {
            Fault::CommitsOnDrop => self.store.insert(&self.key, self.kept(Bytes::new())),
            Fault::LeavesADebtOnDrop => {
                self.store.shared.debt.fetch_add(length, Ordering::Relaxed);
            }
            _ => {}
        }
    }
}

/// Readable for as long as its writer lives.
#[derive(Debug)]
struct SoFar {
    kept: Kept,
    blocks: std::sync::Weak<Mutex<Vec<Bytes>>>,
}

impl Record for SoFar {
    fn head(&self) -> Bytes {
        Bytes::new()
    }

    fn length(&self) -> u64 {
        self.kept.length()
    }

    fn read(&self, block: u64) -> io::Result<Bytes> {
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        self.blocks.upgrade().ok_or_else(gone)?;
        let block = usize::try_from(block).ok();
        let block = block.and_then(|block| self.kept.blocks.get(block));
        block.cloned().ok_or_else(gone)
    }
}

/// What stands for disks: the stores by their directories.
#[derive(Debug, Default)]
struct Disk(Mutex<HashMap<PathBuf, HashMap<CacheKey, Kept>>>);

/// A store that survives a restart on this disk.
#[derive(Debug)]
struct DurableStore {
    disk: Arc<Disk>,
    directory: PathBuf,
    store: BrokenStore,
    /// What is there after a restart in place of what should be.
    old: Mutex<HashMap<CacheKey, Kept>>,
}

impl DurableStore {
    fn open(disk: &Arc<Disk>, directory: &Path, fault: Fault) -> Self {
        let store = BrokenStore::new(fault);
        let kept = disk.0.lock().remove(directory).unwrap_or_default();
        *store.shared.records.lock() = kept;
        let (disk, directory) = (Arc::clone(disk), directory.to_owned());
        let old = Mutex::default();
        Self {
            disk,
            directory,
            store,
            old,
        }
    }
}

impl Drop for DurableStore {
    fn drop(&mut self) {
        let mut kept = std::mem::take(&mut *self.store.shared.records.lock());
        kept.extend(self.old.lock().drain());
        if !self.store.has(Fault::ForgetsAtRestart) {
            self.disk.0.lock().insert(self.directory.clone(), kept);
        }
    }
}

impl Store for DurableStore {
    fn open(&self, key: &CacheKey) -> io::Result<Option<Arc<dyn Record>>> {
        self.store.open(key)
    }

    fn create(&self, key: &CacheKey) -> io::Result<Box<dyn NewRecord>> {
        self.old.lock().remove(key);
        self.store.create(key)
    }

    fn replace_head(&self, key: &CacheKey, head: &[u8]) -> io::Result<bool> {
        self.remember(Fault::ForgetsNewHeadsAtRestart, key);
        self.store.replace_head(key, head)
    }

    fn remove(&self, key: &CacheKey) -> io::Result<()> {
        self.remember(Fault::RemembersTheRemoved, key);
        self.store.remove(key)
    }

    fn usage(&self) -> Usage {
        self.store.usage()
    }
}

impl DurableStore {
    fn remember(&self, fault: Fault, key: &CacheKey) {
        let kept = self.store.shared.records.lock().get(key).cloned();
        if let Some(kept) = kept.filter(|_| self.store.has(fault)) {
            self.old.lock().insert(*key, kept);
        }
    }
}

#[test]
fn a_store_that_is_right_passes() {
    check(|| BrokenStore::new(Fault::Nothing));
    let disk = Arc::default();
    check_durable(|directory| DurableStore::open(&disk, directory, Fault::Nothing));
    check_capacity(BOUND + (1 << 20), |_| BrokenStore::new(Fault::Nothing));
}

/// A test per fault: the suite panics, naming the rule.
macro_rules! catches {
    ($check:expr; $($name:ident: $fault:ident => $rule:literal,)*) => {$(
        #[test]
        #[should_panic(expected = $rule)]
        fn $name() {
            let check: fn(Fault) = $check;
            check(Fault::$fault);
        }
    )*};
}

catches! { |fault| check(|| BrokenStore::new(fault));
    keeping_nothing_is_caught: KeepsNothing => "the rule that heads and bodies come back",
    a_byte_cut_off_is_caught: CutsTheLastByte => "the rule that heads and bodies come back",
    a_padded_block_is_caught: PadsTheLastBlock => "the rule that heads and bodies come back",
    a_head_taken_for_text_is_caught: TrimsHeads => "the rule that heads and bodies come back",
    a_large_head_cut_off_is_caught: DropsHeadsBeyondABlock => "the rule that heads and bodies come back",
    showing_the_uncommitted_is_caught: ShowsTheUncommitted => "the rule that a record is nowhere until it is committed",
    a_commit_on_drop_is_caught: CommitsOnDrop => "the rule that a record dropped before it was committed",
    space_lost_on_drop_is_caught: LeavesADebtOnDrop => "the rule that a record dropped before it was committed",
    forgetting_to_replace_is_caught: KeepsTheFirst => "the rule that a commit takes the place",
    counting_replacements_is_caught: CountsReplacements => "the rule that a commit takes the place",
    two_writers_mixed_are_caught: MixesTheBlocksOfTwoWriters => "the rule that of two records of one key",
    half_a_key_is_caught: LooksAtHalfTheKey => "the rule that keys that differ in one bit",
    a_new_head_that_cuts_the_body_is_caught: NewHeadsCutTheBody => "the rule that replace_head gives another head",
    a_new_head_not_taken_is_caught: NewHeadsAreNeverFound => "the rule that replace_head gives another head",
    a_new_head_of_nothing_is_caught: NewHeadsMakeRecords => "the rule that replace_head says false",
    removing_nothing_is_caught: RemovesNothing => "the rule that a removed record is forgotten",
    removing_only_the_small_is_caught: RemovesOnlyWhatIsSmall => "the rule that a removed record is forgotten",
    a_body_shared_after_a_replacement_is_caught: OpenRecordsFollowTheirKey => "the rule that an open record stays",
    a_head_shared_after_a_replacement_is_caught: OpenRecordsTakeNewHeads => "the rule that an open record stays",
    a_block_missing_so_far_is_caught: SoFarLacksABlock => "the rule that so_far is",
    a_so_far_that_goes_with_its_writer_is_caught: SoFarGoesWithItsWriter => "the rule that so_far is",
    empty_blocks_past_the_end_are_caught: EmptyBlocksPastTheEnd => "the rule that reading past the end",
    a_panic_past_the_end_is_caught: PanicsPastTheEnd => "the rule that reading past the end",
    denying_a_record_is_caught: DeniesWhatItHas => "may_hold denies",
    an_open_now_that_finds_nothing_is_caught: OpenNowFindsNothing => "open gives a record and open_now gives none",
    a_read_now_of_another_block_is_caught: ReadNowIsAnother => "is another by read_now",
    counting_no_bytes_is_caught: CountsNoBytes => "the rule that usage counts",
    a_touch_that_makes_records_is_caught: TouchMakesRecords => "the rule that touch changes nothing",
    a_torn_record_is_caught: Tears => "the rule that readers of a key see one record",
    a_new_head_that_undoes_a_commit_is_caught: NewHeadsUndoCommits => "the rule that replace_head does not undo",
    losing_what_others_wrote_is_caught: LosesBesideOthers => "the rule that threads with keys of their own",
}

catches! { |fault| { let disk = Arc::default(); check_durable(|directory| DurableStore::open(&disk, directory, fault)); };
    forgetting_at_a_restart_is_caught: ForgetsAtRestart => "the rule that a record survives a restart",
    forgetting_new_heads_at_a_restart_is_caught: ForgetsNewHeadsAtRestart => "the rule that after a restart the newest",
    remembering_the_removed_is_caught: RemembersTheRemoved => "the rule that a removed record is not remembered",
}

catches! { |fault| check_capacity(BOUND + (1 << 20), |_| BrokenStore::new(fault));
    having_no_bound_is_caught: HasNoBound => "the rule that a store stays within its bound",
    refusing_when_full_is_caught: RefusesWhenFull => "it refused",
    serving_nothing_when_full_is_caught: KeepsNothing => "had",
}
