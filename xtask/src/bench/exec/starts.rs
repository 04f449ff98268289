//! E1, E2 and S2: starts through a server, one after another, at once, and in a sandbox.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::client::{Client, Dialect, Received, command, url};
use super::server::{OURS, PEER, Server};
use super::socket::Acks;
use super::{Servers, sorted};
use crate::bench::amount::{Amount, Unit};
use crate::bench::contender::Line;
use crate::bench::race::{Contender, Pace, race};
use crate::bench::row::{Role, Row, Target};
use crate::bench::world::World;

const TRUE: &str = "/bin/true";

/// How many starts are asked for at once.
const AT_ONCE: u64 = 500;

/// The peer takes seconds for each of them.
const AT_ONCE_ROUNDS: u32 = 5;

/// The most that 500 starts at once may take.
const AT_ONCE_WITHIN: Duration = Duration::from_millis(600);

/// What the peer is called to a client that answers every segment at once.
const QUICK_PEER: &str = "codex, quick acks";

/// The most that a sandbox may add to a start, in milliseconds.
const SANDBOX_MS: f64 = 1.6;

const SANDBOXED: &str = "sandboxed";
const UNSANDBOXED: &str = "without a sandbox";

/// E1: from the start of a command until it is closed, one after another.
///
/// # Errors
/// A start fails.
pub(super) fn one_by_one(world: &World, servers: &Servers, runs: u32) -> Result<Row> {
    eprintln!("measuring E1: start of {TRUE} until it is closed, {runs} rounds");
    let start = command(&[TRUE], &world.workspace);
    let mut contenders = vec![runs_of(OURS, servers.ours.client()?, &start)];
    contenders.push(Line::new(TRUE, &world.workspace).starts(TRUE));
    if let Some(peer) = &servers.peer {
        contenders.push(runs_of(PEER, peer.client()?, &start));
        contenders.push(runs_of(QUICK_PEER, peer.client_with(Acks::Quick, Dialect::Plain)?, &start));
    }
    let (ours, others) =
        sorted(race(contenders, runs, Pace::EveryRound)?, &[Role::Floor, Role::Peer, Role::Peer])?;
    let targets = vec![Target::near(TRUE, 3.0), Target::slower(PEER, 25.0)];
    Ok(Row { id: "E1", name: "start until closed, one after another", ours, others, targets, bytes: None })
}

/// E2: starts asked for at once, until all are answered.
///
/// # Errors
/// A start fails.
pub(super) fn at_once(world: &World, servers: &Servers, runs: u32) -> Result<Row> {
    let rounds = runs.min(AT_ONCE_ROUNDS);
    eprintln!("measuring E2: {AT_ONCE} starts at once, {rounds} rounds");
    let sleep = command(&["sleep", "86400"], &world.workspace);
    let mut contenders = vec![starts_of(OURS, &servers.ours, &sleep)?];
    if let Some(peer) = &servers.peer {
        contenders.push(starts_of(PEER, peer, &sleep)?);
    }
    let (ours, others) = sorted(race(contenders, rounds, Pace::EveryRound)?, &[Role::Peer])?;
    let targets = vec![Target::Within(AT_ONCE_WITHIN)];
    Ok(Row { id: "E2", name: "500 starts at once", ours, others, targets, bytes: None })
}

/// S2: what a sandbox adds to a start.
///
/// # Errors
/// A start fails.
pub(super) fn sandboxed(world: &World, servers: &Servers, runs: u32) -> Result<(Row, Amount)> {
    eprintln!("measuring S2: start of {TRUE} until it is closed, with a sandbox and without, {runs} rounds");
    let start = command(&[TRUE], &world.workspace);
    let mut inside = start.clone();
    inside["sandbox"] = sandbox(&world.workspace);
    let contenders = vec![
        runs_of(SANDBOXED, servers.ours.client()?, &inside),
        runs_of(UNSANDBOXED, servers.ours.client()?, &start),
    ];
    let (ours, others) = sorted(race(contenders, runs, Pace::EveryRound)?, &[Role::Floor])?;
    let outside = others.first().context("no time")?.1.median;
    let added = Amount {
        id: "S2",
        name: "a sandbox adds to a start, difference of medians".into(),
        value: (ours.median.as_secs_f64() - outside.as_secs_f64()) * 1e3,
        unit: Unit::Milliseconds,
        at_most: Some(SANDBOX_MS),
    };
    let row =
        Row { id: "S2", name: "start through the server", ours, others, targets: Vec::new(), bytes: None };
    Ok((row, added))
}

/// The sandbox that a Codex client asks for in its mode `workspace-write`.
pub(super) fn sandbox(workspace: &Path) -> Value {
    let special = |value: Value, access: &str| json!({"path": {"type": "special", "value": value}, "access": access, "missing_path_behavior": "skip"});
    json!({
        "permissions": {
            "type": "managed",
            "file_system": {"type": "restricted", "entries": [
                special(json!({"kind": "root"}), "read"),
                special(json!({"kind": "project_roots"}), "write"),
                special(json!({"kind": "slash_tmp"}), "write"),
                special(json!({"kind": "project_roots", "subpath": ".git"}), "read"),
            ]},
            "network": "restricted",
        },
        "cwd": url(workspace),
        "workspaceRoots": [url(workspace)],
    })
}

fn runs_of<'a>(name: &str, mut client: Client, start: &'a Value) -> Contender<'a> {
    Contender { name: name.to_owned(), work: Box::new(move || client.run(start)) }
}

fn starts_of<'a>(name: &str, server: &'a Server, start: &'a Value) -> Result<Contender<'a>> {
    // Acknowledged at once, so that taking down, which isn't measured, doesn't take forty times as long.
    let mut client = server.client_with(Acks::Quick, Dialect::Plain)?;
    let work = move || {
        let started = Instant::now();
        let asked: Vec<_> = (0..AT_ONCE).map(|_| client.send_start(start)).collect::<Result<_>>()?;
        let (mut answered, deadline) = (0, started + super::ANSWER);
        while answered < AT_ONCE {
            match client.receive(deadline)?.context("a start was not answered")? {
                Received::Answer(..) => answered += 1,
                Received::Refusal(_, error) => anyhow::bail!("a start was refused: {error}"),
                Received::Output(_) | Received::Event(_) => {}
            }
        }
        let took = started.elapsed();
        client.terminate(&asked.into_iter().map(|(_, process)| process).collect::<Vec<_>>())?;
        Ok(took)
    };
    Ok(Contender { name: name.to_owned(), work: Box::new(work) })
}
