//! A record that is being written.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;

use super::bodies::Body;
use super::layout::Kind;
use super::log::{Log, too_large};
use super::record::{LargeRecord, UnfinishedRecord};
use crate::key::CacheKey;
use crate::store::{BLOCK, NewRecord, Record};

/// Keeps a body in memory until it is too large to be inline, and from then on in a file.
#[derive(Debug)]
pub(super) struct Writing {
    log: Arc<Log>,
    key: CacheKey,
    length: u64,
    /// The whole body, while it is small.
    blocks: Vec<Bytes>,
    /// The whole body, once it is large.
    large: Option<(Arc<Body>, Arc<File>)>,
    failed: bool,
}

impl Writing {
    pub(super) fn new(log: Arc<Log>, key: CacheKey) -> Self {
        Self {
            log,
            key,
            length: 0,
            blocks: Vec::new(),
            large: None,
            failed: false,
        }
    }

    fn add(&mut self, block: &Bytes) -> io::Result<()> {
        let after_short = !self.length.is_multiple_of(BLOCK as u64);
        if BLOCK < block.len() || (after_short && !block.is_empty()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "only the last block may have another length",
            ));
        }
        let length = self.length + block.len() as u64;
        if self.log.limits.body < length {
            return Err(too_large());
        }
        if self.large.is_none() && self.log.limits.inline < length {
            let (body, file) = self.log.create_body()?;
            let mut offset = 0;
            for block in std::mem::take(&mut self.blocks) {
                write(&self.log, &body, &file, &block, offset)?;
                offset += block.len() as u64;
            }
            self.large = Some((body, file));
        }
        match &self.large {
            None if block.is_empty() => {}
            None => self.blocks.push(block.clone()),
            Some((body, file)) => write(&self.log, body, file, block, self.length)?,
        }
        self.length = length;
        Ok(())
    }
}

fn write(log: &Log, body: &Body, file: &File, block: &Bytes, offset: u64) -> io::Result<()> {
    log.write_body(body, block.len() as u64, || {
        file.write_all_at(block, offset)
    })
}

impl NewRecord for Writing {
    fn append(&mut self, block: &Bytes) -> io::Result<()> {
        if self.failed {
            return Err(failed());
        }
        self.add(block).inspect_err(|_| self.failed = true)
    }

    fn so_far(&self) -> Option<Arc<dyn Record>> {
        if self.failed {
            return None;
        }
        let length = self.length;
        Some(match &self.large {
            None => Arc::new(UnfinishedRecord {
                blocks: self.blocks.clone(),
                length,
            }),
            Some((body, file)) => Arc::new(LargeRecord::new(
                Bytes::new(),
                length,
                Arc::clone(file),
                Arc::clone(body),
                Arc::clone(&self.log.nowait),
            )),
        })
    }

    fn commit(mut self: Box<Self>, head: &[u8]) -> io::Result<()> {
        if self.failed {
            return Err(failed());
        }
        let (kind, number) = match &self.large {
            None => (Kind::Inline, 0),
            Some((body, _)) => (Kind::Apart, body.file()),
        };
        let label = self.log.label(&self.key, kind, head, self.length, number)?;
        let body = self.large.take().map(|(body, _)| body);
        let put = self.log.put(&label, head, &self.blocks, body);
        // If that failed nobody has the body any more.
        put.inspect_err(|_| {
            self.log.bodies.bury();
        })
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        // If it was not committed, its file goes at once.
        if self.large.take().is_some() {
            self.log.bodies.bury();
        }
    }
}

fn failed() -> io::Error {
    io::Error::other("an earlier block of this record could not be written")
}
