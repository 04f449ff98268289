//! S4: a build from nothing inside a sandbox and outside of one.
//!
//! The project is this repository's own policy with all that it depends on: several dozen packages, procedural macros and
//! build scripts among them. Nothing is fetched, and what was built before is removed outside of the time that is taken.

use std::path::Path;

use anyhow::{Context, Result};

use super::contender::Line;
use super::race::{Contender, Pace, race};
use super::row::{Role, Row, Target};
use super::world::World;
use crate::cargo::cargo;
use crate::command::{check, output, quiet};

/// What is built.
const PACKAGE: &str = "sandbar-policy";

/// A build takes seconds, and the two take turns: what the machine does besides is shared by both.
const ROUNDS: u32 = 12;

/// Measures the row of S4.
///
/// # Errors
/// The sources can't be copied, or a build fails.
pub(super) fn row(world: &World, root: &Path, runs: u32) -> Result<Row> {
    copy_sources(root, &world.workspace)?;
    // Whatever is missing is fetched before, where there is a network.
    check(cargo(&world.workspace).args(["fetch", "--locked"]))?;
    let rounds = runs.min(ROUNDS);
    eprintln!("measuring S4: a build of {PACKAGE}, {rounds} rounds");
    let inside = world.run(world.runtime.path()).args(["--", "cargo"]);
    let outside = Line::new("cargo", &world.workspace);
    let contenders = vec![build(inside, "inside", world), build(outside, "outside", world)];
    let mut times = race(contenders, rounds, Pace::EveryRound)?.into_iter();
    let ours = times.next().context("a race without times")?;
    let others = times.map(|times| (Role::Floor, times)).collect();
    let targets = vec![Target::near("outside", 1.02)];
    Ok(Row { id: "S4", name: "a cargo build from nothing", ours, others, targets, bytes: None })
}

/// A build from nothing by `cargo`, which may be one in a sandbox.
fn build<'a>(cargo: Line, name: &str, world: &'a World) -> Contender<'a> {
    let target = world.workspace.join("target").join(name);
    let line = cargo
        .args(["build", "--offline", "--quiet", "--package", PACKAGE, "--target-dir"])
        .args([target.as_os_str()]);
    let work = move || {
        if target.exists() {
            std::fs::remove_dir_all(&target)?;
        }
        line.time()
    };
    Contender { name: name.to_owned(), work: Box::new(work) }
}

/// Copies what git knows of the repository; what was changed since is as it is now.
fn copy_sources(root: &Path, to: &Path) -> Result<()> {
    let names = output(quiet("git").current_dir(root).args(["ls-files", "-z"]))?;
    for name in names.split('\0').filter(|name| !name.is_empty()) {
        let (from, to) = (root.join(name), to.join(name));
        if from.is_file() {
            to.parent().map(std::fs::create_dir_all).transpose()?;
            std::fs::copy(&from, &to).with_context(|| format!("could not copy {}", from.display()))?;
        }
    }
    Ok(())
}
