//! The sandbox that a client asks for: 0.169's shape and the legacy one.
//!
//! A shape that is not understood is an error of decoding, so that nothing runs with less than was asked for.

use serde::{Deserialize, Serialize};

use super::WirePath;

/// `sandbox` of `process/start` and of the file methods.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileSystemSandbox {
    /// What may be touched.
    pub permissions: PermissionProfile,
    /// What relative places of the permissions relate to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<WirePath>,
    /// What the permissions were written for, where that is not `cwd` and `workspace_roots`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_context: Option<PolicyContext>,
    /// What `project_roots` stands for.
    #[serde(default)]
    pub workspace_roots: Vec<WirePath>,
    /// The home that the client believes the executor to have; no place that we know relates to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_home_dir: Option<WirePath>,
    /// Directories of the executor that the client takes for temporary besides the usual ones; none that we announce.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub temporary_directories: Vec<WirePath>,
    /// Of Windows; `disabled` elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub windows_sandbox_level: Option<String>,
    /// Of Windows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub windows_sandbox_proxy_settings_mode: Option<String>,
    /// Asks for an older mechanism.
    #[serde(default)]
    pub use_legacy_landlock: bool,
}

/// What the places of a profile relate to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyContext {
    /// What `current_working_directory` stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<WirePath>,
    /// What `project_roots` stands for.
    #[serde(default)]
    pub workspace_roots: Vec<WirePath>,
}

/// Who decides what may be touched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum PermissionProfile {
    /// The executor enforces these.
    #[serde(rename_all = "snake_case")]
    Managed {
        /// Files.
        file_system: FileSystemPolicy,
        /// The network.
        network: NetworkPolicy,
    },
    /// Nobody: no sandbox.
    Disabled,
    /// Somebody else has put the executor into a sandbox already.
    #[serde(rename_all = "snake_case")]
    External {
        /// The network in there.
        network: NetworkPolicy,
    },
}

/// Files of a managed profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "type", deny_unknown_fields)]
pub enum FileSystemPolicy {
    /// What the entries say, and nothing else.
    #[serde(rename_all = "snake_case")]
    Restricted {
        /// In any order; the longest path decides.
        entries: Vec<ManagedEntry>,
        /// How deep globs are followed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        glob_scan_max_depth: Option<u32>,
    },
    /// Everything.
    Unrestricted,
}

/// One line of a managed profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ManagedEntry {
    /// Where.
    pub path: ManagedPath,
    /// What.
    pub access: WireAccess,
    /// What to do where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_path_behavior: Option<MissingPath>,
}

/// What to do about a line whose path is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum MissingPath {
    /// The line does not count.
    Skip,
    /// The path can't be made.
    Protect,
}

/// What may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum WireAccess {
    /// Read and execute.
    Read,
    /// Everything.
    Write,
    /// Nothing.
    #[serde(alias = "deny")]
    None,
}

/// Where a line applies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "type", deny_unknown_fields)]
pub enum ManagedPath {
    /// A path and what is below it.
    Path {
        /// The path.
        path: WirePath,
    },
    /// Whatever a pattern matches.
    GlobPattern {
        /// The pattern.
        pattern: String,
    },
    /// A place with a name.
    Special {
        /// Which.
        value: SpecialPath,
    },
}

/// Places with names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum SpecialPath {
    /// `/`.
    Root,
    /// What programs need of the system.
    Minimal,
    /// The sandbox's `cwd`.
    CurrentWorkingDirectory,
    /// Every workspace root, or a path below each.
    ProjectRoots {
        /// The path below.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subpath: Option<String>,
    },
    /// `TMPDIR`.
    Tmpdir,
    /// `/tmp`.
    SlashTmp,
    /// One that a newer client knows. It stands for nothing.
    #[serde(other)]
    Unknown,
}

/// The network of a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum NetworkPolicy {
    /// None.
    #[default]
    Restricted,
    /// The host's.
    Enabled,
}

/// What a legacy policy lets be read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", tag = "type", deny_unknown_fields)]
pub enum ReadOnlyAccess {
    /// Everything.
    #[default]
    FullAccess,
    /// These, and the working directory.
    Restricted {
        /// What programs need of the system, too.
        #[serde(default = "yes")]
        include_platform_defaults: bool,
        /// Where.
        #[serde(default)]
        readable_roots: Vec<WirePath>,
    },
}

impl ReadOnlyAccess {
    fn is_full(&self) -> bool {
        *self == Self::FullAccess
    }
}

fn yes() -> bool {
    true
}

/// The files of the pair that came between the legacy shape and that of 0.169; the other half is a [`NetworkPolicy`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SplitFileSystem {
    /// Who enforces it.
    pub kind: SplitKind,
    /// How deep globs are followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub glob_scan_max_depth: Option<u32>,
    /// In any order; the longest path decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<ManagedEntry>,
}

/// Who enforces a [`SplitFileSystem`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum SplitKind {
    /// The executor.
    Restricted,
    /// Nobody.
    Unrestricted,
    /// Whoever made what surrounds the executor.
    ExternalSandbox,
}

/// `sandboxPolicy`: the shape before 0.169.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", tag = "type", deny_unknown_fields)]
pub enum LegacyPolicy {
    /// No sandbox.
    DangerFullAccess,
    /// Somebody else has put the executor into a sandbox already.
    ExternalSandbox {
        /// The network in there.
        #[serde(default)]
        network_access: NetworkPolicy,
    },
    /// Nothing writable.
    ReadOnly {
        /// What may be read.
        #[serde(default, skip_serializing_if = "ReadOnlyAccess::is_full")]
        access: ReadOnlyAccess,
        /// Whether the network is the host's.
        #[serde(default)]
        network_access: bool,
    },
    /// The working directory and these are writable.
    WorkspaceWrite {
        /// Further writable roots.
        #[serde(default)]
        writable_roots: Vec<WirePath>,
        /// What may be read besides.
        #[serde(default, skip_serializing_if = "ReadOnlyAccess::is_full")]
        read_only_access: ReadOnlyAccess,
        /// Whether the network is the host's.
        #[serde(default)]
        network_access: bool,
        /// Not `TMPDIR`.
        #[serde(default)]
        exclude_tmpdir_env_var: bool,
        /// Not `/tmp`.
        #[serde(default)]
        exclude_slash_tmp: bool,
    },
}
