//! Directories: making them, and what is in them.

use std::ffi::{CStr, CString};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat};
use rustix::io::Errno;
use sandbar_proto::exec::{DirectoryEntries, DirectoryEntry};
use sandbar_proto::{AbsPath, FileKind};

use crate::at::kind;
use crate::{ErrorKind, FileError, Links};

/// Most bytes of names that a listing holds: a million names of usual length. A directory with more is refused.
const MAX_LISTING_BYTES: usize = 64 * 1024 * 1024;

/// Which directories may be there or be made on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ancestors {
    /// Those above it are made as well, and one that is there is no error; the dialect's default.
    #[default]
    Make,
    /// They must be there, and it must not.
    Require,
}

/// Makes a directory, with the permissions that the umask leaves.
pub(crate) fn create(path: &AbsPath, ancestors: Ancestors) -> Result<(), FileError> {
    let made = match ancestors {
        Ancestors::Make => std::fs::create_dir_all(path.as_path()),
        Ancestors::Require => std::fs::create_dir(path.as_path()),
    };
    made.map_err(|error| FileError::io(path, &error))
}

/// What is in a directory, by name.
pub(crate) fn read(path: &AbsPath, links: Links) -> Result<DirectoryEntries, FileError> {
    let at = |errno| FileError::at(path, errno);
    let nofollow = if links == Links::NoFollow { OFlags::NOFOLLOW } else { OFlags::empty() };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | nofollow;
    let dir = openat(CWD, path.as_bytes(), flags, Mode::empty()).map_err(at)?;
    let entries = list(&dir, usize::MAX).map_err(|errno| match errno {
        Errno::TOOBIG => too_many_entries(path),
        errno => at(errno),
    })?;
    let tell = |entry: &Entry| {
        let kind = entry.target_kind(&dir);
        DirectoryEntry {
            file_name: entry.name.to_string_lossy().into_owned(),
            is_directory: kind == Some(FileKind::Directory),
            is_file: kind == Some(FileKind::File),
        }
    };
    Ok(DirectoryEntries { entries: entries.iter().map(tell).collect() })
}

/// The refusal of a directory whose names take more than the bound.
pub(crate) fn too_many_entries(path: &AbsPath) -> FileError {
    let message = format!("the names in a directory take more than {MAX_LISTING_BYTES} bytes");
    FileError::new(ErrorKind::TooLarge, Some(path), message)
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) name: CString,
    /// As the directory says it, which not every file system does.
    pub(crate) kind: Option<FileKind>,
}

impl Entry {
    /// What the entry is, asked for where the directory does not say; none if it is gone.
    pub(crate) fn own_kind(&self, dir: impl AsFd) -> Result<Option<FileKind>, Errno> {
        if self.kind.is_some() {
            return Ok(self.kind);
        }
        match statat(dir, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(kind(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// What the entry is or leads to; none if that can't be told, such as for a link that leads nowhere.
    pub(crate) fn target_kind(&self, dir: impl AsFd) -> Option<FileKind> {
        match self.kind {
            Some(FileKind::Symlink) | None => {
                statat(dir, &self.name, AtFlags::empty()).ok().map(|stat| kind(&stat))
            }
            kind => kind,
        }
    }
}

/// Opens a directory for reading, never through a symbolic link in its place.
pub(crate) fn open(dir: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::empty())
}

/// Up to `limit` entries of an open directory without `.` and `..`, by name.
///
/// # Errors
/// `E2BIG` above [`MAX_LISTING_BYTES`].
pub(crate) fn list(dir: impl AsFd, limit: usize) -> Result<Vec<Entry>, Errno> {
    let (mut entries, mut bytes) = (Vec::new(), 0);
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if entries.len() == limit {
            break;
        }
        bytes += name.count_bytes() + size_of::<Entry>();
        if bytes > MAX_LISTING_BYTES {
            return Err(Errno::TOOBIG);
        }
        entries.push(Entry { name: name.to_owned(), kind: hinted(entry.file_type()) });
    }
    entries.sort_unstable();
    Ok(entries)
}

fn hinted(kind: FileType) -> Option<FileKind> {
    match kind {
        FileType::Directory => Some(FileKind::Directory),
        FileType::RegularFile => Some(FileKind::File),
        FileType::Symlink => Some(FileKind::Symlink),
        FileType::Unknown => None,
        FileType::Fifo | FileType::Socket | FileType::CharacterDevice | FileType::BlockDevice => {
            Some(FileKind::Other)
        }
    }
}

/// `path` with the name of an entry appended.
pub(crate) fn join(path: &AbsPath, name: &CStr) -> AbsPath {
    // A name out of a directory has no slash and is neither `.` nor `..`, so that joining can't fail.
    path.join(name.to_bytes()).unwrap_or_else(|_| path.clone())
}
