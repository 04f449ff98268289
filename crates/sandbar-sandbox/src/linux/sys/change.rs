//! Changes to what a file is, through a descriptor that was opened for nothing else (O_PATH), and watches in the name of
//! another process.

use std::ffi::CStr;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

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

/// A copy of a descriptor of the thread `thread`, pidfd_getfd(2). Asked of a thread by itself, since Linux 6.9.
///
/// # Errors
/// The kernel's: EBADF for none, EPERM for a thread that may not be looked into.
pub(in super::super) fn take_descriptor(thread: i32, fd: i32) -> Result<OwnedFd, Errno> {
    const PIDFD_THREAD: i32 = libc::O_EXCL;
    // SAFETY: passes integers only.
    let handle = check(unsafe { libc::syscall(libc::SYS_pidfd_open, thread, PIDFD_THREAD) })?;
    // SAFETY: the kernel returned a new descriptor that nobody else owns.
    let handle = unsafe { OwnedFd::from_raw_fd(i32::try_from(handle).map_err(|_| Errno::OVERFLOW)?) };
    // SAFETY: passes integers only.
    let taken = check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, handle.as_raw_fd(), fd, 0) })?;
    // SAFETY: the kernel returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(taken).map_err(|_| Errno::OVERFLOW)?) })
}

/// inotify_add_watch(2).
///
/// # Errors
/// The kernel's.
pub(in super::super) fn inotify_add_watch(
    watcher: BorrowedFd<'_>,
    path: &CStr,
    events: u32,
) -> Result<i32, Errno> {
    // SAFETY: the path is a live string.
    let watch =
        check(i64::from(unsafe { libc::inotify_add_watch(watcher.as_raw_fd(), path.as_ptr(), events) }))?;
    i32::try_from(watch).map_err(|_| Errno::OVERFLOW)
}
