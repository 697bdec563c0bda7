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

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Everything the cache counts, since the start of the process.
        #[derive(Debug, Default)]
        pub struct CacheCounters {
            $($(#[$doc])* pub $name: Counter,)*
        }

        impl CacheCounters {
            /// All of them with their names, in the order of their declaration, for whoever exports
            /// them.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
                [$((stringify!($name), self.$name.get()),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Lookups answered by a stored, fresh response.
    hits,
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
    /// Responses that were not stored because their URI was invalidated while they were under way.
    refused_outdated,
    /// Responses stored.
    insertions,
    /// Stored responses that made room for others.
    evictions,
    /// Complete responses that were not stored because they are larger than `memory_max_object`.
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
    /// Flights opened by a request; each is one request to a backend.
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
    /// Times a key was remembered as leader-only.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_is_listed_with_its_name() {
        let counters = CacheCounters::default();
        counters.flights_led.add(3);
        assert!(counters.each().any(|named| named == ("flights_led", 3)));
        assert_eq!(counters.each().filter(|(_, value)| *value != 0).count(), 1);
    }
}
