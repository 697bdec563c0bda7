//! Links that are cut and healed while the processes at both ends live.

use std::time::Duration;

use anyhow::ensure;
use clap::{Args, ValueEnum};
use tokio::time::{Instant, sleep};

use super::course::{Course, SILENCE, Stage};
use super::{Options, verdict};
use crate::network::{Cable, Cut};
use crate::site::{Plan, Site};
use crate::verdict::Verdict;

/// What can be chosen.
#[derive(Clone, Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Which links are cut: each of these in turn.
    #[arg(long, value_enum, default_values_t = [Links::Backend, Links::Frontends, Links::Backends])]
    links: Vec<Links>,
    /// How: each of these in turn.
    #[arg(long, value_enum, default_values_t = [Cut::Silent])]
    how: Vec<Cut>,
    /// Milliseconds that a link stays cut; then it is whole for as long.
    #[arg(long, default_value_t = 5_000)]
    cut_ms: u64,
}

/// Which links of a broker are cut; its others stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Links {
    /// The one to one of its backends.
    Backend,
    /// Those to all frontends.
    Frontends,
    /// Those to all backends.
    Backends,
}

impl Links {
    /// Those of this broker.
    fn of(self, broker: usize, site: &mut Site) -> Vec<&mut Cable> {
        match self {
            Self::Backend => site
                .cables_to_backends(broker)
                .into_iter()
                .take(1)
                .collect(),
            Self::Frontends => site.cables_to_frontends(broker),
            Self::Backends => site.cables_to_backends(broker),
        }
    }

    /// Of the cut broker, how many it has of these.
    fn metric(self) -> &'static str {
        match self {
            Self::Frontends => "scale0_broker_frontends",
            Self::Backend | Self::Backends => "scale0_broker_backends",
        }
    }
}

/// Counts what the broker has answered.
const ANSWERED: &str = "scale0_broker_answered_total";

/// How soon a healed link must be used again.
const RETURN: Duration = Duration::from_secs(1);

/// The throughput is judged where a cut has so much time; in less, it is mostly the time to notice.
const JUDGED_FROM: Duration = Duration::from_secs(20);

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Verdict> {
    let Arguments {
        options,
        links,
        how,
        cut_ms,
    } = arguments;
    ensure!(
        options.latency_ms.is_none(),
        "--latency-ms is for links without cables"
    );
    let plan = Plan {
        apart: true,
        ..options.plan()
    };
    let mut site = Site::start(plan).await?;
    let cut_for = Duration::from_millis(cut_ms);
    let ways: Vec<(Links, Cut)> = links
        .iter()
        .flat_map(|links| how.iter().map(move |how| (*links, *how)))
        .collect();
    // Each way once, evenly over the time; and again if there is more.
    let cycle = (cut_for * 2).max(options.duration().div_f64(ways.len() as f64));
    let mut cuts = Vec::new();
    let course = Course::run(
        &mut site,
        &options,
        async |site: &mut Site, stage: &Stage| {
            for (turn, (links, how)) in ways.into_iter().cycle().enumerate() {
                if !stage.has(cut_for) {
                    break;
                }
                stage.say(&format!("broker-0 is cut off: {links:?}, {how:?}"));
                let before = site.metric(0, links.metric()).await?;
                for cable in links.of(0, site) {
                    cable.cut(how)?;
                }
                sleep(SILENCE.min(cut_for)).await;
                let during = site.metric(0, links.metric()).await?;
                sleep(cut_for.saturating_sub(SILENCE)).await;
                for cable in links.of(0, site) {
                    cable.heal()?;
                }
                let healed = Instant::now();
                stage.say(&format!("healed; of {before} sessions {during} were left"));
                site.until_metric(0, links.metric(), |it| before <= it)
                    .await?;
                let answered = site.metric(0, ANSWERED).await?;
                site.until_metric(0, ANSWERED, |it| answered < it).await?;
                let returned = healed.elapsed();
                stage.say(&format!("used again after {returned:.2?}"));
                cuts.push((links, how, before, during, returned));
                stage.until(cycle.mul_f64((turn + 1) as f64)).await;
            }
            Ok(())
        },
    )
    .await?;
    let mut verdict = verdict(&options);
    course.judge_safety(&mut verdict);
    if JUDGED_FROM <= cycle {
        course.judge_throughput(&mut verdict);
    } else {
        let (_, figures) = course.throughput();
        verdict.tell(format_args!(
            "throughput, judged where a cut has {JUDGED_FROM:?}: {figures}"
        ));
    }
    course.judge_slowest(&mut verdict, SILENCE);
    for (links, how, before, during, returned) in cuts {
        if SILENCE <= cut_for {
            let sentence =
                format!("{links:?} cut ({how:?}), its broker noticed within {SILENCE:?}");
            let left = if links == Links::Backend {
                before - 1.0
            } else {
                0.0
            };
            let figures = format!("of {before} sessions {during} were left");
            verdict.claim(sentence, during <= left, figures);
        }
        let sentence = format!("{links:?} healed ({how:?}), used again within {RETURN:?}");
        verdict.claim(sentence, returned <= RETURN, format_args!("{returned:.2?}"));
    }
    course.tell(&mut verdict);
    super::finish(site, options.keep, &mut verdict);
    Ok(verdict)
}
