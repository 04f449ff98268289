//! S3: how a sandbox grows with what is carved out of it.
//!
//! A start through our server in the sandbox of a client that names so many read-only files of its workspace, less one
//! that names none; and bubblewrap as a whole process with the same as arguments.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::client::{Client, command, url};
use super::server::OURS;
use super::starts::sandbox;
use super::{Servers, sorted};
use crate::bench::contender::Line;
use crate::bench::race::{Contender, Pace, race};
use crate::bench::row::{Role, Row, Target};
use crate::bench::world::World;

const TRUE: &str = "/bin/true";

const ROUNDS: u32 = 20;

/// The carve-outs of each row; of the one that has a target, the most that they may take.
const ROWS: [(usize, &str, Option<Duration>); 5] = [
    (0, "start with no carve-outs", None),
    (10, "start with 10 carve-outs", None),
    (100, "start with 100 carve-outs", None),
    (500, "start with 500 carve-outs", Some(Duration::from_millis(15))),
    (1000, "start with 1000 carve-outs", None),
];

/// Measures the rows of S3.
///
/// # Errors
/// A start fails.
pub(super) fn rows(world: &World, servers: &Servers, bwrap: Option<&Path>, runs: u32) -> Result<Vec<Row>> {
    let rounds = runs.min(ROUNDS);
    eprintln!("measuring S3: starts with up to 1000 carve-outs, {rounds} rounds each");
    let folder = world.workspace.join("carved");
    std::fs::create_dir(&folder)?;
    let names = (0..1000).map(|number| folder.join(number.to_string()));
    let files: Vec<PathBuf> = names.collect();
    for file in &files {
        std::fs::write(file, "")?;
    }
    let mut rows = Vec::new();
    for (count, name, within) in ROWS {
        let start = carved(&world.workspace, &files[..count])?;
        let mut contenders = vec![starts(servers.ours.client()?, &start)];
        if let Some(bwrap) = bwrap {
            contenders.push(by_bwrap(bwrap, world, &files[..count]).starts("bwrap"));
        }
        let (ours, others) = sorted(race(contenders, rounds, Pace::EveryRound)?, &[Role::Peer])?;
        let targets = within.map(Target::Within).into_iter().collect();
        rows.push(Row { id: "S3", name, ours, others, targets, bytes: None });
    }
    Ok(rows)
}

fn starts(mut client: Client, start: &Value) -> Contender<'_> {
    Contender { name: OURS.to_owned(), work: Box::new(move || client.run(start)) }
}

/// A start in the sandbox of a client that may only read these files of its workspace.
fn carved(workspace: &Path, files: &[PathBuf]) -> Result<Value> {
    let mut start = command(&[TRUE], workspace);
    let mut wanted = sandbox(workspace);
    let entries = wanted.pointer_mut("/permissions/file_system/entries").and_then(Value::as_array_mut);
    let path = |file: &PathBuf| json!({"path": {"type": "path", "path": url(file)}, "access": "read"});
    entries.context("a sandbox without entries")?.extend(files.iter().map(path));
    start["sandbox"] = wanted;
    Ok(start)
}

fn by_bwrap(bwrap: &Path, world: &World, files: &[PathBuf]) -> Line {
    let mut line = world.bwrap(bwrap);
    for file in files {
        line = line.args(["--ro-bind".as_ref(), file.as_os_str(), file.as_os_str()]);
    }
    line.args([TRUE])
}
