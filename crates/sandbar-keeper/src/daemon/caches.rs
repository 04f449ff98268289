//! Stores of the sandboxed trust domain: where what runs write into a cache is kept.
//!
//! One run at a time may write into a store; an overlay's upper layer that two mounts share is undefined
//! (overlayfs.rst). A run that finds a store taken reads it and forgets what it writes itself.

use std::os::fd::OwnedFd;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use sandbar_proto::{AbsPath, CacheMount, CacheWrites};
use sandbar_sandbox::{CacheAbove, CacheLayer};
use serde::{Deserialize, Serialize};

use crate::handover::{Adopted, Fd, HandoverError, Kept};

/// The layers of a run's caches, and the locks that make some of them its own.
#[derive(Debug, Default)]
pub(super) struct Leases {
    pub(super) layers: Vec<CacheLayer>,
    locks: Vec<OwnedFd>,
}

/// Why a store could not be made.
#[derive(Debug)]
pub(super) struct StoreError {
    pub(super) path: AbsPath,
    pub(super) errno: Errno,
}

impl Leases {
    /// Makes and takes the stores of `caches`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn take(caches: &[CacheMount]) -> Result<Self, StoreError> {
        let mut leases = Self::default();
        for cache in caches {
            leases.take_one(cache)?;
        }
        Ok(leases)
    }

    fn take_one(&mut self, cache: &CacheMount) -> Result<(), StoreError> {
        let fail = |errno| StoreError { path: cache.store.clone(), errno };
        let at = |name: &str| cache.store.join(name).map_err(|_| fail(Errno::INVAL));
        let (upper, work) = (at("upper")?, at("work")?);
        let above = match cache.writes {
            CacheWrites::Separate => {
                let directory = at("own")?;
                make_private(&directory).map_err(fail)?;
                CacheAbove::Separate { directory }
            }
            CacheWrites::Forgotten => forgotten(upper),
            CacheWrites::Kept => match self.own(&cache.store, &upper, &work).map_err(fail)? {
                Owned::Yes => CacheAbove::Kept { upper, work },
                Owned::No => forgotten(upper),
            },
        };
        self.layers.push(CacheLayer { target: cache.target.clone(), above });
        Ok(())
    }

    /// Makes a store if it is missing, and takes it if nobody has it.
    fn own(&mut self, store: &AbsPath, upper: &AbsPath, work: &AbsPath) -> Result<Owned, Errno> {
        let lock = match open_lock(store) {
            Err(Errno::NOENT) => {
                [store, upper, work].into_iter().try_for_each(make_private)?;
                open_lock(store)?
            }
            other => other?,
        };
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                self.locks.push(lock);
                Ok(Owned::Yes)
            }
            Err(Errno::AGAIN) => Ok(Owned::No),
            Err(errno) => Err(errno),
        }
    }
}

/// [`Leases`] on their way to the next program: what holds them, not what they were made for.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedLeases {
    locks: Vec<Fd>,
}

impl Leases {
    /// Hands the locks over.
    pub(super) fn save(&self, kept: &mut Kept) -> SavedLeases {
        let Self { layers: _, locks } = self;
        SavedLeases { locks: locks.iter().map(|lock| kept.keep(lock)).collect() }
    }

    /// Takes locks over.
    ///
    /// # Errors
    /// [`HandoverError`].
    pub(super) fn restore(saved: SavedLeases, adopted: &mut Adopted) -> Result<Self, HandoverError> {
        let SavedLeases { locks } = saved;
        let locks: Result<_, _> = locks.into_iter().map(|lock| adopted.give(lock)).collect();
        Ok(Self { layers: Vec::new(), locks: locks? })
    }
}

/// Whether a store is this run's.
enum Owned {
    Yes,
    No,
}

fn forgotten(upper: AbsPath) -> CacheAbove {
    let exists = rustix::fs::lstat(upper.as_path()).is_ok();
    CacheAbove::Forgotten { kept: exists.then_some(upper) }
}

fn open_lock(store: &AbsPath) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let path = store.as_path().join("lock");
    rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)
}

/// Makes a directory and the missing ones above it, each for its owner alone.
pub(super) fn make_private(path: &AbsPath) -> Result<(), Errno> {
    let mut missing = vec![path.clone()];
    while let Some(parent) = missing.last().and_then(AbsPath::parent) {
        if rustix::fs::lstat(parent.as_path()).is_ok() {
            break;
        }
        missing.push(parent);
    }
    for directory in missing.iter().rev() {
        match rustix::fs::mkdir(directory.as_path(), Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbar_proto::{FileIdentity, FileKind, PinnedPath};

    fn cache(root: &tempfile::TempDir, writes: CacheWrites) -> [CacheMount; 1] {
        let store = AbsPath::new(root.path().join("deep/npm").into_os_string()).unwrap();
        let identity = FileIdentity { dev: 1, ino: 1, kind: FileKind::Directory };
        let target = PinnedPath { path: AbsPath::root(), identity };
        [CacheMount { name: "npm".to_owned(), target, store, writes }]
    }

    fn above(leases: &Leases) -> &CacheAbove {
        &leases.layers[0].above
    }

    #[test]
    fn a_store_has_one_writer_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let caches = cache(&root, CacheWrites::Kept);
        let first = Leases::take(&caches).unwrap();
        let second = Leases::take(&caches).unwrap();
        assert!(matches!(above(&first), CacheAbove::Kept { .. }));
        assert!(matches!(above(&second), CacheAbove::Forgotten { kept: Some(_) }));
        drop(first);
        assert!(matches!(above(&Leases::take(&caches).unwrap()), CacheAbove::Kept { .. }));
    }

    #[test]
    fn a_run_that_keeps_nothing_makes_nothing() {
        let root = tempfile::tempdir().unwrap();
        let leases = Leases::take(&cache(&root, CacheWrites::Forgotten)).unwrap();
        assert_eq!(above(&leases), &CacheAbove::Forgotten { kept: None });
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn results_of_builds_are_shared_by_runs_at_the_same_time() {
        let root = tempfile::tempdir().unwrap();
        let caches = cache(&root, CacheWrites::Separate);
        let first = Leases::take(&caches).unwrap();
        assert_eq!(above(&first), above(&Leases::take(&caches).unwrap()));
    }
}
