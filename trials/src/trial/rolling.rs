//! Everything is restarted, one process after the other, as for a new version: told to stop and started again; and frontends also by
//! starting the next beside it, which takes its sockets over.

use std::time::Duration;

use super::course::{Course, Stage};
use super::{Options, verdict};
use crate::site::{Plan, Site};
use crate::verdict::Verdict;

/// Nothing has to be noticed: who leaves says so.
const DETECTION: Duration = Duration::ZERO;

pub(super) async fn run(options: Options) -> anyhow::Result<Verdict> {
    let plan = Plan {
        frontends: 2,
        one_address: true,
        ..options.plan()
    };
    let mut site = Site::start(plan).await?;
    let (mut restarts, mut handovers, mut unclean) = (0, 0, 0);
    let course = Course::run(
        &mut site,
        &options,
        async |site: &mut Site, stage: &Stage| {
            // At least once round, however short the time.
            while restarts == 0 || stage.has(Duration::ZERO) {
                for index in 0..site.plan().backends {
                    stage.say(&format!("backend-{index} is told to stop"));
                    unclean += usize::from(!site.backend(index)?.terminate().await?.success());
                    site.start_backend(index)?;
                    site.until_registered(index).await?;
                    restarts += 1;
                }
                for index in 0..site.plan().brokers {
                    stage.say(&format!("broker-{index} is told to stop"));
                    unclean += usize::from(!site.broker(index)?.terminate().await?.success());
                    site.start_broker(index).await?;
                    site.until_metric(index, "scale0_broker_answered_total", |it| 0.0 < it)
                        .await?;
                    restarts += 1;
                }
                for index in 0..site.plan().frontends {
                    stage.say(&format!("frontend-{index} is told to stop"));
                    unclean += usize::from(!site.restart_frontend(index).await?.success());
                    restarts += 1;
                    stage.say(&format!("frontend-{index} hands over to the next"));
                    unclean += usize::from(!site.replace_frontend(index).await?.success());
                    handovers += 1;
                }
            }
            Ok(())
        },
    )
    .await?;
    let mut verdict = verdict(&options);
    verdict.tell(format_args!(
        "{restarts} restarts, and {handovers} times a frontend handed over; both frontends at one address, half of the clients on a new connection for each request"
    ));
    course.judge_perfection(&mut verdict);
    verdict.claim(
        "processes that did not end with 0: 0",
        unclean == 0,
        unclean,
    );
    course.judge_throughput(&mut verdict);
    course.judge_slowest(&mut verdict, DETECTION);
    course.tell(&mut verdict);
    super::finish(site, options.keep, &mut verdict);
    Ok(verdict)
}
