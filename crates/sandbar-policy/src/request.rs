//! What a caller asks for when it wants a run.

use sandbar_proto::{
    AbsPath, AfterLeader, ByteString, EnvVar, Lifetime, Limits, NetworkMode, ProcessAttributes, Stdio,
    Terminal,
};
use serde::Serialize;

use crate::{ExecutorWish, Profile};

/// How much of git a run may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GitMode {
    /// Commits work; hooks, configuration and everything else that makes git run programs is read-only.
    #[default]
    Commit,
    /// The whole git directory is read-only.
    Protect,
}

/// What a run may go on without, where nothing on the host can hold it. Given up by name, and said at each run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GiveUp {
    /// That the names which others obey (`.git/config`, hooks, `.claude` and their like) stay as they are in a writable
    /// folder. Only mounts hold that, so it is given up where there are none and nowhere else.
    ProtectedNames,
}

impl GiveUp {
    /// As it is written on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ProtectedNames => "protected-names",
        }
    }
}

/// Whether the host's caches are offered to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheMode {
    /// Readable, and writable without changing the host's.
    #[default]
    CopyOnWrite,
    /// As read-only as the rest of the home directory: for a host that can't mount them otherwise.
    Off,
}

/// A restriction of a place that would otherwise have more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarveOut {
    /// Where.
    pub path: AbsPath,
    /// What is left of it.
    pub left: Left,
    /// Whether a missing path must stay missing, where its directory is writable. Otherwise the restriction does not
    /// count as long as nothing is there.
    pub reserve: bool,
}

/// What a [`CarveOut`] leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Left {
    /// Reading.
    Read,
    /// Nothing.
    Nothing,
}

/// Where Sandbar keeps its own files. Hidden from every sandboxed run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnDirectories {
    /// Sockets and output logs.
    pub runtime: AbsPath,
    /// Rollouts and approvals.
    pub state: AbsPath,
    /// Configuration.
    pub config: AbsPath,
    /// Caches, among them what sandboxed runs wrote into theirs.
    pub cache: AbsPath,
    /// `SANDBAR_HOME`, when it is set.
    pub home: Option<AbsPath>,
    /// Where this user's other runs keep theirs as far as variables say, when that is not here. The default places
    /// below a home directory need not be named.
    pub elsewhere: Vec<AbsPath>,
}

impl OwnDirectories {
    pub(crate) fn all(&self) -> impl Iterator<Item = &AbsPath> {
        [&self.runtime, &self.state, &self.config, &self.cache].into_iter().chain(&self.home)
    }
}

/// A command and everything that was chosen about its run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRequest {
    /// Arguments; the first names the program.
    pub argv: Vec<ByteString>,
    /// What the program sees as `argv[0]`, when that differs.
    pub arg0: Option<ByteString>,
    /// Working directory, as the caller names it.
    pub cwd: AbsPath,
    /// The base of what may be touched.
    pub profile: Profile,
    /// The network, if not the profile's.
    pub network: Option<NetworkMode>,
    /// Further writable roots (`--allow-write`).
    pub allow_write: Vec<AbsPath>,
    /// Further writable roots that are left out, with a note, where they are missing or hold too much.
    pub may_write: Vec<AbsPath>,
    /// What to reopen for reading (`--allow-read`).
    pub allow_read: Vec<AbsPath>,
    /// What is less than its surroundings; never more.
    pub carve_outs: Vec<CarveOut>,
    /// How much of git may change.
    pub git: GitMode,
    /// Whether the host's caches are offered.
    pub caches: CacheMode,
    /// Who is to make the sandbox.
    pub executor: ExecutorWish,
    /// What it may go on without, if need be.
    pub give_up: Vec<GiveUp>,
    /// Where programs are looked for that make one: the directories of the caller's `PATH`.
    pub search: Vec<AbsPath>,
    /// The environment, resolved; see [`crate::env_policy`].
    pub env: Vec<EnvVar>,
    /// What the caller's own environment says to git: the variables whose names begin with `GIT_`, and
    /// `XDG_CONFIG_HOME`. Never given to the command.
    pub git_env: Vec<EnvVar>,
    /// Standard streams.
    pub stdio: Stdio,
    /// The terminal of those streams that are one.
    pub terminal: Option<Terminal>,
    /// umask, nice, resource limits.
    pub attributes: ProcessAttributes,
    /// Bounds.
    pub limits: Limits,
    /// What outlives what.
    pub lifetime: Lifetime,
    /// What happens to the tree when the leader ends.
    pub after_leader: AfterLeader,
    /// How many bytes of output are retained.
    pub retention_bytes: u64,
    /// The caller's home directory.
    pub home: Option<AbsPath>,
    /// Sandbar's own directories.
    pub own: OwnDirectories,
    /// Directories of host sockets to hide besides `/run`: `XDG_RUNTIME_DIR` and its like.
    pub runtime_roots: Vec<AbsPath>,
}
