//! Everything a store has: the segments, the index over them, and the one place where they are written.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};

use super::bodies::{Bodies, Body, FILE_OVERHEAD};
use super::counters::FileCounters;
use super::index::{Found, Index, IndexKey, Location};
use super::layout::{Kind, Label, MAX_HEAD, SEGMENT_HEADER, checksum};
use super::limits::Limits;
use super::nowait::NoWait;
use super::room::Carry;
use super::segment::{self, Active, Segment, Stored, Torn, is_damage};
use crate::key::CacheKey;
use crate::store::Usage;

/// The segments, from the oldest to the newest.
///
/// What lies later holds: a record replaces one of the same key before it, and a removal ends one. Only the oldest segment is ever
/// dropped, so that a removal is never dropped before what it removed.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) directory: PathBuf,
    pub(super) limits: Limits,
    pub(super) index: Index,
    pub(super) segments: RwLock<BTreeMap<u32, Arc<Segment>>>,
    pub(super) bodies: Arc<Bodies>,
    pub(super) counters: FileCounters,
    pub(super) nowait: Arc<NoWait>,
    /// Bytes of memory of the list of the segment that is being written.
    list_memory: AtomicUsize,
    pub(super) writer: Mutex<Writer>,
}

/// Whoever holds this may write. Nothing that must not wait takes its lock.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) active: Option<Active>,
    /// The number of the next segment. `None`: there is none, as the store is closed.
    pub(super) next: Option<u32>,
    /// How much was written since a segment was folded, up to a segment.
    pub(super) since_fold: u64,
}

impl Log {
    pub(super) fn new(
        directory: PathBuf,
        limits: Limits,
        bodies: Arc<Bodies>,
        counters: FileCounters,
        index: Index,
        segments: BTreeMap<u32, Arc<Segment>>,
        writer: Writer,
    ) -> Self {
        Self {
            directory,
            limits,
            index,
            segments: RwLock::new(segments),
            bodies,
            counters,
            nowait: Arc::default(),
            list_memory: AtomicUsize::new(0),
            writer: Mutex::new(writer),
        }
    }

    pub(super) fn usage(&self) -> Usage {
        /// A node of the map, the segment, and its sidecar's share.
        const PER_SEGMENT: usize = 160;
        let rest =
            self.segments.read().len() * PER_SEGMENT + self.list_memory.load(Ordering::Relaxed);
        Usage {
            records: self.index.len(),
            bytes: self.bodies.used(),
            memory: self.index.memory() + rest as u64,
        }
    }

    /// Where the record of this key is now, which makes it hot.
    pub(super) fn locate(&self, key: &CacheKey) -> Option<(Found, Arc<Segment>)> {
        let key = IndexKey::of(key);
        // Between the two looks its segment may be dropped; if it was carried over, the second round finds it.
        for _ in 0..2 {
            let found = self.index.find(&key)?;
            if let Some(segment) = self.segments.read().get(&found.location.segment) {
                return Some((found, Arc::clone(segment)));
            }
        }
        None
    }

    /// What was read, if it is the record of this key; a damaged one is counted and forgotten.
    pub(super) fn judge(
        &self,
        key: &CacheKey,
        found: &Found,
        read: io::Result<Stored>,
    ) -> io::Result<Option<Stored>> {
        match read {
            Ok(stored) if stored.label.key != *key => Ok(None),
            Ok(stored) if stored.label.kind == found.kind() => Ok(Some(stored)),
            Ok(_) => Err(self.forget_damaged(key, found.location, segment::damaged())),
            Err(error) => Err(self.forget_damaged(key, found.location, error)),
        }
    }

    /// Forgets a record if its bytes are gone; returns the error.
    pub(super) fn forget_damaged(
        &self,
        key: &CacheKey,
        location: Location,
        error: io::Error,
    ) -> io::Error {
        if is_damage(&error) {
            self.counters.damaged.add(1);
            self.index.remove_if(&IndexKey::of(key), location);
        }
        error
    }

    /// Appends a record and puts it in place of what its key had.
    pub(super) fn put(
        &self,
        label: &Label,
        head: &[u8],
        blocks: &[bytes::Bytes],
        body: Option<Arc<Body>>,
    ) -> io::Result<()> {
        self.put_locked(&mut self.writer.lock(), label, head, blocks, body)
    }

    fn put_locked(
        &self,
        writer: &mut Writer,
        label: &Label,
        head: &[u8],
        blocks: &[bytes::Bytes],
        body: Option<Arc<Body>>,
    ) -> io::Result<()> {
        let parts: Vec<&[u8]> = std::iter::once(head)
            .chain(blocks.iter().map(|block| &block[..]))
            .collect();
        let location = self.append(writer, label, &parts)?;
        let found = Found { location, body };
        self.index.insert(IndexKey::of(&label.key), found);
        self.bodies.bury();
        Ok(())
    }

    /// The label of a record, if it is not too large.
    pub(super) fn label(
        &self,
        key: &CacheKey,
        kind: Kind,
        head: &[u8],
        body: u64,
        file: u64,
    ) -> io::Result<Label> {
        // A head of that length would be the larger part of what is kept.
        let most = self.limits.body;
        if MAX_HEAD < head.len() || most < head.len() as u64 || most < body {
            return Err(too_large());
        }
        let head_length = u32::try_from(head.len()).map_err(|_| too_large())?;
        Ok(Label {
            kind,
            key: *key,
            head: head_length,
            head_check: checksum(head),
            body,
            file,
        })
    }

    /// Gives a record another head.
    pub(super) fn replace_head(&self, key: &CacheKey, head: &[u8]) -> io::Result<bool> {
        // From the look at the index to the insertion nobody else may write, or a newer record would be replaced by this one.
        let mut writer = self.writer.lock();
        let Some((found, segment)) = self.locate(key) else {
            return Ok(false);
        };
        let read = segment.read(found.location);
        let Some(stored) = self.judge(key, &found, read)? else {
            return Ok(false);
        };
        let Label {
            kind, body, file, ..
        } = stored.label;
        let label = self.label(key, kind, head, body, file)?;
        self.put_locked(&mut writer, &label, head, &[stored.body], found.body)?;
        Ok(true)
    }

    /// Forgets a record, here and on the disk.
    pub(super) fn remove(&self, key: &CacheKey) -> io::Result<()> {
        let mut writer = self.writer.lock();
        if !self.index.remove(&IndexKey::of(key)) {
            return Ok(());
        }
        self.bodies.bury();
        self.append(&mut writer, &Label::removal(*key), &[])?;
        Ok(())
    }

    /// Writes something outside of the segments, for which `bytes` more are needed.
    pub(super) fn write_body(
        &self,
        body: &Body,
        bytes: u64,
        mut write: impl FnMut() -> io::Result<()>,
    ) -> io::Result<()> {
        {
            let mut writer = self.writer.lock();
            self.make_room(&mut writer, bytes)?;
            body.charge(bytes);
        }
        let written = match write() {
            Err(error) if is_full(&error) => {
                let dropped = self.drop_oldest(&mut self.writer.lock(), Carry::Nothing);
                if dropped? { write() } else { Err(error) }
            }
            other => other,
        };
        written.inspect_err(|_| self.counters.writes_failed.add(1))
    }

    /// Begins a large body.
    pub(super) fn create_body(&self) -> io::Result<(Arc<Body>, Arc<File>)> {
        let mut writer = self.writer.lock();
        writer.next.ok_or_else(closed)?;
        self.make_room(&mut writer, FILE_OVERHEAD)?;
        let created = self.bodies.create();
        created.inspect_err(|_| self.counters.writes_failed.add(1))
    }

    fn append(&self, writer: &mut Writer, label: &Label, parts: &[&[u8]]) -> io::Result<Location> {
        // The record, and perhaps a segment for it.
        let need = Active::cost(label) + Segment::cost(SEGMENT_HEADER.into(), 0);
        self.make_room(writer, need)?;
        let appended = match self.append_anywhere(writer, label, parts) {
            Err(error) if is_full(&error) && self.drop_oldest(writer, Carry::Nothing)? => {
                self.append_anywhere(writer, label, parts)
            }
            other => other,
        };
        let since_fold = writer.since_fold.saturating_add(label.weight());
        writer.since_fold = since_fold.min(self.limits.segment);
        appended.inspect_err(|_| self.counters.writes_failed.add(1))
    }

    /// Appends without asking for room.
    pub(super) fn append_anywhere(
        &self,
        writer: &mut Writer,
        label: &Label,
        parts: &[&[u8]],
    ) -> io::Result<Location> {
        let active = self.active(writer)?;
        match active.append(label, parts) {
            Ok(location) => {
                self.bodies.charge(Active::cost(label));
                self.list_memory.store(active.memory(), Ordering::Relaxed);
                Ok(location)
            }
            Err(Torn { error, clean }) => {
                if !clean {
                    self.seal(writer);
                }
                Err(error)
            }
        }
    }

    /// The segment to append to.
    fn active<'a>(&self, writer: &'a mut Writer) -> io::Result<&'a mut Active> {
        let full = |active: &Active| self.limits.segment <= active.weight;
        if writer.active.as_ref().is_some_and(full) {
            self.seal(writer);
        }
        let active = match writer.active.take() {
            Some(active) => active,
            None => {
                let number = writer.next.ok_or_else(closed)?;
                let active = Active::create(&self.directory, number);
                if active.as_ref().map_or_else(is_obstacle, |_| true) {
                    writer.next = number.checked_add(1);
                }
                let active = active?;
                self.bodies.charge(active.segment.charged());
                let segment = Arc::clone(&active.segment);
                self.segments.write().insert(number, segment);
                active
            }
        };
        Ok(writer.active.insert(active))
    }

    /// Nothing more is appended to the newest segment.
    fn seal(&self, writer: &mut Writer) {
        if let Some(mut active) = writer.active.take()
            && active.list(&self.directory).is_err()
        {
            // The next start scans the segment instead.
            self.counters.writes_failed.add(1);
        }
    }

    /// Nothing is written any more, so that another store may have the directory.
    pub(super) fn close(&self) {
        let mut writer = self.writer.lock();
        writer.next = None;
        self.seal(&mut writer);
        // Not later: what the index holds is doomed when it goes.
        self.bodies.bury();
    }

    /// Returns when everything so far would survive a loss of power.
    pub(super) fn sync(&self) -> io::Result<()> {
        let directory = File::open(&self.directory)?;
        // One call for the thousands of files there may be; it also waits for what others wrote to this file system.
        #[cfg(target_os = "linux")]
        rustix::fs::syncfs(&directory)?;
        #[cfg(not(target_os = "linux"))]
        for entry in std::fs::read_dir(&self.directory)? {
            match File::open(entry?.path()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                file => file?.sync_all()?,
            }
        }
        directory.sync_all()
    }
}

/// A record that would take too large a share of the capacity.
pub(super) fn too_large() -> io::Error {
    io::Error::new(
        io::ErrorKind::FileTooLarge,
        "the record is too large for the store's capacity",
    )
}

/// Whether deleting something may help.
fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Whether the name of the segment is taken by something that is not ours.
fn is_obstacle(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AlreadyExists
}

fn closed() -> io::Error {
    io::Error::other("the store is closed")
}

#[cfg(test)]
mod tests {
    use super::super::recovery;
    use super::*;

    fn key(number: u64) -> CacheKey {
        CacheKey::new("http", "example.com", &number.to_string())
    }

    fn put(log: &Log, number: u64) -> io::Result<()> {
        let head = [0; 1000];
        let label = log.label(&key(number), Kind::Inline, &head, 0, 0)?;
        log.put(&label, &head, &[], None)
    }

    fn has(log: &Log, number: u64) -> bool {
        log.index.contains(&IndexKey::of(&key(number)))
    }

    /// Three segments with a record each.
    fn three(directory: &std::path::Path) -> Log {
        let limits = Limits::with_segments_of(1000, 4_000_000);
        let log = recovery::open(directory, limits).unwrap();
        (0..3).for_each(|number| put(&log, number).unwrap());
        assert_eq!(log.segments.read().len(), 3);
        log
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_record_that_a_full_disk_refuses_takes_the_place_of_the_oldest_segment() {
        let directory = tempfile::tempdir().unwrap();
        let log = three(directory.path());
        // A segment that has room, so that it is the one that is written to.
        log.writer.lock().active.as_mut().unwrap().weight = 0;
        log.writer.lock().active.as_mut().unwrap().fill_disk();
        put(&log, 3).unwrap();
        assert_eq!(
            [0, 1, 2, 3].map(|number| has(&log, number)),
            [false, true, true, true]
        );
        assert_eq!(log.counters.segments_dropped.get(), 1);
        assert_eq!(log.counters.writes_failed.get(), 0);
    }

    #[test]
    fn a_body_that_a_full_disk_refuses_costs_the_oldest_segment_and_is_tried_once_more() {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        // What the disk says to each attempt, and whether that drops a segment, and is an error in the end.
        for (answers, drops, fails) in [
            (&[Ok(())][..], 0, 0),
            (&[Err(StorageFull), Ok(())], 1, 0),
            (&[Err(QuotaExceeded), Ok(())], 1, 0),
            (&[Err(StorageFull), Err(StorageFull)], 1, 1),
            (&[Err(FileTooLarge)], 0, 1),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let log = three(directory.path());
            let (body, _file) = log.create_body().unwrap();
            let mut each = answers.iter();
            let written = log.write_body(&body, 1000, || {
                each.next().unwrap().map_err(io::Error::from)
            });
            assert!(each.next().is_none(), "{answers:?}: tried too seldom");
            assert_eq!(written.is_err(), fails == 1, "{answers:?}");
            assert_eq!(log.counters.writes_failed.get(), fails);
            assert_eq!(log.counters.segments_dropped.get(), drops);
            assert_eq!([0, 1].map(|number| has(&log, number)), [drops == 0, true]);
        }
    }
}
