//! Backends or brokers that die without a word, again and again.

use std::time::Duration;

use clap::Args;

use super::course::{Course, Stage};
use super::{Options, verdict};
use crate::site::Site;
use crate::verdict::Verdict;

/// What can be chosen.
#[derive(Clone, Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Milliseconds from one kill to the next; 2,000 for backends, 5,000 for brokers.
    #[arg(long)]
    every_ms: Option<u64>,
}

/// A process that dies is noticed at once: its connections end.
const DETECTION: Duration = Duration::ZERO;

pub(super) async fn backend(arguments: Arguments) -> anyhow::Result<Verdict> {
    let every = Duration::from_millis(arguments.every_ms.unwrap_or(2_000));
    run(
        &arguments.options,
        async |site: &mut Site, stage: &Stage| {
            let mut kills = 0;
            while stage.has(every) {
                let index = kills % site.plan().backends;
                stage.say(&format!("kill -9 of backend-{index}"));
                site.backend(index)?.kill().await?;
                site.start_backend(index)?;
                site.until_registered(index).await?;
                kills += 1;
                stage.until(every * u32::try_from(kills)?).await;
            }
            Ok(())
        },
    )
    .await
}

pub(super) async fn broker(arguments: Arguments) -> anyhow::Result<Verdict> {
    let every = Duration::from_millis(arguments.every_ms.unwrap_or(5_000));
    run(
        &arguments.options,
        async |site: &mut Site, stage: &Stage| {
            let mut kills = 0;
            while stage.has(every) {
                let index = kills % site.plan().brokers;
                stage.say(&format!("kill -9 of broker-{index}"));
                site.broker(index)?.kill().await?;
                site.start_broker(index).await?;
                site.until_metric(index, "scale0_broker_answered_total", |it| 0.0 < it)
                    .await?;
                stage.say(&format!("broker-{index} answers again"));
                kills += 1;
                stage.until(every * u32::try_from(kills)?).await;
            }
            Ok(())
        },
    )
    .await
}

async fn run(
    options: &Options,
    disturb: impl AsyncFnOnce(&mut Site, &Stage) -> anyhow::Result<()>,
) -> anyhow::Result<Verdict> {
    let mut site = Site::start(options.plan()).await?;
    let course = Course::run(&mut site, options, disturb).await?;
    let mut verdict = verdict(options);
    course.judge_safety(&mut verdict);
    course.judge_throughput(&mut verdict);
    course.judge_slowest(&mut verdict, DETECTION);
    course.tell(&mut verdict);
    super::finish(site, options.keep, &mut verdict);
    Ok(verdict)
}
