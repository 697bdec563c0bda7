//! Metadata of the kinds that a request and its response are made of.

use bytes::{BufMut, Bytes};

use crate::codec::{Reader, put_bytes, put_text, within};
use crate::{DecodeError, limits};

/// REQUEST: what is asked, but for its content. What the names and values mean is HTTP's business (RFC 9110).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// The method.
    pub method: Bytes,
    /// Whether the client came over TLS: the target URI's scheme is `https`.
    pub secure: bool,
    /// The target URI's authority, normalised.
    pub authority: Bytes,
    /// Path and query of the target URI, normalised; `*` for the server itself.
    pub target: Bytes,
    /// The header fields.
    pub fields: Fields,
}

impl RequestHead {
    /// The metadata's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        // To the byte: a vector without room to spare becomes `Bytes` without another allocation.
        let parts = self.method.len() + self.authority.len() + self.target.len();
        let mut to = Vec::with_capacity(7 + parts + self.fields.0.len());
        put_bytes(&mut to, &self.method);
        to.put_u8(u8::from(self.secure));
        put_bytes(&mut to, &self.authority);
        put_bytes(&mut to, &self.target);
        to.put_slice(&self.fields.0);
        to.into()
    }

    /// Reads it back; all parts share the metadata's buffer.
    ///
    /// # Errors
    /// Truncated bytes, too many or too long fields.
    pub fn decode(metadata: &Bytes) -> Result<Self, DecodeError> {
        let mut from = Reader::new(metadata);
        Ok(Self {
            method: from.bytes()?,
            secure: match from.u8()? {
                0 => false,
                1 => true,
                value => {
                    return Err(DecodeError::Value {
                        what: "scheme",
                        value,
                    });
                }
            },
            authority: from.bytes()?,
            target: from.bytes()?,
            fields: Fields::decode(from.rest())?,
        })
    }
}

/// RESPONSE, INTERIM and UPGRADE: status and fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status code.
    pub status: u16,
    /// The header fields.
    pub fields: Fields,
}

impl ResponseHead {
    /// The metadata's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut to = Vec::with_capacity(2 + self.fields.0.len());
        to.put_u16_le(self.status);
        to.put_slice(&self.fields.0);
        to.into()
    }

    /// Reads it back; the fields share the metadata's buffer.
    ///
    /// # Errors
    /// Truncated bytes, too many or too long fields.
    pub fn decode(metadata: &Bytes) -> Result<Self, DecodeError> {
        let mut from = Reader::new(metadata);
        Ok(Self {
            status: from.u16()?,
            fields: Fields::decode(from.rest())?,
        })
    }
}

/// Bytes of the number that stands before the fields.
const COUNT: usize = 2;

/// Header or trailer fields in the order they came, as they travel: a count, then name and value of each behind its length.
///
/// Within [`limits::FIELDS`] and [`limits::FIELD_BYTES`], and well-formed: both constructors check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields(Bytes);

impl Default for Fields {
    fn default() -> Self {
        Self(Bytes::from_static(&[0, 0]))
    }
}

impl Fields {
    /// These names and values.
    ///
    /// # Errors
    /// Too many of them, or too long ones.
    pub fn new<'a>(
        fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<Self, DecodeError> {
        let mut to = Vec::with_capacity(512);
        to.put_bytes(0, COUNT);
        let mut count = 0;
        for (name, value) in fields {
            count += 1;
            within::<u16>("field's name", name.len(), limits::FIELD_BYTES)?;
            within::<u16>("field's value", value.len(), limits::FIELD_BYTES)?;
            put_bytes(&mut to, name);
            put_bytes(&mut to, value);
            within::<usize>("fields", to.len(), limits::FIELD_BYTES)?;
        }
        let count: u16 = within("number of fields", count, limits::FIELDS)?;
        to[..COUNT].copy_from_slice(&count.to_le_bytes());
        Ok(Self(to.into()))
    }

    /// Names and values, sharing this buffer.
    pub fn iter(&self) -> impl Iterator<Item = (Bytes, Bytes)> + use<> {
        let fields = self.0.clone();
        let mut at = COUNT;
        // Well-formed since construction: the iterator ends early for nobody.
        (0..self.len()).map_while(move |_| {
            let mut from = Reader::starting_at(&fields, at);
            let field = (from.bytes().ok()?, from.bytes().ok()?);
            at = from.position();
            Some(field)
        })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0
            .first_chunk()
            .map_or(0, |count| usize::from(u16::from_le_bytes(*count)))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        within::<usize>("fields", bytes.len(), limits::FIELD_BYTES)?;
        let mut from = Reader::new(&bytes);
        let count: usize = within("number of fields", from.u16()?.into(), limits::FIELDS)?;
        for _ in 0..2 * count {
            from.skip()?;
        }
        from.end()?;
        Ok(Self(bytes))
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $reason:ident = $number:literal $name:literal;)*) => {
        /// Why a request was refused, or failed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Reason {
            $($(#[$doc])* $reason = $number,)*
        }

        impl Reason {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$reason),*];

            /// The name in logs, metrics and error answers.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$reason => $name,)*
                }
            }

            pub(crate) fn from_number(number: u8) -> Result<Self, DecodeError> {
                match number {
                    $($number => Ok(Self::$reason),)*
                    value => Err(DecodeError::Value { what: "reason", value }),
                }
            }
        }
    };
}

reasons! {
    /// Nobody has offered the service for 10 minutes.
    UnknownService = 1 "unknown-service";
    /// The service is known, but no backend came within `hold`.
    NoBackend = 2 "no-backend";
    /// The service's queue is full.
    QueueFull = 3 "queue-full";
    /// The deadline passed before the response's head came.
    Deadline = 4 "deadline";
    /// The backend died, and repeating is not allowed or not possible.
    BackendLost = 5 "backend-lost";
    /// The broker died, and repeating is not allowed or not possible.
    BrokerLost = 6 "broker-lost";
    /// No broker can be reached.
    NoBroker = 7 "no-broker";
    /// Its receiver drains and takes no new work.
    Draining = 8 "draining";
    /// The application behind a bridge refuses connections.
    AppRefused = 9 "app-refused";
    /// The application broke off, or what it sent is no response.
    AppFailed = 10 "app-failed";
    /// Nobody wants the answer any more.
    Cancelled = 11 "cancelled";
    /// No byte moved for `idle_timeout`.
    IdleTimeout = 12 "idle-timeout";
    /// The other side exceeded a window, or broke the protocol otherwise.
    ProtocolError = 13 "protocol-error";
    /// More streams than may be open at a time.
    TooManyStreams = 14 "too-many-streams";
    /// Its receiver reads too slowly for what is already under way to it.
    Overloaded = 15 "overloaded";
    /// The backend was paused; what was queued for it meanwhile is not started.
    Paused = 16 "paused";
    /// The backend has less room than its broker thought.
    NoCredit = 17 "no-credit";
    /// The response's head is too large.
    HeadTooLarge = 18 "head-too-large";
    /// The request's content is larger than allowed.
    ContentTooLarge = 19 "content-too-large";
    /// A queue for later services is full of bytes.
    QueueBytes = 20 "queue-bytes";
    /// The client broke off while its request's content was under way.
    ClientGone = 21 "client-gone";
    /// The session ended, and this stream with it.
    SessionEnded = 22 "session-ended";
    /// It would wait longer than its deadline. Since version 2.
    TooLate = 23 "too-late";
    /// Its sender's key gives no right to it. Since version 2.
    NotAllowed = 24 "not-allowed";
    /// Its sender has broken the protocol too often, and is not heard for a while. Since version 2.
    Quarantined = 25 "quarantined";
}

impl Reason {
    /// The nearest reason that a session of this version has a number for.
    #[must_use]
    pub const fn for_version(self, version: u8) -> Self {
        if 2 <= version {
            return self;
        }
        match self {
            Self::TooLate => Self::QueueFull,
            Self::NotAllowed => Self::NoBackend,
            Self::Quarantined => Self::Overloaded,
            known => known,
        }
    }
}

/// REJECT: was not started, and will not be. Safe to repeat elsewhere, whatever the method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Why.
    pub reason: Reason,
    /// When it is worth asking again, in milliseconds; 0: unknown.
    pub retry_after_ms: u32,
    /// For people; may be empty.
    pub detail: String,
}

impl Reject {
    /// The metadata's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut to = Vec::with_capacity(8 + self.detail.len());
        to.put_u8(self.reason as u8);
        to.put_u32_le(self.retry_after_ms);
        put_text(&mut to, &self.detail);
        to.into()
    }

    /// Reads it back.
    ///
    /// # Errors
    /// Truncated or excess bytes, a reason that means nothing.
    pub fn decode(metadata: &Bytes) -> Result<Self, DecodeError> {
        let mut from = Reader::new(metadata);
        let reject = Self {
            reason: Reason::from_number(from.u8()?)?,
            retry_after_ms: from.u32()?,
            detail: from.text("detail")?,
        };
        from.end()?;
        Ok(reject)
    }
}

/// END: how its sender's half of a stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// All of it was sent; trailer fields, if any.
    Complete(Fields),
    /// It stops here and is not whole: whoever reads it must not take it for complete.
    Failed {
        /// Why.
        reason: Reason,
        /// For people; may be empty.
        detail: String,
    },
}

impl End {
    /// The metadata's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut to = Vec::with_capacity(8);
        match self {
            Self::Complete(trailers) => {
                to.put_u8(0);
                to.put_slice(&trailers.0);
            }
            Self::Failed { reason, detail } => {
                to.put_u8(*reason as u8);
                put_text(&mut to, detail);
            }
        }
        to.into()
    }

    /// Reads it back.
    ///
    /// # Errors
    /// Truncated or excess bytes, a reason that means nothing.
    pub fn decode(metadata: &Bytes) -> Result<Self, DecodeError> {
        let mut from = Reader::new(metadata);
        match from.u8()? {
            0 => Ok(Self::Complete(Fields::decode(from.rest())?)),
            number => {
                let failed = Self::Failed {
                    reason: Reason::from_number(number)?,
                    detail: from.text("detail")?,
                };
                from.end()?;
                Ok(failed)
            }
        }
    }
}

/// CANCEL: why a stream is no longer wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancel(pub Reason);

impl Cancel {
    /// The metadata's bytes.
    #[must_use]
    pub fn encode(self) -> Bytes {
        Bytes::copy_from_slice(&[self.0 as u8])
    }

    /// Reads it back.
    ///
    /// # Errors
    /// Truncated or excess bytes, a reason that means nothing.
    pub fn decode(metadata: &Bytes) -> Result<Self, DecodeError> {
        let mut from = Reader::new(metadata);
        let cancel = Self(Reason::from_number(from.u8()?)?);
        from.end()?;
        Ok(cancel)
    }
}

/// WINDOW: how many bytes of content may have been sent in all, on this stream or this connection, since it began.
///
/// Cumulative, so that repeating or losing one does no harm; a smaller limit than an earlier one says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window(pub u64);

impl Window {
    /// The metadata's bytes.
    #[must_use]
    pub fn encode(self) -> Bytes {
        Bytes::copy_from_slice(&self.0.to_le_bytes())
    }

    /// Reads it back.
    ///
    /// # Errors
    /// Truncated or excess bytes.
    pub fn decode(metadata: &Bytes) -> Result<Self, DecodeError> {
        let mut from = Reader::new(metadata);
        let window = Self(from.u64()?);
        from.end()?;
        Ok(window)
    }
}
