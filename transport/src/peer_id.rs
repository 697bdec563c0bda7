use std::fmt;

/// One connection to a bound socket, or one in-process link: never the same for another as long as the process runs, save
/// that libzmq's own numbers repeat after 2³² connections.
///
/// It names a connection, not a node: a peer that reconnects has a new one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(u64);

/// libzmq's routing id where the peer has not chosen its own: a zero and 4 bytes.
pub(crate) type RoutingId = [u8; 5];

/// Where a router's number would be; above all of them.
const IN_PROCESS: u64 = 256;

const LOW: u64 = 0xffff_ffff;

impl PeerId {
    /// The id of an in-process link. Whoever implements [`crate::Hub`] numbers its peers.
    #[must_use]
    pub const fn in_process(number: u32) -> Self {
        Self(IN_PROCESS << 32 | number as u64)
    }

    /// Whether it is an in-process link.
    #[must_use]
    pub const fn is_in_process(self) -> bool {
        self.0 >> 32 == IN_PROCESS
    }

    /// The number of the [`crate::Router`] it is connected to, or `None` of an in-process link.
    #[must_use]
    pub const fn router(self) -> Option<u8> {
        let [_, _, in_process, router, ..] = self.0.to_be_bytes();
        if in_process == 0 { Some(router) } else { None }
    }

    /// `None`: a peer that has chosen its own routing id. No peer of ours does.
    pub(crate) fn from_routing_id(router: u8, routing_id: &[u8]) -> Option<Self> {
        let &[0, a, b, c, d] = routing_id else {
            return None;
        };
        Some(Self(
            u64::from_be_bytes([0, 0, 0, 0, a, b, c, d]) | u64::from(router) << 32,
        ))
    }

    pub(crate) const fn routing_id(self) -> RoutingId {
        let [.., a, b, c, d] = self.0.to_be_bytes();
        [0, a, b, c, d]
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.router() {
            Some(router) => write!(f, "peer {router}/{:08x}", self.0 & LOW),
            None => write!(f, "peer in-process/{}", self.0 & LOW),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_keeps_router_and_routing_id() {
        let id = PeerId::from_routing_id(255, &[0, 0xff, 2, 3, 0xfe]).unwrap();
        assert_eq!(id.routing_id(), [0, 0xff, 2, 3, 0xfe]);
        assert_eq!(id.router(), Some(255));
        assert!(!id.is_in_process());
        assert_ne!(
            id,
            PeerId::from_routing_id(254, &[0, 0xff, 2, 3, 0xfe]).unwrap()
        );

        let local = PeerId::in_process(u32::MAX);
        assert!(local.is_in_process());
        assert_eq!(local.router(), None);
    }

    #[test]
    fn a_routing_id_of_the_peers_choice_is_no_id() {
        assert_eq!(PeerId::from_routing_id(0, b"shop"), None);
        assert_eq!(PeerId::from_routing_id(0, b"shop1"), None);
        assert_eq!(PeerId::from_routing_id(0, &[0; 6]), None);
    }
}
