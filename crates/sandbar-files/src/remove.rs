//! Removing files, links and trees.
//!
//! A tree is gone through by open directories, each opened from the one above it and never through a symbolic link, so
//! that nothing outside is removed when a directory is swapped for a link meanwhile. Only one directory is open at a
//! time, whatever the depth; on the way up `..` must lead to the directory that we came from. Mount points end it: the
//! kernel does not remove them (EBUSY).

use std::ffi::{CStr, CString};

use rustix::fd::{AsFd as _, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags, fstat, openat, unlinkat};
use rustix::io::Errno;
use sandbar_proto::{AbsPath, FileKind};

use crate::at::{Identity, Place, kind};
use crate::directory::{self, Entry, join};
use crate::{ErrorKind, FileError};

/// Entries that are listed at a time, so that a directory of any size can be removed.
const BATCH: usize = 4096;

/// What is removed with a directory, and what is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemoveOptions {
    /// A directory goes with everything in it; otherwise it must be empty.
    pub recursive: bool,
    /// It may be missing.
    pub force: bool,
}

/// The dialect's.
impl Default for RemoveOptions {
    fn default() -> Self {
        Self { recursive: true, force: true }
    }
}

/// Removes what is at `path`; a symbolic link itself and not what it leads to.
pub(crate) fn remove(path: &AbsPath, options: RemoveOptions) -> Result<(), FileError> {
    match remove_if_there(path, options.recursive) {
        Err(error) if options.force && error.kind == ErrorKind::NotFound => Ok(()),
        answer => answer,
    }
}

fn remove_if_there(path: &AbsPath, recursive: bool) -> Result<(), FileError> {
    let at = |errno| FileError::at(path, errno);
    let place = Place::of(path).map_err(at)?;
    if place.is_root() {
        return Err(at(Errno::BUSY));
    }
    match kind(&place.stat().map_err(at)?) {
        FileKind::Directory if recursive => remove_tree(&place, path),
        FileKind::Directory => unlinkat(&place.dir, &place.name, AtFlags::REMOVEDIR).map_err(at),
        FileKind::File | FileKind::Symlink | FileKind::Other => {
            unlinkat(&place.dir, &place.name, AtFlags::empty()).map_err(at)
        }
    }
}

/// A directory that is being emptied.
struct Level {
    /// Its name in the one above.
    name: CString,
    identity: Identity,
    /// What is left of the last listing.
    entries: Vec<Entry>,
    /// Whether the last listing was cut off.
    has_more: bool,
}

fn remove_tree(place: &Place, path: &AbsPath) -> Result<(), FileError> {
    let mut levels: Vec<Level> = Vec::new();
    // Of the last level: open for reading, and its path.
    let mut dir = enter(place.dir.as_fd(), &place.name, &mut levels).map_err(|errno| failed(path, errno))?;
    let mut path = path.clone();
    while let Some(level) = levels.last_mut() {
        if let Some(entry) = level.entries.pop() {
            match remove_entry(&dir, &entry) {
                Ok(()) => {}
                Err(Errno::ISDIR) => {
                    let below = join(&path, &entry.name);
                    match enter(dir.as_fd(), &entry.name, &mut levels) {
                        Ok(opened) => (dir, path) = (opened, below),
                        Err(Errno::NOENT) => {}
                        Err(errno) => return Err(failed(&below, errno)),
                    }
                }
                Err(errno) => return Err(failed(&join(&path, &entry.name), errno)),
            }
        } else if level.has_more {
            refill(&dir, level).map_err(|errno| failed(&path, errno))?;
        } else {
            dir = leave(&dir, place, &mut levels).map_err(|errno| failed(&path, errno))?;
            path = path.parent().unwrap_or(path);
        }
    }
    Ok(())
}

/// Opens a directory and lists it as the new last level.
fn enter(dir: rustix::fd::BorrowedFd<'_>, name: &CStr, levels: &mut Vec<Level>) -> Result<OwnedFd, Errno> {
    let opened = directory::open(dir, name)?;
    let identity = Identity::of(&fstat(&opened)?);
    let mut level = Level { name: name.to_owned(), identity, entries: Vec::new(), has_more: false };
    refill(&opened, &mut level)?;
    levels.push(level);
    Ok(opened)
}

fn refill(dir: &OwnedFd, level: &mut Level) -> Result<(), Errno> {
    level.entries = directory::list(dir, BATCH)?;
    level.has_more = level.entries.len() == BATCH;
    Ok(())
}

/// Removes what is no directory.
///
/// # Errors
/// `EISDIR` for a directory.
fn remove_entry(dir: &OwnedFd, entry: &Entry) -> Result<(), Errno> {
    if entry.own_kind(dir)? == Some(FileKind::Directory) {
        return Err(Errno::ISDIR);
    }
    match unlinkat(dir, &entry.name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        answer => answer,
    }
}

/// Removes the last level, which is empty, and returns the one above it, or any directory if there is none.
fn leave(dir: &OwnedFd, place: &Place, levels: &mut Vec<Level>) -> Result<OwnedFd, Errno> {
    let Some(level) = levels.pop() else { return Err(Errno::INVAL) };
    let above = match levels.last() {
        Some(above) => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let opened = openat(dir, c"..", flags, Mode::empty())?;
            if Identity::of(&fstat(&opened)?) != above.identity {
                return Err(Errno::STALE);
            }
            opened
        }
        None => rustix::io::fcntl_dupfd_cloexec(&place.dir, 0)?,
    };
    match unlinkat(&above, &level.name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(above),
        Err(errno) => Err(errno),
    }
}

fn failed(path: &AbsPath, errno: Errno) -> FileError {
    match errno {
        // A directory that is a symbolic link now (openat(2) with O_NOFOLLOW | O_DIRECTORY), or was moved away.
        Errno::NOTDIR | Errno::LOOP | Errno::STALE => {
            let message = format!("path `{}` was replaced while it was being removed", path.to_display());
            FileError::new(ErrorKind::Changed, Some(path), message)
        }
        errno => FileError::at(path, errno),
    }
}
