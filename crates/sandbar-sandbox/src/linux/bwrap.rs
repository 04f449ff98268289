//! The bubblewrap executor: the system's `bwrap` makes namespaces and mounts, everything else is ours.
//!
//! For hosts where only that program may make user namespaces (a profile of AppArmor names it). It is given the same plan
//! as arguments, in a memfd, and executes this program inside as pid 1, which then goes the way of a spare holder: reads
//! the plan from its channel, compares what it finds mounted with the plan, enters Landlock, installs the filter and
//! starts the command. What bubblewrap got wrong, or somebody exchanged while it worked, is therefore a refusal.
//!
//! Needs bubblewrap 0.8: `--perms`, `--size`, `--as-pid-1`. Not everything that the native executor does can be said to it:
//! other ids than the caller's own, caches that are mounted copy-on-write. Plans with these are refused.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;
use sandbar_proto::{
    AbsPath, BindAccess, FileIdentity, LaunchSpec, LinuxSandbox, MountOp, NetworkMode, PinnedPath,
    TmpfsAccess,
};

use super::holder::{self, fail};
use super::mounts::{self, MaskKind, is_same_file};
use super::prepare::FilterCache;
use super::{channel, spare, sys};
use crate::report::{Order, SetupFailure, Step};
use crate::{CacheLayer, Holder, SpawnError};

/// First argument of this program when bubblewrap executes it as the holder of a sandbox.
pub const HOLDER_ARGUMENT: &str = "--sandbar-run-as-holder";

/// Descriptors that bubblewrap gets, in their places: nothing to read, nowhere to write, its complaints, then these.
const CONTROL: RawFd = 3;
const ARGUMENTS: RawFd = 4;
const PROGRAM: RawFd = 5;
/// From here on: one empty file for each that it makes.
const FIRST_EMPTY: RawFd = 6;

/// Most files that a plan may make or mask: each costs a descriptor, of which there are 1024 by default.
const MAX_FILES: usize = 512;

/// What bubblewrap is told.
#[derive(Debug, Default)]
struct Arguments {
    /// Each ended by a NUL byte, as `--args` wants them.
    text: Vec<u8>,
    /// How many empty files are read, from [`FIRST_EMPTY`] on.
    empties: usize,
}

impl Arguments {
    fn add(&mut self, words: &[&[u8]]) {
        for word in words {
            self.text.extend_from_slice(word);
            self.text.push(0);
        }
    }

    /// The number of a descriptor with nothing in it; bubblewrap reads it to its end and closes it.
    fn empty(&mut self) -> String {
        let fd = FIRST_EMPTY + i32::try_from(self.empties).unwrap_or(i32::MAX - FIRST_EMPTY);
        self.empties += 1;
        fd.to_string()
    }

    /// What makes the sandbox of a plan.
    fn of(sandbox: &LinuxSandbox) -> Self {
        let mut arguments = Self::default();
        arguments.add(&[
            b"--unshare-user",
            b"--unshare-pid",
            b"--unshare-ipc",
            b"--unshare-uts",
            b"--die-with-parent",
            b"--as-pid-1",
            b"--cap-drop",
            b"ALL",
        ]);
        // What stands on `/` is the root, and the first operation of a plan that shows nothing by itself.
        let makes_root =
            |op: &MountOp| matches!(op, MountOp::Tmpfs { target, .. } if *target == AbsPath::root());
        if !sandbox.mounts.iter().any(makes_root) {
            arguments.add(&[b"--ro-bind", b"/", b"/"]);
        }
        if sandbox.network == NetworkMode::Off {
            arguments.add(&[b"--unshare-net"]);
        }
        for op in &sandbox.mounts {
            arguments.mount(op);
        }
        // Sealed behind everything that is made in them.
        for op in &sandbox.mounts {
            if let MountOp::Tmpfs { target, access: TmpfsAccess::Read, .. } = op {
                arguments.add(&[b"--remount-ro", target.as_bytes()]);
            }
        }
        arguments
    }

    fn mount(&mut self, op: &MountOp) {
        match op {
            MountOp::Bind { source, target, access } => {
                let how: &[u8] = match access {
                    BindAccess::Read => b"--ro-bind",
                    BindAccess::Write => b"--bind",
                };
                self.add(&[how, source.path.as_bytes(), target.as_bytes()]);
            }
            MountOp::Mask { target, readable_empty } => self.mask(target, *readable_empty),
            MountOp::Tmpfs { target, mode, size_bytes, access: _ } => {
                if let Some(size) = size_bytes {
                    self.add(&[b"--size", size.to_string().as_bytes()]);
                }
                self.add(&[b"--perms", octal(*mode).as_bytes(), b"--tmpfs", target.as_bytes()]);
            }
            MountOp::MakeDir { path, mode } => {
                self.add(&[b"--perms", octal(*mode).as_bytes(), b"--dir", path.as_bytes()]);
            }
            MountOp::MakeFile { path, mode } => {
                let empty = self.empty();
                let mode = octal(*mode);
                self.add(&[b"--perms", mode.as_bytes(), b"--file", empty.as_bytes(), path.as_bytes()]);
            }
            MountOp::Symlink { path, to } => self.add(&[b"--symlink", to.as_bytes(), path.as_bytes()]),
            MountOp::Proc => self.proc(),
            // The nodes stay writable, so that uid 0 can change their mode: a remount here would add `nodev`.
            MountOp::Dev => self.add(&[
                b"--dev",
                b"/dev",
                b"--perms",
                b"1777",
                b"--tmpfs",
                b"/dev/shm",
                b"--remount-ro",
                b"/dev",
            ]),
        }
    }

    /// A fresh procfs. Bubblewrap trusts permissions with its settings, which means nothing to the host's uid 0.
    fn proc(&mut self) {
        self.add(&[b"--proc", b"/proc"]);
        for name in mounts::PROC_READ_ONLY {
            let path = mounts::in_proc(name);
            self.add(&[b"--ro-bind-try", path.as_bytes(), path.as_bytes()]);
        }
        for (name, kind) in hidden_in_proc() {
            let path = mounts::in_proc(name);
            self.cover(path.as_bytes(), kind);
        }
        if mounts::hides_proc() {
            self.add(&[b"--remount-ro", b"/proc"]);
        }
    }

    fn mask(&mut self, target: &PinnedPath, readable_empty: bool) {
        let kind = MaskKind::of(target.identity.kind, readable_empty);
        self.cover(target.path.as_bytes(), kind);
    }

    fn cover(&mut self, path: &[u8], kind: MaskKind) {
        let mode: &[u8] = match kind {
            MaskKind::Directory => {
                return self.add(&[b"--perms", b"0000", b"--tmpfs", path, b"--remount-ro", path]);
            }
            MaskKind::File => b"0000",
            MaskKind::EmptyFile => b"0444",
        };
        let empty = self.empty();
        self.add(&[b"--perms", mode, b"--ro-bind-data", empty.as_bytes(), path]);
    }
}

/// What is there of [`mounts::PROC_HIDDEN`], for the host's uid 0.
fn hidden_in_proc() -> impl Iterator<Item = (&'static CStr, MaskKind)> {
    let all = if mounts::hides_proc() { mounts::PROC_HIDDEN.as_slice() } else { &[] };
    all.iter().copied().filter(|(name, _)| rustix::fs::stat(mounts::in_proc(name).as_str()).is_ok())
}

fn octal(mode: u32) -> String {
    format!("{mode:04o}")
}

/// Whether a plan can be said to bubblewrap.
fn check(sandbox: &LinuxSandbox, caches: &[CacheLayer], arguments: &Arguments) -> Result<(), SpawnError> {
    let own = |ranges: &[sandbar_proto::IdRange], id: u32| matches!(ranges, [range] if range.count == 1 && range.first == id);
    let identity = &sandbox.identity;
    let is_caller = identity.run_as.is_none()
        && own(&identity.users, rustix::process::geteuid().as_raw())
        && own(&identity.groups, rustix::process::getegid().as_raw());
    let obstacle = if !is_caller {
        "it maps no ids but the caller's own"
    } else if !caches.is_empty() {
        "it mounts no caches copy-on-write"
    } else if arguments.empties > MAX_FILES {
        "the plan has more files than it is given descriptors for"
    } else {
        return Ok(());
    };
    Err(SpawnError::Bwrap { obstacle })
}

/// Starts `spec` under the bubblewrap at `program`.
///
/// # Errors
/// [`SpawnError`]; whatever goes wrong after the fork is reported on the holder's channel, or is in its complaint.
///
/// # Safety
/// The calling process must have one thread: the child goes on with a copy of its memory.
pub(super) unsafe fn spawn(
    program: &PinnedPath,
    spec: &LaunchSpec,
    sandbox: &LinuxSandbox,
    stdio: [BorrowedFd<'_>; 3],
    caches: &[CacheLayer],
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<Holder, SpawnError> {
    let arguments = Arguments::of(sandbox);
    check(sandbox, caches, &arguments)?;
    let io = SpawnError::Channel;
    let bwrap = open_program(program)?;
    let own =
        rustix::fs::open(c"/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(io)?;
    let text = spare::memfd(c"sandbar-arguments", &arguments.text).map_err(io)?;
    let complaint = spare::memfd(c"sandbar-complaint", b"").map_err(io)?;
    let null = rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(io)?;
    let (ours, theirs) = channel()?;

    let mut places =
        vec![null.as_fd(), null.as_fd(), complaint.as_fd(), theirs.as_fd(), text.as_fd(), own.as_fd()];
    places.extend(std::iter::repeat_n(null.as_fd(), arguments.empties));
    let mut lifted: Vec<RawFd> = Vec::with_capacity(places.len());
    let command = Exec::new();
    // SAFETY: the caller has one thread, so the child may go on with everything in memory as it is.
    let fork = unsafe { sys::fork(0) }.map_err(SpawnError::Namespaces)?;
    let (pid, pidfd) = match fork {
        sys::Fork::Child => {
            let errno = become_bwrap(&places, &mut lifted, bwrap.as_fd(), &command);
            // On its way to the keeper as what bubblewrap might have said.
            let _ = rustix::io::write(&complaint, b"could not be executed");
            holder::exit(errno.raw_os_error())
        }
        sys::Fork::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(theirs);
    let plan = spare::memfd_of(c"sandbar-plan", spec).map_err(io)?;
    let additions = spare::Additions { mounts: Vec::new(), caches: Vec::new() };
    let additions = spare::memfd_of(c"sandbar-additions", &additions).map_err(io)?;
    // Who was never executed hears nothing; its end says so.
    let [stdin, stdout, stderr] = stdio;
    let _ = spare::send(ours.as_fd(), Order::Plan, &[plan.as_fd()]);
    let mut fds = vec![additions.as_fd(), stdin, stdout, stderr];
    fds.extend(cgroup);
    let _ = spare::send(ours.as_fd(), Order::Launch, &fds);
    Ok(Holder { pid, pidfd, control: ours, complaint: Some(complaint) })
}

/// Opens the program that the plan was made for, and no other.
fn open_program(program: &PinnedPath) -> Result<OwnedFd, SpawnError> {
    let gone = SpawnError::Bwrap { obstacle: "it is not the program any more that the plan was made for" };
    let Ok(path) = CString::new(program.path.as_bytes()) else { return Err(SpawnError::NulByte) };
    let Ok(fd) = mounts::open_place(&path) else { return Err(gone) };
    if is_same_file(fd.as_fd(), program.identity) == Ok(true) { Ok(fd) } else { Err(gone) }
}

/// The arguments of bubblewrap itself, its name among them; the others are in a memfd.
pub(super) fn words() -> [CString; 6] {
    let word = |text: String| CString::new(text).unwrap_or_default();
    [
        word("bwrap".into()),
        word("--args".into()),
        word(ARGUMENTS.to_string()),
        word("--".into()),
        word(format!("/proc/self/fd/{PROGRAM}")),
        word(HOLDER_ARGUMENT.into()),
    ]
}

/// Arguments and environment of bubblewrap itself, as execveat(2) takes them.
struct Exec {
    argv: Vec<*const std::ffi::c_char>,
    envp: [*const std::ffi::c_char; 1],
    _words: [CString; 6],
}

impl Exec {
    fn new() -> Self {
        let words = words();
        let mut argv: Vec<_> = words.iter().map(|word| word.as_ptr()).collect();
        argv.push(std::ptr::null());
        Self { argv, envp: [std::ptr::null()], _words: words }
    }
}

/// In the child: everything to its place, and bubblewrap instead of this program. Returns only if that failed.
fn become_bwrap(
    places: &[BorrowedFd<'_>],
    lifted: &mut Vec<RawFd>,
    program: BorrowedFd<'_>,
    command: &Exec,
) -> Errno {
    let count = i32::try_from(places.len()).unwrap_or(i32::MAX);
    // The sources may lie on each other's targets; moved above all of them first, they can't be overwritten. There is
    // room for all of them in `lifted`, so nothing is allocated.
    let lift = |fd: BorrowedFd<'_>| {
        rustix::io::fcntl_dupfd_cloexec(fd, count).map(|fd| {
            let raw = fd.as_raw_fd();
            std::mem::forget(fd);
            raw
        })
    };
    let program = match lift(program) {
        Ok(program) => program,
        Err(errno) => return errno,
    };
    for fd in places {
        match lift(*fd) {
            Ok(raw) => lifted.push(raw),
            Err(errno) => return errno,
        }
    }
    for (source, target) in lifted.iter().zip(0..) {
        if let Err(errno) = holder::duplicate(*source, target, 0) {
            return errno;
        }
    }
    // SAFETY: the strings behind the pointers live in `command`, both arrays end with null.
    unsafe { sys::execute(program, &command.argv, &command.envp) }
}

/// Runs as the holder that bubblewrap executes; returns only if it must not be one.
#[must_use]
pub fn main() -> i32 {
    // Empty files that bubblewrap left open, and the program.
    if sys::close_from(CONTROL + 1).is_err()
        || rustix::io::fcntl_setfd(holder::control(), rustix::io::FdFlags::CLOEXEC).is_err()
    {
        return 1;
    }
    // The loopback interface is bubblewrap's business: as if there were none to bring up.
    if let Err(failure) = holder::settle(Some(NetworkMode::On)) {
        holder::give_up(failure);
    }
    match spare::receive_launch(&mut FilterCache::default()) {
        Ok(Some(mut launch)) => holder::run(&mut launch),
        Ok(None) => 0,
        Err(failure) => holder::give_up(failure),
    }
}

impl mounts::Plan {
    /// Compares what is mounted with the plan.
    ///
    /// # Errors
    /// [`Step::Changed`] with the index of the operation whose place shows another file, or allows more.
    pub(super) fn verify(&self) -> Result<(), SetupFailure> {
        let root = mounts::open_place(c"/").map_err(fail(Step::ReadOnlyRoot))?;
        if !is_read_only(root.as_fd()).map_err(fail(Step::ReadOnlyRoot))? {
            return Err(fail(Step::ReadOnlyRoot)(Errno::ROFS));
        }
        verify_proc().map_err(fail(Step::Proc))?;
        for (op, index) in self.ops.iter().zip(0..) {
            let (target, expected) = match op {
                mounts::Op::Bind { target, identity, access, .. } => {
                    (target, Expected::File(*identity, *access == BindAccess::Read))
                }
                mounts::Op::Mask { target, identity, .. } => (target, Expected::Other(*identity)),
                mounts::Op::Tmpfs { target, access, .. } => {
                    (target, Expected::Mount(*access == TmpfsAccess::Read))
                }
                mounts::Op::MakeDir { .. }
                | mounts::Op::MakeFile { .. }
                | mounts::Op::Symlink { .. }
                | mounts::Op::Proc
                | mounts::Op::Dev { .. } => continue,
            };
            let errno = |errno: Errno| SetupFailure { step: Step::Mount, index, errno: errno.raw_os_error() };
            let place = mounts::open_place(target).map_err(errno)?;
            if !expected.is_there(place.as_fd()).map_err(errno)? {
                return Err(SetupFailure { step: Step::Changed, index, errno: 0 });
            }
        }
        Ok(())
    }
}

/// Whether what changes the host is read-only in /proc, and what shows too much of it is covered.
fn verify_proc() -> Result<(), Errno> {
    for name in mounts::PROC_READ_ONLY {
        match mounts::open_place(&c_path(name)?) {
            Ok(place) if is_read_only(place.as_fd())? => {}
            Ok(_) => return Err(Errno::ROFS),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    if mounts::hides_proc() && !is_read_only(mounts::open_place(c"/proc")?.as_fd())? {
        return Err(Errno::ROFS);
    }
    for (name, kind) in hidden_in_proc() {
        let place = mounts::open_place(&c_path(name)?)?;
        let stat = rustix::fs::fstat(&place)?;
        let is_directory =
            rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory;
        let is_covered = is_read_only(place.as_fd())? && stat.st_mode & 0o777 == 0;
        if !is_covered || is_directory != (kind == MaskKind::Directory) {
            return Err(Errno::ROFS);
        }
    }
    Ok(())
}

fn c_path(name: &CStr) -> Result<CString, Errno> {
    CString::new(mounts::in_proc(name)).map_err(|_| Errno::INVAL)
}

/// What must be found at a place.
enum Expected {
    /// This file, and whether it must be read-only.
    File(FileIdentity, bool),
    /// Anything but this file, of its kind, read-only.
    Other(FileIdentity),
    /// A mount of its own, and whether it must be read-only.
    Mount(bool),
}

impl Expected {
    fn is_there(&self, place: BorrowedFd<'_>) -> Result<bool, Errno> {
        let sealed = is_read_only(place)?;
        // What has the name is another file since, and nothing stands on it.
        if !mounts::is_mounted(place)? {
            return Ok(false);
        }
        Ok(match self {
            Self::File(identity, read_only) => is_same_file(place, *identity)? && (sealed || !read_only),
            Self::Other(identity) => {
                sealed && !is_same_file(place, *identity)? && mounts::mask_fits(place, *identity)?
            }
            // Nothing of the host is a tmpfs with the root's inode here: it would have been bound.
            Self::Mount(read_only) => {
                let system = rustix::fs::fstatfs(place)?;
                system.f_type == TMPFS_MAGIC && (sealed || !read_only)
            }
        })
    }
}

/// statfs(2).
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;

fn is_read_only(place: BorrowedFd<'_>) -> Result<bool, Errno> {
    Ok(rustix::fs::fstatvfs(place)?.f_flag.contains(StatVfsMountFlags::RDONLY))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbar_proto::{AbsPath, ByteString, FileKind, IdRange, Identity, SeccompSpec, Verdict};

    fn abs(path: &str) -> AbsPath {
        AbsPath::new(path).unwrap()
    }

    fn pinned(path: &str, kind: FileKind) -> PinnedPath {
        PinnedPath { path: abs(path), identity: FileIdentity { dev: 1, ino: 2, kind } }
    }

    fn sandbox(mounts: Vec<MountOp>) -> LinuxSandbox {
        let only = |first| vec![IdRange { first, count: 1 }];
        LinuxSandbox {
            executor: sandbar_proto::Executor::Native,
            identity: Identity {
                users: only(rustix::process::geteuid().as_raw()),
                groups: only(rustix::process::getegid().as_raw()),
                run_as: None,
            },
            network: NetworkMode::Off,
            mounts,
            caches: Vec::new(),
            placeholders: Vec::new(),
            placeholder_pool: None,
            globs: Vec::new(),
            landlock: None,
            seccomp: SeccompSpec { allow: Vec::new(), rules: Vec::new(), default: Verdict::Allow },
        }
    }

    /// What is said of these operations, behind what is said of every sandbox.
    fn said(mounts: Vec<MountOp>) -> String {
        let text = Arguments::of(&sandbox(mounts)).text;
        let words = String::from_utf8(text).unwrap().replace('\0', " ");
        words.split_once(" --unshare-net ").unwrap().1.trim_end().to_owned()
    }

    #[test]
    fn each_operation_has_its_words() {
        let bind =
            |access| MountOp::Bind { source: pinned("/a", FileKind::Directory), target: abs("/b"), access };
        let mask = |kind, readable_empty| MountOp::Mask { target: pinned("/m", kind), readable_empty };
        let tmpfs =
            |access, size_bytes| MountOp::Tmpfs { target: abs("/t"), mode: 0o1777, access, size_bytes };
        let table = [
            (bind(BindAccess::Read), "--ro-bind /a /b"),
            (bind(BindAccess::Write), "--bind /a /b"),
            (mask(FileKind::Directory, false), "--perms 0000 --tmpfs /m --remount-ro /m"),
            (mask(FileKind::File, false), "--perms 0000 --ro-bind-data 6 /m"),
            (mask(FileKind::Other, true), "--perms 0444 --ro-bind-data 6 /m"),
            (tmpfs(TmpfsAccess::Write, None), "--perms 1777 --tmpfs /t"),
            (tmpfs(TmpfsAccess::Read, Some(4096)), "--size 4096 --perms 1777 --tmpfs /t --remount-ro /t"),
            (MountOp::MakeDir { path: abs("/t/d"), mode: 0o755 }, "--perms 0755 --dir /t/d"),
            (MountOp::MakeFile { path: abs("/t/f"), mode: 0o444 }, "--perms 0444 --file 6 /t/f"),
            (MountOp::Symlink { path: abs("/t/l"), to: ByteString::from("to") }, "--symlink to /t/l"),
        ];
        for (op, words) in table {
            assert_eq!(said(vec![op.clone()]), words, "{op:?}");
        }
    }

    #[test]
    fn settings_of_the_kernel_are_bound_read_only_whoever_asks() {
        let words = said(vec![MountOp::Proc]);
        assert!(words.starts_with("--proc /proc --ro-bind-try /proc/sys /proc/sys "), "{words}");
        assert_eq!(words.matches("--ro-bind-try").count(), mounts::PROC_READ_ONLY.len());
    }

    #[test]
    fn what_is_sealed_is_sealed_behind_what_is_made_in_it() {
        let tmpfs =
            MountOp::Tmpfs { target: abs("/t"), mode: 0o755, access: TmpfsAccess::Read, size_bytes: None };
        let file = |name| MountOp::MakeFile { path: abs(name), mode: 0o444 };
        assert_eq!(
            said(vec![tmpfs, file("/t/a"), file("/t/b")]),
            "--perms 0755 --tmpfs /t --perms 0444 --file 6 /t/a --perms 0444 --file 7 /t/b --remount-ro /t"
        );
    }

    #[test]
    fn a_path_is_one_word_whatever_is_in_it() {
        let source = pinned("/a b\n--bind", FileKind::Directory);
        let bind = MountOp::Bind { source, target: abs("/--dev"), access: BindAccess::Read };
        let text = Arguments::of(&sandbox(vec![bind])).text;
        let end = b"--ro-bind\0/a b\n--bind\0/--dev\0";
        assert!(text.ends_with(end), "{}", text.escape_ascii());
    }

    #[test]
    fn what_cannot_be_said_is_refused() {
        let accepts = |sandbox: &LinuxSandbox| check(sandbox, &[], &Arguments::of(sandbox)).is_ok();
        let plain = sandbox(Vec::new());
        assert!(accepts(&plain));
        let mut all_ids = plain.clone();
        all_ids.identity.users[0].count = 2;
        assert!(!accepts(&all_ids));
        let mut other = plain.clone();
        other.identity.run_as = Some(sandbar_proto::RunAs { uid: 7, gid: 7 });
        assert!(!accepts(&other));
        let masks = (0..=MAX_FILES).map(|number| MountOp::Mask {
            target: pinned(&format!("/{number}"), FileKind::File),
            readable_empty: false,
        });
        assert!(!accepts(&sandbox(masks.collect())));
    }
}
