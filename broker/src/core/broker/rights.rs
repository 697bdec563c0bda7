//! Who may do what: judged at each HELLO, and for all who are here when the rights change.

use std::sync::Arc;

use scale0_transport::{PeerId, PublicKey};
use scale0_wire::{Bye, Hello, Role, limits};

use super::{Broker, Session};
use crate::core::backend::BackendKey;
use crate::core::link::Link;
use crate::core::rights::{Right, Rights};
use crate::core::service::ServiceKey;

impl Broker {
    /// A peer has proved whose it is.
    pub(super) fn note_key(&mut self, peer: PeerId, key: PublicKey) {
        self.keys.insert(peer, key);
    }

    /// The key of a peer behind a socket, if there are keys in use.
    pub(super) fn key_of(&self, peer: PeerId) -> Option<PublicKey> {
        self.keys.get(&peer).copied()
    }

    /// Whether this session may be opened at all. Of a backend's services at least one must be its to offer.
    pub(super) fn may_come(&self, from: PeerId, role: Role, is_local: bool, hello: &Hello) -> bool {
        let Some(rights) = self.config.rights.as_deref().filter(|_| !is_local) else {
            return true;
        };
        let key = self.key_of(from);
        let right = key.and_then(|key| rights.of(&key));
        right.is_some_and(|right| {
            let mut services = hello.services.iter();
            right.may_be(role)
                && (role != Role::Backend || services.any(|name| right.may_offer(name)))
        })
    }

    /// Whether this backend may offer this service. What it may not is kept in mind: the rights may change.
    pub(super) fn may_offer(&mut self, backend: BackendKey, name: &str) -> bool {
        let link = &self.backends[backend.0].link;
        if may_offer(self.config.rights.as_deref(), link, name) {
            return true;
        }
        self.counters.services_not_allowed += 1;
        let barred = &mut self.backends[backend.0].barred;
        if barred.len() < limits::SERVICES {
            barred.insert(name.into());
        }
        false
    }

    /// From now on these rights hold. Whoever is here without one leaves, and each backend offers what it may.
    pub(super) fn change_rights(&mut self, rights: Arc<Rights>) {
        self.config.rights = Some(rights);
        for session in self.sessions() {
            let role = match session {
                Session::Frontend(_) => Role::Frontend,
                Session::Backend(_) => Role::Backend,
            };
            let rights = self.config.rights.clone();
            let link = self.link(session);
            let right = right_of(rights.as_deref(), link);
            if link.locality.is_none() && !right.is_some_and(|right| right.may_be(role)) {
                self.counters.sessions_not_allowed += 1;
                self.end_with(session, Bye::NotAllowed);
            } else if let Session::Backend(key) = session {
                self.judge_services(key, rights.as_deref());
            }
        }
    }

    /// Takes from a backend the services that it may not offer any more, and lets it offer those that it may from now on. Of the others
    /// nothing changes.
    fn judge_services(&mut self, key: BackendKey, rights: Option<&Rights>) {
        let backend = &self.backends[key.0];
        if backend.link.is_draining {
            return;
        }
        let may = |name: &str| may_offer(rights, &backend.link, name);
        let offered = backend.offers.iter().map(|offer| offer.service);
        let lost: Vec<ServiceKey> = offered
            .filter(|service| !may(&self.services[service.0].name))
            .collect();
        let gained: Vec<Arc<str>> = (backend.barred.iter())
            .filter(|name| may(name))
            .map(Arc::clone)
            .collect();
        for service in &lost {
            let name = Arc::clone(&self.services[service.0].name);
            // It is noted there that it may not.
            self.may_offer(key, &name);
            self.unregister(key, *service);
        }
        for name in &gained {
            self.backends[key.0].barred.remove(name);
            self.register(key, name);
        }
        if !lost.is_empty() {
            self.notice_fewer_services(key);
        }
        if !gained.is_empty() {
            self.use_credit(key);
        }
    }
}

/// What the other side of a link may do, where there are rights at all.
pub(super) fn right_of<'a>(rights: Option<&'a Rights>, link: &Link) -> Option<&'a Right> {
    link.key.and_then(|key| rights?.of(&key))
}

fn may_offer(rights: Option<&Rights>, link: &Link, name: &str) -> bool {
    rights.is_none()
        || link.locality.is_some()
        || right_of(rights, link).is_some_and(|right| right.may_offer(name))
}
