//! Changes to a file's mode, times and owner, and watches on files, which a filter asks the holder for where no mount
//! forbids them.
//!
//! Landlock says nothing about them, a filter sees only numbers, and programs that build need them. So the holder, which
//! has no more rights than the command, opens the file that is meant, looks where it lies, and makes the change itself if
//! that is below a place which the command may write; a watch, which tells names, if it may read there. What it looked at is what it changes: the descriptor, not the name,
//! and the arguments as it read them. It never tells the kernel to go on with a call whose memory the command can change.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::sys::{self, notify};
use crate::seccomp::{self, Arch};

/// Longest path that a call takes, PATH_MAX with its end.
const PATH_BYTES: usize = 4096;

/// How many questions are answered before the holder looks at the rest of its work again.
const AT_ONCE: usize = 64;

/// What a call is about, and where its arguments are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Chmod,
    Fchmod,
    Fchmodat,
    Fchmodat2,
    Chown,
    Lchown,
    Fchown,
    Fchownat,
    Utime,
    Utimes,
    Futimesat,
    Utimensat,
    InotifyAddWatch,
}

const CALLS: [(&str, Call); 13] = [
    ("chmod", Call::Chmod),
    ("fchmod", Call::Fchmod),
    ("fchmodat", Call::Fchmodat),
    ("fchmodat2", Call::Fchmodat2),
    ("chown", Call::Chown),
    ("lchown", Call::Lchown),
    ("fchown", Call::Fchown),
    ("fchownat", Call::Fchownat),
    ("utime", Call::Utime),
    ("utimes", Call::Utimes),
    ("futimesat", Call::Futimesat),
    ("utimensat", Call::Utimensat),
    ("inotify_add_watch", Call::InotifyAddWatch),
];

/// Which file is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    /// That of this descriptor.
    Descriptor(i32),
    /// That of the path at this address, from this directory.
    Path { from: i32, at: u64, follow: bool, may_be_empty: bool },
}

/// What is to become of it.
#[derive(Debug, Clone, Copy)]
enum Change {
    Mode(u32),
    Owner(u32, u32),
    Times([libc::timespec; 2]),
    /// Watched by this descriptor of the asker for these events.
    Watch(i32, u32),
}

/// In what form times lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clock {
    Seconds,
    Microseconds,
    Nanoseconds,
}

/// Answers what the filter asks.
pub(super) struct Answerer {
    listener: OwnedFd,
    calls: Vec<(i32, Call)>,
    granted: Granted,
}

/// Places below which everything may be read, or written as well.
#[derive(Default)]
pub(super) struct Granted {
    pub(super) readable: Vec<CString>,
    pub(super) writable: Vec<CString>,
}

impl Answerer {
    pub(super) fn new(listener: OwnedFd, granted: Granted) -> Self {
        let number = |name| seccomp::number(name, Arch::native());
        let calls = CALLS
            .iter()
            .filter_map(|(name, call)| Some((i32::try_from(number(name)?).ok()?, *call)))
            .collect();
        Self { listener, calls, granted }
    }

    /// Becomes readable when there is a question.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Answers what is asked now. Call only when the descriptor is readable.
    pub(super) fn serve(&self) {
        for _ in 0..AT_ONCE {
            // Nobody else takes a question away, so after poll(2) this does not wait; one whose asker died is ENOENT.
            let Ok(question) = notify::receive(self.fd()) else { return };
            // Whoever died meanwhile needs no answer.
            let _ = notify::answer(self.fd(), question.id, self.carry_out(&question));
            let mut polled = [rustix::event::PollFd::new(&self.listener, rustix::event::PollFlags::IN)];
            let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
            let more = rustix::event::poll(&mut polled, Some(&now)).is_ok_and(|count| count > 0);
            if !more || !polled[0].revents().contains(rustix::event::PollFlags::IN) {
                return;
            }
        }
    }

    /// Does what is asked, and returns what the call returns.
    fn carry_out(&self, question: &notify::Question) -> Result<i32, Errno> {
        let (_, call) =
            self.calls.iter().find(|(number, _)| *number == question.number).ok_or(Errno::NOSYS)?;
        let asker = Asker::open(question)?;
        let (which, change) = asker.understand(*call, &question.args)?;
        let file = asker.file(which)?;
        let watcher = if let Change::Watch(fd, _) = change { Some(asker.take(fd)?) } else { None };
        // Only now is it sure that everything above was read from whoever asked.
        notify::is_valid(self.fd(), question.id)?;
        let path = rustix::fs::readlink(link_of(file.as_fd()), Vec::new())?;
        let lies_in =
            |places: &[CString]| places.iter().any(|root| is_below(path.as_bytes(), root.as_bytes()));
        let changed = |change| {
            if lies_in(&self.granted.writable) {
                sys::change(file.as_fd(), change).map(|()| 0)
            } else {
                Err(Errno::PERM)
            }
        };
        match (change, watcher) {
            (Change::Mode(mode), _) => changed(sys::Change::Mode(mode)),
            (Change::Owner(user, group), _) => changed(sys::Change::Owner(user, group)),
            (Change::Times(times), _) => changed(sys::Change::Times(times)),
            (Change::Watch(_, events), Some(watcher)) if lies_in(&self.granted.readable) => {
                let link = CString::new(link_of(file.as_fd())).map_err(|_| Errno::INVAL)?;
                sys::inotify_add_watch(watcher.as_fd(), &link, events & !libc::IN_DONT_FOLLOW)
            }
            (Change::Watch(..), _) => Err(Errno::ACCESS),
        }
    }
}

fn is_below(path: &[u8], root: &[u8]) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

fn link_of(file: BorrowedFd<'_>) -> String {
    use std::os::fd::AsRawFd as _;
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// The thread that asked.
struct Asker {
    id: u32,
    memory: std::fs::File,
}

impl Asker {
    fn open(question: &notify::Question) -> Result<Self, Errno> {
        let id = question.pid;
        let memory = std::fs::File::open(format!("/proc/{id}/mem"));
        Ok(Self { id, memory: memory.map_err(|error| errno_of(&error))? })
    }

    fn understand(&self, call: Call, args: &[u64; 6]) -> Result<(Which, Change), Errno> {
        let path = |from, at, follow, may_be_empty| Which::Path { from, at, follow, may_be_empty };
        let mode = |arg: usize| Change::Mode(low(args[arg]) & 0o7777);
        let owner = |arg: usize| Change::Owner(low(args[arg]), low(args[arg + 1]));
        let times = |arg: usize, clock| Ok::<_, Errno>(Change::Times(self.times(args[arg], clock)?));
        let flags = |arg: usize| {
            let flags = low(args[arg]);
            let known = (libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH).cast_unsigned();
            if flags & !known != 0 {
                return Err(Errno::INVAL);
            }
            let has = |flag: i32| flags & flag.cast_unsigned() != 0;
            Ok((!has(libc::AT_SYMLINK_NOFOLLOW), has(libc::AT_EMPTY_PATH)))
        };
        Ok(match call {
            Call::Chmod => (path(libc::AT_FDCWD, args[0], true, false), mode(1)),
            Call::Fchmod => (Which::Descriptor(signed(args[0])), mode(1)),
            Call::Fchmodat => (path(signed(args[0]), args[1], true, false), mode(2)),
            Call::Fchmodat2 => {
                let (follow, may_be_empty) = flags(3)?;
                (path(signed(args[0]), args[1], follow, may_be_empty), mode(2))
            }
            Call::Chown => (path(libc::AT_FDCWD, args[0], true, false), owner(1)),
            Call::Lchown => (path(libc::AT_FDCWD, args[0], false, false), owner(1)),
            Call::Fchown => (Which::Descriptor(signed(args[0])), owner(1)),
            Call::Fchownat => {
                let (follow, may_be_empty) = flags(4)?;
                (path(signed(args[0]), args[1], follow, may_be_empty), owner(2))
            }
            Call::Utime => (path(libc::AT_FDCWD, args[0], true, false), times(1, Clock::Seconds)?),
            Call::Utimes => (path(libc::AT_FDCWD, args[0], true, false), times(1, Clock::Microseconds)?),
            Call::Futimesat if args[1] == 0 => {
                (Which::Descriptor(signed(args[0])), times(2, Clock::Microseconds)?)
            }
            Call::Futimesat => (path(signed(args[0]), args[1], true, false), times(2, Clock::Microseconds)?),
            Call::InotifyAddWatch => {
                let events = low(args[2]);
                let follow = events & libc::IN_DONT_FOLLOW == 0;
                (path(libc::AT_FDCWD, args[1], follow, false), Change::Watch(signed(args[0]), events))
            }
            Call::Utimensat if args[1] == 0 => {
                (Which::Descriptor(signed(args[0])), times(2, Clock::Nanoseconds)?)
            }
            Call::Utimensat => {
                let (follow, may_be_empty) = flags(3)?;
                (path(signed(args[0]), args[1], follow, may_be_empty), times(2, Clock::Nanoseconds)?)
            }
        })
    }

    /// Reads times; an address of 0 means now.
    fn times(&self, at: u64, clock: Clock) -> Result<[libc::timespec; 2], Errno> {
        let time = |tv_sec, tv_nsec| libc::timespec { tv_sec, tv_nsec };
        if at == 0 {
            return Ok([time(0, libc::UTIME_NOW); 2]);
        }
        let mut words = [0_u8; 32];
        let length = if clock == Clock::Seconds { 16 } else { 32 };
        if self.read(at, &mut words[..length])? < length {
            return Err(Errno::FAULT);
        }
        let word = |index: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&words[8 * index..8 * index + 8]);
            i64::from_ne_bytes(bytes)
        };
        let micros = |value: i64| value.checked_mul(1000).filter(|_| (0..1_000_000).contains(&value));
        Ok(match clock {
            Clock::Seconds => [time(word(0), 0), time(word(1), 0)],
            Clock::Microseconds => [
                time(word(0), micros(word(1)).ok_or(Errno::INVAL)?),
                time(word(2), micros(word(3)).ok_or(Errno::INVAL)?),
            ],
            Clock::Nanoseconds => [time(word(0), word(1)), time(word(2), word(3))],
        })
    }

    /// Reads memory of the asker up to where it ends; returns how much.
    fn read(&self, at: u64, to: &mut [u8]) -> Result<usize, Errno> {
        use std::os::unix::fs::FileExt as _;
        let mut done = 0;
        while done < to.len() {
            let from = at.checked_add(done as u64).ok_or(Errno::FAULT)?;
            match self.memory.read_at(&mut to[done..], from) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Behind the last page.
                Err(_) if done > 0 => break,
                Err(_) => return Err(Errno::FAULT),
            }
        }
        Ok(done)
    }

    fn path(&self, at: u64) -> Result<CString, Errno> {
        let mut bytes = [0; PATH_BYTES];
        let count = self.read(at, &mut bytes)?;
        match CStr::from_bytes_until_nul(&bytes[..count]) {
            Ok(path) => Ok(path.to_owned()),
            Err(_) if count == PATH_BYTES => Err(Errno::NAMETOOLONG),
            Err(_) => Err(Errno::FAULT),
        }
    }

    /// Opens what is meant, as the asker would find it.
    fn file(&self, which: Which) -> Result<OwnedFd, Errno> {
        let (from, at, follow, may_be_empty) = match which {
            Which::Descriptor(fd) => return self.descriptor(fd),
            Which::Path { from, at, follow, may_be_empty } => (from, at, follow, may_be_empty),
        };
        let path = self.path(at)?;
        if path.is_empty() {
            return match (may_be_empty, from) {
                (false, _) => Err(Errno::NOENT),
                (true, libc::AT_FDCWD) => self.own(c"cwd"),
                (true, fd) => self.descriptor(fd),
            };
        }
        // The C library's way to change what a descriptor leads to. Of the links in /proc these are the asker's own.
        if let Some(fd) = own_descriptor(path.to_bytes()).filter(|_| follow) {
            return self.descriptor(fd);
        }
        let mut flags = OFlags::PATH | OFlags::CLOEXEC;
        if !follow {
            flags |= OFlags::NOFOLLOW;
        }
        let open = |base: BorrowedFd<'_>| {
            // Other links in /proc would lead to what the holder has, not the asker.
            rustix::fs::openat2(base, &path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
        };
        if path.to_bytes().starts_with(b"/") {
            return open(rustix::fs::CWD);
        }
        let base = if from == libc::AT_FDCWD { self.own(c"cwd")? } else { self.descriptor(from)? };
        open(base.as_fd())
    }

    /// What a descriptor of the asker leads to.
    fn descriptor(&self, fd: i32) -> Result<OwnedFd, Errno> {
        let name = CString::new(format!("fd/{fd}")).map_err(|_| Errno::BADF)?;
        self.own(&name).map_err(|errno| if errno == Errno::NOENT { Errno::BADF } else { errno })
    }

    /// A descriptor of the asker itself, not another one of the same file.
    fn take(&self, fd: i32) -> Result<OwnedFd, Errno> {
        let thread = i32::try_from(self.id).map_err(|_| Errno::SRCH)?;
        sys::take_descriptor(thread, fd)
    }

    fn own(&self, name: &CStr) -> Result<OwnedFd, Errno> {
        let path = format!("/proc/{}/{}", self.id, name.to_string_lossy());
        rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
    }
}

/// The number in a path that names a descriptor of whoever uses it.
fn own_descriptor(path: &[u8]) -> Option<i32> {
    let number = path.strip_prefix(b"/proc/self/fd/").or_else(|| path.strip_prefix(b"/dev/fd/"))?;
    std::str::from_utf8(number).ok()?.parse().ok()
}

fn errno_of(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// Registers hold 64 bits; these calls look at 32 of them.
fn low(value: u64) -> u32 {
    (value & 0xffff_ffff) as u32
}

fn signed(value: u64) -> i32 {
    low(value).cast_signed()
}

const _: () = assert!(size_of::<libc::timespec>() == 16, "times are two words");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_left_by_its_neighbours_names() {
        for (path, expected) in [
            ("/w", true),
            ("/w/a", true),
            ("/w/a (deleted)", true),
            ("/w-b", false),
            ("/", false),
            ("", false),
        ] {
            assert_eq!(is_below(path.as_bytes(), b"/w"), expected, "{path}");
        }
        assert!(!is_below(b"/memfd:w (deleted)", b"/w"));
    }

    #[test]
    fn only_an_own_descriptor_is_taken_for_one() {
        assert_eq!(own_descriptor(b"/proc/self/fd/7"), Some(7));
        assert_eq!(own_descriptor(b"/dev/fd/12"), Some(12));
        for other in [&b"/proc/1/fd/7"[..], b"/proc/self/fd/7/x", b"/proc/self/fd/", b"/proc/self/fdinfo/7"] {
            assert_eq!(own_descriptor(other), None);
        }
    }

    #[test]
    fn every_call_that_may_be_asked_about_is_known() {
        for arch in [Arch::X86_64, Arch::Aarch64] {
            let known = CALLS.iter().filter(|(name, _)| seccomp::number(name, arch).is_some()).count();
            assert!(known >= 6, "{arch:?}: {known}");
        }
    }
}
