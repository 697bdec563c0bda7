//! Records that are open for reading.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;

use super::bodies::Body;
use super::nowait::NoWait;
use crate::store::{BLOCK, Record};

/// A record that is wholly in memory since it was opened.
#[derive(Debug)]
pub(super) struct InlineRecord {
    pub(super) head: Bytes,
    pub(super) body: Bytes,
}

impl Record for InlineRecord {
    fn head(&self) -> Bytes {
        self.head.clone()
    }

    fn length(&self) -> u64 {
        self.body.len() as u64
    }

    fn read(&self, block: u64) -> io::Result<Bytes> {
        let length = self.body.len();
        let first = usize::try_from(block)
            .ok()
            .and_then(|block| block.checked_mul(BLOCK))
            .filter(|&first| first < length)
            .ok_or_else(no_such_block)?;
        Ok(self.body.slice(first..length.min(first + BLOCK)))
    }

    fn read_now(&self, block: u64) -> Option<io::Result<Bytes>> {
        Some(self.read(block))
    }
}

/// What was written so far of a record that is still in memory.
#[derive(Debug)]
pub(super) struct UnfinishedRecord {
    pub(super) blocks: Vec<Bytes>,
    pub(super) length: u64,
}

impl Record for UnfinishedRecord {
    fn head(&self) -> Bytes {
        Bytes::new()
    }

    fn length(&self) -> u64 {
        self.length
    }

    fn read(&self, block: u64) -> io::Result<Bytes> {
        usize::try_from(block)
            .ok()
            .and_then(|block| self.blocks.get(block).cloned())
            .ok_or_else(no_such_block)
    }

    fn read_now(&self, block: u64) -> Option<io::Result<Bytes>> {
        Some(self.read(block))
    }
}

/// A record whose body is a file of its own.
#[derive(Debug)]
pub(super) struct LargeRecord {
    head: Bytes,
    length: u64,
    file: Arc<File>,
    /// Keeps the bytes on the account, and the file where others find it.
    _body: Arc<Body>,
    nowait: Arc<NoWait>,
}

impl LargeRecord {
    pub(super) fn new(
        head: Bytes,
        length: u64,
        file: Arc<File>,
        body: Arc<Body>,
        nowait: Arc<NoWait>,
    ) -> Self {
        Self {
            head,
            length,
            file,
            _body: body,
            nowait,
        }
    }

    /// Where a block begins, and a buffer of its length.
    fn place(&self, block: u64) -> io::Result<(u64, Vec<u8>)> {
        let offset = block
            .checked_mul(BLOCK as u64)
            .filter(|&offset| offset < self.length)
            .ok_or_else(no_such_block)?;
        let length = (self.length - offset).min(BLOCK as u64);
        Ok((offset, vec![0; usize::try_from(length).unwrap_or(BLOCK)]))
    }
}

impl Record for LargeRecord {
    fn head(&self) -> Bytes {
        self.head.clone()
    }

    fn length(&self) -> u64 {
        self.length
    }

    fn read(&self, block: u64) -> io::Result<Bytes> {
        let (offset, mut bytes) = self.place(block)?;
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes.into())
    }

    fn read_now(&self, block: u64) -> Option<io::Result<Bytes>> {
        let (offset, mut bytes) = match self.place(block) {
            Ok(place) => place,
            Err(error) => return Some(Err(error)),
        };
        let read = self.nowait.read(&self.file, &mut bytes, offset)?;
        Some(read.map(|()| bytes.into()))
    }
}

fn no_such_block() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "no block of that number")
}
