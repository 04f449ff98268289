//! Lines of a rollout, the JSONL log of a thread. `docs/rollouts.md` describes the format for other programs.
//!
//! The envelope is the one Codex writes in its paginated mode, so that programs which read Codex rollouts find
//! their way; what only Sandbar knows are `event_msg` payloads with a `type` of their own, which such a reader
//! skips. Shapes only grow: a field is added with a default, never removed or given another meaning.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    AbsPath, ByteString, ExitStatus, LimitReport, NetworkMode, OutOfMemory, OutputTotals, ResourceUse, RunId,
    Seq, Stream, Timestamp,
};

/// One line.
///
/// Readers that keep what they do not know (unknown keys, unknown types) work on the text, not on this type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutLine {
    /// When what the line tells happened: RFC 3339, milliseconds, UTC with `Z`.
    pub timestamp: String,
    /// Place in the rollout, contiguous from 0.
    pub ordinal: u64,
    /// What happened.
    #[serde(flatten)]
    pub item: RolloutItem,
}

/// Content of a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type", content = "payload")]
pub enum RolloutItem {
    /// Who and where; the first line.
    SessionMeta(SessionMeta),
    /// Under which conditions a turn works.
    TurnContext(TurnContext),
    /// What happened in a turn.
    EventMsg(RolloutEvent),
}

/// How a rollout keeps its lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HistoryMode {
    /// Every line has an ordinal.
    Paginated,
}

/// Identity of a thread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionMeta {
    /// The thread; for `sandbar run` the run's own id.
    pub id: RunId,
    /// The session that the thread belongs to; the thread itself unless it was forked off.
    pub session_id: RunId,
    /// When the thread began, as in the envelope.
    pub timestamp: String,
    /// Where it began.
    pub cwd: AbsPath,
    /// Which program wrote it.
    pub originator: Cow<'static, str>,
    /// That program's version.
    pub cli_version: Cow<'static, str>,
    /// Which of the program's commands.
    pub source: Cow<'static, str>,
    /// How the lines are kept.
    pub history_mode: HistoryMode,
}

/// Conditions of a turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnContext {
    /// The turn; for `sandbar run` the run's own id.
    pub turn_id: RunId,
    /// Where it works.
    pub cwd: AbsPath,
    /// What it may touch.
    pub sandbox: SandboxSummary,
    /// How many environment variables were withheld from it. Neither names nor values are recorded.
    pub withheld_env: u32,
}

/// A sandbox in the few words that a listing shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSummary {
    /// Name of the profile.
    pub profile: String,
    /// Reach of the network.
    pub network: NetworkMode,
    /// Where it may write.
    pub writable_roots: Vec<AbsPath>,
    /// What a person should know about it: degraded modes, exceptions.
    pub notes: Vec<String>,
}

/// What happened in a turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum RolloutEvent {
    /// A turn began.
    TaskStarted(TaskStarted),
    /// A command is about to be started.
    RunStarted(RunStarted),
    /// A command could not be started.
    RunNotStarted(RunNotStarted),
    /// A command wrote.
    RunOutput(RunOutput),
    /// Output of a command that the rollout does not have.
    RunOutputGap(RunOutputGap),
    /// Another process goes on with the recording.
    RunTakenOver(RunTakenOver),
    /// A command ended.
    RunEnded(RunEnded),
    /// A turn ended.
    TaskComplete(TaskComplete),
}

/// Payload of `task_started`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStarted {
    /// The turn.
    pub turn_id: RunId,
    /// When, in seconds since 1970-01-01T00:00:00Z.
    pub started_at: i64,
}

/// Payload of `task_complete`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskComplete {
    /// The turn.
    pub turn_id: RunId,
    /// When, in seconds since 1970-01-01T00:00:00Z.
    pub completed_at: i64,
    /// How long it took, in milliseconds.
    pub duration_ms: i64,
}

/// Payload of `run_started`: written before the command is started, so that no command runs unrecorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStarted {
    /// The run.
    pub run_id: RunId,
    /// Program and arguments.
    pub command: Vec<ByteString>,
    /// Where it runs.
    pub cwd: AbsPath,
    /// Name of the profile.
    pub profile: String,
    /// When.
    pub started: Timestamp,
    /// The process that holds the tree, where the writer knew it; see [`crate::StartRecord::holder_pid`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder_pid: Option<u32>,
}

/// Payload of `run_not_started`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunNotStarted {
    /// The run.
    pub run_id: RunId,
    /// Which step of the start failed.
    pub step: String,
    /// errno(3), where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<i32>,
    /// Why, for people.
    pub reason: String,
}

/// Payload of `run_output`: adjacent output of one stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunOutput {
    /// The run.
    pub run_id: RunId,
    /// The event that the first byte came in.
    pub from_seq: Seq,
    /// The event that the last byte came in.
    pub to_seq: Seq,
    /// Where it was written.
    pub stream: Stream,
    /// Bytes that both streams carried before.
    pub offset_bytes: u64,
    /// When the keeper read the first byte; up to 100 ms too early where a longer line was cut.
    pub time: Timestamp,
    /// What was written.
    pub data: ByteString,
}

/// Payload of `run_output_gap`: bytes `offset_bytes .. offset_bytes + bytes` of the output are not here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunOutputGap {
    /// The run.
    pub run_id: RunId,
    /// First event that is missing, wholly or in part.
    pub from_seq: Seq,
    /// Last event that is missing, wholly or in part.
    pub to_seq: Seq,
    /// Bytes that both streams carried before the gap.
    pub offset_bytes: u64,
    /// Missing bytes of both streams.
    pub bytes: u64,
    /// Why.
    pub reason: GapReason,
}

/// Why output is not in a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// It lies between the head and the tail that are recorded. Output that never reached the recorder but
    /// lies there too is counted here.
    Bounded,
    /// It never reached the recorder.
    Dropped,
    /// The rollout could not be written when it came.
    WriteFailed,
}

/// Payload of `run_taken_over`: whoever wrote the lines before this one writes no more, and `recorded_by` wrote
/// those behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunTakenOver {
    /// The run.
    pub run_id: RunId,
    /// Bytes of the output that are recorded, or stated missing, before this line.
    pub offset_bytes: u64,
    /// Who goes on.
    pub recorded_by: RecordedBy,
    /// Why.
    pub reason: TakeoverReason,
}

/// Why a recording was taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TakeoverReason {
    /// The run was detached.
    Detached,
    /// The process that recorded it died.
    RecorderDied,
    /// The keeper died, and with it the run.
    KeeperDied,
}

/// Payload of `run_ended`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunEnded {
    /// The run.
    pub run_id: RunId,
    /// How the leader ended.
    pub status: ExitStatus,
    /// Name of the signal that ended it, since numbers differ between platforms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal_name: Option<Cow<'static, str>>,
    /// From start to end.
    pub duration: Duration,
    /// What it used.
    pub usage: ResourceUse,
    /// What it wrote until it ended, as the keeper counted.
    pub output: OutputTotals,
    /// What of its output is in the rollout, also of what came after the end.
    pub recorded: RecordedOutput,
    /// Whether the wall-clock limit ended it.
    pub timed_out: bool,
    /// The limits that it ran under, and which of them held it back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<LimitReport>,
    /// What ran out of memory, if it was ended for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_of_memory: Option<OutOfMemory>,
    /// The name that could not be protected any more, if it was ended for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unprotected: Option<AbsPath>,
    /// Which process of ours wrote this.
    pub recorded_by: RecordedBy,
}

/// Sums over the lines of one run; what `verify` compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RecordedOutput {
    /// Bytes in `run_output` lines.
    pub bytes: u64,
    /// Bytes in `run_output_gap` lines.
    pub missing_bytes: u64,
}

/// Who recorded a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordedBy {
    /// The process that started it.
    Run,
    /// The process that took over when that one went.
    Attend,
}
