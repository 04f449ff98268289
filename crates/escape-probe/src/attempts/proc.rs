//! Doors in /proc, /sys and /dev.

use std::fs::{self, File};
use std::io;
use std::io::Read as _;
use std::path::Path;

use super::files::open_to_write;
use crate::outcome::{Outcome, reach};
use crate::stage::Stage;

/// Opens for reading and reads something, since some files say no only then. Nothing at all counts as a refusal.
fn read(path: impl AsRef<Path>) -> Outcome {
    let mut some = [0; 16];
    match File::open(path).and_then(|mut file| file.read(&mut some)) {
        Ok(0) => Outcome::denied("it reads as empty"),
        other => reach(other),
    }
}

fn write(path: impl AsRef<Path>) -> Outcome {
    reach(open_to_write(path))
}

/// Follows a link of procfs, which is refused or absent in its own way.
fn follow(path: impl AsRef<Path>) -> Outcome {
    reach(fs::read_link(path))
}

pub(crate) fn victim_environ(stage: &Stage) -> Outcome {
    read(format!("/proc/{}/environ", stage.victim))
}

pub(crate) fn victim_memory(stage: &Stage) -> Outcome {
    write(format!("/proc/{}/mem", stage.victim))
}

pub(crate) fn victim_root(stage: &Stage) -> Outcome {
    reach(fs::read_dir(format!("/proc/{}/root/", stage.victim)))
}

pub(crate) fn victim_status(stage: &Stage) -> Outcome {
    read(format!("/proc/{}/status", stage.victim))
}

pub(crate) fn victim_oom_score(stage: &Stage) -> Outcome {
    write(format!("/proc/{}/oom_score_adj", stage.victim))
}

pub(crate) fn pid_1_memory(_: &Stage) -> Outcome {
    write("/proc/1/mem")
}

pub(crate) fn pid_1_environ(_: &Stage) -> Outcome {
    read("/proc/1/environ")
}

pub(crate) fn pid_1_maps(_: &Stage) -> Outcome {
    read("/proc/1/maps")
}

pub(crate) fn pid_1_root(_: &Stage) -> Outcome {
    reach(fs::read_dir("/proc/1/root/"))
}

pub(crate) fn pid_1_cwd(_: &Stage) -> Outcome {
    follow("/proc/1/cwd")
}

pub(crate) fn pid_1_descriptors(_: &Stage) -> Outcome {
    // Their numbers say nothing; what they lead to does.
    let descriptors = fs::read_dir("/proc/1/fd").and_then(|mut list| list.next().transpose());
    match descriptors {
        Ok(Some(descriptor)) => follow(descriptor.path()),
        Ok(None) => Outcome::absent("it has none"),
        Err(error) => reach::<()>(Err(error)),
    }
}

pub(crate) fn pid_1_executable(_: &Stage) -> Outcome {
    // A program that runs can't be written either way, which the kernel says only to those who might.
    match open_to_write("/proc/1/exe") {
        Err(error) if error.raw_os_error() == Some(libc::ETXTBSY) => Outcome::allowed("only because it runs"),
        other => reach(other),
    }
}

pub(crate) fn pid_1_command_line(stage: &Stage) -> Outcome {
    let line = match fs::read("/proc/1/cmdline") {
        Ok(line) => String::from_utf8_lossy(&line).into_owned(),
        Err(error) => return reach::<()>(Err(error)),
    };
    let told = [&stage.folders.outside, &stage.folders.home, &stage.folders.workspace]
        .iter()
        .any(|path| line.contains(&*path.to_string_lossy()));
    if told {
        Outcome::allowed(line.replace('\0', " "))
    } else {
        Outcome::denied("it names no path of the host")
    }
}

pub(crate) fn core_pattern(_: &Stage) -> Outcome {
    write("/proc/sys/kernel/core_pattern")
}

pub(crate) fn drop_caches(_: &Stage) -> Outcome {
    write("/proc/sys/vm/drop_caches")
}

pub(crate) fn host_name(_: &Stage) -> Outcome {
    write("/proc/sys/kernel/hostname")
}

pub(crate) fn user_namespaces(_: &Stage) -> Outcome {
    write("/proc/sys/user/max_user_namespaces")
}

pub(crate) fn ip_forward(_: &Stage) -> Outcome {
    write("/proc/sys/net/ipv4/ip_forward")
}

pub(crate) fn binary_formats(_: &Stage) -> Outcome {
    write("/proc/sys/fs/binfmt_misc/register")
}

pub(crate) fn sysrq(_: &Stage) -> Outcome {
    write("/proc/sysrq-trigger")
}

pub(crate) fn interrupts(_: &Stage) -> Outcome {
    write("/proc/irq/default_smp_affinity")
}

pub(crate) fn kernel_memory(_: &Stage) -> Outcome {
    read("/proc/kcore")
}

pub(crate) fn kernel_messages(_: &Stage) -> Outcome {
    reach(File::open("/proc/kmsg"))
}

pub(crate) fn page_flags(_: &Stage) -> Outcome {
    read("/proc/kpageflags")
}

pub(crate) fn timers(_: &Stage) -> Outcome {
    read("/proc/timer_list")
}

pub(crate) fn key_list(stage: &Stage) -> Outcome {
    let Some(key) = stage.key else { return Outcome::absent("this host has no keys") };
    match fs::read_to_string("/proc/keys") {
        Ok(text) if text.contains(&format!("{key:08x}")) => Outcome::allowed("the caller's key is listed"),
        Ok(_) => Outcome::denied("the caller's key is not listed"),
        Err(error) => reach::<()>(Err(error)),
    }
}

pub(crate) fn map_users(_: &Stage) -> Outcome {
    reach(fs::write("/proc/self/uid_map", "0 0 4294967295"))
}

pub(crate) fn allow_groups(_: &Stage) -> Outcome {
    reach(fs::write("/proc/self/setgroups", "allow"))
}

pub(crate) fn huge_pages(_: &Stage) -> Outcome {
    write("/sys/kernel/mm/transparent_hugepage/enabled")
}

pub(crate) fn power_state(_: &Stage) -> Outcome {
    write("/sys/power/state")
}

pub(crate) fn event_helper(_: &Stage) -> Outcome {
    write("/sys/kernel/uevent_helper")
}

pub(crate) fn make_cgroup(_: &Stage) -> Outcome {
    let path = Path::new("/sys/fs/cgroup/escape-probe-new");
    super::files::make_directory(path.to_owned())
}

pub(crate) fn move_to_cgroup(_: &Stage) -> Outcome {
    write("/sys/fs/cgroup/cgroup.procs")
}

/// Changes the mode of the first of these to what it is. Each is one for the whole host, whatever it is mounted as.
fn change_mode(paths: &[&str]) -> Outcome {
    let change =
        |path: &str| fs::metadata(path).and_then(|found| fs::set_permissions(path, found.permissions()));
    let tried = paths.iter().map(|path| reach(change(path)));
    tried
        .reduce(|one, other| if one.verdict.is_stopped() { other } else { one })
        .unwrap_or_else(|| Outcome::error("nothing was named"))
}

pub(crate) fn proc_mode(_: &Stage) -> Outcome {
    change_mode(&[
        "/proc/uptime",
        "/proc/meminfo",
        "/proc/kmsg",
        "/proc/tty/ldiscs",
        "/proc/pressure",
        "/proc",
    ])
}

pub(crate) fn device_mode(_: &Stage) -> Outcome {
    change_mode(&["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"])
}

pub(crate) fn device_mode_by_descriptor(_: &Stage) -> Outcome {
    let change =
        File::open("/dev/null").and_then(|null| null.set_permissions(null.metadata()?.permissions()));
    reach(change)
}

pub(crate) fn device_times(_: &Stage) -> Outcome {
    use crate::raw::{self, sys};
    reach(sys!(libc::SYS_utimensat, libc::AT_FDCWD, &raw::path("/dev/null"), 0, 0))
}

/// Opens the first of these devices that gives an answer other than that it is not there.
fn device(paths: &[&str]) -> Outcome {
    let tried = paths.iter().map(|path| reach(open_to_write(path)));
    tried
        .into_iter()
        .reduce(|one, other| if one.verdict.is_stopped() { other } else { one })
        .unwrap_or_else(|| Outcome::error("no device was named"))
}

pub(crate) fn memory_device(_: &Stage) -> Outcome {
    device(&["/dev/mem", "/dev/port", "/dev/nvram"])
}

pub(crate) fn message_device(_: &Stage) -> Outcome {
    device(&["/dev/kmsg"])
}

pub(crate) fn disk_device(_: &Stage) -> Outcome {
    let disks = match fs::read_dir("/sys/class/block") {
        Ok(disks) => disks,
        Err(error) => return reach::<()>(Err(error)),
    };
    let paths: Vec<String> =
        disks.flatten().map(|disk| format!("/dev/{}", disk.file_name().to_string_lossy())).collect();
    // For reading: to open a disk for writing could disturb whoever holds it.
    let opened: io::Result<Vec<File>> = paths.iter().map(File::open).collect();
    match paths.iter().find(|path| File::open(path).is_ok()) {
        Some(path) => Outcome::allowed(path.clone()),
        None if paths.is_empty() => Outcome::absent("this host has no disks"),
        None => reach(opened),
    }
}

pub(crate) fn fuse_device(_: &Stage) -> Outcome {
    device(&["/dev/fuse", "/dev/cuse"])
}

pub(crate) fn tunnel_device(_: &Stage) -> Outcome {
    device(&["/dev/net/tun", "/dev/vhost-net", "/dev/vhost-vsock"])
}

pub(crate) fn machine_device(_: &Stage) -> Outcome {
    device(&["/dev/kvm", "/dev/loop-control", "/dev/mapper/control", "/dev/btrfs-control"])
}

pub(crate) fn input_device(_: &Stage) -> Outcome {
    device(&["/dev/uinput", "/dev/input/event0"])
}

pub(crate) fn terminal_device(_: &Stage) -> Outcome {
    device(&["/dev/console", "/dev/tty0", "/dev/tty1", "/dev/ttyS0"])
}
