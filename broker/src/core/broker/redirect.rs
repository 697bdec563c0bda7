//! Where else to go: said to all who know the word, before this broker leaves.

use scale0_wire::{Hello, Kind, Message, OtherBroker, Redirect, RoutingHeader, limits};

use super::{Broker, Session};
use crate::core::config::Neighbour;

impl Broker {
    /// Names the other brokers to a peer, those that listen for its role.
    pub(super) fn redirect(&mut self, session: Session) {
        if !Kind::Redirect.is_spoken_in(self.link(session).version) {
            return;
        }
        let neighbours = self.config.others.iter();
        let brokers: Vec<OtherBroker> = neighbours
            .filter_map(|other| named(other, session))
            .take(limits::REDIRECTS)
            .collect();
        if brokers.is_empty() {
            return;
        }
        let message = Message::new(RoutingHeader::new(Kind::Redirect));
        self.tell(
            session,
            message.with_metadata(Redirect { brokers }.encode()),
        );
    }
}

/// A broker as a peer of this role is told of it, if it can be.
fn named(other: &Neighbour, session: Session) -> Option<OtherBroker> {
    let endpoint = match session {
        Session::Frontend(_) => &other.frontends,
        Session::Backend(_) => &other.backends,
    };
    let endpoint = endpoint.clone()?;
    // What is longer would be cut, and lead elsewhere.
    let can_be_said = endpoint.len() <= limits::TEXT && Hello::is_name(&other.node);
    can_be_said.then(|| OtherBroker {
        endpoint,
        key: other.key,
        node: other.node.clone(),
    })
}
