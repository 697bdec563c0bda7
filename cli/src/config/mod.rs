//! The configuration: read from a file, variables and the command line, checked once, and from then on true.
//!
//! `settings` declares every setting. `layers` looks at what the sources say, merges it and remembers where each setting was
//! given. `door`, with `roles`, turns the result into a [`Config`], or into a [`ConfigError`] that names place, expectation and
//! remedy of everything that is wrong; `files` looks whether the files it names are there. Nothing else in the binary reads files
//! or variables for settings.
pub(crate) mod address;
mod allowed;
pub(crate) mod choices;
mod door;
mod effective;
mod files;
mod hints;
mod layers;
pub(crate) mod model;
pub(crate) mod names;
mod nearest;
mod others;
mod problem;
mod redact;
mod roles;
mod settings;
mod text;
pub(crate) mod units;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml_edit::{Array, Document, InlineTable, Value};

use crate::args::BridgeArguments;

pub(crate) use address::BrokerAddress;
pub(crate) use allowed::May;
pub(crate) use choices::{AccessLog, Coalesce, Priority, SetCookie, Store};
pub(crate) use files::{key_pair, token};
pub(crate) use model::{Bridge, Broker, Brokers, Cache, Config, Frontend, Log, Route, Security};
pub(crate) use names::HostPattern;
pub(crate) use problem::ConfigError;
pub(crate) use units::ByteCount;

use layers::{Given, Origins, Override, PREFIX};
use problem::{Origin, Problem};
use text::Text;

/// Reads a time such as `"30s"` for the command line.
///
/// # Errors
/// What was expected.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    units::Time::read(text)
        .map(|time| time.0)
        .map_err(|why| text::misfit::<units::Time>(text, why))
}

/// The variable that holds this node's secret key itself.
pub(crate) const SECRET_KEY: &str = "SCALE0_SECRET_KEY";

/// What runs without a file.
const EMBEDDED: &str = include_str!("embedded.toml");

/// What `scale0 bridge` starts from; its flags fill the bridge in.
const BRIDGE: &str = "[[bridge]]\n";

/// The largest file that is read: a thousand routes need a tenth of it.
const LARGEST_FILE: u64 = 1024 * 1024;

/// Where settings come from, the later over the earlier: the file, variables, `--set`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    /// The file. None: the embedded default.
    pub(crate) file: Option<PathBuf>,
    /// Variables, of which those that begin with `SCALE0__` are settings.
    pub(crate) variables: Vec<(String, String)>,
    /// `KEY=VALUE`, as `--set` has it.
    pub(crate) sets: Vec<String>,
    /// This node's secret key, as the environment has it.
    pub(crate) secret_key: Option<String>,
    /// The name of this host, which is the node's where it has no other.
    pub(crate) host_name: String,
}

impl Sources {
    /// The sources of this process.
    pub(crate) fn of_process(file: Option<PathBuf>, sets: Vec<String>) -> Self {
        // `vars` would panic over a variable of somebody else's that is not UTF-8.
        let variables = std::env::vars_os().map(|(name, value)| {
            (
                name.to_string_lossy().into_owned(),
                value.to_string_lossy().into_owned(),
            )
        });
        let variables = variables
            .filter(|(name, _)| name.starts_with(PREFIX))
            .collect();
        Self {
            file,
            variables,
            sets,
            secret_key: std::env::var_os(SECRET_KEY).map(|key| key.to_string_lossy().into_owned()),
            host_name: gethostname::gethostname().to_string_lossy().into_owned(),
        }
    }
}

impl Config {
    /// Reads the file, or the embedded default, and lays variables and `--set`s over it.
    ///
    /// # Errors
    /// Everything that is wrong with them, at once.
    pub(crate) fn load(sources: &Sources) -> Result<Self, ConfigError> {
        match &sources.file {
            Some(file) => {
                let name = file.display().to_string();
                let text = read(file).map_err(|message| {
                    ConfigError::new(&name, "", vec![Problem::new(Origin::Whole, "", message)])
                })?;
                Self::from_text(&name, &text, Vec::new(), sources)
            }
            None => Self::from_text("the embedded default", EMBEDDED, Vec::new(), sources),
        }
    }

    /// The one bridge that the flags of `scale0 bridge` describe. Variables count here too.
    ///
    /// # Errors
    /// Everything that is wrong with them, at once.
    pub(crate) fn of_bridge(
        flags: &BridgeArguments,
        sources: &Sources,
    ) -> Result<Self, ConfigError> {
        const NAME: &str = "the command line";
        let (keys, count) = (&flags.broker_keys, flags.brokers.len());
        if ![0, 1, count].contains(&keys.len()) {
            let message = format!(
                "expected one --broker-key for all brokers, or one for each of the {count}, found {}",
                keys.len()
            );
            let problem = Problem::new(Origin::Flag("--broker-key"), "", message);
            return Err(ConfigError::new(NAME, "", vec![problem]));
        }
        // One key for all of them is repeated for ever; none is none.
        let mut keys = keys.iter().cycle();
        let brokers = flags.brokers.iter().map(|endpoint| match keys.next() {
            Some(key) => Value::from(InlineTable::from_iter([
                ("endpoint", endpoint),
                ("public_key", key),
            ])),
            None => Value::from(endpoint),
        });
        let mut given = vec![
            (
                "services",
                "--service",
                Value::from(Array::from_iter(&flags.services)),
            ),
            (
                "upstream",
                "--upstream",
                Value::from(Array::from_iter(&flags.upstreams)),
            ),
            (
                "brokers",
                "--broker",
                Value::from(Array::from_iter(brokers)),
            ),
        ];
        given.extend(
            flags
                .concurrency
                .map(|count| ("concurrency", "--concurrency", Value::from(count))),
        );
        given.extend(
            flags
                .health
                .as_ref()
                .map(|path| ("health", "--health", Value::from(path))),
        );
        let overrides = given.into_iter().map(|(key, flag, value)| Override {
            path: vec!["bridge".to_owned(), "0".to_owned(), key.to_owned()],
            given: Given::Value(value),
            origin: Origin::Flag(flag),
        });
        Self::from_text(NAME, BRIDGE, overrides.collect(), sources)
    }

    /// Reads `text`, the content of the file called `name`, lays over it what else was given, and looks at the files it names.
    fn from_text(
        name: &str,
        text: &str,
        overrides: Vec<Override>,
        sources: &Sources,
    ) -> Result<Self, ConfigError> {
        let (config, origins) = Self::parse(name, text, overrides, sources)?;
        match files::check(&config, &origins) {
            problems if problems.is_empty() => Ok(config),
            problems => Err(ConfigError::new(name, text, problems)),
        }
    }

    /// The same, whatever became of the files it names.
    fn parse(
        name: &str,
        text: &str,
        mut overrides: Vec<Override>,
        sources: &Sources,
    ) -> Result<(Self, Origins), ConfigError> {
        let fail = |problems| ConfigError::new(name, text, problems);
        let document = Document::parse(text).map_err(|error| {
            let origin = Origin::of_span(error.span());
            // The parser's messages can have several lines; ours have one.
            fail(vec![Problem::new(
                origin,
                "",
                error.message().lines().collect::<Vec<_>>().join("; "),
            )])
        })?;
        let mut problems = Vec::new();
        overrides.extend(variables(&sources.variables));
        for set in &sources.sets {
            match set.split_once('=') {
                Some((key, value)) => overrides.push(Override {
                    path: key.trim().split('.').map(str::to_owned).collect(),
                    given: Given::Text(value.to_owned()),
                    origin: Origin::Set(key.trim().to_owned()),
                }),
                None => problems.push(Problem::new(
                    Origin::Set(set.clone()),
                    "",
                    "expected KEY=VALUE, such as limits.timeout=30s",
                )),
            }
        }
        match layers::merge(&document, overrides) {
            Ok((raw, origins)) if problems.is_empty() => {
                let config = door::check(raw, &origins, sources).map_err(fail)?;
                Ok((config, origins))
            }
            Ok(_) => Err(fail(problems)),
            Err(more) => Err(fail([problems, more].concat())),
        }
    }
}

/// The variables that are settings, in the order of their names.
fn variables(all: &[(String, String)]) -> impl Iterator<Item = Override> {
    let mut ours: Vec<_> = all
        .iter()
        .filter_map(|(name, value)| Some((name, name.strip_prefix(PREFIX)?, value)))
        .collect();
    ours.sort();
    ours.into_iter().map(|(name, path, value)| Override {
        path: path.split("__").map(str::to_ascii_lowercase).collect(),
        given: Given::Text(value.clone()),
        origin: Origin::Variable(name.clone()),
    })
}

/// The text of a file.
fn read(file: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let opened = File::open(file).map_err(|error| format!("cannot open the file: {error}"))?;
    opened
        .take(LARGEST_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot read the file: {error}"))?;
    if LARGEST_FILE < bytes.len() as u64 {
        return Err("the file is larger than 1 MiB, which no configuration is".to_owned());
    }
    String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            + 1;
        format!("the file is not UTF-8 text; the first wrong byte is in line {line}")
    })
}
