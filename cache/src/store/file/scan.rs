//! Finding the records of a segment without a list of them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::index::IndexKey;
use super::layout::{LABEL, LABEL_MAGIC, Label, Salt};
use super::sidecar::Entry;

/// What is read at once.
const WINDOW: usize = 256 * 1024;

/// What a scan found.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    /// The records, in order; after damage only those behind it.
    pub(super) entries: Vec<Entry>,
    /// Where the last of them ends.
    pub(super) end: u64,
    /// Stretches in which there were records, and nobody knows whose.
    pub(super) lost: u64,
}

/// Looks for records from `start` to `length`.
pub(super) fn scan(file: &File, salt: &Salt, start: u64, length: u64) -> Scanned {
    let mut window = Window {
        file,
        length,
        at: 0,
        bytes: Vec::new(),
    };
    let mut scanned = Scanned {
        end: start,
        ..Scanned::default()
    };
    // A process that was killed leaves a beginning of a record, which is less than a label, or a good label with too little behind
    // it; and a loss of power leaves zeros. Anything else was damaged later.
    while LABEL as u64 <= length - scanned.end {
        let label = window.label(scanned.end, salt);
        match label {
            Some(label) => {
                let end = scanned.end.saturating_add(label.record_length());
                if length < end {
                    break;
                }
                scanned.push(&label);
            }
            None if window.is_zero_from(scanned.end) => break,
            None => {
                scanned.lost += 1;
                scanned.entries.clear();
                let Some(next) = window.find_label(scanned.end + 1, salt) else {
                    break;
                };
                scanned.end = next;
            }
        }
    }
    scanned
}

impl Scanned {
    fn push(&mut self, label: &Label) {
        // Segments are shorter than 4 GiB, and the record was found to lie within this one.
        let (Ok(offset), Ok(length)) = (
            u32::try_from(self.end),
            u32::try_from(label.record_length()),
        ) else {
            return;
        };
        self.entries.push(Entry {
            key: IndexKey::of(&label.key),
            offset,
            length,
            kind: label.kind,
        });
        self.end += u64::from(length);
    }
}

/// A piece of a file, in memory.
struct Window<'a> {
    file: &'a File,
    length: u64,
    at: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// What follows `at`: at least `wanted` bytes, or up to the end of the file. Empty where it cannot be read.
    fn from(&mut self, at: u64, wanted: usize) -> &[u8] {
        let held = self.at + self.bytes.len() as u64;
        let wanted =
            usize::try_from(self.length.saturating_sub(at)).map_or(wanted, |left| left.min(wanted));
        if at < self.at || held < at + wanted as u64 {
            self.at = at;
            self.bytes.resize(WINDOW, 0);
            let read = read_at(self.file, &mut self.bytes, at).unwrap_or(0);
            self.bytes.truncate(read);
        }
        let skipped = usize::try_from(at - self.at).unwrap_or(usize::MAX);
        self.bytes.get(skipped..).unwrap_or_default()
    }

    fn label(&mut self, at: u64, salt: &Salt) -> Option<Label> {
        Label::decode(self.from(at, LABEL).first_chunk()?, salt)
    }

    /// The next place from `at` on where there is a label whose record fits.
    fn find_label(&mut self, mut at: u64, salt: &Salt) -> Option<u64> {
        loop {
            let length = self.length;
            let bytes = self.from(at, LABEL);
            if bytes.len() < LABEL {
                return None;
            }
            let places = bytes.windows(LABEL).enumerate();
            for (skipped, place) in places {
                if place[..3] != LABEL_MAGIC {
                    continue;
                }
                let label = place
                    .first_chunk()
                    .and_then(|bytes| Label::decode(bytes, salt));
                let at = at + skipped as u64;
                if label.is_some_and(|label| label.record_length() <= length - at) {
                    return Some(at);
                }
            }
            at += (bytes.len() - LABEL + 1) as u64;
        }
    }

    fn is_zero_from(&mut self, mut at: u64) -> bool {
        while at < self.length {
            let bytes = self.from(at, 1);
            if bytes.is_empty() || bytes.iter().any(|&byte| byte != 0) {
                return false;
            }
            at += bytes.len() as u64;
        }
        true
    }
}

/// Reads until the buffer is full or the file ends.
fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
