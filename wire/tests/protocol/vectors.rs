//! The golden messages as files: what they say is what the code reads and writes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use scale0_wire::{DecodeError, Kind};

use crate::description::{described, frames, metadata_lines, write_frames};
use crate::golden::golden;
use crate::malformed::{encoded, malformed};
use crate::sound::check_frames;

/// Set to write the files that are missing; see `vectors/README.md`. Files that exist are never touched.
const WRITE: &str = "SCALE0_WRITE_VECTORS";

#[test]
fn every_golden_message_reads_as_its_file_says_and_is_written_as_the_same_bytes() {
    let folder = folder("vectors");
    let golden = golden();
    for golden in &golden {
        let expected = described(golden.about, &golden.message);
        let file = stored(
            &folder.join(golden.name).with_extension("txt"),
            expected.as_bytes(),
        );
        let file = String::from_utf8(file).unwrap();
        let frames = frames(&file);
        let message = check_frames(&frames[0], frames.get(1)).unwrap();
        assert_eq!(message, golden.message, "{}", golden.name);
        assert_eq!(file, expected, "{}", golden.name);
    }
    assert_eq!(
        files(&folder),
        golden
            .iter()
            .map(|golden| format!("{}.txt", golden.name))
            .collect()
    );
}

#[test]
fn every_kind_of_this_version_has_a_golden_message() {
    let shown: BTreeSet<u8> = golden()
        .iter()
        .map(|golden| golden.message.header.kind.number())
        .collect();
    for row in Kind::TABLE.iter().filter(|row| row.in_this_version) {
        assert!(shown.contains(&row.kind.number()), "{}", row.name);
    }
}

#[test]
fn every_malformed_message_is_refused_with_the_error_its_file_names() {
    let folder = folder("vectors/malformed");
    let malformed = malformed();
    for malformed in &malformed {
        let mut expected = format!("# {}\nerror = {}\n", malformed.about, malformed.error);
        write_frames(&mut expected, &malformed.frames);
        let file = stored(
            &folder.join(malformed.name).with_extension("txt"),
            expected.as_bytes(),
        );
        let file = String::from_utf8(file).unwrap();
        assert_eq!(file, expected, "{}", malformed.name);
        let frames = frames(&file);
        let error = check_frames(&frames[0], frames.get(1))
            .and_then(|message| metadata_lines(&message))
            .expect_err(malformed.name);
        assert_eq!(
            variant(&error),
            malformed.error,
            "{}: {error}",
            malformed.name
        );
    }
    assert_eq!(
        files(&folder),
        malformed
            .iter()
            .map(|one| format!("{}.txt", one.name))
            .collect()
    );
}

#[test]
fn every_way_to_be_wrong_has_a_malformed_message() {
    let shown: BTreeSet<_> = malformed().iter().map(|one| one.error).collect();
    let errors = include_str!("../../src/error.rs");
    let variants = errors
        .lines()
        .filter_map(|line| line.strip_prefix("    ")?.strip_suffix(" {"));
    assert_eq!(
        shown,
        variants.filter(|name| !name.starts_with(' ')).collect()
    );
}

#[test]
fn every_vector_is_a_seed_of_the_fuzzer_too() {
    let corpus = folder("fuzz/corpus");
    for golden in golden() {
        let bytes = encoded(&golden.message).concat();
        assert_eq!(
            stored(&corpus.join(golden.name), &bytes),
            bytes,
            "{}",
            golden.name
        );
    }
    for one in malformed() {
        let name = format!("malformed-{}", one.name);
        let bytes = one.frames.concat();
        assert_eq!(stored(&corpus.join(&name), &bytes), bytes, "{name}");
    }
}

#[test]
fn a_second_implementation_reads_and_writes_the_same_messages() {
    let Ok(version) = Command::new("python3").arg("--version").output() else {
        eprintln!("SKIPPED: no python3 here to run vectors/check.py");
        return;
    };
    assert!(version.status.success());
    let output = Command::new("python3")
        .arg(folder("vectors").join("check.py"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complained}");
    let expected = format!(
        "{} messages, {} malformed\n",
        golden().len(),
        malformed().len()
    );
    assert_eq!(said, expected);
}

/// The name of an error's variant.
fn variant(error: &DecodeError) -> String {
    let debug = format!("{error:?}");
    debug.split(' ').next().unwrap().to_owned()
}

/// What the file holds. A missing one is written if the command of `vectors/README.md` asks for it.
fn stored(path: &Path, new: &[u8]) -> Vec<u8> {
    if !path.exists() {
        assert!(
            env::var_os(WRITE).is_some(),
            "{path:?} is missing; {WRITE}=1 writes it"
        );
        eprintln!("writing {path:?}");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, new).unwrap();
    }
    fs::read(path).unwrap()
}

/// The names of the vectors in this folder.
fn files(folder: &Path) -> BTreeSet<String> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".txt"))
        .collect()
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}
