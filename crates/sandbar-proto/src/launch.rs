//! The plain data of a start: what runs, where, with which environment, streams and sandbox.
//!
//! Made only by `sandbar-policy` (as a `LaunchPlan`) and by the keeper's decoder; `cargo xtask tidy` looks for
//! any other place. Holds exact values: nothing here is looked up in anybody's environment later.

use serde::{Deserialize, Serialize};

use crate::{ByteString, EnforcedLimit, Limits, PinnedPath, Sandbox, Terminal};

/// One variable of an exact environment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EnvVar {
    /// Name, not empty, without `=`.
    pub name: ByteString,
    /// Value.
    pub value: ByteString,
}

/// What a process's standard input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StdinMode {
    /// `/dev/null`.
    Null,
    /// A pipe that clients write to through the keeper.
    Piped,
    /// The caller's own descriptor, handed over with the start.
    Direct,
    /// The terminal of [`LaunchSpec::terminal`].
    Terminal,
}

/// Where one output stream goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputMode {
    /// Through a pipe into the keeper's log.
    Logged,
    /// The caller's own descriptor, handed over with the start; not logged.
    Direct,
    /// The terminal of [`LaunchSpec::terminal`], whose screen goes into the keeper's log.
    Terminal,
}

/// Marker for readers of start requests: which descriptors travel with it, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Direct {
    /// Standard input travels.
    pub stdin: bool,
    /// Standard output travels.
    pub stdout: bool,
    /// Standard error travels.
    pub stderr: bool,
}

/// The three standard streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stdio {
    /// File descriptor 0.
    pub stdin: StdinMode,
    /// File descriptor 1.
    pub stdout: OutputMode,
    /// File descriptor 2.
    pub stderr: OutputMode,
}

impl Stdio {
    /// Which descriptors have to travel with the start request.
    #[must_use]
    pub fn direct(self) -> Direct {
        Direct {
            stdin: self.stdin == StdinMode::Direct,
            stdout: self.stdout == OutputMode::Direct,
            stderr: self.stderr == OutputMode::Direct,
        }
    }
}

/// What happens to a process when the client that started it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Lifetime {
    /// It ends with the connection.
    Connection,
    /// It goes on.
    Detached,
    /// It goes on as long as the session of its owner: until that is ended, or nobody renews its lease.
    Session,
}

/// What happens to the rest of the tree when its leader ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterLeader {
    /// It is killed at once.
    Kill,
    /// It may go on until somebody ends it.
    Wait,
}

/// Attributes that a child would otherwise inherit from the keeper instead of from the caller.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessAttributes {
    /// umask(2), octal permission bits.
    pub umask: u32,
    /// nice(2) value, -20 to 19.
    pub nice: i32,
    /// Soft and hard limits by resource number of getrlimit(2); `None` is unlimited.
    pub rlimits: Vec<(u32, Option<u64>, Option<u64>)>,
}

/// Everything the keeper needs to start a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchSpec {
    /// Arguments; the first names the program, looked up on the `PATH` of `env` when it has no slash.
    pub argv: Vec<ByteString>,
    /// What the program sees as `argv[0]`, when that differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arg0: Option<ByteString>,
    /// Working directory, opened inside the sandbox and compared with its identity.
    pub cwd: PinnedPath,
    /// The exact environment.
    pub env: Vec<EnvVar>,
    /// Standard streams.
    pub stdio: Stdio,
    /// A terminal of its own, which becomes its controlling terminal. Present if any of the streams is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<Terminal>,
    /// umask, nice, resource limits.
    pub attributes: ProcessAttributes,
    /// Bounds, as they were asked for.
    #[serde(default)]
    pub limits: Limits,
    /// What enforces each of them. Those of [`LimitMechanism::Rlimit`](crate::LimitMechanism::Rlimit) are in
    /// `attributes` already.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub enforced: Vec<EnforcedLimit>,
    /// What outlives what.
    pub lifetime: Lifetime,
    /// What happens to the tree when the leader ends.
    pub after_leader: AfterLeader,
    /// How many bytes of output the keeper retains for readers that come later.
    pub retention_bytes: u64,
    /// Name of the profile, for people.
    pub profile: String,
    /// The sandbox, or its named absence.
    pub sandbox: Sandbox,
}
