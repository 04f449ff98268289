//! This machine, through its keeper.
//!
//! One task owns the connection and takes messages; handles are cheap and can be cloned. News of a process
//! arrive as its newest state, not as a queue: a consumer that sleeps wakes up to the present, and nothing grows
//! meanwhile. Output itself never passes here, consumers read it from the log at their own pace.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a request has one right answer, and every other reply is the same to it"
)]

mod actor;
mod plan;
mod process;
mod sessions;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sandbar_keeper::protocol::{Once, ProcessState, Refusal, Reply, Request, SESSIONS_MINOR, Watch};
use sandbar_keeper::{Client, Patience, Peer, ReadError};
use sandbar_policy::LaunchPlan;
use sandbar_proto::{InputId, RunId, Seq, Stream, TerminalSize};

use crate::processes::{
    BoxFuture, Process, ProcessControl, ProcessError, Processes, StartError, StartOptions, Watching,
};
pub use actor::Unattended;
use actor::{Handle, Outgoing, StdinRoom};
use process::LocalProcess;

/// Processes of this machine.
#[derive(Clone)]
pub struct LocalProcesses {
    keeper: Handle,
    /// Where the keeper writes the directories of processes.
    directories: Arc<PathBuf>,
    peer: Option<Arc<Peer>>,
}

impl std::fmt::Debug for LocalProcesses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalProcesses").field("directories", &self.directories).finish_non_exhaustive()
    }
}

impl LocalProcesses {
    /// Takes a connection over; must be called within a runtime that has timers. `directories` is where its keeper
    /// puts the directories of its processes; `patience` is told of requests that wait for it.
    ///
    /// # Errors
    /// The runtime can't watch the connection.
    pub fn new(client: Client, directories: PathBuf, patience: Patience) -> std::io::Result<Self> {
        let peer = client.peer().cloned().map(Arc::new);
        Ok(Self { keeper: actor::spawn(client, patience)?, directories: Arc::new(directories), peer })
    }

    /// Whether the connection has ended: its keeper is gone.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.keeper.is_closed()
    }

    /// The number behind which the log of a process has its last `bytes`, or all that there is.
    ///
    /// # Errors
    /// The log can't be read, or there is none.
    pub fn before_tail(&self, id: RunId, bytes: u64) -> Result<Seq, ReadError> {
        sandbar_keeper::before_tail(&self.log(id), bytes)
    }

    fn log(&self, id: RunId) -> PathBuf {
        self.directories.join(id.to_string())
    }

    async fn start_plan(
        &self,
        plan: LaunchPlan,
        options: StartOptions,
    ) -> Result<Box<dyn Process>, StartError> {
        if let Some(owner) = &options.owner {
            self.needs(SESSIONS_MINOR)?;
            sessions::check_blob(&owner.blob).map_err(StartError::Refused)?;
        }
        let fds = plan::descriptors(plan.spec(), options.handles)?;
        let logged = plan::is_logged(plan.spec());
        let news = self.keeper.register(options.id).await?;
        let watch = watch(options.watching);
        let request =
            Request::Start { id: options.id, watch, rollout: options.rollout, owner: options.owner };
        let reply = self.keeper.request(Outgoing { request, body: Vec::new(), fds }).await;
        let state = match reply {
            // The keeper tells no more of a command than fits into its message; here it is known.
            Ok(Reply::Process { mut state }) => {
                state.start.argv.clone_from(&plan.spec().argv);
                state
            }
            Ok(other) => {
                self.keeper.unregister(options.id).await;
                return Err(start_refused(other));
            }
            Err(error) => return Err(error.into()),
        };
        let log = logged.then(|| self.log(options.id));
        let process = LocalProcess::new(self.keeper.clone(), *state, news, log, options.watching, Seq(0));
        Ok(Box::new(process.since_its_start()))
    }

    async fn follow_process(
        &self,
        id: RunId,
        watching: Watching,
        Follow { record, ended, after }: Follow,
    ) -> Result<Box<dyn Process>, ProcessError> {
        if ended {
            self.needs(SESSIONS_MINOR)?;
        }
        let news = self.keeper.register(id).await?;
        let request = Request::Watch { id, watch: watch(watching), record, ended };
        match self.keeper.request(Outgoing::plain(request)).await? {
            Reply::Process { state } => {
                if state.closed {
                    // From its record: no news come that would end the news.
                    self.keeper.unregister(id).await;
                }
                let log = Some(self.log(id));
                Ok(Box::new(LocalProcess::new(self.keeper.clone(), *state, news, log, watching, after)))
            }
            other => {
                self.keeper.unregister(id).await;
                Err(refused(other))
            }
        }
    }

    /// Whether the keeper knows what came with `minor`. One that was never greeted knows nothing.
    fn needs(&self, minor: u32) -> Result<(), ProcessError> {
        match &self.peer {
            Some(peer) if peer.minor >= minor => Ok(()),
            Some(peer) => Err(ProcessError::TooOld { version: peer.version.clone() }),
            None => Err(ProcessError::TooOld { version: "?".to_owned() }),
        }
    }

    async fn list_all(&self) -> Result<Vec<ProcessState>, ProcessError> {
        let mut all: Vec<ProcessState> = Vec::new();
        loop {
            let after = all.last().map(|state| state.start.id);
            match self.keeper.request(Outgoing::plain(Request::List { after })).await? {
                Reply::Listed { processes, more } => {
                    let done = !more || processes.is_empty();
                    all.extend(processes);
                    if done {
                        return Ok(all);
                    }
                }
                other => return Err(refused(other)),
            }
        }
    }

    /// Becomes the keeper's attendant. What nobody records shows in the returned map, each run until it is
    /// taken out of there.
    ///
    /// # Errors
    /// The keeper is gone.
    pub async fn attend(&self) -> Result<Unattended, ProcessError> {
        let unattended = self.keeper.unattended().await?;
        done(self.keeper.request(Outgoing::plain(Request::Attend)).await?)?;
        Ok(unattended)
    }

    /// Follows a process that runs already as its recorder.
    ///
    /// # Errors
    /// The keeper does not hold it, or is gone.
    pub async fn take_over(&self, id: RunId) -> Result<Box<dyn Process>, ProcessError> {
        let follow = Follow { record: true, ended: false, after: Seq(0) };
        self.follow_process(id, Watching::Lossless, follow).await
    }

    /// Says what became of a record.
    ///
    /// # Errors
    /// The keeper is gone.
    pub async fn recorded(&self, id: RunId, complete: bool) -> Result<(), ProcessError> {
        done(self.keeper.request(Outgoing::plain(Request::Recorded { id, complete })).await?)
    }

    /// Asks the keeper to end, which it does if it holds nothing.
    ///
    /// # Errors
    /// [`ProcessError::Refused`] with [`Refusal::Busy`] if it holds something.
    pub async fn stop_keeper(&self) -> Result<(), ProcessError> {
        done(self.keeper.request(Outgoing::plain(Request::Stop)).await?)
    }
}

impl Processes for LocalProcesses {
    fn start(
        &self,
        plan: LaunchPlan,
        options: StartOptions,
    ) -> BoxFuture<'_, Result<Box<dyn Process>, StartError>> {
        Box::pin(self.start_plan(plan, options))
    }

    fn follow(&self, id: RunId, watching: Watching) -> BoxFuture<'_, Result<Box<dyn Process>, ProcessError>> {
        let follow = Follow { record: false, ended: false, after: Seq(0) };
        Box::pin(self.follow_process(id, watching, follow))
    }

    fn follow_from(
        &self,
        id: RunId,
        watching: Watching,
        after: Seq,
    ) -> BoxFuture<'_, Result<Box<dyn Process>, ProcessError>> {
        Box::pin(self.follow_process(id, watching, Follow { record: false, ended: true, after }))
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<ProcessState>, ProcessError>> {
        Box::pin(self.list_all())
    }

    fn control(&self, id: RunId) -> Box<dyn ProcessControl> {
        Box::new(LocalControl { keeper: self.keeper.clone(), id })
    }
}

/// How a process that runs already is followed.
struct Follow {
    /// Whether by its recorder.
    record: bool,
    /// Whether also when it has ended.
    ended: bool,
    /// What is seen of it already.
    after: Seq,
}

/// Acts on one process of the keeper.
pub(crate) struct LocalControl {
    pub(crate) keeper: Handle,
    pub(crate) id: RunId,
}

impl LocalControl {
    async fn simple(&self, request: Request) -> Result<(), ProcessError> {
        done(self.keeper.request(Outgoing::plain(request)).await?)
    }

    async fn write(&self, offset_bytes: u64, bytes: &[u8]) -> Result<(), ProcessError> {
        let end = offset_bytes + bytes.len() as u64;
        let mut accepted = offset_bytes;
        while accepted < end {
            let from = usize::try_from(accepted - offset_bytes).unwrap_or(bytes.len());
            let chunk = &bytes[from..bytes.len().min(from + sandbar_keeper::protocol::MAX_WRITE_BYTES)];
            let room = self.keeper.stdin_room(self.id).await;
            let request = Request::Write { id: self.id, offset_bytes: accepted };
            let outgoing = Outgoing { request, body: chunk.to_vec(), fds: Vec::new() };
            match self.keeper.request(outgoing).await? {
                Reply::Written { accepted_bytes } if accepted_bytes >= accepted + chunk.len() as u64 => {
                    accepted = accepted_bytes;
                }
                // The queue is full; the keeper says when it has room.
                Reply::Written { accepted_bytes } => {
                    accepted = accepted_bytes;
                    room.wait().await?;
                }
                Reply::Refused { error: Refusal::StdinClosed } => return Err(ProcessError::StdinClosed),
                other => return Err(refused(other)),
            }
        }
        Ok(())
    }

    async fn append(&self, name: Option<InputId>, mut bytes: &[u8]) -> Result<(), ProcessError> {
        let mut offset_bytes = 0;
        // Asked for only when it is needed: a keystroke finds room. What was asked for before a request that found
        // none hears of the room that comes after it.
        let mut room = None;
        while !bytes.is_empty() {
            let chunk = &bytes[..bytes.len().min(sandbar_keeper::protocol::MAX_WRITE_BYTES)];
            let once = name.map(|name| Once { name, offset_bytes });
            let request = Request::Input { id: self.id, once };
            let outgoing = Outgoing { request, body: chunk.to_vec(), fds: Vec::new() };
            match self.keeper.request(outgoing).await? {
                Reply::Written { accepted_bytes } => {
                    let accepted = usize::try_from(accepted_bytes).unwrap_or(usize::MAX).min(chunk.len());
                    bytes = &bytes[accepted..];
                    offset_bytes += accepted as u64;
                    if accepted < chunk.len() {
                        match room.take() {
                            None => room = Some(self.keeper.stdin_room(self.id).await),
                            Some(asked) => StdinRoom::wait(asked).await?,
                        }
                    }
                }
                Reply::Refused { error: Refusal::StdinClosed } => return Err(ProcessError::StdinClosed),
                other => return Err(refused(other)),
            }
        }
        Ok(())
    }
}

impl ProcessControl for LocalControl {
    fn signal(&self, signal: i32) -> BoxFuture<'_, Result<(), ProcessError>> {
        Box::pin(self.simple(Request::Signal { id: self.id, signal }))
    }

    fn terminate(&self, signal: i32, grace: Duration) -> BoxFuture<'_, Result<(), ProcessError>> {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        Box::pin(self.simple(Request::Terminate { id: self.id, signal, grace_ms }))
    }

    fn close_output(&self, stream: Stream) -> BoxFuture<'_, Result<(), ProcessError>> {
        Box::pin(self.simple(Request::CloseOutput { id: self.id, stream }))
    }

    fn write_stdin<'a>(
        &'a self,
        offset_bytes: u64,
        bytes: &'a [u8],
    ) -> BoxFuture<'a, Result<(), ProcessError>> {
        Box::pin(self.write(offset_bytes, bytes))
    }

    fn type_input<'a>(&'a self, bytes: &'a [u8]) -> BoxFuture<'a, Result<(), ProcessError>> {
        Box::pin(self.append(None, bytes))
    }

    fn type_input_once<'a>(
        &'a self,
        name: InputId,
        bytes: &'a [u8],
    ) -> BoxFuture<'a, Result<(), ProcessError>> {
        Box::pin(self.append(Some(name), bytes))
    }

    fn resize(&self, size: TerminalSize) -> BoxFuture<'_, Result<(), ProcessError>> {
        Box::pin(self.simple(Request::Resize { id: self.id, size }))
    }

    fn recorded(&self) -> BoxFuture<'_, Result<(), ProcessError>> {
        Box::pin(self.simple(Request::Recorded { id: self.id, complete: true }))
    }

    fn release(&self) -> BoxFuture<'_, Result<(), ProcessError>> {
        Box::pin(self.simple(Request::Release { id: self.id }))
    }

    fn close_stdin(&self) -> BoxFuture<'_, Result<(), ProcessError>> {
        Box::pin(self.simple(Request::CloseStdin { id: self.id }))
    }
}

fn watch(watching: Watching) -> Watch {
    match watching {
        Watching::End => Watch::End,
        Watching::Output => Watch::Output,
        Watching::Lossless => Watch::Lossless,
    }
}

fn done(reply: Reply) -> Result<(), ProcessError> {
    match reply {
        Reply::Done => Ok(()),
        other => Err(refused(other)),
    }
}

fn refused(reply: Reply) -> ProcessError {
    match reply {
        Reply::Refused { error } => ProcessError::Refused(error),
        Reply::Hello { .. }
        | Reply::Process { .. }
        | Reply::Written { .. }
        | Reply::Listed { .. }
        | Reply::Sessions { .. }
        | Reply::Upgraded { .. }
        | Reply::Limits { .. }
        | Reply::Done => ProcessError::Lost("it answered something else than was asked".to_owned()),
    }
}

fn start_refused(reply: Reply) -> StartError {
    match refused(reply) {
        ProcessError::Refused(Refusal::Start { failure }) => StartError::Failed(failure),
        ProcessError::Refused(refusal) => StartError::Refused(refusal),
        other => StartError::Gone(other),
    }
}
