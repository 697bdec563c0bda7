//! File, variables and `--set` laid over each other, each setting remembering where it was given.

use std::collections::BTreeMap;
use std::ops::Range;

use config::builder::DefaultState;
use config::{ConfigBuilder, Map, Source, Value as Merged, ValueKind};
use toml_edit::{Document, Item, TableLike, Value};

use super::hints::{found, unknown_key, unknown_section, wrong_value};
use super::problem::{Origin, Problem};
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

    /// Whether the very setting was given.
    pub(super) fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    fn note(&mut self, path: String, span: Option<Range<usize>>) {
        self.0.insert(path, Origin::of_span(span));
    }
}

/// Merges the file and what was given besides it, later ones over earlier ones.
///
/// Every key and every single value has been looked at before anything is merged, so that all that is wrong with them is told
/// in one go, each in the place where it stands.
pub(super) fn merge(
    file: &Document<&str>,
    overrides: Vec<Override>,
) -> Result<(RawConfig, Origins), Vec<Problem>> {
    let mut layers = Layers {
        origins: Origins::default(),
        problems: Vec::new(),
    };
    layers.inspect(file.as_table());
    let mut builder = config::Config::builder().add_source(Tree(tree(file.as_table())));
    for given in overrides {
        match layers.resolve(&given, file.as_table()) {
            Ok((path, value)) => builder = layers.lay(builder, &given, &path, &value),
            Err(problem) => layers.problems.push(problem),
        }
    }
    if !layers.problems.is_empty() {
        return Err(layers.problems);
    }
    match builder.build().and_then(config::Config::try_deserialize) {
        Ok(raw) => Ok((raw, layers.origins)),
        Err(error) => Err(vec![Problem::new(Origin::Whole, "", error.to_string())]),
    }
}

struct Layers {
    origins: Origins,
    problems: Vec<Problem>,
}

impl Layers {
    /// Looks at every section of the file.
    fn inspect(&mut self, file: &dyn TableLike) {
        for (name, item) in file.iter() {
            let span = file
                .key(name)
                .and_then(toml_edit::Key::span)
                .or_else(|| item.span());
            let Some(section) = section(name) else {
                self.problems.push(unknown_section(
                    name,
                    item.is_value(),
                    Origin::of_span(span),
                ));
                continue;
            };
            match (section.shape, item) {
                (Shape::Many, Item::ArrayOfTables(tables)) => {
                    for (index, table) in tables.iter().enumerate() {
                        self.inspect_table(section, format!("{name}.{index}"), table, table.span());
                    }
                }
                (Shape::Many, Item::Value(Value::Array(tables)))
                    if tables.iter().all(Value::is_inline_table) =>
                {
                    for (index, table) in tables.iter().enumerate() {
                        let table = table.as_inline_table().map(|table| (table, table.span()));
                        table.into_iter().for_each(|(table, span)| {
                            self.inspect_table(section, format!("{name}.{index}"), table, span);
                        });
                    }
                }
                (Shape::Plain | Shape::Role, item) if item.is_table_like() => {
                    let table = item
                        .as_table_like()
                        .map(|table| (table, item.span().or(span.clone())));
                    table.into_iter().for_each(|(table, span)| {
                        self.inspect_table(section, name.to_owned(), table, span);
                    });
                }
                (_, item) => {
                    let message = format!("expected {}, found {}", section.header(), found(item));
                    self.problems
                        .push(Problem::new(Origin::of_span(span), name, message));
                }
            }
        }
    }

    /// Looks at every setting of a section.
    fn inspect_table(
        &mut self,
        section: &Section,
        path: String,
        table: &dyn TableLike,
        span: Option<Range<usize>>,
    ) {
        for (name, item) in table.iter() {
            let at = table
                .key(name)
                .and_then(toml_edit::Key::span)
                .or_else(|| item.span());
            let origin = Origin::of_span(at);
            let Some(key) = section.key(name) else {
                self.problems.push(unknown_key(section, name, origin));
                continue;
            };
            // `[[frontend.brokers]]` is one more way to write a list of tables.
            let Ok(value) = item.clone().into_value() else {
                continue;
            };
            let path = format!("{path}.{name}");
            self.origins
                .note(path.clone(), value.span().or_else(|| item.span()));
            for (index, element) in value
                .as_array()
                .into_iter()
                .flat_map(|list| list.iter().enumerate())
            {
                self.origins.note(format!("{path}.{index}"), element.span());
            }
            if let Err(error) = (key.check)(&value) {
                let origin = error
                    .span()
                    .map_or_else(|| self.origins.of(&path), Origin::File);
                self.problems
                    .push(wrong_value(key, &path, error.message(), origin));
            }
        }
        self.origins.note(path, span);
    }

    /// Which setting is meant, and what it is set to.
    fn resolve(&self, given: &Override, file: &dyn TableLike) -> Result<(String, Value), Problem> {
        let whole = given.path.join(".");
        let refuse = |message: String| Problem::new(given.origin.clone(), whole.clone(), message);
        let (section, index, name) =
            match given.path.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                [name, key] => (section(name), None, key),
                [name, index, key] => (section(name), position(index), key),
                _ => return Err(refuse(format!("expected SECTION.KEY, found `{whole}`"))),
            };
        let Some(section) = section else {
            return Err(unknown_section(&given.path[0], false, given.origin.clone()));
        };
        let there = match file.get(section.name) {
            Some(Item::ArrayOfTables(tables)) => tables.len(),
            Some(Item::Value(Value::Array(tables))) => tables.len(),
            Some(_) => 1,
            None => 0,
        };
        let path = match (section.shape, index) {
            (Shape::Many, Some(index)) if index < there => {
                format!("{}[{index}].{name}", section.name)
            }
            (Shape::Many, Some(index)) => {
                let message = format!(
                    "expected the position of a {}, counted from 0, of which there are {there}; found {index}",
                    section.header()
                );
                return Err(
                    refuse(message).help("which sections there are is said by the file alone")
                );
            }
            (Shape::Many, None) => {
                return Err(refuse(format!(
                    "expected the position of the {}: {}.0.KEY, found `{whole}`",
                    section.header(),
                    section.name
                )));
            }
            (Shape::Role, None) if there == 0 => {
                let message = format!("{} is not in the file", section.header());
                return Err(
                    refuse(message).help("which roles a process plays is said by the file alone")
                );
            }
            (Shape::Plain | Shape::Role, None) if given.path.len() == 2 => {
                format!("{}.{name}", section.name)
            }
            (Shape::Plain | Shape::Role, _) => {
                return Err(refuse(format!(
                    "expected {}.KEY, found `{whole}`",
                    section.name
                )));
            }
        };
        let key = section
            .key(name)
            .ok_or_else(|| unknown_key(section, name, given.origin.clone()))?;
        match &given.given {
            Given::Value(value) => match (key.check)(value) {
                Ok(()) => Ok((path, value.clone())),
                Err(error) => Err(wrong_value(
                    key,
                    &whole,
                    error.message(),
                    given.origin.clone(),
                )),
            },
            Given::Text(text) => {
                let read = read(key, text)
                    .map_err(|message| wrong_value(key, &whole, &message, given.origin.clone()))?;
                Ok((path, read))
            }
        }
    }

    /// Lays one setting over what is there.
    fn lay(
        &mut self,
        builder: ConfigBuilder<DefaultState>,
        given: &Override,
        path: &str,
        value: &Value,
    ) -> ConfigBuilder<DefaultState> {
        let whole = given.path.join(".");
        // What the file said about the elements of a list says nothing about the list that replaces it.
        self.origins.0.retain(|path, _| {
            path.strip_prefix(&whole)
                .is_none_or(|rest| !rest.starts_with('.'))
        });
        self.origins.0.insert(whole, given.origin.clone());
        match builder.clone().set_override(path, merged(value)) {
            Ok(builder) => builder,
            Err(error) => {
                self.problems
                    .push(Problem::new(given.origin.clone(), path, error.to_string()));
                builder
            }
        }
    }
}

/// A position as we write it ourselves: `00` would be another name for the same place.
fn position(text: &str) -> Option<usize> {
    text.parse()
        .ok()
        .filter(|position: &usize| position.to_string() == text)
}

/// Reads the text of a variable or a `--set`: `8` for a number, `["a", "b"]` for a list, and no quotes needed around a text.
fn read(key: &Key, text: &str) -> Result<Value, String> {
    let typed = text.parse::<Value>().ok();
    if let Some(value) = typed.as_ref().filter(|value| (key.check)(value).is_ok()) {
        return Ok(value.clone());
    }
    let plain = Value::from(text);
    match (key.check)(&plain) {
        Ok(()) => Ok(plain),
        // A list with a mistake in it is told the mistake, not that it is no text.
        Err(error) => Err(
            match typed
                .filter(|value| value.is_array() || value.is_inline_table())
                .map(|value| (key.check)(&value))
            {
                Some(Err(error)) => error.message().to_owned(),
                _ => error.message().to_owned(),
            },
        ),
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
