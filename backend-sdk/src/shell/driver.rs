//! What both shells do in each pass: take in what came, let the session decide, carry it out.

use std::collections::VecDeque;
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;
use scale0_transport::{
    Context, Endpoint, Hub, Incoming, LinkId, LinkOptions, Links, Neighbours, Port, SendOutcome,
    TransportError,
};
use scale0_wire::{Kind, Message, OtherBroker};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tower_service::Service;

use super::OnRegistered;
use super::clock::{self, CpuMeter};
use crate::exchange::{Exchange, Outbox, Reply};
use crate::handler::{self, Shared};
use crate::session::{Action, BrokerId, Call, Event, Session, Settings, StreamId};
use crate::{Body, Counters};

/// A received frame pins the buffer it was read into, of up to 64 KiB. What is shorter than this is copied out before it is kept.
const PINNED: usize = 16 * 1024;

/// How long after a broker of this process went its successor is looked for.
const REATTACH: Duration = Duration::from_millis(250);

/// How long what was said last may take to leave.
const LINGER: Duration = Duration::from_millis(500);

/// How a broker is reached.
pub(crate) enum LinkPlan {
    Dial(Endpoint),
    Attach { hub: Arc<dyn Hub>, locality: u32 },
}

/// All that a driver needs to begin.
pub(crate) struct Plan<S> {
    pub(crate) settings: Settings,
    pub(crate) links: Vec<LinkPlan>,
    pub(crate) options: LinkOptions,
    pub(crate) context: Option<Context>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) on_registered: Option<OnRegistered>,
    pub(crate) service: S,
    pub(crate) runtime: Handle,
}

pub(crate) struct Driver<S> {
    pub(super) links: Links,
    neighbours: Neighbours,
    options: LinkOptions,
    context: Option<Context>,
    pub(super) outbox: Arc<Outbox>,
    brokers: Vec<Link>,
    session: Session,
    running: Vec<Option<Running>>,
    service: S,
    shared: Arc<Shared>,
    runtime: Handle,
    on_registered: Option<OnRegistered>,
    cpu: CpuMeter,
    actions: Vec<Action>,
    events: Vec<Event>,
    /// Since when no broker has us; whether that was said.
    alone: Option<(Instant, bool)>,
}

/// How long no broker has answered when that is said.
const ALONE: Duration = Duration::from_secs(3);

struct Link {
    id: LinkId,
    /// Where the broker is; none: in this process.
    endpoint: Option<Endpoint>,
    /// What the transport had no room for. The session says no more content until it is gone; control is little.
    backlog: VecDeque<Message>,
    reattach_at: Option<Instant>,
}

impl Link {
    const fn new(id: LinkId, endpoint: Option<Endpoint>) -> Self {
        Self {
            id,
            endpoint,
            backlog: VecDeque::new(),
            reattach_at: None,
        }
    }
}

struct Running {
    exchange: Arc<Exchange>,
    task: JoinHandle<()>,
}

impl<S, B> Driver<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Display + Send,
    B: HttpBody + Send + 'static,
    B::Data: Send,
    B::Error: Display + Send,
{
    pub(crate) fn new(plan: Plan<S>, outbox: Arc<Outbox>) -> Result<Self, TransportError> {
        let mut links = Links::new();
        let mut context = plan.context;
        let mut brokers = Vec::with_capacity(plan.links.len());
        for link in plan.links {
            brokers.push(match link {
                LinkPlan::Dial(endpoint) => {
                    let context = match &mut context {
                        Some(context) => context,
                        none => none.insert(Context::new(1)?),
                    };
                    let id = links.connect(context, &endpoint, &plan.options)?;
                    Link::new(id, Some(endpoint))
                }
                LinkPlan::Attach { hub, locality } => {
                    Link::new(links.attach(hub, Port::Backends, locality), None)
                }
            });
        }
        let dialled = brokers.iter().filter_map(|link| link.endpoint.clone());
        let neighbours = Neighbours::new(dialled.collect());
        let shared = Shared {
            node: plan.settings.node.clone(),
            counters: Arc::clone(&plan.counters),
        };
        Ok(Self {
            links,
            neighbours,
            options: plan.options,
            context,
            outbox,
            session: Session::new(plan.settings, brokers.len(), plan.counters),
            brokers,
            running: Vec::new(),
            service: plan.service,
            shared: Arc::new(shared),
            runtime: plan.runtime,
            on_registered: plan.on_registered,
            cpu: CpuMeter::new(),
            actions: Vec::new(),
            events: Vec::new(),
            alone: None,
        })
    }

    /// One pass. Returns whether there was anything to do, and hence may be more.
    pub(crate) fn pass(&mut self) -> bool {
        let received = self.receive();
        // Behind what was received, for the same reason as there.
        let now = clock::now();
        let heard = self.hear(now);
        self.retry(now);
        let tick = Event::Tick {
            cpu_permille: self.cpu.permille(now),
        };
        self.session.step(now, tick, &mut self.actions);
        self.perform(now);
        self.say_if_alone(now);
        received || heard
    }

    /// A backend has nobody to show its state to but its log.
    fn say_if_alone(&mut self, now: Instant) {
        let has_no_reason = self.session.is_leaving() || self.session.offers_nothing();
        if self.session.is_registered() || has_no_reason {
            self.alone = None;
            return;
        }
        let (since, was_said) = self.alone.get_or_insert((now, false));
        if !*was_said && *since + ALONE <= now {
            *was_said = true;
            let brokers = self.brokers.iter().map(|link| match &link.endpoint {
                Some(endpoint) => endpoint.address(),
                None => "this process",
            });
            let brokers: Vec<&str> = brokers.collect();
            tracing::warn!(
                brokers = brokers.join(", "),
                "no broker answers as one; trying on"
            );
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        let reattach = self.brokers.iter().filter_map(|link| link.reattach_at);
        reattach.chain(self.session.deadline()).min()
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.session.is_gone()
    }

    fn receive(&mut self) -> bool {
        let mut received = false;
        while let Some((link, incoming)) = self.links.receive() {
            received = true;
            // A time for each, read behind its receipt: had this process been stopped before it, the session would have to know,
            // or it took what has lain here for as long for new.
            let now = clock::now();
            let Some(index) = self.brokers.iter().position(|it| it.id == link) else {
                continue;
            };
            let broker = BrokerId(index);
            let link = &mut self.brokers[index];
            let event = match incoming {
                Incoming::Up => Event::Up(broker),
                Incoming::Down => {
                    link.backlog.clear();
                    link.reattach_at = link.endpoint.is_none().then(|| now + REATTACH);
                    Event::Down(broker)
                }
                Incoming::Malformed(_) => Event::Malformed(broker),
                Incoming::Message(message) if link.endpoint.is_some() => {
                    Event::Message(broker, unpinned(message))
                }
                Incoming::Message(message) => Event::Message(broker, message),
            };
            self.session.step(now, event, &mut self.actions);
        }
        received
    }

    fn hear(&mut self, now: Instant) -> bool {
        self.outbox.take(&mut self.events);
        let heard = !self.events.is_empty();
        for event in self.events.drain(..) {
            self.session.step(now, event, &mut self.actions);
        }
        heard
    }

    /// What could not be done before may be possible now.
    fn retry(&mut self, now: Instant) {
        for index in 0..self.brokers.len() {
            let link = &mut self.brokers[index];
            if link.reattach_at.is_some_and(|at| at <= now) {
                link.reattach_at = None;
                self.redial(index);
            }
            let link = &mut self.brokers[index];
            if link.backlog.is_empty() {
                continue;
            }
            while let Some(message) = link.backlog.front()
                && self.links.send(link.id, message) != SendOutcome::Full
            {
                link.backlog.pop_front();
            }
            if link.backlog.is_empty() {
                let writable = Event::Writable(BrokerId(index));
                self.session.step(now, writable, &mut self.actions);
            }
        }
    }

    fn redial(&mut self, index: usize) {
        let link = &mut self.brokers[index];
        link.backlog.clear();
        if let Err(error) = self.links.redial(link.id) {
            tracing::warn!(%error, "cannot dial anew");
        }
    }

    /// Dials a broker that another one names, if that can be believed and is news.
    fn learn(&mut self, teller: BrokerId, other: &OtherBroker) {
        let teller = self.brokers[teller.0].endpoint.as_ref();
        let endpoint = (self.neighbours).learn(teller, &other.endpoint, other.key);
        let (Some(endpoint), Some(context)) = (endpoint, &self.context) else {
            return;
        };
        match self.links.connect(context, &endpoint, &self.options) {
            Ok(id) => {
                let node = other.node.as_str();
                tracing::info!(node, %endpoint, "a broker names another, which is dialled too");
                self.session.learn_broker(node);
                self.brokers.push(Link::new(id, Some(endpoint)));
            }
            Err(error) => {
                tracing::warn!(%error, "a broker that another one names cannot be dialled");
            }
        }
    }

    fn perform(&mut self, now: Instant) {
        let mut actions = std::mem::take(&mut self.actions);
        for action in actions.drain(..) {
            match action {
                Action::Send(broker, message) => self.send(now, broker, message),
                Action::Redial(broker) => self.redial(broker.0),
                Action::Learn(broker, other) => self.learn(broker, &other),
                Action::Close(broker) => {
                    let link = &mut self.brokers[broker.0];
                    link.backlog.clear();
                    self.links.close(link.id);
                }
                Action::Serve(call) => self.serve(call),
                Action::Input(stream, piece) => {
                    self.with(stream, |running| running.exchange.input(piece));
                }
                Action::InputEnd(stream, end) => {
                    self.with(stream, |running| running.exchange.input_end(&end));
                }
                Action::Update(stream, deadline, waiters) => {
                    self.with(stream, |running| running.exchange.update(deadline, waiters));
                }
                Action::Released(stream, charge) => {
                    self.with(stream, |running| running.exchange.released(charge));
                }
                Action::Cancel(stream, reason) => self.with(stream, |running| {
                    running.exchange.close(reason);
                    running.task.abort();
                }),
                Action::Forget(stream) => self.forget(stream),
                Action::Registered(broker) => {
                    if let Some(on_registered) = &self.on_registered {
                        on_registered(&broker);
                    }
                }
            }
        }
        // What a full link made the session say is said in the next pass.
        actions.append(&mut self.actions);
        self.actions = actions;
    }

    fn send(&mut self, now: Instant, broker: BrokerId, message: Message) {
        let link = &mut self.brokers[broker.0];
        if !link.backlog.is_empty() {
            link.backlog.push_back(message);
            return;
        }
        match self.links.send(link.id, &message) {
            SendOutcome::Sent => {}
            SendOutcome::Full => {
                link.backlog.push_back(message);
                let full = Event::Full(broker);
                self.session.step(now, full, &mut self.actions);
            }
            // Down follows by itself.
            SendOutcome::Down => {}
            SendOutcome::TooLong => {
                tracing::error!(kind = message.header.kind.name(), "message too long");
            }
        }
    }

    fn serve(&mut self, call: Call) {
        let Call {
            stream,
            broker,
            deadline,
            request,
        } = call;
        let header = &request.header;
        let exchange = Exchange::new(
            stream,
            Arc::clone(&self.outbox),
            broker,
            header.attempt,
            deadline,
            header.waiters,
        );
        let reply = Reply::new(Arc::clone(&exchange));
        let shared = Arc::clone(&self.shared);
        let handler = handler::handle(self.service.clone(), request, reply, shared);
        let task = self.runtime.spawn(handler);
        if self.running.len() <= stream.index {
            self.running.resize_with(stream.index + 1, || None);
        }
        self.running[stream.index] = Some(Running { exchange, task });
    }

    fn with(&self, stream: StreamId, what: impl FnOnce(&Running)) {
        if let Some(Some(running)) = self.running.get(stream.index) {
            what(running);
        }
    }

    fn forget(&mut self, stream: StreamId) {
        let running = self.running.get_mut(stream.index).and_then(Option::take);
        if let Some(running) = running {
            running.exchange.close(scale0_wire::Reason::SessionEnded);
        }
    }
}

impl<S> Drop for Driver<S> {
    fn drop(&mut self) {
        self.outbox.close();
        self.links.set_linger(LINGER);
        for running in self.running.iter().flatten() {
            running.exchange.close(scale0_wire::Reason::Draining);
            running.task.abort();
        }
    }
}

/// The same message, without the receive buffer where that would be held for little.
fn unpinned(mut message: Message) -> Message {
    let is_kept = matches!(message.header.kind, Kind::Request | Kind::Chunk | Kind::End);
    if is_kept {
        for part in [&mut message.metadata, &mut message.content] {
            if !part.is_empty() && part.len() < PINNED {
                *part = Bytes::copy_from_slice(part);
            }
        }
    }
    message
}
