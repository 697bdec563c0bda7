//! How the threads around a store bear what stores do.

mod faulty;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::*;
use crate::flights::test_time::at;
use crate::policy::{Directives, Freshness, Terms};
use crate::purge::{Epoch, Labels};
use crate::store::{BLOCK, MemoryStore, Origin, ResponseHead, StoredContent};
use faulty::{Call, Faulty, read_only};

/// A disk with this fault, open.
fn faulty(
    fault: impl Fn(Call) -> io::Result<()> + Send + Sync + 'static,
    leave_word: impl Fn() + Send + Sync + 'static,
) -> Disk {
    let records = MemoryStore::new(64 << 20);
    let open = || Ok(Arc::new(Faulty { records, fault }) as Arc<dyn Store>);
    let disk = Disk::new(None, open, leave_word, 1024, &Arc::default()).unwrap();
    assert!(disk.wait_until_open(Duration::from_secs(10)));
    disk
}

/// These records as a store that is opened at once.
fn in_memory(records: &Arc<MemoryStore>) -> io::Result<Arc<dyn Store>> {
    Ok(Arc::clone(records) as Arc<dyn Store>)
}

/// Counts how often it is called.
fn counting() -> (Arc<AtomicUsize>, impl Fn() + Clone + Send + Sync + 'static) {
    let times = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&times);
    let count = move || {
        counted.fetch_add(1, Ordering::Relaxed);
    };
    (times, count)
}

fn key(number: u32) -> CacheKey {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    CacheKey::from_bytes(bytes)
}

/// A disk that stands still in a removal until it is told to go on, and how often it was given up.
fn hung() -> (Disk, Sender<()>, Arc<AtomicUsize>) {
    let (go_on, told) = channel();
    let told = Mutex::new(told);
    let (given_up, give_up) = counting();
    let stand_still = move |call| {
        if call == Call::Remove {
            // Whoever told it to go on has gone, which is as good.
            _ = told.lock().recv();
        }
        Ok(())
    };
    (faulty(stand_still, give_up), go_on, given_up)
}

/// So many blocks of this byte.
fn response(blocks: usize, byte: u8) -> Arc<StoredResponse> {
    let head = Arc::new(ResponseHead {
        status: StatusCode::OK,
        headers: HeaderMap::new(),
    });
    let directives = Directives::of(&head.headers);
    let wall = std::time::SystemTime::UNIX_EPOCH;
    let freshness = Freshness::of(head.status, &head.headers, Duration::ZERO, wall);
    let terms = Terms::of(&directives, freshness);
    let blocks = vec![Bytes::from(vec![byte; BLOCK]); blocks];
    let content = Arc::new(StoredContent::new(Content::Blocks(blocks), None));
    let origin = Origin {
        born: Epoch::default(),
        labels: Labels::of_target("example.com", "/"),
    };
    Arc::new(StoredResponse::new(head, content, terms, at(0), origin))
}

/// 64 MiB in blocks: what may wait for the disk.
const ALL_THAT_MAY_WAIT: usize = 1024;

#[test]
fn a_response_that_is_longer_than_all_that_may_wait_is_written_all_the_same() {
    let counters = Arc::default();
    let writer = Writer::new(|| (), Arc::clone(&counters));
    assert!(writer.save(key(1), &response(2 * ALL_THAT_MAY_WAIT, 1)));
    assert!(
        !writer.save(key(2), &response(1, 1)),
        "and more has to wait"
    );
    assert_eq!(counters.store_busy.get(), 1);
}

/// Waits for what other threads do.
fn wait<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    loop {
        if let Poll::Ready(answer) = poll(&mut cx) {
            return answer;
        }
        std::thread::yield_now();
    }
}

#[test]
fn whoever_is_in_the_middle_of_a_body_goes_on_however_many_look_something_up() {
    let gate = Arc::<Mutex<()>>::default();
    let waiting = Arc::<AtomicUsize>::default();
    let (gated, counted) = (Arc::clone(&gate), Arc::clone(&waiting));
    let slow = move |call| {
        if call == Call::Open {
            counted.fetch_add(1, Ordering::Relaxed);
            drop(gated.lock());
            counted.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(())
    };
    let disk = faulty(slow, || ());
    disk.save(key(0), &response(8, 7));
    assert!(disk.writer.sync(Duration::from_secs(10)));
    let Look::Wait(loading) = disk.look(&key(0)) else {
        panic!("nothing is read at once");
    };
    let Loaded::Response(stored) = wait(|cx| loading.poll(cx)) else {
        panic!("it was stored");
    };
    let (mut begun, _) = StoredBody::from_byte(Arc::clone(&stored), 0, None);
    let (mut late, _) = StoredBody::from_byte(stored, 0, None);
    assert!(wait(|cx| begun.poll_block(cx)).unwrap().is_ok());

    let disk_stands_still = gate.lock();
    let mut others = (1..).map(|number| disk.look(&key(number)));
    let readers = 4;
    let hung: Vec<_> = others.by_ref().take(readers).collect();
    wait(|_| match waiting.load(Ordering::Relaxed) == readers {
        true => Poll::Ready(()),
        false => Poll::Pending,
    });
    let queued = others.take_while(|look| matches!(look, Look::Wait(_)));
    assert_eq!(queued.count(), 1024, "and no more is looked up");
    let first = wait(|cx| late.poll_first(cx));
    assert_eq!(first, Err(Damaged), "nor is a body begun");
    let mut cx = Context::from_waker(std::task::Waker::noop());
    assert!(begun.poll_block(&mut cx).is_pending());
    drop((disk_stands_still, hung));
    while !begun.is_over() {
        assert_eq!(wait(|cx| begun.poll_block(cx)).unwrap().unwrap()[0], 7);
    }
}

/// What lies under a key.
fn load(disk: &Disk, key: &CacheKey) -> Loaded {
    match disk.look(key) {
        Look::Here(loaded, _) => loaded,
        Look::Wait(loading) => wait(|cx| loading.poll(cx)),
    }
}

#[test]
fn a_record_is_known_again_by_the_end_of_its_head_and_else_by_all_its_checksums() {
    let records = Arc::new(MemoryStore::new(64 << 20));
    let open = move || in_memory(&records);
    let disk = Disk::new(None, open, || (), 1024, &Arc::default()).unwrap();
    let written = || assert!(disk.writer.sync(Duration::from_secs(10)));
    disk.save(key(0), &response(8, 7));
    written();
    let Loaded::Response(stored) = load(&disk, &key(0)) else {
        panic!("it was stored");
    };
    let Content::Recorded(recorded) = stored.content() else {
        panic!("it is too long for the memory");
    };
    let open = || {
        let opening = disk.readers.open(recorded).unwrap();
        wait(|cx| opening.poll(cx))
    };
    let head = open().expect("it is the same").head();

    let replace = |head: &[u8]| {
        let store = disk.store().unwrap();
        assert!(store.replace_head(&key(0), head).unwrap());
    };
    let (now, wall) = (clock::now(), clock::wall());
    let decoded = metadata::Metadata::decode(&key(0), &head, now, wall).unwrap();
    let later = wall + Duration::from_secs(10);
    replace(&decoded.encode(&key(0), now, later).unwrap());
    assert_ne!(open().expect("so it is under another head").head(), head);

    let mut spoilt = head.to_vec();
    spoilt[head.len() / 2] ^= 1;
    replace(&spoilt);
    assert!(open().is_some(), "each block is checked in any case");
    assert!(matches!(load(&disk, &key(0)), Loaded::Useless));

    disk.save(key(0), &response(8, 8));
    written();
    assert!(open().is_none(), "and this is another");
}

#[test]
fn what_is_not_written_while_the_store_opens_does_not_leave_an_older_one_there() {
    let records = Arc::new(MemoryStore::new(64 << 20));
    let survivor = move || in_memory(&records);
    let long = Duration::from_secs(10);
    let before = Disk::new(None, survivor.clone(), || (), 1024, &Arc::default()).unwrap();
    (0..3).for_each(|number| before.save(key(number), &response(1, 1)));
    before.close(long);
    drop(before);

    let (go_on, told) = channel::<()>();
    let open = move || {
        // Whoever told it to go on has gone, which is as good.
        _ = told.recv();
        survivor()
    };
    let counters = Arc::default();
    let disk = Disk::new(None, open, || (), 1024, &Arc::clone(&counters)).unwrap();
    disk.save(key(9), &response(ALL_THAT_MAY_WAIT, 1));
    disk.save(key(0), &response(1, 2));
    assert_eq!(counters.store_busy.get(), 1, "it finds no room");
    assert!(disk.spool(key(1), None, |_| ()).is_none());
    drop(go_on);
    assert!(disk.writer.sync(long));
    let has = |number| disk.store().unwrap().open(&key(number)).unwrap().is_some();
    assert_eq!([0, 1, 2].map(has), [false, false, true]);
}

/// Says, when it is dropped, whether this folder could be taken by another process before that.
struct Last(PathBuf, Sender<bool>);

impl Drop for Last {
    fn drop(&mut self) {
        let is_free = Folder::take(&self.0).is_ok();
        // Nobody may be listening.
        _ = self.1.send(is_free);
    }
}

#[test]
fn a_folder_stays_taken_until_a_store_is_dropped_that_was_opened_too_late() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    let folder = Arc::new(Folder::take(&path).unwrap());
    let (go_on, told) = channel::<()>();
    let (say, said) = channel();
    let last = Last(path.clone(), say);
    let open = move || {
        // Whoever told it to go on has gone, which is as good.
        _ = told.recv();
        let records = MemoryStore::new(64 << 20);
        let fault = move |_| {
            // The store drops it.
            let _of_the_store = &last;
            Ok(())
        };
        Ok(Arc::new(Faulty { records, fault }) as Arc<dyn Store>)
    };
    let leave_word = folder.discard_at_next_start();
    let disk = Disk::new(Some(folder), open, leave_word, 1024, &Arc::default()).unwrap();
    drop(disk);
    assert!(Folder::take(&path).is_err(), "it is still being opened");
    drop(go_on);
    let is_free = said.recv_timeout(Duration::from_secs(10));
    assert_eq!(is_free, Ok(false), "what a store writes last is written");
    wait(|_| match Folder::take(&path) {
        Ok(_) => Poll::Ready(()),
        Err(_) => Poll::Pending,
    });
}

#[test]
fn nothing_is_read_under_a_key_whose_removal_waits_for_the_disk() {
    let (disk, go_on, given_up) = hung();
    disk.remove(key(1));
    assert!(matches!(disk.look(&key(1)), Look::Here(Loaded::Nothing, _)));
    assert!(matches!(disk.look(&key(2)), Look::Wait(_)));
    drop(go_on);
    disk.close(Duration::from_secs(10));
    assert_eq!(given_up.load(Ordering::Relaxed), 0);
}

#[test]
fn whoever_waits_for_a_body_hears_at_once_that_it_was_abandoned() {
    let (disk, go_on, _) = hung();
    disk.remove(key(1));
    let spool = disk.spool(key(2), None, |_| ()).expect("the store is open");
    spool.push(Bytes::from(vec![1; 8 * 1024 * 1024]));
    let woken = Arc::new(Woken::default());
    let waker = std::task::Waker::from(Arc::clone(&woken));
    let cx = Context::from_waker(&waker);
    let mut reading = None;
    assert!(spool.poll_room(&cx).is_pending());
    assert!(spool.poll_read(&cx, 0, &mut reading).is_pending());
    spool.abandon();
    assert_eq!(woken.0.load(Ordering::Relaxed), 2);
    assert!(spool.poll_room(&cx).is_ready());
    let read = spool.poll_read(&cx, 0, &mut reading);
    assert_eq!(read, Poll::Ready(Err(Damaged)));
    drop(go_on);
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_disk_that_stands_still_for_too_long_is_given_up_once_and_holds_nobody_up() {
    let (disk, go_on, given_up) = hung();
    for number in 0..200_000 {
        disk.remove(key(number % 7));
    }
    disk.writer.wait_for_word(Duration::from_secs(10));
    assert_eq!(given_up.load(Ordering::Relaxed), 1);
    assert!(matches!(
        disk.look(&key(u32::MAX)),
        Look::Here(Loaded::Nothing, _)
    ));
    drop(go_on);
}

/// Does something to the key 1 of a store that cannot be written to, and says how often word was left that it is out of date.
fn words_after(change: impl FnOnce(&Disk)) -> usize {
    let (words, leave_word) = counting();
    let disk = faulty(read_only, leave_word);
    assert!(matches!(disk.look(&key(1)), Look::Wait(_)));
    change(&disk);
    assert!(disk.writer.sync(Duration::from_secs(10)));
    assert!(matches!(disk.look(&key(2)), Look::Wait(_)));
    let is_read = matches!(disk.look(&key(1)), Look::Wait(_));
    disk.close(Duration::from_secs(10));
    let words = words.load(Ordering::Relaxed);
    assert_eq!(is_read, words == 0, "what is out of date is not read");
    words
}

#[test]
fn what_could_not_be_removed_is_not_read_any_more_nor_by_the_next_process() {
    assert_eq!(words_after(|_| ()), 0);
    assert_eq!(words_after(|disk| disk.remove(key(1))), 1);
}

#[test]
fn neither_is_what_could_not_be_replaced() {
    let names = Arc::from([http::header::ACCEPT]);
    assert_eq!(words_after(|disk| disk.save_variants(key(1), &names, 1)), 1);
}

#[test]
fn what_comes_after_the_end_does_not_cost_what_is_stored() {
    let (words, leave_word) = counting();
    let disk = faulty(read_only, leave_word);
    disk.close(Duration::from_secs(10));
    disk.save_variants(key(1), &Arc::from([http::header::ACCEPT]), 1);
    disk.clear_away(key(2));
    disk.writer.wait_for_word(Duration::from_secs(10));
    assert_eq!(words.load(Ordering::Relaxed), 0);
    // An invalidation has been answered: that is another matter.
    disk.remove(key(3));
    disk.writer.wait_for_word(Duration::from_secs(10));
    assert_eq!(words.load(Ordering::Relaxed), 1);
}
