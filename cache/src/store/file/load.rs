//! What a segment of an earlier run has, by its sidecar and by itself.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::counters::FileCounters;
use super::layout::{Kind, SEGMENT_HEADER, Salt, SegmentHeader};
use super::limits::MAX_SEGMENT_LENGTH;
use super::scan::{Scanned, scan};
use super::segment;
use super::sidecar::{Entry, Sidecar, write_anew};

/// What a segment turned out to be.
pub(super) enum Load {
    Some(Loaded),
    /// It was created, and then the process was killed, or the power was lost before anything reached the disk.
    Unborn,
    /// Nothing of it can be believed.
    Damaged,
}

/// What is known of a segment.
pub(super) struct Loaded {
    pub(super) file: File,
    pub(super) salt: Salt,
    /// Where it ends, or ended when its sidecar was written.
    pub(super) length: u32,
    pub(super) entries: Vec<Entry>,
    /// Records are missing of which nobody knows whose they were; the entries are those after them.
    pub(super) unknown: bool,
    /// More records may be appended.
    pub(super) open_end: bool,
    /// Behind the last record there is what has to be cut off before anything is appended.
    pub(super) trailing: bool,
    /// Its sidecar does not say what is said here.
    pub(super) unlisted: bool,
}

/// Reads what is known of a segment. What it has of damage stays there, for the next start to find, if this one is killed before it
/// has drawn the consequence.
///
/// # Errors
/// It could not be opened, and may well be good.
pub(super) fn load(directory: &Path, number: u32, counters: &FileCounters) -> io::Result<Load> {
    let path = segment::path(directory, number);
    let sidecar = Sidecar::read(&segment::sidecar_path(directory, number), number);
    let mut opened = open_file(&path)?;
    if let (None, Some(sidecar)) = (&opened, &sidecar) {
        // An empty segment with the list of what was in it: what those records replaced must not come back.
        let salt = sidecar.salt;
        let header = SegmentHeader { number, salt };
        if write_anew(&path, &header.encode()).is_ok() {
            opened = open_file(&path)?;
        }
    }
    let Some((file, length)) = opened else {
        return Ok(Load::Damaged);
    };
    let bytes = read_header(&file);
    let header = SegmentHeader::decode(&bytes, number);
    // One of another segment that had this number once?
    let sidecar = sidecar.filter(|sidecar| header.is_none_or(|header| header.salt == sidecar.salt));
    Ok(match (header, sidecar) {
        (None, None) if bytes == [0; _] => Load::Unborn,
        (None, None) => Load::Damaged,
        (Some(header), None) => {
            let sidecar = Sidecar {
                salt: header.salt,
                covered: SEGMENT_HEADER,
                entries: Vec::new(),
            };
            Load::Some(complete(file, length, sidecar, counters))
        }
        (header, Some(sidecar)) => {
            let mut loaded = complete(file, length, sidecar, counters);
            if header.is_none() {
                counters.damaged.add(1);
                loaded.open_end = false;
            }
            Load::Some(loaded)
        }
    })
}

/// What the sidecar says, so far as the file has it, and what came after it.
fn complete(file: File, length: u64, sidecar: Sidecar, counters: &FileCounters) -> Loaded {
    let Sidecar {
        salt,
        covered,
        mut entries,
    } = sidecar;
    let mut missing = 0;
    for entry in &mut entries {
        let end = u64::from(entry.offset) + u64::from(entry.length);
        if length < end && entry.kind != Kind::Removal {
            entry.kind = Kind::Removal;
            missing += 1;
        }
    }
    let Scanned {
        entries: scanned,
        end,
        lost,
    } = scan(&file, &salt, length.min(covered.into()), length);
    if 0 < lost {
        entries.clear();
    }
    counters.damaged.add(missing + lost);
    let unlisted = 0 < missing + lost || !scanned.is_empty();
    entries.extend(scanned);
    Loaded {
        file,
        salt,
        // A segment is shorter than 4 GiB.
        length: covered.max(u32::try_from(end).unwrap_or(u32::MAX)),
        entries,
        unknown: 0 < lost,
        open_end: u64::from(covered) <= length,
        trailing: end < length,
        unlisted,
    }
}

/// A file, and how much of it may be a segment. `None`: there is none.
fn open_file(path: &Path) -> io::Result<Option<(File, u64)>> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Ok(metadata) if !metadata.is_file() => return Ok(None),
        Ok(_) | Err(_) => {}
    }
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    Ok(Some((file, length.min(MAX_SEGMENT_LENGTH))))
}

/// Zeros, where the file is too short to have one.
fn read_header(file: &File) -> [u8; SEGMENT_HEADER as usize] {
    let mut bytes = [0; _];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => bytes,
        Err(_) => [0; _],
    }
}
