//! Requests that wait for a backend of one service.

use std::time::{Duration, Instant};

use scale0_wire::Priority;

use super::backend::Backend;
use super::config::QueueLimits;
use super::overload::{Overload, Pace};
use super::stream::{Lane, List, Phase, Stream, StreamKey, Streams};

/// First come, first served within each [`Lane`]; more urgent ones first between them, but for those that have waited for long. While an
/// [`Overload`] stands, the newest first.
///
/// Bounded in requests and bytes. Repeats are never refused, as they were admitted once, and what is repeated was paid for by credit and
/// kept within a bound of its own; nor is a request that several wait for, of which there are as many as keys. Both take room, in bytes,
/// from those that come.
#[derive(Debug)]
pub(crate) struct Queue {
    lanes: [List; Lane::ALL.len()],
    bytes: usize,
    limits: QueueLimits,
    pub(crate) pace: Pace,
    pub(crate) overload: Overload,
}

/// One that is less urgent goes before one that is more so if it has waited for so much longer.
const NORMAL_AGES: Duration = Duration::from_secs(2);
const BACKGROUND_AGES: Duration = Duration::from_secs(10);

/// Repeats looked at for one that a backend has not had yet. Each but the last of them waits for another backend; looking at
/// more would cost all others' time.
pub(crate) const REPEATS_LOOKED_AT: usize = 64;

impl Queue {
    pub(crate) fn new(limits: QueueLimits) -> Self {
        Self {
            lanes: [List::default(); Lane::ALL.len()],
            bytes: 0,
            limits,
            pace: Pace::default(),
            overload: Overload::default(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.lanes.iter().map(List::len).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lanes.iter().all(|lane| lane.len() == 0)
    }

    pub(crate) fn repeats(&self) -> usize {
        self.lanes[Lane::Repeats as usize].len()
    }

    /// How many count for the bound: all but repeats and those that several wait for.
    pub(crate) fn bounded(&self) -> usize {
        self.len() - self.repeats() - self.flights()
    }

    /// Those that several wait for.
    pub(crate) fn flights(&self) -> usize {
        self.lanes[Lane::Flights as usize].len()
    }

    /// How many of them are no repeats and still have content to come.
    pub(crate) fn uploads(&self) -> usize {
        self.lanes[Lane::Uploads as usize].len()
    }

    /// Repeats that this instance has not had, of as many as `left` says may be looked at.
    pub(crate) fn untried_repeats(
        &self,
        instance: u64,
        left: &mut usize,
        streams: &Streams,
    ) -> usize {
        let looked_at = (*left).min(self.repeats());
        *left -= looked_at;
        let repeats = self.lanes[Lane::Repeats as usize].iter(streams);
        let untried = repeats.take(looked_at);
        let untried = untried.filter(|&key| !streams[key].tried.contains(&instance));
        // Nobody knows of the others.
        untried.count() + self.repeats() - looked_at
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) const fn limits(&self) -> QueueLimits {
        self.limits
    }

    /// Whether a request of this size may wait here, while so many bytes are free in all queues together.
    ///
    /// No queue may be longer than what is left free (Choudhury and Hahne's dynamic thresholds): of several that are overloaded each
    /// gets an equal share, the longest are the first to refuse, and a service that was quiet finds room however many are not.
    /// Nothing is thrown out that was let in, as it would be if the longest queue's newest gave way to others: who is refused hears
    /// it at once, and it costs no search.
    pub(crate) fn has_room(&self, size: usize, free: usize) -> bool {
        self.bounded() < self.limits.requests && self.bytes + size <= self.limits.bytes.min(free)
    }

    /// Whether one waits that came as such a request does, with its content behind it or with none to come: no backend that takes
    /// it has credit then.
    pub(crate) fn has_waiting(&self, is_upload: bool) -> bool {
        let lanes: &[Lane] = if is_upload {
            &[Lane::Uploads]
        } else {
            &[
                Lane::Flights,
                Lane::Interactive,
                Lane::Normal,
                Lane::Background,
            ]
        };
        lanes
            .iter()
            .any(|&lane| 0 < self.lanes[lane as usize].len())
    }

    /// Appends a stream, whose place it notes in it.
    pub(crate) fn push(&mut self, key: StreamKey, lane: Lane, streams: &mut Streams) {
        self.lanes[lane as usize].push(key, streams);
        streams[key].phase = Phase::Queued(lane);
        self.bytes += streams[key].size();
    }

    /// Puts a stream that has waited in another lane where its age belongs, which is mostly near the end.
    pub(crate) fn insert(&mut self, key: StreamKey, lane: Lane, streams: &mut Streams) {
        let since = streams[key].since;
        self.lanes[lane as usize].insert(key, streams, |other| other.since <= since);
        streams[key].phase = Phase::Queued(lane);
        self.bytes += streams[key].size();
    }

    /// Takes a stream out of `lane`, where it must be.
    pub(crate) fn remove(&mut self, key: StreamKey, lane: Lane, streams: &mut Streams) {
        self.lanes[lane as usize].remove(key, streams);
        self.bytes -= streams[key].size();
        if self.is_empty() {
            self.pace.emptied();
            self.overload.emptied();
        }
    }

    /// The first stream that this backend has not had yet, and that it takes.
    pub(crate) fn first_for(
        &self,
        backend: &Backend,
        streams: &Streams,
    ) -> Option<(StreamKey, Lane)> {
        let takes_upload = backend.takes_upload();
        let repeat = self.lanes[Lane::Repeats as usize]
            .iter(streams)
            .take(REPEATS_LOOKED_AT)
            .find(|&key| {
                let stream = &streams[key];
                !stream.tried.contains(&backend.link.instance)
                    && (takes_upload || stream.request_is_over)
            });
        if let Some(key) = repeat {
            return Some((key, Lane::Repeats));
        }
        self.next(takes_upload, streams)
    }

    /// The next of those that are no repeats, uploads among them or not.
    fn next(&self, takes_upload: bool, streams: &Streams) -> Option<(StreamKey, Lane)> {
        let lanes = Lane::ALL[Lane::Flights as usize..].iter().copied();
        let lanes = lanes.filter(|&lane| takes_upload || lane != Lane::Uploads);
        if self.overload.stands() {
            // Of those that several wait for the oldest: they stay until they are served.
            let flight = self.lanes[Lane::Flights as usize].first();
            let newest = |lane: Lane| Some((self.lanes[lane as usize].last()?, lane));
            return flight
                .map(|key| (key, Lane::Flights))
                .or_else(|| lanes.filter_map(newest).next());
        }
        let first = |lane: Lane| Some((self.lanes[lane as usize].first()?, lane));
        lanes
            .filter_map(first)
            .min_by_key(|&(key, _)| streams[key].since + ages(&streams[key]))
    }

    /// The one that gives way to one that comes in an overload: the oldest of the least urgent.
    pub(crate) fn least_worth(&self, coming: Lane) -> Option<(StreamKey, Lane)> {
        let bounded = [
            Lane::Background,
            Lane::Normal,
            Lane::Interactive,
            Lane::Uploads,
        ];
        let first = |lane: Lane| Some((self.lanes[lane as usize].first()?, lane));
        let mut oldest = bounded.into_iter().filter_map(first);
        oldest.find(|&(_, lane)| coming as u8 <= lane as u8)
    }

    /// One that has waited since before `then`, and may be refused for it.
    pub(crate) fn passed_over(&self, then: Instant, streams: &Streams) -> Option<StreamKey> {
        let bounded = &self.lanes[Lane::Interactive as usize..];
        let mut oldest = bounded.iter().filter_map(List::first);
        oldest.find(|&key| streams[key].since < then)
    }

    /// How many are served before one that comes to this lane now.
    pub(crate) fn ahead_of(&self, lane: Lane) -> usize {
        let before = &self.lanes[..=lane as usize];
        before.iter().map(List::len).sum()
    }

    /// One has left to be served.
    pub(crate) fn served(&mut self, now: Instant) {
        let others_wait = !self.is_empty();
        self.pace.departed(now, others_wait);
    }

    /// The first repeat, and the next of the others with and without uploads.
    pub(crate) fn heads(&self, streams: &Streams) -> [Option<(StreamKey, Lane)>; 3] {
        let repeat = self.lanes[Lane::Repeats as usize].first();
        [
            repeat.map(|key| (key, Lane::Repeats)),
            self.next(true, streams),
            self.next(false, streams),
        ]
    }

    /// Since when the one waits that has waited longest. Each lane is in order of that.
    pub(crate) fn oldest(&self, streams: &Streams) -> Option<Instant> {
        let first = self.lanes.iter().filter_map(List::first);
        first.map(|key| streams[key].since).min()
    }

    /// All that wait, in the order in which they will be served.
    pub(crate) fn iter<'a>(&'a self, streams: &'a Streams) -> impl Iterator<Item = StreamKey> {
        self.lanes.iter().flat_map(|lane| lane.iter(streams))
    }
}

/// By how much older one must be than another that is as urgent as can be, to go first.
fn ages(stream: &Stream) -> Duration {
    let request = stream.request.as_ref();
    match request.map_or(Priority::Interactive, |request| request.header.priority) {
        Priority::Interactive => Duration::ZERO,
        Priority::Normal => NORMAL_AGES,
        Priority::Background => BACKGROUND_AGES,
    }
}

impl From<Priority> for Lane {
    fn from(priority: Priority) -> Self {
        match priority {
            Priority::Interactive => Self::Interactive,
            Priority::Normal => Self::Normal,
            Priority::Background => Self::Background,
        }
    }
}
