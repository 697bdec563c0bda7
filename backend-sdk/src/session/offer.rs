//! Which services are offered, as they come and go.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use scale0_wire::{Announce, Bye, Kind};

use super::broker::State;
use super::{Action, BrokerId, Phase, Session};

/// Services of one ANNOUNCE: with the longest names it is within what a message may have.
const AT_ONCE: usize = 256;

/// How long requests under way have when a session with an older broker is begun anew. What waits there for other services of ours
/// waits as long as this at the most, which is less than a request is held.
const RENEWAL: Duration = Duration::from_secs(5);

impl Session {
    /// Offers these services from now on.
    pub(super) fn offer(&mut self, now: Instant, services: Vec<String>, actions: &mut Vec<Action>) {
        if self.phase != Phase::Serving {
            return;
        }
        let added = missing(&services, &self.settings.services);
        let withdrawn = missing(&self.settings.services, &services);
        self.settings.services = services;
        if added.is_empty() && withdrawn.is_empty() {
            return;
        }
        for id in (0..self.brokers.len()).map(BrokerId) {
            let broker = &self.brokers[id.0];
            match broker.state {
                State::Open if Kind::Announce.is_spoken_in(broker.version) => {
                    self.announce(id, &added, &withdrawn, actions);
                }
                State::Open => self.renew(now, id, actions),
                // What HELLO has said does not hold any more, or there is something to say now.
                State::Greeting { .. } | State::Idle => self.on_up(now, id, actions),
                State::Down | State::Resting { .. } | State::Left => {}
            }
        }
    }

    /// Whether there is nothing to serve, and no reason to be anywhere.
    pub fn offers_nothing(&self) -> bool {
        self.settings.services.is_empty()
    }

    fn announce(
        &mut self,
        id: BrokerId,
        added: &[String],
        withdrawn: &[String],
        actions: &mut Vec<Action>,
    ) {
        let none: &[String] = &[];
        let added = added.chunks(AT_ONCE).map(|added| (added, none));
        let withdrawn = withdrawn.chunks(AT_ONCE).map(|withdrawn| (none, withdrawn));
        for (added, withdrawn) in withdrawn.chain(added) {
            let announce = Announce {
                added: added.to_vec(),
                withdrawn: withdrawn.to_vec(),
            };
            self.send_control(id, Kind::Announce, announce.encode(), actions);
        }
    }

    /// An older broker knows of other services only by another HELLO, which ends all that is under way: it gives nothing new first.
    fn renew(&mut self, now: Instant, id: BrokerId, actions: &mut Vec<Action>) {
        let broker = &mut self.brokers[id.0];
        if broker.renew_by.is_some() {
            return;
        }
        broker.renew_by = Some(now + RENEWAL);
        broker.drain_said = Some(now);
        self.ledger.close(id);
        self.send_control(id, Kind::Drain, Bytes::new(), actions);
    }

    /// Begins the session anew, if it is to be and nothing is under way in it or its time is over. Returns whether it does.
    pub(super) fn renew_if_due(
        &mut self,
        now: Instant,
        id: BrokerId,
        actions: &mut Vec<Action>,
    ) -> bool {
        let Some(renew_by) = self.brokers[id.0].renew_by else {
            return false;
        };
        let is_due = renew_by <= now || self.has_no_work(now, id);
        if is_due {
            self.send_control(id, Kind::Bye, Bye::Leaving.encode(), actions);
            self.on_up(now, id, actions);
        }
        is_due
    }
}

/// What is in the first list only.
fn missing(of: &[String], among: &[String]) -> Vec<String> {
    let among: HashSet<&String> = among.iter().collect();
    let missing = of.iter().filter(|name| !among.contains(name));
    missing.cloned().collect()
}

#[cfg(test)]
mod tests {
    use scale0_wire::{Hello, Message, VERSION};

    use super::*;
    use crate::session::tests::Stage;
    use crate::session::{Event, Shape};

    const SECOND: Duration = Duration::from_secs(1);

    fn offer(stage: &mut Stage, services: &[&str]) {
        let services = services.iter().map(|&name| name.to_owned()).collect();
        stage.step(Event::Services(services));
        stage.tick();
    }

    fn announced(stage: &mut Stage) -> Vec<Announce> {
        let sent = stage.sent(Kind::Announce).into_iter();
        sent.map(|message| Announce::decode(&message.metadata).unwrap())
            .collect()
    }

    fn services(hello: &Message) -> Vec<String> {
        Hello::decode(&hello.metadata).unwrap().services
    }

    /// A broker that knows no ANNOUNCE has welcomed it.
    fn older() -> Stage {
        let mut stage = Stage::new(4, 1);
        stage.version = 1;
        stage.up(0);
        stage.welcome(0);
        stage.tick();
        stage.quiet();
        stage
    }

    #[test]
    fn what_has_changed_is_announced_once_to_every_broker_and_nothing_else_happens() {
        let mut stage = Stage::welcomed(4, 2);
        let stream = stage.request(0, 1).unwrap();
        stage.quiet();
        offer(&mut stage, &["img", "shop", "api"]);
        offer(&mut stage, &["shop", "api", "img"]);
        let added = Announce {
            added: vec!["img".into(), "api".into()],
            withdrawn: Vec::new(),
        };
        assert_eq!(announced(&mut stage), [added.clone(), added]);
        offer(&mut stage, &["img", "api"]);
        let withdrawn = Announce {
            added: Vec::new(),
            withdrawn: vec!["shop".into()],
        };
        assert_eq!(announced(&mut stage), [withdrawn.clone(), withdrawn]);
        assert!(stage.actions.is_empty(), "{:?}", stage.actions);
        // What was begun goes on, and what crossed it is served.
        stage.respond(stream, b"done");
        assert!(stage.request(0, 2).is_some());
    }

    #[test]
    fn the_next_hello_names_what_is_offered_by_then() {
        let mut stage = Stage::welcomed(4, 1);
        stage.step(Event::Down(BrokerId(0)));
        offer(&mut stage, &["img"]);
        stage.step(Event::Up(BrokerId(0)));
        assert_eq!(services(&stage.sent(Kind::Hello)[0]), ["img"]);
    }

    #[test]
    fn what_changes_before_welcome_is_said_by_another_hello() {
        let mut stage = Stage::new(4, 1);
        stage.up(0);
        offer(&mut stage, &["img"]);
        let first = stage.header(0, Kind::Hello, 0).epoch;
        // The answer to the first HELLO is of a session that is not meant any more.
        stage.welcome(0);
        assert!(!stage.session.is_registered());
        let second = stage.sent(Kind::Hello).pop().unwrap();
        assert_eq!(services(&second), ["img"]);
        assert_ne!(second.header.epoch, first);
    }

    #[test]
    fn with_nothing_to_offer_it_keeps_its_session_and_begins_none() {
        let mut stage = Stage::welcomed(4, 1);
        offer(&mut stage, &[]);
        assert_eq!(announced(&mut stage).len(), 1);
        assert!(stage.session.is_registered());
        stage.step(Event::Down(BrokerId(0)));
        stage.quiet();
        stage.step(Event::Up(BrokerId(0)));
        stage.pass(SECOND * 5);
        assert!(stage.actions.is_empty(), "{:?}", stage.actions);
        offer(&mut stage, &["img"]);
        assert_eq!(services(&stage.sent(Kind::Hello)[0]), ["img"]);
        stage.step(Event::Drain);
        stage.tick();
        assert!(stage.session.is_gone());
    }

    #[test]
    fn an_older_broker_gives_no_new_work_and_is_greeted_anew_when_the_last_is_done() {
        let mut stage = older();
        let stream = stage.request(0, 1).unwrap();
        stage.quiet();
        offer(&mut stage, &["shop", "img"]);
        offer(&mut stage, &["shop", "img", "api"]);
        assert_eq!(stage.sent(Kind::Drain).len(), 1);
        assert!(announced(&mut stage).is_empty());
        stage.pass(SECOND * 2);
        assert!(stage.sent(Kind::Hello).is_empty());
        stage.respond(stream, b"done");
        stage.tick();
        assert_eq!(stage.sent(Kind::Response).len(), 1);
        let bye = stage.sent(Kind::Bye).pop().unwrap();
        assert_eq!(Bye::decode(&bye.metadata).unwrap(), Bye::Leaving);
        let hello = stage.sent(Kind::Hello).pop().unwrap();
        assert_eq!(services(&hello), ["shop", "img", "api"]);
    }

    #[test]
    fn an_older_broker_is_greeted_anew_within_five_seconds_whatever_is_under_way() {
        let mut stage = older();
        let stream = stage.request(0, 1).unwrap();
        stage.head(stream, b"", Shape::Plain, false);
        offer(&mut stage, &["img"]);
        stage.quiet();
        for _ in 0..4 {
            stage.pass(SECOND * 9 / 10);
            stage.heartbeat(0);
        }
        assert!(!stage.cancelled(stream));
        stage.pass(SECOND * 2);
        assert!(stage.cancelled(stream));
        assert_eq!(services(&stage.sent(Kind::Hello)[0]), ["img"]);
    }

    #[test]
    fn after_a_drain_nothing_is_offered_anew() {
        let mut stage = Stage::welcomed(4, 1);
        stage.request(0, 1).unwrap();
        stage.step(Event::Drain);
        stage.quiet();
        offer(&mut stage, &["img"]);
        assert!(announced(&mut stage).is_empty());
        assert_eq!(stage.version, VERSION);
    }
}
