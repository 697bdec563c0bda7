//! The fixed header that a broker reads, and all it reads.

use crate::codec::within;
use crate::{DecodeError, Kind, limits};

/// The newest version of the protocol that this crate speaks.
pub const VERSION: u8 = 2;

/// The oldest: a site is rolled from one version to the next while both are in use.
pub const OLDEST_VERSION: u8 = 1;

/// A service, by the first 16 bytes of the blake3 hash of its lower-case name. Names travel in HELLO.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ServiceId(pub [u8; 16]);

impl ServiceId {
    /// Who answers for any service that nobody else offers.
    pub const ANY_NAME: &'static str = "*";

    /// The service with this name, whatever its case.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        if name.iter().any(u8::is_ascii_uppercase) {
            hasher.update(&name.to_ascii_lowercase());
        } else {
            hasher.update(name);
        }
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        Self(id)
    }

    /// What requests of this service say that belong together by this value, whoever says it: never 0, which is no preference.
    #[must_use]
    pub fn affinity(self, value: &[u8]) -> u64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0).update(value);
        let mut first = [0; 8];
        hasher.finalize_xof().fill(&mut first);
        u64::from_le_bytes(first).max(1)
    }
}

/// A flight: requests with an equal key may be answered by one response. All zero: never shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct FlightKey(pub u128);

/// W3C trace context, as far as a broker passes it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TraceContext {
    /// The trace; all zero: none.
    pub trace: [u8; 16],
    /// The caller's span.
    pub parent: [u8; 8],
    /// The trace flags.
    pub flags: u8,
}

/// Set bits of [`RoutingHeader::flags`]. Bits without a name are passed on as they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub struct Flags(pub u16);

impl Flags {
    /// This message is all of its sender's half of the stream: no CHUNK and no END follow.
    pub const FINAL: Self = Self(1);
    /// The request may be executed twice: its method is idempotent, or it has an `Idempotency-Key`.
    pub const IDEMPOTENT: Self = Self(1 << 1);
    /// On REQUEST: the client asks to switch protocols; the answer may be UPGRADE.
    pub const UPGRADE: Self = Self(1 << 2);
    /// On RESPONSE: an event stream begins; its backend's credit returns now.
    pub const EVENT_STREAM: Self = Self(1 << 3);
    /// On RESPONSE: several frontends wait for it. Reserved.
    pub const JOINED: Self = Self(1 << 4);
    /// On HELLO: the sender drains already.
    pub const DRAINING: Self = Self(1 << 5);
    /// On REQUEST: it may be sent to a second backend when the first is late. Since version 2.
    pub const HEDGE: Self = Self(1 << 6);
    /// On REQUEST: an EXPLAIN is wanted before the stream's last word. Since version 2.
    pub const EXPLAIN: Self = Self(1 << 7);
    /// On RESPONSE: the application failed, with a status of 500 or more. Since version 2.
    pub const APP_ERROR: Self = Self(1 << 8);

    /// Whether all bits of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These flags, and those of `other` if `on`.
    #[must_use]
    pub const fn with(self, other: Self, on: bool) -> Self {
        if on { Self(self.0 | other.0) } else { self }
    }
}

/// Which of the waiting requests goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum Priority {
    /// Somebody waits for it.
    #[default]
    Interactive = 0,
    /// Ordinary.
    Normal = 1,
    /// Takes what is left.
    Background = 2,
}

/// How far equal requests are folded into one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Scope {
    /// Not at all.
    #[default]
    Off = 0,
    /// Within one frontend process.
    Frontend = 1,
    /// Within a site. Reserved.
    Site = 2,
    /// Among all sites. Reserved.
    Global = 3,
}

/// Whether a request may be sent to another site. Reserved: this version writes `Never`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum SpillMode {
    /// It stays in this site.
    #[default]
    Never = 0,
    /// It may leave when this site has no backend.
    Failover = 1,
    /// It may leave when this site is busy.
    Overload = 2,
}

/// The fixed part of every message: little endian, [`RoutingHeader::LENGTH`] bytes, read without allocation.
///
/// Fields that a kind does not use are zero. `PROTOCOL.md` gives offsets and the kinds that use each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoutingHeader {
    /// The session's version of the protocol, between [`OLDEST_VERSION`] and [`VERSION`]; see [`Kind::stated_version`].
    pub version: u8,
    /// What this message is.
    pub kind: Kind,
    /// See [`Flags`].
    pub flags: Flags,
    /// The stream, numbered by the side that opened it, for this session; 0 speaks of the whole connection.
    pub correlation: u64,
    /// The session's epoch, chosen by the side that dialled and said in its HELLO.
    pub epoch: u64,
    /// How many brokers of other sites it has passed.
    pub hops: u8,
    /// How often it was sent to a backend before.
    pub attempt: u8,
    /// Which goes first.
    pub priority: Priority,
    /// How far it is coalesced.
    pub scope: Scope,
    /// Whether it may leave the site.
    pub spill: SpillMode,
    /// What is left until the response's head is due, in milliseconds; relative, so that no clocks are compared.
    pub deadline_ms: u32,
    /// How long it may wait for a first backend, in milliseconds.
    pub hold_ms: u32,
    /// The longest round trip to another site it accepts, in milliseconds. Reserved.
    pub max_round_trip_ms: u32,
    /// How many requests wait for the answer.
    pub waiters: u32,
    /// Where it came from: the first 4 bytes of the blake3 hash of the site's name. Reserved; 0 within a site.
    pub origin_site: u32,
    /// On REQUEST: how many bytes of response content may be sent before the first WINDOW.
    pub window: u32,
    /// The flight it belongs to.
    pub flight: FlightKey,
    /// Requests with an equal hash prefer the same backend; 0: no preference. Since version 2.
    pub affinity: u64,
    /// Which service it asks for.
    pub service: ServiceId,
    /// Who is tracing.
    pub trace: TraceContext,
    /// From a backend: all credit granted in this session. On RETURN: all credit returned in it.
    pub credit: u64,
}

impl RoutingHeader {
    /// Bytes of a header of this version.
    pub const LENGTH: usize = 136;

    /// A header of this kind in a session of the newest version, with everything else zero.
    #[must_use]
    pub const fn new(kind: Kind) -> Self {
        Self {
            version: kind.stated_version(VERSION),
            kind,
            flags: Flags(0),
            correlation: 0,
            epoch: 0,
            hops: 0,
            attempt: 0,
            priority: Priority::Interactive,
            scope: Scope::Off,
            spill: SpillMode::Never,
            deadline_ms: 0,
            hold_ms: 0,
            max_round_trip_ms: 0,
            waiters: 0,
            origin_site: 0,
            window: 0,
            flight: FlightKey(0),
            affinity: 0,
            service: ServiceId([0; 16]),
            trace: TraceContext {
                trace: [0; 16],
                parent: [0; 8],
                flags: 0,
            },
            credit: 0,
        }
    }

    /// Appends the bytes of this header, for a message with these lengths.
    pub(crate) fn encode(&self, lengths: Lengths, frame: &mut Vec<u8>) {
        let start = frame.len();
        // Written where they stay: on the stack first and copied from there, they would cost twice as much.
        frame.resize(start + Self::LENGTH, 0);
        if let Some(to) = frame[start..].first_chunk_mut() {
            self.write(lengths, to);
        }
    }

    /// Writes the bytes of this header, for a message with these lengths.
    #[inline]
    pub(crate) fn write(&self, lengths: Lengths, to: &mut [u8; Self::LENGTH]) {
        to[0] = self.version;
        to[1] = self.kind.number();
        to[2..4].copy_from_slice(&lengths.header.to_le_bytes());
        to[4..8].copy_from_slice(&lengths.metadata.to_le_bytes());
        to[8..16].copy_from_slice(&self.correlation.to_le_bytes());
        to[16..24].copy_from_slice(&self.epoch.to_le_bytes());
        to[24..26].copy_from_slice(&self.flags.0.to_le_bytes());
        to[26] = self.hops;
        to[27] = self.attempt;
        to[28] = self.priority as u8;
        to[29] = self.scope as u8;
        to[30] = self.spill as u8;
        to[31] = self.trace.flags;
        to[32..36].copy_from_slice(&self.deadline_ms.to_le_bytes());
        to[36..40].copy_from_slice(&self.hold_ms.to_le_bytes());
        to[40..44].copy_from_slice(&self.max_round_trip_ms.to_le_bytes());
        to[44..48].copy_from_slice(&self.waiters.to_le_bytes());
        to[48..52].copy_from_slice(&self.origin_site.to_le_bytes());
        to[52..56].copy_from_slice(&self.window.to_le_bytes());
        to[56..60].copy_from_slice(&lengths.content.to_le_bytes());
        // Reserved.
        to[60..64].fill(0);
        to[64..80].copy_from_slice(&self.flight.0.to_le_bytes());
        to[80..88].copy_from_slice(&self.affinity.to_le_bytes());
        to[88..104].copy_from_slice(&self.service.0);
        to[104..120].copy_from_slice(&self.trace.trace);
        to[120..128].copy_from_slice(&self.trace.parent);
        to[128..136].copy_from_slice(&self.credit.to_le_bytes());
    }

    /// Reads the header at the start of `frame`, and the lengths it states.
    #[inline]
    pub(crate) fn decode(frame: &[u8]) -> Result<(Self, Lengths), DecodeError> {
        // The version decides how to read everything else, so it is judged before the length is.
        let found = *frame.first().ok_or(DecodeError::Truncated {
            needed: Self::LENGTH,
            found: 0,
        })?;
        let ours = OLDEST_VERSION..=VERSION;
        if !ours.contains(&found) {
            return Err(DecodeError::Version { found, ours });
        }
        let Some(from) = frame.first_chunk::<{ Self::LENGTH }>() else {
            return Err(DecodeError::Truncated {
                needed: Self::LENGTH,
                found: frame.len(),
            });
        };
        let lengths = Lengths {
            header: u16::from_le_bytes(array(from, 2)),
            metadata: u32::from_le_bytes(array(from, 4)),
            content: u32::from_le_bytes(array(from, 56)),
        }
        .check()?;
        if array::<4>(from, 60) != [0; 4] {
            return Err(DecodeError::Reserved { offset: 60 });
        }
        let header = Self {
            version: found,
            kind: Kind::from_number(from[1]),
            flags: Flags(u16::from_le_bytes(array(from, 24))),
            correlation: u64::from_le_bytes(array(from, 8)),
            epoch: u64::from_le_bytes(array(from, 16)),
            hops: from[26],
            attempt: from[27],
            priority: match from[28] {
                0 => Priority::Interactive,
                1 => Priority::Normal,
                2 => Priority::Background,
                value => {
                    return Err(DecodeError::Value {
                        what: "priority",
                        value,
                    });
                }
            },
            scope: match from[29] {
                0 => Scope::Off,
                1 => Scope::Frontend,
                2 => Scope::Site,
                3 => Scope::Global,
                value => {
                    return Err(DecodeError::Value {
                        what: "coalescing scope",
                        value,
                    });
                }
            },
            spill: match from[30] {
                0 => SpillMode::Never,
                1 => SpillMode::Failover,
                2 => SpillMode::Overload,
                value => {
                    return Err(DecodeError::Value {
                        what: "spill mode",
                        value,
                    });
                }
            },
            deadline_ms: u32::from_le_bytes(array(from, 32)),
            hold_ms: u32::from_le_bytes(array(from, 36)),
            max_round_trip_ms: u32::from_le_bytes(array(from, 40)),
            waiters: u32::from_le_bytes(array(from, 44)),
            origin_site: u32::from_le_bytes(array(from, 48)),
            window: u32::from_le_bytes(array(from, 52)),
            flight: FlightKey(u128::from_le_bytes(array(from, 64))),
            affinity: u64::from_le_bytes(array(from, 80)),
            service: ServiceId(array(from, 88)),
            trace: TraceContext {
                trace: array(from, 104),
                parent: array(from, 120),
                flags: from[31],
            },
            credit: u64::from_le_bytes(array(from, 128)),
        };
        Ok((header, lengths))
    }
}

/// The lengths a header states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lengths {
    pub(crate) header: u16,
    pub(crate) metadata: u32,
    pub(crate) content: u32,
}

impl Lengths {
    /// Whether the content of such a message is the end of its first frame, rather than a frame of its own.
    ///
    /// It is while all is short, but never in a CHUNK: a chunk's bytes are shared by all who send them on, and are not
    /// copied for it.
    pub(crate) const fn content_is_inline(self, kind: Kind) -> bool {
        let size = self.header as usize + self.metadata as usize + self.content as usize;
        self.content == 0 || (!matches!(kind, Kind::Chunk) && size <= limits::ONE_FRAME)
    }

    /// Of a message to be written: none over its limit.
    pub(crate) fn new(header: usize, metadata: usize, content: usize) -> Result<Self, DecodeError> {
        Ok(Self {
            header: within("header", header, limits::HEADER)?,
            metadata: within("metadata", metadata, limits::METADATA)?,
            content: within("content", content, limits::CONTENT)?,
        })
    }

    /// Of a message being read: refuses what none may have, before anything is sliced or added up.
    fn check(self) -> Result<Self, DecodeError> {
        if usize::from(self.header) < RoutingHeader::LENGTH {
            return Err(DecodeError::HeaderLength { found: self.header });
        }
        Self::new(
            self.header.into(),
            self.metadata as usize,
            self.content as usize,
        )
    }
}

/// The `N` bytes of a header from `at` on; the offsets above are constants within it.
fn array<const N: usize>(from: &[u8; RoutingHeader::LENGTH], at: usize) -> [u8; N] {
    let mut to = [0; N];
    to.copy_from_slice(&from[at..at + N]);
    to
}
