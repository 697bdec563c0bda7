//! The broker: all of a site's requests, and where each stands.
//!
//! This file owns the state and says who is told what; its neighbours are the parts of one story: `sessions` (who is here),
//! `offers` (who works for which service), `requests` (what frontends say), `placement` (who gets a request), `hedges` (who else gets it), `demand` (what
//! backends are told), `redirect` (where else to go), `responses` (what backends say), `rights` (who may do what), `misconduct` (who
//! is not heard for a while), `explain` (what becomes of one request), `endings` (how a stream or a session ends), `outliers` (who is given a rest), `view` (what an operator
//! sees), `audit` (what must hold).

mod audit;
mod demand;
mod endings;
mod explain;
mod hedges;
mod misconduct;
mod offers;
mod outliers;
mod placement;
mod redirect;
mod requests;
mod responses;
mod rights;
mod sessions;
mod view;

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use scale0_transport::{PeerId, Port, PublicKey};
use scale0_wire::{Kind, Message, Reason, Role, RoutingHeader, ServiceId, Stranger, Unsupported};
use slab::Slab;

use self::demand::Rounds;
use self::sessions::Identity;
use self::view::Averages;
use super::backend::{Backend, BackendKey};
use super::backlog::Backlog;
use super::config::BrokerConfig;
use super::counters::Counters;
use super::event::{Action, Event};
use super::frontend::{Frontend, FrontendKey};
use super::hash::Secret;
use super::link::Link;
use super::outlier::Losses;
use super::quarantine::Quarantine;
use super::rng::Rng;
use super::service::{Service, ServiceKey, Standing};
use super::service_set::ServiceSet;
use super::strangers::Strangers;
use super::stream::{StreamKey, Streams};
use super::timers::{TimerId, Timers};

/// Routes the requests of one site: frontends on one side, backends on the other, and between them credit, queues, repeats
/// and liveness.
///
/// A plain value that never waits. It is told what happened and when ([`step`](Self::step)); it answers with what ought to
/// happen. It reads routing headers only: what is asked and answered passes through it untouched.
#[derive(Debug)]
pub struct Broker {
    config: BrokerConfig,
    started: Instant,
    /// The time of this step.
    now: Instant,
    /// When this process went on after its latest pause.
    resumed: Instant,
    /// What this step asks for.
    actions: Vec<Action>,
    peers: HashMap<PeerId, Session, Secret>,
    identities: HashMap<Identity, Session, Secret>,
    /// What peers behind sockets have proved to be, as long as their connections stand.
    keys: HashMap<PeerId, PublicKey, Secret>,
    frontends: Slab<Frontend>,
    backends: Slab<Backend>,
    services: Slab<Service>,
    service_keys: HashMap<ServiceId, ServiceKey, Secret>,
    /// Services that nobody offers any more and that are known for a while yet, the oldest first.
    remembered: BTreeSet<(Instant, usize)>,
    wildcard: ServiceId,
    streams: Streams,
    /// Streams whose frontend has had its last word.
    abandoned: usize,
    /// Streams that are copies of others, for a second backend.
    copies: usize,
    /// Streams of which an account is written.
    accounts: usize,
    /// Event streams and tunnels.
    long_streams: usize,
    /// Services for which streams wait, and how many streams that are.
    waiting: ServiceSet,
    queued: usize,
    losses: Losses,
    /// What a service has spent of backends' time that was served last: nobody saves up more by not asking.
    spent: f64,
    /// Services whose queues are to be looked at before this step is over.
    relieved: Vec<ServiceKey>,
    rounds: Rounds,
    /// Backends of this process, by locality.
    locals: HashMap<u32, Vec<BackendKey>, Secret>,
    rng: Rng,
    /// Bytes of requests in all queues.
    queued_bytes: usize,
    /// What waits for the windows of peers.
    backlog: Backlog,
    /// Bytes of requests with backends, kept for a repeat.
    kept_bytes: usize,
    /// Requests that all backends work on at a time.
    capacity: u64,
    averages: Averages,
    timers: Timers<Due>,
    /// Requests sent so far: the clock of "least recently used".
    uses: u64,
    strangers: Strangers,
    quarantine: Quarantine,
    /// Peers that are not heard now.
    muted: HashMap<PeerId, TimerId, Secret>,
    is_draining: bool,
    is_gone: bool,
    counters: Counters,
}

/// One of our sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Session {
    Frontend(FrontendKey),
    Backend(BackendKey),
}

/// What a timer is for.
#[derive(Clone, Copy, Debug)]
enum Due {
    /// A heartbeat, and a look at the peer's.
    Pulse(Session),
    /// A stream's deadline, or the end of its hold.
    Stream(StreamKey),
    /// Backends are told how many wait for them.
    Demand,
    /// Nobody has offered this service for long.
    Memory(ServiceKey),
    /// A peer's quarantine is over.
    Unmute(PeerId),
    /// The drain's time is over for what is under way.
    CutOff,
    /// It is over for frontends that do not say whether they have read all, too.
    Leave,
}

impl Broker {
    /// A broker that starts now.
    #[must_use]
    pub fn new(config: BrokerConfig, now: Instant) -> Self {
        let secret = Secret::new(config.hash_secret);
        let mut broker = Self {
            started: now,
            now,
            resumed: now,
            actions: Vec::new(),
            peers: HashMap::with_hasher(secret),
            identities: HashMap::with_hasher(secret),
            keys: HashMap::with_hasher(secret),
            frontends: Slab::new(),
            backends: Slab::new(),
            services: Slab::new(),
            service_keys: HashMap::with_hasher(secret),
            remembered: BTreeSet::new(),
            wildcard: ServiceId::of(ServiceId::ANY_NAME.as_bytes()),
            streams: Streams::new(),
            abandoned: 0,
            copies: 0,
            accounts: 0,
            long_streams: 0,
            waiting: ServiceSet::default(),
            queued: 0,
            losses: Losses::default(),
            spent: 0.0,
            relieved: Vec::new(),
            rounds: Rounds::default(),
            locals: HashMap::with_hasher(secret),
            rng: Rng::new(config.hash_secret),
            queued_bytes: 0,
            backlog: Backlog::new(config.limits.bytes_per_peer, config.limits.waiting_bytes),
            kept_bytes: 0,
            capacity: 0,
            averages: Averages::default(),
            timers: Timers::new(),
            uses: 0,
            strangers: Strangers::new(secret, now),
            quarantine: Quarantine::new(secret),
            muted: HashMap::with_hasher(secret),
            is_draining: false,
            is_gone: false,
            counters: Counters::new(),
            config,
        };
        for named in std::mem::take(&mut broker.config.services) {
            let id = ServiceId::of(named.name.as_bytes());
            let mut service = Service::new(id, Standing::Named, named.queue, now);
            service.name = named.name.as_str().into();
            service.bounds = named.bounds();
            service.is_open = service.bounds.min_backends == 0;
            let key = ServiceKey(broker.services.insert(service));
            broker.service_keys.insert(id, key);
            broker.config.services.push(named);
        }
        broker
    }

    /// Takes in one event. What should happen is appended to `actions`; nothing happens here.
    pub fn step(&mut self, now: Instant, event: Event, actions: &mut Vec<Action>) {
        if self.is_gone {
            return;
        }
        std::mem::swap(&mut self.actions, actions);
        self.notice_time(now);
        match event {
            Event::Received {
                from,
                port,
                locality,
                message,
            } => self.receive_watchfully(from, port, locality, message),
            Event::Proved { peer, key } => self.note_key(peer, key),
            Event::Rights(rights) => self.change_rights(rights),
            Event::Malformed { from } => self.note_garbage(from),
            Event::Lost { peer } => self.lose(peer),
            Event::Stuck { peer } => self.drop_stuck(peer),
            Event::Drain { until } => self.start_drain(until),
            Event::Tick => self.tick(),
        }
        if !self.is_gone {
            self.serve_relieved();
        }
        if self.is_draining && !self.is_gone && self.streams.len() == self.abandoned {
            self.leave_if_all_is_read();
        }
        std::mem::swap(&mut self.actions, actions);
    }

    /// When an [`Event::Tick`] is owed, if ever.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Whether it has drained and said BYE to all. It takes in nothing any more.
    #[must_use]
    pub const fn is_gone(&self) -> bool {
        self.is_gone
    }

    /// Whether it takes nothing new.
    #[must_use]
    pub const fn is_draining(&self) -> bool {
        self.is_draining
    }

    /// What has happened so far.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// After a pause of its own, what peers have sent lies in the sockets: their silence is ours. They get one more interval.
    fn notice_time(&mut self, now: Instant) {
        if now <= self.now {
            // One of several events of one round.
            return;
        }
        self.now = now;
        let is_late = self
            .timers
            .next()
            .is_some_and(|due| self.config.heartbeat < self.now.saturating_duration_since(due));
        if is_late && self.resumed < self.now {
            self.resumed = self.now;
            self.counters.pauses += 1;
        }
    }

    /// Takes in a message of a peer that has this session.
    fn receive(
        &mut self,
        (from, session): (PeerId, Option<Session>),
        port: Port,
        locality: Option<u32>,
        message: Box<Message>,
    ) {
        self.counters.received += 1;
        let session = match (port, message.header.kind) {
            (Port::Peers, _) => return self.answer_peer(from, &message),
            (Port::Frontends, Kind::Hello) => {
                return self.hello(from, Role::Frontend, locality, &message);
            }
            (Port::Backends, Kind::Hello) => {
                return self.hello(from, Role::Backend, locality, &message);
            }
            (Port::Frontends | Port::Backends, _) => match session {
                Some(session) => session,
                None => return self.answer_stranger(from, &message),
            },
        };
        let now = self.now;
        let link = match session {
            Session::Frontend(key) => &mut self.frontends[key.0].link,
            Session::Backend(key) => &mut self.backends[key.0].link,
        };
        if message.header.epoch != link.epoch {
            self.counters.dropped_epoch += 1;
            return;
        }
        if message.header.version != message.header.kind.stated_version(link.version) {
            self.counters.dropped_version += 1;
            return;
        }
        link.heard = now;
        if !link.receive(&message, now, &mut self.actions) {
            return self.break_off(session);
        }
        match session {
            Session::Frontend(key) => self.hear_frontend(key, message),
            Session::Backend(key) => self.hear_backend(key, message),
        }
    }

    fn tick(&mut self) {
        while !self.is_gone
            && let Some(due) = self.timers.pop_due(self.now)
        {
            match due {
                Due::Pulse(session) => self.check_pulse(session),
                Due::Stream(key) => self.expire(key),
                Due::Demand => self.tell_demand(),
                Due::Memory(key) => self.forget_service(key),
                Due::Unmute(peer) => self.unmute(peer),
                Due::CutOff => self.cut_off(),
                Due::Leave => self.leave(),
            }
        }
    }

    fn link(&mut self, session: Session) -> &mut Link {
        match session {
            Session::Frontend(key) => &mut self.frontends[key.0].link,
            Session::Backend(key) => &mut self.backends[key.0].link,
        }
    }

    /// Sends what waits for nothing.
    fn tell(&mut self, session: Session, message: impl Into<Box<Message>>) {
        let link = match session {
            Session::Frontend(key) => &mut self.frontends[key.0].link,
            Session::Backend(key) => &mut self.backends[key.0].link,
        };
        link.tell(message, &mut self.actions);
    }

    /// Sends a stream's last word, behind what waits for the connection's window.
    fn say_last(&mut self, session: Session, message: impl Into<Box<Message>>) {
        let link = match session {
            Session::Frontend(key) => &mut self.frontends[key.0].link,
            Session::Backend(key) => &mut self.backends[key.0].link,
        };
        let is_whole = link.send_last(message, &mut self.backlog, &mut self.actions);
        self.counters.trailers_dropped += u64::from(!is_whole);
    }

    /// A kind that its sender must not send, or that the session's version does not have.
    fn drop_strange(&mut self, session: Session, message: &Message) {
        let kind = message.header.kind;
        if kind.is_spoken_in(self.link(session).version) {
            self.counters.dropped_out_of_place += 1;
            return;
        }
        self.counters.dropped_unsupported += 1;
        if kind.stranger() == Stranger::AnswersUnsupported {
            self.tell(session, unsupported(message));
        }
    }
}

/// The answer to a message of a kind that is not spoken here.
fn unsupported(message: &Message) -> Message {
    let header = RoutingHeader {
        version: message.header.version,
        correlation: message.header.correlation,
        epoch: message.header.epoch,
        ..RoutingHeader::new(Kind::Unsupported)
    };
    Message::new(header).with_metadata(Unsupported(message.header.kind).encode())
}

/// A message about one stream.
fn about(kind: Kind, correlation: u64) -> Message {
    Message::new(RoutingHeader {
        correlation,
        ..RoutingHeader::new(kind)
    })
}

/// When it is worth asking again, in milliseconds: a moment for what passes by itself.
const fn retry_after_ms(reason: Reason) -> u32 {
    match reason {
        Reason::UnknownService | Reason::Deadline | Reason::Cancelled => 0,
        _ => 1000,
    }
}
