//! What the cache costs per request. Virtual time; nobody is woken, for that is a runtime's cost.

use std::hint::black_box;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use scale0_benches::{
    AUTHORITY, REQUEST_FIELDS, RESPONSE_FIELDS, TARGET, criterion, epoch, header_map,
};
use scale0_cache::policy::{Policy, Sharing};
use scale0_cache::store::{FileStore, SledStore, Store};
use scale0_cache::{
    Asker, Cache, CacheConfig, CacheKey, Chunk, Fill, Join, Lookup, Reader, RequestFacts,
    ResponseHead, StoreConfig, StoreKind, Turn, Verdict, is_metadata,
};

fn main() {
    let mut criterion = criterion();
    door(&mut criterion);
    reuse(&mut criterion);
    lookups(&mut criterion);
    flight_of_one(&mut criterion);
    flight_of_many(&mut criterion);
    stores(&mut criterion);
    metadata(&mut criterion);
    criterion.final_summary();
}

/// What every request, and every response, pays before anything is looked up or stored.
fn door(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cache");
    group.throughput(Throughput::Elements(1));
    group.bench_function("key", |bencher| bencher.iter(key));
    let request = header_map(REQUEST_FIELDS);
    group.bench_function("request_facts", |bencher| {
        bencher.iter(|| RequestFacts::of(&Method::GET, black_box(&request), false));
    });
    let leader = RequestFacts::of(&Method::GET, &request, false);
    for (name, head) in [("shared", shared()), ("private", private())] {
        group.bench_function(BenchmarkId::new("verdict", name), |bencher| {
            bencher.iter(|| {
                let (policy, head) = (Policy::default(), black_box(&head));
                Sharing::judge(policy, &leader, head, Duration::ZERO, wall())
            });
        });
    }
    group.finish();
}

/// What every request pays that has found something: may it be sent now?
fn reuse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cache/reuse");
    group.throughput(Throughput::Elements(1));
    let request = RequestFacts::of(&Method::GET, &header_map(REQUEST_FIELDS), false);
    let sharing = Sharing::judge(
        Policy::default(),
        &request,
        &shared(),
        Duration::ZERO,
        wall(),
    );
    let terms = sharing.kept().expect("it is shared").terms;
    for (name, elapsed) in [("fresh", 1), ("stale", 1_000_000)] {
        let elapsed = Duration::from_secs(elapsed);
        assert_eq!(terms.reuse(&request, elapsed).is_sent(), name == "fresh");
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(&terms).reuse(black_box(&request), elapsed));
        });
    }
    group.finish();
}

/// A look-up, with a stored response to find or without.
fn lookups(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cache/lookup");
    group.throughput(Throughput::Elements(1));
    let site = Site::new();
    let asker = site.asker();
    assert!(matches!(site.lookup(&asker), Lookup::Miss { .. }));
    group.bench_function("miss", |bencher| bencher.iter(|| site.lookup(&asker)));
    for (name, head) in [("hit", shared()), ("hit_of_a_variant", varying())] {
        let site = Site::new();
        let asker = site.asker();
        site.fly(&asker, &head, 0);
        assert!(matches!(site.lookup(&asker), Lookup::Hit(_)));
        group.bench_function(name, |bencher| bencher.iter(|| site.lookup(&asker)));
    }
    group.finish();
}

/// A flight nobody joins, from its look-up to its end: what a miss costs beyond a request that goes alone.
fn flight_of_one(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cache/flight_of_one");
    group.throughput(Throughput::Elements(1));
    for (name, head) in [
        ("stored", shared()),
        ("stored_variant", varying()),
        ("private", private()),
    ] {
        let mut site = Site::new();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                site.forget();
                site.fly(&site.asker(), &head, 0);
            });
        });
    }
    group.finish();
}

/// A flight that many join before its head comes, from its look-up to when the last of them is served, or released. Per waiter.
fn flight_of_many(criterion: &mut Criterion) {
    for (name, head) in [
        ("shared", shared()),
        ("varying", varying()),
        ("released", private()),
    ] {
        let mut group = criterion.benchmark_group(format!("cache/flight_of_many/{name}"));
        for waiters in [10, 1000, 10_000] {
            let mut site = Site::new();
            group.throughput(Throughput::Elements(waiters));
            group.bench_function(BenchmarkId::from_parameter(waiters), |bencher| {
                bencher.iter(|| {
                    site.forget();
                    site.fly(&site.asker(), &head, waiters);
                });
            });
        }
        group.finish();
    }
}

/// Records of 1 KiB: written anew, and found again where the system has them in memory.
fn stores(criterion: &mut Criterion) {
    let keys: Vec<_> = (0..RECORDS)
        .map(|number| CacheKey::new("https", AUTHORITY, &format!("/{number}")))
        .collect();
    for kind in [StoreKind::File, StoreKind::Sled] {
        let folder = tempfile::tempdir().expect("there is room for temporary files");
        let store: Box<dyn Store> = match kind {
            StoreKind::File => FileStore::open(folder.path(), CAPACITY).map(boxed),
            StoreKind::Sled => SledStore::open(folder.path(), CAPACITY).map(boxed),
        }
        .expect("an empty store opens");
        let mut group = criterion.benchmark_group(format!("cache/{}", kind.name()));
        group.throughput(Throughput::Elements(1));
        let mut next = keys.iter().cycle();
        let mut put = || {
            let key = next.next().expect("it begins again");
            let mut new = store.create(key).expect("there is room");
            new.append(&CONTENT).expect("there is room");
            new.commit(&[7; 300]).expect("there is room");
        };
        // So that there is something of each to find.
        keys.iter().for_each(|_| put());
        group.bench_function("put", |bencher| bencher.iter(&mut put));
        let mut next = keys.iter().cycle();
        group.bench_function("get", |bencher| {
            bencher.iter(|| {
                let key = next.next().expect("it begins again");
                let found = store.open_now(key).unwrap_or_else(|| store.open(key));
                let record = found.expect("nothing is damaged").expect("it is there");
                let block = record.read_now(0).unwrap_or_else(|| record.read(0));
                block.expect("nothing is damaged")
            });
        });
        group.finish();
    }
}

fn boxed<S: Store + 'static>(store: S) -> Box<dyn Store> {
    Box::new(store)
}

/// The head of a record, as the cache writes it: to a response's head, terms, labels and checksums.
fn metadata(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("there is room for temporary files");
    let store = StoreConfig {
        kind: StoreKind::File,
        path: folder.path().into(),
        capacity: CAPACITY,
        awaits_folder: false,
    };
    let site = Site::of(Cache::with_store(CacheConfig::default(), &store, wall()));
    site.cache.wait_until_open(PATIENCE);
    site.fly(&site.asker(), &shared(), 0);
    site.cache.close(PATIENCE);
    drop(site);
    let store = FileStore::open(&folder.path().join("file"), CAPACITY).expect("it was closed");
    let record = store.open(&key()).expect("nothing is damaged");
    let head = record.expect("it was written").head();
    let (unsealed, _checksum) = head
        .split_last_chunk::<16>()
        .expect("a checksum is at its end");
    let now = epoch();
    assert!(is_metadata(unsealed, now, wall()));
    criterion.bench_function("cache/metadata", |bencher| {
        bencher.iter(|| is_metadata(black_box(unsealed), now, wall()));
    });
}

/// A cache, and requests of one target.
struct Site {
    cache: Cache,
    now: Instant,
    request: HeaderMap,
}

impl Site {
    fn new() -> Self {
        Self::of(Cache::new(CacheConfig::default()))
    }

    fn of(cache: Cache) -> Self {
        Self {
            cache,
            now: epoch(),
            request: header_map(REQUEST_FIELDS),
        }
    }

    /// Lets so much time pass that what was stored is stale, and a key marked as leader-only is so no more.
    fn forget(&mut self) {
        self.now += Duration::from_secs(100);
    }

    fn asker(&self) -> Asker<'_> {
        Asker {
            key: key(),
            authority: AUTHORITY,
            path_and_query: TARGET,
            facts: RequestFacts::of(&Method::GET, &self.request, false),
            headers: &self.request,
            deadline: self.now + Duration::from_secs(30),
        }
    }

    /// A whole flight: it is opened and joined, the response comes, and all are served or released.
    fn fly(&self, asker: &Asker<'_>, head: &ResponseHead, waiters: u64) {
        let (mut fill, mut leader) = self.lead(asker);
        let mut waiters: Vec<_> = (0..waiters).map(|_| self.wait(asker)).collect();
        let verdict = fill.head(self.now, wall(), &self.request, head.clone());
        for waiter in &mut waiters {
            let turn = waiter.poll_head(&mut nobody(), asker);
            match verdict {
                Verdict::LeaderOnly(_) => assert!(matches!(turn, Poll::Ready(Turn::Released(_)))),
                _ => assert!(matches!(turn, Poll::Ready(Turn::Yours(_)))),
            }
        }
        assert!(matches!(
            leader.poll_head(&mut nobody(), asker),
            Poll::Ready(Turn::Yours(_))
        ));
        fill.push(self.now, CONTENT);
        fill.complete(self.now, None)
            .expect("as long as its head has said");
        if let Verdict::LeaderOnly(_) = verdict {
            waiters.clear();
        }
        for mut reader in waiters.into_iter().chain([leader]) {
            assert!(matches!(
                reader.poll_chunk(&mut nobody()),
                Poll::Ready(Chunk::Data(_))
            ));
            assert!(matches!(
                reader.poll_chunk(&mut nobody()),
                Poll::Ready(Chunk::End(_))
            ));
        }
    }

    fn lead(&self, asker: &Asker<'_>) -> (Fill, Reader) {
        match self.join(asker) {
            Join::Lead { fill, reader } => (fill, reader),
            other => panic!("{other:?}"),
        }
    }

    fn wait(&self, asker: &Asker<'_>) -> Reader {
        let Join::Wait(mut reader) = self.join(asker) else {
            panic!("nobody leads");
        };
        assert!(reader.poll_head(&mut nobody(), asker).is_pending());
        reader
    }

    fn lookup(&self, asker: &Asker<'_>) -> Lookup {
        self.cache.lookup(self.now, asker)
    }

    fn join(&self, asker: &Asker<'_>) -> Join {
        let Lookup::Miss { under, .. } = self.lookup(asker) else {
            panic!("something fresh is stored");
        };
        self.cache.join(self.now, under, asker)
    }
}

/// More than the processor's caches hold of a store's index.
const RECORDS: u64 = 20_000;

/// Enough for them, several times.
const CAPACITY: u64 = 256 * 1024 * 1024;

/// How long a store may take to open, and to write what is left.
const PATIENCE: Duration = Duration::from_secs(10);

/// The content of every response.
const CONTENT: Bytes = Bytes::from_static(&[b'x'; 1024]);

fn key() -> CacheKey {
    CacheKey::new("https", black_box(AUTHORITY), black_box(TARGET))
}

/// The time of day when responses come: that of their `Date`.
fn wall() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000)
}

fn nobody() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn shared() -> ResponseHead {
    ResponseHead {
        status: StatusCode::OK,
        headers: header_map(RESPONSE_FIELDS),
    }
}

fn varying() -> ResponseHead {
    let mut head = shared();
    let names = HeaderValue::from_static("accept-encoding, accept-language");
    head.headers.insert("vary", names);
    head
}

fn private() -> ResponseHead {
    let mut head = shared();
    let directives = HeaderValue::from_static("private, no-store");
    head.headers.insert("cache-control", directives);
    head
}
