//! The store behind the memory: what outlives the process, what streams to and from the disk, and what damage does.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests; what fails there fails the test"
)]

use std::fs;
use std::future::poll_fn;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use scale0_cache::purge::{Purge, Target};
use scale0_cache::{
    Asker, Cache, CacheConfig, CacheKey, Chunk, Fill, Hit, Join, Lookup, Reader, RequestFacts,
    ResponseHead, StoreConfig, StoreKind, StoreState, Turn,
};

const MIB: u64 = 1024 * 1024;
const MEMORY: u64 = 16 * MIB;
const CAPACITY: u64 = 256 * MIB;
const PATIENCE: Duration = Duration::from_secs(20);

#[expect(clippy::disallowed_methods, reason = "what is tested has real threads")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "records are dated by the wall")]
fn wall() -> SystemTime {
    SystemTime::now()
}

struct Thread(std::thread::Thread);

impl Wake for Thread {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Thread(std::thread::current())));
    let mut future = pin!(future);
    let mut cx = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

fn open(path: &Path, kind: StoreKind) -> Cache {
    open_with(path, kind, MIB)
}

fn open_with(path: &Path, kind: StoreKind, memory_max_object: u64) -> Cache {
    open_sized(path, kind, memory_max_object, CAPACITY)
}

fn open_sized(path: &Path, kind: StoreKind, memory_max_object: u64, capacity: u64) -> Cache {
    open_as(path, kind, memory_max_object, capacity, false)
}

/// Where another process has the folder, and is about to let go of it.
fn succeed(path: &Path, kind: StoreKind) -> Cache {
    open_as(path, kind, MIB, CAPACITY, true)
}

fn open_as(
    path: &Path,
    kind: StoreKind,
    memory_max_object: u64,
    capacity: u64,
    awaits_folder: bool,
) -> Cache {
    let config = CacheConfig {
        memory: MEMORY,
        memory_max_object: Some(memory_max_object),
        flight_buffer: 512 * 1024,
        ..CacheConfig::default()
    };
    let store = StoreConfig {
        kind,
        path: path.into(),
        capacity,
        awaits_folder,
    };
    let cache = Cache::with_store(config, &store, wall());
    cache.wait_until_open(PATIENCE);
    cache
}

/// Whether it does in time.
fn comes_true(mut is_true: impl FnMut() -> bool) -> bool {
    let patience = now() + PATIENCE;
    loop {
        if is_true() {
            return true;
        }
        if patience < now() {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

struct Visit {
    path: String,
    headers: HeaderMap,
}

impl Visit {
    fn to(path: &str) -> Self {
        Self {
            path: path.into(),
            headers: HeaderMap::new(),
        }
    }

    fn speaking(mut self, language: &str) -> Self {
        self.headers
            .insert("accept-language", language.parse().unwrap());
        self
    }

    fn asker(&self) -> Asker<'_> {
        Asker {
            key: CacheKey::new("http", "example.com", &self.path),
            authority: "example.com",
            path_and_query: &self.path,
            facts: RequestFacts::of(&Method::GET, &self.headers, false),
            headers: &self.headers,
            deadline: now() + PATIENCE,
        }
    }

    fn lookup(&self, cache: &Cache) -> Lookup {
        loop {
            match cache.lookup(now(), &self.asker()) {
                Lookup::Loading(loading) => {
                    if !block_on(poll_fn(|cx| cache.poll_loading(cx, &loading))) {
                        return cache.lookup_in_memory(now(), &self.asker());
                    }
                }
                found => return found,
            }
        }
    }

    fn hit(&self, cache: &Cache) -> Option<Hit> {
        match self.lookup(cache) {
            Lookup::Hit(hit) => Some(hit),
            _ => None,
        }
    }

    fn body(&self, cache: &Cache) -> Option<Vec<u8>> {
        read(cache, &self.hit(cache)?).ok()
    }

    fn lead(&self, cache: &Cache) -> (Fill, Reader) {
        let Lookup::Miss { under, .. } = self.lookup(cache) else {
            panic!("it is stored already");
        };
        match cache.join(now(), under, &self.asker()) {
            Join::Lead { fill, reader } => (fill, reader),
            other => panic!("{other:?}"),
        }
    }

    fn join(&self, cache: &Cache) -> Reader {
        match cache.join(now(), self.asker().key, &self.asker()) {
            Join::Wait(reader) => reader,
            other => panic!("{other:?}"),
        }
    }

    fn fetch(&self, cache: &Cache, fields: &[(&'static str, &str)], body: &[u8]) {
        let (mut fill, reader) = self.lead(cache);
        drop(reader);
        fill.head(now(), wall(), &self.headers, head(fields));
        push(&mut fill, body);
        fill.complete(now(), None).unwrap();
    }
}

fn head(fields: &[(&'static str, &str)]) -> ResponseHead {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, value.parse().unwrap());
    }
    ResponseHead {
        status: StatusCode::OK,
        headers,
    }
}

fn push(fill: &mut Fill, body: &[u8]) {
    for piece in body.chunks(50_000) {
        block_on(poll_fn(|cx| fill.poll_room(cx, now())));
        fill.push(now(), Bytes::copy_from_slice(piece));
    }
}

fn read(cache: &Cache, hit: &Hit) -> Result<Vec<u8>, scale0_cache::Damaged> {
    let (mut body, _) = cache.content(hit, 0);
    let mut whole = Vec::new();
    while let Some(block) = block_on(poll_fn(|cx| body.poll_block(cx))) {
        whole.extend_from_slice(&block?);
    }
    Ok(whole)
}

fn drain(reader: &mut Reader, asker: &Asker<'_>) -> Vec<u8> {
    let mut whole = Vec::new();
    assert!(matches!(block_on(reader.head(asker)), Turn::Yours(_)));
    loop {
        match block_on(reader.chunk()) {
            Chunk::Data(bytes) => whole.extend_from_slice(&bytes),
            Chunk::End(_) => return whole,
            other => panic!("{other:?}"),
        }
    }
}

/// Content of which no two blocks are alike.
fn content(length: usize) -> Vec<u8> {
    let byte = |n: usize| u8::try_from((n % 251 + n / 65_536) % 256).unwrap();
    (0..length).map(byte).collect()
}

const FRESH: (&str, &str) = ("cache-control", "max-age=3600");

fn each_store(test: impl Fn(StoreKind, &Path)) {
    for kind in [StoreKind::File, StoreKind::Sled] {
        let folder = tempfile::tempdir().unwrap();
        test(kind, folder.path());
    }
}

fn counter(cache: &Cache, name: &str) -> u64 {
    let mut each = cache.counters().each();
    each.find(|counted| counted.name == name).expect(name).value
}

#[test]
fn what_is_stored_is_there_after_a_restart_with_its_variants_and_its_age() {
    each_store(|kind, path| {
        let vary = ("vary", "accept-language");
        let cache = open(path, kind);
        Visit::to("/plain").fetch(&cache, &[FRESH, ("x", "y")], &content(1000));
        Visit::to("/empty").fetch(&cache, &[FRESH], b"");
        Visit::to("/de")
            .speaking("de")
            .fetch(&cache, &[FRESH, vary], b"Hallo");
        Visit::to("/de")
            .speaking("en")
            .fetch(&cache, &[FRESH, vary], b"Hello");
        Visit::to("/blocks").fetch(&cache, &[FRESH], &content(200_000));
        cache.close(PATIENCE);
        drop(cache);

        let cache = open(path, kind);
        assert_eq!(cache.store_state(), StoreState::Open);
        let hit = Visit::to("/plain").hit(&cache).expect("it was stored");
        assert_eq!(hit.response.head().headers["x"], "y");
        assert!(hit.ttl <= 3600 && 3500 < hit.ttl);
        assert_eq!(read(&cache, &hit).unwrap(), content(1000));
        assert_eq!(Visit::to("/empty").body(&cache).unwrap(), b"");
        assert_eq!(
            Visit::to("/de").speaking("de").body(&cache).unwrap(),
            b"Hallo"
        );
        assert_eq!(
            Visit::to("/de").speaking("en").body(&cache).unwrap(),
            b"Hello"
        );
        assert!(Visit::to("/de").speaking("fr").body(&cache).is_none());
        assert_eq!(Visit::to("/blocks").body(&cache).unwrap(), content(200_000));
        assert_eq!(counter(&cache, "store_damaged"), 0);
    });
}

#[test]
fn hits_from_memory_are_told_from_those_that_had_to_go_to_the_disk() {
    each_store(|kind, path| {
        let cache = open(path, kind);
        Visit::to("/short").fetch(&cache, &[FRESH], &content(1000));
        Visit::to("/long").fetch(&cache, &[FRESH], &content(2_000_000));
        cache.close(PATIENCE);
        drop(cache);

        let cache = open(path, kind);
        for (path, hits_from_disk) in [("/short", 1), ("/short", 1), ("/long", 2), ("/long", 3)] {
            assert!(Visit::to(path).hit(&cache).is_some());
            assert_eq!(counter(&cache, "hits_from_disk"), hits_from_disk, "{path}");
        }
        assert_eq!(counter(&cache, "hits"), 4);
        assert_eq!(cache.store_usage().unwrap().records, 2);
        let counted = cache.store_counters();
        assert!(counted.iter().any(|counted| counted.name == "damaged"));
    });
}

#[test]
fn what_was_purged_or_invalidated_does_not_come_back_with_a_restart() {
    each_store(|kind, path| {
        let cache = open(path, kind);
        for path in ["/purged", "/invalid", "/kept"] {
            Visit::to(path).fetch(&cache, &[FRESH, ("cache-tag", path)], b"old");
        }
        let vary = ("vary", "accept-language");
        for language in ["de", "en"] {
            Visit::to("/variants")
                .speaking(language)
                .fetch(&cache, &[FRESH, vary], b"old");
        }
        let target = Target::Tag("/purged".into());
        cache
            .purge(&[Purge {
                target,
                soft: false,
            }])
            .unwrap();
        cache.invalidate(&Visit::to("/invalid").asker().key);
        cache.invalidate(&Visit::to("/variants").asker().key);
        Visit::to("/variants")
            .speaking("en")
            .fetch(&cache, &[FRESH, vary], b"new");
        cache.close(PATIENCE);
        drop(cache);

        let cache = open(path, kind);
        assert!(Visit::to("/purged").body(&cache).is_none());
        assert!(Visit::to("/invalid").body(&cache).is_none());
        assert_eq!(Visit::to("/kept").body(&cache).unwrap(), b"old");
        assert_eq!(
            Visit::to("/variants").speaking("en").body(&cache).unwrap(),
            b"new"
        );
        assert!(Visit::to("/variants").speaking("de").body(&cache).is_none());
    });
}

#[test]
fn a_body_longer_than_memory_takes_goes_to_the_disk_as_it_comes_and_comes_back_whole() {
    each_store(|kind, path| {
        let body = content(5_000_000);
        let cache = open(path, kind);
        let visit = Visit::to("/long");
        visit.fetch(&cache, &[FRESH], &body);
        cache.close(PATIENCE);
        assert!(cache.flight_bytes() == 0);
        assert_eq!(counter(&cache, "store_writes"), 1);
        drop(cache);
        let cache = open(path, kind);
        assert_eq!(visit.body(&cache).unwrap(), body);
        let hit = visit.hit(&cache).unwrap();
        let (mut middle, skip) = cache.content(&hit, 2_000_001);
        let block = block_on(poll_fn(|cx| middle.poll_block(cx)))
            .unwrap()
            .unwrap();
        assert_eq!(block[usize::try_from(skip).unwrap()], body[2_000_001]);
    });
}

#[test]
fn a_body_of_about_the_size_that_memory_takes_is_stored_wherever_it_fits() {
    each_store(|kind, path| {
        let cache = open(path, kind);
        let most = usize::try_from(MIB).unwrap();
        for length in [most - 2000, most - 1, most, most + 1] {
            let visit = Visit::to(&format!("/{length}"));
            visit.fetch(&cache, &[FRESH], &content(length));
        }
        cache.close(PATIENCE);
        drop(cache);
        let cache = open(path, kind);
        for length in [most - 2000, most - 1, most, most + 1] {
            let visit = Visit::to(&format!("/{length}"));
            assert!(visit.body(&cache).unwrap() == content(length), "{length}");
        }
    });
}

#[test]
fn whoever_is_slower_than_a_long_body_reads_on_from_the_disk_and_whoever_comes_late_from_its_start()
{
    each_store(|kind, path| {
        let body = content(4_000_000);
        let cache = open(path, kind);
        let visit = Visit::to("/long");
        let (mut fill, mut slow) = visit.lead(&cache);
        fill.head(now(), wall(), &visit.headers, head(&[FRESH]));
        push(&mut fill, &body[..3_000_000]);
        let mut late = visit.join(&cache);
        push(&mut fill, &body[3_000_000..]);
        let slides = || {
            // It keeps what the disk has not yet.
            block_on(poll_fn(|cx| fill.poll_room(cx, now())));
            cache.flight_bytes() < 1_500_000
        };
        assert!(comes_true(slides), "the window slides");
        fill.complete(now(), None).unwrap();
        assert!(drain(&mut slow, &visit.asker()) == body);
        assert!(drain(&mut late, &visit.asker()) == body);
        assert_eq!(
            counter(&cache, "laggards_aborted") + counter(&cache, "continued"),
            0
        );
        assert!(0 < counter(&cache, "read_from_store"));
    });
}

#[test]
fn whoever_is_slow_gets_a_body_to_its_end_that_turns_out_to_be_too_long_for_the_store() {
    each_store(|kind, path| {
        let body = content(12_000_000);
        let cache = open_sized(path, kind, MIB, 64 * MIB);
        let visit = Visit::to("/endless");
        let (mut fill, mut slow) = visit.lead(&cache);
        fill.head(now(), wall(), &visit.headers, head(&[FRESH]));
        let mut nobody = Context::from_waker(Waker::noop());
        assert!(slow.poll_head(&mut nobody, &visit.asker()).is_ready());
        let mut got = Vec::new();
        let mut read = |slow: &mut Reader| match block_on(slow.chunk()) {
            Chunk::Data(bytes) => {
                got.extend_from_slice(&bytes);
                true
            }
            Chunk::End(_) => false,
            other => panic!("{other:?} after {} bytes", got.len()),
        };
        for piece in body.chunks(50_000) {
            // The client reads when there is no other way: only then has the backend to wait for it.
            while fill.poll_room(&mut nobody, now()).is_pending() {
                match fill.wake_at() {
                    Some(_) => std::thread::yield_now(),
                    None => assert!(read(&mut slow)),
                }
            }
            fill.push(now(), Bytes::copy_from_slice(piece));
        }
        fill.complete(now(), None).unwrap();
        while read(&mut slow) {}
        assert!(got == body);
        assert!(0 < counter(&cache, "lagged"), "it was left to the disk");
        cache.close(PATIENCE);
        assert!(visit.body(&cache).is_none());
    });
}

#[test]
fn a_long_body_is_not_fetched_again_before_it_is_found_on_the_disk() {
    each_store(|kind, path| {
        let body = content(2_000_000);
        let cache = open(path, kind);
        let mut landing = 0;
        for number in 0..20 {
            let visit = Visit::to(&format!("/{number}"));
            visit.fetch(&cache, &[FRESH], &body);
            match visit.lookup(&cache) {
                Lookup::Hit(hit) => assert!(read(&cache, &hit).unwrap() == body),
                _ => match cache.join(now(), visit.asker().key, &visit.asker()) {
                    Join::Wait(mut reader) => {
                        assert!(drain(&mut reader, &visit.asker()) == body);
                        landing += 1;
                    }
                    // It landed between the two looks.
                    Join::Stored(hit) => assert!(read(&cache, &hit).unwrap() == body),
                    other => panic!("{other:?}"),
                },
            }
        }
        assert!(0 < landing, "the disk was never slower than a look");
        cache.close(PATIENCE);
        assert_eq!(cache.flights(), 0);
    });
}

#[test]
fn whoever_reads_a_long_body_from_the_disk_gets_its_end_though_it_is_invalidated_meanwhile() {
    each_store(|kind, path| {
        let body = content(4_000_000);
        let cache = open(path, kind);
        let visit = Visit::to("/long");
        let (mut fill, mut slow) = visit.lead(&cache);
        fill.head(now(), wall(), &visit.headers, head(&[FRESH]));
        push(&mut fill, &body[..3_000_000]);
        cache.invalidate(&visit.asker().key);
        push(&mut fill, &body[3_000_000..]);
        fill.complete(now(), None).unwrap();
        assert!(drain(&mut slow, &visit.asker()) == body);
        assert_eq!(counter(&cache, "refused_outdated"), 1);
        cache.close(PATIENCE);
        drop((slow, cache));
        assert!(visit.body(&open(path, kind)).is_none());
    });
}

#[test]
fn a_long_body_that_has_changed_is_refreshed_though_nobody_waits_for_it() {
    each_store(|kind, path| {
        let cache = open(path, kind);
        let visit = Visit::to("/long");
        visit.fetch(&cache, &[FRESH], &content(2_000_000));
        assert!(comes_true(|| visit.hit(&cache).is_some()));
        let (target, soft) = (Target::All, true);
        cache.purge(&[Purge { target, soft }]).unwrap();
        let hit = visit.hit(&cache).expect("it may be sent stale");
        let fill = cache.refresh(now(), &hit, &visit.asker());
        let mut fill = fill.expect("nothing is under way");
        let newer = content(3_000_000);
        let length = ("content-length", "3000000");
        fill.head(now(), wall(), &visit.headers, head(&[FRESH, length]));
        for piece in newer.chunks(50_000) {
            let mut nobody = Context::from_waker(Waker::noop());
            assert!(fill.poll_abandoned(&mut nobody).is_pending());
            push(&mut fill, piece);
        }
        fill.complete(now(), None).unwrap();
        let is_newer = || visit.body(&cache).is_some_and(|body| body == newer);
        assert!(comes_true(is_newer));
    });
}

#[test]
fn a_long_body_that_breaks_off_leaves_nothing() {
    each_store(|kind, path| {
        let cache = open(path, kind);
        let visit = Visit::to("/long");
        let (mut fill, reader) = visit.lead(&cache);
        fill.head(now(), wall(), &visit.headers, head(&[FRESH]));
        push(&mut fill, &content(3_000_000));
        drop(fill);
        drop(reader);
        cache.close(PATIENCE);
        drop(cache);
        assert!(visit.body(&open(path, kind)).is_none());
    });
}

#[test]
fn a_second_process_runs_without_a_store_and_the_first_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path(), StoreKind::File);
    let second = open(folder.path(), StoreKind::File);
    assert_eq!(second.store_state(), StoreState::Without);
    Visit::to("/").fetch(&second, &[FRESH], b"memory");
    assert_eq!(Visit::to("/").body(&second).unwrap(), b"memory");
    Visit::to("/").fetch(&first, &[FRESH], b"disk");
    assert_eq!(Visit::to("/").body(&first).unwrap(), b"disk");
}

#[test]
fn a_purge_is_not_confirmed_by_whoever_may_find_the_purged_in_the_folder_later() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path(), StoreKind::File);
    let second = open(folder.path(), StoreKind::File);
    Visit::to("/").fetch(&second, &[FRESH], b"memory");
    let (target, soft) = (Target::All, false);
    assert!(second.purge(&[Purge { target, soft }]).is_err());
    assert!(
        Visit::to("/").hit(&second).is_none(),
        "it holds all the same"
    );
    assert_eq!(counter(&second, "purges_unconfirmed"), 1);
    drop(first);
}

#[test]
fn a_successor_has_the_store_and_all_purges_when_the_first_lets_go() {
    each_store(|kind, path| {
        let by_path = |path: &str| {
            [Purge {
                target: Target::Tag(path.into()),
                soft: false,
            }]
        };
        let first = open(path, kind);
        for path in ["/kept", "/purged-by-both", "/purged-by-next"] {
            Visit::to(path).fetch(&first, &[FRESH, ("cache-tag", path)], b"old");
        }
        let next = succeed(path, kind);
        assert_eq!(next.store_state(), StoreState::NotOpen);
        assert!(Visit::to("/kept").hit(&next).is_none());
        first.purge(&by_path("/purged-by-both")).unwrap();
        for path in ["/purged-by-both", "/fetched"] {
            Visit::to(path).fetch(&next, &[FRESH, ("cache-tag", path)], b"new");
        }
        let purge = by_path("/purged-by-next");
        std::thread::scope(|scope| {
            let purged = scope.spawn(|| next.purge(&purge));
            // It holds at once, and is confirmed only when it is on the disk.
            assert!(comes_true(|| counter(&next, "purges_tag") == 1));
            assert!(!purged.is_finished());
            first.close(PATIENCE);
            drop(first);
            purged.join().unwrap().unwrap();
        });
        assert!(comes_true(|| next.store_state() == StoreState::Open));
        let kept = |cache: &Cache| {
            assert_eq!(Visit::to("/kept").body(cache).unwrap(), b"old");
            assert_eq!(Visit::to("/fetched").body(cache).unwrap(), b"new");
            assert_eq!(Visit::to("/purged-by-both").body(cache).unwrap(), b"new");
            assert!(Visit::to("/purged-by-next").hit(cache).is_none());
        };
        kept(&next);
        next.close(PATIENCE);
        drop(next);
        kept(&open(path, kind));
    });
}

#[test]
fn a_successor_finds_a_folder_that_is_free_open_at_once() {
    each_store(|kind, path| {
        let first = open(path, kind);
        Visit::to("/kept").fetch(&first, &[FRESH], b"old");
        first.close(PATIENCE);
        drop(first);
        let next = succeed(path, kind);
        assert_eq!(next.store_state(), StoreState::Open);
        assert!(Visit::to("/kept").hit(&next).is_some());
    });
}

#[test]
fn a_folder_that_cannot_be_written_costs_the_store_and_nothing_else() {
    let cache = open(Path::new("/dev/null/store"), StoreKind::File);
    assert_eq!(cache.store_state(), StoreState::Without);
    Visit::to("/").fetch(&cache, &[FRESH], b"memory");
    assert_eq!(Visit::to("/").body(&cache).unwrap(), b"memory");
}

#[test]
fn a_confirmed_response_is_renewed_on_the_disk_too() {
    each_store(|kind, path| {
        let visit = Visit::to("/");
        let fields = [("cache-control", "max-age=0"), ("etag", "\"v1\"")];
        let cache = open(path, kind);
        visit.fetch(&cache, &fields, &content(100_000));
        let (mut fill, reader) = visit.lead(&cache);
        let mut sent = HeaderMap::new();
        fill.dress(&mut sent);
        assert_eq!(sent["if-none-match"], "\"v1\"");
        let confirmation = ResponseHead {
            status: StatusCode::NOT_MODIFIED,
            headers: head(&[FRESH, ("etag", "\"v1\"")]).headers,
        };
        fill.head(now(), wall(), &visit.headers, confirmation);
        drop((fill, reader));
        cache.close(PATIENCE);
        drop(cache);
        assert_eq!(visit.body(&open(path, kind)).unwrap(), content(100_000));
    });
}

#[test]
fn a_flipped_bit_anywhere_is_a_miss_or_an_abort_and_never_a_wrong_byte() {
    let folder = tempfile::tempdir().unwrap();
    let visits = ["/small", "/blocks", "/long"].map(Visit::to);
    let bodies = [content(900), content(180_000), content(1_500_000)];
    let cache = open(folder.path(), StoreKind::File);
    for (visit, body) in visits.iter().zip(&bodies) {
        visit.fetch(&cache, &[FRESH], body);
    }
    cache.close(PATIENCE);
    drop(cache);
    let files = files_below(&folder.path().join("file"));
    let (mut whole, mut unusable, mut damaged) = (0, 0, 0);
    for (round, file) in files.iter().cycle().take(40).enumerate() {
        let copy = tempfile::tempdir().unwrap();
        let into = |file: &Path| copy.path().join(file.strip_prefix(folder.path()).unwrap());
        for file in &files {
            fs::create_dir_all(into(file).parent().unwrap()).unwrap();
            fs::copy(file, into(file)).unwrap();
        }
        fs::copy(folder.path().join("purges"), copy.path().join("purges")).unwrap();
        let mut bytes = fs::read(file).unwrap();
        if bytes.is_empty() {
            continue;
        }
        let at = round.wrapping_mul(7919 * 31) % bytes.len();
        bytes[at] ^= 1 << (round % 8);
        fs::write(into(file), &bytes).unwrap();
        let cache = open(copy.path(), StoreKind::File);
        for (visit, body) in visits.iter().zip(&bodies) {
            match visit.hit(&cache).map(|hit| read(&cache, &hit)) {
                Some(Ok(read)) => {
                    assert!(read == *body, "{} at {at}", file.display());
                    whole += 1;
                }
                Some(Err(_)) | None => unusable += 1,
            }
        }
        damaged += counter(&cache, "store_damaged");
    }
    // Most flips hit one of the three, or none.
    assert!(unusable < whole, "{whole} whole, {unusable} not");
    assert!(0 < unusable && 0 < damaged, "some of it was damage");
}

#[test]
fn what_turns_out_to_be_damaged_while_it_is_sent_is_a_miss_from_there_on() {
    each_store(|kind, path| {
        let cache = open(path, kind);
        let visit = Visit::to("/long");
        visit.fetch(&cache, &[FRESH], &content(1_000_000));
        cache.close(PATIENCE);
        drop(cache);
        let length = |file: &std::path::PathBuf| fs::metadata(file).unwrap().len();
        let largest = files_below(path).into_iter().max_by_key(length).unwrap();
        let mut bytes = fs::read(&largest).unwrap();
        bytes[700_000] ^= 1;
        fs::write(&largest, bytes).unwrap();

        let cache = open(path, kind);
        let hit = visit.hit(&cache).unwrap();
        let (mut body, _) = cache.content(&hit, 0);
        block_on(poll_fn(|cx| body.poll_first(cx))).unwrap();
        assert!(read(&cache, &hit).is_err());
        assert_eq!(counter(&cache, "store_damaged"), 1);
        assert!(visit.hit(&cache).is_none());
    });
}

fn files_below(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// How many files in there this process has open.
fn open_files(folder: &Path) -> usize {
    let links = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let files = links.filter_map(|link| fs::read_link(link.path()).ok());
    files.filter(|file| file.starts_with(folder)).count()
}

#[test]
fn responses_whose_content_is_on_the_disk_hold_none_of_its_files_open() {
    const COUNT: u32 = 60;
    for kind in [StoreKind::File, StoreKind::Sled] {
        let folder = tempfile::tempdir().unwrap();
        let body = content(400 * 1024);
        let visit = |number: u32| Visit::to(&format!("/{number}"));
        let cache = open_with(folder.path(), kind, 64 * 1024);
        for number in 0..COUNT {
            visit(number).fetch(&cache, &[FRESH], &body);
        }
        cache.close(PATIENCE);
        drop(cache);

        let cache = open_with(folder.path(), kind, 64 * 1024);
        let before = open_files(folder.path());
        let hits: Vec<_> = (0..COUNT).filter_map(|it| visit(it).hit(&cache)).collect();
        assert!(hits.iter().all(|hit| read(&cache, hit).unwrap() == body));
        assert_eq!(hits.len(), COUNT as usize);
        let after = open_files(folder.path());
        assert!(after <= before + 2, "{kind:?}: {before} and then {after}");
    }
}

#[test]
fn a_body_that_is_known_to_be_too_long_for_the_store_is_not_begun() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path(), StoreKind::File);
    let most = usize::try_from(CAPACITY / 8).unwrap();
    let (fits, too_long) = (Visit::to("/fits"), Visit::to("/too-long"));
    for (visit, length) in [(&too_long, most + 1), (&fits, most)] {
        let fields = [FRESH, ("content-length", &length.to_string())];
        let (mut fill, reader) = visit.lead(&cache);
        fill.head(now(), wall(), &visit.headers, head(&fields));
        drop(reader);
        push(&mut fill, &content(length));
        if length == most {
            fill.complete(now(), None).unwrap();
        } else {
            assert!(cache.store_usage().unwrap().bytes < MIB);
        }
    }
    cache.close(PATIENCE);
    drop(cache);
    let cache = open(folder.path(), StoreKind::File);
    assert!(too_long.hit(&cache).is_none());
    assert!(fits.body(&cache).unwrap() == content(most));
}

#[test]
fn what_was_changed_while_the_other_store_was_used_does_not_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let visit = Visit::to("/");
    let kept = |kind| {
        let cache = open(folder.path(), kind);
        let kept = visit.body(&cache);
        cache.close(PATIENCE);
        kept
    };
    let cache = open(folder.path(), StoreKind::File);
    visit.fetch(&cache, &[FRESH], b"old");
    cache.close(PATIENCE);
    drop(cache);
    assert_eq!(kept(StoreKind::File).as_deref(), Some(&b"old"[..]));
    assert_eq!(kept(StoreKind::Sled), None);
    assert_eq!(kept(StoreKind::File), None);
}
