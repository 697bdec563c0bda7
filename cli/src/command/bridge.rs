//! `scale0 bridge`: make an application that speaks HTTP a backend.

use crate::args::BridgeArguments;
use crate::config::{Config, Sources};
use crate::process::{self, Demo};

/// Runs until told to stop.
///
/// # Errors
/// [`crate::config::ConfigError`] if a flag is wrong; otherwise why the bridge could not start.
pub(crate) fn run(arguments: &BridgeArguments) -> anyhow::Result<()> {
    let config = Config::of_bridge(arguments, &Sources::of_process(None, Vec::new()))?;
    process::run(&config, None, Demo::Off)
}
