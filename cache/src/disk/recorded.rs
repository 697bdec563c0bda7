//! Content that lies in a record: read block by block, each checked before it is given away.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::metadata::{Checksum, checksum};
use super::readers::{Opening, Readers, ReadingBlock};
use crate::counters::CacheCounters;
use crate::key::CacheKey;
use crate::store::{BLOCK, Record, StoredResponse, Tiers};

/// Where the content of a stored response lies, if not in memory. The record is opened for each delivery: if it were held open, a
/// descriptor would be taken for each of a hundred thousand responses, and the disk could not let go of what was replaced.
#[derive(Clone)]
pub(crate) struct Recorded {
    pub(super) key: CacheKey,
    pub(super) length: u64,
    pub(super) checksums: Arc<[Checksum]>,
    /// What the head ended with when it was read: where it still does, the content is that one, without a look at all the checksums.
    pub(super) seal: Option<Checksum>,
    pub(super) readers: Arc<Readers>,
}

/// A block that is not what was written, or cannot be read. Nothing of it was given away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a block of the stored content is damaged")]
pub struct Damaged;

impl Recorded {
    /// The length of the content.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// What it takes in memory.
    pub(crate) fn weight(&self) -> u64 {
        (self.checksums.len() * size_of::<Checksum>()) as u64
    }

    /// One of its blocks, in the record that it lies in.
    pub(super) fn block(&self, record: &Arc<dyn Record>, number: u64) -> Option<Block> {
        let index = usize::try_from(number).ok()?;
        Some(Block {
            record: Arc::clone(record),
            number,
            expected: *self.checksums.get(index)?,
        })
    }
}

/// A block of a record, and what it has to be.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) record: Arc<dyn Record>,
    pub(super) number: u64,
    pub(super) expected: Checksum,
}

impl Block {
    /// Its bytes, if they can be had without waiting.
    pub(super) fn read_now(&self) -> Option<Result<Bytes, Damaged>> {
        Some(self.checked(self.record.read_now(self.number)?))
    }

    /// Its bytes; takes as long as a disk takes.
    pub(super) fn read(&self) -> Result<Bytes, Damaged> {
        self.checked(self.record.read(self.number))
    }

    fn checked(&self, read: std::io::Result<Bytes>) -> Result<Bytes, Damaged> {
        let bytes = read.map_err(|_| Damaged)?;
        if checksum(&bytes) == self.expected {
            Ok(bytes)
        } else {
            Err(Damaged)
        }
    }
}

impl fmt::Debug for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorded").finish_non_exhaustive()
    }
}

/// The content of a stored response on its way to a client, from a block on.
#[derive(Debug)]
pub struct StoredBody {
    response: Arc<StoredResponse>,
    next: usize,
    /// Read already, and not given away yet.
    ahead: Option<Bytes>,
    /// The record of what is not in memory, once it is open.
    record: Option<Arc<dyn Record>>,
    opening: Option<Arc<Opening>>,
    reading: Option<Arc<ReadingBlock>>,
    /// A block has been read, and may be on its way to the client.
    is_begun: bool,
    /// None of what is in memory.
    stored: Option<Stored>,
}

/// Where a response is stored.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) at: CacheKey,
    pub(crate) tiers: Arc<Tiers>,
    pub(crate) counters: Arc<CacheCounters>,
}

impl Stored {
    /// What is damaged stays so: the next who asks for it is to fetch it.
    fn forget_damaged(&self) {
        self.counters.store_damaged.add(1);
        self.tiers.forget(&self.at);
    }

    /// The disk has it no more, or another: so the head in memory is of no use.
    fn forget_gone(&self, response: &Arc<StoredResponse>) {
        self.tiers.forget_in_memory(&self.at, response);
    }
}

impl StoredBody {
    /// The content from the block on in which that byte lies, and how many bytes before it come with it.
    pub(crate) fn from_byte(
        response: Arc<StoredResponse>,
        first: u64,
        stored: Option<Stored>,
    ) -> (Self, u64) {
        let (next, skip) = response.content().block_of(first);
        let body = Self {
            response,
            next,
            ahead: None,
            record: None,
            opening: None,
            reading: None,
            is_begun: false,
            stored,
        };
        (body, skip)
    }

    /// The response.
    pub fn response(&self) -> &Arc<StoredResponse> {
        &self.response
    }

    /// Whether all blocks have been given away.
    pub fn is_over(&self) -> bool {
        self.ahead.is_none() && self.response.content().block_count() <= self.next
    }

    /// Waits until the next block is known to be good, so that nothing is promised that cannot be kept.
    pub fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Damaged>> {
        if self.ahead.is_some() {
            return Poll::Ready(Ok(()));
        }
        match std::task::ready!(self.poll_block(cx)) {
            None => Poll::Ready(Ok(())),
            Some(Ok(block)) => {
                self.ahead = Some(block);
                Poll::Ready(Ok(()))
            }
            Some(Err(damaged)) => Poll::Ready(Err(damaged)),
        }
    }

    /// The next block, or part of one; `None` behind the last. A response whose block is damaged is forgotten; where only too many
    /// read at once, so that not even the first block can be had, it is not.
    pub fn poll_block(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Damaged>>> {
        if let Some(block) = self.ahead.take() {
            return Poll::Ready(Some(Ok(block)));
        }
        if self.is_over() {
            return Poll::Ready(None);
        }
        let recorded = match self.response.content() {
            Content::Blocks(blocks) => {
                let block = blocks.get(self.next).cloned();
                self.next += 1;
                return Poll::Ready(block.map(Ok));
            }
            Content::Recorded(recorded) => recorded.clone(),
        };
        let Some(record) = std::task::ready!(self.poll_record(cx, &recorded)) else {
            return Poll::Ready(Some(Err(Damaged)));
        };
        let read = match &self.reading {
            Some(reading) => std::task::ready!(reading.poll(cx)),
            None => {
                let Some(block) = recorded.block(&record, self.next as u64) else {
                    return Poll::Ready(Some(Err(Damaged)));
                };
                match block.read_now() {
                    Some(read) => read,
                    None => {
                        let reading = if self.is_begun {
                            recorded.readers.read_on(block)
                        } else {
                            recorded.readers.read(block)
                        };
                        let Some(reading) = reading else {
                            return Poll::Ready(Some(Err(Damaged)));
                        };
                        let poll = reading.poll(cx);
                        self.reading = Some(reading);
                        std::task::ready!(poll)
                    }
                }
            }
        };
        self.reading = None;
        self.is_begun = true;
        self.next += 1;
        if read.is_err()
            && let Some(stored) = &self.stored
        {
            stored.forget_damaged();
        }
        Poll::Ready(Some(read))
    }

    /// The record that the content lies in; `None`: it lies there no more, or too many read at once.
    fn poll_record(
        &mut self,
        cx: &mut Context<'_>,
        recorded: &Recorded,
    ) -> Poll<Option<Arc<dyn Record>>> {
        if let Some(record) = &self.record {
            return Poll::Ready(Some(Arc::clone(record)));
        }
        let opened = match &self.opening {
            Some(opening) => std::task::ready!(opening.poll(cx)),
            None => match recorded.readers.open_now(recorded) {
                Some(opened) => opened,
                None => {
                    let Some(opening) = recorded.readers.open(recorded) else {
                        return Poll::Ready(None);
                    };
                    let poll = opening.poll(cx);
                    self.opening = Some(opening);
                    std::task::ready!(poll)
                }
            },
        };
        self.opening = None;
        self.record.clone_from(&opened);
        if opened.is_none()
            && let Some(stored) = &self.stored
        {
            stored.forget_gone(&self.response);
        }
        Poll::Ready(opened)
    }
}

/// Where the content of a stored response is.
#[derive(Debug)]
pub(crate) enum Content {
    /// In memory.
    Blocks(Vec<Bytes>),
    /// In a record.
    Recorded(Recorded),
}

impl Content {
    pub(crate) fn length(&self) -> u64 {
        match self {
            Self::Blocks(blocks) => blocks.iter().map(|block| block.len() as u64).sum(),
            Self::Recorded(recorded) => recorded.length(),
        }
    }

    /// How many blocks there are.
    pub(crate) fn block_count(&self) -> usize {
        match self {
            Self::Blocks(blocks) => blocks.len(),
            Self::Recorded(recorded) => recorded.checksums.len(),
        }
    }

    /// The block in which that byte lies, and how many bytes lie before it in there.
    pub(crate) fn block_of(&self, byte: u64) -> (usize, u64) {
        match self {
            Self::Blocks(blocks) => {
                let mut before = byte;
                for (index, block) in blocks.iter().enumerate() {
                    let length = block.len() as u64;
                    if before < length {
                        return (index, before);
                    }
                    before -= length;
                }
                (blocks.len(), 0)
            }
            Self::Recorded(_) => {
                let block = BLOCK as u64;
                let index = usize::try_from(byte / block).unwrap_or(usize::MAX);
                (index, byte % block)
            }
        }
    }
}
