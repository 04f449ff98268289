//! Processes on the wire.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Base64, FileSystemSandbox, LegacyPolicy, RunIntent, Started, WirePath};
use crate::{ByteString, EndRecord, ResourceUse, Stream, TerminalSize, Timestamp};

/// Parameters of `process/start`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct StartParams {
    /// The client's name for it, unique in the session.
    pub process_id: String,
    /// What it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<StartMetadata>,
    /// Program and arguments; ours where one of them is not UTF-8.
    pub argv: Vec<ByteString>,
    /// Where it runs.
    pub cwd: Option<WirePath>,
    /// How the executor's own environment becomes that of the process; without it `env` is all there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_policy: Option<WireEnvPolicy>,
    /// Variables that win over everything.
    #[serde(default)]
    pub env: BTreeMap<String, ByteString>,
    /// Ours: variables to remove, after everything else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unset: Vec<String>,
    /// Whether it gets a terminal.
    #[serde(default)]
    pub tty: bool,
    /// Ours: the size of that terminal; the dialect's is 24 by 80.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<TerminalSize>,
    /// Whether standard input is a pipe; `/dev/null` otherwise.
    #[serde(default)]
    pub pipe_stdin: bool,
    /// What the program sees as `argv[0]`.
    #[serde(default)]
    pub arg0: Option<String>,
    /// A snapshot of a shell to start from; no capability of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell_snapshot: Option<Unsupported>,
    /// The sandbox it is to run in.
    #[serde(default)]
    pub sandbox: Option<FileSystemSandbox>,
    /// The sandbox in the legacy shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox_policy: Option<LegacyPolicy>,
    /// Whether its network is only what a managed proxy lets through.
    #[serde(default)]
    pub enforce_managed_network: bool,
    /// That proxy's rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed_network: Option<Unsupported>,
    /// A proxy to start with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_proxy: Option<Unsupported>,
    /// Credentials to mask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_providers: Option<Unsupported>,
    /// Ours: makes the start idempotent across connections; the same id never starts twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_id: Option<String>,
    /// Ours: whether it outlives its session.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub detached: bool,
    /// Ours: what it may do, in the words of `sandbar run`, instead of a sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunIntent>,
}

/// Something that was sent and that we can't honour: only whether it was there and not empty is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsupported {
    /// Whether it was an empty list or object, which asks for nothing.
    pub is_empty: bool,
}

impl Serialize for Unsupported {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Never sent by us; the empty object asks for nothing.
        use serde::ser::SerializeMap as _;
        serializer.serialize_map(Some(0))?.end()
    }
}

impl<'de> Deserialize<'de> for Unsupported {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UnsupportedVisitor)
    }
}

struct UnsupportedVisitor;

impl<'de> serde::de::Visitor<'de> for UnsupportedVisitor {
    type Value = Unsupported;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list or an object")
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Unsupported, A::Error> {
        let mut is_empty = true;
        while seq.next_element::<serde::de::IgnoredAny>()?.is_some() {
            is_empty = false;
        }
        Ok(Unsupported { is_empty })
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Unsupported, A::Error> {
        let mut is_empty = true;
        while map.next_entry::<serde::de::IgnoredAny, serde::de::IgnoredAny>()?.is_some() {
            is_empty = false;
        }
        Ok(Unsupported { is_empty })
    }
}

/// What a process belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct StartMetadata {
    /// The thread, a UUID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread_id: Option<uuid::Uuid>,
    /// The tool call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
}

/// `envPolicy`: how the executor's environment is filtered. Every field is required once it is there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct WireEnvPolicy {
    /// `all`, `core` or `none`.
    pub inherit: String,
    /// Keep what looks like a credential.
    pub ignore_default_excludes: bool,
    /// Globs of names to drop.
    pub exclude: Vec<String>,
    /// Variables to set.
    #[serde(rename = "set")]
    pub set: BTreeMap<String, String>,
    /// If not empty, globs of the only names to keep.
    pub include_only: Vec<String>,
    /// Ours: globs of names to take back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
}

/// Result of `process/start`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct StartResult {
    /// As it was asked for.
    pub process_id: String,
    /// What confines it: `none`, or the mechanism's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox_type: Option<String>,
    /// Ours: the executor's records, to clients that asked for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Box<Started>>,
}

/// Parameters of methods that name a process and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ProcessParams {
    /// The process.
    pub process_id: String,
}

/// Parameters of `process/read`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ReadParams {
    /// The process.
    pub process_id: String,
    /// What is known already; 0 for nothing.
    #[serde(default)]
    pub after_seq: Option<u64>,
    /// Most bytes, decoded; one chunk comes whatever its size.
    #[serde(default)]
    pub max_bytes: Option<u64>,
    /// Milliseconds to wait for something.
    #[serde(default)]
    pub wait_ms: Option<u64>,
}

/// Result of `process/read`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ReadResult {
    /// In order.
    pub chunks: Vec<Chunk>,
    /// One more than the last number that is told here.
    pub next_seq: u64,
    /// Whether the leader has ended.
    pub exited: bool,
    /// How.
    pub exit_code: Option<i32>,
    /// Whether every stream is at its end.
    pub closed: bool,
    /// Why nothing more will come.
    pub failure: Option<String>,
    /// Whether the sandbox denied it something.
    #[serde(default)]
    pub sandbox_denied: bool,
    /// Ours: what is missing before the first chunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<OutputGap>,
    /// Ours: the signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// Ours: how it ended, to clients that asked for records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Box<EndRecord>>,
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Chunk {
    /// Its place among the events of the process.
    pub seq: u64,
    /// Where it was written.
    pub stream: Stream,
    /// What.
    pub chunk: Base64,
    /// Ours: bytes that the process wrote before, to clients that asked for records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Ours: when the executor read it, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
}

/// Ours: output that can't be had any more; also the parameters of `process/gap`, with the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct OutputGap {
    /// The process, in a notification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process_id: Option<String>,
    /// First missing number.
    pub from_seq: u64,
    /// Last missing number.
    pub to_seq: u64,
    /// Missing bytes.
    pub bytes: u64,
}

/// Parameters of `process/write`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct WriteParams {
    /// The process.
    pub process_id: String,
    /// The bytes; none are no end of file.
    pub chunk: Base64,
    /// Names the write: the same one is never carried out twice. Older clients send none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_id: Option<String>,
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum WriteStatus {
    /// It is in the pipe, or in a queue before it that has a bound.
    Accepted,
    /// There is no such process.
    UnknownProcess,
    /// It has no input, or it was closed.
    StdinClosed,
    /// It is about to start.
    Starting,
}

/// Result of `process/write`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WriteResult {
    /// What became of it.
    pub status: WriteStatus,
}

/// Ours: parameters of `process/closeStdin`.
pub type CloseStdinParams = ProcessParams;

/// Ours: parameters of `process/resize`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ResizeParams {
    /// The process.
    pub process_id: String,
    /// The size.
    pub size: TerminalSize,
}

/// A signal: the dialect's `interrupt`, or a name as kill(1) knows it, with or without `SIG`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct SignalName(pub String);

/// Parameters of `process/signal`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct SignalParams {
    /// The process.
    pub process_id: String,
    /// The signal.
    pub signal: SignalName,
}

/// Parameters of `process/terminate`. Without more than the process it is killed at once, as the dialect says. Otherwise the
/// signal goes to the whole tree, and SIGKILL to what is left of it once its leader has ended, or after the grace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct TerminateParams {
    /// The process.
    pub process_id: String,
    /// Ours: the first signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<SignalName>,
    /// Ours: milliseconds until SIGKILL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_ms: Option<u64>,
}

/// Result of `process/terminate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TerminateResult {
    /// Whether it ran until now.
    pub running: bool,
}

/// Ours: parameters of `process/wait`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct WaitParams {
    /// The process.
    pub process_id: String,
    /// Most milliseconds to wait; for ever without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
}

/// Ours: how a process ended; `null` members as long as it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ExitCode {
    /// The code, or 128 plus the signal's number.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
}

/// Ours: parameters of `process/list`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ListParams {
    /// Last process of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Also those that the executor holds for others of the same user, as `sandbar ps` lists them there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
}

/// Ours: result of `process/list`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Page {
    /// By name.
    pub processes: Vec<ProcessSummary>,
    /// Whether more follow.
    pub more: bool,
}

/// How far a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum ProcessPhase {
    /// About to start.
    Starting,
    /// Its leader runs.
    Running,
    /// Its leader has ended.
    Exited,
    /// Every stream is at its end.
    Closed,
}

/// Ours: one process of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ProcessSummary {
    /// The process.
    pub process_id: String,
    /// The run's id on the executor, as its `sandbar ps` shows it.
    pub run_id: String,
    /// Program and arguments, for people.
    pub argv: Vec<String>,
    /// How far it is.
    pub phase: ProcessPhase,
    /// When it was started, in nanoseconds since 1970.
    pub started: Timestamp,
    /// The last number of its events.
    pub last_seq: u64,
    /// Bytes that it wrote.
    pub output_bytes: u64,
    /// How it ended.
    #[serde(flatten)]
    pub exit: ExitCode,
    /// What it used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<ResourceUse>,
}

/// Ours: parameters of `process/credit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Credit {
    /// The process.
    pub process_id: String,
    /// Bytes that may be sent beyond those granted before.
    pub bytes: u64,
}

/// Parameters of `process/output`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ProcessOutput {
    /// The process.
    pub process_id: String,
    /// Its place.
    pub seq: u64,
    /// Where it was written.
    pub stream: Stream,
    /// What.
    pub chunk: Base64,
    /// Ours: bytes that the process wrote before, to clients that asked for records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Ours: when the executor read it, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
}

/// Parameters of `process/exited`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ProcessExited {
    /// The process.
    pub process_id: String,
    /// Its place.
    pub seq: u64,
    /// The code, or 128 plus the signal's number.
    pub exit_code: i32,
    /// Whether the sandbox denied it something, if that is known.
    #[serde(default)]
    pub sandbox_denied: Option<bool>,
    /// Ours: the signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// Ours: how it ended, to clients that asked for records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Box<EndRecord>>,
}

/// Parameters of `process/closed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ProcessClosed {
    /// The process.
    pub process_id: String,
    /// The highest number.
    pub seq: u64,
}
