//! What a test needs of its host, and how a host without it is told.
//!
//! Each function returns what was found, or a reason for the line that `need!` prints.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::PATH;

/// What was found, or why it is missing.
pub type Need<T> = Result<T, String>;

/// A program on [`PATH`].
///
/// # Errors
/// It is not installed.
pub fn program(name: &str) -> Need<PathBuf> {
    let found = PATH.split(':').map(|folder| Path::new(folder).join(name)).find(|path| path.is_file());
    found.ok_or_else(|| format!("{name} is not installed"))
}

/// Whether this process is uid 0.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// User namespaces, without which nothing runs in a native sandbox.
///
/// # Errors
/// The kernel, or whoever configured it, refuses them.
pub fn user_namespaces() -> Need<()> {
    succeeds(&["unshare", "--user", "--map-root-user", "true"])
        .then_some(())
        .ok_or_else(|| "this host refuses user namespaces".to_owned())
}

/// A command that runs what follows it in a mount namespace of its own, where it may mount.
///
/// # Errors
/// No such namespace can be made.
pub fn private_mounts() -> Need<&'static [&'static str]> {
    let prefix: &[&str] = if is_root() {
        &["unshare", "--mount"]
    } else {
        &["unshare", "--user", "--map-root-user", "--mount"]
    };
    let mut trial = prefix.to_vec();
    trial.extend(["mount", "-t", "tmpfs", "tmpfs", "/mnt"]);
    succeeds(&trial).then_some(prefix).ok_or_else(|| "this host lets nobody here mount a tmpfs".to_owned())
}

/// Codex's native program, from what `cargo xtask peers` installed beside `target_tmp`, which is the test's own
/// `CARGO_TARGET_TMPDIR`.
///
/// # Errors
/// It is not installed.
pub fn codex(target_tmp: &Path) -> Need<PathBuf> {
    let scope = target_tmp.with_file_name("peers").join("node_modules/@openai");
    // `codex-PLATFORM/vendor/TRIPLE/…/codex`, whatever platform npm chose.
    let found = entries(&scope)
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("codex-")))
        .flat_map(|platform| entries(&platform.join("vendor")))
        .flat_map(|triple| [triple.join("bin/codex"), triple.join("codex/codex")])
        .find(|path| path.is_file());
    found.ok_or_else(|| "Codex is not installed: `cargo xtask peers`".to_owned())
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// An executor that can do something that not all of them can; `which` can.
///
/// # Errors
/// The tests run with another one.
pub fn executor_that(does: &str, which: &[&str]) -> Need<()> {
    let executor = std::env::var(crate::home::EXECUTOR).unwrap_or_else(|_| "native".to_owned());
    that(which.contains(&executor.as_str()), &format!("an executor that {does}, and this is {executor}"))
}

/// Another requirement, in words.
///
/// # Errors
/// It is not met.
pub fn that(is_met: bool, missing: &str) -> Need<()> {
    is_met.then_some(()).ok_or_else(|| missing.to_owned())
}

fn succeeds(command: &[&str]) -> bool {
    let Some((program, arguments)) = command.split_first() else { return false };
    let quiet = Command::new(program)
        .args(arguments)
        .env("PATH", PATH)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    quiet.is_ok_and(|status| status.success())
}
