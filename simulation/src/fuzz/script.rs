//! Bytes as events.

use std::time::Duration;

use bytes::Bytes;
use scale0_wire::{
    Announce, Bye, Cancel, DecodeError, End, Fields, Flags, Heartbeat, Hello, Kind, Message,
    OLDEST_VERSION, OtherBroker, Reason, Redirect, Reject, RoutingHeader, ServiceId, Unsupported,
    VERSION, Wanted, Welcome, Window,
};

use crate::site::SERVICES;

/// Numbers of streams that a script can refer to: those that were mentioned last.
const REMEMBERED: usize = 16;

/// Bytes, read front to back. What is missing at their end is nothing that happens.
pub(crate) struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// One of so many, and there are some.
    pub(crate) fn below(&mut self, end: usize) -> Option<usize> {
        Some(usize::from(self.u8()?) % end)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes([self.u8()?, self.u8()?]))
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*first))
    }

    pub(crate) fn millis(&mut self) -> Option<Duration> {
        self.u16().map(u64::from).map(Duration::from_millis)
    }

    fn take(&mut self, length: usize) -> Bytes {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        Bytes::copy_from_slice(taken)
    }

    /// A message whose frames stand here, or what is none: the lengths of both, and then they.
    pub(crate) fn raw(&mut self) -> Option<Result<Message, DecodeError>> {
        let lengths = [self.u16()?, self.u16()?].map(usize::from);
        let frame = self.take(lengths[0]);
        let content = (0 < lengths[1]).then(|| self.take(lengths[1]));
        Some(Message::decode(&frame, content))
    }

    /// Some services.
    pub(crate) fn services(&mut self) -> Option<Vec<String>> {
        let bits = self.u8()?;
        let services = SERVICES.iter().chain(&["*"]).enumerate();
        let named = services.filter(|(index, _)| bits & 1 << index != 0);
        Some(named.map(|(_, name)| (*name).to_owned()).collect())
    }

    /// A message of one of these kinds, as it arrives; about one of these streams, or some other.
    pub(crate) fn said(
        &mut self,
        kinds: &[Kind],
        epoch: u64,
        about: &Numbers,
    ) -> Option<Result<Message, DecodeError>> {
        let kind = kinds[self.below(kinds.len())?];
        let correlation = about.pick(self.u8()?);
        let (how, much) = (self.u8()?, self.u16()?);
        let header = RoutingHeader {
            version: if kind.stated_version(VERSION) == VERSION {
                VERSION
            } else {
                OLDEST_VERSION
            },
            flags: Flags(u16::from(how) | u16::from(how >> 7) << 8),
            correlation,
            epoch,
            credit: much.into(),
            deadline_ms: u32::from(much),
            hold_ms: u32::from(how) * 100,
            window: u32::from(much),
            waiters: u32::from(how % 5),
            affinity: u64::from(how % 3),
            service: ServiceId::of(SERVICES[usize::from(how) % SERVICES.len()].as_bytes()),
            ..RoutingHeader::new(kind)
        };
        let has_content = matches!(
            kind,
            Kind::Request | Kind::Response | Kind::Chunk | Kind::Upgrade
        );
        let length = if has_content {
            usize::from(much) % 9000
        } else {
            0
        };
        let message = Message::new(header)
            .with_metadata(self.metadata(kind, how, much)?)
            .with_content(Bytes::from(vec![how; length]));
        let mut frame = Vec::new();
        let content = message.encode(&mut frame);
        Some(content.and_then(|content| Message::decode(&frame.into(), content)))
    }

    fn metadata(&mut self, kind: Kind, how: u8, much: u16) -> Option<Bytes> {
        let reasons = Reason::ALL;
        let reason = reasons[usize::from(how) % reasons.len()];
        let wanted = u32::from(how);
        Some(match kind {
            // Now and then it is not what its kind says.
            _ if how == 0xff => Bytes::from_static(b"\xfe\xfe"),
            Kind::Hello => Hello {
                oldest: OLDEST_VERSION,
                newest: VERSION,
                node: format!("node-{}", how % 4),
                instance: u64::from(how % 2),
                lane: much % 2,
                heartbeat: Duration::from_millis(1000 + u64::from(much)),
                window: u32::from(much),
                capacity: wanted % 6,
                services: self.services()?,
            }
            .encode(),
            Kind::Welcome => Welcome {
                version: 1 + how % 2,
                node: format!("broker-{}", how % 4),
                instance: 1,
                site: "fra".into(),
                heartbeat: Duration::from_secs(1),
                window: u32::from(much) * 16,
            }
            .encode(),
            Kind::Heartbeat => Heartbeat {
                sequence: wanted,
                echo: u32::from(much),
                capacity: wanted % 8,
                outstanding: wanted,
                ..Heartbeat::default()
            }
            .encode(),
            Kind::Demand | Kind::Reclaim => Wanted(wanted).encode(),
            Kind::Window => Window(u64::from(much) * 16).encode(),
            Kind::Cancel => Cancel(reason).encode(),
            Kind::Reject => Reject {
                reason,
                retry_after_ms: much.into(),
                detail: String::new(),
            }
            .encode(),
            Kind::End if how.is_multiple_of(2) => End::Complete(Fields::default()).encode(),
            Kind::End => End::Failed {
                reason,
                detail: String::new(),
            }
            .encode(),
            Kind::Bye => match how % 9 {
                0 => Bye::Leaving,
                1 => Bye::Lost,
                2 => Bye::Version,
                3 => Bye::Silent,
                4 => Bye::Replaced,
                5 => Bye::ProtocolError,
                6 => Bye::UnknownSession,
                7 => Bye::NotAllowed,
                _ => Bye::Quarantined(much.into()),
            }
            .encode(),
            Kind::Announce => Announce {
                added: self.services()?,
                withdrawn: self.services()?,
            }
            .encode(),
            Kind::Redirect => Redirect {
                brokers: vec![OtherBroker {
                    endpoint: "tcp://127.0.0.1:1".to_owned(),
                    key: None,
                    node: format!("broker-{}", how % 8),
                }],
            }
            .encode(),
            Kind::Unsupported => Unsupported(Kind::Request).encode(),
            _ => Bytes::from(vec![how; usize::from(how % 64)]),
        })
    }
}

/// Numbers of streams, and the newest epoch, of what was said to somebody.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    numbers: Vec<u64>,
    pub(crate) epoch: u64,
}

impl Numbers {
    /// Something was said to them, as frames can carry it.
    pub(crate) fn note(&mut self, message: &Message) {
        let mut frame = Vec::new();
        let content = message.encode(&mut frame).expect("it can be said");
        let read = Message::decode(&frame.into(), content).expect("it can be read");
        assert_eq!(read, *message, "it arrives as it was said");
        let number = message.header.correlation;
        if number != 0 && !self.numbers.contains(&number) {
            if self.numbers.len() == REMEMBERED {
                self.numbers.remove(0);
            }
            self.numbers.push(number);
        }
    }

    /// One of those that were mentioned, the newest first; or a small one that need not have been.
    fn pick(&self, which: u8) -> u64 {
        let place = usize::from(which);
        let mentioned = self.numbers.iter().rev().nth(place);
        mentioned.copied().unwrap_or(u64::from(which) % 32)
    }
}
