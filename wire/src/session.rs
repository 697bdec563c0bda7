//! Metadata of the kinds that open, keep and end a session.

use std::time::Duration;

use bytes::{BufMut, Bytes};

use crate::codec::{Reader, is_name, put_bytes, put_text, within};
use crate::{DecodeError, Kind, OLDEST_VERSION, VERSION, limits};

/// HELLO: who dials, and what it offers.
///
/// The header's `epoch` is the session's; every later message of either side carries it. A second HELLO from the same
/// connection with another epoch opens a new session and ends the former.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The oldest protocol version it speaks.
    pub oldest: u8,
    /// The newest.
    pub newest: u8,
    /// The node's name, for people: logs, metrics, `Via`.
    pub node: String,
    /// Drawn once per process: two processes with one name are told apart by it, and lanes of one process are known as such.
    pub instance: u64,
    /// Which of the node's connections this is.
    pub lane: u16,
    /// The longest it wants to go without hearing anything.
    pub heartbeat: Duration,
    /// The connection's window towards it, in bytes of content.
    pub window: u32,
    /// How many requests it works on at a time, over all its brokers; 0 from a frontend, and from a backend that takes no work.
    pub capacity: u32,
    /// The services it offers, written in lower case; `*` answers for any that nobody else offers. Empty from a frontend.
    pub services: Vec<String>,
}

impl Hello {
    /// The metadata's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut to = Vec::with_capacity(64);
        to.extend_from_slice(&[self.oldest, self.newest]);
        put_bytes(&mut to, self.node.as_bytes());
        to.put_u64_le(self.instance);
        to.put_u16_le(self.lane);
        to.put_u32_le(milliseconds(self.heartbeat));
        to.put_u32_le(self.window);
        to.put_u32_le(self.capacity);
        put_services(&mut to, &self.services);
        to.into()
    }

    /// Reads it back.
    ///
    /// # Errors
    /// Truncated or excess bytes, invalid names, services not in lower case or too many.
    pub fn decode(metadata: &Bytes) -> Result<Self, DecodeError> {
        let mut from = Reader::new(metadata);
        let hello = Self {
            oldest: from.u8()?,
            newest: from.u8()?,
            node: from.name("node")?,
            instance: from.u64()?,
            lane: from.u16()?,
            heartbeat: Duration::from_millis(u64::from(from.u32()?)),
            window: from.u32()?,
            capacity: from.u32()?,
            services: services(&mut from)?,
        };
        from.end()?;
        Ok(hello)
    }

    /// The newest version that both this crate and the sender speak, if any.
    #[must_use]
    pub fn common_version(&self) -> Option<u8> {
        let newest = self.newest.min(VERSION);
        (self.oldest.max(OLDEST_VERSION) <= newest).then_some(newest)
    }

    /// Whether this can be the name of a node, a site or a service; what HELLO and WELCOME carry must be.
    #[must_use]
    pub fn is_name(name: &str) -> bool {
        is_name(name)
    }
}

/// WELCOME: who was dialled, and what both keep to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The protocol version of this session.
    pub version: u8,
    /// The broker's node name: home brokers are chosen by it.
    pub node: String,
    /// Drawn once per broker process.
    pub instance: u64,
    /// The broker's site.
    pub site: String,
    /// How often both sides are heard at least.
    pub heartbeat: Duration,
    /// The connection's window towards the broker, in bytes of content.
    pub window: u32,
}

impl Welcome {
    /// Whether this crate speaks the version that the broker has chosen.
    #[must_use]
    pub fn is_spoken(&self) -> bool {
        (OLDEST_VERSION..=VERSION).contains(&self.version)
    }

    /// The metadata's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut to = Vec::with_capacity(64);
        to.put_u8(self.version);
        put_bytes(&mut to, self.node.as_bytes());
        to.put_u64_le(self.instance);
        put_bytes(&mut to, self.site.as_bytes());
        to.put_u32_le(milliseconds(self.heartbeat));
        to.put_u32_le(self.window);
        to.into()
    }

    /// Reads it back.
    ///
    /// # Errors
    /// Truncated or excess bytes, invalid names.
    pub fn decode(metadata: &Bytes) -> Result<Self, DecodeError> {
        let mut from = Reader::new(metadata);
        let welcome = Self {
            version: from.u8()?,
            node: from.name("node")?,
            instance: from.u64()?,
            site: from.name("site")?,
            heartbeat: Duration::from_millis(u64::from(from.u32()?)),
            window: from.u32()?,
        };
        from.end()?;
        Ok(welcome)
    }
}

/// HEARTBEAT: that its sender lives, and its load. A receiver echoes the newest `sequence` in its own next HEARTBEAT, which
/// tells the round trip.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heartbeat {
    /// Counts the sender's heartbeats in this session.
    pub sequence: u32,
    /// The newest `sequence` received; 0: none yet.
    pub echo: u32,
    /// How long that one waited here before it was echoed, in microseconds.
    pub echo_delay_us: u32,
    /// Requests it works on now (a broker: has queued and sent).
    pub outstanding: u32,
    /// Requests it could work on at a time; 0 from a backend that takes no work now, as one whose application is away.
    pub capacity: u32,
    /// Moving average of the time a request takes, in microseconds.
    pub service_time_us: u32,
    /// Moving average of the time a request waits before, in microseconds.
    pub queue_time_us: u32,
    /// CPU in use by the node's process, in thousandths of one core.
    pub cpu_permille: u16,
}

impl Heartbeat {
    /// The metadata's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut to = Vec::with_capacity(30);
        to.put_u32_le(self.sequence);
        to.put_u32_le(self.echo);
        to.put_u32_le(self.echo_delay_us);
        to.put_u32_le(self.outstanding);
        to.put_u32_le(self.capacity);
        to.put_u32_le(self.service_time_us);
        to.put_u32_le(self.queue_time_us);
        to.put_u16_le(self.cpu_permille);
        to.into()
    }

    /// Reads it back.
    ///
    /// # Errors
    /// Truncated or excess bytes.
    pub fn decode(metadata: &Bytes) -> Result<Self, DecodeError> {
        let mut from = Reader::new(metadata);
        let heartbeat = Self {
            sequence: from.u32()?,
            echo: from.u32()?,
            echo_delay_us: from.u32()?,
            outstanding: from.u32()?,
            capacity: from.u32()?,
            service_time_us: from.u32()?,
            queue_time_us: from.u32()?,
            cpu_permille: from.u16()?,
        };
        from.end()?;
        Ok(heartbeat)
    }
}

/// DEMAND and RECLAIM: how much credit is wanted now. The newest message counts, not their sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted(pub u32);

impl Wanted {
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
        let wanted = Self(from.u32()?);
        from.end()?;
        Ok(wanted)
    }
}

/// BYE: why a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bye {
    /// Its sender is done and leaves.
    Leaving,
    /// Its sender is gone: written by the transport in its place.
    Lost,
    /// A newer session of the same node and lane has taken its place.
    Replaced,
    /// The other side broke the protocol.
    ProtocolError,
    /// The session is not known here, or no longer: say HELLO again.
    UnknownSession,
    /// The versions have nothing in common.
    Version,
    /// Nothing was heard for too long.
    Silent,
    /// The other side's key gives no right to what its HELLO asks for. Since version 2.
    NotAllowed,
    /// The other side broke the protocol too often: it is not heard for so many milliseconds. Since version 2.
    Quarantined(u32),
}

impl Bye {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Leaving => 0,
            Self::Lost => 1,
            Self::Replaced => 2,
            Self::ProtocolError => 3,
            Self::UnknownSession => 4,
            Self::Version => 5,
            Self::Silent => 6,
            Self::NotAllowed => 7,
            Self::Quarantined(_) => 8,
        }
    }

    /// The nearest reason that a side which speaks no newer version than this has a number for.
    #[must_use]
    pub const fn for_version(self, version: u8) -> Self {
        match self {
            Self::NotAllowed | Self::Quarantined(_) if version < 2 => Self::ProtocolError,
            known => known,
        }
    }

    /// The metadata's bytes.
    #[must_use]
    pub fn encode(self) -> Bytes {
        let mut to = vec![self.number()];
        if let Self::Quarantined(milliseconds) = self {
            to.put_u32_le(milliseconds);
        }
        to.into()
    }

    /// Reads it back.
    ///
    /// # Errors
    /// Truncated or excess bytes, a reason that means nothing.
    pub fn decode(metadata: &Bytes) -> Result<Self, DecodeError> {
        let mut from = Reader::new(metadata);
        let bye = match from.u8()? {
            0 => Self::Leaving,
            1 => Self::Lost,
            2 => Self::Replaced,
            3 => Self::ProtocolError,
            4 => Self::UnknownSession,
            5 => Self::Version,
            6 => Self::Silent,
            7 => Self::NotAllowed,
            8 => Self::Quarantined(from.u32()?),
            value => {
                return Err(DecodeError::Value {
                    what: "reason of BYE",
                    value,
                });
            }
        };
        from.end()?;
        Ok(bye)
    }
}

/// ANNOUNCE: how the services that a backend offers change from here on. Since version 2.
///
/// A name that is offered already, or not any more, says nothing new; one in both lists is offered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announce {
    /// Offered from now on, written in lower case.
    pub added: Vec<String>,
    /// Not any more.
    pub withdrawn: Vec<String>,
}

impl Announce {
    /// The metadata's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut to = Vec::with_capacity(64);
        put_services(&mut to, &self.added);
        put_services(&mut to, &self.withdrawn);
        to.into()
    }

    /// Reads it back.
    ///
    /// # Errors
    /// Truncated or excess bytes, invalid names, services not in lower case or too many.
    pub fn decode(metadata: &Bytes) -> Result<Self, DecodeError> {
        let mut from = Reader::new(metadata);
        let announce = Self {
            added: services(&mut from)?,
            withdrawn: services(&mut from)?,
        };
        from.end()?;
        Ok(announce)
    }
}

/// REDIRECT: other brokers that work for the same services. Since version 2.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redirect {
    /// Where they are; at most [`limits::REDIRECTS`].
    pub brokers: Vec<OtherBroker>,
}

/// A broker that another one knows of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherBroker {
    /// Where it listens for peers of the receiver's role, as a transport writes it.
    pub endpoint: String,
    /// Its public key; without one the link to it is neither encrypted nor proves who is at its end.
    pub key: Option<[u8; 32]>,
    /// Its node's name.
    pub node: String,
}

impl Redirect {
    /// The metadata's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut to = Vec::with_capacity(64);
        to.put_u16_le(u16::try_from(self.brokers.len()).unwrap_or(u16::MAX));
        for broker in &self.brokers {
            put_text(&mut to, &broker.endpoint);
            put_bytes(&mut to, broker.key.as_ref().map_or(&[], |key| &key[..]));
            put_bytes(&mut to, broker.node.as_bytes());
        }
        to.into()
    }

    /// Reads it back.
    ///
    /// # Errors
    /// Truncated or excess bytes, invalid names, text that is not UTF-8, a key that is none, too many brokers.
    pub fn decode(metadata: &Bytes) -> Result<Self, DecodeError> {
        let mut from = Reader::new(metadata);
        let count: usize = within("number of brokers", from.u16()?.into(), limits::REDIRECTS)?;
        let brokers = (0..count).map(|_| {
            Ok(OtherBroker {
                endpoint: from.text("endpoint")?,
                key: from.key()?,
                node: from.name("node")?,
            })
        });
        let brokers = brokers.collect::<Result<_, _>>()?;
        from.end()?;
        Ok(Self { brokers })
    }
}

/// UNSUPPORTED: the kind that its receiver does not speak. The header's `correlation` is that of the message it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsupported(pub Kind);

impl Unsupported {
    /// The metadata's bytes.
    #[must_use]
    pub fn encode(self) -> Bytes {
        Bytes::copy_from_slice(&[self.0.number()])
    }

    /// Reads it back.
    ///
    /// # Errors
    /// Truncated or excess bytes.
    pub fn decode(metadata: &Bytes) -> Result<Self, DecodeError> {
        let mut from = Reader::new(metadata);
        let unsupported = Self(Kind::from_number(from.u8()?));
        from.end()?;
        Ok(unsupported)
    }
}

fn put_services(to: &mut Vec<u8>, services: &[String]) {
    to.put_u16_le(u16::try_from(services.len()).unwrap_or(u16::MAX));
    for service in services {
        put_bytes(to, service.to_ascii_lowercase().as_bytes());
    }
}

fn services(from: &mut Reader<'_>) -> Result<Vec<String>, DecodeError> {
    let count: usize = within("number of services", from.u16()?.into(), limits::SERVICES)?;
    (0..count).map(|_| from.service()).collect()
}

/// A duration in whole milliseconds, as far as 32 bits say it: 49 days.
fn milliseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
