//! A backend that stands still and goes on, as by SIGSTOP, a debugger, or a machine that is moved.

use std::time::Duration;

use clap::Args;
use rustix::process::Signal;

use super::course::{Course, SILENCE, Stage};
use super::{Options, verdict};
use crate::site::Site;
use crate::verdict::Verdict;

/// What can be chosen.
#[derive(Clone, Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Milliseconds that it stands still.
    #[arg(long, default_value_t = 10_000)]
    stop_ms: u64,
}

/// From this long a trial on, what a pause of ten seconds costs is judged: before, it would be mostly the time to notice.
const JUDGED_FROM: Duration = Duration::from_secs(20);

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Verdict> {
    let Arguments { options, stop_ms } = arguments;
    let mut site = Site::start(options.plan()).await?;
    let pause = Duration::from_millis(stop_ms).min(options.duration());
    let course = Course::run(
        &mut site,
        &options,
        async |site: &mut Site, stage: &Stage| {
            stage.say("SIGSTOP of backend-0");
            site.backend(0)?.signal(Signal::STOP)?;
            stage.until(pause).await;
            stage.say("SIGCONT of backend-0");
            site.backend(0)?.signal(Signal::CONT)
        },
    )
    .await?;
    let mut verdict = verdict(&options);
    course.judge_safety(&mut verdict);
    if JUDGED_FROM <= options.duration() {
        course.judge_throughput(&mut verdict);
    } else {
        let (_, figures) = course.throughput();
        verdict.tell(format_args!(
            "throughput, judged from {JUDGED_FROM:?} on: {figures}"
        ));
    }
    course.judge_slowest(&mut verdict, SILENCE);
    course.tell(&mut verdict);
    super::finish(site, options.keep, &mut verdict);
    Ok(verdict)
}
