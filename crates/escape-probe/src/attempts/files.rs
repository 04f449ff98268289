//! Writing where nothing may be written.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use crate::outcome::{Outcome, reach};
use crate::raw::{self, sys};
use crate::stage::Stage;

/// Opens for writing without waiting and without changing anything.
pub(crate) fn open_to_write(path: impl AsRef<Path>) -> io::Result<File> {
    OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

/// Makes a file that is not there, and takes it back.
pub(crate) fn make(path: impl AsRef<Path>) -> Outcome {
    let made = OpenOptions::new().write(true).create_new(true).open(&path);
    if made.is_ok() {
        let _ = fs::remove_file(&path);
    }
    reach(made)
}

/// Renames, and renames back.
pub(crate) fn rename(from: PathBuf, to: PathBuf) -> Outcome {
    let renamed = fs::rename(&from, &to);
    if renamed.is_ok() {
        let _ = fs::rename(&to, &from);
    }
    reach(renamed)
}

/// Exchanges two names, and exchanges them back.
pub(crate) fn exchange(one: &Path, other: &Path) -> Outcome {
    const EXCHANGE: u32 = 2;
    let (one, other) = (raw::path(one), raw::path(other));
    let swap = || sys!(libc::SYS_renameat2, libc::AT_FDCWD, &one, libc::AT_FDCWD, &other, EXCHANGE);
    let swapped = swap();
    if swapped.is_ok() {
        let _ = swap();
    }
    reach(swapped)
}

/// Makes a hard link, and removes it.
pub(crate) fn link(from: impl AsRef<Path>, to: PathBuf) -> Outcome {
    let linked = fs::hard_link(from, &to);
    if linked.is_ok() {
        let _ = fs::remove_file(to);
    }
    reach(linked)
}

/// Makes a directory, and removes it.
pub(crate) fn make_directory(path: PathBuf) -> Outcome {
    let made = fs::create_dir(&path);
    if made.is_ok() {
        let _ = fs::remove_dir(&path);
    }
    reach(made)
}

/// A name in the workspace that nothing has.
fn free(stage: &Stage) -> PathBuf {
    stage.workspace("escape-probe-new")
}

pub(crate) fn write_outside(stage: &Stage) -> Outcome {
    reach(open_to_write(stage.outside("file")))
}

pub(crate) fn create_in_root(_: &Stage) -> Outcome {
    make("/.escape-probe-new")
}

pub(crate) fn create_outside(stage: &Stage) -> Outcome {
    make(stage.outside("new"))
}

pub(crate) fn create_in_home(stage: &Stage) -> Outcome {
    make(stage.home("new"))
}

pub(crate) fn create_above(_: &Stage) -> Outcome {
    make("../.escape-probe-new")
}

pub(crate) fn write_passwd(_: &Stage) -> Outcome {
    reach(open_to_write("/etc/passwd"))
}

pub(crate) fn write_through_symbolic_link(stage: &Stage) -> Outcome {
    reach(open_to_write(stage.workspace("symbolic-link")))
}

pub(crate) fn write_through_hard_link(stage: &Stage) -> Outcome {
    reach(open_to_write(stage.workspace("hard-link")))
}

pub(crate) fn link_outside(stage: &Stage) -> Outcome {
    link(stage.outside("file"), free(stage))
}

pub(crate) fn link_by_descriptor(stage: &Stage) -> Outcome {
    let file = match File::open(stage.outside("file")) {
        Ok(file) => file,
        Err(error) => return reach::<()>(Err(error)),
    };
    let from = raw::path(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let to = free(stage);
    let flags = libc::AT_SYMLINK_FOLLOW;
    let linked = sys!(libc::SYS_linkat, libc::AT_FDCWD, &from, libc::AT_FDCWD, &raw::path(&to), flags);
    if linked.is_ok() {
        let _ = fs::remove_file(to);
    }
    reach(linked)
}

pub(crate) fn rename_into_workspace(stage: &Stage) -> Outcome {
    rename(stage.outside("movable"), free(stage))
}

pub(crate) fn rename_out_of_workspace(stage: &Stage) -> Outcome {
    rename(stage.workspace("file"), stage.outside("new"))
}

pub(crate) fn exchange_outside(stage: &Stage) -> Outcome {
    exchange(&stage.workspace("file"), &stage.outside("movable"))
}

pub(crate) fn rename_workspace(stage: &Stage) -> Outcome {
    let aside = stage.folders.workspace.with_extension("aside");
    rename(stage.folders.workspace.clone(), aside)
}

pub(crate) fn write_by_proc_root(stage: &Stage) -> Outcome {
    let path = format!("/proc/self/root{}", stage.outside("file").display());
    reach(open_to_write(path))
}

pub(crate) fn write_by_proc_cwd(stage: &Stage) -> Outcome {
    let name = stage.folders.outside.strip_prefix(stage.folders.workspace.parent().unwrap_or(Path::new("/")));
    let Ok(name) = name else { return Outcome::error("outside is not beside the workspace") };
    reach(open_to_write(Path::new("/proc/self/cwd/..").join(name).join("file")))
}

pub(crate) fn write_by_proc_1_root(stage: &Stage) -> Outcome {
    reach(open_to_write(format!("/proc/1/root{}", stage.outside("file").display())))
}

pub(crate) fn reopen_to_write(stage: &Stage) -> Outcome {
    let opened = File::open(stage.outside("file"))
        .and_then(|file| open_to_write(format!("/proc/self/fd/{}", file.as_raw_fd())));
    reach(opened)
}

pub(crate) fn write_mapped(stage: &Stage) -> Outcome {
    let opened = OpenOptions::new().read(true).write(true).open(stage.outside("file"));
    reach(opened.and_then(|file| raw::write_mapped(&file)))
}

/// Shared mappings of a file that was opened for reading only.
pub(crate) fn write_mapped_read_only(stage: &Stage) -> Outcome {
    reach(File::open(stage.outside("file")).and_then(|file| raw::write_mapped(&file)))
}

pub(crate) fn truncate(stage: &Stage) -> Outcome {
    let path = stage.outside("file");
    let length = fs::metadata(&path).map_or(0, |metadata| metadata.len());
    reach(sys!(libc::SYS_truncate, &raw::path(path), length))
}

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).map_or(0o644, |metadata| metadata.permissions().mode() & 0o7777)
}

pub(crate) fn chmod(stage: &Stage) -> Outcome {
    let path = stage.outside("file");
    let mode = mode_of(&path);
    reach(fs::set_permissions(path, fs::Permissions::from_mode(mode)))
}

pub(crate) fn chmod_by_descriptor(stage: &Stage) -> Outcome {
    let path = stage.outside("file");
    let mode = mode_of(&path);
    let changed = File::open(path).and_then(|file| sys!(libc::SYS_fchmod, file.as_raw_fd(), mode));
    reach(changed)
}

pub(crate) fn chown(stage: &Stage) -> Outcome {
    reach(std::os::unix::fs::chown(stage.outside("file"), Some(raw::euid()), None))
}

pub(crate) fn set_times(stage: &Stage) -> Outcome {
    let path = raw::path(stage.outside("file"));
    reach(sys!(libc::SYS_utimensat, libc::AT_FDCWD, &path, 0, 0))
}

pub(crate) fn set_attribute(stage: &Stage) -> Outcome {
    let (path, name) = (raw::path(stage.outside("file")), raw::path("user.escape-probe"));
    let value: &[u8] = b"x";
    let set = sys!(libc::SYS_setxattr, &path, &name, value, value.len(), 0);
    if set.is_ok() {
        let _ = sys!(libc::SYS_removexattr, &path, &name);
    }
    reach(set)
}

pub(crate) fn set_attribute_by_descriptor(stage: &Stage) -> Outcome {
    let name = raw::path("user.escape-probe");
    let value: &[u8] = b"x";
    let set = File::open(stage.outside("file")).and_then(|file| {
        sys!(libc::SYS_fsetxattr, file.as_raw_fd(), &name, value, value.len(), 0)?;
        sys!(libc::SYS_fremovexattr, file.as_raw_fd(), &name)
    });
    reach(set)
}

/// file_getattr(2) and file_setattr(2), Linux 6.17.
pub(crate) fn set_file_attributes(stage: &Stage) -> Outcome {
    const FILE_GETATTR: libc::c_long = 468;
    const FILE_SETATTR: libc::c_long = 469;
    let path = raw::path(stage.outside("file"));
    let mut attributes = [0_u8; 24];
    let length = attributes.len();
    let set = sys!(FILE_GETATTR, libc::AT_FDCWD, &path, &mut attributes[..], length, 0)
        .and_then(|_| sys!(FILE_SETATTR, libc::AT_FDCWD, &path, &attributes[..], length, 0));
    reach(set)
}

pub(crate) fn set_inode_flags(stage: &Stage) -> Outcome {
    let mut flags = [0_u8; 8];
    let set = File::open(stage.outside("file")).and_then(|file| {
        sys!(libc::SYS_ioctl, file.as_raw_fd(), libc::FS_IOC_GETFLAGS, &mut flags[..])?;
        sys!(libc::SYS_ioctl, file.as_raw_fd(), libc::FS_IOC_SETFLAGS, &flags[..])
    });
    reach(set)
}

pub(crate) fn make_unnamed(stage: &Stage) -> Outcome {
    let open = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .mode(0o600)
        .open(stage.outside("directory"));
    reach(open)
}

pub(crate) fn make_directory_outside(stage: &Stage) -> Outcome {
    make_directory(stage.outside("new"))
}

pub(crate) fn remove_outside(stage: &Stage) -> Outcome {
    let path = stage.outside("removable");
    let removed = fs::remove_file(&path);
    if removed.is_ok() {
        let _ = fs::write(path, "untouched");
    }
    reach(removed)
}

pub(crate) fn make_symbolic_link_outside(stage: &Stage) -> Outcome {
    let path = stage.outside("new");
    let made = symlink("/", &path);
    if made.is_ok() {
        let _ = fs::remove_file(path);
    }
    reach(made)
}

pub(crate) fn make_fifo_outside(stage: &Stage) -> Outcome {
    let path = stage.outside("new");
    let mode = libc::S_IFIFO | 0o600;
    let made = sys!(libc::SYS_mknodat, libc::AT_FDCWD, &raw::path(&path), mode, 0);
    if made.is_ok() {
        let _ = fs::remove_file(path);
    }
    reach(made)
}

pub(crate) fn bind_socket_outside(stage: &Stage) -> Outcome {
    let path = stage.outside("new");
    let bound = UnixListener::bind(&path);
    if bound.is_ok() {
        let _ = fs::remove_file(path);
    }
    reach(bound)
}

pub(crate) fn write_fifo(stage: &Stage) -> Outcome {
    reach(open_to_write(stage.outside("fifo")))
}

pub(crate) fn write_host_tmp(stage: &Stage) -> Outcome {
    reach(open_to_write(stage.tmp.join("file")))
}

pub(crate) fn write_host_shared_memory(stage: &Stage) -> Outcome {
    reach(open_to_write(&stage.shared_memory))
}

pub(crate) fn read_outside(stage: &Stage) -> Outcome {
    reach(File::open(stage.outside("file")))
}

pub(crate) fn lock_outside(stage: &Stage) -> Outcome {
    let lock = libc::LOCK_EX | libc::LOCK_NB;
    let locked =
        File::open(stage.outside("file")).and_then(|file| sys!(libc::SYS_flock, file.as_raw_fd(), lock));
    reach(locked)
}

pub(crate) fn lease_outside(stage: &Stage) -> Outcome {
    let leased = File::open(stage.outside("removable"))
        .and_then(|file| sys!(libc::SYS_fcntl, file.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK));
    reach(leased)
}

/// Writes into the page cache of a file that was opened for reading (CVE-2022-0847), a byte that is there already
/// but for its case.
pub(crate) fn dirty_pipe(stage: &Stage) -> Outcome {
    const PIPE_BYTES: usize = 65_536;
    let path = stage.outside("file");
    let attack = || -> io::Result<()> {
        use std::io::{Read as _, Write as _};
        let file = File::open(&path)?;
        let (mut read, mut write) = io::pipe()?;
        let mut full = vec![0; PIPE_BYTES];
        write.write_all(&full)?;
        read.read_exact(&mut full)?;
        sys!(libc::SYS_splice, file.as_raw_fd(), 0, write.as_raw_fd(), 0, 1, 0)?;
        write.write_all(b"N")
    };
    if let Err(error) = attack() {
        return reach::<()>(Err(error));
    }
    match fs::read(&path) {
        Ok(text) if text == b"untouched" => Outcome::denied("the file is as it was"),
        Ok(_) => Outcome::allowed("the file changed"),
        Err(error) => reach::<()>(Err(error)),
    }
}

/// Makes a file that runs as its owner.
pub(crate) fn set_user_id_bit(stage: &Stage) -> Outcome {
    with_own_file(stage, |path| fs::set_permissions(path, fs::Permissions::from_mode(0o4755)))
}

pub(crate) fn set_group_id_bit(stage: &Stage) -> Outcome {
    with_own_file(stage, |path| fs::set_permissions(path, fs::Permissions::from_mode(0o2755)))
}

pub(crate) fn set_user_id_bit_by_descriptor(stage: &Stage) -> Outcome {
    with_own_file(stage, |path| {
        File::open(path).and_then(|file| sys!(libc::SYS_fchmod, file.as_raw_fd(), 0o4755)).map(drop)
    })
}

pub(crate) fn set_user_id_bit_by_fchmodat2(stage: &Stage) -> Outcome {
    // The same number everywhere; libc does not name it for every architecture.
    const FCHMODAT2: libc::c_long = 452;
    with_own_file(stage, |path| sys!(FCHMODAT2, libc::AT_FDCWD, &raw::path(path), 0o4755, 0).map(drop))
}

pub(crate) fn create_with_set_user_id_bit(stage: &Stage) -> Outcome {
    created_with_bit(stage, |path| {
        sys!(libc::SYS_openat, libc::AT_FDCWD, path, libc::O_CREAT | libc::O_WRONLY, 0o4755)
    })
}

pub(crate) fn create_with_set_user_id_bit_by_openat2(stage: &Stage) -> Outcome {
    let flags = u64::try_from(libc::O_CREAT | libc::O_WRONLY).unwrap_or_default();
    let how: Vec<u8> = [flags, 0o4755, 0].into_iter().flat_map(u64::to_ne_bytes).collect();
    created_with_bit(stage, |path| sys!(libc::SYS_openat2, libc::AT_FDCWD, path, &how[..], how.len()))
}

pub(crate) fn make_node_with_set_user_id_bit(stage: &Stage) -> Outcome {
    created_with_bit(stage, |path| sys!(libc::SYS_mknodat, libc::AT_FDCWD, path, libc::S_IFREG | 0o4755, 0))
}

pub(crate) fn set_file_capability(stage: &Stage) -> Outcome {
    // struct vfs_cap_data, version 2, effective, CAP_SYS_ADMIN permitted.
    let value: Vec<u8> = [0x0200_0001_u32, 1 << 21, 0, 0, 0].into_iter().flat_map(u32::to_le_bytes).collect();
    let name = raw::path("security.capability");
    with_own_file(stage, |path| {
        sys!(libc::SYS_setxattr, &raw::path(path), &name, &value[..], value.len(), 0).map(drop)
    })
}

pub(crate) fn make_character_device(stage: &Stage) -> Outcome {
    make_device(stage, libc::S_IFCHR, libc::makedev(1, 1))
}

pub(crate) fn make_block_device(stage: &Stage) -> Outcome {
    make_device(stage, libc::S_IFBLK, libc::makedev(7, 0))
}

fn make_device(stage: &Stage, kind: u32, device: u64) -> Outcome {
    let path = free(stage);
    let made = sys!(libc::SYS_mknodat, libc::AT_FDCWD, &raw::path(&path), kind | 0o600, device);
    if made.is_ok() {
        let _ = fs::remove_file(path);
    }
    reach(made)
}

/// Does something to a new file of the workspace, and removes that.
fn with_own_file(stage: &Stage, act: impl FnOnce(&Path) -> io::Result<()>) -> Outcome {
    let path = free(stage);
    let done = fs::write(&path, "").and_then(|()| act(&path));
    let _ = fs::remove_file(path);
    reach(done)
}

/// Makes a file, which counts as done only if it has the bit.
fn created_with_bit(stage: &Stage, make: impl FnOnce(&std::ffi::CString) -> io::Result<i64>) -> Outcome {
    let path = free(stage);
    let made = make(&raw::path(&path));
    let mode = fs::metadata(&path).map_or(0, |metadata| metadata.permissions().mode());
    let _ = fs::remove_file(path);
    match made {
        Ok(_) if mode & 0o4000 == 0 => Outcome::denied("made without the bit"),
        made => reach(made),
    }
}
