//! What of the stage is no file: shared memory, a key, a terminal, open descriptors and a process to attack.

use std::fs::File;
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use super::{INHERITED_DIRECTORY, INHERITED_FILE, SECRET};
use crate::raw::{self, Forked, sys};

/// Process ids below this are given out in a sandbox too, and an attempt would hit its own kind.
const LEAST_VICTIM: i32 = 2000;

/// A segment, a semaphore set and a message queue under one key.
pub(super) fn make_system_v(key: i32) -> io::Result<[i64; 3]> {
    const MODE: i32 = libc::IPC_CREAT | libc::IPC_EXCL | 0o600;
    Ok([
        sys!(libc::SYS_shmget, key, 4096_usize, MODE)?,
        sys!(libc::SYS_semget, key, 1, MODE)?,
        sys!(libc::SYS_msgget, key, MODE)?,
    ])
}

/// Takes back what [`make_system_v`] made.
pub(super) fn remove_system_v([segment, semaphores, messages]: [i64; 3]) {
    // Whoever removed one already did what is done here.
    let _ = sys!(libc::SYS_shmctl, segment, libc::IPC_RMID, 0);
    let _ = sys!(libc::SYS_semctl, semaphores, 0, libc::IPC_RMID);
    let _ = sys!(libc::SYS_msgctl, messages, libc::IPC_RMID, 0);
}

/// A POSIX message queue, where the kernel has them.
pub(super) fn make_posix_queue(name: &str) -> Option<String> {
    const MODE: i32 = libc::O_CREAT | libc::O_RDWR | libc::O_CLOEXEC;
    let queue = sys!(libc::SYS_mq_open, &raw::path(name), MODE, 0o600, 0).ok()?;
    drop(raw::owned(queue));
    Some(name.to_owned())
}

/// A key in a new session keyring of this process, where the kernel has them.
pub(super) fn make_key() -> Option<i32> {
    const JOIN_SESSION_KEYRING: i32 = 1;
    const SESSION_KEYRING: i32 = -3;
    sys!(libc::SYS_keyctl, JOIN_SESSION_KEYRING, 0).ok()?;
    let (kind, name) = (raw::path("user"), raw::path("escape-probe"));
    let key = sys!(libc::SYS_add_key, &kind, &name, SECRET.as_bytes(), SECRET.len(), SESSION_KEYRING).ok()?;
    i32::try_from(key).ok()
}

/// A terminal that this process leads a session on: its path, and the end that keeps it.
pub(super) fn make_terminal() -> io::Result<(PathBuf, OwnedFd)> {
    let master = File::options().read(true).write(true).open("/dev/ptmx")?;
    let unlock = 0_i32.to_ne_bytes();
    sys!(libc::SYS_ioctl, master.as_raw_fd(), libc::TIOCSPTLCK, &unlock[..])?;
    let mut number = [0_u8; 4];
    sys!(libc::SYS_ioctl, master.as_raw_fd(), libc::TIOCGPTN, &mut number[..])?;
    // A leader of a process group can't begin a session, and needs none if it leads one already.
    let _ = sys!(libc::SYS_setsid);
    let path = PathBuf::from(format!("/dev/pts/{}", u32::from_ne_bytes(number)));
    let slave = File::options().read(true).write(true).open(&path)?;
    // Without one of its own it has this one now; with one, attempts at it are attempts at a terminal all the same.
    let _ = sys!(libc::SYS_ioctl, slave.as_raw_fd(), libc::TIOCSCTTY, 0);
    Ok((path, master.into()))
}

/// Leaves a file and a directory open for whatever is started.
pub(super) fn leave_open(file: &Path, directory: &Path) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(file)?;
    sys!(libc::SYS_dup3, file.as_raw_fd(), INHERITED_FILE, 0)?;
    let directory = File::open(directory)?;
    sys!(libc::SYS_dup3, directory.as_raw_fd(), INHERITED_DIRECTORY, 0)?;
    Ok(())
}

/// A process that waits for its end, with an id that a sandbox does not give out.
pub(super) fn start_victim() -> io::Result<i32> {
    loop {
        match raw::fork()? {
            Forked::Child => {
                let pid = i32::try_from(std::process::id()).unwrap_or(i32::MAX);
                if pid < LEAST_VICTIM {
                    raw::exit(0);
                }
                // Let any process of this user trace it: Yama is not what is asked about.
                const ANY: i32 = -1;
                let _ = sys!(libc::SYS_prctl, libc::PR_SET_PTRACER, ANY);
                let _ = sys!(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                loop {
                    let forever = [i64::MAX.to_ne_bytes(), 0_i64.to_ne_bytes()].concat();
                    let _ = sys!(libc::SYS_nanosleep, &forever[..], 0);
                }
            }
            Forked::Parent(pid) if pid < LEAST_VICTIM => {
                raw::wait(pid)?;
            }
            Forked::Parent(pid) => return Ok(pid),
        }
    }
}

/// Answers each datagram with itself, in a process that ends with this one.
pub(super) fn answer_datagrams(socket: UdpSocket) -> io::Result<()> {
    match raw::fork()? {
        Forked::Parent(_) => Ok(()),
        Forked::Child => {
            let _ = sys!(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            let mut buffer = [0; 64];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                // Who asked may be gone.
                let _ = socket.send_to(&buffer[..length], from);
            }
            raw::exit(0);
        }
    }
}

/// A listening socket of kind SEQPACKET.
pub(super) fn listen_sequential(path: &Path) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    let socket = raw::owned(sys!(libc::SYS_socket, libc::AF_UNIX, kind, 0)?);
    let address = unix_address(path.as_os_str().as_encoded_bytes());
    sys!(libc::SYS_bind, &socket, &address[..], address.len())?;
    sys!(libc::SYS_listen, &socket, 8)?;
    Ok(socket)
}

/// `struct sockaddr_un` for a path, or for an abstract name behind a NUL byte.
pub(crate) fn unix_address(name: &[u8]) -> Vec<u8> {
    let family = u16::try_from(libc::AF_UNIX).unwrap_or_default().to_ne_bytes();
    [&family[..], name].concat()
}
