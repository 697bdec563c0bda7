//! What a backend lets this broker send it.

/// Credit of one backend session. All counts are cumulative, so that repeating or losing a grant does no harm.
///
/// `used + returned <= granted` always: nothing is sent, and nothing given back, that was not granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    granted: u64,
    used: u64,
    returned: u64,
    capacity: u32,
}

impl Ledger {
    /// Nothing granted yet, by a backend that works on so many requests at a time.
    pub(crate) const fn new(capacity: u32) -> Self {
        Self {
            granted: 0,
            used: 0,
            returned: 0,
            capacity,
        }
    }

    /// What was granted and neither used nor returned.
    pub(crate) fn unused(&self) -> u32 {
        u32::try_from(self.granted - self.used - self.returned).unwrap_or(u32::MAX)
    }

    /// Requests that may be sent now. No more than the backend's capacity, whatever it granted.
    pub(crate) fn available(&self) -> u32 {
        self.unused().min(self.capacity)
    }

    /// The backend works on so many requests at a time from now on.
    pub(crate) const fn resize(&mut self, capacity: u32) {
        self.capacity = capacity;
    }

    pub(crate) const fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Takes in the newest grant. Returns whether it is more than was known.
    pub(crate) const fn grant(&mut self, granted: u64) -> bool {
        let is_more = self.granted < granted;
        if is_more {
            self.granted = granted;
        }
        is_more
    }

    /// Counts one request as sent. Returns false, and counts nothing, without credit.
    #[must_use]
    pub(crate) fn take(&mut self) -> bool {
        let has_credit = 0 < self.available();
        self.used += u64::from(has_credit);
        has_credit
    }

    /// Gives back up to `wanted` of what is unused. Returns all that was given back in this session.
    pub(crate) fn give_back(&mut self, wanted: u32) -> u64 {
        self.returned += u64::from(wanted.min(self.unused()));
        self.returned
    }

    pub(crate) const fn granted(&self) -> u64 {
        self.granted
    }

    pub(crate) const fn used(&self) -> u64 {
        self.used
    }

    pub(crate) const fn returned(&self) -> u64 {
        self.returned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_used_once_and_neither_a_repeated_nor_an_older_one_adds_to_it() {
        let mut ledger = Ledger::new(4);
        assert!(ledger.grant(2));
        assert!(!ledger.grant(2));
        assert!(!ledger.grant(1));
        assert!(ledger.take() && ledger.take());
        assert!(!ledger.take());
    }

    #[test]
    fn only_unused_credit_is_given_back_and_it_cannot_be_used_afterwards() {
        let mut ledger = Ledger::new(4);
        ledger.grant(3);
        assert!(ledger.take());
        assert_eq!(ledger.give_back(9), 2);
        assert_eq!(ledger.give_back(9), 2);
        assert!(!ledger.take());
    }

    #[test]
    fn a_backend_that_takes_no_work_is_sent_none_and_gets_its_credit_back() {
        let mut ledger = Ledger::new(4);
        ledger.grant(4);
        ledger.resize(0);
        assert!(!ledger.take());
        assert_eq!(ledger.give_back(3), 3);
        ledger.resize(4);
        assert_eq!(ledger.available(), 1);
    }

    #[test]
    fn a_boundless_grant_is_worth_the_capacity() {
        let mut ledger = Ledger::new(4);
        ledger.grant(u64::MAX);
        assert_eq!(ledger.available(), 4);
    }
}
