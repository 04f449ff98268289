//! A system call, as far as it matters to what a process leaves behind.

/// A call, by its number on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    number: i64,
    /// The third argument, which has the flags of openat(2).
    third: u64,
}

/// What makes, changes, moves or removes files, mounts and processes.
const CHANGES: &[i64] = &[
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_mknodat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_bind,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_mount,
    libc::SYS_move_mount,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_exit_group,
    libc::SYS_kill,
    libc::SYS_pidfd_send_signal,
];

/// Those that only old machines have.
#[cfg(target_arch = "x86_64")]
const OLD_CHANGES: &[i64] = &[
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_link,
    libc::SYS_symlink,
    libc::SYS_chmod,
    libc::SYS_fork,
    libc::SYS_vfork,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD_CHANGES: &[i64] = &[];

impl Call {
    pub(crate) fn new(number: u64, arguments: [u64; 6]) -> Self {
        Self { number: i64::try_from(number).unwrap_or(-1), third: arguments[2] }
    }

    /// Whether files, mounts or processes may be others behind it.
    #[must_use]
    pub fn changes_files(&self) -> bool {
        let creates =
            self.number == libc::SYS_openat && self.third & u64::from(libc::O_CREAT.cast_unsigned()) != 0;
        creates || CHANGES.contains(&self.number) || OLD_CHANGES.contains(&self.number)
    }

    /// Whether it makes a directory.
    #[must_use]
    pub fn makes_directory(&self) -> bool {
        #[cfg(target_arch = "x86_64")]
        if self.number == libc::SYS_mkdir {
            return true;
        }
        self.number == libc::SYS_mkdirat
    }

    /// Whether it gives a socket its name.
    #[must_use]
    pub fn binds(&self) -> bool {
        self.number == libc::SYS_bind
    }
}
