//! One peer's session with a broker: what it says to be let in, and what each of its messages carries.

use scale0_wire::{Hello, Kind, Message, RoutingHeader, VERSION, Window, limits};

use crate::SERVICE;

/// A frontend's or a backend's session.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    epoch: u64,
    capacity: u32,
    granted: u64,
    is_lively: bool,
}

impl Session {
    /// A frontend's. Epochs tell a broker's peers apart: each has its own.
    #[must_use]
    pub const fn frontend(epoch: u64) -> Self {
        Self::backend(epoch, 0)
    }

    /// That of a backend which works on so many requests at a time.
    #[must_use]
    pub const fn backend(epoch: u64, capacity: u32) -> Self {
        Self {
            epoch,
            capacity,
            granted: 0,
            is_lively: false,
        }
    }

    /// The same for whoever speaks all the time and keeps windows: heartbeats as often as a product's, and a frontend's
    /// window as narrow.
    #[must_use]
    pub const fn lively(mut self) -> Self {
        self.is_lively = true;
        self
    }

    /// What opens it: HELLO, and then a frontend's boundless window, so that no benchmark keeps one, or all of a backend's credit.
    ///
    /// Heartbeats are as rare as the protocol lets them be: a benchmark says nothing while criterion computes.
    ///
    /// A backend offers [`SERVICE`].
    pub fn open(&mut self) -> Vec<Message> {
        self.open_offering(&[SERVICE.to_owned()])
    }

    /// The same, of a backend that offers these services.
    pub fn open_offering(&mut self, services: &[String]) -> Vec<Message> {
        let is_backend = 0 < self.capacity;
        let hello = Hello {
            oldest: VERSION,
            newest: VERSION,
            node: format!("node-{}", self.epoch),
            instance: self.epoch,
            lane: 0,
            heartbeat: if self.is_lively {
                limits::HEARTBEAT
            } else {
                limits::HEARTBEAT_MAX
            },
            window: limits::CONNECTION_WINDOW,
            capacity: self.capacity,
            services: if is_backend {
                services.to_vec()
            } else {
                Vec::new()
            },
        };
        let hello = Message::new(RoutingHeader::new(Kind::Hello)).with_metadata(hello.encode());
        let hello = self.stamp(hello);
        if is_backend {
            self.grant(self.capacity.into());
            let credit = Message::new(RoutingHeader::new(Kind::Credit));
            vec![hello, self.stamp(credit)]
        } else if self.is_lively {
            vec![hello]
        } else {
            let window = Message::new(RoutingHeader::new(Kind::Window));
            let window = window.with_metadata(Window(u64::MAX).encode());
            vec![hello, self.stamp(window)]
        }
    }

    /// Grants so much more credit, from the next message on.
    pub const fn grant(&mut self, more: u64) {
        self.granted += more;
    }

    /// The message as this session says it: with its epoch and all that it has granted.
    #[must_use]
    pub const fn stamp(&self, mut message: Message) -> Message {
        message.header.epoch = self.epoch;
        message.header.credit = self.granted;
        message
    }
}
