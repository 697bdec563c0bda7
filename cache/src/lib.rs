//! Scale0's cache: what may answer a request without a backend, and how identical requests become
//! one.
//!
//! It never learns of brokers, the wire, hyper or an async runtime: it hands out polls and takes
//! wakers, and every time is an argument.
//!
//! Three types to start with: [`Cache`], which a frontend owns one of; [`Fill`] and [`Reader`], the
//! two ends of a flight.
//!
//! ```
//! use std::time::{Duration, Instant, SystemTime};
//! use http::{HeaderMap, Method, StatusCode};
//! use scale0_cache::{Asker, Cache, CacheConfig, CacheKey, Join, Lookup, RequestFacts, ResponseHead};
//!
//! # #[expect(clippy::disallowed_methods, reason = "an example's clock")]
//! # fn main() {
//! let (now, wall) = (Instant::now(), SystemTime::now());
//! let cache = Cache::new(CacheConfig::default());
//! let headers = HeaderMap::new();
//! let asker = Asker {
//!     key: CacheKey::new("https", "example.com", "/"),
//!     authority: "example.com",
//!     path_and_query: "/",
//!     facts: RequestFacts::of(&Method::GET, &headers, false),
//!     headers: &headers,
//!     deadline: now + Duration::from_secs(30),
//! };
//! let Lookup::Miss { under, .. } = cache.lookup(now, &asker) else { panic!("it is empty") };
//! let Join::Lead { mut fill, reader: _reader } = cache.join(now, under, &asker) else { panic!("nobody is here") };
//!
//! // What the task that fetches does:
//! let mut fields = HeaderMap::new();
//! fields.insert("cache-control", "max-age=60".parse().unwrap());
//! fill.head(now, wall, &headers, ResponseHead { status: StatusCode::OK, headers: fields });
//! fill.push(now, "hello".into());
//! fill.complete(now, None).unwrap();
//!
//! let Lookup::Hit(hit) = cache.lookup(now, &asker) else { panic!("it was stored") };
//! assert_eq!(hit.response.blocks().unwrap().concat(), b"hello");
//! # }
//! ```

mod asker;
mod cache;
mod counters;
mod disk;
pub mod flights;
mod key;
pub mod policy;
pub mod purge;
pub mod store;

pub use asker::Asker;
pub use cache::{Beginning, Cache, CacheConfig, Lookup, StoreConfig, StoreKind, StoreState};
pub use counters::{CacheCounters, Counted, Counter};
pub use disk::{Damaged, FolderError, Loading, StoredBody, is_metadata};
pub use flights::{Behind, Chunk, Failure, Fill, Join, Reader, Rejoin, Turn, Verdict};
pub use key::CacheKey;
pub use policy::RequestFacts;
pub use store::{Hit, ResponseHead, Served, StoredResponse};
