//! Reaching processes of the host: its memory, its signals, its shared memory, its keys.

use std::io;
use std::os::fd::AsRawFd as _;

use crate::outcome::{Outcome, reach};
use crate::raw::{self, Forked, sys};
use crate::stage::{SECRET, Stage};

pub(crate) fn signal_victim(stage: &Stage) -> Outcome {
    reach(sys!(libc::SYS_kill, stage.victim, 0))
}

pub(crate) fn open_victim(stage: &Stage) -> Outcome {
    reach(sys!(libc::SYS_pidfd_open, stage.victim, 0))
}

/// Attaches, waits for the stop, detaches.
fn trace(pid: i32) -> io::Result<()> {
    sys!(libc::SYS_ptrace, libc::PTRACE_SEIZE, pid, 0, 0)?;
    sys!(libc::SYS_ptrace, libc::PTRACE_INTERRUPT, pid, 0, 0)?;
    raw::wait(pid)?;
    sys!(libc::SYS_ptrace, libc::PTRACE_DETACH, pid, 0, 0)?;
    Ok(())
}

pub(crate) fn trace_victim(stage: &Stage) -> Outcome {
    reach(trace(stage.victim))
}

/// Does something to a child that waits.
fn with_child(act: impl FnOnce(i32) -> io::Result<()>) -> Outcome {
    match raw::fork() {
        Ok(Forked::Child) => loop {
            let _ = sys!(libc::SYS_ppoll, 0, 0, 0, 0);
        },
        Ok(Forked::Parent(child)) => {
            let done = act(child);
            raw::kill(child, libc::SIGKILL);
            let _ = raw::wait(child);
            reach(done)
        }
        Err(error) => reach::<()>(Err(error)),
    }
}

pub(crate) fn trace_sibling(_: &Stage) -> Outcome {
    with_child(trace)
}

pub(crate) fn take_descriptor(_: &Stage) -> Outcome {
    with_child(|child| {
        let process = raw::owned(sys!(libc::SYS_pidfd_open, child, 0)?);
        sys!(libc::SYS_pidfd_getfd, &process, 0, 0).map(drop)
    })
}

fn read_memory(pid: i32) -> io::Result<()> {
    let mut bytes = [0_u8; 8];
    let place = bytes.as_mut_ptr().addr();
    // The stack of a fork lies where ours does.
    let vector: Vec<u8> = [place, bytes.len()].into_iter().flat_map(usize::to_ne_bytes).collect();
    sys!(libc::SYS_process_vm_readv, pid, &vector[..], 1, &vector[..], 1, 0).map(drop)
}

pub(crate) fn read_victim(stage: &Stage) -> Outcome {
    match read_memory(stage.victim) {
        // Another program's stack may end above that address.
        Err(error) if error.raw_os_error() == Some(libc::EFAULT) => {
            Outcome::allowed("its memory was looked at")
        }
        other => reach(other),
    }
}

pub(crate) fn read_sibling(_: &Stage) -> Outcome {
    with_child(read_memory)
}

pub(crate) fn compare_sibling(_: &Stage) -> Outcome {
    const KCMP_FILE: i32 = 0;
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    with_child(|child| sys!(libc::SYS_kcmp, own, child, KCMP_FILE, 0, 0).map(drop))
}

pub(crate) fn limit_victim(stage: &Stage) -> Outcome {
    let mut limit = [0_u8; 16];
    let changed = sys!(libc::SYS_prlimit64, stage.victim, libc::RLIMIT_NOFILE, 0, &mut limit[..])
        .and_then(|_| sys!(libc::SYS_prlimit64, stage.victim, libc::RLIMIT_NOFILE, &limit[..], 0));
    reach(changed)
}

pub(crate) fn schedule_victim(stage: &Stage) -> Outcome {
    let mut processors = [0_u8; 128];
    let changed = sys!(libc::SYS_sched_getaffinity, stage.victim, processors.len(), &mut processors[..])
        .and_then(|_| sys!(libc::SYS_sched_setaffinity, stage.victim, processors.len(), &processors[..]));
    reach(changed)
}

pub(crate) fn nice_victim(stage: &Stage) -> Outcome {
    const PROCESS: i32 = 0;
    // The call returns 20 less the value, so that it is never negative.
    let changed = sys!(libc::SYS_getpriority, PROCESS, stage.victim)
        .and_then(|nice| sys!(libc::SYS_setpriority, PROCESS, stage.victim, 20 - nice));
    reach(changed)
}

pub(crate) fn move_victims_pages(stage: &Stage) -> Outcome {
    let mut status = [0_u8; 4];
    let page = 4096_usize.to_ne_bytes();
    reach(sys!(libc::SYS_move_pages, stage.victim, 1, &page[..], 0, &mut status[..], 0))
}

pub(crate) fn shared_segment(stage: &Stage) -> Outcome {
    reach(sys!(libc::SYS_shmget, stage.ipc_key, 0, 0))
}

pub(crate) fn semaphores(stage: &Stage) -> Outcome {
    reach(sys!(libc::SYS_semget, stage.ipc_key, 0, 0))
}

pub(crate) fn message_queue(stage: &Stage) -> Outcome {
    reach(sys!(libc::SYS_msgget, stage.ipc_key, 0))
}

pub(crate) fn posix_queue(stage: &Stage) -> Outcome {
    let Some(name) = &stage.posix_queue else { return Outcome::absent("this host has no queues") };
    reach(sys!(libc::SYS_mq_open, &raw::path(name), libc::O_RDWR | libc::O_CLOEXEC, 0, 0))
}

const KEYCTL_READ: i32 = 11;
const KEYCTL_SEARCH: i32 = 10;
const SESSION_KEYRING: i32 = -3;

pub(crate) fn read_key(stage: &Stage) -> Outcome {
    let Some(key) = stage.key else { return Outcome::absent("this host has no keys") };
    let mut value = [0_u8; 64];
    match sys!(libc::SYS_keyctl, KEYCTL_READ, key, &mut value[..], value.len()) {
        Ok(_) if value.starts_with(SECRET.as_bytes()) => Outcome::allowed("read"),
        Ok(_) => Outcome::denied("another value was read"),
        Err(error) => reach::<()>(Err(error)),
    }
}

pub(crate) fn find_key(_: &Stage) -> Outcome {
    let (kind, name) = (raw::path("user"), raw::path("escape-probe"));
    reach(sys!(libc::SYS_keyctl, KEYCTL_SEARCH, SESSION_KEYRING, &kind, &name, 0))
}

pub(crate) fn add_key(_: &Stage) -> Outcome {
    const PROCESS_KEYRING: i32 = -2;
    let (kind, name) = (raw::path("user"), raw::path("escape-probe-of-the-command"));
    let value: &[u8] = b"x";
    reach(sys!(libc::SYS_add_key, &kind, &name, value, value.len(), PROCESS_KEYRING))
}

pub(crate) fn request_key(_: &Stage) -> Outcome {
    let (kind, name) = (raw::path("user"), raw::path("escape-probe"));
    reach(sys!(libc::SYS_request_key, &kind, &name, 0, 0))
}

/// Executes a program that carries another user's rights.
pub(crate) fn set_user_id_program(stage: &Stage) -> Outcome {
    let Some(program) = &stage.set_user_id else { return Outcome::absent("only root can put one there") };
    match std::process::Command::new(program).arg("user").output() {
        Ok(output) if output.stdout.starts_with(b"65534") => Outcome::allowed("it runs as its owner"),
        Ok(_) => Outcome::denied("it runs as who started it"),
        Err(error) => reach::<()>(Err(error)),
    }
}

pub(crate) fn new_privileges(_: &Stage) -> Outcome {
    match sys!(libc::SYS_prctl, libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) {
        Ok(0) => Outcome::allowed("programs may bring privileges"),
        Ok(_) => Outcome::denied("no_new_privs is set"),
        Err(error) => reach::<()>(Err(error)),
    }
}

pub(crate) fn gain_capabilities(_: &Stage) -> Outcome {
    // Version 3, this process; effective, permitted, inheritable of the low half and of the high one.
    let header = [0x2008_0522_u32, 0].map(u32::to_ne_bytes).concat();
    let data = [1_u32 << 21, 1 << 21, 0, 0, 0, 0].map(u32::to_ne_bytes).concat();
    reach(sys!(libc::SYS_capset, &header[..], &data[..]))
}

pub(crate) fn become_root(_: &Stage) -> Outcome {
    const NOBODY: u32 = 65_534;
    // Root changes to somebody else, who would be out of the sandbox owner's reach.
    let other = if raw::euid() == 0 { NOBODY } else { 0 };
    match sys!(libc::SYS_setresuid, other, other, other) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Outcome::denied("there is no such user"),
        other => reach(other),
    }
}

pub(crate) fn execute_from_memory(_: &Stage) -> Outcome {
    let run = || -> io::Result<bool> {
        use std::io::Write as _;
        let memory = raw::owned(sys!(libc::SYS_memfd_create, &raw::path("escape-probe"), 0)?);
        let mut file = std::fs::File::from(memory);
        file.write_all(&std::fs::read("/proc/self/exe")?)?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        Ok(std::process::Command::new(path).arg("user").output()?.status.success())
    };
    match run() {
        // A file that is open for writing can't be executed.
        Err(error) if error.raw_os_error() == Some(libc::ETXTBSY) => Outcome::error("it is open for writing"),
        Ok(false) => Outcome::denied("it did not run"),
        other => reach(other),
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) fn call_of_32_bits(_: &Stage) -> Outcome {
    let answer = raw::socket_by_int_80();
    if answer >= 0 { Outcome::allowed("a socket") } else { Outcome::denied(format!("answered {answer}")) }
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn call_of_32_bits(_: &Stage) -> Outcome {
    Outcome::absent("this architecture has no such door")
}

#[cfg(target_arch = "x86_64")]
pub(crate) fn call_of_x32(_: &Stage) -> Outcome {
    const X32: libc::c_long = 0x4000_0000;
    reach(sys!(X32 + libc::SYS_getpid))
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn call_of_x32(_: &Stage) -> Outcome {
    Outcome::absent("this architecture has no such door")
}
