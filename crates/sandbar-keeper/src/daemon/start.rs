//! From a start request to a holder: the plan, the records, the log, the streams.
//!
//! Every step that fails undoes those before it; a refused start leaves nothing behind.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use sandbar_proto::{
    AbsPath, BindAccess, Executor, LaunchSpec, LinuxSandbox, MountOp, OutputMode, Owner, PinnedPath, RunId,
    Sandbox, StartRecord, StdinMode, Stdio, Timestamp,
};
use sandbar_sandbox::report::{SetupFailure, Step};
use sandbar_sandbox::{Holder, Spare, SpawnError, Spawner};

use super::caches::Leases;
use super::cgroups::{Cgroups, RunCgroup};
use super::placeholders::{Placeholders, Run};
use super::process::{Output, Outputs, Phase, Process};
use super::stdin::Stdin;
use super::temporary;
use crate::log::LogWriter;
use crate::protocol::{StartFailure, StartStep};
use crate::records::ProcessDir;
use crate::runtime_dir::KeeperDir;

/// Largest plan: 1,000 carve-outs and a large environment are well below a megabyte.
const MAX_PLAN_BYTES: u64 = 8 * 1024 * 1024;

/// Device number of /dev/null, which is the same on every Linux (devices.txt of the kernel).
const NULL_DEVICE: (u32, u32) = (1, 3);

fn failure(step: StartStep, errno: Errno) -> StartFailure {
    StartFailure { step, errno: errno.raw_os_error(), path: None, detail: String::new() }
}

/// Reads a plan from its sealed memfd.
///
/// # Errors
/// [`StartStep::Plan`].
pub(super) fn read_plan(memfd: &OwnedFd) -> Result<LaunchSpec, StartFailure> {
    let fail = |errno| failure(StartStep::Plan, errno);
    let needed = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW;
    let seals = rustix::fs::fcntl_get_seals(memfd).map_err(fail)?;
    if !seals.contains(needed) {
        return Err(fail(Errno::PERM));
    }
    let size = u64::try_from(rustix::fs::fstat(memfd).map_err(fail)?.st_size).unwrap_or(u64::MAX);
    if size > MAX_PLAN_BYTES {
        return Err(fail(Errno::FBIG));
    }
    let mut text = vec![0; usize::try_from(size).unwrap_or_default()];
    let mut done = 0;
    while done < text.len() {
        match rustix::io::pread(memfd, &mut text[done..], done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(fail(errno)),
        }
    }
    decode_plan(&text[..done])
}

fn decode_plan(text: &[u8]) -> Result<LaunchSpec, StartFailure> {
    serde_json::from_slice(text).map_err(|error| StartFailure {
        detail: shortened(error.to_string()),
        ..failure(StartStep::Plan, Errno::INVAL)
    })
}

/// A decoder's complaint repeats what it did not understand, which may be a whole plan.
fn shortened(mut text: String) -> String {
    const MOST_CHARACTERS: usize = 200;
    if let Some((at, _)) = text.char_indices().nth(MOST_CHARACTERS) {
        text.truncate(at);
        text.push('…');
    }
    text
}

/// What a program that was to make a sandbox complained about.
pub(super) fn complaint(text: &OwnedFd) -> String {
    let mut bytes = [0; 1024];
    let count = rustix::io::pread(text, &mut bytes, 0).unwrap_or_default();
    shortened(String::from_utf8_lossy(&bytes[..count]).trim_end().to_owned())
}

/// What a start needs of the keeper.
pub(super) struct Starter<'a> {
    pub(super) home: &'a KeeperDir,
    pub(super) placeholders: &'a mut Placeholders,
    pub(super) spawner: &'a mut Spawner,
    pub(super) null: &'a OwnedFd,
    pub(super) cgroups: &'a mut Cgroups,
    /// The keeper's own.
    pub(super) hard_limits: &'a [(u32, Option<u64>)],
}

/// What is to be started, besides its plan.
pub(super) struct Wanted {
    pub(super) id: RunId,
    /// The caller's descriptors, in the order of the streams that are direct.
    pub(super) direct: Vec<OwnedFd>,
    /// Who starts it, and where it goes on record.
    pub(super) origin: Origin,
}

/// What a command is started with that is open.
struct Around<'a> {
    stdio: [BorrowedFd<'a>; 3],
    cgroup: Option<BorrowedFd<'a>>,
}

/// Where a start comes from, and where it goes on record.
pub(super) struct Origin {
    /// The rollout that its starter records it in.
    pub(super) rollout: Option<AbsPath>,
    /// Who it belongs to.
    pub(super) owner: Option<Owner>,
}

/// What a start made before its fork.
struct Prepared {
    log: Option<LogWriter>,
    /// Placeholders of this run, to be mounted.
    reserved: Vec<PinnedPath>,
    /// Placeholders of other runs that its plan mounts already.
    joined: Vec<PinnedPath>,
    leases: Leases,
}

/// What a start is after its fork.
struct Started {
    start: StartRecord,
    holder: Holder,
    log: Option<LogWriter>,
    placeholders: Vec<PinnedPath>,
    leases: Leases,
    spec: LaunchSpec,
}

/// The ends of the three streams: the command's, and the keeper's.
struct Streams {
    command: [OwnedFd; 3],
    stdin: Stdin,
    outputs: Outputs,
}

impl Starter<'_> {
    /// Starts `spec` under `id`, in `spare` if there is one; a spare that is left was of no use.
    ///
    /// # Errors
    /// The step that failed before the fork; later ones arrive from the holder.
    pub(super) fn start(
        &mut self,
        wanted: Wanted,
        spec: LaunchSpec,
        spare: &mut Option<Spare>,
        now: Timestamp,
    ) -> Result<Process, StartFailure> {
        let Wanted { id, direct, origin: Origin { rollout, owner } } = wanted;
        let fail = |errno| failure(StartStep::Cgroup, errno);
        let place = self.cgroups.place(id, &spec.enforced).map_err(fail)?;
        let streams = self.streams(&spec, direct)?;
        let start = StartRecord {
            id,
            argv: spec.argv.clone(),
            cwd: spec.cwd.path.clone(),
            started: now,
            profile: spec.profile.clone(),
            lifetime: spec.lifetime,
            holder_pid: None,
            terminal: spec.terminal.is_some(),
            rollout,
            owner,
            limits: spec.enforced.clone(),
            cgroup: place,
        };
        let directory =
            ProcessDir::create(self.home, &start).map_err(|errno| failure(StartStep::Record, errno))?;
        let cgroup = match self.cgroups.make(id, &spec.enforced).map_err(fail) {
            Ok(cgroup) => cgroup,
            Err(failure) => {
                directory.discard();
                return Err(failure);
            }
        };
        match self.start_in(cgroup.as_ref(), &directory, start, &streams.command, spec, spare) {
            Ok(Started { start, holder, log, placeholders, leases, spec }) => Ok(Process {
                start,
                directory,
                holder,
                log,
                outputs: streams.outputs,
                stdin: streams.stdin,
                terminal: spec.terminal.as_ref().map(|terminal| terminal.size),
                unrecorded_from: None,
                typist: None,
                stopped: false,
                watchers: std::collections::BTreeMap::new(),
                end: None,
                holder_ended: false,
                tree_ended: false,
                after_leader: spec.after_leader,
                network: match &spec.sandbox {
                    // A spare is of the native executor.
                    Sandbox::Linux(sandbox) => sandbox.executor.is_native().then_some(sandbox.network),
                    Sandbox::None => None,
                },
                cgroup,
                lowered: sandbar_sandbox::caller::lowered(&spec.attributes, self.hard_limits),
                held: Vec::new(),
                timed_out: false,
                killed: false,
                is_ending: false,
                host_oom_kills: None,
                guard: None,
                unprotected: None,
                placeholders,
                leases,
                phase: Phase::Starting { spec: Box::new(spec), waiting: Vec::new() },
            }),
            Err(failure) => {
                // The record last: it says what is to be removed behind a keeper that is killed here.
                if let Some(cgroup) = cgroup {
                    self.cgroups.remove(cgroup);
                }
                directory.discard();
                Err(failure)
            }
        }
    }

    /// What comes behind the record. What it made is undone where it fails.
    fn start_in(
        &mut self,
        cgroup: Option<&RunCgroup>,
        directory: &ProcessDir,
        start: StartRecord,
        command: &[OwnedFd; 3],
        mut spec: LaunchSpec,
        spare: &mut Option<Spare>,
    ) -> Result<Started, StartFailure> {
        let door = cgroup.map(|run| run.cgroup.door()).transpose();
        let door = door.map_err(|errno| failure(StartStep::Cgroup, errno))?;
        temporary::name(&mut spec, start.id).map_err(|error| StartFailure {
            path: Some(error.path),
            ..failure(StartStep::CacheStore, error.errno)
        })?;
        let Prepared { log, reserved, joined, leases } = self.prepare(&spec, directory, start.started)?;
        let stdio = [&command[0], &command[1], &command[2]].map(OwnedFd::as_fd);
        let around = Around { stdio, cgroup: door.as_ref().map(OwnedFd::as_fd) };
        let spawned = self.spawn(&mut spec, &reserved, &around, &leases, spare);
        let placeholders = [reserved, joined].concat();
        match spawned {
            Ok(holder) => {
                let start = StartRecord { holder_pid: u32::try_from(holder.pid).ok(), ..start };
                Ok(Started { start, holder, log, placeholders, leases, spec })
            }
            Err(error) => {
                self.placeholders.release(&placeholders);
                Err(spawn_failure(&error))
            }
        }
    }

    /// Forks the holder, or wakes the spare that was fed with this plan. Placeholders are mounted read-only behind
    /// everything else.
    fn spawn(
        &mut self,
        spec: &mut LaunchSpec,
        placeholders: &[PinnedPath],
        around: &Around<'_>,
        leases: &Leases,
        spare: &mut Option<Spare>,
    ) -> Result<Holder, SpawnError> {
        let mounts = placeholders.iter().map(|pinned| MountOp::Bind {
            source: pinned.clone(),
            target: pinned.path.clone(),
            access: BindAccess::Read,
        });
        let mut mounts: Vec<MountOp> = mounts.collect();
        if let Some(fed) = spare.take() {
            match self.spawner.launch(&fed, spec, mounts.clone(), around.stdio, &leases.layers) {
                Ok(()) => {
                    add_mounts(spec, &mut mounts);
                    return Ok(fed.into_holder());
                }
                // It is gone, for whatever reason; a launch of its own says what is wrong, if anything is.
                Err(_) => *spare = Some(fed),
            }
        }
        add_mounts(spec, &mut mounts);
        // SAFETY: the keeper has one thread.
        unsafe { self.spawner.spawn(spec, around.stdio, &leases.layers, around.cgroup) }
    }

    /// Log, placeholders and caches.
    fn prepare(
        &mut self,
        spec: &LaunchSpec,
        directory: &ProcessDir,
        started: Timestamp,
    ) -> Result<Prepared, StartFailure> {
        let logged = [spec.stdio.stdout, spec.stdio.stderr].iter().any(|mode| *mode != OutputMode::Direct);
        let log = logged
            .then(|| LogWriter::create(directory.fd(), spec.retention_bytes))
            .transpose()
            .map_err(|errno| failure(StartStep::Log, errno))?;
        let Sandbox::Linux(sandbox) = &spec.sandbox else {
            return Ok(Prepared { log, reserved: Vec::new(), joined: Vec::new(), leases: Leases::default() });
        };
        let leases = Leases::take(&sandbox.caches).map_err(|error| StartFailure {
            path: Some(error.path),
            ..failure(StartStep::CacheStore, error.errno)
        })?;
        let sources = sandbox.mounts.iter().filter_map(|op| match op {
            MountOp::Bind { source, access: BindAccess::Read, .. } => Some(source),
            MountOp::Bind { .. }
            | MountOp::Mask { .. }
            | MountOp::Tmpfs { .. }
            | MountOp::MakeDir { .. }
            | MountOp::MakeFile { .. }
            | MountOp::Symlink { .. }
            | MountOp::Proc
            | MountOp::Dev => None,
        });
        let joined = self.placeholders.join(sources);
        let pool = sandbox.placeholder_pool.as_ref();
        let run = Run { home: self.home, directory: directory.fd(), started };
        match self.placeholders.reserve(run, &joined, &sandbox.placeholders, pool) {
            Ok(reserved) => Ok(Prepared { log, reserved, joined, leases }),
            Err(error) => {
                self.placeholders.release(&joined);
                let path = Some(error.path);
                Err(StartFailure { path, ..failure(StartStep::Placeholder, error.errno) })
            }
        }
    }

    fn streams(&self, spec: &LaunchSpec, direct: Vec<OwnedFd>) -> Result<Streams, StartFailure> {
        let fail = |errno| failure(StartStep::Stream, errno);
        let Stdio { stdin, stdout, stderr } = spec.stdio;
        let is_terminal = stdin == StdinMode::Terminal || [stdout, stderr].contains(&OutputMode::Terminal);
        // A terminal without a stream would be held for nobody, a stream without its terminal lead nowhere.
        if is_terminal != spec.terminal.is_some() {
            return Err(fail(Errno::INVAL));
        }
        let null = || self.null.try_clone().map_err(|_| fail(Errno::MFILE));
        let mut direct = direct.into_iter();
        let mut handed_over = || direct.next().ok_or_else(|| fail(Errno::BADF));
        let (stdin_end, stdin) = match spec.stdio.stdin {
            // A terminal is opened by the holder, and put in this place.
            StdinMode::Null | StdinMode::Terminal => (null()?, Stdin::default()),
            StdinMode::Direct => (checked(handed_over()?, spec)?, Stdin::default()),
            StdinMode::Piped => {
                let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(fail)?;
                non_blocking(&write).map_err(fail)?;
                (read, Stdin::piped(write))
            }
        };
        let mut outputs = Outputs::default();
        let mut output = |mode, slot: &mut Option<Output>| match mode {
            OutputMode::Terminal => null(),
            OutputMode::Direct => checked(handed_over()?, spec),
            OutputMode::Logged => {
                let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(fail)?;
                non_blocking(&read).map_err(fail)?;
                *slot = Some(Output { fd: read, watched: false });
                Ok(write)
            }
        };
        let stdout_end = output(spec.stdio.stdout, &mut outputs.stdout)?;
        let stderr_end = output(spec.stdio.stderr, &mut outputs.stderr)?;
        Ok(Streams { command: [stdin_end, stdout_end, stderr_end], stdin, outputs })
    }
}

fn add_mounts(spec: &mut LaunchSpec, mounts: &mut Vec<MountOp>) {
    if let Sandbox::Linux(sandbox) = &mut spec.sandbox {
        sandbox.mounts.append(mounts);
    }
}

/// Only our end must not block; the flag is one of the open description, which the two ends do not share.
fn non_blocking(end: &OwnedFd) -> Result<(), Errno> {
    let flags = rustix::fs::fcntl_getfl(end)?;
    rustix::fs::fcntl_setfl(end, flags | OFlags::NONBLOCK)
}

/// Lets a caller's descriptor through to the command if it gives no way around the mounts: pipes, sockets,
/// /dev/null, and files where Landlock decides about opening them anew through /proc.
fn checked(fd: OwnedFd, spec: &LaunchSpec) -> Result<OwnedFd, StartFailure> {
    let fail = |errno| failure(StartStep::Stream, errno);
    let stat = rustix::fs::fstat(&fd).map_err(fail)?;
    if rustix::fs::fcntl_getfl(&fd).map_err(fail)?.contains(OFlags::PATH) {
        return Err(fail(Errno::BADF));
    }
    let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    let landlocked = match &spec.sandbox {
        Sandbox::None => true,
        Sandbox::Linux(sandbox) => sandbox.landlock.is_some(),
    };
    let allowed = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Fifo | FileType::Socket => true,
        FileType::CharacterDevice => device == NULL_DEVICE,
        FileType::RegularFile => landlocked,
        FileType::Directory | FileType::Symlink | FileType::BlockDevice | FileType::Unknown => false,
    };
    if allowed { Ok(fd) } else { Err(fail(Errno::OPNOTSUPP)) }
}

fn spawn_failure(error: &SpawnError) -> StartFailure {
    let sandbox = |step: Step| StartStep::Sandbox(step.name().to_owned());
    let (step, errno) = match error {
        SpawnError::NulByte => (StartStep::NulByte, Errno::INVAL),
        SpawnError::Filter(_) => (sandbox(Step::Seccomp), Errno::INVAL),
        SpawnError::Landlock { .. } => (StartStep::LandlockAbi, Errno::OPNOTSUPP),
        SpawnError::Channel(errno) => (sandbox(Step::Holder), *errno),
        SpawnError::Namespaces(errno) => (sandbox(Step::Namespaces), *errno),
        SpawnError::Bwrap { .. } => (sandbox(Step::Bwrap), Errno::OPNOTSUPP),
        SpawnError::Cgroup => (StartStep::Cgroup, Errno::INVAL),
        SpawnError::IdMap(error) => (sandbox(Step::IdMap), Errno::from_io_error(error).unwrap_or(Errno::IO)),
    };
    StartFailure { detail: error.to_string(), ..failure(step, errno) }
}

/// A holder's failure with the path that it was about.
pub(super) fn setup_failure(spec: &LaunchSpec, failed: SetupFailure) -> StartFailure {
    StartFailure {
        step: StartStep::Sandbox(failed.step.name().to_owned()),
        errno: failed.errno,
        path: failed_path(spec, failed),
        detail: String::new(),
    }
}

fn failed_path(spec: &LaunchSpec, failed: SetupFailure) -> Option<AbsPath> {
    let index = usize::try_from(failed.index).ok()?;
    let Sandbox::Linux(sandbox) = &spec.sandbox else {
        return matches!(failed.step, Step::Cwd | Step::CwdChanged).then(|| spec.cwd.path.clone());
    };
    match failed.step {
        Step::Cwd | Step::CwdChanged => Some(spec.cwd.path.clone()),
        // Without mounts it is a rule's path that was another file.
        Step::Changed if sandbox.mounts.is_empty() => rule_path(sandbox, index),
        Step::Source | Step::Changed | Step::Mount => sandbox.mounts.get(index).and_then(mount_path),
        Step::Cache => sandbox.caches.get(index).map(|cache| cache.target.path.clone()),
        Step::Landlock => rule_path(sandbox, index),
        Step::Temporary => match &sandbox.executor {
            Executor::Landlock { temporary } => Some(temporary.clone()),
            Executor::Native | Executor::Bwrap { .. } => None,
        },
        Step::Namespaces
        | Step::IdMap
        | Step::ReadOnlyRoot
        | Step::Proc
        | Step::Dev
        | Step::Loopback
        | Step::Keyring
        | Step::Privileges
        | Step::RunAs
        | Step::Seccomp
        | Step::Descriptors
        | Step::Attributes
        | Step::ProgramNotFound
        | Step::Exec
        | Step::Interpreter
        | Step::Holder
        | Step::Terminal
        | Step::Cgroup
        | Step::Bwrap
        | Step::Plan => None,
    }
}

fn rule_path(sandbox: &LinuxSandbox, index: usize) -> Option<AbsPath> {
    let rules = &sandbox.landlock.as_ref()?.rules;
    rules.get(index).map(|rule| rule.path.clone())
}

fn mount_path(op: &MountOp) -> Option<AbsPath> {
    match op {
        MountOp::Bind { target, .. } | MountOp::Tmpfs { target, .. } => Some(target.clone()),
        MountOp::Mask { target, .. } => Some(target.path.clone()),
        MountOp::MakeDir { path, .. } | MountOp::MakeFile { path, .. } | MountOp::Symlink { path, .. } => {
            Some(path.clone())
        }
        MountOp::Proc | MountOp::Dev => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, memfd_create};
    use sandbar_testkit::{Samples, Took, fuzz};

    fn memfd(text: &[u8], seals: SealFlags) -> OwnedFd {
        let fd = memfd_create("plan", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::io::write(&fd, text).unwrap();
        rustix::fs::fcntl_add_seals(&fd, seals).unwrap();
        fd
    }

    #[test]
    fn a_plan_that_could_still_change_is_refused() {
        let all = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW;
        for missing in [SealFlags::WRITE, SealFlags::SHRINK, SealFlags::GROW] {
            let failure = read_plan(&memfd(b"{}", all - missing)).unwrap_err();
            assert_eq!((failure.step, failure.errno), (StartStep::Plan, Errno::PERM.raw_os_error()));
        }
    }

    #[test]
    fn a_plan_that_is_none_says_where() {
        let all = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW;
        let failure = read_plan(&memfd(b"{\"argv\":7}", all)).unwrap_err();
        assert!(failure.detail.contains("line 1"), "{}", failure.detail);
    }

    /// Plans as a client sends them: one without a sandbox, one with most of what a sandbox may have.
    const PLANS: [&str; 2] = [
        r#"{"argv":["sh","-c",{"bytes":"/w=="}],"arg0":"-sh","cwd":{"path":"/","identity":{"dev":1,"ino":2,
        "kind":"directory"}},"env":[{"name":"A","value":"b"}],"stdio":{"stdin":"null","stdout":"logged",
        "stderr":"direct"},"attributes":{"umask":18,"nice":0,"rlimits":[[7,1024,null]]},"limits":{"wall":
        {"secs":1,"nanos":5}},"lifetime":"connection","after_leader":"kill","retention_bytes":16777216,
        "profile":"danger-full-access","sandbox":"none"}"#,
        r#"{"argv":["true"],"cwd":{"path":"/w","identity":{"dev":1,"ino":3,"kind":"directory"}},"env":[],
        "stdio":{"stdin":"terminal","stdout":"terminal","stderr":"terminal"},"attributes":{"umask":18,
        "nice":-20,"rlimits":[]},"lifetime":"detached","after_leader":"wait","retention_bytes":0,"profile":"w",
        "sandbox":{"linux":{"identity":{"users":[{"first":0,"count":1}],"groups":[{"first":0,"count":4294967295}],
        "run_as":{"uid":1,"gid":2}},"network":"off","mounts":[{"bind":{"source":{"path":"/w","identity":{"dev":1,
        "ino":3,"kind":"directory"}},"target":"/w","access":"write"}},{"mask":{"target":{"path":"/w/s","identity":
        {"dev":1,"ino":9,"kind":"file"}}}},{"tmpfs":{"target":"/tmp","mode":511,"access":"write"}},{"symlink":
        {"path":"/l","to":"x"}},"proc","dev"],"caches":[{"name":"c","target":{"path":"/c","identity":{"dev":1,
        "ino":5,"kind":"directory"}},"store":"/s","writes":"kept"}],"placeholders":[{"parent":{"path":"/w",
        "identity":{"dev":1,"ino":3,"kind":"directory"}},"name":".git","what":{"file":{"content":""}}}],
        "landlock":{"min_abi":3,"rules":[{"path":"/","access":"read"}]},"seccomp":{"allow":"read write","rules":
        [{"name":"socket","when":[[[{"arg":0,"mask":255,"value":1}],{"errno":1}]],"otherwise":"allow"}],"default":
        "kill"}}}}"#,
    ];

    #[test]
    fn fuzz_a_plan_that_is_understood_survives_being_sent() {
        let whole = PLANS.map(str::as_bytes);
        let words: [&[u8]; 22] = [
            b"{",
            b"}",
            b"[",
            b"]",
            b"\"",
            b":",
            b",",
            b"null",
            b"-1",
            b"\"none\"",
            b"\"proc\"",
            b"\"/\"",
            b"..",
            b"\\u0000",
            b"{\"bytes\":\"",
            b"\"limits\":{\"wall\":{\"secs\":18446744073709551615,\"nanos\":4294967295}}",
            b"1e400",
            b"\"mounts\":[",
            b"\"name\":",
            b"\xff",
            b"\n",
            b" ",
        ];
        fuzz("launch plan", Samples { whole: &whole, words: &words }, |input| match decode_plan(input) {
            Ok(plan) => {
                let again = serde_json::to_vec(&plan).unwrap();
                assert_eq!(decode_plan(&again).as_ref(), Ok(&plan));
                Took::Understood
            }
            Err(failure) => {
                assert!(failure.detail.len() < 1024 && failure.step == StartStep::Plan);
                Took::Refused
            }
        });
    }
}
