//! The sandbox's tests again with every other executor than the usual one: what holds of one has to hold of all.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Result;

use super::harness::run_suite;
use super::report::Outcome;
use crate::cargo::{Executable, ExecutableKind};
use crate::command::on_system_path;

/// The variable that tells a suite which executor its runs have.
pub(super) const EXECUTOR: &str = "SANDBAR_TEST_EXECUTOR";

/// Suites that ask about nothing but what a command can and can't do, and what is left behind it.
const SUITES: &[&str] = &[
    "sandbar::sandbox",
    "sandbar::views",
    "sandbar::profiles",
    "sandbar::guard",
    "sandbar::litter",
    "sandbar::terminal",
    "sandbar::programs",
];

/// Of these, those that a sandbox of Landlock alone can be asked by. What it is meant to differ in is in a suite of its
/// own, `sandbar::landlock`.
const BY_LANDLOCK: &[&str] = &["sandbar::views"];

/// The executors that a suite is run with besides the usual one.
pub(super) fn executors_for(suite: &str) -> Vec<&'static str> {
    let bwrap = SUITES.contains(&suite) && on_system_path("bwrap");
    let landlock = BY_LANDLOCK.contains(&suite);
    [("bwrap", bwrap), ("landlock", landlock)]
        .into_iter()
        .filter(|(_, runs)| *runs)
        .map(|(name, _)| name)
        .collect()
}

/// Runs the suites as whoever this is.
///
/// # Errors
/// A suite can't be started.
pub(super) fn run(built: &[Executable], sandbar: &Path) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    if !on_system_path("bwrap") {
        outcome = Outcome::skipped("bwrap is not installed");
    }
    for executable in built.iter().filter(|executable| executable.kind == ExecutableKind::Test) {
        let name = format!("{}::{}", executable.package, executable.target);
        for executor in executors_for(&name) {
            let command = || {
                let mut command = Command::new(&executable.path);
                command.env(EXECUTOR, executor).env("SANDBAR_BIN", sandbar).env("INSTA_UPDATE", "no");
                command.current_dir(&executable.folder).stdout(Stdio::piped());
                command
            };
            outcome.add(run_suite(&name, &format!(" (by {executor})"), command)?);
        }
    }
    Ok(outcome)
}
