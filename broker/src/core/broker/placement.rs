//! Who gets a request, and when.

use std::time::{Duration, Instant};

use scale0_wire::{Kind, Message, Reason, RoutingHeader, Wanted, What, Why};

use super::outliers::{Judgement, weight};
use super::{Broker, Due, Session};
use crate::core::affinity;
use crate::core::backend::{Backend, BackendKey};
use crate::core::choice::EVEN;
use crate::core::chosen::Chosen;
use crate::core::link::unpin;
use crate::core::overload::Overload;
use crate::core::service::{Member, ServiceKey, Standing};
use crate::core::stream::{Lane, Phase, Stream, StreamKey};

/// How many requests more than the least loaded backend one of the asker's own process may have: a hop between processes costs
/// as much as waiting for about one short request.
const LOCAL_SLACK: u32 = 2 * EVEN;

/// Of so many backends all are looked at: a choice of two is worse while they are few.
const EXACT: usize = 16;

/// Services of a backend that take turns with its credit: of so many of them, in a circle, the one is served whose requests have had the
/// least time.
const COMPARED: usize = 4;

/// What a request takes of whose service nothing is known yet.
const UNKNOWN: Duration = Duration::from_millis(10);

/// A queue that is full is worth another try no sooner than so, and no later.
const RETRY_SOONEST: Duration = Duration::from_secs(1);
const RETRY_LATEST: Duration = Duration::from_secs(60);

/// Draws for two backends that can take a request. One without credit is drawn once only.
const DRAWS: usize = 8;

/// The lower the better: what it works on for us with this request, by the time that it takes; when it had the latest, and its place, for
/// those that never had any.
type Rank = (u32, u64, usize);

/// Where a request goes now.
enum Placement {
    /// To this backend, which has credit.
    Backend(Chosen),
    /// Into the queue.
    Wait(Lane),
    /// Back to its frontend.
    Refuse(Reason),
}

impl Broker {
    /// Sends a request on, lets it wait, or gives it up. It is in no list when this is called.
    pub(super) fn place(&mut self, key: StreamKey) {
        match self.placement(key) {
            Placement::Backend(to) => self.send_request(key, to),
            Placement::Wait(lane) => self.enqueue(key, lane),
            Placement::Refuse(reason) => self.give_up(key, reason),
        }
    }

    fn placement(&mut self, key: StreamKey) -> Placement {
        if let Some(to) = self.choose(key) {
            return Placement::Backend(to);
        }
        let stream = &self.streams[key];
        let service = &self.services[stream.service.0];
        if service.deserted.is_some() {
            // Somebody may come within `hold`.
            if stream.hold.is_zero() {
                // Whatever kept it from being started where it has been, that is over.
                return Placement::Refuse(if stream.may_have_run {
                    stream.failure
                } else {
                    Reason::NoBackend
                });
            }
        } else if !self.has_prospect(key) {
            return Placement::Refuse(stream.failure);
        } else if let Some(backend) = self.least_resting(key) {
            return Placement::Backend(Chosen::new(backend, Why::ONLY, 1));
        }
        if 0 < stream.attempts {
            return Placement::Wait(Lane::Repeats);
        }
        self.admission(key)
    }

    /// Whether a request that nobody can take now may wait.
    fn admission(&mut self, key: StreamKey) -> Placement {
        let stream = &self.streams[key];
        let Some(request) = &stream.request else {
            return Placement::Refuse(Reason::ProtocolError);
        };
        let (service, size) = (stream.service, request.size());
        let free = self.config.limits.queued_bytes;
        let free = free.saturating_sub(self.queued_bytes);
        let lane = lane_of(stream, &request.header);
        let queue = &self.services[service.0].queue;
        if lane == Lane::Flights {
            return if size <= free {
                Placement::Wait(lane)
            } else {
                self.counters.queues_full += 1;
                Placement::Refuse(Reason::QueueBytes)
            };
        }
        let has_room = queue.has_room(size, free);
        if !has_room && queue.has_room(size, usize::MAX) {
            self.counters.queues_full += 1;
            return Placement::Refuse(Reason::QueueBytes);
        }
        let is_too_late = has_room && !queue.overload.stands() && self.would_be_late(key, lane);
        if has_room && !is_too_late {
            return Placement::Wait(lane);
        }
        let reason = if is_too_late {
            Reason::TooLate
        } else if queue.limits().bytes < queue.bytes() + size {
            Reason::QueueBytes
        } else {
            Reason::QueueFull
        };
        let of = &mut self.services[service.0];
        // While nobody works for it more is not asked for than can be done: it waits for who comes back.
        if of.deserted.is_none()
            && of.queue.overload.turn_away(self.now)
            && (has_room || self.make_room(service, lane, size, free))
        {
            return Placement::Wait(lane);
        }
        self.counters.too_late += u64::from(is_too_late);
        Placement::Refuse(reason)
    }

    /// Whether a request that comes to this lane now would be answered after its deadline, as far as that can be told.
    fn would_be_late(&self, key: StreamKey, lane: Lane) -> bool {
        let stream = &self.streams[key];
        let service = &self.services[stream.service.0];
        if service.deserted.is_some() {
            return false;
        }
        let ahead = service.queue.ahead_of(lane) + 1;
        let waits = service.queue.pace.least_time_for(ahead, self.now);
        let takes = service.time.known().unwrap_or_default();
        waits.is_some_and(|waits| stream.deadline < self.now + waits + takes)
    }

    /// In an overload, refuses whoever is worth less than one that comes, until there is room for it.
    fn make_room(&mut self, service: ServiceKey, lane: Lane, size: usize, free: usize) -> bool {
        loop {
            let queue = &self.services[service.0].queue;
            if queue.has_room(size, free) {
                return true;
            }
            let Some((least, _)) = queue.least_worth(lane) else {
                return false;
            };
            self.counters.passed_over += 1;
            self.give_up(least, Reason::QueueFull);
        }
    }

    /// In an overload, refuses those who have been passed over for too long.
    fn refuse_passed_over(&mut self, service: ServiceKey) {
        let of = &self.services[service.0];
        if !of.queue.overload.stands() {
            return;
        }
        let patience = Overload::patience(of.time.known().unwrap_or_default());
        let Some(then) = self.now.checked_sub(patience) else {
            return;
        };
        while let Some(key) =
            (self.services.get(service.0)).and_then(|of| of.queue.passed_over(then, &self.streams))
        {
            self.counters.passed_over += 1;
            self.give_up(key, Reason::QueueFull);
        }
    }

    /// When it is worth asking for a service again whose queue is full: when what waits there now has gone, within a minute.
    pub(super) fn drain_time(&self, service: ServiceKey) -> Duration {
        let queue = &self.services[service.0].queue;
        let time = queue.pace.time_for(queue.len(), self.now);
        time.unwrap_or_default().clamp(RETRY_SOONEST, RETRY_LATEST)
    }

    /// Several wait for it now, or one.
    pub(super) fn count_waiters(&mut self, key: StreamKey, waiters: u32) {
        let stream = &mut self.streams[key];
        if let Some(request) = &mut stream.request {
            request.header.waiters = waiters;
        }
        if let Phase::Queued(lane @ (Lane::Interactive | Lane::Normal | Lane::Background)) =
            stream.phase
            && 1 < waiters
        {
            let service = stream.service;
            let queue = &mut self.services[service.0].queue;
            queue.remove(key, lane, &mut self.streams);
            queue.insert(key, Lane::Flights, &mut self.streams);
        }
    }

    /// The backend with credit and the least work of ours, the one that has rested longest among equals: of all where they are
    /// few, else of two that are drawn. Work is requests, by the time that they take where one backend is slower than another. One of the asker's process while that is hardly more loaded.
    fn choose(&mut self, key: StreamKey) -> Option<Chosen> {
        let stream = &self.streams[key];
        if stream.attempts == 0 {
            let queue = &self.services[stream.service.0].queue;
            if queue.has_waiting(!stream.request_is_over) {
                // Credit would have been theirs.
                return None;
            }
        }
        self.pick(key)
    }

    /// As [`choose`](Self::choose), whoever waits.
    pub(super) fn pick(&mut self, key: StreamKey) -> Option<Chosen> {
        let service = &self.services[self.streams[key].service.0];
        if !service.may_send() {
            return None;
        }
        let among = service.members.len();
        let chosen = |backend, why| Some(Chosen::new(backend, why, among));
        if let Some(backend) = self.by_affinity(key) {
            return chosen(backend, Why::AFFINITY);
        }
        let (rank, least, why) = match self.better_of_two(key) {
            Some((rank, better)) => (rank, better, Why::TWO),
            None => {
                let (rank, least) = self.least_of_all(key)?;
                (rank, least, Why::LEAST)
            }
        };
        match self.least_local(key) {
            Some(((local, ..), backend)) if local <= rank.0.saturating_add(LOCAL_SLACK) => {
                chosen(backend, Why::LOCAL)
            }
            _ => chosen(least, why),
        }
    }

    /// Where a request goes that belongs to others, if there is a place for it without more than is fair. Looks at all backends of the
    /// service, but into few of them.
    fn by_affinity(&self, key: StreamKey) -> Option<BackendKey> {
        let stream = &self.streams[key];
        let belongs_to = stream.request.as_ref()?.header.affinity;
        if belongs_to == 0 {
            return None;
        }
        let service = &self.services[stream.service.0];
        let most = affinity::bound(service.outstanding, service.working);
        let all = service.members.iter().map(|member| (member.seed, member));
        let best = affinity::best(belongs_to, &all, |member| {
            let backend = &self.backends[member.backend.0];
            (backend.at_work.of(stream.service) as usize) < most
                && self.rank(key, *member).is_some()
        });
        best.map(|member| member.backend)
    }

    /// How much is to be said against a backend; none if it cannot take this request now.
    fn rank(&self, key: StreamKey, at: Member) -> Option<Rank> {
        let Member { backend, offer, .. } = at;
        let offer = &self.backends[backend.0].offers[offer];
        if !offer.health.admits(self.now) || !self.can_take(key, backend) {
            return None;
        }
        let candidate = &self.backends[backend.0];
        let typical = &self.services[self.streams[key].service.0].time;
        let weight = weight(offer, typical, self.now);
        let work = (candidate.outstanding + 1).saturating_mul(weight);
        Some((work, candidate.last_used, backend.0))
    }

    /// Whether a backend has a place for this request, and has not had it.
    fn can_take(&self, key: StreamKey, backend: BackendKey) -> bool {
        let stream = &self.streams[key];
        let backend = &self.backends[backend.0];
        let bounds = self.services[stream.service.0].bounds;
        0 < backend.available()
            && (stream.request_is_over || backend.takes_upload())
            && backend.takes_share(stream.service, bounds)
            && !stream.tried.contains(&backend.link.instance)
    }

    /// The better of two that are drawn among those that may have credit. None where they are few, or none that was drawn can take it.
    fn better_of_two(&mut self, key: StreamKey) -> Option<(Rank, BackendKey)> {
        let service = self.streams[key].service;
        let mut first: Option<(Rank, BackendKey)> = None;
        for _ in 0..DRAWS {
            let awake = self.services[service.0].awake;
            if awake <= EXACT {
                return None;
            }
            let place = self.rng.below(awake);
            let member = self.services[service.0].members[place];
            let candidate = member.backend;
            if self.backends[candidate.0].available() == 0 {
                self.park(service, place);
                continue;
            }
            let Some(rank) = self.rank(key, member) else {
                continue;
            };
            match first {
                None => first = Some((rank, candidate)),
                Some((_, other)) if other == candidate => {}
                Some((best, _)) if best < rank => return first,
                Some(_) => return Some((rank, candidate)),
            }
        }
        first
    }

    fn least_of_all(&mut self, key: StreamKey) -> Option<(Rank, BackendKey)> {
        let service = self.streams[key].service;
        let mut least: Option<(Rank, BackendKey)> = None;
        let mut place = 0;
        while place < self.services[service.0].awake {
            let member = self.services[service.0].members[place];
            let candidate = member.backend;
            if self.backends[candidate.0].available() == 0 {
                // Another takes its place.
                self.park(service, place);
                continue;
            }
            if let Some(rank) = self.rank(key, member)
                && least.is_none_or(|(best, _)| rank < best)
            {
                least = Some((rank, candidate));
            }
            place += 1;
        }
        least
    }

    /// The least loaded backend of the asker's own process, of as many as are looked at elsewhere.
    fn least_local(&self, key: StreamKey) -> Option<(Rank, BackendKey)> {
        let stream = &self.streams[key];
        let locality = self.frontends[stream.frontend.0].link.locality?;
        let locals = self.locals.get(&locality)?.iter();
        locals
            .filter_map(|&backend| {
                let offer = self.backends[backend.0].offer(stream.service)?;
                let seed = self.backends[backend.0].seed;
                Some(Member {
                    backend,
                    offer,
                    seed,
                })
            })
            .take(EXACT)
            .filter_map(|local| Some((self.rank(key, local)?, local.backend)))
            .min_by_key(|&(rank, _)| rank)
    }

    /// The least loaded of those that have a rest, for a repeat that nobody else is left for.
    fn least_resting(&self, key: StreamKey) -> Option<BackendKey> {
        let stream = &self.streams[key];
        let service = &self.services[stream.service.0];
        if service.resting == 0 || stream.attempts == 0 || !service.may_send() {
            return None;
        }
        let is_out = |member: &Member| {
            let offers = &self.backends[member.backend.0].offers;
            offers[member.offer].health.is_out()
        };
        let is_untried = |member: &Member| {
            let backend = &self.backends[member.backend.0];
            backend.takes_work() && !stream.tried.contains(&backend.link.instance)
        };
        let mut members = service.members.iter();
        if members.any(|member| !is_out(member) && is_untried(member)) {
            return None;
        }
        let members = service.members.iter();
        let resting =
            members.filter(|&member| is_out(member) && self.can_take(key, member.backend));
        let load = |member: &&Member| self.backends[member.backend.0].outstanding;
        resting.min_by_key(load).map(|member| member.backend)
    }

    /// Whether a backend that has not had it yet takes work for its service, or may again when it is heard.
    pub(super) fn has_prospect(&self, key: StreamKey) -> bool {
        let stream = &self.streams[key];
        let service = &self.services[stream.service.0];
        if service.deserted.is_some() || stream.tried.is_empty() {
            return service.deserted.is_none();
        }
        service.members.iter().any(|member| {
            let backend = &self.backends[member.backend.0];
            backend.has_application() && !stream.tried.contains(&backend.link.instance)
        })
    }

    fn enqueue(&mut self, key: StreamKey, lane: Lane) {
        let stream = &mut self.streams[key];
        stream.since = self.now;
        if std::mem::take(&mut stream.is_pinned)
            && let Some(request) = &mut stream.request
        {
            unpin(request);
        }
        let service = stream.service;
        if stream.trace.is_some() {
            let priority = stream.request.as_ref().map(|it| it.header.priority);
            let before = self.services[service.0].queue.ahead_of(lane);
            let place = u32::try_from(before + 1).unwrap_or(u32::MAX);
            let priority = priority.unwrap_or_default() as u32;
            self.note(key, What::QUEUED, (priority, place), None);
        }
        self.counters.queued += 1;
        self.queued += 1;
        let queue = &mut self.services[service.0].queue;
        let is_new = queue.is_empty();
        if is_new {
            let of = &mut self.services[service.0];
            of.spent = of.spent.max(self.spent);
        }
        let queue = &mut self.services[service.0].queue;
        let before = queue.bytes();
        queue.push(key, lane, &mut self.streams);
        self.queued_bytes += queue.bytes() - before;
        self.waiting.insert(service);
        self.await_expiry(key);
        if !self.services[service.0].members.is_empty() {
            self.demand(is_new);
        }
    }

    /// All of an upload has come while it waited: it waits as a request like any other from now on, if it still has to.
    pub(super) fn become_whole(&mut self, key: StreamKey) {
        let Phase::Queued(lane) = self.streams[key].phase else {
            return;
        };
        if let Some(to) = self.choose(key) {
            return self.serve(key, lane, to);
        }
        let stream = &self.streams[key];
        if lane == Lane::Uploads
            && let Some(request) = &stream.request
        {
            let (service, to) = (stream.service, lane_of(stream, &request.header));
            let queue = &mut self.services[service.0].queue;
            queue.remove(key, lane, &mut self.streams);
            queue.insert(key, to, &mut self.streams);
        }
    }

    pub(super) fn leave_queue(&mut self, key: StreamKey, lane: Lane) {
        let stream = &self.streams[key];
        let service = stream.service;
        self.averages
            .waited(self.now.saturating_duration_since(stream.since));
        let queue = &mut self.services[service.0].queue;
        let before = queue.bytes();
        queue.remove(key, lane, &mut self.streams);
        self.queued_bytes -= before - queue.bytes();
        if queue.is_empty() {
            self.waiting.remove(service);
        }
        self.streams[key].phase = Phase::Unplaced;
        self.queued -= 1;
    }

    pub(super) fn change_service(&mut self, key: StreamKey, to: ServiceKey) {
        let from = std::mem::replace(&mut self.streams[key].service, to);
        self.services[to.0].open += 1;
        self.leave_service(from);
    }

    pub(super) fn leave_service(&mut self, key: ServiceKey) {
        let service = &mut self.services[key.0];
        service.open -= 1;
        if service.open == 0 && service.standing == Standing::Awaited {
            self.remove_service(key);
        }
    }

    /// Sends a request to a backend that has credit. It is in no list when this is called.
    pub(super) fn send_request(&mut self, key: StreamKey, chosen: Chosen) {
        let Chosen {
            backend: to,
            mut why,
            among,
        } = chosen;
        let stream = &mut self.streams[key];
        let Some(mut request) = stream.request.take() else {
            return self.give_up(key, Reason::ProtocolError);
        };
        let size = request.size();
        if stream.is_copy {
            // What it is a copy of is kept.
        } else if self.kept_bytes + size <= self.config.limits.kept_bytes {
            self.kept_bytes += size;
            let mut kept = request.clone();
            if std::mem::take(&mut stream.is_pinned) {
                unpin(&mut kept);
            }
            stream.request = Some(kept);
        } else {
            self.counters.not_kept += 1;
        }
        let left = stream.deadline.saturating_duration_since(self.now);
        request.header.deadline_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1);
        request.header.attempt = request.header.attempt.saturating_add(stream.attempts);
        request.header.correlation = key.correlation();
        request.header.credit = 0;
        stream.attempts = stream.attempts.saturating_add(1);
        stream.phase = Phase::Sent(to);
        stream.holds_credit = true;
        stream.is_uploading = !stream.request_is_over;
        stream.is_timed = stream.request_is_over;
        stream.since = self.now;
        let (is_uploading, service) = (stream.is_uploading, stream.service);

        self.uses += 1;
        self.counters.sent += 1;
        let backend = &mut self.backends[to.0];
        // As it counts itself: who takes the place of this one in a queue is news to it.
        backend.demand = backend.demand.saturating_sub(1);
        backend.uploads += u32::from(is_uploading);
        let has_credit = backend.ledger.take();
        debug_assert!(has_credit, "sent to a backend without credit");
        backend.outstanding += 1;
        backend.at_work.add(service);
        self.services[service.0].outstanding += 1;
        backend.last_used = self.uses;
        if 0 < backend.resting
            && let Some(offer) = backend.offer(service)
            && backend.offers[offer].health.sent()
        {
            self.streams[key].is_probe = true;
            why = Why::PROBE;
        }
        self.counters.chosen.count(why);
        let among = u32::try_from(among).unwrap_or(u32::MAX);
        self.note(key, What::CHOSEN, (why.0.into(), among), Some(to));
        let backend = &mut self.backends[to.0];
        backend.streams.push(key, &mut self.streams);
        backend.link.tell(request, &mut self.actions);
        if let Some(end) = &self.streams[key].request_end {
            let mut end = end.clone();
            end.header.correlation = key.correlation();
            self.say_last(Session::Backend(to), end);
        }
        self.await_expiry(key);
    }

    /// A backend may have credit now, or be heard again: those who wait for it are served, its services in turn.
    pub(super) fn use_credit(&mut self, key: BackendKey) {
        while let Some(backend) = self.backends.get(key.0)
            && 0 < backend.available()
        {
            let Some((service, stream, lane)) = self.first_waiting_for(backend) else {
                self.wake(key);
                break;
            };
            self.backends[key.0].turn = service;
            let to = Chosen {
                backend: key,
                why: Why::CREDIT,
                among: 1,
            };
            self.serve(stream, lane, to);
        }
        let has_idle = |backend: &Backend| 0 < backend.ledger.unused();
        if self.is_draining && self.backends.get(key.0).is_some_and(has_idle) {
            // Nothing new will come here that could use it.
            self.give_back(key, u32::MAX);
        }
    }

    /// Sends on one that waits.
    pub(super) fn serve(&mut self, key: StreamKey, lane: Lane, to: Chosen) {
        let service = self.streams[key].service;
        self.leave_queue(key, lane);
        let of = &mut self.services[service.0];
        of.queue.served(self.now);
        self.spent = self.spent.max(of.spent);
        of.spent += of.time.known().unwrap_or(UNKNOWN).as_secs_f64();
        self.send_request(key, to);
        self.refuse_passed_over(service);
    }

    fn first_waiting_for(&self, backend: &Backend) -> Option<(ServiceKey, StreamKey, Lane)> {
        if self.queued == 0 {
            return None;
        }
        let services = backend.offered.common_after(&self.waiting, backend.turn);
        let eligible = services.filter_map(|key| {
            let service = &self.services[key.0];
            if !service.may_send()
                || !backend.takes_share(key, service.bounds)
                || !self.admits(backend, key)
            {
                return None;
            }
            let (stream, lane) = service.queue.first_for(backend, &self.streams)?;
            Some((key, stream, lane))
        });
        let spent = |key: ServiceKey| self.services[key.0].spent;
        eligible
            .take(COMPARED)
            .min_by(|&(a, ..), &(b, ..)| spent(a).total_cmp(&spent(b)))
    }

    /// Whether a backend may be sent requests of this service, for all that is known of how it does at it.
    pub(super) fn admits(&self, backend: &Backend, service: ServiceKey) -> bool {
        backend.resting == 0
            || (backend.offer(service))
                .is_none_or(|offer| backend.offers[offer].health.admits(self.now))
    }

    /// Another broker wants what is idle here.
    pub(super) fn reclaim(&mut self, key: BackendKey, message: &Message) {
        match Wanted::decode(&message.metadata) {
            // What somebody waits for here has been used before this is called.
            Ok(wanted) => self.give_back(key, wanted.0),
            Err(_) => self.counters.dropped_metadata += 1,
        }
    }

    /// Returns up to `wanted` of a backend's idle credit. It hears of it even if it was nothing.
    fn give_back(&mut self, key: BackendKey, wanted: u32) {
        let Some(backend) = self.backends.get_mut(key.0) else {
            return;
        };
        if self.is_draining && 0 < wanted.min(backend.ledger.unused()) {
            // The backend takes that for the end of all demand here: who waits next is to be told of anew.
            backend.demand = 0;
        }
        let header = RoutingHeader {
            credit: backend.ledger.give_back(wanted),
            ..RoutingHeader::new(Kind::Return)
        };
        backend.link.tell(Message::new(header), &mut self.actions);
    }

    /// Sets a stream's timer to when its patience ends, or when it is late.
    pub(super) fn await_expiry(&mut self, key: StreamKey) {
        if self.streams[key].is_copy {
            // Its request has one.
            return;
        }
        let at = self.expiry(key);
        let at = self.late_at(key).map_or(at, |late| at.min(late));
        let stream = &mut self.streams[key];
        match stream.timer {
            Some(timer) => self.timers.restart(timer, at),
            None => stream.timer = Some(self.timers.start(at, Due::Stream(key))),
        }
    }

    /// When it must have gone on: its deadline; while there is nobody to wait for, the end of its hold.
    fn expiry(&self, key: StreamKey) -> Instant {
        let stream = &self.streams[key];
        if !matches!(stream.phase, Phase::Queued(_)) || self.has_prospect(key) {
            return stream.deadline;
        }
        let service = &self.services[stream.service.0];
        let held = match service.standing {
            Standing::Awaited => self.started + self.config.hold,
            Standing::Named | Standing::Announced => {
                stream.since.max(service.deserted.unwrap_or(stream.since)) + stream.hold
            }
        };
        stream.deadline.min(held)
    }

    /// A stream's timer has run out.
    pub(super) fn expire(&mut self, key: StreamKey) {
        self.streams[key].timer = None;
        if self.now < self.expiry(key) {
            // A backend has come, or gone, since the timer was set, or it is late.
            self.hedge_if_late(key);
            return self.await_expiry(key);
        }
        let stream = &self.streams[key];
        let (phase, is_whole) = (stream.phase, stream.request_is_over);
        if let Phase::Sent(backend) = phase
            && is_whole
        {
            self.judge(key, backend, Judgement::Failed);
        }
        let stream = &self.streams[key];
        let reason = if stream.deadline <= self.now {
            Reason::Deadline
        } else if self.services[stream.service.0].standing == Standing::Awaited {
            Reason::UnknownService
        } else {
            Reason::NoBackend
        };
        self.give_up(key, reason);
    }
}

/// Where a request waits that comes for the first time.
fn lane_of(stream: &Stream, header: &RoutingHeader) -> Lane {
    if !stream.request_is_over {
        Lane::Uploads
    } else if 1 < header.waiters {
        Lane::Flights
    } else {
        header.priority.into()
    }
}
