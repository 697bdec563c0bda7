//! What is wrong with a configuration, told so that the next attempt succeeds.

use std::fmt;
use std::ops::Range;

use super::redact;

/// Where a setting was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// In the file, at these bytes.
    File(Range<usize>),
    /// By this environment variable.
    Variable(String),
    /// By `--set` for this key.
    Set(String),
    /// By this flag of the command line.
    Flag(&'static str),
    /// Nowhere in particular: the file as a whole.
    Whole,
}

impl Origin {
    /// This place in the file; the file as a whole if the parser does not know the place.
    pub(super) fn of_span(span: Option<Range<usize>>) -> Self {
        span.map_or(Self::Whole, Self::File)
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    /// Where it is to be mended.
    pub(super) origin: Origin,
    /// The key it is about, with its section; empty where there is none.
    pub(super) key: String,
    /// What is wrong: what was expected, and what was found.
    pub(super) message: String,
    /// Another place that has to do with it, and how.
    pub(super) beside: Option<Box<(String, Origin)>>,
    /// What helps.
    pub(super) help: Option<String>,
}

impl Problem {
    pub(super) fn new(origin: Origin, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            origin,
            key: key.into(),
            message: message.into(),
            beside: None,
            help: None,
        }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(super) fn beside(mut self, how: impl Into<String>, origin: Origin) -> Self {
        self.beside = Some(Box::new((how.into(), origin)));
        self
    }
}

/// Why a configuration is none. Whoever wrote it mends it; nothing was started, and repeating without a change is useless.
///
/// Its text is complete: each problem with its place, what was expected there and what helps. No secret is in it.
#[derive(Debug, thiserror::Error)]
pub(crate) struct ConfigError {
    file: String,
    text: String,
    problems: Vec<Problem>,
}

/// More problems than this are one problem: the file is something else. Nobody looks for further ones.
pub(super) const MOST_SHOWN: usize = 20;

/// How much of a line is shown.
const WIDTH: usize = 120;

impl ConfigError {
    /// Puts the problems in the order of the file; those of other sources follow.
    pub(super) fn new(file: &str, text: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| match &problem.origin {
            Origin::File(span) => span.start,
            Origin::Whole => 0,
            Origin::Variable(_) | Origin::Set(_) | Origin::Flag(_) => usize::MAX,
        });
        Self {
            file: file.to_owned(),
            text: text.to_owned(),
            problems,
        }
    }

    /// The line and column of a byte, from 1, and the line's text.
    fn place(&self, byte: usize) -> (usize, usize, &str) {
        // A span comes from this text, but a message must not fail over it.
        let byte = (0..=byte.min(self.text.len()))
            .rev()
            .find(|byte| self.text.is_char_boundary(*byte))
            .unwrap_or(0);
        let start = self.text[..byte]
            .rfind('\n')
            .map_or(0, |newline| newline + 1);
        let end = self.text[byte..]
            .find('\n')
            .map_or(self.text.len(), |length| byte + length);
        let line = self.text[..start].matches('\n').count() + 1;
        (
            line,
            self.text[start..byte].chars().count() + 1,
            self.text[start..end].trim_end_matches('\r'),
        )
    }

    /// The place of a problem and, for one in the file, its line with the spot marked.
    fn show(&self, f: &mut fmt::Formatter<'_>, origin: &Origin, mark: &str) -> fmt::Result {
        let Origin::File(span) = origin else {
            return writeln!(f, "  --> {}", self.name(origin));
        };
        let (number, column, line) = self.place(span.start);
        writeln!(f, "  --> {}:{number}:{column}", self.file)?;
        let shown = redact::line(line);
        let is_whole = shown == line && line.chars().count() <= WIDTH;
        let gutter = " ".repeat(number.to_string().len());
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        writeln!(
            f,
            "{gutter} |\n{number} | {}",
            shown.chars().take(WIDTH).map(printable).collect::<String>()
        )?;
        if !is_whole {
            return if mark.is_empty() {
                Ok(())
            } else {
                writeln!(f, "  = key: {mark}")
            };
        }
        let spot = self
            .text
            .get(span.clone())
            .and_then(|text| text.lines().next());
        let width = spot.map_or(1, |spot| spot.chars().count().max(1));
        let marked = format!(
            "{gutter} | {}{} {mark}",
            " ".repeat(column - 1),
            "^".repeat(width)
        );
        writeln!(f, "{}", marked.trim_end())
    }

    /// A place in a few words.
    fn name(&self, origin: &Origin) -> String {
        match origin {
            Origin::File(span) => format!("line {}", self.place(span.start).0),
            Origin::Variable(name) => format!("environment variable {name}"),
            Origin::Set(key) => format!("--set {key}"),
            Origin::Flag(flag) => format!("command line, {flag}"),
            Origin::Whole => self.file.clone(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().take(MOST_SHOWN).enumerate() {
            let gap = if index == 0 { "" } else { "\n" };
            writeln!(f, "{gap}error: {}", problem.message)?;
            self.show(f, &problem.origin, &problem.key)?;
            if let Some((how, origin)) = problem.beside.as_deref() {
                writeln!(f, "  = note: {how}: {}", self.name(origin))?;
            }
            if let Some(help) = &problem.help {
                writeln!(f, "  = help: {help}")?;
            }
        }
        match self.problems.len() {
            0 | 1 => Ok(()),
            count @ 2..=MOST_SHOWN => writeln!(f, "\n{count} problems; nothing was started"),
            _ => writeln!(f, "\nmore than {MOST_SHOWN} problems; nothing was started"),
        }
    }
}
