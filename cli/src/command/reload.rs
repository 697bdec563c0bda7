//! `scale0 reload`: let a running process read its allow list again.

use std::io::{ErrorKind, Write as _};

use http::{Method, StatusCode};

use super::admin_client::{ask, refusal};
use crate::args::ReloadArguments;

/// Asks for it, and tells what has come of it.
///
/// # Errors
/// When the process cannot be asked, or has not done it.
pub(crate) fn run(arguments: &ReloadArguments) -> anyhow::Result<()> {
    let admin = &arguments.admin.admin;
    let (status, text) = ask(admin, Method::POST, "/reload")?;
    if status != StatusCode::OK {
        // Why nothing has changed may take several lines.
        anyhow::ensure!(status != StatusCode::CONFLICT, "{}", text.trim_end());
        return Err(refusal(admin, status, &text));
    }
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}
