//! One process that the keeper holds: its streams, its log, its end.
//!
//! A process is announced as exited when its leader ended and as closed when nothing can come any more. Who
//! watches hears both once, in this order, after the record is written.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use sandbar_proto::{
    AbsPath, AfterLeader, Blob, EndRecord, ExitStatus, LaunchSpec, Limit, NetworkMode, OutputTotals,
    PathGlob, PinnedPath, ResourceUse, RunId, Seq, StartRecord, Stream, TerminalSize, Timestamp,
};
use sandbar_sandbox::Holder;
use sandbar_sandbox::guard::Guarded;
use serde::{Deserialize, Serialize};

use super::caches::{Leases, SavedLeases};
use super::cgroups::{RunCgroup, SavedRunCgroup};
use super::guards::Guard;
use super::stdin::{SavedStdin, Stdin};
use crate::handover::{Adopted, Fd, HandoverError, Kept};
use crate::log::{AppendError, Keep, LogWriter, SavedLog};
use crate::protocol::{ProcessState, Watch};
use crate::records::{ProcessDir, SavedDir};

/// Bytes that a lossless reader may be behind before the process waits.
const LOSSLESS_BOUND_BYTES: u64 = 4 * 1024 * 1024;

/// One read from a stream: the default size of a pipe (pipe(7)). Reading less doubles the wake-ups of a flood.
pub(super) const READ_BYTES: usize = 64 * 1024;

/// A process between its start request and its last event.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) start: StartRecord,
    pub(super) directory: ProcessDir,
    pub(super) holder: Holder,
    pub(super) log: Option<LogWriter>,
    pub(super) outputs: Outputs,
    pub(super) stdin: Stdin,
    /// The size of its terminal, if it has one.
    pub(super) terminal: Option<TerminalSize>,
    /// Where what may not be recorded yet begins, while nobody records it.
    pub(super) unrecorded_from: Option<u64>,
    /// Who wrote to its input last.
    pub(super) typist: Option<u64>,
    /// Whether its leader is stopped, as far as is known.
    pub(super) stopped: bool,
    pub(super) watchers: BTreeMap<u64, Watcher>,
    pub(super) phase: Phase,
    pub(super) end: Option<EndRecord>,
    /// Whether the holder has ended and was waited for; its process id may be another's by now.
    pub(super) holder_ended: bool,
    /// Whether no process of the tree is left.
    pub(super) tree_ended: bool,
    pub(super) after_leader: AfterLeader,
    /// The network of its sandbox, where that is the native executor's: its holder is pid 1 then, and a spare is made for
    /// the next one. `None` without a sandbox, and where bubblewrap made it.
    pub(super) network: Option<NetworkMode>,
    /// Its cgroup, if a limit needs one.
    pub(super) cgroup: Option<RunCgroup>,
    /// Resource limits that are lower than planned, and what they are.
    pub(super) lowered: Vec<(u32, u64)>,
    /// The limits that held it back as far as somebody saw.
    pub(super) held: Vec<Limit>,
    pub(super) timed_out: bool,
    /// Whether anybody had it killed.
    pub(super) killed: bool,
    /// Whether its tree was asked to end: what its leader leaves behind is not to go on.
    pub(super) is_ending: bool,
    /// What the kernel had killed for lack of memory when it was started, if that is of interest.
    pub(super) host_oom_kills: Option<u64>,
    pub(super) placeholders: Vec<PinnedPath>,
    /// The names that it protects, and the way to them.
    pub(super) guard: Option<Guard>,
    /// The name that could not be protected any more, and for which it was ended.
    pub(super) unprotected: Option<AbsPath>,
    /// Held for their locks, which go with the process.
    pub(super) leases: Leases,
}

/// Where a start is.
#[derive(Debug)]
pub(super) enum Phase {
    /// The holder is building the walls; these requests wait for how it goes.
    Starting {
        /// The plan, for the names of what may fail.
        spec: Box<LaunchSpec>,
        /// Connection and request number of each.
        waiting: Vec<(u64, u64)>,
    },
    /// The command was executed.
    Running,
}

/// A client's interest in a process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Watcher {
    pub(super) watch: Watch,
    pub(super) acked_bytes: u64,
    /// Where what it or its successor may read again begins.
    pub(super) needed_from: u64,
    /// Whether it only records.
    pub(super) attends: bool,
}

impl Watcher {
    /// Whether somebody looks at the output through it.
    fn is_viewer(&self) -> bool {
        self.watch != Watch::End && !self.attends
    }
}

/// Read ends of the logged streams.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    pub(super) stdout: Option<Output>,
    pub(super) stderr: Option<Output>,
    pub(super) pty: Option<Output>,
    /// A chunk that found no room in the log; every stream waits behind it.
    pub(super) stalled: Option<(Stream, Vec<u8>)>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) fd: OwnedFd,
    /// Whether epoll watches it; a paused stream is not watched, since a hang-up can't be masked.
    pub(super) watched: bool,
}

impl Outputs {
    pub(super) fn get(&mut self, stream: Stream) -> &mut Option<Output> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
            Stream::Pty => &mut self.pty,
        }
    }

    fn all_closed(&self) -> bool {
        self.stdout.is_none() && self.stderr.is_none() && self.pty.is_none()
    }
}

/// What reading a stream led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pumped {
    /// Everything there was is in the log.
    Drained,
    /// More is there; other work comes first.
    More,
    /// The stream is at its end and closed.
    Ended,
    /// The log has no room; the chunk waits in the process.
    Full,
}

impl Process {
    /// The state that clients see.
    pub(super) fn state(&self) -> ProcessState {
        ProcessState {
            start: self.start.clone(),
            output: self.totals(),
            end: self.end.clone(),
            closed: self.is_closed(),
            terminal: self.terminal,
            viewers: self.watchers.values().filter(|watcher| watcher.is_viewer()).count(),
            stopped: self.stopped,
            lowered: self.lowered.clone(),
        }
    }

    pub(super) fn totals(&self) -> OutputTotals {
        // Without a log only the end has a number.
        let end = || self.end.as_ref().map(|end| end.output);
        self.log.as_ref().map(LogWriter::totals).or_else(end).unwrap_or_default()
    }

    /// What lossless readers have read and need, one included that died before everything was recorded.
    pub(super) fn keep(&self) -> Keep {
        let lossless = || self.watchers.values().filter(|watcher| watcher.watch == Watch::Lossless);
        Keep {
            read_to: lossless().map(|watcher| watcher.acked_bytes).chain(self.unrecorded_from).min(),
            needed_from: lossless().map(|watcher| watcher.needed_from).chain(self.unrecorded_from).min(),
        }
    }

    /// Notes how far a client has come, and from where on it may need what it read once more.
    pub(super) fn acknowledge(&mut self, client: u64, read_to: u64, needed_from: Option<u64>) {
        let written = self.totals().bytes;
        if let Some(watcher) = self.watchers.get_mut(&client) {
            watcher.acked_bytes = watcher.acked_bytes.max(read_to.min(written));
            let needed_from = needed_from.unwrap_or(read_to).min(watcher.acked_bytes);
            watcher.needed_from = watcher.needed_from.max(needed_from);
        }
    }

    /// Whether a lossless reader is so far behind that the process waits for it.
    pub(super) fn must_wait(&self) -> bool {
        self.keep().read_to.is_some_and(|offset| self.totals().bytes - offset > LOSSLESS_BOUND_BYTES)
    }

    /// Reads a stream into the log, at most a few times.
    pub(super) fn pump(&mut self, stream: Stream, now: Timestamp, buffer: &mut [u8]) -> Pumped {
        // A flood on one stream leaves room for everything else after half a megabyte.
        const ROUNDS: usize = 8;
        let keep = self.keep();
        let most = self.log.as_ref().map_or(buffer.len(), |log| log.max_chunk().min(buffer.len()));
        let buffer = &mut buffer[..most];
        for _ in 0..ROUNDS {
            let Some(output) = self.outputs.get(stream) else { return Pumped::Ended };
            match read(stream, output.fd.as_fd(), buffer) {
                Ok(0) => {
                    *self.outputs.get(stream) = None;
                    return Pumped::Ended;
                }
                Ok(count) => {
                    let Some(log) = &mut self.log else { return Pumped::Ended };
                    match log.append(stream, now, &buffer[..count], keep) {
                        Ok(()) => {}
                        Err(AppendError::Full) => {
                            self.waiting_chunk(stream, &buffer[..count]);
                            return Pumped::Full;
                        }
                        // Not for lack of space: the file system is broken. Readers see a gap of this size.
                        Err(AppendError::Failed(_)) => log.skip(count as u64),
                    }
                    if count < buffer.len() {
                        return Pumped::Drained;
                    }
                }
                Err(Errno::AGAIN) => return Pumped::Drained,
                Err(Errno::INTR) => {}
                Err(_) => {
                    *self.outputs.get(stream) = None;
                    return Pumped::Ended;
                }
            }
            if self.must_wait() {
                return Pumped::More;
            }
        }
        Pumped::More
    }

    fn waiting_chunk(&mut self, stream: Stream, bytes: &[u8]) {
        self.outputs.stalled = Some((stream, bytes.to_vec()));
    }

    /// Tries again to log the chunk that found no room; `true` if none waits any more.
    pub(super) fn retry_stalled(&mut self, now: Timestamp) -> bool {
        let Some((stream, bytes)) = self.outputs.stalled.take() else { return true };
        let keep = self.keep();
        let Some(log) = &mut self.log else { return true };
        match log.append(stream, now, &bytes, keep) {
            Ok(()) => true,
            Err(AppendError::Full) => {
                self.outputs.stalled = Some((stream, bytes));
                false
            }
            Err(AppendError::Failed(_)) => {
                log.skip(bytes.len() as u64);
                true
            }
        }
    }

    /// Writes the end record. Nothing may be announced before this.
    pub(super) fn record_end(&mut self, id: RunId, status: ExitStatus, usage: ResourceUse, ended: Timestamp) {
        let output = match &mut self.log {
            Some(log) => {
                log.next_seq();
                log.totals()
            }
            None => OutputTotals { last_seq: Seq(1), ..OutputTotals::default() },
        };
        let limits = self.limits(status, usage);
        let out_of_memory = self.out_of_memory(status, &limits);
        let timed_out = self.timed_out;
        let end = EndRecord {
            id,
            status,
            ended,
            usage,
            output,
            timed_out,
            limits,
            out_of_memory,
            unprotected: self.unprotected.clone(),
        };
        // Its space was taken at the start; an error here is a broken file system, and those who watch still
        // hear how it ended.
        let _ = self.directory.finish(&end);
        self.end = Some(end);
    }

    /// Writes down what came behind the end, if anything did. `closed` is the number of the close.
    pub(super) fn record_close(&self, closed: Seq) {
        let Some(end) = &self.end else { return };
        if end.output.last_seq.next() != closed {
            // Without it readers see as much as the log itself says.
            let _ = self.directory.close(&self.totals());
        }
        let inputs = self.stdin.last_named();
        if !inputs.is_empty() {
            // Without it an input that is repeated finds that nothing takes it any more.
            let _ = self.directory.note_inputs(&inputs);
        }
    }

    /// Whether nothing can come any more.
    pub(super) fn is_closed(&self) -> bool {
        let streams = self.outputs.all_closed() && self.outputs.stalled.is_none();
        let tree = match self.after_leader {
            AfterLeader::Kill => self.tree_ended,
            AfterLeader::Wait => true,
        };
        self.end.is_some() && streams && tree
    }
}

/// A running [`Process`] on its way to the next program.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedProcess {
    start: StartRecord,
    directory: SavedDir,
    holder: SavedHolder,
    #[serde(default)]
    holder_ended: bool,
    log: Option<SavedLog>,
    /// Read ends that are open.
    outputs: Vec<(Stream, Fd)>,
    stalled: Option<(Stream, Blob)>,
    stdin: SavedStdin,
    terminal: Option<TerminalSize>,
    unrecorded_from: Option<u64>,
    typist: Option<u64>,
    stopped: bool,
    watchers: BTreeMap<u64, Watcher>,
    end: Option<EndRecord>,
    tree_ended: bool,
    after_leader: AfterLeader,
    network: Option<NetworkMode>,
    cgroup: Option<SavedRunCgroup>,
    lowered: Vec<(u32, u64)>,
    held: Vec<Limit>,
    timed_out: bool,
    killed: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_ending: bool,
    host_oom_kills: Option<u64>,
    placeholders: Vec<PinnedPath>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    guarded: Vec<Guarded>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    globs: Vec<PathGlob>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    nests: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unprotected: Option<AbsPath>,
    leases: SavedLeases,
}

/// A holder on its way to the next program.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedHolder {
    pid: i32,
    pidfd: Fd,
    control: Fd,
}

impl SavedHolder {
    /// Hands a holder over.
    pub(super) fn save(holder: &Holder, kept: &mut Kept) -> Self {
        // Once a command runs nobody complains any more.
        let Holder { pid, pidfd, control, complaint: _ } = holder;
        Self { pid: *pid, pidfd: kept.keep(pidfd), control: kept.keep(control) }
    }

    /// Takes a holder over.
    ///
    /// # Errors
    /// [`HandoverError`].
    pub(super) fn restore(self, adopted: &mut Adopted) -> Result<Holder, HandoverError> {
        let Self { pid, pidfd, control } = self;
        Ok(Holder { pid, pidfd: adopted.give(pidfd)?, control: adopted.give(control)?, complaint: None })
    }
}

impl Process {
    /// Hands the process over; `None` while it is being started.
    pub(super) fn save(&self, kept: &mut Kept) -> Option<SavedProcess> {
        let Self {
            start,
            directory,
            holder,
            log,
            outputs,
            stdin,
            terminal,
            unrecorded_from,
            typist,
            stopped,
            watchers,
            phase,
            end,
            holder_ended,
            tree_ended,
            after_leader,
            network,
            cgroup,
            lowered,
            held,
            timed_out,
            killed,
            is_ending,
            host_oom_kills,
            placeholders,
            guard,
            unprotected,
            leases,
        } = self;
        match phase {
            Phase::Starting { .. } => return None,
            Phase::Running => {}
        }
        let Outputs { stdout, stderr, pty, stalled } = outputs;
        let outputs = [(Stream::Stdout, stdout), (Stream::Stderr, stderr), (Stream::Pty, pty)];
        let outputs = outputs.into_iter().filter_map(|(stream, output)| {
            // Whether it is watched follows from what the process waits for.
            let Output { fd, watched: _ } = output.as_ref()?;
            Some((stream, kept.keep(fd)))
        });
        let outputs = outputs.collect();
        Some(SavedProcess {
            start: start.clone(),
            directory: directory.save(kept),
            holder: SavedHolder::save(holder, kept),
            holder_ended: *holder_ended,
            log: log.as_ref().map(|log| log.save(kept)),
            outputs,
            stalled: stalled.as_ref().map(|(stream, bytes)| (*stream, bytes.as_slice().into())),
            stdin: stdin.save(kept),
            terminal: *terminal,
            unrecorded_from: *unrecorded_from,
            typist: *typist,
            stopped: *stopped,
            watchers: watchers.clone(),
            end: end.clone(),
            tree_ended: *tree_ended,
            after_leader: *after_leader,
            network: *network,
            cgroup: cgroup.as_ref().map(|cgroup| cgroup.save(kept)),
            lowered: lowered.clone(),
            held: held.clone(),
            timed_out: *timed_out,
            killed: *killed,
            is_ending: *is_ending,
            host_oom_kills: *host_oom_kills,
            guarded: guard.as_ref().map(Guard::save).unwrap_or_default(),
            globs: guard.as_ref().map(Guard::save_globs).unwrap_or_default(),
            nests: guard.as_ref().is_some_and(Guard::nests),
            unprotected: unprotected.clone(),
            placeholders: placeholders.clone(),
            leases: leases.save(kept),
        })
    }

    /// Takes a process over. None of its streams is watched yet.
    ///
    /// # Errors
    /// [`HandoverError`].
    pub(super) fn restore(saved: SavedProcess, adopted: &mut Adopted) -> Result<Self, HandoverError> {
        let SavedProcess {
            start,
            directory,
            holder,
            log,
            outputs,
            stalled,
            stdin,
            terminal,
            unrecorded_from,
            typist,
            stopped,
            watchers,
            end,
            holder_ended,
            tree_ended,
            after_leader,
            network,
            cgroup,
            lowered,
            held,
            timed_out,
            killed,
            is_ending,
            host_oom_kills,
            placeholders,
            guarded,
            globs,
            nests,
            unprotected,
            leases,
        } = saved;
        let stalled = stalled.map(|(stream, bytes)| (stream, bytes.into_bytes()));
        let mut streams = Outputs { stdout: None, stderr: None, pty: None, stalled };
        for (stream, fd) in outputs {
            *streams.get(stream) = Some(Output { fd: adopted.give(fd)?, watched: false });
        }
        Ok(Self {
            start,
            directory: ProcessDir::restore(directory, adopted)?,
            holder: holder.restore(adopted)?,
            holder_ended,
            log: log.map(|log| LogWriter::restore(log, adopted)).transpose()?,
            outputs: streams,
            stdin: Stdin::restore(stdin, adopted)?,
            terminal,
            unrecorded_from,
            typist,
            stopped,
            watchers,
            phase: Phase::Running,
            end,
            tree_ended,
            after_leader,
            network,
            cgroup: cgroup.map(|cgroup| RunCgroup::restore(cgroup, adopted)).transpose()?,
            lowered,
            held,
            timed_out,
            killed,
            is_ending,
            host_oom_kills,
            placeholders,
            guard: Guard::restore(guarded, globs, nests),
            unprotected,
            leases: Leases::restore(leases, adopted)?,
        })
    }
}

/// Reads what is there. A terminal gives it out in pieces of at most four kilobytes; they are put together, so that
/// they make one record and wake the readers once.
fn read(stream: Stream, fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, Errno> {
    let mut done = rustix::io::read(fd, &mut *buffer)?;
    while stream == Stream::Pty && done < buffer.len() {
        match rustix::io::read(fd, &mut buffer[done..]) {
            // An end is met again by the next read, with nothing before it.
            Ok(0) | Err(_) => break,
            Ok(count) => done += count,
        }
    }
    Ok(done)
}
