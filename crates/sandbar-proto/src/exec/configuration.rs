//! An executor's own configuration files, as far as a client asks for them.

use serde::{Deserialize, Serialize};

use super::{FileSystemSandbox, LegacyPolicy, WirePath};

/// Names from the top of a file down to a value.
pub type KeyPath = Vec<String>;

/// Parameters of `environmentConfig/read`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ConfigReadParams {
    /// Whose project is meant.
    pub cwd: WirePath,
    /// What is asked for of configuration files.
    pub config_paths: Vec<KeyPath>,
    /// What is asked for of the requirements that administrators set.
    pub requirements_paths: Vec<KeyPath>,
    /// Ours: the sandbox that the files are read under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<FileSystemSandbox>,
    /// Ours: the sandbox in the legacy shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox_policy: Option<LegacyPolicy>,
}

/// Result of `environmentConfig/read`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ConfigRead {
    /// The user's home.
    pub user_home_dir: Option<WirePath>,
    /// Where the user's configuration is.
    pub codex_home_dir: WirePath,
    /// What the executor calls itself.
    pub hostname: Option<String>,
    /// Configuration files.
    pub config: ConfigLayers,
    /// Requirements.
    pub requirements: ConfigLayers,
}

/// Files in which something of what was asked for is, the weakest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ConfigLayers {
    /// The files.
    pub layers: Vec<ConfigLayer>,
    /// Before which of them a client puts what its own service prescribes.
    pub cloud_insertion_index: u64,
}

/// What one file says of what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ConfigLayer {
    /// Which file, for people.
    pub source: String,
    /// What relative paths in it begin at.
    pub base_dir: WirePath,
    /// The values, in TOML.
    pub toml: String,
}
