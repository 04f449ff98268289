//! The first exchange of a connection.

use serde::{Deserialize, Serialize};

use super::EnvironmentInfo;

/// Parameters of `initialize`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct InitializeParams {
    /// What the client calls itself.
    pub client_name: String,
    /// The session to go on with.
    #[serde(default)]
    pub resume_session_id: Option<String>,
    /// Ours: take the session over from a connection that is still attached.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub takeover: bool,
    /// Ours: what of our extensions the client wants of the server without asking each time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extensions: Option<Extensions>,
}

/// Ours: extensions. In `initialize` what the client wants; in its result what the server does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Extensions {
    /// Output of processes comes in binary frames ([`OutputFrame`](super::OutputFrame)) where the transport has them.
    pub binary_output: bool,
    /// Output of a process comes only within the credit that `process/credit` grants.
    pub credit: bool,
    /// Starts and ends come with the executor's records of them, output with its offset and time; stops are told.
    pub records: bool,
    /// Missing output is told by `process/gap`.
    pub gaps: bool,
    /// Large payloads may be compressed with Zstandard.
    pub zstd: bool,
    /// `process/attach` takes `tailBytes`.
    pub tail: bool,
}

/// Result of `initialize`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct InitializeResult {
    /// The session, which a later connection may resume. Unguessable.
    pub session_id: String,
    /// What the executor is; older servers leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment_info: Option<EnvironmentInfo>,
    /// Ours: what of our extensions is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extensions: Option<Extensions>,
}

/// Ours: `session/evicted`, the last that an attached connection hears of a session that was taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct SessionEvicted {
    /// The session.
    pub session_id: String,
}
