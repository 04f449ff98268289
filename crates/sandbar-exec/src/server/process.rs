//! One process of a session, as its clients see it.

use std::sync::Arc;
use std::time::Duration;

use sandbar_keeper::protocol::Refusal;
use sandbar_proto::exec::{
    ExitCode, ProcessPhase, ProcessSummary, ReadParams, ReadResult, StartResult, Started,
};
use sandbar_proto::rpc::RpcError;
use sandbar_proto::{EndRecord, ExitStatus, OutputTotals, ResourceUse, RunId, Seq, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use super::output::{Cursor, Found};
use super::refusal;
use super::stdin::Stdin;
use crate::local::LocalProcesses;
use crate::{Process, ProcessControl, ProcessError, Processes as _, Watching, signals};

/// How long a read waits for what its client knows already.
const CATCH_UP: Duration = Duration::from_secs(1);

/// What a server leaves with the keeper about a process, for the next one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Memo {
    /// The client's name for it.
    pub(super) process_id: String,
    /// What confines it.
    pub(super) sandbox_type: String,
    /// Whether its input takes anything.
    pub(super) has_input: bool,
    /// Whether somebody else started it, and the session only looks at it.
    #[serde(default)]
    pub(super) is_viewed: bool,
}

/// How much output a connection takes of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Granted {
    /// Whose word it is.
    pub(super) connection: u64,
    /// Bytes, since the connection came.
    pub(super) bytes: u64,
}

/// What a connection knows of a process because it read it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// Whose knowledge it is.
    pub(super) connection: u64,
    /// The first number that it did not know when it asked last.
    pub(super) asked: u64,
    /// What it was answered first. What it reads later is for somebody behind it, who may read what came before again,
    /// and says nothing of the news that it waits for.
    pub(super) first: Option<Answered>,
}

/// An answer to a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answered {
    /// The first number behind it.
    pub(super) next: u64,
    pub(super) at: Instant,
}

impl Known {
    /// The first number that the connection has no claim to hear of any more, as far as that is known.
    pub(super) fn next(&self) -> u64 {
        self.first.map_or(self.asked, |first| first.next)
    }
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
    /// The record of it.
    pub(super) end: Box<EndRecord>,
}

impl Exit {
    pub(super) fn of(end: &EndRecord) -> Self {
        let signal = match end.status {
            ExitStatus::Signaled { signal } => Some(signals::name(signal)),
            ExitStatus::Exited { .. } | ExitStatus::Lost => None,
        };
        // What nobody saw end did not end well.
        let code = end.status.shell_code().map_or(-1, i32::from);
        Self { seq: end.seq().unwrap_or_default(), code, signal, end: Box::new(end.clone()) }
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
    /// Room for output, for connections that grant it.
    pub(super) granted: watch::Sender<Granted>,
    /// What the connection that reads it knows.
    pub(super) known: watch::Sender<Known>,
    /// Since when this server has it.
    pub(super) since: Instant,
    /// What its starter was told.
    told: Started,
    processes: LocalProcesses,
    cursor: Mutex<Cursor>,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("memo", &self.memo).field("run", &self.run).finish_non_exhaustive()
    }
}

impl Live {
    /// `processes` is what holds it.
    pub(super) fn new(
        memo: Memo,
        told: Started,
        control: Box<dyn ProcessControl>,
        processes: LocalProcesses,
    ) -> Arc<Self> {
        let record = &told.record;
        let stdin = if memo.has_input { Stdin::default() } else { Stdin::closed() };
        let is_detached = memo.is_viewed || record.lifetime == sandbar_proto::Lifetime::Detached;
        Arc::new(Self {
            memo,
            run: record.id,
            argv: record.argv.iter().map(sandbar_proto::ByteString::to_display).collect(),
            started: record.started,
            is_detached,
            control,
            stdin: Mutex::new(stdin),
            progress: watch::channel(Progress::default()).0,
            granted: watch::channel(Granted::default()).0,
            known: watch::channel(Known::default()).0,
            since: Instant::now(),
            told,
            processes,
            cursor: Mutex::default(),
        })
    }

    /// The end of one that nobody saw end.
    pub(super) fn lost(&self, output: OutputTotals) -> EndRecord {
        EndRecord {
            id: self.run,
            status: ExitStatus::Lost,
            ended: Timestamp::now(),
            usage: ResourceUse::default(),
            output,
            timed_out: false,
            limits: Vec::new(),
            out_of_memory: None,
            unprotected: None,
        }
    }

    /// The answer to who started it.
    pub(super) fn start_result(&self) -> StartResult {
        StartResult {
            process_id: self.memo.process_id.clone(),
            sandbox_type: Some(self.memo.sandbox_type.clone()),
            started: Some(Box::new(self.told.clone())),
        }
    }

    /// `process/credit`: more room for output on a connection.
    pub(super) fn grant(&self, connection: u64, bytes: u64) {
        self.granted.send_modify(|granted| {
            // A later connection has a higher number; what an earlier one says comes too late.
            if granted.connection > connection {
                return;
            }
            if granted.connection != connection {
                *granted = Granted { connection, bytes: 0 };
            }
            granted.bytes = granted.bytes.saturating_add(bytes);
        });
    }

    /// Notes the first number that a connection did not know when it asked.
    pub(super) fn note_asked(&self, connection: u64, asked: u64) {
        self.note_known(connection, |known| known.asked = known.asked.max(asked));
    }

    /// Notes the first number behind what a connection was answered.
    pub(super) fn note_read(&self, connection: u64, read: u64) {
        self.note_known(connection, |known| {
            known.first.get_or_insert_with(|| Answered { next: read.max(known.asked), at: Instant::now() });
        });
    }

    fn note_known(&self, connection: u64, note: impl FnOnce(&mut Known)) {
        self.known.send_modify(|known| {
            // What was asked on an earlier connection comes too late, as in `grant`.
            if known.connection > connection {
                return;
            }
            if known.connection != connection {
                *known = Known { connection, ..Known::default() };
            }
            note(known);
        });
    }

    /// What became of something that was asked of the process. To one that has ended nothing happens any more, which is no
    /// error: whoever asks may do so again, since the answer got lost.
    ///
    /// # Errors
    /// It runs, and can't be reached or refuses.
    pub(super) fn unless_over(&self, done: Result<(), ProcessError>) -> Result<(), RpcError> {
        match done {
            // Its keeper holds it no more; the news of that may still be on their way.
            Err(ProcessError::Refused(Refusal::Unknown { .. })) => Ok(()),
            Err(_) if self.progress.borrow().exit.is_some() => Ok(()),
            other => other.map_err(|error| refusal::process(&error)),
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.memo.process_id
    }

    /// `process/read`. Two reads of one process wait for each other, the second as long as the first one polls.
    ///
    /// # Errors
    /// The log can't be read.
    pub(super) async fn read(&self, params: &ReadParams, records: bool) -> Result<ReadResult, RpcError> {
        let after_seq = params.after_seq.unwrap_or(0);
        let mut cursor = self.cursor.lock().await;
        // What was read through it may be more than the connections were told.
        if !cursor.knows(after_seq) {
            self.catch_up(after_seq).await;
        }
        let found = cursor.read(&self.processes, self.run, params, records).await;
        drop(cursor);
        let progress = self.progress.borrow().clone();
        let found = match found {
            // The keeper took the log along; what is left to be told is the end.
            Err(_) if progress.failure.is_some() => {
                Found { next_seq: progress.last_seq.0 + 1, ..Found::default() }
            }
            found => found?,
        };
        // Only what the numbers up to here hold: a client fills the last places with the end and the close.
        let exit = progress.exit.or(found.exit).filter(|exit| exit.seq.0 < found.next_seq);
        let closed = progress.closed.or(found.closed);
        Ok(ReadResult {
            chunks: found.chunks,
            next_seq: found.next_seq,
            exited: exit.is_some(),
            exit_code: exit.as_ref().map(|exit| exit.code),
            closed: closed.is_some_and(|seq| seq.0 < found.next_seq),
            failure: progress.failure,
            sandbox_denied: false,
            gap: found.gap,
            signal: exit.as_ref().and_then(|exit| exit.signal.clone()),
            end: exit.filter(|_| records).map(|exit| exit.end),
        })
    }

    /// Reads it once more, from behind a number on, besides whoever follows it.
    ///
    /// # Errors
    /// Its keeper is gone, or does not know it any more.
    pub(super) async fn again(&self, after: Seq) -> Result<Box<dyn Process>, ProcessError> {
        self.processes.follow_from(self.run, Watching::Output, after).await
    }

    /// Waits until as much is known here as the client knows already: of a process that was adopted its whole past is
    /// read first.
    async fn catch_up(&self, after_seq: u64) {
        let mut progress = self.progress.subscribe();
        let caught_up = progress.wait_for(|progress| progress.last_seq.0 >= after_seq || progress.is_over());
        // A client that made a number up, or does not read what it is sent, is answered all the same.
        let _ = tokio::time::timeout(CATCH_UP, caught_up).await;
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
            usage: progress.exit.as_ref().map(|exit| exit.end.usage),
        }
    }
}

fn exit_code(exit: &Exit) -> ExitCode {
    ExitCode { exit_code: Some(exit.code), signal: exit.signal.clone() }
}
