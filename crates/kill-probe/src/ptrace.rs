//! The calls of ptrace(2) that following needs, and the only unsafe code of this crate.

use std::io;
use std::ptr::null_mut;

/// What happened to somebody who is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Happened {
    /// It is about to make a call.
    Enters,
    /// A call is over, or it only has to be let go on.
    Goes,
    /// It started a process or a thread.
    Starts(i32),
    /// It became another program.
    Executes,
    /// It is about to get a signal.
    Gets(i32),
    /// It ended; its status as of wait(2).
    Ends(i32),
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Follows `pid` and whoever it starts from now on.
pub(crate) fn seize(pid: i32) -> io::Result<()> {
    let options = libc::PTRACE_O_TRACESYSGOOD
        | libc::PTRACE_O_TRACEFORK
        | libc::PTRACE_O_TRACEVFORK
        | libc::PTRACE_O_TRACECLONE
        | libc::PTRACE_O_TRACEEXEC;
    // SAFETY: PTRACE_SEIZE takes an option word where others take an address; nothing is written.
    check(unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, null_mut::<libc::c_void>(), options) }).map(drop)
}

/// Lets a stopped one go on to its next call or, with `quick`, to what happens to it otherwise. It gets `signal`, if that is
/// not 0. One that was killed meanwhile is no error.
pub(crate) fn resume(pid: i32, quick: bool, signal: i32) -> io::Result<()> {
    let how = if quick { libc::PTRACE_CONT } else { libc::PTRACE_SYSCALL };
    // SAFETY: takes two words and writes nothing here.
    match check(unsafe { libc::ptrace(how, pid, null_mut::<libc::c_void>(), libc::c_long::from(signal)) }) {
        Err(error) if error.raw_os_error() != Some(libc::ESRCH) => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// The call that a stopped one is about to make: its number and arguments. `None` behind a call.
pub(crate) fn entered(pid: i32) -> Option<(u64, [u64; 6])> {
    // SAFETY: the structure is plain numbers, for which zeroes are valid.
    let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
    let size = size_of_val(&info);
    // SAFETY: the kernel writes at most `size` bytes to where `info` is.
    let got = unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, pid, size, &raw mut info) };
    if got <= 0 || info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return None;
    }
    // SAFETY: `op` says that this is the variant.
    let entry = unsafe { info.u.entry };
    Some((entry.nr, entry.args))
}

fn message(pid: i32) -> i32 {
    let mut message: libc::c_ulong = 0;
    // SAFETY: the kernel writes one word to where `message` is.
    let got =
        unsafe { libc::ptrace(libc::PTRACE_GETEVENTMSG, pid, null_mut::<libc::c_void>(), &raw mut message) };
    if got == -1 { 0 } else { i32::try_from(message).unwrap_or(0) }
}

/// Waits until something happens to somebody whom this thread follows; `None` when there is nobody.
pub(crate) fn wait() -> io::Result<Option<(i32, Happened)>> {
    loop {
        let mut status = 0;
        // SAFETY: the kernel writes one number to where `status` is. Other threads' children are left to them.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
        if pid > 0 {
            return Ok(Some((pid, happened(pid, status))));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ECHILD) => return Ok(None),
            Some(libc::EINTR) => {}
            _ => return Err(error),
        }
    }
}

fn happened(pid: i32, status: i32) -> Happened {
    if !libc::WIFSTOPPED(status) {
        return Happened::Ends(status);
    }
    let signal = libc::WSTOPSIG(status);
    match status >> 16 {
        libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => {
            Happened::Starts(message(pid))
        }
        libc::PTRACE_EVENT_EXEC => Happened::Executes,
        // It has just been started, or was stopped, which nobody here wants.
        libc::PTRACE_EVENT_STOP => Happened::Goes,
        _ if signal == libc::SIGTRAP | 0x80 => {
            if entered(pid).is_some() {
                Happened::Enters
            } else {
                Happened::Goes
            }
        }
        _ => Happened::Gets(signal),
    }
}

/// Kills a whole process.
pub(crate) fn kill(pid: i32) -> io::Result<()> {
    // SAFETY: passes numbers.
    check(unsafe { libc::kill(pid, libc::SIGKILL) }.into()).map(drop)
}
