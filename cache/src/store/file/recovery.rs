//! What is in a directory when a store is opened.
//!
//! A process that was killed leaves a beginning of what it was writing, at the end of the newest segment: it is cut off, and nothing
//! else was lost. Everything beyond that is damage. It is counted, and costs what was damaged; and where a label is damaged, so that
//! nobody knows whose record it was, also everything older: it may have replaced or removed any of that.
//!
//! A start may be killed itself. So whatever is older is deleted first, from the oldest on, and only then what shows the damage.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::bodies::{Bodies, Body};
use super::counters::FileCounters;
use super::index::{Found, Index, IndexKey, Location};
use super::layout::{Kind, SegmentHeader};
use super::limits::Limits;
use super::load::{Load, load};
use super::log::{Log, Writer};
use super::segment::{self, Active, Segment};
use super::sidecar::{Entry, Sidecar};

/// A store whose last segment has this number, or a greater one, begins anew with the next start. Half of all there are, so that there
/// are enough until then: by writing a store comes here after 128 TiB at the earliest, but a file that is not ours may have any name.
const LAST: u32 = u32::MAX / 2;

/// Opens what a directory holds.
///
/// # Errors
/// It cannot be listed, or a file in it cannot be opened, though it may well be good.
pub(super) fn open(directory: &Path, limits: Limits) -> io::Result<Log> {
    let listing = Listing::of(directory)?;
    let bodies = Arc::new(Bodies::new(directory));
    let mut recovery = Recovery {
        directory,
        limits,
        index: Index::new(),
        segments: BTreeMap::new(),
        files: listing
            .bodies
            .into_iter()
            .map(|(file, length)| (file, bodies.found(file, length)))
            .collect(),
        bodies,
        counters: FileCounters::default(),
        bodiless: HashSet::new(),
        last: None,
        previous: None,
    };
    for number in listing.segments {
        recovery.add(number)?;
    }
    Ok(recovery.finish())
}

/// The files of a store. Other names are nobody's business here.
struct Listing {
    segments: BTreeSet<u32>,
    bodies: HashMap<u64, u64>,
}

impl Listing {
    fn of(directory: &Path) -> io::Result<Self> {
        let mut listing = Self {
            segments: BTreeSet::new(),
            bodies: HashMap::new(),
        };
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if let Some(number) = segment::number_of(name) {
                listing.segments.insert(number);
            } else if let Some(file) = Bodies::number_of(name)
                && let Ok(metadata) = entry.metadata()
                && metadata.is_file()
            {
                listing.bodies.insert(file, metadata.len());
            }
        }
        Ok(listing)
    }
}

struct Recovery<'a> {
    directory: &'a Path,
    limits: Limits,
    index: Index,
    segments: BTreeMap<u32, Arc<Segment>>,
    /// All large bodies that are there; those that no record takes go at the end.
    files: HashMap<u64, Arc<Body>>,
    bodies: Arc<Bodies>,
    counters: FileCounters,
    /// Records whose body is not there. That is damage only if nothing replaces or removes them further on.
    bodiless: HashSet<IndexKey>,
    /// The newest segment, if more may be appended to it.
    last: Option<Active>,
    /// The number of the segment before.
    previous: Option<u32>,
}

impl Recovery<'_> {
    fn add(&mut self, number: u32) -> io::Result<()> {
        self.last = None;
        let follows = self.previous.is_none_or(|previous| previous + 1 == number);
        let loaded = match load(self.directory, number, &self.counters)? {
            Load::Some(loaded) => loaded,
            Load::Damaged => {
                self.counters.damaged.add(1);
                // A name out of the row never was a segment; or its neighbours are missing too, and the next one tells.
                if follows {
                    self.previous = Some(number);
                    self.forget_older();
                }
                // Where it cannot be deleted its number stays taken.
                let _ = segment::delete(self.directory, number);
                return Ok(());
            }
            Load::Unborn => {
                // Its number is the next one's, or there would be a gap in the row.
                if segment::delete(self.directory, number).is_err() && follows {
                    self.previous = Some(number);
                }
                return Ok(());
            }
        };
        if !follows {
            self.counters.damaged.add(1);
        }
        if !follows || loaded.unknown {
            self.forget_older();
        }
        self.previous = Some(number);
        let ends =
            !loaded.trailing || segment::truncate(self.directory, number, loaded.length).is_ok();
        if loaded.unlisted {
            let path = segment::sidecar_path(self.directory, number);
            // Without it the next start scans again.
            let _ = Sidecar::write(&path, number, &loaded.salt, loaded.length, &loaded.entries);
        }
        let charged = Segment::cost(loaded.length.into(), loaded.entries.len());
        self.bodies.charge(charged);
        let header = SegmentHeader {
            number,
            salt: loaded.salt,
        };
        let segment = Arc::new(Segment::new(header, loaded.file, charged));
        self.segments.insert(number, Arc::clone(&segment));
        let entries = &loaded.entries;
        let bodies = entries
            .iter()
            .map(|entry| self.apply(&segment, entry))
            .sum();
        if loaded.open_end && ends {
            let active = Active::resume(
                self.directory,
                segment,
                loaded.length,
                bodies,
                loaded.entries,
            );
            self.last = active.ok();
        }
        Ok(())
    }

    /// Something is missing that may have replaced or removed anything before it.
    fn forget_older(&mut self) {
        self.index.clear();
        self.bodiless.clear();
        for (number, segment) in std::mem::take(&mut self.segments) {
            // What cannot be deleted is found, and forgotten, again.
            let _ = segment::delete(self.directory, number);
            self.bodies.release(segment.charged());
        }
    }

    /// Takes a record into the index. The bytes of the large body that it names.
    fn apply(&mut self, segment: &Segment, entry: &Entry) -> u64 {
        let location = Location {
            segment: segment.number,
            offset: entry.offset,
            length: entry.length,
        };
        self.bodiless.remove(&entry.key);
        let body = match entry.kind {
            Kind::Removal => {
                self.index.remove(&entry.key);
                return 0;
            }
            Kind::Inline => None,
            Kind::Apart => match self.body(segment, entry) {
                Some(body) => Some(body),
                None => {
                    self.index.remove(&entry.key);
                    self.bodiless.insert(entry.key);
                    return 0;
                }
            },
        };
        let length = body.as_ref().map_or(0, |body| body.length());
        self.index.insert(entry.key, Found { location, body });
        length
    }

    /// The body of a large record.
    fn body(&self, segment: &Segment, entry: &Entry) -> Option<Arc<Body>> {
        let label = segment.read_label(entry.offset).ok()?;
        let body = self.files.get(&label.file)?;
        let matches = label.kind == Kind::Apart
            && IndexKey::of(&label.key) == entry.key
            && label.record_length() == u64::from(entry.length)
            && label.body == body.length();
        matches.then(|| Arc::clone(body))
    }

    fn finish(mut self) -> Log {
        let next = match self.previous {
            None => 1,
            Some(previous) if previous < LAST => previous + 1,
            Some(_) => {
                self.last = None;
                self.forget_older();
                1
            }
        };
        self.files.clear();
        self.counters.orphans_removed.add(self.bodies.bury());
        self.counters.damaged.add(self.bodiless.len() as u64);
        self.counters.recovered.add(self.index.len());
        let writer = Writer {
            active: self.last,
            next: Some(next),
            since_fold: self.limits.segment,
        };
        Log::new(
            self.directory.to_owned(),
            self.limits,
            self.bodies,
            self.counters,
            self.index,
            self.segments,
            writer,
        )
    }
}
