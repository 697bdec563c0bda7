//! Brokers that other brokers name when they leave.

use std::sync::Arc;

use scale0_wire::{DecodeError, Message, Redirect};

use super::broker::{Broker, State};
use super::{Action, BrokerId, Session};

impl Session {
    /// A broker of a node with this name is dialled from now on, because another one has named it.
    pub fn learn_broker(&mut self, node: &str) -> BrokerId {
        let mut broker = Broker::new();
        broker.name = Arc::from(node);
        broker.is_learnt = true;
        self.brokers.push(broker);
        self.ledger.grow();
        BrokerId(self.brokers.len() - 1)
    }

    /// A broker names others. Those of a node that is dialled already are not news.
    pub(super) fn on_redirect(
        &self,
        id: BrokerId,
        message: &Message,
        actions: &mut Vec<Action>,
    ) -> Result<(), DecodeError> {
        for other in Redirect::decode(&message.metadata)?.brokers {
            if self.brokers.iter().all(|broker| *broker.name != other.node) {
                actions.push(Action::Learn(id, other));
            }
        }
        Ok(())
    }

    /// Whether another connection leads to the node of this broker, which another one has named.
    pub(super) fn is_dialled_twice(&self, id: BrokerId) -> bool {
        let broker = &self.brokers[id.0];
        let mut others = self.brokers.iter().enumerate();
        broker.is_learnt
            && others
                .any(|(index, other)| index != id.0 && other.name == broker.name && other.is_open())
    }

    /// Hangs up for good: the broker is dialled already, under another address.
    pub(super) fn retire(&mut self, id: BrokerId, actions: &mut Vec<Action>) {
        self.end_session(id, actions);
        self.brokers[id.0].state = State::Left;
        actions.push(Action::Close(id));
    }
}

#[cfg(test)]
mod tests {
    use scale0_wire::{Bye, Kind, OtherBroker};

    use super::*;
    use crate::session::Event;
    use crate::session::tests::Stage;

    fn redirect(stage: &mut Stage, nodes: &[&str]) -> Vec<String> {
        let brokers = nodes.iter().map(|node| OtherBroker {
            endpoint: format!("ipc:///run/{node}"),
            key: None,
            node: (*node).to_owned(),
        });
        let brokers = brokers.collect();
        stage.say(0, Kind::Redirect, 0, Redirect { brokers }.encode());
        let named = stage.actions.drain(..).filter_map(|action| match action {
            Action::Learn(BrokerId(0), other) => Some(other.node),
            _ => None,
        });
        named.collect()
    }

    #[test]
    fn a_broker_that_another_one_names_is_dialled_and_lent_its_share() {
        let mut stage = Stage::welcomed(4, 2);
        let named = redirect(&mut stage, &["broker-1", "broker-2"]);
        assert_eq!(named, ["broker-2"]);
        let id = stage.learn("broker-2");
        assert!(redirect(&mut stage, &["broker-2"]).is_empty());
        stage.say(0, Kind::Drain, 0, bytes::Bytes::new());
        stage.give_back(0, 2);
        stage.up(id.0);
        stage.welcome(id.0);
        stage.tick();
        let credit = stage.sent(Kind::Credit).pop().unwrap();
        assert_eq!(credit.header.credit, 2);
        assert!(stage.request(id.0, 1).is_some());
    }

    #[test]
    fn one_that_is_another_way_to_a_known_broker_is_hung_up_on() {
        let mut stage = Stage::welcomed(4, 1);
        let by_name = stage.learn("broker-0");
        stage.step(Event::Up(by_name));
        assert_eq!(stage.actions, [Action::Close(by_name)]);
        stage.quiet();
        let by_session = stage.learn("alias");
        stage.up(by_session.0);
        stage.bye(by_session.0, Bye::Replaced);
        assert_eq!(stage.actions, [Action::Close(by_session)]);
        stage.quiet();
        stage.step(Event::Down(by_session));
        stage.pass(std::time::Duration::from_secs(1));
        assert!(stage.sent_to(by_session.0).is_empty());
        assert!(stage.session.is_registered());
    }

    #[test]
    fn what_a_broker_of_the_older_version_names_is_not_understood() {
        let mut stage = Stage::new(4, 1);
        stage.version = 1;
        stage.up(0);
        stage.welcome(0);
        assert!(redirect(&mut stage, &["broker-2"]).is_empty());
        assert_eq!(stage.counters.unexpected.get(), 1);
    }

    #[test]
    fn a_broker_that_allows_no_session_or_none_for_a_while_is_left_in_peace() {
        for (bye, milliseconds) in [
            (Bye::NotAllowed, 30_000),
            (Bye::Quarantined(4_000), 4_000),
            (Bye::Quarantined(u32::MAX), 600_000),
            (Bye::Quarantined(0), 1_000),
        ] {
            let mut stage = Stage::welcomed(4, 1);
            stage.bye(0, bye);
            let rest = std::time::Duration::from_millis(milliseconds);
            let moment = std::time::Duration::from_millis(100);
            stage.pass(rest - moment);
            assert!(stage.sent(Kind::Hello).is_empty());
            stage.pass(moment);
            assert_eq!(stage.sent(Kind::Hello).len(), 1, "{bye:?}");
        }
    }
}
