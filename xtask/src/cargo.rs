//! What cargo knows of the workspace, as far as tasks ask.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::command::{output, quiet};

/// An executable that cargo built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Executable {
    /// Package it belongs to.
    pub(crate) package: String,
    /// Name of the target: of the library, binary or test file.
    pub(crate) target: String,
    /// A test harness, or a program.
    pub(crate) kind: ExecutableKind,
    /// Where it is.
    pub(crate) path: PathBuf,
    /// The folder of its package, in which cargo starts tests.
    pub(crate) folder: PathBuf,
}

/// What an executable is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExecutableKind {
    /// libtest.
    Test,
    /// A program of the workspace.
    Program,
}

/// The workspace that this binary was built from.
///
/// # Errors
/// When the folder is not there any more.
pub(crate) fn workspace_root() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().context("xtask has no parent folder")?.canonicalize().context("the workspace is gone")
}

/// A cargo command in the workspace.
pub(crate) fn cargo(root: &Path) -> Command {
    let mut command = quiet(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

/// Whether `cargo NAME` works here.
pub(crate) fn has_subcommand(root: &Path, name: &str) -> bool {
    cargo(root).args([name, "--version"]).output().is_ok_and(|output| output.status.success())
}

/// `cargo metadata`, with or without the packages outside the workspace.
///
/// # Errors
/// When cargo fails.
pub(crate) fn metadata(root: &Path, dependencies: Dependencies) -> Result<Value> {
    let mut command = cargo(root);
    command.args(["metadata", "--format-version", "1"]);
    if dependencies == Dependencies::Excluded {
        command.arg("--no-deps");
    }
    serde_json::from_str(&output(&mut command)?).context("cargo metadata wrote other than JSON")
}

/// Whether [`metadata`] covers packages outside the workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dependencies {
    /// All of them, for every platform.
    Included,
    /// Workspace members only.
    Excluded,
}

/// Where cargo puts what it builds.
///
/// # Errors
/// When cargo fails.
pub(crate) fn target_directory(root: &Path) -> Result<PathBuf> {
    let metadata = metadata(root, Dependencies::Excluded)?;
    let directory =
        metadata["target_directory"].as_str().context("cargo metadata has no target_directory")?;
    Ok(directory.into())
}

/// Builds every test of the workspace and the program `sandbar`, and returns the executables.
///
/// # Errors
/// When the workspace does not compile.
pub(crate) fn build_tests(root: &Path) -> Result<Vec<Executable>> {
    let mut built = build(cargo(root).args(["test", "--workspace", "--no-run"]))?;
    // cargo builds a package's programs for its integration tests only; without one there is no `sandbar`.
    if !built.iter().any(is_sandbar) {
        built.extend(build(cargo(root).args(["build", "--package", "sandbar"]))?);
    }
    Ok(built)
}

/// Whether this is the program itself.
pub(crate) fn is_sandbar(executable: &Executable) -> bool {
    executable.kind == ExecutableKind::Program && executable.target == "sandbar"
}

/// Whether this is the program that tries to escape from sandboxes.
pub(crate) fn is_probe(executable: &Executable) -> bool {
    executable.kind == ExecutableKind::Program && executable.target == "escape-probe"
}

/// Runs a cargo command that builds, and returns the executables.
///
/// # Errors
/// When it does not compile.
pub(crate) fn build(command: &mut Command) -> Result<Vec<Executable>> {
    Ok(executables(&output(command.arg("--message-format=json-render-diagnostics"))?))
}

/// Reads cargo's messages (`--message-format=json`), ignoring what is not an executable.
fn executables(messages: &str) -> Vec<Executable> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter_map(|m| executable(&m))
        .collect()
}

fn executable(message: &Value) -> Option<Executable> {
    let path = PathBuf::from(message["executable"].as_str()?);
    let manifest = Path::new(message["manifest_path"].as_str()?);
    let kind = match message["profile"]["test"].as_bool()? {
        true => ExecutableKind::Test,
        false => ExecutableKind::Program,
    };
    Some(Executable {
        // The folder is the crate's name (ARCHITECTURE: rooms).
        package: manifest.parent()?.file_name()?.to_str()?.to_owned(),
        target: message["target"]["name"].as_str()?.to_owned(),
        kind,
        path,
        folder: manifest.parent()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_read_from_cargos_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","manifest_path":"/w/crates/sandbar-keeper/Cargo.toml","#,
            r#""target":{"name":"kill"},"profile":{"test":true},"executable":"/t/kill-1"}"#,
            "\nnot json\n",
            r#"{"reason":"compiler-artifact","manifest_path":"/w/crates/sandbar/Cargo.toml","#,
            r#""target":{"name":"sandbar"},"profile":{"test":false},"executable":"/t/sandbar"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","manifest_path":"/w/crates/sandbar-proto/Cargo.toml","#,
            r#""target":{"name":"sandbar_proto"},"profile":{"test":false},"executable":null}"#,
        );
        let found = executables(messages);
        assert_eq!(
            found,
            [
                Executable {
                    package: "sandbar-keeper".into(),
                    target: "kill".into(),
                    kind: ExecutableKind::Test,
                    path: "/t/kill-1".into(),
                    folder: "/w/crates/sandbar-keeper".into(),
                },
                Executable {
                    package: "sandbar".into(),
                    target: "sandbar".into(),
                    kind: ExecutableKind::Program,
                    path: "/t/sandbar".into(),
                    folder: "/w/crates/sandbar".into(),
                },
            ]
        );
        assert_eq!(found.iter().map(is_sandbar).collect::<Vec<_>>(), [false, true]);
    }
}
