//! The runtime directory: where keepers listen and what they hold is written down.
//!
//! ```text
//! <runtime>/            0700, owned by the caller, no symlink
//!   k1-<context>/       one keeper: protocol major, and a hash of what its children inherit from it
//!     sock  lock  start.lock
//!     processes/<run id>/   start.json  end.json  closed.json  inputs.json  log.00000000 …
//! ```
//!
//! Callers of one user share a keeper only if their children would come out the same: groups and network, mount
//! and cgroup namespaces are part of the context, and so are hard resource limits that would harm a keeper.

use std::fmt;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use sandbar_proto::ProcessAttributes;

use crate::protocol::MAJOR;

/// Why a runtime directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeDirError {
    /// It could not be made, opened or looked at.
    #[error("use the runtime directory {}: {errno}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// The kernel's error.
        errno: Errno,
    },
    /// It, or what is in its place, can't be trusted with our sockets.
    #[error("trust the runtime directory {}: {reason}", path.display())]
    Untrusted {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: Distrust,
    },
}

/// What is wrong with a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distrust {
    /// It is a symlink or no directory at all.
    NotADirectory,
    /// Somebody else owns it.
    Owner(u32),
    /// Others may enter it.
    Mode(u32),
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotADirectory => f.write_str("it is not a directory"),
            Self::Owner(uid) => write!(f, "it belongs to user {uid}"),
            Self::Mode(mode) => write!(f, "others may enter it (mode {mode:04o})"),
        }
    }
}

/// A checked directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeDir {
    path: PathBuf,
}

impl RuntimeDir {
    /// Makes or checks the directory at `path`: owned by the caller, 0700, not a symlink.
    ///
    /// # Errors
    /// [`RuntimeDirError`]; an existing directory is never changed.
    pub fn open(path: &Path) -> Result<Self, RuntimeDirError> {
        ensure_private(path)?;
        Ok(Self { path: path.to_owned() })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The home of the keeper for a caller with these attributes.
    ///
    /// # Errors
    /// [`RuntimeDirError::Io`] if the caller's namespaces can't be told.
    pub fn keeper(&self, attributes: &ProcessAttributes) -> Result<KeeperDir, RuntimeDirError> {
        let context = context(attributes)
            .map_err(|errno| RuntimeDirError::Io { path: PathBuf::from("/proc/self/ns"), errno })?;
        Ok(KeeperDir { path: self.path.join(format!("k{MAJOR}-{context:016x}")) })
    }

    /// The homes of all keepers of this protocol, and how many there are of others.
    ///
    /// # Errors
    /// [`RuntimeDirError::Io`].
    pub fn keepers(&self) -> Result<(Vec<KeeperDir>, usize), RuntimeDirError> {
        let io = |error: std::io::Error| RuntimeDirError::Io {
            path: self.path.clone(),
            errno: Errno::from_io_error(&error).unwrap_or(Errno::IO),
        };
        let mut found = Vec::new();
        let mut foreign = 0;
        let prefix = format!("k{MAJOR}-");
        for entry in std::fs::read_dir(&self.path).map_err(io)? {
            let entry = entry.map_err(io)?;
            let name = entry.file_name();
            match name.to_str() {
                Some(name) if name.starts_with(&prefix) => found.push(KeeperDir { path: entry.path() }),
                Some(name) if is_keeper_of_another_major(name) => foreign += 1,
                Some(_) | None => {}
            }
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok((found, foreign))
    }
}

fn is_keeper_of_another_major(name: &str) -> bool {
    let major = name.strip_prefix('k').and_then(|rest| rest.split_once('-')).map(|(major, _)| major);
    major.is_some_and(|major| !major.is_empty() && major.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The home of one keeper.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeeperDir {
    path: PathBuf,
}

impl KeeperDir {
    /// A home at a path that was handed over by its client.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it, or checks it.
    ///
    /// # Errors
    /// [`RuntimeDirError`].
    pub fn ensure(&self) -> Result<(), RuntimeDirError> {
        ensure_private(&self.path)?;
        ensure_private(&self.processes())
    }

    /// Directories of processes, by run id.
    #[must_use]
    pub fn processes(&self) -> PathBuf {
        self.path.join("processes")
    }

    /// Held exclusively by the keeper while it lives.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.path.join("lock")
    }

    /// Held by a client while it starts the keeper.
    #[must_use]
    pub fn start_lock(&self) -> PathBuf {
        self.path.join("start.lock")
    }

    /// Name of the socket within the directory.
    pub const SOCKET: &'static str = "sock";

    /// Opens the directory, and gives the address of its socket, which stays valid while the directory is open.
    /// The way through /proc keeps any length of path within the 108 bytes of sockaddr_un (unix(7)).
    pub(crate) fn socket_address(&self, name: &str) -> Result<(OwnedFd, PathBuf), Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::open(&self.path, flags, Mode::empty())?;
        let address = PathBuf::from(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()));
        Ok((directory, address))
    }
}

fn ensure_private(path: &Path) -> Result<(), RuntimeDirError> {
    let io = |errno| RuntimeDirError::Io { path: path.to_owned(), errno };
    match rustix::fs::mkdir(path, Mode::RWXU) {
        // The caller's umask may have taken our own rights away.
        Ok(()) => rustix::fs::chmod(path, Mode::RWXU).map_err(io)?,
        Err(Errno::EXIST) => {}
        Err(errno) => return Err(io(errno)),
    }
    let stat = rustix::fs::lstat(path).map_err(io)?;
    let mode = stat.st_mode & 0o7777;
    let reason = if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        Distrust::NotADirectory
    } else if stat.st_uid != rustix::process::geteuid().as_raw() {
        Distrust::Owner(stat.st_uid)
    } else if mode & 0o077 != 0 {
        Distrust::Mode(mode)
    } else {
        return Ok(());
    };
    Err(RuntimeDirError::Untrusted { path: path.to_owned(), reason })
}

/// A hash over what a child inherits from its keeper and a plan does not state.
fn context(attributes: &ProcessAttributes) -> Result<u64, Errno> {
    let mut hash = Fnv::new();
    hash.add(u64::from(rustix::process::getegid().as_raw()));
    let mut groups: Vec<u32> =
        rustix::process::getgroups()?.into_iter().map(|group| group.as_raw()).collect();
    groups.sort_unstable();
    for group in groups {
        hash.add(u64::from(group));
    }
    for namespace in
        [c"/proc/self/ns/net", c"/proc/self/ns/mnt", c"/proc/self/ns/cgroup", c"/proc/self/ns/user"]
    {
        match rustix::fs::stat(namespace) {
            Ok(stat) => hash.add(stat.st_ino),
            // A kernel without this kind of namespace has one of it.
            Err(Errno::NOENT) => hash.add(0),
            Err(errno) => return Err(errno),
        }
    }
    for limit in harmful(attributes) {
        hash.add(limit);
    }
    Ok(hash.0)
}

/// The hard limits that a keeper can't raise again and that would end it or keep it from its work, as numbers. A
/// caller who has some gets a keeper of its own, and harms no other. Lower ones of other kinds go only to commands.
fn harmful(attributes: &ProcessAttributes) -> impl Iterator<Item = u64> {
    /// What every Linux has at least as hard limit of open files.
    const USUAL_FILES: u64 = 4096;
    let is_harmful = |resource: u32, most: u64| match resource {
        libc::RLIMIT_CPU | libc::RLIMIT_FSIZE | libc::RLIMIT_AS | libc::RLIMIT_DATA => true,
        libc::RLIMIT_NOFILE | libc::RLIMIT_NPROC => most < USUAL_FILES,
        _ => false,
    };
    let found = attributes.rlimits.iter().filter_map(move |(resource, _, most)| {
        let most = (*most)?;
        is_harmful(*resource, most).then_some([u64::from(*resource), most])
    });
    found.flatten()
}

/// FNV-1a with 64 bits, a name for a context and nothing that anybody could gain by colliding.
struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, value: u64) {
        for byte in value.to_le_bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_missing_directory_is_made_private() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("run");
        RuntimeDir::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o700);
    }

    #[test]
    fn a_directory_that_others_may_enter_is_refused_and_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("run");
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let error = RuntimeDir::open(&path).unwrap_err();
        assert!(matches!(error, RuntimeDirError::Untrusted { reason: Distrust::Mode(0o755), .. }), "{error}");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o755);
    }

    #[test]
    fn a_symlink_is_refused_even_if_it_leads_to_a_private_directory() {
        let parent = tempfile::tempdir().unwrap();
        let real = parent.path().join("real");
        RuntimeDir::open(&real).unwrap();
        let link = parent.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let error = RuntimeDir::open(&link).unwrap_err();
        assert!(
            matches!(error, RuntimeDirError::Untrusted { reason: Distrust::NotADirectory, .. }),
            "{error}"
        );
    }

    #[test]
    fn keepers_of_other_majors_are_counted_and_other_files_are_not() {
        let parent = tempfile::tempdir().unwrap();
        let runtime = RuntimeDir::open(&parent.path().join("run")).unwrap();
        let own = runtime.keeper(&ProcessAttributes::default()).unwrap();
        own.ensure().unwrap();
        for other in ["k2-00", "kx-1", "notes"] {
            std::fs::create_dir(runtime.path().join(other)).unwrap();
        }
        assert_eq!(runtime.keepers().unwrap(), (vec![own], 1));
    }

    #[test]
    fn one_caller_always_finds_the_same_keeper() {
        let plain = ProcessAttributes::default();
        assert_eq!(context(&plain), context(&plain));
    }

    #[test]
    fn hard_limits_that_would_harm_a_keeper_give_it_to_their_caller_alone() {
        let with = |resource, soft, hard| {
            let rlimits = vec![(resource, soft, hard)];
            context(&ProcessAttributes { rlimits, ..ProcessAttributes::default() }).unwrap()
        };
        let usual = context(&ProcessAttributes::default()).unwrap();
        assert_eq!(with(libc::RLIMIT_CPU, Some(60), None), usual, "a soft one is raised");
        assert_eq!(with(libc::RLIMIT_NOFILE, Some(64), Some(4096)), usual);
        assert_eq!(with(libc::RLIMIT_MEMLOCK, Some(1), Some(1)), usual, "no business of a keeper's");
        assert_ne!(with(libc::RLIMIT_CPU, Some(60), Some(60)), usual);
        assert_ne!(with(libc::RLIMIT_CPU, Some(60), Some(60)), with(libc::RLIMIT_CPU, Some(60), Some(61)));
        assert_ne!(with(libc::RLIMIT_NOFILE, Some(64), Some(64)), usual);
    }
}
