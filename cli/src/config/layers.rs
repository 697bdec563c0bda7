//! File, variables and `--set` laid over each other, each setting remembering where it was given.

use std::collections::BTreeMap;
use std::ops::Range;

use config::{Map, Source, Value as Merged, ValueKind};
use toml_edit::{Document, Item, TableLike, Value};

use super::hints::{found, unknown_key, unknown_section, wrong_value};
use super::problem::{MOST_SHOWN, Origin, Problem};
use super::settings::{Key, RawConfig, Section, Shape, section};

/// How variables that are settings begin; `__` stands between section and key too.
pub(super) const PREFIX: &str = "SCALE0__";

/// A setting given elsewhere than in the file.
pub(super) struct Override {
    /// Section and key, for a list of tables the position between them.
    pub(super) path: Vec<String>,
    /// What it is set to.
    pub(super) given: Given,
    /// By what.
    pub(super) origin: Origin,
}

/// The value of an [`Override`].
pub(super) enum Given {
    /// Text whose type is not known yet: TOML where that fits the key, else the text itself.
    Text(String),
    /// A value.
    Value(Value),
}

/// Where each setting was given. Settings are named by their path: `route.0.timeout`, `frontend.http.1`.
#[derive(Debug, Default)]
pub(super) struct Origins(BTreeMap<String, Origin>);

impl Origins {
    /// Where the setting was given, or else the nearest thing around it that was.
    pub(super) fn of(&self, path: &str) -> Origin {
        let around = std::iter::successors(Some(path), |path| {
            path.rsplit_once('.').map(|(parent, _)| parent)
        });
        around
            .filter_map(|path| self.0.get(path))
            .next()
            .cloned()
            .unwrap_or(Origin::Whole)
    }

    fn note(&mut self, path: String, span: Option<Range<usize>>) {
        self.0.insert(path, Origin::of_span(span));
    }
}

/// Merges the file and what was given besides it, later ones over earlier ones.
///
/// Every key and every single value is looked at before anything is merged, so that all that is wrong with them is told in one
/// go, each in the place where it stands.
pub(super) fn merge(
    file: &Document<&str>,
    overrides: Vec<Override>,
) -> Result<(RawConfig, Origins), Vec<Problem>> {
    let file = file.as_table();
    let mut inspection = Inspection {
        origins: Origins::default(),
        problems: Vec::new(),
    };
    inspection.file(file);
    let resolved: Vec<_> = overrides
        .into_iter()
        .filter_map(|given| inspection.given(given, file))
        .collect();
    if !inspection.problems.is_empty() {
        return Err(inspection.problems);
    }
    let lower = config::Config::builder().add_source(Tree(tree(file)));
    let builder = resolved.iter().try_fold(lower, |builder, (path, value)| {
        builder.set_override(path, merged(value))
    });
    match builder.and_then(|builder| builder.build()?.try_deserialize()) {
        Ok(raw) => Ok((raw, inspection.origins)),
        // Not to be expected of values that have been looked at; but if so, it is a message and not a panic.
        Err(error) => Err(vec![Problem::new(Origin::Whole, "", error.to_string())]),
    }
}

/// One look at everything that was given.
struct Inspection {
    origins: Origins,
    problems: Vec<Problem>,
}

impl Inspection {
    /// Looks at every section of the file, until there is more wrong than is shown.
    fn file(&mut self, file: &dyn TableLike) {
        for (name, item) in file.iter() {
            if MOST_SHOWN < self.problems.len() {
                return;
            }
            let span = key_span(file, name, item);
            let Some(section) = section(name) else {
                self.problems.push(unknown_section(
                    name,
                    item.is_value(),
                    Origin::of_span(span),
                ));
                continue;
            };
            let Some(tables) = tables(section, item) else {
                let message = format!("expected {}, found {}", section.header(), found(item));
                self.problems
                    .push(Problem::new(Origin::of_span(span), name, message));
                continue;
            };
            for (index, (table, its_span)) in tables.into_iter().enumerate() {
                let path = if section.shape == Shape::Many {
                    format!("{name}.{index}")
                } else {
                    name.to_owned()
                };
                self.table(section, &path, table);
                self.origins.note(path, its_span.or_else(|| span.clone()));
            }
        }
    }

    /// Looks at every setting of a section.
    fn table(&mut self, section: &Section, path: &str, table: &dyn TableLike) {
        for (name, item) in table.iter() {
            if MOST_SHOWN < self.problems.len() {
                return;
            }
            let span = key_span(table, name, item);
            let Some(key) = section.key(name) else {
                self.problems
                    .push(unknown_key(section, name, Origin::of_span(span)));
                continue;
            };
            // `[[frontend.brokers]]` is one more way to write a list of tables.
            let Ok(value) = item.clone().into_value() else {
                continue;
            };
            let path = format!("{path}.{name}");
            for (index, element) in value.as_array().into_iter().flatten().enumerate() {
                self.origins.note(format!("{path}.{index}"), element.span());
            }
            let span = value.span().or(span);
            if let Err(error) = (key.check)(&value) {
                let origin = Origin::of_span(error.span().or_else(|| span.clone()));
                self.problems
                    .push(wrong_value(key, &path, error.message(), origin));
            }
            self.origins.note(path, span);
        }
    }

    /// Looks at a setting given elsewhere: where the `config` crate puts it, and its value.
    fn given(&mut self, given: Override, file: &dyn TableLike) -> Option<(String, Value)> {
        let whole = given.path.join(".");
        match resolve(&given, &whole, file) {
            Ok(resolved) => {
                // What the file said about the elements of a list says nothing about the list that replaces it.
                self.origins.0.retain(|path, _| {
                    path.strip_prefix(&whole)
                        .is_none_or(|rest| !rest.starts_with('.'))
                });
                self.origins.0.insert(whole, given.origin);
                Some(resolved)
            }
            Err(problem) => {
                self.problems.push(problem);
                None
            }
        }
    }
}

/// Which setting is meant, and what it is set to.
fn resolve(
    given: &Override,
    whole: &str,
    file: &dyn TableLike,
) -> Result<(String, Value), Problem> {
    let refuse = |message: String| Err(Problem::new(given.origin.clone(), whole, message));
    let words: Vec<&str> = given.path.iter().map(String::as_str).collect();
    let &[name, .., key] = &words[..] else {
        return refuse(format!("expected SECTION.KEY, found `{whole}`"));
    };
    let Some(section) = section(name) else {
        return Err(unknown_section(name, false, given.origin.clone()));
    };
    let header = section.header();
    let there = file
        .get(name)
        .and_then(|item| tables(section, item))
        .map_or(0, |tables| tables.len());
    let path = match (section.shape, &words[1..words.len() - 1]) {
        (Shape::Plain, []) => format!("{name}.{key}"),
        (Shape::Role, []) if 0 < there => format!("{name}.{key}"),
        (Shape::Role, []) => {
            let message = format!("{header} is not in the file");
            return refuse(message).map_err(|problem| {
                problem.help("which roles a process plays is said by the file alone")
            });
        }
        (Shape::Many, [position]) if (0..there).any(|index| index.to_string() == *position) => {
            format!("{name}[{position}].{key}")
        }
        (Shape::Many, _) => {
            let message = format!(
                "expected {name}.POSITION.KEY with the position of a {header}, from 0, of which there are {there}; found `{whole}`"
            );
            return refuse(message).map_err(|problem| {
                problem.help("which sections there are is said by the file alone")
            });
        }
        (Shape::Plain | Shape::Role, _) => {
            return refuse(format!("expected {name}.KEY, found `{whole}`"));
        }
    };
    let key = section
        .key(key)
        .ok_or_else(|| unknown_key(section, key, given.origin.clone()))?;
    let value = match &given.given {
        Given::Value(value) => (key.check)(value)
            .map(|()| value.clone())
            .map_err(|error| error.message().to_owned()),
        Given::Text(text) => read(key, text),
    };
    value
        .map(|value| (path, value))
        .map_err(|message| wrong_value(key, whole, &message, given.origin.clone()))
}

/// A table and its place in the file.
type Placed<'a> = (&'a dyn TableLike, Option<Range<usize>>);

/// The tables of a section with their places; none if what stands there has not the section's shape.
fn tables<'a>(section: &Section, item: &'a Item) -> Option<Vec<Placed<'a>>> {
    match (section.shape, item) {
        (Shape::Many, Item::ArrayOfTables(tables)) => Some(
            tables
                .iter()
                .map(|table| (table as &dyn TableLike, table.span()))
                .collect(),
        ),
        (Shape::Many, Item::Value(Value::Array(list))) => {
            let table = |value: &'a Value| {
                value
                    .as_inline_table()
                    .map(|table| (table as &dyn TableLike, table.span()))
            };
            list.iter().map(table).collect()
        }
        (Shape::Many, _) => None,
        (Shape::Plain | Shape::Role, item) => {
            item.as_table_like().map(|table| vec![(table, item.span())])
        }
    }
}

/// Where a key stands.
fn key_span(table: &dyn TableLike, name: &str, item: &Item) -> Option<Range<usize>> {
    table
        .key(name)
        .and_then(toml_edit::Key::span)
        .or_else(|| item.span())
}

/// Reads the text of a variable or a `--set`: `8` for a number, `["a", "b"]` for a list, and no quotes needed around a text.
fn read(key: &Key, text: &str) -> Result<Value, String> {
    let wrong = |value: &Value| {
        (key.check)(value)
            .err()
            .map(|error| error.message().to_owned())
    };
    let typed = text.parse::<Value>().ok();
    let mistake = typed.as_ref().and_then(wrong);
    let plain = Value::from(text);
    match (typed, mistake) {
        (Some(typed), None) => Ok(typed),
        // A list with a mistake in it is told the mistake, not that it is no text.
        (Some(Value::Array(_) | Value::InlineTable(_)), Some(mistake)) => Err(mistake),
        _ => wrong(&plain).map_or(Ok(plain), Err),
    }
}

/// The file as the `config` crate sees it.
#[derive(Clone, Debug)]
struct Tree(Map<String, Merged>);

impl Source for Tree {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Merged>, config::ConfigError> {
        Ok(self.0.clone())
    }
}

fn tree(table: &dyn TableLike) -> Map<String, Merged> {
    table
        .iter()
        .filter_map(|(name, item)| {
            Some((name.to_owned(), merged(&item.clone().into_value().ok()?)))
        })
        .collect()
}

fn merged(value: &Value) -> Merged {
    let kind = match value {
        Value::String(text) => ValueKind::String(text.value().clone()),
        Value::Integer(number) => ValueKind::I64(*number.value()),
        Value::Float(number) => ValueKind::Float(*number.value()),
        Value::Boolean(choice) => ValueKind::Boolean(*choice.value()),
        Value::Datetime(time) => ValueKind::String(time.value().to_string()),
        Value::Array(list) => ValueKind::Array(list.iter().map(merged).collect()),
        Value::InlineTable(table) => ValueKind::Table(tree(table)),
    };
    Merged::new(None, kind)
}
