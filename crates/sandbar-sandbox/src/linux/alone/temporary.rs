//! A run's own temporary directory, where no mount can stand in the place of the host's.
//!
//! Locked as long as its holder lives, so that the next holder knows what a killed one left, and removes it. What is in
//! it was made by a command that is gone: it is removed without following anything, from the top again and again where it
//! is deep, and without trusting its modes.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::super::sys::{Change, change};

/// How deep a removal goes before it moves what is there up to the top: bounds the stack and open descriptors.
const DEEPEST: usize = 32;

/// How often a directory is made again that a removal took for one that was left.
const ATTEMPTS: usize = 16;

/// A directory and the lock on it.
pub(in super::super) struct Temporary {
    path: CString,
    lock: OwnedFd,
}

impl Temporary {
    /// Makes the directory `path` for its owner alone, and locks it.
    ///
    /// # Errors
    /// The kernel's; EEXIST for one that somebody else has.
    pub(super) fn make(path: &CStr) -> Result<Self, Errno> {
        for _ in 0..ATTEMPTS {
            rustix::fs::mkdir(path, Mode::RWXU)?;
            let lock = open(CWD, path)?;
            let is_ours = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
                && rustix::fs::fstat(&lock)?.st_nlink > 0;
            if is_ours {
                return Ok(Self { path: path.to_owned(), lock });
            }
            // Whoever removes it holds the lock for a moment; then there is nothing, and it is made again.
            match rustix::fs::rmdir(path) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        Err(Errno::EXIST)
    }

    /// Removes the directory, and those beside it that nobody holds.
    pub(in super::super) fn remove(self) {
        let bytes = self.path.as_bytes();
        let Some(slash) = bytes.iter().rposition(|byte| *byte == b'/') else { return };
        let Ok(above) = CString::new(&bytes[..slash]) else { return };
        let Ok(store) = open(CWD, &above) else { return };
        // Ours is free now like any other that was left.
        drop(self.lock);
        let names = names(store.as_fd()).unwrap_or_default();
        for (name, _) in names {
            let Ok(directory) = open(store.as_fd(), &name) else { continue };
            if rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok() {
                empty(directory.as_fd());
                let _ = rustix::fs::unlinkat(&store, &name, AtFlags::REMOVEDIR);
            }
        }
    }
}

fn open(at: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(at, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            // The command took the right away. What is opened here is what gets it back, whatever has the name by then.
            let place = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let place = rustix::fs::openat(at, name, place, Mode::empty())?;
            change(place.as_fd(), Change::Mode(0o700))?;
            rustix::fs::openat(at, name, flags, Mode::empty())
        }
        other => other,
    }
}

fn names(directory: BorrowedFd<'_>) -> Result<Vec<(CString, FileType)>, Errno> {
    let is_entry = |name: &CStr| name != c"." && name != c"..";
    let entries = Dir::read_from(directory)?;
    let entries = entries.filter_map(Result::ok).filter(|entry| is_entry(entry.file_name()));
    Ok(entries.map(|entry| (entry.file_name().to_owned(), entry.file_type())).collect())
}

/// Removes what is in `top`, as far as that is possible.
fn empty(top: BorrowedFd<'_>) {
    let _ = rustix::fs::fchmod(top, Mode::RWXU);
    let mut moved = 0_u64;
    // Each round that moves something up makes the rest less deep.
    loop {
        let before = moved;
        empty_from(top, top, DEEPEST, &mut moved);
        if moved == before {
            return;
        }
    }
}

fn empty_from(top: BorrowedFd<'_>, directory: BorrowedFd<'_>, left: usize, moved: &mut u64) {
    for (name, _) in names(directory).unwrap_or_default() {
        match rustix::fs::unlinkat(directory, &name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => {}
            _ => continue,
        }
        let Ok(below) = open(directory, &name) else { continue };
        let _ = rustix::fs::fchmod(&below, Mode::RWXU);
        if left == 0 {
            let up = format!(".moved-{moved}");
            if rustix::fs::renameat(directory, &name, top, up.as_str()).is_ok() {
                *moved += 1;
            }
            continue;
        }
        empty_from(top, below.as_fd(), left - 1, moved);
        let _ = rustix::fs::unlinkat(directory, &name, AtFlags::REMOVEDIR);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::*;

    fn c(path: &Path) -> CString {
        CString::new(path.as_os_str().as_bytes()).unwrap()
    }

    #[test]
    fn it_is_removed_with_what_lies_in_it_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (store, outside) = (folder.path().join("store"), folder.path().join("outside"));
        std::fs::create_dir(&store).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("kept"), "").unwrap();
        let own = store.join("own");
        let made = Temporary::make(&c(&own)).unwrap();
        assert_eq!(own.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        std::os::unix::fs::symlink(&outside, own.join("link")).unwrap();
        let deep: std::path::PathBuf = std::iter::repeat_n("d", 3 * DEEPEST).collect();
        std::fs::create_dir_all(own.join(&deep)).unwrap();
        std::fs::write(own.join(&deep).join("file"), "").unwrap();
        std::fs::create_dir(own.join("closed")).unwrap();
        std::fs::write(own.join("closed/file"), "").unwrap();
        std::fs::set_permissions(own.join("closed"), std::fs::Permissions::from_mode(0o000)).unwrap();
        made.remove();
        assert_eq!(std::fs::read_dir(&store).unwrap().count(), 0);
        assert!(outside.join("kept").exists());
    }

    #[test]
    fn what_a_killed_holder_left_is_removed_by_the_next_and_what_is_held_is_not() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("left")).unwrap();
        let held = Temporary::make(&c(&folder.path().join("held"))).unwrap();
        Temporary::make(&c(&folder.path().join("own"))).unwrap().remove();
        let names: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["held"]);
        held.remove();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
