//! The store `sled`.

mod counters;
mod database;
mod generation;
mod generations;
mod keeper;
mod key_set;
mod record;
mod space;
mod value;

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use super::{NewRecord, Record, Store, Usage};
use crate::counters::Counted;
use crate::key::CacheKey;
use generations::{Generations, OPEN_LIMIT};
use record::NewSledRecord;

pub use counters::SledCounters;

/// A start waits this long for a database to open; from then on it opens in the background, and the store has nothing meanwhile.
const PATIENCE: Duration = Duration::from_secs(2);

/// The end waits this long for what is still to be written: many times what it takes on a disk that does not stand still.
const END_LIMIT: Duration = Duration::from_secs(10);

/// Records in a [sled](https://docs.rs/sled/0.34) database, their bodies beyond 4 KiB in files beside it.
///
/// sled has no bound, does not give space back, and may not open again what it has written. So a database is here a **generation**
/// in a directory of its own, `db-<number>`, that can be thrown away at any time. Records are written to the newest and looked for in
/// the newest two. A generation that has three eighths of the capacity is followed by an empty one, and the one before it goes with
/// all that is left in it; what was asked for while it was the older of the two has been carried over.
///
/// - **Disk:** never more than the capacity (at least 32 MiB), all files counted, and between three and six eighths of it in a store
///   that has been full. sled takes about twice the length of a record of 1 KiB. A body may have a 16th of the capacity. While there
///   is no room, a record waits for about a second and is then refused.
/// - **Memory:** sled's page caches of 16 MiB for each of the two generations, about as much again around them, and some 100 bytes
///   for each record: a process that wrote 1,000,000 records of 1 KiB had 107 MiB, one that opened them (in 1.2 s) 43 MiB.
/// - **Failure:** a database that is corrupt, that panics, or that takes longer than 10 s to open is renamed aside, removed, counted
///   and logged, and an empty one takes its place, all in a thread of the store's. A start never waits longer than 2 s; until the
///   database is open the store gives nothing and takes nothing, and removals wait for it.
/// - **Kill:** what was committed, replaced or removed in the last 200 ms or so may be lost by a `kill -9`, and nothing else; what was
///   synced by [`Store::sync`] survives a loss of power. After a kill the number of records in [`Usage`] may be off by what was
///   changed in the last second.
///
/// One process at a time may have the directory open, and whoever opens it sees to that.
#[derive(Debug)]
pub struct SledStore {
    generations: Arc<Generations>,
    /// Hears that the keeper has let go of the databases.
    ended: Mutex<Receiver<Infallible>>,
    end_limit: Duration,
}

impl SledStore {
    /// Opens the store in this directory, which is made if it is not there, or begins it anew where it cannot be opened.
    ///
    /// # Errors
    /// The directory cannot be made or written to, or there is no thread to be had.
    pub fn open(directory: &Path, capacity: u64) -> io::Result<Self> {
        Self::open_within(directory, capacity, PATIENCE, OPEN_LIMIT)
    }

    fn open_within(
        directory: &Path,
        capacity: u64,
        patience: Duration,
        limit: Duration,
    ) -> io::Result<Self> {
        let (generations, orders) = Generations::new(directory, capacity, limit)?;
        let (alive, ended) = channel::<Infallible>();
        thread::Builder::new()
            .name("sled-keeper".to_owned())
            .spawn({
                let generations = Arc::clone(&generations);
                move || {
                    let _alive = alive;
                    keeper::keep(&generations, &orders);
                }
            })?;
        generations.wait_until_open(patience);
        Ok(Self {
            generations,
            ended: Mutex::new(ended),
            end_limit: END_LIMIT,
        })
    }

    /// What went wrong, and what was done about it.
    pub fn counters(&self) -> &Arc<SledCounters> {
        &self.generations.counters
    }
}

impl Store for SledStore {
    fn open(&self, key: &CacheKey) -> io::Result<Option<Arc<dyn Record>>> {
        let record = self.generations.find(key)?;
        Ok(record.map(|record| Arc::new(record) as Arc<dyn Record>))
    }

    fn max_body(&self) -> u64 {
        self.generations.space.max_body()
    }

    fn create(&self, key: &CacheKey) -> io::Result<Box<dyn NewRecord>> {
        Ok(Box::new(NewSledRecord::new(&self.generations, key)?))
    }

    fn replace_head(&self, key: &CacheKey, head: &[u8]) -> io::Result<bool> {
        self.generations.replace_head(key, head)
    }

    fn remove(&self, key: &CacheKey) -> io::Result<()> {
        self.generations.remove(key)
    }

    fn touch(&self, key: &CacheKey) {
        self.generations.used(key);
    }

    fn usage(&self) -> Usage {
        self.generations.usage()
    }

    fn counters(&self) -> Vec<Counted> {
        self.generations.counters.each().collect()
    }

    fn sync(&self) -> io::Result<()> {
        self.generations.sync()
    }
}

impl Drop for SledStore {
    /// Waits until all is written, and for a database that is just being opened, 10 s at most: what a disk that stands still has not
    /// taken by then is left to the keeper, and lost if the process ends, as by a kill.
    fn drop(&mut self) {
        self.generations.stop();
        let ended = self.ended.get_mut().recv_timeout(self.end_limit);
        if ended == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the store's databases are not written out in time, and not waited for");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::time::Instant;

    use bytes::Bytes;

    use super::*;
    use crate::store::BLOCK;

    const CAPACITY: u64 = 32 << 20;
    const SHORT: Duration = Duration::from_millis(100);
    const LONG: Duration = Duration::from_secs(60);

    fn key(number: u64) -> CacheKey {
        CacheKey::new("https", "example.com", &format!("/{number}"))
    }

    fn put(store: &SledStore, number: u64, body: &[u8]) -> io::Result<()> {
        let mut new = store.create(&key(number))?;
        new.append(&Bytes::copy_from_slice(body))?;
        new.commit(&number.to_le_bytes())
    }

    fn has(store: &SledStore, number: u64) -> bool {
        let record = store.open(&key(number)).unwrap();
        record.is_some_and(|record| record.head()[..] == number.to_le_bytes())
    }

    /// Waits for what other threads do.
    fn until(mut so: impl FnMut() -> bool) {
        while !so() {
            thread::yield_now();
        }
    }

    /// A store with the records 0 and 1, closed, whose database somebody holds on to.
    fn held(directory: &Path) -> File {
        let store = SledStore::open(directory, CAPACITY).unwrap();
        put(&store, 0, b"short").unwrap();
        put(&store, 1, &[1; BLOCK]).unwrap();
        drop(store);
        let file = File::open(directory.join("db-0/index/db")).unwrap();
        file.lock().unwrap();
        file
    }

    #[test]
    fn a_database_that_takes_too_long_to_open_is_dropped_and_begun_anew() {
        let directory = tempfile::tempdir().unwrap();
        let _lock = held(directory.path());
        let store = SledStore::open_within(directory.path(), CAPACITY, LONG, SHORT).unwrap();
        assert_eq!(store.counters().dropped_slow.get(), 1);
        assert!(!has(&store, 0));
        put(&store, 0, b"again").unwrap();
        assert!(has(&store, 0));
        assert!(!directory.path().join("db-0").exists());
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "it is about time that passes")]
    fn two_databases_that_take_too_long_to_open_are_given_up_together() {
        let directory = tempfile::tempdir().unwrap();
        let _locks = ["db-0", "db-1"].map(|name| {
            let index = directory.path().join(name).join("index");
            fs::create_dir_all(&index).unwrap();
            let file = File::create(index.join("db")).unwrap();
            file.lock().unwrap();
            file
        });
        let limit = Duration::from_secs(1);
        let begun = Instant::now();
        let store = SledStore::open_within(directory.path(), CAPACITY, LONG, limit).unwrap();
        assert_eq!(store.counters().dropped_slow.get(), 2);
        assert!(begun.elapsed() < 2 * limit, "{:?}", begun.elapsed());
    }

    #[test]
    fn a_directory_that_only_looks_like_a_generation_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        put(
            &SledStore::open(directory.path(), CAPACITY).unwrap(),
            0,
            b"",
        )
        .unwrap();
        let others = ["db-00", "db-+0", "db-18446744073709551615"];
        let others = others.map(|name| directory.path().join(name));
        for other in &others {
            fs::create_dir(other).unwrap();
        }
        let store = SledStore::open_within(directory.path(), CAPACITY, LONG, LONG).unwrap();
        assert!(has(&store, 0));
        assert_eq!(store.counters().dropped_slow.get(), 0);
        assert!(others.iter().all(|other| other.exists()));
    }

    #[test]
    fn a_start_does_not_wait_for_a_slow_database_which_is_there_in_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let lock = held(directory.path());
        let store = SledStore::open_within(directory.path(), CAPACITY, SHORT, LONG).unwrap();
        assert!(!has(&store, 1));
        assert!(put(&store, 2, b"too early").is_err());
        assert!(store.replace_head(&key(1), b"too early").is_err());
        thread::scope(|scope| {
            let removal = scope.spawn(|| store.remove(&key(0)));
            drop(lock);
            removal.join().unwrap().unwrap();
        });
        assert!(!has(&store, 0), "a removal waits for what it removes");
        assert!(has(&store, 1));
    }

    #[test]
    fn a_database_that_panics_is_replaced_while_the_store_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let store = SledStore::open(directory.path(), CAPACITY).unwrap();
        put(&store, 0, b"short").unwrap();
        let held = store.open(&key(0)).unwrap().unwrap();
        store.generations.pair().newest.unwrap().panic();
        assert!(store.open(&key(0)).is_err(), "the first to notice is told");
        until(|| put(&store, 1, b"again").is_ok());
        assert!(has(&store, 1) && !has(&store, 0));
        assert_eq!(store.counters().database_panics.get(), 1);
        assert_eq!(store.counters().dropped_failed.get(), 1);
        assert_eq!(held.read(0).unwrap(), "short");
        drop(store);
        assert!(!directory.path().join("db-0").exists());
    }

    /// A store with the record 0 in its older database and 1 in the newer one, both on the disk.
    fn with_two_databases(directory: &Path) -> SledStore {
        let store = SledStore::open(directory, CAPACITY).unwrap();
        put(&store, 0, b"older").unwrap();
        drop(store);
        fs::create_dir(directory.join("db-1")).unwrap();
        let store = SledStore::open_within(directory, CAPACITY, LONG, LONG).unwrap();
        put(&store, 1, &[1; BLOCK]).unwrap();
        store.sync().unwrap();
        store
    }

    /// What a process would find that starts when this one has been killed just now.
    fn after_a_kill(directory: &Path) -> (tempfile::TempDir, SledStore) {
        fn copy(from: &Path, to: &Path) -> io::Result<()> {
            let entries = fs::read_dir(from)?;
            fs::create_dir_all(to).unwrap();
            for entry in entries {
                let from = entry?.path();
                let to = to.join(from.file_name().unwrap());
                let copied = if from.is_dir() {
                    copy(&from, &to)
                } else {
                    fs::copy(from, to).map(drop)
                };
                // What the keeper removes meanwhile is not there for the next process either.
                match copied {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    copied => copied?,
                }
            }
            Ok(())
        }
        let copied = tempfile::tempdir().unwrap();
        copy(directory, copied.path()).unwrap();
        let store = SledStore::open_within(copied.path(), CAPACITY, LONG, LONG).unwrap();
        (copied, store)
    }

    fn full() -> io::Error {
        io::ErrorKind::StorageFull.into()
    }

    #[test]
    fn what_a_full_disk_has_dropped_does_not_come_back_with_a_kill_before_it_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let store = with_two_databases(directory.path());
        // As by somebody who is reading: what is dropped is not gone before that.
        let in_use = store.generations.pair();
        // A third cannot be begun, so that the newer one has to go too.
        fs::write(directory.path().join("db-2"), "in the way").unwrap();
        store.generations.blame(full());
        let newest = || store.generations.pair().newest;
        until(|| newest().is_none_or(|newest| 2 < newest.number));
        for number in 0..2 {
            store.remove(&key(number)).unwrap();
        }
        let (copied, next) = after_a_kill(directory.path());
        assert!(!has(&next, 0) && !has(&next, 1));
        for gone in ["db-0.gone", "db-1.gone"] {
            assert!(directory.path().join(gone).exists(), "it is in use");
            until(|| !copied.path().join(gone).exists());
        }
        let body = in_use.newest.as_ref().unwrap().find(&key(1)).unwrap();
        let Some(value::Body::File(body)) = body.map(|value| value.body) else {
            panic!("it is long enough for a file");
        };
        let body = in_use.newest.as_ref().unwrap().open_body(body).unwrap();
        assert!(body.is_some(), "who reads in it goes on reading");
        drop((in_use, store));
        assert!(!directory.path().join("db-0.gone").exists());
    }

    #[test]
    fn what_cannot_be_put_aside_is_looked_into_so_that_removals_are_not_lost_on_it() {
        let directory = tempfile::tempdir().unwrap();
        let store = with_two_databases(directory.path());
        let _in_use = store.generations.pair();
        for gone in ["db-0.gone", "db-1.gone"] {
            fs::create_dir_all(directory.path().join(gone).join("in the way")).unwrap();
        }
        let third = directory.path().join("db-2");
        fs::write(&third, "in the way").unwrap();
        store.generations.blame(full());
        until(|| !third.exists());
        for number in 0..2 {
            store.remove(&key(number)).unwrap();
        }
        store.sync().unwrap();
        let (_copied, next) = after_a_kill(directory.path());
        assert!(!has(&next, 0) && !has(&next, 1));
    }

    #[test]
    fn the_end_does_not_wait_for_a_keeper_that_hangs_with_all_its_orders_before_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = with_two_databases(directory.path());
        store.end_limit = SHORT;
        let generations = Arc::clone(&store.generations);
        let turn = generations.turn(&key(0));
        // The first hangs for want of that turn, and more follow than can wait.
        (0..2000).for_each(|number| store.touch(&key(number)));
        let (dropped, is_dropped) = channel();
        let end = thread::spawn(move || {
            drop(store);
            dropped.send(())
        });
        let in_time = is_dropped.recv_timeout(LONG);
        drop(turn);
        assert!(in_time.is_ok());
        end.join().unwrap().unwrap();
        until(|| Arc::strong_count(&generations) == 1);
        assert!(generations.pair().newest.is_none(), "it ends all the same");
    }

    #[test]
    fn a_database_never_has_the_number_of_one_that_is_still_being_removed() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("db-4.gone/index")).unwrap();
        let _store = SledStore::open_within(directory.path(), CAPACITY, LONG, LONG).unwrap();
        assert!(directory.path().join("db-5").exists());
    }

    #[test]
    fn what_is_asked_for_is_carried_over_and_the_rest_goes_with_its_generation() {
        let directory = tempfile::tempdir().unwrap();
        let store = SledStore::open(directory.path(), CAPACITY).unwrap();
        let body = vec![7; BLOCK];
        for hot in 0..6 {
            put(&store, hot, &body[..if hot < 3 { 100 } else { BLOCK }]).unwrap();
        }
        let mut number = 1000;
        for generations in 1..6 {
            while store.counters().generations.get() < generations {
                put(&store, number, &body).unwrap();
                number += 1;
            }
            // The one after is not begun before these are carried over.
            let before = store.counters().carried_over.get();
            for hot in 0..6 {
                assert!(has(&store, hot), "{hot} in generation {generations}");
            }
            until(|| before + 6 <= store.counters().carried_over.get());
        }
        assert!(!has(&store, 1000));
        let files = fs::read_dir(directory.path()).unwrap().count();
        assert!(
            files <= 4,
            "two generations, what comes in, and one on its way out"
        );
    }

    #[test]
    fn a_body_whose_file_went_is_no_record_and_counted() {
        let directory = tempfile::tempdir().unwrap();
        let store = SledStore::open(directory.path(), CAPACITY).unwrap();
        for number in 0..2 {
            put(&store, number, &[1; BLOCK]).unwrap();
        }
        for (number, file) in fs::read_dir(directory.path().join("db-0/bodies"))
            .unwrap()
            .enumerate()
        {
            let path = file.unwrap().path();
            match number {
                0 => fs::remove_file(path).unwrap(),
                _ => File::options()
                    .write(true)
                    .open(path)
                    .unwrap()
                    .set_len(5)
                    .unwrap(),
            }
        }
        assert!(!has(&store, 0) && !has(&store, 1));
        assert_eq!(store.counters().lost_bodies.get(), 2);
        assert_eq!(store.usage().records, 0);
    }

    #[test]
    fn a_body_that_is_too_large_is_refused_and_leaves_no_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let store = SledStore::open(directory.path(), CAPACITY).unwrap();
        let mut new = store.create(&key(1)).unwrap();
        let block = Bytes::from(vec![1; BLOCK]);
        let blocks = CAPACITY / 16 / BLOCK as u64;
        for _ in 0..blocks {
            new.append(&block).unwrap();
        }
        assert!(blocks * BLOCK as u64 <= store.usage().bytes);
        assert!(new.append(&block).is_err());
        drop(new);
        assert_eq!(store.counters().refused_too_large.get(), 1);
        assert!(store.usage().bytes < CAPACITY / 16);
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_the_one_reason_not_to_open() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "in the way").unwrap();
        assert!(SledStore::open(&file.join("store"), CAPACITY).is_err());
    }
}
