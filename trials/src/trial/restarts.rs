//! A backend that dies and returns under the same name, ten times a second.

use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, sleep, timeout};

use super::Options;
use super::course::{Course, Stage};
use crate::process::PATIENCE;
use crate::sample::Sample;
use crate::site::Site;
use crate::verdict::Verdict;

/// What can be chosen.
#[derive(Clone, Debug, Args)]
pub(crate) struct Arguments {
    /// Seconds; each is ten restarts.
    #[arg(default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Clients that ask, each when it has its answer.
    #[arg(long, default_value_t = 20)]
    clients: usize,
    /// Keep the processes' files.
    #[arg(long)]
    keep: bool,
}

/// From one restart to the next.
const EVERY: Duration = Duration::from_millis(100);

/// How soon each new process must have served something.
const SERVES: Duration = Duration::from_secs(1);

/// How often the ledger is looked at.
const LOOK: Duration = Duration::from_millis(2);

/// A process that dies is noticed at once.
const DETECTION: Duration = Duration::ZERO;

const BACKENDS: &str = "scale0_broker_backends";

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Verdict> {
    let options = Options::with(arguments.seconds, arguments.clients, 2, arguments.keep);
    let mut site = Site::start(options.plan()).await?;
    let brokers = site.plan().brokers;
    let mut begun = Vec::new();
    for broker in 0..brokers {
        begun.push(Sample::of(site.broker(broker)?.pid()?)?);
    }
    let mut served = Vec::new();
    let course = Course::run(
        &mut site,
        &options,
        async |site: &mut Site, stage: &Stage| {
            stage.say("backend-0 is killed and started, again and again");
            while stage.has(EVERY) {
                let started = Instant::now();
                site.backend(0)?.kill().await?;
                site.start_backend(0)?;
                let process = u32::try_from(site.backend(0)?.pid()?.as_raw_pid())?;
                let serves = async {
                    while !site.ledger().has_served(process)? {
                        sleep(LOOK).await;
                    }
                    anyhow::Ok(())
                };
                timeout(PATIENCE, serves).await??;
                served.push(started.elapsed());
                tokio::time::sleep_until(started + EVERY).await;
            }
            stage.say(&format!("{} restarts", served.len()));
            Ok(())
        },
    )
    .await?;
    let mut verdict = super::verdict(&options);
    served.sort_unstable();
    let slowest = served.last().copied().unwrap_or_default();
    verdict.claim(
        format_args!("each new process has served something within {SERVES:?}"),
        !served.is_empty() && slowest <= SERVES,
        format_args!(
            "{slowest:.1?} at most, {:.1?} the median of {}",
            crate::outcomes::quantile(&served, 0.5),
            served.len()
        ),
    );
    course.judge_safety(&mut verdict);
    // What dies with each process, fifty milliseconds' work ten times a second, is a good part of all.
    verdict.tell(format_args!("throughput: {}", course.throughput().1));
    course.judge_slowest(&mut verdict, DETECTION);
    for (broker, then) in begun.iter().enumerate() {
        site.until_metric(broker, BACKENDS, |it| it == 2.0).await?;
        let now = Sample::settled(site.broker(broker)?.pid()?, then).await?;
        verdict.claim(
            format_args!("broker-{broker}: as many descriptors as before"),
            now.descriptors <= then.descriptors,
            format_args!(
                "{} then, {} now; {:.1} MiB then, {:.1} MiB now",
                then.descriptors,
                now.descriptors,
                then.resident as f64 / f64::from(1 << 20),
                now.resident as f64 / f64::from(1 << 20)
            ),
        );
    }
    course.tell(&mut verdict);
    super::finish(site, options.keep, &mut verdict);
    Ok(verdict)
}
