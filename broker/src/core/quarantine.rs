//! Who breaks the protocol again and again is not heard for a while, and each time for longer.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use scale0_transport::{PeerId, PublicKey};

use super::hash::Secret;

/// So many breaches within [`WINDOW`] are no accident: an honest peer makes none, and one that is of another version a few at its start.
const STRIKES: u32 = 8;
const WINDOW: Duration = Duration::from_secs(10);

/// The first quarantine. Each further one is twice as long as the one before.
const FIRST: Duration = Duration::from_secs(1);
/// So long that what an offender can cost between two of them is nothing, and short enough for one that has been mended.
const LONGEST: Duration = Duration::from_secs(600);

/// Who has been out of quarantine for so long without another begins at the first again.
const FORGIVEN: Duration = Duration::from_secs(600);

/// Offenders that are kept in mind: each costs some 100 bytes.
const OFFENDERS: usize = 1024;

/// Whom breaches are laid to: the owner of a key, whatever connection they came over, and without keys the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Offender {
    Key(PublicKey),
    Peer(PeerId),
}

/// The breaches of each offender, and what came of them.
#[derive(Debug)]
pub(crate) struct Quarantine {
    records: HashMap<Offender, Record, Secret>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    strikes: u32,
    /// When the first of these strikes was.
    since: Instant,
    /// Quarantines so far.
    pub(crate) terms: u32,
    /// When the latest of them is over.
    pub(crate) until: Option<Instant>,
}

impl Record {
    const fn new(now: Instant) -> Self {
        Self {
            strikes: 0,
            since: now,
            terms: 0,
            until: None,
        }
    }

    /// Whether it says nothing any more.
    fn is_stale(&self, now: Instant) -> bool {
        match self.until {
            Some(until) => until + FORGIVEN <= now,
            None => WINDOW <= now.saturating_duration_since(self.since),
        }
    }
}

impl Quarantine {
    pub(crate) fn new(secret: Secret) -> Self {
        Self {
            records: HashMap::with_hasher(secret),
        }
    }

    /// A breach. Returns until when its author is in quarantine, if it is.
    pub(crate) fn strike(&mut self, now: Instant, offender: Offender) -> Option<Instant> {
        if OFFENDERS <= self.records.len() && !self.records.contains_key(&offender) {
            self.make_room(now);
        }
        let record = self
            .records
            .entry(offender)
            .or_insert_with(|| Record::new(now));
        if record.until.is_some_and(|until| now < until) {
            return record.until;
        }
        if record.is_stale(now) {
            *record = Record::new(now);
        }
        if WINDOW <= now.saturating_duration_since(record.since) {
            (record.strikes, record.since) = (0, now);
        }
        record.strikes += 1;
        if record.strikes < STRIKES {
            return None;
        }
        // Twice as long each time, in few enough steps that the number cannot overflow.
        let term = FIRST * 2_u32.saturating_pow(record.terms.min(16));
        record.strikes = 0;
        record.terms = record.terms.saturating_add(1);
        record.until = Some(now + term.min(LONGEST));
        record.until
    }

    /// A connection is gone. What its key has done stays.
    pub(crate) fn forget(&mut self, peer: PeerId) {
        self.records.remove(&Offender::Peer(peer));
    }

    /// Those who are in quarantine now.
    pub(crate) fn iter(&self, now: Instant) -> impl Iterator<Item = (Offender, Record)> {
        let records = self
            .records
            .iter()
            .map(|(&offender, &record)| (offender, record));
        records.filter(move |(_, record)| record.until.is_some_and(|until| now < until))
    }

    /// Whoever has done least, longest ago, is forgotten.
    fn make_room(&mut self, now: Instant) {
        self.records.retain(|_, record| !record.is_stale(now));
        let least = |record: &Record| (record.until.is_some(), record.terms, record.since);
        if OFFENDERS <= self.records.len()
            && let Some((&offender, _)) = self.records.iter().min_by_key(|(_, it)| least(it))
        {
            self.records.remove(&offender);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::epoch;

    const PEER: Offender = Offender::Peer(PeerId::in_process(0));
    const SECOND: Duration = Duration::from_secs(1);

    fn quarantine() -> Quarantine {
        Quarantine::new(Secret::new(7))
    }

    /// Breaches until one ends in quarantine; for how long.
    fn offend(quarantine: &mut Quarantine, now: Instant, offender: Offender) -> Duration {
        for _ in 1..STRIKES {
            assert_eq!(quarantine.strike(now, offender), None);
        }
        quarantine.strike(now, offender).unwrap() - now
    }

    #[test]
    fn each_quarantine_is_twice_as_long_up_to_ten_minutes() {
        let (mut quarantine, mut now) = (quarantine(), epoch());
        let mut terms = Vec::new();
        for _ in 0..12 {
            let term = offend(&mut quarantine, now, PEER);
            terms.push(term.as_secs());
            now += term;
        }
        assert_eq!(terms, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]);
    }

    #[test]
    fn a_few_breaches_now_and_then_are_no_reason() {
        let (mut quarantine, mut now) = (quarantine(), epoch());
        for _ in 0..100 {
            assert_eq!(quarantine.strike(now, PEER), None);
            now += WINDOW / (STRIKES - 1) + SECOND / 1000;
        }
        assert_eq!(quarantine.iter(now).count(), 0);
    }

    #[test]
    fn what_comes_in_quarantine_does_not_make_it_longer() {
        let (mut quarantine, now) = (quarantine(), epoch());
        offend(&mut quarantine, now, PEER);
        for _ in 0..100 {
            assert_eq!(quarantine.strike(now, PEER), Some(now + FIRST));
        }
        assert_eq!(quarantine.iter(now).count(), 1);
        assert_eq!(quarantine.iter(now + FIRST).count(), 0);
    }

    #[test]
    fn who_behaves_for_long_begins_anew() {
        let (mut quarantine, now) = (quarantine(), epoch());
        offend(&mut quarantine, now, PEER);
        let later = now + FIRST + FORGIVEN - SECOND;
        assert_eq!(offend(&mut quarantine, later, PEER), 2 * FIRST);
        let later = later + 2 * FIRST + FORGIVEN;
        assert_eq!(offend(&mut quarantine, later, PEER), FIRST);
    }

    #[test]
    fn many_offenders_are_bounded_and_the_worst_are_kept_in_mind() {
        let (mut quarantine, now) = (quarantine(), epoch());
        let key = Offender::Key(PublicKey::from_bytes([1; 32]));
        offend(&mut quarantine, now, key);
        for number in 1..5000 {
            quarantine.strike(now, Offender::Peer(PeerId::in_process(number)));
        }
        assert_eq!(quarantine.records.len(), OFFENDERS);
        assert_eq!(quarantine.iter(now).count(), 1);
        quarantine.strike(now + WINDOW, PEER);
        assert_eq!(quarantine.records.len(), 2, "the others are forgotten");
    }
}
