//! The system-call filter of a command, as data.
//!
//! An allow-list: what is not named gets ENOSYS, so that a program takes the fallback it has for old kernels.
//! What is named and refused gets EPERM, the answer of a kernel that has the call and says no. `sandbar-sandbox`
//! makes the BPF program, skips names that the platform does not have, and handles foreign architectures.
//!
//! The filter takes away kernel attack surface and the few doors that mounts and namespaces leave open; it does
//! not decide about paths (a filter sees pointers, not what they point to) nor about addresses. Known prices:
//! chmod(2) with the set-group-id bit fails also on directories, so `git init --shared` and `chmod` in a
//! set-group-id directory fail; openat2(2) is answered with ENOSYS because its mode lies in memory; debuggers
//! and sandboxes within work only when that is asked for ([`Within`]).

use std::borrow::Cow;

use sandbar_proto::{ArgTest, NetworkMode, SeccompSpec, SyscallRule, Verdict};

const EPERM: Verdict = Verdict::Errno(1);
const ENOSYS: Verdict = Verdict::Errno(38);
const EAFNOSUPPORT: Verdict = Verdict::Errno(97);

const S_ISUID: u32 = 0o4000;
const S_ISGID: u32 = 0o2000;
const S_IFMT: u32 = 0o170_000;
const S_IFCHR: u32 = 0o020_000;
const S_IFBLK: u32 = 0o060_000;
const O_CREAT: u32 = 0o100;
/// The bit of `O_TMPFILE` that no other flag has; such an open uses its mode too.
const O_TMPFILE: u32 = 0o20_000_000;

const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
const SOCK_RAW: u32 = 3;
/// Above it lie `SOCK_CLOEXEC` and `SOCK_NONBLOCK`.
const SOCK_TYPE_MASK: u32 = 0xf;
const AF_UNIX: u32 = 1;
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const AF_NETLINK: u32 = 16;
const NETLINK_ROUTE: u32 = 0;

const TIOCSTI: u32 = 0x5412;
const TIOCLINUX: u32 = 0x541c;

/// `CLONE_NEWNS`, `NEWCGROUP`, `NEWUTS`, `NEWIPC`, `NEWUSER`, `NEWPID`, `NEWNET`.
const NAMESPACE_FLAGS: [u32; 7] =
    [0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];
/// Only for unshare(2): in clone(2) the bit belongs to the exit signal.
const CLONE_NEWTIME: u32 = 0x80;

/// Persona values that programs set: default, 32-bit uname, 2.6 uname, both, no address randomisation, query.
/// `READ_IMPLIES_EXEC` and its like would weaken the memory protection of what runs.
const PERSONALITIES: [u32; 6] = [0, 0x8, 0x2_0000, 0x2_0008, 0x4_0000, 0xffff_ffff];

#[rustfmt::skip]
const FILES: &[&str] = &[
    "access", "chdir", "chown", "close", "close_range", "copy_file_range", "dup", "dup2", "dup3", "faccessat",
    "faccessat2", "fadvise64", "fadvise64_64", "fallocate", "fchdir", "fchown", "fchownat", "fcntl", "fdatasync",
    "fgetxattr", "flistxattr", "flock", "fremovexattr", "fsetxattr", "fstat", "fstatfs", "fsync", "ftruncate",
    "futimesat", "getcwd", "getdents", "getdents64", "getxattr", "getxattrat", "inotify_add_watch",
    "inotify_init", "inotify_init1", "inotify_rm_watch", "lchown", "lgetxattr", "link", "linkat", "listxattr",
    "listxattrat", "llistxattr", "lremovexattr", "lseek", "lsetxattr", "lstat", "name_to_handle_at",
    "newfstatat", "pipe", "pipe2", "pread64", "preadv", "preadv2", "pwrite64", "pwritev", "pwritev2", "read",
    "readahead", "readlink", "readlinkat", "readv", "removexattr", "removexattrat", "rename", "renameat",
    "renameat2", "rmdir", "sendfile", "setxattr", "setxattrat", "splice", "stat", "statfs", "statx", "symlink",
    "symlinkat", "sync", "sync_file_range", "sync_file_range2", "syncfs", "tee", "truncate", "umask", "unlink",
    "unlinkat", "ustat", "utime", "utimensat", "utimes", "vmsplice", "write", "writev",
    // Asynchronous I/O of old, which databases use; io_uring is refused.
    "io_cancel", "io_destroy", "io_getevents", "io_pgetevents", "io_setup", "io_submit",
    "cachestat", "file_getattr", "file_setattr",
];

#[rustfmt::skip]
const MEMORY: &[&str] = &[
    "brk", "get_mempolicy", "madvise", "map_shadow_stack", "mbind", "membarrier", "memfd_create",
    "memfd_secret", "migrate_pages", "mincore", "mlock", "mlock2", "mlockall", "mmap", "move_pages", "mprotect",
    "mremap", "mseal", "msync", "munlock", "munlockall", "munmap", "pkey_alloc", "pkey_free", "pkey_mprotect",
    "process_madvise", "process_mrelease", "remap_file_pages", "set_mempolicy", "set_mempolicy_home_node",
];

#[rustfmt::skip]
const PROCESSES: &[&str] = &[
    "arch_prctl", "capget", "capset", "execve", "execveat", "exit", "exit_group", "fork", "futex",
    "futex_requeue", "futex_wait", "futex_waitv", "futex_wake", "get_robust_list", "get_thread_area", "getcpu",
    "getegid", "geteuid", "getgid", "getgroups", "getpgid", "getpgrp", "getpid", "getppid", "getpriority",
    "getresgid", "getresuid", "getrlimit", "getrusage", "getsid", "gettid", "getuid", "ioprio_get",
    "ioprio_set", "kill", "pidfd_open", "pidfd_send_signal", "prctl", "prlimit64", "restart_syscall", "rseq",
    "sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity", "sched_getattr", "sched_getparam",
    "sched_getscheduler", "sched_rr_get_interval", "sched_setaffinity", "sched_setattr", "sched_setparam",
    "sched_setscheduler", "sched_yield", "set_robust_list", "set_thread_area", "set_tid_address", "setfsgid",
    "setfsuid", "setgid", "setgroups", "setpgid", "setpriority", "setregid", "setresgid", "setresuid",
    "setreuid", "setrlimit", "setsid", "setuid", "sysinfo", "tgkill", "times", "tkill", "uname", "vfork",
    "wait4", "waitid",
    // With no_new_privs a further filter only takes more away.
    "landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self", "seccomp",
];

#[rustfmt::skip]
const SIGNALS_AND_TIME: &[&str] = &[
    "alarm", "clock_getres", "clock_gettime", "clock_nanosleep", "getitimer", "getrandom", "gettimeofday",
    "nanosleep", "pause", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn",
    "rt_sigsuspend", "rt_sigtimedwait", "rt_tgsigqueueinfo", "setitimer", "sigaltstack", "signalfd",
    "signalfd4", "time", "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime", "timer_settime",
    "timerfd_create", "timerfd_gettime", "timerfd_settime",
];

#[rustfmt::skip]
const WAITING: &[&str] = &[
    "epoll_create", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait", "eventfd",
    "eventfd2", "poll", "ppoll", "pselect6", "select",
];

// Only sockets that `socket` and `socketpair` made exist, so what is done with them needs no look. Denying these
// breaks asyncio, Bun and test clients (facts/sandbox.md §2.3).
#[rustfmt::skip]
const SOCKETS: &[&str] = &[
    "accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen", "recvfrom",
    "recvmmsg", "recvmsg", "sendmmsg", "sendmsg", "sendto", "setsockopt", "shutdown",
];

// The IPC namespace is the run's own.
#[rustfmt::skip]
const IPC: &[&str] = &[
    "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedsend", "mq_unlink", "msgctl", "msgget",
    "msgrcv", "msgsnd", "semctl", "semget", "semop", "semtimedop", "shmat", "shmctl", "shmdt", "shmget",
];

/// Calls that no command needs and that reach around mounts and namespaces, or are mostly attack surface.
#[rustfmt::skip]
const REFUSED: &[&str] = &[
    // Another process's descriptors, even of the same run: pid 1 is among them.
    "pidfd_getfd",
    // The caller's session keyring holds its secrets.
    "add_key", "keyctl", "request_key",
    // Large and young kernel interfaces.
    "bpf", "io_uring_enter", "io_uring_register", "io_uring_setup", "perf_event_open", "userfaultfd",
    // Opens what no path leads to; watches what other users open.
    "fanotify_init", "fanotify_mark", "lookup_dcookie", "nfsservctl", "open_by_handle_at",
    // The machine belongs to the host.
    "acct", "adjtimex", "clock_adjtime", "clock_settime", "create_module", "delete_module", "finit_module",
    "init_module", "ioperm", "iopl", "kexec_file_load", "kexec_load", "quotactl", "quotactl_fd", "reboot",
    "settimeofday", "swapoff", "swapon", "syslog", "vhangup",
];

/// Calls that make and enter sandboxes. The view of files is made once, outside, unless a run asks to nest.
#[rustfmt::skip]
const NESTING: &[&str] = &[
    "chroot", "fsconfig", "fsmount", "fsopen", "fspick", "mount", "mount_setattr", "move_mount", "open_tree",
    "open_tree_attr", "pivot_root", "setdomainname", "sethostname", "setns", "umount", "umount2",
];

/// Calls that look into another process of the run. Pid 1 can't be looked into: it is not dumpable.
const DEBUGGING: &[&str] = &["kcmp", "process_vm_readv", "process_vm_writev", "ptrace"];

/// What a run may do within its sandbox beyond what every command needs. Nothing of it leads out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Within {
    /// Trace and change its own processes: debuggers.
    pub debugging: bool,
    /// Make namespaces and mounts of its own: other sandboxes. A kernel that enforces Landlock on files refuses mounts (landlock(7)),
    /// so that layer is left out.
    pub nesting: bool,
}

/// The filter for a command.
///
/// The same for both network modes: what an allowed socket reaches is the network namespace's concern, and own
/// loopback servers have to work without a network.
#[must_use]
pub fn command_filter(_network: NetworkMode, within: Within) -> SeccompSpec {
    let mut groups = vec![FILES, MEMORY, PROCESSES, SIGNALS_AND_TIME, WAITING, SOCKETS, IPC];
    let mut refused = vec![REFUSED];
    for (calls, is_allowed) in [(NESTING, within.nesting), (DEBUGGING, within.debugging)] {
        if is_allowed { groups.push(calls) } else { refused.push(calls) }
    }
    let mut rules: Vec<SyscallRule> =
        refused.into_iter().flatten().map(|name| rule(name, Vec::new(), EPERM)).collect();
    rules.extend(process_rules(within));
    rules.extend(file_rules());
    rules.extend(socket_rules());
    SeccompSpec {
        allow: groups.into_iter().flatten().map(|name| Cow::Borrowed(*name)).collect(),
        rules,
        default: ENOSYS,
    }
}

type Clause = (Vec<ArgTest>, Verdict);

fn rule(name: &'static str, when: Vec<Clause>, otherwise: Verdict) -> SyscallRule {
    SyscallRule { name: Cow::Borrowed(name), when, otherwise }
}

fn has_bit(arg: u8, bit: u32) -> ArgTest {
    ArgTest { arg, mask: bit, value: bit }
}

fn is(arg: u8, value: u32) -> ArgTest {
    ArgTest { arg, mask: u32::MAX, value }
}

fn process_rules(within: Within) -> Vec<SyscallRule> {
    let refuse_each = |flags: &[u32]| flags.iter().map(|flag| (vec![has_bit(0, *flag)], EPERM)).collect();
    let namespaces: &[u32] = if within.nesting { &[] } else { &NAMESPACE_FLAGS };
    let unshared: Vec<u32> = namespaces.iter().copied().chain([CLONE_NEWTIME]).collect();
    // The kernel looks at the low 32 bits of the command only, and so does a test.
    let terminal = [TIOCSTI, TIOCLINUX].map(|command| (vec![is(1, command)], EPERM)).to_vec();
    let personas = PERSONALITIES.map(|persona| (vec![is(0, persona)], Verdict::Allow)).to_vec();
    vec![
        // A user namespace inside would be full of capabilities over a large part of the kernel.
        rule("clone", refuse_each(namespaces), Verdict::Allow),
        // Its flags lie in memory; C libraries fall back to clone.
        rule("clone3", Vec::new(), ENOSYS),
        rule("unshare", refuse_each(&unshared), Verdict::Allow),
        // Types characters into the terminal that the person uses afterwards.
        rule("ioctl", terminal, Verdict::Allow),
        rule("personality", personas, EPERM),
    ]
}

fn file_rules() -> Vec<SyscallRule> {
    // The workspace is nosuid inside, but a file made as uid 0 would keep its bits for everybody outside.
    let mode = |arg| [S_ISUID, S_ISGID].map(|bit| (vec![has_bit(arg, bit)], EPERM)).to_vec();
    // mkdir(2) ignores the bits anyway; S_ISUID there is never meant well.
    let directory = |arg| vec![(vec![has_bit(arg, S_ISUID)], EPERM)];
    vec![
        rule("chmod", mode(1), Verdict::Allow),
        rule("fchmod", mode(1), Verdict::Allow),
        rule("fchmodat", mode(2), Verdict::Allow),
        rule("fchmodat2", mode(2), Verdict::Allow),
        rule("creat", mode(1), Verdict::Allow),
        rule("open", opened(1), Verdict::Allow),
        rule("openat", opened(2), Verdict::Allow),
        // Its mode lies in memory; programs fall back to openat.
        rule("openat2", Vec::new(), ENOSYS),
        rule("mkdir", directory(1), Verdict::Allow),
        rule("mkdirat", directory(2), Verdict::Allow),
        rule("mknod", node(1), Verdict::Allow),
        rule("mknodat", node(2), Verdict::Allow),
    ]
}

/// Clauses for a call with its flags in `flags` and its mode behind them.
///
/// Without `O_CREAT` or `O_TMPFILE` the register of the mode holds whatever was left there.
fn opened(flags: u8) -> Vec<Clause> {
    let mut clauses = Vec::new();
    for makes in [O_CREAT, O_TMPFILE] {
        for bit in [S_ISUID, S_ISGID] {
            clauses.push((vec![has_bit(flags, makes), has_bit(flags + 1, bit)], EPERM));
        }
    }
    clauses
}

/// Clauses for a call that makes nodes: no devices, no set-id files; FIFOs, sockets and plain files are fine.
fn node(mode: u8) -> Vec<Clause> {
    let kind = |value| (vec![ArgTest { arg: mode, mask: S_IFMT, value }], EPERM);
    let bit = |bit| (vec![has_bit(mode, bit)], EPERM);
    vec![kind(S_IFCHR), kind(S_IFBLK), bit(S_ISUID), bit(S_ISGID)]
}

fn socket_rules() -> Vec<SyscallRule> {
    let kind = |value| ArgTest { arg: 1, mask: SOCK_TYPE_MASK, value };
    // A datagram socket sends to any socket of the host whose path it can name, without connecting. The kernel
    // makes a datagram socket of a unix SOCK_RAW too (unix(7)).
    let unix = [
        (vec![is(0, AF_UNIX), kind(SOCK_DGRAM)], EPERM),
        (vec![is(0, AF_UNIX), kind(SOCK_RAW)], EPERM),
        (vec![is(0, AF_UNIX)], Verdict::Allow),
    ];
    // Streams and datagrams, ICMP datagrams among them; SOCK_PACKET (10) would be a packet socket.
    let internet = [AF_INET, AF_INET6].into_iter().flat_map(|family| {
        [
            (vec![is(0, family), kind(SOCK_STREAM)], Verdict::Allow),
            (vec![is(0, family), kind(SOCK_DGRAM)], Verdict::Allow),
            (vec![is(0, family)], EPERM),
        ]
    });
    // getifaddrs(3) asks by NETLINK_ROUTE.
    let netlink =
        [(vec![is(0, AF_NETLINK), is(2, NETLINK_ROUTE)], Verdict::Allow), (vec![is(0, AF_NETLINK)], EPERM)];
    let socket = unix.iter().cloned().chain(internet).chain(netlink).collect();
    // AF_VSOCK is not confined by a network namespace, AF_ALG and AF_PACKET are attack surface.
    vec![rule("socket", socket, EAFNOSUPPORT), rule("socketpair", unix.to_vec(), EAFNOSUPPORT)]
}

mod landlock;
pub use landlock::filter_without_namespaces;

#[cfg(test)]
mod tests;
