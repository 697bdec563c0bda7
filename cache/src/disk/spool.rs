//! A body that is written while it comes: too long to be kept in memory until it is complete.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use super::load::Load;
use super::metadata::{Checksum, Metadata, ResponseMetadata, checksum};
use super::readers::{Loaded, Readers};
use super::recorded::{Block, Damaged};
use super::writer::Writer;
use super::{clock, writer};
use crate::counters::CacheCounters;
use crate::key::CacheKey;
use crate::store::{BLOCK, NewRecord, Record, Store};

/// How far the disk may be behind the body: what a connection brings in while a disk does one thing else.
const AHEAD: usize = 4 * 1024 * 1024;

/// The same while all bodies together are too far ahead.
const LEAST_AHEAD: usize = 4 * BLOCK;

/// One body on its way to a record.
#[derive(Debug)]
pub(crate) struct Spool {
    key: CacheKey,
    writer: Arc<Writer>,
    readers: Arc<Readers>,
    state: Mutex<State>,
    /// Only the writing thread touches these.
    output: Mutex<Output>,
}

#[derive(Default)]
struct State {
    /// Not yet written.
    pieces: VecDeque<Bytes>,
    waiting: usize,
    /// A job of the writing thread is on its way.
    is_queued: bool,
    end: Option<End>,
    producer: Option<Waker>,
    /// What can be read already.
    written: Option<Arc<dyn Record>>,
    /// Of the blocks that can be read.
    checksums: Vec<Checksum>,
    readers: Vec<Waker>,
    /// Nothing more is written.
    is_over: bool,
    /// To be told then.
    landed: Option<Box<dyn FnOnce() + Send>>,
}

/// A block that a reader waits for.
#[derive(Debug)]
pub(crate) struct Reading {
    block: u64,
    load: Arc<Load<Result<Bytes, Damaged>>>,
}

/// Asked right before a record takes its place: what was forgotten since must not come back.
type StillWanted = Box<dyn Fn() -> bool + Send>;

/// Given what its key gives now, once a record has taken its place.
pub(super) type Committed = Box<dyn FnOnce(Loaded) + Send>;

enum End {
    /// If it is still wanted when its turn has come.
    Commit(Box<ResponseMetadata>, StillWanted),
    /// It is complete and of no use to anybody but those who read it already.
    Discard,
    Abandon,
}

#[derive(Default)]
struct Output {
    committed: Option<Committed>,
    record: Option<Box<dyn NewRecord>>,
    open: BytesMut,
    checksums: Vec<Checksum>,
}

impl Spool {
    pub(super) fn new(
        key: CacheKey,
        writer: Arc<Writer>,
        readers: Arc<Readers>,
        committed: Committed,
    ) -> Arc<Self> {
        let output = Output {
            committed: Some(committed),
            ..Output::default()
        };
        Arc::new(Self {
            key,
            writer,
            readers,
            state: Mutex::default(),
            output: Mutex::new(output),
        })
    }

    /// More of the body.
    pub(crate) fn push(self: &Arc<Self>, bytes: Bytes) {
        let mut state = self.state.lock();
        if state.end.is_some() {
            return;
        }
        state.waiting += bytes.len();
        self.writer.spooled(bytes.len());
        state.pieces.push_back(bytes);
        self.queue(state);
    }

    /// The body was complete. It takes its place if it is `still_wanted` when everything before it has been written. `landed` hears
    /// when it has, or never will.
    pub(crate) fn commit(
        self: &Arc<Self>,
        metadata: ResponseMetadata,
        still_wanted: impl Fn() -> bool + Send + 'static,
        landed: impl FnOnce() + Send + 'static,
    ) {
        self.end_well(
            End::Commit(Box::new(metadata), Box::new(still_wanted)),
            landed,
        );
    }

    /// The body was complete, and is not to be stored: those who read it already read it to its end. `landed` hears when they can.
    pub(crate) fn discard(self: &Arc<Self>, landed: impl FnOnce() + Send + 'static) {
        self.end_well(End::Discard, landed);
    }

    fn end_well(self: &Arc<Self>, end: End, landed: impl FnOnce() + Send + 'static) {
        {
            let mut state = self.state.lock();
            if state.is_over {
                drop(state);
                return landed();
            }
            state.landed = Some(Box::new(landed));
        }
        self.end(end);
    }

    /// It is not worth storing any more. Whoever waits hears so at once: the disk may stand still.
    pub(crate) fn abandon(self: &Arc<Self>) {
        self.end(End::Abandon);
        self.release();
    }

    fn end(self: &Arc<Self>, end: End) {
        let mut state = self.state.lock();
        // What is abandoned after all loses pieces, and must not be taken for complete.
        if state.end.is_none() || matches!(end, End::Abandon) {
            state.end = Some(end);
            self.queue(state);
        }
    }

    fn queue(self: &Arc<Self>, mut state: parking_lot::MutexGuard<'_, State>) {
        let is_new = !std::mem::replace(&mut state.is_queued, true);
        drop(state);
        if is_new {
            self.writer.spool(self);
        }
    }

    /// Whether the disk takes no more of it, for whatever reason.
    pub(crate) fn is_over(&self) -> bool {
        self.state.lock().is_over
    }

    /// How much of the body the disk has, whatever becomes of the rest.
    pub(crate) fn written(&self) -> u64 {
        (self.state.lock().checksums.len() * BLOCK) as u64
    }

    /// Whether the disk keeps up. Pending: it wakes when it does; whoever has no patience left abandons it.
    pub(crate) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        let ahead = if self.writer.is_behind() {
            LEAST_AHEAD
        } else {
            AHEAD
        };
        if state.waiting < ahead || state.end.is_some() {
            return Poll::Ready(());
        }
        state.producer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The bytes of the body from an offset on, as far as they are in one block. `reading` belongs to the reader and to this body.
    pub(crate) fn poll_read(
        &self,
        cx: &Context<'_>,
        offset: u64,
        reading: &mut Option<Reading>,
    ) -> Poll<Result<Bytes, Damaged>> {
        let block = offset / BLOCK as u64;
        let within = usize::try_from(offset % BLOCK as u64).unwrap_or(0);
        if reading
            .as_ref()
            .is_none_or(|reading| reading.block != block)
        {
            let block = {
                let mut state = self.state.lock();
                let expected = usize::try_from(block).ok();
                let expected = expected.and_then(|index| state.checksums.get(index).copied());
                match (&state.written, expected) {
                    (Some(record), Some(expected)) => Block {
                        record: Arc::clone(record),
                        number: block,
                        expected,
                    },
                    _ if state.is_over => return Poll::Ready(Err(Damaged)),
                    _ => {
                        if !state.readers.iter().any(|it| it.will_wake(cx.waker())) {
                            state.readers.push(cx.waker().clone());
                        }
                        return Poll::Pending;
                    }
                }
            };
            if let Some(read) = block.read_now() {
                return Poll::Ready(self.rest_of(read, within));
            }
            let number = block.number;
            let Some(load) = self.readers.read_on(block) else {
                return Poll::Ready(Err(Damaged));
            };
            *reading = Some(Reading {
                block: number,
                load,
            });
        }
        let Some(under_way) = reading else {
            return Poll::Ready(Err(Damaged));
        };
        let read = std::task::ready!(under_way.load.poll(cx));
        *reading = None;
        Poll::Ready(self.rest_of(read, within))
    }

    fn rest_of(&self, read: Result<Bytes, Damaged>, first: usize) -> Result<Bytes, Damaged> {
        let read = read.inspect_err(|_| self.readers.count_damaged());
        read.map(|bytes| bytes.slice(first.min(bytes.len())..))
    }

    /// What was appended since the last time goes to the disk. True: more has come meanwhile, and is for another time, as others
    /// want to write too.
    pub(super) fn write(&self, store: &Arc<dyn Store>, counters: &CacheCounters) -> bool {
        let mut output = self.output.lock();
        let (pieces, end) = {
            let mut state = self.state.lock();
            let pieces = std::mem::take(&mut state.pieces);
            (pieces, state.end.take())
        };
        let length: usize = pieces.iter().map(Bytes::len).sum();
        let appended = match end {
            Some(End::Abandon) => Ok(()),
            Some(End::Commit(..) | End::Discard) | None => self.append(&mut output, store, pieces),
        };
        match (appended, end) {
            (Ok(()), None) => {
                let so_far = output.record.as_ref().and_then(|record| record.so_far());
                self.appended(length, so_far, &output.checksums)
            }
            (Ok(()), Some(End::Commit(_, still_wanted))) if !still_wanted() => {
                counters.refused_outdated.add(1);
                self.leave_to_readers(&mut output, length);
                false
            }
            (Ok(()), Some(End::Discard)) => {
                self.leave_to_readers(&mut output, length);
                false
            }
            (Ok(()), Some(End::Commit(metadata, _))) => {
                match self.finish(&mut output, store, metadata) {
                    Ok(()) => {
                        counters.store_writes.add(1);
                        self.finished(&mut output, store);
                    }
                    Err(_) => {
                        counters.store_errors.add(1);
                        // What could not be written must not leave an older one in its place.
                        self.writer.remove(self.key);
                    }
                }
                self.close();
                false
            }
            (Ok(()), Some(End::Abandon)) => {
                output.record = None;
                self.close();
                false
            }
            (Err(_), _) => {
                counters.store_errors.add(1);
                output.record = None;
                self.writer.remove(self.key);
                self.close();
                false
            }
        }
    }

    /// Lets those who read go on to the end of a record that nobody finds.
    fn leave_to_readers(&self, output: &mut Output, length: usize) {
        if output.write_rest().is_ok() {
            let so_far = output.record.as_ref().and_then(|record| record.so_far());
            self.appended(length, so_far, &output.checksums);
        }
        output.record = None;
        self.close();
    }

    /// Tells those who wait. Whether there is more to write.
    fn appended(
        &self,
        length: usize,
        so_far: Option<Arc<dyn Record>>,
        checksums: &[Checksum],
    ) -> bool {
        let mut state = self.state.lock();
        // What was abandoned meanwhile waits for nothing.
        let written = length.min(state.waiting);
        state.waiting -= written;
        self.writer.unspooled(written);
        state.written = so_far;
        let known = state.checksums.len();
        state.checksums.extend_from_slice(&checksums[known..]);
        state.is_queued = state.end.is_some() || !state.pieces.is_empty();
        let is_queued = state.is_queued;
        let producer = state.producer.take();
        let readers = std::mem::take(&mut state.readers);
        drop(state);
        producer.into_iter().chain(readers).for_each(Waker::wake);
        is_queued
    }

    /// The record is what its key gives now: whoever still reads goes on in it.
    fn finished(&self, output: &mut Output, store: &Arc<dyn Store>) {
        if let Some(committed) = output.committed.take() {
            committed(self.readers.load_waiting(&self.key));
        }
        if let Ok(Some(record)) = store.open(&self.key) {
            let mut state = self.state.lock();
            state.written = Some(record);
            state.checksums.clone_from(&output.checksums);
        }
    }

    /// Nothing more is taken in, and nobody waits.
    pub(super) fn close(&self) {
        self.state.lock().end = Some(End::Abandon);
        self.release();
    }

    fn release(&self) {
        let mut state = self.state.lock();
        state.is_over = true;
        state.pieces.clear();
        self.writer.unspooled(std::mem::take(&mut state.waiting));
        let producer = state.producer.take();
        let readers = std::mem::take(&mut state.readers);
        let landed = state.landed.take();
        drop(state);
        producer.into_iter().chain(readers).for_each(Waker::wake);
        if let Some(landed) = landed {
            landed();
        }
    }

    fn append(
        &self,
        output: &mut Output,
        store: &Arc<dyn Store>,
        pieces: VecDeque<Bytes>,
    ) -> std::io::Result<()> {
        if output.record.is_none() {
            output.record = Some(store.create(&self.key)?);
        }
        for piece in pieces {
            let mut rest = piece;
            while !rest.is_empty() {
                if output.open.is_empty() && BLOCK <= rest.len() {
                    let block = rest.split_to(BLOCK);
                    output.write_block(&block)?;
                    continue;
                }
                let missing = BLOCK - output.open.len();
                let fits = rest.split_to(missing.min(rest.len()));
                output.open.extend_from_slice(&fits);
                if output.open.len() == BLOCK {
                    let block = output.open.split().freeze();
                    output.write_block(&block)?;
                }
            }
        }
        Ok(())
    }

    fn finish(
        &self,
        output: &mut Output,
        store: &Arc<dyn Store>,
        mut metadata: Box<ResponseMetadata>,
    ) -> std::io::Result<()> {
        output.write_rest()?;
        metadata.checksums = output.checksums.as_slice().into();
        let head = Metadata::Response(metadata).encode(&self.key, clock::now(), clock::wall());
        let head = head.ok_or_else(writer::too_large)?;
        let record = match output.record.take() {
            Some(record) => record,
            None => store.create(&self.key)?,
        };
        record.commit(&head)
    }
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Commit(..) => "Commit",
            Self::Discard => "Discard",
            Self::Abandon => "Abandon",
        })
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("waiting", &self.waiting)
            .field("end", &self.end)
            .field("is_over", &self.is_over)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").finish_non_exhaustive()
    }
}

impl Output {
    /// Writes the last block, which may be shorter.
    fn write_rest(&mut self) -> std::io::Result<()> {
        if self.open.is_empty() {
            return Ok(());
        }
        let block = self.open.split().freeze();
        self.write_block(&block)
    }

    fn write_block(&mut self, block: &Bytes) -> std::io::Result<()> {
        self.checksums.push(checksum(block));
        match &mut self.record {
            Some(record) => record.append(block),
            None => Err(std::io::ErrorKind::NotFound.into()),
        }
    }
}
