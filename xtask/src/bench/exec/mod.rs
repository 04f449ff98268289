//! E1 to E5, E7 and S2: the exec server, and the peer's beside it.
//!
//! Both are spoken to by one client ([`client`]), over the transport that the peer has. What the peer can't do at all, or
//! not within a deadline, is said, never waited for.

mod carve_outs;
mod client;
mod files;
mod flood;
mod output;
mod restart;
mod server;
mod socket;
mod starts;

use std::time::Duration;

use anyhow::{Context, Result};

use super::race::Times;
use super::row::Role;
use super::world::World;
use super::{Chosen, Found};
use crate::peers::Peers;

pub(super) use client::{Client, command};
pub(super) use server::{OURS, PEER, Server};

/// How long an answer, or all of a command's output, may take before a server counts as wedged. A 500th start in a row
/// takes the peer 6 s.
const ANSWER: Duration = Duration::from_secs(30);

/// Who is measured.
struct Servers {
    ours: Server,
    peer: Option<Server>,
}

/// Measures everything.
///
/// # Errors
/// A server can't be started, or does not what it was asked for.
pub(super) fn measure(world: &World, peers: &Peers, chosen: &Chosen<'_>) -> Result<Vec<Found>> {
    let (codex, runs) = (peers.codex.as_deref(), chosen.runs);
    let servers = || {
        let peer = codex.map(|codex| Server::peer(world, codex)).transpose()?;
        anyhow::Ok(Servers { ours: Server::ours(world)?, peer })
    };
    let mut found = Vec::new();
    if chosen.has("E1") {
        found.push(Found::Row(starts::one_by_one(world, &servers()?, runs)?));
    }
    if chosen.has("E2") {
        found.push(Found::Row(starts::at_once(world, &servers()?, runs)?));
    }
    if chosen.has("E3") {
        found.extend(output::rows(world, &servers()?, runs)?.map(Found::Row));
    }
    if chosen.has("E4") {
        found.extend(files::rows(world, &servers()?, runs)?.into_iter().map(Found::Row));
    }
    if chosen.has("E5") {
        found.extend(flood::in_flight(world, servers)?.into_iter().map(Found::Amount));
        found.push(Found::Row(flood::terminate(world, &servers()?, runs)?));
    }
    if chosen.has("E7") {
        found.extend(restart::amounts(world, codex, chosen.writers)?.into_iter().map(Found::Amount));
    }
    if chosen.has("S3") {
        let rows = carve_outs::rows(world, &servers()?, peers.bwrap.as_deref(), runs)?;
        found.extend(rows.into_iter().map(Found::Row));
    }
    if chosen.has("S2") {
        let (row, added) = starts::sandboxed(world, &servers()?, runs)?;
        found.extend([Found::Row(row), Found::Amount(added)]);
    }
    Ok(found)
}

/// Our times, and those of the others with what each is to us.
fn sorted(times: Vec<Times>, roles: &[Role]) -> Result<(Times, Vec<(Role, Times)>)> {
    let mut times = times.into_iter();
    let ours = times.next().context("a race without times")?;
    Ok((ours, roles.iter().copied().zip(times).collect()))
}

/// Bytes of which no two places look alike, so that what is lost, doubled or moved is seen.
fn pattern(bytes: usize) -> Vec<u8> {
    let words = (0_u64..).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes());
    words.flatten().take(bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_never_comes_again() {
        let pattern = pattern(80_000);
        let words: std::collections::HashSet<_> = pattern.chunks(8).collect();
        assert_eq!((pattern.len(), words.len()), (80_000, 10_000));
    }
}
