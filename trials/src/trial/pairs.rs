//! Whether something makes a difference on a machine where everything does.

use std::fmt::{self, Display};

/// Ratios of pairs taken in turn: of two turns without it, and of one without and one with it. How far chance moves a ratio is
/// what the former show.
#[derive(Clone, Debug, Default)]
pub(super) struct Pairs {
    alike: Vec<f64>,
    different: Vec<f64>,
}

impl Pairs {
    /// Takes down both pairs of a round, each the first turn's figure and the second's.
    pub(super) fn add(&mut self, alike: [f64; 2], different: [f64; 2]) {
        self.alike.push(alike[1] / alike[0]);
        self.different.push(different[1] / different[0]);
    }

    /// Whether the median ratio of the different is no larger than chance makes one of the alike, up or down; or than 1 by this part.
    pub(super) fn are_unmoved(&self, tolerance: f64) -> bool {
        let apart = self.alike.iter().map(|ratio| ratio.max(ratio.recip()));
        median(&self.different) <= apart.fold(1.0 + tolerance, f64::max)
    }
}

impl Display for Pairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spread = |of: &[f64]| {
            let least = of.iter().copied().fold(f64::INFINITY, f64::min);
            let most = of.iter().copied().fold(0.0, f64::max);
            format!("{:.3} ({least:.3} to {most:.3})", median(of))
        };
        write!(
            f,
            "ratio {}, of pairs alike {}, {} pairs of each",
            spread(&self.different),
            spread(&self.alike),
            self.alike.len()
        )
    }
}

/// The middle one; of none, nothing that compares.
fn median(of: &[f64]) -> f64 {
    let mut sorted = of.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(rounds: &[([f64; 2], [f64; 2])]) -> Pairs {
        let mut pairs = Pairs::default();
        for (alike, different) in rounds {
            pairs.add(*alike, *different);
        }
        pairs
    }

    #[test]
    fn what_moves_more_than_chance_is_seen() {
        let moved = pairs(&[
            ([1.0, 1.1], [1.0, 1.5]),
            ([1.0, 0.9], [1.0, 1.6]),
            ([1.0, 1.0], [1.0, 1.0]),
        ]);
        assert!(!moved.are_unmoved(0.05));
        let unmoved = pairs(&[
            ([1.0, 1.1], [1.0, 1.08]),
            ([1.0, 0.9], [1.0, 1.6]),
            ([1.0, 1.0], [1.0, 1.0]),
        ]);
        assert!(unmoved.are_unmoved(0.05));
    }

    #[test]
    fn of_nothing_nothing_is_said_to_hold() {
        assert!(!Pairs::default().are_unmoved(0.05));
    }
}
