//! What the executor is: everything of this machine that requests are answered from, read once at the edge.

use std::path::PathBuf;

use sandbar_keeper::RuntimeDir;
use sandbar_policy::{OwnDirectories, ProfileTable};
use sandbar_proto::exec::{Capabilities, EnvironmentInfo, Shell, WirePath};
use sandbar_proto::{AbsPath, EnvVar, LimitFacts, ProcessAttributes};

use super::http::allow::AllowedHost;

/// The executor.
#[derive(Debug, Clone)]
pub struct Host {
    /// Release of this program.
    pub version: String,
    /// This program's own file, which is started in a sandbox to touch files there.
    pub program: AbsPath,
    /// The executor's own environment, the base of those of processes.
    pub env: Vec<EnvVar>,
    /// Where the server was started.
    pub cwd: AbsPath,
    /// The user's home.
    pub home: Option<AbsPath>,
    /// Sandbar's own directories.
    pub own: OwnDirectories,
    /// Directories of host sockets to hide besides `/run`.
    pub runtime_roots: Vec<AbsPath>,
    /// umask, nice value and resource limits of processes.
    pub attributes: ProcessAttributes,
    /// The user's shell.
    pub shell: AbsPath,
    /// What the keeper can enforce limits with.
    pub limits: LimitFacts,
    /// Where this user's keepers are.
    pub runtime: RuntimeDir,
    /// Where servers tell each other which of them live. Made by the caller, for this user alone.
    pub servers: PathBuf,
    /// What this program is linked with, as it is loaded: where nothing is readable that is not named, the helper needs these.
    pub libraries: Vec<AbsPath>,
    /// Profiles that the person here wrote, which clients may name.
    pub profiles: Vec<ProfileTable>,
    /// What `http/request` may reach; nothing if this is empty.
    pub http_allow: Vec<AllowedHost>,
}

impl Host {
    /// `TMPDIR`, if it says something.
    pub(super) fn tmpdir(&self) -> Option<AbsPath> {
        let set = self.env.iter().find(|var| var.name.as_bytes() == b"TMPDIR")?;
        AbsPath::new(set.value.clone()).ok()
    }

    /// Where Codex keeps this user's configuration: what the client finds here is its own kind's.
    pub(super) fn codex_home(&self) -> Option<AbsPath> {
        let set = self.env.iter().find(|var| var.name.as_bytes() == b"CODEX_HOME");
        let set = set.and_then(|var| AbsPath::new(var.value.clone()).ok());
        set.or_else(|| self.home.as_ref()?.join(".codex").ok())
    }

    /// The directories of `PATH`; relative ones are left out.
    pub(super) fn search_path(&self) -> Vec<AbsPath> {
        let set = self.env.iter().find(|var| var.name.as_bytes() == b"PATH");
        let path = set.map(|set| set.value.as_bytes()).unwrap_or_default();
        path.split(|byte| *byte == b':')
            .filter_map(|directory| AbsPath::new(directory.to_vec()).ok())
            .collect()
    }

    /// What the executor's own environment says to git.
    pub(super) fn git_env(&self) -> Vec<EnvVar> {
        let says = |var: &&EnvVar| {
            let name = var.name.as_bytes();
            name.starts_with(b"GIT_") || name == b"XDG_CONFIG_HOME"
        };
        self.env.iter().filter(says).cloned().collect()
    }

    pub(super) fn info(&self) -> EnvironmentInfo {
        let temporary = self.tmpdir().or_else(|| AbsPath::root().join("tmp").ok());
        EnvironmentInfo {
            shell: Shell {
                name: self
                    .shell
                    .file_name()
                    .map(|name| String::from_utf8_lossy(name).into_owned())
                    .unwrap_or_default(),
                path: self.shell.to_display(),
            },
            executor_version: Some(self.version.clone()),
            cwd: Some(WirePath(self.cwd.clone())),
            user_home_dir: self.home.clone().map(WirePath),
            platform_os: Some(std::env::consts::OS.to_owned()),
            prepend_path_dirs: Vec::new(),
            temporary_directories: Vec::new(),
            temp_dir: temporary.map(WirePath),
            capabilities: Capabilities {
                fs_watch_missing: true,
                sandboxed_file_streaming: true,
                file_write_streaming: true,
                environment_config_read: true,
                capability_discovery_v2: true,
                http_header_env_vars: !self.http_allow.is_empty(),
                ..Capabilities::default()
            },
        }
    }
}
