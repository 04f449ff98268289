//! Which files are placeholders: made by a keeper for a name that must not come into being, and nobody's otherwise.
//!
//! Where a keeper died, so may have its journal, and its workspace may have another path by now. Then only what a file is
//! tells: its mark, its owner, and that nobody put anything into it. Such a file is nothing of the host's, and a plan is
//! made as if it were not there; the keeper takes it away or goes on using it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use sandbar_proto::Placeholder;

/// Whether a file has the mark of a placeholder and belongs to this user. One whose making was cut short has less of the
/// mark, but always the bit that nobody else sets; a directory may have inherited the one that hands its group on.
#[must_use]
pub fn is_marked(stat: &Stat) -> bool {
    let mark = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Placeholder::DIRECTORY_MODE | Mode::SGID.bits(),
        FileType::RegularFile => Placeholder::FILE_MODE,
        FileType::Symlink
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => return false,
    };
    let mode = stat.st_mode & 0o7777;
    mode & Mode::SVTX.bits() != 0 && mode & !mark == 0 && stat.st_uid == rustix::process::geteuid().as_raw()
}

/// Whether `file`, opened for no more than its path, is a placeholder that nobody uses.
pub(super) fn is_unused(file: &OwnedFd, stat: &Stat) -> bool {
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let is_unused =
        || if is_directory { is_empty_directory(file.as_fd()) } else { has_known_content(file, stat) };
    is_marked(stat) && is_unused().unwrap_or(false)
}

/// Whether nothing is in a directory.
///
/// # Errors
/// The kernel's.
pub fn is_empty_directory(directory: BorrowedFd<'_>) -> Result<bool, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(directory, c".", flags, Mode::empty())?;
    for entry in rustix::fs::Dir::new(directory)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

fn has_known_content(file: &OwnedFd, stat: &Stat) -> Result<bool, Errno> {
    use std::os::fd::AsRawFd as _;
    let longest = Placeholder::CONTENTS.iter().map(|content| content.len()).max().unwrap_or_default();
    if usize::try_from(stat.st_size).is_ok_and(|size| size > longest) {
        return Ok(false);
    }
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    let file = rustix::fs::open(link, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut found = vec![0; longest + 1];
    let count = rustix::io::read(&file, &mut found)?;
    Ok(Placeholder::CONTENTS.iter().any(|content| content.as_bytes().starts_with(&found[..count])))
}
