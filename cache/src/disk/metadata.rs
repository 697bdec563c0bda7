//! The head of a record: what is kept of a stored response beside its content.
//!
//! `[version][bincode][checksum]`. The checksum is over the key as well, so that a record can never be taken for another's, and the
//! checksums of the content's blocks are in it. bincode is the format of this file alone; nothing of it crosses a wire.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

use crate::key::CacheKey;
use crate::policy::{Freshness, Source, Staleness, Terms};
use crate::purge::{Epoch, Labels};
use crate::store::{Origin, ResponseHead};

/// The layout below. A record of another version is as good as none.
const VERSION: u8 = 1;

/// More than any head has: 128 KiB of fields, and the checksums of 48 GiB of content.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Half of a blake3 hash: nobody finds a second block with the same one by chance, and who writes to the disk could write the
/// checksum too.
pub(crate) type Checksum = [u8; 16];

/// The fields of a head up to this length are parts of what was read: copies would cost an allocation each. In a longer one there
/// is mostly something else, which is not to be kept for their sake.
const SHARED_HEAD: usize = 4096;

const CHECKSUM: usize = size_of::<Checksum>();

/// The checksum of a block of content.
pub(crate) fn checksum(block: &[u8]) -> Checksum {
    first_half(blake3::hash(block))
}

fn first_half(hash: blake3::Hash) -> Checksum {
    let mut half = Checksum::default();
    half.copy_from_slice(&hash.as_bytes()[..CHECKSUM]);
    half
}

/// What a record's head says.
#[derive(Debug)]
pub(crate) enum Metadata {
    /// A response.
    Response(Box<ResponseMetadata>),
    /// The variants of a URI.
    Variants {
        /// The fields that select one.
        names: Vec<HeaderName>,
        /// Which variants these are.
        generation: u64,
    },
}

/// A stored response but for its content.
#[derive(Debug, Clone)]
pub(crate) struct ResponseMetadata {
    pub(crate) head: Arc<ResponseHead>,
    pub(crate) trailers: Option<HeaderMap>,
    pub(crate) terms: Terms,
    pub(crate) received: Instant,
    pub(crate) origin: Origin,
    pub(crate) checksums: Box<[Checksum]>,
}

/// Why a record's head is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreadable {
    /// It was written by another version of this program.
    #[error("the record is of another version")]
    Version,
    /// It is not what was written.
    #[error("the record's head is damaged")]
    Damaged,
}

#[derive(Serialize, Deserialize)]
enum OnDisk<'a> {
    #[serde(borrow)]
    Response(Response<'a>),
    Variants {
        #[serde(borrow)]
        names: Vec<&'a str>,
        generation: u64,
    },
}

#[derive(Serialize, Deserialize)]
struct Response<'a> {
    status: u16,
    #[serde(borrow)]
    fields: Fields<'a>,
    trailers: Option<Fields<'a>>,
    /// Milliseconds since 1970.
    received: u64,
    /// Milliseconds, as all times that follow.
    lifetime: u64,
    age: u64,
    source: u8,
    validated_always: bool,
    staleness: u8,
    while_revalidate: u64,
    if_error: Option<u64>,
    born: u64,
    labels: Vec<u64>,
    checksums: Vec<Checksum>,
}

type Fields<'a> = Vec<(&'a str, &'a [u8])>;

const SOURCES: [Source; 6] = [
    Source::Targeted,
    Source::SMaxAge,
    Source::MaxAge,
    Source::Expires,
    Source::Heuristic,
    Source::Nothing,
];

const STALENESS: [Staleness; 3] = [Staleness::Unspoken, Staleness::AsAllowed, Staleness::Never];

const fn format() -> Configuration<LittleEndian, Fixint, Limit<MAX_BYTES>> {
    bincode::config::standard()
        .with_fixed_int_encoding()
        .with_limit::<MAX_BYTES>()
}

impl Metadata {
    /// As bytes, for a record under that key. `now` and `wall` are the same moment. `None`: more than a record's head may be.
    pub(crate) fn encode(&self, key: &CacheKey, now: Instant, wall: SystemTime) -> Option<Vec<u8>> {
        let on_disk = match self {
            Self::Response(response) => OnDisk::Response(response.on_disk(now, wall)),
            Self::Variants { names, generation } => OnDisk::Variants {
                names: names.iter().map(HeaderName::as_str).collect(),
                generation: *generation,
            },
        };
        let mut bytes = vec![VERSION];
        let mut to = std::io::Cursor::new(&mut bytes);
        to.set_position(1);
        bincode::serde::encode_into_std_write(&on_disk, &mut to, format()).ok()?;
        let sum = seal(key, &bytes);
        bytes.extend_from_slice(&sum);
        Some(bytes)
    }

    /// What bytes of a record under that key say, at that moment.
    ///
    /// # Errors
    /// They are not what was written, or not by us.
    pub(crate) fn decode(
        key: &CacheKey,
        bytes: &Bytes,
        now: Instant,
        wall: SystemTime,
    ) -> Result<Self, Unreadable> {
        let (sealed, sum) = bytes
            .split_last_chunk::<CHECKSUM>()
            .ok_or(Unreadable::Damaged)?;
        if seal(key, sealed) != *sum {
            return Err(Unreadable::Damaged);
        }
        let shared = (bytes.len() <= SHARED_HEAD).then_some(bytes);
        Self::decode_sealed(sealed, shared, now, wall)
    }

    /// The same without the checksum, which has been compared. `shared` has `sealed` in it, if fields are to be parts of that.
    fn decode_sealed(
        sealed: &[u8],
        shared: Option<&Bytes>,
        now: Instant,
        wall: SystemTime,
    ) -> Result<Self, Unreadable> {
        let [VERSION, encoded @ ..] = sealed else {
            return Err(Unreadable::Version);
        };
        let (on_disk, read) = bincode::serde::borrow_decode_from_slice(encoded, format())
            .map_err(|_| Unreadable::Damaged)?;
        if read != encoded.len() {
            return Err(Unreadable::Damaged);
        }
        match on_disk {
            OnDisk::Response(response) => response
                .read(shared, now, wall)
                .map(|read| Self::Response(Box::new(read))),
            OnDisk::Variants { names, generation } => names
                .into_iter()
                .map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
                .collect::<Option<_>>()
                .map(|names| Self::Variants { names, generation }),
        }
        .ok_or(Unreadable::Damaged)
    }
}

/// What tells a head from all others, of whatever key: the checksum at its end. Whether it is damaged, only decoding it tells.
pub(super) fn seal_of(head: &[u8]) -> Option<Checksum> {
    head.last_chunk().copied()
}

fn seal(key: &CacheKey, sealed: &[u8]) -> Checksum {
    let mut hasher = blake3::Hasher::new();
    hasher.update(key.as_bytes());
    hasher.update(sealed);
    first_half(hasher.finalize())
}

impl ResponseMetadata {
    fn on_disk(&self, now: Instant, wall: SystemTime) -> Response<'_> {
        let Terms {
            freshness,
            validated_always,
            staleness,
            while_revalidate,
            if_error,
        } = &self.terms;
        let received = wall
            .checked_sub(now.saturating_duration_since(self.received))
            .and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        Response {
            status: self.head.status.as_u16(),
            fields: fields(&self.head.headers),
            trailers: self.trailers.as_ref().map(fields),
            received: received.map_or(0, milliseconds),
            lifetime: milliseconds(freshness.lifetime),
            age: milliseconds(freshness.age),
            source: number_of(&SOURCES, &freshness.source),
            validated_always: *validated_always,
            staleness: number_of(&STALENESS, staleness),
            while_revalidate: milliseconds(*while_revalidate),
            if_error: if_error.map(milliseconds),
            born: self.origin.born.get(),
            labels: self.origin.labels.as_slice().to_vec(),
            checksums: self.checksums.to_vec(),
        }
    }
}

impl Response<'_> {
    fn read(
        self,
        shared: Option<&Bytes>,
        now: Instant,
        wall: SystemTime,
    ) -> Option<ResponseMetadata> {
        let received = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(self.received))?;
        // A clock that was set back since says nothing about the time that has passed: such a response is stale.
        let elapsed = wall.duration_since(received).unwrap_or(Duration::MAX);
        let age = Duration::from_millis(self.age).saturating_add(elapsed);
        let terms = Terms {
            freshness: Freshness {
                lifetime: Duration::from_millis(self.lifetime),
                age,
                source: *SOURCES.get(usize::from(self.source))?,
            },
            validated_always: self.validated_always,
            staleness: *STALENESS.get(usize::from(self.staleness))?,
            while_revalidate: Duration::from_millis(self.while_revalidate),
            if_error: self.if_error.map(Duration::from_millis),
        };
        Some(ResponseMetadata {
            head: Arc::new(ResponseHead {
                status: StatusCode::from_u16(self.status).ok()?,
                headers: header_map(&self.fields, shared)?,
            }),
            trailers: match &self.trailers {
                Some(fields) => Some(header_map(fields, shared)?),
                None => None,
            },
            terms,
            received: now,
            origin: Origin {
                born: Epoch::new(self.born),
                labels: Labels::from_slice(&self.labels),
            },
            checksums: self.checksums.into(),
        })
    }
}

fn fields(headers: &HeaderMap) -> Fields<'_> {
    headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect()
}

fn header_map(fields: &Fields<'_>, shared: Option<&Bytes>) -> Option<HeaderMap> {
    let mut headers = HeaderMap::try_with_capacity(fields.len()).ok()?;
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        let value = match shared {
            Some(shared) => HeaderValue::from_maybe_shared(shared.slice_ref(value)).ok()?,
            None => HeaderValue::from_bytes(value).ok()?,
        };
        headers.try_append(name, value).ok()?;
    }
    Some(headers)
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn number_of<T: PartialEq>(all: &[T], one: &T) -> u8 {
    let index = all.iter().position(|other| other == one);
    index
        .and_then(|index| u8::try_from(index).ok())
        .unwrap_or(u8::MAX)
}

/// Whether these bytes would be the head of a record with the right checksum behind them: what is read of a disk when damage has gone
/// unnoticed. Never panics, whatever they are.
pub fn is_metadata(bytes: &[u8], now: Instant, wall: SystemTime) -> bool {
    Metadata::decode_sealed(bytes, None, now, wall).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flights::test_time::at;

    const KEY: CacheKey = CacheKey::from_bytes([7; 32]);

    fn response() -> ResponseMetadata {
        let mut headers = HeaderMap::new();
        headers.append("set-cookie", "a=1".parse().unwrap());
        headers.append("set-cookie", "b=2".parse().unwrap());
        headers.append("x-obs", HeaderValue::from_bytes(b"\xfc").unwrap());
        ResponseMetadata {
            head: Arc::new(ResponseHead {
                status: StatusCode::NOT_FOUND,
                headers: headers.clone(),
            }),
            trailers: Some(headers),
            terms: Terms {
                freshness: Freshness {
                    lifetime: Duration::from_secs(60),
                    age: Duration::from_secs(5),
                    source: Source::Expires,
                },
                validated_always: true,
                staleness: Staleness::AsAllowed,
                while_revalidate: Duration::from_secs(9),
                if_error: Some(Duration::from_secs(8)),
            },
            received: at(0),
            origin: Origin {
                born: Epoch::new(77),
                labels: Labels::from_slice(&[1, 2, 3]),
            },
            checksums: Box::new([checksum(b"one"), checksum(b"two")]),
        }
    }

    fn wall(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000 + seconds)
    }

    fn encoded() -> Bytes {
        let metadata = Metadata::Response(Box::new(response()));
        metadata.encode(&KEY, at(10_000), wall(0)).unwrap().into()
    }

    fn decoded(wall: SystemTime) -> ResponseMetadata {
        match Metadata::decode(&KEY, &encoded(), at(0), wall).unwrap() {
            Metadata::Response(response) => *response,
            Metadata::Variants { .. } => panic!("it is a response"),
        }
    }

    #[test]
    fn a_response_comes_back_older_by_the_time_that_has_passed_on_the_wall() {
        let (before, after) = (response(), decoded(wall(20)));
        assert_eq!(after.head, before.head);
        assert_eq!(after.trailers, before.trailers);
        assert_eq!(after.checksums, before.checksums);
        assert_eq!(after.origin.born, before.origin.born);
        assert_eq!(after.origin.labels, before.origin.labels);
        let mut terms = before.terms;
        terms.freshness.age = Duration::from_secs(5 + 10 + 20);
        assert_eq!(after.terms, terms);
    }

    #[test]
    fn a_response_from_the_future_is_stale() {
        let freshness = decoded(wall(0) - Duration::from_secs(60)).terms.freshness;
        assert_eq!(freshness.ttl_after(Duration::ZERO), None);
    }

    #[test]
    fn variants_come_back() {
        let names = vec![http::header::ACCEPT, http::header::COOKIE];
        let metadata = Metadata::Variants {
            names: names.clone(),
            generation: 9,
        };
        let bytes = metadata.encode(&KEY, at(0), wall(0)).unwrap().into();
        let Ok(Metadata::Variants {
            names: back,
            generation: 9,
        }) = Metadata::decode(&KEY, &bytes, at(0), wall(0))
        else {
            panic!("variants");
        };
        assert_eq!(back, names);
    }

    #[test]
    fn any_flipped_bit_any_missing_byte_and_any_other_key_is_damage() {
        let whole = encoded();
        for index in 0..whole.len() {
            let mut flipped = whole.to_vec();
            flipped[index] ^= 1 << (index % 8);
            let outcome = Metadata::decode(&KEY, &flipped.into(), at(0), wall(0));
            assert_eq!(outcome.unwrap_err(), Unreadable::Damaged, "{index}");
            let outcome = Metadata::decode(&KEY, &whole.slice(..index), at(0), wall(0));
            assert_eq!(outcome.unwrap_err(), Unreadable::Damaged, "{index}");
        }
        let other = CacheKey::from_bytes([8; 32]);
        let outcome = Metadata::decode(&other, &whole, at(0), wall(0));
        assert_eq!(outcome.unwrap_err(), Unreadable::Damaged);
    }

    #[test]
    fn another_version_is_told_from_damage() {
        let mut bytes = encoded().to_vec();
        bytes.truncate(bytes.len() - CHECKSUM);
        bytes[0] = VERSION + 1;
        let sum = seal(&KEY, &bytes);
        bytes.extend_from_slice(&sum);
        let outcome = Metadata::decode(&KEY, &bytes.into(), at(0), wall(0));
        assert_eq!(outcome.unwrap_err(), Unreadable::Version);
    }

    #[test]
    fn bytes_with_a_true_seal_that_are_nonsense_are_damage_and_take_no_memory() {
        for nonsense in [
            &[][..],
            &[0, 0, 0, 0],
            &[1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 127],
            &[255; 64],
        ] {
            let mut bytes = vec![VERSION];
            bytes.extend_from_slice(nonsense);
            let sum = seal(&KEY, &bytes);
            bytes.extend_from_slice(&sum);
            let outcome = Metadata::decode(&KEY, &bytes.into(), at(0), wall(0));
            assert_eq!(outcome.unwrap_err(), Unreadable::Damaged);
        }
    }
}
