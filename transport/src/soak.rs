//! At the edge of the high-water mark, with both bridges: every message arrives, and it was never the backstop that saw to it.
//!
//! `SCALE0_SOAK` multiplies the number of messages. Two mistakes can be made on purpose, to show that the soak finds them.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use scale0_wire::{Kind, Message, RoutingHeader};

use crate::{
    Context, Endpoint, Incoming, LinkCounters, LinkId, LinkOptions, Links, PeerId, Router,
    RouterCounters, RouterOptions, SendOutcome, ThreadWaker, clock, wait,
};

/// A mistake that loses wake-ups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    None,
    /// A send takes in the signal of what came meanwhile, and nobody looks.
    NotLookingAfterSend,
    /// A send was refused, a receive takes in that there is room again, and nobody asks.
    NotAskingForRoom,
}

thread_local! {
    static MISTAKE: Cell<Mistake> = const { Cell::new(Mistake::None) };
}

impl Mistake {
    /// Whether this thread makes it.
    pub(crate) fn is_made(self) -> bool {
        MISTAKE.get() == self
    }
}

const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug)]
enum Bridge {
    Tokio,
    Thread,
}

/// How many links there are, and how many messages each sends and receives.
#[derive(Clone, Copy, Debug)]
struct Plan {
    links: usize,
    high_water_mark: usize,
    to_router: u64,
    to_links: u64,
    /// How far a link sends ahead of what it receives; the router then only answers.
    window: Option<u64>,
    /// One pass in this many takes its time, up to 3 ms.
    dawdle: u64,
}

impl Plan {
    fn new(to_router: u64, to_links: u64) -> Self {
        let times = std::env::var("SCALE0_SOAK").map_or(1, |times| times.parse().unwrap());
        Self {
            links: 2,
            high_water_mark: 3,
            to_router: (to_router * times).max(1),
            to_links: to_links * times,
            window: None,
            dawdle: 32,
        }
    }

    fn question_and_answer() -> Self {
        Self {
            // A second one's traffic would wake whoever missed the first one's.
            links: 1,
            // At a low one, libzmq's word that there is room would wake it too.
            high_water_mark: 1_000,
            window: Some(2),
            ..Self::new(3_000, 3_000)
        }
    }

    /// How many a link may have sent by now.
    fn link_goal(self, tally: &Tally) -> u64 {
        let ahead = self.window.map(|window| tally.received + window);
        ahead.unwrap_or(u64::MAX).min(self.to_router)
    }

    /// How many the router may have sent to a peer by now.
    fn router_goal(self, tally: &Tally) -> u64 {
        let answers = self.window.map(|_| tally.received);
        answers.unwrap_or(u64::MAX).min(self.to_links)
    }
}

/// Passes of different lengths, the same ones every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    /// Long enough, now and then, that the next send looks into the socket's mailbox; libzmq does so once a millisecond.
    fn dawdle(&mut self, plan: Plan) {
        if self.roll(plan.dawdle) == 0 {
            let until = clock::now() + Duration::from_micros(self.roll(3_000));
            while clock::now() < until {
                std::hint::spin_loop();
            }
        }
    }
}

/// One side of one connection.
#[derive(Default)]
struct Tally {
    sent: u64,
    received: u64,
    /// There was no room for the last one.
    refused: bool,
}

impl Tally {
    fn next(&self) -> Message {
        let content = vec![0; usize::try_from(self.sent * 37 % 3_000).unwrap()];
        Message::new(RoutingHeader {
            correlation: self.sent,
            ..RoutingHeader::new(Kind::Chunk)
        })
        .with_content(content.into())
    }

    fn take(&mut self, message: &Message) {
        assert_eq!(
            message.header.correlation, self.received,
            "all, and in order"
        );
        self.received += 1;
    }

    /// Sends a few, or until there is no room.
    fn send(&mut self, goal: u64, few: u64, mut send: impl FnMut(&Message) -> SendOutcome) {
        self.refused = false;
        for _ in 0..few.min(goal - self.sent) {
            match send(&self.next()) {
                SendOutcome::Sent => self.sent += 1,
                SendOutcome::Full => {
                    self.refused = true;
                    return;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Whether it can go on without anything coming in.
    const fn may_send(&self, goal: u64) -> bool {
        self.sent < goal && !self.refused
    }
}

/// Serves until every link has gone.
fn serve(mut router: Router, plan: Plan) -> RouterCounters {
    let waker = ThreadWaker::new().unwrap();
    let mut dice = Dice(0x9e37_79b9);
    let mut peers: HashMap<PeerId, Tally> = HashMap::new();
    let mut gone = 0;
    let deadline = clock::now() + PATIENCE;
    while gone < plan.links {
        assert!(clock::now() < deadline, "stuck");
        while let Some((peer, incoming)) = router.receive() {
            match incoming {
                Incoming::Message(message) => peers.entry(peer).or_default().take(&message),
                Incoming::Down => {
                    peers.remove(&peer);
                    gone += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        dice.dawdle(plan);
        for (&peer, tally) in &mut peers {
            let few = 1 + dice.roll(5);
            // A link that gives up early leaves its peer in the middle of a sentence.
            tally.send(plan.router_goal(tally), few, |message| {
                match router.send(peer, message) {
                    SendOutcome::Down => SendOutcome::Full,
                    outcome => outcome,
                }
            });
        }
        if !peers
            .values()
            .any(|tally| tally.may_send(plan.router_goal(tally)))
        {
            wait(std::slice::from_ref(&router), &waker, Some(deadline)).unwrap();
        }
    }
    router.counters()
}

/// The dialling side's work between two waits. Returns whether it is done.
struct Work {
    links: Links,
    tallies: Vec<(LinkId, Tally)>,
    dice: Dice,
    plan: Plan,
    deadline: Instant,
}

impl Work {
    fn new(context: &Context, endpoint: &Endpoint, plan: Plan) -> Self {
        let options = LinkOptions {
            send_high_water_mark: plan.high_water_mark,
            receive_high_water_mark: plan.high_water_mark,
            ..LinkOptions::default()
        };
        let mut links = Links::new();
        for _ in 0..plan.links {
            links.connect(context, endpoint, &options).unwrap();
        }
        Self {
            links,
            tallies: Vec::new(),
            dice: Dice(0x2545_f491),
            plan,
            deadline: clock::now() + PATIENCE,
        }
    }

    fn pass(&mut self) -> Option<LinkCounters> {
        assert!(clock::now() < self.deadline, "stuck");
        self.receive();
        self.dice.dawdle(self.plan);
        self.send();
        if self.dice.roll(2) == 0 {
            self.dice.dawdle(self.plan);
            self.receive();
        }
        let done = |(_, tally): &(LinkId, Tally)| {
            tally.sent == self.plan.to_router && tally.received == self.plan.to_links
        };
        let all = self.tallies.len() == self.plan.links && self.tallies.iter().all(done);
        // A mistake has been found: that is all that was wanted.
        let found = MISTAKE.get() != Mistake::None && 0 < self.links.counters().backstop_saves;
        (all || found).then(|| {
            self.links.set_linger(PATIENCE);
            self.links.counters()
        })
    }

    fn receive(&mut self) {
        while let Some((link, incoming)) = self.links.receive() {
            match incoming {
                Incoming::Up => self.tallies.push((link, Tally::default())),
                Incoming::Message(message) => {
                    let of = self.tallies.iter_mut().find(|(id, _)| *id == link);
                    of.unwrap().1.take(&message);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn send(&mut self) {
        for (link, tally) in &mut self.tallies {
            let (few, goal) = (1 + self.dice.roll(5), self.plan.link_goal(tally));
            tally.send(goal, few, |message| self.links.send(*link, message));
        }
    }

    /// Whether the next pass has something to do without anything coming in.
    fn may_send(&self) -> bool {
        let may_send = |tally: &Tally| tally.may_send(self.plan.link_goal(tally));
        self.tallies.iter().any(|(_, tally)| may_send(tally))
    }
}

fn soak(bridge: Bridge, plan: Plan, mistake: Mistake) -> (LinkCounters, RouterCounters) {
    let context = Context::new(1).unwrap();
    let options = RouterOptions {
        send_high_water_mark: plan.high_water_mark,
        receive_high_water_mark: plan.high_water_mark,
        ..RouterOptions::default()
    };
    let router =
        Router::bind(&context, &"tcp://127.0.0.1:*".parse().unwrap(), 0, &options).unwrap();
    let endpoint = router.local_endpoint().parse().unwrap();
    let (counted, counters) = mpsc::channel();
    let dialling = thread::spawn(move || {
        MISTAKE.set(mistake);
        let mut work = Work::new(&context, &endpoint, plan);
        match bridge {
            Bridge::Tokio => {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                runtime.unwrap().block_on(async {
                    loop {
                        if let Some(result) = work.pass() {
                            counted.send(result).unwrap();
                            // Dropped in here, where its descriptors are registered.
                            drop(work);
                            break;
                        }
                        if work.may_send() {
                            tokio::task::yield_now().await;
                        } else {
                            work.links.ready().await;
                        }
                    }
                });
            }
            Bridge::Thread => {
                let waker = ThreadWaker::new().unwrap();
                let result = loop {
                    if let Some(result) = work.pass() {
                        break result;
                    }
                    if !work.may_send() {
                        work.links.wait(&waker, None).unwrap();
                    }
                };
                counted.send(result).unwrap();
            }
        }
    });
    let of_router = serve(router, plan);
    dialling.join().unwrap();
    (counters.recv().unwrap(), of_router)
}

fn all_arrive_without_the_backstop(bridge: Bridge, plan: Plan) {
    let (of_links, of_router) = soak(bridge, plan, Mistake::None);
    assert!(
        0 < of_links.full + of_router.full,
        "the high-water mark was never reached"
    );
    assert_eq!(of_links.backstop_saves, 0);
    assert_eq!(of_router.backstop_saves, 0);
}

#[test]
fn both_ways_at_the_high_water_mark_on_a_task() {
    all_arrive_without_the_backstop(Bridge::Tokio, Plan::new(10_000, 10_000));
}

#[test]
fn both_ways_at_the_high_water_mark_on_a_thread() {
    all_arrive_without_the_backstop(Bridge::Thread, Plan::new(10_000, 10_000));
}

#[test]
fn one_way_at_the_high_water_mark_only_room_wakes_a_task() {
    all_arrive_without_the_backstop(Bridge::Tokio, Plan::new(10_000, 0));
}

#[test]
fn one_way_at_the_high_water_mark_only_room_wakes_a_thread() {
    all_arrive_without_the_backstop(Bridge::Thread, Plan::new(10_000, 0));
}

#[test]
fn one_way_at_the_high_water_mark_only_room_wakes_the_router() {
    all_arrive_without_the_backstop(Bridge::Tokio, Plan::new(1, 10_000));
}

#[test]
fn question_and_answer_on_a_task_and_on_a_thread() {
    for bridge in [Bridge::Tokio, Bridge::Thread] {
        let (of_links, of_router) = soak(bridge, Plan::question_and_answer(), Mistake::None);
        assert_eq!((of_links.backstop_saves, of_router.backstop_saves), (0, 0));
    }
}

/// The mistake is found by being saved from it.
fn is_found(mistake: Mistake, bridge: Bridge, plan: Plan) {
    let plan = Plan { dawdle: 3, ..plan };
    let (of_links, _) = soak(bridge, plan, mistake);
    assert!(
        0 < of_links.backstop_saves,
        "the soak did not find {mistake:?} on {bridge:?}"
    );
}

#[test]
fn the_soak_finds_a_send_after_which_nobody_looks() {
    for bridge in [Bridge::Tokio, Bridge::Thread] {
        is_found(
            Mistake::NotLookingAfterSend,
            bridge,
            Plan::question_and_answer(),
        );
    }
}

#[test]
fn the_soak_finds_a_refusal_after_which_nobody_asks_for_room() {
    for bridge in [Bridge::Tokio, Bridge::Thread] {
        is_found(Mistake::NotAskingForRoom, bridge, Plan::new(10_000, 0));
    }
}
