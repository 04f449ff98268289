//! Stores of the sandboxed trust domain: where what runs write into a cache is kept.
//!
//! One run at a time may write into a store; an overlay's upper layer that two mounts share is undefined
//! (overlayfs.rst). A run that finds a store taken reads it and forgets what it writes itself.

use std::os::fd::OwnedFd;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use sandbar_proto::{AbsPath, CacheMount};
use sandbar_sandbox::CacheLayer;

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
        let lock = match open_lock(&cache.store) {
            Err(Errno::NOENT) => {
                make_store(&cache.store, &upper, &work).map_err(fail)?;
                open_lock(&cache.store)
            }
            other => other,
        }
        .map_err(fail)?;
        let owned = match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => true,
            Err(Errno::AGAIN) => false,
            Err(errno) => return Err(fail(errno)),
        };
        if owned {
            self.locks.push(lock);
        }
        self.layers.push(CacheLayer { target: cache.target.clone(), upper, work, owned });
        Ok(())
    }
}

fn open_lock(store: &AbsPath) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let path = store.as_path().join("lock");
    rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)
}

/// Makes the store and every missing directory above it private.
fn make_store(store: &AbsPath, upper: &AbsPath, work: &AbsPath) -> Result<(), Errno> {
    let mut missing = vec![store.clone()];
    while let Some(parent) = missing.last().and_then(AbsPath::parent) {
        if rustix::fs::lstat(parent.as_path()).is_ok() {
            break;
        }
        missing.push(parent);
    }
    missing.reverse();
    missing.extend([upper.clone(), work.clone()]);
    for path in missing {
        match rustix::fs::mkdir(path.as_path(), Mode::RWXU) {
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

    #[test]
    fn a_store_has_one_writer_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let store = AbsPath::new(root.path().join("deep/npm").into_os_string()).unwrap();
        let identity = FileIdentity { dev: 1, ino: 1, kind: FileKind::Directory };
        let target = PinnedPath { path: AbsPath::root(), identity };
        let caches = [CacheMount { name: "npm".to_owned(), target, store }];
        let first = Leases::take(&caches).unwrap();
        let second = Leases::take(&caches).unwrap();
        assert_eq!((first.layers[0].owned, second.layers[0].owned), (true, false));
        drop(first);
        assert!(Leases::take(&caches).unwrap().layers[0].owned);
    }
}
