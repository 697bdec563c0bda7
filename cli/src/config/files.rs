//! The files that a configuration names: could a process start with them as they are now?
//!
//! Nothing is created or changed here, and what a pipe has is left to who needs it. The store's folder is none of them: a process without its store serves all the same.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _};
use std::path::Path;

use super::choices::AccessLog;
use super::layers::Origins;
use super::model::Config;
use super::problem::Problem;

/// The longest admin token: as much as a field of a request's head holds with ease.
const LONGEST_TOKEN: u64 = 8 * 1024;

/// What speaks against the files that `config` names.
pub(super) fn check(config: &Config, origins: &Origins) -> Vec<Problem> {
    let mut problems = Vec::new();
    let at = |path: &str, message| Problem::new(origins.of(path), path, message);
    let token_file = config.admin.as_ref().and_then(|it| it.token_file.as_ref());
    let token_file = token_file.filter(|file| !is_pipe_or_device(file));
    if let Some(Err(why)) = token_file.map(|file| token(file)) {
        problems.push(at("admin.token_file", why).help(
            "the file holds a long random text, which `SCALE0_ADMIN_TOKEN` repeats; a relative name starts at the working directory",
        ));
    }
    if let AccessLog::File(file) = &config.log.access
        && !is_pipe_or_device(file)
        && let Err(why) = appendable(file)
    {
        let problem = at("log.access", why);
        problems.push(problem.help("a relative name starts at the working directory"));
    }
    problems
}

fn is_pipe_or_device(file: &Path) -> bool {
    file.metadata()
        .is_ok_and(|it| !it.is_file() && !it.is_dir())
}

/// The admin token that the file holds, without the blanks around it.
///
/// # Errors
/// For people: what was expected of which file, and what was found.
pub(crate) fn token(file: &Path) -> Result<String, String> {
    let mut text = String::new();
    File::open(file)
        .and_then(|opened| opened.take(LONGEST_TOKEN + 1).read_to_string(&mut text))
        .map_err(|error| {
            format!(
                "expected a file with the admin token at {file:?}, which cannot be read: {error}"
            )
        })?;
    if LONGEST_TOKEN < text.len() as u64 {
        return Err(format!(
            "expected an admin token of at most {LONGEST_TOKEN} bytes in {file:?}, found more"
        ));
    }
    match text.trim() {
        "" => Err(format!(
            "expected an admin token in {file:?}, found nothing"
        )),
        token => Ok(token.to_owned()),
    }
}

/// Whether lines can be appended to the file, which need not be there yet.
fn appendable(file: &Path) -> Result<(), String> {
    let error = match OpenOptions::new().append(true).open(file) {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() != ErrorKind::NotFound => error.to_string(),
        Err(error) => {
            let folder = file.parent().unwrap_or(file);
            if folder.as_os_str().is_empty() || folder.is_dir() {
                return Ok(());
            }
            error.to_string()
        }
    };
    Err(format!(
        "expected a file to append the access log to at {file:?}, which cannot be opened: {error}"
    ))
}
