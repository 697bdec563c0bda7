//! Large bodies: files of their own.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::layout::random_number;

/// What every file is taken to need beyond its length: the rest of its last page.
pub(super) const FILE_OVERHEAD: u64 = 4096;

/// All large bodies, and the account of what the store has on the disk.
#[derive(Debug)]
pub(super) struct Bodies {
    directory: PathBuf,
    used: AtomicU64,
    next: AtomicU64,
    /// Files that nobody needs any more. They are not deleted by whoever had them last, who may be a thread that must not wait.
    doomed: Mutex<Vec<Doomed>>,
}

#[derive(Debug)]
struct Doomed {
    file: u64,
    charged: u64,
}

/// A large body, which lives as long as anybody holds this.
#[derive(Debug)]
pub(super) struct Body {
    file: u64,
    /// The bytes that are on the account for it.
    charged: AtomicU64,
    /// The open file is shared by all who read it, and closed when nobody does.
    opened: Mutex<Weak<File>>,
    bodies: Arc<Bodies>,
}

impl Bodies {
    pub(super) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            used: AtomicU64::new(0),
            // Never a number of an earlier run, whose records must not find a body that is not theirs.
            next: AtomicU64::new(random_number()),
            doomed: Mutex::default(),
        }
    }

    /// The bytes on the disk, and those that are about to be.
    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn charge(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn release(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn path(&self, file: u64) -> PathBuf {
        self.directory.join(format!("body-{file:016x}"))
    }

    /// The number of the body whose file has this name.
    pub(super) fn number_of(name: &str) -> Option<u64> {
        let digits = name.strip_prefix("body-")?;
        let number = u64::from_str_radix(digits, 16).ok()?;
        // Signs and capitals would do as well.
        (digits == format!("{number:016x}")).then_some(number)
    }

    /// A body that was found on the disk.
    pub(super) fn found(self: &Arc<Self>, file: u64, length: u64) -> Arc<Body> {
        self.charge(FILE_OVERHEAD + length);
        Arc::new(Body {
            file,
            charged: AtomicU64::new(FILE_OVERHEAD + length),
            opened: Mutex::default(),
            bodies: Arc::clone(self),
        })
    }

    /// An empty one, for which [`FILE_OVERHEAD`] is charged.
    pub(super) fn create(self: &Arc<Self>) -> io::Result<(Arc<Body>, Arc<File>)> {
        let file = self.next.fetch_add(1, Ordering::Relaxed);
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(self.path(file))?;
        let opened = Arc::new(opened);
        let body = self.found(file, 0);
        *body.opened.lock() = Arc::downgrade(&opened);
        Ok((body, opened))
    }

    /// Deletes what nobody needs any more, and says how many that were. What cannot be deleted stays on the account.
    pub(super) fn bury(&self) -> u64 {
        let doomed = std::mem::take(&mut *self.doomed.lock());
        let mut buried = 0;
        for Doomed { file, charged } in doomed {
            match fs::remove_file(self.path(file)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    self.doomed.lock().push(Doomed { file, charged });
                }
                Ok(()) | Err(_) => {
                    self.release(charged);
                    buried += 1;
                }
            }
        }
        buried
    }
}

impl Body {
    /// The number of its file.
    pub(super) fn file(&self) -> u64 {
        self.file
    }

    /// More bytes are about to be written.
    pub(super) fn charge(&self, bytes: u64) {
        self.bodies.charge(bytes);
        self.charged.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The bytes on the account for it.
    pub(super) fn charged(&self) -> u64 {
        self.charged.load(Ordering::Relaxed)
    }

    /// The length of a complete body.
    pub(super) fn length(&self) -> u64 {
        self.charged() - FILE_OVERHEAD
    }

    /// The file, if somebody has it open.
    pub(super) fn opened(&self) -> Option<Arc<File>> {
        self.opened.lock().upgrade()
    }

    /// The file.
    pub(super) fn open(&self) -> io::Result<Arc<File>> {
        if let Some(file) = self.opened() {
            return Ok(file);
        }
        // Not under the lock, which is taken by those who must not wait. Two files for a moment do no harm.
        let file = Arc::new(File::open(self.bodies.path(self.file))?);
        *self.opened.lock() = Arc::downgrade(&file);
        Ok(file)
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let doomed = Doomed {
            file: self.file,
            charged: *self.charged.get_mut(),
        };
        self.bodies.doomed.lock().push(doomed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_on_the_disk_and_on_the_account_while_anybody_holds_it() {
        let directory = tempfile::tempdir().unwrap();
        let bodies = Arc::new(Bodies::new(directory.path()));
        let (body, file) = bodies.create().unwrap();
        body.charge(10_000);
        assert_eq!(bodies.used(), 10_000 + FILE_OVERHEAD);
        let path = bodies.path(body.file());
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(Bodies::number_of(name), Some(body.file()));

        let other = Arc::clone(&body);
        drop((body, file));
        assert_eq!(bodies.bury(), 0);
        assert!(path.exists());
        assert!(other.opened().is_none(), "an idle body keeps no descriptor");

        drop(other);
        assert_eq!(bodies.bury(), 1);
        assert!(!path.exists());
        assert_eq!(bodies.used(), 0);
    }
}
