//! Who is here: HELLO, heartbeats, BYE.

use std::collections::{BTreeSet, HashMap, HashSet};

use scale0_transport::{PeerId, PublicKey};
use scale0_wire::{
    Announce, Bye, DecodeError, Flags, Heartbeat, Hello, Kind, Message, Role, RoutingHeader,
    ServiceId, Welcome, Window, limits,
};

use super::{Broker, Due, Session, unsupported};
use crate::core::affinity;
use crate::core::at_work::AtWork;
use crate::core::backend::{Backend, BackendKey};
use crate::core::credit::Ledger;
use crate::core::event::Action;
use crate::core::frontend::{Frontend, FrontendKey};
use crate::core::hash::Secret;
use crate::core::link::Link;
use crate::core::service::{REMEMBERED, Service, ServiceKey, Standing};
use crate::core::service_set::ServiceSet;
use crate::core::stream::{List, Phase};

/// One connection of one process: what a newer session of it replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    is_backend: bool,
    /// With keys in use, nobody takes the place of another's session.
    key: Option<PublicKey>,
    instance: u64,
    lane: u16,
}

impl Broker {
    /// Opens a session, or answers again if it is open already.
    pub(super) fn hello(
        &mut self,
        from: PeerId,
        role: Role,
        locality: Option<u32>,
        message: &Message,
    ) {
        let epoch = message.header.epoch;
        let session = self.peers.get(&from).copied();
        let is_repeated = session.is_some_and(|session| self.link(session).epoch == epoch);
        if locality.is_none() && !is_repeated && !self.strangers.may_open(from, self.now) {
            self.counters.hellos_ignored += 1;
            return;
        }
        let Ok(hello) = Hello::decode(&message.metadata) else {
            self.counters.dropped_metadata += 1;
            return;
        };
        let Some(version) = hello.common_version() else {
            return self.answer(from, bye(epoch, Bye::Version));
        };
        let offers_something = !hello.services.is_empty();
        if offers_something != (role == Role::Backend) {
            // A backend that dials the frontends' port, or the other way round: it would be registered, and never be of use.
            self.counters.dropped_out_of_place += 1;
            return self.answer(from, bye(epoch, Bye::ProtocolError));
        }
        if !self.may_come(from, role, locality.is_some(), &hello) {
            self.counters.sessions_not_allowed += 1;
            return self.answer(from, bye(epoch, Bye::NotAllowed.for_version(version)));
        }
        if let Some(session) = session {
            if is_repeated {
                self.link(session).heard = self.now;
                self.welcome(session);
                if let Session::Backend(key) = session {
                    self.hear_of(key);
                    self.use_credit(key);
                }
                return;
            }
            // It dialled anew and libzmq kept its routing id: what belonged to the former session is lost.
            self.counters.sessions_replaced += 1;
            self.end(session);
        }
        let identity = Identity {
            is_backend: role == Role::Backend,
            key: self.key_of(from),
            instance: hello.instance,
            lane: hello.lane,
        };
        if let Some(&former) = self.identities.get(&identity) {
            self.counters.sessions_replaced += 1;
            self.end_with(former, Bye::Replaced);
        }
        let is_full = match role {
            Role::Backend => self.config.limits.sessions <= self.backends.len(),
            Role::Frontend | Role::Broker | Role::Peer => {
                self.config.limits.sessions <= self.frontends.len()
            }
        };
        if is_full {
            // It says HELLO again, and there may be room then.
            self.counters.sessions_refused += 1;
            return;
        }
        let heartbeat = hello
            .heartbeat
            .max(self.config.heartbeat)
            .min(limits::HEARTBEAT_MAX);
        let mut link = Link::new(from, epoch, version, locality, &hello, heartbeat, self.now);
        link.key = identity.key;
        let is_draining = message.header.flags.contains(Flags::DRAINING);
        let session = if role == Role::Backend {
            Session::Backend(self.add_backend(link, &hello))
        } else {
            Session::Frontend(FrontendKey(self.frontends.insert(Frontend {
                link,
                streams: HashMap::with_hasher(Secret::new(self.config.hash_secret)),
            })))
        };
        self.counters.sessions_opened += 1;
        self.peers.insert(from, session);
        self.identities.insert(identity, session);
        let timer = self.timers.start(self.now + heartbeat, Due::Pulse(session));
        let link = self.link(session);
        link.timer = Some(timer);
        link.is_draining = is_draining;
        self.welcome(session);
        if let Session::Backend(key) = session {
            if !is_draining {
                for name in &hello.services {
                    self.register(key, name);
                }
            }
            self.backends[key.0].ledger.grant(message.header.credit);
            self.use_credit(key);
        }
    }

    fn add_backend(&mut self, link: Link, hello: &Hello) -> BackendKey {
        self.capacity += u64::from(hello.capacity);
        let locality = link.locality;
        let key = BackendKey(self.backends.insert(Backend {
            ledger: Ledger::new(hello.capacity),
            outstanding: 0,
            uploads: 0,
            last_used: 0,
            offers: Vec::new(),
            offered: ServiceSet::default(),
            places: HashMap::with_hasher(Secret::new(self.config.hash_secret)),
            is_suspect: false,
            resting: 0,
            at_work: AtWork::default(),
            barred: BTreeSet::new(),
            parked: Vec::new(),
            turn: ServiceKey(0),
            streams: List::default(),
            demand: 0,
            demand_told: None,
            load: Heartbeat::default(),
            seed: affinity::seed(&link.node, link.lane),
            link,
        }));
        if let Some(locality) = locality {
            self.locals.entry(locality).or_default().push(key);
        }
        key
    }

    fn welcome(&mut self, session: Session) {
        let link = self.link(session);
        let (version, heartbeat, window) = (link.version, link.heartbeat, link.initial_window());
        let welcome = Welcome {
            version,
            node: self.config.node.clone(),
            instance: self.config.instance,
            site: self.config.site.clone(),
            heartbeat,
            window,
        };
        let message = Message::new(RoutingHeader::new(Kind::Welcome));
        self.tell(session, message.with_metadata(welcome.encode()));
        if self.is_draining {
            self.redirect(session);
            self.tell(session, Message::new(RoutingHeader::new(Kind::Drain)));
        }
    }

    /// From here on this backend may be sent requests for this service.
    pub(super) fn register(&mut self, backend: BackendKey, name: &str) {
        let name = name.to_ascii_lowercase();
        if !self.may_offer(backend, &name) {
            return;
        }
        let id = ServiceId::of(name.as_bytes());
        let known = self.service_keys.get(&id);
        let backend_of = &self.backends[backend.0];
        if self.config.limits.services_per_session <= backend_of.offers.len()
            && !known.is_some_and(|&key| backend_of.offered.contains(key))
        {
            self.counters.services_refused += 1;
            return;
        }
        let key = match self.service_keys.get(&id).copied() {
            Some(key) => key,
            None if self.has_room_for_service() => {
                let service = Service::new(id, Standing::Announced, self.config.queue, self.now);
                let key = ServiceKey(self.services.insert(service));
                self.service_keys.insert(id, key);
                key
            }
            None => {
                self.counters.services_refused += 1;
                return;
            }
        };
        if !self.add_offer(backend, key) {
            return;
        }
        let service = &mut self.services[key.0];
        let is_new = service.name.is_empty();
        if is_new {
            service.name = name.into();
        }
        if service.standing == Standing::Awaited {
            service.standing = Standing::Announced;
        }
        let adopts = is_new && &*service.name == ServiceId::ANY_NAME;
        if let Some((timer, since)) = service.memory.take() {
            self.timers.stop(timer);
            self.remembered.remove(&(since, key.0));
        }
        self.remember_losses(backend, key);
        self.notice_desertion(key);
        if adopts {
            self.adopt_awaited(key);
        }
        if self.waiting.contains(key) {
            self.demand(true);
        }
    }

    /// Requests that waited for somebody to offer their service have found who answers for any.
    fn adopt_awaited(&mut self, wildcard: ServiceKey) {
        let awaited: Vec<_> = self
            .services
            .iter()
            .filter(|(_, service)| service.standing == Standing::Awaited)
            .flat_map(|(_, service)| service.queue.iter(&self.streams))
            .collect();
        for key in awaited {
            if let Phase::Queued(lane) = self.streams[key].phase {
                self.leave_queue(key, lane);
                self.change_service(key, wildcard);
                self.place(key);
            }
        }
    }

    /// Nothing new goes to this backend.
    pub(super) fn withdraw(&mut self, backend: BackendKey) {
        for key in self.remove_offers(backend) {
            self.notice_withdrawal(key);
        }
    }

    /// Whoever offers this service, it is one backend less.
    fn notice_withdrawal(&mut self, key: ServiceKey) {
        let service = &self.services[key.0];
        if service.members.is_empty()
            && service.standing == Standing::Announced
            && service.memory.is_none()
        {
            self.remember(key);
        }
        self.notice_desertion(key);
    }

    /// A backend's services change. What it was sent for those that it withdraws goes on; what waits for them has others to wait for.
    fn announce(&mut self, key: BackendKey, message: &Message) -> Result<(), DecodeError> {
        let Announce { added, withdrawn } = Announce::decode(&message.metadata)?;
        let kept: HashSet<&String> = added.iter().collect();
        for name in withdrawn.iter().filter(|name| !kept.contains(name)) {
            let barred = &mut self.backends[key.0].barred;
            barred.remove(name.to_ascii_lowercase().as_str());
            let service = self.service_keys.get(&ServiceId::of(name.as_bytes()));
            if let Some(&service) = service {
                self.unregister(key, service);
            }
        }
        // Who drains takes nothing new, whatever it would take.
        if !self.backends[key.0].link.is_draining {
            for name in &added {
                self.register(key, name);
            }
        }
        if !withdrawn.is_empty() {
            self.notice_fewer_services(key);
        }
        Ok(())
    }

    /// No new requests for this service go to this backend.
    pub(super) fn unregister(&mut self, key: BackendKey, service: ServiceKey) {
        if self.remove_offer(key, service) {
            self.notice_withdrawal(service);
        }
    }

    /// What waits for this backend is something else now.
    pub(super) fn notice_fewer_services(&mut self, key: BackendKey) {
        if 0 < self.backends[key.0].demand {
            self.tell_demand_of(key);
        }
    }

    /// The backends of a service have changed, or whether they take work: with the last that does, those who wait do so for as
    /// long as they hold, from now on.
    pub(super) fn notice_desertion(&mut self, key: ServiceKey) {
        self.open_if_enough(key);
        let service = &self.services[key.0];
        let is_deserted = service.working == 0 || !service.is_open;
        if is_deserted == service.deserted.is_some() {
            return;
        }
        let waiting: Vec<_> = service.queue.iter(&self.streams).collect();
        if is_deserted {
            self.services[key.0].queue.overload.emptied();
        }
        self.services[key.0].deserted = is_deserted.then_some(self.now);
        for stream in waiting {
            self.await_expiry(stream);
        }
    }

    /// A service that waits for some backends begins with the last of them.
    fn open_if_enough(&mut self, key: ServiceKey) {
        let service = &self.services[key.0];
        if service.is_open {
            return;
        }
        let members = service.members.iter();
        let backends = members.map(|member| &self.backends[member.backend.0]);
        let working = backends.filter(|backend| backend.takes_work());
        let instances: HashSet<_> = working.map(|backend| backend.link.instance).collect();
        if service.bounds.min_backends <= instances.len() {
            self.services[key.0].is_open = true;
            self.relieve(key);
        }
    }

    /// Whether one more service can be known. One that nobody offers gives way: whoever comes and goes with many names must not
    /// keep others out for as long as they are remembered.
    fn has_room_for_service(&mut self) -> bool {
        if self.services.len() < self.config.limits.services {
            return true;
        }
        let mut remembered = self.remembered.iter().map(|&(_, key)| ServiceKey(key));
        let idle = remembered.find(|key| self.services[key.0].open == 0);
        idle.map(|key| self.remove_service(key)).is_some()
    }

    fn remember(&mut self, key: ServiceKey) {
        let timer = self.timers.start(self.now + REMEMBERED, Due::Memory(key));
        self.services[key.0].memory = Some((timer, self.now));
        self.remembered.insert((self.now, key.0));
    }

    /// A service's time to be remembered is over.
    pub(super) fn forget_service(&mut self, key: ServiceKey) {
        let service = &mut self.services[key.0];
        let is_asked_for = 0 < service.open;
        if let Some((_, since)) = service.memory.take() {
            self.remembered.remove(&(since, key.0));
        }
        if is_asked_for {
            self.remember(key);
        } else {
            self.remove_service(key);
        }
    }

    pub(super) fn remove_service(&mut self, key: ServiceKey) {
        let service = self.services.remove(key.0);
        self.service_keys.remove(&service.id);
        if let Some((timer, since)) = service.memory {
            self.timers.stop(timer);
            self.remembered.remove(&(since, key.0));
        }
    }

    /// What both sides say about the session itself.
    pub(super) fn session_message(&mut self, session: Session, message: &Message) {
        let taken_in = match message.header.kind {
            Kind::Heartbeat => self.heartbeat(session, message),
            Kind::Window => self.connection_window(session, message),
            Kind::Bye => {
                self.counters.sessions_left += 1;
                self.end(session);
                Ok(())
            }
            Kind::Drain => {
                self.link(session).is_draining = true;
                if let Session::Backend(key) = session {
                    self.withdraw(key);
                }
                Ok(())
            }
            Kind::Announce if self.link(session).version >= 2 => match session {
                Session::Backend(key) => self.announce(key, message),
                Session::Frontend(_) => {
                    self.drop_strange(session, message);
                    Ok(())
                }
            },
            // It did without.
            Kind::Unsupported => Ok(()),
            _ => {
                self.drop_strange(session, message);
                Ok(())
            }
        };
        if taken_in.is_err() {
            self.counters.dropped_metadata += 1;
        }
    }

    fn heartbeat(&mut self, session: Session, message: &Message) -> Result<(), DecodeError> {
        let heartbeat = Heartbeat::decode(&message.metadata)?;
        let now = self.now;
        self.link(session).hear(&heartbeat, now);
        if let Session::Backend(key) = session {
            self.resize(key, heartbeat.capacity);
            self.backends[key.0].load = heartbeat;
        }
        Ok(())
    }

    /// A backend works on so many requests at a time from now on.
    fn resize(&mut self, key: BackendKey, capacity: u32) {
        let backend = &mut self.backends[key.0];
        let before = backend.ledger.capacity();
        backend.ledger.resize(capacity);
        self.capacity = self.capacity - u64::from(before) + u64::from(capacity);
        if (before == 0) != (capacity == 0) {
            self.turn_work(key);
        }
    }

    fn connection_window(
        &mut self,
        session: Session,
        message: &Message,
    ) -> Result<(), DecodeError> {
        let window = Window::decode(&message.metadata)?;
        let link = match session {
            Session::Frontend(key) => &mut self.frontends[key.0].link,
            Session::Backend(key) => &mut self.backends[key.0].link,
        };
        link.raise(window, &mut self.backlog, &mut self.actions);
        Ok(())
    }

    /// Says that we live, and looks whether the peer does.
    pub(super) fn check_pulse(&mut self, session: Session) {
        let load = self.load();
        let (now, resumed) = (self.now, self.resumed);
        let link = match session {
            Session::Frontend(key) => &mut self.frontends[key.0].link,
            Session::Backend(key) => &mut self.backends[key.0].link,
        };
        link.timer = None;
        let silent_at =
            (link.heard + link.heartbeat * limits::HEARTBEAT_MISSES).max(resumed + link.heartbeat);
        if silent_at <= now {
            self.counters.sessions_silent += 1;
            return self.end_with(session, Bye::Silent);
        }
        link.beat(load, now, &mut self.actions);
        let mut next = silent_at.min(now + link.heartbeat);
        if let Session::Backend(key) = session {
            let suspect_at = link.suspect_at().max(resumed + link.heartbeat / 2);
            if suspect_at <= now {
                self.suspect(key);
            } else if link.heard + link.heartbeat <= now {
                // Only then: who speaks in time costs no timer of its own.
                next = next.min(suspect_at);
            }
        }
        let timer = self.timers.start(next, Due::Pulse(session));
        self.link(session).timer = Some(timer);
    }

    /// A backend is silent for too long to be sent anything. It is not dead yet: what it has of ours goes on. Where all are silent it is as
    /// if none were there: who may be held waits for the first to speak, and others do better to ask elsewhere.
    fn suspect(&mut self, key: BackendKey) {
        let backend = &mut self.backends[key.0];
        if !std::mem::replace(&mut backend.is_suspect, true) {
            self.counters.suspected += 1;
            if backend.has_application() {
                self.turn_work(key);
            }
        }
    }

    /// A backend has said something.
    pub(super) fn hear_of(&mut self, key: BackendKey) {
        let backend = &mut self.backends[key.0];
        if std::mem::take(&mut backend.is_suspect) && backend.has_application() {
            self.turn_work(key);
        }
    }

    /// What frontends choose the least loaded broker by.
    pub(super) fn load(&self) -> Heartbeat {
        let open = self.streams.len() - self.abandoned - self.copies;
        Heartbeat {
            outstanding: u32::try_from(open).unwrap_or(u32::MAX),
            capacity: u32::try_from(self.capacity).unwrap_or(u32::MAX),
            service_time_us: self.averages.service_time_us(),
            queue_time_us: self.averages.queue_time_us(),
            ..Heartbeat::default()
        }
    }

    /// A message from nobody we know. BYE makes an honest peer say HELLO.
    pub(super) fn answer_stranger(&mut self, from: PeerId, message: &Message) {
        self.counters.dropped_without_session += 1;
        if message.header.kind != Kind::Bye {
            self.answer(from, bye(message.header.epoch, Bye::UnknownSession));
        }
    }

    /// Brokers of other sites are not spoken to in this version.
    pub(super) fn answer_peer(&mut self, from: PeerId, message: &Message) {
        self.counters.dropped_unsupported += 1;
        if message.header.kind != Kind::Bye {
            self.answer(from, unsupported(message));
        }
    }

    fn answer(&mut self, to: PeerId, message: Message) {
        if !self.strangers.may_be_answered(to, self.now) {
            self.counters.answers_withheld += 1;
            return;
        }
        self.actions.push(Action::Send {
            to,
            message: message.into(),
        });
        if !self.peers.contains_key(&to) {
            self.actions.push(Action::Forget { peer: to });
        }
    }

    pub(super) fn lose(&mut self, peer: PeerId) {
        self.keys.remove(&peer);
        self.forget_offender(peer);
        if let Some(&session) = self.peers.get(&peer) {
            self.counters.sessions_lost += 1;
            self.end(session);
        }
    }

    pub(super) fn drop_stuck(&mut self, peer: PeerId) {
        if let Some(&session) = self.peers.get(&peer) {
            self.counters.sessions_stuck += 1;
            self.end(session);
        }
    }

    pub(super) fn break_off(&mut self, session: Session) {
        self.counters.sessions_broken += 1;
        self.end_with(session, Bye::ProtocolError);
    }

    pub(super) fn end_with(&mut self, session: Session, why: Bye) {
        self.tell(session, bye(0, why));
        self.end(session);
    }

    /// Takes a session out of the tables; nothing may be sent to it any more.
    pub(super) fn strike_out(&mut self, session: Session) {
        let link = self.link(session);
        let identity = Identity {
            is_backend: matches!(session, Session::Backend(_)),
            key: link.key,
            instance: link.instance,
            lane: link.lane,
        };
        let (peer, timer) = (link.peer, link.timer.take());
        let waiting = link.waiting_bytes();
        self.backlog.remove(waiting);
        if let Some(timer) = timer {
            self.timers.stop(timer);
        }
        self.peers.remove(&peer);
        self.identities.remove(&identity);
        self.actions.push(Action::Forget { peer });
    }
}

pub(super) fn bye(epoch: u64, why: Bye) -> Message {
    let header = RoutingHeader {
        epoch,
        ..RoutingHeader::new(Kind::Bye)
    };
    Message::new(header).with_metadata(why.encode())
}
