//! What peers may cost before they have a session: answers, and sessions that they open.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use scale0_transport::PeerId;

use super::hash::Secret;

/// Answers to peers without a session: at most so many a second, …
const ANSWERS: u32 = 100;

/// … and to one of them so many. One is enough to make an honest peer say HELLO, and whoever asks for more leaves the rest to others.
const ANSWERS_EACH: u8 = 5;

/// Sessions that one connection opens in a second. An honest one opens one, and another when it is told that the former is not known.
const SESSIONS_EACH: u8 = 5;

/// Peers that are told apart within a second; more of them than this have one allowance together. Beyond what a site's own come to when
/// all dial a broker at once.
const PEERS: usize = 4096;

/// What the strangers of this second have cost so far.
#[derive(Debug)]
pub(crate) struct Strangers {
    since: Instant,
    answers: u32,
    each: HashMap<PeerId, Cost, Secret>,
    others: Cost,
    secret: Secret,
}

#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    answers: u8,
    sessions: u8,
}

impl Strangers {
    pub(crate) fn new(secret: Secret, now: Instant) -> Self {
        Self {
            since: now,
            answers: 0,
            each: HashMap::with_hasher(secret),
            others: Cost::default(),
            secret,
        }
    }

    /// Whether this peer may be answered; it is counted.
    #[must_use]
    pub(crate) fn may_be_answered(&mut self, peer: PeerId, now: Instant) -> bool {
        self.pass(now);
        if ANSWERS <= self.answers {
            return false;
        }
        let cost = self.cost(peer);
        let may = cost.answers < ANSWERS_EACH;
        cost.answers += u8::from(may);
        self.answers += u32::from(may);
        may
    }

    /// Whether this peer may open a session; it is counted.
    #[must_use]
    pub(crate) fn may_open(&mut self, peer: PeerId, now: Instant) -> bool {
        self.pass(now);
        let is_known = self.each.contains_key(&peer);
        if !is_known && PEERS <= self.each.len() {
            // So many connections are no single one's flood.
            return true;
        }
        let cost = self.cost(peer);
        let may = cost.sessions < SESSIONS_EACH;
        cost.sessions += u8::from(may);
        may
    }

    fn cost(&mut self, peer: PeerId) -> &mut Cost {
        if PEERS <= self.each.len() && !self.each.contains_key(&peer) {
            return &mut self.others;
        }
        self.each.entry(peer).or_default()
    }

    /// Begins a new second if the former one is over.
    fn pass(&mut self, now: Instant) {
        if Duration::from_secs(1) <= now.saturating_duration_since(self.since) {
            // A storm's memory is not kept for the next one.
            *self = Self::new(self.secret, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::epoch;

    fn strangers() -> (Strangers, Instant) {
        let now = epoch();
        (Strangers::new(Secret::new(1), now), now)
    }

    #[test]
    fn who_asks_without_end_leaves_answers_to_others_and_all_together_have_a_hundred() {
        let (mut strangers, now) = strangers();
        let mut answers = |peer, now| {
            let peer = PeerId::in_process(peer);
            let answers = (0..1000).filter(|_| strangers.may_be_answered(peer, now));
            answers.count()
        };
        assert_eq!(answers(1, now), 5);
        assert_eq!((2..=100).map(|peer| answers(peer, now)).sum::<usize>(), 95);
        let later = now + Duration::from_secs(1);
        assert_eq!(answers(100, later), 5);
    }

    #[test]
    fn a_connection_opens_five_sessions_in_a_second_however_many_others_do() {
        let (mut strangers, now) = strangers();
        let mut opened = |peer: u32, now| {
            let peer = PeerId::in_process(peer);
            let opened = (0..10).filter(|_| strangers.may_open(peer, now));
            opened.count()
        };
        assert!((1..=4096).all(|peer| opened(peer, now) == 5));
        assert_eq!(opened(1, now + Duration::from_secs(1)), 5);
    }
}
