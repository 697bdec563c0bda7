//! Trials: a site of real processes under load, which is killed, stopped, cut off, restarted and overloaded.
//!
//! Each trial states what is to hold, measures it, and says whether it did. What no simulation can show is shown here: real
//! kernels, sockets and signals. `site` starts the processes, `load` asks, `ledger` counts what was executed whoever is killed.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tells its progress and its verdict"
)]

mod app;
mod client;
mod ledger;
mod load;
mod messages;
mod network;
mod outcomes;
mod process;
mod relay;
mod sample;
mod site;
mod trial;
mod verdict;

use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use trial::Trial;

/// Real `scale0` processes under load: they are killed, stopped, cut off, restarted and overloaded.
///
/// A trial starts a site on this machine (brokers and frontends are `scale0 up`; backends are this program's own application,
/// which writes each execution down in a file that survives it), lets clients ask, does what its name says, and prints what
/// was to hold with the figures. All shares this machine's processors, so ratios are against the same site undisturbed, in the
/// same run.
#[derive(Debug, Parser)]
#[command(
    after_help = "Which `scale0`: the one beside this program, or the one that SCALE0_BIN names.\n\
        Exit code: 0 if all that was to hold did, or if the trial says SKIPPED; 1 if not; 2 on wrong usage.\n\
        With CI=1 nothing is skipped: what cannot be tried fails.\n\n\
        Examples:\n  \
          scale0-trials kill-backend 60            # as it is judged: a minute\n  \
          scale0-trials kill-backend 10 --latency-ms 5\n  \
          SCALE0_BIN=/usr/local/bin/scale0 scale0-trials overload 60"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    #[command(flatten)]
    Trial(Trial),
    /// Is a backend, until it is told to stop: what a trial starts.
    #[command(hide = true)]
    App(app::Arguments),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::App(arguments) => app::run(arguments).await.map(|()| true),
        Command::Trial(trial) => tokio::select! {
            done = trial.run() => done,
            // What has been started ends with the future that is dropped here.
            () = told_to_stop() => Err(anyhow::anyhow!("interrupted")),
        },
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Waits for Ctrl-C or SIGTERM.
async fn told_to_stop() {
    let Ok(mut terminated) = signal(SignalKind::terminate()) else {
        return;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
}
