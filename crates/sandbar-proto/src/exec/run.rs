//! Ours: runs as a person starts and lists them, on an executor elsewhere.

use serde::{Deserialize, Serialize};

use super::WirePath;
use crate::{EndRecord, Limits, NetworkMode, OutputTotals, RunId, StartRecord, Stream, TerminalSize};

/// What a run may do, in the words of `sandbar run`. The executor plans it with its own files and rules. A field that is
/// not known here could ask for less than everything, so it is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RunIntent {
    /// Name of the profile.
    pub profile: String,
    /// The network, where it is not the profile's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkMode>,
    /// Also writable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_write: Vec<WirePath>,
    /// Also readable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_read: Vec<WirePath>,
    /// Whether `.git` is read-only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub protect_git: bool,
    /// Whether standard error is no part of the terminal.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub separate_stderr: bool,
    /// Bounds.
    #[serde(default)]
    pub limits: Limits,
}

/// What became of a start, or what a process is that is attached to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Started {
    /// The executor's record of it.
    pub record: StartRecord,
    /// What it had written by now.
    pub written: OutputTotals,
    /// The size of its terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<TerminalSize>,
    /// Whether its leader is stopped.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopped: bool,
    /// Resource limits that could not be given, by number, and what was given instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lowered: Vec<(u32, u64)>,
    /// The number behind which it is told, of one that is attached to by its tail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_seq: Option<u64>,
    /// The plan, of a start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanSummary>,
}

/// What was planned, for people and for records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct PlanSummary {
    /// The network.
    pub network: NetworkMode,
    /// Where it may write.
    pub writable_roots: Vec<WirePath>,
    /// What a person should know.
    pub notes: Vec<PlanNote>,
    /// Environment variables that were left out since they may be secret.
    pub withheld_env: u32,
}

/// Something that a person should know about a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct PlanNote {
    /// In words.
    pub text: String,
    /// Whether it is about what is not protected.
    pub is_warning: bool,
}

/// Parameters of `process/attach`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct AttachParams {
    /// The client's name for it in its session.
    pub process_id: String,
    /// The run on the executor.
    pub run_id: RunId,
    /// What is known of it already; 0 for nothing.
    #[serde(default)]
    pub after_seq: u64,
    /// To begin with the last of its output instead, so many bytes of all streams together: as many at least as there are,
    /// from a whole portion on. A server whose extensions have no `tail` begins behind `after_seq`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail_bytes: Option<u64>,
}

/// Parameters of `process/closeOutput`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct CloseOutputParams {
    /// The process.
    pub process_id: String,
    /// The stream that nobody reads any more.
    pub stream: Stream,
}

/// Parameters of `process/stopped`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ProcessStopped {
    /// The process.
    pub process_id: String,
    /// Number of the signal.
    pub signal: i32,
}

/// Parameters of `process/records`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct RecordsParams {
    /// Last run of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<RunId>,
}

/// Result of `process/records`: what the executor's user has on record there, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct RecordsPage {
    /// Runs.
    pub runs: Vec<RunRecord>,
    /// Whether more follow.
    pub more: bool,
    /// Keepers of another protocol, which may hold more.
    pub foreign_keepers: usize,
}

/// One run on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct RunRecord {
    /// How it was started.
    pub start: StartRecord,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<EndRecord>,
    /// Whether the keeper that holds or held it lives.
    pub keeper_alive: bool,
    /// How many look at it, if it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub viewers: Option<usize>,
}
