//! More requests than the backends can serve.

use std::ops::Range;
use std::time::Duration;

use clap::Args;
use tokio::time::sleep;

use super::Options;
use crate::load::{Clients, Shape};
use crate::outcomes::Outcomes;
use crate::sample::Sample;
use crate::site::{Plan, Site};
use crate::verdict::Verdict;

/// What can be chosen.
#[derive(Clone, Debug, Args)]
pub(crate) struct Arguments {
    /// Seconds of overload; before and after it, a few of half the capacity.
    #[arg(default_value_t = 60, value_parser = clap::value_parser!(u64).range(2..))]
    seconds: u64,
    /// Requests at a time of each of three backends, which take 50 ms for each.
    #[arg(long, default_value_t = 16)]
    concurrency: u32,
    /// Requests that come, in percent of those that can be served.
    #[arg(long, default_value_t = 300)]
    percent: u32,
    /// Milliseconds until a request's deadline: `limits.timeout`.
    #[arg(long, default_value_t = 1000)]
    deadline_ms: u64,
    /// Keep the processes' files.
    #[arg(long)]
    keep: bool,
}

/// The part of the capacity that must be served under overload.
const GOODPUT: f64 = 0.95;

/// What a broker may have resident.
const RESIDENT: u64 = 256 << 20;

/// How soon latency must be normal after the overload.
const RECOVERY: Duration = Duration::from_secs(2);

/// What is looked at one by one to see when it is.
const WINDOW: Duration = Duration::from_millis(100);

/// How long the capacity is measured, and the normal latency, each.
const MEASURED: Duration = Duration::from_secs(2);

/// How long is watched what comes after.
const AFTERWARDS: Duration = Duration::from_secs(4);

/// Overload has to build up before it is standing.
const BUILDS_UP: Duration = Duration::from_secs(1);

/// The part of the capacity that comes before and after.
const NORMAL: f64 = 0.5;

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Verdict> {
    let deadline = Duration::from_millis(arguments.deadline_ms);
    let plan = Plan {
        brokers: 1,
        concurrency: arguments.concurrency,
        timeout: deadline,
        ..Options::with(arguments.seconds, 0, 3, arguments.keep).plan()
    };
    let nominal = plan.capacity();
    let mut site = Site::start(plan).await?;
    let clients = site.clients(0);
    let mut verdict = Verdict::default();

    // Twice as many clients as places: none is ever empty.
    eprintln!("how many requests the backends can serve");
    let places = site.plan().backends * arguments.concurrency as usize;
    let (outcomes, during) = measure(
        &clients,
        Shape::Closed {
            clients: places * 2,
        },
    )
    .await;
    let capacity = outcomes.goodput(&during);
    let per_second = nominal * NORMAL;
    eprintln!("half of these {capacity:.0}/s");
    let (outcomes, during) = measure(&clients, Shape::Open { per_second }).await;
    let normal = outcomes.quantile(&during, 0.99);

    let offered = nominal * f64::from(arguments.percent) / 100.0;
    eprintln!("{offered:.0}/s for {} s", arguments.seconds);
    let overload = clients.start(Shape::Open {
        per_second: offered,
    });
    let begun = clients.now();
    sleep(Duration::from_secs(arguments.seconds)).await;
    let during = begun..clients.now();
    let afterwards = clients.start(Shape::Open { per_second });
    eprintln!("half of the capacity again");
    let outcomes = overload.end().await;
    sleep(AFTERWARDS).await;
    let afterwards = afterwards.end().await;

    let standing = during.start + BUILDS_UP..during.end;
    let goodput = outcomes.goodput(&standing);
    verdict.tell(format_args!(
        "{nominal:.0}/s at best, {capacity:.0}/s without overload; {offered:.0}/s asked, each within {deadline:?}"
    ));
    verdict.claim(
        format_args!("goodput at least {:.0} % of the capacity", GOODPUT * 100.0),
        GOODPUT * capacity <= goodput,
        format_args!("{:.1} %, {goodput:.0}/s", goodput / capacity * 100.0),
    );
    let late = outcomes.quantile(&during, 0.99);
    let median = outcomes.quantile(&during, 0.5);
    verdict.claim(
        format_args!("99 % of the served within {deadline:?}"),
        late <= deadline,
        format_args!("p99 {late:.1?}, p50 {median:.1?}"),
    );
    let peak = Sample::of(site.broker(0)?.pid()?)?.peak;
    verdict.claim(
        format_args!("the broker's memory within {} MiB", RESIDENT >> 20),
        peak <= RESIDENT,
        format_args!("{:.1} MiB at most", peak as f64 / f64::from(1 << 20)),
    );
    let recovered = recovered(&afterwards, &during, normal);
    verdict.claim(
        format_args!("latency is normal within {RECOVERY:?} after"),
        recovered.is_some_and(|it| it <= RECOVERY),
        format_args!("{recovered:.1?}; p99 {normal:.1?} before"),
    );
    verdict.tell(format_args!(
        "served in each second of overload: {:?}",
        outcomes.by_second(&during)
    ));
    for (result, count) in outcomes.by_result() {
        verdict.tell(format_args!("{count} × {result}"));
    }
    super::finish(site, arguments.keep, &mut verdict);
    Ok(verdict)
}

/// Asks like this for [`MEASURED`], after as much to settle.
async fn measure(clients: &Clients, shape: Shape) -> (Outcomes, Range<Duration>) {
    let load = clients.start(shape);
    sleep(MEASURED / 2).await;
    let begun = clients.now();
    sleep(MEASURED).await;
    let during = begun..clients.now();
    (load.end().await, during)
}

/// How long after the overload all windows are as normal as before: nothing fails, and 99 % take hardly longer.
fn recovered(
    afterwards: &Outcomes,
    overload: &Range<Duration>,
    normal: Duration,
) -> Option<Duration> {
    let bound = normal * 3 / 2 + Duration::from_millis(10);
    let mut since = None;
    let mut window = overload.end..overload.end + WINDOW;
    while window.end <= overload.end + AFTERWARDS {
        let is_normal = afterwards.quantile(&window, 0.99) <= bound
            && afterwards
                .iter()
                .all(|it| it.is_good() || !window.contains(&it.begun));
        if !is_normal {
            since = None;
        } else if since.is_none() {
            since = Some(window.start - overload.end);
        }
        window = window.end..window.end + WINDOW;
    }
    since
}
