//! Cgroups of version 2 by reads and writes of their files, cgroups(7).
//!
//! A [`Cgroup`] is an open directory of the hierarchy; everything goes through that descriptor, so nothing that is
//! mounted or renamed meanwhile leads elsewhere. Decides nothing and holds nothing: which cgroups there are and when
//! they go is the keeper's concern.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, Mode, OFlags};
use rustix::io::Errno;
use sandbar_proto::CgroupObstacle;
use serde::{Deserialize, Serialize};

/// `f_type` of a cgroup file system of version 2 (statfs(2)).
const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;

/// A cgroup.
#[derive(Debug)]
pub struct Cgroup {
    directory: OwnedFd,
    path: PathBuf,
}

/// Controllers that limit a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Controllers {
    /// `pids`.
    pub pids: bool,
    /// `memory`.
    pub memory: bool,
}

impl Controllers {
    /// Those of a file such as cgroup.controllers.
    fn parse(text: &str) -> Self {
        let has = |name| text.split_ascii_whitespace().any(|word| word == name);
        Self { pids: has("pids"), memory: has("memory") }
    }

    /// Those of `self` that are not in `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self { pids: self.pids && !other.pids, memory: self.memory && !other.memory }
    }

    /// Whether it is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// What cgroup.subtree_control is told.
    fn words(self, sign: char) -> String {
        let named = [(self.pids, "pids"), (self.memory, "memory")];
        let words = named.iter().filter(|(is_in, _)| *is_in).map(|(_, name)| format!("{sign}{name}"));
        words.collect::<Vec<_>>().join(" ")
    }
}

/// Bounds of a cgroup; `None` leaves the kernel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    /// Processes and threads at one time.
    pub pids: Option<u64>,
    /// Memory in bytes. It is not swapped out, and what exceeds it ends the whole cgroup.
    pub memory_bytes: Option<u64>,
}

/// What a cgroup did about its bounds since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Events {
    /// Forks that were refused.
    pub refused_forks: u64,
    /// Processes that were ended for lack of memory.
    pub oom_kills: u64,
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

impl Cgroup {
    /// The calling process's own.
    ///
    /// # Errors
    /// [`CgroupObstacle::NotMounted`] or [`CgroupObstacle::Failed`].
    pub fn own() -> Result<Self, CgroupObstacle> {
        let read = |file: &str| std::fs::read_to_string(file).map_err(|error| failed(&error));
        let own = own_path(&read("/proc/self/cgroup")?).ok_or(CgroupObstacle::NotMounted)?.to_owned();
        let path = mounted_at(&read("/proc/self/mountinfo")?, &own).ok_or(CgroupObstacle::NotMounted)?;
        let found = Self::open(path).map_err(obstacle)?;
        let pid = i32::try_from(std::process::id()).unwrap_or_default();
        // Something else may be mounted over it, or a cgroup namespace may call another one by the same name.
        if found.processes().map_err(obstacle)?.contains(&pid) {
            Ok(found)
        } else {
            Err(CgroupObstacle::NotMounted)
        }
    }

    /// The cgroup at `path`.
    ///
    /// # Errors
    /// The kernel's; [`Errno::NOTSUP`] for a directory that is none.
    pub fn open(path: PathBuf) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::open(&path, flags, Mode::empty())?;
        Self::checked(directory, path)
    }

    /// The cgroup that an open directory is, and `path` the way to it: as [`AsFd`] and [`Cgroup::path`] gave them to
    /// another program of this process.
    ///
    /// # Errors
    /// [`Errno::NOTSUP`] for a directory that is none.
    pub fn from_directory(directory: OwnedFd, path: PathBuf) -> Result<Self, Errno> {
        Self::checked(directory, path)
    }

    fn checked(directory: OwnedFd, path: PathBuf) -> Result<Self, Errno> {
        let kind = u64::try_from(rustix::fs::fstatfs(&directory)?.f_type).unwrap_or_default();
        if kind == CGROUP2_SUPER_MAGIC { Ok(Self { directory, path }) } else { Err(Errno::NOTSUP) }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the cgroup `name` in this one.
    ///
    /// # Errors
    /// The kernel's: EEXIST, EACCES, EAGAIN above a limit on cgroups.
    pub fn make(&self, name: &str) -> Result<Self, Errno> {
        rustix::fs::mkdirat(&self.directory, name, Mode::from_raw_mode(0o755))?;
        self.child(name)
    }

    /// The cgroup `name` in this one.
    ///
    /// # Errors
    /// The kernel's.
    pub fn child(&self, name: &str) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(&self.directory, name, flags, Mode::empty())?;
        Self::checked(directory, self.path.join(name))
    }

    /// Names of the cgroups in this one.
    ///
    /// # Errors
    /// The kernel's.
    pub fn children(&self) -> Result<Vec<String>, Errno> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.directory)? {
            let entry = entry?;
            if entry.file_type() == rustix::fs::FileType::Directory
                && let Ok(name) = entry.file_name().to_str()
                && !matches!(name, "." | "..")
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// Removes the empty cgroup `name` in this one.
    ///
    /// # Errors
    /// The kernel's: EBUSY while something is in it.
    pub fn remove(&self, name: &str) -> Result<(), Errno> {
        rustix::fs::unlinkat(&self.directory, name, AtFlags::REMOVEDIR)
    }

    /// Whether the caller may make cgroups in it and move processes between them.
    #[must_use]
    pub fn is_delegated(&self) -> bool {
        let may_write = |name: &str| {
            rustix::fs::accessat(&self.directory, name, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
        };
        [".", "cgroup.procs", "cgroup.subtree_control"].into_iter().all(may_write)
    }

    /// Whether it is the root of the hierarchy, which may have processes and pass controllers down.
    #[must_use]
    pub fn is_root(&self) -> bool {
        // "exists on non-root cgroups" (Documentation/admin-guide/cgroup-v2.rst).
        rustix::fs::accessat(&self.directory, "cgroup.type", Access::EXISTS, AtFlags::empty())
            == Err(Errno::NOENT)
    }

    /// The controllers that it could pass down.
    ///
    /// # Errors
    /// The kernel's.
    pub fn available(&self) -> Result<Controllers, Errno> {
        self.read("cgroup.controllers").map(|text| Controllers::parse(&text))
    }

    /// The controllers that it passes down.
    ///
    /// # Errors
    /// The kernel's.
    pub fn enabled(&self) -> Result<Controllers, Errno> {
        self.read("cgroup.subtree_control").map(|text| Controllers::parse(&text))
    }

    /// Passes controllers down.
    ///
    /// # Errors
    /// The kernel's: EBUSY while processes are in it.
    pub fn enable(&self, controllers: Controllers) -> Result<(), Errno> {
        self.write("cgroup.subtree_control", &controllers.words('+'))
    }

    /// Passes controllers down no more.
    ///
    /// # Errors
    /// The kernel's: EBUSY while a cgroup in it passes them further.
    pub fn disable(&self, controllers: Controllers) -> Result<(), Errno> {
        self.write("cgroup.subtree_control", &controllers.words('-'))
    }

    /// The processes in it, those of other pid namespaces as 0.
    ///
    /// # Errors
    /// The kernel's.
    pub fn processes(&self) -> Result<Vec<i32>, Errno> {
        Ok(self.read("cgroup.procs")?.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Moves a process here, with all its threads.
    ///
    /// # Errors
    /// The kernel's: ESRCH when it has ended.
    pub fn take(&self, pid: i32) -> Result<(), Errno> {
        self.write("cgroup.procs", &pid.to_string())
    }

    /// A descriptor through which a process moves itself here by writing `0`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn door(&self) -> Result<OwnedFd, Errno> {
        self.file("cgroup.procs", OFlags::WRONLY)
    }

    /// Sets bounds.
    ///
    /// # Errors
    /// The kernel's: ENOENT without the controller.
    pub fn bound(&self, bounds: Bounds) -> Result<(), Errno> {
        if let Some(pids) = bounds.pids {
            self.write("pids.max", &pids.to_string())?;
        }
        if let Some(bytes) = bounds.memory_bytes {
            self.write("memory.max", &bytes.to_string())?;
            match self.write("memory.swap.max", "0") {
                // A kernel without swap, or without accounting for it, has no such file.
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
            self.write("memory.oom.group", "1")?;
        }
        Ok(())
    }

    /// CPU time of everything that is or was in it, in microseconds.
    ///
    /// # Errors
    /// The kernel's.
    pub fn cpu_us(&self) -> Result<u64, Errno> {
        field(&self.read("cpu.stat")?, "usage_usec").ok_or(Errno::IO)
    }

    /// What it did about its bounds. A controller that is not there did nothing.
    #[must_use]
    pub fn events(&self) -> Events {
        let count = |file, name| self.read(file).ok().and_then(|text| field(&text, name)).unwrap_or_default();
        Events { refused_forks: count("pids.events", "max"), oom_kills: count("memory.events", "oom_kill") }
    }

    /// Whether a process is in it or below.
    ///
    /// # Errors
    /// The kernel's.
    pub fn is_populated(&self) -> Result<bool, Errno> {
        Ok(field(&self.read("cgroup.events")?, "populated") != Some(0))
    }

    /// Kills everything in it and below at once, what is forking right now included; since Linux 5.14.
    ///
    /// # Errors
    /// The kernel's.
    pub fn kill(&self) -> Result<(), Errno> {
        self.write("cgroup.kill", "1")
    }

    fn file(&self, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        rustix::fs::openat(&self.directory, name, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
    }

    fn read(&self, name: &str) -> Result<String, Errno> {
        read_all(self.file(name, OFlags::RDONLY)?)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), Errno> {
        let file = self.file(name, OFlags::WRONLY)?;
        // One write is one command to the kernel; there is no partial one.
        rustix::io::write(&file, text.as_bytes()).map(drop)
    }
}

fn read_all(file: impl AsFd) -> Result<String, Errno> {
    let mut text = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match rustix::io::read(&file, &mut chunk) {
            Ok(0) => return String::from_utf8(text).map_err(|_| Errno::ILSEQ),
            Ok(count) => text.extend_from_slice(&chunk[..count]),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn obstacle(errno: Errno) -> CgroupObstacle {
    CgroupObstacle::Failed { errno: errno.raw_os_error() }
}

fn failed(error: &std::io::Error) -> CgroupObstacle {
    CgroupObstacle::Failed { errno: error.raw_os_error().unwrap_or_default() }
}

/// The number behind `name` in a flat keyed file.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(' ')?;
        (key == name).then(|| value.trim().parse().ok())?
    })
}

/// The path of version 2 in /proc/PID/cgroup (cgroups(7)).
fn own_path(cgroup: &str) -> Option<&str> {
    cgroup.lines().find_map(|line| line.strip_prefix("0::"))
}

/// Where the cgroup with the path `own` is seen, from /proc/PID/mountinfo (proc_pid_mountinfo(5)). The last mount
/// counts: it lies on top.
fn mounted_at(mountinfo: &str, own: &str) -> Option<PathBuf> {
    let own = Path::new(own);
    // Seen from outside of its cgroup namespace; no mount leads there by that name.
    if own.components().any(|part| part == std::path::Component::ParentDir) {
        return None;
    }
    mountinfo.lines().rev().find_map(|line| {
        let (mount, rest) = line.split_once(" - ")?;
        if rest.split(' ').next() != Some("cgroup2") {
            return None;
        }
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (unescape(fields.next()?), unescape(fields.next()?));
        let below = own.strip_prefix(&root).ok()?;
        Some(if below.as_os_str().is_empty() { point } else { point.join(below) })
    })
}

/// A path with its blanks and backslashes as octal numbers.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let octal =
            tail.get(..3).filter(|_| byte == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(escaped) => {
                bytes.push(escaped);
                rest = &tail[3..];
            }
            None => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsStr::from_bytes(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIFIED: &str = "35 25 0:30 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
        39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn the_own_cgroup_is_found_where_it_is_mounted() {
        let table = [
            (UNIFIED, "/user.slice/run", Some("/sys/fs/cgroup/user.slice/run")),
            (UNIFIED, "/", Some("/sys/fs/cgroup")),
            (HYBRID, "/", Some("/sys/fs/cgroup/unified")),
            ("1 2 0:3 /docker/a /sys/fs/cgroup ro - cgroup2 c rw\n", "/docker/a/b", Some("/sys/fs/cgroup/b")),
            ("1 2 0:3 /docker/a /sys/fs/cgroup ro - cgroup2 c rw\n", "/docker/ab", None),
            ("1 2 0:3 / /mnt/a\\040b rw shared:1 - cgroup2 c rw\n", "/x", Some("/mnt/a b/x")),
            ("31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n", "/", None),
            (UNIFIED, "/../other", None),
        ];
        for (mountinfo, own, expected) in table {
            assert_eq!(mounted_at(mountinfo, own), expected.map(PathBuf::from), "{own}");
        }
    }

    #[test]
    fn version_2_is_told_from_the_others() {
        assert_eq!(own_path("8:pids:/a\n1:name=systemd:/b\n0::/c d\n"), Some("/c d"));
        assert_eq!(own_path("8:pids:/a\n"), None);
    }

    #[test]
    fn controllers_are_words() {
        let both = Controllers { pids: true, memory: true };
        assert_eq!(Controllers::parse("cpuset cpu io memory hugetlb pids\n"), both);
        assert_eq!(Controllers::parse("hugetlb\n"), Controllers::default());
        assert_eq!(both.words('+'), "+pids +memory");
        let memory = Controllers { pids: false, memory: true };
        assert_eq!(both.without(Controllers { pids: true, memory: false }), memory);
        assert!(memory.without(both).is_empty());
    }

    #[test]
    fn fields_are_whole_words() {
        let text = "oom 1\noom_kill 3\noom_group_kill 4\n";
        assert_eq!(
            (field(text, "oom_kill"), field(text, "oom"), field(text, "max")),
            (Some(3), Some(1), None)
        );
    }

    #[test]
    fn a_directory_that_is_no_cgroup_is_refused() {
        assert_eq!(Cgroup::open(PathBuf::from("/proc")).err(), Some(Errno::NOTSUP));
    }
}
