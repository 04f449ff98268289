//! Changes to what a file is, through a descriptor that was opened for nothing else (O_PATH).

use std::os::fd::{AsRawFd as _, BorrowedFd};

use rustix::io::Errno;

use super::check;

/// A change.
#[derive(Clone, Copy)]
pub(in super::super) enum Change {
    /// Permission bits.
    Mode(u32),
    /// User and group, each `u32::MAX` to stay.
    Owner(u32, u32),
    /// Times of access and modification, as utimensat(2) takes them.
    Times([libc::timespec; 2]),
}

/// Makes a change to the file behind `file` itself, also if that is a symbolic link.
///
/// # Errors
/// The kernel's; ENOSYS for modes before Linux 6.6, where there is no Landlock that this is needed for.
pub(in super::super) fn change(file: BorrowedFd<'_>, change: Change) -> Result<(), Errno> {
    // Behind every number of the tables that libc has for both architectures.
    const SYS_FCHMODAT2: libc::c_long = 452;
    let (fd, empty, flags) = (file.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH);
    let value = match change {
        // SAFETY: the path is a literal.
        Change::Mode(mode) => unsafe { libc::syscall(SYS_FCHMODAT2, fd, empty, mode, flags) },
        Change::Owner(user, group) => {
            // SAFETY: the path is a literal.
            unsafe { libc::syscall(libc::SYS_fchownat, fd, empty, user, group, flags) }
        }
        Change::Times(times) => {
            // SAFETY: the path is a literal, and the two times are live.
            unsafe { libc::syscall(libc::SYS_utimensat, fd, empty, times.as_ptr(), flags) }
        }
    };
    check(value).map(drop)
}
