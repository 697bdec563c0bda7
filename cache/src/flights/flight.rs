//! One flight as a pure state machine: seats, verdict, window and pace. It has no lock, no waker
//! and no clock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::Failure;
use super::aim::{Aim, Continuation};
use super::announced::Announced;
use super::pace::Pace;
use super::seats::{SeatId, Seats};
use super::window::{Cursor, Window};
use crate::asker::Asker;
use crate::disk::Spool;
use crate::policy::conditional::strong_validator;
use crate::policy::{Ranged, RequestFacts, Shareable, Sharing, judge_range};
use crate::store::{BLOCK, COPY_BELOW, StoredResponse};

/// What a flight may hold when memory is short, or when its response is for one client alone:
/// enough to keep a connection busy over a round trip.
pub(super) const MIN_WINDOW: usize = 256 * 1024;

/// The producer goes on when the fastest reader has less than this part of the window before it.
const AHEAD_DIVISOR: usize = 8;

/// What makes an abandoned fill "nearly done": at most so much is missing, or at most a quarter of
/// the whole.
const NEARLY_DONE: u64 = 256 * 1024;
const NEARLY_DONE_DIVISOR: u64 = 4;

/// The bounds of one flight.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// The window, once the whole is not kept.
    pub(super) buffer: usize,
    /// What may be stored, and so is kept whole for longer.
    pub(super) max_object: u64,
    /// The last flight its key may have: nobody is left behind, the slowest sets the pace.
    pub(super) patient: bool,
    /// What is too long for the memory has somewhere to go.
    pub(super) has_disk: bool,
}

/// The state of a flight.
#[derive(Debug)]
pub(super) struct Flight {
    bounds: Bounds,
    begun: Instant,
    leader: RequestFacts,
    seats: Seats,
    window: Window,
    pace: Pace,
    /// The offset of the reader that is furthest; unknown once it has left.
    fastest: Option<u64>,
    latest_deadline: Instant,
    aim: Aim,
    /// Nobody need wait for it: it refreshes what is stored.
    in_background: bool,
    /// It is too long for the memory, and goes to the disk as it comes.
    spool: Option<Arc<Spool>>,
    /// The disk takes no more of it; what it has can still be read there.
    is_cut_off: bool,
    /// Bytes still to be dropped because a continuation was answered with the whole.
    skip: u64,
    announced: Option<Arc<Announced>>,
    /// Open → `Complete` | `Failed`, and no further.
    end: Option<End>,
    /// It is complete, and can be read from the disk until it is found there, or so long.
    lands_by: Option<Instant>,
}

/// How a flight ended.
#[derive(Debug, Clone)]
pub(super) enum End {
    Complete(Option<Arc<HeaderMap>>),
    Failed(Failure),
}

/// Whether a request may take a seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// Yes.
    Welcome,
    /// Not in this flight: its start is gone, or it is no longer fresh enough for this request.
    NotThisOne,
}

/// Room for the producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// So many bytes may be pushed.
    Open(usize),
    /// None; ask again when a reader moves, or at this time.
    Closed(Option<Instant>),
}

/// What a reader gets.
#[derive(Debug, Clone)]
pub(super) enum Read {
    Data(Bytes),
    /// Nothing yet.
    Starved,
    End(Option<Arc<HeaderMap>>),
    /// Its place has left the window; the bytes are on the disk.
    OnDisk,
    /// Its place has left the window; the seat is gone.
    Behind,
    Failed(Failure),
}

/// How long a complete flight that is not yet found on the disk can be joined. A disk that is slower may be stuck, and whoever joins
/// would wait for it.
const LANDING: Duration = Duration::from_secs(5);

impl Flight {
    /// A flight that has just been opened, without a reader.
    pub(super) fn new(now: Instant, leader: RequestFacts, bounds: Bounds, aim: Aim) -> Self {
        let begin = aim.begin();
        Self {
            bounds,
            begun: now,
            leader,
            seats: Seats::default(),
            window: Window::new(begin),
            pace: Pace::default(),
            fastest: Some(begin),
            latest_deadline: now,
            aim,
            in_background: false,
            spool: None,
            is_cut_off: false,
            skip: 0,
            announced: None,
            end: None,
            lands_by: None,
        }
    }

    /// The same, for nobody in particular.
    pub(super) fn in_background(self) -> Self {
        Self {
            in_background: true,
            ..self
        }
    }

    // ---- Seats ---------------------------------------------------------------------------------

    /// Whether a request that wants the response from its start may join.
    pub(super) fn admission(&self, now: Instant, facts: &RequestFacts) -> Admission {
        let admits = self.aim.continuation().is_none()
            && match self.end {
                None => self.window.is_whole() || self.spooling().is_some(),
                Some(_) => self.lands_by.is_some_and(|lands_by| now < lands_by),
            }
            && self
                .announced
                .as_ref()
                .is_none_or(|announced| match &announced.sharing {
                    Sharing::Shared(shareable) => {
                        shareable.admits(facts, now.saturating_duration_since(announced.received))
                    }
                    Sharing::LeaderOnly { .. } => false,
                });
        if admits {
            Admission::Welcome
        } else {
            Admission::NotThisOne
        }
    }

    /// Takes a seat at the start.
    pub(super) fn seat(
        &mut self,
        now: Instant,
        facts: &RequestFacts,
        deadline: Instant,
        is_leader: bool,
    ) -> SeatId {
        self.latest_deadline = self.latest_deadline.max(deadline);
        let begin = self.aim.begin();
        let cursor = if facts.is_head() {
            None
        } else {
            self.window.enter(begin)
        };
        self.seats.take(is_leader, !facts.is_head(), cursor, now)
    }

    /// Takes a seat at the part that a request asks for, if the flight has come as far. At which offset that is.
    pub(super) fn seat_at_part(
        &mut self,
        now: Instant,
        asker: &Asker<'_>,
    ) -> Option<(SeatId, u64)> {
        let announced = self.announced.as_ref()?;
        let Sharing::Shared(shareable) = &announced.sharing else {
            return None;
        };
        let elapsed = now.saturating_duration_since(announced.received);
        let is_fit = self.aim.continuation().is_none()
            && self.end.is_none()
            && shareable.admits(&asker.facts, elapsed);
        let Ranged::Part(part) = judge_range(asker.headers, &announced.head, announced.length?)
        else {
            return None;
        };
        if !is_fit {
            return None;
        }
        let cursor = self.window.enter(part.first)?;
        self.fastest = self.fastest.map(|fastest| fastest.max(cursor.offset));
        Some((self.seats.take(false, true, Some(cursor), now), part.first))
    }

    /// Takes a seat in the middle of the same representation, if that place is held.
    pub(super) fn seat_at(&mut self, now: Instant, continuation: &Continuation) -> Option<SeatId> {
        let is_same = match (self.aim.continuation(), &self.announced) {
            (Some(ours), _) => {
                ours.validator == continuation.validator && ours.variant == continuation.variant
            }
            (None, Some(announced)) => {
                announced.sharing.is_shared()
                    && announced.variant == continuation.variant
                    && strong_validator(&announced.head.headers) == Some(&continuation.validator)
            }
            (None, None) => false,
        };
        if self.end.is_some() || !is_same {
            return None;
        }
        let cursor = self.window.enter(continuation.offset)?;
        self.fastest = self.fastest.map(|fastest| fastest.max(cursor.offset));
        Some(self.seats.take(false, true, Some(cursor), now))
    }

    /// A client that has read from the disk takes its place in the window, if that is held by now.
    pub(super) fn return_to_window(&mut self, id: SeatId, offset: u64) -> bool {
        let Some(seat) = self.seats.get_mut(id) else {
            return false;
        };
        // Behind the end of a window that was emptied there is nothing to come.
        if self.end.is_some() && self.window.is_empty() {
            return false;
        }
        let Some(cursor) = self.window.enter(offset) else {
            return false;
        };
        if let Some(kept_for_it) = seat.cursor.replace(cursor) {
            self.window.leave(kept_for_it);
        }
        seat.is_on_disk = false;
        self.fastest = self.fastest.map(|fastest| fastest.max(cursor.offset));
        true
    }

    /// The length of the body as far as it has come; all of it at the end.
    pub(super) fn length(&self) -> u64 {
        self.window.end()
    }

    /// Gives up a seat. Whether the producer may want to know.
    pub(super) fn leave(&mut self, seat: SeatId) -> bool {
        let Some(seat) = self.seats.leave(seat) else {
            return false;
        };
        if let Some(cursor) = seat.cursor {
            self.vacate(cursor);
        }
        true
    }

    fn vacate(&mut self, cursor: Cursor) {
        self.window.leave(cursor);
        if self.fastest == Some(cursor.offset) {
            // To look for the next one here would make a thousand leavers a million steps.
            self.fastest = None;
        }
        if self.end.is_some() {
            self.let_go();
        }
    }

    /// Lets go of what no reader will want any more.
    fn let_go(&mut self) {
        let written = self.written();
        while self.window.has_unread_front() && self.window.first_end() <= written {
            self.window.pop();
        }
    }

    /// How far a body that goes to the disk can be read there: what has not come so far is kept, as it may never do. All of it where
    /// none does.
    fn written(&self) -> u64 {
        self.spooling().map_or(u64::MAX, |spool| spool.written())
    }

    /// How many have a seat.
    pub(super) fn taken_seats(&self) -> usize {
        self.seats.taken()
    }

    /// When the most patient of all who ever had a seat stops waiting.
    pub(super) fn latest_deadline(&self) -> Instant {
        self.latest_deadline
    }

    // ---- The producer --------------------------------------------------------------------------

    /// The leader's request.
    pub(super) fn leader(&self) -> &RequestFacts {
        &self.leader
    }

    /// Whether it is to be kept, and too long for the memory, and everything up to now is held: then the disk can have it. Parts
    /// that are so long are not kept.
    pub(super) fn outgrows_memory(&self, next: usize) -> bool {
        let Some(announced) = &self.announced else {
            return false;
        };
        let end = self.window.end() + next as u64;
        self.aim.continuation().is_none()
            && announced.sharing.kept().is_some()
            && announced.head.status != StatusCode::PARTIAL_CONTENT
            && self.window.is_whole()
            && self.end.is_none()
            && self.bounds.has_disk
            && !self.is_cut_off
            && self.bounds.max_object < announced.length.unwrap_or(0).max(end)
    }

    /// It goes to the disk from here on; what has come already is returned.
    pub(super) fn spool_to(&mut self, spool: &Arc<Spool>) -> Vec<Bytes> {
        self.spool = Some(Arc::clone(spool));
        self.window.pieces()
    }

    /// The disk takes no more of it. Whoever reads there will come to the end of what it has: what follows is kept for them.
    pub(super) fn cut_off(&mut self) {
        if std::mem::replace(&mut self.is_cut_off, true) {
            return;
        }
        let begin = self.window.start();
        for seat in self.seats.iter_mut().filter(|seat| seat.is_on_disk) {
            seat.cursor = self.window.enter(begin);
        }
        self.fastest = None;
    }

    /// All that the disk will ever have of a complete body is there.
    pub(super) fn landed(&mut self) {
        if self.written() < self.window.end() {
            self.cut_off();
        }
        self.let_go();
    }

    /// Where it goes as it comes.
    fn spooling(&self) -> Option<&Arc<Spool>> {
        self.spool.as_ref().filter(|_| !self.is_cut_off)
    }

    /// Where what has left the window can be read.
    pub(super) fn spool(&self) -> Option<&Arc<Spool>> {
        self.spool.as_ref()
    }

    /// What is asked for.
    pub(super) fn aim(&self) -> &Aim {
        &self.aim
    }

    /// What was stored turned out to be of no use: the whole is asked for.
    pub(super) fn aim_at_the_whole(&mut self) {
        self.aim = Aim::Whole;
    }

    /// The time since the flight was opened: an upper bound of the request's round trip.
    pub(super) fn delay(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.begun)
    }

    /// The head is here. Where it is for the leader alone, all others lose their seats at once; how
    /// many those were.
    ///
    /// # Errors
    /// A continuing flight whose response continues nothing has failed.
    pub(super) fn announce(&mut self, announced: Announced) -> Result<u64, Failure> {
        if let Some(continuation) = self.aim.continuation() {
            let Some(skip) = continuation.skip(&announced.head) else {
                return Err(self.fail(Failure::DISCONTINUED));
            };
            self.skip = skip;
        }
        let leader_only = self.aim.continuation().is_none() && !announced.sharing.is_shared();
        self.announced = Some(Arc::new(announced));
        if let Aim::Complete(part) = &self.aim {
            for block in part.blocks().unwrap_or_default() {
                // The part pins nothing but itself.
                self.window.push(block.clone(), 0);
            }
        }
        if !leader_only {
            return Ok(0);
        }
        let window = &mut self.window;
        Ok(self.seats.retain(|seat| {
            if !seat.is_leader
                && let Some(cursor) = seat.cursor
            {
                window.leave(cursor);
            }
            seat.is_leader
        }))
    }

    /// How long those with a seat have waited for the head, all together.
    pub(super) fn waited(&self, now: Instant) -> Duration {
        self.seats
            .iter()
            .filter(|seat| !seat.is_leader)
            .map(|seat| now.saturating_duration_since(seat.joined))
            .sum()
    }

    /// Room under this flight's own bound, or under the smaller one that holds while memory is
    /// short. Readers that are too slow lose their seats here; how many those were.
    pub(super) fn room(&mut self, now: Instant, is_short: bool) -> (Room, u64) {
        if self.announced.is_none() || self.end.is_some() {
            return (Room::Closed(None), 0);
        }
        let limit = self.limit(is_short);
        if self.window.weight() < limit {
            self.pace.release(now);
            return (Room::Open(limit - self.window.weight()), 0);
        }
        // From here on the window slides. What everybody has read goes first.
        self.let_go();
        let limit = self.limit(is_short);
        if self.window.weight() < limit {
            self.pace.release(now);
            return (Room::Open(limit - self.window.weight()), 0);
        }
        if self.spooling().is_some() {
            // Whoever is slower than the backend reads on from the disk.
            let written = self.written();
            while limit <= self.window.weight() && self.window.first_end() <= written {
                self.window.pop();
            }
            let left_behind = self.leave_to_disk();
            // How far the disk may be behind has its own bound.
            let room = limit.saturating_sub(self.window.weight());
            return (Room::Open(room.max(MIN_WINDOW)), left_behind);
        }
        let fastest = self.fastest();
        let ahead = self.window.weight_from(fastest);
        if self.bounds.patient || limit / AHEAD_DIVISOR < ahead {
            // Nobody waits for us: all readers are slower than the backend, which is to feel it.
            self.pace.release(now);
            return (Room::Closed(None), 0);
        }
        if let Some(until) = self.pace.hold(now) {
            return (Room::Closed(Some(until)), 0);
        }
        self.pace.release(now);
        // The fastest reader has little before it, so this ends well before its place.
        while limit <= self.window.weight() {
            self.window.pop();
        }
        let window = &self.window;
        let left_behind = self
            .seats
            .retain(|seat| seat.cursor.is_none_or(|cursor| window.holds(cursor)));
        (Room::Open(limit - self.window.weight()), left_behind)
    }

    /// Seats whose place has left the window; how many those are.
    fn leave_to_disk(&mut self) -> u64 {
        let window = &self.window;
        let mut left = 0;
        for seat in self.seats.iter_mut() {
            if seat.cursor.is_some_and(|cursor| !window.holds(cursor)) {
                seat.cursor = None;
                seat.is_on_disk = true;
                left += 1;
            }
        }
        self.fastest = None;
        left
    }

    fn fastest(&mut self) -> u64 {
        let (seats, window) = (&self.seats, &self.window);
        let cursors = || seats.iter().filter_map(|seat| seat.cursor);
        let furthest = || {
            cursors()
                .map(|cursor| cursor.offset)
                .max()
                .unwrap_or(window.end())
        };
        *self.fastest.get_or_insert_with(furthest)
    }

    fn limit(&self, is_short: bool) -> usize {
        let Some(announced) = &self.announced else {
            return 0;
        };
        let is_stored = self.may_be_stored();
        let for_one = self.aim.continuation().is_none()
            && !(announced.sharing.is_shared() || is_stored)
            || matches!(self.aim, Aim::Part) && !is_stored;
        if is_short || for_one {
            return MIN_WINDOW.min(self.bounds.buffer);
        }
        if is_stored {
            // An eighth more, for what small pieces weigh beyond their bytes until they are settled
            // in the store.
            let stored = self
                .bounds
                .max_object
                .saturating_add(self.bounds.max_object / 8);
            return self
                .bounds
                .buffer
                .max(usize::try_from(stored).unwrap_or(usize::MAX));
        }
        self.bounds.buffer
    }

    /// Whether it is still on its way into the store.
    pub(super) fn may_be_stored(&self) -> bool {
        let Some(announced) = &self.announced else {
            return false;
        };
        self.aim.continuation().is_none()
            && announced.sharing.kept().is_some()
            && self.window.is_whole()
            && announced.length.unwrap_or(0).max(self.window.end()) <= self.bounds.max_object
    }

    /// Bytes of the body.
    ///
    /// # Errors
    /// The flight has failed: no head yet, or more than its head announced.
    pub(super) fn push(&mut self, mut chunk: Bytes) -> Result<(), Failure> {
        let Some(announced) = &self.announced else {
            return Err(self.fail(Failure::NO_HEAD));
        };
        if let Some(End::Failed(failure)) = self.end {
            return Err(failure);
        }
        let skipped = self.skip.min(chunk.len() as u64);
        self.skip -= skipped;
        chunk = chunk.split_off(usize::try_from(skipped).unwrap_or(chunk.len()));
        if chunk.is_empty() {
            return Ok(());
        }
        let end = self.window.end() + chunk.len() as u64;
        if announced.length.is_some_and(|length| length < end) {
            return Err(self.fail(Failure::LONG_BODY));
        }
        // What goes into the store is to pin nothing but itself.
        let copy_below = if self.may_be_stored() {
            BLOCK
        } else {
            COPY_BELOW
        };
        self.window.push(chunk, copy_below);
        Ok(())
    }

    /// The body is over. Nothing changes yet: a complete response is stored before anybody hears of
    /// its end.
    ///
    /// # Errors
    /// The flight has failed: no head, or less than its head announced.
    pub(super) fn check_complete(&mut self) -> Result<(), Failure> {
        let Some(announced) = &self.announced else {
            return Err(self.fail(Failure::NO_HEAD));
        };
        if let Some(End::Failed(failure)) = self.end {
            return Err(failure);
        }
        if 0 < self.skip
            || announced
                .length
                .is_some_and(|length| length != self.window.end())
        {
            return Err(self.fail(Failure::SHORT_BODY));
        }
        Ok(())
    }

    /// The whole body in pieces, if the response is one for the store.
    pub(super) fn storable(&self) -> Option<(Arc<Announced>, Shareable, Vec<Bytes>)> {
        let announced = self.announced.as_ref()?;
        let kept = announced.sharing.kept().filter(|_| self.may_be_stored())?;
        Some((Arc::clone(announced), kept.clone(), self.window.pieces()))
    }

    /// Open → Complete. Where it was stored, readers go on in the stored blocks, which are the
    /// store's to count.
    pub(super) fn complete(
        &mut self,
        trailers: Option<HeaderMap>,
        stored: Option<&StoredResponse>,
    ) {
        if self.end.is_none() {
            self.end = Some(End::Complete(trailers.map(Arc::new)));
            if let Some(blocks) = stored.and_then(StoredResponse::blocks) {
                self.window = Window::of(blocks);
                for cursor in self.seats.cursors_mut() {
                    // The stored body is whole, so every place is in it.
                    if let Some(same_place) = self.window.enter(cursor.offset) {
                        *cursor = same_place;
                    }
                }
            }
        }
        // Whoever joins from now on reads from the disk.
        self.let_go();
    }

    /// It is complete, and takes its place on the disk.
    pub(super) fn lands(&mut self, now: Instant) {
        self.lands_by = Some(now + LANDING);
    }

    /// Open → Failed. What it was, if it had ended before.
    pub(super) fn fail(&mut self, failure: Failure) -> Failure {
        match self.end.get_or_insert(End::Failed(failure)) {
            End::Failed(failure) => {
                let failure = *failure;
                self.window.clear();
                failure
            }
            End::Complete(_) => failure,
        }
    }

    /// Nobody is left who wants it, and it is not worth finishing.
    pub(super) fn is_abandoned(&self) -> bool {
        let Some(announced) = &self.announced else {
            return self.seats.taken() == 0 && !self.in_background;
        };
        let is_kept = self.may_be_stored() || self.outgrows_memory(0) || self.spooling().is_some();
        if 0 < self.seats.reading() || (self.in_background && is_kept) {
            return false;
        }
        let missing = announced
            .length
            .map(|length| (length, length.saturating_sub(self.window.end())));
        let nearly_done = missing.is_some_and(|(length, missing)| {
            missing <= NEARLY_DONE.max(length / NEARLY_DONE_DIVISOR)
        });
        !(nearly_done && is_kept)
    }

    // ---- Readers -------------------------------------------------------------------------------

    /// Head and verdict, once they are here.
    pub(super) fn announced(&self) -> Option<&Arc<Announced>> {
        self.announced.as_ref()
    }

    /// How it ended, once it has.
    pub(super) fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// Whether that seat is still there.
    pub(super) fn has_seat(&mut self, seat: SeatId) -> bool {
        self.seats.get_mut(seat).is_some()
    }

    /// The next bytes of one reader, and whether the producer may want to know that it moved.
    pub(super) fn read(&mut self, id: SeatId) -> (Read, bool) {
        if let Some(End::Failed(failure)) = self.end {
            return (Read::Failed(failure), false);
        }
        let Some(seat) = self.seats.get_mut(id) else {
            return (Read::Behind, false);
        };
        if seat.is_on_disk {
            return (Read::OnDisk, false);
        }
        let Some(cursor) = &mut seat.cursor else {
            // A HEAD has all it wanted.
            return (Read::End(None), false);
        };
        let Some(bytes) = self.window.read(cursor) else {
            return match &self.end {
                Some(End::Complete(trailers)) => (Read::End(trailers.clone()), false),
                Some(End::Failed(_)) | None => (Read::Starved, false),
            };
        };
        let offset = cursor.offset;
        let leads = self.fastest.is_none_or(|fastest| fastest < offset);
        self.fastest = self.fastest.map(|fastest| fastest.max(offset));
        if self.end.is_some() {
            self.let_go();
        }
        (Read::Data(bytes), leads || self.window.has_unread_front())
    }

    /// The bytes it keeps from being freed.
    pub(super) fn weight(&self) -> usize {
        self.window.weight()
    }
}
