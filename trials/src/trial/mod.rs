//! The trials, a file each.

mod course;
mod cut;
mod idle;
mod kill;
mod overload;
mod pairs;
mod pause;
mod restarts;
mod rolling;
mod stuck;

use std::time::Duration;

use clap::{Args, Subcommand};

use crate::site::{Plan, Site};
use crate::verdict::Verdict;

/// What can be tried.
#[derive(Debug, Subcommand)]
pub(crate) enum Trial {
    /// `kill -9` of a backend every 2 s, each restarted at once: no GET fails, no POST runs twice.
    KillBackend(kill::Arguments),
    /// `kill -9` of one of two brokers every 5 s, restarted at once: no GET fails, no POST runs twice.
    KillBroker(kill::Arguments),
    /// SIGSTOP of a backend for 10 s, then SIGCONT: it is done without within 3 heartbeats, and then starts nothing twice.
    Pause(pause::Arguments),
    /// Links are cut and healed, by network namespaces (root only): silence is noticed within 3 heartbeats.
    Cut(cut::Arguments),
    /// Backends, brokers and frontends are restarted one after the other, the frontends behind one address: no request fails.
    Rolling(Options),
    /// A backend that grants credit and reads nothing: others lose nothing, are no slower, and the broker holds no more than it says.
    Stuck(stuck::Arguments),
    /// A site without requests uses hardly any processor; and however often its links are dialled anew, no more descriptors.
    Idle(idle::Arguments),
    /// Three times as many requests as the backends can serve: they stay busy, who is served is served in time, and it is over soon.
    Overload(overload::Arguments),
    /// A backend is killed and started again ten times a second: each new one serves within a second.
    Restarts(restarts::Arguments),
}

/// What all trials let be chosen.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Seconds that it is disturbed; before and after it is left alone for a while, to compare with.
    #[arg(default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) seconds: u64,
    /// Clients that ask, each when it has its answer.
    #[arg(long, default_value_t = 100)]
    pub(crate) clients: usize,
    /// Of a hundred requests, how many are POSTs.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(0..=100))]
    pub(crate) posts: u64,
    /// Milliseconds that the application takes for each.
    #[arg(long, default_value_t = 50)]
    pub(crate) service_ms: u64,
    /// Backends.
    #[arg(long, default_value_t = 3)]
    pub(crate) backends: usize,
    /// Requests that each of them works on at a time.
    #[arg(long, default_value_t = 64)]
    pub(crate) concurrency: u32,
    /// Milliseconds that every message takes to and from brokers, by relays.
    #[arg(long)]
    pub(crate) latency_ms: Option<u64>,
    /// Keep the processes' files.
    #[arg(long)]
    pub(crate) keep: bool,
}

impl Options {
    /// The same, but for what is said.
    fn with(seconds: u64, clients: usize, backends: usize, keep: bool) -> Self {
        Self {
            seconds,
            clients,
            posts: 50,
            service_ms: 50,
            backends,
            concurrency: 64,
            latency_ms: None,
            keep,
        }
    }

    fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// Two brokers and a frontend, and backends as chosen.
    fn plan(&self) -> Plan {
        Plan {
            brokers: 2,
            frontends: 1,
            backends: self.backends,
            concurrency: self.concurrency,
            service_time: Duration::from_millis(self.service_ms),
            latency: self.latency_ms.map(Duration::from_millis),
            timeout: Duration::from_secs(30),
            impatient: None,
            relayed: false,
            one_address: false,
            apart: false,
        }
    }
}

impl Trial {
    /// Tries it and prints what came of it; whether all that was to hold did.
    pub(crate) async fn run(self) -> anyhow::Result<bool> {
        let verdict = match self {
            Self::KillBackend(arguments) => kill::backend(arguments).await,
            Self::KillBroker(arguments) => kill::broker(arguments).await,
            Self::Pause(arguments) => pause::run(arguments).await,
            Self::Cut(arguments) => match crate::network::why_not() {
                Some(why) => return skip("cut", &why),
                None => cut::run(arguments).await,
            },
            Self::Rolling(options) => rolling::run(options).await,
            Self::Stuck(arguments) => stuck::run(arguments).await,
            Self::Idle(arguments) => idle::run(arguments).await,
            Self::Overload(arguments) => overload::run(arguments).await,
            Self::Restarts(arguments) => restarts::run(arguments).await,
        }?;
        println!("{verdict}");
        Ok(verdict.holds())
    }
}

/// A trial that this machine does not allow. In CI that is a failure: nobody would see that nothing was tried.
fn skip(trial: &str, why: &str) -> anyhow::Result<bool> {
    println!("SKIPPED: {trial} was NOT TRIED: {why}");
    Ok(std::env::var_os("CI").is_none())
}

/// What a site's verdict begins with.
fn verdict(of: &Options) -> Verdict {
    let mut verdict = Verdict::default();
    verdict.tell(format_args!(
        "{} clients, {} % POSTs; {} backends of {} at a time, {} ms each{}",
        of.clients,
        of.posts,
        of.backends,
        of.concurrency,
        of.service_ms,
        of.latency_ms.map_or_else(String::new, |ms| format!(
            "; {ms} ms from process to process"
        )),
    ));
    verdict
}

/// Ends a site. Its files are kept if that was wanted, or if something does not hold.
fn finish(site: Site, keep: bool, verdict: &mut Verdict) {
    if keep || !verdict.holds() {
        verdict.tell(format_args!(
            "files of the processes: {}",
            site.keep().display()
        ));
    }
}
