//! One process of a session, as its clients see it.

use std::sync::Arc;

use sandbar_proto::exec::{ExitCode, ProcessPhase, ProcessSummary, ReadParams, ReadResult};
use sandbar_proto::rpc::RpcError;
use sandbar_proto::{EndRecord, ExitStatus, ResourceUse, RunId, Seq, StartRecord, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};

use super::output::Cursor;
use super::stdin::Stdin;
use super::{refusal, signals};
use crate::ProcessControl;
use crate::local::LocalProcesses;

/// What a server leaves with the keeper about a process, for the next one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Memo {
    /// The client's name for it.
    pub(super) process_id: String,
    /// What confines it.
    pub(super) sandbox_type: String,
    /// Whether its input takes anything.
    pub(super) has_input: bool,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Exit {
    /// Its place among the events.
    pub(super) seq: Seq,
    /// The code, or 128 plus the signal's number.
    pub(super) code: i32,
    /// The signal.
    pub(super) signal: Option<String>,
    usage: ResourceUse,
}

impl Exit {
    pub(super) fn of(end: &EndRecord) -> Self {
        let signal = match end.status {
            ExitStatus::Signaled { signal } => Some(signals::name(signal)),
            ExitStatus::Exited { .. } | ExitStatus::Lost => None,
        };
        // What nobody saw end did not end well.
        let code = end.status.shell_code().map_or(-1, i32::from);
        Self { seq: end.seq().unwrap_or_default(), code, signal, usage: end.usage }
    }
}

/// How far a process is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) last_seq: Seq,
    pub(super) output_bytes: u64,
    pub(super) exit: Option<Exit>,
    pub(super) closed: Option<Seq>,
    /// Why nothing more will be heard of it.
    pub(super) failure: Option<String>,
}

impl Progress {
    pub(super) fn phase(&self) -> ProcessPhase {
        match (&self.exit, self.closed) {
            (_, Some(_)) => ProcessPhase::Closed,
            (Some(_), None) => ProcessPhase::Exited,
            (None, None) => ProcessPhase::Running,
        }
    }

    /// Whether nothing more will happen.
    pub(super) fn is_over(&self) -> bool {
        self.closed.is_some() || self.failure.is_some()
    }
}

/// A process that was started.
pub(super) struct Live {
    pub(super) memo: Memo,
    pub(super) run: RunId,
    pub(super) argv: Vec<String>,
    pub(super) started: Timestamp,
    pub(super) is_detached: bool,
    pub(super) control: Box<dyn ProcessControl>,
    pub(super) stdin: Mutex<Stdin>,
    pub(super) progress: watch::Sender<Progress>,
    cursor: Mutex<Cursor>,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("memo", &self.memo).field("run", &self.run).finish_non_exhaustive()
    }
}

impl Live {
    pub(super) fn new(memo: Memo, record: &StartRecord, control: Box<dyn ProcessControl>) -> Arc<Self> {
        let stdin = if memo.has_input { Stdin::default() } else { Stdin::closed() };
        Arc::new(Self {
            memo,
            run: record.id,
            argv: record.argv.iter().map(sandbar_proto::ByteString::to_display).collect(),
            started: record.started,
            is_detached: record.lifetime == sandbar_proto::Lifetime::Detached,
            control,
            stdin: Mutex::new(stdin),
            progress: watch::channel(Progress::default()).0,
            cursor: Mutex::default(),
        })
    }

    pub(super) fn id(&self) -> &str {
        &self.memo.process_id
    }

    /// `process/read`. Two reads of one process wait for each other, the second as long as the first one polls.
    ///
    /// # Errors
    /// The log can't be read.
    pub(super) async fn read(
        &self,
        processes: &LocalProcesses,
        params: &ReadParams,
    ) -> Result<ReadResult, RpcError> {
        let found = self.cursor.lock().await.read(processes, self.run, params).await?;
        let progress = self.progress.borrow().clone();
        // Only what the numbers up to here hold: a client fills the last places with the end and the close.
        let exit = progress.exit.filter(|exit| exit.seq.0 < found.next_seq);
        Ok(ReadResult {
            chunks: found.chunks,
            next_seq: found.next_seq,
            exited: exit.is_some(),
            exit_code: exit.as_ref().map(|exit| exit.code),
            closed: progress.closed.is_some_and(|seq| seq.0 < found.next_seq),
            failure: progress.failure,
            sandbox_denied: false,
            gap: found.gap,
            signal: exit.and_then(|exit| exit.signal),
        })
    }

    /// `process/wait`: how it ended, once it has.
    ///
    /// # Errors
    /// Nothing more will be heard of it.
    pub(super) async fn wait(&self) -> Result<ExitCode, RpcError> {
        let mut progress = self.progress.subscribe();
        let ended = progress.wait_for(|progress| progress.exit.is_some() || progress.failure.is_some()).await;
        let progress = ended.map_err(|_| refusal::unknown_process(self.id()))?;
        match (&progress.exit, &progress.failure) {
            (Some(exit), _) => Ok(exit_code(exit)),
            (None, Some(failure)) => Err(refusal::invalid("lost", failure.clone())),
            (None, None) => Ok(ExitCode::default()),
        }
    }

    /// One line of `process/list`.
    pub(super) fn summary(&self) -> ProcessSummary {
        let progress = self.progress.borrow();
        ProcessSummary {
            process_id: self.id().to_owned(),
            run_id: self.run.to_string(),
            argv: self.argv.clone(),
            phase: progress.phase(),
            started: self.started,
            last_seq: progress.last_seq.0,
            output_bytes: progress.output_bytes,
            exit: progress.exit.as_ref().map(exit_code).unwrap_or_default(),
            usage: progress.exit.as_ref().map(|exit| exit.usage),
        }
    }
}

fn exit_code(exit: &Exit) -> ExitCode {
    ExitCode { exit_code: Some(exit.code), signal: exit.signal.clone() }
}
