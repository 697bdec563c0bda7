//! What one backend works on for us, by service.

use super::service::ServiceKey;

/// Requests under way at one backend, for each service that has any: as many as it has credit, however many services it offers.
#[derive(Clone, Debug, Default)]
pub(crate) struct AtWork {
    /// In order of the services' numbers.
    counts: Vec<(usize, u32)>,
}

impl AtWork {
    pub(crate) fn of(&self, service: ServiceKey) -> u32 {
        self.find(service).map_or(0, |place| self.counts[place].1)
    }

    pub(crate) fn add(&mut self, service: ServiceKey) {
        match self.find(service) {
            Ok(place) => self.counts[place].1 += 1,
            Err(place) => self.counts.insert(place, (service.0, 1)),
        }
    }

    /// One of those that were added is over.
    pub(crate) fn remove(&mut self, service: ServiceKey) {
        if let Ok(place) = self.find(service) {
            self.counts[place].1 -= 1;
            if self.counts[place].1 == 0 {
                self.counts.remove(place);
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ServiceKey, u32)> {
        let counts = self.counts.iter();
        counts.map(|&(service, count)| (ServiceKey(service), count))
    }

    fn find(&self, service: ServiceKey) -> Result<usize, usize> {
        self.counts
            .binary_search_by_key(&service.0, |&(number, _)| number)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn counts_are_what_was_added_less_what_was_removed(
            deeds in prop::collection::vec((any::<bool>(), 0_usize..6), 0..100),
        ) {
            let mut at_work = AtWork::default();
            let mut model = BTreeMap::new();
            for (adds, service) in deeds {
                if adds {
                    at_work.add(ServiceKey(service));
                    *model.entry(service).or_insert(0) += 1;
                } else {
                    at_work.remove(ServiceKey(service));
                    let count = model.remove(&service).unwrap_or(0);
                    if 1 < count {
                        model.insert(service, count - 1);
                    }
                }
            }
            let counts: BTreeMap<_, _> = at_work.iter().map(|(key, count)| (key.0, count)).collect();
            prop_assert_eq!(counts, model);
        }
    }
}
