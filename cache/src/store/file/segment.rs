//! A segment: records one after the other in a file that only grows, and that is deleted as a whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use rustix::io::Errno;

use super::bodies::FILE_OVERHEAD;
use super::index::{IndexKey, Location};
use super::layout::{LABEL, Label, SEGMENT_HEADER, Salt, SegmentHeader, checksum};
use super::nowait::NoWait;
use super::sidecar::{ENTRY, Entry, Sidecar};

/// A segment that can be read.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u32,
    salt: Salt,
    file: File,
    /// The bytes that are on the account for it and its sidecar.
    charged: AtomicU64,
}

/// The name of the segment of that number.
pub(super) fn path(directory: &Path, number: u32) -> PathBuf {
    directory.join(format!("segment-{number:08x}"))
}

/// The name of its sidecar.
pub(super) fn sidecar_path(directory: &Path, number: u32) -> PathBuf {
    directory.join(format!("segment-{number:08x}.index"))
}

/// The number of the segment whose file, or whose sidecar's, has this name.
pub(super) fn number_of(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("segment-")?;
    let digits = digits.strip_suffix(".index").unwrap_or(digits);
    let number = u32::from_str_radix(digits, 16).ok()?;
    // Signs and capitals would do as well.
    (digits == format!("{number:08x}")).then_some(number)
}

/// Deletes a segment and its sidecar.
///
/// # Errors
/// The segment is still there.
pub(super) fn delete(directory: &Path, number: u32) -> io::Result<()> {
    // The sidecar first: alone it would say that the records of its segment were lost.
    let _ = fs::remove_file(sidecar_path(directory, number));
    match fs::remove_file(path(directory, number)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Cuts off what lies behind that length.
pub(super) fn truncate(directory: &Path, number: u32, length: u32) -> io::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .open(path(directory, number))?;
    file.set_len(length.into())
}

impl Segment {
    pub(super) fn new(header: SegmentHeader, file: File, charged: u64) -> Self {
        Self {
            number: header.number,
            salt: header.salt,
            file,
            charged: AtomicU64::new(charged),
        }
    }

    /// What a segment of that length with that many records takes on the disk, its sidecar included.
    pub(super) fn cost(length: u64, entries: usize) -> u64 {
        2 * FILE_OVERHEAD + length + (entries * ENTRY) as u64
    }

    pub(super) fn charged(&self) -> u64 {
        self.charged.load(Ordering::Relaxed)
    }

    /// A record's bytes. It may take as long as the disk takes.
    pub(super) fn read(&self, location: Location) -> io::Result<Stored> {
        let mut bytes = vec![0; location.length as usize];
        self.file
            .read_exact_at(&mut bytes, u64::from(location.offset))?;
        self.stored(bytes)
    }

    /// The same, if it is in memory.
    pub(super) fn read_now(
        &self,
        location: Location,
        nowait: &NoWait,
    ) -> Option<io::Result<Stored>> {
        let mut bytes = vec![0; location.length as usize];
        let read = nowait.read(&self.file, &mut bytes, u64::from(location.offset))?;
        Some(read.and_then(|()| self.stored(bytes)))
    }

    /// The label of a record alone.
    pub(super) fn read_label(&self, offset: u32) -> io::Result<Label> {
        let mut bytes = [0; LABEL];
        self.file.read_exact_at(&mut bytes, u64::from(offset))?;
        Label::decode(&bytes, &self.salt).ok_or_else(damaged)
    }

    fn stored(&self, bytes: Vec<u8>) -> io::Result<Stored> {
        let label = bytes
            .first_chunk()
            .and_then(|label| Label::decode(label, &self.salt))
            .filter(|label| label.record_length() == bytes.len() as u64)
            .ok_or_else(damaged)?;
        let mut head = Bytes::from(bytes).split_off(LABEL);
        let body = head.split_off(label.head as usize);
        if checksum(&head) != label.head_check {
            return Err(damaged());
        }
        Ok(Stored { label, head, body })
    }
}

/// A record as its segment has it: the label and the head are what was written.
pub(super) struct Stored {
    pub(super) label: Label,
    pub(super) head: Bytes,
    /// Of an inline record; unchecked.
    pub(super) body: Bytes,
}

/// What is there is not what was written.
pub(super) fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a stored record is damaged")
}

/// Whether an error says that the bytes are gone rather than that they could not be got.
pub(super) fn is_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound
    )
}

/// The segment that is being written.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) segment: Arc<Segment>,
    file: File,
    pub(super) length: u32,
    /// The length and that of the large bodies it names: what dropping it brings.
    pub(super) weight: u64,
    entries: Vec<Entry>,
    /// The entries that are in the sidecar already.
    listed: usize,
}

impl Active {
    /// A new, empty segment.
    pub(super) fn create(directory: &Path, number: u32) -> io::Result<Self> {
        let header = SegmentHeader {
            number,
            salt: Salt::random(),
        };
        let path = path(directory, number);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)?;
        let create = || {
            file.write_all_at(&header.encode(), 0)?;
            File::open(&path)
        };
        let reading = create().inspect_err(|_| {
            let _ = fs::remove_file(&path);
        })?;
        let length = SEGMENT_HEADER;
        let charged = Segment::cost(u64::from(length), 0);
        Ok(Self {
            segment: Segment::new(header, reading, charged).into(),
            file,
            length,
            weight: u64::from(length),
            entries: Vec::new(),
            listed: 0,
        })
    }

    /// A segment that an earlier run left off at that length, with so many bytes in large bodies.
    pub(super) fn resume(
        directory: &Path,
        segment: Arc<Segment>,
        length: u32,
        bodies: u64,
        entries: Vec<Entry>,
    ) -> io::Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .open(path(directory, segment.number))?;
        Ok(Self {
            segment,
            file,
            length,
            weight: u64::from(length) + bodies,
            entries,
            listed: 0,
        })
    }

    /// From here on its disk is full.
    #[cfg(all(test, target_os = "linux"))]
    pub(super) fn fill_disk(&mut self) {
        let full = OpenOptions::new().write(true).open("/dev/full");
        self.file = full.expect("every Linux has it");
    }

    /// Bytes of memory for what will be the sidecar.
    pub(super) fn memory(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
    }

    /// Appends a record. The bytes it adds to the account have to be charged by the caller.
    ///
    /// # Errors
    /// It is not there, and the segment ends where it ended before; or it does not, and `clean` is false: nothing may be appended to
    /// it any more.
    pub(super) fn append(&mut self, label: &Label, parts: &[&[u8]]) -> Result<Location, Torn> {
        let length = u32::try_from(label.record_length()).ok();
        let Some((length, end)) =
            length.and_then(|length| Some((length, self.length.checked_add(length)?)))
        else {
            let error = io::ErrorKind::FileTooLarge.into();
            return Err(Torn { error, clean: true });
        };
        let bytes = label.encode(&self.segment.salt);
        let mut slices: Vec<_> = std::iter::once(&bytes[..])
            .chain(parts.iter().copied())
            .map(IoSlice::new)
            .collect();
        if let Err(error) = write_all_at(&self.file, &mut slices, self.length.into()) {
            let clean = self.file.set_len(self.length.into()).is_ok();
            return Err(Torn { error, clean });
        }
        let location = Location {
            segment: self.segment.number,
            offset: self.length,
            length,
        };
        self.entries.push(Entry {
            key: IndexKey::of(&label.key),
            offset: self.length,
            length,
            kind: label.kind,
        });
        self.length = end;
        self.weight += label.weight();
        self.segment
            .charged
            .fetch_add(Self::cost(label), Ordering::Relaxed);
        Ok(location)
    }

    /// What a record adds to the account.
    pub(super) fn cost(label: &Label) -> u64 {
        label.record_length() + ENTRY as u64
    }

    /// Writes the sidecar, unless it has been.
    pub(super) fn list(&mut self, directory: &Path) -> io::Result<()> {
        if self.listed == self.entries.len() {
            return Ok(());
        }
        let Segment { number, salt, .. } = &*self.segment;
        let path = sidecar_path(directory, *number);
        Sidecar::write(&path, *number, salt, self.length, &self.entries).inspect_err(|_| {
            // A torn one would only be read in vain.
            let _ = fs::remove_file(&path);
        })?;
        self.listed = self.entries.len();
        Ok(())
    }
}

/// Why a record could not be appended.
#[derive(Debug)]
pub(super) struct Torn {
    pub(super) error: io::Error,
    /// The segment ends where it ended before.
    pub(super) clean: bool,
}

fn write_all_at(file: &File, mut slices: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match rustix::io::pwritev(file, slices, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                offset += written as u64;
                IoSlice::advance_slices(&mut slices, written);
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
