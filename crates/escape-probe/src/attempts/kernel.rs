//! Namespaces, mounts, and calls that belong to whoever owns the machine.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use crate::outcome::{Outcome, door, reach};
use crate::raw::{self, sys};
use crate::stage::Stage;

pub(crate) const NEWTIME: i32 = 0x80;

/// unshare(2) with a flag.
pub(crate) fn unshare<const FLAG: i32>(_: &Stage) -> Outcome {
    reach(sys!(libc::SYS_unshare, FLAG))
}

/// unshare(2) of a user namespace and, in it, of another one, which needs no privilege outside.
pub(crate) fn unshare_mounts_as_new_user(_: &Stage) -> Outcome {
    reach(sys!(libc::SYS_unshare, libc::CLONE_NEWUSER | libc::CLONE_NEWNS))
}

/// clone(2) without a stack is a fork.
pub(crate) fn clone_user_namespace(_: &Stage) -> Outcome {
    let made = sys!(libc::SYS_clone, libc::CLONE_NEWUSER | libc::SIGCHLD, 0, 0, 0, 0);
    if let Ok(0) = made {
        raw::exit(0);
    }
    reach(made)
}

pub(crate) fn clone3_user_namespace(_: &Stage) -> Outcome {
    let flags = u64::try_from(libc::CLONE_NEWUSER).unwrap_or_default();
    let signal = u64::try_from(libc::SIGCHLD).unwrap_or_default();
    let arguments = [flags, 0, 0, 0, signal, 0, 0, 0].map(u64::to_ne_bytes).concat();
    let made = sys!(libc::SYS_clone3, &arguments[..], arguments.len());
    if let Ok(0) = made {
        raw::exit(0);
    }
    reach(made)
}

fn enter(path: &str, kind: i32) -> Outcome {
    reach(File::open(path).and_then(|namespace| sys!(libc::SYS_setns, namespace.as_raw_fd(), kind)))
}

pub(crate) fn enter_own_mounts(_: &Stage) -> Outcome {
    enter("/proc/self/ns/mnt", libc::CLONE_NEWNS)
}

pub(crate) fn enter_mounts_of_pid_1(_: &Stage) -> Outcome {
    enter("/proc/1/ns/mnt", libc::CLONE_NEWNS)
}

pub(crate) fn enter_users_of_victim(stage: &Stage) -> Outcome {
    enter(&format!("/proc/{}/ns/user", stage.victim), libc::CLONE_NEWUSER)
}

/// The user namespace that owns ours, and the one above it (ioctl_nsfs(2)).
pub(crate) fn parent_namespace(_: &Stage) -> Outcome {
    const NS_GET_PARENT: u64 = 0xb702;
    let parent = File::open("/proc/self/ns/user")
        .and_then(|namespace| sys!(libc::SYS_ioctl, namespace.as_raw_fd(), NS_GET_PARENT));
    reach(parent)
}

fn mount(kind: &str, flags: u64, stage: &Stage, from: &str) -> Outcome {
    let (kind, from) = (raw::path(kind), raw::path(from));
    let on = raw::path(stage.workspace("nested"));
    let mounted = sys!(libc::SYS_mount, &from, &on, &kind, flags, 0);
    if mounted.is_ok() {
        let _ = sys!(libc::SYS_umount2, &on, libc::MNT_DETACH);
    }
    reach(mounted)
}

pub(crate) fn mount_tmpfs(stage: &Stage) -> Outcome {
    mount("tmpfs", 0, stage, "none")
}

pub(crate) fn mount_bind(stage: &Stage) -> Outcome {
    mount("", libc::MS_BIND, stage, "/etc")
}

pub(crate) fn mount_proc(stage: &Stage) -> Outcome {
    mount("proc", 0, stage, "proc")
}

/// Clears the read-only flag of `/`, which a host does not have.
pub(crate) fn make_root_writable(_: &Stage) -> Outcome {
    // struct mount_attr: set, clear, propagation, user namespace.
    let attributes = [0_u64, 1, 0, 0].map(u64::to_ne_bytes).concat();
    let root = raw::path("/");
    reach(sys!(libc::SYS_mount_setattr, libc::AT_FDCWD, &root, 0, &attributes[..], attributes.len()))
}

pub(crate) fn clone_tree(_: &Stage) -> Outcome {
    const CLONE_TREE: u32 = 1;
    let root = raw::path("/etc");
    reach(sys!(libc::SYS_open_tree, libc::AT_FDCWD, &root, CLONE_TREE))
}

/// open_tree_attr(2), Linux 6.15.
pub(crate) fn clone_tree_with_attributes(_: &Stage) -> Outcome {
    const OPEN_TREE_ATTR: libc::c_long = 467;
    const CLONE_TREE: u32 = 1;
    let attributes = [0_u64, 1, 0, 0].map(u64::to_ne_bytes).concat();
    let root = raw::path("/etc");
    reach(sys!(OPEN_TREE_ATTR, libc::AT_FDCWD, &root, CLONE_TREE, &attributes[..], attributes.len()))
}

/// Moves nothing to nowhere: who may not mount is told so first.
pub(crate) fn move_mount(stage: &Stage) -> Outcome {
    let on = raw::path(stage.workspace("nested"));
    let moved = sys!(libc::SYS_move_mount, libc::AT_FDCWD, &on, libc::AT_FDCWD, &on, 0);
    door(moved, &[libc::EINVAL, libc::ELOOP])
}

pub(crate) fn open_file_system(_: &Stage) -> Outcome {
    reach(sys!(libc::SYS_fsopen, &raw::path("tmpfs"), 0))
}

pub(crate) fn pivot_root(stage: &Stage) -> Outcome {
    // Neither is a mount, so nothing is moved.
    let place = raw::path(stage.workspace("nested"));
    door(sys!(libc::SYS_pivot_root, &place, &place), &[libc::EINVAL, libc::EBUSY])
}

pub(crate) fn change_root(stage: &Stage) -> Outcome {
    reach(sys!(libc::SYS_chroot, &raw::path(&stage.folders.outside)))
}

pub(crate) fn list_mounts(_: &Stage) -> Outcome {
    const LISTMOUNT: libc::c_long = 458;
    const ROOT: u64 = u64::MAX;
    // struct mnt_id_req: size, spare, mount, parameter.
    let mut request = [24_u32, 0].map(u32::to_ne_bytes).concat();
    request.extend([ROOT, 0].map(u64::to_ne_bytes).concat());
    let mut mounts = [0_u8; 64];
    reach(sys!(LISTMOUNT, &request[..], &mut mounts[..], 8, 0))
}

pub(crate) fn load_program(_: &Stage) -> Outcome {
    const BPF_MAP_CREATE: i32 = 0;
    // An array with one element of 8 bytes.
    let attributes = [2_u32, 4, 8, 1, 0, 0, 0, 0].map(u32::to_ne_bytes).concat();
    reach(sys!(libc::SYS_bpf, BPF_MAP_CREATE, &attributes[..], attributes.len()))
}

pub(crate) fn measure(_: &Stage) -> Outcome {
    // struct perf_event_attr: a software event that counts page faults of this process, user mode only.
    let mut attributes = [0_u8; 128];
    attributes[0..4].copy_from_slice(&1_u32.to_ne_bytes());
    attributes[4..8].copy_from_slice(&128_u32.to_ne_bytes());
    attributes[8..16].copy_from_slice(&2_u64.to_ne_bytes());
    // disabled, exclude_kernel, exclude_hv
    attributes[40..48].copy_from_slice(&0b110_0001_u64.to_ne_bytes());
    reach(sys!(libc::SYS_perf_event_open, &attributes[..], 0, -1, -1, 0))
}

pub(crate) fn handle_faults(_: &Stage) -> Outcome {
    const USER_MODE_ONLY: i32 = 1;
    reach(sys!(libc::SYS_userfaultfd, USER_MODE_ONLY))
}

pub(crate) fn set_up_ring(_: &Stage) -> Outcome {
    let mut parameters = [0_u8; 120];
    reach(sys!(libc::SYS_io_uring_setup, 1, &mut parameters[..]))
}

pub(crate) fn load_kernel(_: &Stage) -> Outcome {
    const NO_SUCH_FLAG: u64 = 1 << 15;
    door(sys!(libc::SYS_kexec_load, 0, 0, 0, NO_SUCH_FLAG), &[libc::EINVAL])
}

pub(crate) fn load_module(_: &Stage) -> Outcome {
    let none: &[u8] = b"";
    let loaded = sys!(libc::SYS_init_module, none, 0, &raw::path(""));
    door(loaded, &[libc::ENOEXEC, libc::EFAULT, libc::EINVAL])
}

pub(crate) fn load_module_file(_: &Stage) -> Outcome {
    let loaded = File::open("/dev/null")
        .and_then(|file| sys!(libc::SYS_finit_module, file.as_raw_fd(), &raw::path(""), 0));
    door(loaded, &[libc::ENOEXEC, libc::EINVAL, libc::EIO])
}

pub(crate) fn unload_module(_: &Stage) -> Outcome {
    let unloaded = sys!(libc::SYS_delete_module, &raw::path("no such module"), libc::O_NONBLOCK);
    door(unloaded, &[libc::ENOENT])
}

pub(crate) fn restart(_: &Stage) -> Outcome {
    // Without the magic numbers nothing happens.
    door(sys!(libc::SYS_reboot, 0, 0, 0, 0), &[libc::EINVAL])
}

pub(crate) fn swap(stage: &Stage) -> Outcome {
    let swapped = sys!(libc::SYS_swapon, &raw::path(stage.outside("missing")), 0);
    door(swapped, &[libc::ENOENT, libc::EINVAL])
}

/// Sets the length of a tick to what it is.
pub(crate) fn adjust_clock(_: &Stage) -> Outcome {
    const ADJ_TICK: u32 = 0x4000;
    let mut state = [0_u8; 208];
    let adjusted = sys!(libc::SYS_adjtimex, &mut state[..]).and_then(|_| {
        state[..4].copy_from_slice(&ADJ_TICK.to_ne_bytes());
        sys!(libc::SYS_adjtimex, &mut state[..])
    });
    reach(adjusted)
}

pub(crate) fn rename_host(_: &Stage) -> Outcome {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim_end().as_bytes();
    reach(sys!(libc::SYS_sethostname, name, name.len()))
}

pub(crate) fn rename_domain(_: &Stage) -> Outcome {
    let name = std::fs::read_to_string("/proc/sys/kernel/domainname").unwrap_or_default();
    let name = name.trim_end().as_bytes();
    reach(sys!(libc::SYS_setdomainname, name, name.len()))
}

pub(crate) fn read_log(_: &Stage) -> Outcome {
    const READ_ALL: i32 = 3;
    let mut text = [0_u8; 64];
    reach(sys!(libc::SYS_syslog, READ_ALL, &mut text[..], text.len()))
}

pub(crate) fn watch_everything(_: &Stage) -> Outcome {
    const CLASS_NOTIF: u32 = 0;
    const MARK_ADD_MOUNT: u32 = 0x11;
    const OPEN: u64 = 0x20;
    let watched = sys!(libc::SYS_fanotify_init, CLASS_NOTIF, 0).map(raw::owned).and_then(|group: OwnedFd| {
        sys!(libc::SYS_fanotify_mark, &group, MARK_ADD_MOUNT, OPEN, libc::AT_FDCWD, &raw::path("/"))
    });
    reach(watched)
}

/// Asks about a quota with a command that there is not: what is told first is who may not ask.
pub(crate) fn quota(stage: &Stage) -> Outcome {
    const SYNC: u32 = 0x0080_0001 << 8;
    let path = raw::path(&stage.folders.outside);
    door(sys!(libc::SYS_quotactl, SYNC, &path, 0, 0), &[libc::ENOTBLK, libc::EINVAL, libc::ENOSYS])
}

pub(crate) fn account(stage: &Stage) -> Outcome {
    let path = raw::path(stage.outside("directory"));
    door(sys!(libc::SYS_acct, &path), &[libc::EACCES, libc::EISDIR])
}

pub(crate) fn weaken_memory(_: &Stage) -> Outcome {
    const READ_IMPLIES_EXEC: i32 = 0x040_0000;
    reach(sys!(libc::SYS_personality, READ_IMPLIES_EXEC))
}

#[cfg(target_arch = "x86_64")]
pub(crate) fn ports(_: &Stage) -> Outcome {
    reach(sys!(libc::SYS_ioperm, 0x80, 1, 1))
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn ports(_: &Stage) -> Outcome {
    Outcome::absent("this architecture has no ports")
}

/// A number that no kernel has: a filter with holes would let it through, and so would the kernel's answer.
pub(crate) fn unknown_call(_: &Stage) -> Outcome {
    const UNKNOWN: libc::c_long = 9999;
    reach(sys!(UNKNOWN))
}

/// A filter that asks the command itself would answer what ours asks the holder.
pub(crate) fn asking_filter(_: &Stage) -> Outcome {
    const SET_MODE_FILTER: i32 = 1;
    const NEW_LISTENER: i32 = 1 << 3;
    // It allows everything: whether it may have a listener does not depend on what it asks.
    let allow = [0x06_u16.to_le_bytes(), [0, 0], [0, 0], 0x7fff_u16.to_le_bytes()].concat();
    let program = [1_usize, allow.as_ptr().addr()].map(usize::to_ne_bytes).concat();
    let installed = || -> io::Result<i64> {
        sys!(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)?;
        sys!(libc::SYS_seccomp, SET_MODE_FILTER, NEW_LISTENER, &program[..])
    };
    reach(installed())
}

/// A filter of the command's own that allows everything must not take anything of ours away.
pub(crate) fn second_filter(_: &Stage) -> Outcome {
    const SET_MODE_FILTER: i32 = 1;
    // BPF_RET | BPF_K with SECCOMP_RET_ALLOW: code, two jumps, the value.
    let allow = [0x06_u16.to_le_bytes(), [0, 0], [0, 0], 0x7fff_u16.to_le_bytes()].concat();
    let program = [1_usize, allow.as_ptr().addr()].map(usize::to_ne_bytes).concat();
    let unshared = || -> io::Result<i64> {
        sys!(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)?;
        sys!(libc::SYS_seccomp, SET_MODE_FILTER, 0, &program[..])?;
        sys!(libc::SYS_unshare, libc::CLONE_NEWUSER)
    };
    reach(unshared())
}
