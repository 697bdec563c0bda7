//! `scale0 up`: run the roles a file has, or all of them on loopback.

use crate::args::UpArguments;
use crate::config::{Config, Sources};
use crate::process::{self, Demo};

/// Runs until told to stop.
///
/// # Errors
/// [`crate::config::ConfigError`] if the configuration is wrong; otherwise why a role could not start.
pub(crate) fn run(arguments: &UpArguments) -> anyhow::Result<()> {
    let sources = Sources::of_process(arguments.config.clone(), arguments.settings.sets.clone());
    let config = Config::load(&sources)?;
    match arguments.config {
        Some(_) => process::run(&config, Some(sources), Demo::Off),
        None => process::run(&config, None, Demo::On),
    }
}
