//! What is printed.

use std::io::{self, Write};

use crate::Turn;

/// The turns of each system, the first of which is what the others are compared with.
pub(crate) struct Report {
    rows: Vec<(&'static str, Vec<Turn>)>,
}

impl Report {
    pub(crate) fn new(names: impl Iterator<Item = &'static str>) -> Self {
        Self {
            rows: names.map(|name| (name, Vec::new())).collect(),
        }
    }

    pub(crate) fn add(&mut self, system: usize, turn: Turn) {
        self.rows[system].1.push(turn);
    }

    /// A table: each figure's median, and for ratios, which are taken within rounds, the range.
    pub(crate) fn print(&self, title: &str) -> io::Result<()> {
        say(&format!("\n{title}\n"))?;
        say(
            "| system | round trips/s | broker's / its | server CPU us/round trip | broker's / its |",
        )?;
        say("|---|---|---|---|---|")?;
        let Some((_, first)) = self.rows.first() else {
            return Ok(());
        };
        for (name, turns) in &self.rows {
            say(&format!(
                "| {name} | {:.0} | {} | {:.2} | {} |",
                Spread::of(turns.iter().map(rate)).median,
                ratio(first, turns, rate),
                Spread::of(turns.iter().map(cost)).median,
                ratio(first, turns, cost),
            ))?;
        }
        Ok(())
    }
}

/// Round trips a second.
#[expect(clippy::cast_precision_loss, reason = "fewer than 2⁵³ in a turn")]
fn rate(turn: &Turn) -> f64 {
    turn.round_trips as f64 / turn.took.as_secs_f64()
}

/// Microseconds of the server's CPU time a round trip.
#[expect(clippy::cast_precision_loss, reason = "fewer than 2⁵³ in a turn")]
fn cost(turn: &Turn) -> f64 {
    turn.cpu.as_secs_f64() * 1e6 / turn.round_trips as f64
}

fn ratio(first: &[Turn], turns: &[Turn], figure: impl Fn(&Turn) -> f64) -> String {
    let pairs = first.iter().zip(turns);
    let spread = Spread::of(pairs.map(|(first, turn)| figure(first) / figure(turn)));
    format!(
        "{:.2} ({:.2}–{:.2})",
        spread.median, spread.least, spread.greatest
    )
}

struct Spread {
    least: f64,
    median: f64,
    greatest: f64,
}

impl Spread {
    fn of(figures: impl Iterator<Item = f64>) -> Self {
        let mut figures: Vec<_> = figures.collect();
        figures.sort_by(f64::total_cmp);
        let at = |index: usize| figures.get(index).copied().unwrap_or(f64::NAN);
        Self {
            least: at(0),
            median: at(figures.len() / 2),
            greatest: at(figures.len().saturating_sub(1)),
        }
    }
}

/// One line of output.
pub(crate) fn say(line: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush()
}
