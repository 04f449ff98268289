//! What the caller has open: files, directories, its input, its terminal.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, RawFd};

use super::files::open_to_write;
use crate::outcome::{Outcome, door, reach};
use crate::raw::{self, sys};
use crate::stage::{INHERITED_DIRECTORY, INHERITED_FILE, Stage};

/// Whether a descriptor of this number is the file that the stage left open.
fn is_inherited(stage: &Stage) -> bool {
    let target = std::fs::read_link(format!("/proc/self/fd/{INHERITED_FILE}"));
    target.is_ok_and(|target| target == stage.inherited)
}

pub(crate) fn inherited_file(stage: &Stage) -> Outcome {
    if !is_inherited(stage) {
        return Outcome::absent("it is not open");
    }
    let nothing: &[u8] = b"";
    reach(sys!(libc::SYS_pwrite64, INHERITED_FILE, nothing, 0, 0))
}

pub(crate) fn inherited_directory(_: &Stage) -> Outcome {
    let flags = libc::O_RDWR | libc::O_CLOEXEC;
    reach(sys!(libc::SYS_openat, INHERITED_DIRECTORY, &raw::path("file"), flags))
}

pub(crate) fn working_directory(_: &Stage) -> Outcome {
    let opened = File::open("..").and_then(|above| {
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY | libc::O_CLOEXEC;
        let name = raw::path(".escape-probe-new");
        let made = sys!(libc::SYS_openat, above.as_raw_fd(), &name, flags, 0o600)?;
        sys!(libc::SYS_unlinkat, above.as_raw_fd(), &name, 0)?;
        Ok(made)
    });
    reach(opened)
}

/// Whether standard input is the file of the host.
fn input(stage: &Stage) -> Option<RawFd> {
    let target = std::fs::read_link("/proc/self/fd/0").ok()?;
    (target == stage.outside("input")).then_some(0)
}

pub(crate) fn input_reopen(stage: &Stage) -> Outcome {
    match input(stage) {
        Some(fd) => reach(open_to_write(format!("/proc/self/fd/{fd}"))),
        None => Outcome::absent("the file is not handed over"),
    }
}

pub(crate) fn input_chmod(stage: &Stage) -> Outcome {
    match input(stage) {
        Some(fd) => reach(sys!(libc::SYS_fchmod, fd, 0o644)),
        None => Outcome::absent("the file is not handed over"),
    }
}

pub(crate) fn input_attribute(stage: &Stage) -> Outcome {
    let Some(fd) = input(stage) else { return Outcome::absent("the file is not handed over") };
    let name = raw::path("user.escape-probe");
    let value: &[u8] = b"x";
    let set = sys!(libc::SYS_fsetxattr, fd, &name, value, value.len(), 0);
    if set.is_ok() {
        let _ = sys!(libc::SYS_fremovexattr, fd, &name);
    }
    reach(set)
}

/// Types a character that means nothing to whoever reads it.
fn type_into(fd: RawFd, command: u64) -> io::Result<i64> {
    let character: &[u8] = b"\0";
    sys!(libc::SYS_ioctl, fd, command, character)
}

/// A terminal that this process leads a session on.
fn own_terminal() -> io::Result<File> {
    let master = File::options().read(true).write(true).open("/dev/ptmx")?;
    let unlock = 0_i32.to_ne_bytes();
    sys!(libc::SYS_ioctl, master.as_raw_fd(), libc::TIOCSPTLCK, &unlock[..])?;
    let slave = sys!(libc::SYS_ioctl, master.as_raw_fd(), libc::TIOCGPTPEER, libc::O_RDWR | libc::O_NOCTTY)?;
    let slave = File::from(raw::owned(slave));
    // This process is a fork that leads nothing.
    sys!(libc::SYS_setsid)?;
    sys!(libc::SYS_ioctl, slave.as_raw_fd(), libc::TIOCSCTTY, 0)?;
    // Its end must not hang up while it is used; this process ends soon.
    std::mem::forget(master);
    Ok(slave)
}

pub(crate) fn type_into_own_terminal(_: &Stage) -> Outcome {
    reach(own_terminal().and_then(|terminal| type_into(terminal.as_raw_fd(), libc::TIOCSTI)))
}

/// The kernel looks at 32 bits of the command, which a filter has to do as well.
pub(crate) fn type_by_high_bits(_: &Stage) -> Outcome {
    let command = 0xdead_0000_0000 | libc::TIOCSTI;
    reach(own_terminal().and_then(|terminal| type_into(terminal.as_raw_fd(), command)))
}

pub(crate) fn type_into_host_terminal(stage: &Stage) -> Outcome {
    let opened = File::options().read(true).write(true).open(&stage.terminal);
    reach(opened.and_then(|terminal| type_into(terminal.as_raw_fd(), libc::TIOCSTI)))
}

pub(crate) fn type_into_controlling_terminal(_: &Stage) -> Outcome {
    let opened = File::options().read(true).write(true).open("/dev/tty");
    reach(opened.and_then(|terminal| type_into(terminal.as_raw_fd(), libc::TIOCSTI)))
}

pub(crate) fn open_host_terminal(stage: &Stage) -> Outcome {
    reach(open_to_write(&stage.terminal))
}

/// Selects and pastes on a console. Other terminals don't know the command, which their driver says.
pub(crate) fn paste_into_terminal(_: &Stage) -> Outcome {
    const TIOCLINUX: u64 = 0x541c;
    // What this subcommand does is to tell the state of the shift keys.
    let shift_state: &[u8] = &[6];
    let asked = own_terminal()
        .and_then(|terminal| sys!(libc::SYS_ioctl, terminal.as_raw_fd(), TIOCLINUX, shift_state));
    door(asked, &[libc::ENOTTY, libc::EINVAL])
}
