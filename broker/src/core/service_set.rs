//! Sets of services.

use super::service::ServiceKey;

/// A set of services: a bit for each place of their slab. What two sets have in common is found 64 services at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServiceSet(Vec<u64>);

const BITS: usize = u64::BITS as usize;

impl ServiceSet {
    pub(crate) fn insert(&mut self, key: ServiceKey) {
        let word = key.0 / BITS;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (key.0 % BITS);
    }

    pub(crate) fn remove(&mut self, key: ServiceKey) {
        if let Some(word) = self.0.get_mut(key.0 / BITS) {
            *word &= !(1 << (key.0 % BITS));
        }
    }

    pub(crate) fn contains(&self, key: ServiceKey) -> bool {
        let word = self.0.get(key.0 / BITS);
        word.is_some_and(|word| word & 1 << (key.0 % BITS) != 0)
    }

    /// What is in both sets, in order of number.
    pub(crate) fn common<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = ServiceKey> + 'a {
        let words = self.0.iter().zip(&other.0).enumerate();
        words.flat_map(|(index, (a, b))| {
            let mut left = a & b;
            std::iter::from_fn(move || {
                let bit = left
                    .checked_ilog2()
                    .map(|_| left.trailing_zeros() as usize)?;
                left &= left - 1;
                Some(ServiceKey(index * BITS + bit))
            })
        })
    }

    /// What is in both sets, round in a circle that begins behind `last`.
    pub(crate) fn common_after<'a>(
        &'a self,
        other: &'a Self,
        last: ServiceKey,
    ) -> impl Iterator<Item = ServiceKey> + 'a {
        let later = self.common(other).skip_while(move |key| key.0 <= last.0);
        let earlier = self.common(other).take_while(move |key| key.0 <= last.0);
        later.chain(earlier)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn set(keys: &BTreeSet<usize>) -> ServiceSet {
        let mut set = ServiceSet::default();
        for &key in keys {
            set.insert(ServiceKey(key));
        }
        set
    }

    proptest! {
        #[test]
        fn two_sets_have_in_common_what_lists_would_in_a_circle(
            a in prop::collection::btree_set(0_usize..200, 0..50),
            b in prop::collection::btree_set(0_usize..200, 0..50),
            last in 0_usize..200,
        ) {
            let common: Vec<_> = a.intersection(&b).copied().collect();
            let (later, earlier): (Vec<_>, Vec<_>) = common.iter().partition(|&&key| last < key);
            let (a, b) = (set(&a), set(&b));
            let found: Vec<_> = a.common(&b).map(|key| key.0).collect();
            prop_assert_eq!(&found, &common);
            let found: Vec<_> = a.common_after(&b, ServiceKey(last)).map(|key| key.0).collect();
            prop_assert_eq!(found, [later, earlier].concat());
        }

        #[test]
        fn what_was_removed_is_in_no_set(keys in prop::collection::btree_set(0_usize..200, 1..50)) {
            let mut set = set(&keys);
            for &key in &keys {
                prop_assert!(set.contains(ServiceKey(key)));
                set.remove(ServiceKey(key));
                prop_assert!(!set.contains(ServiceKey(key)));
            }
            set.remove(ServiceKey(100_000));
            prop_assert_eq!(set.common(&set).count(), 0);
        }
    }
}
