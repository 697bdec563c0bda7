//! A backend that is let in, grants credit, and then reads nothing of what it is sent.

use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use scale0_benches::Session;
use scale0_wire::{Kind, Message, RoutingHeader, limits};
use tokio::time::sleep;

use super::Options;
use super::pairs::Pairs;
use crate::load::{Clients, Shape};
use crate::messages::{ASKED, Answerer, Tally, ask};
use crate::outcomes::Outcomes;
use crate::sample::Sample;
use crate::site::{Plan, Side, Site};
use crate::verdict::Verdict;

/// What can be chosen.
#[derive(Clone, Debug, Args)]
pub(crate) struct Arguments {
    /// Seconds that others' latency is measured in all, in twenty turns: five pairs alike and five with the stuck one.
    #[arg(default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Clients of the others, each of which asks when it has its answer.
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// Idle backends, whose memory at the broker is judged.
    #[arg(long, default_value_t = 200)]
    idle: u32,
    /// Messages that are then routed between others while it is stuck: half of them requests, half answers.
    #[arg(long, default_value_t = 10_000_000)]
    messages: u64,
    /// Keep the processes' files.
    #[arg(long)]
    keep: bool,
}

/// The service that only the stuck one offers.
const STUCK: &str = "stuck.example";

/// The service that all idle ones offer.
const IDLES: &str = "idle.example";

/// What it grants, and is sent: all of it is unread.
const CREDIT: u32 = 512;

/// Bytes of content of each of these requests.
const SIZE: usize = 16 * 1024;

/// That content.
const CONTENT: Bytes = Bytes::from_static(&[b'.'; SIZE]);

/// Requests to it are given up after this: a turn begins when nobody waits any more for what the stuck one was sent.
const GIVEN_UP: Duration = Duration::from_millis(300);

/// What the broker may hold for an idle backend.
const IDLE: u64 = 64 << 10;

/// What the broker may hold for the stuck one: what its credit let it be sent, and what a stuck peer may cost besides.
const UNREAD: u64 = CREDIT as u64 * (SIZE as u64 + HEAD) + limits::CONNECTION_WINDOW_MAX as u64;

/// What a request is besides its content, at most.
const HEAD: u64 = 1 << 10;

/// Pairs of each kind.
const ROUNDS: u32 = 5;

/// What is not told from chance.
const TOLERANCE: f64 = 0.05;

/// A backend that says what it must and hears nothing.
struct Deaf {
    session: Session,
    socket: zmq::Socket,
}

impl Deaf {
    /// Dials a broker and offers this service with so much credit.
    fn dial(
        context: &zmq::Context,
        broker: &str,
        number: u64,
        service: &str,
        credit: u32,
    ) -> anyhow::Result<Self> {
        let socket = context.socket(zmq::DEALER)?;
        socket.set_linger(0)?;
        // It takes in one message; the next ones fill what lies between us, and then wait at the broker.
        socket.set_rcvhwm(1)?;
        socket.connect(broker)?;
        let mut session = Session::backend(number, credit);
        for message in session.open_offering(&[service.to_owned()]) {
            send(&socket, &message)?;
        }
        Ok(Self { session, socket })
    }

    /// Shows that it lives.
    fn speak(&self) -> anyhow::Result<()> {
        let credit = Message::new(RoutingHeader::new(Kind::Credit));
        send(&self.socket, &self.session.stamp(credit))
    }
}

fn send(socket: &zmq::Socket, message: &Message) -> anyhow::Result<()> {
    let mut frame = Vec::new();
    message.encode(&mut frame)?;
    Ok(socket.send(frame, zmq::DONTWAIT)?)
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Verdict> {
    let plan = Plan {
        brokers: 1,
        service_time: Duration::from_millis(1),
        impatient: Some((STUCK, GIVEN_UP)),
        ..Options::with(arguments.seconds, 0, 2, arguments.keep).plan()
    };
    let mut site = Site::start(plan).await?;
    let mut verdict = Verdict::default();
    let context = zmq::Context::new();
    let broker = site.address(0, Side::Backends);
    let pid = site.broker(0)?.pid()?;
    let others = site.clients(50);
    let turn = Duration::from_secs(arguments.seconds) / (ROUNDS * 4);
    // Memory that the broker takes for requests is not what an idle backend costs.
    measure(&others, arguments.clients, turn).await;

    let sessions = site.metric(0, "scale0_broker_backends").await?;
    let before = Sample::of(pid)?.resident;
    let mut idle = Vec::new();
    for number in 0..arguments.idle {
        let number = 1000 + u64::from(number);
        idle.push(Deaf::dial(&context, &broker, number, IDLES, 1)?);
    }
    let all = sessions + f64::from(arguments.idle);
    site.until_metric(0, "scale0_broker_backends", |it| all <= it)
        .await?;
    let each =
        (Sample::of(pid)?.resident.saturating_sub(before)) / u64::from(arguments.idle.max(1));
    verdict.claim(
        format_args!(
            "the broker's memory per idle backend within {} KiB",
            IDLE >> 10
        ),
        each <= IDLE,
        format_args!("{:.1} KiB of {}", each as f64 / 1024.0, arguments.idle),
    );

    let base = Sample::of(pid)?.resident;
    let (mut medians, mut lates, mut all) = (Pairs::default(), Pairs::default(), Vec::new());
    let mut held = Vec::new();
    for round in 0..ROUNDS {
        // Pairs alike, and pairs with the stuck one, which is the first of a pair as often as the second.
        let is_first = round % 2 == 1;
        let mut figures = Vec::new();
        for (index, is_stuck) in [false, false, is_first, !is_first].into_iter().enumerate() {
            let stuck = if is_stuck {
                let number = 1 + u64::from(round);
                let stuck = Deaf::dial(&context, &broker, number, STUCK, CREDIT)?;
                fill(&mut site, &others).await?;
                Some(stuck)
            } else {
                None
            };
            eprintln!("round {}, turn {}: stuck: {is_stuck}", round + 1, index + 1);
            let begun = others.now();
            let outcomes = measure(&others, arguments.clients, turn).await;
            // Connections are opened first.
            let during = begun + turn / 4..others.now();
            figures.push([0.5, 0.99].map(|part| outcomes.quantile(&during, part).as_secs_f64()));
            all.push(outcomes);
            if is_stuck {
                held.push(Sample::of(pid)?.resident.saturating_sub(base));
            }
            for deaf in idle.iter().chain(&stuck) {
                deaf.speak()?;
            }
        }
        if is_first {
            figures.swap(2, 3);
        }
        for (pairs, part) in [(&mut medians, 0), (&mut lates, 1)] {
            let [a, b, c, d] = [0, 1, 2, 3].map(|turn: usize| figures[turn][part]);
            pairs.add([a, b], [c, d]);
        }
    }
    let requests: usize = all.iter().map(Outcomes::len).sum();
    let lost = all
        .iter()
        .flat_map(Outcomes::iter)
        .filter(|it| !it.is_good())
        .count();
    verdict.claim(
        "requests of others that failed: 0",
        lost == 0,
        format_args!("{lost} of {requests}"),
    );
    let executions = site.ledger().executions()?;
    let unlike_one = all.iter().flat_map(Outcomes::iter);
    let unlike_one = unlike_one
        .filter(|it| executions.get(&it.id) != Some(&1))
        .count();
    verdict.claim(
        "requests of others not executed exactly once: 0",
        unlike_one == 0,
        unlike_one,
    );
    verdict.claim(
        "others' median latency is unmoved",
        medians.are_unmoved(TOLERANCE),
        &medians,
    );
    verdict.claim(
        "others' p99 is unmoved",
        lates.are_unmoved(TOLERANCE),
        &lates,
    );
    verdict.claim(
        format_args!(
            "the broker's memory for the stuck one within {} MiB",
            UNREAD >> 20
        ),
        held.iter().all(|held| *held <= UNREAD),
        format_args!(
            "{:?} KiB each time",
            held.iter().map(|it| it >> 10).collect::<Vec<_>>()
        ),
    );

    let stuck = Deaf::dial(&context, &broker, 1 + u64::from(ROUNDS), STUCK, CREDIT)?;
    fill(&mut site, &others).await?;
    let tally = route(&mut site, arguments.messages / 2, &stuck).await?;
    verdict.claim(
        "messages routed between others that were lost or came twice: 0",
        tally.answered == tally.asked && tally.surplus == 0,
        format_args!(
            "{} requests, {} answers, {} of them surplus, {} refusals",
            tally.asked, tally.answered, tally.surplus, tally.refused
        ),
    );
    let held = Sample::of(pid)?.resident.saturating_sub(base);
    verdict.claim(
        "the broker's memory is no larger after them",
        held <= UNREAD,
        format_args!("{} KiB", held >> 10),
    );
    super::finish(site, arguments.keep, &mut verdict);
    Ok(verdict)
}

/// Has so many requests answered, while the stuck one shows that it lives.
async fn route(site: &mut Site, requests: u64, stuck: &Deaf) -> anyhow::Result<Tally> {
    let answerer = Answerer::start(&site.address(0, Side::Backends))?;
    has_backend(site, ASKED).await?;
    let broker = site.address(0, Side::Frontends);
    let mut asked = tokio::task::spawn_blocking(move || ask(&broker, requests));
    let mut beats = tokio::time::interval(limits::HEARTBEAT);
    let tally = loop {
        tokio::select! {
            tally = &mut asked => break tally??,
            _ = beats.tick() => stuck.speak()?,
        }
    };
    answerer.end()?;
    Ok(tally)
}

async fn has_backend(site: &mut Site, service: &str) -> anyhow::Result<()> {
    let metric = format!("scale0_broker_service_backends{{service=\"{service}\"}}");
    site.until_metric(0, &metric, |it| 1.0 <= it).await
}

/// Has the stuck one be sent all that it has granted, and waits until nobody waits for it.
async fn fill(site: &mut Site, others: &Clients) -> anyhow::Result<()> {
    has_backend(site, STUCK).await?;
    let askers = others.of(STUCK, CONTENT);
    let clients = CREDIT as usize;
    // Each asks once: it is told to end when it has begun.
    askers.start(Shape::Closed { clients }).end().await;
    Ok(())
}

/// What becomes of others' requests in so much time.
async fn measure(others: &Clients, clients: usize, turn: Duration) -> Outcomes {
    let load = others.start(Shape::Closed { clients });
    sleep(turn).await;
    load.end().await
}
