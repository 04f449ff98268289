//! E3: much output of one command to one client, every byte compared with what was written.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::client::{Client, Dialect, Received, command};
use super::server::{OURS, PEER};
use super::socket::Acks;
use super::{Servers, pattern, sorted};
use crate::bench::contender::Line;
use crate::bench::race::{Contender, Pace, race};
use crate::bench::row::{Role, Row, Target};
use crate::bench::world::World;

const BYTES: usize = 200_000_000;
const ROUNDS: u32 = 5;

/// Room for output that the client has, made known again with each quarter of it that was used: as our own client does.
const WINDOW_BYTES: usize = 1 << 20;

/// Ours with output in binary frames.
const BINARY: &str = "sandbar serve, binary";

const CAT: &str = "cat";

/// Measures both rows of E3.
///
/// # Errors
/// Output is missing, or other than what was written.
pub(super) fn rows(world: &World, servers: &Servers, runs: u32) -> Result<[Row; 2]> {
    let rounds = runs.min(ROUNDS);
    eprintln!("measuring E3: {} MB of output, {rounds} rounds", BYTES / 1_000_000);
    let content = pattern(BYTES);
    let file = world.folder.path().join("output");
    std::fs::write(&file, &content)?;
    let start = cat(&file, &world.workspace);
    let binary = servers.ours.client_with(Acks::Ordinary, Dialect::Binary)?;
    let mut contenders = vec![
        output_of(OURS, servers.ours.client()?, &start, &content, None),
        output_of(BINARY, binary, &start, &content, Some(WINDOW_BYTES)),
        Line::new(CAT, &world.workspace).args([&file]).writes(CAT, BYTES as u64),
    ];
    if let Some(peer) = &servers.peer {
        contenders.push(output_of(PEER, peer.client()?, &start, &content, None));
    }
    let mut times = race(contenders, rounds, Pace::EveryRound)?;
    std::fs::remove_file(&file)?;
    let binary = times.remove(1);
    let (ours, others) = sorted(times, &[Role::Floor, Role::Peer])?;
    let row = |name, ours, targets| Row {
        id: "E3",
        name,
        ours,
        others: others.clone(),
        targets,
        bytes: Some(BYTES as u64),
    };
    Ok([
        row("200 MB of output, JSON", ours, vec![Target::slower(PEER, 4.0)]),
        row("200 MB of output, binary frames within credit", binary, vec![Target::slower(PEER, 8.0)]),
    ])
}

fn cat(file: &Path, folder: &Path) -> Value {
    command(&[CAT, &file.to_string_lossy()], folder)
}

fn output_of<'a>(
    name: &str,
    mut client: Client,
    start: &'a Value,
    content: &'a [u8],
    window: Option<usize>,
) -> Contender<'a> {
    let work = move || {
        let started = Instant::now();
        // Output that came before the answer would be missing, which is seen.
        let process = client.start(start)?;
        let mut decoded = Vec::new();
        let (mut came, mut last, mut granted) = (0, 0, 0);
        let deadline = started + super::ANSWER;
        let code = loop {
            if let Some(window) = window
                && came + window - granted >= window / 4
            {
                grant(&client, &process, came + window - granted)?;
                granted = came + window;
            }
            match client.receive(deadline)?.context("output did not come")? {
                Received::Output(output) => {
                    ensure!(output.process == process, "output of {}", output.process);
                    // The end of the command has a number too, and may come before the last of its output.
                    ensure!(output.seq > last, "{} behind {last}", output.seq);
                    last = output.seq;
                    let bytes = output.bytes(&mut decoded)?;
                    let expected = content.get(came..came + bytes.len());
                    ensure!(expected == Some(bytes), "output behind {came} bytes is not what was written");
                    came += bytes.len();
                }
                Received::Answer(..) | Received::Refusal(..) | Received::Event(_) => {}
            }
            if let Some(code) = client.ended(&process) {
                break code;
            }
        };
        let took = started.elapsed();
        ensure!(came == content.len(), "{came} bytes came instead of {}", content.len());
        ensure!(code == 0, "it ended with exit code {code}");
        Ok(took)
    };
    Contender { name: name.to_owned(), work: Box::new(work) }
}

fn grant(client: &Client, process: &str, bytes: usize) -> Result<()> {
    client.notify("process/credit", &json!({"processId": process, "bytes": bytes}))
}
