//! Executing the command: the last steps of the leader, in a child that borrows the holder's memory.
//!
//! Everything is laid out beforehand: candidate paths, argument and environment arrays. Nothing allocates.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::fd::BorrowedFd;

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use sandbar_proto::{LaunchSpec, ProcessAttributes};

use super::alone::Domain;
use super::sys::{self, Descriptors};
use crate::report::{SetupFailure, Step};

/// What a shell without `PATH` searches, as execvp(3) does on Linux.
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";

/// Arguments and environment in the form of execve(2).
pub(super) struct Command {
    /// Where the program may be, in the order of `PATH`.
    candidates: Vec<CString>,
    /// What the pointers below point into; overwritten once the command runs.
    strings: Vec<Vec<u8>>,
    /// Two free slots for `/bin/sh` and the script, then the arguments, then null.
    argv: Vec<*const c_char>,
    /// The environment, then null.
    envp: Vec<*const c_char>,
    attributes: ProcessAttributes,
}

/// The slots before the arguments, for a script without `#!`.
const SHELL_SLOTS: usize = 2;

/// How much of a file tells a script from a binary: what bash looks at (its `check_binary_file`).
const SAMPLE_BYTES: usize = 80;

/// A NUL byte in an argument, a variable or a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NulByte;

fn terminated(bytes: &[u8]) -> Result<Vec<u8>, NulByte> {
    if bytes.contains(&0) {
        return Err(NulByte);
    }
    let mut string = Vec::with_capacity(bytes.len() + 1);
    string.extend_from_slice(bytes);
    string.push(0);
    Ok(string)
}

impl Command {
    /// Lays the command of `spec` out.
    ///
    /// # Errors
    /// [`NulByte`]: no system call can pass one.
    pub(super) fn new(spec: &LaunchSpec) -> Result<Self, NulByte> {
        let mut strings = Vec::with_capacity(spec.argv.len() + spec.env.len());
        let program = spec.argv.first().map(sandbar_proto::ByteString::as_bytes).unwrap_or_default();
        let argv0 = spec.arg0.as_ref().map_or(program, |name| name.as_bytes());
        strings.push(terminated(argv0)?);
        for argument in spec.argv.iter().skip(1) {
            strings.push(terminated(argument.as_bytes())?);
        }
        let arguments = strings.len();
        for variable in &spec.env {
            let mut pair = variable.name.as_bytes().to_vec();
            pair.push(b'=');
            pair.extend_from_slice(variable.value.as_bytes());
            strings.push(terminated(&pair)?);
        }
        let pointer = |string: &Vec<u8>| string.as_ptr().cast::<c_char>();
        let mut argv = vec![std::ptr::null(); SHELL_SLOTS];
        argv.extend(strings[..arguments].iter().map(pointer));
        argv.push(std::ptr::null());
        let mut envp: Vec<_> = strings[arguments..].iter().map(pointer).collect();
        envp.push(std::ptr::null());
        let path = spec.env.iter().find(|variable| variable.name.as_bytes() == b"PATH");
        let path = path.map_or(DEFAULT_PATH, |variable| variable.value.as_bytes());
        let candidates = candidates(program, path)?;
        Ok(Self { candidates, strings, argv, envp, attributes: spec.attributes.clone() })
    }

    /// Overwrites arguments and environment, which may be secret, in this process's memory.
    pub(super) fn wipe(&mut self) {
        for string in &mut self.strings {
            string.fill(0);
        }
    }

    /// Starts the leader, in the foreground of `terminal`, behind the door of `cgroup` and within `domain` if there is one, and waits until it executed its program or
    /// failed to.
    ///
    /// # Errors
    /// The step that failed in the leader, which is gone then.
    pub(super) fn start(
        &mut self,
        stack: &mut [u8],
        terminal: Option<BorrowedFd<'_>>,
        cgroup: Option<BorrowedFd<'_>>,
        domain: Option<&mut Domain>,
    ) -> Result<i32, SetupFailure> {
        let descriptors = if domain.is_some() { Descriptors::Shared } else { Descriptors::Copied };
        let mut leader = Leader { command: self, terminal, cgroup, domain, failure: None };
        // SAFETY: `leader` only makes system calls on memory laid out before, writes its own failure slot and
        // the shell slots, and executes or exits; it outlives the call because vfork suspends us.
        let pid = unsafe { sys::vfork(leader_main, stack, (&raw mut leader).cast(), descriptors) };
        match (pid, leader.failure) {
            (Ok(pid), None) => Ok(pid),
            (Ok(_), Some(failure)) => Err(failure),
            (Err(errno), _) => Err(failure(Step::Exec, errno)),
        }
    }
}

/// Where `program` may be: itself when it has a slash, else in every directory of `path` (execvp(3)).
fn candidates(program: &[u8], path: &[u8]) -> Result<Vec<CString>, NulByte> {
    let c_string = |bytes: Vec<u8>| CString::new(bytes).map_err(|_| NulByte);
    if program.is_empty() {
        return Ok(Vec::new());
    }
    if program.contains(&b'/') {
        return Ok(vec![c_string(program.to_vec())?]);
    }
    let candidate = |directory: &[u8]| {
        let directory = if directory.is_empty() { &b"."[..] } else { directory };
        c_string([directory, b"/", program].concat())
    };
    path.split(|&byte| byte == b':').map(candidate).collect()
}

fn failure(step: Step, errno: Errno) -> SetupFailure {
    SetupFailure { step, index: Step::NO_INDEX, errno: errno.raw_os_error() }
}

struct Leader<'a> {
    command: &'a mut Command,
    terminal: Option<BorrowedFd<'a>>,
    cgroup: Option<BorrowedFd<'a>>,
    domain: Option<&'a mut Domain>,
    failure: Option<SetupFailure>,
}

extern "C" fn leader_main(argument: *mut c_void) -> c_int {
    // SAFETY: `Command::start` passes a live Leader and is suspended while this runs.
    let leader = unsafe { &mut *argument.cast::<Leader<'_>>() };
    let ready = leader.command.become_leader(leader.terminal, leader.cgroup);
    let entered = ready.and_then(|()| leader.domain.as_deref_mut().map_or(Ok(()), Domain::enter));
    leader.failure = Some(match entered {
        Ok(()) => leader.command.execute(),
        Err(failure) => failure,
    });
    127
}

impl Command {
    /// An own process group, the caller's umask, priority and limits, default signal actions.
    fn become_leader(
        &self,
        terminal: Option<BorrowedFd<'_>>,
        cgroup: Option<BorrowedFd<'_>>,
    ) -> Result<(), SetupFailure> {
        let fail = |errno| failure(Step::Attributes, errno);
        if let Some(cgroup) = cgroup {
            // The writer itself (cgroups(7)). Not the holder: it has to outlive what the cgroup kills.
            rustix::io::write(cgroup, b"0").map_err(|errno| failure(Step::Cgroup, errno))?;
        }
        rustix::process::setpgid(None, None).map_err(fail)?;
        if let Some(terminal) = terminal {
            // Signals are still blocked, SIGTTOU among them, so a group in the background may do this (tcsetpgrp(3)).
            rustix::termios::tcsetpgrp(terminal, rustix::process::getpgrp())
                .map_err(|errno| failure(Step::Terminal, errno))?;
        }
        rustix::process::umask(Mode::from_raw_mode(self.attributes.umask));
        match sys::set_nice(self.attributes.nice) {
            // A keeper that runs at a lower priority than this caller can't raise it; the run is only slower.
            Ok(()) | Err(Errno::ACCESS | Errno::PERM) => {}
            Err(errno) => return Err(fail(errno)),
        }
        for (resource, soft, hard) in &self.attributes.rlimits {
            sys::set_rlimit(*resource, *soft, *hard).map_err(fail)?;
        }
        sys::reset_signals();
        Ok(())
    }

    /// Tries every candidate; returns only when none could be executed. Which error counts follows execvp(3):
    /// a program that is there but may not be executed wins over one that is nowhere. A directory is named as one,
    /// for which execve(2) has no error of its own.
    fn execute(&mut self) -> SetupFailure {
        let mut denied = None;
        for index in 0..self.candidates.len() {
            let errno = self.try_candidate(index);
            match errno {
                Errno::NOENT | Errno::NOTDIR => {
                    if self.exists(index) {
                        return failure(Step::Interpreter, errno);
                    }
                }
                Errno::ACCESS if self.is_directory(index) => denied = denied.or(Some(Errno::ISDIR)),
                Errno::ACCESS => denied = Some(errno),
                _ => return failure(Step::Exec, errno),
            }
        }
        denied.map_or(failure(Step::ProgramNotFound, Errno::NOENT), |errno| failure(Step::Exec, errno))
    }

    fn try_candidate(&mut self, index: usize) -> Errno {
        let Some(candidate) = self.candidates.get(index) else { return Errno::NOENT };
        // SAFETY: both arrays end with null and point to NUL-terminated strings that live as long as `self`.
        let errno = unsafe { sys::execve(candidate, self.argv[SHELL_SLOTS..].as_ptr(), self.envp.as_ptr()) };
        // What can't be read is no script either: the shell could not read it.
        if errno != Errno::NOEXEC || !is_text(candidate) {
            return errno;
        }
        // A text file without `#!` is a script of the shell (execvp(3)): sh, its path, its arguments.
        self.argv[1] = c"/bin/sh".as_ptr();
        self.argv[2] = candidate.as_ptr();
        // SAFETY: as above; slot 1 and 2 hold literals and candidates that live as long as `self`.
        unsafe { sys::execve(c"/bin/sh", self.argv[1..].as_ptr(), self.envp.as_ptr()) }
    }

    fn is_directory(&self, index: usize) -> bool {
        let candidate = self.candidates.get(index);
        let stat = candidate.and_then(|path| rustix::fs::stat(path.as_c_str()).ok());
        stat.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    }

    fn exists(&self, index: usize) -> bool {
        let candidate = self.candidates.get(index);
        candidate.is_some_and(|path| {
            rustix::fs::accessat(CWD, path.as_c_str(), Access::EXISTS, AtFlags::empty()).is_ok()
        })
    }
}

/// Whether the file at `path` begins like a script. A broken or foreign binary must not become one: a shell would
/// run whatever of it happens to be words.
fn is_text(path: &CStr) -> bool {
    // The kernel gives ENOEXEC for regular files only; should another stand there by now, no open waits for it.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::open(path, flags, Mode::empty()) else { return false };
    let mut sample = [0; SAMPLE_BYTES];
    rustix::io::read(&file, &mut sample).is_ok_and(|count| begins_like_text(&sample[..count]))
}

/// As bash decides: no ELF, and no NUL in the first line.
fn begins_like_text(sample: &[u8]) -> bool {
    let line = sample.split(|&byte| byte == b'\n').next().unwrap_or_default();
    !sample.starts_with(b"\x7fELF") && !line.contains(&0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_told_from_a_binary_by_its_first_line() {
        for text in [&b""[..], b"echo", b"echo hi\n\0\0 an archive follows", b"\xff\xfe\n", b"x\n\x7fELF"] {
            assert!(begins_like_text(text), "{text:?}");
        }
        for binary in [&b"\0"[..], b"MZ\0\n", b"\x7fELF", b"\x7fELF\n\n", b"\x7fELF\x02\x01\x01\0"] {
            assert!(!begins_like_text(binary), "{binary:?}");
        }
    }

    fn names(program: &str, path: &str) -> Vec<String> {
        let found = candidates(program.as_bytes(), path.as_bytes()).unwrap();
        found.into_iter().map(|path| path.into_string().unwrap()).collect()
    }

    #[test]
    fn a_name_is_looked_up_on_path_and_a_path_is_not() {
        assert_eq!(names("ls", "/bin:/usr/bin"), ["/bin/ls", "/usr/bin/ls"]);
        assert_eq!(names("./ls", "/bin"), ["./ls"]);
        assert_eq!(names("ls", ":/bin"), ["./ls", "/bin/ls"], "an empty entry is the working directory");
        assert!(names("", "/bin").is_empty());
    }

    #[test]
    fn nul_bytes_are_refused_everywhere() {
        assert_eq!(candidates(b"a\0b", b"/bin"), Err(NulByte));
        assert_eq!(terminated(b"a\0"), Err(NulByte));
    }
}
