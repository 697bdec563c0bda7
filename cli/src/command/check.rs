//! `scale0 check`: is a configuration right, and what does it come to?

use std::io::{ErrorKind, Write};

use crate::args::{CheckArguments, Format};
use crate::config::{Config, Sources};

/// Prints the effective configuration.
///
/// # Errors
/// [`crate::config::ConfigError`] if it is wrong; an I/O error if standard output is.
pub(crate) fn run(arguments: &CheckArguments) -> anyhow::Result<()> {
    let sources = Sources::of_process(
        Some(arguments.config.clone()),
        arguments.settings.sets.clone(),
    );
    let config = Config::load(&sources)?;
    let text = match arguments.format {
        Format::Toml => format!(
            "# What {} comes to, defaults filled in.\n{}",
            arguments.config.display(),
            config.to_toml()?
        ),
        Format::Json => config.to_json()?,
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        // `scale0 check … | head` has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}
