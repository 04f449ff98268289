//! Shapes that Sandbar's parts exchange: launches, processes, events, rollout lines.
//!
//! Keeps one definition per shape, readable by any serde format that describes itself. Decides nothing:
//! what a permission means is `sandbar-policy`'s concern, how a mount is made `sandbar-sandbox`'s.

#![forbid(unsafe_code)]

pub mod base64;
mod bytes;
mod event;
pub mod exec;
mod facts;
mod id;
mod launch;
mod limits;
mod owner;
mod path;
mod path_glob;
mod process;
mod rollout;
pub mod rpc;
mod sandbox;
mod terminal;

pub use bytes::ByteString;
pub use event::{Gap, ProcessEvent};
pub use facts::{FactAnswer, FactQuery, Facts, FileFact, GitLinks, HostFacts};
pub use id::{InputId, ParseRunIdError, RunId, Seq};
pub use launch::{
    AfterLeader, Direct, EnvVar, LaunchSpec, Lifetime, OutputMode, ProcessAttributes, StdinMode, Stdio,
};
pub use limits::{
    CgroupObstacle, EnforcedLimit, Limit, LimitFacts, LimitMechanism, LimitReport, LimitScope, Limits,
    OutOfMemory,
};
pub use owner::{Blob, Owner, SessionId, SessionIdError};
pub use path::{AbsPath, AbsPathError, FileIdentity, FileKind, PinnedPath};
pub use path_glob::{BadPathGlob, GlobProgress, PathGlob};
pub use process::{EndRecord, ExitStatus, OutputTotals, ResourceUse, StartRecord, Stream, Timestamp};
pub use rollout::{
    GapReason, HistoryMode, RecordedBy, RecordedOutput, RolloutEvent, RolloutItem, RolloutLine, RunEnded,
    RunNotStarted, RunOutput, RunOutputGap, RunStarted, RunTakenOver, SandboxSummary, SessionMeta,
    TakeoverReason, TaskComplete, TaskStarted, TurnContext,
};
pub use sandbox::{
    ArgTest, BindAccess, CacheMount, CacheWrites, Executor, IdRange, Identity, LandlockAccess, LandlockRule,
    LandlockSpec, LinuxSandbox, MountOp, NetworkMode, Placeholder, PlaceholderKind, RunAs, Sandbox,
    SeccompSpec, SyscallRule, TmpfsAccess, Verdict,
};
pub use terminal::{Terminal, TerminalModes, TerminalSize};
