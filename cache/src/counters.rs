//! What the cache counts: plain atomics, read by whoever exports them.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Its value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }
}

/// A counter as whoever exports it needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Its name, in words with `_` between.
    pub name: &'static str,
    /// What it counts: full sentences.
    pub help: &'static str,
    /// Its value now.
    pub value: u64,
}

/// A struct of [`Counter`]s that can be listed. What it says of each is both its documentation and its help.
macro_rules! counters {
    (
        $(#[$about:meta])*
        pub struct $all:ident { $($(#[doc = $help:literal])* $name:ident,)* }
    ) => {
        $(#[$about])*
        #[derive(Debug, Default)]
        pub struct $all {
            $($(#[doc = $help])* pub $name: $crate::counters::Counter,)*
        }

        impl $all {
            /// All of them, in the order of their declaration, for whoever exports them.
            pub fn each(&self) -> impl Iterator<Item = $crate::counters::Counted> + '_ {
                [$($crate::counters::Counted {
                    name: stringify!($name),
                    // Each line of a comment begins with a space.
                    help: concat!($($help),*).trim_ascii_start(),
                    value: self.$name.get(),
                },)*]
                .into_iter()
            }
        }
    };
}
pub(crate) use counters;

counters! {
    /// Everything the cache counts, since the start of the process.
    pub struct CacheCounters {
        /// Lookups answered by a stored, fresh response.
        hits,
        /// Hits whose content came from the disk: the first after the memory had lost the response, and each of one that is too long
        /// for the memory.
        hits_from_disk,
        /// Lookups that found nothing for the request.
        misses,
        /// Lookups that found a response no longer fresh, which could not answer as it was.
        stale,
        /// Lookups that found a fresh response which the request's own fields refused.
        refused_by_request,
        /// Lookups answered by a stored response that is stale, and validated meanwhile (`stale-while-revalidate`).
        stale_while_revalidate,
        /// Lookups answered by a stored response that is stale because the request takes it so (`max-stale`).
        stale_as_wanted,
        /// Requests answered by a stored response that is stale because its origin could not be reached, or answered with an error.
        stale_in_trouble,
        /// Stored responses that their origin confirmed (304).
        revalidated,
        /// Confirmations of a response that is not the one stored: it was fetched whole.
        unconfirmed,
        /// Fetches begun while a stale response was sent.
        refreshed,
        /// Stored responses that a response to HEAD brought up to date.
        freshened_by_head,
        /// URIs invalidated by a request with an unsafe method.
        invalidated,
        /// Responses that were not stored because their URI was invalidated or purged while they were under way.
        refused_outdated,
        /// Responses stored.
        insertions,
        /// Parts (206) stored by themselves.
        parts_stored,
        /// Parts put together with what was stored: a longer part, or the whole.
        parts_combined,
        /// Stored parts that became the whole because it was asked for and its rest was fetched.
        parts_completed,
        /// Stored parts whose rest could not be had: the whole was fetched.
        parts_discontinued,
        /// Stored responses that made room for others.
        evictions,
        /// Records that another version of the program has written, and that were dropped.
        store_other_version,
        /// Responses that are larger than `memory_max_object`, and were not stored in memory, or larger than the store takes.
        refused_too_large,
        /// Shareable responses that were not stored because their beginning had to leave the flight's
        /// window.
        refused_not_whole,
        /// Responses written to the store on the disk.
        store_writes,
        /// What the disk could not take or give in time: it was behind by more than may wait.
        store_busy,
        /// Calls of the store that failed, or panicked.
        store_errors,
        /// Records of the store that were not what was written: they were not used.
        store_damaged,
        /// Lookups that gave up waiting for the disk.
        store_late,
        /// Flights opened by a request. Each is a request to a backend, and a second one where the first could not be confirmed.
        flights_led,
        /// Requests that joined a flight instead of making one.
        flights_joined,
        /// Waiters that were released because the response was for the leader only.
        joined_then_private,
        /// Waiters that went on to the flight of their variant.
        joined_then_variant,
        /// Waiters released because their own request asks for more than the response gives (`max-age`,
        /// cookies with heuristic freshness).
        joined_then_unfit,
        /// Waiters that came to their flight's head when its beginning was gone already.
        missed,
        /// Time that waiters spent between joining and the head of the response, in microseconds.
        join_wait_micros,
        /// Requests sent alone at once because their key is remembered as leader-only.
        alone_marked,
        /// Requests sent alone for another reason.
        alone_other,
        /// Times a key was remembered as leader-only, or as just failed.
        markers_set,
        /// Markers forgotten before their time because there were too many.
        markers_evicted,
        /// Markers ended by a shareable response.
        markers_ended,
        /// Requests answered with the failure that a herd of the same key met within the last second.
        failure_repeated,
        /// Flights that ended complete.
        completed,
        /// Flights that failed, for whatever reason but the next two.
        failed,
        /// Flights that failed because the task that filled them vanished.
        vanished,
        /// Flights given up because nobody was left.
        abandoned,
        /// Readers that fell out of their flight's window.
        lagged,
        /// Bytes that readers of flights read from the disk, because they had left the flight's window.
        read_from_store,
        /// Laggards that took a seat in a slower flight.
        rejoined,
        /// Laggards that opened a slower flight.
        continued,
        /// Laggards whose connection had to be aborted.
        laggards_aborted,
        /// Purges by URL.
        purges_url,
        /// Purges by prefix.
        purges_prefix,
        /// Purges by tag.
        purges_tag,
        /// Purges of everything.
        purges_all,
        /// Purges that hold but could not be written down, and so were not confirmed.
        purges_unconfirmed,
        /// Times that a response asked for turned out to have been purged.
        purged_hard,
        /// Times that a response asked for turned out to have been purged softly.
        purged_soft,
        /// Times that it could not be told whether a response asked for had been purged.
        purged_unsure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_is_listed_with_its_name_and_what_it_counts() {
        let counters = CacheCounters::default();
        counters.failed.add(3);
        let mut above_zero = counters.each().filter(|counted| counted.value != 0);
        let failed = Counted {
            name: "failed",
            help: "Flights that failed, for whatever reason but the next two.",
            value: 3,
        };
        assert_eq!(above_zero.next(), Some(failed));
        assert_eq!(above_zero.next(), None);
        assert!(
            (counters.each()).all(|Counted { help, .. }| help.ends_with('.')
                && !help.contains("  ")
                && !help.contains('\n'))
        );
    }
}
