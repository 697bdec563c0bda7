//! The course of a trial that disturbs a site under load: left alone, disturbed, left alone again.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Options;
use crate::ledger::Id;
use crate::load::Shape;
use crate::outcomes::{Outcome, Outcomes};
use crate::site::Site;
use crate::verdict::Verdict;

/// What is not counted: connections are opened, and each side learns of the other.
const WARM_UP: Duration = Duration::from_millis(500);

/// Of the time that it is disturbed, how much it is left alone before and after, each.
const ALONE: f64 = 0.15;

/// The least of it.
const LEAST_ALONE: Duration = Duration::from_secs(1);

/// What a busy machine may add to an answer: processes start and end, and share two processors with what measures them.
const MACHINE: Duration = Duration::from_millis(250);

/// How long a peer may be silent before it is taken for dead: three heartbeats of a second, and half of one to notice.
pub(super) const SILENCE: Duration = Duration::from_millis(3500);

/// The part of the undisturbed throughput that must be left.
const THROUGHPUT: f64 = 0.8;

/// Where a trial stands while it disturbs.
#[derive(Debug)]
pub(super) struct Stage {
    begun: Instant,
    length: Duration,
}

impl Stage {
    /// Tells what is being done.
    pub(super) fn say(&self, what: &str) {
        eprintln!("{:7.1} s  {what}", self.begun.elapsed().as_secs_f64());
    }

    /// Whether so much time is left.
    pub(super) fn has(&self, time: Duration) -> bool {
        self.begun.elapsed() + time <= self.length
    }

    /// Waits until so much of it is over.
    pub(super) async fn until(&self, time: Duration) {
        tokio::time::sleep_until(self.begun + time.min(self.length)).await;
    }
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Course {
    pub(super) outcomes: Outcomes,
    pub(super) executions: HashMap<Id, u32>,
    /// Times that it was left alone.
    alone: [Range<Duration>; 2],
    pub(super) disturbed: Range<Duration>,
    service_time: Duration,
}

impl Course {
    /// Runs it: `disturb` has the time that the options say, and may take less.
    pub(super) async fn run(
        site: &mut Site,
        options: &Options,
        disturb: impl AsyncFnOnce(&mut Site, &Stage) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let length = options.duration();
        let alone = LEAST_ALONE.max(length.mul_f64(ALONE));
        let clients = site.clients(options.posts);
        let load = clients.start(Shape::Closed {
            clients: options.clients,
        });
        sleep(WARM_UP).await;
        let begun = clients.now();
        sleep(alone).await;

        let before = begun..clients.now();
        let begun = Instant::now();
        let stage = Stage { begun, length };
        stage.say(&format!(
            "{} requests over, left alone until now",
            load.done()
        ));
        disturb(site, &stage).await?;
        stage.until(length).await;
        let disturbed = before.end..clients.now();

        stage.say(&format!(
            "{} requests over, left alone from now",
            load.done()
        ));
        sleep(alone).await;
        let after = disturbed.end..clients.now();
        let outcomes = load.end().await;
        Ok(Self {
            outcomes,
            executions: site.ledger().executions()?.clone(),
            alone: [before, after],
            disturbed,
            service_time: site.plan().service_time,
        })
    }

    /// How often this request was begun.
    fn executed(&self, outcome: &Outcome) -> u32 {
        self.executions
            .get(&outcome.id)
            .copied()
            .unwrap_or_default()
    }

    /// No GET has failed, and no POST has run twice; a POST may have been answered 502, which says that it may have run.
    pub(super) fn judge_safety(&self, verdict: &mut Verdict) {
        self.zero(verdict, "GETs failed", |it| {
            !it.id.is_post() && !it.is_good()
        });
        self.zero(verdict, "POSTs executed twice", |it| {
            it.id.is_post() && 1 < self.executed(it)
        });
        self.zero(verdict, "POSTs answered 200 and not executed", |it| {
            it.id.is_post() && it.is_good() && self.executed(it) == 0
        });
        self.zero(
            verdict,
            "POSTs that failed with another answer than 502",
            |it| it.id.is_post() && !it.is_good() && it.result != Ok(502),
        );
    }

    /// Nothing has failed, nothing unsafe has run twice, and nothing safe for nothing.
    pub(super) fn judge_perfection(&self, verdict: &mut Verdict) {
        self.zero(verdict, "requests failed", |it| !it.is_good());
        self.zero(verdict, "POSTs not executed exactly once", |it| {
            it.id.is_post() && self.executed(it) != 1
        });
    }

    /// What was left of the throughput.
    pub(super) fn judge_throughput(&self, verdict: &mut Verdict) {
        let (ratio, figures) = self.throughput();
        let sentence = format!(
            "throughput at least {:.0} % of the undisturbed",
            THROUGHPUT * 100.0
        );
        verdict.claim(sentence, THROUGHPUT <= ratio, figures);
    }

    /// The throughput of the time that it was disturbed against that of the times before and after.
    pub(super) fn throughput(&self) -> (f64, String) {
        let [before, after] = [0, 1].map(|index| self.outcomes.goodput(&self.alone[index]));
        let disturbed = self.outcomes.goodput(&self.disturbed);
        let ratio = disturbed / f64::midpoint(before, after);
        let figures = format!(
            "{:.1} % ({before:.0}/s before, {disturbed:.0}/s disturbed, {after:.0}/s after)",
            ratio * 100.0
        );
        (ratio, figures)
    }

    /// The slowest answer has taken no longer than the slowest undisturbed one, and besides what it takes to notice and the time
    /// of the one service that was in vain.
    pub(super) fn judge_slowest(&self, verdict: &mut Verdict, detection: Duration) {
        let undisturbed = self.outcomes.slowest_within(&self.alone[0]);
        let limit = undisturbed + detection + self.service_time + MACHINE;
        let Some(slowest) = self.outcomes.slowest(&self.disturbed) else {
            verdict.claim("there was an answer", false, "none");
            return;
        };
        verdict.claim(
            format_args!("slowest answer within {limit:.2?}"),
            slowest.took <= limit,
            format_args!(
                "{:.2?}, {:?}; undisturbed {undisturbed:.2?}",
                slowest.took, slowest.result
            ),
        );
    }

    /// What there was, by answer.
    pub(super) fn tell(&self, verdict: &mut Verdict) {
        let retried = self.outcomes.iter().filter(|it| it.retried).count();
        let quantile = |part| self.outcomes.quantile(&self.disturbed, part);
        let [median, late] = [quantile(0.5), quantile(0.99)];
        verdict.tell(format_args!(
            "{} requests, {retried} sent again by clients on a new connection; disturbed p50 {median:.1?}, p99 {late:.1?}",
            self.outcomes.len()
        ));
        verdict.tell(format_args!(
            "served in each second that it was disturbed: {:?}",
            self.outcomes.by_second(&self.disturbed)
        ));
        for (result, count) in self.outcomes.by_result() {
            verdict.tell(format_args!("{count} × {result}"));
        }
    }

    /// There were none of these; if there were, some are shown.
    fn zero(&self, verdict: &mut Verdict, what: &str, is: impl Fn(&Outcome) -> bool) {
        let found: Vec<&Outcome> = self.outcomes.iter().filter(|it| is(it)).collect();
        verdict.claim(format_args!("{what}: 0"), found.is_empty(), found.len());
        for outcome in found.iter().take(SHOWN) {
            verdict.tell(format_args!(
                "  {} {}: {:?} after {:.2?}, sent at {:.2?}, executed {} times",
                outcome.id.method(),
                outcome.id,
                outcome.result,
                outcome.took,
                outcome.begun.saturating_sub(self.disturbed.start),
                self.executed(outcome)
            ));
        }
    }
}

/// How many of those that should not be are shown.
const SHOWN: usize = 5;
