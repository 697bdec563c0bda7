//! What must hold between any two steps, looked up from the inside.

use super::{Broker, Due, Session};
use crate::core::backend::{Backend, BackendKey, Offer};
use crate::core::queue::Queue;
use crate::core::service::{Member, Service, ServiceKey, Standing};
use crate::core::stream::{Lane, Phase, Stream, StreamKey};

/// What the streams say of those they belong to.
#[derive(Debug, Default)]
struct Sums {
    /// Streams of each service, by its place.
    open: Vec<usize>,
    /// Those of them that backends work on.
    outstanding: Vec<usize>,
    abandoned: usize,
    copies: usize,
    accounts: usize,
    long: usize,
    queued: usize,
    kept_bytes: usize,
    /// Bytes in queues that are there for the first time.
    new_bytes: usize,
}

impl Broker {
    /// Checks every sum, every link between two tables and every bound that can be checked from the inside. For simulations and
    /// fuzzers: it costs a walk over everything.
    ///
    /// # Panics
    /// When something does not hold, which is a mistake in this crate.
    pub fn audit(&self) {
        if self.is_gone {
            return;
        }
        let sums = self.audit_streams();
        assert_eq!(sums.abandoned, self.abandoned, "abandoned streams");
        assert_eq!(sums.copies, self.copies, "copies of streams");
        assert_eq!(sums.accounts, self.accounts, "accounts of streams");
        let chosen = self.counters.chosen.iter().map(|(_, count)| count);
        assert_eq!(
            chosen.sum::<u64>(),
            self.counters.sent,
            "choices of backends"
        );
        assert_eq!(sums.long, self.long_streams, "event streams and tunnels");
        assert_eq!(sums.queued, self.queued, "streams in queues");
        assert_eq!(sums.kept_bytes, self.kept_bytes, "kept bytes");
        let queues = self.services.iter().map(|(_, service)| &service.queue);
        let queued: usize = queues.map(Queue::bytes).sum();
        assert_eq!(queued, self.queued_bytes, "bytes in queues");
        assert!(
            sums.new_bytes <= self.config.limits.queued_bytes,
            "bytes in queues over their bound"
        );
        assert!(
            self.kept_bytes <= self.config.limits.kept_bytes,
            "kept bytes over their bound"
        );
        for (key, service) in &self.services {
            assert_eq!(
                sums.open[key], service.open,
                "streams of {:?}",
                service.name
            );
            assert_eq!(
                sums.outstanding[key], service.outstanding,
                "requests of {:?} at backends",
                service.name
            );
            self.audit_service(ServiceKey(key), service);
        }
        for (key, backend) in &self.backends {
            self.audit_backend(BackendKey(key), backend);
        }
        let capacities = self.backends.iter();
        let capacities = capacities.map(|(_, backend)| u64::from(backend.ledger.capacity()));
        assert_eq!(
            capacities.sum::<u64>(),
            self.capacity,
            "the site's capacity"
        );
        self.audit_sessions();
        self.audit_timers();
    }

    fn audit_streams(&self) -> Sums {
        let mut sums = Sums {
            open: vec![0; self.services.capacity()],
            outstanding: vec![0; self.services.capacity()],
            ..Sums::default()
        };
        for key in self.streams.keys() {
            let stream = &self.streams[key];
            sums.open[stream.service.0] += 1;
            let is_at_work = stream.backend().is_some() && stream.holds_credit;
            sums.outstanding[stream.service.0] += usize::from(is_at_work);
            let is_abandoned = matches!(stream.phase, Phase::Abandoned(_));
            self.audit_twin(key, stream);
            sums.copies += usize::from(stream.is_copy);
            sums.accounts += usize::from(stream.trace.is_some());
            if !is_abandoned && !stream.is_copy {
                let its = &self.frontends[stream.frontend.0].streams;
                assert_eq!(its.get(&stream.correlation), Some(&key), "{stream:?}");
            }
            match stream.phase {
                Phase::Unplaced => panic!("a stream is nowhere: {stream:?}"),
                Phase::Queued(lane) => {
                    sums.queued += 1;
                    if lane != Lane::Repeats {
                        sums.new_bytes += stream.size();
                    }
                    assert!(stream.request.is_some(), "nothing to send: {stream:?}");
                }
                Phase::Sent(_) => {
                    sums.kept_bytes += stream.size();
                }
                Phase::Responding(_) => {}
                Phase::Abandoned(_) => sums.abandoned += 1,
            }
            let has_deadline =
                matches!(stream.phase, Phase::Queued(_) | Phase::Sent(_)) && !stream.is_copy;
            assert_eq!(stream.timer.is_some(), has_deadline, "{stream:?}");
            sums.long += usize::from(stream.backend().is_some() && !stream.holds_credit);
        }
        sums
    }

    /// Of two backends that have a request one has a copy, and neither has answered.
    fn audit_twin(&self, key: StreamKey, stream: &Stream) {
        let Some(twin) = stream.twin else {
            return assert!(!stream.is_copy, "a copy of nothing: {stream:?}");
        };
        let other = &self.streams[twin];
        assert_eq!(other.twin, Some(key), "{stream:?}");
        assert_ne!(other.is_copy, stream.is_copy, "{stream:?}");
        assert_eq!(
            (other.frontend, other.correlation, other.service),
            (stream.frontend, stream.correlation, stream.service),
            "twins of two requests"
        );
        let instance = |stream: &Stream| match stream.phase {
            Phase::Sent(backend) => self.backends[backend.0].link.instance,
            _ => panic!("one of two is with nobody, or has answered: {stream:?}"),
        };
        assert_ne!(instance(stream), instance(other), "twice at one backend");
        assert!(
            !stream.is_copy || stream.request.is_none(),
            "a copy is kept: {stream:?}"
        );
    }

    fn audit_service(&self, key: ServiceKey, service: &Service) {
        let name = &service.name;
        assert_eq!(self.service_keys.get(&service.id), Some(&key), "{name:?}");
        let (mut count, mut bytes, mut new_bytes) = (0, 0, 0);
        let mut is_outdone = false;
        for waiting in service.queue.iter(&self.streams) {
            count += 1;
            let stream = &self.streams[waiting];
            assert_eq!(stream.service, key, "in another's queue: {stream:?}");
            bytes += stream.size();
            is_outdone |= matches!(
                stream.phase,
                Phase::Queued(Lane::Flights | Lane::Interactive | Lane::Normal | Lane::Background)
            );
            if !matches!(stream.phase, Phase::Queued(Lane::Repeats | Lane::Flights)) {
                new_bytes += stream.size();
            }
        }
        assert_eq!(count, service.queue.len(), "the queue of {name:?}");
        assert_eq!(bytes, service.queue.bytes(), "bytes queued for {name:?}");
        let new = service.queue.bounded();
        let limits = service.queue.limits();
        assert!(new <= limits.requests, "queue of {name:?}");
        assert!(new_bytes <= limits.bytes, "bytes queued for {name:?}");
        assert_eq!(
            self.waiting.contains(key),
            0 < count,
            "whether somebody waits for {name:?}"
        );
        let (mut working, mut resting) = (0, 0);
        for (place, &Member { backend, offer, .. }) in service.members.iter().enumerate() {
            let member = &self.backends[backend.0];
            let here = &member.offers[offer];
            assert_eq!((here.service, here.place), (key, place), "{name:?}");
            assert_eq!(member.offer(key), Some(offer), "{name:?}");
            resting += usize::from(here.health.is_out());
            let may_have_more = service.may_send()
                && !here.health.is_out()
                && member.takes_share(key, service.bounds);
            let is_parked = service.awake <= place;
            assert_eq!(member.parked.contains(&offer), is_parked, "{name:?}");
            let has_credit = 0 < member.available();
            assert!(!(is_parked && has_credit), "credit for {name:?} unseen");
            assert!(
                !(is_outdone && has_credit && may_have_more),
                "one waits for {name:?} beside credit"
            );
            working += usize::from(member.takes_work());
        }
        assert!(service.awake <= service.members.len(), "{name:?}");
        assert_eq!(working, service.working, "who works for {name:?}");
        let is_deserted = working == 0 || !service.is_open;
        assert_eq!(service.deserted.is_some(), is_deserted, "{name:?}");
        assert_eq!(resting, service.resting, "who has a rest at {name:?}");
        assert!(2 * resting <= working, "too many have a rest at {name:?}");
        assert!(
            service.outstanding <= service.bounds.outstanding,
            "more of {name:?} at backends than may be"
        );
        let is_remembered = service.standing == Standing::Announced && service.members.is_empty();
        assert_eq!(
            service.memory.is_some(),
            is_remembered,
            "memory of {name:?}"
        );
        if let Some((_, since)) = service.memory {
            assert!(self.remembered.contains(&(since, key.0)), "{name:?}");
        }
    }

    fn audit_backend(&self, key: BackendKey, backend: &Backend) {
        let node = &backend.link.node;
        let ledger = &backend.ledger;
        assert!(
            ledger.used() + ledger.returned() <= ledger.granted(),
            "more than the credit of {node:?}: {ledger:?}"
        );
        let (mut outstanding, mut uploads, mut count) = (0, 0, 0);
        for stream in backend.streams.iter(&self.streams) {
            let stream = &self.streams[stream];
            assert_eq!(stream.backend(), Some(key), "with another: {stream:?}");
            outstanding += u32::from(stream.holds_credit);
            uploads += u32::from(stream.is_uploading);
            count += 1;
        }
        assert_eq!(count, backend.streams.len(), "streams of {node:?}");
        assert_eq!(outstanding, backend.outstanding, "requests at {node:?}");
        assert_eq!(uploads, backend.uploads, "uploads to {node:?}");
        assert!(
            u64::from(outstanding) <= ledger.used(),
            "never sent: {node:?}"
        );
        let at_work: u32 = backend.at_work.iter().map(|(_, count)| count).sum();
        assert_eq!(at_work, backend.outstanding, "requests at {node:?}");
        let resting = backend.offers.iter().filter(|it| it.health.is_out());
        assert_eq!(resting.count(), backend.resting, "rests of {node:?}");
        for (index, &Offer { service, place, .. }) in backend.offers.iter().enumerate() {
            assert!(backend.offered.contains(service), "{node:?}");
            let member = self.services[service.0].members[place];
            assert_eq!((member.backend, member.offer), (key, index), "{node:?}");
        }
        let offered = backend.offered.common(&backend.offered).count();
        assert_eq!(offered, backend.offers.len(), "services of {node:?}");
    }

    fn audit_sessions(&self) {
        let frontends = self.frontends.iter();
        let frontends =
            frontends.map(|(key, it)| (Session::Frontend(super::FrontendKey(key)), &it.link));
        let backends = self.backends.iter();
        let backends = backends.map(|(key, it)| (Session::Backend(BackendKey(key)), &it.link));
        let (mut count, mut waiting) = (0, 0);
        for (session, link) in frontends.chain(backends) {
            assert_eq!(
                self.peers.get(&link.peer),
                Some(&session),
                "{:?}",
                link.node
            );
            assert!(link.timer.is_some(), "no pulse of {:?}", link.node);
            link.audit();
            waiting += link.waiting_bytes();
            count += 1;
        }
        assert_eq!(waiting, self.backlog.bytes(), "bytes that wait for peers");
        assert_eq!(self.peers.len(), count, "peers without a session");
        assert_eq!(self.identities.len(), count, "identities without a session");
        let open: usize = self.frontends.iter().map(|(_, it)| it.streams.len()).sum();
        let requests = self.streams.len() - self.abandoned - self.copies;
        assert_eq!(open, requests, "open requests");
    }

    /// Every timer belongs to what lives, and is the one that it knows of.
    fn audit_timers(&self) {
        for (id, due) in self.timers.iter() {
            let known = match due {
                Due::Pulse(Session::Frontend(key)) => self.frontends[key.0].link.timer,
                Due::Pulse(Session::Backend(key)) => self.backends[key.0].link.timer,
                Due::Stream(key) => {
                    let lives = self.streams.by_correlation(key.correlation()) == Some(key);
                    assert!(lives, "a timer of a stream that is over");
                    self.streams[key].timer
                }
                Due::Unmute(peer) => self.muted.get(&peer).copied(),
                Due::Memory(key) => self.services[key.0].memory.map(|(timer, _)| timer),
                Due::Demand => self.rounds.timer(),
                Due::CutOff | Due::Leave => {
                    assert!(self.is_draining, "{due:?} without a drain");
                    Some(id)
                }
            };
            assert_eq!(known, Some(id), "a timer that nobody knows of: {due:?}");
        }
        let streams = self.streams.keys();
        let streams = streams.iter().filter_map(|&key| self.streams[key].timer);
        let sessions = self.peers.len();
        let services = self.services.iter().filter(|(_, it)| it.memory.is_some());
        let drain = self.timers.iter();
        let drain = drain.filter(|(_, due)| matches!(due, Due::CutOff | Due::Leave));
        let due = streams.count()
            + sessions
            + services.count()
            + self.muted.len()
            + usize::from(self.rounds.timer().is_some())
            + drain.count();
        assert_eq!(self.timers.iter().count(), due, "timers that do not run");
    }
}
