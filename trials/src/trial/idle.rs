//! A site that nobody asks: what it costs to be there, and to have been dialled anew many times.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use rustix::process::Pid;
use tokio::time::{Instant, sleep, timeout};

use super::Options;
use crate::process::PATIENCE;
use crate::relay::Relay;
use crate::sample::Sample;
use crate::site::{Plan, Side, Site};
use crate::verdict::Verdict;

/// What can be chosen.
#[derive(Clone, Debug, Args)]
pub(crate) struct Arguments {
    /// Seconds: half of it is left alone, in the other half all links are closed again and again.
    #[arg(default_value_t = 60, value_parser = clap::value_parser!(u64).range(2..))]
    seconds: u64,
    /// Percent of a processor that an idle process may use.
    #[arg(long, default_value_t = 1.0)]
    percent: f64,
    /// Keep the processes' files.
    #[arg(long)]
    keep: bool,
}

/// What is not counted: a process that has just started is not idle yet.
const WARM_UP: Duration = Duration::from_millis(500);

/// How often something is looked at that cannot be waited for.
const LOOK: Duration = Duration::from_millis(2);

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Verdict> {
    let half = Duration::from_secs(arguments.seconds) / 2;
    let plan = Plan {
        relayed: true,
        ..Options::with(arguments.seconds, 0, 3, arguments.keep).plan()
    };
    let mut site = Site::start(plan).await?;
    let mut verdict = Verdict::default();
    sleep(WARM_UP).await;

    let pids: BTreeMap<String, Pid> = site
        .processes()
        .into_iter()
        .map(|(name, process)| Ok((name, process.pid()?)))
        .collect::<anyhow::Result<_>>()?;
    let before = samples(&pids)?;
    let begun = Instant::now();
    eprintln!("left alone for {half:?}");
    sleep(half).await;
    let (after, seconds) = (samples(&pids)?, begun.elapsed().as_secs_f64());
    for (name, now) in &after {
        let then = &before[name];
        let used = (now.processor - then.processor).as_secs_f64() / seconds;
        let woken = (now.switches - then.switches) as f64 / seconds;
        verdict.claim(
            format_args!(
                "{name} idle: at most {} % of a processor",
                arguments.percent
            ),
            used * 100.0 <= arguments.percent,
            format_args!(
                "{:.2} %, woken {woken:.1}/s, {} threads, {} descriptors, {:.1} MiB",
                used * 100.0,
                now.threads,
                now.descriptors,
                mib(now.resident)
            ),
        );
    }

    let (redials, slowest) = redial(&mut site, half).await?;
    verdict.tell(format_args!(
        "all links closed and dialled anew {redials} times, within {slowest:.2?} at most"
    ));
    for (name, then) in &after {
        let now = Sample::settled(pids[name], then).await?;
        verdict.claim(
            format_args!("{name}: as many descriptors and threads as before"),
            now.has_no_more_than(then),
            format_args!(
                "{} then, {} now; {} threads then, {} now; {:.1} MiB then, {:.1} MiB now",
                then.descriptors,
                now.descriptors,
                then.threads,
                now.threads,
                mib(then.resident),
                mib(now.resident)
            ),
        );
    }
    super::finish(site, arguments.keep, &mut verdict);
    Ok(verdict)
}

/// One side of a broker, whose links go through a relay.
struct Door {
    broker: usize,
    side: Side,
    /// Links of it.
    links: usize,
}

impl Door {
    fn relay<'a>(&self, site: &'a Site) -> anyhow::Result<&'a Relay> {
        site.relay(self.broker, self.side)
            .context("its links go through relays")
    }

    /// Sessions on its links, as the broker sees it.
    fn metric(&self) -> &'static str {
        match self.side {
            Side::Frontends => "scale0_broker_frontends",
            Side::Backends => "scale0_broker_backends",
        }
    }
}

/// Closes all links and waits until all are back, for so long; how often, and how long it took at most.
async fn redial(site: &mut Site, time: Duration) -> anyhow::Result<(usize, Duration)> {
    let mut doors = Vec::new();
    for broker in 0..site.plan().brokers {
        for side in [Side::Frontends, Side::Backends] {
            // Nothing has been closed yet, so each link was dialled once.
            let links = site.relay(broker, side).map_or(0, Relay::relayed);
            doors.push(Door {
                broker,
                side,
                links,
            });
        }
    }
    eprintln!("links are closed and dialled anew for {time:?}");
    let (begun, mut redials, mut slowest) = (Instant::now(), 0, Duration::ZERO);
    while begun.elapsed() < time {
        let cut = Instant::now();
        redials += 1;
        for door in &doors {
            door.relay(site)?.cut();
        }
        for door in &doors {
            let dialled = async {
                while door.relay(site)?.relayed() < door.links * (redials + 1) {
                    sleep(LOOK).await;
                }
                anyhow::Ok(())
            };
            timeout(PATIENCE, dialled)
                .await
                .context("links stay closed")??;
            let all = |sessions| sessions == door.links as f64;
            site.until_metric(door.broker, door.metric(), all).await?;
        }
        slowest = slowest.max(cut.elapsed());
    }
    Ok((redials, slowest))
}

/// What each process uses now.
fn samples(of: &BTreeMap<String, Pid>) -> anyhow::Result<BTreeMap<String, Sample>> {
    let sample = |(name, pid): (&String, &Pid)| Ok((name.clone(), Sample::of(*pid)?));
    of.iter().map(sample).collect()
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
