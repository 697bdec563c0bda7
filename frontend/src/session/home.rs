//! Which broker is home to a flight: the same for every frontend that sees the same brokers, with nobody asked.
//!
//! Rendezvous hashing (Thaler and Ravishankar, 1998): the broker whose name mixed with the key gives the highest number. A
//! broker that comes or goes moves only the keys that are or were its own.

use scale0_wire::FlightKey;

/// A broker's name as rendezvous sees it: FNV-1a, 64 bits.
pub(super) fn seed(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// How strongly the broker with this seed claims the key; the highest claim wins.
pub(super) fn claim(seed: u64, key: FlightKey) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "both halves of the key are used"
    )]
    let folded = (key.0 ^ (key.0 >> 64)) as u64;
    // The finaliser of SplitMix64, which spreads any change over all bits.
    let mut mixed = seed ^ folded;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 4] = ["fra-1", "fra-2", "fra-3", "fra-4"];

    fn home(names: &[&'static str], key: u128) -> &'static str {
        names
            .iter()
            .max_by_key(|name| claim(seed(name), FlightKey(key)))
            .unwrap()
    }

    fn keys() -> impl Iterator<Item = u128> {
        (1..10_000_u128).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
    }

    #[test]
    fn keys_spread_evenly_over_brokers() {
        for name in NAMES {
            let share = keys().filter(|key| home(&NAMES, *key) == name).count();
            assert!(
                (2250..2750).contains(&share),
                "{name} is home to {share} of 10,000"
            );
        }
    }

    #[test]
    fn a_broker_that_leaves_moves_only_its_own_keys() {
        for key in keys() {
            let before = home(&NAMES, key);
            if before != "fra-4" {
                assert_eq!(home(&NAMES[..3], key), before);
            }
        }
    }
}
