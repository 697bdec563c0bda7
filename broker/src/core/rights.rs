//! What each key may do.

use std::collections::{BTreeSet, HashMap};

use scale0_transport::{Gate, Port, PublicKey};
use scale0_wire::Role;

/// Who may come, and as what. A plain value, which [`Event::Rights`](crate::Event::Rights) replaces whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    keys: HashMap<PublicKey, Right>,
}

/// What the owner of one key may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Right {
    /// What it is called, in status and logs.
    pub name: String,
    /// Whether it may ask, as a frontend does.
    pub asks: bool,
    /// The services that it may offer, in lower case; none: it is no backend. `*` is a service like any other: that of who answers
    /// for what nobody else offers.
    pub offers: BTreeSet<String>,
}

impl Rights {
    /// Nobody may come.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives this key's owner this right, in place of what it had.
    pub fn allow(&mut self, key: PublicKey, right: Right) {
        self.keys.insert(key, right);
    }

    /// The same as far as a handshake can tell: who may come in at which port.
    #[must_use]
    pub fn gate(&self) -> Gate {
        let mut gate = Gate::new();
        for (key, right) in &self.keys {
            if right.asks {
                gate.allow(*key, Port::Frontends);
            }
            if !right.offers.is_empty() {
                gate.allow(*key, Port::Backends);
            }
        }
        gate
    }

    pub(crate) fn of(&self, key: &PublicKey) -> Option<&Right> {
        self.keys.get(key)
    }
}

impl Right {
    pub(crate) fn may_be(&self, role: Role) -> bool {
        match role {
            Role::Frontend => self.asks,
            Role::Backend => !self.offers.is_empty(),
            Role::Broker | Role::Peer => false,
        }
    }

    /// Whether it may offer this service, whatever the case of its name.
    pub(crate) fn may_offer(&self, service: &str) -> bool {
        let is_lower = !service.bytes().any(|byte| byte.is_ascii_uppercase());
        if is_lower {
            self.offers.contains(service)
        } else {
            self.offers.contains(&service.to_ascii_lowercase())
        }
    }
}
