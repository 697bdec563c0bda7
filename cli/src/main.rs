//! The `scale0` binary.
#![expect(
    clippy::print_stderr,
    reason = "a command line says on standard error what went wrong"
)]

mod args;
mod command;
mod config;
mod demo;
mod process;

use std::process::ExitCode;

use clap::Parser;

use args::{Arguments, Command};
use config::ConfigError;

/// A request that goes through allocates some seventy times; in the C library's allocator that is a fifth of what it costs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Wrong usage or configuration; clap's own choice too.
const WRONG: u8 = 2;

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Up(arguments) => command::up::run(&arguments),
        Command::Bridge(arguments) => command::bridge::run(&arguments),
        Command::Check(arguments) => command::check::run(&arguments),
        Command::Status(arguments) => command::status::run(&arguments),
        Command::Drain(arguments) => command::drain::run(&arguments),
        Command::Purge(arguments) => command::purge::run(&arguments),
        Command::Reload(arguments) => command::reload::run(&arguments),
        Command::Keygen(arguments) => command::keygen::run(&arguments),
        Command::Top(_) => return not_in_this_version("top"),
        Command::Completions(_) => return not_in_this_version("completions"),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match error.downcast::<ConfigError>() {
            Ok(wrong) => {
                eprint!("{wrong}");
                ExitCode::from(WRONG)
            }
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        },
    }
}

fn not_in_this_version(subcommand: &str) -> ExitCode {
    eprintln!("error: `scale0 {subcommand}` is not in this version");
    ExitCode::from(WRONG)
}
