//! The few operations on a file that appending needs, so that tests can make each of them fail.
//!
//! [`DiskFile`] is the real one: opened with `O_APPEND`, never through a symlink, locked shared for as long as it
//! is open. The lock tells a compressor that the file is in use; it does not keep a second writer away.

use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;

use crate::{Step, StoreError};

/// An append-only file.
pub(crate) trait LogFile: Send + fmt::Debug {
    /// One write(2) at the end; returns how many bytes were taken.
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Errno>;
    /// fdatasync(2), and once after the file was created fsync(2) of the directories that lead to it.
    fn sync(&mut self) -> Result<(), Errno>;
    /// Cuts the file to `len_bytes`.
    fn truncate(&mut self, len_bytes: u64) -> Result<(), Errno>;
    /// Its length in bytes, with what others appended.
    fn len(&mut self) -> Result<u64, Errno>;
}

/// Whether others can see that a rollout is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Locking {
    /// `flock(LOCK_SH)` is held on the file.
    Shared,
    /// The file system knows no locks (ENOLCK, EOPNOTSUPP, ENOSYS). Nothing may compress such a store.
    Unsupported,
}

/// A rollout on a disk.
#[derive(Debug)]
pub(crate) struct DiskFile {
    file: File,
    locking: Locking,
    unsynced_directories: Vec<PathBuf>,
}

// More replacements than this in a row is no race with a compressor, which swaps a file once.
const MAX_REOPENS: usize = 8;

impl DiskFile {
    /// Creates the file, 0600, and locks it. The first sync also syncs `unsynced_directories`.
    pub(crate) fn create(path: &Path, unsynced_directories: Vec<PathBuf>) -> Result<Self, StoreError> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | APPEND;
        let failed = |errno| StoreError::new(Step::Create, path, errno);
        let mode = Mode::RUSR | Mode::WUSR;
        let file = File::from(open(path, flags, mode).map_err(failed)?);
        // The caller's umask may have taken our own rights away.
        rustix::fs::fchmod(&file, mode).map_err(failed)?;
        let locking = lock(&file, path, Sharing::Shared).inspect_err(|_| {
            // Ours alone and empty; should it stay, readers see a rollout of nothing.
            let _ = std::fs::remove_file(path);
        })?;
        Ok(Self { file, locking, unsynced_directories })
    }

    /// Opens a file that exists and locks it.
    ///
    /// With [`Sharing::Alone`] nobody else may have it open; [`DiskFile::share`] lets others in again.
    ///
    /// A compressor may swap the file between open and lock; so after the lock the path has to lead to the same
    /// inode still, else everything starts again.
    pub(crate) fn open(path: &Path, sharing: Sharing) -> Result<Self, StoreError> {
        for _ in 0..MAX_REOPENS {
            let flags = OFlags::RDWR | OFlags::NONBLOCK | APPEND;
            let file =
                open(path, flags, Mode::empty()).map_err(|errno| StoreError::new(Step::Open, path, errno))?;
            let file = File::from(file);
            let opened =
                file.metadata().map_err(|error| StoreError::new(Step::Open, path, errno_of(&error)))?;
            if !opened.is_file() {
                return Err(StoreError::NotAFile { path: path.to_owned() });
            }
            let locking = lock(&file, path, sharing)?;
            let current = path.symlink_metadata();
            if current.is_ok_and(|now| (now.dev(), now.ino()) == (opened.dev(), opened.ino())) {
                return Ok(Self { file, locking, unsynced_directories: Vec::new() });
            }
        }
        Err(StoreError::Replaced { path: path.to_owned() })
    }

    /// Lets others open it too, after [`Sharing::Alone`].
    pub(crate) fn share(&mut self, path: &Path) -> Result<(), StoreError> {
        self.locking = lock(&self.file, path, Sharing::Shared)?;
        Ok(())
    }

    pub(crate) fn locking(&self) -> Locking {
        self.locking
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

const APPEND: OFlags = OFlags::APPEND.union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// Who else may have a rollout open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// Anybody but a compressor.
    Shared,
    /// Nobody.
    Alone,
}

fn lock(file: &File, path: &Path, sharing: Sharing) -> Result<Locking, StoreError> {
    let operation = match sharing {
        Sharing::Shared => FlockOperation::NonBlockingLockShared,
        Sharing::Alone => FlockOperation::NonBlockingLockExclusive,
    };
    match flock(file, operation) {
        Ok(()) => Ok(Locking::Shared),
        Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(Locking::Unsupported),
        Err(Errno::WOULDBLOCK) => Err(StoreError::Locked { path: path.to_owned() }),
        Err(errno) => Err(StoreError::new(Step::Lock, path, errno)),
    }
}

impl LogFile for DiskFile {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        self.file.write(bytes).map_err(|error| errno_of(&error))
    }

    fn sync(&mut self) -> Result<(), Errno> {
        self.file.sync_data().map_err(|error| errno_of(&error))?;
        while let Some(directory) = self.unsynced_directories.last() {
            sync_directory(directory)?;
            self.unsynced_directories.pop();
        }
        Ok(())
    }

    fn truncate(&mut self, len_bytes: u64) -> Result<(), Errno> {
        self.file.set_len(len_bytes).map_err(|error| errno_of(&error))
    }

    fn len(&mut self) -> Result<u64, Errno> {
        Ok(self.file.metadata().map_err(|error| errno_of(&error))?.len())
    }
}

/// Writes the entries of a directory to the disk, where its file system can.
pub(crate) fn sync_directory(directory: &Path) -> Result<(), Errno> {
    match File::open(directory).and_then(|opened| opened.sync_all()).map_err(|error| errno_of(&error)) {
        // fsync(2): EINVAL means that the file system does not support it for directories.
        Err(Errno::INVAL) => Ok(()),
        other => other,
    }
}

/// The error number, EIO where the standard library made the error up itself.
pub(crate) fn errno_of(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn exclusive_lock(path: &Path) -> Result<File, Errno> {
        let other = File::open(path).unwrap();
        flock(&other, FlockOperation::NonBlockingLockExclusive).map(|()| other)
    }

    #[test]
    fn a_new_file_is_private_and_never_replaces_another() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("r.jsonl");
        let _file = DiskFile::create(&path, Vec::new()).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        let again = DiskFile::create(&path, Vec::new()).unwrap_err();
        assert_eq!(again, StoreError::new(Step::Create, &path, Errno::EXIST));
    }

    #[test]
    fn a_compressor_sees_a_file_in_use_until_it_is_dropped() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("r.jsonl");
        let file = DiskFile::create(&path, Vec::new()).unwrap();
        let second = DiskFile::open(&path, Sharing::Shared).unwrap();
        drop(file);
        assert_eq!(exclusive_lock(&path).unwrap_err(), Errno::WOULDBLOCK);
        drop(second);
        exclusive_lock(&path).unwrap();
    }

    #[test]
    fn a_file_that_is_being_swapped_is_not_opened() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("r.jsonl");
        drop(DiskFile::create(&path, Vec::new()).unwrap());
        let _swap = exclusive_lock(&path).unwrap();
        assert_eq!(DiskFile::open(&path, Sharing::Shared).unwrap_err(), StoreError::Locked { path });
    }

    #[test]
    fn a_file_that_somebody_has_open_is_not_opened_alone_and_is_shared_afterwards() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("r.jsonl");
        let first = DiskFile::create(&path, Vec::new()).unwrap();
        let locked = StoreError::Locked { path: path.clone() };
        assert_eq!(DiskFile::open(&path, Sharing::Alone).unwrap_err(), locked);
        drop(first);
        let mut second = DiskFile::open(&path, Sharing::Alone).unwrap();
        assert_eq!(DiskFile::open(&path, Sharing::Shared).unwrap_err(), locked);
        second.share(&path).unwrap();
        DiskFile::open(&path, Sharing::Shared).unwrap();
    }

    #[test]
    fn only_a_regular_file_at_the_very_path_is_opened() {
        let home = tempfile::tempdir().unwrap();
        let (file, link) = (home.path().join("r.jsonl"), home.path().join("link.jsonl"));
        drop(DiskFile::create(&file, Vec::new()).unwrap());
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(
            DiskFile::open(&link, Sharing::Shared).unwrap_err(),
            StoreError::new(Step::Open, &link, Errno::LOOP)
        );
        let missing = home.path().join("missing.jsonl");
        assert_eq!(
            DiskFile::open(&missing, Sharing::Shared).unwrap_err(),
            StoreError::new(Step::Open, &missing, Errno::NOENT)
        );
        assert!(!missing.exists());
        let null = Path::new("/dev/null");
        assert_eq!(
            DiskFile::open(null, Sharing::Shared).unwrap_err(),
            StoreError::NotAFile { path: null.to_owned() }
        );
    }

    #[test]
    fn the_first_sync_writes_the_new_directory_entries_once() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("r.jsonl");
        let mut file = DiskFile::create(&path, vec![home.path().to_owned()]).unwrap();
        file.sync().unwrap();
        assert_eq!(file.unsynced_directories, Vec::<PathBuf>::new());
    }
}
