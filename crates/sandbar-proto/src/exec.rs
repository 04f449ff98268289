//! The exec server's dialect: parameters, results and notifications of every method.
//!
//! Names and shapes are those of Codex 0.169's exec server (facts/exec-server.md §2), whose client and server ours talk
//! to; what is ours on top is optional, so that neither notices. A path is a `file://` URI on the way out and may be a
//! plain absolute path on the way in. Fields that neither side knows are ignored, as the peer does; a field that asks
//! for security is never among the unknown ones, since each has a name here.

mod configuration;
mod discovery;
mod environment;
mod files;
mod frame;
mod http;
mod initialize;
mod path;
mod process;
mod run;
mod sandbox;

pub use configuration::{ConfigLayer, ConfigLayers, ConfigRead, ConfigReadParams, KeyPath};
pub use discovery::{
    DiscoverParams, Discovered, DiscoveryRoot, InstalledPlugin, InstalledSkill, PluginFiles, Skill,
    SkillDependencies, SkillPolicy, SkillTool, TextFile,
};
pub use environment::{Capabilities, EnvironmentInfo, EnvironmentStatus, Shell};
pub use files::{
    BlockChunk, CanonicalPath, CopyParams, CreateDirectoryParams, DirectoryEntries, DirectoryEntry,
    EntryKind, FileContent, FileHandle, HandleParams, Metadata, MissingChanged, OpenMode, OpenParams,
    PathParams, ReadBlockParams, ReadFileParams, RemoveParams, WalkEntry, WalkError, WalkOptions, WalkParams,
    Walked, WatchMissingParams, Watching, WriteBlockParams, WriteFileParams, Written,
};
pub use frame::{FrameError, OutputFrame};
pub use http::{HttpBodyDelta, HttpHeader, HttpRequestParams, HttpResponse, RedirectPolicy};
pub use initialize::{Extensions, InitializeParams, InitializeResult, SessionEvicted};
pub use path::{WirePath, WirePathError};
pub use process::{
    Chunk, CloseStdinParams, Credit, ExitCode, ListParams, OutputGap, Page, ProcessClosed, ProcessExited,
    ProcessOutput, ProcessParams, ProcessPhase, ProcessSummary, ReadParams, ReadResult, ResizeParams,
    SignalName, SignalParams, StartMetadata, StartParams, StartResult, TerminateParams, TerminateResult,
    Unsupported, WaitParams, WireEnvPolicy, WriteParams, WriteResult, WriteStatus,
};
pub use run::{
    AttachParams, CloseOutputParams, PlanNote, PlanSummary, ProcessStopped, RecordsPage, RecordsParams,
    RunIntent, RunRecord, Started,
};
pub use sandbox::{
    FileSystemPolicy, FileSystemSandbox, LegacyPolicy, ManagedEntry, ManagedPath, MissingPath, NetworkPolicy,
    PermissionProfile, PolicyContext, ReadOnlyAccess, SpecialPath, SplitFileSystem, SplitKind, WireAccess,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Names of the methods that both sides know.
pub mod method {
    /// First request of a connection.
    pub const INITIALIZE: &str = "initialize";
    /// Notification that the client is ready.
    pub const INITIALIZED: &str = "initialized";
    /// What the executor is.
    pub const ENVIRONMENT_INFO: &str = "environment/info";
    /// Whether it is ready.
    pub const ENVIRONMENT_STATUS: &str = "environment/status";
    /// Starts a process.
    pub const PROCESS_START: &str = "process/start";
    /// Reads retained output.
    pub const PROCESS_READ: &str = "process/read";
    /// Writes to standard input.
    pub const PROCESS_WRITE: &str = "process/write";
    /// Sends a signal.
    pub const PROCESS_SIGNAL: &str = "process/signal";
    /// Ends a process and its tree.
    pub const PROCESS_TERMINATE: &str = "process/terminate";
    /// Lists the session's processes; ours.
    pub const PROCESS_LIST: &str = "process/list";
    /// Gives a terminal another size; ours.
    pub const PROCESS_RESIZE: &str = "process/resize";
    /// Closes standard input; ours.
    pub const PROCESS_CLOSE_STDIN: &str = "process/closeStdin";
    /// Waits for the end; ours.
    pub const PROCESS_WAIT: &str = "process/wait";
    /// Follows a run of the executor as a process of the session; ours.
    pub const PROCESS_ATTACH: &str = "process/attach";
    /// Lists what is on record at the executor; ours.
    pub const PROCESS_RECORDS: &str = "process/records";
    /// Says that nobody reads a stream any more; ours.
    pub const PROCESS_CLOSE_OUTPUT: &str = "process/closeOutput";
    /// Grants the server room for output of a process; a notification, ours.
    pub const PROCESS_CREDIT: &str = "process/credit";
    /// Notification: output.
    pub const PROCESS_OUTPUT: &str = "process/output";
    /// Notification: the leader ended.
    pub const PROCESS_EXITED: &str = "process/exited";
    /// Notification: every stream is at its end.
    pub const PROCESS_CLOSED: &str = "process/closed";
    /// Notification: output is missing; ours, to clients that asked for it.
    pub const PROCESS_GAP: &str = "process/gap";
    /// Notification: the leader was stopped; ours, to clients that asked for records.
    pub const PROCESS_STOPPED: &str = "process/stopped";
    /// Notification: another connection took the session; ours.
    pub const SESSION_EVICTED: &str = "session/evicted";
    /// Whole file.
    pub const FS_READ_FILE: &str = "fs/readFile";
    /// Whole file.
    pub const FS_WRITE_FILE: &str = "fs/writeFile";
    /// Makes a directory.
    pub const FS_CREATE_DIRECTORY: &str = "fs/createDirectory";
    /// What a path is.
    pub const FS_GET_METADATA: &str = "fs/getMetadata";
    /// Its real path.
    pub const FS_CANONICALIZE: &str = "fs/canonicalize";
    /// Entries of a directory.
    pub const FS_READ_DIRECTORY: &str = "fs/readDirectory";
    /// Entries of a tree.
    pub const FS_WALK: &str = "fs/walk";
    /// Removes.
    pub const FS_REMOVE: &str = "fs/remove";
    /// Copies.
    pub const FS_COPY: &str = "fs/copy";
    /// Opens for reading or writing by blocks.
    pub const FS_OPEN: &str = "fs/open";
    /// Reads a block.
    pub const FS_READ_BLOCK: &str = "fs/readBlock";
    /// Writes a block.
    pub const FS_WRITE_BLOCK: &str = "fs/writeBlock";
    /// Closes a handle.
    pub const FS_CLOSE: &str = "fs/close";
    /// Watches for something that is missing.
    pub const FS_WATCH_MISSING: &str = "fs/watchMissing";
    /// Notification: it appeared.
    pub const FS_MISSING_CHANGED: &str = "fs/missingChanged";
    /// A request over the executor's network.
    pub const HTTP_REQUEST: &str = "http/request";
    /// Notification: a piece of an answer's body.
    pub const HTTP_BODY_DELTA: &str = "http/request/bodyDelta";
    /// Reads configuration files.
    pub const ENVIRONMENT_CONFIG_READ: &str = "environmentConfig/read";
    /// Looks for skills and plugins.
    pub const CAPABILITIES_DISCOVER_V2: &str = "capabilities/discoverV2";
}

/// Bytes as standard base64 with padding, as the dialect carries them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Base64(pub Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        crate::base64::serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::base64::deserialize(deserializer).map(Self)
    }
}

#[cfg(test)]
mod schema;
#[cfg(test)]
mod tests;
