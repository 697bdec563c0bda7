//! Problems with single keys and values, and the hints that go with them: made from the declarations in `settings`.

use toml_edit::{Item, Value};

use super::nearest::nearest;
use super::problem::{Origin, Problem};
use super::settings::{Key, SECTIONS, Section, section};

/// Puts a serde message into our own words: expected first, found second.
pub(super) fn wrong_value(key: &Key, path: &str, message: &str, origin: Origin) -> Problem {
    let unexpected = ["invalid type: ", "invalid value: "]
        .iter()
        .find_map(|prefix| message.strip_prefix(prefix));
    let message = match unexpected.and_then(|rest| rest.split_once(", expected ")) {
        Some((found, expected)) => format!("expected {expected}, found {found}"),
        None => message.to_owned(),
    };
    Problem::new(origin, path, message).help(format!("`{}`: {}", key.name, key.summary()))
}

/// A section we do not know, or a setting that stands where sections do.
pub(super) fn unknown_section(name: &str, is_setting: bool, origin: Origin) -> Problem {
    let owners = owners(name);
    if is_setting && !owners.is_empty() {
        return Problem::new(origin, name, format!("`{name}` outside of its section"))
            .help(format!("it belongs into {owners}"));
    }
    let problem = Problem::new(origin, name, format!("unknown section `{name}`"));
    let names: Vec<&str> = SECTIONS.iter().map(|section| section.name).collect();
    match nearest(name, &names).and_then(section) {
        Some(near) => problem.help(format!("did you mean {}?", near.header())),
        None => {
            let headers: Vec<String> = SECTIONS.iter().map(Section::header).collect();
            problem.help(format!("the sections are {}", headers.join(", ")))
        }
    }
}

/// The sections that have a key of this name.
fn owners(key: &str) -> String {
    let owners = SECTIONS
        .iter()
        .filter(|section| section.key(key).is_some() || section.later.contains(&key));
    owners.map(Section::header).collect::<Vec<_>>().join(" or ")
}

/// A key that the section has not, or has not yet.
pub(super) fn unknown_key(section: &Section, name: &str, origin: Origin) -> Problem {
    let path = format!("{}.{name}", section.name);
    if section.later.contains(&name) {
        return Problem::new(
            origin,
            path,
            format!("`{name}` in {} is not in this version", section.header()),
        );
    }
    let problem = Problem::new(
        origin,
        path,
        format!("unknown key `{name}` in {}", section.header()),
    );
    let names: Vec<&str> = section.keys.iter().map(|key| key.name).collect();
    let near = nearest(name, &names).and_then(|near| section.key(near));
    let owners = owners(name);
    match near {
        Some(near) => problem.help(format!("did you mean `{}`? {}", near.name, near.summary())),
        None if !owners.is_empty() => problem.help(format!("`{name}` belongs into {owners}")),
        None => problem.help(format!("the keys are {}", names.join(", "))),
    }
}

/// What stands in the place of a section.
pub(super) fn found(item: &Item) -> &'static str {
    match item {
        Item::ArrayOfTables(_) => "a list of tables; the section stands once, in single brackets",
        Item::Table(_) | Item::Value(Value::InlineTable(_)) => {
            "a single table; each one is written in double brackets"
        }
        Item::Value(Value::Array(_)) => "a list",
        Item::Value(_) | Item::None => "a value",
    }
}
