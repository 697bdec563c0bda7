//! Joining against finishing, on real threads.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use scale0_cache::{
    Asker, Cache, CacheConfig, CacheKey, Chunk, Fill, Join, Lookup, RequestFacts, ResponseHead,
    Turn,
};

const THREADS: usize = 4;
const ROUNDS: usize = 2000;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

fn fill_at_once(mut fill: Fill, now: Instant, body: Bytes) {
    let mut headers = HeaderMap::new();
    headers.insert("cache-control", "max-age=60".parse().unwrap());
    fill.head(
        now,
        SystemTime::UNIX_EPOCH,
        &HeaderMap::new(),
        ResponseHead {
            status: StatusCode::OK,
            headers,
        },
    );
    fill.push(now, body);
    fill.complete(now, None).unwrap();
}

#[test]
fn joining_and_finishing_at_the_same_time_costs_one_fetch_and_loses_nobody() {
    // xet-core#449: a waiter that joined while the flight finished was never told.
    #[expect(
        clippy::disallowed_methods,
        reason = "one instant for all; nothing here passes"
    )]
    let now = Instant::now();
    let cache = Cache::new(CacheConfig::default());
    let barrier = Barrier::new(THREADS);
    let fetches = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for round in 0..ROUNDS {
                    let headers = HeaderMap::new();
                    let path = format!("/{round}");
                    let body = Bytes::from(path.clone());
                    let asker = Asker {
                        key: CacheKey::new("http", "example.com", &path),
                        authority: "example.com",
                        path_and_query: &path,
                        facts: RequestFacts::of(&Method::GET, &headers, false),
                        headers: &headers,
                        deadline: now + Duration::from_secs(1),
                    };
                    barrier.wait();
                    let Lookup::Miss { under, .. } = cache.lookup(now, &asker) else {
                        continue;
                    };
                    let mut reader = match cache.join(now, under, &asker) {
                        Join::Lead { fill, reader } => {
                            fetches.fetch_add(1, Ordering::Relaxed);
                            fill_at_once(fill, now, body.clone());
                            reader
                        }
                        Join::Wait(reader) => reader,
                        Join::Stored(hit) => {
                            assert_eq!(hit.response.blocks().unwrap().concat(), body);
                            continue;
                        }
                        other => panic!("{other:?}"),
                    };
                    assert!(matches!(block_on(reader.head(&asker)), Turn::Yours(_)));
                    assert!(
                        matches!(block_on(reader.chunk()), Chunk::Data(bytes) if bytes == body)
                    );
                    assert!(matches!(block_on(reader.chunk()), Chunk::End(None)));
                }
            });
        }
    });
    assert_eq!(fetches.load(Ordering::Relaxed), ROUNDS);
    assert_eq!((cache.flights(), cache.flight_bytes()), (0, 0));
}
