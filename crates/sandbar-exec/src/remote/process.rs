//! One process elsewhere: its events, and a hand on it.

use std::sync::Arc;
use std::time::Duration;

use sandbar_proto::exec::{
    AttachParams, Base64, CloseOutputParams, Credit, ProcessParams, ReadParams, ReadResult, ResizeParams,
    SignalName, SignalParams, StartParams, Started, TerminateParams, TerminateResult, WriteParams,
    WriteResult, WriteStatus, method,
};
use sandbar_proto::{
    AbsPath, EndRecord, ExitStatus, Gap, InputId, Lifetime, OutputTotals, ProcessEvent, ResourceUse, RunId,
    Seq, StartRecord, Stream, TerminalSize, Timestamp,
};
use serde::de::IgnoredAny;

use super::inbox::{Ended, Inbox, News, Order};
use super::link::{Link, Up};
use super::{Registered, Remote, RemoteError};
use crate::{BoxFuture, Process, ProcessControl, ProcessError, signals};

/// Most bytes of one read; the next one follows at once.
const READ_BYTES: u64 = 512 * 1024;

/// Bytes of one write: small enough that a slow link shows its pace.
const WRITE_BYTES: usize = 64 * 1024;

/// How long something may be missing in the middle until it is read.
const HOLE: Duration = Duration::from_secs(2);

/// A process that is followed.
pub(super) struct RemoteProcess {
    remote: Remote,
    registered: Registered,
    record: StartRecord,
    written: OutputTotals,
    terminal: Option<TerminalSize>,
    was_stopped: bool,
    lowered: Vec<(u32, u64)>,
    /// The run to attach to when a session was lost with its server.
    run: Option<RunId>,
    /// Where its output is, by what came.
    offset_bytes: u64,
    /// The connection that has been granted room, and bytes that were taken since then.
    granted: Option<u64>,
    taken_bytes: u64,
}

impl RemoteProcess {
    /// `viewed` is the run, if somebody else started it.
    pub(super) fn new(
        remote: Remote,
        registered: Registered,
        started: Option<Started>,
        params: &StartParams,
        viewed: Option<RunId>,
    ) -> Self {
        let (written, terminal, was_stopped, lowered, record) = match started {
            Some(told) => (told.written, told.terminal, told.stopped, told.lowered, told.record),
            None => (OutputTotals::default(), None, false, Vec::new(), record(params)),
        };
        let outlives = viewed.or_else(|| params.detached.then_some(record.id));
        Self {
            remote,
            registered,
            record,
            written,
            terminal,
            was_stopped,
            lowered,
            run: outlives,
            offset_bytes: 0,
            granted: None,
            taken_bytes: 0,
        }
    }

    fn inbox(&self) -> &Arc<Inbox> {
        &self.registered.inbox
    }

    async fn next(&mut self) -> Result<Option<ProcessEvent>, ProcessError> {
        loop {
            if let Some(signal) = self.inbox().take_stop() {
                return Ok(Some(ProcessEvent::Stopped { signal }));
            }
            if let Some((seq, news)) = self.inbox().with(Order::pop) {
                return Ok(Some(self.event(seq, news)));
            }
            if self.inbox().with(|order| order.is_over()) {
                return Ok(None);
            }
            let up = self.remote.up().await.map_err(lost)?;
            if self.inbox().with(|order| order.must_read(up.epoch)) {
                self.read(&up).await?;
                continue;
            }
            self.grant(&up);
            let inbox = Arc::clone(self.inbox());
            let has_hole = inbox.with(|order| order.has_hole());
            tokio::select! {
                () = inbox.changed() => {}
                () = self.remote.left(&up) => {}
                () = tokio::time::sleep(HOLE), if has_hole => inbox.with(Order::doubt),
            }
        }
    }

    /// Reads what notifications will not bring.
    async fn read(&mut self, up: &Arc<Up>) -> Result<(), ProcessError> {
        let (after, dropped) = self.inbox().with(|order| (order.last(), order.dropped()));
        let params = ReadParams {
            process_id: self.registered.id.clone(),
            after_seq: Some(after),
            max_bytes: Some(READ_BYTES),
            wait_ms: None,
        };
        let read: Result<ReadResult, RemoteError> = self.remote.call(method::PROCESS_READ, &params).await;
        match read {
            Ok(read) => {
                let failure = read.failure.clone();
                self.inbox().with(|order| {
                    if order.absorb(read) {
                        order.sync(up.epoch, dropped);
                    }
                });
                match failure {
                    Some(why) if self.inbox().with(|order| !order.must_read(up.epoch)) => {
                        Err(ProcessError::Lost(why))
                    }
                    Some(_) | None => Ok(()),
                }
            }
            Err(error) => match (self.run, error.kind()) {
                (Some(run), Some("unknown_process")) => self.attach_again(run, after).await,
                _ => Err(lost(error)),
            },
        }
    }

    /// The session is a new one: the old one waited too long.
    async fn attach_again(&mut self, run: RunId, after_seq: u64) -> Result<(), ProcessError> {
        let params =
            AttachParams { process_id: self.registered.id.clone(), run_id: run, after_seq, tail_bytes: None };
        let attached: Result<Started, RemoteError> = self.remote.call(method::PROCESS_ATTACH, &params).await;
        match attached {
            Ok(_) => Ok(()),
            // Its answer got lost on the way.
            Err(error) if error.kind() == Some("duplicate_process") => Ok(()),
            Err(error) => Err(lost(error)),
        }
    }

    /// Grants room for as much as was taken, or for a whole window on a new connection.
    fn grant(&mut self, up: &Up) {
        if !up.extensions.credit {
            return;
        }
        let window = self.remote.shared.settings.window_bytes;
        self.taken_bytes = self.taken_bytes.saturating_add(self.inbox().with(Order::take_unneeded));
        let bytes = if self.granted == Some(up.epoch) {
            if self.taken_bytes < window / 4 {
                return;
            }
            self.taken_bytes
        } else {
            window
        };
        (self.granted, self.taken_bytes) = (Some(up.epoch), 0);
        let credit = Credit { process_id: self.registered.id.clone(), bytes };
        // A connection that has ended needs none; the next one is granted anew.
        let _ = up.sender.notify(method::PROCESS_CREDIT, &credit);
    }

    fn event(&mut self, seq: u64, news: News) -> ProcessEvent {
        match news {
            News::Output { stream, offset, time, bytes } => {
                let offset_bytes = offset.unwrap_or(self.offset_bytes);
                let size = bytes.len() as u64;
                self.offset_bytes = offset_bytes.saturating_add(size);
                self.taken_bytes = self.taken_bytes.saturating_add(size);
                self.top_up();
                let time = time.unwrap_or_else(Timestamp::now);
                ProcessEvent::Output { seq: Seq(seq), stream, offset_bytes, time, bytes }
            }
            News::Gap { to_seq, bytes } => {
                self.offset_bytes = self.offset_bytes.saturating_add(bytes);
                ProcessEvent::Gap(Gap { from_seq: Seq(seq), to_seq: Seq(to_seq), bytes })
            }
            News::Exited(ended) => ProcessEvent::Exited(self.end(seq, ended)),
            News::Closed => ProcessEvent::Closed { seq: Seq(seq) },
        }
    }

    /// The connection, if one stands.
    fn standing(&self) -> Option<Arc<Up>> {
        match &*self.remote.shared.link.borrow() {
            Link::Up(up) => Some(Arc::clone(up)),
            Link::Connecting | Link::Down(_) => None,
        }
    }

    /// Grants more before everything is taken, so that the other end never waits for a reader that keeps up.
    fn top_up(&mut self) {
        if let Some(up) = self.standing()
            && self.granted == Some(up.epoch)
        {
            self.grant(&up);
        }
    }

    fn end(&self, seq: u64, ended: Ended) -> EndRecord {
        let Ended { code, signal, end } = ended;
        if let Some(end) = end {
            return *end;
        }
        // A server of the dialect says no more than a code.
        let signal = signal.and_then(|name| signals::number(&SignalName(name)));
        let status = match (signal, u8::try_from(code)) {
            (Some(signal), _) => ExitStatus::Signaled { signal },
            (None, Ok(code)) => ExitStatus::Exited { code },
            (None, Err(_)) => ExitStatus::Lost,
        };
        EndRecord {
            id: self.record.id,
            status,
            ended: Timestamp::now(),
            usage: ResourceUse::default(),
            output: OutputTotals { bytes: self.offset_bytes, dropped_bytes: 0, last_seq: Seq(seq) },
            timed_out: false,
            limits: Vec::new(),
            out_of_memory: None,
            unprotected: None,
        }
    }
}

/// What is known of a process whose server keeps no record for us.
fn record(params: &StartParams) -> StartRecord {
    let id = params.start_id.as_ref().and_then(|id| id.parse().ok()).unwrap_or_else(RunId::generate);
    StartRecord {
        id,
        argv: params.argv.clone(),
        cwd: params.cwd.as_ref().map_or_else(AbsPath::root, |cwd| cwd.0.clone()),
        started: Timestamp::now(),
        profile: String::new(),
        lifetime: Lifetime::Session,
        holder_pid: None,
        terminal: params.tty,
        rollout: None,
        owner: None,
        limits: Vec::new(),
        cgroup: None,
    }
}

fn lost(error: RemoteError) -> ProcessError {
    match error {
        RemoteError::Refused(error) => ProcessError::Elsewhere(error.message),
        other @ (RemoteError::Gone(_)
        | RemoteError::Unanswered(_)
        | RemoteError::Unsendable(_)
        | RemoteError::Answer { .. }
        | RemoteError::NotOurs) => ProcessError::Elsewhere(other.to_string()),
    }
}

impl Process for RemoteProcess {
    fn record(&self) -> &StartRecord {
        &self.record
    }

    fn next_event(&mut self) -> BoxFuture<'_, Result<Option<ProcessEvent>, ProcessError>> {
        Box::pin(self.next())
    }

    // The server's log keeps what was not taken; what is needed again is not its concern.
    fn needs_from(&mut self, _offset_bytes: u64) {}

    fn written(&self) -> OutputTotals {
        self.written
    }

    fn terminal(&self) -> Option<TerminalSize> {
        self.terminal
    }

    fn was_stopped(&self) -> bool {
        self.was_stopped
    }

    fn lowered(&self) -> &[(u32, u64)] {
        &self.lowered
    }

    fn is_stalled(&self) -> bool {
        false
    }

    fn stalled(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }

    fn ended(&self) -> BoxFuture<'static, Option<EndRecord>> {
        // A server tells the record of the end in its place.
        Box::pin(std::future::ready(None))
    }

    fn control(&self) -> Box<dyn ProcessControl> {
        Box::new(self.remote.control(&self.registered.id))
    }
}

/// A hand on a process elsewhere.
#[derive(Debug, Clone)]
pub struct RemoteControl {
    remote: Remote,
    id: String,
}

impl RemoteControl {
    pub(super) fn new(remote: Remote, id: String) -> Self {
        Self { remote, id }
    }

    async fn write(&self, id: String, bytes: &[u8]) -> Result<(), ProcessError> {
        let params =
            WriteParams { process_id: self.id.clone(), chunk: Base64(bytes.to_vec()), write_id: Some(id) };
        let result: WriteResult = self.remote.call(method::PROCESS_WRITE, &params).await.map_err(lost)?;
        match result.status {
            WriteStatus::Accepted => Ok(()),
            WriteStatus::StdinClosed => Err(ProcessError::StdinClosed),
            WriteStatus::UnknownProcess => Err(ProcessError::Elsewhere("unknown process".to_owned())),
            WriteStatus::Starting => Err(ProcessError::Elsewhere("it is about to start".to_owned())),
        }
    }

    fn params(&self) -> ProcessParams {
        ProcessParams { process_id: self.id.clone() }
    }
}

impl ProcessControl for RemoteControl {
    fn signal(&self, signal: i32) -> BoxFuture<'_, Result<(), ProcessError>> {
        Box::pin(async move {
            let params =
                SignalParams { process_id: self.id.clone(), signal: SignalName(signals::name(signal)) };
            let sent = self.remote.call_once::<IgnoredAny>(method::PROCESS_SIGNAL, &params).await;
            sent.map(drop).map_err(lost)
        })
    }

    fn terminate(&self, signal: i32, grace: Duration) -> BoxFuture<'_, Result<(), ProcessError>> {
        Box::pin(async move {
            let params = TerminateParams {
                process_id: self.id.clone(),
                signal: Some(SignalName(signals::name(signal))),
                grace_ms: Some(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX)),
            };
            let ended = self.remote.call::<TerminateResult>(method::PROCESS_TERMINATE, &params).await;
            ended.map(drop).map_err(lost)
        })
    }

    fn close_output(&self, stream: Stream) -> BoxFuture<'_, Result<(), ProcessError>> {
        Box::pin(async move {
            let params = CloseOutputParams { process_id: self.id.clone(), stream };
            self.remote
                .call::<IgnoredAny>(method::PROCESS_CLOSE_OUTPUT, &params)
                .await
                .map(drop)
                .map_err(lost)
        })
    }

    fn write_stdin<'a>(
        &'a self,
        offset_bytes: u64,
        bytes: &'a [u8],
    ) -> BoxFuture<'a, Result<(), ProcessError>> {
        Box::pin(async move {
            let mut at = offset_bytes;
            for portion in bytes.chunks(WRITE_BYTES) {
                self.write(format!("offset {at}"), portion).await?;
                at += portion.len() as u64;
            }
            Ok(())
        })
    }

    fn type_input<'a>(&'a self, bytes: &'a [u8]) -> BoxFuture<'a, Result<(), ProcessError>> {
        Box::pin(async move {
            for portion in bytes.chunks(WRITE_BYTES) {
                self.write(uuid::Uuid::new_v4().to_string(), portion).await?;
            }
            Ok(())
        })
    }

    fn type_input_once<'a>(
        &'a self,
        name: InputId,
        bytes: &'a [u8],
    ) -> BoxFuture<'a, Result<(), ProcessError>> {
        Box::pin(async move {
            for (portion, number) in bytes.chunks(WRITE_BYTES).zip(0_u64..) {
                self.write(format!("{name}/{number}"), portion).await?;
            }
            Ok(())
        })
    }

    fn resize(&self, size: TerminalSize) -> BoxFuture<'_, Result<(), ProcessError>> {
        Box::pin(async move {
            let params = ResizeParams { process_id: self.id.clone(), size };
            self.remote.call::<IgnoredAny>(method::PROCESS_RESIZE, &params).await.map(drop).map_err(lost)
        })
    }

    // Whoever records does so at this end.
    fn recorded(&self) -> BoxFuture<'_, Result<(), ProcessError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn release(&self) -> BoxFuture<'_, Result<(), ProcessError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn close_stdin(&self) -> BoxFuture<'_, Result<(), ProcessError>> {
        Box::pin(async move {
            let closed = self.remote.call::<IgnoredAny>(method::PROCESS_CLOSE_STDIN, &self.params()).await;
            closed.map(drop).map_err(lost)
        })
    }
}
