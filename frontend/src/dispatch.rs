//! Runs a thread's [`Lane`]: one driver task owns the links and moves messages between them and the streams' owners, who are
//! tasks of the same thread. No decision is made here.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use scale0_transport::{
    Context as Sockets, Endpoint, Hub, Incoming, LinkId, LinkOptions, Links, Neighbours, Port,
    SendOutcome, TransportError,
};
use scale0_wire::{End, Message, OtherBroker, Reason};
use tokio::time::{Sleep, sleep_until};

use crate::clock;
use crate::config::Brokers;
use crate::frontend::LaneSnapshot;
use crate::session::{Action, Delivery, Failure, Lane, OpenRequest, StreamId};

/// Messages taken in before others get their turn.
const BATCH: usize = 256;

/// Messages that may wait for a link that takes no more. Windows bound their bytes; so many small ones mean that the broker
/// has stopped reading, and its link is dropped.
const LINK_BACKLOG: usize = 64 * 1024;

/// A thread's way to the brokers. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Dispatcher(Rc<Shared>);

struct Shared {
    lane: RefCell<Lane>,
    /// By the streams' seats.
    owners: RefCell<Vec<Seat>>,
    outbox: RefCell<VecDeque<(LinkId, Message)>>,
    redials: RefCell<Vec<LinkId>>,
    /// Brokers that others have named.
    named: RefCell<Vec<(LinkId, OtherBroker)>>,
    closed: RefCell<Vec<LinkId>>,
    /// Reused, so that a step allocates nothing.
    actions: RefCell<Vec<Action>>,
    driver: RefCell<Option<Waker>>,
    /// Set when `driver` was woken and has not run yet.
    awake: Cell<bool>,
    backlog_dropped: Cell<u64>,
    backstop_saves: Cell<u64>,
    too_long: Cell<u64>,
}

/// A stream and who owns it, if the seat is taken.
type Seat = Option<(StreamId, Rc<Owner>)>;

/// What has come for a stream and its owner has not taken yet. Its length is bounded by the stream's window and [`JOINED`].
#[derive(Default)]
struct Owner {
    deliveries: RefCell<VecDeque<Delivery>>,
    /// The next piece of the request's content may be handed over; beside the queue, so that it need not wait behind content
    /// that nobody takes.
    ready: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Owner {
    fn register(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            *waker = Some(cx.waker().clone());
        }
    }
}

impl Dispatcher {
    pub(crate) fn new(lane: Lane) -> Self {
        Self(Rc::new(Shared {
            lane: RefCell::new(lane),
            owners: RefCell::default(),
            outbox: RefCell::default(),
            redials: RefCell::default(),
            named: RefCell::default(),
            closed: RefCell::default(),
            actions: RefCell::default(),
            driver: RefCell::default(),
            awake: Cell::new(false),
            backlog_dropped: Cell::new(0),
            backstop_saves: Cell::new(0),
            too_long: Cell::new(0),
        }))
    }

    /// Sends a request. What comes back is polled from the stream; dropping it cancels the request.
    pub(crate) fn open(&self, open: OpenRequest) -> Result<Stream, Failure> {
        let owner = Rc::new(Owner::default());
        let mut actions = self.0.actions.take();
        let opened = self
            .0
            .lane
            .borrow_mut()
            .open(clock::now(), open, &mut actions);
        if let Ok(id) = &opened {
            let mut owners = self.0.owners.borrow_mut();
            let seat = id.seat();
            if owners.len() <= seat {
                owners.resize_with(seat + 1, || None);
            }
            owners[seat] = Some((*id, Rc::clone(&owner)));
        }
        self.0.perform(actions);
        Ok(Stream {
            dispatcher: self.clone(),
            id: opened?,
            owner,
            over: Cell::new(false),
        })
    }

    pub(crate) fn add_broker(&self, link: LinkId) {
        self.0.lane.borrow_mut().add_broker(clock::now(), link);
    }

    /// How things stand, for people.
    pub(crate) fn snapshot(&self) -> LaneSnapshot {
        let lane = self.0.lane.borrow();
        LaneSnapshot {
            brokers: lane.brokers(),
            streams: lane.open_streams(),
            counters: lane.counters,
            backlog_dropped: self.0.backlog_dropped.get(),
            backstop_saves: self.0.backstop_saves.get(),
            too_long: self.0.too_long.get(),
        }
    }

    /// Tells the brokers that this node drains.
    pub(crate) fn drain(&self) {
        self.0.step(|lane, now, actions| lane.drain(now, actions));
    }

    /// Ends the sessions with the brokers; the driver sends what is left and returns.
    pub(crate) fn leave(&self) {
        self.0.step(|lane, now, actions| lane.leave(now, actions));
    }

    /// Moves messages until `until` is ready and what was to be sent is sent. `observe` hears whether a broker takes work.
    pub(crate) async fn drive(
        &self,
        mut wiring: Wiring,
        until: impl Future<Output = ()>,
        observe: impl Fn(bool),
    ) {
        let mut until = std::pin::pin!(until);
        let mut driver = Driver {
            shared: &self.0,
            wiring: &mut wiring,
            timer: None,
            stuck: VecDeque::new(),
        };
        let mut is_over = false;
        poll_fn(|cx| {
            driver.poll(cx);
            observe(self.0.lane.borrow().is_welcome());
            if !is_over && until.as_mut().poll(cx).is_ready() {
                is_over = true;
                // What it had to say is said in the same breath.
                driver.poll(cx);
            }
            if is_over && driver.is_flushed() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}

impl Shared {
    /// Steps the lane and carries out what it answers.
    fn step<T>(&self, step: impl FnOnce(&mut Lane, Instant, &mut Vec<Action>) -> T) -> T {
        let mut actions = self.actions.take();
        let result = step(&mut self.lane.borrow_mut(), clock::now(), &mut actions);
        self.perform(actions);
        result
    }

    fn perform(&self, mut actions: Vec<Action>) {
        for action in actions.drain(..) {
            match action {
                Action::Send(link, message) => self.outbox.borrow_mut().push_back((link, message)),
                Action::Deliver(id, delivery) => self.deliver(id, delivery),
                Action::Redial(link) => self.redials.borrow_mut().push(link),
                Action::Learn(link, other) => self.named.borrow_mut().push((link, other)),
                Action::Close(link) => self.closed.borrow_mut().push(link),
            }
        }
        self.actions.replace(actions);
        let has_work = !self.outbox.borrow().is_empty()
            || !self.redials.borrow().is_empty()
            || !self.named.borrow().is_empty()
            || !self.closed.borrow().is_empty();
        if has_work && !self.awake.replace(true) {
            let driver = self.driver.borrow().clone();
            if let Some(driver) = driver {
                driver.wake();
            }
        }
    }

    fn deliver(&self, id: StreamId, delivery: Delivery) {
        let mut owners = self.owners.borrow_mut();
        let Some(seat) = owners
            .get_mut(id.seat())
            .filter(|seat| seat.as_ref().is_some_and(|(of, _)| *of == id))
        else {
            return;
        };
        let is_last = match &delivery {
            Delivery::End(_) | Delivery::Failed(_) => true,
            Delivery::Head { whole, .. } => *whole,
            Delivery::Ready | Delivery::Told(_) | Delivery::Interim(_) | Delivery::Content(_) => {
                false
            }
        };
        let owner = if is_last {
            seat.take().map(|(_, owner)| owner)
        } else {
            seat.as_ref().map(|(_, owner)| Rc::clone(owner))
        };
        drop(owners);
        if let Some(owner) = owner {
            match delivery {
                Delivery::Ready => owner.ready.set(true),
                delivery => push(&mut owner.deliveries.borrow_mut(), delivery),
            }
            let waker = owner.waker.take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

/// Content is joined with content before it up to this length, so that a stream's window bounds how many deliveries wait, too.
const JOINED: usize = 16 * 1024;

fn push(deliveries: &mut VecDeque<Delivery>, delivery: Delivery) {
    if let Delivery::Content(more) = &delivery
        && let Some(Delivery::Content(last)) = deliveries.back_mut()
        && last.len() + more.len() <= JOINED
    {
        let mut joined = std::mem::take(last)
            .try_into_mut()
            .unwrap_or_else(|shared| {
                let mut own = BytesMut::with_capacity(JOINED);
                own.extend_from_slice(&shared);
                own
            });
        joined.extend_from_slice(more);
        *last = joined.freeze();
        return;
    }
    deliveries.push_back(delivery);
}

/// A thread's links to brokers, and what it takes to make more.
pub(crate) struct Wiring {
    links: Links,
    /// Where the sockets among the links lead.
    ends: Vec<(LinkId, Endpoint)>,
    neighbours: Neighbours,
    options: LinkOptions,
    context: Option<Sockets>,
}

impl Wiring {
    /// No links yet.
    pub(crate) fn new(brokers: &Brokers) -> Self {
        Self {
            links: Links::new(),
            ends: Vec::new(),
            neighbours: Neighbours::new(brokers.endpoints.clone()),
            options: brokers.options.clone(),
            context: brokers.context.clone(),
        }
    }

    /// A link to the broker of this process.
    pub(crate) fn attach(&mut self, hub: Arc<dyn Hub>, locality: u32) -> LinkId {
        self.links.attach(hub, Port::Frontends, locality)
    }

    /// Dials, if there are sockets at all.
    pub(crate) fn dial(&mut self, endpoint: &Endpoint) -> Result<Option<LinkId>, TransportError> {
        let Some(context) = &self.context else {
            return Ok(None);
        };
        let link = self.links.connect(context, endpoint, &self.options)?;
        self.ends.push((link, endpoint.clone()));
        Ok(Some(link))
    }

    /// Dials a broker that another one names, if that can be believed and is news.
    fn learn(&mut self, teller: LinkId, other: &OtherBroker) -> Option<LinkId> {
        let mut ends = self.ends.iter();
        let teller = ends.find(|(link, _)| *link == teller).map(|(_, end)| end);
        let endpoint = self.neighbours.learn(teller, &other.endpoint, other.key)?;
        match self.dial(&endpoint) {
            Ok(link) => {
                tracing::info!(node = other.node, %endpoint, "a broker names another, which is dialled too");
                link
            }
            Err(error) => {
                tracing::warn!(node = other.node, %error, "a broker that another one names cannot be dialled");
                None
            }
        }
    }
}

/// The links of one driver task, and what keeps them from being sent to.
struct Driver<'a> {
    shared: &'a Shared,
    wiring: &'a mut Wiring,
    timer: Option<Pin<Box<Sleep>>>,
    /// Messages that their link has not taken; in order for each link.
    stuck: VecDeque<(LinkId, Message)>,
}

impl Driver<'_> {
    /// Works until there is nothing to do; the waker is woken when there is again.
    fn poll(&mut self, cx: &mut Context<'_>) {
        let registered = self
            .shared
            .driver
            .borrow()
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()));
        if !registered {
            self.shared.driver.replace(Some(cx.waker().clone()));
        }
        loop {
            self.shared.awake.set(true);
            let received = self.receive();
            self.redial();
            self.learn();
            let sent = self.send();
            self.shared.awake.set(false);
            if received == BATCH {
                // More may be there; the streams' owners get their turn first.
                cx.waker().wake_by_ref();
                return;
            }
            if 0 < received || sent {
                continue;
            }
            self.shared
                .backstop_saves
                .set(self.wiring.links.counters().backstop_saves);
            if self.tick(cx) || self.wiring.links.poll_ready(cx).is_ready() {
                continue;
            }
            return;
        }
    }

    fn receive(&mut self) -> usize {
        let mut received = 0;
        while received < BATCH
            && let Some((link, incoming)) = self.wiring.links.receive()
        {
            received += 1;
            self.shared.step(|lane, now, actions| match incoming {
                Incoming::Up => lane.up(now, link, actions),
                Incoming::Down => lane.down(now, link, actions),
                Incoming::Message(message) => lane.receive(now, link, message, actions),
                Incoming::Malformed(error) => {
                    tracing::debug!(%error, "a broker sent what is no message");
                    lane.malformed();
                }
            });
        }
        received
    }

    /// Sends what waits, first what waited before. Returns whether anything was sent.
    fn send(&mut self) -> bool {
        let mut sent = false;
        self.stuck.append(&mut self.shared.outbox.borrow_mut());
        let mut full: Vec<LinkId> = Vec::new();
        let mut left = VecDeque::new();
        while let Some((link, message)) = self.stuck.pop_front() {
            if full.contains(&link) {
                left.push_back((link, message));
                continue;
            }
            match self.wiring.links.send(link, &message) {
                SendOutcome::Sent => sent = true,
                SendOutcome::Full => {
                    full.push(link);
                    left.push_back((link, message));
                }
                // The lane hears of it by `Down`, and repeats what can be repeated.
                SendOutcome::Down => {}
                SendOutcome::TooLong => {
                    self.shared.too_long.set(self.shared.too_long.get() + 1);
                    tracing::error!(
                        kind = message.header.kind.name(),
                        "a message of ours is longer than the protocol allows"
                    );
                }
            }
        }
        self.stuck = left;
        if LINK_BACKLOG < self.stuck.len() {
            self.drop_backlog();
        }
        sent
    }

    /// A broker has stopped reading: what waits for it is dropped with the link, and the lane settles what that means.
    fn drop_backlog(&mut self) {
        let Some((worst, _)) = self.stuck.front() else {
            return;
        };
        let worst = *worst;
        let before = self.stuck.len();
        self.stuck.retain(|(link, _)| *link != worst);
        let dropped = (before - self.stuck.len()) as u64;
        self.shared
            .backlog_dropped
            .set(self.shared.backlog_dropped.get() + dropped);
        tracing::warn!(
            dropped,
            "a broker has stopped reading; its link is dialled anew"
        );
        self.shared.step(|lane, now, actions| {
            lane.down(now, worst, actions);
            actions.push(Action::Redial(worst));
        });
    }

    fn redial(&mut self) {
        let redials = self.shared.redials.take();
        for link in redials {
            self.stuck.retain(|(to, _)| *to != link);
            if let Err(error) = self.wiring.links.redial(link) {
                tracing::warn!(%error, "a broker cannot be dialled anew");
            }
        }
    }

    /// Dials brokers that others have named, and hangs up on those that were named in vain.
    fn learn(&mut self) {
        for link in self.shared.closed.take() {
            self.stuck.retain(|(to, _)| *to != link);
            self.wiring.links.close(link);
        }
        for (teller, other) in self.shared.named.take() {
            let Some(link) = self.wiring.learn(teller, &other) else {
                continue;
            };
            let now = clock::now();
            let mut lane = self.shared.lane.borrow_mut();
            lane.learn_broker(now, link, other.node);
        }
    }

    /// Does what the lane owes, and sees that the next is not missed. Returns whether anything was done.
    fn tick(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = self.shared.lane.borrow().deadline() else {
            return false;
        };
        let now = clock::now();
        if deadline <= now {
            self.shared.step(Lane::tick);
            return true;
        }
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(deadline.into())));
        // A timer that rings too early is cheaper than one that is set anew for every message.
        if deadline < timer.deadline().into_std() || timer.is_elapsed() {
            timer.as_mut().reset(deadline.into());
        }
        timer.as_mut().poll(cx).is_ready()
    }

    fn is_flushed(&self) -> bool {
        self.stuck.is_empty() && self.shared.outbox.borrow().is_empty()
    }
}

/// A request under way. Dropping it cancels what is not over.
pub(crate) struct Stream {
    dispatcher: Dispatcher,
    id: StreamId,
    owner: Rc<Owner>,
    over: Cell<bool>,
}

impl Stream {
    /// What comes next, but for `Ready`. After `End`, `Failed` and a whole `Head` nothing does, and this must not be asked.
    pub(crate) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Delivery> {
        let Some(delivery) = self.owner.deliveries.borrow_mut().pop_front() else {
            self.owner.register(cx);
            return Poll::Pending;
        };
        match &delivery {
            Delivery::End(_) | Delivery::Failed(_) => self.over.set(true),
            Delivery::Head { whole, .. } => self.over.set(*whole),
            Delivery::Ready | Delivery::Told(_) | Delivery::Interim(_) | Delivery::Content(_) => {}
        }
        Poll::Ready(delivery)
    }

    /// Whether the next piece of the request's content may be handed over; it is asked for once for each.
    pub(crate) fn poll_ready(&self, cx: &Context<'_>) -> Poll<()> {
        if self.owner.ready.replace(false) {
            return Poll::Ready(());
        }
        self.owner.register(cx);
        Poll::Pending
    }

    /// Tells that this much content has been passed on, so that more may come.
    pub(crate) fn consume(&self, bytes: usize) {
        if !self.over.get() {
            self.dispatcher
                .0
                .step(|lane, now, actions| lane.consume(now, self.id, bytes, actions));
        }
    }

    /// Tells the broker until when the response is waited for, and by how many.
    pub(crate) fn extend(&self, due: Instant, waiters: usize) {
        self.dispatcher
            .0
            .step(|lane, now, actions| lane.extend(now, self.id, due, waiters, actions));
    }

    /// Hands over a piece of the request's content; once for each time that `poll_ready` was ready.
    pub(crate) fn upload(&self, content: Bytes) {
        self.dispatcher
            .0
            .step(|lane, now, actions| lane.upload(now, self.id, content, actions));
    }

    /// The request's content is all handed over, or broke off.
    pub(crate) fn end_upload(&self, end: &End) {
        self.dispatcher
            .0
            .step(|lane, now, actions| lane.end_upload(now, self.id, end, actions));
    }

    /// Ends the stream for this reason, if it is not over.
    pub(crate) fn cancel(&self, reason: Reason) {
        if !self.over.replace(true) {
            let shared = &self.dispatcher.0;
            let seat = self.id.seat();
            if let Some(seat) = shared.owners.borrow_mut().get_mut(seat)
                && seat.as_ref().is_some_and(|(of, _)| *of == self.id)
            {
                *seat = None;
            }
            shared.step(|lane, now, actions| lane.cancel(now, self.id, reason, actions));
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.cancel(Reason::Cancelled);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_content_that_nobody_takes_is_joined_and_all_there() {
        let mut deliveries = VecDeque::new();
        let byte = |number: usize| Bytes::from(vec![u8::try_from(number % 251).unwrap()]);
        for number in 0..100_000 {
            push(&mut deliveries, Delivery::Content(byte(number)));
        }
        assert_eq!(deliveries.len(), 100_000_usize.div_ceil(JOINED));
        let mut number = 0;
        for delivery in deliveries {
            let Delivery::Content(content) = delivery else {
                panic!("{delivery:?}")
            };
            for found in content {
                assert_eq!(usize::from(found), number % 251);
                number += 1;
            }
        }
        assert_eq!(number, 100_000);
    }
}
