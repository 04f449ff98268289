//! The programs that Sandbar is measured against: where they are, how they are installed, which version it is.
//!
//! They live under `target/peers` and are never on anybody's `PATH`; bubblewrap is the system's own, as it would
//! be for the peers' users.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cargo;
use crate::command::{check, on_system_path, quiet};
use crate::packages::{self, FOR_PEERS, Install};

/// Pinned, because the targets of docs and benches name this version.
const CODEX: &str = "@openai/codex@0.169.0";
const SANDBOX_RUNTIME: &str = "@anthropic-ai/sandbox-runtime";

/// Peers that were found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Peers {
    /// The system's bubblewrap.
    pub(crate) bwrap: Option<PathBuf>,
    /// Codex's native executable: its node wrapper would add a node start that users of other installations
    /// do not have.
    pub(crate) codex: Option<PathBuf>,
    /// sandbox-runtime's command, a node program.
    pub(crate) srt: Option<PathBuf>,
}

/// Installs the peers and prints which versions are there.
///
/// # Errors
/// When npm or apt-get fails.
pub(crate) fn install(root: &Path) -> Result<bool> {
    let directory = directory(root)?;
    std::fs::create_dir_all(&directory).with_context(|| format!("could not make {}", directory.display()))?;
    check(
        quiet("npm")
            .args(["install", "--no-audit", "--no-fund", "--prefix"])
            .arg(&directory)
            .args([CODEX, SANDBOX_RUNTIME]),
    )
    .context("npm is needed for the peers")?;
    let missing = packages::ensure(FOR_PEERS, Install::Allowed)?;
    if let Some(missing) = &missing {
        println!("{missing}");
    }
    for (name, version) in find(root)?.versions() {
        println!("{name:<8} {}", version.as_deref().unwrap_or("not found"));
    }
    Ok(missing.is_none())
}

/// Looks for installed peers.
///
/// # Errors
/// When cargo cannot say where its target directory is.
pub(crate) fn find(root: &Path) -> Result<Peers> {
    let modules = directory(root)?.join("node_modules");
    let bwrap = on_system_path("bwrap").then(|| PathBuf::from("bwrap"));
    let srt = Some(modules.join(".bin/srt")).filter(|path| path.exists());
    Ok(Peers { bwrap, codex: native_codex(&modules.join("@openai")), srt })
}

impl Peers {
    /// Each peer's name and the first line of its `--version`.
    pub(crate) fn versions(&self) -> [(&'static str, Option<String>); 3] {
        [("bwrap", &self.bwrap), ("codex", &self.codex), ("srt", &self.srt)]
            .map(|(name, program)| (name, program.as_deref().and_then(version)))
    }
}

fn directory(root: &Path) -> Result<PathBuf> {
    Ok(cargo::target_directory(root)?.join("peers"))
}

/// `@openai/codex-PLATFORM/vendor/TRIPLE/…/codex`, whatever platform npm chose.
fn native_codex(scope: &Path) -> Option<PathBuf> {
    let platform = entries(scope)
        .into_iter()
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("codex-")))?;
    let triples = entries(&platform.join("vendor"));
    triples
        .iter()
        .flat_map(|triple| [triple.join("bin/codex"), triple.join("codex/codex")])
        .find(|p| p.is_file())
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<_> =
        std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    entries.sort();
    entries
}

fn version(program: &Path) -> Option<String> {
    let output = quiet(program).arg("--version").output().ok()?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codex_is_found_below_whatever_platform_package_npm_chose() {
        let scope = tempfile::tempdir().unwrap();
        let bin = scope.path().join("codex-linux-x64/vendor/x86_64-unknown-linux-musl/bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::create_dir_all(scope.path().join("codex/bin")).unwrap();
        assert_eq!(native_codex(scope.path()), None);
        std::fs::write(bin.join("codex"), "").unwrap();
        assert_eq!(native_codex(scope.path()), Some(bin.join("codex")));
    }
}
