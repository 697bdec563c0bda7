//! What the cache learns from responses that did not come through a flight.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

use super::Cache;
use crate::asker::Asker;
use crate::disk::Content;
use crate::key::CacheKey;
use crate::policy::validation::{freshened, head_says};
use crate::policy::{HeadSays, Sharing};
use crate::purge::Epoch;
use crate::store::{
    COPY_BELOW, Found, Origin, ResponseHead, StoredContent, StoredResponse, detach, settle,
};

/// When a request began, in the count of purges and of invalidations: those that come later hit what it brings.
#[derive(Debug, Clone, Copy)]
pub struct Beginning {
    epoch: Epoch,
    invalidations: u64,
}

impl Cache {
    /// Tells what a request that went alone heard: a shareable response ends the key's marker, one
    /// for its leader only renews it. Judge it with [`Sharing::judge`] and [`Cache::policy`].
    pub fn learn(&self, now: Instant, under: &CacheKey, sharing: &Sharing) {
        self.flights.learn(now, under, sharing);
    }

    /// Takes in what a HEAD that went to the backend says about the stored response to GET (RFC 9111 §4.3.5). `request` is the
    /// HEAD; `delay` the time it took, `wall` the time of day.
    pub fn learn_from_head(
        &self,
        now: Instant,
        wall: SystemTime,
        delay: Duration,
        asker: &Asker<'_>,
        head: &ResponseHead,
    ) {
        let Found::Response(at, stored) = self.store.find(&asker.key, asker.headers) else {
            return;
        };
        match head_says(head, stored.head(), stored.length()) {
            HeadSays::Nothing => {}
            HeadSays::Changed => self.store.remove(&asker.key),
            HeadSays::Current => {
                let head = freshened(stored.head(), &head.headers);
                let facts = asker.facts.as_get();
                let sharing = Sharing::judge(self.policy, &facts, &head, delay, wall);
                let Some(kept) = sharing.kept() else {
                    if sharing.forbids_keeping() {
                        self.store.remove(&asker.key);
                    }
                    return;
                };
                // When the HEAD was sent is not known here; purges since the GET hit what it confirms.
                let origin = Origin {
                    born: stored.origin().born,
                    labels: asker.labels().with_tags(&head.headers),
                };
                let renewed = stored.renewed(Arc::new(head), kept.terms, now, origin);
                let renewed = Arc::new(renewed);
                self.store.replace(&at.at, &stored, &renewed);
                self.counters.freshened_by_head.add(1);
            }
        }
    }

    /// When a request for that URI begins, for [`Cache::replace`].
    pub fn begin(&self, primary: &CacheKey) -> Beginning {
        Beginning {
            epoch: self.purges.now(),
            invalidations: self.flights.invalidations().of(primary),
        }
    }

    /// A request with an unsafe method succeeded, and its response says of itself that it is what a GET would get (RFC 9110 §9.3.3): what
    /// is stored is forgotten, as by [`Cache::invalidate`], and the response takes its place, unless something else has invalidated the
    /// URI since it began. `asker` is that GET, `delay` the time the request took, `wall` the time of day.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is one thing a stored response is made of"
    )]
    pub fn replace(
        &self,
        now: Instant,
        wall: SystemTime,
        delay: Duration,
        beginning: Beginning,
        asker: &Asker<'_>,
        head: ResponseHead,
        content: Bytes,
    ) {
        let before = self.invalidate(&asker.key);
        if before != beginning.invalidations {
            self.counters.refused_outdated.add(1);
            return;
        }
        let sharing = Sharing::judge(self.policy, &asker.facts, &head, delay, wall);
        let Sharing::Shared(kept) = &sharing else {
            return;
        };
        if !kept.terms.freshness.is_explicit() {
            return;
        }
        let place = (self.store).place(&asker.key, &kept.vary, asker.headers, &head.headers);
        let blocks = settle(&[detach(content, COPY_BELOW).0]);
        let content = Arc::new(StoredContent::new(Content::Blocks(blocks), None));
        let origin = Origin {
            born: beginning.epoch,
            labels: asker.labels().with_tags(&head.headers),
        };
        let response = StoredResponse::new(Arc::new(head), content, kept.terms, now, origin);
        self.store.insert(&place, &Arc::new(response));
        // One that came between the look before the storing and the storing removed nothing.
        if self.flights.invalidations().of(&asker.key) != before + 1 {
            self.store.remove(&asker.key);
        }
    }

    /// A request with an unsafe method succeeded: what is stored for the URI is forgotten, and what is under way for it serves
    /// those who wait for it already (RFC 9111 §4.4). How often that was so before.
    pub fn invalidate(&self, primary: &CacheKey) -> u64 {
        let before = self.flights.invalidations().count(primary);
        self.store.remove(primary);
        self.counters.invalidated.add(1);
        before
    }
}
