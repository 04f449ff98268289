//! The mount tree of a sandbox, built in place in its own mount namespace.
//!
//! Order is everything. First every host file behind a mount is opened and compared with the plan, while
//! nothing has changed; then the whole tree becomes read-only at once (one mount_setattr(2), which is why 500
//! carve-outs cost 500 small steps and not 500 walks over the mount table); then the operations run in the
//! plan's order. No path is followed through a symlink, and no directory of the host stays open.
//!
//! Runs in the child: no allocation, slots for descriptors are part of the prepared plan.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};
use sandbar_proto::{BindAccess, FileIdentity, FileKind, TmpfsAccess};

use super::sys::{MountAttr, Reach, mount_setattr};
use crate::facts::identity;
use crate::report::{SetupFailure, Step};

/// Device nodes of the minimal /dev.
const DEVICES: [&CStr; 6] = [c"null", c"zero", c"full", c"random", c"urandom", c"tty"];
const DEVICE_PATHS: [&CStr; 6] =
    [c"/dev/null", c"/dev/zero", c"/dev/full", c"/dev/random", c"/dev/urandom", c"/dev/tty"];

/// Parts of a fresh procfs that change the whole host (proc(5)). Of the host's uid 0, who could change every mode in it
/// as well, all of it is read-only.
pub(super) const PROC_READ_ONLY: [&CStr; 5] = [c"sys", c"sysrq-trigger", c"irq", c"bus", c"fs"];

/// Parts of a fresh procfs that show the whole host's memory, timers or keys to the host's uid 0, or let it change
/// hardware without a capability. Others are kept out by permissions, so only its sandboxes pay for the mounts: some
/// 3 µs each, which is why mere statistics are not among them.
pub(super) const PROC_HIDDEN: [(&CStr, MaskKind); 8] = [
    (c"kpagecgroup", MaskKind::File),
    (c"kpagecount", MaskKind::File),
    (c"kpageflags", MaskKind::File),
    (c"vmallocinfo", MaskKind::File),
    (c"timer_list", MaskKind::File),
    (c"keys", MaskKind::File),
    (c"acpi", MaskKind::Directory),
    (c"scsi", MaskKind::Directory),
];

/// The path of a part of procfs.
pub(super) fn in_proc(name: &CStr) -> String {
    format!("/proc/{}", name.to_string_lossy())
}

/// Where the scratch tmpfs lives: below the new /dev, which is built over it.
const SCRATCH: &CStr = c"/dev";

/// One operation, ready to run.
pub(super) enum Op {
    Bind {
        source: CString,
        identity: FileIdentity,
        target: CString,
        access: BindAccess,
        tree: Option<OwnedFd>,
    },
    Mask {
        target: CString,
        identity: FileIdentity,
        how: MaskKind,
        tree: Option<OwnedFd>,
    },
    Tmpfs {
        target: CString,
        mode: CString,
        size: Option<CString>,
        access: TmpfsAccess,
        mount: Option<OwnedFd>,
    },
    MakeDir {
        prefixes: Vec<CString>,
        mode: u32,
    },
    MakeFile {
        path: CString,
        mode: u32,
    },
    Symlink {
        path: CString,
        to: CString,
    },
    Proc,
    Dev {
        nodes: [Option<OwnedFd>; 6],
    },
}

/// What covers a masked path.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum MaskKind {
    /// A directory without any permission.
    Directory,
    /// A file without any permission.
    File,
    /// A file that may be read and is empty.
    EmptyFile,
}

impl MaskKind {
    /// What covers a file of this kind.
    pub(super) fn of(kind: FileKind, readable_empty: bool) -> Self {
        match (kind, readable_empty) {
            (FileKind::Directory, _) => Self::Directory,
            (FileKind::File | FileKind::Symlink | FileKind::Other, false) => Self::File,
            (FileKind::File | FileKind::Symlink | FileKind::Other, true) => Self::EmptyFile,
        }
    }

    fn scratch_name(self) -> &'static CStr {
        match self {
            Self::Directory => c"d",
            Self::File => c"f",
            Self::EmptyFile => c"e",
        }
    }
}

/// A cache, ready to be mounted copy-on-write.
pub(super) struct Cache {
    pub(super) target: CString,
    pub(super) identity: FileIdentity,
    pub(super) layers: CacheLayers,
    pub(super) mount: Option<OwnedFd>,
}

/// Where what a run writes into a cache goes.
pub(super) enum CacheLayers {
    /// Into the store of the trust domain, which this run owns.
    Kept { upper: CString, work: CString },
    /// Nowhere: into a layer of its own, above what earlier runs kept.
    Forgotten { kept: Option<CString> },
    /// Into a directory of the store that stands in for the host's cache.
    Separate { directory: CString },
}

/// Every change to the mount tree of one sandbox.
pub(super) struct Plan {
    pub(super) caches: Vec<Cache>,
    pub(super) ops: Vec<Op>,
}

fn failure(step: Step, index: u32) -> impl Fn(Errno) -> SetupFailure {
    move |errno| SetupFailure { step, index, errno: errno.raw_os_error() }
}

/// Opens `path` as a place, refusing every symlink on the way.
pub(super) fn open_place(path: &CStr) -> Result<OwnedFd, Errno> {
    rustix::fs::openat2(
        CWD,
        path,
        OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )
}

/// Whether what is at `fd` was mounted there, instead of lying in the directory above.
pub(super) fn is_mounted(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    let stat = rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::empty())?;
    Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Whether `fd` is the file that the plan was made for.
pub(super) fn is_same_file(fd: BorrowedFd<'_>, expected: FileIdentity) -> Result<bool, Errno> {
    Ok(identity(&rustix::fs::fstat(fd)?) == expected)
}

/// Opens the host's file at `path`, which must be the expected one, as a detached copy of its mount.
fn clone_tree(path: &CStr, identity: FileIdentity, step: Step, index: u32) -> Result<OwnedFd, SetupFailure> {
    let fail = failure(step, index);
    let place = open_place(path).map_err(&fail)?;
    if !is_same_file(place.as_fd(), identity).map_err(&fail)? {
        return Err(SetupFailure { step: Step::Changed, index, errno: 0 });
    }
    clone_mount(place.as_fd(), c"", Reach::Tree).map_err(fail)
}

pub(super) fn clone_mount(at: BorrowedFd<'_>, path: &CStr, reach: Reach) -> Result<OwnedFd, Errno> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if matches!(reach, Reach::Tree) {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(at, path, flags)
}

/// Mounts the detached tree `tree` onto `target`.
pub(super) fn attach(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, c"", target, c"", flags)
}

/// A new tmpfs, not mounted anywhere yet.
pub(super) fn new_tmpfs(mode: &CStr, size: Option<&CStr>) -> Result<OwnedFd, Errno> {
    let context = fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), c"mode", mode)?;
    if let Some(size) = size {
        fsconfig_set_string(context.as_fd(), c"size", size)?;
    }
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

impl Plan {
    /// Builds the tree in the calling process's own mount namespace.
    ///
    /// # Errors
    /// The step, the index of the operation or cache, and the kernel's error. The namespace is then useless.
    pub(super) fn build(&mut self) -> Result<(), SetupFailure> {
        self.open_sources()?;
        // By descriptor, since a plan may make another root than that in which it lies.
        let mut scratch = None;
        if self.needs_scratch() {
            // Nothing but a new /dev covers the scratch tmpfs.
            if !self.ops.iter().any(|op| matches!(op, Op::Dev { .. })) {
                return Err(SetupFailure { step: Step::Dev, index: Step::NO_INDEX, errno: 0 });
            }
            scratch = Some(make_scratch().map_err(failure(Step::Mount, Step::NO_INDEX))?);
        }
        let scratch = scratch.as_ref().map(|scratch| scratch.as_fd());
        self.make_caches()?;
        let root = open_place(c"/").map_err(failure(Step::ReadOnlyRoot, Step::NO_INDEX))?;
        mount_setattr(root.as_fd(), Reach::Tree, &MountAttr::SEALED)
            .map_err(failure(Step::ReadOnlyRoot, Step::NO_INDEX))?;
        drop(root);
        if let Some(scratch) = scratch {
            // The scratch tmpfs stays where it is and is covered by the new /dev: taking it away again would wait
            // for every processor (umount(2) ends in an RCU grace period).
            self.clone_masks(scratch)?;
        }
        self.attach_caches()?;
        for (op, index) in self.ops.iter_mut().zip(0..) {
            run(op, scratch, index)?;
        }
        self.seal()
    }

    fn open_sources(&mut self) -> Result<(), SetupFailure> {
        for (op, index) in self.ops.iter_mut().zip(0..) {
            match op {
                Op::Bind { source, identity, access, tree, .. } => {
                    let clone = clone_tree(source, *identity, Step::Source, index)?;
                    let attributes = match access {
                        BindAccess::Read => MountAttr::SEALED,
                        BindAccess::Write => MountAttr::CONFINED,
                    };
                    mount_setattr(clone.as_fd(), Reach::Tree, &attributes)
                        .map_err(failure(Step::Source, index))?;
                    *tree = Some(clone);
                }
                Op::Dev { nodes } => open_devices(nodes).map_err(failure(Step::Dev, Step::NO_INDEX))?,
                Op::Mask { .. }
                | Op::Tmpfs { .. }
                | Op::MakeDir { .. }
                | Op::MakeFile { .. }
                | Op::Symlink { .. }
                | Op::Proc => {}
            }
        }
        Ok(())
    }

    fn needs_scratch(&self) -> bool {
        self.ops.iter().any(|op| matches!(op, Op::Mask { .. }) || hides_proc() && matches!(op, Op::Proc))
            || self.caches.iter().any(|cache| matches!(cache.layers, CacheLayers::Forgotten { .. }))
    }

    fn make_caches(&mut self) -> Result<(), SetupFailure> {
        for (cache, index) in self.caches.iter_mut().zip(0..) {
            cache.mount = Some(cache.overlay(index)?);
        }
        Ok(())
    }

    fn attach_caches(&mut self) -> Result<(), SetupFailure> {
        for (cache, index) in self.caches.iter_mut().zip(0..) {
            let target = open_place(&cache.target).map_err(failure(Step::Cache, index))?;
            if let Some(mount) = cache.mount.take() {
                attach(mount.as_fd(), target.as_fd()).map_err(failure(Step::Cache, index))?;
            }
        }
        Ok(())
    }

    fn clone_masks(&mut self, scratch: BorrowedFd<'_>) -> Result<(), SetupFailure> {
        for (op, index) in self.ops.iter_mut().zip(0..) {
            if let Op::Mask { how, tree, .. } = op {
                // The scratch mount was made read-only with everything else, and its clones inherit that.
                let clone = clone_mount(scratch, how.scratch_name(), Reach::One);
                *tree = Some(clone.map_err(failure(Step::Mount, index))?);
            }
        }
        Ok(())
    }

    fn seal(&self) -> Result<(), SetupFailure> {
        for (op, index) in self.ops.iter().zip(0..) {
            if let Op::Tmpfs { access: TmpfsAccess::Read, mount: Some(mount), .. } = op {
                mount_setattr(mount.as_fd(), Reach::One, &MountAttr::READ_ONLY)
                    .map_err(failure(Step::Mount, index))?;
            }
        }
        Ok(())
    }
}

/// Mounts a tmpfs with what masks are made of: a directory and a file without permissions, an empty file.
fn make_scratch() -> Result<OwnedFd, Errno> {
    let mount = new_tmpfs(c"0700", None)?;
    rustix::fs::mkdirat(&mount, c"d", Mode::empty())?;
    for (name, mode) in [(c"f", Mode::empty()), (c"e", Mode::from_raw_mode(0o444))] {
        rustix::fs::openat(&mount, name, OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC, mode)?;
    }
    let target = open_place(SCRATCH)?;
    attach(mount.as_fd(), target.as_fd())?;
    Ok(mount)
}

fn open_devices(nodes: &mut [Option<OwnedFd>; 6]) -> Result<(), Errno> {
    for (slot, path) in nodes.iter_mut().zip(DEVICE_PATHS) {
        *slot = match clone_mount(CWD, path, Reach::One) {
            Ok(clone) => Some(clone),
            // A container's /dev may lack tty or full; what is not there is not offered.
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(errno),
        };
    }
    Ok(())
}

/// Text of `/proc/self/fd/N` for a descriptor, without allocating.
struct FdPath([u8; 32]);

impl FdPath {
    fn new(fd: BorrowedFd<'_>) -> Self {
        use std::io::Write as _;
        use std::os::fd::AsRawFd as _;
        let mut bytes = [0; 32];
        // 14 characters, at most 10 digits and the NUL fit.
        let _ = write!(&mut bytes[..31], "/proc/self/fd/{}", fd.as_raw_fd());
        Self(bytes)
    }

    fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or(c"")
    }
}

impl Cache {
    /// The mount of this cache, detached. Layers are named by descriptors, so that nothing between opening
    /// and mounting can exchange them and no character of a path is special to overlayfs.
    fn overlay(&self, index: u32) -> Result<OwnedFd, SetupFailure> {
        let fail = failure(Step::Cache, index);
        let lower = open_place(&self.target).map_err(&fail)?;
        if !is_same_file(lower.as_fd(), self.identity).map_err(&fail)? {
            return Err(SetupFailure { step: Step::Changed, index: Step::NO_INDEX, errno: 0 });
        }
        match &self.layers {
            CacheLayers::Kept { upper, work } => {
                let upper = open_place(upper).map_err(&fail)?;
                let work = open_place(work).map_err(&fail)?;
                overlay(lower.as_fd(), None, upper.as_fd(), work.as_fd()).map_err(&fail)
            }
            CacheLayers::Forgotten { kept } => {
                let kept = kept.as_deref().map(open_place).transpose().map_err(&fail)?;
                let [upper, work] = forgotten_layer(index).map_err(&fail)?;
                let over = kept.as_ref().map(|kept| kept.as_fd());
                overlay(lower.as_fd(), over, upper.as_fd(), work.as_fd()).map_err(&fail)
            }
            CacheLayers::Separate { directory } => {
                let directory = open_place(directory).map_err(&fail)?;
                let clone = clone_mount(directory.as_fd(), c"", Reach::Tree).map_err(&fail)?;
                mount_setattr(clone.as_fd(), Reach::Tree, &MountAttr::CONFINED).map_err(&fail)?;
                Ok(clone)
            }
        }
    }
}

/// Upper and work directories in the scratch tmpfs.
fn forgotten_layer(index: u32) -> Result<[OwnedFd; 2], Errno> {
    use std::io::Write as _;
    let make = |kind: char| {
        let mut bytes = [0; 24];
        let _ = write!(&mut bytes[..23], "/dev/{kind}{index}");
        let path = CStr::from_bytes_until_nul(&bytes).map_err(|_| Errno::NAMETOOLONG)?;
        rustix::fs::mkdir(path, Mode::RWXU)?;
        open_place(path)
    };
    Ok([make('u')?, make('w')?])
}

/// An overlay mount in this user namespace, Linux 5.11 (overlayfs.rst, `userxattr`).
fn overlay(
    lower: BorrowedFd<'_>,
    over_lower: Option<BorrowedFd<'_>>,
    upper: BorrowedFd<'_>,
    work: BorrowedFd<'_>,
) -> Result<OwnedFd, Errno> {
    let context = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let lower = FdPath::new(lower);
    match over_lower {
        None => fsconfig_set_string(context.as_fd(), c"lowerdir", lower.as_c_str())?,
        Some(over) => {
            use std::io::Write as _;
            let over = FdPath::new(over);
            let mut bytes = [0; 72];
            let _ = write!(
                &mut bytes[..71],
                "{}:{}",
                over.as_c_str().to_str().unwrap_or_default(),
                lower.as_c_str().to_str().unwrap_or_default()
            );
            let both = CStr::from_bytes_until_nul(&bytes).map_err(|_| Errno::NAMETOOLONG)?;
            fsconfig_set_string(context.as_fd(), c"lowerdir", both)?;
        }
    }
    fsconfig_set_string(context.as_fd(), c"upperdir", FdPath::new(upper).as_c_str())?;
    fsconfig_set_string(context.as_fd(), c"workdir", FdPath::new(work).as_c_str())?;
    fsconfig_set_flag(context.as_fd(), c"userxattr")?;
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn run(op: &mut Op, scratch: Option<BorrowedFd<'_>>, index: u32) -> Result<(), SetupFailure> {
    let fail = failure(Step::Mount, index);
    match op {
        Op::Bind { target, tree, .. } => {
            let place = open_place(target).map_err(&fail)?;
            let Some(tree) = tree.take() else { return Ok(()) };
            attach(tree.as_fd(), place.as_fd()).map_err(fail)
        }
        Op::Mask { target, identity, tree, .. } => {
            let place = match open_place(target) {
                Ok(place) => place,
                // Gone since the plan was made, or removed in a cache's own layer: nothing is left to hide.
                Err(Errno::NOENT) => return Ok(()),
                Err(errno) => return Err(fail(errno)),
            };
            // Inside a cache's overlay the same file has another device number; there the name is all there is,
            // and covering it by name is never less than what was asked for.
            let same_kind = mask_fits(place.as_fd(), *identity).map_err(&fail)?;
            if !same_kind {
                return Err(SetupFailure { step: Step::Changed, index, errno: 0 });
            }
            let Some(tree) = tree.take() else { return Ok(()) };
            attach(tree.as_fd(), place.as_fd()).map_err(fail)
        }
        Op::Tmpfs { target, mode, size, mount, .. } => {
            let fresh = new_tmpfs(mode, size.as_deref()).map_err(&fail)?;
            let place = open_place(target).map_err(&fail)?;
            attach(fresh.as_fd(), place.as_fd()).map_err(&fail)?;
            if target.as_c_str() == c"/" {
                stand_in(fresh.as_fd()).map_err(fail)?;
            }
            *mount = Some(fresh);
            Ok(())
        }
        Op::MakeDir { prefixes, mode } => make_dirs(prefixes, *mode).map_err(fail),
        Op::MakeFile { path, mode } => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::open(path.as_c_str(), flags, Mode::from_raw_mode(*mode)).map(drop).map_err(fail)
        }
        Op::Symlink { path, to } => rustix::fs::symlink(to.as_c_str(), path.as_c_str()).map_err(fail),
        Op::Proc => mount_proc(scratch).map_err(failure(Step::Proc, Step::NO_INDEX)),
        Op::Dev { nodes } => mount_dev(nodes).map_err(failure(Step::Dev, Step::NO_INDEX)),
    }
}

/// Makes what was mounted onto `/` the root of this process and of all that it starts. A path begins at the root that a
/// process has, whatever was mounted onto it since; who joins the namespace later begins at the topmost (setns(2)). The host's
/// tree lies below and nothing leads there: its root is covered, no descriptor of a directory is open, and what would
/// be needed to take the cover away is given up with the capabilities.
fn stand_in(root: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::process::fchdir(root)?;
    rustix::process::chroot(c".")
}

/// Whether a mask of the expected kind fits onto what is there now.
pub(super) fn mask_fits(place: BorrowedFd<'_>, expected: FileIdentity) -> Result<bool, Errno> {
    let stat = rustix::fs::fstat(place)?;
    let is_directory = |identity: FileIdentity| identity.kind == FileKind::Directory;
    Ok(is_directory(identity(&stat)) == is_directory(expected))
}

fn make_dirs(prefixes: &[CString], mode: u32) -> Result<(), Errno> {
    let Some((last, above)) = prefixes.split_last() else { return Ok(()) };
    for prefix in above {
        match rustix::fs::mkdir(prefix.as_c_str(), Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    match rustix::fs::mkdir(last.as_c_str(), Mode::from_raw_mode(mode)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn mount_proc(scratch: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    let context = fsopen(c"proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let proc = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let target = open_place(c"/proc")?;
    attach(proc.as_fd(), target.as_fd())?;
    if hides_proc() {
        hide_in_proc(proc.as_fd(), scratch.ok_or(Errno::NOENT)?)?;
        // Every file here that belongs to no process is one for all procfs of the host, and so is its mode, which its
        // owner may change: uid 0. What a process may write of its own is given up for that.
        return mount_setattr(proc.as_fd(), Reach::One, &MountAttr::READ_ONLY);
    }
    for name in PROC_READ_ONLY {
        let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let place = match rustix::fs::openat(&proc, name, flags, Mode::empty()) {
            Ok(place) => place,
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(errno),
        };
        let clone = clone_mount(place.as_fd(), c"", Reach::One)?;
        mount_setattr(clone.as_fd(), Reach::One, &MountAttr::READ_ONLY)?;
        attach(clone.as_fd(), place.as_fd())?;
    }
    Ok(())
}

/// Whether this is the host's uid 0, as far as files are concerned.
pub(super) fn hides_proc() -> bool {
    rustix::process::geteuid().is_root()
}

/// Covers what is there of [`PROC_HIDDEN`].
fn hide_in_proc(proc: BorrowedFd<'_>, scratch: BorrowedFd<'_>) -> Result<(), Errno> {
    for (name, kind) in PROC_HIDDEN {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let place = match rustix::fs::openat(proc, name, flags, Mode::empty()) {
            Ok(place) => place,
            // Not every kernel has everything. Known before there is a cover: to close an unused mount costs 0.1 ms.
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(errno),
        };
        let cover = clone_mount(scratch, kind.scratch_name(), Reach::One)?;
        attach(cover.as_fd(), place.as_fd())?;
    }
    Ok(())
}

fn mount_dev(nodes: &mut [Option<OwnedFd>; 6]) -> Result<(), Errno> {
    let dev = new_tmpfs(c"0755", None)?;
    let target = open_place(c"/dev")?;
    attach(dev.as_fd(), target.as_fd())?;
    for (name, node) in DEVICES.into_iter().zip(nodes.iter_mut()) {
        let Some(node) = node.take() else { continue };
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        drop(rustix::fs::openat(&dev, name, flags, Mode::from_raw_mode(0o666))?);
        let place = rustix::fs::openat(&dev, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        attach(node.as_fd(), place.as_fd())?;
    }
    let links: [(&CStr, &CStr); 5] = [
        (c"/proc/self/fd", c"fd"),
        (c"/proc/self/fd/0", c"stdin"),
        (c"/proc/self/fd/1", c"stdout"),
        (c"/proc/self/fd/2", c"stderr"),
        (c"pts/ptmx", c"ptmx"),
    ];
    for (to, name) in links {
        rustix::fs::symlinkat(to, &dev, name)?;
    }
    let [pts, shm] = [c"pts", c"shm"].map(|name| {
        rustix::fs::mkdirat(&dev, name, Mode::from_raw_mode(0o755))?;
        rustix::fs::openat(&dev, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
    });
    // The nodes are the host's own: read-only they can be written to, but not be given another mode by their owner.
    mount_setattr(dev.as_fd(), Reach::Tree, &MountAttr::READ_ONLY)?;
    attach(new_devpts()?.as_fd(), pts?.as_fd())?;
    attach(new_tmpfs(c"01777", None)?.as_fd(), shm?.as_fd())
}

/// Opens the sandbox's own /dev/null with the access that `flags` ask for.
pub(super) fn open_null(flags: OFlags) -> Result<OwnedFd, Errno> {
    let access = flags & OFlags::RWMODE;
    rustix::fs::open(c"/dev/null", access | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// A terminal file system of its own: no terminal of the host is in it.
fn new_devpts() -> Result<OwnedFd, Errno> {
    let context = fsopen(c"devpts", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), c"ptmxmode", c"0666")?;
    fsconfig_set_string(context.as_fd(), c"mode", c"0620")?;
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Enters the working directory, which must be the one that the plan was made for.
///
/// # Errors
/// [`Step::Cwd`] or [`Step::CwdChanged`].
pub(super) fn enter_directory(path: &CStr, expected: FileIdentity) -> Result<(), SetupFailure> {
    let fail = failure(Step::Cwd, Step::NO_INDEX);
    let place = match open_place(path) {
        // Under a filter that does not know the call, such as that of a sandbox around this one. Which file it is decides.
        Err(Errno::NOSYS) => {
            rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
        }
        opened => opened,
    };
    let place = place.map_err(&fail)?;
    if !is_same_file(place.as_fd(), expected).map_err(&fail)? {
        return Err(SetupFailure { step: Step::CwdChanged, index: Step::NO_INDEX, errno: 0 });
    }
    rustix::process::fchdir(&place).map_err(&fail)?;
    // Opened as a place it was not yet asked whether it may be searched.
    rustix::fs::accessat(CWD, c".", rustix::fs::Access::EXEC_OK, AtFlags::empty()).map_err(&fail)
}
