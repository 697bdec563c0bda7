//! A crate in a workspace of its own links this one: with the two lines of `[patch]` it works, without them the build says so.
//!
//! Both build libzmq from its sources, which takes minutes the first time, so they are run on purpose:
//! `cargo test -p scale0-transport --test outside_the_workspace -- --ignored`

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const HERE: &str = env!("CARGO_MANIFEST_DIR");

const PROGRAM: &str = r#"
use scale0_transport::{Context, Incoming, LinkOptions, Links, Router, RouterOptions, ThreadWaker};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let context = Context::new(1)?;
    let router = Router::bind(&context, &"tcp://127.0.0.1:*".parse()?, 0, &RouterOptions::default())?;
    let mut links = Links::new();
    links.connect(&context, &router.local_endpoint().parse()?, &LinkOptions::default())?;
    let waker = ThreadWaker::new()?;
    while !matches!(links.receive(), Some((_, Incoming::Up))) {
        links.wait(&waker, None)?;
    }
    println!("it is up");
    Ok(())
}
"#;

/// Makes the crate and runs it.
fn run(name: &str, patch: &str) -> Output {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(folder.join("src")).unwrap();
    let manifest = format!(
        "[package]\nname = \"outside\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n\
         [dependencies]\nscale0-transport = {{ path = {HERE:?} }}\n\n{patch}"
    );
    fs::write(folder.join("Cargo.toml"), manifest).unwrap();
    fs::write(folder.join("src/main.rs"), PROGRAM).unwrap();
    // The same versions as here, as far as they are here.
    let lock = PathBuf::from(HERE).join("../Cargo.lock");
    if lock.exists() {
        fs::copy(lock, folder.join("Cargo.lock")).unwrap();
    }
    Command::new(env!("CARGO"))
        .arg("run")
        .current_dir(&folder)
        .env("CARGO_TARGET_DIR", folder.join("target"))
        .output()
        .unwrap()
}

#[test]
#[ignore = "builds libzmq"]
fn with_the_two_lines_it_builds_and_works() {
    let patch = format!("[patch.crates-io]\nzmq-sys = {{ path = \"{HERE}/zmq-sys\" }}\n");
    let output = run("patched", &patch);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "it is up\n");
}

#[test]
#[ignore = "builds libzmq"]
fn without_them_the_build_says_which_lines_to_add() {
    let output = run("unpatched", "");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    for line in [
        "scale0-transport needs its own build of libzmq",
        "[patch.crates-io]",
        &format!("zmq-sys = {{ path = \"{HERE}/zmq-sys\" }}"),
        "cargo update -p zmq-sys",
    ] {
        assert!(errors.contains(line), "{line:?} is not in:\n{errors}");
    }
}
