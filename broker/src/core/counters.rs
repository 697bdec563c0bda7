//! What has happened, in numbers.

use scale0_wire::{Reason, Why};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts since the broker started. They only grow.
        #[derive(Clone, Debug)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
            /// Requests sent to backends, by why it was this one: together as many as were sent.
            pub chosen: ByWhy,
            /// Requests refused before they were started, by reason.
            pub refused: ByReason,
            /// Requests that failed after they may have been started, by reason.
            pub failed: ByReason,
        }

        impl Counters {
            pub(crate) const fn new() -> Self {
                Self { $($name: 0,)* chosen: ByWhy::new(), refused: ByReason::new(), failed: ByReason::new() }
            }

            /// What no honest peer does.
            pub(crate) const fn breaches(&self) -> u64 {
                self.control_floods
                    + self.dropped_malformed
                    + self.dropped_metadata
                    + self.dropped_out_of_place
                    + self.hellos_ignored
                    + self.sessions_broken
            }

            /// Names and values of all but the counts by choice and by reason.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name)),*].into_iter()
            }
        }
    };
}

counters! {
    /// Messages received.
    received,
    /// Requests that came from frontends and were taken in: each has one outcome, see the next five.
    requests,
    /// Outcome: the whole response has passed.
    answered,
    /// Outcome: the backend said that it failed, and its word was passed on.
    failed_by_backend,
    /// Outcome: the frontend wanted it no more.
    cancelled,
    /// Outcome: its frontend is gone.
    frontend_lost,
    /// Outcome: refused or failed by this broker; see the counts by reason.
    given_up,
    /// Requests sent to backends, repeats included.
    sent,
    /// Requests that had to wait for credit.
    queued,
    /// Requests refused because all queues together were too long for them, though their own was not.
    queues_full,
    /// Requests refused at once because they would have been answered after their deadline.
    too_late,
    /// Requests refused while more was asked for than could be done, because newer ones had been served for too long.
    passed_over,
    /// Trailers, and details of failures, left out because too much waited for their reader.
    trailers_dropped,
    /// Repeats after a lost connection.
    repeated_after_loss,
    /// Repeats after a REJECT.
    repeated_after_reject,
    /// Repeats after an error, paid for by the budget.
    repeated_after_error,
    /// Repeats after an error that the budget did not pay for.
    budget_spent,
    /// Late requests given to a second backend.
    hedged,
    /// Those of them that the second backend answered first.
    hedges_won,
    /// Those of them that the first backend answered first after all.
    hedges_cancelled,
    /// Late requests that were not given to a second backend because too many had been.
    hedges_refused,
    /// Requests that could not be kept for a repeat because too many bytes were.
    not_kept,
    /// Backends that were sent nothing for a while, because nothing was heard of them.
    suspected,
    /// Backends that were sent nothing of a service for a while, because they had failed at it often.
    ejected,
    /// Backends that were sent nothing of a service for a while, because they were far slower at it than others.
    ejected_slow,
    /// Backends that are sent a service's requests like others again.
    returned,
    /// Sessions opened.
    sessions_opened,
    /// HELLOs not taken in because their connection had opened several sessions within the second already.
    hellos_ignored,
    /// Sessions not opened because there were too many.
    sessions_refused,
    /// Sessions not opened, or ended, because the peer's key gives no right to one.
    sessions_not_allowed,
    /// Sessions ended by BYE of the peer.
    sessions_left,
    /// Sessions ended by a lost connection.
    sessions_lost,
    /// Sessions ended because nothing was heard.
    sessions_silent,
    /// Sessions ended because a newer one took their place.
    sessions_replaced,
    /// Sessions ended because the peer broke the protocol.
    sessions_broken,
    /// Sessions ended because too much waited for the peer's connection.
    sessions_stuck,
    /// Frontends that a drain did not wait for any longer: they had not said that they had read all.
    drains_unread,
    /// Services not registered because there were too many.
    services_refused,
    /// Services not registered because the backend's key gives no right to offer them.
    services_not_allowed,
    /// Pauses of this process that were longer than a heartbeat.
    pauses,
    /// Messages about sessions and streams, without content of their own, beyond the rate at which an honest peer can have any.
    control_floods,
    /// Peers put into quarantine.
    quarantines,
    /// Dropped: from a peer in quarantine, under way already.
    dropped_muted,
    /// Dropped: bytes that are no message.
    dropped_malformed,
    /// Dropped: metadata that is not what its kind says.
    dropped_metadata,
    /// Dropped: from a peer without a session.
    dropped_without_session,
    /// Dropped: of another epoch than its session's.
    dropped_epoch,
    /// Dropped: of another version than its session's.
    dropped_version,
    /// Dropped: about a stream that is over, or never was.
    dropped_unknown_stream,
    /// Dropped: late, about a stream that nobody wants any more.
    dropped_abandoned,
    /// Dropped: of a kind that its sender must not send, or not now.
    dropped_out_of_place,
    /// Dropped: of a kind that this version does not speak.
    dropped_unsupported,
    /// Answers to strangers that were not given because there were too many.
    answers_withheld,
}

/// A count for each [`Reason`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByReason([u64; Reason::ALL.len()]);

impl ByReason {
    const fn new() -> Self {
        Self([0; Reason::ALL.len()])
    }

    pub(crate) fn count(&mut self, reason: Reason) {
        // Reasons are numbered from 1, without gaps, in the order of `Reason::ALL`.
        if let Some(count) = self.0.get_mut(reason as usize - 1) {
            *count += 1;
        }
    }

    /// How often it was this one.
    #[must_use]
    pub fn of(&self, reason: Reason) -> u64 {
        self.0.get(reason as usize - 1).copied().unwrap_or(0)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::ALL.iter().copied().zip(self.0)
    }

    /// How many there are.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// A count for each [`Why`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByWhy([u64; Why::ALL.len()]);

impl ByWhy {
    const fn new() -> Self {
        Self([0; Why::ALL.len()])
    }

    pub(crate) fn count(&mut self, why: Why) {
        // Choices are numbered from 0, without gaps, in the order of `Why::ALL`.
        if let Some(count) = self.0.get_mut(usize::from(why.0)) {
            *count += 1;
        }
    }

    /// How often it was this one.
    #[must_use]
    pub fn of(&self, why: Why) -> u64 {
        self.0.get(usize::from(why.0)).copied().unwrap_or(0)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let names = Why::ALL.iter().map(|why| why.name().unwrap_or_default());
        names.zip(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_count_of_its_own() {
        let mut counts = ByReason::new();
        for &reason in Reason::ALL {
            counts.count(reason);
        }
        assert!(counts.iter().all(|(_, count)| count == 1));
        let mut counts = ByWhy::new();
        for &why in Why::ALL {
            counts.count(why);
        }
        assert!(
            counts
                .iter()
                .all(|(name, count)| !name.is_empty() && count == 1)
        );
    }
}
