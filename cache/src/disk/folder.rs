//! The folder of a store, which belongs to one process at a time.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// A folder and the right to write there, for as long as this is held.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// The system lets go of the lock with the process, however that ends.
    _lock: File,
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
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_path_buf(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(FolderError::InUse(path.to_path_buf())),
            Err(TryLockError::Error(source)) => Err(unusable(&lock_path)(source)),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
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
    fn where_nothing_can_be_made_the_path_is_named() {
        let error = Folder::take(Path::new("/dev/null/cache")).unwrap_err();
        assert!(
            error.to_string().starts_with("/dev/null/cache: "),
            "{error}"
        );
    }
}
