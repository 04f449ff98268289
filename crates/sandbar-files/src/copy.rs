//! Copying files, links and trees.
//!
//! What is copied: content, permission bits, symbolic links as links. Owner, times and extended attributes are the
//! copy's own. A file that is there already is replaced as `fs/writeFile` does it and keeps its own mode; a directory
//! that is there is filled up; a link is never written over. FIFOs, sockets and devices within a tree are left out, as
//! the dialect does; copying one by name is refused.
//!
//! Trees are gone through as in `remove`: by open directories, never through a link that is swapped in, two open at a
//! time whatever the depth. A failure leaves what was copied so far.

use std::ffi::CStr;
use std::fs::File;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    CWD, Mode, OFlags, Stat, copy_file_range, fchmod, fstat, mkdirat, openat, readlinkat, symlinkat,
};
use rustix::io::Errno;
use sandbar_proto::{AbsPath, FileKind};

use crate::at::{Identity, Place, kind};
use crate::directory::{self, Ancestors, Entry, join, too_many_entries};
use crate::read::{Links, retry};
use crate::replace::{Beginning, Durability, Replacement, WriteOptions};
use crate::{ErrorKind, FileError};

/// Whether directories are copied with what is in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Directories {
    /// A directory is refused; the dialect's default.
    #[default]
    Refuse,
    /// With everything in them.
    Recurse,
}

/// Copies what is at `from` to `to`.
pub(crate) fn copy(from: &AbsPath, to: &AbsPath, directories: Directories) -> Result<(), FileError> {
    let source = Place::of(from).map_err(|errno| FileError::at(from, errno))?;
    let stat = source.stat().map_err(|errno| FileError::at(from, errno))?;
    match kind(&stat) {
        FileKind::Directory if directories == Directories::Refuse => {
            let message = "fs/copy takes a directory only with `recursive`";
            Err(FileError::new(ErrorKind::IsADirectory, Some(from), message))
        }
        FileKind::Directory => copy_tree(&source, from, to),
        FileKind::Symlink => {
            let target = Place::of(to).map_err(|errno| FileError::at(to, errno))?;
            copy_link((source.dir.as_fd(), &source.name, from), (target.dir.as_fd(), &target.name, to))
        }
        FileKind::File => {
            let target = Place::of(to).map_err(|errno| FileError::at(to, errno))?;
            copy_file((source.dir.as_fd(), &source.name, from), target, to, Links::Follow)
        }
        FileKind::Other => {
            let message = format!("path `{}` is neither file, directory nor link", from.to_display());
            Err(FileError::new(ErrorKind::SpecialFile, Some(from), message))
        }
    }
}

/// A name in an open directory, and the whole path for errors.
type At<'a> = (BorrowedFd<'a>, &'a CStr, &'a AbsPath);

fn copy_link((dir, name, path): At<'_>, (to_dir, to_name, to): At<'_>) -> Result<(), FileError> {
    let target = readlinkat(dir, name, Vec::new()).map_err(|errno| FileError::at(path, errno))?;
    symlinkat(target.as_c_str(), to_dir, to_name).map_err(|errno| FileError::at(to, errno))
}

/// Copies a regular file; what turned into something else is refused.
fn copy_file((dir, name, path): At<'_>, target: Place, to: &AbsPath, links: Links) -> Result<(), FileError> {
    let at = |errno| FileError::at(path, errno);
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let source = openat(dir, name, flags, Mode::empty()).map_err(|errno| replaced(path, errno))?;
    let stat = fstat(&source).map_err(at)?;
    if kind(&stat) != FileKind::File {
        return Err(replaced(path, Errno::STALE));
    }
    let options = WriteOptions { links, mode: Some(stat.st_mode & 0o777), ..WriteOptions::default() };
    let mut replacement = Replacement::begin_at(target, to, options, Beginning::Kept)?;
    if replacement.existing().is_some_and(|existing| Identity::of(existing) == Identity::of(&stat)) {
        let message = format!("`{}` and `{}` are one file", path.to_display(), to.to_display());
        return Err(FileError::new(ErrorKind::SameFile, Some(path), message));
    }
    copy_content(&File::from(source), path, &mut replacement)?;
    replacement.finish(Durability::Cached).map(|_| ())
}

/// Most bytes that one copy_file_range(2) is asked for: seconds on a slow disk, not minutes.
const RANGE_BYTES: usize = 64 * 1024 * 1024;

/// As many bytes as one read(2) takes from the page cache without the buffer leaving the processor's.
const STEP_BYTES: usize = 256 * 1024;

fn copy_content(source: &File, path: &AbsPath, replacement: &mut Replacement) -> Result<(), FileError> {
    let mut offset = 0;
    // The kernel copies by itself, or shares the blocks; not everywhere (copy_file_range(2), "ERRORS"). What it can't
    // is copied by hand, and so are files of /proc, of which it says that there is nothing to copy.
    while let Ok(copied @ 1..) =
        retry(|| copy_file_range(source, Some(&mut offset), replacement.file(), None, RANGE_BYTES))
    {
        replacement.advance(copied as u64);
    }
    let mut buffer = vec![0; STEP_BYTES];
    loop {
        let got = retry(|| rustix::io::pread(source, &mut buffer, offset));
        let got = got.map_err(|errno| FileError::at(path, errno))?;
        if got == 0 {
            return Ok(());
        }
        replacement.write(&buffer[..got])?;
        offset += got as u64;
    }
}

/// A directory that is being copied.
struct Level {
    source: Identity,
    target: Identity,
    /// What is left of the listing, the next one last.
    entries: Vec<Entry>,
    /// The mode of one that we made, which it gets in the end.
    mode: Option<Mode>,
}

/// The two trees, at the last level.
struct Trees {
    source: OwnedFd,
    target: OwnedFd,
    path: AbsPath,
    to: AbsPath,
    levels: Vec<Level>,
    /// What must not be met on the way: the copy itself.
    root: Identity,
}

fn copy_tree(source: &Place, from: &AbsPath, to: &AbsPath) -> Result<(), FileError> {
    let dir = directory::open(&source.dir, &source.name).map_err(|errno| replaced(from, errno))?;
    let stat = fstat(&dir).map_err(|errno| FileError::at(from, errno))?;
    refuse_within(Identity::of(&stat), to)?;
    if let Some(above) = to.parent() {
        directory::create(&above, Ancestors::Make)?;
    }
    let (target, is_new) = make_directory(CWD, to.as_bytes(), Links::Follow, to)?;
    let root = Identity::of(&fstat(&target).map_err(|errno| FileError::at(to, errno))?);
    let mut trees =
        Trees { source: dir, target, path: from.clone(), to: to.clone(), levels: Vec::new(), root };
    trees.push(&stat, is_new)?;
    while !trees.levels.is_empty() {
        trees.step()?;
    }
    Ok(())
}

impl Trees {
    /// Lists the open directories as a new level.
    fn push(&mut self, stat: &Stat, is_new: bool) -> Result<(), FileError> {
        let (path, to) = (&self.path, &self.to);
        let source = Identity::of(stat);
        if source == self.root {
            return Err(into_itself(path));
        }
        let target = fstat(&self.target).map_err(|errno| FileError::at(to, errno))?;
        let mut entries = directory::list(&self.source, usize::MAX).map_err(|errno| match errno {
            Errno::TOOBIG => too_many_entries(path),
            errno => FileError::at(path, errno),
        })?;
        entries.reverse();
        let mode = is_new.then(|| Mode::from_raw_mode(stat.st_mode & 0o1777));
        let level = Level { source, target: Identity::of(&target), entries, mode };
        self.levels.push(level);
        Ok(())
    }

    /// Copies the next entry of the last level, or leaves it.
    fn step(&mut self) -> Result<(), FileError> {
        let Some(level) = self.levels.last_mut() else { return Ok(()) };
        let Some(entry) = level.entries.pop() else { return self.leave() };
        let (path, to) = (join(&self.path, &entry.name), join(&self.to, &entry.name));
        let found = entry.own_kind(&self.source).map_err(|errno| FileError::at(&path, errno))?;
        let source = (self.source.as_fd(), entry.name.as_c_str(), &path);
        match found {
            Some(FileKind::Directory) => {
                let dir =
                    directory::open(&self.source, &entry.name).map_err(|errno| replaced(&path, errno))?;
                let stat = fstat(&dir).map_err(|errno| FileError::at(&path, errno))?;
                let (target, is_new) =
                    make_directory(self.target.as_fd(), entry.name.to_bytes(), Links::NoFollow, &to)?;
                (self.source, self.target, self.path, self.to) = (dir, target, path, to);
                self.push(&stat, is_new)
            }
            Some(FileKind::Symlink) => copy_link(source, (self.target.as_fd(), &entry.name, &to)),
            Some(FileKind::File) => {
                let dir = rustix::io::fcntl_dupfd_cloexec(&self.target, 0);
                let dir = dir.map_err(|errno| FileError::at(&to, errno))?;
                copy_file(source, Place { dir, name: entry.name.clone() }, &to, Links::NoFollow)
            }
            // Left out, or gone meanwhile.
            Some(FileKind::Other) | None => Ok(()),
        }
    }

    /// Gives a copied directory its mode and goes back to the one above it.
    fn leave(&mut self) -> Result<(), FileError> {
        let Some(level) = self.levels.pop() else { return Ok(()) };
        if let Some(mode) = level.mode {
            let set = openat(&self.target, c".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .and_then(|dir| fchmod(dir, mode));
            set.map_err(|errno| FileError::at(&self.to, errno))?;
        }
        if let Some(above) = self.levels.last() {
            self.source = go_up(&self.source, above.source).map_err(|errno| replaced(&self.path, errno))?;
            self.target = go_up(&self.target, above.target).map_err(|errno| replaced(&self.to, errno))?;
            if let (Some(path), Some(to)) = (self.path.parent(), self.to.parent()) {
                (self.path, self.to) = (path, to);
            }
        }
        Ok(())
    }
}

/// The directory above an open one, which must be the one we came from.
fn go_up(dir: &OwnedFd, expected: Identity) -> Result<OwnedFd, Errno> {
    let above = openat(dir, c"..", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    if Identity::of(&fstat(&above)?) == expected { Ok(above) } else { Err(Errno::STALE) }
}

/// Makes a directory, or opens the one that is there. Says whether it was made; then nobody else may enter it until it
/// has its mode.
fn make_directory(
    dir: BorrowedFd<'_>,
    name: &[u8],
    links: Links,
    path: &AbsPath,
) -> Result<(OwnedFd, bool), FileError> {
    let is_new = match mkdirat(dir, name, Mode::RWXU) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(errno) => return Err(FileError::at(path, errno)),
    };
    let nofollow = if links == Links::Follow && !is_new { OFlags::empty() } else { OFlags::NOFOLLOW };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | nofollow;
    let opened = openat(dir, name, flags, Mode::empty()).map_err(|errno| match errno {
        // Something else has the name: for the client what mkdir(2) says of it.
        Errno::NOTDIR | Errno::LOOP => FileError::at(path, Errno::EXIST),
        errno => FileError::at(path, errno),
    })?;
    Ok((opened, is_new))
}

/// Refuses a destination that is `source` or lies below it, by what is on the way up from it and not by its name.
fn refuse_within(source: Identity, to: &AbsPath) -> Result<(), FileError> {
    let mut nearest = to.clone();
    let mut dir = loop {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match (openat(CWD, nearest.as_bytes(), flags, Mode::empty()), nearest.parent()) {
            (Ok(dir), _) => break dir,
            (Err(Errno::NOENT), Some(above)) => nearest = above,
            (Err(errno), _) => return Err(FileError::at(to, errno)),
        }
    };
    let mut last = None;
    loop {
        let here = Identity::of(&fstat(&dir).map_err(|errno| FileError::at(to, errno))?);
        if here == source {
            return Err(into_itself(to));
        }
        // The root directory is its own parent.
        if last.replace(here) == Some(here) {
            return Ok(());
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        dir = openat(&dir, c"..", flags, Mode::empty()).map_err(|errno| FileError::at(to, errno))?;
    }
}

fn into_itself(path: &AbsPath) -> FileError {
    FileError::new(ErrorKind::IntoItself, Some(path), "fs/copy can't copy a directory into itself")
}

/// The error of something that was one thing when it was looked at and another when it was opened.
fn replaced(path: &AbsPath, errno: Errno) -> FileError {
    match errno {
        Errno::NOTDIR | Errno::LOOP | Errno::STALE => {
            let message = format!("path `{}` was replaced while it was being copied", path.to_display());
            FileError::new(ErrorKind::Changed, Some(path), message)
        }
        errno => FileError::at(path, errno),
    }
}
