//! Which brokers may be dialled because another one names them.

use crate::curve::PublicKey;
use crate::endpoint::Endpoint;

/// How many may be added to those that were configured: the sockets of a process have a bound.
const ADDED: usize = 16;

/// The brokers that one task or thread dials: those it was told of at its start, and what they have named since. Forgotten with it.
#[derive(Debug, Default)]
pub struct Neighbours {
    known: Vec<Endpoint>,
    added: usize,
}

impl Neighbours {
    /// These are dialled.
    #[must_use]
    pub fn new(known: Vec<Endpoint>) -> Self {
        Self { known, added: 0 }
    }

    /// Takes in that the broker at `teller`, or of this very process (`None`), names another, with its public key if that has one.
    /// Returns it if it is to be dialled: it is new, there is room for it, and it can be believed.
    ///
    /// Believed is who has proved to be the broker that was meant, by its key, or sits on this machine; and who sits elsewhere only
    /// where it names a key, since an address alone may be anybody's, and one of this machine is not its business.
    pub fn learn(
        &mut self,
        teller: Option<&Endpoint>,
        address: &str,
        key: Option<[u8; 32]>,
    ) -> Option<Endpoint> {
        let is_near = teller.is_none_or(Endpoint::is_loopback);
        let is_proved = teller.is_some_and(|teller| teller.server_key().is_some());
        let mut endpoint: Endpoint = address.parse().ok()?;
        let can_be_believed = match key {
            Some(_) => is_near || is_proved,
            None => is_near && endpoint.is_loopback(),
        };
        let is_known = self.known.iter().any(|known| known.address() == address);
        if !can_be_believed || is_known || !endpoint.is_a_place() || ADDED <= self.added {
            return None;
        }
        if let Some(key) = key {
            endpoint = endpoint.with_server_key(PublicKey::from(key));
        }
        self.added += 1;
        self.known.push(endpoint.clone());
        Some(endpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Option<[u8; 32]> = Some([7; 32]);

    fn endpoint(address: &str) -> Endpoint {
        address.parse().unwrap()
    }

    #[test]
    fn only_who_has_proved_itself_or_is_near_is_believed_and_only_the_near_without_a_key() {
        let open = endpoint("tcp://192.0.2.1:5701");
        let proved = open.clone().with_server_key(PublicKey::from([1; 32]));
        let near = endpoint("tcp://127.0.0.1:5701");
        for (teller, address, key, is_believed) in [
            (Some(&open), "tcp://192.0.2.2:5701", KEY, false),
            (Some(&open), "tcp://192.0.2.2:5701", None, false),
            (Some(&proved), "tcp://192.0.2.2:5701", KEY, true),
            (Some(&proved), "tcp://192.0.2.2:5701", None, false),
            (Some(&proved), "ipc:///run/scale0", None, false),
            (Some(&near), "tcp://192.0.2.2:5701", KEY, true),
            (Some(&near), "tcp://192.0.2.2:5701", None, false),
            (Some(&near), "tcp://127.0.0.1:5801", None, true),
            (None, "ipc:///run/scale0", None, true),
            (None, "tcp://192.0.2.2:5701", KEY, true),
            (None, "tcp://*:5701", KEY, false),
            (None, "tcp://127.0.0.1:*", None, false),
            (None, "tcp://127.0.0.1:0", None, false),
            (None, "nonsense", KEY, false),
        ] {
            let learnt = Neighbours::default().learn(teller, address, key);
            assert_eq!(learnt.is_some(), is_believed, "{teller:?} {address}");
            let found = learnt.and_then(|it| it.server_key().copied());
            assert_eq!(found, key.filter(|_| is_believed).map(PublicKey::from));
        }
    }

    #[test]
    fn who_is_known_is_not_dialled_again_and_no_more_are_added_than_a_process_has_room_for() {
        let mut neighbours = Neighbours::new(vec![endpoint("tcp://127.0.0.1:1")]);
        let learnt = (1..100_u16).filter(|port| {
            let address = format!("tcp://127.0.0.1:{port}");
            let learnt = neighbours.learn(None, &address, None).is_some();
            assert!(neighbours.learn(None, &address, None).is_none());
            learnt
        });
        assert_eq!(learnt.collect::<Vec<_>>(), (2..18).collect::<Vec<_>>());
    }
}
