//! The configuration written out again: what `scale0 check` prints.

use toml_edit::{ArrayOfTables, DocumentMut, Item, Table};

use super::model::Config;
use super::settings::{Section, section};

impl Config {
    /// The configuration as a file of the same meaning: every default filled in, every setting with a line on what it is for.
    ///
    /// # Errors
    /// If something in it cannot be written as TOML, which the readers of its parts do not let through.
    pub(crate) fn to_toml(&self) -> Result<String, toml_edit::ser::Error> {
        let mut document = DocumentMut::new();
        for (name, item) in toml_edit::ser::to_document(self)?.into_table() {
            let (Some(section), Ok(value)) = (section(&name), item.into_value()) else {
                continue;
            };
            let item = Item::Value(value);
            let item = match item.into_table() {
                Ok(table) => Item::Table(explain(table, section)),
                Err(list) => list
                    .into_array_of_tables()
                    .unwrap_or_default()
                    .into_iter()
                    .map(|table| explain(table, section))
                    .collect::<ArrayOfTables>()
                    .into(),
            };
            if item
                .as_array_of_tables()
                .is_none_or(|tables| !tables.is_empty())
            {
                document.insert(&name, item);
            }
        }
        Ok(document.to_string())
    }

    /// The same as JSON, without the explanations.
    ///
    /// # Errors
    /// As [`Config::to_toml`].
    pub(crate) fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self).map(|json| json + "\n")
    }
}

/// Puts above each setting what it is for.
fn explain(mut table: Table, section: &Section) -> Table {
    table.decor_mut().set_prefix("\n");
    for (mut name, item) in table.iter_mut() {
        let summary = section
            .key(name.get())
            .map(|key| format!("# {}\n", key.summary()))
            .unwrap_or_default();
        name.leaf_decor_mut().set_prefix(summary);
        if let Some(value) = item.as_value_mut() {
            value.decor_mut().clear();
        }
    }
    table
}
