//! The capability to run processes, whatever kind of environment has it.

use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::time::Duration;

use sandbar_keeper::ReadError;
use sandbar_keeper::protocol::{ProcessState, Refusal, SessionState, StartFailure};
use sandbar_policy::LaunchPlan;
use sandbar_proto::{
    AbsPath, Blob, EndRecord, InputId, OutputTotals, Owner, ProcessEvent, RunId, Seq, SessionId, StartRecord,
    Stream, TerminalSize,
};

/// A future behind a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How closely a starter follows the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watching {
    /// Its end only; the output is direct or of no interest.
    End,
    /// Everything; what was dropped is stated as a gap.
    Output,
    /// Everything, and the process waits for the reader rather than lose a byte.
    Lossless,
}

/// The caller's own descriptors, for the streams that the plan calls direct.
#[derive(Debug, Default)]
pub struct Handles {
    /// Standard input.
    pub stdin: Option<OwnedFd>,
    /// Standard output.
    pub stdout: Option<OwnedFd>,
    /// Standard error.
    pub stderr: Option<OwnedFd>,
}

/// What a start needs besides its plan.
#[derive(Debug)]
pub struct StartOptions {
    /// The id that the run has everywhere; the same id never starts twice.
    pub id: RunId,
    /// How closely it is followed.
    pub watching: Watching,
    /// Descriptors for direct streams.
    pub handles: Handles,
    /// The rollout that the starter records it in. Somebody else goes on if the starter goes before it said
    /// [`ProcessControl::recorded`].
    pub rollout: Option<AbsPath>,
    /// Who it belongs to, for a starter that wants to find it again after its own end. A session that it names must
    /// live; a plan with [`sandbar_proto::Lifetime::Session`] needs one.
    pub owner: Option<Owner>,
}

/// Why a process was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A step of the start failed; nothing is left behind.
    #[error("step {:?} failed with errno {}", .0.step, .0.errno)]
    Failed(StartFailure),
    /// The plan calls a stream direct and no descriptor was given for it, or it can't be handed over here.
    #[error("hand the caller's {0:?} over")]
    Handle(&'static str),
    /// The plan could not be handed over.
    #[error("hand the plan over: {0}")]
    Plan(std::io::Error),
    /// The keeper refused for another reason.
    #[error("the keeper refused: {0:?}")]
    Refused(Refusal),
    /// The environment is gone.
    #[error(transparent)]
    Gone(#[from] ProcessError),
}

/// Why nothing more is heard of a process.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The connection to what held it is lost.
    #[error("the keeper is gone: {0}")]
    Lost(String),
    /// Its output can't be read.
    #[error(transparent)]
    Output(#[from] ReadError),
    /// The environment refused.
    #[error("the keeper refused: {0:?}")]
    Refused(Refusal),
    /// An environment elsewhere refused, in its words.
    #[error("{0}")]
    Elsewhere(String),
    /// Its standard input takes nothing any more.
    #[error("standard input is closed")]
    StdinClosed,
    /// The keeper is older than what was asked of it.
    #[error("the keeper of sandbar {version} can't do this")]
    TooOld {
        /// Its release.
        version: String,
    },
}

/// The capability itself.
pub trait Processes: Send + Sync {
    /// Starts a plan.
    fn start(
        &self,
        plan: LaunchPlan,
        options: StartOptions,
    ) -> BoxFuture<'_, Result<Box<dyn Process>, StartError>>;

    /// Follows a process that runs already.
    fn follow(&self, id: RunId, watching: Watching) -> BoxFuture<'_, Result<Box<dyn Process>, ProcessError>>;

    /// Follows a process behind the event with the number `after`: for a reader that has seen everything up to there, in
    /// another connection or in another life. `Seq(0)` is the beginning. What comes is what is not seen yet, in the same
    /// numbers, each once: output, missing output, the end and the close.
    ///
    /// One that has ended is answered like one that runs as long as it is on record: its log, its end, its close.
    fn follow_from(
        &self,
        id: RunId,
        watching: Watching,
        after: Seq,
    ) -> BoxFuture<'_, Result<Box<dyn Process>, ProcessError>>;

    /// The processes that live, oldest first.
    fn list(&self) -> BoxFuture<'_, Result<Vec<ProcessState>, ProcessError>>;

    /// A handle on a process that is not followed.
    fn control(&self, id: RunId) -> Box<dyn ProcessControl>;
}

/// Sessions: what a server leaves with whatever holds its processes, to find them again after its own end.
///
/// A session is a lease that its server renews, at least three times within its time, as long as it serves. After the
/// server was killed the next one lists the sessions, reads from their blobs and from [`StartRecord::owner`] what was
/// whose, renews them, and follows each process with [`Processes::follow_from`] behind what its client has seen.
///
/// A lease that is not renewed in time is over, and so are the processes of the session whose lifetime is
/// [`sandbar_proto::Lifetime::Session`]: they are asked to end as by [`ProcessControl::terminate`], with SIGTERM and two
/// seconds. The other processes of the session go on. A renewal that comes too late is refused with [`Refusal::SessionExpired`]: the name is not used again.
pub trait Sessions: Send + Sync {
    /// Makes a session with a lease of `ttl` from now on, or renews it and replaces its blob.
    ///
    /// # Errors
    /// [`ProcessError::Refused`] with [`Refusal::SessionExpired`], [`Refusal::BlobTooLarge`] or
    /// [`Refusal::TooManySessions`]; [`ProcessError::TooOld`].
    fn session(
        &self,
        session: SessionId,
        blob: Blob,
        ttl: Duration,
    ) -> BoxFuture<'_, Result<(), ProcessError>>;

    /// Ends a session and its processes whose lifetime that is.
    ///
    /// # Errors
    /// [`ProcessError::Refused`] with [`Refusal::SessionExpired`] or [`Refusal::UnknownSession`];
    /// [`ProcessError::TooOld`].
    fn end_session(&self, session: SessionId) -> BoxFuture<'_, Result<(), ProcessError>>;

    /// The sessions that live, by name.
    fn sessions(&self) -> BoxFuture<'_, Result<Vec<SessionState>, ProcessError>>;

    /// The processes of a session, oldest first: those that run, and those that ended as long as they are on record,
    /// also when the session has ended.
    fn session_processes(&self, session: SessionId)
    -> BoxFuture<'_, Result<Vec<ProcessState>, ProcessError>>;
}

/// What can be done to a process from anywhere.
pub trait ProcessControl: Send + Sync {
    /// Sends a signal to the leader's process group.
    fn signal(&self, signal: i32) -> BoxFuture<'_, Result<(), ProcessError>>;

    /// Sends a signal to the whole tree, and SIGKILL to what is left of it: as soon as its leader has ended, at the latest
    /// after `grace`. Where the leader had ended before, what it left behind has the grace.
    fn terminate(&self, signal: i32, grace: Duration) -> BoxFuture<'_, Result<(), ProcessError>>;

    /// Tells the process that nobody reads a stream any more.
    fn close_output(&self, stream: Stream) -> BoxFuture<'_, Result<(), ProcessError>>;

    /// Appends to standard input; returns when everything is accepted.
    fn write_stdin<'a>(
        &'a self,
        offset_bytes: u64,
        bytes: &'a [u8],
    ) -> BoxFuture<'a, Result<(), ProcessError>>;

    /// Appends what a person types to standard input, behind whatever others typed; returns when everything is
    /// accepted. Not to be mixed with [`ProcessControl::write_stdin`], which counts offsets.
    fn type_input<'a>(&'a self, bytes: &'a [u8]) -> BoxFuture<'a, Result<(), ProcessError>>;

    /// The same under a name: what was accepted under it before, from anybody and as far as it came, is not written
    /// again. A keeper of a release before does not know names, and writes it again.
    fn type_input_once<'a>(
        &'a self,
        name: InputId,
        bytes: &'a [u8],
    ) -> BoxFuture<'a, Result<(), ProcessError>>;

    /// Gives its terminal another size.
    fn resize(&self, size: TerminalSize) -> BoxFuture<'_, Result<(), ProcessError>>;

    /// Says that the record of the process is complete.
    fn recorded(&self) -> BoxFuture<'_, Result<(), ProcessError>>;

    /// Leaves the process and its record to others.
    fn release(&self) -> BoxFuture<'_, Result<(), ProcessError>>;

    /// Closes standard input behind everything accepted.
    fn close_stdin(&self) -> BoxFuture<'_, Result<(), ProcessError>>;
}

/// A process that is followed.
pub trait Process: Send {
    /// How it was started.
    fn record(&self) -> &StartRecord;

    /// The next event, in the order of sequence numbers; `None` after [`ProcessEvent::Closed`]. The end comes in its
    /// place, [`sandbar_proto::EndRecord::seq`]: before output that was written behind it, and before a gap that reaches
    /// over it.
    fn next_event(&mut self) -> BoxFuture<'_, Result<Option<ProcessEvent>, ProcessError>>;

    /// Says up to which offset of the output nothing is needed a second time, by this reader or by one who takes its
    /// place. Without it that is everything that was read.
    fn needs_from(&mut self, offset_bytes: u64);

    /// What it had written when it began to be followed.
    fn written(&self) -> OutputTotals;

    /// The size of its terminal when it began to be followed, if it has one.
    fn terminal(&self) -> Option<TerminalSize>;

    /// Whether its leader was stopped when it began to be followed.
    fn was_stopped(&self) -> bool;

    /// Resource limits of its plan that could not be given, by the number of the resource, and what was given instead.
    fn lowered(&self) -> &[(u32, u64)];

    /// Whether its output waits for room in the keeper's directory.
    fn is_stalled(&self) -> bool;

    /// Waits until [`Process::is_stalled`]. For ever, if that never comes: not even the end of the process ends it.
    fn stalled(&self) -> BoxFuture<'static, ()>;

    /// Waits until its end is known, which may be long before [`Process::next_event`] comes to it: output that was not
    /// taken yet stands in between. `None` where nobody says so ahead of it.
    fn ended(&self) -> BoxFuture<'static, Option<EndRecord>>;

    /// A handle to act on it.
    fn control(&self) -> Box<dyn ProcessControl>;
}
