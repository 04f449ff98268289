//! Measurements of ours, the peers and the physical floor, interleaved in one run on one machine.
//!
//! A target is met by its ratio, never by an absolute figure, so everything that a ratio compares is measured
//! round by round side by side. Every run's exit status is checked: a fast failure is no result. Never part of CI.

mod amount;
mod contender;
mod keys;
mod memory;
mod race;
mod row;
mod run;
mod world;

use std::path::Path;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::peers::{self, Peers};
use world::World;

/// Command line of `cargo xtask bench`.
#[derive(Args)]
pub(crate) struct Options {
    /// What to measure; everything without it
    area: Option<Area>,
    /// Measure the peers too, as far as they are installed (`cargo xtask peers`)
    #[arg(long)]
    peers: bool,
    /// Write the rows as JSON to standard output, and progress to standard error
    #[arg(long)]
    json: bool,
    /// Rounds of the short measurements
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
}

/// A part of the performance targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Area {
    /// S1: `sandbar run`, whole process
    Run,
    /// E6: memory of the keeper
    Memory,
    /// K1: a key typed to a command on a terminal, until its echo
    Keys,
}

/// What an area comes to.
enum Found {
    Row(row::Row),
    Amount(amount::Amount),
}

/// Measures, and prints the rows. Returns true: a target that is missed is a result, not an error.
///
/// # Errors
/// When something cannot be built, or a measured command fails.
pub(crate) fn run(root: &Path, options: &Options) -> Result<bool> {
    let peers = if options.peers { peers::find(root)? } else { Peers::default() };
    if options.peers {
        for (name, version) in peers.versions() {
            eprintln!("peer {name}: {}", version.as_deref().unwrap_or("not found, see `cargo xtask peers`"));
        }
    }
    let areas = options.area.as_ref().map_or(Area::value_variants(), std::slice::from_ref);
    let mut rows = Vec::new();
    for area in areas {
        // Each has a world of its own: nothing that another one left behind is measured.
        let world = World::new(root)?;
        match area {
            Area::Run => rows.extend(run::rows(&world, &peers, options.runs)?.into_iter().map(Found::Row)),
            Area::Memory => rows.extend(memory::amounts(&world)?.into_iter().map(Found::Amount)),
            Area::Keys => rows.extend(keys::rows(&world, options.runs)?.into_iter().map(Found::Row)),
        }
    }
    if options.json {
        let rows: Vec<_> = rows
            .iter()
            .map(|found| match found {
                Found::Row(row) => row.to_json(),
                Found::Amount(amount) => amount.to_json(),
            })
            .collect();
        println!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(true);
    }
    for found in &rows {
        match found {
            Found::Row(row) => println!("{row}"),
            Found::Amount(amount) => println!("{amount}"),
        }
    }
    Ok(true)
}
