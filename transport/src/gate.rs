//! Who is let in: which public key may come in at which port, judged at each handshake.

use std::collections::HashMap;
use std::time::Instant;

use crate::curve::PublicKey;
use crate::in_process::Port;

/// Keys refused for a time, at most: each costs some 50 bytes. Of more, those that are refused for the shortest time are forgotten, for
/// which only the connection itself is slower.
const REFUSED: usize = 1024;

/// The keys that are let in, and where. A plain value: a [`crate::Gatekeeper`] swaps it whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gate {
    keys: HashMap<PublicKey, Vec<Port>>,
}

impl Gate {
    /// Nobody is let in.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets this key's owner in at this port too.
    pub fn allow(&mut self, key: PublicKey, port: Port) {
        self.keys.entry(key).or_default().push(port);
    }

    /// What is said to this key's owner at this port.
    fn judge(&self, key: &PublicKey, port: Port) -> Verdict {
        match self.keys.get(key) {
            Some(ports) if ports.contains(&port) => Verdict::Admitted,
            Some(_) => Verdict::WrongPort,
            None => Verdict::UnknownKey,
        }
    }
}

/// What is said to a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Come in.
    Admitted,
    /// Nobody knows this key.
    UnknownKey,
    /// This key's owner has nothing to do at this port.
    WrongPort,
    /// This key's owner has misbehaved, and its time is not over.
    Quarantined,
}

impl Verdict {
    /// In a line of a log.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::UnknownKey => "its key is not in the allow list",
            Self::WrongPort => "its key is allowed elsewhere, not at this port",
            Self::Quarantined => "its key is in quarantine",
        }
    }
}

/// The gate with those who are refused for a time. It decides; a [`crate::Gatekeeper`] carries out.
#[derive(Debug)]
pub(crate) struct Doors {
    gate: Gate,
    refused: HashMap<PublicKey, Instant>,
}

impl Doors {
    pub(crate) fn new(gate: Gate) -> Self {
        Self {
            gate,
            refused: HashMap::new(),
        }
    }

    /// From now on this gate counts. Those who are in quarantine stay there.
    pub(crate) fn swap(&mut self, gate: Gate) {
        self.gate = gate;
    }

    /// Refuses this key until then, whatever the gate says.
    pub(crate) fn refuse(&mut self, now: Instant, key: PublicKey, until: Instant) {
        self.refused.retain(|_, until| now < *until);
        self.refused.insert(key, until);
        if REFUSED < self.refused.len()
            && let Some(first) = self.refused.iter().min_by_key(|(_, until)| **until)
        {
            let first = *first.0;
            self.refused.remove(&first);
        }
    }

    /// What is said to a handshake with this key at this port.
    pub(crate) fn judge(&self, now: Instant, key: &PublicKey, port: Port) -> Verdict {
        match self.gate.judge(key, port) {
            Verdict::Admitted if self.refused.get(key).is_some_and(|until| now < *until) => {
                Verdict::Quarantined
            }
            verdict => verdict,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;
    use crate::curve::KeyPair;

    const SECOND: Duration = Duration::from_secs(1);

    fn key() -> PublicKey {
        KeyPair::generate().unwrap().public
    }

    #[test]
    fn a_key_is_let_in_where_it_is_allowed_and_nowhere_else() {
        let (now, shop) = (clock::now(), key());
        let mut gate = Gate::new();
        gate.allow(shop, Port::Backends);
        let doors = Doors::new(gate);
        assert_eq!(doors.judge(now, &shop, Port::Backends), Verdict::Admitted);
        assert_eq!(doors.judge(now, &shop, Port::Frontends), Verdict::WrongPort);
        assert_eq!(
            doors.judge(now, &key(), Port::Backends),
            Verdict::UnknownKey
        );
    }

    #[test]
    fn a_quarantine_outlives_a_new_gate_and_ends_at_its_time() {
        let (now, shop) = (clock::now(), key());
        let mut gate = Gate::new();
        gate.allow(shop, Port::Backends);
        let mut doors = Doors::new(gate.clone());
        doors.refuse(now, shop, now + SECOND);
        doors.swap(gate);
        let judge = |at| doors.judge(at, &shop, Port::Backends);
        assert_eq!(judge(now), Verdict::Quarantined);
        assert_eq!(judge(now + SECOND), Verdict::Admitted);
    }

    #[test]
    fn a_flood_of_quarantines_is_bounded_and_keeps_the_longest() {
        let (now, worst) = (clock::now(), key());
        let mut doors = Doors::new(Gate::new());
        doors.refuse(now, worst, now + 100 * SECOND);
        for number in 0..2 * REFUSED {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_le_bytes());
            let until = now + SECOND + Duration::from_nanos(number as u64);
            doors.refuse(now, PublicKey::from_bytes(key), until);
        }
        assert_eq!(doors.refused.len(), REFUSED);
        assert!(doors.refused.contains_key(&worst));
        doors.refuse(now + 2 * SECOND, key(), now + 3 * SECOND);
        assert_eq!(doors.refused.len(), 2, "what is over is forgotten");
    }
}
