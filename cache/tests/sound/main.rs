//! No bytes, from the network or from a disk, break what reads them. `../../fuzz` has a fuzzer look for more.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod fields;
mod records;

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tempfile::TempDir;

/// What the fuzzer begins with.
fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let seeds: Vec<_> = fs::read_dir(corpus.join(target))
        .unwrap()
        .map(|seed| {
            let path = seed.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            (path, bytes)
        })
        .collect();
    assert!(!seeds.is_empty());
    seeds
}

/// What the grammars of fields are made of, put together at random: most of it is wrong, and much nearly right.
fn value() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec![
            "max-age", "s-maxage", "no-cache", "no-store", "private", "public", "must-revalidate", "must-understand",
            "stale-while-revalidate", "stale-if-error", "max-stale", "min-fresh", "only-if-cached", "proxy-revalidate",
            "bytes", "gzip", "identity", "br", "en", "en-GB", "de", "q", "*", "W/", "\"a\"", "\"b\"", "accept-language",
            "Tue, 15 Nov 1994 08:12:31 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994",
            "Thu, 01 Jan 2037 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT",
        ]).prop_map(str::to_owned),
        3 => prop::sample::select(vec!["=", ",", ", ", ";", "-", "/", " ", "\t", "\"", "\\", "?1", ".", ":", "(", ")"])
            .prop_map(str::to_owned),
        2 => prop_oneof![Just(0), 0..1000_u64, Just(u64::from(u32::MAX)), any::<u64>()].prop_map(|number| number.to_string()),
        1 => "[ -~]{0,6}",
        1 => Just("99999999999999999999999".to_owned()),
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

/// A message as the check reads it.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let first = prop::collection::vec(any::<u8>().prop_filter("ends the line", |b| *b != b'\n'), 7);
    let ok = Just(vec![50, 0, 1, 0, 0x94, 0x35, 0x77]);
    let line = (0..fields::NAMES.len(), value());
    (prop_oneof![first, ok], prop::collection::vec(line, 0..8)).prop_map(|(mut bytes, lines)| {
        for (name, value) in lines {
            bytes.push(b'\n');
            // 10 would end the line, and is the same name when the number of names is added.
            let name = if name == 10 {
                name + fields::NAMES.len()
            } else {
                name
            };
            bytes.push(u8::try_from(name).unwrap());
            bytes.extend_from_slice(value.as_bytes());
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn whatever_fields_say_no_time_is_negative_no_range_beyond_its_whole_and_nothing_private_kept(message in message()) {
        fields::check(&message);
    }

    #[test]
    fn any_bytes_behind_a_true_checksum_are_metadata_or_refused(
        mut bytes in prop::collection::vec(any::<u8>(), 0..300), is_current in any::<bool>(),
    ) {
        if is_current && let Some(version) = bytes.first_mut() {
            *version = 1;
        }
        records::check_metadata(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    #[test]
    fn whatever_the_list_of_purges_says_a_purge_after_it_holds(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let folder = TempDir::new().unwrap();
        records::check_purges(folder.path(), &bytes);
    }

    #[test]
    fn whatever_came_over_a_segment_what_is_found_is_what_was_stored(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let folder = TempDir::new().unwrap();
        records::check_segments(folder.path(), &bytes);
    }
}

#[test]
fn what_the_fuzzer_begins_with_is_sound() {
    for (path, seed) in seeds("fields") {
        eprintln!("{}", path.display());
        fields::check(&seed);
    }
    let folder = TempDir::new().unwrap();
    for (path, seed) in seeds("records") {
        eprintln!("{}", path.display());
        let is_whole = ["response", "variants"]
            .iter()
            .any(|name| path.ends_with(name));
        assert_eq!(records::check_metadata(&seed), is_whole);
        records::check_purges(folder.path(), &seed);
        records::check_segments(folder.path(), &seed);
    }
}
