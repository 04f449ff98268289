//! Directories held open, and names in them.
//!
//! Every change to a file is made relative to a directory that was opened before it was looked at, so that whoever
//! swaps a directory for a symbolic link meanwhile changes nothing about where the change goes. Links above the last
//! component are followed by the kernel, as open(2) does.

use std::ffi::CString;

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, openat, statat};
use rustix::io::Errno;
use sandbar_proto::{AbsPath, FileKind};

/// A name in a directory that is held open.
#[derive(Debug)]
pub(crate) struct Place {
    /// Opened with `O_PATH`: good for names in it, not for reading it.
    pub(crate) dir: OwnedFd,
    /// `.` for the directory itself, which only the root directory needs.
    pub(crate) name: CString,
}

impl Place {
    /// Where `path` is.
    pub(crate) fn of(path: &AbsPath) -> Result<Self, Errno> {
        Self::below(CWD, path.as_bytes())
    }

    /// Where `path`, which may have any shape that a symbolic link may hold, is from `dir`.
    pub(crate) fn below(dir: BorrowedFd<'_>, path: &[u8]) -> Result<Self, Errno> {
        let (parent, name) = match path.iter().rposition(|&byte| byte == b'/') {
            Some(0) => (&b"/"[..], &path[1..]),
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&b"."[..], path),
        };
        // `a/`, `a/.` and `a/..` name directories; what they are in does not matter to anybody here.
        let (parent, name) =
            if matches!(name, b"" | b"." | b"..") { (path, &b"."[..]) } else { (parent, name) };
        let parent = if parent.is_empty() { b"." } else { parent };
        let dir = openat(dir, parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { dir, name: CString::new(name).map_err(|_| Errno::INVAL)? })
    }

    /// What is there, a symbolic link as itself.
    pub(crate) fn stat(&self) -> Result<Stat, Errno> {
        statat(&self.dir, &self.name, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Whether the place is the root directory, which is in no other.
    pub(crate) fn is_root(&self) -> bool {
        self.name.as_c_str() == c"."
    }
}

/// Which file, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    dev: u64,
    ino: u64,
}

impl Identity {
    pub(crate) fn of(stat: &Stat) -> Self {
        Self { dev: stat.st_dev, ino: stat.st_ino }
    }
}

/// What a file is.
pub(crate) fn kind(stat: &Stat) -> FileKind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => FileKind::Directory,
        FileType::RegularFile => FileKind::File,
        FileType::Symlink => FileKind::Symlink,
        FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => FileKind::Other,
    }
}
