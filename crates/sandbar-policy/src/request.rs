//! What a caller asks for when it wants a run.

use sandbar_proto::{
    AbsPath, AfterLeader, ByteString, EnvVar, Lifetime, Limits, NetworkMode, OutputMode, ProcessAttributes,
    StdinMode, Stdio, Terminal,
};
use serde::Serialize;

use crate::syscalls::Within;
use crate::{Entry, ExecutorWish, Note, Origin, Profile};

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

/// What may be read where nothing else says anything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Reads {
    /// Everything but what is secret.
    #[default]
    Everything,
    /// Nothing.
    Named {
        /// Who says so.
        origin: Origin,
    },
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
    /// What it is called where the base is not all there is to it.
    pub called: Option<String>,
    /// What may be read without a word about it.
    pub reads: Reads,
    /// Lines of a profile that a person wrote, besides what the base grants.
    pub entries: Vec<Entry>,
    /// What is to be said of how it was read.
    pub notes: Vec<Note>,
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
    /// What it may do within its sandbox.
    pub within: Within,
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

impl RunRequest {
    /// Bytes of output that are kept of a run: the newest, for those who come later.
    pub const RETENTION_BYTES: u64 = 16 * 1024 * 1024;

    /// A request to run `true` in `cwd` with the usual profile, with everything else at what it is where nobody says anything.
    #[must_use]
    pub fn new(cwd: AbsPath, own: OwnDirectories) -> Self {
        Self {
            argv: vec!["true".into()],
            arg0: None,
            cwd,
            profile: Profile::default(),
            called: None,
            reads: Reads::default(),
            entries: Vec::new(),
            notes: Vec::new(),
            network: None,
            allow_write: Vec::new(),
            may_write: Vec::new(),
            allow_read: Vec::new(),
            carve_outs: Vec::new(),
            git: GitMode::default(),
            within: Within::default(),
            caches: CacheMode::default(),
            executor: ExecutorWish::Any,
            give_up: Vec::new(),
            search: Vec::new(),
            env: Vec::new(),
            git_env: Vec::new(),
            stdio: Stdio { stdin: StdinMode::Null, stdout: OutputMode::Logged, stderr: OutputMode::Logged },
            terminal: None,
            attributes: ProcessAttributes::default(),
            limits: Limits::default(),
            lifetime: Lifetime::Detached,
            after_leader: AfterLeader::Kill,
            retention_bytes: Self::RETENTION_BYTES,
            home: None,
            own,
            runtime_roots: Vec::new(),
        }
    }

    /// What the profile is called.
    #[must_use]
    pub fn profile_name(&self) -> &str {
        self.called.as_deref().unwrap_or(self.profile.name())
    }

    /// Who decides what nothing else is said about.
    pub(crate) fn base_origin(&self) -> Origin {
        match &self.called {
            Some(name) => Origin::Profile(name.clone().into()),
            None => Origin::profile(self.profile.name()),
        }
    }
}
