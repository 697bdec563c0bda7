//! What a bridge counts.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What a bridge has counted since it was made.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counts {
            /// All of them with their names, for whoever shows metrics.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name)),*].into_iter()
            }
        }

        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
        }

        impl Counters {
            pub(crate) fn read(&self) -> Counts {
                Counts { $($name: self.$name.0.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Requests handed to the bridge.
    requests,
    /// Connections opened for requests.
    connections,
    /// Requests that went out on a connection used before.
    reused,
    /// Idle connections found closed when they were to be used.
    found_closed,
    /// Requests sent a second time because the application closed a used connection under the first.
    repeated,
    /// Connections that could not be opened.
    connects_failed,
    /// Requests not started: no upstream takes connections.
    refused,
    /// Requests that were sent and got no response head.
    failed_before_head,
    /// Responses that broke off after their head.
    failed_in_content,
    /// Requests whose own content broke off.
    content_lost,
    /// Interim responses passed on.
    interims,
    /// Interim responses that were not: one request had too many, or their heads were too large.
    interims_dropped,
    /// Connections that became another protocol's.
    upgrades,
    /// Probes sent.
    probes,
    /// Probes that found an upstream unwell.
    probes_failed,
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
