//! Answers about paths.

use std::io::Read as _;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, RawDirEntry, ResolveFlags, Stat};
use rustix::io::Errno;
use sandbar_proto::{AbsPath, ByteString, FactQuery, FileFact, FileIdentity, FileKind, PinnedPath};

use super::{Failure, placeholder};

/// What happens to a symlink that is the last component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Final {
    /// It is what is looked up.
    Kept,
    /// What it leads to is looked up.
    Followed,
}

impl Final {
    fn open_flags(self) -> OFlags {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        match self {
            Self::Kept => flags | OFlags::NOFOLLOW,
            Self::Followed => flags,
        }
    }
}

/// Returns what `path` leads to and that file's path without symlinks. A placeholder that nobody uses is missing.
pub(super) fn look_up(path: &AbsPath, last: Final) -> Result<FileFact, Failure> {
    let flags = last.open_flags();
    match rustix::fs::openat2(CWD, path.as_bytes(), flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        // The kernel met no symlink, so the path is real as it stands.
        Ok(file) => {
            let stat = rustix::fs::fstat(&file).map_err(Failure::Errno)?;
            if placeholder::is_unused(&file, &stat) {
                return Err(Failure::Missing);
            }
            Ok(fact(path.clone(), &stat))
        }
        // ENOSYS before Linux 5.6, EPERM under an outer filter that does not know the call.
        Err(Errno::LOOP | Errno::NOSYS | Errno::PERM) => look_up_through_symlinks(path, flags),
        Err(errno) => Err(errno.into()),
    }
}

fn look_up_through_symlinks(path: &AbsPath, flags: OFlags) -> Result<FileFact, Failure> {
    let file = rustix::fs::open(path.as_bytes(), flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&file).map_err(Failure::Errno)?;
    let real = real_path(&file)?;
    // procfs marks a removed file by a suffix that is a valid name, and has paths for what no path reaches; only
    // the file itself says whether its path is true.
    match rustix::fs::statat(CWD, real.as_bytes(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(again) if (again.st_dev, again.st_ino) == (stat.st_dev, stat.st_ino) => Ok(fact(real, &again)),
        Ok(_) | Err(_) => Err(Failure::Errno(Errno::STALE)),
    }
}

/// Returns the path that the kernel knows an open file by.
fn real_path(file: &OwnedFd) -> Result<AbsPath, Failure> {
    use std::os::fd::AsRawFd as _;
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    let path = rustix::fs::readlink(link, Vec::new()).map_err(Failure::Errno)?;
    // Pipes and sockets, reached through /proc/PID/fd, have a description instead of a path.
    AbsPath::new(path.into_bytes()).map_err(|_| Failure::Errno(Errno::STALE))
}

fn fact(path: AbsPath, stat: &Stat) -> FileFact {
    FileFact {
        pinned: PinnedPath { path, identity: identity(stat) },
        uid: stat.st_uid,
        gid: stat.st_gid,
        mode: stat.st_mode & 0o7777,
    }
}

/// Returns which file a `stat` is about.
#[must_use]
pub fn identity(stat: &Stat) -> FileIdentity {
    let kind = kind(FileType::from_raw_mode(stat.st_mode));
    FileIdentity { dev: stat.st_dev, ino: stat.st_ino, kind }
}

pub(super) fn kind(file_type: FileType) -> FileKind {
    match file_type {
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

/// Returns the names in the directory that `path` leads to, through symlinks, sorted by their bytes.
pub(super) fn list(path: &AbsPath) -> Result<Vec<(ByteString, FileKind)>, Failure> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path.as_bytes(), flags, Mode::empty())?;
    // Some 500 names a call, at most nine calls up to the bound.
    let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
    let mut entries = RawDir::new(&directory, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(Failure::Errno)?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if names.len() == FactQuery::MAX_NAMES {
            return Err(Failure::TooLong);
        }
        if let Some(file_type) = entry_type(&directory, &entry)? {
            names.push((ByteString::from(name.to_bytes()), kind(file_type)));
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Returns the type of a directory entry, or `None` if it is gone since the kernel listed it.
pub(super) fn entry_type(directory: &OwnedFd, entry: &RawDirEntry<'_>) -> Result<Option<FileType>, Failure> {
    // Some file systems do not say it while listing, getdents(2).
    if entry.file_type() != FileType::Unknown {
        return Ok(Some(entry.file_type()));
    }
    match rustix::fs::statat(directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(Failure::Errno(errno)),
    }
}

/// Returns what the symbolic link `path` says. EINVAL: it is none.
pub(super) fn link(path: &AbsPath) -> Result<ByteString, Failure> {
    let target = rustix::fs::readlink(path.as_bytes(), Vec::new())?;
    Ok(ByteString::from(target.to_bytes()))
}

/// Returns the content of the regular file `path`; symlinks above it are followed, but not itself.
pub(super) fn read(path: &AbsPath) -> Result<ByteString, Failure> {
    // NONBLOCK: a FIFO without a writer must not hold us up before its type is known.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::open(path.as_bytes(), flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&file).map_err(Failure::Errno)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(Failure::Errno(Errno::ISDIR)),
        FileType::Symlink
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => return Err(Failure::Errno(Errno::INVAL)),
    }
    let size = usize::try_from(stat.st_size).unwrap_or(usize::MAX);
    if size > FactQuery::MAX_BYTES {
        return Err(Failure::TooLong);
    }
    let mut content = Vec::with_capacity(size + 1);
    let limit = FactQuery::MAX_BYTES as u64 + 1;
    std::fs::File::from(file)
        .take(limit)
        .read_to_end(&mut content)
        .map_err(|error| Failure::Errno(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
    // It may have grown meanwhile, and files of procfs have no size.
    if content.len() > FactQuery::MAX_BYTES { Err(Failure::TooLong) } else { Ok(content.into()) }
}
