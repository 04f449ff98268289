//! Everything below a directory, within bounds.
//!
//! Breadth first, each directory by name, so that what a bound cuts off is what lies deepest. A directory that can't
//! be entered is told beside the entries and ends nothing. Without following links nothing is reached through one, also
//! not through one that is swapped in; with it, each directory is entered once, however many links lead to it.

use std::collections::{HashSet, VecDeque};
use std::ffi::CString;

use rustix::fd::{AsFd as _, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use sandbar_proto::exec::{EntryKind, WalkEntry, WalkError, WalkOptions, Walked, WirePath};
use sandbar_proto::{AbsPath, FileKind};

use crate::at::Identity;
use crate::directory::{Entry, join, list, too_many_entries};
use crate::{ErrorKind, FileError};

/// Most levels below the beginning.
pub const MAX_WALK_DEPTH: u64 = 64;

/// Most directories that are entered.
pub const MAX_WALK_DIRECTORIES: u64 = 10_000;

/// Most entries that are told.
pub const MAX_WALK_ENTRIES: u64 = 50_000;

/// Most bytes of paths that are told, so that an answer has a bound: 50,000 paths of 300 bytes, which is far above
/// what trees have. The same bound as any other to the client: the answer is truncated.
const MAX_WALK_BYTES: usize = 16 * 1024 * 1024;

/// Walks below `path`.
///
/// # Errors
/// [`ErrorKind::OutOfRange`] for bounds above the maxima; what opening `path` as a directory says.
pub(crate) fn walk(path: &AbsPath, options: &WalkOptions) -> Result<Walked, FileError> {
    check(path, "maxDepth", options.max_depth, MAX_WALK_DEPTH)?;
    check(path, "maxDirectories", options.max_directories, MAX_WALK_DIRECTORIES)?;
    check(path, "maxEntries", options.max_entries, MAX_WALK_ENTRIES)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, path.as_bytes(), flags, Mode::empty());
    let root = root.map_err(|errno| FileError::at(path, errno))?;
    let mut walk = Walk { root, options, entered: HashSet::new(), told_bytes: 0, answer: Walked::default() };
    walk.run(path);
    let mut answer = walk.answer;
    answer.entries.sort_by(|one, other| one.path.cmp(&other.path));
    answer.errors.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(answer)
}

fn check(path: &AbsPath, name: &str, value: u64, maximum: u64) -> Result<(), FileError> {
    if value <= maximum {
        return Ok(());
    }
    let message = format!("fs/walk {name} is {value}, and may be at most {maximum}");
    Err(FileError::new(ErrorKind::OutOfRange, Some(path), message))
}

struct Walk<'a> {
    root: OwnedFd,
    options: &'a WalkOptions,
    /// Only where links are followed: nothing else leads to a directory twice.
    entered: HashSet<Identity>,
    told_bytes: usize,
    answer: Walked,
}

/// A directory that is to be entered.
struct Pending {
    path: AbsPath,
    /// The names from the root to it.
    names: Vec<CString>,
}

impl Walk<'_> {
    fn run(&mut self, path: &AbsPath) {
        let mut pending = VecDeque::from([Pending { path: path.clone(), names: Vec::new() }]);
        let mut directories = 0;
        while let Some(directory) = pending.pop_front() {
            if directories == self.options.max_directories {
                self.answer.truncated = true;
                return;
            }
            directories += 1;
            if self.enter(&directory, &mut pending).is_err() {
                self.answer.truncated = true;
                return;
            }
        }
    }

    /// Tells what is in a directory, and appends what is to be entered next.
    fn enter(&mut self, directory: &Pending, pending: &mut VecDeque<Pending>) -> Result<(), Full> {
        let opened = match self.open(&directory.names) {
            Ok(Some(opened)) => opened,
            Ok(None) => return Ok(()),
            Err(errno) => return self.tell_error(&directory.path, &FileError::at(&directory.path, errno)),
        };
        let entries = match list(&opened, usize::MAX) {
            Ok(entries) => entries,
            Err(Errno::TOOBIG) => {
                return self.tell_error(&directory.path, &too_many_entries(&directory.path));
            }
            Err(errno) => return self.tell_error(&directory.path, &FileError::at(&directory.path, errno)),
        };
        let depth = directory.names.len() as u64 + 1;
        if depth > self.options.max_depth {
            return Ok(());
        }
        for entry in &entries {
            let Some(kind) = self.kind(entry, &opened) else { continue };
            let path = join(&directory.path, &entry.name);
            self.tell(&path, kind)?;
            let is_pruned = self.options.prune_hidden && entry.name.to_bytes().first() == Some(&b'.');
            if kind == EntryKind::Directory && depth < self.options.max_depth && !is_pruned {
                let names = directory.names.iter().chain([&entry.name]).cloned().collect();
                pending.push_back(Pending { path, names });
            }
        }
        Ok(())
    }

    /// Opens a directory by its names, each from the one above it; none if it was entered before.
    fn open(&mut self, names: &[CString]) -> Result<Option<OwnedFd>, Errno> {
        let follow = self.options.follow_directory_symlinks;
        let links = if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
        let mut dir = rustix::io::fcntl_dupfd_cloexec(self.root.as_fd(), 0)?;
        for (at, name) in names.iter().enumerate() {
            let is_last = at + 1 == names.len();
            let access = if is_last { OFlags::RDONLY } else { OFlags::PATH };
            let flags = access | links | OFlags::DIRECTORY | OFlags::CLOEXEC;
            dir = openat(&dir, name, flags, Mode::empty())?;
        }
        let is_new = !follow || self.entered.insert(Identity::of(&fstat(&dir)?));
        Ok(is_new.then_some(dir))
    }

    /// What an entry is told as; none if it is not told.
    fn kind(&self, entry: &Entry, dir: &OwnedFd) -> Option<EntryKind> {
        match entry.own_kind(dir).ok().flatten()? {
            FileKind::Directory => Some(EntryKind::Directory),
            FileKind::File => Some(EntryKind::File),
            FileKind::Symlink if self.options.follow_directory_symlinks => {
                (entry.target_kind(dir)? == FileKind::Directory).then_some(EntryKind::Directory)
            }
            FileKind::Symlink | FileKind::Other => None,
        }
    }

    fn tell(&mut self, path: &AbsPath, kind: EntryKind) -> Result<(), Full> {
        if self.answer.entries.len() as u64 == self.options.max_entries {
            return Err(Full);
        }
        self.take_bytes(path.as_bytes().len())?;
        self.answer.entries.push(WalkEntry { path: WirePath(path.clone()), kind });
        Ok(())
    }

    fn tell_error(&mut self, path: &AbsPath, error: &FileError) -> Result<(), Full> {
        self.take_bytes(path.as_bytes().len() + error.message.len())?;
        self.answer.errors.push(WalkError { path: WirePath(path.clone()), message: error.message.clone() });
        Ok(())
    }

    fn take_bytes(&mut self, bytes: usize) -> Result<(), Full> {
        self.told_bytes += bytes;
        if self.told_bytes > MAX_WALK_BYTES { Err(Full) } else { Ok(()) }
    }
}

/// A bound was reached that ends the walk.
struct Full;
