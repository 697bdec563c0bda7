//! The folder of a store, which belongs to one process at a time.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file that says that what lies beside it is of no use.
const DISCARD: &str = "discard";

/// A folder and the right to write there, for as long as this is held.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// The system lets go of the lock with the process, however that ends.
    lock: File,
}

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// Another process has it: each needs one of its own.
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// It is not there and cannot be made, or nothing can be written there.
    #[error("{}: {source}", path.display())]
    Unusable {
        /// The folder, or the lock file in it.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Folder {
    /// Makes the folder if it is not there, and takes it.
    ///
    /// # Errors
    /// It is taken, or of no use.
    pub(crate) fn take(path: &Path) -> Result<Self, FolderError> {
        match Self::take_or_find(path)? {
            (folder, true) => Ok(folder),
            (_, false) => Err(FolderError::InUse(path.to_path_buf())),
        }
    }

    /// The same, and false where it is taken: then it is this one's after [`Folder::wait`].
    ///
    /// # Errors
    /// It is of no use.
    pub(crate) fn take_or_find(path: &Path) -> Result<(Self, bool), FolderError> {
        let unusable = |path: &Path| {
            let path = path.to_path_buf();
            |source| FolderError::Unusable { path, source }
        };
        std::fs::create_dir_all(path).map_err(unusable(path))?;
        let lock_path = path.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(unusable(&lock_path))?;
        let is_taken = match lock.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Error(source)) => return Err(unusable(&lock_path)(source)),
        };
        let path = path.to_path_buf();
        Ok((Self { path, lock }, is_taken))
    }

    /// Waits until the other process has let go of it.
    ///
    /// # Errors
    /// The system does not say when.
    pub(crate) fn wait(&self) -> io::Result<()> {
        self.lock.lock()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves word that what lies here is of no use: [`Folder::discard_if_told`].
    pub(crate) fn discard_at_next_start(self: &Arc<Self>) -> impl Fn() + Send + Sync + 'static {
        let folder = Arc::clone(self);
        move || {
            if let Err(error) = File::create(folder.path.join(DISCARD)) {
                tracing::error!(%error, "what the store holds is out of date, and that cannot be written down: delete its folder");
            }
        }
    }

    /// Removes these folders where the last process left word that they are of no use.
    ///
    /// # Errors
    /// They cannot be removed, or nobody can tell whether they have to be; and they must not be used.
    pub(crate) fn discard_if_told(path: &Path, folders: &[&str]) -> io::Result<()> {
        let word = path.join(DISCARD);
        if !word.try_exists()? {
            return Ok(());
        }
        for folder in folders {
            Self::discard(path, folder)?;
        }
        std::fs::remove_file(word)
    }

    /// Removes a folder, if it is there.
    ///
    /// # Errors
    /// It cannot be removed.
    pub(crate) fn discard(path: &Path, folder: &str) -> io::Result<()> {
        match std::fs::remove_dir_all(path.join(folder)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_belongs_to_one_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let first = Folder::take(&path).unwrap();
        assert!(matches!(Folder::take(&path), Err(FolderError::InUse(_))));
        drop(first);
        assert_eq!(Folder::take(&path).unwrap().path(), path);
    }

    #[test]
    fn who_waits_for_a_folder_has_it_when_the_other_lets_go() {
        let parent = tempfile::tempdir().unwrap();
        let first = Folder::take(parent.path()).unwrap();
        let (second, is_taken) = Folder::take_or_find(parent.path()).unwrap();
        assert!(!is_taken);
        let waits = std::thread::spawn(move || second.wait().map(|()| second));
        drop(first);
        let second = waits.join().unwrap().unwrap();
        assert!(Folder::take(parent.path()).is_err());
        drop(second);
        Folder::take(parent.path()).unwrap();
    }

    #[test]
    fn what_was_given_up_is_gone_at_the_next_start_and_nothing_else_is() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Arc::new(Folder::take(parent.path()).unwrap());
        for name in ["file", "other"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let exists = |name: &str| folder.path().join(name).exists();
        Folder::discard_if_told(folder.path(), &["file", "sled"]).unwrap();
        assert!(exists("file"));
        folder.discard_at_next_start()();
        Folder::discard_if_told(folder.path(), &["file", "sled"]).unwrap();
        assert!(!exists("file") && exists("other") && !exists(DISCARD));
    }

    #[test]
    fn where_it_cannot_be_told_whether_it_was_given_up_it_is_not_used() {
        let parent = tempfile::tempdir().unwrap();
        // A link to itself can be followed by nobody, root included.
        let word = parent.path().join(DISCARD);
        std::os::unix::fs::symlink(&word, &word).unwrap();
        Folder::discard_if_told(parent.path(), &["file"]).unwrap_err();
    }

    #[test]
    fn where_nothing_can_be_made_the_path_is_named() {
        let error = Folder::take(Path::new("/dev/null/cache")).unwrap_err();
        assert!(
            error.to_string().starts_with("/dev/null/cache: "),
            "{error}"
        );
    }
}
