//! Who may speak to the keeper.
//!
//! A sandboxed command has the caller's user id and could connect to a 0600 socket that it finds. Four facts
//! keep it out, all about one pinned process: the same user, one pid namespace, the same confinement as the
//! keeper's own, and no descent from anything that the keeper started. What can't be read is refused.

use std::collections::HashSet;
use std::fs;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::sockopt::socket_peercred;
use rustix::process::{PidfdFlags, pidfd_open};

use crate::protocol::PeerRefusal;

/// SO_PEERPIDFD of asm-generic/socket.h, Linux 6.5; libc has no name for it everywhere.
const SO_PEERPIDFD: libc::c_int = 77;

/// Longest line of ancestors that is followed; deeper callers are refused.
const MAX_ANCESTORS: usize = 128;

/// What confines a process, as /proc/PID/status says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Confinement {
    pid_namespaces: usize,
    no_new_privs: u32,
    seccomp: u32,
    seccomp_filters: u32,
    parent: i32,
}

impl Confinement {
    /// That of the calling process.
    pub(super) fn own() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/self/status").ok()?)
    }

    fn of(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
    }

    fn parse(status: &str) -> Option<Self> {
        let field = |name: &str| {
            status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
        };
        Some(Self {
            pid_namespaces: field("NSpid")?.split_ascii_whitespace().count(),
            no_new_privs: field("NoNewPrivs")?.parse().ok()?,
            // A kernel without seccomp confines nobody by it.
            seccomp: field("Seccomp").map_or(Some(0), |value| value.parse().ok())?,
            seccomp_filters: field("Seccomp_filters").map_or(Some(0), |value| value.parse().ok())?,
            parent: field("PPid")?.parse().ok()?,
        })
    }

    fn same_walls(&self, other: &Self) -> bool {
        (self.no_new_privs, self.seccomp, self.seccomp_filters)
            == (other.no_new_privs, other.seccomp, other.seccomp_filters)
    }
}

/// The same decision for other listeners of ours: whoever shares this process' user, pid namespace and confinement is
/// let in. Unlike a keeper they can't tell what was started without a sandbox; that has the user's rights anyway.
#[derive(Debug, Clone)]
pub struct Gate {
    own: Confinement,
}

impl Gate {
    /// A gate of the calling process; `None` if it can't read its own state in /proc.
    #[must_use]
    pub fn new() -> Option<Self> {
        Confinement::own().map(|own| Self { own })
    }

    /// Decides about the peer of a connected unix socket.
    ///
    /// # Errors
    /// The condition that it does not meet.
    pub fn check(&self, socket: BorrowedFd<'_>) -> Result<(), PeerRefusal> {
        check(socket, &self.own, &HashSet::new())
    }
}

/// Decides about the peer of `socket`. `holders` are the processes that hold trees which share the keeper's pid
/// namespace; the descendants of all others are told by theirs.
///
/// # Errors
/// The condition that the peer does not meet.
pub(super) fn check(
    socket: BorrowedFd<'_>,
    own: &Confinement,
    holders: &HashSet<i32>,
) -> Result<(), PeerRefusal> {
    let credentials = socket_peercred(socket).map_err(|_| PeerRefusal::Unreadable)?;
    if credentials.uid != rustix::process::geteuid() {
        return Err(PeerRefusal::User);
    }
    // Pinned first, read then, and alive afterwards: so what was read was the peer's and no successor's.
    let pidfd = match peer_pidfd(socket) {
        Some(pidfd) => pidfd,
        None => pidfd_open(credentials.pid, PidfdFlags::empty()).map_err(|_| PeerRefusal::Unreadable)?,
    };
    let pid = credentials.pid.as_raw_pid();
    let peer = Confinement::of(pid).ok_or(PeerRefusal::Unreadable)?;
    if !is_alive(&pidfd) {
        return Err(PeerRefusal::Unreadable);
    }
    if peer.pid_namespaces != own.pid_namespaces {
        return Err(PeerRefusal::PidNamespace);
    }
    if !peer.same_walls(own) {
        return Err(PeerRefusal::Confined);
    }
    if holders.is_empty() { Ok(()) } else { refuse_descendant(pid, peer.parent, holders) }
}

fn refuse_descendant(pid: i32, parent: i32, holders: &HashSet<i32>) -> Result<(), PeerRefusal> {
    if holders.contains(&pid) {
        return Err(PeerRefusal::Descendant);
    }
    let mut ancestor = parent;
    for _ in 0..MAX_ANCESTORS {
        if holders.contains(&ancestor) {
            return Err(PeerRefusal::Descendant);
        }
        if ancestor <= 1 {
            return Ok(());
        }
        ancestor = Confinement::of(ancestor).ok_or(PeerRefusal::Unreadable)?.parent;
    }
    Err(PeerRefusal::Unreadable)
}

fn peer_pidfd(socket: BorrowedFd<'_>) -> Option<OwnedFd> {
    let mut fd: libc::c_int = -1;
    let mut length = libc::socklen_t::try_from(size_of::<libc::c_int>()).ok()?;
    // SAFETY: both out-pointers are live and `length` is the size of what `fd` can hold.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            (&raw mut fd).cast(),
            &raw mut length,
        )
    };
    if result != 0 || fd < 0 {
        return None;
    }
    // SAFETY: the kernel made a new descriptor that nobody else owns.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn is_alive(pidfd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut fds, Some(&now)), Ok(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbar_testkit::{Samples, Took, fuzz};

    const STATUS: &str =
        "Name:\tx\nPPid:\t7\nNSpid:\t9\t1\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n";

    #[test]
    fn the_walls_of_a_process_are_read_from_its_status() {
        let found = Confinement::parse(STATUS).unwrap();
        let expected =
            Confinement { pid_namespaces: 2, no_new_privs: 1, seccomp: 2, seccomp_filters: 1, parent: 7 };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_status_without_its_facts_is_no_status() {
        assert_eq!(Confinement::parse("Name:\tx\n"), None);
        assert_eq!(Confinement::parse(&STATUS.replace("NSpid", "Nspid")), None);
    }

    #[test]
    fn fuzz_a_name_of_a_process_is_not_taken_for_its_walls() {
        let samples = Samples {
            whole: &[STATUS.as_bytes(), b"Name:\tx\nPPid:\t1\nNSpid:\t9\nNoNewPrivs:\t0\n"],
            words: &[
                b"\n",
                b"\t",
                b":",
                b"PPid",
                b"NSpid:",
                b"NoNewPrivs:\t0",
                b"Seccomp:\t0",
                b"Seccomp_filters",
                b"1",
            ],
        };
        fuzz("process status", samples, |input| {
            let text = String::from_utf8_lossy(input);
            let found = Confinement::parse(&text);
            // The kernel writes a name with its line ends escaped (proc_pid_status(5)).
            let name = text.replace(['\n', '\r'], "\\n");
            let real = Confinement::parse(&format!("Name:\t{name}\n{STATUS}"));
            assert_eq!(real, Confinement::parse(STATUS));
            Took::if_understood(found.is_some())
        });
    }

    #[test]
    fn a_test_process_is_as_confined_as_itself() {
        let own = Confinement::own().unwrap();
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(check(ours.as_fd(), &own, &HashSet::new()), Ok(()));
        drop(theirs);
    }

    #[test]
    fn a_peer_with_other_walls_is_refused() {
        let own = Confinement::own().unwrap();
        let stricter = Confinement { no_new_privs: own.no_new_privs + 1, ..own.clone() };
        let inside = Confinement { pid_namespaces: own.pid_namespaces + 1, ..own };
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(check(ours.as_fd(), &stricter, &HashSet::new()), Err(PeerRefusal::Confined));
        assert_eq!(check(ours.as_fd(), &inside, &HashSet::new()), Err(PeerRefusal::PidNamespace));
    }

    #[test]
    fn a_descendant_of_a_held_process_is_refused() {
        let own = Confinement::own().unwrap();
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let parent = HashSet::from([own.parent]);
        assert_eq!(check(ours.as_fd(), &own, &parent), Err(PeerRefusal::Descendant));
    }
}
