//! `scale0 keygen`: a pair of keys, of which the secret one is in a file and nowhere else.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use scale0_transport::{KeyPair, SecretKey};

use crate::args::KeygenArguments;

/// Read and written by its owner, and by nobody else.
const OWNERS_ALONE: u32 = 0o600;

/// Writes the secret key, and prints the public one.
///
/// # Errors
/// When the file is there already, or cannot be written; then there is none.
pub(crate) fn run(arguments: &KeygenArguments) -> anyhow::Result<()> {
    let file = &arguments.out;
    let keys = KeyPair::generate()?;
    match write(file, &keys.secret) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("{file:?} is there already, and a key that is lost is lost: name another file")
        }
        Err(error) => return Err(error).with_context(|| format!("cannot write {file:?}")),
    }
    let mut out = io::stdout().lock();
    let printed = writeln!(out, "{}", keys.public).and_then(|()| out.flush());
    if printed.is_err() {
        // A key of which nobody has seen the other half is of no use.
        _ = fs::remove_file(file);
    }
    printed.context("cannot print the public key")
}

fn write(file: &Path, secret: &SecretKey) -> io::Result<()> {
    let mut to = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(OWNERS_ALONE)
        .open(file)?;
    let written = writeln!(to, "{}", secret.to_z85()).and_then(|()| to.sync_all());
    if written.is_err() {
        _ = fs::remove_file(file);
    }
    written
}
