//! Purges on the disk: confirmed means that the next process knows.
//!
//! A file of records of one length. The first part is a snapshot of the table, then come the purges since. A new snapshot takes
//! the file's place when it is opened, when the purges have become many, and when one could not be written: whatever state that
//! left the file in is then of no account.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::record::{self, EPOCHS, Record, What};
use super::table::PurgeTable;

/// The file, and what becomes it.
const FILE: &str = "purges";
const NEW_FILE: &str = "purges.new";

/// This much is appended to a snapshot before there is a new one: 350,000 purges. A snapshot of a full table has 24 MiB, or 30
/// where hard and soft purges are mixed, so that the file stays below 40 MiB, and twice that for the moment of its renewal.
const TAIL: u64 = 8 * 1024 * 1024;

/// Each process begins so many epochs after the last one that was written down. Those between are for purges that could not be
/// written: no process has 268 million of them in a row.
const GAP: u64 = 1 << 28;

/// What was found when a log was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restored {
    /// All that was confirmed.
    Whole,
    /// No file. What was stored before, if anything, is [`Unsure`](super::Purged::Unsure) now.
    Nothing,
    /// A damaged file. What was stored before is [`Unsure`](super::Purged::Unsure) now, or worse.
    Damaged,
}

/// The file, open for appending.
#[derive(Debug)]
pub(super) struct PurgeLog {
    folder: PathBuf,
    state: Mutex<State>,
    /// Someone has written, and others may.
    written: Condvar,
}

#[derive(Debug)]
struct State {
    /// What whoever writes next takes with him.
    waiting: Vec<u8>,
    outcome: Arc<Outcome>,
    /// `None` while someone writes.
    file: Option<LogFile>,
}

/// What became of records that were written together.
type Outcome = OnceLock<Result<(), Arc<io::Error>>>;

impl PurgeLog {
    /// Reads the file of this folder into a table, which is empty or [began later](begin_after), and writes it anew.
    pub(super) fn open(
        folder: &Path,
        wall: SystemTime,
        table: &PurgeTable,
    ) -> io::Result<(Self, Restored)> {
        let restored = restore(&folder.join(FILE), table);
        let epoch = beyond(table, restored, wall)?;
        let what = match restored {
            Restored::Whole => What::Reached,
            Restored::Nothing | Restored::Damaged => What::Lost,
        };
        let soft = false;
        table.restore(Record { epoch, what, soft });
        let file = LogFile::snapshot(folder, table)?;
        let log = Self {
            folder: folder.to_owned(),
            state: Mutex::new(State {
                waiting: Vec::new(),
                outcome: Arc::default(),
                file: Some(file),
            }),
            written: Condvar::new(),
        };
        Ok((log, restored))
    }

    /// Returns when these records, which are in the table already, are on the disk. Those who come while someone waits for the disk
    /// are written together by one of them.
    pub(super) fn append(
        &self,
        records: impl Iterator<Item = Record>,
        table: &PurgeTable,
    ) -> io::Result<()> {
        let mut state = self.state.lock();
        for record in records {
            state.waiting.extend_from_slice(&record.encode());
        }
        let ours = Arc::clone(&state.outcome);
        loop {
            if let Some(outcome) = ours.get() {
                let shared =
                    |error: &Arc<io::Error>| io::Error::new(error.kind(), Arc::clone(error));
                return outcome.as_ref().copied().map_err(shared);
            }
            let Some(mut file) = state.file.take() else {
                self.written.wait(&mut state);
                continue;
            };
            let records = std::mem::take(&mut state.waiting);
            let outcome = std::mem::take(&mut state.outcome);
            let result =
                MutexGuard::unlocked(&mut state, || file.write(&self.folder, table, &records));
            state.file = Some(file);
            // Nobody else has set it: whoever takes an outcome out of the state is the only one.
            _ = outcome.set(result.map_err(Arc::new));
            self.written.notify_all();
        }
    }
}

/// Lets an empty table begin after all epochs of another process that writes this folder's file still, and after those it is yet to
/// give out. What it knows of purges is read when it has let go of the file.
///
/// # Errors
/// There are no epochs left.
pub(super) fn begin_after(folder: &Path, wall: SystemTime, table: &PurgeTable) -> io::Result<()> {
    let others = PurgeTable::default();
    let restored = restore(&folder.join(FILE), &others);
    let (epoch, what) = (beyond(&others, restored, wall)?, What::Reached);
    let soft = false;
    table.restore(Record { epoch, what, soft });
    Ok(())
}

/// An epoch beyond all that were ever given out, of which this table knows what could be restored.
fn beyond(table: &PurgeTable, restored: Restored, wall: SystemTime) -> io::Result<u64> {
    let mut base = table.latest().get() + GAP;
    if restored != Restored::Whole {
        // The last one written down is not known. By the clock in nanoseconds this is later: no process takes less time from one
        // start to the next than the gap has. Should the clock have been set back, epochs of the future are unsure too.
        let clock = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        base = base.max(u64::try_from(clock.as_nanos()).unwrap_or(EPOCHS));
    }
    let exhausted = || io::Error::new(ErrorKind::InvalidData, "no epochs are left");
    (base < EPOCHS).then_some(base).ok_or_else(exhausted)
}

/// The file that records go to.
#[derive(Debug)]
struct LogFile {
    file: File,
    length: u64,
    appended: u64,
    /// Something went wrong: what the disk has of it, nobody knows.
    suspect: bool,
}

impl LogFile {
    fn write(&mut self, folder: &Path, table: &PurgeTable, records: &[u8]) -> io::Result<()> {
        let written = if self.suspect || TAIL < self.appended {
            // These records are in the table.
            Self::snapshot(folder, table).map(|file| *self = file)
        } else {
            self.append(records)
        };
        self.suspect = written.is_err();
        written
    }

    fn append(&mut self, records: &[u8]) -> io::Result<()> {
        self.file.write_all_at(records, self.length)?;
        self.file.sync_data()?;
        self.length += records.len() as u64;
        self.appended += records.len() as u64;
        Ok(())
    }

    fn snapshot(folder: &Path, table: &PurgeTable) -> io::Result<Self> {
        let (new, place) = (folder.join(NEW_FILE), folder.join(FILE));
        let written = write_snapshot(&new, table).and_then(|file| {
            fs::rename(&new, &place)?;
            File::open(folder)?.sync_all()?;
            Ok(file)
        });
        if written.is_err() {
            // Half of one would only take up room, on a disk that may be full. If it cannot be removed, the next one overwrites it.
            _ = fs::remove_file(&new);
        }
        written
    }
}

fn write_snapshot(path: &Path, table: &PurgeTable) -> io::Result<LogFile> {
    let mut file = BufWriter::new(File::create(path)?);
    let mut length = record::LENGTH as u64;
    file.write_all(&Record::HEADER.encode())?;
    table.each(|record| {
        length += record::LENGTH as u64;
        file.write_all(&record.encode())
    })?;
    let file = file.into_inner().map_err(|error| error.into_error())?;
    file.sync_data()?;
    Ok(LogFile {
        file,
        length,
        appended: 0,
        suspect: false,
    })
}

/// Reads what is there, as far as it can be trusted.
fn restore(path: &Path, table: &PurgeTable) -> Restored {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Restored::Nothing,
        Err(_) => return Restored::Damaged,
    };
    let mut file = BufReader::new(file);
    let (mut is_first, mut whole, mut has_snapshot) = (true, true, false);
    loop {
        let mut bytes = [0; record::LENGTH];
        match fill(&mut file, &mut bytes) {
            Ok(record::LENGTH) => {}
            // Of a last one that is not whole nobody was told that it was written.
            Ok(_) if whole && has_snapshot => return Restored::Whole,
            Ok(_) | Err(_) => return Restored::Damaged,
        }
        match Record::decode(&bytes) {
            Some(Record::HEADER) if is_first => {}
            Some(record) if !is_first => {
                has_snapshot |= record.what == What::Reached;
                table.restore(record);
            }
            // What else is there is still worth knowing.
            Some(_) | None => whole = false,
        }
        is_first = false;
    }
}

/// Reads until the buffer is full or the file ends; returns how much.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::purge::{Epoch, Labels, Purged};

    fn open(folder: &Path) -> (PurgeLog, PurgeTable, Restored) {
        let table = PurgeTable::default();
        let (log, restored) = PurgeLog::open(folder, UNIX_EPOCH, &table).unwrap();
        (log, table, restored)
    }

    fn purge(log: &PurgeLog, table: &PurgeTable, label: u64) -> io::Result<()> {
        let (what, soft) = (What::Label(label), false);
        let epoch = table.purge(&[(what, soft)]).get();
        log.append([Record { epoch, what, soft }].into_iter(), table)
    }

    fn judge(table: &PurgeTable, born: Epoch, label: u64) -> Purged {
        table.judge(born, &Labels::from_slice(&[label])).purged
    }

    #[test]
    fn a_disk_that_was_full_is_told_all_once_it_has_room() {
        let folder = tempfile::tempdir().unwrap();
        let (log, table, _) = open(folder.path());
        let born = table.latest();
        let full = File::options().write(true).open("/dev/full").unwrap();
        log.state.lock().file.as_mut().unwrap().file = full;

        let error = purge(&log, &table, 5).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        assert_eq!(
            judge(&table, born, 5),
            Purged::Hard,
            "it holds nevertheless"
        );

        purge(&log, &table, 6).unwrap();
        let (_, table, restored) = open(folder.path());
        assert_eq!(restored, Restored::Whole);
        assert_eq!(judge(&table, born, 5), Purged::Hard);
        assert_eq!(judge(&table, born, 6), Purged::Hard);
    }

    #[test]
    fn the_file_stays_short_however_much_is_purged() {
        let folder = tempfile::tempdir().unwrap();
        let (log, table, _) = open(folder.path());
        let born = table.latest();
        let length = || fs::metadata(folder.path().join(FILE)).unwrap().len();
        purge(&log, &table, 5).unwrap();
        let short = length();
        // As if so much had been appended.
        log.state.lock().file.as_mut().unwrap().appended = TAIL + 1;
        purge(&log, &table, 5).unwrap();
        assert_eq!(length(), short, "one label, purged twice");
        assert!(!folder.path().join(NEW_FILE).exists());
        let (_, table, _) = open(folder.path());
        assert_eq!(judge(&table, born, 5), Purged::Hard);
    }

    #[test]
    fn those_who_come_together_are_written_together_and_all_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let (log, table, _) = open(folder.path());
        let born = table.latest();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (log, table) = (&log, &table);
                scope.spawn(move || {
                    for label in 0..25 {
                        purge(log, table, 10 + thread * 25 + label).unwrap();
                    }
                });
            }
        });
        let (_, table, restored) = open(folder.path());
        assert_eq!(restored, Restored::Whole);
        for label in 10..110 {
            assert_eq!(judge(&table, born, label), Purged::Hard, "{label}");
        }
        assert_eq!(judge(&table, born, 110), Purged::No);
    }
}
