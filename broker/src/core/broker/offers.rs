//! Which backends offer which services, both ways, and which of them may have credit.
//!
//! A large site has 1,000 backends with 200 services each, so nothing here walks more than what changes: an offer knows its place
//! among its service's members, and a member its place among its backend's offers.

use std::collections::HashMap;

use super::Broker;
use crate::core::backend::{BackendKey, Offer};
use crate::core::choice::Mean;
use crate::core::hash::Secret;
use crate::core::outlier::Health;
use crate::core::service::{Member, ServiceKey};

impl Broker {
    /// Puts a backend among a service's members. Returns false if it is there already.
    pub(super) fn add_offer(&mut self, key: BackendKey, service: ServiceKey) -> bool {
        let backend = &mut self.backends[key.0];
        if backend.offered.contains(service) {
            return false;
        }
        let takes_work = backend.takes_work();
        let of = &mut self.services[service.0];
        let place = of.members.len();
        of.members.push(Member {
            backend: key,
            offer: backend.offers.len(),
            seed: backend.seed,
        });
        of.working += usize::from(takes_work);
        backend.offered.insert(service);
        backend.places.insert(service, backend.offers.len());
        backend.offers.push(Offer {
            service,
            place,
            time: Mean::of_backend(),
            timed: None,
            health: Health::default(),
        });
        self.swap_members(service, place, self.services[service.0].awake);
        self.services[service.0].awake += 1;
        true
    }

    /// Takes a backend out of all its services. Returns which they were.
    pub(super) fn remove_offers(&mut self, key: BackendKey) -> Vec<ServiceKey> {
        let backend = &mut self.backends[key.0];
        backend.parked.clear();
        backend.offered = Default::default();
        backend.places = HashMap::with_hasher(Secret::new(self.config.hash_secret));
        backend.resting = 0;
        let takes_work = backend.takes_work();
        let count = backend.offers.len();
        for index in 0..count {
            let offer = self.backends[key.0].offers[index];
            self.leave_members(offer);
            self.services[offer.service.0].working -= usize::from(takes_work);
        }
        let offers = std::mem::take(&mut self.backends[key.0].offers);
        for offer in &offers {
            self.end_rests(offer.service);
        }
        offers.into_iter().map(|offer| offer.service).collect()
    }

    /// Takes a backend out of one service. Returns false if it is not among its members.
    pub(super) fn remove_offer(&mut self, key: BackendKey, service: ServiceKey) -> bool {
        let Some(index) = self.backends[key.0].places.remove(&service) else {
            return false;
        };
        // Its parked offers are known by their places, which change: they are looked at once more.
        self.wake(key);
        self.leave_members(self.backends[key.0].offers[index]);
        let backend = &mut self.backends[key.0];
        let takes_work = backend.takes_work();
        backend.offered.remove(service);
        let offer = backend.offers.swap_remove(index);
        backend.resting -= usize::from(offer.health.is_out());
        if let Some(moved) = backend.offers.get(index) {
            backend.places.insert(moved.service, index);
            self.services[moved.service.0].members[moved.place].offer = index;
        }
        self.services[service.0].working -= usize::from(takes_work);
        self.end_rests(service);
        true
    }

    /// Takes the member that this offer is out of its service.
    fn leave_members(&mut self, offer: Offer) {
        let Offer {
            service,
            mut place,
            health,
            ..
        } = offer;
        let awake = self.services[service.0].awake;
        if place < awake {
            self.swap_members(service, place, awake - 1);
            self.services[service.0].awake -= 1;
            place = awake - 1;
        }
        let last = self.services[service.0].members.len() - 1;
        self.swap_members(service, place, last);
        let of = &mut self.services[service.0];
        of.members.truncate(last);
        of.resting -= usize::from(health.is_out());
    }

    /// The member of a service at this place has no credit: it is not looked at again before it has. What that saves pays for
    /// its return, so that neither is ever more than a look at it would have been.
    pub(super) fn park(&mut self, service: ServiceKey, place: usize) {
        let of = &mut self.services[service.0];
        debug_assert!(place < of.awake, "parked twice");
        of.awake -= 1;
        let behind = of.awake;
        self.swap_members(service, place, behind);
        let Member { backend, offer, .. } = self.services[service.0].members[behind];
        self.backends[backend.0].parked.push(offer);
    }

    /// A backend has credit to spare: its services look at it again.
    pub(super) fn wake(&mut self, key: BackendKey) {
        while let Some(offer) = self.backends[key.0].parked.pop() {
            let Offer { service, place, .. } = self.backends[key.0].offers[offer];
            let awake = self.services[service.0].awake;
            self.swap_members(service, place, awake);
            self.services[service.0].awake += 1;
        }
    }

    /// A backend takes work from now on, or does not any more.
    pub(super) fn turn_work(&mut self, key: BackendKey) {
        let takes_work = self.backends[key.0].takes_work();
        for index in 0..self.backends[key.0].offers.len() {
            let service = self.backends[key.0].offers[index].service;
            let working = &mut self.services[service.0].working;
            if takes_work {
                *working += 1;
            } else {
                *working -= 1;
                self.end_rests(service);
            }
            self.notice_desertion(service);
        }
    }

    fn swap_members(&mut self, service: ServiceKey, a: usize, b: usize) {
        if a == b {
            return;
        }
        let members = &mut self.services[service.0].members;
        members.swap(a, b);
        for place in [a, b] {
            let Member { backend, offer, .. } = members[place];
            self.backends[backend.0].offers[offer].place = place;
        }
    }
}
