//! Requests that belong together go to the same backend, as far as that is not overloaded by it.

/// What a backend is in the choice: the same at each broker and for as long as it has its name, however often it comes and goes.
pub(crate) fn seed(node: &str, lane: u16) -> u64 {
    // FNV-1a: short names, and nothing is at stake but an even spread, which `fit` sees to.
    let bytes = node.bytes().chain(lane.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// How well requests of this key fit a backend: the best is chosen (rendezvous hashing). So a backend that comes takes its part of the
/// keys evenly from the others, one that goes leaves its own evenly to them, and nothing else moves.
pub(crate) const fn fit(key: u64, seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(key.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Requests that one backend may have for the sake of affinity, where all have so many: a quarter more than the mean, and one. What goes
/// beyond turns to the next best (Mirrokni, Thorup and Zadimoghaddam's bounded loads).
pub(crate) const fn bound(outstanding: usize, backends: usize) -> usize {
    let parts = 4 * if backends == 0 { 1 } else { backends };
    (5 * outstanding).div_ceil(parts) + 1
}

/// The best of these seeds that some may take, looking no further than at the eight best.
pub(crate) fn best<'a, T: 'a + Copy>(
    key: u64,
    all: &(impl Iterator<Item = (u64, T)> + Clone + 'a),
    may_take: impl Fn(T) -> bool,
) -> Option<T> {
    let mut below = None;
    for _ in 0..TRIED {
        let fits = all.clone().map(|(seed, it)| (fit(key, seed), it));
        let fits = fits.filter(|&(fit, _)| below.is_none_or(|below| fit < below));
        let (fit, it) = fits.max_by_key(|&(fit, _)| fit)?;
        if may_take(it) {
            return Some(it);
        }
        below = Some(fit);
    }
    None
}

/// Beyond so many, the key's place is anywhere.
const TRIED: usize = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn homes(seeds: &[u64]) -> Vec<u64> {
        (1..=2_000)
            .map(|key| {
                let all = seeds.iter().map(|&seed| (seed, seed));
                best(key, &all, |_| true).unwrap()
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn of_the_keys_no_more_move_than_the_part_of_the_one_that_joins(
            names in prop::collection::hash_set("[a-z]{1,6}", 2..12),
        ) {
            let seeds: Vec<_> = names.iter().map(|name| seed(name, 0)).collect();
            let (joining, before) = seeds.split_first().unwrap();
            let (before, after) = (homes(before), homes(&seeds));
            let moved: Vec<_> = before.iter().zip(&after).filter(|(a, b)| a != b).collect();
            prop_assert!(moved.iter().all(|(_, home)| *home == joining));
            let part = moved.len() as f64 / after.len() as f64;
            let fair = 1.0 / seeds.len() as f64;
            prop_assert!((part - fair).abs() < 0.05, "{part} of {fair}");
        }
    }

    #[test]
    fn lanes_of_one_node_are_as_different_as_nodes() {
        let seeds: Vec<_> = (0..8).map(|lane| seed("shop-1", lane)).collect();
        let homes = homes(&seeds);
        for seed in seeds {
            let part = homes.iter().filter(|&&home| home == seed).count();
            assert!((180..=320).contains(&part), "{part}");
        }
    }

    #[test]
    fn the_next_best_takes_what_the_best_may_not() {
        let all = [3_u64, 5, 7].map(|seed| (seed, seed));
        let first = best(9, &all.into_iter(), |_| true).unwrap();
        let second = best(9, &all.into_iter(), |it| it != first).unwrap();
        assert_ne!(first, second);
        assert_eq!(best(9, &all.into_iter(), |_| false), None);
    }

    #[test]
    fn a_backend_may_have_a_quarter_more_than_the_mean_and_one() {
        for (outstanding, backends, most) in
            [(0, 4, 1), (1, 4, 2), (8, 4, 4), (100, 10, 14), (5, 0, 8)]
        {
            assert_eq!(bound(outstanding, backends), most);
        }
    }
}
