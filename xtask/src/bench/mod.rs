//! Measurements of ours, the peers and the physical floor, interleaved in one run on one machine.
//!
//! A target is met by its ratio, never by an absolute figure, so everything that a ratio compares is measured
//! round by round side by side. Every run's exit status is checked: a fast failure is no result. Never part of CI.

mod amount;
mod build;
mod contender;
mod escapes;
mod exec;
mod keys;
mod memory;
mod race;
mod row;
mod run;
mod world;

use std::path::Path;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::cargo::cargo;
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
    /// Of the exec server, measure only these rows: E1, E4, …
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    only: Vec<String>,
    /// Commands that write while the server is killed (E7); its target speaks of 100
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100))]
    writers: u32,
}

/// A part of the performance targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Area {
    /// S1: `sandbar run`, whole process
    Run,
    /// E1 to E5, E7, S2, S3: the exec server
    Exec,
    /// E6: memory of the keeper and of the exec server
    Memory,
    /// S4: a build inside a sandbox and outside
    Build,
    /// K1: a key typed to a command on a terminal, until its echo
    Keys,
    /// X1: attempts to escape from a sandbox, counted
    Sandbox,
}

/// What of the exec server is measured, and how often.
struct Chosen<'a> {
    runs: u32,
    writers: u32,
    only: &'a [String],
}

impl Chosen<'_> {
    /// Whether the row with this id is wanted.
    fn has(&self, id: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only.eq_ignore_ascii_case(id))
    }
}

/// What an area comes to.
enum Found {
    Row(row::Row),
    Amount(amount::Amount),
    Comparison(escapes::Comparison),
}

/// Measures, and prints the rows. Returns true: a target that is missed is a result, not an error.
///
/// # Errors
/// When something cannot be built, or a measured command fails.
pub(crate) fn run(root: &Path, options: &Options) -> Result<bool> {
    let areas = areas(options);
    if cfg!(debug_assertions) && areas.contains(&Area::Exec) {
        return again_in_release(root);
    }
    let peers = if options.peers { peers::find(root)? } else { Peers::default() };
    if options.peers {
        for (name, version) in peers.versions() {
            eprintln!("peer {name}: {}", version.as_deref().unwrap_or("not found, see `cargo xtask peers`"));
        }
    }
    let mut rows = Vec::new();
    for area in areas {
        if area == &Area::Sandbox {
            rows.push(Found::Comparison(escapes::compare(root, &peers)?));
            continue;
        }
        // Each has a world of its own: nothing that another one left behind is measured.
        let world = World::new(root)?;
        match area {
            Area::Run => rows.extend(run::rows(&world, &peers, options.runs)?.into_iter().map(Found::Row)),
            Area::Exec => rows.extend(exec::measure(
                &world,
                &peers,
                &Chosen { runs: options.runs, writers: options.writers, only: &options.only },
            )?),
            Area::Memory => {
                rows.extend(memory::amounts(&world)?.into_iter().map(Found::Amount));
                drop(world);
                let world = World::new(root)?;
                rows.extend(memory::of_servers(&world, &peers)?.into_iter().map(Found::Amount));
            }
            // Measured above: it needs no world.
            Area::Sandbox => {}
            Area::Build => rows.push(Found::Row(build::row(&world, root, options.runs)?)),
            Area::Keys => rows.extend(keys::rows(&world, options.runs)?.into_iter().map(Found::Row)),
        }
    }
    if options.json {
        let rows: Vec<_> = rows
            .iter()
            .map(|found| match found {
                Found::Row(row) => row.to_json(),
                Found::Amount(amount) => amount.to_json(),
                Found::Comparison(comparison) => comparison.to_json(),
            })
            .collect();
        println!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(true);
    }
    for found in &rows {
        match found {
            Found::Row(row) => println!("{row}"),
            Found::Amount(amount) => println!("{amount}"),
            Found::Comparison(comparison) => println!("{comparison}"),
        }
    }
    Ok(true)
}

fn areas(options: &Options) -> &[Area] {
    options.area.as_ref().map_or(Area::value_variants(), std::slice::from_ref)
}

/// The same command line as a release: a client that checks every byte must be faster than the server that it measures.
fn again_in_release(root: &Path) -> Result<bool> {
    let line = std::env::args_os().skip(1);
    let status =
        cargo(root).args(["run", "--release", "--quiet", "--package", "xtask", "--"]).args(line).status()?;
    Ok(status.success())
}
