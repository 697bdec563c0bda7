//! What holds for every text.

use proptest::prelude::*;

use super::*;

/// Values of all kinds, for settings of all kinds.
const VALUES: &[&str] = &[
    "\"1s\"",
    "\"0s\"",
    "\"1MiB\"",
    "\"0B\"",
    "1",
    "0",
    "-1",
    "1.5",
    "true",
    "\"on\"",
    "\"off\"",
    "\"*\"",
    "\"/a\"",
    "\"a.b\"",
    "[]",
    "[\"a\"]",
    "\"tcp://127.0.0.1:9\"",
    "\"ipc:///a\"",
    "\"http://a\"",
    "\"127.0.0.1:9\"",
    "{}",
    "{ endpoint = \"tcp://127.0.0.1:9\" }",
    "\"none\"",
    "\"info\"",
    "\"store\"",
    "false",
    "[\"10.0.0.0/8\"]",
    "\"rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7\"",
    "\"frontend\"",
    "\"refuse\"",
    "\"./f\"",
    "\"normal\"",
    "\"75%\"",
    "\"path\"",
    "{ node = \"b\", frontends = \"ipc:///f\" }",
];

/// A setting and one of the values it takes, by their positions.
fn any_line() -> impl Strategy<Value = (usize, usize, usize)> {
    (0..settings::SECTIONS.len(), any::<usize>(), any::<usize>())
}

/// A file with these settings, on top of roles that need nothing else.
fn file_of(lines: &[(usize, usize, usize)]) -> String {
    let mut text = String::new();
    for (index, section) in settings::SECTIONS.iter().enumerate() {
        text += &format!("{}\n", section.header());
        let mut written = Vec::new();
        for (_, key, value) in lines.iter().filter(|line| line.0 == index) {
            let key = &section.keys[key % section.keys.len()];
            let fits = |value: &&&str| (key.check)(&value.parse().unwrap()).is_ok();
            let values: Vec<_> = VALUES.iter().filter(fits).collect();
            if !written.contains(&key.name) {
                text += &format!("{} = {}\n", key.name, values[value % values.len()]);
                written.push(key.name);
            }
        }
        for (key, value) in [
            ("service", "\"a\""),
            ("name", "\"a\""),
            ("upstream", "\"http://a\""),
        ] {
            if section.key(key).is_some()
                && !written.contains(&key)
                && !written.contains(&"services")
            {
                text += &format!("{key} = {value}\n");
            }
        }
    }
    text
}

proptest! {
    #[test]
    fn whatever_is_accepted_is_written_as_a_configuration_of_the_same_meaning(lines in prop::collection::vec(any_line(), 0..8)) {
        let text = file_of(&lines);
        match load(&text) {
            Ok(config) => {
                let written = config.to_toml().unwrap();
                let again = load(&written).map_err(|error| TestCaseError::fail(format!("{text}\n{written}\n{error}")))?;
                prop_assert_eq!(again, config);
            }
            Err(error) => prop_assert!(error.to_string().starts_with("error: ")),
        }
    }

    #[test]
    fn a_truncated_file_never_panics(end in 0..FULL.len()) {
        let _ = load(&FULL[..end]).map_err(|error| error.to_string());
    }

    #[test]
    fn a_damaged_file_never_panics(at in 0..FULL.len(), length in 0..8_usize, with in "\\PC{0,6}|[\\[\\]{}\"'=.,#\\n0-9]{0,6}") {
        let mut text = FULL.to_owned();
        text.replace_range(at..(at + length).min(FULL.len()), &with);
        let _ = load(&text).map_err(|error| error.to_string());
    }

    #[test]
    fn no_variable_and_no_set_makes_it_panic(key in "[a-z_.0-9]{0,20}|bridge\\.[0-9]{1,30}\\.upstream", value in "\\PC{0,20}") {
        let _ = load_with(FULL, &[(&format!("SCALE0__{key}"), &value)], &[&format!("{key}={value}")]).map_err(|error| error.to_string());
    }
}
