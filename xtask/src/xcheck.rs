//! Type-checks, for other platforms, the crates that are written for them.
//!
//! `cargo check` needs a target's standard library and neither its linker nor its C library, so this shows that the code
//! compiles there and nothing about what it does. A crate with C in its dependencies is not checked: its build script
//! would want the other platform's compiler. A target that can't be installed is a skip with the reason.

use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use anyhow::Result;

use crate::cargo::cargo;
use crate::command::{output, quiet};
use crate::test::report::{Outcome, Report, Tally};

/// Crates that claim every platform: shapes, and what is pure.
const PURE: [&str; 2] = ["sandbar-proto", "sandbar-policy"];

/// Crates that claim every Linux, as far as no C is in them.
const LINUX: [&str; 4] = ["sandbar-proto", "sandbar-policy", "sandbar-sandbox", "sandbar-keeper"];

/// Which crates claim which platform (docs/platforms.md).
const CLAIMS: [(&str, &[&str]); 4] = [
    ("aarch64-unknown-linux-gnu", &LINUX),
    ("aarch64-apple-darwin", &PURE),
    ("x86_64-apple-darwin", &PURE),
    ("x86_64-pc-windows-gnu", &PURE),
];

/// Checks every claim, prints the report, and returns whether all of them hold.
///
/// # Errors
/// None at present; what goes wrong is in the report.
pub(crate) fn run(root: &Path) -> Result<bool> {
    let mut report = Report::default();
    for (target, packages) in CLAIMS {
        println!("== {target}");
        let started = Instant::now();
        let outcome = match install(root, target) {
            Ok(()) => check(root, target, packages),
            Err(reason) => Outcome::skipped(format!("{target}: {reason}")),
        };
        println!("== {target} {} in {:.1} s", outcome.word(), started.elapsed().as_secs_f64());
        report.add(target, outcome, started.elapsed());
    }
    println!("\n{report}");
    Ok(report.passed())
}

/// Sees to it that the standard library of `target` is there, or says why it is not.
fn install(root: &Path, target: &str) -> Result<(), String> {
    let rustup = || {
        let mut command = quiet("rustup");
        command.current_dir(root).stderr(Stdio::null());
        command
    };
    let installed = output(rustup().args(["target", "list", "--installed"]))
        .map_err(|_| "rustup is not installed, and only it installs targets".to_owned())?;
    if installed.lines().any(|line| line == target) {
        return Ok(());
    }
    let added = quiet("rustup").current_dir(root).args(["target", "add", target]).output();
    match added {
        Ok(added) if added.status.success() => Ok(()),
        Ok(added) => Err(last_line(&added.stderr)),
        Err(error) => Err(error.to_string()),
    }
}

fn last_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("rustup says nothing").to_owned()
}

/// Checks the libraries; their tests need more than these platforms have.
fn check(root: &Path, target: &str, packages: &[&str]) -> Outcome {
    let mut command = cargo(root);
    command.args(["check", "--quiet", "--lib", "--target", target, "--target-dir", "target/xcheck"]);
    for package in packages {
        command.args(["--package", package]);
    }
    command.env("RUSTFLAGS", "-D warnings");
    match command.status() {
        Ok(status) if status.success() => {
            let tally = Tally { passed: packages.len() as u64, ..Tally::default() };
            Outcome { tally, ..Outcome::default() }
        }
        Ok(status) => Outcome::failed(format!("{}: cargo check ended with {status}", packages.join(", "))),
        Err(error) => Outcome::failed(format!("cargo: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_for_a_skip_is_what_was_said_last() {
        assert_eq!(last_line(b"info: downloading\nerror: no release\n\n"), "error: no release");
        assert_eq!(last_line(b""), "rustup says nothing");
    }
}
