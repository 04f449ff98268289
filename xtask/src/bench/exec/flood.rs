//! E5: many requests in flight, and ends that are asked for while output floods the same connection.
//!
//! The peer wedges for ever at some hundreds of requests, so both have a deadline: what was not answered by then counts as
//! not answered.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::client::{Client, Received, command, request, url};
use super::server::{OURS, PEER, Server};
use super::{Servers, sorted};
use crate::bench::amount::{Amount, Unit};
use crate::bench::race::{Contender, Pace, race};
use crate::bench::row::{Role, Row, Target};
use crate::bench::world::World;

const ID: &str = "E5";

const IN_FLIGHT: u64 = 10_000;

/// Nothing for this long, while answers are due, is wedged: each of them takes a millisecond at the most.
const SILENCE: Duration = Duration::from_secs(5);

/// The most that an end may take while output floods.
const TERMINATE_WITHIN: Duration = Duration::from_millis(20);

/// Ends that are asked for.
const ENDS: u32 = 100;

/// What became of requests.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Answers {
    results: u64,
    errors: u64,
    took: Duration,
}

/// Requests in flight: how many are not answered, how many are refused, how long it took.
///
/// # Errors
/// Ours ends the connection.
pub(super) fn in_flight(world: &World, servers: impl Fn() -> Result<Servers>) -> Result<Vec<Amount>> {
    let mut found = Vec::new();
    let methods =
        [("environment/status", json!({})), ("fs/getMetadata", json!({"path": url(&world.workspace)}))];
    for (method, params) in methods {
        eprintln!("measuring {ID}: {IN_FLIGHT} × {method} in flight");
        // What one that wedged holds would be measured with the next.
        let Servers { ours, peer } = servers()?;
        let mut push = |name: &str, what: &str, value: f64, unit, at_most| {
            found.push(Amount { id: ID, name: format!("{name}: {method}, {what}"), value, unit, at_most });
        };
        let mut count = |name: &str, server: &Server, at_most| -> Result<()> {
            let Answers { results, errors, took } = ask(server, method, &params)?;
            push(name, "without an answer", number(IN_FLIGHT - results - errors), Unit::Count, at_most);
            push(name, "refused", number(errors), Unit::Count, None);
            push(name, "until the last answer", took.as_secs_f64() * 1e3, Unit::Milliseconds, None);
            Ok(())
        };
        count(OURS, &ours, Some(0.0))?;
        if let Some(peer) = &peer {
            count(PEER, peer, None)?;
        }
    }
    Ok(found)
}

#[allow(clippy::cast_precision_loss, reason = "a count far below 2^52")]
fn number(count: u64) -> f64 {
    count as f64
}

/// Sends all requests from one thread and reads answers on another, so that whoever stops reading does not stop us.
fn ask(server: &Server, method: &str, params: &Value) -> Result<Answers> {
    let mut client = server.client()?;
    let writer = client.writer();
    // Behind those of the greeting.
    const FIRST: u64 = 1000;
    std::thread::scope(|scope| {
        let started = Instant::now();
        let sending = scope.spawn(move || {
            (0..IN_FLIGHT).try_for_each(|number| writer.send(&request(FIRST + number, method, params)))
        });
        let mut answers = Answers::default();
        while answers.results + answers.errors < IN_FLIGHT {
            match client.receive(Instant::now() + SILENCE)? {
                Some(Received::Answer(..)) => answers.results += 1,
                Some(Received::Refusal(..)) => answers.errors += 1,
                Some(Received::Output(_) | Received::Event(_)) => {}
                None => break,
            }
            answers.took = started.elapsed();
        }
        // Whoever waits for room that does not come.
        client.hang_up();
        // It fails where the server has stopped reading, which the count of answers says.
        let _ = sending.join();
        Ok(answers)
    })
}

/// Ends of processes while another one's output floods the connection.
///
/// # Errors
/// An end fails.
pub(super) fn terminate(world: &World, servers: &Servers, runs: u32) -> Result<Row> {
    let rounds = runs.min(ENDS);
    eprintln!("measuring {ID}: process/terminate during a flood, {rounds} rounds");
    let mut contenders = vec![ends_of(OURS, &servers.ours, world)?];
    if let Some(peer) = &servers.peer {
        contenders.push(ends_of(PEER, peer, world)?);
    }
    let (ours, others) = sorted(race(contenders, rounds, Pace::EveryRound)?, &[Role::Peer])?;
    let targets = vec![Target::P99Within(TERMINATE_WITHIN)];
    Ok(Row { id: ID, name: "terminate during a flood, until answered", ours, others, targets, bytes: None })
}

fn ends_of<'a>(name: &str, server: &'a Server, world: &'a World) -> Result<Contender<'a>> {
    let sleep = command(&["sleep", "86400"], &world.workspace);
    let flood = command(&["cat", "/dev/zero"], &world.workspace);
    let work = move || {
        // Each round has a flood of its own, so that the others aren't measured under it.
        let mut client = server.client()?;
        let sleeper = client.start(&sleep)?;
        let flooding = client.start(&flood)?;
        drown(&mut client)?;
        let started = Instant::now();
        let ended = end(&mut client, &sleeper);
        let took = started.elapsed();
        end(&mut client, &flooding)?;
        ended.map(|()| took)
    };
    Ok(Contender { name: name.to_owned(), work: Box::new(work) })
}

/// Reads until output comes as fast as it is read.
fn drown(client: &mut Client) -> Result<()> {
    const MESSAGES: u32 = 500;
    let deadline = Instant::now() + super::ANSWER;
    let mut came = 0;
    while came < MESSAGES {
        if let Received::Output(_) = client.receive(deadline)?.context("no flood came")? {
            came += 1;
        }
    }
    Ok(())
}

fn end(client: &mut Client, process: &str) -> Result<()> {
    client.call("process/terminate", &json!({"processId": process})).map(drop)
}
