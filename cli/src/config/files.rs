//! The files that a configuration names: could a process start with them as they are now?
//!
//! Nothing is created or changed here, and what a pipe has is left to who needs it. The store's folder is none of them: a process without its store serves all the same.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use scale0_transport::{KeyError, KeyPair, SecretKey};

use super::choices::AccessLog;
use super::layers::Origins;
use super::model::{Config, Security};
use super::problem::Problem;

/// The longest admin token: as much as a field of a request's head holds with ease.
const LONGEST_TOKEN: u64 = 8 * 1024;

/// A key has 40 characters; there is room for blanks around it.
const LONGEST_KEY_FILE: u64 = 1024;

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
    let security = &config.security;
    let key_file = security.secret_key_file.as_ref();
    let key_file =
        key_file.filter(|file| security.secret_key.is_none() && !is_pipe_or_device(file));
    if let Some(Err(why)) = key_file.map(|file| secret_key(file)) {
        problems.push(at("security.secret_key_file", why).help(
            "`scale0 keygen --out FILE` writes such a file; a relative name starts at the working directory",
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

/// This node's keys, if it has some.
///
/// # Errors
/// As [`secret_key`].
pub(crate) fn key_pair(security: &Security) -> Result<Option<KeyPair>, String> {
    let secret = match (&security.secret_key, &security.secret_key_file) {
        (Some(key), _) => key.clone(),
        (None, Some(file)) => secret_key(file)?,
        (None, None) => return Ok(None),
    };
    let public = secret.public_key().map_err(|error| error.to_string())?;
    Ok(Some(KeyPair { public, secret }))
}

/// The secret key that the file holds, which nobody but its owner may read.
///
/// # Errors
/// For people: what was expected of which file, and what was found. The key is not in it.
fn secret_key(file: &Path) -> Result<SecretKey, String> {
    // Who has written the key itself into the place of the file's name shall not read it in a log.
    let is_a_key = file
        .to_str()
        .is_some_and(|it| it.parse::<SecretKey>().is_ok());
    let shown = if is_a_key {
        "a place whose name could be a key, and is not shown".to_owned()
    } else {
        format!("{file:?}")
    };
    let failed = |error: std::io::Error| {
        format!("expected a file with the secret key at {shown}, which cannot be read: {error}")
    };
    let opened = File::open(file).map_err(failed)?;
    // Of what is open, so that it is the very file that is read.
    let mode = opened.metadata().map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(format!(
            "expected a file at {shown} that only its owner can read, as after `chmod 600`, found mode {mode:04o}"
        ));
    }
    let mut text = String::new();
    opened
        .take(LONGEST_KEY_FILE)
        .read_to_string(&mut text)
        .map_err(failed)?;
    let key = text.trim().parse();
    key.map_err(|error: KeyError| format!("expected a secret key in {shown}: {error}"))
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
