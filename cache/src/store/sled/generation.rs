//! A database, and the bodies beside it, in a directory that can be thrown away.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::counters::SledCounters;
use super::database::Database;
use super::space::Space;
use super::value::{Body, BodyFile, Value};
use crate::key::CacheKey;

/// Bodies that are remembered for `sync`; after more it asks for all there are, most of which the system has written out by then.
const UNSYNCED: usize = 4096;

/// The number of records is written down after so many changes, or when nothing else is to be done.
const CHANGES: u64 = 1000;

/// A database in `index/`, bodies in `bodies/`, and the number of records in `records`.
#[derive(Debug)]
pub(super) struct Generation {
    pub(super) number: u64,
    /// Dropped before `home`, whose end may remove its files.
    database: Database,
    home: Home,
    counters: Arc<SledCounters>,
    /// Bytes of the database, when measured, and of what was given to it since.
    index_bytes: AtomicU64,
    given: AtomicU64,
    body_bytes: AtomicU64,
    records: AtomicU64,
    changes: AtomicU64,
    unsynced: Mutex<Unsynced>,
}

/// The bodies that may not be on the disk yet.
#[derive(Debug)]
enum Unsynced {
    These(Vec<BodyFile>),
    Any,
}

impl Default for Unsynced {
    fn default() -> Self {
        Self::These(Vec::new())
    }
}

/// The directory. It goes with its generation, if that is retired.
#[derive(Debug)]
struct Home {
    /// Where it was made.
    directory: PathBuf,
    /// It is beside that, where no start looks for it.
    is_aside: AtomicBool,
    space: Arc<Space>,
    /// Bytes that leave with it.
    leaving: AtomicU64,
    retired: AtomicBool,
}

impl Generation {
    /// Opens or makes the generation of that number. It may take as long as sled likes, and panic as sled does.
    pub(super) fn open(
        store: &Path,
        number: u64,
        space: &Arc<Space>,
        counters: &Arc<SledCounters>,
    ) -> io::Result<Self> {
        let directory = store.join(name(number));
        let bodies = directory.join("bodies");
        fs::create_dir_all(&bodies)?;
        let index = directory.join("index");
        let database = Database::open(&index, counters)?;
        for made in [&*index, &bodies, &directory, store] {
            File::open(made)?.sync_all()?;
        }
        let mut body_bytes = 0_u64;
        for entry in fs::read_dir(bodies)? {
            let name = entry?.file_name();
            let file = name.to_str().and_then(BodyFile::from_name);
            body_bytes = body_bytes.saturating_add(file.map_or(0, BodyFile::on_disk));
        }
        let records = fs::read_to_string(directory.join("records")).ok();
        let records = records.and_then(|records| records.parse().ok());
        let home = Home {
            directory,
            is_aside: AtomicBool::new(false),
            space: Arc::clone(space),
            leaving: AtomicU64::new(0),
            retired: AtomicBool::new(false),
        };
        let generation = Self {
            number,
            database,
            home,
            counters: Arc::clone(counters),
            index_bytes: AtomicU64::new(0),
            given: AtomicU64::new(0),
            body_bytes: AtomicU64::new(body_bytes),
            records: AtomicU64::new(records.unwrap_or(0)),
            changes: AtomicU64::new(0),
            // What a process before this one has left to be written.
            unsynced: Mutex::new(Unsynced::Any),
        };
        generation.measure();
        Ok(generation)
    }

    /// What is under this key. A value that is not what was written goes.
    pub(super) fn find(&self, key: &CacheKey) -> io::Result<Option<Value>> {
        let Some(bytes) = self.database.get(key)? else {
            return Ok(None);
        };
        let value = Value::decode(key, &bytes);
        if value.is_none() {
            self.counters.damaged.add(1);
            self.forget(key)?;
        }
        Ok(value)
    }

    /// Puts a value, whose body is here already, in place of what is there.
    pub(super) fn put(&self, key: &CacheKey, value: &Value) -> io::Result<()> {
        let Some(bytes) = value.encode(key) else {
            return Err(io::ErrorKind::FileTooLarge.into());
        };
        let given = (key.as_bytes().len() + bytes.len()) as u64;
        match self.database.insert(key, bytes)? {
            None => {
                self.records.fetch_add(1, Ordering::Relaxed);
            }
            Some(old) => self.free_body_of(key, &old, Some(&value.body)),
        }
        self.changes.fetch_add(1, Ordering::Relaxed);
        let given = given + self.given.fetch_add(given, Ordering::Relaxed);
        if self.home.space.step() <= given {
            self.measure();
        }
        Ok(())
    }

    /// False: there was nothing.
    pub(super) fn forget(&self, key: &CacheKey) -> io::Result<bool> {
        let Some(old) = self.database.remove(key)? else {
            return Ok(false);
        };
        let less = |records: u64| Some(records.saturating_sub(1));
        let _ = self
            .records
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        self.changes.fetch_add(1, Ordering::Relaxed);
        self.free_body_of(key, &old, None);
        Ok(true)
    }

    fn free_body_of(&self, key: &CacheKey, old: &[u8], new: Option<&Body>) {
        // A value that cannot be read tells of no file; one that may be there goes with this generation.
        let Some(Value { body, .. }) = Value::decode(key, old) else {
            return;
        };
        match body {
            Body::File(file) if new != Some(&Body::File(file)) => self.free(file),
            Body::File(_) | Body::Inline(_) => {}
        }
    }

    /// Opens a body. `None`: it is not there, or not as long as it was.
    pub(super) fn open_body(&self, body: BodyFile) -> io::Result<Option<File>> {
        match File::open(self.body_path(body)) {
            Ok(file) => {
                let whole = file.metadata()?.len() == body.length;
                Ok(whole.then_some(file))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes a body in that was written elsewhere in the store.
    pub(super) fn adopt(&self, from: &Path, body: BodyFile) -> io::Result<()> {
        fs::rename(from, self.body_path(body))?;
        self.taken_in(body);
        Ok(())
    }

    /// Takes a body in that another generation has, and may let go of afterwards.
    pub(super) fn share(&self, from: &Self, body: BodyFile) -> io::Result<()> {
        fs::hard_link(from.body_path(body), self.body_path(body))?;
        self.taken_in(body);
        Ok(())
    }

    fn taken_in(&self, body: BodyFile) {
        self.body_bytes.fetch_add(body.on_disk(), Ordering::Relaxed);
        let mut unsynced = self.unsynced.lock();
        match &mut *unsynced {
            Unsynced::These(bodies) if bodies.len() < UNSYNCED => bodies.push(body),
            Unsynced::These(_) | Unsynced::Any => *unsynced = Unsynced::Any,
        }
    }

    /// Lets go of a body.
    pub(super) fn free(&self, body: BodyFile) {
        // Otherwise it is not there, or goes with this generation.
        if fs::remove_file(self.body_path(body)).is_ok() {
            self.body_bytes.fetch_sub(body.on_disk(), Ordering::Relaxed);
        }
    }

    fn body_path(&self, body: BodyFile) -> PathBuf {
        self.home.path().join("bodies").join(body.name())
    }

    pub(super) fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// Bytes on the disk.
    pub(super) fn size(&self) -> u64 {
        let parts = [&self.index_bytes, &self.given, &self.body_bytes];
        parts.map(|part| part.load(Ordering::Relaxed)).iter().sum()
    }

    /// Asks the file system, and not sled, which leaves its snapshots out.
    pub(super) fn measure(&self) {
        self.given.store(0, Ordering::Relaxed);
        let size = size_of_files(&self.home.path().join("index"));
        self.index_bytes.store(size, Ordering::Relaxed);
    }

    pub(super) fn has_failed(&self) -> bool {
        self.database.has_failed()
    }

    #[cfg(test)]
    pub(super) fn panic(&self) {
        self.database.panic();
    }

    /// Everything so far is on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        let unsynced = std::mem::take(&mut *self.unsynced.lock());
        if let Err(error) = self.sync_bodies(&unsynced) {
            *self.unsynced.lock() = Unsynced::Any;
            return Err(error);
        }
        self.database.flush()
    }

    fn sync_bodies(&self, unsynced: &Unsynced) -> io::Result<()> {
        let bodies = self.home.path().join("bodies");
        let sync = |path: &Path| match File::open(path) {
            Ok(file) => file.sync_data(),
            // Replaced or removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        match unsynced {
            Unsynced::These(none) if none.is_empty() => return Ok(()),
            Unsynced::These(these) => {
                for body in these {
                    sync(&self.body_path(*body))?;
                }
            }
            Unsynced::Any => {
                for entry in fs::read_dir(&bodies)? {
                    sync(&entry?.path())?;
                }
            }
        }
        File::open(bodies)?.sync_all()
    }

    /// Writes down how many records there are, if that has changed, and much of it if `soon` is not asked for.
    pub(super) fn save_records(&self, soon: bool) {
        let least = if soon { 1 } else { CHANGES };
        if self.changes.load(Ordering::Relaxed) < least {
            return;
        }
        self.changes.store(0, Ordering::Relaxed);
        let path = self.home.path().join("records");
        let new = path.with_extension("new");
        // It is for people who watch: not worth an error.
        let written = fs::write(&new, self.records().to_string());
        let _ = written.and_then(|()| fs::rename(&new, &path));
    }

    /// Puts its directory where no start looks for it: what is removed once nobody looks into it any more is not removed from it.
    ///
    /// # Errors
    /// It is where it was, and the next start would find it.
    pub(super) fn put_aside(&self) -> io::Result<()> {
        self.home.put_aside()
    }

    /// Its directory goes when nobody uses it any more, and is not found by a start before that if it can be put aside.
    pub(super) fn retire(&self) {
        if self.home.retired.swap(true, Ordering::Relaxed) {
            return;
        }
        let bytes = self.size();
        self.home.leaving.store(bytes, Ordering::Relaxed);
        self.home.space.leave(bytes);
        // Otherwise its end tries again.
        let _ = self.put_aside();
    }
}

impl Home {
    /// Where it is now.
    fn path(&self) -> PathBuf {
        if self.is_aside.load(Ordering::Relaxed) {
            aside(&self.directory)
        } else {
            self.directory.clone()
        }
    }

    fn put_aside(&self) -> io::Result<()> {
        if !self.is_aside.load(Ordering::Relaxed) {
            put_aside(&self.directory)?;
            self.is_aside.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        if !self.home.retired.load(Ordering::Relaxed) {
            self.save_records(true);
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.retired.load(Ordering::Relaxed) {
            discard(&self.directory);
            self.space.left(self.leaving.load(Ordering::Relaxed));
        }
    }
}

/// The directory of the generation of that number.
pub(super) fn name(number: u64) -> String {
    format!("db-{number}")
}

/// No generation has a greater number: half of all there are, so that there is always a next one. Nobody gets here by counting.
const LAST: u64 = u64::MAX / 2;

/// The number of a generation's directory, also of one that was put aside.
pub(super) fn number_of_any(directory: &str) -> Option<u64> {
    let gone = directory.strip_suffix(GONE);
    let gone = gone.and_then(|directory| directory.strip_suffix('.'));
    number(gone.unwrap_or(directory))
}

/// The number of a generation's directory.
pub(super) fn number(directory: &str) -> Option<u64> {
    let number = directory.strip_prefix("db-")?.parse().ok()?;
    // Signs and leading zeros would do as well, and name another directory.
    (directory == name(number) && number <= LAST).then_some(number)
}

/// The ending of directories that are being removed, also when a kill came between.
pub(super) const GONE: &str = "gone";

fn aside(directory: &Path) -> PathBuf {
    directory.with_extension(GONE)
}

/// Renames it so that it is not opened again, and makes that last. One that is not there is as good as put aside.
fn put_aside(directory: &Path) -> io::Result<()> {
    match fs::rename(directory, aside(directory)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    if let Some(store) = directory.parent() {
        // A kill cannot undo it; a loss of power may, on a disk that cannot even be synced.
        let _ = File::open(store).and_then(|store| store.sync_all());
    }
    Ok(())
}

/// Removes a directory, or a file in its place, as far as that can be done.
pub(super) fn remove(directory: &Path) {
    let _ = fs::remove_dir_all(directory).or_else(|_| fs::remove_file(directory));
}

/// Removes a generation's directory that is not open.
pub(super) fn discard(directory: &Path) {
    match put_aside(directory) {
        Ok(()) => remove(&aside(directory)),
        Err(_) => remove(directory),
    }
}

/// Files may come and go meanwhile.
fn size_of_files(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else {
        return 0;
    };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size_of_files(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_that_a_number_has_is_a_generation() {
        for found in [0, 5, 10, LAST] {
            assert_eq!(number(&name(found)), Some(found));
        }
        for other in ["db-05", "db-+5", "db-", "db-5.gone", "db-five", "5"] {
            assert_eq!(number(other), None, "{other}");
        }
        assert_eq!(number(&name(u64::MAX)), None, "none would follow");
        assert_eq!(number_of_any("db-5.gone"), Some(5));
        assert_eq!(number_of_any("db-5gone"), None);
    }
}
