//! Records of a sled store, being read and being written.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::generations::Generations;
use super::value::{Body, BodyFile};
use crate::key::CacheKey;
use crate::store::{BLOCK, NewRecord, Record};

/// Bodies up to here are kept in the database, longer ones in files. Measured with bodies of 16 KiB: as values 4,700 puts a second,
/// 125 MiB of memory for 8,000 of them, and 1.6 times their length on the disk; as files 3,600, 24 MiB for 30,000, and 1.0 times.
const INLINE: usize = 4 << 10;

/// A record, open for reading. It holds nothing of the database, which may be dropped meanwhile.
#[derive(Debug)]
pub(super) struct SledRecord {
    head: Bytes,
    length: u64,
    body: Content,
}

#[derive(Debug)]
enum Content {
    Inline(Bytes),
    File(Arc<File>),
}

impl SledRecord {
    pub(super) fn inline(head: Bytes, body: Bytes) -> Self {
        let length = body.len() as u64;
        let body = Content::Inline(body);
        Self { head, length, body }
    }

    pub(super) fn file(head: Bytes, length: u64, file: File) -> Self {
        let body = Content::File(Arc::new(file));
        Self { head, length, body }
    }

    /// Where the block begins and how long it is.
    fn place(&self, block: u64) -> io::Result<(u64, usize)> {
        let begin = block.checked_mul(BLOCK as u64);
        let left = begin.and_then(|begin| self.length.checked_sub(begin));
        match (begin, left) {
            (Some(begin), Some(left @ 1..)) => {
                Ok((begin, usize::try_from(left).unwrap_or(BLOCK).min(BLOCK)))
            }
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Record for SledRecord {
    fn head(&self) -> Bytes {
        self.head.clone()
    }

    fn length(&self) -> u64 {
        self.length
    }

    fn read(&self, block: u64) -> io::Result<Bytes> {
        let (begin, length) = self.place(block)?;
        match &self.body {
            // Shorter than a block.
            Content::Inline(body) => Ok(body.clone()),
            Content::File(file) => {
                let mut bytes = vec![0; length];
                file.read_exact_at(&mut bytes, begin)?;
                Ok(Bytes::from(bytes))
            }
        }
    }

    fn read_now(&self, block: u64) -> Option<io::Result<Bytes>> {
        match &self.body {
            Content::Inline(_) => Some(self.read(block)),
            Content::File(_) => None,
        }
    }
}

/// A record that is being written: in memory while it is short, then in a file that is nobody's.
pub(super) struct NewSledRecord {
    generations: Arc<Generations>,
    key: CacheKey,
    short: Vec<u8>,
    file: Option<Incoming>,
}

impl fmt::Debug for NewSledRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewSledRecord")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// A body in `incoming`. It goes when it is dropped, unless it was adopted.
struct Incoming {
    generations: Arc<Generations>,
    id: u64,
    /// Without its length, which is not known yet.
    path: PathBuf,
    file: Arc<File>,
    length: u64,
}

impl Incoming {
    fn new(generations: &Arc<Generations>) -> io::Result<Self> {
        let id = generations.next_body();
        let path = generations.incoming(id);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(|error| generations.blame(error))?;
        Ok(Self {
            generations: Arc::clone(generations),
            id,
            path,
            file: Arc::new(file),
            length: 0,
        })
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        // Counted before it is there, and also if it is there in part.
        self.generations.space.arrive(bytes.len() as u64);
        let at = self.length;
        self.length += bytes.len() as u64;
        let written = self.file.write_all_at(bytes, at);
        written.map_err(|error| self.generations.blame(error))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Nothing is there if it was adopted.
        let _ = fs::remove_file(&self.path);
        self.generations.space.arrived(self.length);
    }
}

impl NewSledRecord {
    /// # Errors
    /// There is no room.
    pub(super) fn new(generations: &Arc<Generations>, key: &CacheKey) -> io::Result<Self> {
        generations.wait_for_room()?;
        Ok(Self {
            generations: Arc::clone(generations),
            key: *key,
            short: Vec::new(),
            file: None,
        })
    }
}

impl NewRecord for NewSledRecord {
    fn append(&mut self, block: &Bytes) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None if self.short.len() + block.len() <= INLINE => {
                self.short.extend_from_slice(block);
                return Ok(());
            }
            None => {
                let file = self.file.insert(Incoming::new(&self.generations)?);
                file.append(&std::mem::take(&mut self.short))?;
                file
            }
        };
        if self.generations.space.max_body() < file.length + block.len() as u64 {
            self.generations.counters.refused_too_large.add(1);
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.generations.wait_for_room()?;
        file.append(block)
    }

    fn so_far(&self) -> Option<Arc<dyn Record>> {
        Some(Arc::new(match &self.file {
            None => SledRecord::inline(Bytes::new(), Bytes::copy_from_slice(&self.short)),
            Some(incoming) => SledRecord {
                head: Bytes::new(),
                length: incoming.length,
                body: Content::File(Arc::clone(&incoming.file)),
            },
        }))
    }

    fn commit(mut self: Box<Self>, head: &[u8]) -> io::Result<()> {
        let body = match &self.file {
            None => Body::Inline(std::mem::take(&mut self.short).into()),
            Some(incoming) => {
                let (id, length) = (incoming.id, incoming.length);
                Body::File(BodyFile { id, length })
            }
        };
        self.generations.put(&self.key, head, body)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_full_disk_is_noticed_with_the_first_bytes_of_a_body() {
        let directory = tempfile::tempdir().unwrap();
        let (generations, _orders) =
            Generations::new(directory.path(), 32 << 20, Duration::ZERO).unwrap();
        let mut incoming = Incoming::new(&generations).unwrap();
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        incoming.file = Arc::new(full);
        assert!(incoming.append(b"body").is_err());
        assert_eq!(generations.counters.disk_full.get(), 1);
    }
}
