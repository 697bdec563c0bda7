//! One request on its way: from its REQUEST to the last word about it.

use std::num::NonZeroU32;
use std::ops::{Index, IndexMut};
use std::time::{Duration, Instant};

use scale0_wire::{Message, Reason};
use slab::Slab;

use super::backend::BackendKey;
use super::frontend::FrontendKey;
use super::service::ServiceKey;
use super::timers::TimerId;
use super::trace::Trace;

/// Names a stream for as long as the process runs: a slot is used again, a name never is (until 2³² streams later).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamKey {
    generation: NonZeroU32,
    slot: u32,
}

impl StreamKey {
    /// The correlation id on the way to backends: tells the slot without a look-up. Never 0.
    pub(crate) fn correlation(self) -> u64 {
        u64::from(self.generation.get()) << 32 | u64::from(self.slot)
    }

    fn from_correlation(correlation: u64) -> Option<Self> {
        Some(Self {
            generation: NonZeroU32::new(u32::try_from(correlation >> 32).ok()?)?,
            slot: u32::try_from(correlation & u64::from(u32::MAX)).ok()?,
        })
    }
}

/// Which of a service's waiting requests go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// They have waited and failed before.
    Repeats = 0,
    /// Several wait for the answer: they are never refused for those who come later.
    Flights = 1,
    Interactive = 2,
    Normal = 3,
    Background = 4,
    /// Their content comes at their clients' pace, and they go as far as backends take more of them.
    Uploads = 5,
}

impl Lane {
    /// All of them, in the order of their numbers.
    pub(crate) const ALL: [Self; 6] = [
        Self::Repeats,
        Self::Flights,
        Self::Interactive,
        Self::Normal,
        Self::Background,
        Self::Uploads,
    ];
}

/// How far a stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// In no list: only within a step. // → Queued, Sent, or refused
    Unplaced,
    /// Waits in its service's queue. // → Sent, or refused
    Queued(Lane),
    /// With a backend, which has not answered yet. // → Responding, Queued by a repeat, Abandoned, or refused
    Sent(BackendKey),
    /// The response's head has passed. // → Abandoned, or over
    Responding(BackendKey),
    /// Its frontend has had its last word; the backend has not said its own. The slot is kept, so that nothing late goes
    /// astray. // → over
    Abandoned(BackendKey),
}

/// One request, and where it stands. Kept small: a broker has as many of them as its site has requests under way.
#[derive(Debug)]
pub(crate) struct Stream {
    generation: NonZeroU32,
    previous: Option<StreamKey>,
    next: Option<StreamKey>,
    pub(crate) phase: Phase,
    /// Who asks, unless abandoned.
    pub(crate) frontend: FrontendKey,
    /// The frontend's name for it.
    pub(crate) correlation: u64,
    pub(crate) service: ServiceKey,
    /// The REQUEST, while it may be sent (again).
    pub(crate) request: Option<Box<Message>>,
    /// The END of a streamed request that came before there was anywhere to send it.
    pub(crate) request_end: Option<Box<Message>>,
    /// Nothing more of the request is to come.
    pub(crate) request_is_over: bool,
    pub(crate) is_idempotent: bool,
    /// The client asked to switch protocols.
    pub(crate) may_upgrade: bool,
    /// Its REQUEST may keep a whole receive buffer alive.
    pub(crate) is_pinned: bool,
    /// It counts among its backend's uploads.
    pub(crate) is_uploading: bool,
    /// It counts among its backend's outstanding requests; an event stream or tunnel does not.
    pub(crate) holds_credit: bool,
    /// It was whole when it was sent: how long its answer takes says something of the backend.
    pub(crate) is_timed: bool,
    /// It may be given to a second backend when it is late.
    pub(crate) may_hedge: bool,
    /// It is what the second backend has been given: its frontend knows of its twin only.
    pub(crate) is_copy: bool,
    /// The other one of a request that two backends work on, until the first answers.
    pub(crate) twin: Option<StreamKey>,
    /// By it the backend is judged, which has had a rest.
    pub(crate) is_probe: bool,
    /// Part of it may have been executed: its frontend must not hear that it was never started.
    pub(crate) may_have_run: bool,
    /// Why the latest backend did not answer it.
    pub(crate) failure: Reason,
    /// Connections lost under it, here and before it came here.
    pub(crate) losses: u8,
    /// How often it was sent.
    pub(crate) attempts: u8,
    /// Instances that have had it and did not answer; it goes to none of them again.
    pub(crate) tried: Vec<u64>,
    /// What became of it, if its frontend asks.
    pub(crate) trace: Option<Box<Trace>>,
    /// Until the response's head.
    pub(crate) timer: Option<TimerId>,
    pub(crate) deadline: Instant,
    pub(crate) hold: Duration,
    /// When it took its place in the queue, or was sent.
    pub(crate) since: Instant,
}

impl Stream {
    pub(crate) const fn backend(&self) -> Option<BackendKey> {
        match self.phase {
            Phase::Unplaced | Phase::Queued(_) => None,
            Phase::Sent(backend) | Phase::Responding(backend) | Phase::Abandoned(backend) => {
                Some(backend)
            }
        }
    }

    /// Bytes of its REQUEST, as bounds count them.
    pub(crate) fn size(&self) -> usize {
        self.request.as_ref().map_or(0, |request| request.size())
    }

    /// The same request for a second backend.
    pub(crate) fn copy(of: &Self, its: StreamKey, request: Box<Message>) -> Self {
        Self {
            request: Some(request),
            request_is_over: true,
            is_idempotent: true,
            is_copy: true,
            twin: Some(its),
            may_have_run: true,
            failure: of.failure,
            losses: of.losses,
            attempts: of.attempts,
            tried: of.tried.clone(),
            deadline: of.deadline,
            hold: of.hold,
            ..Self::new(of.frontend, of.correlation, of.service, of.since)
        }
    }

    /// Its place in the slab is given by [`Streams::insert`].
    pub(crate) const fn new(
        frontend: FrontendKey,
        correlation: u64,
        service: ServiceKey,
        now: Instant,
    ) -> Self {
        Self {
            generation: NonZeroU32::MIN,
            previous: None,
            next: None,
            phase: Phase::Unplaced,
            frontend,
            correlation,
            service,
            request: None,
            request_end: None,
            request_is_over: false,
            is_idempotent: false,
            may_upgrade: false,
            is_pinned: false,
            is_uploading: false,
            is_timed: false,
            may_hedge: false,
            is_copy: false,
            twin: None,
            is_probe: false,
            holds_credit: false,
            may_have_run: false,
            failure: Reason::NoBackend,
            losses: 0,
            attempts: 0,
            tried: Vec::new(),
            trace: None,
            timer: None,
            deadline: now,
            hold: Duration::ZERO,
            since: now,
        }
    }
}

/// All streams of a broker.
#[derive(Debug)]
pub(crate) struct Streams {
    slots: Slab<Stream>,
    generation: NonZeroU32,
}

impl Streams {
    pub(crate) const fn new() -> Self {
        Self {
            slots: Slab::new(),
            generation: NonZeroU32::MIN,
        }
    }

    /// Returns none if 2³² streams are open, which the bound on each session prevents.
    pub(crate) fn insert(&mut self, mut stream: Stream) -> Option<StreamKey> {
        let generation = self.generation;
        let slot = u32::try_from(self.slots.vacant_key()).ok()?;
        stream.generation = generation;
        self.slots.insert(stream);
        self.generation = generation.checked_add(1).unwrap_or(NonZeroU32::MIN);
        Some(StreamKey { generation, slot })
    }

    pub(crate) fn remove(&mut self, key: StreamKey) -> Stream {
        self.slots.remove(key.slot as usize)
    }

    /// The stream that a backend's message is about; none if there is none, or none any more.
    pub(crate) fn by_correlation(&self, correlation: u64) -> Option<StreamKey> {
        let key = StreamKey::from_correlation(correlation)?;
        let stream = self.slots.get(key.slot as usize)?;
        (stream.generation == key.generation).then_some(key)
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// All of them, in the order of their slots.
    pub(crate) fn keys(&self) -> Vec<StreamKey> {
        let keys = self.slots.iter().filter_map(|(slot, stream)| {
            Some(StreamKey {
                generation: stream.generation,
                slot: u32::try_from(slot).ok()?,
            })
        });
        keys.collect()
    }
}

impl Index<StreamKey> for Streams {
    type Output = Stream;

    fn index(&self, key: StreamKey) -> &Stream {
        &self.slots[key.slot as usize]
    }
}

impl IndexMut<StreamKey> for Streams {
    fn index_mut(&mut self, key: StreamKey) -> &mut Stream {
        &mut self.slots[key.slot as usize]
    }
}

/// Streams in a row, linked through themselves: the one in the middle leaves as cheaply as the first. A stream is in one
/// list at a time, its queue's or its backend's.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct List {
    first: Option<StreamKey>,
    last: Option<StreamKey>,
    len: usize,
}

impl List {
    pub(crate) const fn first(&self) -> Option<StreamKey> {
        self.first
    }

    pub(crate) const fn last(&self) -> Option<StreamKey> {
        self.last
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn push(&mut self, key: StreamKey, streams: &mut Streams) {
        streams[key].previous = self.last;
        match self.last {
            Some(last) => streams[last].next = Some(key),
            None => self.first = Some(key),
        }
        self.last = Some(key);
        self.len += 1;
    }

    /// Puts a stream behind the last of which `is_before` holds.
    pub(crate) fn insert(
        &mut self,
        key: StreamKey,
        streams: &mut Streams,
        is_before: impl Fn(&Stream) -> bool,
    ) {
        let mut previous = self.last;
        while let Some(other) = previous.filter(|&other| !is_before(&streams[other])) {
            previous = streams[other].previous;
        }
        let next = match previous {
            Some(previous) => streams[previous].next.replace(key),
            None => self.first.replace(key),
        };
        match next {
            Some(next) => streams[next].previous = Some(key),
            None => self.last = Some(key),
        }
        (streams[key].previous, streams[key].next) = (previous, next);
        self.len += 1;
    }

    /// `key` must be in this list.
    pub(crate) fn remove(&mut self, key: StreamKey, streams: &mut Streams) {
        let stream = &mut streams[key];
        let (previous, next) = (stream.previous.take(), stream.next.take());
        match previous {
            Some(previous) => streams[previous].next = next,
            None => self.first = next,
        }
        match next {
            Some(next) => streams[next].previous = previous,
            None => self.last = previous,
        }
        self.len -= 1;
    }

    pub(crate) fn iter<'a>(
        &self,
        streams: &'a Streams,
    ) -> impl Iterator<Item = StreamKey> + use<'a> {
        std::iter::successors(self.first, |&key| streams[key].next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::epoch;

    fn streams(count: usize) -> (Streams, Vec<StreamKey>) {
        let mut streams = Streams::new();
        let keys = (0..count)
            .map(|_| {
                let stream = Stream::new(FrontendKey(0), 1, ServiceKey(0), epoch());
                streams.insert(stream).unwrap()
            })
            .collect();
        (streams, keys)
    }

    #[test]
    fn a_slot_used_again_has_another_name() {
        let (mut streams, keys) = streams(1);
        let old = keys[0].correlation();
        streams.remove(keys[0]);
        let new = streams
            .insert(Stream::new(FrontendKey(0), 1, ServiceKey(0), epoch()))
            .unwrap();
        assert_eq!(streams.by_correlation(old), None);
        assert_eq!(streams.by_correlation(new.correlation()), Some(new));
        assert_eq!(streams.by_correlation(0), None);
    }

    #[test]
    fn a_list_takes_in_what_comes_late_where_it_belongs() {
        let (mut streams, keys) = streams(5);
        for (place, &key) in keys.iter().enumerate() {
            streams[key].correlation = place as u64;
        }
        let mut list = List::default();
        for place in [3, 0, 4, 1, 2] {
            list.insert(keys[place], &mut streams, |other| {
                other.correlation < place as u64
            });
        }
        assert_eq!(list.iter(&streams).collect::<Vec<_>>(), keys);
        for key in keys.into_iter().rev() {
            list.remove(key, &mut streams);
        }
        assert_eq!((list.first(), list.len()), (None, 0));
    }

    #[test]
    fn a_list_keeps_its_order_whoever_leaves() {
        let (mut streams, keys) = streams(4);
        for leaving in 0..4 {
            let mut list = List::default();
            for &key in &keys {
                list.push(key, &mut streams);
            }
            list.remove(keys[leaving], &mut streams);
            let mut expected = keys.clone();
            expected.remove(leaving);
            assert_eq!(list.iter(&streams).collect::<Vec<_>>(), expected);
            assert_eq!(list.len(), 3);
            for key in expected {
                list.remove(key, &mut streams);
            }
            assert_eq!(list.first(), None);
        }
    }
}
