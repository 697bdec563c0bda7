//! What a trial says in the end: each sentence that was to hold, whether it did, and by which figures.

use std::fmt::{self, Display};

/// What came of one sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ruling {
    Holds,
    Fails,
    /// A figure to look at; nothing is asserted of it.
    Told,
}

/// What came of a trial.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    lines: Vec<(Ruling, String)>,
}

impl Verdict {
    /// States that a sentence holds, or that it does not, with the figures that show it.
    pub(crate) fn claim(&mut self, sentence: impl Display, holds: bool, figures: impl Display) {
        let ruling = if holds { Ruling::Holds } else { Ruling::Fails };
        self.lines.push((ruling, format!("{sentence}: {figures}")));
    }

    /// Tells a figure that nothing is asserted of.
    pub(crate) fn tell(&mut self, figure: impl Display) {
        self.lines.push((Ruling::Told, figure.to_string()));
    }

    /// Whether all sentences hold.
    pub(crate) fn holds(&self) -> bool {
        self.lines
            .iter()
            .all(|(ruling, _)| *ruling != Ruling::Fails)
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (ruling, line) in &self.lines {
            let mark = match ruling {
                Ruling::Holds => "holds",
                Ruling::Fails => "FAILS",
                Ruling::Told => "     ",
            };
            writeln!(f, "  {mark}  {line}")?;
        }
        let verdict = if self.holds() { "passed" } else { "FAILED" };
        write!(f, "{verdict}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sentence_that_fails_fails_the_trial() {
        let mut verdict = Verdict::default();
        verdict.claim("nothing is lost", true, "0 of 7");
        verdict.tell("7 requests");
        assert!(verdict.holds());
        verdict.claim("nothing runs twice", false, "1 of 7");
        assert!(!verdict.holds());
        let text = verdict.to_string();
        assert!(text.contains("FAILS  nothing runs twice: 1 of 7"), "{text}");
        assert!(text.ends_with("FAILED"), "{text}");
    }
}
