//! `environmentConfig/read`: what configuration files of this executor say, as far as a client asks.
//!
//! A client that works here wants to know what is set up here, such as MCP servers. The files are those of Codex, which
//! the client is: the system's, the user's, those of projects that the user trusts, and what an administrator
//! requires. Only values whose names were asked for leave this machine, without the comments beside them. Nothing is
//! merged and nothing is given a meaning: that is the client's part.

mod projects;
mod select;

use sandbar_proto::AbsPath;
use sandbar_proto::exec::{ConfigLayer, ConfigLayers, ConfigRead, ConfigReadParams, KeyPath, WirePath};
use sandbar_proto::rpc::{RpcError, code};
use toml_edit::{DocumentMut, Item, Table, Value};

use super::reading::Reading;
use super::{Host, refusal};

/// Largest file that is read. The peer has no bound; people's files have a few thousand bytes.
const MAX_FILE_BYTES: usize = 1024 * 1024;

/// Most values that are asked for at a time.
const MAX_KEY_PATHS: usize = 1000;

/// Longest way to a value.
const MAX_KEYS: usize = 32;

/// Where an administrator's files are.
const SYSTEM: &str = "/etc/codex";

/// Keys that a project may not set, since they say where prompts and credentials go; the peer's list.
const NOT_FOR_PROJECTS: [&str; 11] = [
    "apps_mcp_product_sku",
    "chatgpt_base_url",
    "experimental_realtime_webrtc_call_base_url",
    "experimental_realtime_ws_base_url",
    "model_provider",
    "model_providers",
    "notify",
    "openai_base_url",
    "otel",
    "profile",
    "profiles",
];

/// What was asked for, once it has been looked at.
struct Wanted {
    config: Vec<KeyPath>,
    requirements: Vec<KeyPath>,
}

impl Wanted {
    fn check(params: &ConfigReadParams) -> Result<Self, RpcError> {
        let (config, requirements) = (&params.config_paths, &params.requirements_paths);
        if config.is_empty() && requirements.is_empty() {
            return Err(refusal::params("at least one config or requirements path is required"));
        }
        if config.len() + requirements.len() > MAX_KEY_PATHS {
            return Err(refusal::params(format!("at most {MAX_KEY_PATHS} paths are looked for at a time")));
        }
        for path in config.iter().chain(requirements) {
            if path.is_empty() {
                return Err(refusal::params("TOML paths must contain at least one key segment"));
            }
            if path.len() > MAX_KEYS {
                return Err(refusal::params(format!("TOML paths have at most {MAX_KEYS} key segments")));
            }
        }
        Ok(Self { config: config.clone(), requirements: requirements.clone() })
    }
}

/// Carries the method out.
///
/// # Errors
/// The parameters mean nothing, there is no home, or a file can't be read or is no TOML.
pub(super) async fn read(
    host: &Host,
    reading: &Reading<'_>,
    params: &ConfigReadParams,
) -> Result<ConfigRead, RpcError> {
    let wanted = Wanted::check(params)?;
    let codex_home = host.codex_home().ok_or_else(|| failed("this executor has no home directory"))?;
    let system = AbsPath::new(SYSTEM).map_err(|error| failed(&error.to_string()))?;
    let files = Files { reading, codex_home: &codex_home, system: &system };
    let config = files.config(&wanted.config, &params.cwd.0).await?;
    let requirements = files.requirements(&wanted.requirements).await?;
    Ok(ConfigRead {
        user_home_dir: host.home.clone().map(WirePath),
        codex_home_dir: WirePath(codex_home),
        hostname: rustix::system::uname().nodename().to_str().ok().map(str::to_owned),
        config,
        requirements,
    })
}

fn failed(why: &str) -> RpcError {
    let message = format!("failed to load executor-local config: {why}");
    RpcError::with_kind(code::INTERNAL, "config", message)
}

/// Layers as they are found.
#[derive(Default)]
struct Stack {
    layers: Vec<ConfigLayer>,
}

impl Stack {
    /// Adds what `document` says of `wanted`, if that is anything.
    fn add(&mut self, source: String, base_dir: &AbsPath, document: &Table, wanted: &[KeyPath]) {
        let found = select::select(document, wanted);
        if !found.is_empty() {
            let base_dir = WirePath(base_dir.clone());
            self.layers.push(ConfigLayer { source, base_dir, toml: select::to_text(found) });
        }
    }

    fn len(&self) -> u64 {
        self.layers.len() as u64
    }
}

/// The files of one request.
struct Files<'a> {
    reading: &'a Reading<'a>,
    codex_home: &'a AbsPath,
    system: &'a AbsPath,
}

impl Files<'_> {
    /// A file, if there is one.
    async fn load(&self, path: &AbsPath) -> Result<Option<DocumentMut>, RpcError> {
        let failed = |why: &dyn std::fmt::Display| failed(&format!("{}: {why}", path.to_display()));
        let text = self.reading.text(path, MAX_FILE_BYTES).await.map_err(|why| failed(&why))?;
        text.map(|text| parse(&text).map_err(|why| failed(&why))).transpose()
    }

    async fn config(&self, wanted: &[KeyPath], cwd: &AbsPath) -> Result<ConfigLayers, RpcError> {
        let mut stack = Stack::default();
        if wanted.is_empty() {
            return Ok(ConfigLayers::default());
        }
        let at = below(self.system, "config.toml")?;
        let system = self.load(&at).await?.unwrap_or_default();
        stack.add(format!("system ({})", at.to_display()), self.system, &system, wanted);
        let cloud_insertion_index = stack.len();
        let at = below(self.codex_home, "config.toml")?;
        let user = self.load(&at).await?.unwrap_or_default();
        stack.add(format!("user ({})", at.to_display()), self.codex_home, &user, wanted);
        for folder in projects::folders(self.reading, [&system, &user], cwd).await {
            let folder = below(&folder, ".codex")?;
            // The user's own file, where the home is a project.
            if folder == *self.codex_home {
                continue;
            }
            let at = below(&folder, "config.toml")?;
            let Some(mut document) = self.load(&at).await? else { continue };
            for key in NOT_FOR_PROJECTS {
                document.remove(key);
            }
            stack.add(format!("project ({})", at.to_display()), &folder, &document, wanted);
        }
        let at = below(self.system, "managed_config.toml")?;
        if let Some(managed) = self.load(&at).await? {
            let source = format!("legacy managed_config.toml ({})", at.to_display());
            stack.add(source, self.system, &managed, wanted);
        }
        Ok(ConfigLayers { layers: stack.layers, cloud_insertion_index })
    }

    async fn requirements(&self, wanted: &[KeyPath]) -> Result<ConfigLayers, RpcError> {
        let mut stack = Stack::default();
        if wanted.is_empty() {
            return Ok(ConfigLayers::default());
        }
        let at = below(self.system, "requirements.toml")?;
        if let Some(document) = self.load(&at).await? {
            stack.add(at.to_display(), self.system, &document, wanted);
        }
        let cloud_insertion_index = stack.len();
        let at = below(self.system, "managed_config.toml")?;
        if let Some(managed) = self.load(&at).await? {
            stack.add(at.to_display(), self.system, &required(&managed), wanted);
        }
        Ok(ConfigLayers { layers: stack.layers, cloud_insertion_index })
    }
}

/// Reads TOML. What is wrong with it is said without the line that is wrong: nobody knows whether that was asked for.
fn parse(text: &str) -> Result<DocumentMut, String> {
    text.parse::<DocumentMut>().map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        format!("line {}: {}", before.split('\n').count(), error.message())
    })
}

fn below(folder: &AbsPath, name: &str) -> Result<AbsPath, RpcError> {
    folder.join(name).map_err(|error| failed(&error.to_string()))
}

/// What an administrator's older file requires: its approval policy, and its sandbox or a stricter one.
fn required(managed: &Table) -> Table {
    let mut table = Table::new();
    let array = |values: &[&str]| Item::Value(Value::Array(values.iter().copied().collect()));
    if let Some(policy) = managed.get("approval_policy").and_then(Item::as_str) {
        table.insert("allowed_approval_policies", array(&[policy]));
    }
    if let Some(mode) = managed.get("sandbox_mode").and_then(Item::as_str) {
        let modes: &[&str] = if mode == "read-only" { &[mode] } else { &["read-only", mode] };
        table.insert("allowed_sandbox_modes", array(modes));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(config: &[&[&str]]) -> Result<Wanted, RpcError> {
        let path = |path: &&[&str]| path.iter().map(|&key| key.to_owned()).collect();
        Wanted::check(&ConfigReadParams {
            cwd: WirePath(AbsPath::root()),
            config_paths: config.iter().map(path).collect(),
            requirements_paths: Vec::new(),
            sandbox: None,
            sandbox_policy: None,
        })
    }

    #[test]
    fn what_is_asked_for_has_bounds() {
        assert!(wanted(&[&["model"]]).is_ok());
        assert!(wanted(&[]).is_err());
        assert!(wanted(&[&[]]).is_err());
        assert!(wanted(&[&["a"; MAX_KEYS + 1]]).is_err());
        assert!(wanted(&[&["a"] as &[&str]; MAX_KEY_PATHS + 1]).is_err());
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_without_its_words() {
        let why = parse("model = 'm'\ntoken = 'hunter2\nx = 1\n").unwrap_err();
        assert!(why.starts_with("line 2: "), "{why}");
        for word in ["hunter2", "token"] {
            assert!(!why.contains(word), "{why}");
        }
        assert!(parse("model = 'm'").is_ok());
    }

    #[test]
    fn an_older_file_of_an_administrator_requires_what_it_sets() {
        let required = |text: &str| {
            let managed: DocumentMut = text.parse().unwrap();
            select::to_text(required(&managed))
        };
        assert_eq!(
            required("approval_policy = 'never'\nsandbox_mode = 'workspace-write'\nmodel = 'm'"),
            "allowed_approval_policies = [\"never\"]\nallowed_sandbox_modes = [\"read-only\", \"workspace-write\"]\n"
        );
        assert_eq!(required("sandbox_mode = 'read-only'"), "allowed_sandbox_modes = [\"read-only\"]\n");
        assert_eq!(required("model = 'm'"), "");
    }
}
