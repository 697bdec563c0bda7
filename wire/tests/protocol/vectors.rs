//! The golden messages as files: what they say is what the code reads and writes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use scale0_wire::{
    Bye, Cancel, DecodeError, End, Kind, Message, OLDEST_VERSION, Reason, Reject, RoutingHeader,
    VERSION,
};

use crate::description::{described, frames, metadata_lines, write_frames};
use crate::golden::golden;
use crate::malformed::{encoded, malformed};
use crate::sound::check_frames;

/// Set to write the files that are missing; see `vectors/README.md`. Files that exist are never touched.
const WRITE: &str = "SCALE0_WRITE_VECTORS";

/// The hash of all that `vectors/v1` holds, by name and content: peers of that version are out there, and nothing of it changes any more.
const VERSION_1: &str = "b6b9c8a04b519f1d8acd438be6d8232c81c2a5f5722befde815ad200d72d082e";

#[test]
fn the_vectors_of_version_1_are_those_that_its_speakers_know() {
    let mut hasher = blake3::Hasher::new();
    for name in ["vectors/v1", "vectors/v1/malformed"] {
        for (name, file) in read(name) {
            hasher.update(name.as_bytes()).update(file.as_bytes());
        }
    }
    assert_eq!(hasher.finalize().to_hex().as_str(), VERSION_1);
}

#[test]
fn every_golden_message_of_version_1_reads_and_is_written_as_ever() {
    for (name, file) in read("vectors/v1") {
        let frames = frames(&file);
        let message = check_frames(&frames[0], frames.get(1)).unwrap();
        let about = file.lines().next().unwrap().trim_start_matches("# ");
        assert_eq!(described(about, &message), file, "{name}");
        assert_eq!(message.header.version, OLDEST_VERSION, "{name}");
    }
}

#[test]
fn what_is_malformed_in_version_1_stays_so_but_for_what_version_2_speaks() {
    for (name, file) in read("vectors/v1/malformed") {
        let expected = match &name[..] {
            // It is no version that nobody speaks any more, but a frame too short for its header.
            "version-new.txt" => Some("Truncated"),
            // Reason 7 is `NotAllowed`.
            "bye-value.txt" => None,
            _ => file.lines().find_map(|line| line.strip_prefix("error = ")),
        };
        let frames = frames(&file);
        let read =
            check_frames(&frames[0], frames.get(1)).and_then(|message| metadata_lines(&message));
        assert_eq!(
            read.err().as_ref().map(variant).as_deref(),
            expected,
            "{name}"
        );
    }
}

#[test]
fn a_message_for_a_session_of_version_1_is_to_the_byte_what_that_version_says() {
    let older: BTreeMap<_, _> = read("vectors/v1").into_iter().collect();
    for mut golden in golden() {
        golden.message.set_version(OLDEST_VERSION);
        let header = &golden.message.header;
        assert_eq!(header.version, OLDEST_VERSION, "{}", golden.name);
        // They state what their sender speaks, whatever the session.
        let says_versions = matches!(header.kind, Kind::Hello | Kind::Welcome);
        if let Some(file) = older.get(&format!("{}.txt", golden.name))
            && !says_versions
        {
            assert_eq!(encoded(&golden.message), frames(file), "{}", golden.name);
        }
    }
}

#[test]
fn no_reason_that_version_1_has_no_number_for_crosses_into_its_sessions() {
    let with = |kind, metadata| Message::new(RoutingHeader::new(kind)).with_metadata(metadata);
    for &reason in Reason::ALL {
        let (retry_after_ms, detail) = (7, String::from("why"));
        let reject = |reason| Reject {
            reason,
            retry_after_ms,
            detail: detail.clone(),
        };
        let end = |reason| End::Failed {
            reason,
            detail: detail.clone(),
        };
        let older = reason.for_version(OLDEST_VERSION);
        assert!(older as u8 <= 22, "the last number of version 1");
        for (kind, metadata, expected) in [
            (
                Kind::Reject,
                reject(reason).encode(),
                reject(older).encode(),
            ),
            (Kind::End, end(reason).encode(), end(older).encode()),
            (
                Kind::Cancel,
                Cancel(reason).encode(),
                Cancel(older).encode(),
            ),
        ] {
            let mut message = with(kind, metadata.clone());
            message.set_version(VERSION);
            assert_eq!(message.metadata, metadata, "its own version says all of it");
            message.set_version(OLDEST_VERSION);
            assert_eq!(message.metadata, expected, "{reason:?}");
        }
    }
    for bye in [Bye::NotAllowed, Bye::Quarantined(7)] {
        let mut message = with(Kind::Bye, bye.encode());
        message.set_version(OLDEST_VERSION);
        assert_eq!(message.metadata, Bye::ProtocolError.encode());
    }
}

#[test]
fn every_golden_message_reads_as_its_file_says_and_is_written_as_the_same_bytes() {
    let folder = folder("vectors/v2");
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
    for row in Kind::TABLE.iter().filter(|row| row.since.is_some()) {
        assert!(shown.contains(&row.kind.number()), "{}", row.name);
    }
}

#[test]
fn every_malformed_message_is_refused_with_the_error_its_file_names() {
    let folder = folder("vectors/v2/malformed");
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
    let mut known = BTreeSet::new();
    for (folder, prefix) in [
        ("vectors/v1", ""),
        ("vectors/v1/malformed", "malformed-"),
        ("vectors/v2", "v2-"),
        ("vectors/v2/malformed", "v2-malformed-"),
    ] {
        for (name, file) in read(folder) {
            let name = format!("{prefix}{}", name.trim_end_matches(".txt"));
            let bytes = frames(&file).concat();
            // One that only states another version than a former is no new seed: the fuzzer finds that by itself.
            if known.insert(bytes.get(1..).map(<[u8]>::to_vec)) || prefix.is_empty() {
                assert_eq!(stored(&corpus.join(&name), &bytes), bytes, "{name}");
            }
        }
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
        .arg(folder("vectors/check.py"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complained}");
    let counted = |version: &str| {
        let [golden, malformed] =
            ["", "/malformed"].map(|of| files(&folder(&format!("vectors/{version}{of}"))).len());
        format!("{version}: {golden} messages, {malformed} malformed\n")
    };
    assert_eq!(said, counted("v1") + &counted("v2"));
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

/// Names and contents of the vectors in this folder, in their order.
fn read(name: &str) -> Vec<(String, String)> {
    let folder = folder(name);
    let names = files(&folder).into_iter();
    names
        .map(|name| {
            let file = fs::read_to_string(folder.join(&name)).unwrap();
            (name, file)
        })
        .collect()
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
