//! Who was at the door before.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::key::CacheKey;

/// So many bytes of what it guards for each key that is remembered: about as many keys as there are small responses.
const BYTES_PER_KEY: u64 = 1024;

/// 512 KiB at most: of whom so many others have come since, it was not lately.
const MAX_KEYS: u64 = 64 * 1024;

/// Remembers keys that were asked for lately: each for as long as no other comes to its place. Most of what a
/// site has is asked for once in a long while, and would only displace what is asked for all the time. As the doorkeeper of TinyLFU
/// (Einziger, Friedman, Manes, ACM Transactions on Storage 13(4), 2017), but that keys leave one by one.
#[derive(Debug)]
pub(super) struct Doorkeeper {
    places: Box<[AtomicU64]>,
}

impl Doorkeeper {
    /// For a tier of that many bytes.
    pub(super) fn new(capacity: u64) -> Self {
        let places = (capacity / BYTES_PER_KEY).clamp(1, MAX_KEYS);
        Self {
            places: (0..places).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Remembers a key. Whether it was remembered already.
    pub(super) fn knows(&self, key: &CacheKey) -> bool {
        let name = key.short_hash();
        let place = name % self.places.len() as u64;
        let place = usize::try_from(place).ok();
        place
            .and_then(|place| self.places.get(place))
            .is_some_and(|place| place.swap(name, Ordering::Relaxed) == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> CacheKey {
        CacheKey::new("http", "example.com", &number.to_string())
    }

    #[test]
    fn who_comes_again_soon_is_known_and_who_comes_after_many_others_is_not() {
        let doorkeeper = Doorkeeper::new(1024 * 1024);
        let known = |keys: &mut dyn Iterator<Item = u32>| {
            keys.filter(|&number| doorkeeper.knows(&key(number)))
                .count()
        };
        assert_eq!(known(&mut (0..100)), 0);
        assert!(90 <= known(&mut (0..100)), "some share a place");
        assert_eq!(known(&mut (1000..20_000)), 0);
        assert_eq!(known(&mut (0..100)), 0);
    }

    #[test]
    fn it_takes_little_however_large_what_it_guards_is() {
        for (capacity, places) in [(0, 1), (1024 * 1024, 1024), (u64::MAX, 65_536)] {
            assert_eq!(Doorkeeper::new(capacity).places.len(), places);
        }
    }
}
