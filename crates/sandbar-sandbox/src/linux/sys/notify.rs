//! Questions of a system-call filter and their answers, seccomp_unotify(2).

use std::os::fd::{AsRawFd as _, BorrowedFd};

use rustix::io::Errno;

use super::check;

/// `struct seccomp_notif` with its `struct seccomp_data`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Notification {
    id: u64,
    pid: u32,
    flags: u32,
    number: i32,
    arch: u32,
    instruction_pointer: u64,
    args: [u64; 6],
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

// _IOWR and _IOW of '!' in linux/seccomp.h, which spells sizes into the numbers.
const RECEIVE: u32 = 0xc050_2100;
const SEND: u32 = 0xc018_2101;
const IS_VALID: u32 = 0x4008_2102;
const _: () = assert!(size_of::<Notification>() == 0x50 && size_of::<Response>() == 0x18);

/// A call that waits for an answer.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Question {
    /// By which it is answered.
    pub(in super::super) id: u64,
    /// The thread that asks, in our pid namespace.
    pub(in super::super) pid: u32,
    /// Number of the call.
    pub(in super::super) number: i32,
    /// Its arguments as they are in registers.
    pub(in super::super) args: [u64; 6],
}

/// Takes the next question.
///
/// # Errors
/// ENOENT if whoever asked is gone.
pub(in super::super) fn receive(listener: BorrowedFd<'_>) -> Result<Question, Errno> {
    let mut notification = Notification::default();
    // SAFETY: the kernel writes a structure of the size that the request names, and this one has it.
    check(i64::from(unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE as _, &raw mut notification) }))?;
    let Notification { id, pid, number, args, .. } = notification;
    Ok(Question { id, pid, number, args })
}

/// Answers a question with what the call returns.
///
/// # Errors
/// ENOENT if whoever asked is gone.
pub(in super::super) fn answer(
    listener: BorrowedFd<'_>,
    id: u64,
    answer: Result<i32, Errno>,
) -> Result<(), Errno> {
    let (value, error) = match answer {
        Ok(value) => (i64::from(value), 0),
        Err(errno) => (0, -errno.raw_os_error()),
    };
    let response = Response { id, value, error, flags: 0 };
    // SAFETY: the kernel reads a structure of the size that the request names, and this one has it.
    check(i64::from(unsafe { libc::ioctl(listener.as_raw_fd(), SEND as _, &raw const response) })).map(drop)
}

/// Whether whoever asked still waits, so that what was looked up by its number was about it.
///
/// # Errors
/// ENOENT if not.
pub(in super::super) fn is_valid(listener: BorrowedFd<'_>, id: u64) -> Result<(), Errno> {
    // SAFETY: the kernel reads eight bytes.
    check(i64::from(unsafe { libc::ioctl(listener.as_raw_fd(), IS_VALID as _, &raw const id) })).map(drop)
}
