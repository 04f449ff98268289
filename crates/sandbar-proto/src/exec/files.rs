//! Files on the wire. Every request may carry the sandbox it is to be carried out under.

use serde::{Deserialize, Serialize};

use super::{Base64, FileSystemSandbox, LegacyPolicy, WirePath};

macro_rules! sandboxed {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$field:meta])* pub $key:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            $($(#[$field])* pub $key: $type,)*
            /// The sandbox it is carried out under.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub sandbox: Option<FileSystemSandbox>,
            /// The sandbox in the legacy shape.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub sandbox_policy: Option<LegacyPolicy>,
        }
    };
}

sandboxed! {
    /// Parameters of methods that name a path and nothing else.
    pub struct PathParams {
        /// The path.
        pub path: WirePath,
        /// Of `fs/getMetadata` and `fs/readDirectory`: whether a symbolic link in its place is followed; it is, unless
        /// this says no.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub follow_symlinks: Option<bool>,
    }
}

sandboxed! {
    /// Parameters of `fs/readFile`.
    pub struct ReadFileParams {
        /// The file.
        pub path: WirePath,
        /// Whether a symbolic link in its place is followed; it is, unless this says no.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub follow_symlinks: Option<bool>,
    }
}

/// Result of `fs/readFile`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct FileContent {
    /// All of it.
    pub data_base64: Base64,
}

sandboxed! {
    /// Parameters of `fs/writeFile`.
    pub struct WriteFileParams {
        /// The file; made if it is missing.
        pub path: WirePath,
        /// All of its new content, as base64 text: what is none has an error of its own.
        pub data_base64: String,
        /// Whether a symbolic link in its place is followed; it is, unless this says no.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub follow_symlinks: Option<bool>,
        /// Ours: refuse unless the content now has this BLAKE3 hash, in hexadecimal; empty text for a file that must not be there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub expected_hash: Option<String>,
        /// Ours: permission bits of a file that is made; one that is replaced keeps its own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub mode: Option<u32>,
        /// Ours: replace it as a whole or not at all; the default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub atomic: Option<bool>,
    }
}

/// Result of writes: ours says what is there now, to clients that asked for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Written {
    /// BLAKE3 hash of the new content, if the request expected one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
}

sandboxed! {
    /// Parameters of `fs/createDirectory`.
    pub struct CreateDirectoryParams {
        /// The directory.
        pub path: WirePath,
        /// Whether those above it are made as well, and one that is there is no error; yes unless this says no.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub recursive: Option<bool>,
    }
}

/// Result of `fs/getMetadata`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// Of what a link leads to.
    pub is_directory: bool,
    /// Of what a link leads to.
    pub is_file: bool,
    /// Of the path itself.
    pub is_symlink: bool,
    /// Bytes.
    #[serde(default)]
    pub size: u64,
    /// Milliseconds since 1970, 0 where the file system does not know.
    pub created_at_ms: i64,
    /// Milliseconds since 1970.
    pub modified_at_ms: i64,
}

/// Result of `fs/canonicalize`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CanonicalPath {
    /// Without symbolic links.
    pub path: WirePath,
}

/// Result of `fs/readDirectory`, sorted by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DirectoryEntries {
    /// Without `.` and `..`.
    pub entries: Vec<DirectoryEntry>,
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct DirectoryEntry {
    /// Its name; what is not UTF-8 comes with U+FFFD.
    pub file_name: String,
    /// Of what a link leads to.
    pub is_directory: bool,
    /// Of what a link leads to.
    pub is_file: bool,
}

sandboxed! {
    /// Parameters of `fs/walk`.
    pub struct WalkParams {
        /// Where it begins.
        pub path: WirePath,
        /// Its bounds.
        pub options: WalkOptions,
    }
}

/// Bounds of a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct WalkOptions {
    /// Levels below the beginning, at most 64.
    pub max_depth: u64,
    /// Directories that are entered, at most 10,000.
    pub max_directories: u64,
    /// Entries that are told, at most 50,000.
    pub max_entries: u64,
    /// Whether links to directories are entered.
    #[serde(default)]
    pub follow_directory_symlinks: bool,
    /// Whether directories whose names begin with a dot are told and not entered.
    #[serde(default, rename = "pruneHiddenDirectories", alias = "pruneHidden")]
    pub prune_hidden: bool,
}

/// What an entry of a walk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
}

/// An entry of a walk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WalkEntry {
    /// Where.
    pub path: WirePath,
    /// What.
    pub kind: EntryKind,
}

/// A directory that a walk could not enter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WalkError {
    /// Which.
    pub path: WirePath,
    /// Why.
    pub message: String,
}

/// Result of `fs/walk`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Walked {
    /// By path; symbolic links are left out unless they are followed.
    pub entries: Vec<WalkEntry>,
    /// What could not be entered.
    pub errors: Vec<WalkError>,
    /// Whether a bound ended it.
    pub truncated: bool,
}

sandboxed! {
    /// Parameters of `fs/remove`.
    pub struct RemoveParams {
        /// What.
        pub path: WirePath,
        /// Whether a directory goes with what is in it; yes unless this says no.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub recursive: Option<bool>,
        /// Whether it may be missing; yes unless this says no.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub force: Option<bool>,
    }
}

sandboxed! {
    /// Parameters of `fs/copy`.
    pub struct CopyParams {
        /// What.
        pub source_path: WirePath,
        /// Its new path.
        pub destination_path: WirePath,
        /// Whether directories are copied with what is in them.
        #[serde(default)]
        pub recursive: bool,
    }
}

/// What a handle is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum OpenMode {
    /// Reading.
    #[default]
    Read,
    /// Writing from nothing.
    Replace,
}

sandboxed! {
    /// Parameters of `fs/open`.
    pub struct OpenParams {
        /// The client's name for the handle, unique on the connection.
        pub handle_id: String,
        /// The file.
        pub path: WirePath,
        /// What for.
        #[serde(default)]
        pub mode: OpenMode,
    }
}

/// Result of `fs/open`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct FileHandle {
    /// As it was asked for.
    pub handle_id: String,
}

/// Parameters of `fs/close`.
pub type HandleParams = FileHandle;

/// Parameters of `fs/readBlock`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ReadBlockParams {
    /// The handle.
    pub handle_id: String,
    /// Where, in bytes.
    pub offset: u64,
    /// How much, 1 to 1,048,576 bytes.
    pub len: u64,
}

/// Result of `fs/readBlock`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BlockChunk {
    /// What is there.
    pub chunk: Base64,
    /// Whether the file ends with it.
    pub eof: bool,
}

/// Parameters of `fs/writeBlock`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct WriteBlockParams {
    /// The handle.
    pub handle_id: String,
    /// Where, in bytes.
    pub offset: u64,
    /// What, 1 to 1,048,576 bytes.
    pub chunk: Base64,
}

sandboxed! {
    /// Parameters of `fs/watchMissing`.
    pub struct WatchMissingParams {
        /// The client's number for the watch.
        pub watch_id: u64,
        /// What is missing now.
        pub missing: Vec<WirePath>,
        /// What is there now and whose removal counts as well.
        #[serde(default)]
        pub present: Option<WirePath>,
    }
}

/// Result of `fs/watchMissing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Watching {
    /// Whether it watches.
    pub watching: bool,
}

/// Parameters of `fs/missingChanged`, told once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct MissingChanged {
    /// The watch.
    pub watch_id: u64,
}
