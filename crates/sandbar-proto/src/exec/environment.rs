//! What an executor is.

use serde::{Deserialize, Serialize};

use super::WirePath;

/// Result of `environment/info`, and part of that of `initialize`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentInfo {
    /// The user's shell.
    pub shell: Shell,
    /// Release of the executor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executor_version: Option<String>,
    /// Where commands run that name no directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<WirePath>,
    /// The user's home.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_home_dir: Option<WirePath>,
    /// `linux`, `macos` or `windows`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform_os: Option<String>,
    /// Directories to put before `PATH`.
    #[serde(default)]
    pub prepend_path_dirs: Vec<WirePath>,
    /// Directories that are temporary.
    #[serde(default)]
    pub temporary_directories: Vec<WirePath>,
    /// The temporary directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temp_dir: Option<WirePath>,
    /// What the executor can.
    #[serde(default)]
    pub capabilities: Capabilities,
}

/// The user's shell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Shell {
    /// Name of the program, such as `bash`.
    pub name: String,
    /// Its path, plain.
    pub path: String,
}

/// What an executor can, by the dialect's names; only what is true is announced as true.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
#[expect(clippy::struct_excessive_bools, reason = "the dialect's own shape")]
pub struct Capabilities {
    /// Starts a network proxy with a process.
    pub network_proxy_launch: bool,
    /// Asks about domains.
    pub network_proxy_review_domains: bool,
    /// Masks credentials.
    pub credential_masking: bool,
    /// Masks those of custom providers.
    pub credential_masking_custom_providers: bool,
    /// Discovers capabilities within a sandbox.
    pub capability_discovery_sandbox: bool,
    /// Serves `fs/watchMissing`.
    pub fs_watch_missing: bool,
    /// Serves `capabilities/discoverV2`.
    pub capability_discovery_v2: bool,
    /// Serves `environmentConfig/read`.
    pub environment_config_read: bool,
    /// Substitutes variables in headers of `http/request`.
    pub http_header_env_vars: bool,
    /// Serves `fs/open` for reading under a sandbox.
    pub sandboxed_file_streaming: bool,
    /// Serves `fs/open` for writing.
    pub file_write_streaming: bool,
    /// Keeps snapshots of a shell.
    pub shell_snapshot_v2: bool,
    /// A sandbox of Windows.
    pub windows_mxc: bool,
    /// A writable root keeps devices.
    pub linux_root_write_preserves_devices: bool,
    /// An approved writable root keeps restrictions.
    pub linux_approved_root_write_preserves_restrictions: bool,
}

/// Result of `environment/status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", tag = "status")]
pub enum EnvironmentStatus {
    /// It takes work.
    Ready,
}
