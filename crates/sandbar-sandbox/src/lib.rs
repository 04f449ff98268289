//! One launch made real: the sandbox of the operating system around a command, and the host facts that a plan
//! needs.
//!
//! Takes a `LaunchSpec` as it is and carries it out step by step, or says which step the kernel refused. Never
//! decides what may be touched (that is `sandbar-policy`), never falls back to something weaker, holds nothing
//! after the start (that is `sandbar-keeper`). Has no runtime, no threads and no network client.

#[cfg(target_os = "linux")]
pub mod caller;
#[cfg(target_os = "linux")]
pub mod cgroup;
#[cfg(target_os = "linux")]
pub mod facts;
pub mod report;
pub mod seccomp;

#[cfg(target_os = "linux")]
pub mod terminal;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub use linux::guard;
#[cfg(target_os = "linux")]
pub use linux::{HOLDER_ARGUMENT, Spare, Spawner, end_bwrap_orphans, harden_self, holder_main};

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use sandbar_proto::{AbsPath, PinnedPath};
use serde::{Deserialize, Serialize};

/// A cache of a launch, and the layers that it is mounted from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheLayer {
    /// The host's cache: mount point, and lowest layer where there are layers.
    pub target: PinnedPath,
    /// What lies above.
    pub above: CacheAbove,
}

/// What lies above a host's cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CacheAbove {
    /// The store's layer, which this launch owns: what it writes is kept there.
    Kept {
        /// What earlier runs wrote.
        upper: AbsPath,
        /// Work directory of the overlay, on the same file system.
        work: AbsPath,
    },
    /// A layer that is forgotten at the end, over what earlier runs kept, if they did.
    Forgotten {
        /// What earlier runs wrote.
        kept: Option<AbsPath>,
    },
    /// A directory of the store instead of the host's cache.
    Separate {
        /// The directory.
        directory: AbsPath,
    },
}

/// A started tree: the process that holds it, and the channel to that process.
#[derive(Debug)]
pub struct Holder {
    /// Id of the holder in the caller's pid namespace.
    pub pid: i32,
    /// Handle of the holder; readable when it ended (pidfd_open(2)).
    pub pidfd: OwnedFd,
    /// Non-blocking SOCK_SEQPACKET carrying `crate::report` packets. Closing it ends the tree.
    pub control: OwnedFd,
    /// What a program that makes the sandbox complains about, as text; read when there was no report.
    pub complaint: Option<OwnedFd>,
}

/// Why no holder could be started.
#[derive(Debug)]
pub enum SpawnError {
    /// An argument, a variable or a path has a NUL byte.
    NulByte,
    /// The system-call filter can't be compiled.
    Filter(seccomp::SeccompError),
    /// The kernel's Landlock is older than the plan needs.
    Landlock {
        /// ABI version that the plan needs.
        needed: u32,
        /// ABI version that the kernel has; 0 for none.
        found: u32,
    },
    /// No channel to the holder, or a spare one that is gone.
    Channel(Errno),
    /// The kernel refused the process or its namespaces, clone(2).
    Namespaces(Errno),
    /// The id maps of the user namespace could not be written.
    IdMap(io::Error),
    /// Bubblewrap can't carry the plan out.
    Bwrap {
        /// Why not.
        obstacle: &'static str,
    },
    /// The plan has a limit that a cgroup enforces and there is no cgroup, or the other way round.
    Cgroup,
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NulByte => f.write_str("an argument, a variable or a path contains a NUL byte"),
            Self::Filter(error) => write!(f, "could not {error}"),
            Self::Landlock { needed, found } => {
                write!(f, "the kernel has Landlock ABI {found}, the plan needs {needed}")
            }
            Self::Channel(errno) => write!(f, "no channel to the sandbox: {errno}"),
            Self::Namespaces(errno) => write!(f, "the kernel refused the namespaces: {errno}"),
            Self::IdMap(error) => write!(f, "the id maps could not be written: {error}"),
            Self::Bwrap { obstacle } => write!(f, "bubblewrap can't carry it out: {obstacle}"),
            Self::Cgroup => f.write_str("the plan and its cgroup do not fit together"),
        }
    }
}

impl std::error::Error for SpawnError {}

impl From<seccomp::SeccompError> for SpawnError {
    fn from(error: seccomp::SeccompError) -> Self {
        Self::Filter(error)
    }
}
