//! System calls as they are: what the attempts ask of the kernel, and the only unsafe code of this crate.
//!
//! [`call`] takes words that come from values of [`Word`], so an address is always that of a buffer or a string that
//! lives as long as the call. It is not for calls that change this process's memory or stack (mmap, brk, clone with a
//! stack): those that are needed have a function of their own here.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// An argument of a system call.
pub(crate) trait Word {
    /// What stands in the register.
    fn word(self) -> usize;
}

macro_rules! numbers {
    ($($kind:ty),*) => { $(impl Word for $kind {
        #[expect(clippy::allow_attributes, reason = "only some of these widths can lose anything")]
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "registers have 64 bits here, and negative numbers are meant as such")]
        fn word(self) -> usize { self as usize }
    })* };
}

numbers!(i32, u32, i64, u64, usize);

impl Word for &CStr {
    fn word(self) -> usize {
        self.as_ptr().addr()
    }
}

impl Word for &CString {
    fn word(self) -> usize {
        self.as_ptr().addr()
    }
}

impl Word for &[u8] {
    fn word(self) -> usize {
        self.as_ptr().addr()
    }
}

impl Word for &mut [u8] {
    fn word(self) -> usize {
        self.as_mut_ptr().addr()
    }
}

impl Word for &OwnedFd {
    fn word(self) -> usize {
        self.as_raw_fd().word()
    }
}

/// Makes a system call: `sys!(number, argument, …)`, at most six. It is one expression, so that what an argument borrows
/// lives until the call is over, also if it is made only for it.
macro_rules! sys {
    ($number:expr $(, $argument:expr)*) => {
        $crate::raw::call($number, &[$($crate::raw::Word::word($argument)),*])
    };
}
pub(crate) use sys;

/// A system call with what [`Word`] made of its arguments; the rest is zero.
///
/// # Errors
/// What the kernel answers.
pub(crate) fn call(number: libc::c_long, given: &[usize]) -> io::Result<i64> {
    let mut words = [0_usize; 6];
    words[..given.len()].copy_from_slice(given);
    let [a, b, c, d, e, f] = words;
    // SAFETY: addresses are those of borrowed buffers and strings, which live until this returns (`sys!` is one
    // expression), and the calls that are made here write into nothing else. Where it matters the process is a fork that
    // makes one attempt and ends.
    let answer = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// A descriptor that a call returned.
pub(crate) fn owned(answer: i64) -> OwnedFd {
    let fd = RawFd::try_from(answer).unwrap_or(-1);
    assert!(fd >= 0, "a descriptor is not negative");
    // SAFETY: the kernel has just made it, so nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A path as the kernel takes it.
pub(crate) fn path(path: impl AsRef<Path>) -> CString {
    CString::new(path.as_ref().as_os_str().as_bytes()).unwrap_or_default()
}

/// Who came back from a fork.
pub(crate) enum Forked {
    Child,
    Parent(i32),
}

/// Forks. This program has one thread.
///
/// # Errors
/// What the kernel answers.
pub(crate) fn fork() -> io::Result<Forked> {
    // SAFETY: no other thread exists that could hold a lock in the child.
    match unsafe { libc::fork() } {
        0 => Ok(Forked::Child),
        pid if pid > 0 => Ok(Forked::Parent(pid)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Waits for a child; its wait status.
///
/// # Errors
/// What the kernel answers.
pub(crate) fn wait(pid: i32) -> io::Result<i32> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a place for the answer.
        if unsafe { libc::waitpid(pid, &raw mut status, 0) } >= 0 {
            return Ok(status);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Ends this process at once, without what the parent registered for its own end.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: it has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Has SIGALRM end this process after `seconds`.
pub(crate) fn alarm(seconds: u32) {
    // SAFETY: it has no preconditions.
    unsafe { libc::alarm(seconds) };
}

/// Sends a signal; errors do not matter to who calls this.
pub(crate) fn kill(pid: i32, signal: i32) {
    // SAFETY: it has no preconditions.
    unsafe { libc::kill(pid, signal) };
}

/// The effective user.
#[must_use]
pub(crate) fn euid() -> u32 {
    // SAFETY: it has no preconditions.
    unsafe { libc::geteuid() }
}

/// Maps a page of a file and writes its first byte again as it is.
///
/// # Errors
/// What the kernel answers.
pub(crate) fn write_mapped(fd: &impl AsRawFd) -> io::Result<()> {
    const PAGE: usize = 4096;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let page = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            PAGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            fd.as_raw_fd(),
            0,
        )
    };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let byte = page.cast::<u8>();
    // SAFETY: the page is mapped for both, and the file behind it is not empty.
    let first = unsafe { byte.read_volatile() };
    // SAFETY: as above.
    unsafe { byte.write_volatile(first) };
    // SAFETY: mapped above, and nothing refers to it any more.
    unsafe { libc::munmap(page, PAGE) };
    Ok(())
}

/// socket(AF_INET, SOCK_STREAM, 0) through the door of 32-bit programs; its answer, negative for an error.
#[cfg(target_arch = "x86_64")]
pub(crate) fn socket_by_int_80() -> i64 {
    let answer: i64;
    // SAFETY: number 359 is socket(2) of i386, which takes no address. rbx can't be named as an operand, so it is
    // put back; r8 to r11 are cleared by the kernel on this way.
    unsafe {
        std::arch::asm!(
            "xchg {domain:r}, rbx",
            "int 0x80",
            "xchg {domain:r}, rbx",
            domain = inout(reg) 2_i64 => _,
            inlateout("rax") 359_i64 => answer,
            in("rcx") 1_i64,
            in("rdx") 0_i64,
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
        );
    }
    answer
}
