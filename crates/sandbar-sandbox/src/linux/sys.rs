//! The system calls that rustix has no safe form of, one function each.
//!
//! Everything here is callable between fork and exec: raw calls on memory of the caller, no allocation, no lock
//! (signal-safety(7)). Errors are the kernel's error numbers, nothing is interpreted.

use std::ffi::{CStr, c_char, c_int, c_long, c_void};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use rustix::io::Errno;

/// Turns a libc return value into a result. Must follow the call directly: it reads `errno`.
mod change;
pub(super) mod notify;
pub(super) use change::{Change, change, inotify_add_watch, take_descriptor};

fn check(value: c_long) -> Result<c_long, Errno> {
    if value == -1 {
        // SAFETY: takes nothing and returns the address of this thread's errno.
        let location = unsafe { libc::__errno_location() };
        // SAFETY: the address is valid and aligned as long as the thread lives.
        let errno = unsafe { *location };
        Err(Errno::from_raw_os_error(errno))
    } else {
        Ok(value)
    }
}

/// Who came out of [`fork`].
pub(super) enum Fork {
    /// The new process.
    Child,
    /// The old one.
    Parent {
        /// Id of the child in the caller's pid namespace.
        pid: i32,
        /// Handle of the child.
        pidfd: OwnedFd,
    },
}

/// Forks into the namespaces of `flags` (CLONE_NEW*), clone(2). The child shares no memory with its parent.
///
/// # Errors
/// The kernel's: EPERM without the right to make a namespace, ENOSPC above a limit of namespaces(7).
///
/// # Safety
/// The caller must be single-threaded, or the child must call only async-signal-safe functions until it
/// executes or exits.
pub(super) unsafe fn fork(flags: c_int) -> Result<Fork, Errno> {
    let mut pidfd: c_int = -1;
    let flags = c_long::from(flags | libc::CLONE_PIDFD | libc::SIGCHLD);
    // clone(2), not clone3(2): every flag fits, and containers answer clone3 with ENOSYS. The argument order
    // differs between architectures, but only behind the third argument, which is the last one that we use.
    // SAFETY: no CLONE_VM and a null stack make this a plain fork; `pidfd` outlives the call.
    let pid =
        check(unsafe { libc::syscall(libc::SYS_clone, flags, 0_usize, &raw mut pidfd, 0_usize, 0_usize) })?;
    if pid == 0 {
        return Ok(Fork::Child);
    }
    // SAFETY: the kernel wrote a new descriptor that nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Fork::Parent { pid: i32::try_from(pid).map_err(|_| Errno::OVERFLOW)?, pidfd })
}

/// Whose table of descriptors a child has until it executes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Descriptors {
    /// A copy.
    Copied,
    /// The parent's; what it opens stays open there.
    Shared,
}

/// Runs `entry(argument)` on `stack` in a child that borrows this process's memory until it executes or exits.
///
/// # Errors
/// The kernel's.
///
/// # Safety
/// `entry` must execute or exit, call only async-signal-safe functions, and leave memory as the parent expects
/// to find it.
pub(super) unsafe fn vfork(
    entry: extern "C" fn(*mut c_void) -> c_int,
    stack: &mut [u8],
    argument: *mut c_void,
    descriptors: Descriptors,
) -> Result<i32, Errno> {
    let shared = if descriptors == Descriptors::Shared { libc::CLONE_FILES } else { 0 };
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD | shared;
    // The stack grows down and must be aligned to 16 bytes on every architecture we know.
    let end = stack.as_mut_ptr_range().end;
    let top = end.map_addr(|address| address & !15).cast();
    // SAFETY: `top` is the end of a live buffer; CLONE_VFORK suspends us until the child is done with it.
    let pid = check(c_long::from(unsafe { libc::clone(entry, top, flags, argument) }))?;
    i32::try_from(pid).map_err(|_| Errno::OVERFLOW)
}

/// mount_setattr(2) attributes.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

impl MountAttr {
    const RDONLY: u64 = 0x1;
    const NOSUID: u64 = 0x2;
    const NODEV: u64 = 0x4;

    /// Read-only, no set-user-id, no devices, and no propagation to or from other mounts.
    pub(super) const SEALED: Self = Self {
        set: Self::RDONLY | Self::NOSUID | Self::NODEV,
        clear: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    /// Writable where it was, no set-user-id, no devices, no propagation.
    pub(super) const CONFINED: Self =
        Self { set: Self::NOSUID | Self::NODEV, clear: 0, propagation: libc::MS_PRIVATE, userns_fd: 0 };
    /// Read-only.
    pub(super) const READ_ONLY: Self = Self { set: Self::RDONLY, clear: 0, propagation: 0, userns_fd: 0 };
}

/// How far [`mount_setattr`] reaches.
#[derive(Clone, Copy)]
pub(super) enum Reach {
    /// This mount.
    One,
    /// This mount and everything mounted below it.
    Tree,
}

/// Changes attributes of the mount at `fd`, mount_setattr(2), Linux 5.12.
///
/// # Errors
/// The kernel's: EINVAL if `fd` is not the root of a mount, EPERM for attributes locked by another namespace.
pub(super) fn mount_setattr(fd: BorrowedFd<'_>, reach: Reach, attr: &MountAttr) -> Result<(), Errno> {
    let recursive = match reach {
        Reach::One => 0,
        Reach::Tree => libc::AT_RECURSIVE,
    };
    // SAFETY: the path is a NUL-terminated literal and `attr` is a live MOUNT_ATTR_SIZE_VER0 structure.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

/// Starts a new, empty session keyring, keyctl(2), so that keys of the caller's session can't be reached.
///
/// # Errors
/// The kernel's; ENOSYS on a kernel without keys, where there is nothing to leave.
pub(super) fn join_new_session_keyring() -> Result<(), Errno> {
    const KEYCTL_JOIN_SESSION_KEYRING: c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring; no memory is passed.
    match check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, 0_usize) }) {
        Ok(_) | Err(Errno::NOSYS) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn prctl(option: c_int, argument: usize) -> Result<(), Errno> {
    prctl_value(option, argument).map(drop)
}

fn prctl_value(option: c_int, argument: usize) -> Result<c_long, Errno> {
    // SAFETY: the options used below take one integer; the remaining arguments must be and are zero.
    check(c_long::from(unsafe { libc::prctl(option, argument, 0_usize, 0_usize, 0_usize) }))
}

/// Whether other processes of this user may look into this one (ptrace(2), /proc/PID/mem, core files).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Dumpable {
    /// They may; needed while a user namespace's maps are written by its own process.
    Yes,
    /// They may not.
    No,
}

/// PR_SET_DUMPABLE.
///
/// # Errors
/// Never on a kernel that we run on.
pub(super) fn set_dumpable(dumpable: Dumpable) -> Result<(), Errno> {
    prctl(libc::PR_SET_DUMPABLE, usize::from(dumpable == Dumpable::Yes))
}

/// PR_SET_NO_NEW_PRIVS.
///
/// # Errors
/// Never on a kernel that we run on.
pub(super) fn set_no_new_privs() -> Result<(), Errno> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)
}

/// PR_SET_PDEATHSIG: the signal that this process gets when its parent dies.
///
/// # Errors
/// EINVAL for no signal.
pub(super) fn set_parent_death_signal(signal: c_int) -> Result<(), Errno> {
    prctl(libc::PR_SET_PDEATHSIG, usize::try_from(signal).map_err(|_| Errno::INVAL)?)
}

/// PR_SET_CHILD_SUBREAPER: orphaned descendants become children of this process.
///
/// # Errors
/// Never on a kernel that we run on.
pub(super) fn set_child_subreaper() -> Result<(), Errno> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1)
}

/// Closes every way to a capability: bounding set, ambient set, uid-0 privileges on exec, each locked
/// (capabilities(7)). What the process holds now stays until [`clear_capabilities`].
///
/// # Errors
/// EPERM without CAP_SETPCAP in the own user namespace.
pub(super) fn forbid_capabilities() -> Result<(), Errno> {
    // SECBIT_NOROOT, NO_SETUID_FIXUP and NO_CAP_AMBIENT_RAISE, each with its lock: uid 0 inside is only a number.
    const SECUREBITS: usize = 0x01 | 0x02 | 0x04 | 0x08 | 0x40 | 0x80;
    for capability in 0..64 {
        match prctl(libc::PR_CAPBSET_DROP, capability) {
            Ok(()) => {}
            // The first number that the kernel does not know ends the list.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno),
        }
    }
    prctl(libc::PR_SET_SECUREBITS, SECUREBITS)
}

/// Empties the permitted, effective and inheritable sets, capset(2).
///
/// # Errors
/// Never: less is always allowed.
pub(super) fn clear_capabilities() -> Result<(), Errno> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: c_int,
    }
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let header = Header { version: VERSION_3, pid: 0 };
    let data = [Data { effective: 0, permitted: 0, inheritable: 0 }; 2];
    // SAFETY: version 3 takes a header and two data structures, both live.
    check(unsafe { libc::syscall(libc::SYS_capset, std::ptr::from_ref(&header), data.as_ptr()) }).map(drop)
}

/// Becomes another user and group without supplementary groups.
///
/// # Errors
/// EPERM without CAP_SETUID and CAP_SETGID, EINVAL for ids that are not mapped.
pub(super) fn become_user(uid: u32, gid: u32) -> Result<(), Errno> {
    // Raw calls: libc's wrappers would signal every other thread of the process, and there is none.
    // SAFETY: a length of zero reads no memory.
    check(unsafe { libc::syscall(libc::SYS_setgroups, 0, 0_usize) })?;
    // SAFETY: passes integers only.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    // SAFETY: passes integers only.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// Installs a classic BPF program as the system-call filter of this process and all it starts, seccomp(2).
///
/// # Errors
/// EINVAL for an invalid program, EACCES without no_new_privs.
///
/// # Safety
/// `filter` must point to `length` instructions laid out as `struct sock_filter`.
pub(super) unsafe fn install_filter(filter: *const c_void, length: u16) -> Result<(), Errno> {
    // SAFETY: by this function's contract.
    unsafe { set_filter(filter, length, 0) }.map(drop)
}

/// The same for a program that asks; returns the descriptor where it does.
///
/// # Errors
/// As [`install_filter`], and EBUSY below a filter that asks.
///
/// # Safety
/// As [`install_filter`].
pub(super) unsafe fn install_asking_filter(filter: *const c_void, length: u16) -> Result<RawFd, Errno> {
    // SECCOMP_FILTER_FLAG_NEW_LISTENER, and WAIT_KILLABLE_RECV: a signal does not make a program ask twice (Linux 5.19).
    const FLAGS: usize = 1 << 3 | 1 << 5;
    // SAFETY: by this function's contract.
    let listener = unsafe { set_filter(filter, length, FLAGS) }?;
    RawFd::try_from(listener).map_err(|_| Errno::OVERFLOW)
}

unsafe fn set_filter(filter: *const c_void, length: u16, flags: usize) -> Result<c_long, Errno> {
    #[repr(C)]
    struct SockFprog {
        length: u16,
        filter: *const c_void,
    }
    const SECCOMP_SET_MODE_FILTER: c_int = 1;
    let program = SockFprog { length, filter };
    // SAFETY: `program` is live and describes live instructions, by this function's contract.
    check(unsafe {
        libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, std::ptr::from_ref(&program))
    })
}

/// Closes every descriptor from `first` on, close_range(2), Linux 5.9.
///
/// # Errors
/// Never for a valid range.
pub(super) fn close_from(first: RawFd) -> Result<(), Errno> {
    // SAFETY: closing descriptors is safe for memory; callers own no descriptor object at or above `first`.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, c_int::MAX, 0) }).map(drop)
}

/// Brings the loopback interface of the own network namespace up, netdevice(7).
///
/// # Errors
/// The kernel's.
pub(super) fn loopback_up() -> Result<(), Errno> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    #[repr(C)]
    struct IfReqFlags {
        name: [u8; libc::IFNAMSIZ],
        flags: i16,
        rest: [u8; 22],
    }
    let mut request = IfReqFlags { name: [0; libc::IFNAMSIZ], flags: 0, rest: [0; 22] };
    request.name[..2].copy_from_slice(b"lo");
    request.flags = i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or_default();
    // SAFETY: `request` is a live structure of the size of `struct ifreq`.
    check(c_long::from(unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, std::ptr::from_ref(&request))
    }))
    .map(drop)
}

/// Blocks every signal that can be blocked, so that they are read from a signalfd(2) or ignored.
pub(super) fn block_all_signals() {
    let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset initialises the set.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: the set was initialised above; no old mask is asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, all.as_ptr(), std::ptr::null_mut()) };
}

/// Gives every signal its default action and unblocks all; what exec(2) does not reset by itself.
pub(super) fn reset_signals() {
    for signal in 1..=64 {
        // SIGKILL, SIGSTOP and the two that libc keeps to itself refuse; that is what we want of them.
        // SAFETY: SIG_DFL is a valid action for any signal.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set.
    unsafe { libc::sigemptyset(none.as_mut_ptr()) };
    // SAFETY: the set was initialised above; no old mask is asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut()) };
}

/// A descriptor that is readable when a child changed its state; the signal must be blocked.
///
/// # Errors
/// EMFILE and the like.
pub(super) fn child_signal_fd() -> Result<OwnedFd, Errno> {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: the set was initialised above.
    unsafe { libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD) };
    // SAFETY: the set is initialised; -1 asks for a new descriptor.
    let fd = unsafe { libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    let fd = check(c_long::from(fd))?;
    // SAFETY: the kernel returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).map_err(|_| Errno::OVERFLOW)?) })
}

/// What [`wait_any`] found.
pub(super) enum Waited {
    /// A child ended.
    Ended {
        /// Its id.
        pid: i32,
        /// As wait4(2) reports it.
        status: c_int,
        /// What it used.
        usage: libc::rusage,
    },
    /// A child was stopped.
    Stopped {
        /// Its id.
        pid: i32,
        /// The signal.
        signal: c_int,
    },
    /// Children live, nothing new of them.
    None,
    /// There is no child.
    NoChild,
}

/// Reaps one child of any kind, or learns that one was stopped, without blocking, wait4(2).
///
/// # Errors
/// The kernel's, other than ECHILD.
pub(super) fn wait_any() -> Result<Waited, Errno> {
    let mut status: c_int = 0;
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both out-pointers are live.
    let pid = unsafe {
        libc::wait4(-1, &raw mut status, libc::WNOHANG | libc::WUNTRACED | libc::__WALL, usage.as_mut_ptr())
    };
    match check(c_long::from(pid)) {
        Ok(0) => Ok(Waited::None),
        Ok(_) if libc::WIFSTOPPED(status) => Ok(Waited::Stopped { pid, signal: libc::WSTOPSIG(status) }),
        // SAFETY: zeroed is a valid rusage, and the kernel filled it in.
        Ok(_) => Ok(Waited::Ended { pid, status, usage: unsafe { usage.assume_init() } }),
        Err(Errno::CHILD) => Ok(Waited::NoChild),
        Err(errno) => Err(errno),
    }
}

/// kill(2): a process, or with a negative id a group, or with -1 everything this process may signal.
///
/// # Errors
/// ESRCH if there is none.
pub(super) fn kill(pid: i32, signal: c_int) -> Result<(), Errno> {
    // SAFETY: passes integers only.
    check(c_long::from(unsafe { libc::kill(pid, signal) })).map(drop)
}

/// execve(2); returns only on failure.
///
/// # Safety
/// `argv` and `envp` must be null-terminated arrays of NUL-terminated strings.
pub(super) unsafe fn execve(path: &CStr, argv: *const *const c_char, envp: *const *const c_char) -> Errno {
    // SAFETY: by this function's contract.
    let value = unsafe { libc::execve(path.as_ptr(), argv.cast(), envp.cast()) };
    check(c_long::from(value)).err().unwrap_or(Errno::INVAL)
}

/// setpriority(2) of the calling process.
///
/// # Errors
/// EACCES for a value below the current one without CAP_SYS_NICE.
pub(super) fn set_nice(nice: i32) -> Result<(), Errno> {
    // SAFETY: passes integers only.
    check(c_long::from(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) })).map(drop)
}

/// CPU time of all children that this process waited for, in microseconds, getrusage(2).
pub(super) fn waited_cpu_us() -> u64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `usage` is live and has the size that the kernel writes.
    let result = unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()) };
    // SAFETY: zeroed is a valid rusage, and the kernel filled it in unless the call failed.
    let usage = unsafe { usage.assume_init() };
    if result == 0 { cpu_us(&usage) } else { 0 }
}

/// CPU time of a usage, in microseconds.
pub(super) fn cpu_us(usage: &libc::rusage) -> u64 {
    micros(usage.ru_utime) + micros(usage.ru_stime)
}

/// A time in microseconds.
pub(super) fn micros(time: libc::timeval) -> u64 {
    u64::try_from(time.tv_sec).unwrap_or_default() * 1_000_000
        + u64::try_from(time.tv_usec).unwrap_or_default()
}

/// setrlimit(2); `None` is unlimited. A limit above the hard one that this process has is lowered to that: whoever
/// planned it was told (`crate::caller::lowered`).
///
/// # Errors
/// EINVAL for an unknown resource.
pub(super) fn set_rlimit(resource: u32, soft: Option<u64>, hard: Option<u64>) -> Result<(), Errno> {
    let mut current = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    let number = |limit: Option<u64>| limit.unwrap_or(libc::RLIM64_INFINITY);
    // SAFETY: `current` is live; a null new limit only reads.
    check(c_long::from(unsafe { libc::prlimit64(0, resource as _, std::ptr::null(), &raw mut current) }))?;
    let max = number(hard).min(current.rlim_max);
    let wanted = libc::rlimit64 { rlim_cur: number(soft).min(max), rlim_max: max };
    // SAFETY: `wanted` is live; no old limit is asked for.
    check(c_long::from(unsafe { libc::prlimit64(0, resource as _, &raw const wanted, std::ptr::null_mut()) }))
        .map(drop)
}

/// Raises a soft limit to its hard one, setrlimit(2).
///
/// # Errors
/// EINVAL for an unknown resource.
pub(super) fn raise_rlimit(resource: u32) -> Result<(), Errno> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is live; a null new limit only reads.
    check(c_long::from(unsafe { libc::prlimit64(0, resource as _, std::ptr::null(), &raw mut limit) }))?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is live; no old limit is asked for.
    check(c_long::from(unsafe { libc::prlimit64(0, resource as _, &raw const limit, std::ptr::null_mut()) }))
        .map(drop)
}

/// Landlock calls, landlock(7).
pub(super) mod landlock {
    use std::os::fd::FromRawFd as _;

    use super::{AsRawFd, BorrowedFd, Errno, OwnedFd, check};

    /// `struct landlock_ruleset_attr` of ABI 6; older kernels accept it as long as what they lack is zero.
    #[repr(C)]
    pub(in super::super) struct RulesetAttr {
        /// Handled file-system rights.
        pub(in super::super) handled_access_fs: u64,
        /// Handled network rights.
        pub(in super::super) handled_access_net: u64,
        /// Scopes.
        pub(in super::super) scoped: u64,
    }

    #[repr(C, packed)]
    struct PathBeneathAttr {
        allowed_access: u64,
        parent_fd: i32,
    }

    /// landlock_create_ruleset(2).
    pub(in super::super) fn create(attr: &RulesetAttr) -> Result<OwnedFd, Errno> {
        // SAFETY: `attr` is live and of the given size.
        let fd = check(unsafe {
            libc::syscall(
                libc::SYS_landlock_create_ruleset,
                std::ptr::from_ref(attr),
                size_of::<RulesetAttr>(),
                0,
            )
        })?;
        // SAFETY: the kernel returned a new descriptor that nobody else owns.
        Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).map_err(|_| Errno::OVERFLOW)?) })
    }

    /// landlock_add_rule(2) for a hierarchy.
    pub(in super::super) fn allow(
        ruleset: BorrowedFd<'_>,
        beneath: BorrowedFd<'_>,
        access: u64,
    ) -> Result<(), Errno> {
        const LANDLOCK_RULE_PATH_BENEATH: i32 = 1;
        let attr = PathBeneathAttr { allowed_access: access, parent_fd: beneath.as_raw_fd() };
        // SAFETY: `attr` is live and of the layout that the rule type asks for.
        check(unsafe {
            libc::syscall(
                libc::SYS_landlock_add_rule,
                ruleset.as_raw_fd(),
                LANDLOCK_RULE_PATH_BENEATH,
                std::ptr::from_ref(&attr),
                0,
            )
        })
        .map(drop)
    }

    /// landlock_restrict_self(2).
    pub(in super::super) fn restrict_self(ruleset: BorrowedFd<'_>) -> Result<(), Errno> {
        // SAFETY: passes integers only.
        check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) }).map(drop)
    }
}

/// Executes the program behind a descriptor, execveat(2); returns only on failure.
///
/// # Safety
/// `argv` and `envp` must be null-terminated arrays of NUL-terminated strings.
pub(super) unsafe fn execute(program: RawFd, argv: &[*const c_char], envp: &[*const c_char]) -> Errno {
    // SAFETY: by this function's contract; the empty path is a literal.
    let value = unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program,
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    check(value).err().unwrap_or(Errno::INVAL)
}

/// Refuses to go on with a capability, or with one that could be had again from the bounding set
/// (capabilities(7)).
///
/// # Errors
/// EPERM: there is one.
pub(super) fn refuse_capabilities() -> Result<(), Errno> {
    if rustix::thread::capabilities(None).is_ok_and(|sets| {
        sets.effective.is_empty() && sets.permitted.is_empty() && sets.inheritable.is_empty()
    }) {
        for capability in 0..64 {
            match prctl_value(libc::PR_CAPBSET_READ, capability) {
                Ok(0) => {}
                // The first number that the kernel does not know ends the list.
                Err(Errno::INVAL) => return Ok(()),
                Ok(_) | Err(_) => return Err(Errno::PERM),
            }
        }
        return Ok(());
    }
    Err(Errno::PERM)
}

/// The user namespace that the namespace behind `fd` belongs to, ioctl_ns(2), Linux 4.9.
///
/// # Errors
/// EPERM if it is not ours or one below it, ENOTTY if there is no namespace behind `fd`.
pub(super) fn owner_of_namespace(fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    // _IO(0xb7, 1) of linux/nsfs.h.
    const NS_GET_USERNS: u32 = 0xb701;
    // SAFETY: the request takes no argument.
    let owner = check(c_long::from(unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_USERNS as _) }))?;
    // SAFETY: the kernel returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(owner).map_err(|_| Errno::OVERFLOW)?) })
}
