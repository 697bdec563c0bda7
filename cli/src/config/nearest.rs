//! The word somebody meant.

/// The candidate nearest to `word`, if it is near enough to be a slip: a third of its letters, and at least one; or else the
/// first that merely goes on after it, as `token_file` does after `token`.
///
/// The distance is Levenshtein's with swapped neighbours counted once: `memroy` is one slip away from `memory`.
pub(super) fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let word = word.to_ascii_lowercase().replace('-', "_");
    if LONGEST < word.len() {
        return None;
    }
    let reach = (word.chars().count() / 3).max(1);
    let near = candidates
        .iter()
        .map(|candidate| (distance(&word, candidate), *candidate));
    let near = near.filter(|(distance, _)| *distance <= reach);
    let longer = || {
        candidates
            .iter()
            .find(|candidate| SHORTEST <= word.len() && candidate.starts_with(&word))
    };
    near.min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
        .or_else(|| longer().copied())
}

/// A beginning shorter than this says too little.
const SHORTEST: usize = 3;

/// A longer word is no slip of any of ours. It bounds the work, which is a product of lengths.
const LONGEST: usize = 64;

fn distance(one: &str, two: &str) -> usize {
    let (one, two): (Vec<char>, Vec<char>) = (one.chars().collect(), two.chars().collect());
    // Rows for the last two prefixes of `one` and the current one.
    let (mut before, mut last) = (Vec::new(), (0..=two.len()).collect::<Vec<usize>>());
    for i in 1..=one.len() {
        let mut row = vec![i];
        for j in 1..=two.len() {
            let replaced = last[j - 1] + usize::from(one[i - 1] != two[j - 1]);
            let mut best = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if 1 < i && 1 < j && one[i - 1] == two[j - 2] && one[i - 2] == two[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[two.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_word_and_a_stranger_finds_none() {
        let keys = ["memory", "memory_max_object", "flight_buffer", "store"];
        assert_eq!(nearest("memroy", &keys), Some("memory"));
        assert_eq!(
            nearest("Memory-Max-Object", &keys),
            Some("memory_max_object")
        );
        assert_eq!(nearest("flightbuffer", &keys), Some("flight_buffer"));
        assert_eq!(nearest("stor", &keys), Some("store"));
        assert_eq!(nearest("flight", &keys), Some("flight_buffer"));
        assert_eq!(nearest("compression", &keys), None);
        assert_eq!(nearest("", &keys), None);
    }
}
