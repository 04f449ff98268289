//! The keeper replaces itself by a newer program and goes on: same process, same children, same descriptors.
//!
//! The order is: no start under way and no spare; the state as text in a sealed memfd, every descriptor of it kept open;
//! a rehearsal, in which a child runs the new program and takes all of it over as far as can be done without changing
//! anything; execve(2). Nothing is read or written between the state and its takeover, and whatever fails before
//! execve(2) leaves the keeper as it was, with a reason. It goes forward only: to the same protocol major, and a minor
//! and release that are not older.
//!
//! Clients notice nothing: their sockets stay, packets are whole, and what was queued for them is part of the state.

use std::cmp::Reverse;
use std::ffi::CString;
use std::fmt;
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;
use sandbar_proto::{ByteString, RunId};
use serde::{Deserialize, Serialize};

use super::archive::Archive;
use super::cgroups::SavedCgroups;
use super::connection::SavedConnection;
use super::placeholders::SavedPlaceholders;
use super::process::{Phase, SavedProcess};
use super::recordings::SavedRecordings;
use super::sessions::SavedSessions;
use super::{Keeper, KeeperError, Leaving, Timer};
use crate::handover::{self, AcrossExec, Adopted, Fd, HandoverError, Kept, Moments, failed};
use crate::launcher::{KEEPER_ARGUMENT, REHEARSE_ARGUMENT, TAKE_OVER_ARGUMENT};
use crate::protocol::{MAJOR, MINOR, Refusal, Reply, UpgradeRefusal};
use crate::runtime_dir::KeeperDir;

/// Version of the state. Fields may be added to it with a default; whoever changes the meaning of one counts up, and goes
/// on reading the older ones.
const FORMAT: u32 = 1;

/// How long starts that are under way may take until an upgrade is given up: nothing else is heard meanwhile.
const DRAIN: Duration = Duration::from_secs(2);

/// How long the new program may take to rehearse: everything waits for it.
const REHEARSAL: Duration = Duration::from_secs(5);

/// Longest answer of a rehearsal.
const ANSWER_BYTES: usize = 4096;

/// How long a program that could not take over is refused without another rehearsal: every client that comes with it asks,
/// and everything that runs waits for each rehearsal.
const REFUSED_FOR: Duration = Duration::from_secs(60);

const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// An upgrade that waits for starts to be done.
#[derive(Debug)]
pub(super) struct Pending {
    program: OwnedFd,
    identity: ProgramIdentity,
    /// Connection and request number of who asked.
    asker: (u64, u64),
    deadline: Instant,
}

impl Pending {
    /// When it is given up.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }
}

/// A program that could not take over.
#[derive(Debug)]
pub(super) struct Refused {
    program: ProgramIdentity,
    reason: UpgradeRefusal,
    until: Instant,
}

/// A file as it was: another content is another program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ProgramIdentity {
    dev: u64,
    ino: u64,
    changed: (i64, u64),
}

/// Everything that a keeper is, but what it can make anew: epoll, /dev/null, buffers, compiled filters.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    format: u32,
    minor: u32,
    version: String,
    /// Numbers of all descriptors in it.
    descriptors: Vec<RawFd>,
    home: ByteString,
    lock: Fd,
    listener: Fd,
    next_token: u64,
    connections: Vec<(u64, SavedConnection)>,
    processes: Vec<(RunId, SavedProcess)>,
    /// Process descriptor and channel of each.
    leaving: Vec<(Fd, Option<Fd>)>,
    timers: Vec<(u64, Timer)>,
    placeholders: SavedPlaceholders,
    cgroups: SavedCgroups,
    archive: Archive,
    recordings: SavedRecordings,
    #[serde(default)]
    sessions: SavedSessions,
    /// Who waits for the answer to its request.
    asker: (u64, u64),
}

/// What a rehearsal says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Rehearsed {
    /// The program could go on with this state.
    Ready { major: u32, minor: u32, version: String },
    /// It could not.
    Refused { message: String },
}

/// The number of a release, for comparison; what is no number counts as zero.
fn release(version: &str) -> [u64; 3] {
    let mut parts = version.split(['.', '-', '+']).map(|part| part.parse().unwrap_or(0));
    [(); 3].map(|()| parts.next().unwrap_or(0))
}

/// Whether a program may replace this one.
fn is_forward(major: u32, minor: u32, version: &str) -> bool {
    major == MAJOR && (minor, release(version)) >= (MINOR, release(RELEASE))
}

/// Whether a file may be the next keeper: a program that nobody but this user and root can have written.
fn check_program(program: &OwnedFd) -> Result<ProgramIdentity, UpgradeRefusal> {
    let stat = rustix::fs::fstat(program).map_err(unusable)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(UpgradeRefusal::NoProgram);
    }
    if stat.st_uid != 0 && stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(UpgradeRefusal::Owner { uid: stat.st_uid });
    }
    let mode = stat.st_mode & 0o7777;
    if mode & 0o022 != 0 {
        return Err(UpgradeRefusal::Writable { mode });
    }
    // The kernel forgets that such a program is to end with its parent (PR_SET_PDEATHSIG): a rehearsal would outlive a
    // keeper that is killed, and hold everything that must end with it.
    let has_capabilities = rustix::fs::fgetxattr(program, "security.capability", &mut [0; 64][..]).is_ok();
    if mode & 0o6000 != 0 || has_capabilities {
        return Err(UpgradeRefusal::Privileged);
    }
    let changed = (stat.st_ctime, stat.st_ctime_nsec);
    Ok(ProgramIdentity { dev: stat.st_dev, ino: stat.st_ino, changed })
}

fn unusable(error: impl fmt::Display) -> UpgradeRefusal {
    UpgradeRefusal::Failed { message: error.to_string() }
}

impl Keeper {
    /// Begins to replace this keeper by `program`. The answer comes from the new one, or when it is given up.
    pub(super) fn upgrade(&mut self, asker: (u64, u64), fds: Vec<OwnedFd>) -> Result<(), Refusal> {
        let refuse = |reason| Refusal::Upgrade { reason };
        if self.upgrade.is_some() {
            return Err(refuse(UpgradeRefusal::UnderWay));
        }
        let [program] = <[OwnedFd; 1]>::try_from(fds).map_err(|_| refuse(UpgradeRefusal::NoProgram))?;
        let identity = check_program(&program).map_err(refuse)?;
        let now = Instant::now();
        if let Some(refused) = &self.refused_program
            && refused.program == identity
            && now < refused.until
        {
            return Err(refuse(refused.reason.clone()));
        }
        self.upgrade = Some(Pending { program, identity, asker, deadline: now + DRAIN });
        Ok(())
    }

    /// Replaces this keeper if that was asked for and nothing is half done. Returns when it could not be.
    pub(super) fn upgrade_when_drained(&mut self) {
        let Some(pending) = &self.upgrade else { return };
        if self.stopping {
            // Its socket has no name any more: nobody would find the next one.
            return;
        }
        let starts =
            self.processes.values().filter(|process| matches!(process.phase, Phase::Starting { .. }));
        let reason = match starts.count() {
            0 => None,
            _ if Instant::now() < pending.deadline => return,
            starts => Some(UpgradeRefusal::Starting { starts }),
        };
        let Some(Pending { program, identity, asker, .. }) = self.upgrade.take() else { return };
        let reason = reason.unwrap_or_else(|| {
            let spare = self.spares.take();
            self.discard(spare);
            let reason = self.replace(program, asker);
            let until = Instant::now() + REFUSED_FOR;
            self.refused_program = Some(Refused { program: identity, reason: reason.clone(), until });
            reason
        });
        let (client, req) = asker;
        self.reply(client, req, Reply::Refused { error: Refusal::Upgrade { reason } });
        // Requests are read again.
        self.flush_all();
    }

    /// Becomes `program`. Returns why that was not possible, and has closed what it opened for it then.
    fn replace(&self, program: OwnedFd, asker: (u64, u64)) -> UpgradeRefusal {
        let mut kept = Kept::default();
        let memfd = match self.save(asker, &mut kept) {
            Ok(memfd) => memfd,
            Err(error) => return unusable(error),
        };
        let state = memfd.as_raw_fd();
        // Those of the state are what the state says; these two are for the next program's first steps.
        kept.keep(&memfd);
        kept.keep(&program);
        let reason = match kept.across_exec(AcrossExec::Stays) {
            Ok(()) => match rehearse(&program, state) {
                Ok(()) => unusable(format_args!("execute the program: {}", execute(&program, state))),
                Err(reason) => reason,
            },
            Err(errno) => unusable(errno),
        };
        // A descriptor that stayed open would be in every command from now on. Holders close all that they do not need,
        // so this is the second of two locks.
        let _ = kept.across_exec(AcrossExec::Closes);
        reason
    }

    fn save(&self, asker: (u64, u64), kept: &mut Kept) -> Result<OwnedFd, HandoverError> {
        // What is not named below is made anew, belongs to this upgrade, or is over.
        let Self {
            home,
            lock,
            listener,
            epoll: _,
            null: _,
            own: _,
            targets: _,
            next_token,
            connections,
            processes,
            leaving,
            spares: _,
            timers,
            placeholders,
            cgroups,
            // Made anew from what the processes protect.
            guards: _,
            hard_limits: _,
            spawner: _,
            archive,
            recordings,
            sessions,
            upgrade: _,
            refused_program: _,
            asker: _,
            packet: _,
            chunk: _,
            idle_since: _,
            stopping: _,
        } = self;
        let moments = Moments::now();
        let mut saved = Vec::with_capacity(processes.len());
        for (id, process) in processes {
            let process = process.save(kept).ok_or_else(|| failed("hand a start over")(Errno::BUSY))?;
            saved.push((*id, process));
        }
        let mut state = State {
            format: FORMAT,
            minor: MINOR,
            version: RELEASE.to_owned(),
            descriptors: Vec::new(),
            home: home.path().as_os_str().into(),
            lock: kept.keep(lock),
            listener: kept.keep(listener),
            next_token: *next_token,
            connections: connections.iter().map(|(id, client)| (*id, client.save(kept))).collect(),
            processes: saved,
            leaving: leaving.values().map(|leaving| leaving.save(kept)).collect(),
            timers: timers.iter().map(|Reverse((at, timer))| (moments.save(*at), *timer)).collect(),
            placeholders: placeholders.save(kept),
            cgroups: cgroups.save(kept),
            archive: archive.clone(),
            recordings: recordings.save(kept),
            sessions: sessions.save(moments),
            asker,
        };
        state.descriptors = kept.numbers().to_vec();
        handover::sealed(&serde_json::to_vec(&state)?).map_err(failed("write the state"))
    }

    /// Takes the state in a memfd over, and changes nothing by that.
    ///
    /// # Safety
    /// As [`Adopted::take`].
    unsafe fn restore(memfd: OwnedFd) -> Result<Self, HandoverError> {
        let text = handover::read_sealed(&memfd).map_err(failed("read the state"))?;
        drop(memfd);
        let state = parse(&text)?;
        // SAFETY: the caller's promise.
        let adopted = unsafe { Adopted::take(&state.descriptors) }?;
        Self::with(state, adopted)
    }

    /// The keeper of a state, with its descriptors.
    fn with(state: State, mut adopted: Adopted) -> Result<Self, HandoverError> {
        // The first three are looked at by `parse`.
        let State {
            format: _,
            minor: _,
            version: _,
            descriptors: _,
            home,
            lock,
            listener,
            next_token,
            connections,
            processes,
            leaving,
            timers,
            placeholders,
            cgroups,
            archive,
            recordings,
            sessions,
            asker,
        } = state;
        let moments = Moments::now();
        let home = KeeperDir::at(home.to_os_string().into());
        let (lock, listener) = (adopted.give(lock)?, adopted.give(listener)?);
        let recordings = super::Recordings::restore(recordings, &mut adopted)?;
        let mut keeper = Self::empty(home, lock, listener, archive, recordings, next_token).map_err(
            |error| match error {
                KeeperError::SetUp { step, errno } => HandoverError::Io { step, errno },
                KeeperError::Directory(_) | KeeperError::AlreadyServed { .. } | KeeperError::State(_) => {
                    failed("set up")(Errno::INVAL)
                }
            },
        )?;
        for (id, saved) in connections {
            let connection = super::Connection::restore(saved, &mut adopted)?;
            keeper.connections.insert(id, connection);
        }
        for (id, saved) in processes {
            keeper.processes.insert(id, super::Process::restore(saved, &mut adopted)?);
        }
        keeper.cgroups = super::Cgroups::restore(cgroups, &mut adopted)?;
        let leaving: Result<Vec<Leaving>, HandoverError> =
            leaving.into_iter().map(|saved| Leaving::restore(saved, &mut adopted)).collect();
        let timers = timers.into_iter().map(|(at, timer)| Reverse((moments.restore(at), timer)));
        keeper.timers = timers.collect();
        keeper.sessions = super::Sessions::restore(sessions, moments);
        keeper.watch_adopted(leaving?).map_err(failed("watch what was handed over"))?;
        keeper.placeholders = super::Placeholders::restore(placeholders, &mut adopted)?;
        keeper.asker = Some(asker);
        Ok(keeper)
    }

    /// Does what a keeper that has just been replaced left to its successor: reads on, and answers.
    pub(super) fn go_on(&mut self) {
        let runs: Vec<RunId> = self.processes.keys().copied().collect();
        for id in runs {
            self.resume_streams(id);
            self.pump_stdin(id);
        }
        if let Some((client, req)) = self.asker.take() {
            self.reply(client, req, Reply::Upgraded { minor: MINOR, version: RELEASE.to_owned() });
        }
        self.flush_all();
    }
}

fn parse(text: &[u8]) -> Result<State, HandoverError> {
    /// What is the same in all formats.
    #[derive(Deserialize)]
    struct Origin {
        format: u32,
        minor: u32,
        version: String,
    }
    let Origin { format, minor, version } = serde_json::from_slice(text)?;
    if format > FORMAT {
        return Err(HandoverError::Format { found: format, known: FORMAT });
    }
    if (minor, release(&version)) > (MINOR, release(RELEASE)) {
        return Err(HandoverError::Newer { minor, version });
    }
    Ok(serde_json::from_slice(text)?)
}

/// Name of a keeper as its process shows it.
const NAME: &str = "sandbar-keeper";

/// The way to a program through its descriptor, for execve(2) of this process and of a child.
fn through(program: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", program.as_raw_fd())
}

/// Becomes the program; returns only the error. Not by way of the standard library, which changes what signals do before
/// it finds out whether the program can be executed.
fn execute(program: &OwnedFd, state: RawFd) -> Errno {
    let state = state.to_string();
    let text = [through(program).as_str(), NAME, KEEPER_ARGUMENT, TAKE_OVER_ARGUMENT, &state]
        .map(|text| CString::new(text).unwrap_or_default());
    let [path, arguments @ ..] = &text;
    let mut argv: Vec<*const libc::c_char> = arguments.iter().map(|argument| argument.as_ptr()).collect();
    argv.push(std::ptr::null());
    let environment = [std::ptr::null()];
    // SAFETY: path and arguments are NUL-terminated strings that live until the call returns, and both arrays end with
    // a null pointer.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), environment.as_ptr()) };
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Has the program take the state over in a child, which then ends.
fn rehearse(program: &OwnedFd, state: RawFd) -> Result<(), UpgradeRefusal> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(unusable)?;
    let mut command = Command::new(through(program));
    command.arg0(NAME).arg(KEEPER_ARGUMENT).arg(REHEARSE_ARGUMENT).arg(state.to_string()).env_clear();
    command.stdin(Stdio::null()).stdout(write).stderr(Stdio::null());
    let keeper = rustix::process::getpid();
    let die_with_keeper = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // It may have died before.
        if rustix::process::getppid() == Some(keeper) { Ok(()) } else { Err(Errno::SRCH.into()) }
    };
    // Whatever the program is, it holds everything of this keeper's, and must not when the keeper has died.
    // SAFETY: between fork and exec only two system calls are made.
    unsafe { command.pre_exec(die_with_keeper) };
    let mut child = command.spawn().map_err(unusable)?;
    drop(command);
    let answer = read_answer(read, Instant::now() + REHEARSAL);
    // It has said all that it had to say, or too little too late.
    let _ = child.kill();
    child.wait().map_err(unusable)?;
    match answer? {
        Rehearsed::Ready { major, minor, version } if is_forward(major, minor, &version) => Ok(()),
        Rehearsed::Ready { minor, version, .. } => Err(UpgradeRefusal::Older { minor, version }),
        Rehearsed::Refused { message } => Err(UpgradeRefusal::Failed { message }),
    }
}

/// Reads one line from the child.
fn read_answer(pipe: OwnedFd, deadline: Instant) -> Result<Rehearsed, UpgradeRefusal> {
    let mut pipe = std::fs::File::from(pipe);
    let mut answer = Vec::new();
    let mut chunk = [0; 1024];
    while !answer.ends_with(b"\n") && answer.len() < ANSWER_BYTES {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(UpgradeRefusal::Silent { seconds: REHEARSAL.as_secs() });
        }
        let timeout = super::timespec(left);
        match poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => continue,
            Ok(_) => {}
            Err(errno) => return Err(unusable(errno)),
        }
        match pipe.read(&mut chunk).map_err(unusable)? {
            0 => break,
            count => answer.extend_from_slice(&chunk[..count]),
        }
    }
    serde_json::from_slice(&answer).map_err(|_| UpgradeRefusal::NotAKeeper)
}

/// What a program says that was asked to rehearse with the state in `memfd`.
///
/// # Safety
/// As [`Adopted::take`].
pub(crate) unsafe fn rehearsal(memfd: OwnedFd) -> Rehearsed {
    // SAFETY: the caller's promise.
    match unsafe { Keeper::restore(memfd) } {
        Ok(keeper) => {
            // Its placeholders, its locks and its children are the other one's.
            std::mem::forget(keeper);
            Rehearsed::Ready { major: MAJOR, minor: MINOR, version: RELEASE.to_owned() }
        }
        Err(error) => Rehearsed::Refused { message: error.to_string() },
    }
}

/// Serves with the state in `memfd`, in the place of the keeper that wrote it.
///
/// # Errors
/// [`KeeperError::State`] if it can't be taken over. Everything that the keeper held ends then.
///
/// # Safety
/// As [`Adopted::take`].
pub(crate) unsafe fn take_over(memfd: OwnedFd) -> Result<(), KeeperError> {
    // SAFETY: the caller's promise.
    let mut keeper =
        unsafe { Keeper::restore(memfd) }.map_err(|error| KeeperError::State(error.to_string()))?;
    keeper.go_on();
    keeper.run()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{HashMap, HashSet};
    use std::os::unix::fs::PermissionsExt as _;

    use rustix::event::{EventfdFlags, eventfd};
    use sandbar_proto::InputId;
    use sandbar_testkit::{Samples, Took, fuzz};
    use serde_json::Value;

    #[test]
    fn only_the_same_and_newer_programs_of_one_major_are_forward() {
        assert!(is_forward(MAJOR, MINOR, RELEASE));
        assert!(is_forward(MAJOR, MINOR + 1, "0.0.0"));
        assert!(is_forward(MAJOR, MINOR, "999.0.0"));
        assert!(!is_forward(MAJOR, MINOR - 1, "999.0.0"));
        assert!(!is_forward(MAJOR, MINOR, "0.0.1"));
        assert!(!is_forward(MAJOR + 1, MINOR, RELEASE));
    }

    #[test]
    fn releases_are_compared_as_numbers() {
        assert!(release("0.10.0") > release("0.9.9"));
        assert_eq!(release("1.2.3-rc.1"), [1, 2, 3]);
        assert_eq!(release("x"), [0, 0, 0]);
    }

    #[test]
    fn a_program_that_others_may_write_or_that_has_rights_of_its_own_is_none() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let check = |mode| {
            file.as_file().set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
            check_program(&file.reopen().unwrap().into())
        };
        assert!(check(0o700).is_ok() && check(0o755).is_ok());
        assert_eq!(check(0o775), Err(UpgradeRefusal::Writable { mode: 0o775 }));
        assert_eq!(check(0o702), Err(UpgradeRefusal::Writable { mode: 0o702 }));
        assert_eq!(check(0o4755), Err(UpgradeRefusal::Privileged));
        assert_eq!(check(0o2755), Err(UpgradeRefusal::Privileged));
        let directory = std::fs::File::open("/").unwrap();
        assert_eq!(check_program(&directory.into()), Err(UpgradeRefusal::NoProgram));
    }

    /// A state as a keeper of the first format writes it: what is in here must be read by every later program.
    const FIRST: &str = include_str!("../../fixtures/keeper-state-1.json");

    #[test]
    fn the_first_format_is_read_for_ever() {
        let state = parse(FIRST.as_bytes()).unwrap();
        assert_eq!((state.format, state.minor, state.version.as_str()), (1, 3, "0.1.0"));
        assert_eq!((state.processes.len(), state.connections.len(), state.timers.len()), (2, 1, 3));
        assert_eq!((state.leaving.len(), state.asker), (2, (9, 4)));
        assert_eq!(state.timers[2], (1, Timer::Attendant));
        let numbers: HashSet<&RawFd> = state.descriptors.iter().collect();
        assert_eq!(numbers.len(), state.descriptors.len());
    }

    #[test]
    fn what_a_newer_program_wrote_is_refused_by_name() {
        let newer = FIRST.replacen("\"minor\":3", &format!("\"minor\":{}", MINOR + 1), 1);
        assert!(matches!(parse(newer.as_bytes()), Err(HandoverError::Newer { .. })));
        let format = FIRST.replacen("\"format\":1", "\"format\":2", 1);
        assert!(matches!(parse(format.as_bytes()), Err(HandoverError::Format { found: 2, known: 1 })));
        assert!(matches!(parse(b"{}"), Err(HandoverError::State(_))));
    }

    /// The sample without cgroups, which only a cgroup file system has.
    fn without_cgroups() -> Value {
        let mut state: Value = serde_json::from_str(FIRST).unwrap();
        state["cgroups"]["base"] = Value::Null;
        state["processes"][1][1]["cgroup"] = Value::Null;
        // Theirs are the last two.
        let descriptors = state["descriptors"].as_array_mut().unwrap();
        assert_eq!(descriptors.split_off(descriptors.len() - 2), [67, 68]);
        state
    }

    /// A descriptor for each number, of a kind that can be watched.
    fn stand_ins(numbers: &[RawFd]) -> HashMap<RawFd, OwnedFd> {
        let make = |number: &RawFd| (*number, eventfd(0, EventfdFlags::CLOEXEC).unwrap());
        numbers.iter().collect::<HashSet<_>>().into_iter().map(make).collect()
    }

    /// What a keeper writes that took this state over.
    fn handed_on(state: State, stand_ins: HashMap<RawFd, OwnedFd>) -> Result<Vec<u8>, HandoverError> {
        let asker = state.asker;
        let mut keeper = Keeper::with(state, Adopted::of(stand_ins))?;
        let memfd = keeper.save(asker, &mut Kept::default()).unwrap();
        std::mem::take(&mut keeper.placeholders).abandon();
        Ok(handover::read_sealed(&memfd).unwrap())
    }

    /// Asserts that two states say the same, but for the numbers of descriptors and the moment of each clock.
    fn assert_same(old: &Value, new: &Value, numbers: &HashMap<RawFd, RawFd>, at: &str) {
        match (old, new) {
            (Value::Object(old), Value::Object(new)) => {
                let names =
                    |object: &serde_json::Map<String, Value>| object.keys().cloned().collect::<Vec<_>>();
                assert_eq!(names(old), names(new), "{at}");
                for (name, value) in old {
                    assert_same(value, &new[name], numbers, &format!("{at}.{name}"));
                }
            }
            (Value::Array(old), Value::Array(new)) => {
                assert_eq!(old.len(), new.len(), "{at}");
                old.iter().zip(new).for_each(|(old, new)| assert_same(old, new, numbers, at));
            }
            (Value::Number(old), Value::Number(new)) if old != new => {
                let is_moved = RawFd::try_from(old.as_i64().unwrap()).ok().and_then(|old| numbers.get(&old))
                    == RawFd::try_from(new.as_i64().unwrap()).ok().as_ref();
                let is_moment = at.starts_with(".sessions")
                    && old.as_u64().unwrap().abs_diff(new.as_u64().unwrap()) < 1_000_000_000;
                assert!(is_moved || is_moment, "{at}: {old} -> {new}");
            }
            (old, new) => assert_eq!(old, new, "{at}"),
        }
    }

    #[test]
    fn what_was_taken_over_is_handed_on_as_it_was() {
        assert_handed_on(without_cgroups());
        // What later formats have besides.
        let mut later = without_cgroups();
        let names = [(InputId::of(&["first"]), 7), (InputId::of(&["second"]), 1)];
        later["processes"][0][1]["stdin"]["named"] = serde_json::to_value(names).unwrap();
        later["processes"][1][1]["is_ending"] = Value::Bool(true);
        assert_handed_on(later);
    }

    fn assert_handed_on(mut old: Value) {
        let state = parse(&serde_json::to_vec(&old).unwrap()).unwrap();
        let stand_ins = stand_ins(&state.descriptors);
        let numbers = stand_ins.iter().map(|(old, new)| (*old, new.as_raw_fd())).collect();
        let text = handed_on(state, stand_ins).unwrap();
        let mut new: Value = serde_json::from_slice(&text).unwrap();
        // These are kept in no order, and tokens and versions are the next program's.
        for unordered in ["descriptors", "leaving", "timers"] {
            let length = |state: &Value| state[unordered].as_array().map(Vec::len);
            assert_eq!(length(&old), length(&new), "{unordered}");
        }
        for state in [&mut old, &mut new] {
            for own in ["descriptors", "leaving", "timers", "next_token", "minor", "version"] {
                state.as_object_mut().unwrap().remove(own).unwrap();
            }
        }
        assert_same(&old, &new, &numbers, "");
    }

    #[test]
    fn fuzz_a_state_that_is_understood_is_taken_over_whole_or_refused() {
        /// More descriptors than a sample has; each takes one of this process.
        const MOST: usize = 64;
        let mut small = without_cgroups();
        for emptied in ["processes", "connections", "leaving", "timers"] {
            small[emptied] = Value::Array(Vec::new());
        }
        let (whole, small) = (without_cgroups().to_string(), small.to_string());
        let samples = Samples {
            whole: &[FIRST.as_bytes(), whole.as_bytes(), small.as_bytes()],
            words: &[
                b"{",
                b"}",
                b"[",
                b"]",
                b"\"",
                b":",
                b",",
                b"null",
                b"true",
                b"-1",
                b"0",
                b"1e9",
                b"18446744073709551615",
                b"2147483647",
                b"\"format\":2",
                b"\"minor\":9",
                b"\"version\":\"9\"",
                b"\"descriptors\":[]",
                b"\"sessions\":{\"live\":[],\"ended\":[]}",
                b"[1,\"attendant\"]",
                b"\"stdout\"",
                b"\"lifetime\":\"session\"",
                b"/../",
                b"\\u0000",
            ],
        };
        fuzz("keeper state", samples, |input| {
            let Ok(state) = parse(input) else { return Took::Refused };
            assert!(state.format <= FORMAT && state.minor <= MINOR);
            let text = serde_json::to_vec(&state).unwrap();
            assert_eq!(serde_json::to_vec(&parse(&text).unwrap()).unwrap(), text);
            if state.descriptors.len() > MOST {
                return Took::Understood;
            }
            let stand_ins = stand_ins(&state.descriptors);
            let count = |state: &State| {
                let connections: HashSet<u64> = state.connections.iter().map(|(id, _)| *id).collect();
                let processes: HashSet<RunId> = state.processes.iter().map(|(id, _)| *id).collect();
                (connections.len(), processes.len(), state.leaving.len(), state.timers.len())
            };
            let before = count(&state);
            if let Ok(text) = handed_on(state, stand_ins) {
                assert_eq!(count(&parse(&text).unwrap()), before);
            }
            Took::Understood
        });
    }
}
