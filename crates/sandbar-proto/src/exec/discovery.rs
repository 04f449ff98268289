//! Skills and plugins that are installed on the executor.

use serde::{Deserialize, Serialize};

use super::{FileSystemSandbox, LegacyPolicy, WirePath};

/// Parameters of `capabilities/discoverV2`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct DiscoverParams {
    /// Where a sandbox's relative places begin; what is found does not depend on it.
    pub cwd: WirePath,
    /// The sandbox that the files are read under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<FileSystemSandbox>,
    /// The sandbox in the legacy shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox_policy: Option<LegacyPolicy>,
}

/// Result of `capabilities/discoverV2`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Discovered {
    /// By their ids.
    pub plugins: Vec<InstalledPlugin>,
    /// Those that belong to no plugin.
    pub skills: Vec<InstalledSkill>,
    /// What may be missing, for people.
    pub warnings: Vec<String>,
}

/// A skill that belongs to no plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct InstalledSkill {
    /// The skill.
    #[serde(flatten)]
    pub skill: Skill,
    /// Where it was found.
    pub discovery_root: DiscoveryRoot,
}

/// A directory in which skills are looked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DiscoveryRoot {
    /// `codex-home-skills`, `user-agent-skills` or `system-skills`.
    pub id: String,
    /// The directory.
    pub path: WirePath,
}

/// What a `SKILL.md` says about its skill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Skill {
    /// Its name, behind that of its plugin and a colon if it has one.
    pub name: String,
    /// When to use it.
    pub description: String,
    /// The same, shorter.
    pub short_description: Option<String>,
    /// The `SKILL.md`.
    pub path: WirePath,
    /// What it needs.
    pub dependencies: Option<SkillDependencies>,
    /// When it may be used.
    pub policy: Option<SkillPolicy>,
}

/// What a skill needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SkillDependencies {
    /// Tools, such as MCP servers and environment variables.
    pub tools: Vec<SkillTool>,
}

/// A tool that a skill needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct SkillTool {
    /// `mcp`, `env_var`, `cli`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its name.
    pub value: String,
    /// For people.
    pub description: Option<String>,
    /// How it is spoken to.
    pub transport: Option<String>,
    /// What starts it.
    pub command: Option<String>,
    /// Where it is.
    pub url: Option<String>,
    /// Always null here, as the peer's was whatever a skill said.
    pub oauth_callback_port: Option<u16>,
}

/// When a skill may be used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct SkillPolicy {
    /// Whether without being named.
    pub allow_implicit_invocation: Option<bool>,
    /// In which products; in all, if there is none.
    pub products: Vec<String>,
}

/// A plugin. Whether it is enabled is the client's matter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct InstalledPlugin {
    /// `NAME@MARKETPLACE`.
    pub id: String,
    /// Its name for people.
    pub display_name: String,
    /// Always null here: what a plugin that was installed by a service writes about itself is not read.
    pub remote_plugin_id: Option<String>,
    /// The newest one that is installed.
    pub version: String,
    /// Its directory.
    pub root: WirePath,
    /// Its files that clients read.
    pub files: PluginFiles,
    /// Its skills.
    pub skills: Vec<Skill>,
}

/// Files of a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct PluginFiles {
    /// What it is.
    pub manifest: TextFile,
    /// Its MCP servers.
    pub mcp_config: Option<TextFile>,
    /// Its apps.
    pub apps_config: Option<TextFile>,
}

/// A file with its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TextFile {
    /// Where.
    pub path: WirePath,
    /// All of it.
    pub contents: String,
}
