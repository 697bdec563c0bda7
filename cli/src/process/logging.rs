//! Where the process writes what happens.

use std::io::IsTerminal;
use std::thread::JoinHandle;

use anyhow::Context as _;
use scale0_frontend::{AccessLog, Destination};
use tracing_subscriber::EnvFilter;

use crate::config::{self, Log};

/// Begins to log to standard error: for people on a terminal, as JSON elsewhere. `RUST_LOG` has the last word.
pub(super) fn begin(log: &Log) -> anyhow::Result<()> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(filter) if !filter.is_empty() => {
            EnvFilter::try_new(&filter).with_context(|| format!("RUST_LOG={filter}"))?
        }
        _ => EnvFilter::try_new(log.level.as_str())?,
    };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let begun = if std::io::stderr().is_terminal() {
        subscriber.with_target(false).try_init()
    } else {
        subscriber.json().flatten_event(true).try_init()
    };
    begun.map_err(|error| anyhow::anyhow!("cannot begin to log: {error}"))
}

/// Begins the access log; the thread has written everything when it ends.
pub(super) fn begin_access_log(log: &Log) -> anyhow::Result<(AccessLog, Option<JoinHandle<()>>)> {
    let destination = match &log.access {
        config::AccessLog::Off => return Ok((AccessLog::off(), None)),
        config::AccessLog::Stdout => Destination::Stdout,
        config::AccessLog::File(path) => Destination::File(path.clone()),
    };
    let (log, thread) = AccessLog::start(destination)
        .with_context(|| format!("log.access = \"{}\"", log.access))?;
    Ok((log, Some(thread)))
}
