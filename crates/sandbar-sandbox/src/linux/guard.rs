//! Walls that the host pulls down by renaming files, put up again.
//!
//! A mount stands on a file, not on its name: who outside of the sandbox renames another file over that name takes the
//! mount away with the old one, in every mount namespace (rename(2) since Linux 3.18), and what was hidden or read-only
//! there is not any more. Git does so with its configuration, editors do so with every file. The keeper watches the names
//! ([`guarded`] says which) and has [`restore`] protect what has them now: a child joins the sandbox's mount namespace for
//! that and leaves.
//!
//! What can't be protected again is an error, and the keeper's answer to that is to end the run. Between the rename and
//! the new mount the file is open; docs/threat-model.md says so.

use std::ffi::CString;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sandbar_proto::{
    AbsPath, BindAccess, FactAnswer, FactQuery, FileIdentity, LinuxSandbox, MountOp, PinnedPath, Timestamp,
    TmpfsAccess,
};
use serde::{Deserialize, Serialize};

use super::sys::{MountAttr, Reach};
use super::{holder, mounts, sys};
use crate::facts::{self, identity};

/// How long a child may take: it waits for nothing but the file systems that the paths are on.
const DEADLINE: Duration = Duration::from_secs(5);

/// How often a name is tried whose file is replaced while it is being protected.
const MOST_ATTEMPTS: usize = 1000;

/// What a name is protected by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protection {
    /// It is covered.
    Hidden {
        /// The cover of a file may be read, as empty.
        readable_empty: bool,
    },
    /// It is read-only among what may be written.
    ReadOnly,
    /// An empty directory stands there, in which something of what is below is shown again.
    Emptied,
    /// It can't be renamed away, because something below it is protected.
    Pinned,
}

const HIDDEN: Protection = Protection::Hidden { readable_empty: false };

/// A name that must stay protected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guarded {
    /// The name.
    pub path: AbsPath,
    /// What had it when the plan was made.
    pub identity: FileIdentity,
    /// How it is protected.
    pub by: Protection,
    /// Whether the command could make something of that name if nothing had it.
    pub is_in_writable: bool,
}

impl Guarded {
    /// Something that a pattern covers, and nobody may see. It may be gone again: then there is nothing to see.
    #[must_use]
    pub fn found(found: PinnedPath) -> Self {
        Self { path: found.path, identity: found.identity, by: HIDDEN, is_in_writable: false }
    }
}

/// The names that a sandbox protects and a host can take the protection from, as the plan orders them: none before one that
/// is above it.
#[must_use]
pub fn guarded(sandbox: &LinuxSandbox) -> Vec<Guarded> {
    let mut writable: Vec<&AbsPath> = Vec::new();
    let mut found = Vec::new();
    for op in &sandbox.mounts {
        let is_in_writable =
            |path: &AbsPath| writable.iter().any(|root| path != *root && path.starts_with(root));
        match op {
            MountOp::Mask { target, readable_empty } => {
                // What a pattern covers is hidden again when it comes again, whoever makes it.
                let is_watched_for = sandbox.globs.iter().any(|glob| glob.matches(&target.path));
                found.push(Guarded {
                    path: target.path.clone(),
                    identity: target.identity,
                    by: Protection::Hidden { readable_empty: *readable_empty },
                    is_in_writable: is_in_writable(&target.path) && !is_watched_for,
                });
            }
            MountOp::Bind { source, target, access } if source.path == *target => {
                if is_in_writable(target) {
                    let by = match access {
                        BindAccess::Read => Protection::ReadOnly,
                        BindAccess::Write => Protection::Pinned,
                    };
                    found.push(Guarded {
                        path: target.clone(),
                        identity: source.identity,
                        by,
                        is_in_writable: true,
                    });
                } else if *access == BindAccess::Write {
                    writable.push(target);
                }
            }
            MountOp::Tmpfs { target, access: TmpfsAccess::Read, .. } if *target != AbsPath::root() => {
                // The plan does not say which directory that is; what is there now is what it stands on.
                if let FactAnswer::File(fact) = facts::answer(&FactQuery::Lookup(target.clone())) {
                    found.push(Guarded {
                        path: target.clone(),
                        identity: fact.pinned.identity,
                        by: Protection::Emptied,
                        is_in_writable: is_in_writable(target),
                    });
                }
            }
            // Shown at another place than its own, or made by ourselves: no name of the host's leads there.
            MountOp::Bind { .. }
            | MountOp::Tmpfs { .. }
            | MountOp::MakeDir { .. }
            | MountOp::MakeFile { .. }
            | MountOp::Symlink { .. }
            | MountOp::Proc
            | MountOp::Dev => {}
        }
    }
    found
}

/// The mount namespace of a running sandbox, and the user namespace that it belongs to.
#[derive(Debug)]
pub struct Walls {
    mounts: OwnedFd,
    owner: OwnedFd,
}

impl Walls {
    /// Of the mount namespace at `mounts`.
    ///
    /// # Errors
    /// It is none, or belongs to a user namespace above ours (ioctl_ns(2)).
    pub fn new(mounts: OwnedFd) -> Result<Self, Errno> {
        let owner = sys::owner_of_namespace(mounts.as_fd())?;
        Ok(Self { mounts, owner })
    }

    /// The mount namespace, which is all there is to keep.
    #[must_use]
    pub fn mounts(&self) -> &OwnedFd {
        &self.mounts
    }
}

/// Why a name is not protected any more.
#[derive(Debug)]
pub enum NotRestored {
    /// The child failed at this name.
    At(usize),
    /// There was no child, or it ended otherwise.
    Child(Errno),
    /// The child did not end in time. It was killed, and may be stuck in a file system: it is still to be waited for.
    Stuck(OwnedFd),
}

/// Protects what has these names now.
///
/// # Errors
/// [`NotRestored`]; names before the one that failed may be protected.
///
/// # Safety
/// The calling process must have one thread: the child goes on with a copy of its memory.
pub unsafe fn restore(walls: &Walls, names: &[&Guarded]) -> Result<(), NotRestored> {
    let mut prepared = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        let path = CString::new(name.path.as_bytes()).map_err(|_| NotRestored::At(index))?;
        prepared.push((path, *name));
    }
    // SAFETY: the caller has one thread.
    match unsafe { sys::fork(0) }.map_err(NotRestored::Child)? {
        sys::Fork::Child => {
            // An exit status has eight bits; a name beyond them is told as the last.
            let failed = restore_in(walls, &prepared).err();
            holder::exit(failed.map_or(0, |index| i32::try_from(index + 1).unwrap_or(255).min(255)))
        }
        sys::Fork::Parent { pid, pidfd } => await_child(pid, pidfd),
    }
}

fn await_child(pid: i32, pidfd: OwnedFd) -> Result<(), NotRestored> {
    let deadline = rustix::time::Timespec { tv_sec: DEADLINE.as_secs().cast_signed(), tv_nsec: 0 };
    let ended = loop {
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&deadline)) {
            Err(Errno::INTR) => {}
            other => break other,
        }
    };
    if !matches!(ended, Ok(1..)) {
        let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
        return Err(NotRestored::Stuck(pidfd));
    }
    let pid = rustix::process::Pid::from_raw(pid).ok_or(NotRestored::Child(Errno::SRCH))?;
    let status = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
    match status.map_err(NotRestored::Child)?.and_then(|(_, status)| status.exit_status()) {
        Some(0) => Ok(()),
        Some(code) => Err(NotRestored::At(usize::try_from(code - 1).unwrap_or_default())),
        None => Err(NotRestored::Child(Errno::INTR)),
    }
}

/// In the child: joins the sandbox and protects one name after another. Returns the index of the one that failed.
fn restore_in(walls: &Walls, names: &[(CString, &Guarded)]) -> Result<(), usize> {
    let join = |fd: BorrowedFd<'_>, kind| move_into_link_name_space(fd, Some(kind));
    // Its owner first: only there we may join it (setns(2)).
    join(walls.owner.as_fd(), LinkNameSpaceType::User).map_err(|_| 0_usize)?;
    join(walls.mounts.as_fd(), LinkNameSpaceType::Mount).map_err(|_| 0_usize)?;
    for (index, (path, name)) in names.iter().enumerate() {
        match protect_what_is_there(path, name) {
            Ok(()) => {}
            // Nothing is there, and the command can't make anything there.
            Err(Errno::NOENT) if !name.is_in_writable => {}
            Err(_) => return Err(index),
        }
    }
    Ok(())
}

/// Protects what has a name, also when that is replaced again meanwhile.
fn protect_what_is_there(path: &CString, name: &Guarded) -> Result<(), Errno> {
    for _ in 0..MOST_ATTEMPTS {
        let place = mounts::open_place(path)?;
        match protect(place.as_fd(), name) {
            // Nothing can be mounted on what has no name any more; another may have it now.
            Err(Errno::NOENT) => {}
            other => return other,
        }
    }
    Err(Errno::BUSY)
}

fn protect(place: BorrowedFd<'_>, name: &Guarded) -> Result<(), Errno> {
    let stat = rustix::fs::fstat(place)?;
    let is_read_only = rustix::fs::fstatvfs(place)?.f_flag.contains(StatVfsMountFlags::RDONLY);
    // The host's own may be empty, without permissions and read-only for now as well, but nobody mounted it here.
    let is_mounted = mounts::is_mounted(place)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    match name.by {
        Protection::Hidden { readable_empty } => {
            // A cover has no permissions, is empty, or is the null device.
            let is_cover = stat.st_mode & 0o777 == 0
                || kind == FileType::CharacterDevice
                || readable_empty && stat.st_size == 0 && kind == FileType::RegularFile;
            if is_mounted && is_read_only && is_cover {
                return Ok(());
            }
            match kind {
                FileType::Symlink => Err(Errno::LOOP),
                FileType::Directory => {
                    let cover = mounts::new_tmpfs(c"0000", None)?;
                    sys::mount_setattr(cover.as_fd(), Reach::One, &MountAttr::READ_ONLY)?;
                    mounts::attach(cover.as_fd(), place)
                }
                FileType::RegularFile
                | FileType::Fifo
                | FileType::Socket
                | FileType::CharacterDevice
                | FileType::BlockDevice
                | FileType::Unknown => {
                    let null = mounts::open_place(c"/dev/null")?;
                    let cover = mounts::clone_mount(null.as_fd(), c"", Reach::One)?;
                    // Without devices it can't even be opened.
                    let attributes = if readable_empty { &MountAttr::READ_ONLY } else { &MountAttr::SEALED };
                    sys::mount_setattr(cover.as_fd(), Reach::One, attributes)?;
                    mounts::attach(cover.as_fd(), place)
                }
            }
        }
        Protection::Emptied if is_mounted && is_read_only => Ok(()),
        // What was shown again below is gone with it; nothing is less than it should be.
        Protection::Emptied => protect(place, &Guarded { by: HIDDEN, ..name.clone() }),
        Protection::ReadOnly if is_read_only => Ok(()),
        Protection::Pinned if is_mounted => Ok(()),
        Protection::ReadOnly | Protection::Pinned => {
            if kind == FileType::Symlink {
                return Err(Errno::LOOP);
            }
            let attributes =
                if name.by == Protection::ReadOnly { &MountAttr::SEALED } else { &MountAttr::CONFINED };
            let tree = mounts::clone_mount(place, c"", Reach::Tree)?;
            sys::mount_setattr(tree.as_fd(), Reach::Tree, attributes)?;
            mounts::attach(tree.as_fd(), place)
        }
    }
}

/// Whether a name certainly still leads to what the plan was made for, which was before `started`. A file that took the place
/// of another may have its inode number as well, so one that changed since says nothing.
#[must_use]
pub fn is_unchanged(name: &Guarded, started: Timestamp) -> bool {
    let Ok(path) = CString::new(name.path.as_bytes()) else { return false };
    let Ok(stat) = mounts::open_place(&path).and_then(rustix::fs::fstat) else { return false };
    let seconds = u64::try_from(stat.st_ctime).unwrap_or_default();
    let changed = Timestamp(seconds.saturating_mul(1_000_000_000).saturating_add(stat.st_ctime_nsec));
    identity(&stat) == name.identity && started.since(changed) > LEEWAY
}

/// Time from the first look of a plan to its start, and what clocks of file systems lag behind.
const LEEWAY: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use sandbar_proto::{
        ByteString, Executor, FileKind, IdRange, Identity, NetworkMode, SeccompSpec, Verdict,
    };

    fn abs(path: &str) -> AbsPath {
        AbsPath::new(path).unwrap()
    }

    fn pinned(path: &str) -> PinnedPath {
        PinnedPath { path: abs(path), identity: FileIdentity { dev: 1, ino: 2, kind: FileKind::Directory } }
    }

    fn bind(path: &str, access: BindAccess) -> MountOp {
        MountOp::Bind { source: pinned(path), target: abs(path), access }
    }

    fn found(mounts: Vec<MountOp>) -> Vec<(String, Protection, bool)> {
        let only = vec![IdRange { first: 0, count: 1 }];
        let sandbox = LinuxSandbox {
            executor: Executor::Native,
            identity: Identity { users: only.clone(), groups: only, run_as: None },
            network: NetworkMode::Off,
            mounts,
            caches: Vec::new(),
            placeholders: Vec::new(),
            placeholder_pool: None,
            globs: Vec::new(),
            landlock: None,
            seccomp: SeccompSpec { allow: Vec::new(), rules: Vec::new(), default: Verdict::Allow },
        };
        let names = guarded(&sandbox).into_iter();
        names.map(|name| (name.path.to_display(), name.by, name.is_in_writable)).collect()
    }

    #[test]
    fn what_the_host_can_uncover_is_guarded_and_nothing_else() {
        let hidden = Protection::Hidden { readable_empty: false };
        let mounts = vec![
            MountOp::Proc,
            MountOp::Tmpfs {
                target: abs("/tmp"),
                mode: 0o1777,
                access: TmpfsAccess::Write,
                size_bytes: None,
            },
            MountOp::Tmpfs { target: abs("/usr"), mode: 0o111, access: TmpfsAccess::Read, size_bytes: None },
            bind("/w", BindAccess::Write),
            bind("/r", BindAccess::Read),
            MountOp::Mask { target: pinned("/home/u/.ssh"), readable_empty: false },
            bind("/w/.git", BindAccess::Write),
            bind("/w/.git/hooks", BindAccess::Read),
            MountOp::Mask { target: pinned("/w/.env"), readable_empty: false },
            MountOp::Bind { source: pinned("/etc/x"), target: abs("/w/x"), access: BindAccess::Read },
            MountOp::Symlink { path: abs("/run/l"), to: ByteString::from("/x") },
        ];
        let expected = [
            ("/usr", Protection::Emptied, false),
            ("/home/u/.ssh", hidden, false),
            ("/w/.git", Protection::Pinned, true),
            ("/w/.git/hooks", Protection::ReadOnly, true),
            ("/w/.env", hidden, true),
        ];
        assert_eq!(found(mounts), expected.map(|(path, by, writable)| (path.to_owned(), by, writable)));
    }
}
